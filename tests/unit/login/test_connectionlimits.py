"""The connections without a login: how many there may be, and how long."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pbauth import Policy
from pbauth.login.connectionlimits import ConnectionLimits, UnauthenticatedConnections


class ConnectionTests(SynchronousTestCase):
    """Connections that are not logged in yet."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.dropped: list[str] = []

    def connections(self, most: int = 10, random: float = 0.5) -> UnauthenticatedConnections:
        """Time is 30 seconds; chance is certain."""
        return UnauthenticatedConnections(most, 30, self.clock, lambda: random)

    def come(self, connections: UnauthenticatedConnections, name: str = "one") -> Any:
        """A connection comes."""
        return connections.add(lambda: self.dropped.append(name))

    def test_grace(self) -> None:
        """Each has its own time from when it came; who left in time is not dropped."""
        connections = self.connections()
        self.come(connections, "first")
        self.clock.advance(10)
        second = self.come(connections, "second")
        self.come(connections, "third")
        self.clock.advance(19.9)
        self.assertEqual(self.dropped, [])
        self.clock.advance(0.1)
        self.assertEqual(self.dropped, ["first"])
        connections.remove(second)
        connections.remove(second)
        self.assertEqual(len(connections), 1)
        self.clock.advance(10)
        self.assertEqual(self.dropped, ["first", "third"])
        self.assertEqual((len(connections), self.clock.getDelayedCalls()), (0, []))

    def test_most(self) -> None:
        """Few may come at any rate, near the limit some, above it none."""
        for random, expected in ((0.0, 90), (0.5, 95), (0.999, 100)):
            connections = self.connections(100, random)
            came = 0
            while connections.admits():
                self.come(connections)
                came += 1
            self.assertAlmostEqual(came, expected, delta=1)

    def test_small(self) -> None:
        """Where few may come, they may."""
        connections = self.connections(3, 0.01)
        for _ in range(3):
            self.assertTrue(connections.admits())
            self.come(connections)
        self.assertFalse(connections.admits())


class ConnectionsMachine(RuleBasedStateMachine):
    """Connections come, log in, and are too late, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.connections = UnauthenticatedConnections(1000, 30, self.clock, lambda: 1.0)
        self.here: dict[Any, float] = {}

    @rule()
    def come(self) -> None:
        holder: list[Any] = []
        holder.append(self.connections.add(lambda: self.here.pop(holder[0])))
        self.here[holder[0]] = self.clock.seconds() + 30

    @precondition(lambda self: self.here)
    @rule(data=st.data())
    def leave(self, data: Any) -> None:
        connection = data.draw(st.sampled_from(list(self.here)))
        del self.here[connection]
        self.connections.remove(connection)

    @rule(seconds=st.floats(0, 40))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @invariant()
    def agree(self) -> None:
        assert len(self.connections) == len(self.here)
        assert all(deadline > self.clock.seconds() for deadline in self.here.values())
        assert len(self.clock.getDelayedCalls()) == bool(self.here)


class MachineTests(SynchronousTestCase):
    """The same, run."""

    def test_anyOrder(self) -> None:
        """Whatever happens in whatever order."""
        run_state_machine_as_test(
            ConnectionsMachine,
            settings=settings(max_examples=50, stateful_step_count=30),
        )


class LimitsTests(SynchronousTestCase):
    """What a policy makes of it."""

    def test_off(self) -> None:
        """Without the throttle nobody waits."""
        limits = ConnectionLimits(Policy(throttle=False), Clock())
        for _ in range(100):
            limits.failed("203.0.113.1", "alice")
            limits.misbehaved("203.0.113.1")
        limits.succeeded("203.0.113.1", "alice")
        self.assertEqual(limits.wait("203.0.113.1", "alice"), 0)

    def test_nuisances(self) -> None:
        """Who wastes time, or breaks the protocol, waits sooner."""
        limits = ConnectionLimits(Policy(), Clock())
        for _ in range(3):
            self.assertEqual(limits.wait("203.0.113.1", "alice"), 0)
            limits.misbehaved("203.0.113.1")
        self.assertGreater(limits.wait("203.0.113.1", "alice"), 0)

    def test_crowded(self) -> None:
        """Where half of the places are taken, who has to wait does not get one of the others."""
        clock = Clock()
        limits = ConnectionLimits(Policy(maxUnauthenticated=10), clock)
        for _ in range(3):
            limits.misbehaved("203.0.113.1")
        places = []
        while limits.admits("203.0.113.1"):
            places.append(limits.unauthenticated.add(lambda: None))
        self.assertEqual(len(places), 5)
        self.assertTrue(limits.admits("203.0.113.2"))
        # Time heals.
        for place in places:
            limits.unauthenticated.remove(place)
        clock.advance(60)
        for _ in range(6):
            limits.unauthenticated.add(lambda: None)
        self.assertTrue(limits.admits("203.0.113.1"))

    def test_crowdedButKnown(self) -> None:
        """A network where somebody has logged in before has half of the other half."""
        limits = ConnectionLimits(Policy(maxUnauthenticated=20), Clock())
        limits.succeeded("203.0.113.1", "alice")
        for network in ("203.0.113.1", "203.0.113.2"):
            for _ in range(3):
                limits.misbehaved(network)
        while limits.admits("203.0.113.2"):
            limits.unauthenticated.add(lambda: None)
        self.assertEqual(len(limits.unauthenticated), 10)
        while limits.admits("203.0.113.1"):
            limits.unauthenticated.add(lambda: None)
        self.assertEqual(len(limits.unauthenticated), 15)
        self.assertTrue(limits.admits("203.0.113.3"))

    def test_crowdedWithoutThrottle(self) -> None:
        """Without the throttle all are alike."""
        limits = ConnectionLimits(Policy(maxUnauthenticated=10, throttle=False), Clock())
        for _ in range(6):
            limits.misbehaved("203.0.113.1")
            limits.unauthenticated.add(lambda: None)
        self.assertTrue(limits.admits("203.0.113.1"))
