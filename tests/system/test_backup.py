"""`pbauth backup` and `pbauth restore`, while a server runs."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.task import deferLater

from pbauth import AuthServerFactory, Detached, Hashing, Password, connect
from pbauth.mechanisms import scram
from pbauth.server.state import openAuthorizer, openCertificate
from tests.support.postgres import postgres
from tests.support.processes import PBAUTH, Program, run
from tests.support.serving import ServingTestCase
from tests.support.suites.sqlstores import Awaited, addUser


class BackupTests(ServingTestCase):
    """A server that runs, on each kind of store."""

    timeout = 120

    def setUp(self) -> None:
        self.state = os.path.abspath(self.mktemp())
        self.backup = os.path.abspath(self.mktemp())

    def stores(self) -> dict[str, str | None]:
        """Return where accounts may be, by the kind."""
        return {
            "sqlite": None,
            "passwd": f"passwd:{self.state}/accounts",
            "postgresql": postgres().makeDatabase(),
        }

    def open(self, accounts: str | None, **options: Any) -> Any:
        """Open accounts as a server does."""
        authorizer = openAuthorizer(self.state, accounts, hashing=Hashing.CHEAPEST, **options)
        self.addCleanup(authorizer.close)
        return authorizer

    async def serve(self, accounts: str | None) -> int:
        """Run a server, and give its port."""
        services = MultiService()
        self.authorizer = self.open(accounts, serviceCollection=services)
        Awaited("game", services, self.authorizer)
        changes = self.authorizer.changesService()
        changes.startService()
        self.addCleanup(changes.stopService)
        return self.listen(AuthServerFactory(self.authorizer))

    async def logIn(self, port: int, name: str) -> Any:
        """Log a user in."""
        password = Password("secret", renew=False)
        perspective: Any = await connect("127.0.0.1", port, name, password, "game", name)
        self.addCleanup(perspective.broker.transport.loseConnection)
        return perspective

    async def pbauth(self, accounts: str | None, *arguments: str) -> Program:
        """Run the command."""
        where = () if accounts is None else ("--accounts", accounts)
        return await run(*PBAUTH, "--state", self.state, *where, *arguments)

    async def untilEnded(self, perspective: Any) -> None:
        """Wait until a session has ended."""
        from twisted.internet import reactor

        for _ in range(1500):
            try:
                await perspective.callRemote("whoami")
            except Detached:
                return
            await deferLater(reactor, 0.02)  # type: ignore[arg-type]
        raise AssertionError("The session has not ended.")

    async def test_restored(self) -> None:
        """All is as it was, and who was added since is thrown out. So it is on another machine."""
        for kind in self.stores():
            self.state, self.backup = os.path.abspath(self.mktemp()), os.path.abspath(self.mktemp())
            os.mkdir(self.state, 0o700)
            accounts = self.stores()[kind]
            key = openCertificate(self.state).getPublicKey().keyHash()
            port = await self.serve(accounts)
            await addUser(self.authorizer, "alice")
            before = await self.authorizer.readRecords()
            decoy = self.authorizer.getDecoyVerifier("mallory", scram.NAME)
            program = await self.pbauth(accounts, "backup", self.backup)
            self.assertEqual((program.output.count("\n"), program.exitCode), (1, 0), program.output)
            self.assertEqual(os.stat(self.backup).st_mode & 0o777, 0o600)
            await addUser(self.authorizer, "bob")
            alice, bob = await self.logIn(port, "alice"), await self.logIn(port, "bob")
            program = await self.pbauth(accounts, "restore", self.backup)
            self.assertIn("--replace", program.output)
            self.assertEqual(program.exitCode, 1)
            program = await self.pbauth(accounts, "restore", "--replace", self.backup)
            self.assertEqual(program.exitCode, 0, program.output)
            await self.untilEnded(bob)
            self.assertEqual(await alice.callRemote("whoami"), "alice")
            self.assertEqual(await self.authorizer.readRecords(), before)
            # On another machine, where there is nothing.
            self.state = os.path.abspath(self.mktemp())
            os.mkdir(self.state, 0o700)
            there = self.stores()[kind]
            program = await self.pbauth(there, "restore", self.backup)
            self.assertEqual(program.exitCode, 0, program.output)
            restored = self.open(there)
            self.assertEqual(await restored.readRecords(), before)
            self.assertEqual(restored.getDecoyVerifier("mallory", scram.NAME), decoy)
            self.assertEqual(openCertificate(self.state).getPublicKey().keyHash(), key)
            self.assertEqual(os.stat(f"{self.state}/server.pem").st_mode & 0o777, 0o600)

    async def test_ofAnotherServer(self) -> None:
        """
        A running server that is given another one's backup uses its secret and key from then on:
        two servers with different decoys for the same name would give away that nobody has it.
        """
        from twisted.internet import reactor

        for kind in self.stores():
            self.state, self.backup = os.path.abspath(self.mktemp()), os.path.abspath(self.mktemp())
            os.mkdir(self.state, 0o700)
            accounts = self.stores()[kind]
            other = self.open(accounts)
            await addUser(other, "alice")
            decoy = other.getDecoyVerifier("mallory", scram.NAME)
            key = openCertificate(self.state).getPublicKey().keyHash()
            program = await self.pbauth(accounts, "backup", self.backup)
            self.assertEqual(program.exitCode, 0, program.output)
            self.state = os.path.abspath(self.mktemp())
            os.mkdir(self.state, 0o700)
            accounts = self.stores()[kind]
            port = await self.serve(accounts)
            await addUser(self.authorizer, "bob")
            bob = await self.logIn(port, "bob")
            self.assertNotEqual(self.authorizer.getDecoyVerifier("mallory", scram.NAME), decoy)
            self.assertNotEqual(openCertificate(self.state).getPublicKey().keyHash(), key)
            program = await self.pbauth(accounts, "restore", "--replace", self.backup)
            self.assertEqual(program.exitCode, 0, program.output)
            await self.untilEnded(bob)
            while self.authorizer.getDecoyVerifier("mallory", scram.NAME) != decoy:
                await deferLater(reactor, 0.02)  # type: ignore[arg-type]
            self.assertEqual(openCertificate(self.state).getPublicKey().keyHash(), key)

    async def test_audited(self) -> None:
        """Both are recorded, with who did it."""
        await addUser(self.open(None), "alice")
        audit = os.path.abspath(self.mktemp())
        for command in (("backup",), ("restore", "--replace")):
            program = await self.pbauth(None, "--audit", audit, *command, self.backup)
            self.assertEqual(program.exitCode, 0, program.output)
        lines = [json.loads(line) for line in Path(audit).read_text().splitlines()]
        self.assertEqual([each["event"] for each in lines], ["users.read", "users.restored"])
        self.assertTrue(all(each["operator"] for each in lines))

    async def test_whileWritten(self) -> None:
        """What another program is about to write is not in it, and does not keep it waiting."""
        await addUser(self.open(None), "alice")
        with closing(sqlite3.connect(f"{self.state}/accounts.sqlite")) as database:
            database.execute("BEGIN IMMEDIATE")
            database.execute("DELETE FROM identities")
            program = await self.pbauth(None, "backup", self.backup)
            self.assertEqual(program.exitCode, 0, program.output)
        self.state = os.path.abspath(self.mktemp())
        await self.pbauth(None, "restore", self.backup)
        self.assertEqual((await self.pbauth(None, "user", "list")).output, "alice\t1 key\n")

    async def test_damaged(self) -> None:
        """What is no backup, a damaged one, and one of another store change nothing."""
        await addUser(self.open(None), "alice")
        await self.pbauth(None, "backup", self.backup)
        whole = Path(self.backup).read_bytes()
        kept = await self.open(None).readRecords()
        with tarfile.open(self.backup) as tar:
            where = tar.getmember("accounts").offset_data
        cases = {
            b"": "not a backup",
            b"no backup" * 1000: "not a backup",
            whole[: len(whole) // 2]: "damaged",
            whole[:where] + b"x" * 100 + whole[where + 100 :]: "damaged",
        }
        for data, said in cases.items():
            Path(self.backup).write_bytes(data)
            program = await self.pbauth(None, "restore", "--replace", self.backup)
            self.assertRegex(program.output, rf"^Error: .*{said}[^\n]*\n$")
            self.assertEqual(program.exitCode, 1)
        Path(self.backup).write_bytes(whole)
        program = await self.pbauth(f"passwd:{self.state}/x", "restore", self.backup)
        self.assertIn("pbauth export", program.output)
        self.assertEqual(await self.open(None).readRecords(), kept)
        self.assertFalse([each for each in os.listdir(self.state) if each.startswith(".draft")])

    async def test_refused(self) -> None:
        """Nothing to back up, nowhere to write, and a server elsewhere."""
        program = await self.pbauth(None, "backup", self.backup)
        self.assertIn("There are no accounts in", program.output)
        await addUser(self.open(None), "alice")
        program = await self.pbauth(None, "backup", f"{self.backup}/nowhere")
        self.assertEqual(
            program.output, f"Error: {self.backup}/nowhere: No such file or directory.\n"
        )
        pipe = self.mktemp()
        os.mkfifo(pipe)
        for path in (pipe, self.state):
            program = await self.pbauth(None, "backup", path)
            self.assertEqual(
                (program.output, program.exitCode),
                (f"Error: {path} is not a file. Name a file for the backup.\n", 1),
            )
        self.assertTrue(stat.S_ISFIFO(os.stat(pipe).st_mode))
        self.assertEqual(len(program.output.splitlines()), 1, program.output)
        program = await run(*PBAUTH, "--server", "tls:localhost:1", "backup", self.backup)
        self.assertIn("without --server", program.output)
