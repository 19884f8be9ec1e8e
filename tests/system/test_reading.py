"""Commands that only look: nothing is written, and nothing that can't be written is in the way."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from pbauth import Hashing, PasswdFileAuthorizer, SQLAuthorizer
from pbauth.authorizers.sql.engine import SCHEMA_VERSION
from pbauth.authorizers.sql.sqliteschema import STEPS
from tests.support.disks import fill, makeReadOnly, mountDisk
from tests.support.processes import PBAUTH, Program, run

#: What may be asked of accounts, and what there is to find.
LOOKS = (
    (("user", "list"), "alice\t1 key\n"),
    (("key", "list", "alice"), "game\tblack\n"),
    (("who-can", "game"), "alice\tblack\n"),
    (("user", "keys", "alice"), ""),
)


def filesIn(folder: str) -> dict[str, bytes]:
    """Return the files in a folder, with what they hold."""
    return {each.name: each.read_bytes() for each in Path(folder).iterdir()}


class LookingTests(TestCase):
    """Accounts with one user, who has a key."""

    def setUp(self) -> None:
        self.state = os.path.abspath(self.mktemp())

    async def make(self) -> None:
        """Make the accounts."""
        os.makedirs(self.state, 0o700, exist_ok=True)
        authorizer = SQLAuthorizer(f"{self.state}/accounts.sqlite", hashing=Hashing.CHEAPEST)
        identity = authorizer.createIdentity("alice")
        identity.addKeyByString("game", "black")
        await identity.save()
        authorizer.close()

    def makeOld(self, path: str, version: int = 2) -> None:
        """Make accounts with an older schema."""
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            for step in range(1, version + 1):
                for statement in STEPS[step]:
                    database.execute(statement)
            database.execute(f"PRAGMA user_version = {version}")
            database.execute("INSERT INTO meta VALUES ('decoy secret', ?)", (b"d" * 32,))
            database.execute("INSERT INTO identities (name, locked) VALUES ('alice', 0)")
            database.execute(
                "INSERT INTO keys (identity, service, perspective)"
                " VALUES ('alice', 'game', 'black')"
            )
        os.chmod(path, 0o600)

    async def pbauth(self, *arguments: str, **options: Any) -> Program:
        """Run the command on the accounts."""
        return await run(*PBAUTH, "--state", self.state, *arguments, **options)

    async def assertSeen(self, *options: str, audit: tuple[str, ...] = ()) -> None:
        """Whatever is asked is answered; none but the export has to do with the audit log."""
        for arguments, said in LOOKS:
            program = await self.pbauth(*options, *audit, *arguments)
            self.assertEqual((program.output, program.exitCode), (said, 0))
        program = await self.pbauth(*options, "export")
        self.assertIn('"name":"alice"', program.output)

    async def test_whileAnotherWrites(self) -> None:
        """A program that writes for long keeps nobody from looking."""
        await self.make()
        with closing(sqlite3.connect(f"{self.state}/accounts.sqlite")) as database:
            database.execute("BEGIN IMMEDIATE")
            database.execute("DELETE FROM identities")
            await self.assertSeen()

    async def test_readOnlyMount(self) -> None:
        """The disk is read-only."""
        self.state = mountDisk(self)
        await self.make()
        makeReadOnly(self.state)
        audit = ("--audit", f"{self.state}/audit.jsonl")
        await self.assertSeen(audit=audit)
        # Whoever reads all verifiers is recorded, or does not get them.
        program = await self.pbauth(*audit, "export")
        self.assertNotIn("alice", program.output)
        self.assertEqual(program.exitCode, 1)

    async def test_fullDisk(self) -> None:
        """There is no space left."""
        self.state = mountDisk(self)
        await self.make()
        fill(self.state)
        await self.assertSeen()

    async def test_nothingMade(self) -> None:
        """Where there is nothing, there is nothing after a look."""
        for accounts in ((), ("--accounts", f"passwd:{self.state}/accounts")):
            program = await self.pbauth(*accounts, "user", "list")
            self.assertIn("There are no users yet", program.output)
            self.assertFalse(os.path.exists(self.state))

    async def test_olderSchema(self) -> None:
        """A look, and a shell that completes a name, leave an older schema as it is."""
        for version in range(1, SCHEMA_VERSION):
            self.state = os.path.abspath(self.mktemp())
            self.makeOld(f"{self.state}/accounts.sqlite", version)
            before = filesIn(self.state)
            await self.assertSeen()
            words = f"pbauth --state {self.state} user lock al"
            completed = await run(
                *("-c", "from pbauth.cli import main; main(prog_name='pbauth')"),
                forked=True,
                _PBAUTH_COMPLETE="bash_complete",
                COMP_WORDS=words,
                COMP_CWORD="5",
            )
            self.assertEqual(completed.output.strip(), "plain,alice")
            self.assertEqual(filesIn(self.state), before)

    async def test_upgrade(self) -> None:
        """A command that writes upgrades the schema, says so, and keeps a copy from before."""
        path = f"{self.state}/accounts.sqlite"
        for round_, name in enumerate(("accounts.sqlite.schema2", "accounts.sqlite.schema2-2")):
            if round_:
                os.unlink(path)
            self.makeOld(path)
            program = await self.pbauth("user", "lock", "alice")
            self.assertEqual(program.exitCode, 0, program.output)
            self.assertIn(f"A copy of it from before is in {self.state}/{name}.", program.output)
            kept = f"{self.state}/{name}"
            self.assertEqual(os.stat(kept).st_mode & 0o777, 0o600)
            with closing(sqlite3.connect(kept)) as database:
                self.assertEqual(database.execute("PRAGMA user_version").fetchall(), [(2,)])
                found = database.execute("SELECT * FROM identities").fetchall()
                self.assertEqual(found, [("alice", 0)])
        self.assertEqual((await self.pbauth("user", "unlock", "alice")).output, "Unlocked alice.\n")

    async def test_passwdFileOfRoot(self) -> None:
        """A passwd file of root's may be readable by the group that root chose, as shadow is."""
        os.mkdir(self.state)
        path = f"{self.state}/accounts"
        authorizer = PasswdFileAuthorizer(path, hashing=Hashing.CHEAPEST)
        identity = authorizer.createIdentity("alice")
        identity.addKeyByString("game", "black")
        await identity.save()
        for beside in (f"{path}.lock", f"{path}.decoy"):
            os.unlink(beside)
        os.chmod(path, 0o640)
        os.chown(path, 0, 65534)
        before = filesIn(self.state)
        await self.assertSeen("--accounts", f"passwd:{path}")
        self.assertEqual(filesIn(self.state), before)
        for owner, mode in ((0, 0o644), (65534, 0o640)):
            os.chown(path, owner, 65534)
            os.chmod(path, mode)
            program = await self.pbauth("--accounts", f"passwd:{path}", "user", "list")
            self.assertIn("Other users can access the verifiers", program.output)
