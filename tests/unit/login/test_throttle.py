"""Who may try, and how often."""

from __future__ import annotations

import tracemalloc
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pbauth import Policy
from pbauth.login.throttle import LONGEST_WAIT, Guard, Penalties, Strangers, Throttle, networkOf


class PenaltyTests(SynchronousTestCase):
    """Penalties of one network."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.penalties = Penalties(self.clock.seconds, 100)

    def fail(self, times: int = 1) -> None:  # type: ignore[override]
        """Fail so often."""
        for _ in range(times):
            self.penalties.add("who", 12)

    def wait(self) -> float:
        """How long to wait now."""
        return self.penalties.wait("who")

    def test_fiveAreFree(self) -> None:
        """Five failures at once are free, and so are five in each minute that follows."""
        self.fail(5)
        self.assertEqual(self.wait(), 0)
        for _ in range(20):
            self.clock.advance(12)
            self.fail()
            self.assertEqual(self.wait(), 0)

    def test_sixthHasToWait(self) -> None:
        """Who failed six times waits, and longer after each further failure."""
        self.fail(6)
        waits = [self.wait()]
        for _ in range(8):
            self.clock.advance(self.wait())
            self.assertEqual(self.wait(), 0)
            self.fail()
            waits.append(self.wait())
        self.assertEqual(waits[:4], [12, 24, 48, 96])
        self.assertEqual(waits[-1], LONGEST_WAIT)

    def test_decays(self) -> None:
        """Time heals, one second each second; after a while all is forgotten."""
        self.fail(7)
        first = self.wait()
        self.clock.advance(10)
        self.assertEqual(self.wait(), first - 10)
        self.clock.advance(1000)
        self.assertEqual(self.wait(), 0)
        self.fail(5)
        self.assertEqual(self.wait(), 0)

    def test_capped(self) -> None:
        """Nobody waits longer than the longest, however often they fail."""
        self.fail(1000)
        self.assertEqual(self.wait(), LONGEST_WAIT)

    def test_bounded(self) -> None:
        """The ones that failed longest ago are forgotten first."""
        self.fail(10)
        for number in range(99):
            self.penalties.add(number, 12)
        self.assertGreater(self.wait(), 0)
        self.penalties.add("one more", 12)
        self.assertEqual(self.wait(), 0)
        self.assertEqual(len(self.penalties), 100)

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.tuples(st.floats(0, 500), st.integers(0, 3)), max_size=40))
    def test_always(self, steps: list[tuple[float, int]]) -> None:
        """Whatever happens: a wait is never negative or too long, and never grows by itself."""
        clock = Clock()
        penalties = Penalties(clock.seconds)
        for pause, failures in steps:
            before = penalties.wait("who")
            clock.advance(pause)
            self.assertLessEqual(penalties.wait("who"), before)
            for _ in range(failures):
                penalties.add("who", 12)
            self.assertTrue(0 <= penalties.wait("who") <= LONGEST_WAIT)


class ThrottleTests(SynchronousTestCase):
    """Networks and names."""

    def setUp(self) -> None:
        self.throttle = Throttle(Clock().seconds)

    def test_network(self) -> None:
        """Who guesses at many names waits; other networks do not."""
        for number in range(10):
            self.throttle.failed("203.0.113.1", f"user{number}")
        self.assertGreater(self.throttle.wait("203.0.113.1", "another"), 0)
        self.assertEqual(self.throttle.wait("203.0.113.2", "another"), 0)

    def test_name(self) -> None:
        """A name that many guess at waits, wherever they come from; other names do not."""
        for number in range(10):
            self.throttle.failed(f"203.0.113.{number}", "alice")
        self.assertGreater(self.throttle.wait("198.51.100.1", "alice"), 0)
        self.assertEqual(self.throttle.wait("198.51.100.1", "bob"), 0)

    def test_ownerIsNotLockedOut(self) -> None:
        """Who has logged in from somewhere before still may, from there."""
        self.throttle.succeeded("192.0.2.1", "alice")
        for number in range(1000):
            self.throttle.failed(f"203.0.113.{number}", "alice")
        self.assertEqual(self.throttle.wait("192.0.2.1", "alice"), 0)
        self.assertGreater(self.throttle.wait("192.0.2.2", "alice"), 0)
        for _ in range(10):
            self.throttle.failed("192.0.2.1", "alice")
        self.assertGreater(self.throttle.wait("192.0.2.1", "alice"), 0)

    def test_memory(self) -> None:
        """A hundred thousand sources and names take no more room than those that are remembered."""
        throttle = Throttle(Clock().seconds, 1000)

        def flood(first: int) -> None:
            for number in range(first, first + 20_000):
                throttle.failed(f"source {number}", f"name {number}")
                throttle.succeeded(f"source {number}", f"name {number}")

        flood(0)
        tracemalloc.start()
        flood(20_000)
        grown, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        self.assertLess(grown, 2_000_000)


class NetworkTests(SynchronousTestCase):
    """Who is held responsible."""

    def test_networks(self) -> None:
        """An IPv4 address by itself, an IPv6 address with its /64, all else together."""
        for address, network in [
            (IPv4Address("TCP", "203.0.113.7", 1), "203.0.113.7"),
            (IPv6Address("TCP", "2001:db8:1:2:3:4:5:6", 1), "2001:db8:1:2::/64"),
            (IPv6Address("TCP", "2001:db8:1:2:ffff::1", 1), "2001:db8:1:2::/64"),
            (IPv6Address("TCP", "fe80::1%eth0", 1), "fe80::/64"),
            (IPv6Address("TCP", "::ffff:203.0.113.7", 1), "203.0.113.7"),
            (UNIXAddress("path"), "this machine"),
            (None, "this machine"),
        ]:
            self.assertEqual(networkOf(address), network)


class StrangerTests(SynchronousTestCase):
    """Connections that are not logged in yet."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.dropped: list[str] = []

    def strangers(self, most: int = 10, random: float = 0.5) -> Strangers:
        """Time is 30 seconds; chance is certain."""
        return Strangers(most, 30, self.clock, lambda: random)

    def come(self, strangers: Strangers, name: str = "one") -> Any:
        """A connection comes."""
        return strangers.came(lambda: self.dropped.append(name))

    def test_grace(self) -> None:
        """Each has its own time from when it came; who left in time is not dropped."""
        strangers = self.strangers()
        self.come(strangers, "first")
        self.clock.advance(10)
        second = self.come(strangers, "second")
        self.come(strangers, "third")
        self.clock.advance(19.9)
        self.assertEqual(self.dropped, [])
        self.clock.advance(0.1)
        self.assertEqual(self.dropped, ["first"])
        strangers.left(second)
        strangers.left(second)
        self.assertEqual(len(strangers), 1)
        self.clock.advance(10)
        self.assertEqual(self.dropped, ["first", "third"])
        self.assertEqual((len(strangers), self.clock.getDelayedCalls()), (0, []))

    def test_most(self) -> None:
        """Few may come at any rate, near the limit some, above it none."""
        for random, expected in ((0.0, 90), (0.5, 95), (0.999, 100)):
            strangers = self.strangers(100, random)
            came = 0
            while strangers.mayCome():
                self.come(strangers)
                came += 1
            self.assertAlmostEqual(came, expected, delta=1)

    def test_small(self) -> None:
        """Where few may come, they may."""
        strangers = self.strangers(3, 0.01)
        for _ in range(3):
            self.assertTrue(strangers.mayCome())
            self.come(strangers)
        self.assertFalse(strangers.mayCome())


