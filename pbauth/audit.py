"""
The audit: who logged in, who was refused and why, who came and went, what an administrator did.

What an operator may want to look up later is told here and nowhere else, each time as one event
of `twisted.logger` in the namespace `NAMESPACE`.  `Kind` says what an event holds; the kinds are
the constants of this module, and ``docs/howto/monitoring.rst`` is their table.  There are two
forms of an event:

- text, for the ordinary log.  Whatever a peer may have chosen is shown as Python writes it, so that
  nothing in it ends the line, colours it, or turns it round; and cut, if it is longer than a name
  can be.
- a line of JSON (`asLine`), for machines: ASCII only, whatever is in it.

No secret is in any of them: no password, verifier, challenge, response or private key is ever given
to this module.
"""

from __future__ import annotations

import enum
import json
import os
from datetime import datetime, timezone
from time import time
from typing import Any

from attrs import frozen
from twisted.internet.address import UNIXAddress
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel

from pbauth.names import LONGEST

#: The namespace of the events, and of no others.
NAMESPACE = "pbauth.audit"


class DropReason(enum.Enum):
    """Which limit a connection ran into, that was dropped for it."""

    GRACE_TIME = "no login in time"
    ATTEMPTS = "too many failed logins"
    CHALLENGERS = "too many logins under way at once"
    PROTOCOL = "broke the protocol"
    BYTES = "too many bytes before the login"
    CONNECTIONS = "too many connections without a login"
    SILENT = "no sign of life"


@frozen
class Kind:
    """
    A kind of event.

    Attributes:
        name: its name.
        text: its `log_format`.
        fields: what it holds, in the order of the line of JSON. What is `None` is left out there.
    """

    name: str
    text: str
    fields: tuple[str, ...]


_WHERE = ("host", "port", "connection")
_SESSION = ("identity", "service", "perspective", "mechanism", "session", *_WHERE)

LOGIN_ACCEPTED = Kind(
    "login.accepted",
    "{identity!r} logged in by {mechanism} from {peer}",
    ("identity", "mechanism", "seconds", *_WHERE),
)
LOGIN_REFUSED = Kind(
    "login.refused",
    "Refused {identity!r} by {mechanism} from {peer}: {reason}",
    ("identity", "mechanism", "reason", *_WHERE),
)
LOGIN_THROTTLED = Kind(
    "login.throttled",
    "Throttled {identity!r} by {mechanism} from {peer} for {retryAfter:.0f} seconds",
    ("identity", "mechanism", "retryAfter", *_WHERE),
)
MECHANISM_REFUSED = Kind(
    "mechanism.refused",
    "{identity!r} from {peer} asked for the mechanism {mechanism!r}, which is not offered",
    ("identity", "mechanism", *_WHERE),
)
SESSION_ATTACHED = Kind(
    "session.attached",
    "Attached {identity!r} to {perspective!r} of {service!r} from {peer} (session {session})",
    _SESSION,
)
SESSION_REFUSED = Kind(
    "session.refused",
    "Did not attach {identity!r} to {perspective!r} of {service!r} from {peer}: {reason}",
    ("identity", "service", "perspective", "mechanism", "reason", *_WHERE),
)
SESSION_REVOKED = Kind(
    "session.revoked",
    "Revoked the session {session} of {identity!r} on {perspective!r} of {service!r}: {reason}",
    (*_SESSION, "reason"),
)
SESSION_DETACHED = Kind(
    "session.detached",
    "Detached {identity!r} from {perspective!r} of {service!r} (session {session}): {reason}",
    (*_SESSION, "reason"),
)
CONNECTION_DROPPED = Kind(
    "connection.dropped",
    "Dropped the connection from {peer}: {reason}",
    ("reason", "fault", "authenticated", *_WHERE),
)
PASSWORD_CHANGED = Kind(
    "password.changed",
    "{identity!r} changed the password from {peer}",
    ("identity", "mechanism", *_WHERE),
)
VERIFIER_RENEWED = Kind(
    "verifier.renewed",
    "The verifier of {identity!r} was renewed from {peer}",
    ("identity", "mechanism", *_WHERE),
)

_ACT = ("identity", "operator")

