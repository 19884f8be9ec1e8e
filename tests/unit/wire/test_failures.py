"""Errors that come as failures, from peers of all kinds."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from itertools import product
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.python.failure import Failure
from twisted.spread import jelly, pb
from twisted.test import iosim
from twisted.trial.unittest import SynchronousTestCase

from pbauth import Broker, Unauthorized, WireError
from tests.support.pairs import PairTestCase, Root


class FailureTests(PairTestCase):
    """What a caller gets."""

    def failed(self, error: BaseException) -> Any:
        """Call a method that fails with this."""

        def give() -> Any:
            raise error

        self.root.result = give
        failure = self.failureResultOf(self.call("give"))
        self.flushLoggedErrors()
        return failure

    def test_names(self) -> None:
        """Errors that are no exceptions in the narrow sense arrive under their names, too."""
        for error, name in (
            (SystemExit(3), b"builtins.SystemExit"),
            (KeyboardInterrupt(), b"builtins.KeyboardInterrupt"),
            (GeneratorExit(), b"builtins.GeneratorExit"),
            (CancelledError(), b"twisted.internet.defer.CancelledError"),
            (asyncio.CancelledError("x"), b"asyncio.exceptions.CancelledError"),
            (ValueError("x"), b"builtins.ValueError"),
        ):
            for result in (lambda: fail(error), lambda: self.raises(error)):  # noqa: B023
                self.root.result = result
                failure = self.failureResultOf(self.call("give"))
                self.assertEqual(failure.type, name)
                self.assertTrue(failure.check(type(error)), name)
                self.assertEqual(failure.getErrorMessage(), str(error))
                self.flushLoggedErrors()
            failure = self.failed(error)
            self.assertEqual((failure.type, str(failure.value)), (name, str(error)))

    async def raises(self, error: BaseException) -> None:
        """Raise it."""
        raise error

    def test_value(self) -> None:
        """The value is an exception, which can be raised again, in whatever way."""
        failure = self.failed(ValueError("a text"))
        self.assertIsInstance(failure, pb.CopiedFailure)
        self.assertIsInstance(failure.value, pb.RemoteError)
        self.assertEqual(str(failure.value), "a text")
        self.assertEqual(failure.value.remoteType, "builtins.ValueError")
        self.assertEqual(failure.value.remoteTraceback, "Traceback unavailable\n")
        with self.assertRaises(pb.RemoteError):
            failure.raiseException()
        with self.assertRaises(pb.RemoteError):
            failure.trap(KeyError)
        self.assertIs(failure.trap(KeyError, ValueError), ValueError)
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        future = fail(failure).asFuture(loop)
        with self.assertRaises(pb.RemoteError):
            loop.run_until_complete(future)

    def test_passedOn(self) -> None:
        """A peer's error that is passed on reaches stock clients, whatever the server takes in."""
        failure = self.failed(ValueError("a text"))
        for security in (jelly.globalSecurity, jelly.DummySecurityOptions()):
            for result in (lambda: fail(failure), lambda: self.raises(failure.value)):
                for client in (pb.Broker, Broker):
                    self.connect(client=client, security=security)
                    self.server.readsOurErrors = False
                    self.root.result = result
                    answers: list[Any] = []
                    self.call("give").addBoth(answers.append)
                    self.assertEqual([each.getErrorMessage() for each in answers], ["a text"])
                    if security is jelly.globalSecurity:
                        # By its name, and that of its class's base.
                        self.assertTrue(answers[0].check(Exception))
                    self.flushLoggedErrors()

    def test_awaited(self) -> None:
        """So it is in a coroutine."""

        async def wait() -> str:
            try:
                await self.call("give")
            except pb.RemoteError as error:
                return str(error)
            return ""

        self.root.result = lambda: fail(ValueError("a text"))
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(wait())), "a text")
        self.flushLoggedErrors()

    def test_printed(self) -> None:
        """It can be printed, and logged."""
        failure = self.failed(ValueError("a text"))
        for method in ("printTraceback", "printBriefTraceback", "printDetailedTraceback"):
            file = io.StringIO()
            getattr(failure, method)(file)
            self.assertEqual(
                file.getvalue(), "Traceback from remote host -- builtins.ValueError: a text\n"
            )
        self.assertIn("a text", failure.getTraceback())

    def answered(self, state: list[Any]) -> Any:
        """A call that the server answers with a failure; this is its state as jelly has it."""
        waiting: list[Any] = []
        answer: Deferred[Any] = Deferred()
        answer.addErrback(waiting.append)
        self.client.waitingForAnswers[500] = answer
        self.server.sendCall(b"error", 500, [b"twisted.spread.pb.CopyableFailure", state])
        self.pump.flush()
        (failure,) = waiting
        return failure

    def test_python2(self) -> None:
        """Python 2 sends bytes for names, and for text."""
        for parents in (
            [[b"parents", [b"list", b"exceptions.ValueError", b"exceptions.Exception"]]],
            [],
        ):
            failure = self.answered(
                [
                    b"dictionary",
                    [b"type", b"exceptions.ValueError"],
                    [b"value", b"a t\xc3\xa4xt"],
                    [b"traceback", b"Traceback unavailable\n"],
                    [b"tb", [b"None"]],
                    [b"frames", [b"list"]],
                    [b"stack", [b"list"]],
                    [b"count", 1],
                    *parents,
                ]
            )
            self.assertEqual(failure.type, b"exceptions.ValueError")
            self.assertEqual(failure.getErrorMessage(), "a täxt")
            self.assertTrue(failure.check("exceptions.ValueError"))
            self.assertEqual(bool(failure.check("exceptions.Exception")), bool(parents))
            with self.assertRaises(pb.RemoteError):
                failure.raiseException()

    def test_old(self) -> None:
        """Stock Twisted sends classes among the names; old ones leave things out."""
        for state, kind in (
            ([[[b"unicode", b"type"], b"a.B"]], b"a.B"),
            ([[[b"unicode", b"type"], [b"unicode", b"a.B"]]], b"a.B"),
            (
                [
                    [[b"unicode", b"type"], b"builtins.SystemExit"],
                    [[b"unicode", b"parents"], [b"list", [b"class", b"builtins.SystemExit"]]],
                ],
                b"builtins.SystemExit",
            ),
            ([], b"unknown"),
        ):
            failure = self.answered([b"dictionary", *state])
            self.assertEqual(failure.type, kind)
            self.assertTrue(failure.check(kind.decode()))
            self.assertIsInstance(failure.value, pb.RemoteError)

    def test_nonsense(self) -> None:
        """What is no failure is no failure."""
        for state in ([b"dictionary", 5], [b"dictionary", [5, 5]], [b"list"], 5, []):
            self.assertIsInstance(self.answered(state), Failure)
        self.assertEqual(self.successResultOf(self.call("take", 1)), 1)


