"""The page on administration: what it shows is what happens."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from docutils import nodes
from twisted.trial.unittest import SynchronousTestCase

from pbauth import AdminService, PublicKey
from pbauth.admin.service import Administrator
from pbauth.cli import main
from pbauth.client.knownservers import KnownServers, addressOf
from pbauth.server.firstrun import _KEY, _SHOWN
from tests.support.pages import DOCS, read
from tests.support.processes import PBAUTH, Program
from tests.support.tls import TLSTestCase

SERVER = "tls:127.0.0.1:8787"


class Page:
    """The page, read."""

    def __init__(self) -> None:
        document, _ = read(DOCS / "howto" / "administration.rst")
        self.blocks = [block.astext() for block in document.findall(nodes.literal_block)]
        self.tables = [
            [[cell.astext() for cell in row.children] for row in body.children]
            for body in document.findall(nodes.tbody)
        ]


class TextTests(SynchronousTestCase):
    """What can be compared without running anything."""

    def setUp(self) -> None:
        self.page = Page()

    def test_firstRun(self) -> None:
        """The message of the first run."""
        shown = self.page.blocks[0]
        password = re.search(r"password:  (\S+)", shown)
        key = re.search(r"SHA256:\S+", shown)
        assert password is not None
        assert key is not None
        text = _SHOWN.format(name="admin", password=password[1], endpoint=SERVER)
        self.assertEqual(shown, (text + _KEY.format(fingerprint=key[0])).strip())

    def test_subcommands(self) -> None:
        """The table has those that administer, and they are there."""
        told = set()
        for call, _ in self.page.tables[1]:
            name, verb = [*call.split(), ""][:2]
            command: Any = main.commands[name]
            if hasattr(command, "commands"):
                self.assertIn(verb, command.commands)
                told.add((name, verb))
            else:
                told.add((name, ""))
        there = {
            (name, verb)
            for name in ("user", "key", "group", "session", "server")
            for verb in _verbs(name)
        } | {
            ("who-can", ""),
            ("completion", ""),
        }
        self.assertEqual(told, there)

    def test_options(self) -> None:
        """So has the table of options for a server."""
        told = set(re.findall(r"--[a-z-]+", " ".join(row[0] for row in self.page.tables[0])))
        there = {option for parameter in main.params for option in parameter.opts}
        self.assertEqual(told - there, set())
        self.assertEqual({each for each in there if each.startswith("--login")} - told, set())

    def test_protocol(self) -> None:
        """The page on the wire has the methods of the service."""
        text = (DOCS / "reference" / "protocol.rst").read_text()
        methods = {
            name.removeprefix("perspective_")
            for name in vars(Administrator)
            if name.startswith("perspective_")
        }
        for name in methods:
            self.assertIn(f"``{name}(", text)


def _verbs(name: str) -> set[str]:
    group: Any = main.commands[name]
    return set(group.commands)


class TranscriptTests(TLSTestCase):
    """What is typed, and what is answered."""

    def setUp(self) -> None:
        self.page = Page()
        self.port = self.serve()
        self.accounts = self.authorizer
        self.accounts.identities.clear()
        AdminService("admin", self.game.parent, self.accounts)
        for name, service in (("admin", "admin"), ("alice", "echo")):
            identity = self.accounts.createIdentity(name)
            identity.setPassword("secret")
            identity.addKeyByString(service, name)
            identity.save()
        identity.locked = True
        self.folder = os.path.abspath(self.mktemp())
        known = KnownServers(os.path.join(self.folder, "pbauth", "known_servers"))
        known.add(addressOf("127.0.0.1", self.port), self.pin)

    async def run_(self, line: str) -> str:
        """Type a command on a terminal; every password is `secret`. Give what is shown."""
        arguments = line.replace(SERVER, f"tls:127.0.0.1:{self.port}").split()
        self.assertEqual(arguments[0], "pbauth")
        program = Program(
            *PBAUTH,
            *arguments[1:],
            stdin=None,
            terminal=True,
            directory=self.folder,
            XDG_CONFIG_HOME=self.folder,
        )
        self.addCleanup(program.stop)
        prompts = ["Password of admin: "] if SERVER in line else []
        if " add " in line:
            prompts = ["Password: ", "Repeat for confirmation: "]
        for prompt in prompts:
            await program.waitFor(prompt)
            program.write("secret\n")
        await program.whenEnded()
        self.assertEqual(program.exitCode, 0, program.output)
        return re.sub(r" *\r?\n", "\n", program.output)

    async def test_transcripts(self) -> None:
        """Each command says just that."""
        ran = 0
        for block in self.page.blocks:
            if not block.startswith("$ "):
                continue
            for part in re.split(r"(?m)^\$ ", block)[1:]:
                line, _, expected = part.partition("\n")
                said = await self.run_(line)
                self.assertEqual(said.rstrip("\n"), expected.rstrip("\n"), line)
                ran += 1
        self.assertGreater(ran, 6)

    async def test_json(self) -> None:
        """The table of fields."""
        identity = self.accounts.identities["alice"]
        identity.addPublicKey(PublicKey(b"1" * 32, "laptop"))
        for listing, fields in self.page.tables[2]:
            words = listing.split()
            about = {"user keys": ["alice"], "key list": ["alice"], "who-can": ["echo"]}
            program = Program(
                *(*PBAUTH, "--server", f"tls:127.0.0.1:{self.port}", "--login-password-stdin"),
                *(*words, *about.get(listing, []), "--json"),
                stdin="secret\n",
                XDG_CONFIG_HOME=self.folder,
            )
            self.addCleanup(program.stop)
            await program.whenEnded()
            self.assertEqual(program.exitCode, 0, program.output)
            told = re.findall(r"[a-z]+", re.sub(r"\(.*?\)", "", fields))
            self.assertEqual(list(json.loads(program.output.splitlines()[0])), told)
