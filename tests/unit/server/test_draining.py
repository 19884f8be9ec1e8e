"""The end of a server that drains: who else may stop it meanwhile."""

from __future__ import annotations

import gc
from typing import Any

from twisted.internet.error import ReactorNotRunning
from twisted.internet.task import Clock

from pbauth.login.drain import Drain
from pbauth.server.draining import DrainService
from tests.support.wire import WireTestCase


class StoppingReactor(Clock):
    """A reactor that can be stopped once, as Twisted's can."""

    stopped = 0

    def stop(self) -> None:
        """Stop, unless that has been done."""
        if self.stopped:
            raise ReactorNotRunning("Can't stop reactor that isn't running.")
        self.stopped += 1


class StopTests(WireTestCase):
    """A server that drains, with a client."""

    def setUp(self) -> None:
        super().setUp()
        self.successResultOf(self.login())
        limits = self.memory._factory._authRoot.limits  # type: ignore[attr-defined]
        self.reactor: Any = StoppingReactor()
        drain = Drain(limits, self.memory.authorizer.sessions, self.reactor)
        self.service = DrainService(self.reactor, drain, 30)

    def end(self) -> None:
        """Let the time be up."""
        for _ in range(200):
            self.reactor.advance(0.25)
            self.memory.flush()

    def assertNothingLogged(self) -> None:
        """No error is logged, not even by a Deferred that nobody waits for."""
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_stops(self) -> None:
        """Once its clients are gone, the server stops."""
        self.service.begin()
        self.assertEqual(self.reactor.stopped, 0)
        self.end()
        self.assertEqual(self.reactor.stopped, 1)

    def test_stoppedMeanwhile(self) -> None:
        """If Ctrl-C has stopped the reactor while the server drained, that is no error."""
        self.service.begin()
        self.reactor.stop()
        self.end()
        self.assertEqual(len(self.memory.authorizer.sessions), 0)
        self.assertNothingLogged()

    def test_hurriedThenStopped(self) -> None:
        """Nor if another signal had it hurry."""
        self.service.begin()
        self.service.begin()
        self.reactor.stop()
        self.end()
        self.assertNothingLogged()
