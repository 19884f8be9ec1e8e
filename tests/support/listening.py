"""Servers on PostgreSQL that listen for what others change, in the process of a test."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import psycopg
from twisted.application.service import MultiService
from twisted.internet.task import deferLater

from pbauth import AuthServerFactory, Detached, Hashing, Password, SQLAuthorizer, connect
from pbauth.authorizers.sql import notifications
from tests.support.postgres import PostgreSQL, postgres
from tests.support.serving import ServingTestCase
from tests.support.suites.sqlstores import Awaited, addUser

#: Seconds after which something that should have happened has not.
PATIENCE = 30


class ListeningTestCase(ServingTestCase):
    """Serves users from a database, and changes them by another program."""

    timeout = 60

    def setUp(self) -> None:
        # Who is deaf tries again sooner than servers do.
        self.patch(notifications, "OFTEN", 0.2)

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
