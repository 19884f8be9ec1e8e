"""How much a client that has logged in may ask for, where the policy says so."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher
from twisted.spread import banana, pb

from pbauth import Anonymous, LimitExceeded, Password, Policy
from pbauth.audit.events import NAMESPACE
from pbauth.testing import RecordingPerspective
from pbauth.wire.decoding import UNLIMITED
from tests.support.wire import WireTestCase


class State(pb.Copyable, pb.RemoteCopy):
    """Something that is no plain value."""


pb.setUnjellyableForClass(State, State)


class Mind(pb.Referenceable):
    """A client's object."""

    def remote_tell(self, size: int, plain: bool) -> Any:
        """Answer at length."""
        text = "x" * size
        if plain:
            return text
        state = State()
        state.text = text
        return state

    def remote_fail(self, size: int) -> None:
        """Fail at length."""
        raise pb.Error("x" * size)


class CallLimitsTestCase(WireTestCase):
    """Clients that ask for too much, on a server with limits."""

    def start(self, **limits: Any) -> None:
        """Start a server with these limits."""
        self.waiting: list[Deferred[None]] = []
        self.reached: list[Any] = []

        class Room(RecordingPerspective):
            def perspective_echo(room, value: Any = None) -> Any:
                self.reached.append(value)
                return value

            def perspective_wait(room) -> Deferred[None]:
                self.waiting.append(Deferred())
                return self.waiting[-1]

        self.serve(Policy(pingInterval=None, **limits))
        self.game.perspectiveClass = Room
        self.events: list[Any] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def attached(self, *login: Any, **options: Any) -> Any:
        """Log in and attach; give the perspective."""
        return self.successResultOf(self.login(*login, **options))

    def dropped(self) -> list[str]:
        """Give the reasons why connections were dropped."""
        return [
            each["reason"]
            for each in self.events
            if each["log_namespace"] == NAMESPACE and each["event"] == "connection.dropped"
        ]

    def refused(self) -> dict[str, int]:
        """Give what was refused, by limit."""
        return dict(self.memory._factory.limits.refused)

    def tearDown(self) -> None:
        self.assertEqual(self.flushLoggedErrors(), [])


class RateTests(CallLimitsTestCase):
    """Calls a second."""

    def test_rate(self) -> None:
        """A burst, then so many a second; what is refused is not begun, and has a clear error."""
        self.start(maxCallsPerSecond=10, callBurst=20)
        room = self.attached()
        self.memory.advance(10)
        for number in range(20):
            self.assertEqual(self.answer(room, "echo", number), number)
        error = self.refusal(room, "echo", "too much")
        self.assertIsInstance(error, LimitExceeded)
        self.assertEqual((error.limit, error.most), ("maxCallsPerSecond", 10))
        self.assertIn("at most 10 calls a second", str(error))
        self.assertNotIn("too much", self.reached)
        self.memory.advance(0.5)
        answers = [self.ask(room, "echo", number) for number in range(8)]
        self.assertEqual([self.successResultOf(each) for each in answers[:5]], [0, 1, 2, 3, 4])
        for each in answers[5:]:
            self.failureResultOf(each, LimitExceeded)
        self.assertEqual(self.refused(), {"maxCallsPerSecond": 4})
        self.assertEqual(self.dropped(), [])

    def test_flood(self) -> None:
        """At ten times the limit the connection goes, with one line; others are not touched."""
        self.start(maxCallsPerSecond=10)
        other = self.attached()
        room = self.attached("alice", Password("secret"), "game", "shared")
        self.memory.advance(10)
        answers = [room.callRemote("echo", number) for number in range(200)]
        self.memory.flush()
        self.assertTrue(room.broker.disconnected)
        self.assertEqual(self.dropped(), ["far too many calls"])
        self.assertEqual(self.reached, list(range(10)))
        for answer in answers:
            answer.addErrback(lambda _: None)
        self.assertEqual(self.answer(other, "echo", "still"), "still")

    def test_objects(self) -> None:
        """Calls that are not plain, and those of any object of the connection, count."""
        self.start(maxCallsPerSecond=1, callBurst=9)
        identity = self.identity()
        self.memory.advance(60)
        for _ in range(9):
            self.answer(identity, "keys")
        self.assertIsInstance(self.refusal(identity, "keys"), LimitExceeded)
        self.memory.advance(60)
        room = self.answer(identity, "attach", "game", "alice", None)
        for _ in range(8):
            self.answer(room, "echo", State())
        self.assertIsInstance(self.refusal(room, "echo", State()), LimitExceeded)

    def test_ofOneConnection(self) -> None:
        """Each connection has its own; nobody else pays."""
        self.start(maxCallsPerSecond=1)
        one, other = self.attached(), self.attached()
        self.memory.advance(5)
        self.answer(one, "echo")
        self.assertIsInstance(self.refusal(one, "echo"), LimitExceeded)
        self.answer(other, "echo")


