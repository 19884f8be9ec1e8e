"""
Stock `twisted.spread.pb.Broker` and pbauth's, in all four pairings: equal results, equal errors,
equal bytes.

What differs, and is meant to, stands in `DifferenceTests`, and nowhere else; but for garbage, which
stock answers by an error in the log, and pbauth as in `tests.unit.wire.test_broker`.
"""

from __future__ import annotations

import datetime
import decimal
import gc
import re
import struct
import weakref
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol
from twisted.internet.testing import StringTransport
from twisted.python import failure as failures
from twisted.python.failure import Failure
from twisted.python.reflect import qual
from twisted.spread import banana, flavors, jelly, pb
from twisted.test import iosim
from twisted.trial.unittest import SynchronousTestCase

from pbauth import Broker, ProtocolViolation
from pbauth.wire.encoding import Encoded
from pbauth.wire.failures import RemoteFailure
from pbauth.wire.tokens import WORDS
from tests.support.memory import freezeHeap
from tests.support.values import (
    BYTES,
    EXPRESSIONS,
    INTS,
    KEYS,
    TEXTS,
    VALUES,
    Items,
    Number,
    Word,
    examples,
    stockBytes,
    withinLimits,
)

# What applications are made of.

#: Arguments of calls, which live as long as the connection: for what becomes of a reference whose
#: owner is told that it is let go of, see `DifferenceTests.test_ownObjects`.
HELD: list[Any] = []


def hold(*values: Any) -> Any:
    """Keep it, and give it."""
    HELD.append(values)
    return values


class Thing(pb.Referenceable):
    """Something to refer to."""

    def __init__(self, name: str) -> None:
        self.name = name

    def remote_echo(self, *args: Any, **kw: Any) -> Any:
        return hold(args, kw)

    def remote_name(self) -> str:
        return self.name

    def remote_whose(self, copied: Any) -> Any:
        return vars(copied)["for"]


class Copy(pb.Copyable):
    """Something to copy, which looks different to each perspective."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def getStateToCopyFor(self, perspective: Any) -> Any:
        return {"value": self.value, "for": getattr(perspective, "name", None)}


class Copied(pb.RemoteCopy):
    pass


class Cache(pb.Cacheable):
    """Something that is kept up to date where it was copied."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.observers: list[Any] = []

    def getStateToCacheAndObserveFor(self, perspective: Any, observer: Any) -> Any:
        self.observers.append(observer)
        return {"value": self.value, "for": getattr(perspective, "name", None)}

    def stoppedObserving(self, perspective: Any, observer: Any) -> None:
        self.observers.remove(observer)


class Cached(pb.RemoteCache):
    def observe_change(self, value: Any, **more: Any) -> Any:
        self.value = value
        return hold(value, more)


class NobodyKnows(pb.Copyable):
    """What the other end has no class for."""


class Board(pb.Viewable):
    """Something to look at."""

    def view_who(self, perspective: Any, *args: Any, **kw: Any) -> Any:
        return hold(getattr(perspective, "name", None), args, kw)


class Plain(Exception):
    """An error as most are."""


class Known(pb.Error):
    """An error that a client may see, by its name."""


class ToldError(pb.Error, pb.Copyable, pb.RemoteCopy):
    """An error that crosses as itself."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Allowed(pb.Error, pb.RemoteCopy):
    """An error whose class is allowed."""


class Unknown(pb.Error, pb.Copyable):
    """An error of a class that the other end does not know."""


pb.setUnjellyableForClass(Copy, Copied)
pb.setUnjellyableForClass(Cache, Cached)
pb.setUnjellyableForClass(ToldError, ToldError)
pb.setUnjellyableForClass(Allowed, Allowed)
pb.globalSecurity.allowInstancesOf(Allowed)

ERRORS: dict[str, Callable[[], Exception]] = {
    "plain": lambda: Plain("a", 1),
    "empty": Plain,
    "key": lambda: KeyError("a"),
    "unicode": lambda: Plain("ä\N{SNOWMAN}"),
    "type": lambda: TypeError("x() takes nothing"),
    "pb": lambda: pb.Error("told"),
    "known": lambda: Known("known"),
    "copied": lambda: ToldError(5),
    "allowed": lambda: Allowed("allowed"),
    "noSuchMethod": lambda: pb.NoSuchMethod("none"),
    "dead": lambda: pb.DeadReferenceError("dead"),
}
CHECKED = (Exception, KeyError, LookupError, TypeError, Plain, pb.Error, Known, ToldError, Allowed)


class Root(pb.Root):
    """
    What is called.

    Args:
        world: the connection that it is for.
    """

    def __init__(self, world: World) -> None:
        self.world = world

    def remote_echo(self, *args: Any, **kw: Any) -> Any:
        return hold(args, kw)

    def remote_one(self, value: Any) -> Any:
        return hold(value)[0]

    def remote_keep(self, value: Any) -> None:
        self.world.kept = value

    def remote_kept(self) -> Any:
        return self.world.kept

    def remote_forget(self) -> None:
        self.world.kept = None

    def remote_later(self, value: Any) -> Any:
        waiting: Deferred[Any] = Deferred()
        self.world.waiting.append((waiting, value))
        return waiting

    def remote_fail(self, kind: Any) -> Any:
        raise ERRORS[kind]()

    def remote_failLater(self, kind: Any) -> Any:
        return fail(ERRORS[kind]())

    def remote_thing(self, name: Any) -> Any:
        return Thing(name)

    def remote_copy(self, value: Any) -> Any:
        hold(value)
        return Copy(value)

    def remote_cache(self, value: Any) -> Any:
        self.world.cache.value = value
        return self.world.cache

    def remote_change(self, value: Any) -> int:
        observers = list(self.world.cache.observers)
        for observer in observers:
            observer.callRemote("change", value, more=1)
        return len(observers)

    def remote_board(self) -> Any:
        return Board()

    def remote_call(self, reference: Any, name: Any, *args: Any, **kw: Any) -> Any:
        hold(reference, args, kw)
        return reference.callRemote(name, *args, **kw)

    def remote_tell(self, reference: Any) -> Any:
        return hold(reference)[0].callRemote("whose", Copy(1))

    def remote_odd(self) -> Any:
        return object()


class Avatar(pb.Avatar):
    """The same for a perspective."""

    name = "alice"

    def __init__(self, world: World) -> None:
        self.world = world


for _name, _method in list(vars(Root).items()):
    if _name.startswith("remote_"):
        setattr(Avatar, _name.replace("remote_", "perspective_"), _method)


# A connection.


class Transport(iosim.FakeTransport):
    """
    Notes what is sent, cuts what comes into pieces, and ends the connection where the protocol
    raises, as a reactor does.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.sent: list[bytes] = []
        self.sizes = [10**9]
        self.raised: BaseException | None = None

    def write(self, data: bytes) -> None:
        if not self.disconnecting:
            self.sent.append(data)
        super().write(data)

    def bufferReceived(self, buf: bytes) -> None:
        place = turn = 0
        while place < len(buf) and not self.disconnecting:
            size = self.sizes[turn % len(self.sizes)]
            try:
                self.protocol.dataReceived(buf[place : place + size])
            except Exception as error:
                self.raised = error
                self.loseConnection()
            place += size
            turn += 1


