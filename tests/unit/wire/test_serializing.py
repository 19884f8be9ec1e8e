"""What can't be serialised, and what becomes of references when it is tried."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import enum
import uuid
from functools import partial
from typing import Any
from unittest.mock import Mock

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from twisted.spread import jelly, pb

from pbauth import AuthServerFactory, Broker, Policy
from pbauth.errors import NotSerializable, TooManyReferences
from pbauth.testing import MemoryServer
from pbauth.wire.revocation import RevokedObject
from tests.support.pairs import PairTestCase


class Colour(enum.Enum):
    RED = 1


class Number(enum.IntEnum):
    ONE = 1


class Text(str):
    __slots__ = ()


Point = collections.namedtuple("Point", "x y")


@dataclasses.dataclass
class Job:
    name: str


@attrs.frozen
class Task:
    name: str


async def coroutine() -> None:
    """Never awaited."""


class Copied(pb.Copyable, pb.RemoteCopy):
    """A copy of what it holds."""

    def __init__(self, jobs: Any) -> None:
        self.jobs = jobs


pb.setUnjellyableForClass(Copied, Copied)


class Cache(pb.Cacheable):
    """A copy that is kept up to date."""

    def __init__(self, state: Any) -> None:
        self.state = state
        self.observers: list[Any] = []

    def getStateToCacheAndObserveFor(self, perspective: Any, observer: Any) -> Any:
        self.observers.append(observer)
        return {"state": self.state}

    def stoppedObserving(self, perspective: Any, observer: Any) -> None:
        self.observers.remove(observer)


pb.setUnjellyableForClass(Cache, pb.RemoteCache)


class Thing(pb.Referenceable):
    """Something to refer to."""


class Breaking(pb.Copyable):
    """Raises an error of the application when it is copied."""

    def __init__(self, mistake: type[BaseException] = ZeroDivisionError) -> None:
        self.mistake = mistake

    def getStateToCopy(self) -> Any:
        raise self.mistake


class Unreadable(pb.Copyable, pb.RemoteCopy):
    """Raises an error of the application when a copy is made of it."""

    def __init__(self, mistake: str) -> None:
        self.mistake = mistake

    def setCopyableState(self, state: Any) -> None:
        raise {"mistake": ZeroDivisionError, "exit": SystemExit}[state["mistake"]]


pb.setUnjellyableForClass(Unreadable, Unreadable)


class _Raising(Broker):
    """A broker of an application, which raises once it has serialised something."""

    left = 1000
    raised = False

    def serialize(self, object: Any, *args: Any, **kw: Any) -> Any:
        made = super().serialize(object, *args, **kw)
        kind = type(self)
        kind.left -= 1
        if kind.left < 0:
            kind.left, kind.raised = 1000, True
            raise ZeroDivisionError
        return made


class SerializingTests(PairTestCase):
    """`NotSerializable`."""

    def refused(self, value: Any) -> NotSerializable:
        """A call with this fails before anything is sent; give the error."""
        error: Any = self.failureResultOf(self.call("take", value)).value
        self.assertIs(type(error), NotSerializable)
        self.assertNothingLeft()
        return error

    def test_kinds(self) -> None:
        """What it is, and what to do about it."""
        waiting = coroutine()
        self.addCleanup(waiting.close)
        for value, text in (
            (Colour.RED, "Enum Colour; make it a str, or Copyable"),
            (Number.ONE, "Enum Number; make it a str, or Copyable"),
            (Job("a"), "dataclass Job; make it a dict, or Copyable"),
            (Task("a"), "attrs class Task; make it a dict, or Copyable"),
            (Point(1, 2), "namedtuple Point; make it a tuple, or Copyable"),
            (uuid.UUID(int=0), "UUID; make it a str, or Copyable"),
            (bytearray(b"a"), "bytearray; make it bytes"),
            (memoryview(b"a"), "memoryview; make it bytes"),
            (waiting, "coroutine; await it"),
            (Deferred(), "Deferred; wait for it"),
            (Text("a"), "Text; make it a str"),
            (collections.OrderedDict(), "OrderedDict; make it a dict"),
            (ValueError("a"), "ValueError; raise it, or make it a str"),
            (coroutine, "function coroutine; make it a method of a Referenceable"),
            (1j, "complex; make it a str, or Copyable"),
        ):
            error = self.refused([value])
            self.assertEqual(str(error), f"args[0][0]: {text}")
            self.assertEqual(error.path, "args[0][0]")
            self.assertEqual(error.kind, text.split(";")[0])

    def test_paths(self) -> None:
        """Where it is."""
        red = Colour.RED
        for value, path in (
            (red, ""),
            ({"jobs": [1, 2, 3, red]}, "['jobs'][3]"),
            ((1, {5: {b"a": red}}), "[1][5][b'a']"),
            ({red: 1}, " (a key)"),
            ([{red}], "[0] (an item)"),
            ([frozenset([red])], "[0] (an item)"),
            (Copied([Copied({"a": red})]), ".jobs[0].jobs['a']"),
            (Cache([red]), ".state[0]"),
            ({"x" * 500: red}, "['xxxxxxxxxxxx...xxxxxxxxxxxxx']"),
        ):
            self.assertEqual(self.refused(value).path, f"args[0]{path}")

    def test_arguments(self) -> None:
        """A call whose arguments can't be sent fails as a Deferred, and is not made."""
        failure = self.failureResultOf(self.call("take", 1, jobs=[Colour.RED]), NotSerializable)
        self.assertEqual(failure.value.path, "kw['jobs'][0]")
        self.assertNothingLeft()
        for value in (1 << 500, bytes(700_000), "\ud800", Breaking(), Breaking(SystemExit)):
            for arguments in ((Thing(), value), (value, Thing())):
                self.failureResultOf(self.call("take", *arguments))
                self.failureResultOf(self.call("take", Thing(), value=value))
                self.failureResultOf(self.call("take", Cache(1), [value]))
                self.assertNothingLeft()

    def test_unanswered(self) -> None:
        """So does one that no answer is wanted to."""
        self.failureResultOf(self.call("take", Colour.RED, pbanswer=False), NotSerializable)
        self.assertIsNone(self.call("take", 1, pbanswer=False))

    def test_names(self) -> None:
        """So does one of a method whose name can't be sent."""
        self.failureResultOf(self.call("x" * 700_000, Thing()))
        self.assertNothingLeft()

    def test_results(self) -> None:
        """A result that can't be sent is logged at this end, and told at the other."""
        red = Colour.RED
        for result in (
            {"jobs": [1, 2, 3, red]},
            lambda: succeed({"jobs": [1, 2, 3, red]}),
            lambda: Deferred.fromCoroutine(self.later({"jobs": [1, 2, 3, red]})),
        ):
            self.root.result = result
            failure = self.failureResultOf(self.call("give"))
            text = "result['jobs'][3]: Enum Colour; make it a str, or Copyable"
            self.assertEqual(failure.type, b"pbauth.errors.NotSerializable")
            self.assertEqual(failure.getErrorMessage(), text)
            (logged,) = self.flushLoggedErrors()
            self.assertEqual(logged.getErrorMessage(), text)
            self.assertNothingLeft()

    def test_unreadable(self) -> None:
        """A result of which the client can make nothing fails the call, and no other."""
        for mistake, kind in (("mistake", ZeroDivisionError), ("exit", SystemExit)):
            self.root.result = Unreadable(mistake)
            self.failureResultOf(self.call("give"), kind)
            self.root.result = "plain"
            self.assertEqual(self.successResultOf(self.call("give")), "plain")
            self.flushLoggedErrors()

    async def later(self, result: Any) -> Any:
        """Give it."""
        return result

    def test_nothingLeft(self) -> None:
        """Of results that fail half-way no references stay, whatever the failure."""
        cache = Cache([Thing(), Colour.RED])
        for result in (
            [Thing(), Thing(), Colour.RED],
            (Thing(), {"a": Breaking()}),
            lambda: succeed([Thing(), Copied(Thing()), bytes(700_000)]),
            [Copied([Thing(), 1 << 500])],
            [Thing(), "\ud800"],
            [Cache(Thing()), Colour.RED],
            cache,
        ):
            self.root.result = result
            self.failureResultOf(self.call("give"))
            self.flushLoggedErrors()
            self.assertNothingLeft()
        self.assertEqual(cache.observers, [])

    def test_otherBrokers(self) -> None:
        """So it is with a broker of an application, which is given expressions."""

        class Own(Broker):
            def serialize(self, object: Any, *args: Any, **kw: Any) -> Any:
                return super().serialize(object, *args, **kw)

        self.connect(Own)
        for result in ([Thing(), Colour.RED], [Thing(), 1 << 500], [Cache(1), bytes(700_000)]):
            self.root.result = result
            self.failureResultOf(self.call("give"))
            self.failureResultOf(self.call("take", result))
            self.flushLoggedErrors()
            self.assertNothingLeft()

    def test_brokersThatRaise(self) -> None:
        """So it is where the application's broker raises, whatever it has given before."""
        for dialects in ([b"pb", b"none"], [b"none"]):
            kind: Any = type("Raising", (_Raising,), {"knownDialects": dialects})
            for value in (Thing(), [Cache(1), Thing()]):
                for later in (lambda value: value, succeed, self.later):
                    # Arguments, keyword arguments, and twice the result, if it is a Deferred.
                    for moment in range(4):
                        self.connect(kind)
                        self.root.result = partial(later, value)
                        calls = [partial(self.call, "give")]
                        if moment < 2:
                            calls.append(partial(self.call, "take", value, jobs=value))
                        for call in calls:
                            kind.left, kind.raised = moment, False
                            held = call()
                            if kind.raised:
                                self.failureResultOf(held)
                            del held
                            kind.left = 1000
                            self.pump.flush()
                            self.flushLoggedErrors()
                            with self.subTest(dialects=dialects, moment=moment, value=value):
                                if kind.raised:
                                    self.assertNothingLeft()

    def test_callbacksWhileSerializing(self) -> None:
        """What fails meanwhile takes back nothing but its own references."""
        waiting: Deferred[Any] = Deferred()

        class Firing(pb.Copyable):
            def getStateToCopy(self) -> Any:
                waiting.errback(pb.Error("late"))
                return {}

        class Own(Broker):
            def serialize(self, object: Any, *args: Any, **kw: Any) -> Any:
                return super().serialize(object, *args, **kw)

        pb.setUnjellyableForClass(Firing, Copied)
        self.connect(Own)
        self.root.result = waiting
        late = self.call("give")
        thing = Thing()
        self.root.result = [thing, Firing()]
        self.successResultOf(self.call("give"))
        self.failureResultOf(late)
        self.assertIn(thing.processUniqueID(), self.server.luids)

    def test_answersWhileSerializing(self) -> None:
        """What is answered meanwhile is not taken back with what can't be sent."""

        class Own(Broker):
            def serialize(self, object: Any, *args: Any, **kw: Any) -> Any:
                return super().serialize(object, *args, **kw)

        for kind in (Broker, Own):
            self.connect(kind)
            session = Mock(ended=False, live=True)
            session.watch = lambda result, others=(): result
            for broker in (self.server, self.server.exportingFor(session)):
                waiting: Deferred[Any] = Deferred()
                thing = Thing()
                answer = broker.serialize(waiting)

                class Firing(pb.Copyable):
                    def getStateToCopy(self) -> Any:
                        waiting.callback([thing])  # noqa: B023
                        return {}

                self.assertRaises(NotSerializable, broker.serialize, [Firing(), Colour.RED])
                self.successResultOf(answer)
                self.assertIn(thing.processUniqueID(), self.server.luids)

    def test_heldBefore(self) -> None:
        """What the peer held before, it holds after."""
        thing, cache = Thing(), Cache(1)
        self.root.result = lambda: [thing, cache]
        held = self.successResultOf(self.call("give"))
        before = {**self.server.luids}
        for _ in range(2):
            self.root.result = lambda: [thing, Thing(), cache, Colour.RED]
            self.failureResultOf(self.call("give"))
            self.flushLoggedErrors()
        self.assertEqual(self.server.luids, before)
        self.assertEqual([local.refcount for local in self.server.localObjects.values()][1:], [1])
        self.assertEqual(len(cache.observers), 1)
        (local,) = self.server.remotelyCachedObjects.values()
        self.assertEqual(local.refcount, 1)
        del held

    def test_exports(self) -> None:
        """What was taken back belongs to no session, and what a session holds stays its own."""
        one, other, thing = Mock(ended=False), Mock(ended=False), Thing()
        ofOne, ofOther = self.server.exportingFor(one), self.server.exportingFor(other)
        self.assertRaises(NotSerializable, ofOne.serialize, [Thing(), Cache(1), Colour.RED])
        # These get the same numbers.
        self.server.serialize([Thing(), Cache(1)])
        ofOne.serialize(thing)
        self.assertRaises(NotSerializable, ofOther.serialize, [thing, Colour.RED])
        self.server.revoke(one)
        kinds = [type(local.object) for local in self.server.localObjects.values()][1:]
        self.assertEqual(kinds, [Thing, RevokedObject])
        (local,) = self.server.remotelyCachedObjects.values()
        self.assertIs(type(local.object), Cache)

    def test_stoppedObserving(self) -> None:
        """An application's mistake there is logged, and nothing else."""

        class Wrong(Cache):
            def stoppedObserving(self, perspective: Any, observer: Any) -> None:
                raise ZeroDivisionError

        self.failureResultOf(self.call("take", Wrong(Colour.RED)), NotSerializable)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertNothingLeft()

    def test_stock(self) -> None:
        """A switch gives Twisted's behaviour: it arrives as an `Unpersistable`."""
        self.connect(type("Stock", (Broker,), {"stockSerialization": True}))
        self.root.result = [Colour.RED]
        (arrived,) = self.successResultOf(self.call("give"))
        self.assertIsInstance(arrived, jelly.Unpersistable)

    def test_whatJellyCan(self) -> None:
        """All that jelly can send is sent."""
        day = datetime.datetime(2026, 1, 2, 3, 4, 5)
        self.root.result = [day, day.date(), day.time(), datetime.timedelta(1)]
        self.assertEqual(self.successResultOf(self.call("give")), self.root.result)
        shared = [1]
        self.root.result = [shared, shared]
        one, other = self.successResultOf(self.call("give"))
        self.assertIs(one, other)


