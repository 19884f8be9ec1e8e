"""The pages on the health of a server."""

from __future__ import annotations

import os
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import Agent, readBody

from pbauth.server.health import LONGEST, Readiness
from pbauth.server.metrics import MetricsSite
from pbauth.server.services import HealthService, MetricsService
from pbauth.tap import Options, makeService

LOOPBACK = "tcp:0:interface=127.0.0.1"


class ReadinessTests(SynchronousTestCase):
    """What the checks come to."""

    def problems(self, **checks: Any) -> Any:
        """Ask."""
        self.clock = Clock()
        return Readiness(checks, self.clock).problems()

    def test_outcomes(self) -> None:
        """Values, Deferreds and coroutines; what raises has failed, and the log has why."""

        async def well() -> bool:
            return True

        def broken() -> None:
            raise ZeroDivisionError

        problems = self.problems(a=lambda: True, b=lambda: False, c=well, d=broken)
        self.assertEqual(self.successResultOf(problems), ["b", "d"])

    def test_late(self) -> None:
        """A check that takes too long has failed."""
        problems = self.problems(a=lambda: Deferred(), b=lambda: True)
        self.assertNoResult(problems)
        self.clock.advance(LONGEST)
        self.assertEqual(self.successResultOf(problems), ["a"])

    def test_shared(self) -> None:
        """However many ask, one looks."""
        looking: list[Deferred[bool]] = []

        def look() -> Deferred[bool]:
            looking.append(Deferred())
            return looking[-1]

        readiness = Readiness({"a": look}, Clock())
        asking = [readiness.problems() for _ in range(3)]
        self.assertEqual(len(looking), 1)
        looking[0].callback(True)
        self.assertEqual([self.successResultOf(each) for each in asking], [[]] * 3)


class PageTests(TestCase):
    """A whole server."""

    async def start(self, *arguments: str) -> Any:
        """Start it, on ports of this machine."""
        from twisted.internet import reactor

        environment = {name: text for name, text in os.environ.items() if "PBAUTH" not in name}
        self.patch(os, "environ", environment)
        options = Options()
        options.parseOptions(
            ["--state", self.mktemp(), "--port", LOOPBACK, "--no-admin", *arguments]
        )
        server = makeService(options)
        server.privilegedStartService()
        server.startService()
        self.addCleanup(server.stopService)
        # It is not ready before it has looked for changes once, which takes a thread.
        (changes,) = [each for each in server if hasattr(each, "notices")]
        while not changes.notices:
            await deferLater(reactor, 0.01)
        return server

    def service(self, server: Any, kind: type) -> Any:
        """The service of a kind."""
        (found,) = [each for each in server if isinstance(each, kind)]
        return found

    async def get(self, service: Any, page: str) -> tuple[int, str]:
        """Ask for a page."""
        from twisted.internet import reactor

        agent: Any = Agent(reactor)
        where = f"http://127.0.0.1:{service._address.port}/{page}"
        response: Any = await agent.request(b"GET", where.encode())
        return response.code, (await readBody(response)).decode()

    async def test_healthy(self) -> None:
        """It is alive and ready; and there is nothing else."""
        server = await self.start("--health", LOOPBACK)
        health = self.service(server, HealthService)
        self.assertEqual(await self.get(health, "healthz"), (200, "alive\n"))
        self.assertEqual(await self.get(health, "readyz"), (200, "ready\n"))
        self.assertEqual((await self.get(health, "metrics"))[0], 404)
        answers = await gatherResults(
            [Deferred.fromCoroutine(self.get(health, "readyz")) for _ in range(5)]
        )
        self.assertEqual(answers, [(200, "ready\n")] * 5)

    async def test_besideMetrics(self) -> None:
        """Where there are metrics, the pages are there as well."""
        server = await self.start("--metrics", LOOPBACK)
        metrics = self.service(server, MetricsService)
        self.assertIsInstance(metrics.factory, MetricsSite)
        self.assertEqual(await self.get(metrics, "readyz"), (200, "ready\n"))
        self.assertEqual((await self.get(metrics, "metrics"))[0], 200)

    async def test_draining(self) -> None:
        """A server that drains is alive, and takes nobody."""
        server = await self.start("--health", LOOPBACK)
        health = self.service(server, HealthService)
        draining = next(each for each in server if hasattr(each, "draining"))
        stopped: Deferred[None] = Deferred()
        self.patch(draining, "_reactor", mock.Mock(stop=lambda: stopped.callback(None)))
        draining.begin()
        await stopped
        self.assertEqual((await self.get(health, "healthz"))[0], 200)
        self.assertEqual(
            await self.get(health, "readyz"),
            (503, "not ready: it does not listen\nnot ready: it is draining\n"),
        )
        draining.begin()

    async def test_accounts(self) -> None:
        """One whose accounts can't be read says so, and nothing of the reason."""
        accounts = os.path.abspath(self.mktemp())
        server = await self.start("--health", LOOPBACK, "--accounts", f"passwd:{accounts}")
        health = self.service(server, HealthService)
        self.assertEqual(await self.get(health, "readyz"), (200, "ready\n"))
        with open(accounts, "w") as file:
            file.write("nonsense")
        code, text = await self.get(health, "readyz")
        self.assertEqual((code, text), (503, "not ready: the accounts can't be read\n"))
