"""A client whose server is about to stop attaches elsewhere before it lets go."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.spread import pb

from pbauth import Unauthorized
from pbauth.client.reconnect import State
from tests.support.stayingclient import REFUSED, ClientTestCase, Watched

#: What the hooks of a client say that has moved once.
MOVED = ["attached", "detached", "attached"]


class MovingTests(ClientTestCase):
    """The server's end of the connection says that it leaves."""

    def setUp(self) -> None:
        super().setUp()
        self.client_ = self.started(pingInterval=None)

    @property
    def brokers(self) -> list[Any]:
        """The server's ends of the connections with a session, in the order of the sessions."""
        return [session.broker for session in self.memory.authorizer.sessions]

    def leave(self, seconds: Any = 30) -> Any:
        """Say so on the only connection, and return its broker."""
        (broker,) = self.brokers
        broker.tellLeaving(seconds)
        self.memory.flush()
        return broker

    def assertMoved(self, old: Any) -> None:
        """The client is attached by another connection, and the old one is closed."""
        (broker,) = self.brokers
        self.assertIsNot(broker, old)
        self.assertTrue(old.disconnected)
        self.assertEqual(self.client_.told, MOVED)
        self.assertEqual(self.successResultOf(self.call(self.client_, "whoami")), "alice")

    def test_moves(self) -> None:
        """Within a third of the time, and not later than after ten seconds."""
        for seconds, latest in ((30, 10.0), (3, 1.0), (3600, 10.0), (0, 0.0)):
            self.serve()
            self.client_ = self.started(pingInterval=None)
            old = self.leave(seconds)
            self.memory.advance(latest + 0.1)
            self.assertMoved(old)

    def test_notAllAtOnce(self) -> None:
        """Each waits for a time of its own."""
        old = self.leave()
        times = set()
        for _ in range(10):
            self.client_._move.cancel()
            self.client_._move.begin(30)
            times.add(self.client_._move._timer.getTime())
        self.assertGreater(len(times), 5)
        self.assertFalse(old.disconnected)

    def test_callsUnderWay(self) -> None:
        """The old connection stays until they are answered; others go by the new one."""
        call = self.call(self.client_, "wait")
        answer: Deferred[Any] = self.game.answer
        old = self.leave()
        self.memory.advance(11)
        self.assertEqual(self.client_.told, MOVED)
        self.assertFalse(old.disconnected)
        self.assertEqual(len(self.brokers), 2)
        self.assertEqual(self.successResultOf(self.call(self.client_, "note", 1)), 1)
        answer.callback("late")
        self.memory.advance(0.1)
        self.assertEqual(self.successResultOf(call), "late")
        self.assertMoved(old)

    def test_nobodyElse(self) -> None:
        """As long as it can't attach elsewhere, it stays, and works; it tries again and again."""
        self.memory.refusal = REFUSED
        old = self.leave()
        self.memory.advance(20)
        self.assertEqual(self.successResultOf(self.call(self.client_, "whoami")), "alice")
        self.assertFalse(old.disconnected)
        self.memory.refusal = None
        self.memory.advance(60)
        self.assertMoved(old)

    def test_refused(self) -> None:
        """Where another login would be refused, it stays to the end."""
        self.memory.refusal = Unauthorized()
        old = self.leave()
        self.memory.advance(100)
        self.memory.refusal = None
        self.memory.advance(100)
        self.assertFalse(old.disconnected)
        self.assertEqual(self.client_.told, ["attached"])

    def test_toldTwice(self) -> None:
        """It moves once."""
        old = self.leave()
        old.tellLeaving(20)
        self.memory.advance(11)
        self.assertMoved(old)
        self.memory.advance(100)
        self.assertMoved(old)

    def test_again(self) -> None:
        """The next server may leave as well."""
        old = self.leave()
        self.memory.advance(11)
        self.assertMoved(old)
        other = self.leave()
        self.memory.advance(11)
        self.assertTrue(other.disconnected)
        self.assertEqual(len(self.brokers), 1)

    def test_nonsense(self) -> None:
        """What no server of ours would say changes nothing."""
        (broker,) = self.brokers
        named = broker.remoteForName("pbauth")
        for arguments in [(), ("x",), (True,), (1, 2), ([],), (None,)]:
            named.callRemote("leaving", *arguments, pbanswer=False)
        self.memory.advance(100)
        self.assertEqual(self.client_.told, ["attached"])
        named.callRemote("leaving", -5, pbanswer=False)
        self.memory.advance(0.1)
        self.assertMoved(broker)

    def test_lost(self) -> None:
        """If the old connection breaks first, it logs in as always."""
        self.memory.refusal = REFUSED
        self.leave()
        self.memory.advance(10)
        self.memory.disconnect(self.client_._perspective)
        self.memory.refusal = None
        self.memory.advance(10)
        self.assertIs(self.state(self.client_), State.ATTACHED)
        self.assertEqual(len(self.brokers), 1)
        self.assertEqual(self.client_.told, MOVED)

    def test_sessionEnded(self) -> None:
        """If the old session ends first, too."""
        self.leave()
        (session,) = self.memory.authorizer.sessions
        self.memory.authorizer.sessions.end(session)
        self.memory.advance(20)
        self.assertEqual(self.client_.told, MOVED)
        self.assertEqual(len(self.brokers), 1)

    def test_stopped(self) -> None:
        """Whatever there is when the client is stopped is closed before that is said to be done."""

        def waiting(client: Watched) -> None:
            """For the moment to move."""

        def loggingIn(client: Watched) -> None:
            self.memory.clock.advance(10)

        def changedOver(client: Watched) -> None:
            self.call(client, "wait").addErrback(lambda failure: failure.trap(pb.PBConnectionLost))
            self.memory.advance(11)
            self.assertEqual(len(self.brokers), 2)

        for reach in (waiting, loggingIn, changedOver):
            self.serve()
            client = self.client_ = self.started(pingInterval=None)
            self.leave()
            reach(client)
            stopped = client.stopService()
            self.memory.advance(1)
            self.successResultOf(stopped)
            self.assertEqual(list(self.memory.authorizer.sessions), [], reach.__name__)
            self.assertEqual(self.memory.clock.getDelayedCalls(), [], reach.__name__)
            self.assertEqual(client.told.count("attached"), client.told.count("detached"))

    def test_stoppedByAHook(self) -> None:
        """The application may stop it while it changes over."""
        client = self.client_
        client.detached = lambda: stopping.append(client.stopService())  # type: ignore[method-assign]
        stopping: list[Any] = []
        self.leave()
        self.memory.advance(30)
        self.successResultOf(stopping[0])
        self.assertEqual(list(self.memory.authorizer.sessions), [])

    def test_stockServer(self) -> None:
        """The client of stock Twisted takes no notice, and is not told."""
        (broker,) = self.brokers
        broker.readsOurErrors = False
        self.assertFalse(broker.tellLeaving(30))
        self.memory.advance(100)
        self.assertEqual(self.client_.told, ["attached"])
        self.assertIsInstance(self.client_._perspective, pb.RemoteReference)