class AtOnceTests(CallLimitsTestCase):
    """Calls whose methods are not done."""

    def test_atOnce(self) -> None:
        """So many at once; one that is done makes room for another."""
        self.start(maxCallsAtOnce=3)
        room = self.attached()
        answers = [self.ask(room, "wait") for _ in range(3)]
        error = self.refusal(room, "echo")
        self.assertEqual((error.limit, error.most), ("maxCallsAtOnce", 3))
        self.assertEqual(self.reached, [])
        self.waiting[1].callback(None)
        self.memory.flush()
        self.assertIsNone(self.successResultOf(answers[1]))
        self.assertEqual(self.answer(room, "echo", 5), 5)
        for each in self.waiting[::2]:
            each.callback(None)
        self.memory.flush()

    def test_tricks(self) -> None:
        """Nobody gets more by withdrawing calls, nor by numbers that are no numbers of calls."""
        self.start(maxCallsAtOnce=3)
        room = self.attached()
        stuck: list[Any] = []

        def wait(room: Any) -> Deferred[None]:
            # Whoever cancels it, it goes on.
            inner: Deferred[None] = Deferred(lambda _: inner.pause())
            stuck.append(inner)
            return inner

        self.game.perspectiveClass.perspective_wait = wait
        broker = room.broker
        for _ in range(6):
            message = [b"message", 7.0, room.luid, b"wait", 0, [b"tuple"], [b"dictionary"]]
            broker.transport.write(banana.encode(message))
            self.memory.flush()
            broker._callPeerObject("cancel", 7)
            self.memory.flush()
        self.assertEqual(len(stuck), 3)

    def test_flood(self) -> None:
        """At ten times the limit the connection goes."""
        self.start(maxCallsAtOnce=3)
        room = self.attached()
        for _ in range(29):
            self.ask(room, "wait").addErrback(lambda _: None)
        self.assertFalse(room.broker.disconnected)
        self.ask(room, "wait").addErrback(lambda _: None)
        self.assertTrue(room.broker.disconnected)
        self.assertEqual(len(self.waiting), 3)
        self.assertEqual(self.dropped(), ["far too many calls"])


class MessageTests(CallLimitsTestCase):
    """Bytes in a message."""

    def test_size(self) -> None:
        """What is too large is refused, plain or not, however it is cut; the connection goes on."""
        self.start(maxMessageBytes=1_000)
        room = self.attached()
        state = State()
        state.text = "x" * 2_000
        for value in ("x" * 2_000, list(range(900)), state, ["x" * 600] * 3):
            error = self.refusal(room, "echo", value)
            self.assertEqual((error.limit, error.most), ("maxMessageBytes", 1_000))
            self.assertEqual(self.answer(room, "echo", "x" * 900), "x" * 900)
        self.assertEqual(self.reached, ["x" * 900] * 4)
        self.assertEqual(self.refused(), {"maxMessageBytes": 4})
        # Many of them in one piece are many.
        answers = [room.callRemote("echo", "y" * 300) for _ in range(50)]
        self.memory.flush()
        for answer in answers:
            self.assertEqual(self.successResultOf(answer), "y" * 300)

    def test_far(self) -> None:
        """At ten times the limit the connection goes, before the message is whole."""
        self.start(maxMessageBytes=1_000)
        for value in ("x" * 11_000, list(range(9_000)), [["x" * 30] for _ in range(400)]):
            room = self.attached()
            self.ask(room, "echo", value).addErrback(lambda _: None)
            self.assertTrue(room.broker.disconnected)
        self.assertEqual(self.dropped(), ["far too large a message"] * 3)
        for start in (
            # A string that says how long it will be; and a list without end, in small pieces.
            [banana.encode(b"x" * 200_000)[:5]],
            [banana.encode([1] * 100_000)[:4], *[banana.encode(b"x" * 90)] * 120],
        ):
            room = self.attached()
            for piece in start:
                room.broker.transport.write(piece)
                self.memory.flush()
            self.assertTrue(room.broker.disconnected)

    def test_answers(self) -> None:
        """An answer that is too large fails the server's call."""
        self.start(maxMessageBytes=1_000)
        self.attached(client=Mind())
        mind = self.game.events[-1].clientref
        self.assertEqual(self.answer(mind, "tell", 500, True), "x" * 500)
        for plain in (True, False):
            self.assertIsInstance(self.refusal(mind, "tell", 5_000, plain), LimitExceeded)
        self.assertIsInstance(self.refusal(mind, "fail", 5_000), LimitExceeded)
        self.assertEqual(self.answer(mind, "tell", 500, True), "x" * 500)

    def test_guest(self) -> None:
        """A guest keeps the limits of a guest, beside those."""
        self.start(maxMessageBytes=20_000, guest="guest")
        self.memory.addUser("guest", "unguessable", ("game", "guest"))
        room = self.attached("guest", Anonymous(), "game")
        self.assertIsInstance(self.refusal(room, "echo", "x" * 30_000), LimitExceeded)
        self.assertEqual(self.answer(room, "echo", "x" * 10_000), "x" * 10_000)
        self.ask(room, "echo", list(range(2_000))).addErrback(lambda _: None)
        self.assertTrue(room.broker.disconnected)


