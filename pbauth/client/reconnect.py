"""
When a client that stays logged in logs in, waits, hangs up and gives up.

Everything that decides that lives here, without I/O and without a clock: `Machine` takes what
happened and returns what is to be done, `BackoffState` says how long to wait, and `isFinal`
whether there is any use in waiting.  `pbauth.client.perspectiveclient` does it.

==============  ====================================================================================
state           what it is
==============  ====================================================================================
`STOPPED`       not started, or stopped
`LOGGING_IN`    a login is under way
`ATTACHED`      there is a perspective, and calls go to it
`DOUBTFUL`      a call said that the session has ended; the server is asked whether it is this one
`LEAVING`       the session has ended; its connection is being closed
`WAITING`       for the time of the next login
`STOPPING`      what there is, a login or a connection, is being closed
`RESTARTING`    the same, and then comes a login
`GAVE_UP`       another login would be of no use
==============  ====================================================================================

There is at most one login or connection, and one timer, in any state; a login begins only where
there is neither.  So nothing that happens belongs to a connection of the past.  There is one
exception: while it is attached to a server that is about to stop, the client logs in elsewhere
(`pbauth.client.handover`), and changes over at once (`Input.MOVED`).

Why not `twisted.application.internet.ClientService`
====================================================

Its ``prepareConnection`` could run the login (Twisted 26.10 was tried), but:

- a login that fails leaves its connection open, and the next one is made beside it; `stopService`
  during a login does not close it either;
- a connection that is lost during the login raises ``NoTransition`` out of ``connectionLost``;
- it never stops trying: a wrong password is tried again and again, since the retry policy gets a
  number, not the error (nor the ``retryAfter`` of `TooManyAttempts`); one that returns ``None``
  leaves the service waiting without end;
- any connection sets the number of failures back, however short it was, so that a server that
  accepts everybody and drops them again is asked every second by every client;
- ``whenConnected`` gives a protocol, not a perspective: that a session ended while its connection
  lives on, which calls wait for the next one, and when the application hears of both would need
  this machine beside that one.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from secrets import SystemRandom
from typing import Any

from attrs import field, frozen

from pbauth._arguments import checkCallable
from pbauth.errors import (
    Detached,
    KeyNotFound,
    MechanismNotSupported,
    ServerNotTrusted,
    TooManyAttempts,
    Unauthorized,
)
from pbauth.perspectives.sessions import EndReason

#: Seconds after which a session counts as a success. One that was shorter is like a failure to
#: log in: a server that accepts everybody and drops them again is not to be overrun.
STEADY = 60.0

#: Seconds until the next login, at least, after a server that is not trusted: maybe somebody else
#: sits on its port for the moment.
SLOWLY = 60.0

#: The same after one that refuses a client that it had let in; and after how many refusals in a row
#: such a client gives up.
REFUSED_WAIT = 10.0
MOST_REFUSALS = 3

#: The longest time that a server can have a client wait, in seconds.
LONGEST_WAIT = 900.0


class State(enum.Enum):
    """See the module."""

    STOPPED = enum.auto()
    LOGGING_IN = enum.auto()
    ATTACHED = enum.auto()
    DOUBTFUL = enum.auto()
    LEAVING = enum.auto()
    WAITING = enum.auto()
    STOPPING = enum.auto()
    RESTARTING = enum.auto()
    GAVE_UP = enum.auto()


class Input(enum.Enum):
    """What happens."""

    START = "the service is started"
    STOP = "the service is stopped"
    LOGGED_IN = "the login gave a perspective"
    FAILED = "the login failed, and its connection is closed; another one may succeed"
    REFUSED = "the login failed, and its connection is closed; no other one will succeed"
    DOUBT = "a call said that its session has ended"
    LIVE = "the server says that the session is live"
    SESSION_ENDED = "the server says that the session has ended"
    MOVED = "there is a perspective in place of the one so far, whose server is about to stop"
    LOST = "the connection is closed"
    TIME_IS_UP = "the timer has run down"


class Action(enum.Enum):
    """What is to be done about it."""

    OPEN = "who asks for the perspective from now on waits for it"
    LOG_IN = "begin a login"
    CANCEL_LOGIN = "give up the login"
    ANNOUNCE = "tell the application that it is attached"
    SERVE = "send the calls that wait, and give the perspective to those who wait for it"
    ASK = "ask the server whether the session is live"
    RENOUNCE = "tell the application that it is not attached any more"
    CLOSE = "close the connection once what was written is sent; set the timer"
    DROP = "close the connection now"
    WAIT = "set the timer for the next login; or say `REFUSED`, if there is to be none"
    CANCEL_TIMER = "forget the timer"
    TURN_AWAY = "fail what waits, and what will ask"
    REPORT = "tell the application that this was it"
    STOPPED = "fire the Deferreds of `stopService`"


_S, _I, _A = State, Input, Action

#: What follows from what: in this state, when this happens, comes that state, after these actions.
TABLE: dict[State, dict[Input, tuple[State, tuple[Action, ...]]]] = {
    _S.STOPPED: {
        _I.START: (_S.LOGGING_IN, (_A.OPEN, _A.LOG_IN)),
        _I.STOP: (_S.STOPPED, (_A.TURN_AWAY, _A.STOPPED)),
    },
    _S.LOGGING_IN: {
        _I.START: (_S.LOGGING_IN, ()),
        _I.LOGGED_IN: (_S.ATTACHED, (_A.ANNOUNCE, _A.SERVE)),
        _I.FAILED: (_S.WAITING, (_A.WAIT,)),
        _I.REFUSED: (_S.GAVE_UP, (_A.TURN_AWAY, _A.REPORT)),
        _I.STOP: (_S.STOPPING, (_A.TURN_AWAY, _A.CANCEL_LOGIN)),
    },
    _S.ATTACHED: {
        _I.START: (_S.ATTACHED, ()),
        _I.LIVE: (_S.ATTACHED, ()),
        _I.DOUBT: (_S.DOUBTFUL, (_A.ASK,)),
        _I.MOVED: (_S.ATTACHED, (_A.RENOUNCE, _A.ANNOUNCE)),
        _I.SESSION_ENDED: (_S.LEAVING, (_A.RENOUNCE, _A.DROP)),
        _I.LOST: (_S.WAITING, (_A.RENOUNCE, _A.WAIT)),
        _I.STOP: (_S.STOPPING, (_A.TURN_AWAY, _A.RENOUNCE, _A.CLOSE)),
    },
    _S.DOUBTFUL: {
        _I.START: (_S.DOUBTFUL, ()),
        _I.DOUBT: (_S.DOUBTFUL, ()),
        _I.LIVE: (_S.ATTACHED, (_A.SERVE,)),
        _I.MOVED: (_S.ATTACHED, (_A.RENOUNCE, _A.ANNOUNCE, _A.SERVE)),
        _I.SESSION_ENDED: (_S.LEAVING, (_A.RENOUNCE, _A.DROP)),
        _I.LOST: (_S.WAITING, (_A.RENOUNCE, _A.WAIT)),
        _I.STOP: (_S.STOPPING, (_A.TURN_AWAY, _A.RENOUNCE, _A.CLOSE)),
    },
    _S.LEAVING: {
        _I.START: (_S.LEAVING, ()),
        _I.DOUBT: (_S.LEAVING, ()),
        _I.LIVE: (_S.LEAVING, ()),
        _I.SESSION_ENDED: (_S.LEAVING, ()),
        _I.LOST: (_S.WAITING, (_A.WAIT,)),
        _I.STOP: (_S.STOPPING, (_A.TURN_AWAY,)),
    },
    _S.WAITING: {
        _I.START: (_S.WAITING, ()),
        _I.TIME_IS_UP: (_S.LOGGING_IN, (_A.LOG_IN,)),
        _I.REFUSED: (_S.GAVE_UP, (_A.TURN_AWAY, _A.REPORT)),
        _I.STOP: (_S.STOPPED, (_A.CANCEL_TIMER, _A.TURN_AWAY, _A.STOPPED)),
    },
    _S.STOPPING: {
        _I.START: (_S.RESTARTING, (_A.OPEN,)),
        _I.STOP: (_S.STOPPING, ()),
        # It was quicker than its end.
        _I.LOGGED_IN: (_S.STOPPING, (_A.CLOSE,)),
        _I.FAILED: (_S.STOPPED, (_A.STOPPED,)),
        _I.REFUSED: (_S.STOPPED, (_A.STOPPED,)),
        _I.DOUBT: (_S.STOPPING, ()),
        _I.LIVE: (_S.STOPPING, ()),
        _I.SESSION_ENDED: (_S.STOPPING, ()),
        _I.TIME_IS_UP: (_S.STOPPING, (_A.DROP,)),
        _I.LOST: (_S.STOPPED, (_A.CANCEL_TIMER, _A.STOPPED)),
    },
    _S.RESTARTING: {
        _I.START: (_S.RESTARTING, ()),
        _I.STOP: (_S.STOPPING, (_A.TURN_AWAY,)),
        _I.LOGGED_IN: (_S.RESTARTING, (_A.CLOSE,)),
        _I.FAILED: (_S.LOGGING_IN, (_A.STOPPED, _A.LOG_IN)),
        _I.REFUSED: (_S.LOGGING_IN, (_A.STOPPED, _A.LOG_IN)),
        _I.DOUBT: (_S.RESTARTING, ()),
        _I.LIVE: (_S.RESTARTING, ()),
        _I.SESSION_ENDED: (_S.RESTARTING, ()),
        _I.TIME_IS_UP: (_S.RESTARTING, (_A.DROP,)),
        _I.LOST: (_S.LOGGING_IN, (_A.CANCEL_TIMER, _A.STOPPED, _A.LOG_IN)),
    },
    _S.GAVE_UP: {
        _I.START: (_S.LOGGING_IN, (_A.OPEN, _A.LOG_IN)),
        _I.STOP: (_S.STOPPED, (_A.STOPPED,)),
    },
}


class Machine:
    """
    The state of one client that stays logged in, and how it changes.

    Attributes:
        state: the present state.
    """

    def __init__(self) -> None:
        self.state = State.STOPPED

    def receive(self, happened: Input) -> tuple[Action, ...]:
        """
        Change to the state that follows, and return what is to be done.

        Args:
            happened: what has happened.

        Returns:
            The actions, in the order in which they are to be done.

        Raises:
            KeyError: this can't happen in the present state.
        """
        self.state, actions = TABLE[self.state][happened]
        return actions


# How long to wait.


def _over(least: float) -> Callable[[Any, Any, Any], None]:
    def check(instance: BackOff, attribute: Any, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= least:
            raise ValueError(
                f"{attribute.name} must be a number, {least:g} or more, not {value!r}."
            )

    return check


def _checkLongest(instance: BackOff, attribute: Any, value: Any) -> None:
    _over(instance.shortest)(instance, attribute, value)


def _checkJitter(instance: BackOff, attribute: Any, value: Any) -> None:
    _over(0)(instance, attribute, value)
    if value > 1:
        raise ValueError(f"jitter must be from 0 to 1, not {value!r}.")


def _checkAttempts(instance: BackOff, attribute: Any, value: Any) -> None:
    if value is not None:
        _over(0)(instance, attribute, value)


def _callable(instance: BackOff, attribute: Any, value: Any) -> None:
    checkCallable(value, attribute.name)


@frozen
class BackOff:
    """
    How long a `PerspectiveClient` waits between logins: longer after each that fails, and by chance
    not as long as all the others.

    Attributes:
        shortest: seconds after the first failure, 0.01 or more.
        longest: seconds that it never exceeds.
        factor: by which the time grows with each failure.
        jitter: the part of the time that is up to chance, from 0 to 1.
        attempts: failures in a row after which there is another login; at the next one the client
            gives up. `None`: it never does.
        random: returns a number from 0 to 1.
    """

    shortest: float = field(default=1.0, validator=_over(0.01))
    longest: float = field(default=60.0, validator=_checkLongest)
    factor: float = field(default=2.0, validator=_over(1))
    jitter: float = field(default=0.5, validator=_checkJitter)
    attempts: int | None = field(default=None, validator=_checkAttempts)
    random: Callable[[], float] = field(
        default=SystemRandom().random, repr=False, eq=False, validator=_callable
    )

    def __call__(self, failures: int) -> float | None:
        """
        Return how many seconds to wait before the next login; `None`: give up.

        Args:
            failures: the number of failures in a row, 1 or more.
        """
        if self.attempts is not None and failures > self.attempts:
            return None
        try:
            delay = min(self.longest, self.shortest * self.factor ** (failures - 1))
        except OverflowError:
            delay = self.longest
        return delay * (1 - self.jitter * self.random())


class BackoffState:
    """
    How long one client waits before its next login, given how its logins and sessions went.

    Args:
        policy: takes the number of failures in a row; returns seconds, or `None` to give up. A
            `BackOff`, or what `twisted.application.internet.backoffPolicy` returns.
    """

    def __init__(self, policy: Callable[[int], float | None]) -> None:
        self._policy = policy
        self._failures = 0
        # Whether a login has succeeded, and how many were refused since then.
        self._known = False
        self._refusals = 0
        # Sessions in a row that were over too soon, whatever failed in between.
        self._short = 0

    def reset(self) -> None:
        """Forget all failures, as when the service is started."""
        self._failures = self._short = self._refusals = 0
        self._known = False

    def attached(self) -> None:
        """Count a login that succeeded."""
        self._failures = self._short
        self._refusals = 0
        self._known = True

    def givesUp(self, error: BaseException) -> bool:
        """
        Return whether there is no use in another login after one that failed.

        Args:
            error: why it failed.
        """
        if not isFinal(error):
            return False
        self._refusals += 1
        mayChange = self._known and isinstance(error, (Unauthorized, MechanismNotSupported))
        return not mayChange or self._refusals >= MOST_REFUSALS

    def failed(self, error: BaseException) -> float | None:
        """
        Count a login that failed, and return how long to wait.

        Args:
            error: why it failed.

        Returns:
            Seconds until the next login; `None`: give up.
        """
        self._failures += 1
        delay = self._policy(self._failures)
        if delay is not None and isinstance(error, TooManyAttempts):
            delay += min(error.retryAfter, LONGEST_WAIT)
        elif delay is not None and isinstance(error, ServerNotTrusted):
            delay = max(delay, SLOWLY)
        elif delay is not None and isFinal(error):
            delay = max(delay, REFUSED_WAIT)
        return delay

    def lost(self, lasted: float) -> float | None:
        """
        Count a session that has ended, and return how long to wait.

        Args:
            lasted: how long the session lasted, in seconds.

        Returns:
            Seconds until the next login; `None`: give up.
        """
        self._short = 0 if lasted >= STEADY else self._short + 1
        self._failures = max(1, self._short)
        return self._policy(self._failures)


# Whether to wait at all.

_FINAL = (Unauthorized, MechanismNotSupported, TypeError, ValueError)


def isFinal(error: BaseException) -> bool:
    """
    Return whether the next login would fail in the same way until somebody steps in.

    What servers and networks may recover from is not final; nor is a server that is not trusted:
    it may be somebody else, who sits on its port for the moment.

    Args:
        error: why a login failed, or why it would.
    """
    return isinstance(error, _FINAL) and not isinstance(error, TooManyAttempts)


def nextRefusal(ended: Detached, serviceName: str, perspectiveName: str) -> Unauthorized | None:
    """
    Return how another login would be refused after the server has ended the session.

    Args:
        ended: what the server said.
        serviceName: the service that the client was attached to.
        perspectiveName: the perspective.

    Returns:
        The error; `None`: another login may succeed.
    """
    try:
        reason = EndReason(ended.reason)
    except ValueError:
        # Of another version, or not told.
        return None
    if not reason.isFinal:
        return None
    if reason is EndReason.KEY_REVOKED:
        return KeyNotFound(serviceName, perspectiveName)
    return Unauthorized(f"The server has ended the session, and takes no other: {reason.value}.")
