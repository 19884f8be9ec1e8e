"""A server whose connections to PostgreSQL are cut still learns what others change."""

from __future__ import annotations

import threading
from functools import cached_property
from typing import Any

import psycopg
from twisted.application.service import MultiService
from twisted.internet.defer import gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from pbauth import (
    AuthServerFactory,
    Detached,
    Hashing,
    Password,
    SQLAuthorizer,
    StoreError,
    connect,
)
from pbauth.authorizers.sql import notifications
from pbauth.authorizers.sql import postgres as postgres_
from pbauth.authorizers.sql.engine import MOST_CONNECTIONS
from tests.support.pgbouncer import PGBOUNCER, PgBouncer
from tests.support.postgres import PostgreSQL, postgres
from tests.support.serving import ServingTestCase
from tests.support.suites.sqlstores import Awaited, addUser

#: Seconds after which something that should have happened has not.
PATIENCE = 30

CUT = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


class ListeningTestCase(ServingTestCase):
    """Serves users from a database, and changes them by another program."""

    timeout = 60

    @cached_property
    def postgres(self) -> PostgreSQL:
        """Return the PostgreSQL that the test uses."""
        return postgres()

    @cached_property
    def url(self) -> str:
        """Return the URL of the database of the test."""
        return self.postgres.makeDatabase()

    def open(self, url: str | None = None, **options: Any) -> SQLAuthorizer:
        """Open the database."""
        authorizer = SQLAuthorizer(url or self.url, hashing=Hashing.CHEAPEST, **options)
        self.addCleanup(authorizer.close)
        return authorizer

    async def serve(self, *names: str, url: str | None = None) -> None:
        """Run a server on the database, and log in these users, whom it adds."""
        services = MultiService()
        self.authorizer = self.open(url, serviceCollection=services)
        Awaited("game", services, self.authorizer)
        self.changes: Any = self.authorizer.changesService()
        self.changes.startService()
        self.addCleanup(self.changes.stopService)
        self.port = self.listen(AuthServerFactory(self.authorizer))
        self.perspectives: dict[str, Any] = {}
        for name in names:
            await addUser(self.authorizer, name)
            await self.logIn(name)
        await self.until(lambda: self.changes.notices, "the server notices changes")

    async def logIn(self, name: str) -> None:
        """Log a user in."""
        perspective: Any = await connect(
            "127.0.0.1", self.port, name, Password("secret", renew=False), "game", name
        )
        self.perspectives[name] = perspective
        self.addCleanup(perspective.broker.transport.loseConnection)

    async def untilEnded(self, name: str) -> None:
        """Wait until a user's session has ended; it is called all the time."""
        from twisted.internet import reactor

        for _ in range(PATIENCE * 50):
            try:
                await self.perspectives[name].callRemote("whoami")
            except Detached:
                return
            await deferLater(reactor, 0.02)  # type: ignore[arg-type]
        raise AssertionError(f"{name} is still there after {PATIENCE} seconds")

    async def until(self, happened: Any, what: str) -> None:
        """Wait until that has happened."""
        from twisted.internet import reactor

        for _ in range(PATIENCE * 50):
            if happened():
                return
            await deferLater(reactor, 0.02)  # type: ignore[arg-type]
        raise AssertionError(f"Not so after {PATIENCE} seconds: {what}")

    def run_(self, statement: str) -> list[Any]:
        """Run a statement as another program would."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement)  # type: ignore[call-overload]
            return list(cursor.fetchall()) if cursor.description else []

    def lock(self, name: str) -> None:
        """Lock a user by another program."""
        self.run_(f"UPDATE pbauth.identities SET locked = 1 WHERE name = '{name}'")


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
