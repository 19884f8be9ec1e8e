"""The sessions of all servers that share a PostgreSQL database, seen from one of them."""

from __future__ import annotations

from typing import Any

from twisted.application.service import MultiService

from pbauth import AuthServerFactory, Detached, Password, connect
from pbauth.admin import peers
from pbauth.admin.peers import SessionPeers
from pbauth.admin.protocol import NAME as ADMIN
from pbauth.admin.service import AdminService
from pbauth.errors import UnknownSession
from tests.support.listening import ListeningTestCase
from tests.support.postgres import postgres
from tests.support.suites.sqlstores import Awaited, addUser


class Server:
    """One of several servers."""

    def __init__(self, test: ListeningTestCase) -> None:
        from twisted.internet import reactor

        services = MultiService()
        self.authorizer = test.open(serviceCollection=services)
        Awaited("game", services, self.authorizer)
        self.changes: Any = self.authorizer.changesService()
        self.peers = SessionPeers(self.authorizer.sessions, self.changes, reactor)
        AdminService(ADMIN, services, self.authorizer, peers=self.peers)
        self.changes.startService()
        test.addCleanup(self.changes.stopService)
        self.port = test.listen(AuthServerFactory(self.authorizer))


class SessionsTests(ListeningTestCase):
    """Three servers: alice is on two of them, bob on one, an administrator on the third."""

    async def setUp(self) -> None:  # type: ignore[override]
        self.url = postgres().makeDatabase()
        self.servers = [Server(self) for _ in range(3)]
        for server in self.servers:
            await self.until(lambda server=server: server.changes.hears, "the server hears")
        for name in ("alice", "bob", "root"):
            identity = await addUser(self.servers[0].authorizer, name)
            if name == "root":
                identity.addKeyByString(ADMIN, name)
                await identity.save()
        self.alice, again, self.bob = [
            await self.logIn(self.servers[place], name, "game")
            for place, name in ((0, "alice"), (1, "alice"), (1, "bob"))
        ]
        self.again = again
        self.admin = await self.logIn(self.servers[2], "root", ADMIN)

    async def logIn(self, server: Server, name: str, service: str) -> Any:  # type: ignore[override]
        """Log in to a server."""
        perspective: Any = await connect(
            "127.0.0.1", server.port, name, Password("secret", renew=False), service, name
        )
        self.addCleanup(perspective.broker.transport.loseConnection)
        return perspective

    async def list(self, most: int = 100) -> list[Any]:
        """List the sessions page by page, as the command does."""
        found: list[Any] = []
        last = ""
        while page := await self.admin.callRemote("listSessions", last, most):
            found += page
            last = page[-1][0]
        return found

    async def test_listed(self) -> None:
        """All are listed, whoever is asked, and however long the pages are."""
        for most in (100, 1):
            found = await self.list(most)
            self.assertEqual(
                sorted((name, service) for _, name, service, *_ in found),
                [("alice", "game"), ("alice", "game"), ("bob", "game"), ("root", ADMIN)],
            )
            self.assertEqual(found, sorted(found))
            self.assertEqual(await self.unheard(), 0)

    async def test_ended(self) -> None:
        """One is ended by its id, wherever it is; there is no other of that id."""
        (session,) = [row[0] for row in await self.list() if row[1] == "bob"]
        await self.admin.callRemote("endSession", session)
        with self.assertRaises(Detached):
            await self.bob.callRemote("whoami")
        self.assertEqual(await self.alice.callRemote("whoami"), "alice")
        with self.assertRaises(UnknownSession):
            await self.admin.callRemote("endSession", session)

    async def test_endedAll(self) -> None:
        """All of a user's are ended, on all servers, and nobody else's."""
        self.assertEqual(await self.admin.callRemote("endSessions", "alice"), 2)
        for perspective in (self.alice, self.again):
            with self.assertRaises(Detached):
                await perspective.callRemote("whoami")
        self.assertEqual(await self.bob.callRemote("whoami"), "bob")
        self.assertEqual(await self.unheard(), 0)

    async def test_silent(self) -> None:
        """A server that does not answer is left out."""
        self.patch(peers, "PATIENCE", 0.2)
        self.patch(self.servers[0].changes, "_subscribers", [])
        self.assertEqual(
            [row[1] for row in sorted(await self.list(), key=lambda row: row[1])],
            ["alice", "bob", "root"],
        )
        self.assertEqual(await self.unheard(), 1)
        await self.admin.callRemote("endSessions", "nobody")
        self.assertEqual(await self.unheard(), 1)

    async def test_deaf(self) -> None:
        """One that hears no notifications asks nobody, and says so."""
        self.patch(self.servers[2].changes, "hears", False)
        self.assertEqual([row[1] for row in await self.list()], ["root"])
        self.assertIsNone(await self.unheard())
        self.assertEqual(await self.admin.callRemote("endSessions", "alice"), 0)
        self.assertIsNone(await self.unheard())

    async def unheard(self) -> int | None:
        """How many servers did not answer."""
        answer: int | None = await self.admin.callRemote("unheardServers")
        return answer

    async def test_garbage(self) -> None:
        """What others write to the channel is not believed."""
        for text in ("x", "[]", "{}", '{"ask": "a"}', '{"answer": 1}'):
            self.run_(f"SELECT pg_notify('pbauth_messages', '{text}')")
        self.assertEqual(len(await self.list()), 4)
        self.flushLoggedErrors()