class StrangersMachine(RuleBasedStateMachine):
    """Connections come, log in, and are too late, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.strangers = Strangers(1000, 30, self.clock, lambda: 1.0)
        self.here: dict[Any, float] = {}

    @rule()
    def come(self) -> None:
        holder: list[Any] = []
        holder.append(self.strangers.came(lambda: self.here.pop(holder[0])))
        self.here[holder[0]] = self.clock.seconds() + 30

    @precondition(lambda self: self.here)
    @rule(data=st.data())
    def leave(self, data: Any) -> None:
        stranger = data.draw(st.sampled_from(list(self.here)))
        del self.here[stranger]
        self.strangers.left(stranger)

    @rule(seconds=st.floats(0, 40))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @invariant()
    def agree(self) -> None:
        assert len(self.strangers) == len(self.here)
        assert all(deadline > self.clock.seconds() for deadline in self.here.values())
        assert len(self.clock.getDelayedCalls()) == bool(self.here)


class MachineTests(SynchronousTestCase):
    """The same, run."""

    def test_anyOrder(self) -> None:
        """Whatever happens in whatever order."""
        run_state_machine_as_test(
            StrangersMachine,
            settings=settings(max_examples=50, stateful_step_count=30, deadline=None),
        )


class GuardTests(SynchronousTestCase):
    """What a policy makes of it."""

    def test_off(self) -> None:
        """Without the throttle nobody waits."""
        guard = Guard(Policy(throttle=False), Clock())
        for _ in range(100):
            guard.failed("203.0.113.1", "alice")
            guard.misbehaved("203.0.113.1")
        guard.succeeded("203.0.113.1", "alice")
        self.assertEqual(guard.wait("203.0.113.1", "alice"), 0)

    def test_nuisances(self) -> None:
        """Who wastes time, or breaks the protocol, waits sooner."""
        guard = Guard(Policy(), Clock())
        for _ in range(3):
            self.assertEqual(guard.wait("203.0.113.1", "alice"), 0)
            guard.misbehaved("203.0.113.1")
        self.assertGreater(guard.wait("203.0.113.1", "alice"), 0)

    def test_crowded(self) -> None:
        """Where half of the places are taken, who has to wait does not get one of the others."""
        clock = Clock()
        guard = Guard(Policy(maxUnauthenticated=10), clock)
        for _ in range(3):
            guard.misbehaved("203.0.113.1")
        places = []
        while guard.mayCome("203.0.113.1"):
            places.append(guard.strangers.came(lambda: None))
        self.assertEqual(len(places), 5)
        self.assertTrue(guard.mayCome("203.0.113.2"))
        # Time heals.
        for place in places:
            guard.strangers.left(place)
        clock.advance(60)
        for _ in range(6):
            guard.strangers.came(lambda: None)
        self.assertTrue(guard.mayCome("203.0.113.1"))

    def test_crowdedWithoutThrottle(self) -> None:
        """Without the throttle all are alike."""
        guard = Guard(Policy(maxUnauthenticated=10, throttle=False), Clock())
        for _ in range(6):
            guard.misbehaved("203.0.113.1")
            guard.strangers.came(lambda: None)
        self.assertTrue(guard.mayCome("203.0.113.1"))
