"""Errors of an application's own cross the wire as themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, TypedDict

from attrs import define
from twisted.spread import pb
from twisted.spread.jelly import jelly, unjelly, unjellyableRegistry

import pbauth
from pbauth import WireError, wireError
from pbauth._fields import WrongFields, declared
from pbauth.errors import Unauthorized, forStockClient
from pbauth.testing import RecordingPerspective
from tests.support.wire import WireTestCase


@wireError
class OutOfStock(ValueError):
    """Declares its fields as arguments of its constructor."""

    def __init__(self, item: str, left: int) -> None:
        super().__init__(f"There are only {left} of {item}.")
        self.item = item
        self.left = left


@wireError
class JobFailed(RuntimeError):
    """Declares its fields by annotations."""

    KIND: ClassVar[str] = "job"
    exitCode: int = 0
    log: list[str] | None = None
    took: float = 0.0
    state: Literal["failed", "killed"] = "failed"


class Refused(WireError):
    """Declares nothing."""


class StillRefused(Refused):
    """Declares a field, in a subclass."""

    until: str = ""


@wireError
@define
class Made(Exception):
    """Is made by attrs."""

    number: int


class KeyIsMissing(WireError, KeyError):
    """Is of two kinds."""


class Named(TypedDict):
    """A type that nothing is an instance of."""

    name: str


class Loose(WireError):
    """Says little about its fields."""

    anything: Any
    named: Named

    def __init__(self, number, anything, named):
        super().__init__("loose")
        self.number, self.anything, self.named = number, anything, named


class Shop(RecordingPerspective):
    """Raises what a test says."""

    raises: ClassVar[Callable[[], BaseException]]

    def perspective_buy(self) -> None:
        raise type(self).raises()

    async def perspective_buyLater(self) -> None:
        raise type(self).raises()


class OwnErrorTests(WireTestCase):
    """A perspective raises them, and a client catches them."""

    def raised(self, make: Callable[[], BaseException], method: str = "buy") -> Any:
        """Return what a client's call fails with."""
        self.serve()
        self.game.perspectiveClass = type("Shop", (Shop,), {"raises": staticmethod(make)})
        return self.refusal(self.successResultOf(self.login()), method)

    def test_constructor(self) -> None:
        """Text and fields arrive, also from a coroutine; nothing is logged."""
        for method in ("buy", "buyLater"):
            error = self.raised(lambda: OutOfStock("pens", 3), method)
            self.assertIs(type(error), OutOfStock)
            self.assertIsInstance(error, ValueError)
            self.assertEqual((error.item, error.left), ("pens", 3))
            self.assertEqual(str(error), "There are only 3 of pens.")
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_annotations(self) -> None:
        """Fields that are set afterwards arrive; others have their defaults."""

        def make() -> JobFailed:
            error = JobFailed("exit code", 2)
            error.exitCode = 2
            error.log = ["a", "b"]
            return error

        error = self.raised(make)
        self.assertIs(type(error), JobFailed)
        self.assertEqual(error.args, ("exit code", 2))
        self.assertEqual(str(error), str(make()))
        self.assertEqual((error.exitCode, error.log, error.took), (2, ["a", "b"], 0.0))

    def test_subclasses(self) -> None:
        """Subclasses of `WireError` need no decorator, and are caught as their own kind."""
        error = self.raised(lambda: Refused("not today"))
        self.assertEqual((type(error), str(error)), (Refused, "not today"))

        def make() -> StillRefused:
            error = StillRefused("not today")
            error.until = "Monday"
            return error

        error = self.raised(make)
        self.assertIsInstance(error, Refused)
        self.assertEqual((type(error), error.until), (StillRefused, "Monday"))
        self.assertEqual(str(self.raised(lambda: KeyIsMissing("gone"))), "gone")

    def test_attrs(self) -> None:
        """Classes that are made by others cross."""
        error = self.raised(lambda: Made(3))
        self.assertEqual((type(error), error.number), (Made, 3))

    def test_unknown(self) -> None:
        """A class that the client does not know is known by name, and its text is there."""
        unknown = type("Unknown", (WireError,), {"__module__": "elsewhere"})
        # Twisted's annotation has text where there is `bytes`.
        registry: Any = unjellyableRegistry
        del registry[b"elsewhere.Unknown"]
        error = self.raised(lambda: unknown("no such job"))
        self.assertIs(type(error), pb.RemoteError)
        self.assertEqual(error.remoteType, "elsewhere.Unknown")
        self.assertIs(type(error.remoteType), str)
        self.assertEqual(str(error), "no such job")

    def test_undeclared(self) -> None:
        """What is not declared to cross arrives as a `pb.RemoteError`, by a name that is text."""
        error = self.raised(lambda: ZeroDivisionError("oh"))
        self.assertIs(type(error), pb.RemoteError)
        self.assertEqual((error.remoteType, str(error)), ("builtins.ZeroDivisionError", "oh"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_wrongFields(self) -> None:
        """Fields of other types than here are not taken; the error is known by name."""
        for name, value in [
            ("exitCode", "2"),
            ("exitCode", True),
            ("log", "text"),
            ("took", "1"),
            ("state", "lost"),
        ]:

            def make(name: str = name, value: Any = value) -> JobFailed:
                error = JobFailed("exit code")
                setattr(error, name, value)
                return error

            error = self.raised(make)
            self.assertIs(type(error), pb.RemoteError)
            self.assertEqual(error.remoteType, f"{__name__}.JobFailed")
            self.assertEqual(str(error), "exit code")

    def test_malformed(self) -> None:
        """What is no state at all is not taken, however it is wrong."""
        name = f"{__name__}.Refused".encode()
        states: list[Any] = [
            1,
            {},
            {"args": 1, "fields": {}},
            {"args": (), "fields": []},
            {"args": (pb.Referenceable,), "fields": {}},
        ]
        for state in states:
            with self.assertRaises(WrongFields):
                unjelly([name, jelly(state)])
        with self.assertRaises(WrongFields):
            unjelly([name])

    def test_extraFields(self) -> None:
        """Only declared fields are set, whatever the peer sends."""
        name = f"{__name__}.Refused".encode()
        state = {"args": ("no",), "fields": {"with_traceback": 1, "until": "x"}}
        error: Any = unjelly([name, jelly(state)])
        self.assertEqual((str(error), vars(error)), ("no", {}))

    def test_notPlain(self) -> None:
        """Arguments that can't cross become text; fields that can't are a mistake of the server."""
        error = self.raised(lambda: Refused("for", object))
        self.assertEqual((type(error), error.args), (Refused, ("for",)))

        def make() -> Any:
            error: Any = JobFailed("exit code")
            error.log = [object()]
            return error

        error = self.raised(make)
        self.assertIs(type(error), pb.RemoteError)
        self.assertEqual((error.remoteType, str(error)), (f"{__name__}.JobFailed", "exit code"))
        self.assertEqual(len(self.flushLoggedErrors()), 1)
        # If its text can't be sent either, there is the name.
        error = self.raised(lambda: Refused("x" * 700_000))
        self.assertIn("Refused, an error that can't be sent", str(error))
        self.flushLoggedErrors()

    def test_uncheckedFields(self) -> None:
        """Fields without a type, or with one that nothing is an instance of, are taken."""
        error = self.raised(lambda: Loose(3, "text", {"name": "x"}))
        self.assertIs(type(error), Loose)
        self.assertEqual((error.number, error.anything, error.named), (3, "text", {"name": "x"}))

    def test_stockClient(self) -> None:
        """Clients without pbauth get a failure with the names of the classes, and the text."""
        plain = forStockClient(OutOfStock("pens", 3))  # type: ignore[arg-type]
        self.assertNotIsInstance(plain, WireError)
        self.assertIsInstance(plain, ValueError)
        self.assertEqual(str(plain), "There are only 3 of pens.")
        self.assertEqual(type(plain).__name__, "OutOfStock")

    def test_declared(self) -> None:
        """What counts as a declaration."""
        self.assertEqual(list(declared(OutOfStock)), ["item", "left"])
        self.assertEqual(list(declared(JobFailed)), ["exitCode", "log", "took", "state"])
        self.assertEqual(declared(Refused), {})
        self.assertEqual(declared(StillRefused), {"until": str})

    def test_decorator(self) -> None:
        """The class keeps its name; what is no class of exceptions is refused."""
        self.assertEqual((JobFailed.__name__, JobFailed.__module__), ("JobFailed", __name__))
        self.assertIs(wireError(Refused), Refused)
        self.assertIs(pbauth.wireError, wireError)
        for bad in (object(), int, "Refused", KeyboardInterrupt):
            with self.assertRaises(TypeError):
                wireError(bad)  # type: ignore[type-var]

    def test_ours(self) -> None:
        """Errors of a login take no text from the wire."""
        name = b"pbauth.errors.Unauthorized"
        error: Any = unjelly([name, jelly({"args": ("surprise",), "fields": {}})])
        self.assertEqual(str(error), str(Unauthorized()))