USER_ADDED = Kind("user.added", "{operator!r} added the user {identity!r}", _ACT)
USER_REMOVED = Kind("user.removed", "{operator!r} removed the user {identity!r}", _ACT)
USER_PASSWORD = Kind("user.password", "{operator!r} gave {identity!r} a new password", _ACT)
USER_LOCKED = Kind("user.locked", "{operator!r} locked {identity!r}", _ACT)
USER_UNLOCKED = Kind("user.unlocked", "{operator!r} unlocked {identity!r}", _ACT)
KEY_GRANTED = Kind(
    "key.granted",
    "{operator!r} granted {identity!r} the key to {perspective!r} of {service!r}",
    ("identity", "service", "perspective", "operator"),
)
KEY_REVOKED = Kind(
    "key.revoked",
    "{operator!r} revoked from {identity!r} the key to {perspective!r} of {service!r}",
    ("identity", "service", "perspective", "operator"),
)
PUBLIC_KEY_ADDED = Kind(
    "publickey.added",
    "{operator!r} let the public key {fingerprint} of {identity!r} in",
    ("identity", "fingerprint", "operator"),
)
PUBLIC_KEY_REMOVED = Kind(
    "publickey.removed",
    "{operator!r} let the public key {fingerprint} of {identity!r} in no more",
    ("identity", "fingerprint", "operator"),
)
USERS_IMPORTED = Kind(
    "users.imported", "{operator!r} imported {users} users", ("users", "operator")
)
USERS_READ = Kind(
    "users.read", "{operator!r} read the accounts of all users, with their verifiers", ("operator",)
)
SESSION_ENDED = Kind(
    "session.ended",
    "{operator!r} ended the session {session} of {identity!r}",
    ("identity", "session", "operator"),
)
AUDIT_GAP = Kind("audit.gap", "{lost} events could not be written to the audit", ("lost",))

#: All kinds, by name.
KINDS = {kind.name: kind for kind in list(globals().values()) if isinstance(kind, Kind)}


class LeanLogger(Logger):
    """
    A `twisted.logger.Logger` whose `emit` does less: the level, which is always one of ours, is
    not looked up. That is more than half of what an event costs.
    """

    def emit(self, level: Any, format: str | None = None, **kwargs: object) -> None:
        """Emit an event (see `twisted.logger.Logger`)."""
        self.send(level, format, kwargs)

    def send(self, level: Any, format: str | None, event: LogEvent) -> None:
        """
        As `emit`, for an event that is made already.

        Args:
            level: a `twisted.logger.LogLevel`.
            format: of the text.
            event: what it holds; will belong to the log.
        """
        event["log_logger"] = self
        event["log_level"] = level
        event["log_namespace"] = self.namespace
        event["log_source"] = self.source
        event["log_format"] = format
        event["log_time"] = time()
        if "log_trace" in event:
            event["log_trace"].append((self, self.observer))
        self.observer(event)


def newId() -> str:
    """
    Returns:
        A name for a connection or a session that no other one has, in whatever process.
    """
    return os.urandom(8).hex()


class Origin:
    """
    Where events come from: one connection.

    Attributes:
        connection: its id.
        host: where the peer is: an IP address, or ``unix``. Behind the PROXY protocol it is what
            the load balancer said, so anything that no address has is escaped.
        port: the peer's, or `None`.
        authenticated: whether there was a login on it.
        address: of the peer, an `IAddress`; `None`: not known.

    Args:
        address: of the peer, an `IAddress`; `None`: not known.
    """

    __slots__ = ("address", "authenticated", "connection", "host", "port")

    def __init__(self, address: Any) -> None:
        self.address = address
        self.connection: str | None = None if address is None else newId()
        self.host: str | None = None
        self.port: int | None = None
        self.authenticated = False
        host = getattr(address, "host", None)
        if isinstance(host, str):
            self.host = host if host.isprintable() and " " not in host else ascii(host)
            self.port = address.port
        elif address is not None:
            self.host = "unix" if isinstance(address, UNIXAddress) else type(address).__name__

    @property
    def peer(self) -> str:
        """The place of the peer, for text."""
        if self.port is None:
            return self.host or "elsewhere"
        return f"{self.host} port {self.port}"


#: Of what did not come by Perspective Broker.
ELSEWHERE = Origin(None)


def originOf(broker: Any) -> Origin:
    """
    Args:
        broker: of a connection.

    Returns:
        Its origin, the same for all events.
    """
    origin: Origin | None = getattr(broker, "origin", None)
    if origin is None:
        if broker.transport is None:
            return ELSEWHERE
        origin = broker.origin = Origin(broker.transport.getPeer())
    return origin


