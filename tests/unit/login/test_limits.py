"""What a server takes from who has not logged in, and how it slows down who fails."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterable
from functools import partial
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import error as netError
from twisted.internet.address import IPv4Address
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.spread import banana, jelly, pb
from twisted.trial.unittest import SynchronousTestCase

from pbauth import (
    AuthRoot,
    AuthServerFactory,
    Detached,
    Policy,
    TooManyAttempts,
    Unauthorized,
    getObjectAt,
)
from pbauth.audit.events import NAMESPACE
from pbauth.testing import MemoryServer, RecordingService
from pbauth.wire.broker import Broker
from pbauth.wire.decoding import Limits
from tests.support.memory import freezeHeap
from tests.support.streams import CALLS, SIZES, TOKENS, cut, mutated
from tests.support.tls import TLSTestCase
from tests.support.values import examples
from tests.support.wire import SCRAM, WireTestCase

ELSEWHERE = IPv4Address("TCP", "203.0.113.7", 5000)


class Unwanted(pb.Copyable, pb.RemoteCopy):
    """Something that this process could make of what a stranger sends."""

    made = 0

    def setCopyableState(self, state: Any) -> None:
        Unwanted.made += 1


pb.setUnjellyableForClass(Unwanted, Unwanted)


def message(*arguments: Any, name: bytes = b"username", target: Any = b"root") -> list[Any]:
    """A call, as it is sent."""
    return [b"message", 1, target, name, 1, jelly.jelly(arguments), jelly.jelly({})]


class StrangerTestCase(SynchronousTestCase):
    """A server, and bytes that a stranger sends to it."""

    #: The dialect of banana, and the class of the server's brokers.
    dialect = b"pb"
    protocol: Any = Broker

    def connect(self, policy: Policy | None = None) -> Any:
        """Connect; the protocol is agreed on."""
        self.memory = MemoryServer(policy=policy)
        self.memory.addUser("alice", "secret", ("game", "alice"))
        factory = AuthServerFactory(self.memory.authorizer, policy, self.memory.clock)
        factory.protocol = self.protocol
        self.broker: Any = factory.buildProtocol(ELSEWHERE)
        self.transport = StringTransport(peerAddress=ELSEWHERE)
        self.broker.makeConnection(self.transport)
        self.send(self.dialect)
        self.send([b"version", 6])
        self.assertFalse(self.cutOff)
        return factory

    def send(self, expression: Any) -> None:
        """Send an expression."""
        self.broker.dataReceived(banana.encode(expression))

    @property
    def cutOff(self) -> bool:
        """Whether the server has cut the connection off."""
        return bool(self.transport.disconnecting or getattr(self.transport, "aborting", False))

    def tearDown(self) -> None:
        self.broker.connectionLost(Failure(netError.ConnectionDone()))
        self.assertEqual(self.memory.clock.getDelayedCalls(), [])
        self.assertEqual(self.flushLoggedErrors(), [])


class LimitTests(StrangerTestCase):
    """What is cut off."""

    def assertCutOff(self, expression: Any) -> None:
        """This ends a connection."""
        self.connect()
        self.send(expression)
        self.assertTrue(self.cutOff, expression)

    def test_loginIsTaken(self) -> None:
        """A call that a login takes is answered."""
        self.connect()
        self.transport.clear()
        self.send(message("alice", SCRAM, b"n,,n=alice,r=nonce"))
        self.assertFalse(self.cutOff)
        self.assertIn(b"r=nonce", self.transport.value())

    def test_bigThings(self) -> None:
        """Long lists, long strings, deep lists, many lists."""
        deep: Any = 1
        for _ in range(9):
            deep = [b"list", deep]
        for argument in (
            [b"list", *range(100)],
            b"x" * 10_000,
            [b"unicode", b"x" * 10_000],
            deep,
            [b"list", *([b"list", *([b"list", 1] for _ in range(9))] for _ in range(9))],
        ):
            self.assertCutOff(
                [b"message", 1, b"root", b"mechanisms", 1, [b"tuple", argument], [b"dictionary"]]
            )

    def test_notPlain(self) -> None:
        """Registered classes, instances, shared and unknown things: nothing is made of them."""
        before = Unwanted.made
        for argument in (
            [b"tests.unit.login.test_limits.Unwanted", [b"dictionary"]],
            [b"reference", 1, [b"list"]],
            [b"dereference", 1],
            [b"class", b"builtins.int"],
            [b"module", b"os"],
            [b"function", b"os.system"],
            [b"copy", b"tests.unit.login.test_limits.Unwanted", [b"dictionary"]],
            [b"local", 1],
            [b"datetime", b"2026 1 1 0 0 0 0"],
            [b"persistent", 1],
            [b"cached", 1],
        ):
            self.assertCutOff(
                [b"message", 1, b"root", b"mechanisms", 1, [b"tuple", argument], [b"dictionary"]]
            )
        self.assertEqual(Unwanted.made, before)

    def test_noArguments(self) -> None:
        """What is sent in place of arguments is refused, with no traceback in the log."""
        for arguments, keywords in [
            ([b"tuple"], b""),
            ([b"tuple"], 0),
            ([b"tuple"], [b"list"]),
            ([b"tuple"], [b"tuple"]),
            (b"", [b"dictionary"]),
            (0, [b"dictionary"]),
            ([b"dictionary"], [b"dictionary"]),
            ([b"set"], [b"dictionary"]),
            (b"", b""),
            (b"x", 0),
            (0, 0.0),
        ]:
            for name in (b"mechanisms", b"loginAnonymous", b"username"):
                self.connect()
                self.transport.clear()
                self.send([b"message", 1, b"root", name, 1, arguments, keywords])
                refused = b"ProtocolViolation" in self.transport.value()
                self.assertTrue(self.cutOff or refused, (name, arguments, keywords))
                self.assertEqual(self.flushLoggedErrors(), [], (name, arguments, keywords))

    def test_references(self) -> None:
        """A reference to an object of the client's is taken where a login has one, only."""
        reference = [b"remote", 5]
        for name in (b"username", b"mechanisms", b"login", b"nonsense"):
            self.assertCutOff(
                [b"message", 1, b"root", name, 1, [b"tuple", reference], [b"dictionary"]]
            )
        self.connect()
        self.send([b"message", 1, b"root", b"respond", 1, [b"tuple", reference], [b"dictionary"]])
        self.assertFalse(self.cutOff)

    def test_otherCommands(self) -> None:
        """Of all that Perspective Broker can say, a login takes little."""
        for command in (
            [b"cachemessage", 1, 1, b"x", 1, [b"tuple"], [b"dictionary"]],
            [b"answer", 1, 5],
            [b"error", 1, 5],
            [b"decache", 1],
            [b"uncache", 1],
            [b"decref", 99],
            [b"didNotUnderstand", b"x"],
            [b"nonsense"],
            [5],
            [],
            5,
        ):
            self.assertCutOff(command)

    def test_mostBytes(self) -> None:
        """No more than so many bytes are read before a login, in whatever pieces."""
        self.connect(Policy(maxUnauthenticatedBytes=2000))
        call = banana.encode(message("alice", SCRAM))
        for sent in range(0, 5000, len(call)):
            self.assertEqual(self.cutOff, sent > 2000 - 20)
            if self.cutOff:
                break
            self.broker.dataReceived(call)
        self.assertTrue(self.cutOff)

    def test_dribble(self) -> None:
        """A string that comes in small pieces, and never ends, takes no more than it may."""
        self.connect(Policy(maxUnauthenticatedBytes=2000))
        self.broker.dataReceived(b"\x00\x3f\x82")
        for _ in range(2000):
            self.broker.dataReceived(b"x")
        self.assertTrue(self.cutOff)

    def test_memory(self) -> None:
        """Whatever a stranger sends to fill the memory, little of it is kept."""
        freezeHeap()
        attacks = {
            "endless list": [b"\x00\x00\x28\x80", *[b"\x00\x01\x82" + b"x" * 128] * 20_000],
            "deep": [b"\x01\x80"] * 100_000,
            "huge integers": [b"\x7f" * 64 + b"\x85"] * 20_000,
            "empty lists": [b"\x3f\x80", *[b"\x00\x80"] * 100_000],
            "endless prefix": [b"\x01"] * 100_000,
        }
        for what, chunks in attacks.items():
            self.connect()
            gc.collect()
            tracemalloc.start()
            for chunk in chunks:
                self.broker.dataReceived(chunk)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            self.assertTrue(self.cutOff, what)
            self.assertLess(peak, 500_000, what)

    def test_mostKept(self) -> None:
        """
        What is kept of a message that never ends is not much more than its bytes, even where they
        are chosen so that the values take more.
        """
        freezeHeap()
        limits = Limits()
        for kind in (b"set", b"list", b"tuple"):
            numbers = [500 + number for number in range(limits.longestList - 1)]
            begun = b"\x07\x80" + b"".join(map(banana.encode, [b"message", 1, b"root", b"x", 1]))
            begun += bytes((limits.longestList, 0x80)) + banana.encode(b"tuple")
            begun += banana.encode([kind, *numbers]) * min(limits.longestList - 9, limits.lists - 4)
            begun += banana.encode(b"x" * limits.longestString) * 8
            self.connect()
            gc.collect()
            tracemalloc.start()
            self.broker.dataReceived(begun[: Policy().maxUnauthenticatedBytes - 100])
            kept, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            self.assertFalse(self.cutOff)
            self.assertLess(kept, 2.5 * Policy().maxUnauthenticatedBytes, kind)

    def test_unknownObjects(self) -> None:
        """A login calls nothing that it was not given."""
        for target in (1, 99, -1, b"nobody", b""):
            self.assertCutOff(message(b"x", name=b"respond", target=target))
        self.connect()
        self.send(message("alice", SCRAM, b"n,,n=alice,r=nonce"))
        self.send(message(b"x", name=b"respond", target=1))
        self.assertFalse(self.cutOff)
        self.send(message(b"x", name=b"respond", target=2))
        self.assertTrue(self.cutOff)