class World:
    """
    A client and a server, connected.

    Args:
        client: class of the client's broker.
        server: class of the server's.
        security: which types may come in, and go out, at the client and at the server.
        sizes: of the chunks that arrive.
        rootClass: of the root object.
    """

    told: Any
    came: list[list[Any]]
    errors: list[str]
    wrote: list[bytes]
    raised: list[Any]

    def __init__(
        self,
        client: type[pb.Broker],
        server: type[pb.Broker],
        security: tuple[Any, Any] = (jelly.globalSecurity, jelly.globalSecurity),
        sizes: list[int] | None = None,
        rootClass: type[Root] = Root,
    ) -> None:
        # Each failure has a number, which crosses the wire with it.
        failures.count = 0
        self.kept: Any = None
        self.waiting: list[tuple[Deferred[Any], Any]] = []
        self.cache = Cache(0)
        self.made: list[Any] = []
        serverFactory = pb.PBServerFactory(rootClass(self), security=security[1])
        serverFactory.protocol = server
        self.clientFactory = pb.PBClientFactory(security=security[0])
        self.clientFactory.protocol = client
        self.server = serverFactory.buildProtocol(None)
        self.client = self.clientFactory.buildProtocol(None)
        self.transports = [Transport(self.client, False), Transport(self.server, True)]
        for transport in self.transports:
            transport.sizes = sizes or transport.sizes
        self.pump = iosim.connect(self.server, self.transports[1], self.client, self.transports[0])
        self.server.setNameForLocal("avatar", pb.AsReferenceable(Avatar(self), "perspective"))
        self.references = [
            self.client.remoteForName("root"),
            self.client.remoteForName("avatar"),
            self.client.remoteForName("nobody"),
            pb.RemoteReference(None, self.client, 99, 0),
        ]
        self.outcomes: list[list[Any]] = []
        #: What had come of all, and how many bytes each end had sent, before each call.
        self.marks: list[tuple[Any, list[int]]] = []

    def call(
        self, target: int, method: Any, args: Any = (), kw: Any = None, flush: bool = True
    ) -> None:
        """Call a method of the root, or of what was got; as long as there is a connection."""
        if not self.mark():
            return
        outcome: list[Any] = []
        self.outcomes.append(outcome)
        try:
            answer = self.reference(target).callRemote(method, *args, **(kw or {}))
        except Exception as error:
            outcome.append(("raised", type(error), str(error)))
            return
        if answer is None:
            outcome.append("no answer")
            self.pump.flush()
            return
        answer.addCallback(self._got)
        answer.addBoth(outcome.append)
        if flush:
            self.pump.flush()

    def reference(self, number: int) -> Any:
        """The root, the avatar, two that are nobody's, and then one of those that were got."""
        if number < 4:
            return self.references[number]
        got = self.references[4:] or self.references[:1]
        return got[number % len(got)]

    def mark(self) -> bool:
        """Remember how much was sent; and tell whether there is a connection still."""
        if any(transport.disconnecting for transport in self.transports):
            return False
        lengths = [sum(map(len, transport.sent)) for transport in self.transports]
        self.marks.append((told(self.outcomes), lengths))
        return True

    def _got(self, value: Any) -> Any:
        if isinstance(value, pb.RemoteReference):
            self.references.append(value)
        return value

    def fire(self) -> None:
        """Fire what was to be later."""
        if not self.mark():
            return
        for waiting, value in self.waiting:
            if isinstance(value, str) and value in ERRORS:
                waiting.errback(ERRORS[value]())
            else:
                waiting.callback(value)
        self.waiting.clear()
        self.pump.flush()

    def end(self) -> None:
        """Forget all, and hang up."""
        self.made.clear()
        HELD.clear()
        self.pump.flush()
        self.transports[0].loseConnection()
        self.pump.flush()


def messagesOf(data: bytes) -> list[Any]:
    """What was sent, as banana has it."""
    reading = banana.Banana()
    reading.setPrefixLimit(64)
    reading.currentDialect = b"pb"
    messages: list[Any] = []
    reading.expressionReceived = messages.append
    reading.dataReceived(data)
    return messages


def nameOf(failure: Failure) -> Any:
    """Of the class of an error; of one that came over the wire it may be all there is."""
    kind: Any = failure.type
    return kind if isinstance(kind, (bytes, str)) else qual(kind)


def errorOf(failure: Failure) -> Any:
    """What its value says; see `DifferenceTests.test_values`."""
    error: Any = str(failure.value) if type(failure) is RemoteFailure else failure.value
    isNone = not isinstance(error, (BaseException, str))
    return f"{nameOf(failure)}, which is no error" if isNone else error


def told(value: Any, seen: dict[int, int] | None = None) -> Any:
    """What a value is, to compare by: also who holds what, and what is held twice."""
    seen = {} if seen is None else seen
    if isinstance(value, float):
        return struct.pack("!d", value)
    if id(value) in seen:
        return "again", seen[id(value)]
    if isinstance(value, (list, tuple, dict, set, frozenset)):
        seen[id(value)] = len(seen)
    if isinstance(value, dict):
        return dict, [(told(key, seen), told(item, seen)) for key, item in value.items()]
    if isinstance(value, (set, frozenset)):
        return type(value), sorted(repr(told(item, {})) for item in value)
    if isinstance(value, (list, tuple)):
        return type(value), [told(item, seen) for item in value]
    if isinstance(value, Failure):
        return (
            Failure,
            nameOf(value),
            told(errorOf(value), seen),
            [checked for checked in CHECKED if value.check(checked)],
            getattr(value, "traceback", None),
        )
    if isinstance(value, pb.RemoteReference):
        return "remote", value.luid
    if isinstance(value, (Copied, Cached)):
        seen[id(value)] = len(seen)
        state = {key: item for key, item in vars(value).items() if key != "broker"}
        return type(value), told(state, seen)
    if isinstance(value, Exception):
        return type(value), [told(item, seen) for item in value.args], told(vars(value), seen)
    if isinstance(value, flavors.Serializable):
        return type(value), getattr(value, "name", None)
    return type(value), re.sub(" at 0x[0-9a-f]+", "", repr(value))


# Values, made anew for each connection after the same recipe: a kind, and what it takes.