class SessionTests(CallLimitsTestCase):
    """Sessions of one identity."""

    def test_sessions(self) -> None:
        """So many on all connections; one that ends makes room; others have their own."""
        self.start(maxSessions=2)
        self.memory.addUser("bob", "secret", ("game", "bob"))
        first, _ = self.attached(), self.attached("alice", Password("secret"), "game", "shared")
        failure = self.failureResultOf(self.login(), LimitExceeded)
        self.assertEqual((failure.value.limit, failure.value.most), ("maxSessions", 2))
        refused = [each for each in self.events if each.get("event") == "session.refused"]
        self.assertEqual([each["reason"] for each in refused], ["too many sessions"])
        self.attached("bob", Password("secret"), "game")
        first.broker.transport.loseConnection()
        self.memory.flush()
        self.attached()

    def test_flood(self) -> None:
        """At ten times the limit the connection goes."""
        self.start(maxSessions=2)
        identity = self.identity()
        for _ in range(2):
            self.answer(identity, "attach", "game", "alice", None)
        for _ in range(17):
            self.assertIsInstance(
                self.refusal(identity, "attach", "game", "alice", None), LimitExceeded
            )
        self.assertFalse(identity.broker.disconnected)
        self.ask(identity, "attach", "game", "alice", None).addErrback(lambda _: None)
        self.memory.advance(0)
        self.memory.flush()
        self.assertTrue(identity.broker.disconnected)
        self.assertEqual(self.dropped(), ["far too many sessions"])

    def test_patience(self) -> None:
        """Who is let in again begins anew: only what is refused in a row counts."""
        self.start(maxSessions=1)
        identity = self.identity()
        for _ in range(5):
            perspective = self.answer(identity, "attach", "game", "alice", None)
            for _ in range(8):
                self.assertIsInstance(
                    self.refusal(identity, "attach", "game", "alice", None), LimitExceeded
                )
            self.answer(identity, "detach", perspective)
        self.memory.advance(0)
        self.assertFalse(identity.broker.disconnected)

    def test_manyConnections(self) -> None:
        """Sessions of one identity count together, those included that are still being attached."""
        self.start(maxSessions=3)
        attaching: list[Any] = []

        class Slow(RecordingPerspective):
            def attached(self, clientref: Any, identity: Any) -> Any:
                attaching.append(Deferred())
                return attaching[-1]

        self.game.perspectiveClass = Slow
        self.game.perspectives.clear()
        answers = [
            self.ask(self.identity(), "attach", "game", "alice", None).addErrback(
                lambda failure: failure.type
            )
            for _ in range(6)
        ]
        self.assertEqual(len(attaching), 3)
        self.assertEqual([self.successResultOf(each) for each in answers[3:]], [LimitExceeded] * 3)
        for each in attaching:
            each.callback(self.game.getPerspectiveNamed("alice"))
        self.memory.flush()
        for each in answers[:3]:
            self.assertIsInstance(self.successResultOf(each), pb.RemoteReference)


class LogTests(CallLimitsTestCase):
    """Messages with which a client would fill the log."""

    def test_messages(self) -> None:
        """
        Those that lead nowhere leave no line in the log, let alone a traceback: updates of copies
        that are not there, calls that the connection itself does not take, and complaints.
        """
        self.start()
        broker = self.attached().broker
        rest = ([b"tuple"], [b"dictionary"])
        self.events.clear()
        for message in (
            (b"cachemessage", 0, 1, b"callRemote", 0, *rest),
            (b"cachemessage", 0, b"x" * 1000, b"callRemote", 0, *rest),
            (b"cachemessage", 0, [b"list", 1], b"callRemote", 0, *rest),
            (b"message", 0, b"pbauth", b"nothing", 0, *rest),
            (b"message", 0, b"pbauth", b"ping", 0, [b"tuple", 1, 2], [b"dictionary"]),
            (b"didNotUnderstand", b"x" * 10_000),
        ):
            for _ in range(3):
                broker.sendCall(*message)
            self.memory.flush()
            self.assertFalse(broker.disconnected, message)
        self.assertEqual(self.events, [])


class OffTests(CallLimitsTestCase):
    """Without limits."""

    def test_off(self) -> None:
        """Nothing is counted, and nothing is refused."""
        self.start()
        rooms = [self.attached() for _ in range(20)]
        (room, *_) = rooms
        answers = [room.callRemote("wait") for _ in range(500)]
        self.assertEqual(self.answer(room, "echo", "x" * 600_000), "x" * 600_000)
        self.assertEqual(len(self.waiting), 500)
        for each in self.waiting:
            each.callback(None)
        self.memory.flush()
        for answer in answers:
            self.successResultOf(answer)
        self.assertIsNone(self.memory._factory.limits.calls)
        self.assertEqual(self.refused(), {})

    def test_unlimited(self) -> None:
        """Where only calls are limited, messages are read without limits."""
        self.start(maxCallsPerSecond=1_000)
        room = self.attached()
        deep: Any = 1
        for _ in range(200):
            deep = [deep]
        for value in (deep, list(range(100_000)), [[1]] * 5_000):
            self.assertEqual(self.answer(room, "echo", value), value)
        self.assertGreater(UNLIMITED.deepest, 10**9)
