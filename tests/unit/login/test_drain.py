"""How a server lets go of its clients."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport

from pbauth.login.drain import CLOSING_TIME, Drain
from pbauth.testing import RecordingPerspective
from tests.support.wire import WireTestCase


class Player(RecordingPerspective):
    """Takes its time."""

    def perspective_wait(self) -> Any:
        self.service.answer = Deferred()
        return self.service.answer


class DrainTests(WireTestCase):
    """A server with some clients, that has thirty seconds."""

    def setUp(self) -> None:
        super().setUp()
        self.game.perspectiveClass = Player
        limits = self.memory._factory._authRoot.limits  # type: ignore[attr-defined]
        self.drain = Drain(limits, self.memory.authorizer.sessions, self.memory.clock)

    def logIn(self, stock: bool = False) -> Any:
        """Log a client in that does not move by itself."""
        perspective = self.successResultOf(self.login())
        if stock:
            *_, session = self.memory.authorizer.sessions
            session.broker.readsOurErrors = False
        return perspective

    def run_(self, seconds: float = 30) -> Deferred[None]:
        """Begin."""
        done = self.drain.run(seconds)
        self.memory.flush()
        return done

    def assertOpen(self, perspective: Any, done: Deferred[None]) -> None:
        """It works on."""
        self.assertEqual(self.answer(perspective, "whoami"), "alice")
        self.assertNoResult(done)

    def assertClosed(self, perspective: Any, done: Deferred[None]) -> None:
        """It is closed, and that was all."""
        self.assertTrue(perspective.broker.disconnected)
        self.memory.advance(1)
        self.assertIsNone(self.successResultOf(done))
        self.assertEqual(self.memory.clock.getDelayedCalls(), [])

    def test_nobody(self) -> None:
        """Then there is nothing to wait for."""
        self.assertFalse(self.drain.begun)
        self.assertIsNone(self.successResultOf(self.run_()))
        self.assertTrue(self.drain.begun)

    def test_withoutLogin(self) -> None:
        """Who has not logged in goes at once."""
        root = self.root()
        done = self.run_()
        self.memory.advance(0.5)
        self.assertClosed(root, done)

    def test_stockClient(self) -> None:
        """A client that can't be told is closed in the first half, when it is idle."""
        perspective = self.logIn(stock=True)
        done = self.run_()
        self.memory.advance(15.5)
        self.assertClosed(perspective, done)

    def test_otherClient(self) -> None:
        """One that does not move by itself is closed in the third quarter."""
        perspective = self.logIn()
        done = self.run_()
        self.memory.advance(14)
        self.assertOpen(perspective, done)
        self.memory.advance(9)
        self.assertClosed(perspective, done)

    def test_callUnderWay(self) -> None:
        """Calls that are under way have all the time, of whichever end."""
        for stock in (True, False):
            self.setUp()
            perspective = self.logIn(stock)
            call = self.ask(perspective, "wait")
            done = self.run_()
            self.memory.advance(29)
            self.assertNoResult(done)
            self.game.answer.callback("at last")
            self.memory.advance(0.5)
            self.assertEqual(self.successResultOf(call), "at last")
            self.assertClosed(perspective, done)

    def test_timeIsUp(self) -> None:
        """Then even those are closed."""
        perspective = self.logIn()
        call = self.ask(perspective, "wait")
        done = self.run_()
        self.memory.advance(31)
        self.failureResultOf(call)
        self.assertClosed(perspective, done)

    def test_hurry(self) -> None:
        """Whoever can't wait closes them at any time."""
        perspective = self.logIn()
        self.ask(perspective, "wait").addErrback(lambda failure: None)
        done = self.run_()
        self.memory.advance(1)
        self.drain.hurry()
        self.memory.advance(1)
        self.assertClosed(perspective, done)
        self.drain.hurry()

    def test_takesNothing(self) -> None:
        """A connection that does not close is cut."""
        self.logIn()
        (session,) = self.memory.authorizer.sessions
        stuck = StringTransport()
        cut: list[bool] = []
        stuck.abortConnection = lambda: cut.append(True)  # type: ignore[method-assign]
        session.broker.transport = stuck
        self.run_()
        self.memory.clock.pump([0.25] * 121)
        self.assertEqual((stuck.disconnecting, cut), (True, []))
        self.memory.clock.pump([0.25] * (int(CLOSING_TIME * 4) + 1))
        self.assertTrue(cut)
