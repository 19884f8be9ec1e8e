"""Identities in an SQLite file."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.internet.defer import DeferredList
from twisted.trial.unittest import TestCase

from pbauth import DuplicateIdentity, Hashing, SQLAuthorizer, StoreError, Unauthorized
from pbauth.authorizers.sql import SCHEMA_VERSION
from tests.suites.authorizers import SCRAM, AuthorizerSuite


class SQLTestCase(TestCase):
    """Opens files, and closes them."""

    def setUp(self) -> None:
        self.path = os.path.abspath(self.mktemp())

    def open(self, path: str | None = None, **options: Any) -> SQLAuthorizer:
        """Open a file; the same one by default."""
        options = {"hashing": Hashing.CHEAPEST, **options}
        authorizer = SQLAuthorizer(path or self.path, **options)
        self.addCleanup(authorizer.close)
        return authorizer

    async def add(self, authorizer: SQLAuthorizer, name: str) -> Any:
        """Add an identity whose password is `secret`, with one key."""
        identity = authorizer.createIdentity(name)
        identity.setPassword("secret")
        identity.addKeyByString("game", name)
        await identity.save()
        return identity

    def database(self) -> Any:
        """Open the file as SQLite itself does."""
        return closing(sqlite3.connect(self.path))


class SQLAuthorizerTests(AuthorizerSuite, SQLTestCase):
    """`SQLAuthorizer` passes the shared suite."""

    def makeAuthorizer(self, services: Any = None, hashing: Hashing = Hashing.CHEAPEST) -> Any:
        return self.open(self.mktemp(), serviceCollection=services, hashing=hashing)


class FileTests(SQLTestCase):
    """What lasts, and for whom."""

    async def test_lasts(self) -> None:
        """What was saved is there when the file is opened again; so are the decoys."""
        authorizer = SQLAuthorizer(self.path, hashing=Hashing.CHEAPEST)
        await self.add(authorizer, "alice")
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

    async def test_listed(self) -> None:
        """All identities are listed, sorted by name."""
        authorizer = self.open()
        await self.add(authorizer, "bob")
        (await self.add(authorizer, "alice")).addKeyByString("unsaved", "key")
        identity = await authorizer.getIdentityRequest("bob")
        identity.locked = True
        identity.removeKey("game", "bob")
        await identity.save()
        self.assertEqual(await authorizer.listIdentities(), [("alice", False, 1), ("bob", True, 0)])

    async def test_copies(self) -> None:
        """A change to a copy counts once it is saved."""
        authorizer = self.open()
        await self.add(authorizer, "alice")
        copy = await authorizer.getIdentityRequest("alice")
        copy.addKeyByString("chat", "alice")
        copy.locked = True
        other = await authorizer.getIdentityRequest("alice")
        self.assertEqual((other.getAllKeys(), other.locked), ([("game", "alice")], False))

    async def test_anotherProcess(self) -> None:
        """What another opened file changes is seen at the next request."""
        authorizer, administrator = self.open(), self.open()
        await self.add(authorizer, "alice")
        identity = await administrator.getIdentityRequest("alice")
        identity.addKeyByString("chat", "alice")
        await identity.save()
        found = await authorizer.getIdentityRequest("alice")
        self.assertEqual(found.getAllKeys(), [("chat", "alice"), ("game", "alice")])

    async def test_twoChangesAtOnce(self) -> None:
        """Two who change the same identity at once do not undo each other's change."""
        authorizer, administrator = self.open(), self.open()
        await self.add(authorizer, "alice")
        one = await authorizer.getIdentityRequest("alice")
        other = await administrator.getIdentityRequest("alice")
        one.addKeyByString("chat", "alice")
        one.removeKey("game", "alice")
        other.setPassword("changed")
        other.addKeyByString("chess", "alice")
        await one.save()
        await other.save()
        found = await authorizer.getIdentityRequest("alice")
        self.assertEqual(found.getAllKeys(), [("chat", "alice"), ("chess", "alice")])
        await found.verifyPlainPassword("changed")

    async def test_sameNameAtOnce(self) -> None:
        """Of many who add the same name at once, one succeeds."""
        authorizers = [self.open(), self.open()]
        attempts = []
        for place in range(10):
            identity = authorizers[place % 2].createIdentity("alice")
            identity.setPassword(f"password {place}")
            attempts.append(identity.save())
        outcomes = await DeferredList(attempts, consumeErrors=True)
        failures = [failure for succeeded, failure in outcomes if not succeeded]
        self.assertEqual(len(failures), 9)
        for failure in failures:
            self.assertTrue(failure.check(DuplicateIdentity))

    async def test_allOrNothing(self) -> None:
        """What the schema refuses leaves nothing behind, nor an open transaction."""
        authorizer = self.open()
        identity = authorizer.createIdentity("alice")
        identity.setPassword("secret")
        identity.keyring["game", ""] = True
        with self.assertRaises(StoreError):
            await identity.save()
        self.flushLoggedErrors()
        with self.assertRaises(Unauthorized):
            await authorizer.getIdentityRequest("alice")
        del identity.keyring["game", ""]
        await identity.save()
        await authorizer.getIdentityRequest("alice")


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
        self.assertRefused("no SQLite database")
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

    def test_later(self) -> None:
        """A database of a later version of pbauth is left to it."""
        self.open()
        with self.database() as database:
            database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        self.assertRefused("Upgrade pbauth")

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
        await self.add(authorizer, "alice")
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
        identity = await self.add(authorizer, "alice")
        identity.addKeyByString("chat", "alice")
        await self.onOnlyConnection(authorizer, "PRAGMA query_only = ON")
        with self.assertRaises(StoreError) as raised:
            await identity.save()
        self.assertIn("read-only", str(raised.exception))
        found = await authorizer.getIdentityRequest("alice")
        self.assertEqual(found.getAllKeys(), [("game", "alice")])