class OneChunkTests(StrangerTestCase):
    """Many calls that come at once: the answers go out after all of them were read."""

    def setUp(self) -> None:
        self.events: list[Any] = []

        def observe(event: Any) -> None:
            if event["log_namespace"] == NAMESPACE:
                self.events.append(event["event"])

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def flood(self, *arguments: Any, name: bytes = b"username", **policy: Any) -> list[str]:
        """Make a call a hundred times, all at once; give the names of the events."""
        self.connect(Policy(throttle=False, **policy))
        self.asked: list[str] = []
        find = self.memory.authorizer.getIdentityRequest

        def getIdentityRequest(name: str) -> Any:
            self.asked.append(name)
            return find(name)

        self.memory.authorizer.getIdentityRequest = getIdentityRequest
        self.events.clear()
        self.broker.dataReceived(banana.encode(message(*arguments, name=name)) * 100)
        self.memory.clock.advance(0)
        self.assertTrue(self.cutOff)
        return self.events

    def test_refusals(self) -> None:
        """No more logins are looked at, or written down, than may fail on one connection."""
        events = self.flood("alice", SCRAM, b"nonsense")
        self.assertEqual(events, ["login.refused"] * 6 + ["connection.dropped"])
        self.assertEqual(self.asked, ["alice"] * 6)

    def test_throttled(self) -> None:
        """Who has to wait is told so as often, and no more."""
        self.connect()
        for _ in range(2):
            self.broker.dataReceived(banana.encode(message("alice", SCRAM, b"nonsense")) * 100)
        self.memory.clock.advance(0)
        self.assertEqual(self.events, ["login.refused"] * 6 + ["connection.dropped"])

    def test_mechanisms(self) -> None:
        """Mechanisms that are not offered are failures, too."""
        for call in (("alice", "NONE", b""), ("alice",)):
            events = self.flood(*call, maxAttempts=3)
            self.assertEqual(events, ["mechanism.refused"] * 3 + ["connection.dropped"])
        self.flood(b"alice", name=b"login", maxAttempts=3)
        self.assertEqual(len(self.events), 4)

    def test_secondResponses(self) -> None:
        """Nor are second responses of any use."""
        self.connect(Policy(throttle=False))
        self.send(message("alice", SCRAM, b"n,,n=alice,r=nonce"))
        self.events.clear()
        response = message(b"nonsense", name=b"respond", target=1)
        self.broker.dataReceived(banana.encode(response) * 100)
        self.memory.clock.advance(0)
        self.assertEqual(self.events, ["login.refused"] * 6 + ["connection.dropped"])


