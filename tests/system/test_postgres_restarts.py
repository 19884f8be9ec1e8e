"""A server whose connections to PostgreSQL are cut still learns what others change."""

from __future__ import annotations

import threading
from functools import cached_property
from typing import Any

import psycopg
from twisted.internet.defer import gatherResults
from twisted.internet.threads import deferToThread

from pbauth import (
    StoreError,
)
from pbauth.authorizers.sql import notifications
from pbauth.authorizers.sql import postgres as postgres_
from pbauth.authorizers.sql.engine import MOST_CONNECTIONS
from tests.support.listening import PATIENCE, ListeningTestCase
from tests.support.pgbouncer import PGBOUNCER, PgBouncer
from tests.support.postgres import PostgreSQL
from tests.support.suites.sqlstores import addUser

CUT = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


class CutTests(ListeningTestCase):
    """The connections are cut, in each of the ways in which that happens."""

    async def test_terminatedTwice(self) -> None:
        """After an administrator has ended them twice in a row, a locked user is thrown out."""
        await self.serve("alice", "bob", "carol")
        for name in ("alice", "bob"):
            self.run_(CUT)
            await self.until(lambda: not self.changes.hears, "the server knows that it is deaf")
            await self.until(lambda: self.changes.hears, "the server hears again")
            self.lock(name)
            await self.untilEnded(name)
            await addUser(self.authorizer, f"new {name}")
            # The connection gets the number that the listener had, perhaps.
            await self.logIn(f"new {name}")
        self.run_(CUT)
        self.run_(CUT)
        self.lock("carol")
        await self.untilEnded("carol")

    async def test_pooledConnections(self) -> None:
        """However many connections of the pool were cut, nobody who logs in at once notices."""
        authorizer = self.open()
        await addUser(authorizer, "alice")
        everybody = threading.Barrier(MOST_CONNECTIONS)

        def use(cursor: Any) -> None:
            cursor.execute("SELECT 1")
            everybody.wait(PATIENCE)

        await gatherResults(authorizer._pool.runInteraction(use) for _ in range(MOST_CONNECTIONS))
        self.run_(CUT)
        # One after the other: each of them may meet all that are dead.
        alice = await authorizer.getIdentityRequest("alice")
        await gatherResults(
            authorizer.getIdentityRequest("alice") for _ in range(3 * MOST_CONNECTIONS)
        )
        alice.addKeyByString("chat", "alice")
        await alice.save()
        self.assertEqual(self.flushLoggedErrors(), [])


class RestartTests(ListeningTestCase):
    """PostgreSQL is restarted; it is one that this test has for itself."""

    timeout = 120

    @cached_property
    def postgres(self) -> PostgreSQL:
        """Return a PostgreSQL of this test."""
        database = PostgreSQL()
        self.addCleanup(database.end)
        return database

    async def test_restarted(self) -> None:
        """After a fast and an immediate restart, a locked user is thrown out."""
        await self.serve("alice", "bob")
        for name, stop in (("alice", self.postgres.stop), ("bob", self.postgres.kill)):
            await deferToThread(stop)
            await self.until(lambda: not self.changes.hears, "the server knows that it is deaf")
            await deferToThread(self.postgres.start)
            await self.until(lambda: self.changes.hears, "the server hears again")
            self.lock(name)
            await self.untilEnded(name)


class PoolerTests(ListeningTestCase):
    """Behind pgbouncer, where each transaction may get another connection."""

    if PGBOUNCER is None:
        skip = "pgbouncer is not installed. On Debian: apt install pgbouncer"

    def setUp(self) -> None:
        super().setUp()
        self.patch(notifications, "PROOF_TIMEOUT", 0.5)
        self.patch(notifications, "LOOK_EVERY", 0.1)

    async def useThrough(self, *settings: str) -> None:
        """Work with accounts through a pooler; a user who is locked is thrown out."""
        pooler = PgBouncer(self, self.url, "pool_mode = transaction", *settings)
        await self.serve("alice", url=pooler.url)
        self.assertFalse(self.changes.hears)
        for number in range(20):
            # psycopg prepares what it has run five times, on one of several connections.
            await gatherResults(
                self.authorizer.getIdentityRequest("alice") for _ in range(MOST_CONNECTIONS)
            )
            alice = await self.authorizer.getIdentityRequest("alice")
            alice.addKeyByString("chat", f"alice {number}")
            await alice.save()
        self.lock("alice")
        await self.untilEnded("alice")
        self.assertTrue(self.changes.notices)
        self.assertFalse(self.changes.hears)

    async def test_optionsRefused(self) -> None:
        """The pooler refuses the settings of the connection."""
        await self.useThrough()

    async def test_optionsDropped(self) -> None:
        """The pooler drops them, and with them the path to the tables."""
        await self.useThrough("ignore_startup_parameters = options")

    async def test_lockTimeout(self) -> None:
        """A write that waits for a lock ends nevertheless, and says what is wrong."""
        self.patch(postgres_, "_TIMEOUTS", {"lock_timeout": "50ms", "statement_timeout": "1s"})
        pooler = PgBouncer(self, self.url, "pool_mode = transaction")
        authorizer = self.open(pooler.url)
        alice = await addUser(authorizer, "alice")
        alice.locked = True
        with psycopg.connect(self.url) as connection:
            connection.execute("SELECT 1 FROM pbauth.identities FOR UPDATE")
            with self.assertRaises(StoreError) as raised:
                await alice.save()
        self.assertIn("busy", str(raised.exception))

    def test_ownOptions(self) -> None:
        """Where the user's own settings are refused, the message says where to allow them."""
        pooler = PgBouncer(self, self.url, "pool_mode = transaction")
        with self.assertRaises(StoreError) as raised:
            self.open(f"{pooler.url}&options=-c%20lock_timeout%3D50ms")
        self.assertIn("ignore_startup_parameters", str(raised.exception))
