"""
What can go wrong, in words: the exceptions of pbauth, each named by whose fault it is.

There are three kinds, and any other exception that comes out of pbauth is a bug.

- Subclasses of `WireError` cross a Perspective Broker connection *as themselves*: raised on the
  server, they can be caught by class on the client, with the attributes that are documented here
  and no others.  Of what comes from the wire only those attributes are read, each is checked for
  its type, and one that fails the check is replaced by its default.  The text is always made
  here, never taken from the peer.
- `LoginTimeout`, `CallTimeout`, `NotAttached`, `NotSerializable` and the `ValueError` subclasses
  are raised to the caller, on the caller's side.
- `ExchangeRefused` never leaves the package: it carries, from a mechanism to the wire, the real
  reason why a login failed, for the operator's log only.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, cast

from twisted.cred.error import UnauthorizedLogin
from twisted.internet import defer
from twisted.internet import error as netError
from twisted.spread import pb

from pbauth._fields import restore, stateOf

_Kind = TypeVar("_Kind", bound=type[BaseException])


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def isPhrase(value: object) -> bool:
    """Return whether something that a peer sent is a short text that can be shown as it is."""
    return isinstance(value, str) and len(value) <= 100 and value.isprintable()


def _phrase(value: object) -> str:
    return str(value) if isPhrase(value) else ""


def _seconds(value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0:
        # Before it is made a float, which not every number can be.
        return float(min(value, 86_400))
    return 0.0


def _amount(value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 2**53:
        return value
    return 0


def _count(value: object) -> int:
    return value if type(value) is int and 0 <= value < 2**31 else 0


def _names(value: object) -> list[str]:
    if not isinstance(value, (list, tuple)):
        return []
    return [name for name in value[:100] if isinstance(name, str)]


class WireError(pb.Error, pb.Copyable):
    """
    The root of the errors that cross the wire as themselves.

    An application's own class is a subclass, or is decorated with `wireError`. It is known by its
    full name, so that both ends import it from the same module. It carries its text, and the fields
    that it declares by annotations or as arguments of its constructor, if they are plain values::

        class OutOfStock(pbauth.WireError):
            item: str
            left: int

            def __init__(self, item: str, left: int) -> None:
                super().__init__(f"There are only {left} of {item}.")
                self.item = item
                self.left = left

    At the other end the class is not called: the error is given its text and those fields, each
    checked for its type. Where the class is not known, or the fields are others, the error is a
    `twisted.spread.pb.RemoteError` with the name of the class in `remoteType`, a `str`.

    A class that takes nothing from the wire as it is, not even its text, lists what it carries in
    `fields`: the names of the arguments of its constructor, which are also its attributes, each
    with the function that turns whatever arrived into a value of the right type.
    """

    fields: ClassVar[dict[str, Callable[[object], Any]] | None] = None

    def __init_subclass__(cls, **kw: Any) -> None:
        super().__init_subclass__(**kw)
        pb.setUnjellyableForClass(cls, cls)

    def __str__(self) -> str:
        # KeyError, a base of some of these, would show the repr of its argument.
        return str(self.args[0]) if self.args else type(self).__name__

    def getStateToCopy(self) -> dict[str, Any]:
        """Return what is sent: the declared fields only."""
        if self.fields is None:
            return stateOf(self)
        return {name: getattr(self, name) for name in self.fields}

    def unjellyFor(self, unjellier: Any, jellyList: list[Any]) -> WireError:
        """Make the error from the declared fields of what the peer sent."""
        state = unjellier.unjelly(jellyList[1]) if len(jellyList) > 1 else {}
        if self.fields is None:
            # Twisted has made it without its constructor.
            restore(self, state)
            return self
        if not isinstance(state, dict):
            state = {}
        return type(self)(**{name: read(state.get(name)) for name, read in self.fields.items()})


def wireError(kind: _Kind) -> _Kind:
    """
    Let the errors of a class cross the wire as themselves: a decorator of exception classes.

    What crosses is as for `WireError`, of which the class becomes a subclass::

        @pbauth.wireError
        class JobFailed(RuntimeError):
            exitCode: int = 0

    Args:
        kind: the class.

    Returns:
        A class of the same name that takes its place.

    Raises:
        TypeError: it is not a class of exceptions.
    """
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        raise TypeError(f"wireError decorates classes of exceptions, not {kind!r}.")
    if issubclass(kind, WireError):
        return kind
    names = ("__module__", "__qualname__", "__doc__", "__str__")
    made = type(kind.__name__, (kind, WireError), {name: getattr(kind, name) for name in names})
    return cast(_Kind, made)


class Unauthorized(WireError, UnauthorizedLogin):
    """
    The login was refused.  Wrong name, wrong password and disabled account are one and the same
    to the client, so that nobody learns which names exist.
    """

    fields: ClassVar = {}

    def __init__(self, message: str | None = None) -> None:
        super().__init__(
            message or "Login refused: the name or the password is wrong, or the account is closed."
        )


class KeyNotFound(Unauthorized, KeyError):
    """
    The pair is not on the identity's keyring, or the service or the perspective does not exist.

    Attributes:
        serviceName: the service that was asked for.
        perspectiveName: the perspective that was asked for; empty where the caller named none.
    """

    fields: ClassVar = {"serviceName": _text, "perspectiveName": _text}

    def __init__(self, serviceName: str, perspectiveName: str | None = None) -> None:
        self.serviceName = serviceName
        self.perspectiveName = perspectiveName or ""
        wanted = f"perspective {self.perspectiveName!r}" if perspectiveName else "any perspective"
        super().__init__(
            f"No key to {wanted} of service {serviceName!r}. "
            "Ask the administrator of the server to grant one."
        )


class MethodNotAllowed(Unauthorized):
    """
    The voucher that was used, or the key, is not good for this method of the perspective.

    Attributes:
        method: its name.
    """

    fields: ClassVar = {"method": _text}

    def __init__(self, method: str) -> None:
        self.method = method
        super().__init__(
            f"The method {method!r} is not among those that this login may call. "
            "Ask whoever issued the voucher, or granted the key, for more."
        )


class TooManyAttempts(Unauthorized):
    """
    Too many failed logins from this address or for this name; the password was not looked at.

    Attributes:
        retryAfter: seconds to wait before the next attempt.
    """

    fields: ClassVar = {"retryAfter": _seconds}

    def __init__(self, retryAfter: float) -> None:
        self.retryAfter = retryAfter
        super().__init__(f"Too many failed logins. Try again in {retryAfter:.0f} seconds.")


class DuplicateIdentity(WireError, KeyError):
    """
    The name is taken.

    Attributes:
        name: the name that already belongs to another identity.
    """

    fields: ClassVar = {"name": _text}

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"There is an identity named {name!r} already. Choose another name.")


class PasswordChangeRequired(Unauthorized):
    """The login is proved, but good for nothing until the password is changed."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(
            message or "The password has to be changed first. Run: pbauth passwd ENDPOINT NAME"
        )


