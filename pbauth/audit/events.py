"""The kinds of events that the audit has, and their forms: text, and a line of JSON."""

from __future__ import annotations

import enum
import json
from datetime import datetime, timezone
from time import time
from typing import Any

from attrs import frozen
from twisted.logger import LogEvent, Logger

#: The namespace of the events, and of no others.
NAMESPACE = "pbauth.audit"


class DropReason(enum.Enum):
    """Name the limit that a dropped connection ran into."""

    GRACE_TIME = "no login in time"
    ATTEMPTS = "too many failed logins"
    CHALLENGERS = "too many logins under way at once"
    PROTOCOL = "broke the protocol"
    BYTES = "too many bytes before the login"
    CONNECTIONS = "too many connections without a login"
    IDLE = "no sign of life"
    CALLS = "far too many calls"
    SESSIONS = "far too many sessions"
    MESSAGE = "far too large a message"
    NO_LOGIN = "no valid login is left"
    INTERNAL = "internal error"


@frozen
class Kind:
    """
    Describe a kind of event.

    Attributes:
        name: its name.
        text: its `log_format`; `None`: it has no line in the ordinary log, since another event says
            the same there.
        fields: what it holds, in the order of the line of JSON. What is `None` is left out there.
    """

    name: str
    text: str | None
    fields: tuple[str, ...]


_WHERE = ("host", "port", "connection")


_SESSION = ("identity", "service", "perspective", "mechanism", "session", *_WHERE)


LOGIN_ACCEPTED = Kind(
    "login.accepted",
    "{identity!r} logged in with {mechanism} from {peer}",
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
    None,
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


USER_EXPIRES = Kind(
    "user.expires",
    "{operator!r} let {identity!r} expire at {expires}",
    ("identity", "expires", "operator"),
)


GROUP_ADDED = Kind("group.added", "{operator!r} added the group {group!r}", ("group", "operator"))


GROUP_REMOVED = Kind(
    "group.removed", "{operator!r} removed the group {group!r}", ("group", "operator")
)


GROUP_JOINED = Kind(
    "group.joined",
    "{operator!r} added {identity!r} to the group {group!r}",
    ("group", "identity", "operator"),
)


GROUP_LEFT = Kind(
    "group.left",
    "{operator!r} took {identity!r} out of the group {group!r}",
    ("group", "identity", "operator"),
)


GROUP_KEY_GRANTED = Kind(
    "groupkey.granted",
    "{operator!r} granted the group {group!r} the key to {perspective!r} of {service!r}",
    ("group", "service", "perspective", "operator"),
)


GROUP_KEY_REVOKED = Kind(
    "groupkey.revoked",
    "{operator!r} revoked from the group {group!r} the key to {perspective!r} of {service!r}",
    ("group", "service", "perspective", "operator"),
)


PUBLIC_KEY_ADDED = Kind(
    "publickey.added",
    "{operator!r} added the public key {fingerprint} to {identity!r}",
    ("identity", "fingerprint", "operator"),
)


PUBLIC_KEY_REMOVED = Kind(
    "publickey.removed",
    "{operator!r} removed the public key {fingerprint} from {identity!r}",
    ("identity", "fingerprint", "operator"),
)


VOUCHER_ISSUED = Kind(
    "voucher.issued",
    "{operator!r} issued the voucher {voucher} ({label!r}) of {identity!r}, good until {expires}",
    ("identity", "voucher", "label", "expires", "operator"),
)


VOUCHER_USED = Kind(
    "voucher.used",
    "{identity!r} logged in with the voucher {voucher} ({label!r}) from {peer}",
    ("identity", "voucher", "label", *_WHERE),
)


VOUCHER_REVOKED = Kind(
    "voucher.revoked",
    "{operator!r} revoked {vouchers} vouchers {label!r} of {identity!r}",
    ("identity", "label", "vouchers", "operator"),
)


USERS_IMPORTED = Kind(
    "users.imported", "{operator!r} imported {users} users", ("users", "operator")
)


USERS_READ = Kind(
    "users.read", "{operator!r} read the accounts of all users, with their verifiers", ("operator",)
)


USERS_RESTORED = Kind(
    "users.restored", "{operator!r} replaced all accounts by those of a backup", ("operator",)
)


CERTIFICATE_EXPIRING = Kind("certificate.expiring", None, ("port", "expires"))


SESSION_ENDED = Kind(
    "session.ended",
    "{operator!r} ended the session {session} of {identity!r}",
    ("identity", "session", "operator"),
)


SERVER_DRAINED = Kind(
    "server.drained", "{operator!r} asked the server to drain and stop", ("operator",)
)


AUDIT_GAP = Kind("audit.gap", "{lost} events could not be written to the audit file", ("lost",))


#: All kinds, by name.
KINDS = {kind.name: kind for kind in list(globals().values()) if isinstance(kind, Kind)}


class LeanLogger(Logger):
    """
    Emit events as a `twisted.logger.Logger` does, but without looking the level up: that is more
    than half of what an event costs.
    """

    def emit(self, level: Any, format: str | None = None, **kwargs: object) -> None:
        """Emit an event (see `twisted.logger.Logger`)."""
        self.send(level, format, kwargs)

    def send(self, level: Any, format: str | None, event: LogEvent) -> None:
        """
        Emit an event that is made already.

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


def asLine(event: LogEvent) -> bytes | None:
    """
    Write an event of the audit log as a line of JSON.

    Args:
        event: of whatever log.

    Returns:
        One line of JSON, in ASCII, with its end; `None` if it is not an event of the audit.
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
