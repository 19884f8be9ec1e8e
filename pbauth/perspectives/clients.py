"""
The client objects that are attached to a perspective, and messages for a client who is away.

Either they are queued in the perspective until the client attaches
again, or callers get an error, which is the default.

What is sent while a client is attached goes out at once, and only once: a message whose connection
breaks before its answer is not sent again, since nobody can know whether it had arrived.  The rules
of the queue, which holds what is sent while there is no client:

- It is bounded.  When it is full, the *oldest* message is dropped: who comes back late wants the
  latest news.  `Clients.dropped` counts them, and the log says so.
- The next client gets all of it, in order, before anything newer, and as soon as its `attached` is
  through.  A message leaves the queue when it is sent, not before and not a second time; those that
  could not be sent because this connection broke stay for the next client.
- pbauth does not tell the client that messages were dropped: it knows
  no method for that. `attached`, which runs before the queue is delivered,
  may report `dropped`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, DeferredSemaphore, fail
from twisted.logger import Logger
from twisted.spread import pb
from zope.interface import implementer

from pbauth._calling import checkTimeout, send
from pbauth.errors import NobodyAttached
from pbauth.interfaces import IClients, WireValue

_log = Logger()


#: The method, its arguments, those by name, and the time for the answer.
_Call = tuple[str, tuple[Any, ...], dict[str, Any], "float | None"]


class _Message:
    """A call that waits for its client, and what its caller waits for."""

    __slots__ = ("_call", "_sent", "answer", "toAll")

    def __init__(
        self,
        toAll: bool,
        call: _Call,
        queue: deque[_Message],
    ) -> None:
        self.toAll = toAll
        self._call = call
        self._sent: Deferred[Any] | None = None
        self.answer: Deferred[Any] = Deferred(lambda cancelled: self._withdraw(queue))

    def _withdraw(self, queue: deque[_Message]) -> None:
        if self._sent is not None:
            self._sent.cancel()
        elif self in queue:
            queue.remove(self)

    def send(self, clientref: Any) -> None:
        """Send the call."""
        sent: Deferred[Any] = _call(clientref, self._call)
        self._sent = _all([sent]) if self.toAll else sent

    def watch(self) -> None:
        """Pass the client's answer on, once the call is sent."""
        assert self._sent is not None  # noqa: S101 - see above
        self._sent.chainDeferred(self.answer)

    def drop(self, name: str) -> None:
        """Tell the caller that the call will never be sent."""
        if self.toAll:
            # To none: an error would be logged once for each, where nobody waits for answers.
            self.answer.callback([])
        else:
            self.answer.errback(NobodyAttached(name))


#: Shared, since nothing is ever in it.
_NO_QUEUE: deque[_Message] = deque(maxlen=0)


