"""
pbauth's own broker: Twisted's, on the same wire, with better manners towards bad peers.

What stock PB answers with a traceback in the log (bytes that are not banana, commands and ids that
do not exist) ends the connection here with one line; and whatever waits for the connection is told
`ProtocolViolation`.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, fail, succeed
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.spread import banana, jelly, pb

from pbauth.errors import ProtocolViolation

_log = Logger()

# All that a peer can make Twisted's decoder and dispatcher raise; exceptions of applications'
# methods do not come this way, the dispatcher sends them to the caller.
_PEERS_FAULT = (
    banana.BananaError,
    pb.ProtocolError,
    jelly.InsecureJelly,
    NotImplementedError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    AssertionError,
    OverflowError,
)


def dropConnection(broker: pb.Broker) -> None:
    """Close a connection now, whatever still waits to be written."""
    transport: Any = broker.transport
    getattr(transport, "abortConnection", transport.loseConnection)()


def _newWaiter(waiting: list[Deferred[None]]) -> Deferred[None]:
    waiter: Deferred[None] = Deferred(lambda cancelled: waiting.remove(cancelled))
    waiting.append(waiter)
    return waiter


def _takeAll(waiting: list[Deferred[None]]) -> list[Deferred[None]]:
    taken = list(waiting)
    waiting.clear()
    return taken


class Broker(pb.Broker):
    """
    A `twisted.spread.pb.Broker`.

    Args:
        isClient: this is the end that connected.
        security: which types may come in, a `twisted.spread.jelly.SecurityOptions`.
    """

    def __init__(self, isClient: bool = True, security: Any = jelly.globalSecurity) -> None:
        super().__init__(isClient, security)
        self._waitingForGreeting: list[Deferred[None]] = []
        self._waitingForClose: list[Deferred[None]] = []
        self._closedBy: Failure | None = None
        self._violation: ProtocolViolation | None = None
        # Twisted's own annotation says that this is always None.
        self.waitingForAnswers: Any = {}

    def dataReceived(self, chunk: bytes) -> None:
        """Take what the peer sent; a peer that breaks the protocol is cut off."""
        if self._violation is not None:
            return
        try:
            super().dataReceived(chunk)
        except _PEERS_FAULT as fault:
            self._violation = ProtocolViolation(
                "The peer does not speak Perspective Broker, or breaks its rules."
            )
            _log.info(
                "Cut off {peer}, which broke the protocol: {fault}",
                peer=self._peer(),
                fault=type(fault).__name__,
            )
            dropConnection(self)

    def proto_answer(self, requestID: Any, netResult: Any) -> None:
        """An answer; one that can't be read fails the call, not the connection."""
        waiting = self.waitingForAnswers.pop(requestID)
        try:
            result = self.unserialize(netResult)
        except jelly.InsecureJelly:
            waiting.errback(Failure())
        else:
            waiting.callback(result)

    def proto_error(self, requestID: Any, fail: Any) -> None:
        """An error; one of a class that is not known here is told by its name."""
        waiting = self.waitingForAnswers.pop(requestID)
        try:
            error = self.unserialize(fail)
        except jelly.InsecureJelly:
            name = fail[0].decode("utf-8", "replace")
            message = f"{name}, a class of errors that is not known here"
            error = Failure(pb.RemoteError(name, message, "Traceback unavailable"))
        waiting.errback(error)

    def connectionReady(self) -> None:
        """Both ends agreed on the protocol."""
        super().connectionReady()
        for waiter in _takeAll(self._waitingForGreeting):
            waiter.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is closed: tell whatever waits for it."""
        if self._violation is not None:
            reason = Failure(self._violation)
        self._closedBy = reason
        super().connectionLost(reason)
        for waiter in _takeAll(self._waitingForGreeting):
            waiter.errback(reason)
        for waiter in _takeAll(self._waitingForClose):
            waiter.callback(None)

    def whenGreeted(self) -> Deferred[None]:
        """
        Wait until both ends agreed to speak Perspective Broker.

        Returns:
            Fires then; fails with the reason if the connection is closed before.
        """
        if self._closedBy is not None:
            return fail(self._closedBy)
        if self.currentDialect is not None:
            return succeed(None)
        return _newWaiter(self._waitingForGreeting)

    def whenClosed(self) -> Deferred[None]:
        """
        Wait until the connection is closed.

        Returns:
            Fires then.
        """
        if self._closedBy is not None:
            return succeed(None)
        return _newWaiter(self._waitingForClose)

    def _peer(self) -> Any:
        transport: Any = self.transport
        return transport.getPeer()

    def serialize(self, object: Any, *args: Any, **kw: Any) -> Any:
        """Jelly an object; a coroutine is waited for, as a Deferred is."""
        if hasattr(object, "__await__") and not isinstance(object, Deferred):
            object = ensureDeferred(object)
        return super().serialize(object, *args, **kw)
