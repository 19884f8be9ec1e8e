"""
What one connection tries, and what that costs it.

`Attempts` is the book of one connection: an `Attempt` is booked before anything of it is looked
at, and is then accepted or refused.  This is where the throttle is asked and told, where failures
are counted and events recorded in the audit log, and where the connection is dropped.  The objects
of the login itself (`pbauth.login.root`) know none of this.
"""

from __future__ import annotations

from collections.abc import Collection, Coroutine
from typing import Any

from pbauth.audit import Audit
from pbauth.audit.events import DropReason
from pbauth.errors import Detached, ExchangeRefused, LimitExceeded, TooManyAttempts, Unauthorized
from pbauth.interfaces import IRestrictableBroker, IRevokingBroker
from pbauth.login.checks import Check
from pbauth.login.connectionlimits import ConnectionLimits
from pbauth.login.policy import Policy
from pbauth.login.standinglogins import StandingLogin, StandingLogins
from pbauth.login.throttle import networkOf
from pbauth.net.origin import Origin, originOf
from pbauth.net.transports import dropConnection
from pbauth.perspectives.byname import ByName
from pbauth.wire.calllimits import FAR
from pbauth.wire.keepalive import KeepAlive

#: The most challenges that may wait for their response at once on one connection.
MOST_UNANSWERED = 16

#: Seconds for which a connection stays open whose last login has ended.
LAST_WORDS = 1.0

#: Seconds that it may take to close before it is cut.
CLOSING_TIME = 5.0


class Attempt:
    """
    One login, from the claim of a name until it is accepted or refused. `Attempts.book` makes it.

    Attributes:
        name: the claimed one.
        mechanism: the name of the mechanism.
    """

    __slots__ = ("_attempts", "_begun", "_check", "_waits", "mechanism", "name")

    def __init__(self, attempts: Attempts, name: str, mechanism: str, begun: float) -> None:
        self.name = name
        self.mechanism = mechanism
        self._attempts = attempts
        self._begun = begun
        # While it is under way.
        self._check: Check | None = None
        # For the response, which is good for one try.
        self._waits = True

    def answer(self) -> None:
        """
        Take note that the response is here.

        Raises:
            TooManyAttempts: the name or the network has to wait by now.
            Unauthorized: there was a response already, or this connection is about to be dropped.
        """
        if not self._waits:
            raise self._attempts.refuse("", "", "a second response")
        self.abandon()
        self._attempts.checkWait(self.name, self.mechanism)

    async def whileBooked(self, checking: Coroutine[Any, Any, bytes]) -> bytes:
        """
        Wait for a check that takes time. Until `release` this attempt counts as one that failed:
        for the connection, the network and the name.

        Args:
            checking: the check, not begun yet.

        Returns:
            What it returns.

        Raises:
            TooManyAttempts: the name or the network has to wait by now.
            Unauthorized: as many checks as may fail are under way on this connection.
            Detached: the connection was closed before this check's turn.
        """
        try:
            self._check = await self._attempts.beginCheck(self.name, self.mechanism)
        except BaseException:
            checking.close()
            raise
        try:
            return await checking
        except ExchangeRefused:
            raise
        except BaseException:
            self.fail()
            raise

    def accept(self, name: str, guest: bool) -> None:
        """
        Take note that the login is proved.

        Args:
            name: of the identity.
            guest: the client has proved nothing, and stays unauthenticated until it attaches.
        """
        self._attempts.accept(self.name, name, self.mechanism, self._begun, guest)
        if not guest:
            self._attempts.trust()

    def refuse(self, reason: str) -> Unauthorized:
        """
        Take note that the login failed. After too many failures the connection is dropped.

        Args:
            reason: the real one, for the audit log only.

        Returns:
            What to raise.
        """
        self.abandon()
        return self._attempts.refuse(self.name, self.mechanism, reason)

    def fail(self) -> None:
        """
        Take note that the proof could not be checked. It counts for the connection alone: it may be
        the store that is away, for which no network has to wait.
        """
        self.abandon()
        self._attempts.fail(self.name, self.mechanism)

    def release(self) -> None:
        """Take note that whatever this attempt costs was counted: it is no longer booked."""
        check, self._check = self._check, None
        if check is not None:
            self._attempts.endCheck(check)

    def abandon(self) -> None:
        """Take note that no response will be taken any more."""
        if self._waits:
            self._waits = False
            self._attempts.unanswered -= 1


