"""
pbauth's own broker: Twisted's, on the same wire, with better manners towards bad peers.

What stock PB answers with a traceback in the log (bytes that are not banana, commands and ids that
do not exist) ends the connection here with one line; and whatever waits for the connection is told
`ProtocolViolation`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from socket import AF_INET, AF_INET6
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IHandshakeListener, ISSLTransport
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.spread import banana, jelly, pb
from zope.interface import implementer

from pbauth.banana import (
    PLAIN_TYPES,
    WORDS,
    Encoded,
    NotPlain,
    Reader,
    encodeAnswer,
    encodeExpression,
    encodePlain,
    encodeRemote,
)
from pbauth.errors import ProtocolViolation
from pbauth.milestones import Milestone

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


_SCALARS = frozenset({bytes, int, float})


def dropConnection(broker: pb.Broker) -> None:
    """Close a connection now, whatever still waits to be written."""
    transport: Any = broker.transport
    getattr(transport, "abortConnection", transport.loseConnection)()


class _Pinged(pb.Referenceable):
    """What a peer calls that wants to know whether anybody is there (see `pbauth.pinging`)."""

    def remote_ping(self) -> None:
        """Be there."""


#: The name that it has at each of our brokers. Stock ones say that they have no such object, which
#: is as good an answer.
PINGED = b"pbauth"
_PINGED = _Pinged()


@implementer(IHandshakeListener)
class Broker(pb.Broker):
    """
    A `twisted.spread.pb.Broker`.

    Attributes:
        silent: how often somebody has looked, in vain, whether something was received.
        lookout: who looks, see `pbauth.pinging`; it is told when the connection is closed.

    Args:
        isClient: this is the end that connected.
        security: which types may come in, a `twisted.spread.jelly.SecurityOptions`.
    """

    # Nobody, before the login.
    lookout: Any = None

    def __init__(self, isClient: bool = True, security: Any = jelly.globalSecurity) -> None:
        super().__init__(isClient, security)
        # Twisted gives each connection a copy of the words, which we share.
        self.outgoingSymbols = self.outgoingVocabulary
        self.silent = 0
        self._greeted = Milestone()
        self._secured = Milestone()
        self._closed = Milestone()
        self._awaitsGreeting = False
        self._violation: ProtocolViolation | None = None
        # Twisted's own annotation says that this is always None.
        self.waitingForAnswers: Any = {}
        self._reader = Reader(
            self.callExpressionReceived,
            self._receivePlain,
            self._makeReference,
            self._dropReferences,
        )
        # The references that were made for the message that is being received.
        self._references: list[pb.RemoteReference] = []
        self._words: dict[bytes, bytes] = {}
        self._plain = _allowsPlain(security)
        self._writesAtOnce = False
        self._outgoing: list[bytes] | None = None

    def makeConnection(self, transport: Any) -> None:
        """The connection is made."""
        # By TLS the transport itself puts small writes together.
        self._writesAtOnce = isinstance(transport, Connection) and not transport.TLS
        if getattr(transport, "addressFamily", None) in (AF_INET, AF_INET6):
            # Messages go out whole, so there is nothing to gain by waiting for more.
            transport.setTcpNoDelay(True)
        super().makeConnection(transport)

    def speakFirst(self) -> None:
        """
        As a client, do not wait for the server's greeting, but speak at once, and check the
        greeting when it comes: that saves a round trip, with every server.
        """
        if self.currentDialect is None:
            self._awaitsGreeting = True
            # The one dialect that every server has.
            self.sendEncoded(b"pb")
            self._selectDialect(b"pb")

    def handshakeCompleted(self) -> None:
        """The TLS handshake is over, and the server is one to trust (see `IHandshakeListener`)."""
        self._secured.reach()

    def callExpressionReceived(self, obj: Any) -> None:
        """Take what was read: first of all, the greeting."""
        if not self._awaitsGreeting:
            super().callExpressionReceived(obj)
        elif isinstance(obj, list) and b"pb" in obj:
            self._awaitsGreeting = False
            self._readPlain()
            self._greeted.reach()
        else:
            raise banana.BananaError("The server does not speak the dialect pb.")

    def setPrefixLimit(self, limit: int) -> None:
        """Set how long numbers may be (see `twisted.spread.banana.Banana`)."""
        super().setPrefixLimit(limit)
        self._reader.limit = limit

    def _selectDialect(self, dialect: bytes) -> None:
        if dialect == b"pb":
            self._words = WORDS
            if not self._awaitsGreeting:
                self._readPlain()
        super()._selectDialect(dialect)

    def _readPlain(self) -> None:
        self._reader.words = self.incomingVocabulary
        self._reader.readsPlain = self._plain

    def sendEncoded(self, obj: Any) -> None:
        """Send an expression (see `twisted.spread.banana.Banana`), in one piece."""
        pieces: list[bytes] = []
        encodeExpression(obj, pieces.append, self._reader.limit, self._words)
        self._send(b"".join(pieces))

    def _send(self, data: bytes) -> None:
        if self._outgoing is not None:
            self._outgoing.append(data)
        else:
            transport: Any = self.transport
            transport.write(data)

    def dataReceived(self, chunk: bytes) -> None:
        """Take what the peer sent; a peer that breaks the protocol is cut off."""
        if self._violation is not None:
            return
        self.silent = 0
        if self._writesAtOnce and self._outgoing is None:
            self._inOnePiece(self._read, chunk)
        else:
            self._read(chunk)

    def _inOnePiece(self, act: Callable[[Any], None], argument: Any) -> None:
        """All that is sent meanwhile goes out in one piece, at once."""
        self._outgoing = []
        try:
            act(argument)
        finally:
            outgoing, self._outgoing = self._outgoing, None
            if outgoing:
                self._writeAtOnce(b"".join(outgoing))

    def _writeAtOnce(self, data: bytes) -> None:
        """
        Write to the socket now, if nothing waits to be written; Twisted's own `write` waits until
        the reactor has asked whether it may.
        """
        transport: Any = self.transport
        if not (
            transport.dataBuffer
            or transport._tempDataBuffer
            or transport.disconnecting
            or transport.producer is not None
        ):
            sent = transport.writeSomeData(data)
            # An error is found again, and dealt with, by the reactor.
            if isinstance(sent, int):
                data = data[sent:]
        if data:
            transport.write(data)

    def _read(self, chunk: bytes) -> None:
        try:
            self._reader.feed(chunk)
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

    def localObjectForID(self, luid: Any) -> Any:
        """Find what the peer calls (see `twisted.spread.pb.Broker`)."""
        found = self.localObjects.get(luid)
        if found is not None:
            return found.object
        return _PINGED if luid == PINGED else super().localObjectForID(luid)

    def _makeReference(self, luid: int) -> pb.RemoteReference:
        reference = pb.RemoteReference(None, self, luid, 1)
        self._references.append(reference)
        return reference

    def _dropReferences(self) -> None:
        for reference in self._references:
            # The peer has not counted this one: another one will be made for it.
            reference.doRefCount = 0
        self._references.clear()

    def _receivePlain(self, items: list[Any]) -> bool:
        """A message whose values were read. Others are read as Twisted does."""
        command = items[0]
        if (
            command == b"message"
            and len(items) == 7
            and type(items[2]) in (int, bytes)
            and type(items[3]) is bytes
            and type(items[5]) is tuple
            and type(items[6]) is dict
        ):
            self._recvMessage(self.localObjectForID, *items[1:])
            self._references.clear()
        elif command == b"answer" and len(items) == 3 and type(items[1]) is int:
            self._references.clear()
            self.waitingForAnswers.pop(items[1]).callback(items[2])
        elif all(type(item) in _SCALARS for item in items):
            # There was nothing to be read otherwise.
            self.callExpressionReceived(items)
        else:
            return False
        return True

    def _sendAnswer(self, netResult: Any, requestID: Any) -> None:
        """Send an answer; nearly always one that was encoded already."""
        if type(netResult) is Encoded and type(requestID) is int:
            self._send(encodeAnswer(requestID, netResult, self._reader.limit))
        else:
            super()._sendAnswer(netResult, requestID)

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
        """The protocol is agreed on; by one who speaks first, supposed."""
        super().connectionReady()
        if not self._awaitsGreeting:
            self._greeted.reach()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is closed: tell whatever waits for it."""
        if self._violation is not None:
            reason = Failure(self._violation)
        self._reader.closed = True
        super().connectionLost(reason)
        self._secured.miss(reason)
        self._greeted.miss(reason)
        self._closed.reach()
        if self.lookout is not None:
            self.lookout.forget(self)

    @property
    def greeted(self) -> bool:
        """Whether both ends agreed to speak Perspective Broker."""
        return self._greeted.reached

    def whenGreeted(self) -> Deferred[None]:
        """
        Wait until both ends agreed to speak Perspective Broker.

        Returns:
            Fires then; fails with the reason if the connection is closed before.
        """
        return self._greeted.wait()

    def whenSecured(self) -> Deferred[None]:
        """
        Wait until the TLS handshake is over; on a connection without TLS there is nothing to
        wait for.

        Returns:
            Fires then; fails with the reason if the connection is closed before.
        """
        if not ISSLTransport.providedBy(self.transport):
            self._secured.reach()
        return self._secured.wait()

    def whenClosed(self) -> Deferred[None]:
        """
        Wait until the connection is closed.

        Returns:
            Fires then.
        """
        return self._closed.wait()

    def _peer(self) -> Any:
        transport: Any = self.transport
        return transport.getPeer()

    def serialize(self, object: Any, *args: Any, **kw: Any) -> Any:
        """
        Jelly an object; a coroutine is waited for, as a Deferred is. What this gives is for
        sending, and nothing else.
        """
        if self._plain:
            given: list[tuple[int, pb.Referenceable]] = []
            try:
                return Encoded(
                    encodePlain(object, self._reader.limit, partial(self._encodeReference, given))
                )
            except (NotPlain, UnicodeEncodeError, RecursionError):
                for luid, reference in reversed(given):
                    self._takeBack(luid, reference)
        if hasattr(object, "__await__") and not isinstance(object, Deferred):
            object = ensureDeferred(object)
        return super().serialize(object, *args, **kw)

    def _encodeReference(self, given: list[tuple[int, pb.Referenceable]], value: Any) -> bytes:
        """Write a reference to an object of ours; other objects are written by jelly."""
        if getattr(type(value), "jellyFor", None) is not pb.Referenceable.jellyFor:
            raise NotPlain
        luid = self.registerReference(value)
        given.append((luid, value))
        return encodeRemote(luid, self._reader.limit)

    def _takeBack(self, luid: int, reference: pb.Referenceable) -> None:
        """A reference was not given after all; jelly will, and give it the same number."""
        if not self.localObjects[luid].decref():
            del self.localObjects[luid], self.luids[reference.processUniqueID()]
            self.currentLocalID -= 1

    def unserialize(self, sexp: Any, perspective: Any = None) -> Any:
        """Unjelly an expression; values that were read already are taken as they are."""
        if type(sexp) is tuple or type(sexp) is dict:
            for reference in self._references:
                reference.perspective = perspective
            return sexp
        return super().unserialize(sexp, perspective)


@lru_cache(maxsize=16)
def _allowsPlain(security: Any) -> bool:
    """
    Whether all plain values may cross, so that nothing has to be asked for each. It is asked once
    for all connections.
    """
    return isinstance(security, jelly.SecurityOptions) and (
        type(security).isTypeAllowed is jelly.SecurityOptions.isTypeAllowed
        and all(security.isTypeAllowed(name) for name in PLAIN_TYPES)
    )
