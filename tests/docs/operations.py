"""
The page on operations, typed: each command, on a machine of its own that systemd has booted.

Most of the time some 30 programs start, one after the other; so this is a step of ``.ci/run`` of
its own, and trial does not find it among the other tests.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pbauth.net.certificates import makeCertificate
from tests.support.machine import Machine, whyNot
from tests.support.operations import DOWNLOADS, blocks, commands
from tests.support.postgres import postgres

#: A line on which somebody answers: what the program asks, and in parentheses what is typed.
ANSWERED = re.compile(r"(.*[:?]) \(([^()]*)\)")


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