@implementer(IClients)
class Clients:
    """
    Call the client objects that are attached to one perspective now: the `client` that each gave at
    its login.  A client that gave none does not count; one that attached twice counts twice.

    Iterate over them (oldest first) to choose; ``len(clients)`` tells how many there are, and
    ``if clients:`` whether there are any::

        await perspective.clients.callRemote("show", "your move")

    Args:
        name: of the perspective.
        queueSize: how many messages are kept while nobody is attached; 0: none, and whoever sends
            one gets `NobodyAttached`. What they hold is serialised when they are sent.

        atOnce: so many clients are called at once; others as these have answered, or are too slow.
            `None`: all.

    Attributes:
        dropped: how many messages were dropped from the full queue since a client was attached
            last. `attached` of the next one may still read it.
    """

    __slots__ = ("_atOnce", "_name", "_queue", "_queueSize", "_sessions", "dropped")

    def __init__(self, name: str, queueSize: int = 0, atOnce: int | None = None) -> None:
        self._name = name
        self._atOnce = atOnce
        self._queueSize = queueSize
        self._sessions: dict[Any, None] = {}
        # An empty deque takes more than all the rest.
        self._queue: deque[_Message] = deque() if queueSize > 0 else _NO_QUEUE
        self.dropped = 0

    def __repr__(self) -> str:
        return f"<Clients of {self._name!r}: {len(self)} attached, {self.waiting} messages waiting>"

    def __iter__(self) -> Iterator[pb.RemoteReference]:
        """Iterate over the references to the clients' objects, oldest first."""
        return iter([session.clientref for session in self._sessions if _reachable(session)])

    def __len__(self) -> int:
        return sum(map(_reachable, self._sessions))

    @property
    def waiting(self) -> int:
        """Return how many messages wait for the next client."""
        return len(self._queue)

    def callRemote(
        self, method: str, /, *args: WireValue, timeout: float | None = None, **kw: WireValue
    ) -> Deferred[list[tuple[bool, WireValue]]]:
        """
        Call a method of all clients that are attached now. If there are none, call the next one.

        Args:
            method: its name, without ``remote_``.
            args: as for `twisted.spread.pb.RemoteReference.callRemote`, and so are `kw`.
            timeout: seconds that each client has for its answer, from when it is called; one that
                is slower has `False` and a `CallTimeout`. `None`: they are waited for.

        Returns:
            Fires, when all have answered, with a pair for each: `True` and its answer, or `False`
            and a `Failure`; one that fails hides none of the others. With no pair at all for a
            message that was dropped from the queue. Fails with `NobodyAttached` if there are no
            clients and there is no queue. Cancelling it withdraws a message that waits.

        Raises:
            ValueError: `timeout` is not a number of seconds.
        """
        call = method, args, kw, checkTimeout(timeout)
        clients = list(self)
        if not clients:
            return self._keep(True, call)
        return self._callAll(clients, call)

    def callEach(
        self, method: str, /, *args: WireValue, timeout: float | None = None, **kw: WireValue
    ) -> Deferred[list[tuple[pb.RemoteReference, bool, WireValue]]]:
        """
        Call a method of all clients that are attached now, and tell which one answered what.
        Nothing is queued: if there are none, none is called.

        Args:
            method: its name, without ``remote_``.
            args: as for `twisted.spread.pb.RemoteReference.callRemote`, and so are `kw`.
            timeout: as for `callRemote`.

        Returns:
            Fires, when all have answered, with a triple for each client, oldest first: the
            reference to its object, and then `True` and its answer, or `False` and a `Failure`.

        Raises:
            ValueError: `timeout` is not a number of seconds.
        """
        call = method, args, kw, checkTimeout(timeout)
        clients = list(self)
        answers = self._callAll(clients, call)
        return answers.addCallback(
            lambda results: [
                (client, *result) for client, result in zip(clients, results, strict=True)
            ]
        )

    def callNewest(
        self, method: str, /, *args: WireValue, timeout: float | None = None, **kw: WireValue
    ) -> Deferred[WireValue]:
        """
        Call a method of the client that attached last: of several connections of the same user it
        is the one that is most likely alive. If there is no client, call the next one.

        Args:
            method: its name, without ``remote_``.
            args: as for `twisted.spread.pb.RemoteReference.callRemote`, and so are `kw`.
            timeout: seconds that it has for its answer, from when it is called.

        Returns:
            Fires with its answer, or fails as it does. Fails with `NobodyAttached` if there are no
            clients and there is no queue, or if the message was dropped from it. Cancelling it
            withdraws a message that waits.

        Raises:
            ValueError: `timeout` is not a number of seconds.
        """
        call = method, args, kw, checkTimeout(timeout)
        clients = list(self)
        if not clients:
            return self._keep(False, call)
        return _call(clients[-1], call)

    def joined(self, session: Any) -> None:
        """Add a client, and send it what waits. The session calls it (see `IClients`)."""
        self._sessions[session] = None
        if self.dropped:
            _log.warn(
                "{dropped} messages for {perspectiveName!r} were dropped while nobody was attached",
                dropped=self.dropped,
                perspectiveName=self._name,
            )
            self.dropped = 0
        sent: list[_Message] = []
        while self._queue and _reachable(session):
            sent.append(self._queue.popleft())
            sent[-1].send(session.clientref)
        # Nobody hears of an answer before all is sent: whoever would send something then, would
        # get in front of what had been waiting.
        for message in sent:
            message.watch()

    def left(self, session: Any) -> None:
        """Remove a client. The session calls it (see `IClients`)."""
        self._sessions.pop(session, None)

    def _callAll(self, clients: list[Any], call: _Call) -> Deferred[Any]:
        if self._atOnce is None or len(clients) <= self._atOnce:
            return _all([_call(client, call) for client in clients])
        turns = DeferredSemaphore(self._atOnce)
        return _all([turns.run(_call, client, call) for client in clients])

    def _keep(self, toAll: bool, call: _Call) -> Deferred[Any]:
        if self._queueSize < 1:
            return fail(NobodyAttached(self._name))
        message = _Message(toAll, call, self._queue)
        self._queue.append(message)
        if len(self._queue) > self._queueSize:
            if not self.dropped:
                _log.warn(
                    "The queue of {perspectiveName!r} is full ({queueSize} messages): the oldest "
                    "are dropped until a client attaches",
                    perspectiveName=self._name,
                    queueSize=self._queueSize,
                )
            self.dropped += 1
            self._queue.popleft().drop(self._name)
        return message.answer


def _reachable(session: Any) -> bool:
    # A connection tells all that hang on it, one after the other, that it is closed.
    return session.live and not session.broker.disconnected


def _call(clientref: Any, call: _Call) -> Deferred[Any]:
    return send(clientref, *call)


def _all(calls: list[Deferred[Any]]) -> Deferred[Any]:
    return DeferredList(calls, consumeErrors=True)
