"""How passwords become verifiers, and where."""

from __future__ import annotations

import threading
from typing import Any

import attrs
from twisted.cred.credentials import UsernamePassword
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from pbauth import DefaultAuthorizer, Hashing, IdentityChecker, Password, Unauthorized
from pbauth.accounts.hashing import QUICK_ITERATIONS, Derivations
from tests.support.processes import run


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
        done = Derivations().run(10**7, threading.get_ident)
        self.assertEqual(self.successResultOf(done), threading.get_ident())

    def test_failure(self) -> None:
        """What the work raises fails the Deferred."""
        self.failureResultOf(Derivations().run(1, lambda: 1 / 0), ZeroDivisionError)


class FakeReactor:
    """
    A reactor whose threads are this one.

    Attributes:
        asked: how often it was asked for a thread.
    """

    def __init__(self, running: bool = True) -> None:
        self.running = running
        self.asked = 0

    def getThreadPool(self) -> Any:
        self.asked += 1
        return self

    def callInThreadWithCallback(self, onResult: Any, function: Any, *arguments: Any) -> None:
        onResult(True, function(*arguments))

    def callFromThread(self, function: Any, *arguments: Any) -> None:
        function(*arguments)


#: Makes an account, and only then chooses its reactor.
CHOOSES_LATER = """
import asyncio, sys, threading
from pbauth import DefaultAuthorizer, Hashing

authorizer = DefaultAuthorizer(hashing=Hashing(5000))
identity = authorizer.createIdentity("alice")
assert identity.setPassword("secret").called
identity.save()
assert "twisted.internet.reactor" not in sys.modules, "a reactor was installed"

from twisted.internet import asyncioreactor
asyncioreactor.install(asyncio.new_event_loop())
from twisted.internet import reactor

def begin():
    checking = identity.verifyPlainPassword("secret")
    assert not checking.called, "it was not done in a thread"
    checking.addBoth(print).addBoth(lambda ignored: reactor.stop())

reactor.callWhenRunning(begin)
reactor.run()
"""


class NoReactorTests(TestCase):
    """A program that has not chosen its reactor yet."""

    async def test_choosesLater(self) -> None:
        """Nothing is installed, and what is installed later is used."""
        ran = await run("-c", CHOOSES_LATER)
        self.assertEqual((ran.exitCode, ran.output.strip()), (0, "None"), ran.output)


class RunningReactorTests(TestCase):
    """While a reactor runs."""

    async def test_threads(self) -> None:
        """Much work is done in another thread, little at once."""
        here = await self.running()
        self.assertNotEqual(await Derivations().run(10**6, threading.get_ident), here)
        quick = Derivations().run(QUICK_ITERATIONS, threading.get_ident)
        self.assertEqual(self.successResultOf(quick), here)

    async def test_handedIn(self) -> None:
        """The reactor that is handed in provides the thread; one that does not run does not."""
        here = await self.running()
        derivations = Derivations(FakeReactor())
        done = derivations.run(10**6, threading.get_ident)
        self.assertEqual(self.successResultOf(done), here)
        self.assertEqual(derivations.reactor.asked, 1)
        for reactor in (FakeReactor(running=False), Clock()):
            done = Derivations(reactor).run(10**6, threading.get_ident)
            self.assertEqual(self.successResultOf(done), here)

    async def test_everyUser(self) -> None:
        """Accounts and credentials use the reactor that they were given."""
        await self.running()
        reactor: Any = FakeReactor()
        authorizer = DefaultAuthorizer(hashing=Hashing(5000), reactor=reactor)
        identity = authorizer.createIdentity("alice")
        identity.setPassword("secret")
        identity.save()
        self.successResultOf(identity.verifyPlainPassword("secret"))
        self.assertEqual(reactor.asked, 2)
        checker = IdentityChecker(authorizer)
        wrong = checker.requestAvatarId(UsernamePassword(b"nobody", b"secret"))
        self.failureResultOf(wrong, Unauthorized)
        self.assertEqual(reactor.asked, 3)
        self.successResultOf(Password("secret", reactor=reactor).keysFor(bytes(16), 5000))
        self.assertEqual(reactor.asked, 4)

    async def test_fromAThread(self) -> None:
        """In a thread of the application's own it is done right there."""
        await self.running()

        def inThread() -> bool:
            done = Derivations().run(10**6, threading.get_ident)
            return bool(done.result == threading.get_ident())

        self.assertTrue(await deferToThread(inThread))

    async def running(self) -> int:
        """Wait until the reactor runs, and give the number of its thread."""
        from twisted.internet import reactor
        from twisted.internet.task import deferLater

        await deferLater(reactor, 0, lambda: None)
        return threading.get_ident()
