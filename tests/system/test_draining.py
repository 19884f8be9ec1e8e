"""Servers that are restarted one after the other, while clients call all the time."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.spread import pb
from twisted.trial.unittest import TestCase

from pbauth import Hashing, Password, PerspectiveClient, SQLAuthorizer, connect
from pbauth.server.state import openAuthorizer
from tests.support.cluster import HAPROXY, Cluster
from tests.support.postgres import postgres
from tests.support.processes import PBAUTH, TWISTD, Program, run
from tests.support.suites.sqlstores import addUser

_log = Logger()

#: How many clients there are; the documentation tells of 300.
CLIENTS = int(os.environ.get("PBAUTH_TEST_CLIENTS", "20"))


class RestartTests(TestCase):
    """Three servers on PostgreSQL behind HAProxy, as processes."""

    timeout = 240
    if HAPROXY is None:
        skip = "HAProxy is not installed. On Debian: apt install haproxy"

    async def test_inTurn(self) -> None:
        """No call fails, and none is run twice."""
        from twisted.internet import reactor

        url = postgres().makeDatabase()
        accounts = SQLAuthorizer(url, hashing=Hashing.CHEAPEST)
        self.addCleanup(accounts.close)
        alice = await addUser(accounts, "alice")
        alice.addKeyByString("count", "alice")
        await alice.save()
        calls = os.path.abspath(self.mktemp())
        self.patch(os, "environ", {**os.environ, "CALLS": calls})
        service = "count=tests.support.counting.CountingService"
        cluster = Cluster(self, url, "--service", service, "--drain", "4")
        await cluster.start()
        secret = Password("secret", renew=False)
        going = True
        answered: list[str] = []
        attached: Counter[int] = Counter()

        async def callAllTheTime(number: int) -> None:
            class Client(PerspectiveClient):
                def attached(self, perspective: Any) -> None:
                    attached[number] += 1

            client = Client(
                cluster.endpoint, secret, "count", "alice", trust=cluster.certificate, timeout=60
            )
            client.startService()
            made = 0
            try:
                while going:
                    made += 1
                    # Now and then one that takes longer than the changeover.
                    seconds = 0.5 if made % 7 == 0 else 0.0
                    answered.append(await client.callRemote("run", f"{number}-{made}", seconds))
                    await deferLater(reactor, 0.05)  # type: ignore[arg-type]
            finally:
                await client.stopService()

        callers = [Deferred.fromCoroutine(callAllTheTime(number)) for number in range(CLIENTS)]
        together = gatherResults(callers, consumeErrors=True)
        try:
            for number in range(3):
                while len(attached) < CLIENTS:
                    await deferLater(reactor, 0.1)  # type: ignore[arg-type]
                await cluster.restart(number)
        finally:
            going = False
            await together
        ran = Counter(Path(calls).read_text().split())
        self.assertEqual(set(ran.values()), {1}, "A call was run twice.")
        self.assertEqual(set(ran), set(answered), "A call was lost.")
        # Each was at a server that was restarted, some at more than one.
        self.assertGreaterEqual(sum(attached.values()), 2 * CLIENTS)
        _log.info(
            "{calls} calls by {clients} clients, which attached {attached} times",
            calls=len(answered),
            clients=CLIENTS,
            attached=sum(attached.values()),
        )


class CommandTests(TestCase):
    """``pbauth server drain``, on a server that is a process."""

    timeout = 120

    async def serve(self, *arguments: str) -> Program:
        """Start a server with a user, an administrator and a service whose calls take a while."""
        self.state = os.path.abspath(self.mktemp())
        self.audit = os.path.abspath(self.mktemp())
        accounts = openAuthorizer(self.state, hashing=Hashing.CHEAPEST)
        for name, service in (("alice", "count"), ("root", "admin")):
            identity = await addUser(accounts, name)
            identity.addKeyByString(service, name)
            await identity.save()
        accounts.close()
        server = Program(
            *(*TWISTD, "--state", self.state, "--audit", self.audit),
            *("--port", "tcp:0:interface=127.0.0.1"),
            *("--service", "count=tests.support.counting.CountingService", *arguments),
        )
        self.addCleanup(server.stop)
        self.port = int((await server.waitFor(r"Listening on 127.0.0.1:(\d+)")).group(1))
        return server

    async def call(self) -> Deferred[Any]:
        """Log alice in and begin a call that ends when `self.end` is there; give its answer."""
        secret = Password("secret", renew=False)
        alice: Any = await connect("127.0.0.1", self.port, "alice", secret, "count", "alice")
        self.addCleanup(alice.broker.transport.loseConnection)
        self.end = Path(self.mktemp()).absolute()
        self.connection = alice.broker.transport
        answer: Deferred[Any] = alice.callRemote("until", str(self.end))
        # It has begun, once what was said after it is answered.
        await alice.callRemote("whoami")
        return answer

    async def drain(self, name: str = "root") -> Program:
        """Type the command."""
        return await run(
            *(*PBAUTH, "--server", f"tcp:127.0.0.1:{self.port}", "--login", name),
            *("--login-password-stdin", "server", "drain"),
            stdin="secret\n",
        )

    async def test_drain(self) -> None:
        """The call under way is answered; then the server has ended, and says who wanted that."""
        server = await self.serve("--drain", "50")
        answer = await self.call()
        refused = await self.drain("alice")
        self.assertEqual(refused.exitCode, 1)
        said = await self.drain()
        self.assertEqual(
            (said.output, said.exitCode),
            ("The server takes no more connections, and stops within 50 seconds.\n", 0),
        )
        late = await self.drain()
        self.assertIn("Is the server running there?", late.output)
        self.assertFalse(answer.called)
        self.end.touch()
        self.assertEqual(await answer, "at last")
        # The server would wait half of the time for the client to do this.
        self.connection.loseConnection()
        await server.whenEnded()
        self.assertEqual(server.exitCode, 0, server.output)
        self.assertNotIn("Traceback", server.output)
        events = [json.loads(line) for line in Path(self.audit).read_text().splitlines()]
        (event,) = [each for each in events if each["event"] == "server.drained"]
        self.assertEqual(event["operator"], "root")

    async def test_inHaste(self) -> None:
        """A SIGTERM while it drains stops it at once."""
        server = await self.serve("--drain", "600")
        answer = await self.call()
        await self.drain()
        server.kill("TERM")
        with self.assertRaises(pb.PBConnectionLost):
            await answer
        await server.whenEnded()
        self.assertEqual(server.exitCode, 0, server.output)
        self.assertNotIn("Traceback", server.output)

    async def test_signals(self) -> None:
        """Signals while it drains, also of Ctrl-C, stop it at once, without a traceback."""
        for signals in (["INT", "INT"], ["TERM", "INT"], ["TERM", "TERM"]):
            server = await self.serve("--drain", "600")
            answer = await self.call()
            await self.drain()
            for each in signals:
                server.kill(each)
            with self.assertRaises(pb.PBConnectionLost):
                await answer
            await server.whenEnded()
            # Of a SIGINT that it hears of first, twistd dies by that.
            self.assertIn(server.exitCode, (0, None), server.output)
            self.assertIn("Server Shut Down", server.output)
            for wrong in ("Traceback", "Unhandled", "ReactorNotRunning"):
                self.assertNotIn(wrong, server.output, signals)

    async def test_noTime(self) -> None:
        """The answer arrives, even if the server stops at once."""
        server = await self.serve("--drain", "0")
        said = await self.drain()
        self.assertIn("stops within 0 seconds", said.output)
        await server.whenEnded()
        self.assertEqual(server.exitCode, 0, server.output)

    async def test_noServer(self) -> None:
        """Which server is meant has to be said."""
        said = await run(*PBAUTH, "server", "drain")
        self.assertIn("kill -TERM", said.output)
        self.assertEqual(said.exitCode, 2)