def make(recipe: Any, world: World) -> Any:
    """Make what a recipe says."""
    kind, parts = recipe
    if kind == "value":
        return parts
    if kind == "again":
        return world.made[parts % len(world.made)] if world.made else None
    if kind == "remote":
        got = world.references[4:]
        return got[parts % len(got)] if got else None
    if kind in (list, dict):
        # It may hold itself.
        made: Any = kind()
        world.made.append(made)
        for number, part in enumerate(parts):
            if kind is list:
                made.append(make(part, world))
            else:
                made[number] = make(part, world)
        return made
    items = [make(part, world) for part in parts]
    made = tuple(items) if kind is tuple else kind(*items)
    world.made.append(made)
    return made


SIMPLE = st.one_of(
    st.one_of(st.none(), st.booleans(), INTS, st.floats(), BYTES, TEXTS),
    st.one_of(st.datetimes(), st.dates(), st.times(), st.timedeltas(), st.decimals()),
    st.one_of(st.sets(KEYS, max_size=3), st.frozensets(KEYS, max_size=3)),
    st.sampled_from(["\ud800", int, len, make, datetime, Number.ONE, Items([1]), Word("a")]),
    st.builds(object),
    st.just(datetime.datetime(2000, 1, 1, tzinfo=datetime.timezone.utc)),
)
NUMBERS = st.integers(0, 5)


@st.composite
def recipes(draw: Any, depth: int = 3) -> Any:
    """Anything that crosses, or should not."""
    kind = draw(st.sampled_from(KINDS if depth else KINDS[:8]))
    if kind == "value":
        return kind, draw(SIMPLE)
    if kind in ("again", "remote"):
        return kind, draw(NUMBERS)
    if kind is Thing:
        return kind, [("value", draw(st.sampled_from("ab")))]
    if kind is Board:
        return kind, []
    inner = recipes(depth=depth - 1)
    if kind in (Copy, Cache):
        return kind, [draw(inner)]
    return kind, draw(st.lists(inner, max_size=3))


KINDS: list[Any] = [
    *("value", "value", "value", "value", "again", "remote"),
    *(Thing, Board, Copy, Cache, list, list, tuple, tuple, dict, dict),
]
NAMES = st.sampled_from(sorted(ERRORS)).map(lambda name: ("value", name))
TARGETS = st.sampled_from([0, 1] * 6 + [2, 3] + [4, 5, 6, 7] * 2)
METHODS: list[tuple[Any, list[Any]]] = [
    ("one", [recipes()]),
    ("one", [recipes()]),
    ("keep", [recipes()]),
    ("kept", []),
    ("forget", []),
    ("later", [recipes()]),
    ("later", [NAMES]),
    ("fail", [NAMES]),
    ("failLater", [NAMES]),
    ("thing", [TEXTS.map(lambda text: ("value", text))]),
    ("copy", [recipes()]),
    ("cache", [recipes()]),
    ("change", [recipes()]),
    ("board", []),
    ("who", [recipes()]),
    ("call", [st.just(("remote", 0)), st.just(("value", "name"))]),
    ("call", [st.just((Thing, [("value", "c")])), st.just(("value", "echo")), recipes()]),
    ("odd", []),
]


@st.composite
def calls(draw: Any) -> Any:
    """A call that fits the method, or any other: who, what, arguments, keywords."""
    target = draw(TARGETS)
    if target in (2, 3):
        # For objects in calls that are refused see `DifferenceTests.test_refusedCalls`.
        return target, "one", [("value", draw(SIMPLE))], {}
    if draw(st.integers(0, 3)):
        method, parts = draw(st.sampled_from(METHODS))
        keywords = {"pbanswer": ("value", False)} if draw(st.integers(0, 9)) == 9 else {}
        return target, method, [draw(part) for part in parts], keywords
    return (
        target,
        draw(st.sampled_from(["echo", "one", b"echo", "who", "name", "missing", "kept", "ä", ""])),
        draw(st.lists(recipes(), max_size=3)),
        draw(st.dictionaries(st.sampled_from(["a", "ä", "value"]), recipes(), max_size=2)),
    )


PAIRS = [(client, server) for client in (pb.Broker, Broker) for server in (pb.Broker, Broker)]


#: References are let go of when Python pleases.
UNORDERED = (b"decref", b"decache", b"uncache")


class EquivalenceTestCase(SynchronousTestCase):
    """Does the same in all four pairings."""

    def setUp(self) -> None:
        # When exactly a cycle is found is up to it.
        freezeHeap()
        gc.disable()
        self.addCleanup(gc.enable)
        # Otherwise see `tests.unit.wire.test_serializing`.
        self.patch(Broker, "stockSerialization", True)

    def tearDown(self) -> None:
        # Some errors are nobody's, where a broker broke the connection.
        gc.collect()
        self.flushLoggedErrors()

    def do(self, program: Callable[[World], None], *brokers: Any, **options: Any) -> World:
        """Do it in one, and note what the log says."""
        world = World(*brokers, **options)
        program(world)
        world.told = told(world.outcomes)
        world.came = [list(outcome) for outcome in world.outcomes]
        world.errors = [nameOf(error) for error in self.flushLoggedErrors()]
        world.wrote = [b"".join(transport.sent) for transport in world.transports]
        world.raised = [transport.raised for transport in world.transports]
        world.end()
        self.flushLoggedErrors()
        return world

    def assertAlike(self, program: Callable[[World], None], **options: Any) -> World:
        """Do it in all, and give what came of it with stock brokers."""
        stock, *others = [self.do(program, *pair, **options) for pair in PAIRS]
        for other in others:
            if any(stock.raised):
                # A stock broker breaks the connection by an error: things go apart from there.
                seen, lengths = stock.marks[-1]
                self.assertEqual(other.marks[len(stock.marks) - 1][0], seen)
            else:
                lengths = [None, None]  # type: ignore[list-item]
                self.assertEqual(other.told, stock.told)
                self.assertEqual(other.errors, stock.errors)
                self.assertEqual(other.raised, [None, None])
            for ours, theirs, length in zip(other.wrote, stock.wrote, lengths, strict=True):
                if ours[:length] != theirs[:length]:
                    self.assertEqual(ordered(ours[:length]), ordered(theirs[:length]))
        return stock


def ordered(data: bytes) -> list[Any]:
    """The messages whose order says something."""
    return [message for message in messagesOf(data) if message[0] not in UNORDERED]


CALLS = st.lists(calls(), min_size=1, max_size=6)
SIZES = st.sampled_from([[10**9], [1], [7, 3, 50]])


def programOf(calls: list[Any], pipelined: bool = False) -> Callable[[World], None]:
    """Make these calls."""

    def program(world: World) -> None:
        for target, method, args, kw in calls:
            world.call(
                target,
                method,
                [make(arg, world) for arg in args],
                {key: make(value, world) for key, value in kw.items()},
                flush=not pipelined,
            )
        world.pump.flush()
        world.fire()

    return program


