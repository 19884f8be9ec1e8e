"""The tutorial, typed: each command of each page, and what the page says that it says."""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import shutil
import socket
import struct
import sys
import termios
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from attrs import define
from docutils import nodes
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support.pages import DOCS, read
from tests.support.processes import PBAUTH, TWISTD_THERE, Program

TUTORIAL = DOCS / "tutorial"
LISTINGS = DOCS / "listings"

#: The ports that the programs and the pages name: two that are neighbours, and others.
PORTS = ("8800", "8801", "8787", "8080")

#: A line that the reader answers: what the program asks, and in parentheses what is typed.
ANSWERED = re.compile(r"(?:(.*[:?]) )?\(([^()]*)\)")


@define
class Terminal:
    """
    Attributes:
        name: as the captions of the page have it.
        program: what runs, or has run last.
        seen: how much of its output has been waited for.
    """

    name: str
    program: Any = None
    seen: int = 0

    async def expect(self, words: str) -> None:
        """Wait for a line of the program; ``...`` stands for anything."""
        assert self.program is not None
        parts = [re.escape(each).replace(r"\.\.\.", ".*?") for each in words.split()]
        self.seen = (await self.program.waitFor(r"\s+".join(parts), self.seen)).end()


def commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """The blocks of a page that are typed: in which terminal, and their lines."""
    document, _ = read(page)
    for block in document.findall(nodes.literal_block):
        if "console" in block["classes"]:
            yield block["caption"], block.astext().splitlines()


def freePorts() -> list[str]:
    """Free ports, for `PORTS`."""
    while True:
        with ExitStack() as held:
            found = [held.enter_context(socket.socket()) for _ in PORTS]
            found[0].bind(("127.0.0.1", 0))
            first = found[0].getsockname()[1]
            for each in found[2:]:
                each.bind(("127.0.0.1", 0))
            try:
                found[1].bind(("127.0.0.1", first + 1))
            except (OSError, OverflowError):
                continue
            return [str(each.getsockname()[1]) for each in found]