class _Own(pb.Error):
    """An application's, which does not cross as itself."""


class _Registered(pb.Error, pb.Copyable, pb.RemoteCopy):
    """An application's, which crosses as itself."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.told = args


class _Holder(pb.Copyable, pb.RemoteCopy):
    """What an error holds."""


pb.setUnjellyableForClass(_Registered, _Registered)
pb.setUnjellyableForClass(_Holder, _Holder)


class _Anything(jelly.SecurityOptions):
    """An application's options, by which all classes may cross."""

    def isClassAllowed(self, klass: type) -> int:
        return 1


def _allowing(made: jelly.SecurityOptions, *types: str) -> jelly.SecurityOptions:
    made.allowTypes(*types)
    return made


#: What a server may have as its options.
OPTIONS: list[Callable[[], Any]] = [
    lambda: jelly.globalSecurity,
    jelly.DummySecurityOptions,
    lambda: _allowing(jelly.SecurityOptions(), "tuple", "dictionary", "remote"),
    lambda: _allowing(_Anything(), *jelly.SecurityOptions.basicTypes, "remote"),
]


class OptionsTests(SynchronousTestCase):
    """Errors reach clients that do not have pbauth, whatever the server's security options."""

    def connect(self, options: Any, kind: type[pb.Broker] = pb.Broker) -> Any:
        """Connect a client to a server with these options, which does not know the client."""
        self.root = Root()
        server = pb.PBServerFactory(self.root, security=options)
        client = pb.PBClientFactory()
        server.protocol, client.protocol = Broker, kind
        broker: Any = server.buildProtocol(None)
        broker.readsOurErrors = False
        _, _, self.pump = iosim.connectedServerAndClient(
            lambda: broker, lambda: client.buildProtocol(None), greet=True
        )
        opening = client.getRootObject()
        self.pump.flush()
        return self.successResultOf(opening)

    def failed(self, reference: Any, result: Any) -> Failure:
        """Call the method, which gives this."""
        self.root.result = result
        answer = reference.callRemote("give")
        self.pump.flush()
        failure = self.failureResultOf(answer)
        self.flushLoggedErrors()
        return failure

    def raising(self, error: BaseException) -> list[Callable[[], Any]]:
        """Return methods that raise an error, in each way."""

        def atOnce() -> Any:
            raise error

        async def later() -> Any:
            raise error

        return [atOnce, later, lambda: fail(error)]

    def test_raised(self) -> None:
        """What the server raises arrives under its name, with its text."""
        for options in OPTIONS:
            for error in (
                ValueError("a text"),
                _Own("a text"),
                pb.Error("a text"),
                pb.RemoteError("a.B", "a text", None),
                pb.NoSuchMethod("a text"),
                pb.DeadReferenceError("a text"),
                jelly.InsecureJelly("a text"),
                Unauthorized("a text"),
            ):
                for result in self.raising(error):
                    failure = self.failed(self.connect(options()), result)
                    self.assertEqual(failure.getErrorMessage(), "a text")
                    self.assertTrue(failure.check(type(error)), (options, error))

    def test_noSuchMethod(self) -> None:
        """So does that there is no such method, or no such object."""
        for options in OPTIONS:
            reference = self.connect(options())
            for call, name in (
                (lambda: reference.callRemote("nothing"), pb.NoSuchMethod),  # noqa: B023
                (lambda: reference.callRemote("give", 1, x=2), Exception),  # noqa: B023
                (
                    lambda: reference.broker.remoteForName("nobody").callRemote("x"),  # noqa: B023
                    pb.Error,
                ),
            ):
                answer = call()
                self.pump.flush()
                self.assertTrue(self.failureResultOf(answer).check(name), options)
                self.flushLoggedErrors()

    def test_nothingAllowed(self) -> None:
        """So does that nothing at all may come in."""
        failure = self.failed(self.connect(jelly.SecurityOptions()), None)
        self.assertTrue(failure.check(jelly.InsecureJelly))

    def test_passedOn(self) -> None:
        """So does an error of the client's, or of another peer's, that a server passes on."""

        class Failing(pb.Referenceable):
            def remote_fail(self) -> Any:
                raise ValueError("a text")

        for options in (*OPTIONS[:2], OPTIONS[3]):
            for kind in (pb.Broker, Broker):
                reference = self.connect(options(), kind)
                self.root.remote_pass = lambda failing: failing.callRemote("fail")  # type: ignore[attr-defined]
                answer = reference.callRemote("pass", Failing())
                self.pump.flush()
                failure = self.failureResultOf(answer)
                self.assertTrue(failure.check(ValueError), (options, kind))
                self.assertEqual(failure.getErrorMessage(), "a text")
                self.flushLoggedErrors()

                async def awaited(failing: Any) -> Any:
                    try:
                        return await failing.callRemote("fail")
                    except pb.RemoteError as error:
                        raise RuntimeError("another") from error

                self.root.remote_pass = awaited  # type: ignore[attr-defined]
                answer = reference.callRemote("pass", Failing())
                self.pump.flush()
                self.assertTrue(self.failureResultOf(answer).check(RuntimeError))
                self.flushLoggedErrors()

    def test_twoHops(self) -> None:
        """So does one that two servers pass on."""
        for options in OPTIONS:
            far = self.connect(options(), Broker)
            farPump, farRoot = self.pump, self.root
            for near in OPTIONS:
                reference = self.connect(near())
                farRoot.result = lambda: fail(_Own("a text"))

                def passOn() -> Any:
                    answer = far.callRemote("give")  # noqa: B023
                    farPump.flush()  # noqa: B023
                    return answer

                failure = self.failed(reference, passOn)
                self.assertTrue(failure.check(_Own))
                self.assertEqual(failure.getErrorMessage(), "a text")

    def test_asItself(self) -> None:
        """One that crosses as itself does so still; one that can't be sent is told by its name."""
        for options in OPTIONS[:2]:
            reference = self.connect(options())
            for result in self.raising(_Registered(1, _Holder())):
                failure = self.failed(reference, result)
                assert failure.check(_Registered)
                self.assertIsInstance(failure.value, _Registered)
                self.assertIsInstance(getattr(failure.value, "told", [0, 0])[1], _Holder)
        for result in self.raising(_Registered(object())):
            failure = self.failed(self.connect(jelly.globalSecurity), result)
            self.assertTrue(failure.check(pb.Error))
            self.assertIn("_Registered, an error that can't be sent", failure.getErrorMessage())

    def test_mistakes(self) -> None:
        """One whose class makes a mistake, or has an endless name, is told by its name."""

        mistakes: list[type[BaseException]] = []

        class Textless(Exception):
            def __str__(self) -> str:
                raise mistakes[0]

        class OwnTextless(WireError):
            def __str__(self) -> str:
                raise mistakes[0]

        class Stateless(pb.Error, pb.Copyable):
            def getStateToCopy(self) -> Any:
                raise mistakes[0]

        class Homeless(Exception):
            pass

        Homeless.__module__ = None  # type: ignore[assignment]

        class Empty(Exception):
            def __bool__(self) -> bool:
                raise ZeroDivisionError

        class ByName(Exception):
            def __init__(self, *, code: int) -> None:
                self.code = code

        endless: Any = type("Endless" * 100_000, (Exception,), {})
        for kind, options in product(
            (ZeroDivisionError, CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit),
            OPTIONS[:2],
        ):
            mistakes[:] = [kind]
            for error in (
                *(Textless(), OwnTextless(), Stateless(), Empty(), ByName(code=1), endless()),
                *(Homeless(), StopAsyncIteration(1), KeyError(b"a"), ValueError(b"\xff")),
            ):
                for result in self.raising(error):
                    failure = self.failed(self.connect(options()), result)
                    told = f"{failure.type} {failure.getErrorMessage()}"
                    self.assertIn(type(error).__name__[:50], told)

    def test_explicit(self) -> None:
        """One whose class both ends have allowed by its name crosses as itself, as with Twisted."""
        options = jelly.SecurityOptions()
        options.allowInstancesOf(_Own)
        reference = self.connect(options)
        reference.broker.security = options
        for result in self.raising(_Own("a text")):
            self.assertIs(type(self.failed(reference, result).value), _Own)

    def test_noError(self) -> None:
        """What is no error, such as the text that stock Twisted passes on, can be raised."""
        for sent, text in (
            ([b"unicode", b"x"], "x"),
            (5, "builtins.int, which is no error"),
            ([b"list", 1], "builtins.list, which is no error"),
            ([b"remote", 5], "twisted.spread.pb.RemoteReference, which is no error"),
        ):
            reference = self.connect(jelly.globalSecurity, Broker)
            client = reference.broker
            answer: Deferred[Any] = Deferred()
            client.waitingForAnswers[500] = answer
            client.proto_error(500, sent)
            failure = self.failureResultOf(answer)
            with self.assertRaises(pb.RemoteError):
                failure.raiseException()
            self.assertIn(text, failure.getErrorMessage())


class KeywordTests(PairTestCase):
    """Names of arguments that come as bytes, as from Python 2."""

    def test_everyObject(self) -> None:
        """They work for objects of all kinds, and with all kinds of values."""

        class Board(pb.Viewable):
            def view_take(self, perspective: Any, **kw: Any) -> Any:
                return sorted(kw)

        class Thing(pb.Referenceable):
            def remote_take(self, **kw: Any) -> Any:
                return sorted(kw)

        class Player(pb.Avatar):
            def perspective_take(self, **kw: Any) -> Any:
                return sorted(kw)

        for kind in (Board, Thing, lambda: pb.AsReferenceable(Player(), "perspective")):
            self.root.result = kind
            given = self.successResultOf(self.call("give"))
            for value in ([b"unicode", b"x"], [b"local", b"root"], [b"reference", 1, [b"list"]]):
                answer: Deferred[Any] = Deferred()
                self.client.waitingForAnswers[500] = answer
                keywords = [b"dictionary", [b"a", value], [[b"unicode", b"b"], 1]]
                self.client.sendCall(
                    b"message", 500, given.luid, b"take", 1, jelly.jelly(()), keywords
                )
                self.pump.flush()
                self.assertEqual(self.successResultOf(answer), ["a", "b"])