class CallTests(EquivalenceTestCase):
    """Any calls, with any values."""

    @examples(80)
    @given(CALLS, SIZES, st.booleans())
    def test_calls(self, calls: list[Any], sizes: list[int], pipelined: bool) -> None:
        """One after the other, or all at once."""
        self.assertAlike(programOf(calls, pipelined), sizes=sizes)

    def test_values(self) -> None:
        """Values of each kind there and back, on the way through each kind of object."""
        thing = (Thing, [("value", "a")])
        shared = (list, [("value", 1)])
        values: list[Any] = [
            *(None, True, 0, -1, 2**40, 1.5, "ä", b"a", {1}, "None", frozenset("a"), {"a": [()]}),
            *([[]], ((), ()), 2**448, datetime.date(1, 2, 3), decimal.Decimal("-1.50")),
            *(Number.ONE, Word("a"), int, len, Exception("a"), "\ud800", float("inf"), 1j, ...),
        ]
        for part in [
            *(("value", value) for value in values),
            (list, [shared, ("again", 1), ("again", 0)]),
            (dict, [(tuple, [("again", 0)]), ("again", 1)]),
            (tuple, [shared, (tuple, [("again", 0)]), ("again", 1)]),
            thing,
            (list, [thing, ("again", 1)]),
            (Board, []),
            (Copy, [shared]),
            (Copy, [(list, [thing, ("again", 0), ("again", 1)])]),
            (Cache, [shared]),
            (list, [(Cache, [shared]), ("again", 2)]),
        ]:
            for method in ("one", "copy", "cache", "keep", "later"):
                for target in (0, 1):
                    calls = [(target, method, [part], {}), (target, "kept", [], {})]  # type: ignore[var-annotated]
                    self.assertAlike(programOf(calls))

    def test_errors(self) -> None:
        """Errors of each kind, raised at once and later."""
        for kind in sorted(ERRORS):
            for method in ("fail", "failLater", "later"):
                stock = self.assertAlike(
                    programOf([(target, method, [("value", kind)], {}) for target in (0, 1)])
                )
                self.assertEqual(stock.told[1][0][1][0][0], Failure)

    def test_wrongCalls(self) -> None:
        """Calls that can't be done are answered; the connection goes on."""
        for target, method, args, kw in [
            (0, "missing", [], {}),
            (1, "missing", [], {}),
            (0, "", [], {}),
            (0, "one", [], {}),
            (0, "one", [1, 2], {}),
            (0, "one", [1], {"value": 2}),
            (0, "one", [], {"other": 1}),
            (1, "one", [], {}),
            (2, "one", [1], {}),
            (3, "one", [1], {}),
            (0, "fail", ["nothing"], {}),
            (0, "call", [1, "name"], {}),
            (0, "echo", [], {"pbanswer": None}),
            (0, "echo", [object()], {"pbanswer": False}),
            (2, "echo", [], {"pbanswer": False}),
            (0, "missing", [], {"pbanswer": False}),
            (0, "fail", ["plain"], {"pbanswer": False}),
        ]:

            def program(world: World) -> None:
                world.call(target, method, args, kw)  # noqa: B023
                world.call(0, b"one", ["then"])
                self.assertEqual(world.outcomes[-1], ["then"])

            self.assertAlike(program)

    def test_names(self) -> None:
        """Names of methods as text, as bytes, and as what is no text."""
        stock = self.assertAlike(
            programOf(
                [(0, name, [("value", 1)], {}) for name in ("one", b"one", "ä", "ä".encode())]
            )
        )
        self.assertEqual(stock.outcomes[:2], [[1], [1]])

        def program(world: World) -> None:
            world.call(0, b"\xff", [1])

        for pair in PAIRS:
            world = self.do(program, *pair)
            self.assertTrue(world.transports[1].disconnecting)
            self.assertIs(world.outcomes[0][0].type, pb.PBConnectionLost)

    def test_perspectives(self) -> None:
        """Copies, caches and views are for the perspective that the call came to."""

        def program(world: World) -> None:
            world.call(1, "copy", [1])
            world.call(1, "cache", [2])
            world.call(1, "board")
            world.call(4, "who", [3], {"more": Thing("a")})
            world.call(0, "board")
            world.call(5, "who", [3])

        stock = self.assertAlike(program)
        self.assertEqual(vars(stock.outcomes[0][0])["for"], "alice")
        self.assertEqual(vars(stock.outcomes[1][0])["for"], "alice")
        self.assertEqual(stock.outcomes[3][0][0], "alice")
        self.assertEqual(stock.outcomes[5][0][0], None)

    def test_referencesOfPerspectives(self) -> None:
        """What is sent to a reference that came to a perspective is for that perspective."""

        def program(world: World) -> None:
            for target in (0, 1):
                world.call(target, "tell", [Thing("a")])

        stock = self.assertAlike(program)
        self.assertEqual(stock.outcomes, [[None], ["alice"]])

    def test_letGo(self) -> None:
        """Objects that the other end let go of are forgotten, and not before."""
        for parts in ([], [1.5], [Copy(1)], [object()], [Board()], [{"a": Thing("b")}], [(), ()]):

            def program(world: World) -> None:
                things = [Thing("a"), *parts, Thing("c")]  # noqa: B023
                world.call(0, "keep", [things])
                world.call(0, "kept")
                world.call(0, "keep", [{1: things[0], 2: things[0], 3: parts}])  # noqa: B023
                self.assertIs(type(world.kept[1]), pb.RemoteReference)
                asked = world.kept[1].callRemote("name")
                world.pump.flush()
                self.assertEqual(self.successResultOf(asked), "a")
                world.call(1, "thing", ["d"])
                world.call(4, "name")
                self.assertEqual(world.outcomes[-1], ["d"])
                world.kept = None
                for passed in (HELD, world.outcomes, world.references):
                    passed.clear()
                gc.collect()
                world.pump.flush()
                self.assertEqual(world.client.localObjects, {})
                self.assertEqual(set(world.server.localObjects), {b"root", b"avatar"})

            self.assertAlike(program)

    def test_caches(self) -> None:
        """What is cached is kept up to date, told apart, and forgotten."""

        def program(world: World) -> None:
            world.call(0, "cache", [[1]])
            world.call(1, "cache", [[2]])
            for value in (3, [4], Thing("a"), None):
                world.call(0, "change", [value])
            world.call(0, "keep", [world.outcomes[0][0]])
            self.assertIs(world.kept, world.cache)
            self.assertEqual(len(world.cache.observers), 1)
            self.assertEqual(world.outcomes[0][0].value, None)
            world.kept = None
            world.outcomes[:2] = [[], []]
            gc.collect()
            world.pump.flush()
            self.assertEqual(world.cache.observers, [])
            world.call(0, "cache", [5])
            world.call(0, "change", [{"a": 6}])
            self.assertEqual(world.outcomes[-2][0].value, {"a": 6})

        self.assertAlike(program)

    def test_lost(self) -> None:
        """Calls under way when the connection ends, and calls after it."""

        def program(world: World) -> None:
            world.call(0, "later", [1])
            world.call(1, "later", [[2]], flush=False)
            world.transports[1].loseConnection()
            world.pump.flush()
            for reference in world.references:
                with self.assertRaises(pb.DeadReferenceError):
                    reference.callRemote("one", 1)

        stock = self.assertAlike(program)
        for outcome in stock.outcomes:
            self.assertIs(outcome[0].type, pb.PBConnectionLost)