class TutorialTests(TestCase):
    """A page each, typed by somebody who has just come."""

    def setUp(self) -> None:
        self.folder = Path(os.path.abspath(self.mktemp()))
        self.home = Path(os.path.abspath(self.mktemp()))
        self.home.mkdir()
        self.ports = freePorts()
        self.key = ""

    def moved(self, text: str) -> str:
        """The text, with free ports in place of those that it names."""
        for named, free in zip(PORTS, self.ports, strict=True):
            text = text.replace(named, free)
        return text

    def start(self, command: str) -> Program:
        """Run a command as a shell would."""
        word, *arguments = shlex.split(command.replace("KEY", self.key))
        python = word != "ssh-keygen"
        path = [str(DOCS.parent), os.environ.get("PYTHONPATH", "")]
        if word.startswith("PYTHONPATH="):
            path.insert(0, word.partition("=")[2])
            word, *arguments = arguments
        if word == "pbauth":
            arguments = [*PBAUTH, *arguments]
        elif word == "twistd":
            self.assertEqual(arguments[:2], ["-n", "pbauth"])
            arguments = [*TWISTD_THERE, *arguments[2:]]
            if "--port" not in arguments:
                arguments += ["--port", f"ssl:{self.ports[2]}:interface=127.0.0.1"]
        else:
            self.assertIn(word, ("python", "ssh-keygen"))
        program = Program(
            *arguments,
            executable=sys.executable if python else word,
            stdin=None,
            directory=str(self.folder),
            terminal=True,
            forked=python,
            HOME=str(self.home),
            XDG_CONFIG_HOME=str(self.home),
            PYTHONPATH=os.pathsep.join(path),
        )
        self.addCleanup(program.stop)
        size = struct.pack("HHHH", 24, 80, 0, 0)
        fcntl.ioctl(program.process.fd, termios.TIOCSWINSZ, size)
        return program

    def enter(self, programs: Path, folder: Path) -> None:
        """Go to a folder that holds these programs; copy them, if nobody has been there."""
        self.folder = folder
        if folder.exists():
            return
        ignored = shutil.ignore_patterns("__pycache__", "dropin.cache", "pbauth-state", "go-games")
        shutil.copytree(programs, folder, ignore=ignored)
        for path in folder.glob("*.py"):
            path.write_text(self.moved(path.read_text()))

    async def walk(
        self, name: str, programs: Path = LISTINGS, staying: tuple[str, ...] = ("first terminal",)
    ) -> None:
        """Type a page, in a copy of the folder that holds its programs."""
        self.enter(programs, self.folder)
        terminals: dict[str, Terminal] = {}
        for caption, lines in commands(TUTORIAL / name):
            terminal = terminals.setdefault(caption, Terminal(caption))
            for line in map(self.moved, lines):
                if line == "^C":
                    # A client is done when its server is stopped.
                    for each in terminals.values():
                        if each is not terminal and each.name not in staying:
                            await each.program.whenEnded()
                await self.type(terminal, line)
        for terminal in terminals.values():
            self.assertIsNotNone(terminal.program)
            self.assertNotIn("Traceback", terminal.program.output)

    async def type(self, terminal: Terminal, line: str) -> None:
        """Type a line, or wait for it."""
        program = terminal.program
        if line.startswith("$ "):
            if program is not None:
                await program.whenEnded()
                self.assertNotIn("Traceback", program.output)
            terminal.program = self.start(line[2:])
            terminal.seen = 0
        elif line == "^C":
            program.kill("INT")
            await program.whenEnded()
        elif answered := ANSWERED.fullmatch(line):
            if answered[1]:
                await terminal.expect(answered[1])
            program.write(answered[2] + "\n")
        else:
            await terminal.expect(line.strip())
            if not self.key and (
                shown := re.search(r"with the key (\S+)", terminal.program.output)
            ):
                self.key = shown[1]

    async def test_names(self) -> None:
        """Anybody writes in anybody's name."""
        await self.walk("names.rst")

    async def test_capabilities(self) -> None:
        """A pen writes in one name, and is nobody else's."""
        await self.walk("capabilities.rst")

    async def test_perspectives(self) -> None:
        """The board knows who writes."""
        await self.walk("perspectives.rst")

    async def test_keyrings(self) -> None:
        """Keys are granted and taken back."""
        await self.walk("keyrings.rst")

    async def test_services(self) -> None:
        """Several services, with a program and without."""
        await self.walk("services.rst")

    async def test_live(self) -> None:
        """A server is known by its key, and another one is not trusted."""
        await self.walk("live.rst")

    async def test_inOrder(self) -> None:
        """One after the other, by one reader: who is known, and which server, stays."""
        go = DOCS / "examples" / "go"
        # On each page the key of the server is another one.
        for name, programs in (
            ("keyrings.rst", LISTINGS),
            ("services.rst", LISTINGS),
            ("live.rst", LISTINGS),
            ("go.rst", go),
            ("lending.rst", go),
        ):
            self.key = ""
            self.folder = self.home / programs.name
            await self.walk(name, programs)

    async def test_go(self) -> None:
        """Two players, and a board in the browser; of the pages before, the pub is known."""
        known = self.home / "pbauth" / "known_servers"
        known.parent.mkdir()
        known.write_text(f"127.0.0.1:{self.ports[2]} SHA256:{'A' * 43}=\n")
        await self.walk("go.rst", DOCS / "examples" / "go")

    async def test_application(self) -> None:
        """A dispatcher of jobs, first in memory, and then with accounts and a worker's key."""
        staying = ("first terminal", "third terminal")
        await self.walk("../howto/application.rst", DOCS / "examples" / "jobs", staying)


class CoverageTests(SynchronousTestCase):
    """Nothing is told that is not tried."""

    def test_pages(self) -> None:
        """Each page is walked, and each has something to type."""
        source = Path(__file__).read_text()
        for page in TUTORIAL.glob("*.rst"):
            if page.name != "index.rst":
                self.assertIn(f'"{page.name}"', source)
                self.assertTrue(list(commands(page)), page.name)
