"""
Who is attached to what, and how that ends.

A `Session` is one client on one perspective.  Everything that decides when `brokerAttached` and
`brokerDetached` of the perspective run lives here, in one state machine:

==============  ==============================  ===========================================
state           event                           what happens
==============  ==============================  ===========================================
`REQUESTED`     `attach` got the perspective    `brokerAttached` is called; `ATTACHING`
`REQUESTED`     `end`                           `ENDED`: there is nothing to undo
`ATTACHING`     `brokerAttached` fired          `LIVE`
`ATTACHING`     `brokerAttached` failed         `ENDED`: the client was never attached
`ATTACHING`     `end`                           `ENDING`: wait for `brokerAttached`
`ENDING`        `brokerAttached` fired          `brokerDetached` is called; `ENDED`
`ENDING`        `brokerAttached` failed         `ENDED`
`LIVE`          `end`                           `brokerDetached` is called; `ENDED`
`ENDED`         `end`                           nothing, once more
==============  ==============================  ===========================================

So `brokerDetached` is called exactly once for each `brokerAttached` that succeeded, whatever ends
the session.  What the application raises while a session ends is logged and changes nothing.

What the client holds is a reference to the session, not to the perspective: from the moment that
the session ends, calls fail with `Detached`, and so do those that were under way.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.spread import pb
from twisted.spread.jelly import Jellyable

from pbauth._arguments import checkCallable, checkProvides, checkType
from pbauth._async import OneShot, run, settled
from pbauth._contained import contained
from pbauth._limits import Limits
from pbauth.audit import Audit
from pbauth.errors import Detached, MethodNotAllowed
from pbauth.interfaces import (
    IClients,
    IIdentity,
    ILimitedIdentity,
    IPerspective,
    IPresence,
    IRevokingBroker,
)
from pbauth.mechanisms.voucher import VoucherProof
from pbauth.net.origin import newId
from pbauth.perspectives.byname import ByName
from pbauth.perspectives.current import CURRENT, runFor
from pbauth.perspectives.perspective import NOBODY

_log = Logger()

#: The method by which a client asks whether its session is live; none of a perspective can have
#: this name. A client that only listens would not learn of the end otherwise.
STILL_LIVE = "?"


class EndReason(enum.Enum):
    """Say why a session ended."""

    CONNECTION_LOST = "connection lost"
    DETACHED = "detached by the client"
    REVOKED = "no longer allowed"
    LOCKED = "account locked"
    KEY_REVOKED = "key revoked"
    PASSWORD_CHANGED = "password changed"  # noqa: S105 - no password
    PUBLIC_KEY_REMOVED = "public key removed"
    VOUCHER_REVOKED = "voucher revoked"
    REMOVED = "identity removed"
    EXPIRED = "account expired"
    ADMINISTRATOR = "ended by the administrator"

    @property
    def revokes(self) -> bool:
        """Return whether the server takes away what the client could have kept."""
        return self not in (EndReason.CONNECTION_LOST, EndReason.DETACHED)

    @property
    def isFinal(self) -> bool:
        """Return whether the client, as it is, can't log in again to the same perspective."""
        return self in (
            EndReason.LOCKED,
            EndReason.KEY_REVOKED,
            EndReason.PASSWORD_CHANGED,
            EndReason.PUBLIC_KEY_REMOVED,
            EndReason.VOUCHER_REVOKED,
            EndReason.REMOVED,
            EndReason.EXPIRED,
        )


class _State(enum.Enum):
    REQUESTED = enum.auto()
    ATTACHING = enum.auto()
    LIVE = enum.auto()
    ENDING = enum.auto()
    ENDED = enum.auto()