# What applications do with brokers.


class Picky(jelly.SecurityOptions):
    """Does not like sets, on either way."""

    def isTypeAllowed(self, typeName: Any) -> bool:
        return b"set" not in typeName and super().isTypeAllowed(typeName)


class Keeping(jelly.SecurityOptions):
    """Does not let sets out."""

    def isTypeAllowed(self, typeName: Any) -> bool:
        return typeName != b"builtins.set" and super().isTypeAllowed(typeName)


def withoutBasics() -> Any:
    """Without lists, tuples, dictionaries."""
    return jelly.SecurityOptions()


def without(name: bytes) -> Callable[[], Any]:
    """Without a type."""

    def options() -> Any:
        made = jelly.SecurityOptions()
        made.allowBasicTypes()
        made.allowTypes("remote")
        del made.allowedTypes[name]
        return made

    return options


def picky() -> Any:
    """By a subclass."""
    made = Picky()
    made.allowBasicTypes()
    return made


def keeping() -> Any:
    """On the way out, by a subclass."""
    made = Keeping()
    made.allowBasicTypes()
    return made


def replaced() -> Any:
    """On the way out, by an attribute."""
    made = jelly.SecurityOptions()
    made.allowBasicTypes()
    made.isTypeAllowed = keeping().isTypeAllowed
    return made


SECURITY = [
    lambda: jelly.globalSecurity,
    jelly.DummySecurityOptions,
    withoutBasics,
    without(b"unicode"),
    without(b"boolean"),
    without(b"None"),
    without(b"set"),
    without(b"frozenset"),
    without(b"list"),
    without(b"reference"),
    without(b"remote"),
    picky,
    keeping,
    replaced,
]
FORBIDDEN = ["a", True, None, {1}, frozenset([1]), [1], (1,), {1: 2}, [{"a": {2}}], 1, b"a"]


class SecurityTests(EquivalenceTestCase):
    """Types that may not cross."""

    def test_eachType(self) -> None:
        """Each type, where it is forbidden at the server, at the client, at both."""
        name = ("value", b"a")
        thing = (list, [(Thing, [name])])
        recipes = [*(("value", value) for value in FORBIDDEN), thing]
        calls: list[Any] = [(0, method, [r], {}) for r in recipes for method in ("one", "keep")]
        for options in SECURITY:
            self.assertAlike(programOf(calls), security=(jelly.globalSecurity, options()))
            for ofServer in (jelly.globalSecurity, options()):
                # With stock the first answer that may not come in is the last.
                for recipe in recipes:
                    program = programOf([(0, "one", [recipe], {}), (0, "thing", [name], {})])
                    self.assertAlike(program, security=(options(), ofServer))

    def test_passedOn(self) -> None:
        """A call back fails, at either end, and its error is passed on."""
        thing = (Thing, [("value", "c")])
        back: Any = [(0, "call", [thing, ("value", "echo"), (Board, [])], {})]
        name: Any = [(0, "call", [thing, ("value", "missing")], {})]
        for ofClient in SECURITY:
            for ofServer in SECURITY:
                for calls in (back, name):
                    self.assertAlike(programOf(calls), security=(ofClient(), ofServer()))

    @examples(40)
    @given(CALLS, st.sampled_from(SECURITY), st.sampled_from(SECURITY))
    def test_calls(self, calls: list[Any], ofClient: Any, ofServer: Any) -> None:
        """Any calls."""
        self.assertAlike(programOf(calls), security=(ofClient(), ofServer()))

    def test_refused(self) -> None:
        """It is so: what is forbidden does not arrive, nor go out."""
        for options in (without(b"set"), picky):
            for pair in PAIRS:
                world = self.do(
                    programOf([(0, "keep", [("value", [{1}])], {})]),
                    *pair,
                    security=(jelly.globalSecurity, options()),
                )
                self.assertIsNone(world.kept)
                self.assertIn("InsecureJelly", str(world.outcomes[0][0].type))
        for options in (picky, keeping, replaced):
            for pair in PAIRS:
                world = self.do(
                    programOf([(0, "keep", [("value", [{1}])], {})]),
                    *pair,
                    security=(options(), jelly.globalSecurity),
                )
                self.assertIsNone(world.kept)
                world.outcomes[0][0].trap(jelly.InsecureJelly)

    def test_ownTypes(self) -> None:
        """An application that has its own idea of a plain type is asked."""

        class Own(jelly.Unjellyable):
            def unjellyFor(self, unjellier: Any, jellyList: Any) -> Any:
                return "own", len(jellyList)

        for registry in (jelly.unjellyableRegistry, jelly.unjellyableFactoryRegistry):
            made = Own if registry is jelly.unjellyableRegistry else lambda state: ("own", state)
            registry[b"set"] = made  # type: ignore[index]
            try:
                stock = self.assertAlike(programOf([(0, "one", [("value", [{1}])], {})]))
            finally:
                del registry[b"set"]
            self.assertEqual(stock.outcomes[0][0][0][0], "own")
        registry = jelly.unjellyableRegistry
        self.addCleanup(registry.__setitem__, b"remote", registry[b"remote"])  # type: ignore[index]
        registry[b"remote"] = Own  # type: ignore[index]
        stock = self.assertAlike(programOf([(0, "one", [(Thing, [("value", "a")])], {})]))
        self.assertEqual(stock.outcomes[0][0], ("own", 2))


def noting(name: str, results: bool = False) -> type:
    """What brokers of an application have in common that notes what passes through a method."""

    class Noting:
        def __init__(self, *args: Any, **kw: Any) -> None:
            self.noted: list[Any] = []
            super().__init__(*args, **kw)

    def method(self: Any, *args: Any, **kw: Any) -> Any:
        result = getattr(super(Noting, self), name)(*args, **kw)
        noted: Any = [result] if results else args
        if isinstance(noted[0], (list, tuple)) and noted[0][:1] and noted[0][0] in UNORDERED:
            return result
        if noted[0] not in UNORDERED:
            self.noted.append(
                [told(part) for part in noted if not callable(part) and type(part) is not Deferred]
            )
        return result

    setattr(Noting, name, method)
    return Noting


class Changing:
    """Changes what passes: answers are put into a list, and what comes into a tuple."""

    def serialize(self, object: Any, *args: Any, **kw: Any) -> Any:
        made: Any = super().serialize(object, *args, **kw)  # type: ignore[misc]
        return made if isinstance(object, (tuple, dict, Deferred)) else [b"list", made]

    def unserialize(self, sexp: Any, perspective: Any = None) -> Any:
        made: Any = super().unserialize(sexp, perspective)  # type: ignore[misc]
        return made if isinstance(made, (tuple, dict, Failure)) else ("changed", made)


