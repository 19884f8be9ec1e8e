"""``pbauth export`` and ``pbauth import``, run as people run them."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase, TestCase

from pbauth import Hashing, SQLAuthorizer, Unauthorized
from pbauth.accounts.records import Record
from pbauth.cli import main
from pbauth.dumps.formats import FORMATS
from tests.support.listings import LISTINGS
from tests.support.processes import PBAUTH, Program
from tests.support.records import SCRAM, records

JSONL = FORMATS["jsonl"]


class DumpTestCase(TestCase):
    """A state folder of its own."""

    def setUp(self) -> None:
        self.state = os.path.abspath(self.mktemp())

    def start(self, *arguments: str, **options: Any) -> Program:
        """Start the command."""
        program = Program(*PBAUTH, "--state", self.state, *arguments, **options)
        self.addCleanup(program.stop)
        return program

    async def pbauth(self, *arguments: str, code: int = 0, **options: Any) -> str:
        """Run the command."""
        program = self.start(*arguments, **options)
        await program.whenEnded()
        self.assertEqual(program.exitCode, code, program.output)
        self.assertNotIn("Traceback", program.output)
        return program.output

    def dump(self, there: list[Record], more: str = "", name: str = "users.jsonl") -> str:
        """Write a dump."""
        path = os.path.join(self.mktemp(), name)
        os.makedirs(os.path.dirname(path))
        with open(path, "wb") as file:
            for record in there:
                file.write(JSONL.write(record))
            file.write(more.encode())
        return os.path.abspath(path)

    async def stored(self) -> list[Record]:
        """What is in the store now."""
        authorizer = SQLAuthorizer(
            os.path.join(self.state, "accounts.sqlite"), hashing=Hashing.CHEAPEST
        )
        try:
            found: list[Record] = await authorizer.readRecords()
        finally:
            authorizer.close()
        return found


class CommandTests(DumpTestCase):
    """Files, and standard input and output."""

    async def test_roundTrip(self) -> None:
        """What was exported, in either format, is imported as it was."""
        there = records(*range(30))
        said = await self.pbauth("import", self.dump(there))
        self.assertRegex(said, r"^Imported 30 users in \d+\.\d seconds \([\d,]+ users/s\)\.\n$")
        for name in ("copy.jsonl", "copy.csv"):
            path = os.path.abspath(os.path.join(os.path.dirname(self.dump([])), name))
            said = await self.pbauth("export", path)
            self.assertRegex(said, r"^Exported 30 users in \d+\.\d seconds\.\n$")
            self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
            self.state = os.path.abspath(self.mktemp())
            await self.pbauth("import", path)
            self.assertEqual(await self.stored(), there)

    async def test_standard(self) -> None:
        """By standard input and output, with no bar where there is no terminal."""
        text = b"".join(JSONL.write(record) for record in records(1, 2)).decode()
        said = await self.pbauth("import", "-", stdin=text)
        self.assertEqual(len(said.splitlines()), 1, said)
        self.assertTrue(said.startswith("Imported 2 users"))
        program = self.start("export")
        await program.whenEnded()
        self.assertEqual(program.output.count("\n"), 3)
        self.assertIn(text, program.output)
        said = await self.pbauth("export", "--format", "csv")
        self.assertIn("user0001,,SCRAM-SHA-256$4096:", said)
        said = await self.pbauth("import", "--format=csv", "-", stdin="name,locked\nbob,true")
        self.assertTrue(said.startswith("Imported 1 user in"), said)
        self.assertIn(Record("bob", True), await self.stored())

    async def test_passwords(self) -> None:
        """The files of the documentation: passwords in clear, and verifiers."""
        said = await self.pbauth("import", str(LISTINGS / "users.csv"))
        self.assertTrue(said.startswith("Imported 2 users"), said)
        await self.pbauth("import", str(LISTINGS / "users.jsonl"))
        authorizer = SQLAuthorizer(os.path.join(self.state, "accounts.sqlite"))
        self.addCleanup(authorizer.close)
        for name, password in [
            ("alice", "correct horse battery"),
            ("bob smith", "staple of the day"),
            ("carol", "correct horse battery"),
        ]:
            identity = await authorizer.getIdentityRequest(name)
            await identity.verifyPlainPassword(password)
            with self.assertRaises(Unauthorized):
                await identity.verifyPlainPassword("another")
        self.assertNotIn("correct horse", await self.pbauth("export"))

    async def test_legacy(self) -> None:
        """With --legacy, passwords in clear become MD5 verifiers, too."""
        line = '{"name": "alice", "password": "open sesame"}\n'
        await self.pbauth("import", "--legacy", "-", stdin=line)
        (alice,) = await self.stored()
        self.assertEqual(set(dict(alice.verifiers)), {"SCRAM-SHA-256", "PB-MD5"})

    async def test_audit(self) -> None:
        """Each batch, and the export, are in the audit, with who did it."""
        audit = os.path.abspath(self.mktemp())
        path = self.dump(records(*range(5)))
        await self.pbauth("--audit", audit, "import", "--batch", "2", path)
        await self.pbauth("--audit", audit, "export")
        told = [json.loads(line) for line in Path(audit).read_text().splitlines()]
        self.assertEqual(
            [(each["event"], each.get("users")) for each in told],
            [("users.imported", number) for number in (2, 2, 1)] + [("users.read", None)],
        )
        self.assertTrue(all(each["operator"] for each in told))

    async def test_badLine(self) -> None:
        """One in the third batch is named; two batches are in, and --resume goes on."""
        there = records(*range(25))
        path = self.dump(there, '{"name": "eve", "password": "short"}\n')
        said = await self.pbauth("import", "--batch", "10", path, code=1)
        self.assertEqual(
            said,
            f"Error: {path}, line 26: The password is too short. Choose one of at least 6 "
            "characters; a few words are also good. So far, 20 users were imported, up to line "
            "20. Fix that, and run the same command with --resume.\n",
        )
        self.assertEqual(await self.stored(), there[:20])
        path = self.dump(there, '{"name": "eve", "password": "longer"}\n')
        said = await self.pbauth("import", "--batch", "10", path, code=1)
        self.assertIn("line 1: there is a user 'user0000' already", said)
        said = await self.pbauth("import", "--resume", path)
        self.assertRegex(said, r"^Imported 6 users in .*; 20 were there already\.\n$")
        self.assertEqual([each.name for each in await self.stored()][:2], ["eve", "user0000"])

    async def test_policy(self) -> None:
        """Imports ask the policy; so do other subcommands."""
        line = '{"name": "alice", "password": "password123"}\n'
        policy = "--password-policy=length=8,strength=2"
        said = await self.pbauth(policy, "import", "-", stdin=line, code=1)
        self.assertIn("standard input, line 1: The password is too easy to guess", said)
        said = await self.pbauth(
            *("user", "add", "alice", "--password-stdin"),
            stdin="password123\n",
            code=1,
            PBAUTH_PASSWORD_POLICY="length=12",
        )
        self.assertIn("at least 12 characters", said)
        self.assertEqual(await self.stored(), [])


class InterruptedTests(DumpTestCase):
    """Ctrl-C in the middle."""

    async def test_waiting(self) -> None:
        """While the next line is waited for: one line says how far it came; --resume goes on."""
        there = records(*range(40))
        texts = [JSONL.write(record).decode() for record in there]
        pipe = os.path.abspath(f"{self.mktemp()}.jsonl")
        os.mkfifo(pipe)
        # Open for both, so that nobody waits for the other end, and it does not end.
        writing = os.open(pipe, os.O_RDWR)
        self.addCleanup(os.close, writing)
        program = self.start("import", "--batch", "10", pipe, terminal=True, stdin=None)
        os.write(writing, "".join(texts[:25]).encode())
        await program.waitFor("20 users,")
        program.kill("INT")
        await program.whenEnded()
        self.assertTrue(
            program.output.endswith(
                "\nInterrupted: 20 users were imported, up to line 20. To continue, run the "
                "same command with --resume.\r\n"
            ),
            program.output,
        )
        self.assertEqual(program.exitCode, 130)
        self.assertEqual(await self.stored(), there[:20])
        said = await self.pbauth("import", "--resume", "-", stdin="".join(texts))
        self.assertRegex(said, r"^Imported 20 users in .*; 20 were there already\.\n$")
        self.assertEqual(await self.stored(), there)

    async def test_working(self) -> None:
        """While batches are written: nothing is lost or doubled."""
        there = records(*range(9_999))
        path = self.dump(there)
        program = self.start("import", "--batch", "10", path, terminal=True, stdin=None)
        await program.waitFor(r"\d users/s")
        program.write("\x03")
        await program.whenEnded()
        self.assertEqual(program.exitCode, 130, program.output)
        found = re.search(
            r"(?m)^Interrupted: ([\d,]+) users were imported, up to line (\d+)\.", program.output
        )
        assert found is not None, program.output
        done = int(found[2])
        self.assertEqual(int(found[1].replace(",", "")), done)
        self.assertEqual(await self.stored(), there[:done])
        said = await self.pbauth("import", "--resume", path)
        self.assertRegex(said, rf"^Imported {9_999 - done:,} users in .*; {done:,} were there")
        self.assertEqual(await self.stored(), there)

    async def test_hashing(self) -> None:
        """While passwords are hashed it ends at once, too."""
        lines = [
            f'{{"name": "user{number:03}", "password": "a password"}}\n' for number in range(90)
        ]
        path = self.dump([], "".join(lines))
        # With as many iterations as people have.
        program = self.start("import", path, terminal=True, stdin=None, forked=False)
        # After the first second it knows how long the rest will take.
        await program.waitFor(r"\d+% +\d\d:\d\d:\d\d +[1-9]\d* users, ")
        program.kill("INT")
        await program.whenEnded()
        self.assertEqual(program.exitCode, 130, program.output)
        self.assertIn("Interrupted: nothing was imported.", program.output)
        self.assertEqual(await self.stored(), [])

    async def test_export(self) -> None:
        """An export that is interrupted leaves no file."""
        await self.pbauth("import", self.dump(records(*range(9_000))))
        path = os.path.join(os.path.dirname(self.dump([])), "copy.jsonl")
        program = self.start("export", path, terminal=True, stdin=None)
        await program.waitFor("users/s")
        program.kill("INT")
        await program.whenEnded()
        if program.exitCode:
            # It may have been faster.
            self.assertEqual(os.listdir(os.path.dirname(path)), ["users.jsonl"])


class TerminalTests(DumpTestCase):
    """The bar."""

    async def test_bar(self) -> None:
        """On a terminal: how much is done, the rate, and the time left; and the end in a line."""
        path = self.dump(records(*range(3_000)))
        program = self.start("import", "--batch", "100", path, terminal=True, stdin=None)
        await program.whenEnded()
        self.assertEqual(program.exitCode, 0, program.output)
        self.assertRegex(program.output, r"Importing +\[#+-+\] +\d+% +[\d,]+ users, [\d,]+ users/s")
        self.assertRegex(program.output, r"3,000 users, [\d,]+ users/s")
        self.assertRegex(program.output, r"(?m)^Imported 3,000 users in ")
        program = self.start("export", path, terminal=True, stdin=None)
        await program.whenEnded()
        self.assertRegex(program.output, r"Exporting .*3,000 users, [\d,]+ users/s")
        self.assertRegex(program.output, r"(?m)^Exported 3,000 users in ")


class HelpTests(SynchronousTestCase):
    """What they say of themselves."""

    def test_help(self) -> None:
        """Both say what there is to know first."""
        for name, said in (("import", "--resume"), ("export", "can try out passwords")):
            ran = CliRunner().invoke(main, [name, "--help"])
            self.assertIn(said, ran.output)
        self.assertNotIn(SCRAM, ran.output)

    def test_mistakes(self) -> None:
        """What is wrong before any store is opened is said in one line."""
        there = os.path.abspath(self.mktemp())
        os.mkdir(there)
        for arguments, said, code in [
            (("import", "missing.jsonl"), "Can't read missing.jsonl: No such file", 1),
            (("import", "--format", "csv", there), "is a folder", 1),
            (("export", os.path.join(there, "no", "x.csv")), "Can't write", 1),
            (("export", "--format", "csv", "/dev/null"), "is not a file", 1),
            (("export", "users.txt"), "does not say in what format", 2),
            (("--password-policy", "long", "user", "list"), "length=12,strength=3", 2),
        ]:
            ran = CliRunner().invoke(main, ["--state", there, *arguments])
            self.assertEqual(ran.exit_code, code, ran.output)
            self.assertIn(said, ran.output)
            self.assertEqual(len(ran.output.splitlines()), 1 if code == 1 else 4, ran.output)
        self.assertEqual(os.listdir(there), [])
