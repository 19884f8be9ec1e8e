"""The page on operations, typed: each command, on a machine of its own that systemd has booted."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

from docutils import nodes
from twisted.trial.unittest import SynchronousTestCase

from pbauth.net.certificates import makeCertificate
from tests.support.machine import Machine, whyNot
from tests.support.pages import DOCS, ROOT, read
from tests.support.postgres import postgres

#: A line on which somebody answers: what the program asks, and in parentheses what is typed.
ANSWERED = re.compile(r"(.*[:?]) \(([^()]*)\)")

#: What an installation downloads: the machine has it already.
DOWNLOADS = re.compile(
    r"python3 -m venv /opt/pbauth|"
    r"/opt/pbauth/bin/pip install (?:--upgrade )?'pbauth\[([\w,]+)\]'"
)


def blocks() -> list[tuple[str, str, str]]:
    """The blocks of the page: language, caption and text."""
    document, _ = read(DOCS / "howto" / "operations.rst")
    return [
        (block["classes"][0], block.get("caption", ""), block.astext())
        for block in document.findall(nodes.literal_block)
    ]


def commands(text: str) -> list[tuple[str, list[str]]]:
    """The commands of a block, each with the lines that follow it."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("# "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


class PageTests(SynchronousTestCase):
    """What there is to type."""

    def test_blocks(self) -> None:
        """Each block is a file, with its path, or commands."""
        for language, caption, text in blocks():
            if language == "console":
                self.assertTrue(text.startswith("# "), text)
            else:
                self.assertRegex(caption, r"^/etc/\S+$")

    def test_extras(self) -> None:
        """What is downloaded has the extras that it names."""
        known = re.findall(r"(?m)^(\w+) = \[", (ROOT / "pyproject.toml").read_text())
        found = [
            match
            for language, _, text in blocks()
            if language == "console"
            for command, _ in commands(text)
            if (match := DOWNLOADS.fullmatch(command))
        ]
        self.assertEqual(len(found), 3)
        for match in found:
            self.assertEqual(set((match[1] or known[0]).split(",")) - set(known), set())


class TypedTests(SynchronousTestCase):
    """The page from its beginning to its end."""

    timeout = 300
    skip = whyNot()

    def test_typed(self) -> None:
        """Each command succeeds, and shows what the page shows."""
        # Not among the files of the test run, which may be in memory, and full of them.
        with tempfile.TemporaryDirectory(prefix="pbauth-machine-") as folder:
            machine = Machine(Path(folder) / "root")
            certificate, key = self.certificate()
            lineage = "/etc/letsencrypt/live/pb.example.com"
            machine.write(f"{lineage}/fullchain.pem", certificate)
            machine.write(f"{lineage}/privkey.pem", key)
            machine.copy("/etc/fail2ban")
            # Debian's fail2ban looks after it.
            machine.write("/var/log/auth.log", "")
            host = postgres().urlOf("postgres").partition("host=")[2].replace("%2F", "/")
            machine.bind(f"{host}/.s.PGSQL.5432", "/run/postgresql/.s.PGSQL.5432")
            steps, expected = self.steps()
            results = machine.type(steps)
        for (code, output), (command, lines) in zip(results, expected, strict=False):
            shown = f"# {command}\n{output}"
            self.assertEqual(code, 0, shown)
            parts = [re.escape(word).replace(r"\.\.\.", ".*") for word in " ".join(lines).split()]
            self.assertRegex(shown, r"(?s)" + r"\s*".join(parts))
        self.assertEqual(len(results), len(steps))

    def steps(self) -> tuple[list[Any], list[tuple[str, list[str]]]]:
        """What the typist does; and for each step the command, and what it is to show."""
        steps: list[Any] = [("mkdir -p /usr/local/bin", [])]
        expected: list[tuple[str, list[str]]] = [("", [])]
        for language, caption, text in blocks():
            if language != "console":
                steps.append((caption, f"{text}\n"))
                expected.append((caption, []))
                continue
            for command, lines in commands(text):
                if DOWNLOADS.fullmatch(command):
                    continue
                answers = [match.groups() for match in map(ANSWERED.fullmatch, lines) if match]
                steps.append((command, answers))
                expected.append((command, [ANSWERED.sub(r"\1", line) for line in lines]))
        return steps, expected

    def certificate(self) -> tuple[str, str]:
        """A certificate and its key, as an authority gives them."""
        text = makeCertificate().decode()
        key, _, rest = text.partition("-----BEGIN CERTIFICATE-----")
        return f"-----BEGIN CERTIFICATE-----{rest}", key