MIXINS = [
    *(noting("callExpressionReceived"), noting("expressionReceived"), noting("_recvMessage")),
    *(noting("proto_message"), noting("proto_answer"), noting("proto_error")),
    *(noting("localObjectForID"), noting("unserialize"), noting("unserialize", True)),
    *(noting("serialize"), noting("serialize", True), noting("sendCall"), noting("sendEncoded")),
    *(noting("_sendAnswer"), noting("_sendError"), noting("_sendMessage"), Changing),
]


class OwnDispatch(Root):
    """Takes calls by hand."""

    def remoteMessageReceived(self, broker: Any, message: Any, args: Any, kw: Any) -> Any:
        self.world.noted.append(message)
        values = broker.unserialize(args)
        more = broker.unserialize(kw)
        if message == "proxied":
            return super().remoteMessageReceived(broker, "echo", args, kw)
        hold(values, more)
        return broker.serialize([message, values, more], self.perspective)


class OverridingTests(EquivalenceTestCase):
    """Applications with brokers and objects of their own."""

    def assertNotesAlike(self, mixin: Any, calls: list[Any]) -> None:
        """A subclass of ours sees what one of stock's does."""
        kinds = [type("Own", (mixin, kind), {}) for kind in (pb.Broker, Broker)]
        worlds = []
        for kind in kinds:
            worlds.append(self.do(programOf(calls), kind, kind))
        stock, ours = worlds
        self.assertEqual(stock.raised, [None, None])
        self.assertEqual(ours.raised, [None, None])
        self.assertEqual(ours.told, stock.told)
        self.assertEqual(
            [ordered(data) for data in ours.wrote], [ordered(data) for data in stock.wrote]
        )
        for side in ("client", "server"):
            self.assertEqual(
                getattr(getattr(ours, side), "noted", None),
                getattr(getattr(stock, side), "noted", None),
            )

    def test_brokers(self) -> None:
        """What they override is used, and sees expressions as Twisted has them."""
        values = [None, True, 1, 1.5, "a", b"a", (1,), ["a", None], {"a": {1}}, frozenset("b")]
        plain = [(0, method, [("value", v)], {}) for v in values for method in ("one", "later")]  # type: ignore[var-annotated]
        others = [
            (1, "copy", [("value", 1)], {}),
            (0, "echo", [(Thing, [("value", "a")])], {"a": ("value", [1])}),
            (0, "fail", [("value", "plain")], {}),
            (0, "fail", [("value", "copied")], {}),
            (2, "one", [], {}),
        ]
        for mixin in MIXINS:
            self.assertNotesAlike(mixin, plain + others)

    def test_dispatch(self) -> None:
        """Objects that take calls by hand get what `unserialize` understands."""

        def program(world: World) -> None:
            world.noted = []
            world.call(0, "anything", [1, "a"], {"b": [2]})
            world.call(0, "proxied", [1, "a"], {"b": [2]})
            world.call(0, "anything", [Thing("a")], {"b": Thing("b")})
            self.assertEqual(world.noted, ["anything", "proxied", "anything"])

        stock = self.assertAlike(program, rootClass=OwnDispatch)
        self.assertEqual(stock.outcomes[0][0], ["anything", (1, "a"), {"b": [2]}])
        self.assertEqual(stock.outcomes[1][0], ((1, "a"), {"b": [2]}))

    def test_freed(self) -> None:
        """A broker whose connection is closed is gone, without the garbage collector."""
        for kind in (pb.Broker, Broker):
            broker = kind(False)
            broker.factory = pb.PBServerFactory(pb.Root())
            broker.makeConnection(StringTransport())
            broker.dataReceived(banana.encode(b"pb"))
            broker.connectionLost(Failure(ConnectionDone()))
            reference = weakref.ref(broker)
            del broker
            self.assertIsNone(reference())


# What peers send by hand.

ODD = st.one_of(
    st.sampled_from([0, 1, 7, 99, -1, 1.0, 1.5, b"root", b"avatar", b"one", b"echo", b"", b"\xff"]),
    st.sampled_from([[], [b"None"], [b"list", 1], [b"tuple", 1], [b"unicode", b"root"], [1]]),
    st.sampled_from([[b"boolean", b"true"], [b"boolean", b"false"], [b"unicode", b"one"]]),
)
ARGUMENTS = st.one_of(
    VALUES.map(jelly.jelly).map(lambda part: [b"tuple", part]),
    EXPRESSIONS.map(lambda part: [b"tuple", part]),
    st.lists(st.sampled_from([1, b"a", [b"remote", 3], [b"local", b"root"], [b"set"]])).map(
        lambda parts: [b"tuple", *parts]
    ),
    st.sampled_from([[b"tuple"], [b"list", 1], 1, [], [b"tuple", [b"lcache", 1]], [b"dictionary"]]),
)
KEYWORDS = st.one_of(
    st.just([b"dictionary"]),
    st.just([b"dictionary", [b"a", 1]]),
    st.just([b"dictionary", [[b"unicode", b"a"], 1]]),
    st.just([b"dictionary", [1, 1]]),
    st.just([b"list"]),
    ODD,
)
MESSAGES = st.one_of(
    st.tuples(
        st.just(b"message"),
        st.just(1) | ODD,
        st.just(b"root") | ODD,
        st.sampled_from([b"one", b"echo", b"keep"]) | ODD,
        st.just(1) | ODD,
        ARGUMENTS,
        KEYWORDS,
    )
    # See `tests.unit.wire.test_failures.KeywordTests`.
    .filter(lambda call: call[2] != b"avatar" or call[6] != [b"dictionary", [b"a", 1]])
    .map(list),
    st.tuples(st.sampled_from([b"decref", b"decache", b"answer", b"version", b"x"]), ODD).map(list),
    st.tuples(st.sampled_from([b"answer", b"error", b"cachemessage"]), ODD, ARGUMENTS).map(list),
    EXPRESSIONS,
).filter(withinLimits)


