"""Coroutines, events that happen once, and operations that callers share."""

from __future__ import annotations

import gc
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pbauth._async import OneShot, SingleFlight, run, settled


class SettledTests(SynchronousTestCase):
    """Plain values, Deferreds and coroutines are all the same to who waits."""

    def test_values(self) -> None:
        """Each comes to its value."""

        async def coroutine() -> int:
            return 3

        async def all_() -> list[Any]:
            return [await settled(1), await settled(succeed(2)), await settled(coroutine())]

        self.assertEqual(run(all_()), [1, 2, 3])


class RunTests(SynchronousTestCase):
    """`run`."""

    def setUp(self) -> None:
        self.first: Deferred[int] = Deferred()
        self.second: Deferred[int] = Deferred()
        self.steps: list[Any] = []

    async def wait(self) -> str:
        """Wait twice; what fails is noted."""
        for deferred in (self.first, self.second):
            try:
                self.steps.append(await deferred)
            except ZeroDivisionError:
                self.steps.append("failed")
        return "done"

    def test_atOnce(self) -> None:
        """Where nothing has to be waited for, the result is given, or the error raised."""

        async def good() -> int:
            return await succeed(1) + 1

        async def bad() -> None:
            await fail(ZeroDivisionError())

        self.assertEqual(run(good()), 2)
        with self.assertRaises(ZeroDivisionError):
            run(bad())

    def test_later(self) -> None:
        """Otherwise there is a Deferred, and each wait ends in its value or its error."""
        result: Any = run(self.wait())
        self.assertNoResult(result)
        self.first.callback(1)
        self.assertNoResult(result)
        self.second.errback(ZeroDivisionError())
        self.assertEqual(self.successResultOf(result), "done")
        self.assertEqual(self.steps, [1, "failed"])

    def test_laterError(self) -> None:
        """What it raises later, the Deferred fails with."""

        async def bad() -> None:
            await self.first
            raise KeyError("late")

        result: Any = run(bad())
        self.first.callback(1)
        self.failureResultOf(result, KeyError)

    def test_failureThatIsNotCaught(self) -> None:
        """So it does with what was waited for in vain, and nothing is left unhandled."""

        async def plain() -> int:
            return await self.first

        result: Any = run(plain())
        self.first.errback(ValueError("vain"))
        self.failureResultOf(result, ValueError)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_cancel(self) -> None:
        """Cancelling it cancels what it waits for, and it may clean up."""

        async def cleanUp() -> None:
            try:
                await self.first
            finally:
                self.steps.append("cleaned")

        result: Any = run(cleanUp())
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.assertEqual(self.steps, ["cleaned"])

    def test_collected(self) -> None:
        """
        One that the garbage collector has closed is not resumed by what is collected after it.
        """

        class Fires:
            """Fires a Deferred when it is collected."""

            def __init__(self, deferred: Deferred[Any]) -> None:
                self.deferred = deferred

            def __del__(self) -> None:
                self.deferred.callback(None)
                fired.append(True)

        async def wait(deferred: Deferred[Any]) -> None:
            # Older than what goes on with the coroutine, so that it is collected before that.
            vars(deferred)["fires"] = Fires(deferred)
            try:
                await deferred
            finally:
                self.steps.append("closed")

        def leave() -> None:
            """Make garbage: all of it in one cycle."""
            deferred: Deferred[Any] = Deferred()
            vars(deferred)["running"] = run(wait(deferred))

        fired: list[bool] = []
        gc.collect()
        leave()
        gc.collect()
        gc.collect()
        self.assertEqual((self.steps, fired), (["closed"], [True]))
        self.assertEqual(self.flushLoggedErrors(), [])


class OneShotTests(SynchronousTestCase):
    """`OneShot`."""

    def setUp(self) -> None:
        self.event = OneShot()

    def test_fired(self) -> None:
        """Whoever waits is told, before and after; what comes later does not count."""
        early = self.event.wait()
        self.assertNoResult(early)
        self.assertFalse(self.event.fired)
        self.event.fire()
        self.assertTrue(self.event.fired)
        self.successResultOf(early)
        self.event.fail(Failure(ValueError()))
        self.event.fire()
        self.assertTrue(self.event.fired)
        self.successResultOf(self.event.wait())

    def test_failed(self) -> None:
        """So they are if it never will happen."""
        early = [self.event.wait(), self.event.wait()]
        self.event.fail(Failure(ValueError()))
        self.event.fire()
        self.assertFalse(self.event.fired)
        for waiter in (*early, self.event.wait()):
            self.failureResultOf(waiter, ValueError)

    def test_cancelled(self) -> None:
        """Whoever gives up waiting is forgotten; the others are not."""
        waiters = [self.event.wait(), self.event.wait()]
        waiters[0].cancel()
        self.failureResultOf(waiters[0], CancelledError)
        self.event.fire()
        self.successResultOf(waiters[1])

    def test_cancelledInBetween(self) -> None:
        """Whoever is told may cancel others, and no others are passed over."""
        waiters: list[Any] = [self.event.wait() for _ in range(4)]
        waiters[0].addCallback(lambda _: waiters[1].cancel())
        self.event.fire()
        self.failureResultOf(waiters[1], CancelledError)
        for waiter in waiters[2:]:
            self.successResultOf(waiter)

    def test_waitedForInBetween(self) -> None:
        """Whoever is told may wait again, and is told at once."""
        told: list[str] = []
        self.event.wait().addCallback(
            lambda _: self.event.wait().addCallback(lambda _: told.append("again"))
        )
        self.event.fire()
        self.assertEqual(told, ["again"])