class SessionReference(pb.Referenceable):
    """
    Pass the client's calls on to the perspective while the session is live.

    Args:
        session: the session.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._exporting: Any = None

    def remoteMessageReceived(self, broker: Any, message: Any, args: Any, kw: Any) -> Any:
        """
        Pass a call on (see `twisted.spread.pb.IPerspective`), or refuse it: `Detached`,
        `MethodNotAllowed`.
        """
        perspective = self.session.perspective
        if perspective is None or not self.session.live:
            raise self.session.detachedError()
        if message == STILL_LIVE:
            return broker.serialize(None)
        if self.session.methods is not None:
            self.session.checkMethod(message)
        if self._exporting is None:
            revokes = IRevokingBroker.providedBy(broker)
            self._exporting = broker.exportingFor(self.session) if revokes else broker
        return callFor(
            (self.session,),
            perspective.perspectiveMessageReceived,
            self._exporting,
            message,
            args,
            kw,
        )


def callFor(
    sessions: Collection[Any],
    receive: Callable[[Any, Any, Any, Any], Any],
    broker: Any,
    message: Any,
    args: Any,
    kw: Any,
) -> Any:
    """
    Pass a call on, for sessions.

    Args:
        sessions: that the called object belongs to; one of them is live.
        receive: the object's method that takes calls.
        broker: as the method sees it.
        message: the name of the method that is called.
        args: its arguments.
        kw: its arguments by name.

    Returns:
        What it comes to, serialised, or a Deferred of that.

    Raises:
        Exception: whatever the method raises.
    """
    # Nearly always there is one.
    if len(sessions) == 1:
        (caller,) = sessions
    else:
        caller = next(filter(_isLive, sessions), None)
    token = CURRENT.set(caller)
    try:
        result = receive(broker, message, args, kw)
    except Exception as error:
        if all(session.ended for session in sessions):
            (session, *_) = sessions
            return session.watch(fail())
        fails = getattr(broker, "fails", None)
        if fails is None or not isinstance(error, Jellyable):
            raise
        return fail(fails(Failure()))
    finally:
        CURRENT.reset(token)
    if not isinstance(result, Deferred):
        return result
    fails = getattr(broker, "fails", None)
    (session, *others) = sessions
    return session.watch(result if fails is None else result.addErrback(fails), others)


def _isLive(session: Session) -> bool:
    return session.live


def currentSession() -> Session | None:
    """
    Find the session whose call is being run.

    It is known in the methods of a perspective, and of the objects that a session was given, in
    `attached` and `detached`; in coroutines also after an ``await``. Callbacks of a Deferred do not
    know it.

    Returns:
        The session, which knows the `identity`, the client object (`clientref`), the address of the
        `peer` and the `perspective`; `None` where nobody calls.
    """
    session: Session | None = CURRENT.get()
    return session


def _nothingAfterTheEnd(result: Any) -> None:
    """
    Drop what a call came to after its session had ended: the client's answer is `Detached`.

    A bug of the application's reaches the log all the same.
    """
    if isinstance(result, Failure) and not result.check(pb.Error, CancelledError):
        _log.failure("A call failed after its session had ended.", result)


class _UnderWay:
    """A call that is under way, and whose it is."""

    __slots__ = ("answer", "sessions")

    def __init__(self, sessions: set[Session]) -> None:
        self.answer: Deferred[Any] = Deferred()
        self.sessions = sessions


class Session:
    """
    Attach one client to one perspective.

    Attributes:
        id: what it is called in the audit.
        identity: the `IIdentity` that the client proved to be.
        serviceName: the service of the key that it uses.
        perspectiveName: the perspective of the key that it uses.
        proof: what the login was proved by, a verifier or a public key; `None` for a mechanism
            that has neither.
        mechanism: the name of the mechanism of the login.
        broker: the broker of the connection.
        clientref: a reference to the client's own object, or `None`.
        peer: the address that the client connected from, an `IAddress`.
        since: when it attached, in seconds by the server's clock.
        bound: the login is bound to its TLS connection: nobody has passed it on.
        methods: the names of the perspective's methods that may be called; `None`: all.
        perspective: what `attached` gave; `None` until then.
        reference: what the client holds; `None` once the session has ended.
        endReason: why it ended; `None` until then.
    """

    def __init__(
        self,
        sessions: Sessions,
        identity: IIdentity,
        serviceName: str,
        perspectiveName: str,
        mechanism: str,
        proof: object,
        broker: Any,
        clientref: Any,
        peer: Any = None,
        since: float = 0.0,
        bound: bool = False,
    ) -> None:
        self._sessions = sessions
        self._audit = sessions.audit
        self.id = newId()
        self.identity = identity
        self.serviceName = serviceName
        self.perspectiveName = perspectiveName
        self.mechanism = mechanism
        self.proof = proof
        self.broker = broker
        self.clientref = clientref
        self.peer = peer
        self.since = since
        self.bound = bound
        self.methods: frozenset[str] | None = None
        self.limitTo(identity)
        self.perspective: IPerspective | None = None
        self.reference: SessionReference | None = SessionReference(self)
        self.endReason: EndReason | None = None
        self._state = _State.REQUESTED
        self._requested: IPerspective | None = None
        self._ended = OneShot()
        self._presence: Any = None
        self._underWay: set[_UnderWay] | None = None
        sessions._add(self)
        broker.notifyOnDisconnect(self._connectionLost)

    def __repr__(self) -> str:
        return (
            f"<Session of {self.identity.name!r} on "
            f"{self.serviceName!r}/{self.perspectiveName!r}: {self._state.name.lower()}>"
        )

    @property
    def live(self) -> bool:
        """Return whether the client may call the perspective."""
        return self._state is _State.LIVE

    @property
    def ended(self) -> bool:
        """Return whether the session has ended, or is to end as soon as it is attached."""
        return self._state in (_State.ENDING, _State.ENDED)

    @property
    def busy(self) -> bool:
        """Return whether a call of the client's is under way."""
        return bool(self._underWay)

    @property
    def voucher(self) -> VoucherProof | None:
        """Return the voucher of the login, with `id`, `label` and `blocks`; or `None`."""
        return self.proof if isinstance(self.proof, VoucherProof) else None

    def limitTo(self, identity: IIdentity) -> None:
        """
        Note which methods the keys of an identity, as it is now, are good for.

        Args:
            identity: that of this session.
        """
        limited = ILimitedIdentity(identity, None)
        byKey = None
        if limited is not None:
            byKey = limited.methodsFor(self.serviceName, self.perspectiveName)
        if isinstance(self.proof, VoucherProof):
            byKey = self.proof.limits.narrowed(Limits(methods=byKey)).methods
        self.methods = byKey

    def checkMethod(self, message: str | bytes) -> None:
        """
        Check that a method of the perspective may be called.

        Args:
            message: its name, as it came.

        Raises:
            MethodNotAllowed: the voucher of this session, or its key, is not good for it.
        """
        name = message.decode("utf-8", "replace") if isinstance(message, bytes) else message
        if self.methods is not None and name not in self.methods:
            raise MethodNotAllowed(name)

    def detachedError(self) -> Detached:
        """Return what calls fail with once the session has ended."""
        return Detached("" if self.endReason is None else self.endReason.value)

    def watch(self, result: Deferred[Any], others: Iterable[Session] = ()) -> Deferred[Any]:
        """
        Watch over a call of the client's that is under way.

        Args:
            result: what it will come to.
            others: further sessions that the called object belongs to.

        Returns:
            Fires with that; or fails with `Detached`, if all these sessions end before.
        """
        sessions = {each for each in (self, *others) if not each.ended}
        if not sessions:
            # The method has ended them itself.
            result.addBoth(_nothingAfterTheEnd)
            return fail(self.detachedError())
        if result.called and not result.paused:
            return result
        call = _UnderWay(sessions)
        for session in call.sessions:
            session._underWay = session._underWay or set()
            session._underWay.add(call)

        def settle(result: Any) -> None:
            if not call.sessions:
                _nothingAfterTheEnd(result)
                return
            for session in call.sessions:
                if session._underWay is not None:
                    session._underWay.discard(call)
            # It may be a failure.
            call.answer.callback(result)

        result.addBoth(settle)
        return call.answer

    def _cutOff(self) -> None:
        with contained(_log, "{session!r} can't be cut off", session=self):
            while self._underWay:
                call = self._underWay.pop()
                call.sessions.discard(self)
                if not call.sessions:
                    call.answer.errback(Failure(self.detachedError()))
            if IRevokingBroker.providedBy(self.broker):
                self.broker.revoke(self)
                if self.endReason is not None and self.endReason.revokes:
                    self.broker.tellEnded(self.reference, self.endReason.value)

    async def attach(self, perspective: IPerspective) -> None:
        """
        Attach the client.

        Args:
            perspective: what the service gave.

        Raises:
            Detached: the session was ended in the meantime.
            Exception: whatever the perspective or its service raised.
        """
        if self._state is not _State.REQUESTED:
            raise self.detachedError()
        if not IPerspective.providedBy(perspective):
            self._finish()
            raise TypeError(
                f"Service {self.serviceName!r} must return a perspective, "
                f"not {type(perspective).__name__}."
            )
        self._state = _State.ATTACHING
        self._requested = perspective
        if self.clientref is not None and IRevokingBroker.providedBy(self.broker):
            # What it is told from now on, by `attached` too, ends with the session.
            self.broker.exportingFor(self, self.clientref)
        self._showPerspectiveToClient(perspective)
        try:
            service = perspective.getService()
            if service is not None:
                service.cachePerspective(perspective)
            self._introduce(perspective)
            attached = perspective.brokerAttached
            given = await settled(
                runFor(self, attached, self.clientref, self.identity, self.broker)
            )
        except BaseException:
            self._state = _State.ENDED
            self._cutOff()
            self._finish()
            raise
        self._audit.attached(self)
        if not IPerspective.providedBy(given):
            self.perspective = perspective
            self.endReason = self.endReason or EndReason.DETACHED
            await self._detach()
            raise TypeError(
                f"attached() of {type(perspective).__name__} must return a perspective "
                f"(usually self), not {type(given).__name__}."
            )
        self.perspective = given
        if given is not perspective:
            if service is not None and given.getService() is None:
                given.setService(service)
            self._introduce(given)
            self._showPerspectiveToClient(given)
        if self._state is _State.ENDING:
            await self._detach()
            raise self.detachedError()
        self._state = _State.LIVE
        if self.clientref is not None:
            with contained(_log, "The clients of {session!r} do not work", session=self):
                clients = IClients(self.perspective, None)
                if clients is not None:
                    clients.joined(self)
        presence = None if service is None else IPresence(service, None)
        if presence is not None and self.live:
            self._presence = presence
            presence.joined(self)

    def isOn(self, perspective: IPerspective) -> bool:
        """
        Return whether the client is, or is being, attached to a perspective.

        Args:
            perspective: that was asked for, or that `attached` gave.
        """
        return perspective is self.perspective or perspective is self._requested

    def _introduce(self, perspective: IPerspective) -> None:
        """Let a perspective that was made for nobody know whom it is for."""
        if perspective.identityName == NOBODY:
            perspective.setIdentityName(self.identity.name)

    def end(self, reason: EndReason) -> Deferred[None]:
        """
        End the session, whatever state it is in.

        Args:
            reason: why.

        Returns:
            Fires when `brokerDetached` has run, and what it returned has fired.
        """
        self._end(reason)
        return self._ended.wait()

    def _end(self, reason: EndReason) -> None:
        if self.endReason is None:
            self.endReason = reason
            if reason.revokes and self._state in (_State.LIVE, _State.ATTACHING):
                self._audit.revoked(self, reason.value)
        if self._state is _State.LIVE:
            run(self._detach())
        elif self._state is _State.ATTACHING:
            self._state = _State.ENDING
            # `attached` may take its time; what it told the client has to end now.
            self._cutOff()
        elif self._state is _State.REQUESTED:
            self._finish()

    def _connectionLost(self) -> None:
        self._end(EndReason.CONNECTION_LOST)

    def _showPerspectiveToClient(self, perspective: IPerspective) -> None:
        # What goes to the client's own object is serialised for this perspective (`Viewable` and
        # `Copyable` ask who is there), as what comes back from the perspective's methods is.
        if isinstance(self.clientref, pb.RemoteReference):
            self.clientref.perspective = perspective

    async def _detach(self) -> None:
        self._state = _State.ENDED
        assert self.perspective is not None  # noqa: S101 - one is attached in these states
        self._cutOff()
        if self.clientref is not None:
            with contained(_log, "The clients of {session!r} do not work", session=self):
                clients = IClients(self.perspective, None)
                if clients is not None:
                    clients.left(self)
        presence, self._presence = self._presence, None
        if presence is not None:
            presence.left(self)
        self._audit.detached(self, (self.endReason or EndReason.DETACHED).value)
        with contained(_log, "detached() failed for {session!r}", session=self):
            detached = self.perspective.brokerDetached
            await settled(runFor(self, detached, self.clientref, self.identity, self.broker))
        self._finish()

    def _finish(self) -> None:
        self._state = _State.ENDED
        self.reference = None
        requested, self._requested = self._requested, None
        self._sessions._discard(self)
        if not self.broker.disconnected:
            self.broker.dontNotifyOnDisconnect(self._connectionLost)
        if requested is not None:
            with contained(_log, "uncachePerspective() failed for {session!r}", session=self):
                service = requested.getService()
                if service is not None:
                    service.uncachePerspective(requested)
        self._ended.fire()