class PeerTests(EquivalenceTestCase):
    """Messages that no broker sends."""

    def serve(self, kind: type[pb.Broker], data: bytes, sizes: list[int]) -> Any:
        """What a server does with these bytes: what it sends, and whether it hangs up."""
        failures.count = 0
        # The client is not spoken to any more.
        world = World(pb.Broker, kind)
        transport = world.transports[1]
        transport.sizes = sizes
        transport.sent.clear()
        transport.bufferReceived(data)
        self.flushLoggedErrors()
        did = transport.disconnecting, ordered(b"".join(transport.sent)), told(world.kept)
        world.transports[0].protocol = Protocol()
        world.end()
        return did

    @examples(150)
    @given(st.lists(MESSAGES, min_size=1, max_size=4), SIZES)
    def test_messages(self, messages: list[Any], sizes: list[int]) -> None:
        """They are answered as by stock, or end the connection where stock raises an error."""
        data = b"".join(map(stockBytes, messages))
        self.assertEqual(self.serve(Broker, data, sizes), self.serve(pb.Broker, data, sizes))

    def test_requests(self) -> None:
        """What is a number in every message may be something else."""
        for odd in (b"a", 1.5, -1, [b"None"], [b"list", 1], [b"unicode", b"a"], [b"tuple", 1], []):
            for place in range(1, 7):
                message = [b"message", 1, b"root", b"one", 1, [b"tuple", 5], [b"dictionary"]]
                message[place] = odd
                data = stockBytes(message)
                self.assertEqual(
                    self.serve(Broker, data, [1000]), self.serve(pb.Broker, data, [1000])
                )

    def test_answers(self) -> None:
        """Answers and references by odd numbers, and of odd lengths."""
        for message in [
            [b"answer", 1, 5],
            [b"answer", 1, [b"list", [b"None"]]],
            [b"answer", 1.0, 5],
            [b"answer", [b"boolean", b"true"], 5],
            [b"answer", [b"None"], 5],
            [b"answer", b"1", 5],
            [b"answer", 1],
            [b"answer", 1, 5, 6],
            [b"answer", 99, 5],
            [b"answer"],
            [[b"unicode", b"answer"], 1, 5],
            [b"error", 1, 5],
            [b"error", 1, [b"unicode", b"a"]],
            [b"error", 1],
            [b"decref", 1],
            [b"decref", 1.0],
            [b"decref", [b"boolean", b"true"]],
            [b"decref", [b"tuple"]],
            [b"decref", 1, 1],
            [b"decref"],
        ]:
            seen = []
            for kind in (pb.Broker, Broker):
                world = World(kind, pb.Broker)
                thing = Thing("a")
                world.call(0, "later", [thing])
                transport = world.transports[0]
                transport.bufferReceived(stockBytes(message))
                seen.append(
                    (transport.disconnecting, told(world.outcomes), len(world.client.localObjects))
                )
                world.end()
                self.flushLoggedErrors()
            self.assertEqual(seen[1], seen[0], message)

    def test_deep(self) -> None:
        """Arguments that are too deep are an error of the call: nothing breaks."""
        start = b"\7\x80" + stockBytes([b"message", 1, b"root", b"one", 1])[2:]
        for kind, depth in ((pb.Broker, 3000), (Broker, 3000), (Broker, 100_000)):
            for head in (b"\2\x80" + WORDS[b"tuple"], b"\2\x80" + WORDS[b"list"]):
                for inner in (b"", b"\2\x80\3\x82set"):
                    arguments = b"\2\x80" + WORDS[b"tuple"] + inner + head * depth + b"\1\x81"
                    data = start + arguments + stockBytes([b"dictionary"])
                    hungUp, sent, _ = self.serve(kind, data, [10**9])
                    self.assertFalse(hungUp)
                    self.assertEqual(sent[0][:2], [b"error", 1])
                    self.assertIn("RecursionError", repr(sent))

    def test_withoutWords(self) -> None:
        """A peer that chooses the dialect without words gets none."""
        for kind in (pb.Broker, Broker):
            broker: Any = pb.PBServerFactory(Root(World(kind, kind))).buildProtocol(None)
            broker = kind(False)
            broker.factory = pb.PBServerFactory(pb.Root())
            broker.setNameForLocal("root", Thing("a"))
            broker.makeConnection(StringTransport())
            broker.dataReceived(stockBytes(b"none", b"none"))
            broker.transport.clear()
            call = [b"message", 1, b"root", b"echo", 1, [b"tuple", [b"None"]], [b"dictionary"]]
            broker.dataReceived(stockBytes(call, b"none"))
            self.assertEqual(
                broker.transport.value(),
                stockBytes(
                    [b"answer", 1, [b"tuple", [b"tuple", [b"None"]], [b"dictionary"]]], b"none"
                ),
            )


