"""One timer for all that expire."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pbauth import DefaultAuthorizer, Detached, EndReason, Hashing, PasswordChangeRequired
from pbauth.accounts.expiries import LONGEST_WAIT, Expiries
from pbauth.testing import MemoryServer, RecordingPerspective, RecordingService


class ExpiriesTests(SynchronousTestCase):
    """Names and moments."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.expired: list[str] = []
        self.expiries = Expiries(lambda: self.clock, self.expired.append)

    def timers(self) -> int:
        """How many there are."""
        return len(self.clock.getDelayedCalls())

    def test_order(self) -> None:
        """Each at its moment, by one timer."""
        for number in range(100):
            self.expiries.set(f"user{number}", 100.0 - number)
            self.assertEqual(self.timers(), 1)
        self.clock.advance(1)
        self.assertEqual(self.expired, ["user99"])
        self.clock.pump([1] * 4)
        self.assertEqual(self.expired, [f"user{number}" for number in (99, 98, 97, 96, 95)])
        self.clock.advance(1000)
        self.assertEqual((len(self.expired), len(self.expiries), self.timers()), (100, 0, 0))

    def test_changed(self) -> None:
        """The last moment of a name counts, be it earlier or later."""
        self.expiries.set("alice", 10.0)
        self.expiries.set("alice", 20.0)
        self.expiries.set("bob", 30.0)
        self.expiries.set("bob", 5.0)
        self.clock.advance(10)
        self.assertEqual(self.expired, ["bob"])
        self.clock.advance(10)
        self.assertEqual(self.expired, ["bob", "alice"])

    def test_forgotten(self) -> None:
        """Without names there is no timer."""
        self.expiries.set("alice", 10.0)
        self.expiries.set("bob", 20.0)
        self.expiries.set("alice", None)
        self.expiries.set("nobody", None)
        self.expiries.set("bob", None)
        self.assertEqual((self.timers(), len(self.expiries)), (0, 0))

    def test_farAway(self) -> None:
        """No timer is longer than an hour, since a clock may be set."""
        self.expiries.set("alice", 10 * LONGEST_WAIT)
        (call,) = self.clock.getDelayedCalls()
        self.assertEqual(call.getTime(), LONGEST_WAIT)
        self.clock.pump([LONGEST_WAIT] * 9)
        self.assertEqual(self.expired, [])
        self.clock.advance(LONGEST_WAIT)
        self.assertEqual(self.expired, ["alice"])

    def test_setMeanwhile(self) -> None:
        """One that is set while another expires is not missed."""
        self.expiries = Expiries(lambda: self.clock, lambda name: self.expiries.set("bob", 11.0))
        self.expiries.set("alice", 10.0)
        self.clock.advance(10)
        self.assertEqual(self.expiries.get("bob"), 11.0)
        self.assertEqual(self.timers(), 1)


class SessionTests(SynchronousTestCase):
    """What expires on a server in memory."""

    def setUp(self) -> None:
        self.memory = MemoryServer()
        self.authorizer = self.memory.authorizer
        self.game = RecordingService("game", self.memory.services, self.authorizer)
        for name in ("alice", "bob"):
            self.memory.addUser(name, "secret", ("game", name))

    def logIn(self, name: str) -> Any:
        """Log somebody in."""
        return self.successResultOf(self.memory.logIn(name, "secret", "game"))

    def expire(self, name: str, seconds: float) -> None:
        """Let an account expire in so many seconds."""
        moment = self.authorizer.now() + timedelta(seconds=seconds)
        self.authorizer.identities[name].expires = moment

    def test_moment(self) -> None:
        """Live sessions end at that moment, not before; nobody else's do."""
        self.expire("alice", 60)
        alice, bob = self.logIn("alice"), self.logIn("bob")
        (session,) = self.authorizer.sessions.ofIdentity("alice")
        self.memory.advance(59)
        self.assertTrue(session.live)
        self.memory.advance(1)
        self.assertEqual((session.live, session.endReason), (False, EndReason.EXPIRED))
        called = alice.callRemote("whoami")
        self.memory.flush()
        self.failureResultOf(called, Detached)
        called = bob.callRemote("whoami")
        self.memory.flush()
        self.assertEqual(self.successResultOf(called), "bob")

    def test_setWhileLive(self) -> None:
        """A date that is set, moved or taken back while somebody is logged in counts."""
        self.logIn("alice")
        self.expire("alice", 10)
        self.expire("alice", 100)
        self.memory.advance(50)
        self.assertEqual(len(self.authorizer.sessions), 1)
        self.authorizer.identities["alice"].expires = None
        self.memory.advance(100)
        self.assertEqual(len(self.authorizer.sessions), 1)
        self.expire("alice", 0)
        self.assertEqual(len(self.authorizer.sessions), 0)

    def test_whileAttaching(self) -> None:
        """One that is just being attached is ended once; there is no timer for it any more."""

        waiting: Deferred[Any] = Deferred()

        class Slow(RecordingPerspective):
            def attached(self, clientref: Any, identity: Any) -> Any:
                return waiting

        service = RecordingService("slow", self.memory.services, self.authorizer)
        perspective = Slow("alice")
        service.addPerspective(perspective)
        self.authorizer.identities["alice"].addKeyByString("slow", "alice")
        login = self.memory.logIn("alice", "secret", "slow")
        self.expire("alice", 10)
        self.memory.advance(10)
        self.assertEqual(len(self.authorizer._expiries), 0)
        waiting.callback(perspective)
        self.memory.flush()
        self.failureResultOf(login)
        self.assertEqual(len(self.authorizer.sessions), 0)

    def test_noTimerIsLeft(self) -> None:
        """When the last client is gone there is no timer any more."""
        self.expire("alice", 1000)
        before = len(self.authorizer._expiries)
        perspective = self.logIn("alice")
        self.assertEqual(len(self.authorizer._expiries), before + 1)
        self.memory.disconnect(perspective)
        self.assertEqual(len(self.authorizer._expiries), before)

    def test_brokenIdentity(self) -> None:
        """Nobody stays whose identity can't say when it expires."""
        self.expire("alice", 10)
        self.logIn("alice")

        def fail(proof: object) -> None:
            raise OSError("nobody knows")

        self.patch(self.authorizer.identities["alice"], "standsUntil", fail)
        self.memory.advance(11)
        self.assertEqual(len(self.authorizer.sessions), 0)
        self.assertTrue(self.flushLoggedErrors(OSError))

    def test_storeAway(self) -> None:
        """Where the store can't be asked, what was read last counts."""
        self.expire("alice", 10)
        self.logIn("alice")

        def fail(name: str) -> Any:
            raise OSError("away")

        self.patch(self.authorizer, "getIdentityRequest", fail)
        self.memory.advance(11)
        self.assertEqual(len(self.authorizer.sessions), 0)
        self.assertTrue(self.flushLoggedErrors(OSError))

    def test_clockOfOnesOwn(self) -> None:
        """An authorizer that was given a clock goes by it."""
        clock = Clock()
        authorizer = DefaultAuthorizer(hashing=Hashing.CHEAPEST, reactor=clock)
        clock.advance(1_000_000_000)
        self.assertEqual(authorizer.now().year, 2001)

    def test_mustChangePassword(self) -> None:
        """It is a reason of its own in the audit log, and in the client's error."""
        self.authorizer.identities["alice"].mustChangePassword = True
        failure = self.failureResultOf(
            self.memory.logIn("alice", "secret", "game"), PasswordChangeRequired
        )
        self.assertIn("pbauth passwd", str(failure.value))
