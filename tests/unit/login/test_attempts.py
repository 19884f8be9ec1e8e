"""What one connection tries, and what that costs it."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.spread import pb
from twisted.trial.unittest import SynchronousTestCase

from pbauth import Audit, Policy, TooManyAttempts, Unauthorized
from pbauth.login.attempts import MOST_UNANSWERED, Attempts
from pbauth.login.connectionlimits import ConnectionLimits
from pbauth.perspectives.byname import ByName
from pbauth.wire.keepalive import KeepAlive


class AttemptsTests(SynchronousTestCase):
    """The book of one connection, without a login."""

    def open(self, **policy: Any) -> Attempts:
        """Make the book of a new connection."""
        self.clock = Clock()
        self.policy = Policy(**policy)
        self.limits = ConnectionLimits(self.policy, self.clock)
        self.events: list[Any] = []
        self.broker: Any = pb.Broker(False)
        self.broker.makeConnection(StringTransport())
        keepAlive = KeepAlive(None, self.clock, lambda broker: None)
        audit = Audit(self.events.append)
        return Attempts(
            self.broker, self.policy, self.clock, self.limits, keepAlive, audit, ByName()
        )

    def names(self) -> list[str]:
        """The events so far."""
        return [event["event"] for event in self.events]

    def test_accepted(self) -> None:
        """A login that is proved leaves nothing behind but its event."""
        attempts = self.open()
        attempt = attempts.book("alice", "SCRAM-SHA-256")
        self.assertEqual((attempts.unanswered, len(self.limits.unauthenticated)), (1, 1))
        self.clock.advance(2)
        attempt.answer()
        attempt.accept("alice", guest=False)
        self.assertEqual((attempts.unanswered, len(self.limits.unauthenticated)), (0, 0))
        (event,) = self.events
        self.assertEqual((event["event"], event["seconds"]), ("login.accepted", 2.0))
        self.assertTrue(self.broker.origin.authenticated)

    def test_refused(self) -> None:
        """Each failure counts for the connection and for the throttle; the last one drops it."""
        attempts = self.open(maxAttempts=3)
        for _ in range(3):
            attempt = attempts.book("alice", "SCRAM-SHA-256")
            attempt.answer()
            self.assertIsInstance(attempt.refuse("wrong password"), Unauthorized)
        # What came in one piece with the last failure is not looked at.
        self.assertRaises(Unauthorized, attempts.book, "alice", "SCRAM-SHA-256")
        self.assertEqual(self.names(), ["login.refused"] * 3)
        self.clock.advance(0)
        self.assertEqual(self.names()[3:], ["connection.dropped"])
        self.assertTrue(self.broker.transport.disconnecting)

    def test_throttled(self) -> None:
        """Whoever has to wait is told how long, when claiming and when responding."""
        attempts = self.open(maxAttempts=100)
        early = attempts.book("alice", "SCRAM-SHA-256")
        for _ in range(6):
            self.limits.failed("elsewhere", "alice")
        error = self.assertRaises(TooManyAttempts, attempts.book, "alice", "SCRAM-SHA-256")
        self.assertGreater(error.retryAfter, 0)
        self.assertRaises(TooManyAttempts, early.answer)
        self.assertEqual(self.names(), ["login.throttled"] * 2)
        self.assertEqual(attempts.unanswered, 0)

    def test_secondResponse(self) -> None:
        """A challenge is good for one response; a second one is a failure."""
        attempts = self.open()
        attempt = attempts.book("alice", "SCRAM-SHA-256")
        attempt.answer()
        self.assertRaises(Unauthorized, attempt.answer)
        self.assertEqual(self.names(), ["login.refused"])
        self.assertEqual(attempts.unanswered, 0)

    def test_unanswered(self) -> None:
        """Challenges that nobody answers are bounded; whatever ends an attempt gives it back."""
        attempts = self.open()
        for _ in range(3 * MOST_UNANSWERED):
            attempts.book("alice", "SCRAM-SHA-256").abandon()
        for _ in range(MOST_UNANSWERED):
            attempts.book("alice", "SCRAM-SHA-256")
        self.assertRaises(Unauthorized, attempts.book, "alice", "SCRAM-SHA-256")
        self.assertEqual(self.names(), ["connection.dropped"])

    def test_timeOut(self) -> None:
        """A connection without a login is dropped when its time is up, and its network pays."""
        self.open(graceTime=10)
        self.clock.advance(11)
        self.assertEqual(self.names(), ["connection.dropped"])
        self.assertEqual(self.events[0]["reason"], "no login in time")
        assert self.limits.throttle is not None
        self.assertGreater(len(self.limits.throttle._networks), 0)

    def test_lost(self) -> None:
        """A connection that is closed without a login is counted no more."""
        self.open()
        self.broker.connectionLost(None)
        self.assertEqual(len(self.limits.unauthenticated), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
