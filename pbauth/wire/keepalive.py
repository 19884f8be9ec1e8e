"""
Keepalive: notices a peer that is gone without closing the connection.

A peer whose cable was cut closes no connection.  So an idle peer is asked whether it is there, by a
call of an object that every pbauth broker has; other brokers answer that they have no such object,
and whatever a peer sends is a sign of life.  A peer that sends nothing is dropped, and what waits
for its connection fails as if it had hung up.

::

    looks, twice in an interval:   idle 1: ask    idle 2: wait    idle 3: drop

So a peer that vanishes is asked within one interval, and dropped within two.  All connections of a
server share one timer, which looks at a few of them at a time; for each of them there is a number,
which whatever is received sets to 0.  A peer that sends anything is not asked.  A question may
have to wait behind other things that are sent, minutes on a slow link: as long as the peer takes
more of them, it is waited for.  TCP's own keepalive is turned on where there is one: under a broker
that is not ours it is all there is.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from pbauth._async import chooseReactor
from pbauth.net.sendqueue import bytesAcknowledged, bytesQueued
from pbauth.net.transports import dropConnection, isOverTCP
from pbauth.wire import peerobject
from pbauth.wire.broker import Broker
from pbauth.wire.encoding import Encoded, encodePlain
from pbauth.wire.twistedprivate import bytesWaiting

#: Into so many parts, looked at one after the other, the connections are divided.
_PARTS = 32

# Our own calls are numbered from 1 on, so this one is known as the question, and there is one only.
_QUESTION = 0

# How idle a peer is that has been asked.
_ASKED = 2


class _Nobody:
    """Takes the answer, whatever it is: that something was received has been noted."""

    def callback(self, answer: Any) -> None:
        """Do nothing: the peer is there."""

    def errback(self, answer: Any) -> None:
        """Do nothing: the peer is there, or the connection is closed."""


_NOBODY = _Nobody()

# No arguments, by place and by name. With many idle peers there is one question after the other.
_NOTHING = Encoded(encodePlain((), 1)), Encoded(encodePlain({}, 1))


class KeepAlive:
    """
    Drops connections whose peer is gone.

    Args:
        interval: seconds within which an idle peer is asked, and seconds that it then has to send
            something; 0 or `None`: nothing is done.
        reactor: provides `IReactorTime`; the global one by default.
        dropping: is given the broker of a connection that is about to be dropped.
    """

    def __init__(
        self,
        interval: float | None,
        reactor: Any = None,
        dropping: Callable[[Broker], None] | None = None,
    ) -> None:
        self._interval = interval or 0
        self._reactor = reactor
        self._dropping = dropping
        # Time is counted in steps. A part is looked at when the number of the step is its own,
        # modulo their number: each half of an interval.
        self._step = self._interval / 2 / _PARTS
        self._parts: dict[int, _Part] = {}
        self._done = 0
        self._timer: Any = None
        # Of connections whose peer has been asked while other things waited to be sent: how far
        # the peer has come, and where the question ends; see `_progress`.
        self._questions: dict[Broker, tuple[int, int]] = {}

    def add(self, broker: Any) -> None:
        """
        Look at a connection from now on.

        Args:
            broker: of the connection; under one that is not pbauth's own, TCP alone is relied upon.
        """
        if not self._interval or broker.disconnected:
            return
        _keepAlive(broker.transport, self._interval)
        if not isinstance(broker, Broker) or broker.keepAlive is not None:
            return
        self._reactor = chooseReactor(self._reactor)
        now = self._now()
        if self._timer is None:
            self._done = now
        self._lookUntil(now)
        number = now % _PARTS
        part = self._parts.get(number)
        if part is None:
            part = self._parts[number] = _Part(self, number)
        part.brokers.append(broker)
        broker.idle = 0
        broker.keepAlive = part
        if self._timer is None:
            self._setTimer()

    def forget(self, part: _Part, broker: Broker) -> None:
        """Stop looking at a connection that is closed."""
        part.brokers.remove(broker)
        self._questions.pop(broker, None)
        if not part.brokers:
            del self._parts[part.number]
        if not self._parts and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _now(self) -> int:
        return int(self._reactor.seconds() / self._step)

    def _setTimer(self) -> None:
        if self._parts:
            ahead = min((number - self._done - 1) % _PARTS for number in self._parts) + 1
            due = self._done + ahead
            delay = max(0.0, due * self._step - self._reactor.seconds())
            self._timer = self._reactor.callLater(delay, self._timeIsUp, due)

    def _timeIsUp(self, due: int) -> None:
        self._timer = None
        try:
            self._lookUntil(max(due, self._now()))
        finally:
            self._setTimer()

    def _lookUntil(self, now: int) -> None:
        for step in range(max(self._done, now - _PARTS) + 1, now + 1):
            part = self._parts.get(step % _PARTS)
            for broker in [] if part is None else list(part.brokers):
                self._look(broker)
        self._done = now

    def _look(self, broker: Broker) -> None:
        if not broker.waitingForAnswers:
            # A dict that was emptied keeps its room otherwise.
            broker.waitingForAnswers.clear()
        if broker.idle < _ASKED:
            self._questions.pop(broker, None)
        elif self._takesWhatWaits(broker):
            return
        idle = broker.idle
        broker.idle += 1
        if idle == 1:
            taken, end = _progress(broker.transport)
            _ask(broker)
            if taken < end:
                # The question stands behind that.
                self._questions[broker] = _progress(broker.transport)
        elif idle >= 3:
            if self._dropping is not None:
                self._dropping(broker)
            dropConnection(broker)

    def _takesWhatWaits(self, broker: Broker) -> bool:
        """Return whether the peer has taken more of what stands before the question, and of it."""
        question = self._questions.get(broker)
        if question is None:
            return False
        before, end = question
        taken, _ = _progress(broker.transport)
        if taken <= before:
            return False
        if taken < end:
            self._questions[broker] = (taken, end)
        else:
            # It has arrived. Now there is as much time to answer as always.
            del self._questions[broker]
            broker.idle = _ASKED
        return True


class _Part:
    """
    Connections that are looked at at the same time.

    Args:
        keepAlive: whose part it is.
        number: of the part.
    """

    def __init__(self, keepAlive: KeepAlive, number: int) -> None:
        self._keepAlive = keepAlive
        self.number = number
        self.brokers: list[Broker] = []

    def forget(self, broker: Broker) -> None:
        """Stop looking at a connection that is closed; the broker calls this."""
        self._keepAlive.forget(self, broker)


def _ask(broker: Broker) -> None:
    if _QUESTION not in broker.waitingForAnswers:
        broker.waitingForAnswers[_QUESTION] = _NOBODY
        nothing: Any = _NOTHING
        if not broker.takesEncoded:
            nothing = broker.serialize(()), broker.serialize({})
        broker.sendAtOnce((b"message", _QUESTION, peerobject.NAME, b"ping", 1, *nothing))


def _progress(transport: Any) -> tuple[int, int]:
    """
    Return how far the peer has come with what is sent to it.

    Args:
        transport: of the connection.

    Returns:
        How many bytes the peer has taken, and how many it will have taken at the end of what was
        written until now. Where the system does not tell, they are counted from that end, so that
        the first number grows only while nothing else is written.
    """
    theSocket = getattr(transport, "socket", None)
    waiting = bytesWaiting(transport) + bytesQueued(theSocket)
    taken = bytesAcknowledged(theSocket)
    if taken is None:
        return -waiting, 0
    return taken, taken + waiting


def _keepAlive(transport: Any, interval: float) -> None:
    """Let TCP notice a peer that is gone in about the same time."""
    if not isOverTCP(transport):
        return
    transport.setTcpKeepAlive(True)
    theSocket: Any = transport.socket
    for option, value in _optionsFor(interval):
        try:
            theSocket.setsockopt(socket.IPPROTO_TCP, option, value)
        except OSError:
            # Then the system's own values hold: hours, usually.
            continue


@lru_cache(maxsize=8)
def _optionsFor(interval: float) -> list[tuple[int, int]]:
    seconds = min(max(1, round(interval)), 32_767)
    values = {
        "TCP_KEEPIDLE": seconds,
        # The name of the same on macOS.
        "TCP_KEEPALIVE": seconds,
        "TCP_KEEPINTVL": max(1, seconds // 3),
        "TCP_KEEPCNT": 3,
        # In milliseconds; while something is not acknowledged, the others do nothing.
        "TCP_USER_TIMEOUT": 2000 * seconds,
    }
    return [
        (getattr(socket, name), value) for name, value in values.items() if hasattr(socket, name)
    ]