class UnknownGroup(WireError, KeyError):
    """
    There is no group of that name.

    Attributes:
        name: that name.
    """

    fields: ClassVar = {"name": _text}

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no group {name!r}. See: pbauth group list")
        self.name = name


class DuplicateGroup(WireError, KeyError):
    """
    The name of a new group is taken.

    Attributes:
        name: the name that already belongs to another group.
    """

    fields: ClassVar = {"name": _text}

    def __init__(self, name: str) -> None:
        super().__init__(f"There is a group named {name!r} already. Choose another name.")
        self.name = name


class NotAMember(WireError, KeyError):
    """
    An identity does not belong to a group.

    Attributes:
        group: the name of the group.
        name: the name of the identity.
    """

    fields: ClassVar = {"group": _text, "name": _text}

    def __init__(self, group: str, name: str) -> None:
        super().__init__(
            f"{name!r} is not a member of the group {group!r}. See: pbauth group members {group}"
        )
        self.group = group
        self.name = name


class MechanismNotSupported(WireError):
    """
    Client and server share no mechanism that both accept.

    Attributes:
        offered: the names of the mechanisms that the server offers, strongest first.
    """

    fields: ClassVar = {"offered": _names}

    def __init__(self, offered: list[str] | tuple[str, ...]) -> None:
        self.offered = list(offered)
        what = ", ".join(self.offered) if self.offered else "none that this client knows"
        super().__init__(f"No login mechanism in common; the server offers: {what}.")


class ServerNotTrusted(WireError):
    """
    The server did not prove that it is the right one: it does not know the password's verifier,
    its channel binding or its pin does not match, or the connection to it is not protected.
    """

    fields: ClassVar = {}

    def __init__(self, message: str | None = None) -> None:
        super().__init__(
            message
            or "The server did not prove that it knows the account. The password was not sent; "
            "check that you are connected to the right server."
        )


