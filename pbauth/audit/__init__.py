"""
The audit log: who logged in, who was refused and why, who came and went, what an administrator did.

What an operator may want to look up later is recorded here and nowhere else, each time as one event
of `twisted.logger` in the namespace `NAMESPACE`.  `Kind` says what an event holds; the kinds are
in `pbauth.audit.events`, and ``docs/howto/monitoring.rst`` is their table.  An event has two forms:

- one line of text, for the ordinary log.  Whatever a peer may have chosen is shown as Python writes
  it, so that nothing in it ends the line, colours it, or turns it round; and cut, if it is longer
  than a name can be.  An event that another one repeats has no line: a session that is revoked is
  also detached, and the line that says so has the reason.
- a line of JSON (`asLine`), for machines: ASCII only, whatever is in it.

No secret is in any of them: no password, verifier, challenge, response or private key is ever given
to this module.

An `Audit` observes and changes nothing.  It is handed in: an authorizer takes one, its `Sessions`
hold it as ``authorizer.sessions.audit``, and whatever works on that authorizer's accounts (logins,
sessions, administration) records its events there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from twisted.logger import ILogObserver, LogEvent, LogLevel

from pbauth._arguments import checkCallable
from pbauth._quoting import cut, inLine
from pbauth.audit.events import (
    CERTIFICATE_EXPIRING,
    CONNECTION_DROPPED,
    GROUP_ADDED,
    GROUP_JOINED,
    GROUP_KEY_GRANTED,
    GROUP_KEY_REVOKED,
    GROUP_LEFT,
    GROUP_REMOVED,
    KEY_GRANTED,
    KEY_REVOKED,
    LOGIN_ACCEPTED,
    LOGIN_REFUSED,
    LOGIN_THROTTLED,
    MECHANISM_REFUSED,
    NAMESPACE,
    PASSWORD_CHANGED,
    PUBLIC_KEY_ADDED,
    PUBLIC_KEY_REMOVED,
    SERVER_DRAINED,
    SESSION_ATTACHED,
    SESSION_DETACHED,
    SESSION_ENDED,
    SESSION_REFUSED,
    SESSION_REVOKED,
    USER_ADDED,
    USER_EXPIRES,
    USER_LOCKED,
    USER_PASSWORD,
    USER_REMOVED,
    USER_UNLOCKED,
    USERS_IMPORTED,
    USERS_READ,
    USERS_RESTORED,
    VERIFIER_RENEWED,
    VOUCHER_ISSUED,
    VOUCHER_REVOKED,
    VOUCHER_USED,
    DropReason,
    Kind,
    LeanLogger,
)
from pbauth.names import LONGEST
from pbauth.net.origin import Origin, originOf


class Audit:
    """
    Record events, with one method for each kind.

    Args:
        observer: what gets the events; by default every observer of the program's log.

    Raises:
        TypeError: it can't be called.
    """

    def __init__(self, observer: ILogObserver | Callable[[LogEvent], object] | None = None) -> None:
        if observer is not None:
            checkCallable(observer, "observer")
        # Twisted only calls it.
        self._log = LeanLogger(NAMESPACE, observer=observer)  # type: ignore[arg-type]

    # Logins.

    def loggedIn(
        self, origin: Origin, identity: str, mechanism: str, seconds: float | None = None
    ) -> None:
        """
        Record that a login was proved.

        Args:
            origin: of the login.
            identity: the name of the identity.
            mechanism: the name of the mechanism.
            seconds: from the claim to the proof.
        """
        self._record(
            LOGIN_ACCEPTED,
            origin,
            {
                "identity": identity,
                "mechanism": _mechanism(mechanism),
                # Which takes a tenth of the time of `round`.
                "seconds": None if seconds is None else int(seconds * 1e6) / 1e6,
            },
        )

    def refused(self, origin: Origin, identity: str, mechanism: str, reason: str) -> None:
        """
        Record that a login was refused.

        Args:
            origin: of the login.
            identity: the claimed name.
            mechanism: the name of the mechanism; empty if there is none.
            reason: the real one.
        """
        self._record(
            LOGIN_REFUSED,
            origin,
            {
                "identity": identity,
                "mechanism": _mechanism(mechanism),
                "reason": reason,
            },
        )

    def throttled(self, origin: Origin, identity: str, mechanism: str, retryAfter: float) -> None:
        """
        Record that a login was put off, since too many had failed.

        Args:
            origin: of the login.
            identity: the claimed name.
            mechanism: the name of the mechanism; empty if there is none.
            retryAfter: seconds, as sent to the client.
        """
        self._record(
            LOGIN_THROTTLED,
            origin,
            {
                "identity": identity,
                "mechanism": _mechanism(mechanism),
                "retryAfter": retryAfter,
            },
        )

    def mechanismRefused(self, origin: Origin, identity: str, mechanism: object) -> None:
        """
        Record that a client asked for a mechanism that it is not offered. It may try another one.

        Args:
            origin: of the login.
            identity: the claimed name.
            mechanism: what the client sent as the name of the mechanism.
        """
        name = mechanism if isinstance(mechanism, str) else type(mechanism).__name__
        self._record(MECHANISM_REFUSED, origin, {"identity": identity, "mechanism": cut(name)})

    # Sessions.

    def attached(self, session: Any) -> None:
        """
        Record that a client was attached.

        Args:
            session: a `pbauth.perspectives.sessions.Session`.
        """
        self._recordSession(SESSION_ATTACHED, session, None)

    def attachRefused(
        self,
        origin: Origin,
        identity: str,
        mechanism: str,
        key: tuple[str, str | None],
        reason: str,
    ) -> None:
        """
        Record that a client that had logged in was not attached.

        Args:
            origin: of the login.
            identity: the name of the identity.
            mechanism: the name of the mechanism of the login.
            key: service and perspective that it asked for.
            reason: the real one.
        """
        service, perspective = key
        self._record(
            SESSION_REFUSED,
            origin,
            {
                "identity": identity,
                "mechanism": mechanism,
                "service": service,
                "perspective": perspective,
                "reason": reason,
            },
        )

    def revoked(self, session: Any, reason: str) -> None:
        """
        Record that the server takes a session away; `detached` is recorded later.

        Args:
            session: a `pbauth.perspectives.sessions.Session`.
            reason: why.
        """
        self._recordSession(SESSION_REVOKED, session, reason)

    def detached(self, session: Any, reason: str) -> None:
        """
        Record that a client was detached; once for each `attached`.

        Args:
            session: a `pbauth.perspectives.sessions.Session`.
            reason: why.
        """
        self._recordSession(SESSION_DETACHED, session, reason)

    # Connections.

    def dropped(self, origin: Origin, reason: DropReason, fault: str | None = None) -> None:
        """
        Record that a connection ran into a limit, and is dropped.

        Args:
            origin: the connection.
            reason: the limit.
            fault: what exactly, if there is more to say.
        """
        self._record(
            CONNECTION_DROPPED,
            origin,
            {"reason": reason.value, "fault": fault, "authenticated": origin.authenticated},
        )

    # Accounts, as their owners change them.

    def passwordChanged(self, origin: Origin, identity: str, mechanism: str) -> None:
        """
        Record that a client changed its own password.

        Args:
            origin: of the login.
            identity: the name of the identity.
            mechanism: the name of the mechanism of the login.
        """
        self._record(PASSWORD_CHANGED, origin, {"identity": identity, "mechanism": mechanism})

    def verifierRenewed(self, origin: Origin, identity: str, mechanism: str) -> None:
        """
        Record that a verifier was replaced by a stronger one of the same password.

        Args:
            origin: of the login.
            identity: the name of the identity.
            mechanism: the name of the mechanism of the login.
        """
        self._record(VERIFIER_RENEWED, origin, {"identity": identity, "mechanism": mechanism})

    # Accounts, as an administrator changes them. `operator` is the administrator's name.

    def userAdded(self, operator: str, identity: str) -> None:
        """Record that an account was added."""
        self._recordAct(USER_ADDED, operator, identity)

    def userRemoved(self, operator: str, identity: str) -> None:
        """Record that an account was removed."""
        self._recordAct(USER_REMOVED, operator, identity)

    def passwordSet(self, operator: str, identity: str) -> None:
        """Record that an account was given a new password."""
        self._recordAct(USER_PASSWORD, operator, identity)

    def locked(self, operator: str, identity: str) -> None:
        """Record that an account was locked."""
        self._recordAct(USER_LOCKED, operator, identity)

    def unlocked(self, operator: str, identity: str) -> None:
        """Record that an account was unlocked."""
        self._recordAct(USER_UNLOCKED, operator, identity)

    def keyGranted(self, operator: str, identity: str, service: str, perspective: str) -> None:
        """Record that a key was put on a keyring."""
        self._recordAct(KEY_GRANTED, operator, identity, service=service, perspective=perspective)

    def keyRevoked(self, operator: str, identity: str, service: str, perspective: str) -> None:
        """Record that a key was taken from a keyring."""
        self._recordAct(KEY_REVOKED, operator, identity, service=service, perspective=perspective)

    def expirySet(self, operator: str, identity: str, expires: str) -> None:
        """Record when an account is to expire: a date, or ``never``."""
        self._recordAct(USER_EXPIRES, operator, identity, expires=expires)

    def groupAdded(self, operator: str, group: str) -> None:
        """Record that a group was added."""
        self._recordGroup(GROUP_ADDED, operator, group)

    def groupRemoved(self, operator: str, group: str) -> None:
        """Record that a group was removed."""
        self._recordGroup(GROUP_REMOVED, operator, group)

    def groupJoined(self, operator: str, group: str, identity: str) -> None:
        """Record that an identity was added to a group."""
        self._recordGroup(GROUP_JOINED, operator, group, identity=identity)

    def groupLeft(self, operator: str, group: str, identity: str) -> None:
        """Record that an identity was taken out of a group."""
        self._recordGroup(GROUP_LEFT, operator, group, identity=identity)

    def groupKeyGranted(self, operator: str, group: str, service: str, perspective: str) -> None:
        """Record that a group was given a key."""
        more = {"service": service, "perspective": perspective}
        self._recordGroup(GROUP_KEY_GRANTED, operator, group, **more)

    def groupKeyRevoked(self, operator: str, group: str, service: str, perspective: str) -> None:
        """Record that a key was taken from a group."""
        more = {"service": service, "perspective": perspective}
        self._recordGroup(GROUP_KEY_REVOKED, operator, group, **more)

    def _recordGroup(self, kind: Kind, operator: str, group: str, **more: str) -> None:
        event = {"event": kind.name, "operator": operator, "group": group, **more}
        self._log.send(LogLevel.info, kind.text, event)

    def publicKeyAdded(self, operator: str, identity: str, fingerprint: str) -> None:
        """Record that a public key was authorized."""
        self._recordAct(PUBLIC_KEY_ADDED, operator, identity, fingerprint=fingerprint)

    def publicKeyRemoved(self, operator: str, identity: str, fingerprint: str) -> None:
        """Record that a public key is no longer authorized."""
        self._recordAct(PUBLIC_KEY_REMOVED, operator, identity, fingerprint=fingerprint)

    # Vouchers. What is refused is a login that is refused.

    def voucherIssued(self, operator: str, identity: str, issued: Any) -> None:
        """Record that a voucher was issued, a `pbauth.mechanisms.voucher.IssuedVoucher`."""
        until = issued.until.isoformat(timespec="seconds")
        self._recordAct(
            *(VOUCHER_ISSUED, operator, identity),
            voucher=issued.id,
            label=issued.label,
            expires=until,
        )

    def voucherUsed(self, origin: Origin, identity: str, proof: Any) -> None:
        """
        Record that a login was proved by a voucher.

        Args:
            origin: of the login.
            identity: the name of the issuer.
            proof: a `pbauth.mechanisms.voucher.VoucherProof`.
        """
        event = {"identity": identity, "voucher": proof.id, "label": proof.path}
        self._record(VOUCHER_USED, origin, event)

    def voucherRevoked(self, operator: str, identity: str, label: str, vouchers: int) -> None:
        """Record that so many vouchers of this id or label were revoked."""
        self._recordAct(VOUCHER_REVOKED, operator, identity, label=label, vouchers=vouchers)

    def imported(self, operator: str, users: int) -> None:
        """Record that this many accounts were added in one batch."""
        event = {"event": USERS_IMPORTED.name, "operator": cut(operator), "users": users}
        self._log.send(LogLevel.info, USERS_IMPORTED.text, event)

    def exported(self, operator: str) -> None:
        """Record that whole accounts are read, as for an export."""
        event = {"event": USERS_READ.name, "operator": cut(operator)}
        self._log.send(LogLevel.info, USERS_READ.text, event)

    def restored(self, operator: str) -> None:
        """Record that all accounts are replaced by those of a backup."""
        event = {"event": USERS_RESTORED.name, "operator": cut(operator)}
        self._log.send(LogLevel.info, USERS_RESTORED.text, event)

    def certificateExpiring(self, port: str, expires: datetime) -> None:
        """
        Record that a certificate of the server expires soon; the ordinary log has it as a warning.

        Args:
            port: the description of the port that shows it.
            expires: when.
        """
        event = {
            "event": CERTIFICATE_EXPIRING.name,
            "port": port,
            "expires": expires.isoformat(timespec="seconds"),
        }
        self._log.send(LogLevel.info, CERTIFICATE_EXPIRING.text, event)

    def sessionEnded(self, operator: str, identity: str, session: str) -> None:
        """Record that an administrator ended a session; `session` is its id."""
        self._recordAct(SESSION_ENDED, operator, identity, session=session)

    def drained(self, operator: str) -> None:
        """Record that an administrator asked the server to drain and stop."""
        event = {"event": SERVER_DRAINED.name, "operator": cut(operator)}
        self._log.send(LogLevel.info, SERVER_DRAINED.text, event)

    def _record(self, kind: Kind, origin: Origin, event: dict[str, Any]) -> None:
        _bound(event)
        event["event"] = kind.name
        event["peer"] = origin.peer
        event["host"] = origin.host
        event["port"] = origin.port
        event["connection"] = origin.connection
        self._log.send(LogLevel.info, kind.text, event)

    def _recordSession(self, kind: Kind, session: Any, reason: str | None) -> None:
        self._record(
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

    def _recordAct(self, kind: Kind, operator: str, identity: str, **more: Any) -> None:
        event = {"operator": operator, "identity": identity, **more}
        _bound(event)
        event["event"] = kind.name
        self._log.send(LogLevel.info, kind.text, event)


# What the texts show as Python writes it. All else is shown as it is.
_QUOTED = frozenset({"identity", "service", "perspective", "operator", "label"})

# Of mechanisms (RFC 4422, 3.1), and of what `IdentityChecker` checks. Others are quoted.
_MECHANISM = re.compile(r"[A-Z0-9_-]{1,20}|password|ssh key")


def _bound(event: dict[str, Any]) -> None:
    """
    Cut all that is longer than it can be, and escape all that the text would show as it is.
    Mechanisms are seen to already.
    """
    everything = "".join([value for value in event.values() if type(value) is str])
    if len(everything) <= LONGEST and everything.isprintable():
        return
    for field, value in event.items():
        if (
            type(value) is str
            and not (len(value) <= LONGEST and value.isprintable())
            and field != "mechanism"
        ):
            event[field] = cut(value) if field in _QUOTED else inLine(value)


def _mechanism(sent: str) -> str:
    """Return what is recorded as the name of a mechanism, of what a client sent as one."""
    if not sent:
        return "no mechanism"
    return sent if _MECHANISM.fullmatch(sent) else ascii(cut(sent))
