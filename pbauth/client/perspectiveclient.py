"""A client that stays logged in. What it does when stands in `pbauth.client.reconnect`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.application import service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.spread import pb

from pbauth._arguments import checkCallable
from pbauth._async import OneShot, chooseReactor
from pbauth._calling import send
from pbauth._quoting import MOST, cut
from pbauth.client.furtherperspectives import FurtherPerspective
from pbauth.client.handover import Move
from pbauth.client.login import Login, asCredentials, checkClient
from pbauth.client.reconnect import (
    Action,
    BackOff,
    BackoffState,
    Input,
    Machine,
    State,
    isFinal,
    nextRefusal,
)
from pbauth.errors import Detached, NotAttached, ServerNotTrusted, Unauthorized
from pbauth.interfaces import ICredentials, Reactor, WireValue
from pbauth.mechanisms.voucher import Voucher
from pbauth.names import checkName
from pbauth.net.transports import dropConnection
from pbauth.net.trust import Trust
from pbauth.perspectives.sessions import STILL_LIVE
from pbauth.wire.keepalive import KeepAlive

_log = Logger()

#: Seconds that a connection may take to close before it is cut.
CLOSING_TIME = 5.0


class PerspectiveClient(service.Service):
    """
    Stays logged in: a `twisted.application.service.Service` that logs in when it is started, and
    again whenever its connection or its session ends, until it is stopped.  If its server is about
    to stop, it attaches elsewhere before it lets go.

    It logs in again after connections that can't be made or break, servers that do not answer or
    have trouble, and throttling; each time it waits longer (see `BackOff`).  After a server that it
    does not trust it tries again each minute, and logs that as an error.  It gives up where
    another login would also fail: `Unauthorized`, `KeyNotFound`, `MechanismNotSupported`, and
    arguments that can't be right; once it was attached, after three refusals in a row, since
    somebody else may sit on the server's port for the moment.

    A subclass may override `attached`, `detached`, `failed` and `gaveUp`.

    Args:
        endpoint: ``"tls:example.com:8787"``, another endpoint string, or what provides
            `IStreamClientEndpoint`; or a `Login`, which says all up to `trust`.
        credentials: a password, or what implements `ICredentials`. Kept: the slow derivation of a
            `Password` is done once.
        serviceName: the service to attach to.
        perspectiveName: the perspective of that service; `username` by default.
        client: an object of yours that the server may call back; the same after each login.
        username: the name of the identity; by default that of the voucher, or `perspectiveName`.
            Without a voucher, one of the two is needed.
        timeout: seconds for each login.
        insecure: as for `connect`.
        trust: as for `connect`.
        reactor: as for `connect`.
        pingInterval: seconds within which the server is asked whether the session is live; if it
            says nothing for as long again, the connection is dropped. 0 or `None`: it is not asked.
        retryPolicy: takes the number of failures in a row; gives the seconds to wait, or `None` to
            give up. By default a `BackOff()`.
        mostWaiting: so many calls wait while there is no perspective; more fail at once with
            `NotAttached`. 0: none waits.

    Raises:
        TypeError: an argument is of the wrong type, or nobody is said to log in.
        InvalidName: a name breaks the rule.
        InvalidPassword: that can't be a password.
        ValueError: another argument makes no sense.
        ServerNotTrusted: the connection would not be protected.
    """

    def __init__(
        self,
        endpoint: str | IStreamClientEndpoint | Login,
        credentials: str | ICredentials = "",
        serviceName: str = "",
        perspectiveName: str | None = None,
        client: pb.Referenceable | None = None,
        *,
        username: str | None = None,
        timeout: float = 30,
        insecure: bool = False,
        trust: Trust = None,
        reactor: Reactor = None,
        pingInterval: float | None = 30,
        retryPolicy: Callable[[int], float | None] | None = None,
        mostWaiting: int = 100,
    ) -> None:
        if retryPolicy is not None:
            checkCallable(retryPolicy, "retryPolicy")
        self._reactor = chooseReactor(reactor)
        if isinstance(endpoint, Login):
            login = endpoint
            if login.service is None:
                raise TypeError("Name the service to attach to: Login(..., service=...).")
        else:
            name = perspectiveName if username is None else username
            if isinstance(credentials, Voucher):
                name = username
            elif name is None:
                raise TypeError("Name the identity: PerspectiveClient(..., username=...).")
            login = Login(
                endpoint,
                name,
                asCredentials(credentials, self._reactor),
                checkName(serviceName, "name of a service"),
                perspectiveName,
                client,
                trust,
                insecure=insecure,
                timeout=timeout,
            )
        _checkNumber("timeout", login.timeout)
        _checkNumber("pingInterval", pingInterval or 0)
        _checkNumber("mostWaiting", mostWaiting)
        # What is wrong with it is said here and now, not in the log later.
        login.target.endpoint(self._reactor)
        self._request = login
        self._who = login.identity, str(login.service)
        self._keepAlive = KeepAlive(pingInterval, self._reactor)
        self._pingInterval = pingInterval
        self._mostWaiting = mostWaiting
        self._backoff = BackoffState(BackOff() if retryPolicy is None else retryPolicy)
        self._machine = Machine()
        self._move = Move(lambda: login.attach(self._reactor), self._moved, self._reactor)
        self._inputs: deque[tuple[Input, Failure | None]] = deque()
        self._acting = False
        # What there is of these: see the machine.
        self._login: Deferred[Any] | None = None
        self._identity: Any = None
        self._perspective: Any = None
        self._further: dict[FurtherPerspective, None] = {}
        self._attachedAt: float | None = None
        self._timer: Any = None
        self._nextQuestion: Any = None
        #: Why the last login or session ended; and why no other one will come.
        self._reason: Failure | None = None
        #: What the server said of the end of the session, until the connection is also closed.
        self._detached: Detached | None = None
        self._ended: Failure | None = None
        # Who waits for what.
        self._turns: deque[Deferred[None]] = deque()
        self._served = OneShot()
        self._closed = OneShot()

    def __repr__(self) -> str:
        name, serviceName = self._who
        state = self._machine.state.name.lower().replace("_", " ")
        return f"<{type(self).__name__} of {name!r} at {serviceName!r}: {state}>"

    # What a program uses.

    @property
    def clock(self) -> Any:
        """Return what provides `IReactorTime` for the deadlines of the client."""
        return self._reactor

    def startService(self) -> None:
        """Log in, and stay logged in; also after the client gave up."""
        super().startService()
        self._receive(Input.START)

    def stopService(self) -> Deferred[None]:
        """
        Log out. What waits fails with `NotAttached`.

        Returns:
            Fires when the connection is closed.
        """
        super().stopService()
        closed = self._closed.wait()
        self._receive(Input.STOP)
        return closed

    def close(self) -> Deferred[None]:
        """
        Log out, as `stopService` does.

        Returns:
            Fires when the connection is closed.
        """
        return self.stopService()

    def whenAttached(self) -> Deferred[pb.RemoteReference]:
        """
        Wait for the current perspective.

        A reference is good for one session: ask for it again rather than keep it, or use
        `callRemote`.

        Returns:
            Fires with a reference to the perspective once there is one; may be cancelled. Fails
            with the reason if the client gives up or has given up, with `NotAttached` if it is
            stopped. Of a client that was not started yet it waits.
        """
        if self._ended is not None:
            return fail(self._ended)
        perspective = self._current()
        if perspective is not None:
            return succeed(perspective)
        # By then it may be gone again.
        return self._served.wait().addCallback(lambda _: self.whenAttached())

    def attach(
        self,
        serviceName: str,
        perspectiveName: str | None = None,
        client: pb.Referenceable | None = None,
    ) -> Deferred[FurtherPerspective]:
        """
        Attach to a further perspective, on the same connection and with the same login. It comes
        back after each other login.

        Args:
            serviceName: the service.
            perspectiveName: the perspective; the identity's own name by default.
            client: an object of yours that the server may call back; the same each time.

        Returns:
            Fires with the further perspective, which has `callRemote`, `whenAttached` and `close`,
            once it is attached for the first time. Fails with `KeyNotFound` if there is no such
            key, or with what the server raised; with the reason if this client gives up, and with
            `NotAttached` if it is stopped. Of a client that was not started yet it waits.

        Raises:
            TypeError: an argument is of the wrong type.
            InvalidName: a name breaks the rule.
        """
        checkClient(client)
        service = checkName(serviceName, "name of a service")
        name = self._request.identity if perspectiveName is None else perspectiveName
        checkName(name, "name of a perspective")
        if self._ended is not None:
            return fail(self._ended)
        further = FurtherPerspective(service, name, client, self._reactor, self._let)
        self._further[further] = None
        if self._identity is not None and not self._identity.broker.disconnected:
            further.begin(self._identity)

        def failed(failure: Failure) -> Failure:
            self._let(further)
            return failure

        return further.whenAttached().addCallbacks(lambda _: further, failed)

    def _let(self, further: FurtherPerspective) -> None:
        self._further.pop(further, None)

    def callRemote(self, _name: str, *args: WireValue, **kw: WireValue) -> Deferred[WireValue]:
        """
        Call a method of the current perspective, once there is one.

        Calls that wait are sent in their order, before anybody gets the perspective; what they are
        given is serialised then. A call is sent once at most: if its connection is lost before the
        answer comes, nobody can tell whether it was run.

        Args:
            _name: of the method.
            args: for the method, and so are those by name.

        Returns:
            Fires with the answer; may be cancelled. Fails with what the method raised, or with

            - `twisted.spread.pb.PBConnectionLost`: the connection was lost after it was sent;
            - `Detached`: the server has ended the session;
            - `NotAttached`: there is no perspective, and it will not wait for one; it was not sent;
            - the reason for which the client gave up; it was not sent.
        """
        if self._ended is not None:
            return fail(self._ended)
        if self._current() is not None and not self._turns:
            return self._send(_name, args, kw)
        if len(self._turns) >= self._mostWaiting:
            why = (
                f"{self._mostWaiting} calls are waiting already"
                if self._turns
                else "calls do not wait"
            )
            return fail(NotAttached(f"The client is not attached, and {why}."))
        turn: Deferred[None] = Deferred(self._turns.remove)
        self._turns.append(turn)
        return turn.addCallback(lambda _: self._send(_name, args, kw))

    # What a subclass may override.

    def attached(self, perspective: pb.RemoteReference) -> None:
        """
        React to a login, before the calls that wait are sent. Does nothing
        by default.

        Args:
            perspective: a reference to it.
        """

    def detached(self) -> None:
        """React to the end of a session or its connection; runs once for each `attached`."""

    def failed(self, reason: Failure) -> None:
        """
        React to a login that failed, after which there will be another one.
        Does nothing by default; `stopService` in it prevents that.

        Args:
            reason: why.
        """

    def gaveUp(self, reason: Failure) -> None:
        """
        There will be no other login until the service is started again. Does nothing by default.

        Args:
            reason: why; it is in the log already.
        """

    # What happens.

    def _receive(self, happened: Input, reason: Failure | None = None) -> None:
        """Act on it; on what happens meanwhile, afterwards."""
        self._inputs.append((happened, reason))
        if self._acting:
            return
        self._acting = True
        try:
            while self._inputs:
                happened, reason = self._inputs.popleft()
                if reason is not None:
                    self._reason = reason
                for action in self._machine.receive(happened):
                    _ACTS[action](self)
                if self._machine.state not in (State.ATTACHED, State.DOUBTFUL):
                    self._move.cancel()
        finally:
            self._acting = False

    def _loggedIn(self, references: tuple[Any, Any]) -> None:
        identity, perspective = references
        self._login = None
        self._backoff.attached()
        self._askLater()
        self._take(identity, perspective)
        self._receive(Input.LOGGED_IN)
        perspective.broker.whenClosed().addCallback(self._lost, perspective)

    def _take(self, identity: Any, perspective: Any) -> None:
        self._identity = identity
        for further in [*self._further]:
            further.begin(identity)
        self._perspective = perspective
        self._attachedAt = self._reactor.seconds()
        self._keepAlive.add(perspective.broker)
        endings = perspective.broker.endings
        endings.watch(perspective.luid, partial(self._sessionEnded, perspective))
        endings.leaves = self._move.begin

    def _moved(self, references: tuple[Any, Any]) -> None:
        identity, perspective = references
        old = self._perspective
        old.broker.endings.leaves = None
        self._take(identity, perspective)
        perspective.broker.whenClosed().addCallback(self._lost, perspective)
        self._receive(Input.MOVED)
        self._move.letGo(old.broker)

    def _failed(self, reason: Failure) -> None:
        self._login = None
        reason.cleanFailure()
        final = self._backoff.givesUp(_error(reason))
        self._receive(Input.REFUSED if final else Input.FAILED, reason)

    def _lost(self, _: None, perspective: Any) -> None:
        if perspective is not self._perspective:
            # It was let go.
            return
        self._perspective = self._identity = None
        for further in self._further:
            further.lost()
        if self._nextQuestion is not None:
            self._nextQuestion.cancel()
        ended, self._detached = self._detached, None
        error: Exception = ConnectionLost("The connection was lost.")
        if ended is not None:
            login = self._request
            name = login.identity if login.perspective is None else login.perspective
            error = nextRefusal(ended, str(login.service), name) or ended
        self._receive(Input.LOST, Failure(error))

    def _timeIsUp(self) -> None:
        self._timer = None
        self._receive(Input.TIME_IS_UP)

    def _callFailed(self, reason: Failure, perspective: Any) -> Failure:
        # It may be about another session: that of the server, which is a client somewhere itself.
        if reason.check(Detached) and perspective is self._perspective:
            self._receive(Input.DOUBT)
        return reason

    def _told(self, answer: Any, perspective: Any) -> None:
        if perspective is not self._perspective or perspective.broker.disconnected:
            return
        if isinstance(answer, Failure) and isinstance(answer.value, Detached):
            self._sessionEnded(perspective, answer.value.reason)
        else:
            self._receive(Input.LIVE)

    def _sessionEnded(self, perspective: Any, reason: str) -> None:
        # If the connection was quicker there is no perspective, and this is no news.
        if perspective is self._perspective:
            self._detached = Detached(reason)
            self._receive(Input.SESSION_ENDED)

    # What is done about it.

    def _open(self) -> None:
        self._ended = None
        self._backoff.reset()
        for further in self._further:
            further.restart()

    def _logIn(self) -> None:
        self._attachedAt = None
        login = self._login = self._request.attach(self._reactor)
        login.addCallbacks(self._loggedIn, self._failed)
        login.addErrback(lambda bug: _log.failure("A client failed", bug))

    def _cancelLogin(self) -> None:
        if self._login is not None:
            self._login.cancel()

    def _announce(self) -> None:
        name, serviceName = self._who
        _log.info("{name!r} is attached to {service!r}", name=name, service=serviceName)
        self._tell(self.attached, self._perspective)

    def _serve(self) -> None:
        while self._turns and self._current() is not None:
            self._turns.popleft().callback(None)
        if self._current() is not None:
            served, self._served = self._served, OneShot()
            served.fire()

    def _ask(self) -> None:
        perspective = self._perspective
        if perspective is not None and not perspective.broker.disconnected:
            perspective.callRemote(STILL_LIVE).addBoth(self._told, perspective)

    def _askLater(self) -> None:
        # A program that only listens calls nothing from which it would learn.
        if self._pingInterval:
            self._nextQuestion = self._reactor.callLater(self._pingInterval, self._askAgain)

    def _askAgain(self) -> None:
        self._askLater()
        self._ask()

    def _renounce(self) -> None:
        self._tell(self.detached)

    def _close(self) -> None:
        self._timer = self._reactor.callLater(CLOSING_TIME, self._timeIsUp)
        if self._perspective is not None:
            self._perspective.broker.transport.loseConnection()

    def _drop(self) -> None:
        if self._perspective is not None:
            dropConnection(self._perspective.broker)

    def _wait(self) -> None:
        assert self._reason is not None  # noqa: S101 - something has failed or was lost
        error = _error(self._reason)
        if self._attachedAt is None:
            delay = self._backoff.failed(error)
        else:
            delay = self._backoff.lost(self._reactor.seconds() - self._attachedAt)
        if delay is None or (self._attachedAt is not None and isFinal(error)):
            # Before all that has happened since.
            self._inputs.appendleft((Input.REFUSED, None))
            return
        name, serviceName = self._who
        alarming = self._attachedAt is None and isinstance(error, (ServerNotTrusted, Unauthorized))
        (_log.error if alarming else _log.info)(
            "{name!r} is not attached to {service!r} ({kind}: {text!r}); "
            "the next login is in {delay:.1f} s",
            name=name,
            service=serviceName,
            kind=type(error).__name__,
            text=cut(str(error), MOST),
            delay=delay,
        )
        self._timer = self._reactor.callLater(delay, self._timeIsUp)
        if self._attachedAt is None:
            self._tell(self.failed, self._reason)

    def _cancelTimer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _turnAway(self) -> None:
        ended = self._ended or Failure(NotAttached("The client was stopped."))
        if self._machine.state is State.GAVE_UP and self._reason is not None:
            ended = self._reason
        self._ended = ended
        turns, self._turns = self._turns, deque()
        served, self._served = self._served, OneShot()
        for turn in turns:
            turn.errback(ended)
        served.fail(ended)
        for further in [*self._further]:
            further.end(ended)

    def _report(self) -> None:
        assert self._reason is not None  # noqa: S101 - something has failed or was lost
        name, serviceName = self._who
        _log.error(
            "{name!r} gave up attaching to {service!r}: {kind}: {text!r}",
            name=name,
            service=serviceName,
            kind=type(self._reason.value).__name__,
            text=cut(str(self._reason.value), MOST),
        )
        self._tell(self.gaveUp, self._reason)

    def _stopped(self) -> None:
        closed, self._closed = self._closed, OneShot()
        self._move.end().addCallback(lambda _: closed.fire())

    def _current(self) -> Any:
        """Return the perspective, if calls may be sent to it."""
        perspective = self._perspective
        if (
            self._machine.state is not State.ATTACHED
            or perspective is None
            or perspective.broker.disconnected
        ):
            return None
        return perspective

    def _send(self, name: str, args: tuple[Any, ...], kw: dict[str, Any]) -> Deferred[Any]:
        perspective = self._perspective
        return send(perspective, name, args, kw).addErrback(self._callFailed, perspective)

    def _tell(self, hook: Callable[..., None], *arguments: Any) -> None:
        try:
            hook(*arguments)
        except Exception:
            _log.failure("{hook} of {client!r} failed", hook=hook.__name__, client=self)


_ACTS: dict[Action, Callable[[PerspectiveClient], None]] = {
    Action.OPEN: PerspectiveClient._open,
    Action.LOG_IN: PerspectiveClient._logIn,
    Action.CANCEL_LOGIN: PerspectiveClient._cancelLogin,
    Action.ANNOUNCE: PerspectiveClient._announce,
    Action.SERVE: PerspectiveClient._serve,
    Action.ASK: PerspectiveClient._ask,
    Action.RENOUNCE: PerspectiveClient._renounce,
    Action.CLOSE: PerspectiveClient._close,
    Action.DROP: PerspectiveClient._drop,
    Action.WAIT: PerspectiveClient._wait,
    Action.CANCEL_TIMER: PerspectiveClient._cancelTimer,
    Action.TURN_AWAY: PerspectiveClient._turnAway,
    Action.REPORT: PerspectiveClient._report,
    Action.STOPPED: PerspectiveClient._stopped,
}


def _error(reason: Failure) -> BaseException:
    error: Any = reason.value
    return error  # type: ignore[no-any-return]


def _checkNumber(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise ValueError(f"{name} must be a number, 0 or more, not {value!r}.")