class Detached(WireError):
    """
    A call on a perspective whose session has ended. Log in again.

    Attributes:
        reason: why the server has ended it, the value of a `pbauth.EndReason`; empty where that is
            not known.
    """

    fields: ClassVar = {"reason": _phrase}

    def __init__(self, reason: str = "") -> None:
        self.reason = reason
        because = f" ({reason})" if reason else ""
        super().__init__(f"The session of this perspective has ended{because}. Log in again.")


class NobodyAttached(WireError):
    """
    There is nobody to be called: no client object is attached to the perspective now.

    Attributes:
        perspectiveName: the name of the perspective.
    """

    fields: ClassVar = {"perspectiveName": _text}

    def __init__(self, perspectiveName: str) -> None:
        self.perspectiveName = perspectiveName
        super().__init__(f"No client is attached to {perspectiveName!r} now. Try again later.")


class ProtocolViolation(WireError):
    """
    The peer said something that the protocol does not allow: no such method, arguments that do
    not fit, or bytes that are not Perspective Broker.
    """

    fields: ClassVar = {}

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or "That is not in the protocol of this server.")


class NotProtected(ProtocolViolation):
    """
    Accounts can't be changed on this connection, nor verifiers be shown: somebody may stand in
    between client and server.
    """

    def __init__(self) -> None:
        super().__init__(
            "Accounts can be changed on the server's own machine, or after a login that is bound "
            "to its TLS connection: over TLS 1.3, with a password or a key."
        )


class TooManyReferences(WireError):
    """
    The peer holds as many references to objects of this end as it may (`Policy.maxReferences`); the
    call would have given it one more, and was not done or not answered.

    Attributes:
        call: the name of the method that was called.
        limit: how many it may hold.
    """

    fields: ClassVar = {"call": _text, "limit": _count}

    def __init__(self, call: str, limit: int) -> None:
        super().__init__(
            f"The call of {call!r} would give away more references than the {limit} that one "
            "connection may hold. Drop those that are not needed, return fewer objects at once, or "
            "raise Policy.maxReferences."
        )
        self.call = call
        self.limit = limit


_LIMITS = {
    "maxSessions": "sessions of one identity",
    "maxCallsPerSecond": "calls a second on one connection",
    "maxCallsAtOnce": "calls at once on one connection",
    "maxMessageBytes": "bytes in a message",
    "maxVoucherLife": "days until a voucher expires",
    "vouchers": "vouchers of one identity",
    "sessions": "sessions at once with this voucher",
}


class LimitExceeded(WireError):
    """
    The server allows one client less than this, and has not begun what was asked for. A client that
    asks for ten times as much is disconnected.

    Attributes:
        limit: the name of the limit, in `Policy`; or ``vouchers``, how many one
            identity has; or ``sessions``, which is a limit of a voucher.
        most: what it allows.
    """

    fields: ClassVar = {"limit": _text, "most": _amount}

    def __init__(self, limit: str, most: float) -> None:
        what = _LIMITS.get(limit, "of what was asked for")
        super().__init__(
            f"The server allows at most {most:g} {what} ({limit}). Ask for less, or later."
            if isPhrase(limit)
            else "The server does not allow so much. Ask for less, or later."
        )
        self.limit = limit
        self.most = most


class StoreError(WireError):
    """
    The store of accounts can't be read or written now. Only the operator
    learns the cause: it is in the text on the server's side and does not cross the wire.
    """

    fields: ClassVar = {}

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or "The server can't reach its accounts now. Try again later.")


class UnknownUser(WireError):
    """
    There is no identity of that name.

    Attributes:
        name: that name.
    """

    fields: ClassVar = {"name": _text}

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no user {name!r}. See: pbauth user list")
        self.name = name


class UnknownKey(WireError):
    """
    The key is not on the keyring.

    Attributes:
        name: of the identity.
        service: of the key.
        perspective: of the key.
    """

    fields: ClassVar = {"name": _text, "service": _text, "perspective": _text}

    def __init__(self, name: str, service: str, perspective: str) -> None:
        super().__init__(
            f"{name!r} holds no key to {perspective!r} of service {service!r}. "
            f"See: pbauth key list {name}"
        )
        self.name = name
        self.service = service
        self.perspective = perspective


class UnknownPublicKey(WireError):
    """
    There is no public key of that fingerprint or label, or more than one.

    Attributes:
        name: of the identity.
        which: what was given as fingerprint or label.
    """

    fields: ClassVar = {"name": _text, "which": _text}

    def __init__(self, name: str, which: str) -> None:
        super().__init__(
            f"{name!r} does not have exactly one public key {which!r}. See: pbauth user keys {name}"
        )
        self.name = name
        self.which = which