#: What a login sends, and what is like it.
LOGINS = st.lists(
    st.sampled_from(
        [
            message(),
            message("alice", SCRAM, b"n,,n=alice,r=nonce"),
            message({"a": [1, -1, 1.5, None, True]}, {1, 2}, frozenset([b"x"]), name=b"login"),
            message(b"nonsense", name=b"respond", target=1),
            [b"message", 1, b"root", b"respond", 1, [b"tuple", [b"remote", 1]], [b"dictionary"]],
            [b"version", 6],
            [b"decref", 1],
        ]
    ).map(banana.encode)
    | CALLS
    | TOKENS,
    max_size=4,
).map(b"".join)


class AnyBytesTests(StrangerTestCase):
    """Bytes by chance; see also ``python -m tests.stress fuzz``."""

    def assertHarmless(self, chunks: Iterable[bytes]) -> None:
        """Nothing is raised, and no error logged: if anything is wrong, it is the bytes."""
        if hasattr(self, "broker") and not self.broker.disconnected:
            self.broker.connectionLost(Failure(netError.ConnectionDone()))
        self.connect()
        for chunk in chunks:
            self.broker.dataReceived(chunk)
        self.assertEqual(self.flushLoggedErrors(), [])

    @examples(50)
    @given(
        st.lists(st.binary(max_size=300) | st.sampled_from([b"\x07\x80", b"\x02\x80"]), max_size=8)
    )
    def test_anyBytes(self, chunks: list[bytes]) -> None:
        """Whatever bytes come."""
        self.assertHarmless(chunks)

    @examples(100)
    @given(mutated(LOGINS), SIZES)
    def test_almostLogins(self, data: bytes, sizes: list[int]) -> None:
        """Messages as those of a login, with a few bytes changed."""
        self.assertHarmless(cut(data, sizes))


