"""Whoever fails has to wait."""

from __future__ import annotations

import math
import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pbauth import Policy, Throttle
from pbauth.login.throttle import Penalties, ThrottleState, networkOf

LONGEST_WAIT = Throttle().longestWait


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
        """The ones that failed longest ago are forgotten first, of those that need not wait."""
        self.fail(5)
        for number in range(99):
            self.penalties.add(number, 12)
        self.assertEqual(self.penalties.of("who"), 60)
        self.penalties.add("one more", 12)
        self.assertEqual((self.penalties.of("who"), self.penalties.of(0)), (0, 12))
        self.assertEqual(len(self.penalties), 100)

    def test_flushed(self) -> None:
        """
        Who has to wait is not forgotten because others fail, once each: otherwise a flood of names
        would buy new guesses at one.
        """
        penalties = Penalties(self.clock.seconds, most=100)
        for _ in range(20):
            penalties.add("alice", 12)
        for number in range(1000):
            self.clock.advance(0.01)
            penalties.add(number, 12)
        self.assertGreater(penalties.wait("alice"), 500)
        self.assertEqual(len(penalties), 100)
        # If all have to wait, those that failed longest ago are forgotten.
        for number in range(2000, 3000):
            for _ in range(7):
                penalties.add(number, 12)
        self.assertEqual(len(penalties), 100)
        self.assertGreater(penalties.wait(2999), 0)
        self.assertEqual(penalties.wait("alice"), 0)

    @settings(max_examples=50)
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
        self.throttle = ThrottleState(Clock().seconds)

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

    def test_spellings(self) -> None:
        """
        A name in other letters waits as well: for whoever checks the password, PAM or LDAP for
        instance, it may be the same. So does the owner's, where only own failures count.
        """
        spellings = [
            "alice",
            "ALICE",
            "Alice",
            "aLiCe",
            "alice ",
            " Alice",
            "\uff21lice",
            "\uff41LICE",
        ]
        for spelling in spellings:
            self.throttle.failed("", spelling)
        for spelling in (*spellings, "ALICe"):
            self.assertEqual(self.throttle.wait("", spelling), 84, spelling)
        self.throttle.succeeded("192.0.2.1", "alice")
        self.assertEqual(self.throttle.wait("192.0.2.1", "ALICE"), 0)
        for spelling in spellings:
            self.throttle.failed("192.0.2.1", spelling)
        self.assertGreater(self.throttle.wait("192.0.2.1", "ALICE"), 0)
        self.assertEqual(self.throttle.wait("192.0.2.2", "alic"), 0)

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

    def test_knownInItsNetwork(self) -> None:
        """
        One broken program behind an address makes others wait there, but no name that has logged in
        from there; guesses at that name do.
        """
        self.throttle.succeeded("192.0.2.1", "alice")
        for _ in range(100):
            self.throttle.failed("192.0.2.1", "broken job")
            self.throttle.misbehaved("192.0.2.1")
        self.assertEqual(self.throttle.wait("192.0.2.1", "alice"), 0)
        self.assertGreater(self.throttle.wait("192.0.2.1", "bob"), 0)
        for _ in range(6):
            self.throttle.failed("192.0.2.1", "alice")
        self.assertEqual(self.throttle.wait("192.0.2.1", "alice"), 12)
        self.assertEqual(self.throttle.wait("192.0.2.2", "alice"), 12)

    def test_settings(self) -> None:
        """How many failures are free, and how long anybody waits, can be chosen."""
        clock = Clock()
        throttle = ThrottleState(clock.seconds, Throttle(freeFailures=20, longestWait=30))
        for _ in range(20):
            throttle.failed("192.0.2.1", "alice")
        self.assertEqual(throttle.wait("192.0.2.1", "alice"), 0)
        throttle.failed("192.0.2.1", "alice")
        self.assertEqual(throttle.wait("192.0.2.1", "alice"), 3)
        for _ in range(20):
            throttle.failed("192.0.2.1", "alice")
        self.assertEqual(throttle.wait("192.0.2.1", "alice"), 30)

    def test_exempt(self) -> None:
        """An exempt network never waits; the names that are guessed at from there do."""
        throttle = ThrottleState(
            Clock().seconds, Throttle(exempt=["192.0.2.0/24", "2001:db8::/48"])
        )
        for network in ("192.0.2.9", "2001:db8:0:5::/64"):
            for _ in range(10):
                throttle.failed(network, "alice")
                throttle.misbehaved(network)
            self.assertEqual(throttle.wait(network, "bob"), 0)
            self.assertEqual(throttle.waitOfNetwork(network), 0)
        self.assertGreater(throttle.wait("192.0.2.9", "alice"), 0)
        for exempt in ("::ffff:192.0.2.0/120", "64:ff9b::192.0.2.0/120"):
            self.assertEqual(Throttle(exempt=[exempt]).exempt, ("192.0.2.0/24",))
        for network in ("198.51.100.1", "this machine", "2001:db9::/64"):
            for _ in range(10):
                throttle.misbehaved(network)
            self.assertGreater(throttle.wait(network, "bob"), 0, network)

    def test_memory(self) -> None:
        """Any number of sources and names takes no more room than those that are remembered."""
        throttle = ThrottleState(Clock().seconds, most=500)

        def flood(first: int) -> None:
            for number in range(first, first + 5_000):
                throttle.failed(f"source {number}", f"name {number}")
                throttle.succeeded(f"source {number}", f"name {number}")

        flood(0)
        tracemalloc.start()
        flood(5_000)
        grown, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        self.assertLess(grown, 800_000)


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
            (IPv6Address("TCP", "::ffff:cb00:7107%eth0", 1), "203.0.113.7"),
            # Behind a translator.
            (IPv6Address("TCP", "64:ff9b::203.0.113.7", 1), "203.0.113.7"),
            (IPv6Address("TCP", "64:ff9b:0:0:0:1::7", 1), "64:ff9b::/64"),
            (UNIXAddress("path"), "this machine"),
            (None, "this machine"),
        ]:
            self.assertEqual(networkOf(address), network)

    def test_users(self) -> None:
        """Users of this machine are told apart where the system tells who they are."""
        self.assertEqual(networkOf(UNIXAddress(b"path"), 1000), "this machine, uid 1000")
        self.assertNotEqual(networkOf(UNIXAddress(b"path"), 0), networkOf(UNIXAddress(b"path")))


