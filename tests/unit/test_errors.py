"""Errors cross the wire as themselves."""

from __future__ import annotations

from typing import Any

from twisted.cred.error import UnauthorizedLogin
from twisted.internet import defer
from twisted.internet import error as netError
from twisted.internet.defer import Deferred, fail
from twisted.spread import pb
from twisted.spread.jelly import jelly, unjelly
from twisted.trial.unittest import SynchronousTestCase

from pbauth import (
    CallTimeout,
    Detached,
    DuplicateIdentity,
    KeyNotFound,
    LoginTimeout,
    MechanismNotSupported,
    NobodyAttached,
    ProtocolViolation,
    ServerNotTrusted,
    StoreError,
    TooManyAttempts,
    Unauthorized,
)
from pbauth.errors import (
    CannotDrain,
    LastAdministrator,
    NotProtected,
    PasswordsElsewhere,
    UnknownKey,
    UnknownPublicKey,
    UnknownSession,
    UnknownUser,
    WireError,
    forStockClient,
)
from pbauth.testing import MemoryServer

#: Each error, with what it carries.
ERRORS: list[tuple[WireError, dict[str, Any]]] = [
    (Unauthorized(), {}),
    (KeyNotFound("game", "black"), {"serviceName": "game", "perspectiveName": "black"}),
    (KeyNotFound("game"), {"serviceName": "game", "perspectiveName": ""}),
    (DuplicateIdentity("alice"), {"name": "alice"}),
    (MechanismNotSupported(["PLAIN"]), {"offered": ["PLAIN"]}),
    (TooManyAttempts(2.5), {"retryAfter": 2.5}),
    (ServerNotTrusted(), {}),
    (Detached(), {}),
    (NobodyAttached("black"), {"perspectiveName": "black"}),
    (ProtocolViolation(), {}),
    (StoreError(), {}),
    (UnknownUser("alice"), {"name": "alice"}),
    (
        UnknownKey("alice", "game", "black"),
        {"name": "alice", "service": "game", "perspective": "black"},
    ),
    (UnknownPublicKey("alice", "laptop"), {"name": "alice", "which": "laptop"}),
    (UnknownSession("0123"), {"session": "0123"}),
    (CannotDrain(), {}),
    (LastAdministrator("admin"), {"name": "admin"}),
    (PasswordsElsewhere(), {}),
    (NotProtected(), {}),
]


class Custom(WireError):
    """An application's own error."""

    fields = {"count": int}  # type: ignore[dict-item]  # noqa: RUF012

    def __init__(self, count: int) -> None:
        super().__init__(f"{count} too many")
        self.count = count


