"""Coroutines that are run without a Deferred, until they have to wait."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from pbauth._async import run, settled


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
