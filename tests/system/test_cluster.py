"""Three servers on one PostgreSQL, behind HAProxy: what one is told counts for all."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.trial.unittest import TestCase

from pbauth import (
    Detached,
    Hashing,
    Password,
    PerspectiveClient,
    SQLAuthorizer,
    StoreError,
    Unauthorized,
    connect,
)
from tests.support.cluster import HAPROXY, Cluster
from tests.support.postgres import PostgreSQL, postgres
from tests.support.suites.sqlstores import addUser

_log = Logger()

#: Seconds after which something that should have happened has not.
PATIENCE = 60


class Caller:
    """
    A client that stays logged in and calls all the time.

    Attributes:
        answers: how many of its calls were answered since it was asked last.
        attached: how often it was attached.
    """

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.answers = self.attached = 0
        caller = self

        class Client(PerspectiveClient):
            def attached(self, perspective: Any) -> None:
                caller.attached += 1

        self.client = Client(
            cluster.endpoint,
            Password("secret"),
            "echo",
            name,
            trust=cluster.certificate,
            timeout=10,
            pingInterval=2,
            retryPolicy=lambda failures: min(0.1 * 2**failures, 1.0),
        )
        self.client.startService()
        self.ended = Deferred.fromCoroutine(self._call())

    async def _call(self) -> None:
        from twisted.internet import reactor

        while self.client.running:
            try:
                await self.client.callRemote("say", "on")
                self.answers += 1
            except Exception:
                # It was on its way when the server ended; or nobody is there now.
                await deferLater(reactor, 0.01)  # type: ignore[arg-type]
            await deferLater(reactor, 0.005)  # type: ignore[arg-type]

    async def stop(self) -> None:
        """Log out."""
        await self.client.stopService()
        await self.ended


class ClusterTests(TestCase):
    """With real processes."""

    timeout = 120
    if HAPROXY is None:
        skip = "HAProxy is not installed. On Debian: apt install haproxy"

    async def start(self, *names: str, own: bool = False) -> Cluster:
        """Start it all, with these users; and with a PostgreSQL of its own, to be ended."""
        if own:
            self.database = PostgreSQL()
            self.addCleanup(self.database.end)
        else:
            self.database = postgres()
        self.url = self.database.makeDatabase()
        self.accounts = SQLAuthorizer(self.url, hashing=Hashing.CHEAPEST)
        self.addCleanup(self.accounts.close)
        for name in names:
            identity = await addUser(self.accounts, name)
            identity.addKeyByString("echo", name)
            await identity.save()
        self.cluster = Cluster(self, self.url)
        await self.cluster.start()
        return self.cluster

    def logIn(self, name: str, password: Any = None) -> Any:
        """Log in once, on whichever server."""
        return connect(
            self.cluster.endpoint,
            None,
            name,
            Password("secret", renew=False) if password is None else password,
            "echo",
            trust=self.cluster.certificate,
        )

    async def until(self, happened: Callable[[], bool], what: str) -> None:
        """Wait until that has happened."""
        from twisted.internet import reactor

        for _ in range(PATIENCE * 50):
            if happened():
                return
            await deferLater(reactor, 0.02)  # type: ignore[arg-type]
        raise AssertionError(f"Not so after {PATIENCE} seconds: {what}")

    async def untilDetached(self, perspective: Any) -> None:
        """Call until that is not allowed any more."""
        from twisted.internet import reactor

        for _ in range(PATIENCE * 50):
            try:
                await perspective.callRemote("say", "on")
            except Detached:
                return
            await deferLater(reactor, 0.01)  # type: ignore[arg-type]
        raise AssertionError("The session is still live.")

    async def test_revocation(self) -> None:
        """What is taken away on one server ends the sessions on all, and no others."""
        await self.start("alice", "bob", "carol", "dave")
        sessions: dict[str, list[Any]] = {}
        # In turn, so that each user is on each server.
        for _ in self.cluster.servers:
            for name in ("alice", "bob", "carol", "dave"):
                sessions.setdefault(name, []).append(await self.logIn(name))
        for perspectives in sessions.values():
            for perspective in perspectives:
                self.addCleanup(self.hangUp, perspective)
        for server in self.cluster.servers:
            await server.waitFor("Attached 'alice'")
        bob = await self.accounts.getIdentityRequest("bob")
        bob.removeKey("echo", "bob")
        carol = await self.accounts.getIdentityRequest("carol")
        carol.setPassword("another one")
        for name, change in (
            ("alice", lambda: self.accounts.removeIdentity("alice")),
            ("bob", bob.save),
            ("carol", carol.save),
        ):
            begun = time.monotonic()
            await change()
            committed = time.monotonic()
            await gatherResults(
                [Deferred.fromCoroutine(self.untilDetached(each)) for each in sessions[name]]
            )
            _log.info(
                "{name}: written in {write:.3f} s, ended on all servers {ended:.3f} s after that",
                name=name,
                write=committed - begun,
                ended=time.monotonic() - committed,
            )
        for perspective in sessions["dave"]:
            self.assertEqual(await perspective.callRemote("say", "still"), "still")

    async def test_groupsAndDates(self) -> None:
        """
        What a group loses, and when an account expires, ends the sessions on all servers within
        about a second; who holds the key without the group stays.
        """
        await self.start("dave")
        await self.accounts.addGroup("staff")
        await self.accounts.grantGroupKey("staff", "echo", "{name}")
        for name in ("alice", "bob", "carol", "dave"):
            if name != "dave":
                # With a key to another service alone.
                await addUser(self.accounts, name)
            await self.accounts.addMember("staff", name)
        sessions: dict[str, list[Any]] = {}
        for _ in self.cluster.servers:
            for name in ("alice", "bob", "carol", "dave"):
                sessions.setdefault(name, []).append(await self.logIn(name))
        for perspectives in sessions.values():
            for perspective in perspectives:
                self.addCleanup(self.hangUp, perspective)
        for server in self.cluster.servers:
            await server.waitFor("Attached 'carol'")
        alice = await self.accounts.getIdentityRequest("alice")
        alice.expires = self.accounts.now()
        for names, change in (
            (("alice",), alice.save),
            (("bob",), lambda: self.accounts.removeMember("staff", "bob")),
            (("carol",), lambda: self.accounts.revokeGroupKey("staff", "echo", "{name}")),
        ):
            begun = time.monotonic()
            await change()
            for name in names:
                await gatherResults(
                    [Deferred.fromCoroutine(self.untilDetached(each)) for each in sessions[name]]
                )
            _log.info(
                "{names}: ended on all servers {ended:.3f} s after the change began",
                names=names,
                ended=time.monotonic() - begun,
            )
        await self.accounts.removeGroup("staff")
        for perspective in sessions["dave"]:
            self.assertEqual(await perspective.callRemote("say", "still"), "still")

    def hangUp(self, perspective: Any) -> Any:
        """Close a connection."""
        closed = perspective.broker.whenClosed()
        perspective.broker.transport.loseConnection()
        return closed

    async def load(self, count: int) -> list[Caller]:
        """Let so many clients call all the time, and wait until all are answered."""
        callers = [Caller(self.cluster, f"user{number}") for number in range(count)]
        for caller in callers:
            self.addCleanup(caller.stop)
        await self.until(lambda: all(caller.answers for caller in callers), "all are answered")
        return callers

    async def whileWriting(self, meanwhile: Any) -> None:
        """
        Change passwords and keyrings all the time, and see in the end that whatever was said to be
        done is there.
        """
        from twisted.internet import reactor

        done: list[str] = []
        going = True

        async def write() -> None:
            number = 0
            while going:
                number += 1
                try:
                    await addUser(self.accounts, f"new{number}")
                except StoreError:
                    await deferLater(reactor, 0.05)  # type: ignore[arg-type]
                else:
                    done.append(f"new{number}")
                await deferLater(reactor, 0.002)  # type: ignore[arg-type]

        writing = Deferred.fromCoroutine(write())
        try:
            await self.until(lambda: len(done) > 20, "some were written")
            await meanwhile()
            enough = len(done) + 20
            await self.until(lambda: len(done) > enough, "it goes on")
        finally:
            going = False
            await writing
        there = {name for name, _, _ in await self.accounts.listIdentities()}
        self.assertEqual(set(done) - there, set())

    async def test_serverKilled(self) -> None:
        """The clients of a server that is killed attach to another one, and nothing is lost."""
        await self.start(*(f"user{number}" for number in range(9)))
        callers = await self.load(9)

        async def killOne() -> None:
            self.cluster.servers[0].kill()
            begun = time.monotonic()
            await self.until(
                lambda: sum(caller.attached for caller in callers) >= 12, "three attach again"
            )
            for caller in callers:
                caller.answers = 0
            await self.until(lambda: all(caller.answers for caller in callers), "all are answered")
            _log.info("all are answered again after {s:.2f} s", s=time.monotonic() - begun)

        await self.whileWriting(killOne)

    async def test_databaseRestarted(self) -> None:
        """
        While the database is away, who is logged in works on, and others are told to try again;
        then all goes on by itself: logins, writing, and what is taken away.
        """
        await self.start(*(f"user{number}" for number in range(6)), "late", "alice", own=True)
        callers = await self.load(6)
        alice = await self.logIn("alice")
        self.addCleanup(self.hangUp, alice)

        async def restart() -> None:
            self.database.kill()
            for caller in callers:
                caller.answers = 0
            await self.until(lambda: all(caller.answers > 20 for caller in callers), "they work on")
            for _ in range(4):
                with self.assertRaises(StoreError) as raised:
                    await self.logIn("late")
                self.assertNotIsInstance(raised.exception, Unauthorized)
                self.assertIn("Try again later", str(raised.exception))
            self.database.start()
            begun = time.monotonic()
            while True:
                try:
                    late = await self.logIn("late")
                except StoreError:
                    continue
                break
            self.hangUp(late)
            _log.info("logins go on after {s:.2f} s", s=time.monotonic() - begun)
            # What was taken away as soon as there was a database again is not missed.
            while True:
                try:
                    await self.accounts.removeIdentity("alice")
                except StoreError:
                    continue
                break
            await self.untilDetached(alice)
            _log.info("sessions end again after {s:.2f} s", s=time.monotonic() - begun)

        await self.whileWriting(restart)
        self.assertEqual([caller.attached for caller in callers], [1] * 6)
        self.flushLoggedErrors()
