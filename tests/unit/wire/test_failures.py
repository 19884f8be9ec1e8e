"""Errors that come as failures, from peers of all kinds."""

from __future__ import annotations

import asyncio
import io
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.python.failure import Failure
from twisted.spread import jelly, pb

from pbauth import Broker
from tests.support.pairs import PairTestCase


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