class Audit:
    """
    Tells the events, one method for each kind; nobody else does.

    Args:
        observer: whom it tells; all observers of the program's log by default.
    """

    def __init__(self, observer: ILogObserver | None = None) -> None:
        self._log = LeanLogger(NAMESPACE, observer=observer)

    # Logins.

    def loggedIn(
        self, origin: Origin, identity: str, mechanism: str, seconds: float | None = None
    ) -> None:
        """
        A login was proved.

        Args:
            origin: of the login.
            identity: the name of the identity.
            mechanism: the name of the mechanism.
            seconds: from the claim to the proof.
        """
        if origin is not ELSEWHERE:
            origin.authenticated = True
        self._tell(
            LOGIN_ACCEPTED,
            origin,
            {
                "identity": identity,
                "mechanism": mechanism,
                "seconds": None if seconds is None else round(seconds, 6),
            },
        )

    def refused(self, origin: Origin, identity: str, mechanism: str, reason: str) -> None:
        """
        A login was refused.

        Args:
            origin: of the login.
            identity: the claimed name.
            mechanism: the name of the mechanism; empty if there is none.
            reason: the real one.
        """
        self._tell(
            LOGIN_REFUSED,
            origin,
            {
                "identity": _cut(identity),
                "mechanism": mechanism or "no mechanism",
                "reason": _inLine(reason),
            },
        )

    def throttled(self, origin: Origin, identity: str, mechanism: str, retryAfter: float) -> None:
        """
        A login was put off, since there were too many that failed.

        Args:
            origin: of the login.
            identity: the claimed name.
            mechanism: the name of the mechanism; empty if there is none.
            retryAfter: seconds, as the client is told.
        """
        self._tell(
            LOGIN_THROTTLED,
            origin,
            {
                "identity": _cut(identity),
                "mechanism": mechanism or "no mechanism",
                "retryAfter": retryAfter,
            },
        )

    def mechanismRefused(self, origin: Origin, identity: str, mechanism: object) -> None:
        """
        A client asked for a mechanism that it is not offered; it may go on by another one.

        Args:
            origin: of the login.
            identity: the claimed name.
            mechanism: what the client sent as the name of the mechanism.
        """
        name = mechanism if isinstance(mechanism, str) else type(mechanism).__name__
        self._tell(MECHANISM_REFUSED, origin, {"identity": _cut(identity), "mechanism": _cut(name)})

    # Sessions.

    def attached(self, session: Any) -> None:
        """
        A client was attached.

        Args:
            session: a `pbauth.sessions.Session`.
        """
        self._tellSession(SESSION_ATTACHED, session, None)

    def attachRefused(
        self,
        origin: Origin,
        identity: str,
        mechanism: str,
        key: tuple[str, str | None],
        reason: str,
    ) -> None:
        """
        A client that had logged in was not attached.

        Args:
            origin: of the login.
            identity: the name of the identity.
            mechanism: the name of the mechanism of the login.
            key: service and perspective that it asked for.
            reason: the real one.
        """
        service, perspective = key
        self._tell(
            SESSION_REFUSED,
            origin,
            {
                "identity": identity,
                "mechanism": mechanism,
                "service": _cut(service),
                "perspective": None if perspective is None else _cut(perspective),
                "reason": _inLine(reason),
            },
        )

    def revoked(self, session: Any, reason: str) -> None:
        """
        The server takes a session away; that it is detached is told as well.

        Args:
            session: a `pbauth.sessions.Session`.
            reason: why.
        """
        self._tellSession(SESSION_REVOKED, session, reason)

    def detached(self, session: Any, reason: str) -> None:
        """
        A client was detached. Told once for each `attached`.

        Args:
            session: a `pbauth.sessions.Session`.
            reason: why.
        """
        self._tellSession(SESSION_DETACHED, session, reason)

    # Connections.

    def dropped(self, origin: Origin, reason: DropReason, fault: str | None = None) -> None:
        """
        A connection ran into a limit.

        Args:
            origin: the connection.
            reason: the limit.
            fault: what exactly, if there is more to say.
        """
        self._tell(
            CONNECTION_DROPPED,
            origin,
            {"reason": reason.value, "fault": fault, "authenticated": origin.authenticated},
        )

    # Accounts, as their owners change them.

    def passwordChanged(self, origin: Origin, identity: str, mechanism: str) -> None:
        """
        Somebody changed the own password.

        Args:
            origin: of the login.
            identity: the name of the identity.
            mechanism: the name of the mechanism of the login.
        """
        self._tell(PASSWORD_CHANGED, origin, {"identity": identity, "mechanism": mechanism})

    def verifierRenewed(self, origin: Origin, identity: str, mechanism: str) -> None:
        """
        A verifier was replaced by a stronger one of the same password.

        Args:
            origin: of the login.
            identity: the name of the identity.
            mechanism: the name of the mechanism of the login.
        """
        self._tell(VERIFIER_RENEWED, origin, {"identity": identity, "mechanism": mechanism})

    # Accounts, as an administrator changes them. `operator` is the administrator's name.

    def userAdded(self, operator: str, identity: str) -> None:
        """An account was added."""
        self._tellAct(USER_ADDED, operator, identity)

    def userRemoved(self, operator: str, identity: str) -> None:
        """An account was removed."""
        self._tellAct(USER_REMOVED, operator, identity)

    def passwordSet(self, operator: str, identity: str) -> None:
        """An account was given a new password."""
        self._tellAct(USER_PASSWORD, operator, identity)

    def locked(self, operator: str, identity: str) -> None:
        """An account was locked."""
        self._tellAct(USER_LOCKED, operator, identity)

    def unlocked(self, operator: str, identity: str) -> None:
        """An account was unlocked."""
        self._tellAct(USER_UNLOCKED, operator, identity)

    def keyGranted(self, operator: str, identity: str, service: str, perspective: str) -> None:
        """A key was put on a keyring."""
        self._tellAct(KEY_GRANTED, operator, identity, service=service, perspective=perspective)

    def keyRevoked(self, operator: str, identity: str, service: str, perspective: str) -> None:
        """A key was taken from a keyring."""
        self._tellAct(KEY_REVOKED, operator, identity, service=service, perspective=perspective)

    def publicKeyAdded(self, operator: str, identity: str, fingerprint: str) -> None:
        """A public key was let in."""
        self._tellAct(PUBLIC_KEY_ADDED, operator, identity, fingerprint=fingerprint)

    def publicKeyRemoved(self, operator: str, identity: str, fingerprint: str) -> None:
        """A public key is let in no more."""
        self._tellAct(PUBLIC_KEY_REMOVED, operator, identity, fingerprint=fingerprint)

    def imported(self, operator: str, users: int) -> None:
        """Accounts were added, so many in one batch."""
        event = {"event": USERS_IMPORTED.name, "operator": operator, "users": users}
        self._log.send(LogLevel.info, USERS_IMPORTED.text, event)

    def exported(self, operator: str) -> None:
        """Whole accounts are read, as for an export."""
        event = {"event": USERS_READ.name, "operator": operator}
        self._log.send(LogLevel.info, USERS_READ.text, event)

    def sessionEnded(self, operator: str, identity: str, session: str) -> None:
        """A session was ended; `session` is its id."""
        self._tellAct(SESSION_ENDED, operator, identity, session=session)

    # How.

    def _tell(self, kind: Kind, origin: Origin, event: dict[str, Any]) -> None:
        event["event"] = kind.name
        event["peer"] = origin.peer
        event["host"] = origin.host
        event["port"] = origin.port
        event["connection"] = origin.connection
        self._log.send(LogLevel.info, kind.text, event)

    def _tellSession(self, kind: Kind, session: Any, reason: str | None) -> None:
        self._tell(
            kind,
            originOf(session.broker),
            {
                "identity": session.identity.name,
                "service": session.serviceName,
                "perspective": session.perspectiveName,
                "mechanism": session.mechanism,
                "session": session.id,
                "reason": reason,
            },
        )

    def _tellAct(self, kind: Kind, operator: str, identity: str, **more: Any) -> None:
        event = {"event": kind.name, "operator": operator, "identity": identity, **more}
        self._log.send(LogLevel.info, kind.text, event)