class SingleFlightTests(SynchronousTestCase):
    """`SingleFlight`."""

    def setUp(self) -> None:
        self.running: list[tuple[tuple[Any, ...], Deferred[Any]]] = []
        self.cancelled: list[Any] = []
        self.flight: SingleFlight[Any] = SingleFlight(self.operate)

    def operate(self, *arguments: Any) -> Deferred[Any]:
        """What is run."""
        operation: Deferred[Any] = Deferred(lambda _: self.cancelled.append(arguments))
        self.running.append((arguments, operation))
        return operation

    def test_shared(self) -> None:
        """All who ask while it is under way get its result; who asks then, another one."""
        waiters = [self.flight.run("a"), self.flight.run("a")]
        ((_, operation),) = self.running
        for waiter in waiters:
            self.assertNoResult(waiter)
        operation.callback(5)
        self.assertEqual([self.successResultOf(waiter) for waiter in waiters], [5, 5])
        self.assertNoResult(self.flight.run("a"))
        self.assertEqual(len(self.running), 2)

    def test_arguments(self) -> None:
        """With other arguments it is another one."""
        waiters = [self.flight.run("a"), self.flight.run("b"), self.flight.run("a", 1)]
        for number, (_, operation) in enumerate(self.running):
            operation.callback(number)
        self.assertEqual([self.successResultOf(waiter) for waiter in waiters], [0, 1, 2])

    def test_fails(self) -> None:
        """All get its error, even if there is one at once; nothing is left unhandled."""
        waiters = [self.flight.run(), self.flight.run()]
        self.running[0][1].errback(ValueError())
        for waiter in waiters:
            self.failureResultOf(waiter, ValueError)

        def wrong() -> None:
            raise KeyError

        self.failureResultOf(SingleFlight[None](wrong).run(), KeyError)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_atOnce(self) -> None:
        """A value, and a coroutine that does not wait, are there at once."""

        async def operate() -> int:
            return 3

        for operation in (operate, lambda: 3, lambda: succeed(3)):
            self.assertEqual(self.successResultOf(SingleFlight[int](operation).run()), 3)

    def test_oneCancels(self) -> None:
        """Who cancels does not disturb the others."""
        first, second = self.flight.run(), self.flight.run()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertEqual(self.cancelled, [])
        self.running[0][1].callback(5)
        self.assertEqual(self.successResultOf(second), 5)

    def test_allCancel(self) -> None:
        """When all have cancelled, the operation is; and who asks then, starts another one."""
        waiters = [self.flight.run(), self.flight.run()]
        for waiter in waiters:
            waiter.cancel()
            self.failureResultOf(waiter, CancelledError)
        self.assertEqual(self.cancelled, [()])
        again = self.flight.run()
        self.running[1][1].callback(5)
        self.assertEqual(self.successResultOf(again), 5)

    def test_cancel(self) -> None:
        """The owner may cancel what is under way."""
        self.flight.cancel()
        waiters = [self.flight.run("a"), self.flight.run("a"), self.flight.run("b")]
        self.flight.cancel()
        for waiter in waiters:
            self.failureResultOf(waiter, CancelledError)
        self.assertEqual(self.cancelled, [("a",), ("b",)])

    def test_cancelInBetween(self) -> None:
        """Who is told may cancel those that are told after it."""
        waiters: list[Any] = [self.flight.run() for _ in range(3)]
        waiters[0].addCallback(lambda _: waiters[1].cancel())
        operation = self.running[0][1]
        operation.callback(5)
        self.assertIsNone(self.successResultOf(waiters[0]))
        self.failureResultOf(waiters[1], CancelledError)
        self.assertEqual(self.successResultOf(waiters[2]), 5)
        self.assertIsNone(self.successResultOf(operation))
        self.assertEqual(self.cancelled, [])