class OtherDialectTests(LimitTests):
    """The same, in the dialect without words."""

    dialect = b"none"


class Spying(Broker):
    """A broker that wants to see each expression."""

    def expressionReceived(self, obj: Any) -> None:
        super().expressionReceived(obj)


class SubclassTests(LimitTests):
    """The same, by a broker that is otherwise given expressions, as by Twisted."""

    protocol = Spying


class AfterLoginTests(WireTestCase):
    """Who has logged in is trusted as PB trusts everybody."""

    def test_noLimits(self) -> None:
        """Large and deep values pass."""

        class Player(self.game.perspectiveClass):  # type: ignore[misc,name-defined]
            def perspective_echo(self, value: Any) -> Any:
                return value

        self.game.perspectiveClass = Player
        perspective = self.successResultOf(self.login())
        deep: Any = "bottom"
        for _ in range(50):
            deep = [deep, {"x": (1, 2)}]
        for value in (deep, "x" * 100_000, list(range(20_000)), Unwanted()):
            answer = self.answer(perspective, "echo", value)
            if not isinstance(value, Unwanted):
                self.assertEqual(answer, value)

    def test_stockBroker(self) -> None:
        """Under a stock broker grace time and attempts are kept."""
        clock = self.memory.clock
        root = AuthRoot(self.memory.authorizer, Policy(graceTime=5), clock)
        memory = MemoryServer(factory=pb.PBServerFactory(root))
        memory.clock = clock
        opening = getObjectAt(memory, None, reactor=clock)
        memory.flush()
        connected = self.successResultOf(opening)
        clock.advance(5)
        memory.flush()
        with self.assertRaises(pb.DeadReferenceError):
            connected.callRemote("mechanisms")


class RefusedConnectionTests(SynchronousTestCase):
    """Too many connections that are not logged in."""

    def test_refused(self) -> None:
        """New ones are refused until others log in or go."""
        memory = MemoryServer()
        factory = AuthServerFactory(memory.authorizer, Policy(maxUnauthenticated=3), memory.clock)
        brokers = []
        for _ in range(3):
            broker: Any = factory.buildProtocol(ELSEWHERE)
            broker.makeConnection(StringTransport())
            brokers.append(broker)
        self.assertTrue(self.refuses(factory))
        brokers[0].connectionLost(Failure(netError.ConnectionDone()))
        self.assertFalse(self.refuses(factory))
        self.assertTrue(self.refuses(factory))

    def refuses(self, factory: AuthServerFactory) -> bool:
        """Connect once more, and say whether that was refused."""
        transport = StringTransport()
        factory.buildProtocol(ELSEWHERE).makeConnection(transport)
        return bool(transport.disconnecting or getattr(transport, "aborting", False))

    def test_oneSource(self) -> None:
        """
        Who takes all places, from one address, and never logs in, gets no more than half of them
        after that; and others find some.
        """
        memory = MemoryServer()
        clock = memory.clock
        factory = AuthServerFactory(memory.authorizer, Policy(maxUnauthenticated=50), clock)
        self.assertEqual(self.flood(factory), 50)
        clock.advance(30)
        self.assertEqual(self.flood(factory), 25)
        for number in range(10):
            address = IPv4Address("TCP", f"198.51.100.{number}", 5000)
            self.assertIsNotNone(factory.buildProtocol(address))

    def flood(self, factory: AuthServerFactory) -> int:
        """Take as many places as there are, and give how many that were."""
        for _ in range(1000):
            broker: Any = factory.buildProtocol(ELSEWHERE)
            if broker is not None:
                transport: Any = StringTransport(peerAddress=ELSEWHERE)
                transport.abortConnection = partial(
                    broker.connectionLost, Failure(netError.ConnectionAborted())
                )
                broker.makeConnection(transport)
        return len(factory._authRoot.limits.unauthenticated)

    def test_loggedIn(self) -> None:
        """Those who are logged in do not count."""
        memory = MemoryServer(policy=Policy(maxUnauthenticated=2))
        RecordingService("game", memory.services, memory.authorizer)
        memory.addUser("alice", "secret", ("game", "alice"))
        for _ in range(10):
            self.successResultOf(memory.logIn("alice", "secret", "game"))


