"""Identities in an SQLite file."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from pbauth import Hashing, SQLAuthorizer, StoreError, Unauthorized
from pbauth._files import createPrivate
from pbauth.authorizers.sql import authorizer as sqlauthorizer
from pbauth.authorizers.sql import sqlite, sqlitefile
from pbauth.authorizers.sql.engine import SCHEMA_VERSION
from pbauth.authorizers.sql.sqlitecopy import copyDatabase, replaceDatabase
from pbauth.authorizers.sql.sqliteschema import STEPS
from pbauth.mechanisms.scram import ScramVerifier
from tests.support.serving import ServingTestCase
from tests.support.suites.authorizers import SCRAM
from tests.support.suites.lives import LifeSuite
from tests.support.suites.sqlstores import SQLStoreSuite, addUser


class SQLTestCase(ServingTestCase):
    """Opens files, and closes them."""

    def setUp(self) -> None:
        self.path = os.path.abspath(self.mktemp())

    def open(self, path: str | None = None, **options: Any) -> SQLAuthorizer:
        """Open a file; the same one by default."""
        options = {"hashing": Hashing.CHEAPEST, **options}
        authorizer = SQLAuthorizer(path or self.path, **options)
        self.addCleanup(authorizer.close)
        return authorizer

    def database(self) -> Any:
        """Open the file as SQLite itself does; it is made for its owner only."""
        createPrivate(self.path)
        return closing(sqlite3.connect(self.path))


class SQLAuthorizerTests(LifeSuite, SQLTestCase):
    """`SQLAuthorizer` passes the shared suite."""

    def makeAuthorizer(self, services: Any = None, hashing: Hashing = Hashing.CHEAPEST) -> Any:
        self.path = self.mktemp()
        return self.open(self.path, serviceCollection=services, hashing=hashing)

    def reopened(self, authorizer: Any) -> Any:
        return self.open(self.path, hashing=authorizer.hashing)

    def twoServers(self) -> tuple[Any, Any]:
        """Two on one file."""
        path = self.mktemp()
        return self.open(path), self.open(path)


class SharedFileTests(SQLStoreSuite, SQLTestCase):
    """Several processes on one file."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(sqlite, "OFTEN", 0.02)