class DifferenceTests(EquivalenceTestCase):
    """What pbauth's broker does otherwise, and why."""

    def test_answerThatCantBeRead(self) -> None:
        """It fails the call. With stock the caller waits for ever, and the connection breaks."""

        class Unfinished(pb.Copyable):
            def getTypeToCopyFor(self, perspective: Any) -> bytes:
                return b"tests.Unfinished"

        class Broken(pb.RemoteCopy):
            def setCopyableState(self, state: Any) -> None:
                raise ZeroDivisionError

        pb.setUnjellyableForClass("tests.Unfinished", Broken)
        for made, error in (
            (NobodyKnows, jelly.InsecureJelly),
            (Unfinished, ZeroDivisionError),
        ):
            for later in (False, True):

                def program(world: World) -> None:
                    Root.remote_odd = lambda self: succeed(made()) if later else made()  # noqa: B023
                    world.call(0, "odd")
                    world.call(0, "one", [1])

                self.patch(Root, "remote_odd", None)
                for client, server in PAIRS:
                    world = self.do(program, client, server)
                    if client is Broker:
                        world.came[0][0].trap(error)
                        self.assertEqual(world.came[1:], [[1]])
                    else:
                        self.assertEqual(world.came, [[]])
                        self.assertIs(type(world.raised[0]), error)

    def test_unknownErrors(self) -> None:
        """An error of a class that is not known here is a `RemoteError` by its name."""
        ERRORS["unknown"] = Unknown
        self.addCleanup(ERRORS.pop, "unknown")
        for client, server in PAIRS:
            world = self.do(programOf([(0, "fail", [("value", "unknown")], {})]), client, server)
            if client is Broker:
                world.came[0][0].trap(pb.RemoteError)
                self.assertIn("Unknown", world.came[0][0].value.remoteType)
            else:
                self.assertEqual(world.came, [[]])

    def test_errorThatCantBeRead(self) -> None:
        """It fails the call, too."""

        class Unreadable(pb.Error, pb.Copyable):
            def getTypeToCopyFor(self, perspective: Any) -> bytes:
                return b"tests.Unfinished"

        class Broken(pb.RemoteCopy):
            def setCopyableState(self, state: Any) -> None:
                raise ZeroDivisionError

        pb.setUnjellyableForClass("tests.Unfinished", Broken)
        ERRORS["unreadable"] = Unreadable
        self.addCleanup(ERRORS.pop, "unreadable")
        for client, server in PAIRS:
            world = self.do(programOf([(0, "fail", [("value", "unreadable")], {})]), client, server)
            if client is Broker:
                world.came[0][0].trap(ZeroDivisionError)
            else:
                self.assertEqual(world.came, [[]])

    def test_answerThatCantBeSent(self) -> None:
        """It fails the call. With stock it breaks the connection, or nothing is answered."""
        for odd in (
            1 << 500,
            bytes(700_000),
            "x" * 700_000,
            thatFunction,
            1 << 50_000,
            [thatFunction],
        ):
            for later in (False, True):

                def program(world: World) -> None:
                    Root.remote_odd = lambda self: succeed(odd) if later else odd  # noqa: B023
                    world.call(0, "odd")
                    world.call(0, "one", [1])

                self.patch(Root, "remote_odd", None)
                for client, server in PAIRS:
                    world = self.do(program, client, server)
                    if server is Broker:
                        self.assertIn(
                            world.came[0][0].type,
                            (b"twisted.spread.banana.BananaError", b"builtins.ValueError"),
                        )
                        self.assertEqual(world.came[1:], [[1]])
                    elif later:
                        self.assertEqual(world.came, [[], [1]])
                    else:
                        self.assertTrue(world.transports[1].disconnecting)

    def test_errorThatCantBeSent(self) -> None:
        """It is told by its name. With stock it is as with answers."""
        for odd in (lambda: Plain("x" * 700_000), lambda: ToldError(1 << 500)):
            ERRORS["odd"] = odd
            self.addCleanup(ERRORS.pop, "odd", None)
            for method in ("fail", "failLater"):
                calls = [(0, method, [("value", "odd")], {}), (0, "one", [("value", 1)], {})]  # type: ignore[var-annotated]
                for client, server in PAIRS:
                    world = self.do(programOf(calls), client, server)
                    if server is Broker:
                        error = world.came[0][0]
                        error.trap(pb.Error)
                        self.assertIn(f"{qual(type(odd()))}, an error", error.getErrorMessage())
                        self.assertEqual(world.came[1:], [[1]])
                    elif method == "failLater":
                        self.assertEqual(world.came, [[], [1]])
                    else:
                        self.assertTrue(world.transports[1].disconnecting)

    def test_errorThatIsNone(self) -> None:
        """A peer that answers with an error, and says none, breaks the rules: the call fails."""
        world = World(Broker, Broker)
        world.call(0, "later", [1])
        world.server.sendCall(b"error", world.client.currentRequestID, [b"None"])
        world.pump.flush()
        world.outcomes[0][0].trap(ProtocolViolation)
        world.end()

    def test_coroutines(self) -> None:
        """Methods may be coroutines: they answer as those that return Deferreds."""

        async def later(self: Any, value: Any) -> Any:
            return value

        async def failLater(self: Any, kind: Any) -> Any:
            raise ERRORS[kind]()

        calls: Any = [
            (target, method, [("value", value)], {})
            for target in (0, 1)
            for method, value in [
                ("later", 1),
                ("later", [{}]),
                *(("failLater", e) for e in ERRORS),
            ]
        ]
        plain = [succeed, lambda value: fail(ERRORS[value]())]
        for name, method in (("later", plain[0]), ("failLater", plain[1])):
            self.patch(Root, f"remote_{name}", lambda self, value, method=method: method(value))
            self.patch(Avatar, f"perspective_{name}", vars(Root)[f"remote_{name}"])
        stock = self.do(programOf(calls), pb.Broker, pb.Broker)
        for name, coroutine in (("later", later), ("failLater", failLater)):
            self.patch(Root, f"remote_{name}", coroutine)
            self.patch(Avatar, f"perspective_{name}", coroutine)
        for client in (pb.Broker, Broker):
            ours = self.do(programOf(calls), client, Broker)
            self.assertEqual(ours.told, stock.told)
            self.assertEqual(ours.errors, stock.errors)

    def test_values(self) -> None:
        """Of an error that is known by its name only the value is an exception, not a text."""
        calls: list[Any] = [
            (0, "fail", [("value", "plain")], {}),
            (0, "failLater", [("value", "plain")], {}),
        ]
        for client, server in PAIRS:
            world = self.do(programOf(calls), client, server)
            for (failure,) in world.came:
                expected = pb.RemoteError if client is Broker else str
                self.assertIs(type(failure.value), expected)
                self.assertEqual(str(failure.value), failure.getErrorMessage())
                self.assertEqual(isinstance(failure.value, Exception), client is Broker)

    def test_awaitable(self) -> None:
        """What can be awaited but is no coroutine is an object as any other."""

        class Awaitable(Copy):
            def __await__(self) -> Any:
                yield

        pb.setUnjellyableForClass(Awaitable, Copied)
        for value in (Awaitable(1), Awaitable):

            def program(world: World) -> None:
                Root.remote_odd = lambda self: value  # noqa: B023
                world.call(0, "odd")

            self.patch(Root, "remote_odd", None)
            self.assertAlike(program)

    def test_deeper(self) -> None:
        """Plain values may be deeper than stock's unjelly can read."""
        value: Any = 1
        for _ in range(400):
            value = [value]
        for client, server in PAIRS:
            world = self.do(programOf([(0, "keep", [("value", value)], {})]), client, server)
            if server is Broker and client is Broker:
                self.assertEqual(told(world.kept), told(value))
                self.assertEqual(world.came, [[None]])

    def test_ownObjects(self) -> None:
        """
        Who gets its own object back has it. A stock server lets go of its reference before it
        answers, so that the client does not know the object any more, and gets `None`.
        """

        def program(world: World) -> None:
            Root.remote_odd = lambda self, value: value  # type: ignore[misc]
            thing = Thing("a")
            world.call(0, "odd", [thing])
            world.call(0, "odd", [thing])
            world.pump.flush()
            self.assertEqual(world.client.localObjects, {})
            self.assertEqual(
                world.outcomes, [[thing if type(world.server) is Broker else None]] * 2
            )

        self.patch(Root, "remote_odd", None)
        for pair in PAIRS:
            self.do(program, *pair)

    def test_refusedCalls(self) -> None:
        """
        What came with a call that is refused is let go of. Of a stock server's client the object
        is for ever.
        """

        def program(world: World) -> None:
            world.call(2, "one", [Thing("a")])
            world.pump.flush()
            known = [type(local.object) for local in world.client.localObjects.values()]
            self.assertEqual(known, [] if type(world.server) is Broker else [Thing])

        for pair in PAIRS:
            self.do(program, *pair)

    def test_handsOff(self) -> None:
        """What `serialize` gives is for sending only, and calls get what `unserialize` takes."""
        world = World(Broker, Broker)
        self.assertIs(type(world.client.serialize([1])), Encoded)
        values = ({"a": 1},)
        self.assertIs(world.client.unserialize(values), values)
        world.end()

    def test_securityLater(self) -> None:
        """What may come in is looked at when the broker is made."""
        for kind, kept in ((pb.Broker, None), (Broker, {1})):
            options = without(b"bool")()
            world = World(pb.Broker, kind, (jelly.globalSecurity, options))
            del options.allowedTypes[b"set"]
            world.call(0, "keep", [{1}])
            self.assertEqual(world.kept, kept)
            self.flushLoggedErrors()
            world.end()


def thatFunction() -> None:
    """Functions can't be sent."""