class SettingsTests(SynchronousTestCase):
    """The throttle as a value."""

    def test_nonsense(self) -> None:
        """Whatever makes no sense is said so."""
        for options in [
            {"freeFailures": 0},
            {"freeFailures": 1.5},
            {"freeFailures": True},
            {"longestWait": -1},
            {"checksAtOnce": 0},
            {"longestWait": "long"},
            {"longestWait": math.inf},
            {"longestWait": math.nan},
            {"exempt": ["nowhere"]},
            {"exempt": ["192.0.2.1/24"]},
            {"exempt": ["2001:db8::1/128"]},
            {"exempt": ["::1"]},
            {"exempt": ["fe80::1%eth0"]},
            {"exempt": [None]},
        ]:
            with self.assertRaises(ValueError):
                Throttle(**options)  # type: ignore[arg-type]
        with self.assertRaises(TypeError):
            Throttle(exempt="192.0.2.0/24")
        for throttle in (None, 5, "off"):
            with self.assertRaises(TypeError):
                Policy(throttle=throttle)  # type: ignore[arg-type]

    def test_text(self) -> None:
        """As an operator writes it."""
        for text, throttle in [
            ("free=20", Throttle(freeFailures=20)),
            ("longest=300", Throttle(longestWait=300)),
            ("checks=8,free=9", Throttle(checksAtOnce=8, freeFailures=9)),
            (
                "free=1, exempt=192.0.2.7,exempt=2001:db8::/48",
                Throttle(freeFailures=1, exempt=("192.0.2.7/32", "2001:db8::/48")),
            ),
        ]:
            self.assertEqual(Throttle.fromText(text), throttle)
        for text in ("", "5", "free=many", "longest=", "free=0", "exempt=office", "other=1"):
            with self.assertRaises(ValueError):
                Throttle.fromText(text)