class Sessions:
    """
    Know the sessions of one authorizer, and the logins that they rest on, on all its ports.

    Args:
        audit: where what happens to them is recorded; by default every observer of the program's
            log sees it.
        loggedIn: is called with the identity and the proof of each login.
        noneLeft: is called with the name of an identity whose last session or login has ended.

    Attributes:
        audit: the same; it also records logins and administration on these accounts.
        logins: those that stand, each a `pbauth.login.standinglogins.StandingLogin`, by the name of
            the identity.
    """

    def __init__(
        self,
        audit: Audit | None = None,
        loggedIn: Callable[[IIdentity, object], None] | None = None,
        noneLeft: Callable[[str], None] | None = None,
    ) -> None:
        if audit is not None:
            checkType(Audit, audit, "audit")
        for name, function in (("loggedIn", loggedIn), ("noneLeft", noneLeft)):
            if function is not None:
                checkCallable(function, name)
        self.audit = Audit() if audit is None else audit
        self._loggedIn = loggedIn
        self._noneLeft = noneLeft
        self.logins: ByName[Any] = ByName(self._gone)
        self._sessions: ByName[Session] = ByName(self._gone)

    def __iter__(self) -> Iterator[Session]:
        """Iterate over all sessions, those included that are just being attached."""
        return iter(self._sessions)

    def __len__(self) -> int:
        return len(self._sessions)

    def loggedIn(self, identity: IIdentity, proof: object) -> None:
        """
        Take note of a login that was proved. The server calls it.

        Args:
            identity: who it is.
            proof: what it was proved by.

        Raises:
            TypeError: it is not an identity.
        """
        checkProvides(IIdentity, identity, "identity")
        if self._loggedIn is not None:
            self._loggedIn(identity, proof)

    def _gone(self, name: str) -> None:
        if self._noneLeft is not None and name not in self._sessions and name not in self.logins:
            self._noneLeft(name)

    def names(self) -> list[str]:
        """
        List who is logged in.

        Returns:
            The names of the identities that have sessions or logins.
        """
        return list({*self._sessions.names(), *self.logins.names()})

    def holders(self, name: str) -> list[Any]:
        """
        Find all that rests on what an identity has proved.

        Args:
            name: of an identity.

        Returns:
            Its sessions, and its logins.
        """
        return [*self._sessions.of(name), *self.logins.of(name)]

    def ofIdentity(self, name: str) -> list[Session]:
        """
        Find the sessions of an identity.

        Args:
            name: of an identity.

        Returns:
            Its sessions, oldest first.
        """
        return self._sessions.of(name)

    def end(self, session: Session, reason: EndReason = EndReason.ADMINISTRATOR) -> Deferred[None]:
        """
        End a session.

        Args:
            session: one of these.
            reason: why.

        Returns:
            Fires when the perspective's `detached` has run.

        Raises:
            TypeError: an argument is of the wrong type.
        """
        checkType(Session, session, "session")
        checkType(EndReason, reason, "reason")
        return session.end(reason)

    def endAll(self, name: str) -> None:
        """End all sessions, and all logins, of an identity that was removed."""
        for holder in self.holders(name):
            holder.end(EndReason.REMOVED)

    def _add(self, session: Session) -> None:
        self._sessions.add(session.identity.name, session)

    def _discard(self, session: Session) -> None:
        self._sessions.discard(session.identity.name, session)
