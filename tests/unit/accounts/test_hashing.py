"""How passwords become verifiers, and where."""

from __future__ import annotations

import threading

import attrs
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from pbauth import Hashing
from pbauth.accounts.hashing import QUICK_ITERATIONS, runDerivation


class HashingTests(SynchronousTestCase):
    """A value with safe defaults and bounds."""

    def test_defaults(self) -> None:
        """The values of the contract."""
        self.assertEqual(
            attrs.asdict(Hashing()), {"iterations": 600_000, "saltBytes": 16, "md5": False}
        )
        self.assertEqual(Hashing.CHEAPEST, Hashing(iterations=4096))

    def test_immutable(self) -> None:
        """A hashing does not change under those who use it."""
        with self.assertRaises(attrs.exceptions.FrozenInstanceError):
            Hashing().iterations = 1  # type: ignore[misc]

    def test_bounds(self) -> None:
        """What clients would refuse can't be asked for."""
        for options in (
            {"iterations": 4095},
            {"iterations": 10_000_001},
            {"saltBytes": 11},
            {"saltBytes": 65},
        ):
            with self.assertRaises(ValueError):
                Hashing(**options)

    def test_withoutReactor(self) -> None:
        """Where no reactor runs, the work is done at once, however much it is."""
        done = runDerivation(10**7, threading.get_ident)
        self.assertEqual(self.successResultOf(done), threading.get_ident())

    def test_failure(self) -> None:
        """What the work raises fails the Deferred."""
        self.failureResultOf(runDerivation(1, lambda: 1 / 0), ZeroDivisionError)


class RunningReactorTests(TestCase):
    """While a reactor runs."""

    async def test_threads(self) -> None:
        """Much work is done in another thread, little at once."""
        here = await self.running()
        self.assertNotEqual(await runDerivation(10**6, threading.get_ident), here)
        quick = runDerivation(QUICK_ITERATIONS, threading.get_ident)
        self.assertEqual(self.successResultOf(quick), here)

    async def test_fromAThread(self) -> None:
        """In a thread of the application's own it is done right there."""
        await self.running()

        def inThread() -> bool:
            done = runDerivation(10**6, threading.get_ident)
            return bool(done.result == threading.get_ident())

        self.assertTrue(await deferToThread(inThread))

    async def running(self) -> int:
        """Wait until the reactor runs, and give the number of its thread."""
        from twisted.internet import reactor
        from twisted.internet.task import deferLater

        await deferLater(reactor, 0, lambda: None)
        return threading.get_ident()