def asLine(event: LogEvent) -> bytes | None:
    """
    Args:
        event: of whatever log.

    Returns:
        One line of JSON, in ASCII, with its end; `None` if it is no event of the audit.
    """
    if event.get("log_namespace") != NAMESPACE:
        return None
    kind = KINDS.get(event.get("event", ""))
    return None if kind is None else encode(kind, event["log_time"], event)


def encode(kind: Kind, when: float, event: LogEvent) -> bytes:
    """
    Write an event as a line of JSON.

    Args:
        kind: of the event.
        when: seconds since the epoch.
        event: holds its fields.

    Returns:
        The line.
    """
    moment = datetime.fromtimestamp(when, timezone.utc).isoformat(timespec="microseconds")
    line = {"time": moment[:-6] + "Z", "event": kind.name}
    for field in kind.fields:
        value = event.get(field)
        if value is not None:
            line[field] = value
    return _encodeJSON(line).encode("ascii") + b"\n"


_encodeJSON = json.JSONEncoder(separators=(",", ":")).encode


def _cut(name: str) -> str:
    """A name that somebody claims: a longer one than there can be would only fill the disk."""
    return name if len(name) <= LONGEST else f"{name[:LONGEST]}..."


def _inLine(reason: str) -> str:
    """A reason is ours, but may quote something."""
    return reason if reason.isprintable() else ascii(reason)
