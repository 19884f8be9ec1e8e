"""Intervals do not depend on the wall clock."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock, LoopingCall
from twisted.trial.unittest import SynchronousTestCase

from pbauth import LimitExceeded, Policy
from pbauth._time import monotonic, useMonotonicClock, wallTime
from pbauth.login.connectionlimits import ConnectionLimits
from pbauth.wire.calllimits import CallCounts


class MonotonicTests(SynchronousTestCase):
    """A reactor of Twisted's, on a machine whose clock somebody sets back an hour."""

    def setUp(self) -> None:
        self.wall = 1_000_000.0
        self.steady = 5_000.0
        self.patch(time, "monotonic", lambda: self.steady)
        test = self

        class Reactor(SelectReactor):
            """Not the one of this process."""

            seconds = staticmethod(lambda: test.wall)

        self.reactor: Any = Reactor()
        # It has a pipe to be woken by.
        self.addCleanup(self.reactor.disconnectAll)

    def passTime(self, seconds: float) -> None:
        """Let time pass, and do what is due."""
        self.wall += seconds
        self.steady += seconds
        self.reactor.runUntilCurrent()

    def test_timers(self) -> None:
        """What was to happen in ten seconds happens in ten seconds, set before or after."""
        happened: list[str] = []
        self.reactor.callLater(10, happened.append, "before")
        useMonotonicClock(self.reactor)
        useMonotonicClock(self.reactor)
        self.reactor.callLater(10, happened.append, "after")
        looping = LoopingCall(happened.append, "again")
        looping.clock = self.reactor
        looping.start(4, now=False)
        self.wall -= 3600
        self.passTime(5)
        self.assertEqual(happened, ["again"])
        self.passTime(5)
        self.assertEqual(sorted(happened), ["after", "again", "again", "before"])
        looping.stop()

    def test_withoutIt(self) -> None:
        """Twisted itself would wait for another hour."""
        happened: list[str] = []
        self.reactor.callLater(10, happened.append, "late")
        self.wall -= 3600
        self.passTime(100)
        self.assertEqual(happened, [])

    def test_throttle(self) -> None:
        """Whoever has failed does not wait longer; that takes no monotonic reactor."""
        limits = ConnectionLimits(Policy(), self.reactor)
        for _ in range(6):
            limits.failed("192.0.2.1", "alice")
        wait = limits.wait("192.0.2.1", "alice")
        self.assertGreater(wait, 0)
        self.wall -= 3600
        self.passTime(wait + 0.1)
        self.assertEqual(limits.wait("192.0.2.1", "alice"), 0)

    def test_forward(self) -> None:
        """A clock that is set forward ends no wait, refills no limit, and drops no connection."""
        policy = Policy(maxCallsPerSecond=1, callBurst=1)
        limits = ConnectionLimits(policy, self.reactor)
        useMonotonicClock(self.reactor)
        for _ in range(6):
            limits.failed("192.0.2.1", "alice")
        dropped: list[str] = []
        limits.unauthenticated.add(lambda: dropped.append("dropped"))
        counts = CallCounts(limits.calls)
        counts.admit(1)
        self.wall += 3600
        self.passTime(0.5)
        self.assertGreater(limits.wait("192.0.2.1", "alice"), 0)
        self.assertEqual(dropped, [])
        with self.assertRaises(LimitExceeded):
            counts.admit(1)
        self.passTime(policy.graceTime)
        self.assertEqual(dropped, ["dropped"])

    def test_times(self) -> None:
        """People read the wall clock; a clock of a test is both."""
        self.assertLess(abs(wallTime(self.reactor) - time.time()), 60)
        self.assertIs(monotonic(self.reactor), time.monotonic)
        clock = Clock()
        clock.advance(7)
        self.assertEqual((wallTime(clock), monotonic(clock)()), (7, 7))
        useMonotonicClock(clock)
        self.assertEqual(clock.seconds(), 7)