class FileTests(SQLTestCase):
    """What lasts, and for whom."""

    async def test_lasts(self) -> None:
        """What was saved is there when the file is opened again; so are the decoys."""
        authorizer = SQLAuthorizer(self.path, hashing=Hashing.CHEAPEST)
        await addUser(authorizer, "alice")
        decoy = authorizer.getDecoyVerifier("mallory", SCRAM)
        authorizer.close()
        reopened = self.open()
        identity = await reopened.getIdentityRequest("alice")
        self.assertEqual(identity.getAllKeys(), [("game", "alice")])
        await identity.verifyPlainPassword("secret")
        self.assertEqual(reopened.getDecoyVerifier("mallory", SCRAM), decoy)

    def test_private(self) -> None:
        """Only the owner can read the file."""
        self.open()
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)

    def test_exposed(self) -> None:
        """A database that others can read is refused, and so are the files that SQLite adds."""
        for side in ("", "-wal", "-shm"):
            for reading in (False, True):
                self.path = os.path.abspath(self.mktemp())
                SQLAuthorizer(self.path, hashing=Hashing.CHEAPEST).close()
                with self.database() as database:
                    # While this is open, the others are there.
                    database.execute("INSERT INTO changes (identity) VALUES ('alice')")
                    database.commit()
                    createPrivate(self.path + side)
                    os.chmod(self.path + side, 0o640)
                    error = self.assertRaises(StoreError, self.open, reading=reading)
                    self.assertIn(f"chmod 600 {self.path}{side}", str(error))
                    os.chmod(self.path + side, 0o600)
                    self.open(reading=reading)

    async def test_replaced(self) -> None:
        """A server notices that its file was replaced, lets nobody in, and says what to do."""
        clock = Clock()
        authorizer = self.open(reactor=None)
        await addUser(authorizer, "alice")
        other = os.path.abspath(self.mktemp())
        with self.database() as database, closing(sqlite3.connect(other)) as copy:
            database.backup(copy)
        os.chmod(other, 0o600)
        seen: list[Any] = []
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        looking = authorizer._engine.changesService(clock, authorizer._pool, seen.append)
        await looking._look()
        self.assertTrue(looking.hears)
        os.replace(other, self.path)
        with self.assertRaises(StoreError) as raised:
            await authorizer.getIdentityRequest("alice")
        self.assertIn("was replaced by another file", str(raised.exception))
        self.assertIn("Restart this server", str(raised.exception))
        await looking._look()
        self.assertFalse(looking.hears)
        told = [event for event in events if event["log_level"].name == "error"]
        self.assertIn("was replaced by another file", str(told[0]["refusal"]))
        # So it is told where nobody logs in.
        self.assertIn("was replaced by another file", told[1]["error"])
        # Who opens it again finds what is there now.
        identity = await self.open().getIdentityRequest("alice")
        self.assertEqual(identity.name, "alice")

    def test_noFile(self) -> None:
        """A folder, or a device, is not opened, and nobody is told to change its mode."""
        for path in (os.path.dirname(self.path), os.devnull):
            for reading in (False, True):
                with self.assertRaises(StoreError) as raised:
                    self.open(path, reading=reading)
                self.assertEqual(
                    str(raised.exception), f"{path} is not a regular file. Name another one."
                )

    async def test_overwritten(self) -> None:
        """
        A server notices that something was copied over its file: another database, an older copy of
        its own, a backup, and what is no database.
        """

        self.patch(sqlitefile, "PATIENCE", 0.0)
        # After the first error, whatever it is, the next try is not put off.
        self.patch(sqlauthorizer, "_PAUSE", 0.0)

        def another(path: str) -> None:
            SQLAuthorizer(path, hashing=Hashing.CHEAPEST).close()
            # More was written to it than to this one.
            with closing(sqlite3.connect(path)) as database, database:
                database.execute("UPDATE meta SET value = 1000 WHERE name = 'writes'")

        def older(path: str) -> None:
            shutil.copyfile(self.path, path)

        def backup(path: str) -> None:
            createPrivate(path)
            copyDatabase(self.path, path)

        def garbage(path: str) -> None:
            Path(path).write_bytes(b"garbage" * 10_000)

        for make in (another, older, backup, garbage):
            self.path, copy = os.path.abspath(self.mktemp()), os.path.abspath(self.mktemp())
            authorizer = self.open()
            await addUser(authorizer, "alice")
            self.checkpoint()
            make(copy)
            await addUser(authorizer, "bob")
            self.checkpoint()
            await authorizer.getIdentityRequest("bob")
            shutil.copyfile(copy, self.path)
            told = ""
            # What can't be read, or is another, may be in the middle of being written, as long as
            # it changes, which the last writes of this one may do; it may not have alice, either.
            for _ in range(20):
                try:
                    await authorizer.getIdentityRequest("alice")
                except (StoreError, Unauthorized) as error:
                    told = str(error)
                if "overwritten" in told:
                    break
            self.assertIn("was overwritten while it was in use", told, make)
            self.assertIn(f"{self.path}-wal", told)

    async def test_notOverwritten(self) -> None:
        """What SQLite, other servers, commands, and a restore write is what belongs there."""
        authorizer, other = self.open(), self.open()
        backup = os.path.abspath(self.mktemp())
        createPrivate(backup)
        copyDatabase(self.path, backup)
        for step in range(4):
            name = f"user{step}"
            await addUser(authorizer, name)
            self.checkpoint()
            await other.getIdentityRequest(name)
            await addUser(other, f"{name}b")
            if step == 1:
                replaceDatabase(self.path, backup)
            if step == 2:
                with self.database() as database:
                    database.execute("VACUUM")
            self.checkpoint()
            await authorizer.listIdentities()
            SQLAuthorizer(self.path, hashing=Hashing.CHEAPEST).close()
            os.utime(self.path)
            await authorizer.listIdentities()

    def checkpoint(self) -> None:
        """Have all that was written put into the file itself."""
        with self.database() as database:
            database.execute("PRAGMA wal_checkpoint (PASSIVE)").fetchall()

    async def test_listed(self) -> None:
        """All identities are listed, sorted by name."""
        authorizer = self.open()
        await addUser(authorizer, "bob")
        (await addUser(authorizer, "alice")).addKeyByString("unsaved", "key")
        identity = await authorizer.getIdentityRequest("bob")
        identity.locked = True
        identity.removeKey("game", "bob")
        await identity.save()
        self.assertEqual(await authorizer.listIdentities(), [("alice", False, 1), ("bob", True, 0)])