class UnknownVoucher(WireError, KeyError):
    """
    There is no voucher of that id or label.

    Attributes:
        name: of the identity.
        which: what was given as id or label.
    """

    fields: ClassVar = {"name": _text, "which": _text}

    def __init__(self, name: str, which: str) -> None:
        super().__init__(f"{name!r} has no voucher {which!r}. See: pbauth voucher list {name}")
        self.name = name
        self.which = which


class UnknownSession(WireError):
    """
    There is no session of that id (any more).

    Attributes:
        session: that id.
    """

    fields: ClassVar = {"session": _text}

    def __init__(self, session: str) -> None:
        super().__init__(f"There is no session {session!r} now. See: pbauth session list")
        self.session = session


class CannotDrain(WireError):
    """Raised where a server is asked to drain that has no way to stop itself."""

    fields: ClassVar = {}

    def __init__(self) -> None:
        super().__init__(
            "This server can't be drained by its administration. Stop it where it runs."
        )


class LastAdministrator(WireError):
    """
    Nobody would be left who can log in and administer; nothing was changed.

    Attributes:
        name: the last administrator.
    """

    fields: ClassVar = {"name": _text}

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name!r} is the last administrator: nobody else holds a key to the administration "
            "and can log in. Make another one first."
        )
        self.name = name


class PasswordsElsewhere(WireError):
    """The server has its passwords checked by somebody else, and keeps none."""

    fields: ClassVar = {}

    def __init__(self) -> None:
        super().__init__(
            "The passwords of this server are kept elsewhere: change them there. "
            "Add a user without one: pbauth user add NAME --no-password"
        )


class LoginTimeout(netError.TimeoutError, defer.TimeoutError, builtins.TimeoutError):
    """
    The login was not over in time: nothing answers, or not in Perspective Broker.

    Attributes:
        seconds: the time that was given.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(
            string=f"No login within {seconds:g} seconds: "
            "is there a pbauth server at this address and port?"
        )
        self.seconds = seconds

    def __str__(self) -> str:
        return str(self.args[0])


class CallTimeout(defer.TimeoutError, builtins.TimeoutError):
    """
    A call was not answered in time. It was cancelled; whether it was run before, nobody can know.

    Attributes:
        call: the name of the method that was called.
        seconds: the time that was given.
    """

    def __init__(self, call: str, seconds: float) -> None:
        super().__init__(f"No answer to the call of {call!r} within {seconds:g} seconds.")
        self.call = call
        self.seconds = seconds

    def __str__(self) -> str:
        return str(self.args[0])


class NotAttached(pb.DeadReferenceError):
    """
    A `PerspectiveClient` has no perspective to call, and will not wait for one: it was stopped, or
    calls are not to wait, or too many wait already.  The call was not sent.
    """


class NotSerializable(TypeError):
    """
    An argument or a result holds something that cannot cross the wire.  Nothing was sent.

    Attributes:
        path: where it is, from the arguments (``args``, ``kw``) or the ``result`` on.
        kind: what it is.
    """

    def __init__(self, path: str, kind: str, advice: str) -> None:
        super().__init__(f"{path}: {kind}; {advice}")
        self.path = path
        self.kind = kind


class InvalidName(ValueError):
    """The name of an identity, a service or a perspective breaks the rules of `pbauth.names`."""


class InvalidPassword(ValueError):
    """The password is empty or holds characters that nobody can type (RFC 4013)."""


class PassphraseNeeded(ValueError):
    """The private key in a file is encrypted, and no passphrase was given."""


class ExchangeRefused(Exception):
    """
    Internal: a mechanism's exchange failed.

    Attributes:
        reason: the real reason, for the operator; the client gets `Unauthorized`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _withoutCopyable(original: type) -> type[Exception]:
    bases = tuple(
        _withoutCopyable(base) if issubclass(base, WireError) else base
        for base in original.__bases__
        if base is not pb.Copyable
    )
    return type(
        original.__name__,
        bases,
        {"__module__": original.__module__, "__str__": WireError.__str__},
    )


def forStockClient(error: WireError) -> Exception:
    """
    Return the same error for a client that does not have pbauth installed.

    Stock Twisted drops the connection when it meets a class that it does not know.  It does
    understand a plain failure that carries names of classes: `failure.check(Unauthorized)` and
    `failure.check(UnauthorizedLogin)` both hold for what this gives.

    Args:
        error: what would have crossed as itself.

    Returns:
        An exception of a class with the same name and ancestors, that PB sends as a failure.
    """
    kind = _withoutCopyable(type(error))
    # Not by its constructor: an application's may take anything.
    return kind.__new__(kind, str(error))