class LimitTests(PairTestCase):
    """`TooManyReferences`."""

    def test_results(self) -> None:
        """The call that meets the limit fails, says so, and takes nothing; others go on."""
        self.server.factory.maxReferences = 10
        self.root.result = lambda: [Thing() for _ in range(7)]
        held = self.successResultOf(self.call("give"))
        for _ in range(5):
            failure = self.failureResultOf(self.call("give"))
            self.assertIn("The call of 'give' would give away more", failure.getErrorMessage())
            self.assertEqual(len(self.server.luids), 7)
        self.root.result = Thing
        held.append(self.successResultOf(self.call("give")))
        del held
        self.pump.flush()
        self.root.result = lambda: succeed([Thing() for _ in range(10)])
        self.assertEqual(len(self.successResultOf(self.call("give"))), 10)

    def test_arguments(self) -> None:
        """So it is with arguments, and at the other end."""
        self.client.factory.maxReferences = 2
        failure = self.failureResultOf(self.call("take", Thing(), Thing(), Thing()))
        failure.trap(TooManyReferences)
        self.assertEqual((failure.value.call, failure.value.limit), ("take", 2))
        self.assertNothingLeft()

    def test_caches(self) -> None:
        """And with copies that are kept up to date."""
        self.server.factory.maxReferences = 2
        caches = [Cache(1) for _ in range(3)]
        self.root.result = lambda: caches
        self.assertIn("'give'", self.failureResultOf(self.call("give")).getErrorMessage())
        self.assertEqual([cache.observers for cache in caches], [[], [], []])
        self.assertNothingLeft()

    def test_policy(self) -> None:
        """A server takes it from its policy."""
        memory = MemoryServer()
        factory = AuthServerFactory(memory.authorizer, Policy(maxReferences=3), memory.clock)
        broker: Any = factory.buildProtocol(None)
        self.assertEqual([broker.registerReference(Thing()) for _ in range(3)], [1, 2, 3])
        self.assertRaises(TooManyReferences, broker.registerReference, Thing())

    def test_default(self) -> None:
        """It is Twisted's, unless somebody says something else."""
        self.root.result = lambda: [Thing() for _ in range(1025)]
        error = self.failureResultOf(self.call("give"))
        self.assertIn("1024", error.getErrorMessage())
        self.root.result = lambda: [Thing() for _ in range(1024)]
        self.assertEqual(len(self.successResultOf(self.call("give"))), 1024)
        self.assertIsInstance(error, Failure)