class Root(pb.Root):
    """Raises what it is told, in both ways."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def remote_raise(self) -> None:
        raise self.error

    def remote_fail(self) -> Any:
        return fail(self.error)


class CrossingTests(SynchronousTestCase):
    """Between stock brokers."""

    def cross(self, error: Exception, method: str) -> Any:
        """Give the Deferred of a call that fails with this error on the server."""
        memory = MemoryServer(factory=pb.PBServerFactory(Root(error)))
        factory = pb.PBClientFactory()
        memory.connect(factory)
        answer = self.successResultOf(self.flushed(memory, factory.getRootObject())).callRemote(
            method
        )
        return self.flushed(memory, answer)

    def flushed(self, memory: MemoryServer, waiting: Any) -> Any:
        """Carry all bytes first."""
        memory.flush()
        return waiting

    def test_asThemselves(self) -> None:
        """Raised or from a Deferred, with attributes and text, and nothing in the log."""
        for error, attributes in [*ERRORS, (Custom(3), {"count": 3})]:
            for method in ("raise", "fail"):
                failure = self.failureResultOf(self.cross(error, method))
                self.assertIs(type(failure.value), type(error))
                self.assertTrue(failure.check(type(error)))
                self.assertEqual(str(failure.value), str(error))
                for name, value in attributes.items():
                    self.assertEqual(getattr(failure.value, name), value)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_inCoroutines(self) -> None:
        """`except` in `async def` code catches them by class."""

        async def run(error: WireError) -> bool:
            try:
                await self.cross(error, "raise")
            except type(error):
                return True
            return False

        for error, _ in ERRORS:
            self.assertTrue(self.successResultOf(Deferred.fromCoroutine(run(error))))

    def test_forStockClients(self) -> None:
        """A client without pbauth gets a plain failure with the same names."""
        for error, _ in ERRORS:
            stock = forStockClient(error)
            self.assertNotIsInstance(stock, pb.Copyable)
            failure = self.failureResultOf(self.cross(stock, "fail"))
            self.assertTrue(failure.check(type(error)), error)
            self.assertEqual(str(failure.value), str(error))
            self.assertEqual(
                bool(failure.check(UnauthorizedLogin)), isinstance(error, UnauthorizedLogin)
            )
        self.assertEqual(self.flushLoggedErrors(), [])


class HostileTests(SynchronousTestCase):
    """Of what comes from the wire only what is documented is taken, and checked."""

    def read(self, cls: type, state: Any) -> Any:
        """Make an error from a state as a peer may send it."""
        return unjelly([f"pbauth.errors.{cls.__name__}".encode(), jelly(state)])

    def test_wrongTypes(self) -> None:
        """What has the wrong type is replaced by a default."""
        for bad in (5, None, [1], {"a": 1}, b"bytes"):
            error = self.read(KeyNotFound, {"serviceName": bad, "perspectiveName": bad})
            self.assertEqual((error.serviceName, error.perspectiveName), ("", ""))
            self.assertEqual(self.read(DuplicateIdentity, {"name": bad}).name, "")
        for bad in ("soon", None, -1, True, [], float("nan")):
            self.assertEqual(self.read(TooManyAttempts, {"retryAfter": bad}).retryAfter, 0)
        for large in (10.0**9, 10**400, float("inf")):
            self.assertEqual(self.read(TooManyAttempts, {"retryAfter": large}).retryAfter, 86_400)
        for bad in ("PLAIN", None, 5, {"PLAIN": 1}):
            self.assertEqual(self.read(MechanismNotSupported, {"offered": bad}).offered, [])
        mixed = self.read(MechanismNotSupported, {"offered": ["A", 5, None, "B"] + ["C"] * 1000})
        self.assertEqual(mixed.offered[:2], ["A", "B"])
        self.assertLess(len(mixed.offered), 101)

    def test_noState(self) -> None:
        """A state that is no dict, or is missing, is an empty one."""
        for state in (None, 5, "text", [1, 2]):
            self.assertIsInstance(self.read(Unauthorized, state), Unauthorized)
        self.assertIsInstance(unjelly([b"pbauth.errors.Detached"]), Detached)

    def test_nothingElse(self) -> None:
        """Extra fields, and the peer's text, are not taken."""
        error = self.read(
            KeyNotFound,
            {"serviceName": "game", "args": ("hacked",), "message": "hacked", "_x": "hacked"},
        )
        self.assertNotIn("hacked", repr(vars(error)) + str(error) + repr(error.args))


class TimeoutTests(SynchronousTestCase):
    """Errors of those who wait."""

    def test_texts(self) -> None:
        """They say what was waited for, and how long."""
        self.assertIn("No login within 3 seconds", str(LoginTimeout(3)))
        self.assertIn("call of 'move' within 2.5 seconds", str(CallTimeout("move", 2.5)))
        for error in (LoginTimeout(3), CallTimeout("move", 3)):
            self.assertIsInstance(error, TimeoutError)
            self.assertIsInstance(error, defer.TimeoutError)


class HierarchyTests(SynchronousTestCase):
    """Who catches what."""

    def test_bases(self) -> None:
        """The bases that the contract names."""
        for cls, bases in [
            (Unauthorized, [UnauthorizedLogin, pb.Error]),
            (KeyNotFound, [KeyError, Unauthorized]),
            (DuplicateIdentity, [KeyError]),
            (TooManyAttempts, [Unauthorized]),
            (LoginTimeout, [netError.TimeoutError, defer.TimeoutError, TimeoutError]),
        ]:
            for base in bases:
                self.assertTrue(issubclass(cls, base), (cls, base))
        for cls in (MechanismNotSupported, ServerNotTrusted, Detached, StoreError):
            self.assertFalse(issubclass(cls, Unauthorized))

    def test_oneText(self) -> None:
        """The text of each error is one line that says what it is about."""
        for error, _ in ERRORS:
            self.assertGreater(len(str(error)), 20)
            self.assertNotIn("\n", str(error))
