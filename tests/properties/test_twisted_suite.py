"""
Twisted's own tests of Perspective Broker, with pbauth's broker and banana in the place of
Twisted's: each of them is a test here, by its own name.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any
from unittest import TestCase

from twisted.internet import reactor
from twisted.spread import banana, pb
from twisted.spread.test import test_banana, test_jelly, test_pb, test_pbfailure
from twisted.trial.unittest import SynchronousTestCase

from pbauth import Broker
from pbauth.wire.decoding import MalformedMessage, Reader

MODULES = [test_banana, test_jelly, test_pb, test_pbfailure]

#: Tests that are left out, and why a user would not miss them.
LEFT_OUT: dict[str, str] = {}

#: Tests for which it is told to serialise as Twisted does, and what it does otherwise.
STOCK = {"test_tooManyRefs": "The call that meets the limit fails; the connection goes on."}


class Banana(Broker):
    """
    pbauth's broker as no more than `twisted.spread.banana.Banana`: what is read goes to
    `expressionReceived`, and errors come out of `dataReceived` as Twisted has them.
    """

    def connectionReady(self) -> None:
        """There is no protocol above."""
        self._dialectChosen()

    def expressionReceived(self, lst: Any) -> None:
        """Tests replace it."""
        raise NotImplementedError

    def dataReceived(self, chunk: bytes) -> None:
        try:
            self._reader.feed(chunk)
        except MalformedMessage as error:
            text = str(error)
            if text.startswith("Security precaution: "):
                raise banana.BananaError(text) from error
            raise (KeyError if "no word" in text else NotImplementedError)(text) from error

    @property
    def buffer(self) -> bytes:
        """What is not read yet; `twisted.spread.banana.decode` forgets it by this name."""
        raise NotImplementedError

    @buffer.setter
    def buffer(self, rest: bytes) -> None:
        assert not rest
        self._reader = Reader(self.callExpressionReceived, self._receivePlain)
        self._reader.limit = self.prefixLimit


class InPlace:
    """Puts pbauth's in the place of Twisted's before each test."""

    #: For the tests of banana.
    encClass = Banana

    def setUp(self) -> Any:
        test: Any = self
        test.patch(Broker, "stockSerialization", test.id().rpartition(".")[2] in STOCK)
        test.patch(pb, "Broker", Broker)
        test.patch(pb.PBClientFactory, "protocol", Broker)
        test.patch(pb.PBServerFactory, "protocol", Broker)
        # What `banana.encode` and `banana.decode` work with.
        coder = Banana()
        coder.connectionMade()
        coder._selectDialect(b"none")
        test.patch(banana, "_i", coder)
        # Some listen to the world.
        listen = reactor.listenTCP

        def listenHere(port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
            return listen(port, factory, backlog, "127.0.0.1")

        test.patch(reactor, "listenTCP", listenHere)
        return super().setUp()  # type: ignore[misc]


def testsOf(module: ModuleType) -> dict[str, type[TestCase]]:
    """The cases of a module of tests, by name."""
    return {
        name: case
        for name, case in vars(module).items()
        if isinstance(case, type)
        and issubclass(case, TestCase)
        and case.__module__ == module.__name__
    }


def put(case: type[TestCase]) -> type[TestCase]:
    """The same tests, with pbauth's in place."""
    left = {
        name: None
        for name in dir(case)
        if f"{case.__module__}.{case.__qualname__}.{name}" in LEFT_OUT
    }
    return type(case.__name__, (InPlace, case), {"__module__": __name__, **left})


PUT = {name: put(case) for module in MODULES for name, case in testsOf(module).items()}
globals().update(PUT)


class SuiteTests(SynchronousTestCase):
    """That it is so."""

    def test_all(self) -> None:
        """Every test is here, but for those that are left out."""
        originals = [case for module in MODULES for case in testsOf(module).values()]
        self.assertEqual(len(PUT), len(originals))

        def names(cases: Any) -> list[str]:
            return [
                name
                for case in cases
                for name in dir(case)
                if name.startswith("test") and callable(getattr(case, name))
            ]

        self.assertGreater(len(names(originals)), 100)
        self.assertEqual(len(names(PUT.values())), len(names(originals)) - len(LEFT_OUT))

    def test_inPlace(self) -> None:
        """What the tests speak with is pbauth's."""
        case: Any = PUT["PBFailureTests"]("test_synchronousError")
        case.setUp()
        self.addCleanup(case.doCleanups)
        for broker in (case.connectedServer, case.connectedClient):
            self.assertIs(type(broker), Broker)
            self.assertTrue(broker._reader.readsPlain)
        case = PUT["BananaTests"]("test_string")
        case.setUp()
        self.addCleanup(case.doCleanups)
        self.assertIs(type(case.enc), Banana)
        self.assertIsInstance(banana._i, Banana)