class RefusedOverTLSTests(TLSTestCase):
    """Over TLS."""

    async def test_refused(self) -> None:
        """The connection is closed before a handshake, and nothing is logged as an error."""
        port = self.serve(Policy(maxUnauthenticated=1))
        first = await getObjectAt(f"tls:localhost:{port}", None, trust=self.pin)
        with self.assertRaises(Exception) as raised:
            await self.attempt(port, trust=self.pin)
        self.assertNotIsInstance(raised.exception, Unauthorized)
        await self.hangUp(first)
        self.assertEqual(self.flushLoggedErrors(), [])


class ThrottleTests(WireTestCase):
    """Who fails often has to wait."""

    def fail(self, times: int, name: str = "alice") -> list[type[Exception]]:  # type: ignore[override]
        """Log in with a wrong password, so often; give what was answered."""
        return [
            type(self.failureResultOf(self.memory.logIn(name, "wrong", "game")).value)
            for _ in range(times)
        ]

    def test_throttled(self) -> None:
        """After some failures the password is not looked at; time heals."""
        self.assertEqual(self.fail(8), [Unauthorized] * 6 + [TooManyAttempts] * 2)
        failure = self.failureResultOf(self.login())
        self.assertIsInstance(failure.value, TooManyAttempts)
        self.assertAlmostEqual(failure.value.retryAfter, 12, delta=1)
        self.memory.clock.advance(13)
        self.successResultOf(self.login())

    def test_costsNothing(self) -> None:
        """Who has to wait is answered without a look at the store."""
        self.fail(6)
        asked: list[str] = []
        self.memory.authorizer.getIdentityRequest = asked.append
        self.assertEqual(self.fail(1), [TooManyAttempts])
        self.assertEqual(asked, [])

    def test_challengesInHand(self) -> None:
        """Challenges that were given out before are of no use, either."""
        given_ = [self.scram(self.root(), password="wrong") for _ in range(8)]
        answers = [
            type(self.refusal(challenger, "respond", client.get_client_final().encode()))
            for client, challenger in given_
        ]
        self.assertEqual(answers, [Unauthorized] * 6 + [TooManyAttempts] * 2)

    def test_connectionIsDropped(self) -> None:
        """Who goes on asking on one connection is dropped."""
        self.fail(6)
        root = self.root()
        for _ in range(6):
            self.refusal(root, "username", "alice", SCRAM, b"n,,n=alice,r=nonce")
        self.memory.flush()
        with self.assertRaises(pb.DeadReferenceError):
            root.callRemote("mechanisms")

    def test_off(self) -> None:
        """A policy may do without."""
        self.serve(Policy(throttle=False))
        self.assertEqual(self.fail(10), [Unauthorized] * 10)

    def test_slowOnes(self) -> None:
        """Connections that never log in count as well."""
        for _ in range(3):
            self.root()
            self.memory.clock.advance(31)
            self.memory.flush()
        for _ in range(3):
            self.root()
        self.memory.clock.advance(31)
        self.memory.flush()
        self.assertIsInstance(self.failureResultOf(self.login()).value, TooManyAttempts)

    def test_loggedInStays(self) -> None:
        """A session is not touched by what others do."""
        perspective = self.successResultOf(self.login())
        self.fail(8)
        self.assertEqual(self.answer(perspective, "whoami"), "alice")
        self.assertNotIsInstance(perspective, Detached)