class TroubleTests(SQLTestCase):
    """Files that can't be used: one line that says what to do; the file stays as it is."""

    def assertRefused(self, said: str, path: str | None = None, **options: Any) -> None:
        """Opening the file fails, and says this."""
        with self.assertRaises(StoreError) as raised:
            SQLAuthorizer(path or self.path, hashing=Hashing.CHEAPEST, **options)
        self.assertIn(said, str(raised.exception))
        self.assertNotIn("\n", str(raised.exception))

    def test_noFolder(self) -> None:
        """A file can't be made in a folder that is not there."""
        self.assertRefused("No such file or directory", os.path.join(self.path, "accounts"))

    def test_corrupt(self) -> None:
        """A damaged file is left as it is."""
        junk = b"this is no database" * 1000
        Path(self.path).write_bytes(junk)
        self.assertRefused("not an SQLite database")
        self.assertEqual(Path(self.path).read_bytes(), junk)

    def test_anotherProgram(self) -> None:
        """A database of another program is left as it is."""
        with self.database() as database:
            database.execute("CREATE TABLE recipes (name TEXT)")
        self.assertRefused("a database of another program")
        with self.database() as database:
            self.assertEqual(
                database.execute("SELECT name FROM sqlite_master").fetchall(), [("recipes",)]
            )

    def test_madeByTwo(self) -> None:
        """Two programs that make the file at the same moment wait for each other."""
        createPrivate(self.path)
        other = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        self.assertRefused("is locked by another process", lockTimeout=0.05)
        release = threading.Timer(0.05, other.execute, ["COMMIT"])
        self.addCleanup(release.join)
        release.start()
        self.open()

    def test_later(self) -> None:
        """A database of a later version of pbauth is left to it."""
        self.open()
        with self.database() as database:
            database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        self.assertRefused("Upgrade pbauth")

    async def test_upgraded(self) -> None:
        """A file of each earlier version is upgraded; nothing in it is lost."""
        for version in range(1, SCHEMA_VERSION):
            path = self.mktemp()
            createPrivate(path)
            with closing(sqlite3.connect(path, isolation_level=None)) as database:
                for step in range(1, version + 1):
                    for statement in STEPS[step]:
                        database.execute(statement)
                database.execute(f"PRAGMA user_version = {version}")
                verifier = Hashing.CHEAPEST.makeVerifiers("secret", b"salt" * 4)[SCRAM].encode()
                database.execute("INSERT INTO meta VALUES ('decoy secret', ?)", (b"d" * 32,))
                database.execute(
                    "INSERT INTO identities (name, locked) VALUES ('alice', 0), ('bob', 1)"
                )
                database.execute(
                    "INSERT INTO verifiers (identity, mechanism, verifier) VALUES ('alice', ?, ?)",
                    (SCRAM, verifier),
                )
                database.execute(
                    "INSERT INTO keys (identity, service, perspective)"
                    " VALUES ('alice', 'game', 'black')"
                )
            for _ in range(2):
                authorizer = self.open(path)
                alice = await authorizer.getIdentityRequest("alice")
                self.assertEqual(alice.getAllKeys(), [("game", "black")])
                await alice.verifyPlainPassword("secret")
                self.assertTrue((await authorizer.getIdentityRequest("bob")).locked)
                self.assertEqual(authorizer._decoySecret, b"d" * 32)
                old: Any = (await alice.getVerifiers())[SCRAM]
                better = ScramVerifier.fromPassword("secret", b"s" * 16, old.iterations + 1)
                self.assertTrue(await authorizer.renewVerifier(alice, old, better))
                self.assertEqual((alice.expires, alice.created), (None, None))
            await authorizer.addGroup("staff")
            await authorizer.grantGroupKey("staff", "game", "*")
            await authorizer.addMember("staff", "alice")
            alice = await authorizer.getIdentityRequest("alice")
            self.assertTrue(alice.holdsKey("game", "white"))
            self.assertEqual(alice.groups, {"staff"})
            with closing(sqlite3.connect(path)) as database:
                (now,) = database.execute("PRAGMA user_version").fetchone()
            self.assertEqual(now, SCHEMA_VERSION)

    async def test_locked(self) -> None:
        """Another process that writes for too long is named as the reason."""
        authorizer = self.open(lockTimeout=0.1)
        identity = authorizer.createIdentity("alice")
        identity.setPassword("a password that nobody should see")
        with self.database() as database:
            database.execute("BEGIN EXCLUSIVE")
            with self.assertRaises(StoreError) as raised:
                await identity.save()
            self.assertRefused("locked by another process", lockTimeout=0.1)
        self.assertIn("locked by another process", str(raised.exception))
        self.assertNotIn("nobody should see", str(raised.exception))
        await identity.save()
        await (await authorizer.getIdentityRequest("alice")).verifyPlainPassword(
            "a password that nobody should see"
        )

    async def onOnlyConnection(self, authorizer: SQLAuthorizer, pragma: str) -> None:
        """Leave the pool one connection, and set something on it."""
        threads = authorizer._pool.threadpool
        threads.adjustPoolsize(1, 1)
        while threads.workers > 1:
            await authorizer._pool.runQuery("SELECT 1")
        await authorizer._pool.runQuery(pragma)

    async def test_full(self) -> None:
        """Where there is no space left, nothing is changed by half."""
        authorizer = self.open()
        await addUser(authorizer, "alice")
        identity = await authorizer.getIdentityRequest("alice")
        for number in range(2000):
            identity.addKeyByString("game", f"perspective {number}" + "x" * 200)
        await self.onOnlyConnection(authorizer, "PRAGMA max_page_count = 1")
        with self.assertRaises(StoreError) as raised:
            await identity.save()
        self.assertIn("no space left", str(raised.exception))
        found = await authorizer.getIdentityRequest("alice")
        self.assertEqual(found.getAllKeys(), [("game", "alice")])

    async def test_readOnly(self) -> None:
        """A database that can't be written is said to be read-only; reading goes on."""
        authorizer = self.open()
        identity = await addUser(authorizer, "alice")
        identity.addKeyByString("chat", "alice")
        await self.onOnlyConnection(authorizer, "PRAGMA query_only = ON")
        with self.assertRaises(StoreError) as raised:
            await identity.save()
        self.assertIn("read-only", str(raised.exception))
        found = await authorizer.getIdentityRequest("alice")
        self.assertEqual(found.getAllKeys(), [("game", "alice")])


class WatchingTests(SQLTestCase):
    """The loop that looks for what other processes have changed."""

    async def test_mistakes(self) -> None:
        """Whatever is raised meanwhile, it looks again, and sees what it has missed."""
        seen: list[Any] = []

        async def changed(names: Any) -> None:
            seen.append(names)
            if len(seen) == 1:
                raise ZeroDivisionError

        authorizer = self.open()
        looking = sqlite.ChangesInFile(authorizer._pool, Clock(), changed)
        await looking._look()
        with self.database() as database:
            database.execute("INSERT INTO changes (identity) VALUES ('alice')")
            database.commit()
        await looking._look()
        await looking._look()
        self.assertEqual(seen, [{"alice"}, {"alice"}])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