class Attempts:
    """
    The attempts of one connection to log in.

    Attributes:
        unanswered: challenges that wait for their response, and those that are being made.
        beginning: of these, those that are being made: the client waits for the server.
        logins: those that stand on the connection, which is closed when the last of them ends.

    Args:
        broker: of the connection.
        policy: limits and switches.
        reactor: provides `IReactorTime`.
        limits: what all ports of the server share.
        keepAlive: notices peers that are gone, of connections that are logged in.
        audit: where the events are recorded.
        known: where logins are looked up when an account changes.
    """

    def __init__(
        self,
        broker: Any,
        policy: Policy,
        reactor: Any,
        limits: ConnectionLimits,
        keepAlive: KeepAlive,
        audit: Audit,
        known: ByName[StandingLogin],
    ) -> None:
        self.unanswered = self.beginning = 0
        self.logins = StandingLogins(broker, known, self._closeSoon)
        self._broker = broker
        self._policy = policy
        self._reactor = reactor
        self._now = limits.now
        self._limits = limits
        self._keepAlive = keepAlive
        self._audit = audit
        self._failures = 0
        self._refusedSessions = 0
        self._hasMisbehaved = False
        self._isTrusted = False
        # The timer of a connection without a login.
        self._closing: Any = None
        # Checks under way, and those that wait for their turn.
        self._checks = 0
        # Of the peer; known once it speaks, since then the header of a proxy was read.
        self._network = ""
        self._from: Origin | None = None
        self._unauthenticated = limits.unauthenticated.add(self._timeOut)
        limits.connections.add(self)
        broker.notifyOnDisconnect(self._connectionLost)

    def book(self, name: str, mechanism: str) -> Attempt:
        """
        Begin an attempt.

        Args:
            name: the claimed one.
            mechanism: the name of the mechanism, as far as it is one.

        Returns:
            The attempt.

        Raises:
            TooManyAttempts: the name or the network has to wait.
            Unauthorized: this connection is about to be dropped.
        """
        if not self._network:
            self._from = originOf(self._broker)
            self._network = self._findNetwork()
        self.checkWait(name, mechanism)
        if self.unanswered >= MOST_UNANSWERED:
            self._misbehaved()
            self._drop(DropReason.CHALLENGERS)
            raise Unauthorized()
        self.unanswered += 1
        return Attempt(self, name, mechanism, self._now())

    def checkWait(self, name: str, mechanism: str) -> None:
        """
        Raise an error if there may be no attempt now.

        Args:
            name: the claimed one.
            mechanism: the name of the mechanism.

        Raises:
            TooManyAttempts: the name or the network has to wait.
            Unauthorized: this connection is about to be dropped.
        """
        if self._exhausted:
            raise Unauthorized()
        wait = self._limits.wait(self._network, name)
        if wait:
            self._audit.throttled(self._origin, name, mechanism, wait)
            self._countFailure()
            raise TooManyAttempts(wait)

    async def beginCheck(self, name: str, mechanism: str) -> Check:
        """
        Wait until it is a check's turn, and book it.

        Args:
            name: the claimed one.
            mechanism: the name of the mechanism.

        Returns:
            The check, for `endCheck`.

        Raises:
            TooManyAttempts: the name or the network has to wait by now.
            Unauthorized: as many checks as may fail are under way on this connection.
            Detached: the connection was closed meanwhile.
        """
        if self._failures + self._checks >= self._policy.maxAttempts:
            raise Unauthorized()

        def checkWait() -> None:
            if self._broker.disconnected:
                raise Detached()
            self.checkWait(name, mechanism)

        self._checks += 1
        try:
            return await self._limits.beginCheck(self._network, name, checkWait)
        except BaseException:
            self._checks -= 1
            raise

    def endCheck(self, check: Check) -> None:
        """Take note that it is known how a check ended."""
        self._checks -= 1
        check.end()

    def fail(self, name: str, mechanism: str) -> None:
        """
        Take note that a login could not be checked.

        Args:
            name: the claimed one.
            mechanism: the name of the mechanism.
        """
        if not self._exhausted:
            self._audit.refused(self._origin, name, mechanism, "it could not be checked")
            self._countFailure()

    def accept(
        self, claimed: str, name: str, mechanism: str, begun: float, guest: bool = False
    ) -> None:
        """
        Take note that a login is proved.

        Args:
            claimed: the claimed name.
            name: of the identity.
            mechanism: the name of the mechanism.
            begun: when the attempt was booked, in seconds by the reactor's clock.
            guest: the client has proved nothing. So nobody is at home where it is, and nobody who
                is at home elsewhere is forgotten for it.
        """
        if not guest:
            self._limits.succeeded(self._network, claimed)
        self._audit.loggedIn(self._origin, name, mechanism, self._now() - begun)

    def trust(self) -> None:
        """Lift the limits of the connection: its client has proved who it is."""
        if not self._isTrusted:
            self._isTrusted = True
            self._lift(guest=False)

    def attached(self) -> None:
        """
        Take note that a client has attached. One that is a guest leaves those who are
        unauthenticated only now, and keeps limits of its own.
        """
        if not self._isTrusted and not self._unauthenticated.gone:
            self._lift(guest=True)

    def checkSessions(self, sessions: Any, name: str) -> None:
        """
        Raise an error if an identity may have no more sessions.

        Args:
            sessions: all sessions, a `pbauth.perspectives.sessions.Sessions`.
            name: of the identity.

        Raises:
            LimitExceeded: it has as many as it may.
        """
        most = self._policy.maxSessions
        if most is None:
            return
        count = len(sessions.ofIdentity(name))
        if count < most:
            self._refusedSessions = 0
            return
        self._refusedSessions += 1
        self._limits.refused["maxSessions"] += 1
        if count + self._refusedSessions >= FAR * most:
            # Not at once: the answer has to go out first.
            self._reactor.callLater(0, self._drop, DropReason.SESSIONS)
        raise LimitExceeded("maxSessions", most)

    def _lift(self, guest: bool) -> None:
        if not self._unauthenticated.gone:
            self._origin.authenticated = True
            self._limits.unauthenticated.remove(self._unauthenticated)
            self._keepAlive.add(self._broker)
        if IRestrictableBroker.providedBy(self._broker):
            self._broker.loggedIn(guest)

    def refuse(self, name: str, mechanism: str, reason: str) -> Unauthorized:
        """
        Take note that a login failed. After too many failures the connection is dropped.

        Args:
            name: the claimed one.
            mechanism: the name of the mechanism.
            reason: the real one, for the audit log only.

        Returns:
            What to raise.
        """
        if not self._exhausted:
            self._audit.refused(self._origin, name, mechanism, reason)
            self._limits.failed(self._network, name)
            self._countFailure()
        return Unauthorized()

    def refuseMechanism(self, name: str, mechanism: object) -> None:
        """
        Take note that a client asked for a mechanism that it is not offered.

        Args:
            name: the claimed one.
            mechanism: what it sent as the name of the mechanism.
        """
        if not self._exhausted:
            self._audit.mechanismRefused(self._origin, name, mechanism)
            self._countFailure()

    @property
    def _origin(self) -> Origin:
        return self._from or originOf(self._broker)

    def _findNetwork(self) -> str:
        origin = self._origin
        return networkOf(origin.address, origin.uid)

    @property
    def _exhausted(self) -> bool:
        # The connection is about to be dropped. What came with the last failure in one piece is
        # neither looked at nor recorded.
        return self._failures >= self._policy.maxAttempts

    def _countFailure(self) -> None:
        self._failures += 1
        if self._exhausted:
            # Not at once: the answer has to go out first.
            self._reactor.callLater(0, self._drop, DropReason.ATTEMPTS)

    def _drop(self, reason: DropReason) -> None:
        if self._broker.disconnected or self._broker.transport is None:
            return
        self._audit.dropped(self._origin, reason)
        dropConnection(self._broker)

    def leave(self, seconds: float) -> bool:
        """
        Tell the client that the server is about to stop; one that has not logged in can go at once.

        Args:
            seconds: until the server closes the connection.

        Returns:
            Whether the client understands that, and goes by itself.
        """
        if not self._unauthenticated.gone:
            self.close()
            return True
        return IRevokingBroker.providedBy(self._broker) and bool(self._broker.tellLeaving(seconds))

    def isIdle(self, busy: Collection[Any]) -> bool:
        """
        Return whether no call is under way on the connection, of either end.

        Args:
            busy: the brokers of sessions whose client waits for an answer.
        """
        return self._broker not in busy and not self._broker.waitingForAnswers

    def close(self) -> None:
        """Close the connection once what was written is sent."""
        if not self._broker.disconnected and self._broker.transport is not None:
            self._broker.transport.loseConnection()

    def cut(self) -> None:
        """Close the connection now."""
        if not self._broker.disconnected and self._broker.transport is not None:
            dropConnection(self._broker)

    def _closeSoon(self) -> None:
        """
        Close the connection, on which no valid login is left. Calls that the client has sent
        before it knew are answered until then.
        """
        if self._closing is None and not self._broker.disconnected:
            self._closing = self._reactor.callLater(LAST_WORDS, self._close)

    def _close(self) -> None:
        self._closing = None
        if self.logins:
            # The client has logged in again.
            return
        self._audit.dropped(self._origin, DropReason.NO_LOGIN)
        self.close()
        # Should it not take what was written.
        self._closing = self._reactor.callLater(CLOSING_TIME, self._cut)

    def _cut(self) -> None:
        self._closing = None
        self.cut()

    def _timeOut(self) -> None:
        if not (self.beginning or self._checks):
            # Otherwise it is the server that takes so long.
            self._misbehaved()
        self._drop(DropReason.GRACE_TIME)

    def _connectionLost(self) -> None:
        unauthenticated = not self._unauthenticated.gone
        self._limits.unauthenticated.remove(self._unauthenticated)
        self._limits.connections.discard(self)
        self.logins.clear()
        if self._closing is not None:
            self._closing.cancel()
        if self.unanswered > self.beginning or (
            unauthenticated
            and IRestrictableBroker.providedBy(self._broker)
            and self._broker.brokeProtocol
        ):
            self._misbehaved()

    def _misbehaved(self) -> None:
        """Hold the network responsible for this connection, once."""
        if not self._hasMisbehaved:
            self._hasMisbehaved = True
            self._limits.misbehaved(self._network or self._findNetwork())
