"""Servers that are restarted one after the other, while clients call all the time."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.trial.unittest import TestCase

from pbauth import Hashing, Password, PerspectiveClient, SQLAuthorizer
from tests.support.cluster import HAPROXY, Cluster
from tests.support.postgres import postgres
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
        cluster = Cluster(self, url, "--service", service, "--drain", "6")
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
