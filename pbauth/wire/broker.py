"""
pbauth's own broker: Twisted's, on the same wire, with better manners towards bad peers.

What stock PB answers with a traceback in the log (bytes that are not banana, commands and ids that
do not exist) ends the connection here with one line; and whatever waits for the connection fails
with `ProtocolViolation`.

This module is the life of a connection: its greeting, its login, and its end.  What is received on
it is in `pbauth.wire.receiving`, and what is sent in `pbauth.wire.serializing`; limits before a
login (`prelogin`), the writer and the exports of sessions (`revocation`) are objects of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHandshakeListener, ISSLTransport
from twisted.internet.protocol import connectionDone
from twisted.python import threadable
from twisted.python.failure import Failure
from twisted.spread import banana, jelly, pb
from zope.interface import implementer

from pbauth._async import OneShot
from pbauth.audit import Audit
from pbauth.errors import ProtocolViolation, ServerNotTrusted
from pbauth.interfaces import IRestrictableBroker, IRevokingBroker
from pbauth.net.transports import isOverTCP
from pbauth.wire import peerobject
from pbauth.wire.calllimits import CallCounts, CallLimits
from pbauth.wire.decoding import MalformedMessage, Reader
from pbauth.wire.encoding import encodeExpression
from pbauth.wire.peerobject import Endings
from pbauth.wire.prelogin import (
    GUEST_LIMITS,
    LIMITS,
    PreLoginLimits,
    UnprovedServerLimits,
)
from pbauth.wire.receiving import ReceivingBroker
from pbauth.wire.references import compareReferences
from pbauth.wire.revocation import ExportingBroker, Exports
from pbauth.wire.security import allowsPlain, allowsReferences
from pbauth.wire.serializing import Given
from pbauth.wire.tokens import WORDS
from pbauth.wire.twistedprivate import READING, WRITING
from pbauth.wire.writer import CoalescingWriter, writerFor

_DIALECTS = [b"pb", b"none"]
_GREETING = b"\x02\x80\x02\x82pb\x04\x82none"
# The message after it: a list of the word for the command, and a small number.
_VERSION = (b"version", pb.Broker.version)
_VERSION_SENT = b"\x02\x80" + WORDS[b"version"] + bytes([pb.Broker.version, 0x81])

compareReferences()


@implementer(IHandshakeListener, IRestrictableBroker, IRevokingBroker)
class Broker(ReceivingBroker):
    """
    A `twisted.spread.pb.Broker`.

    Messages of plain values are never expressions in between. A program may notice: what
    `remoteMessageReceived` is given is for `unserialize` only, and what `serialize` gives is for
    sending only. A subclass that overrides what handles expressions (`READING` and `WRITING` in
    `pbauth.wire.twistedprivate`) is given expressions, as by Twisted; but not by a peer that has
    not logged in.

    Attributes:
        readsOurErrors: the peer has pbauth, and so the classes of our errors; others get failures
            that stock Twisted can read, with the same name and text.
        idle: how many looks in a row found that nothing was received since the one before.
        keepAlive: looks, see `pbauth.wire.keepalive`; it learns when the connection is closed.
        clock: provides `IReactorTime` for what waits; `None`: the global reactor.
        audit: where it is recorded that the connection is dropped; `None`, as at a client: nowhere
            but in the ordinary log.
        callLimits: how much the peer may ask for once it has logged in, a
            `pbauth.wire.calllimits.CallLimits`; `None`: as much as it likes.
        origin: where the connection comes from, see `pbauth.net.origin.originOf`.

    Args:
        isClient: this is the end that connected.
        security: which types may come in, a `twisted.spread.jelly.SecurityOptions`. Whether it
            allows all plain types is looked at once, now.
    """

    # Twisted's part has a dict, which is small while there are few attributes. That is a fifth of
    # what a connection takes.
    __slots__ = (
        "_awaitsGreeting",
        "_calling",
        "_calls",
        "_closed",
        "_ended",
        "_exports",
        "_given",
        "_greeted",
        "_isGuest",
        "_limits",
        "_plain",
        "_proved",
        "_reader",
        "_references",
        "_request",
        "_secured",
        "_underWay",
        "_violation",
        "_words",
        "_writer",
        "_writesPlain",
        "audit",
        "callLimits",
        "clock",
        "idle",
        "keepAlive",
        "origin",
        "readsOurErrors",
    )

    _readsOwnWay = _writesOwnWay = True

    def __init_subclass__(cls, **kw: Any) -> None:
        """Find out whether a subclass overrides what takes expressions, and has to get them."""
        super().__init_subclass__(**kw)
        cls._readsOwnWay = _keeps(cls, READING)
        cls._writesOwnWay = _keeps(cls, WRITING)

    def __init__(self, isClient: bool = True, security: Any = jelly.globalSecurity) -> None:
        super().__init__(isClient, security)
        # Twisted gives each connection a copy of the words, which we share.
        self.outgoingSymbols = self.outgoingVocabulary
        self.idle = 0
        self.readsOurErrors = True
        self.clock: Any = None
        self.audit: Audit | None = None
        self.callLimits: CallLimits | None = None
        # Nobody, before the login.
        self.keepAlive: Any = None
        self.origin: Any = None
        self._greeted = OneShot()
        # From the time on when somebody waits for it, or it is so.
        self._secured: OneShot | None = None
        self._closed = OneShot()
        # From the time on when somebody wants to know, or the peer has said something.
        self._ended: Endings | None = None
        self._awaitsGreeting = False
        self._violation: ProtocolViolation | None = None
        # Twisted's own annotation says that this is always None.
        self.waitingForAnswers: Any = {}
        self._reader = Reader(
            self.callExpressionReceived,
            self._receivePlain,
            self._makeReference if allowsReferences(security) else None,
            self._dropReferences,
        )
        # The references that were made for the message that is being received.
        self._references: list[pb.RemoteReference] = []
        # What the peer gets references to by what is being serialised.
        self._given: list[Given] | None = None
        # The name of the method that the peer calls.
        self._calling: bytes | None = None
        # The number of the peer's call, while it is begun; and the calls that go on, by number.
        self._request: Any = None
        self._underWay: dict[Any, Deferred[Any]] | None = None
        self._words: dict[bytes, bytes] = {}
        allowed = allowsPlain(security)
        self._plain = allowed and self._readsOwnWay
        self._writesPlain = allowed and self._writesOwnWay
        # From the first session on.
        self._exports: Exports | None = None
        # Until the login is over, and whether it is.
        self._limits: PreLoginLimits | UnprovedServerLimits | None = None
        self._proved = self._isGuest = False
        # What the peer has asked for, from the login on, where that is limited.
        self._calls: CallCounts | None = None
        # Where the transport does not put writes together itself.
        self._writer: CoalescingWriter | None = None

    def makeConnection(self, transport: Any) -> None:
        """Take the transport of the connection."""
        self._writer = writerFor(transport)
        if isOverTCP(transport):
            # Messages go out whole, so there is nothing to gain by waiting for more.
            transport.setTcpNoDelay(True)
        super().makeConnection(transport)

    def speakFirst(self) -> None:
        """
        Choose the dialect without waiting for the server's greeting, as a client.

        The greeting is checked when it comes. That saves a round trip, with every server.
        """
        if self.currentDialect is None:
            self._awaitsGreeting = True
            # The one dialect that every server has.
            self.sendEncoded(b"pb")
            self.currentDialect = b"pb"
            self.connectionReady()

    def handshakeCompleted(self) -> None:
        """Take note that the TLS handshake is over (see `IHandshakeListener`)."""
        self._whetherSecured().fire()

    def _whetherSecured(self) -> OneShot:
        if self._secured is None:
            self._secured = OneShot()
        return self._secured

    def callExpressionReceived(self, obj: Any) -> None:
        """Act upon what was read: first of all, the greeting."""
        if not self._awaitsGreeting:
            if self.currentDialect is None and self.isClient and type(obj) is not list:
                raise MalformedMessage("The greeting is not a list of dialects")
            super().callExpressionReceived(obj)
        elif isinstance(obj, list) and b"pb" in obj:
            self._awaitsGreeting = False
            self._readPlain()
            self._greeted.fire()
        else:
            raise MalformedMessage("The server does not speak the dialect pb")

    def restrict(self, mostBytes: int) -> None:
        """
        Take only what a login needs until it is over (see `IRestrictableBroker`).

        A server takes calls of what a login needs, and answers by errors that any client can read.
        A client takes answers, and holds back calls. After a login this does nothing.
        """
        if self._proved:
            return
        self.readsOurErrors = False
        if self.isClient:
            self._limits = UnprovedServerLimits(mostBytes)
        else:
            self._limits = PreLoginLimits(mostBytes)
            self._reader.limits = LIMITS

    def unrestrict(self) -> None:
        """Take everything from now on, though there was no login; forget what was held back."""
        self._limits = self._reader.limits = None
        self._reader.readsPlain = self._plain and bool(self._words)

    def loggedIn(self, guest: bool = False) -> None:
        """
        Take everything: the peer has logged in, or proved itself (see `IRestrictableBroker`).  Of a
        guest, take plain values that are not too large.
        """
        limits = self._limits
        self._proved = True
        self._isGuest = guest
        self.unrestrict()
        if guest:
            self._reader.limits = GUEST_LIMITS
            self._reader.readsPlain = True
        if self.callLimits is not None:
            self._calls = self._calls or CallCounts(self.callLimits)
            self._reader.limits = self.callLimits.reading(self._reader.limits)
        if isinstance(limits, UnprovedServerLimits):
            # Others do not log in to such servers as this client can.
            self.readsOurErrors = True
            for held in limits.held:
                try:
                    self._actUpon(held)
                except Exception as error:
                    self._blame(error)

    def expectProof(self, check: Callable[[bytes], None]) -> None:
        """
        Take the server's proof also if it comes before the answer, and everything after that.

        Args:
            check: takes the proof; raises `ServerNotTrusted` if it is not one.
        """
        if isinstance(self._limits, UnprovedServerLimits):
            self._limits.check = check

    def _takeProof(self, limits: UnprovedServerLimits, arguments: tuple[Any, ...]) -> None:
        if limits.check is None or len(arguments) != 1 or type(arguments[0]) is not bytes:
            raise MalformedMessage("It cannot be a proof")
        try:
            limits.check(arguments[0])
        except ServerNotTrusted:
            # The answer will be no better.
            return
        self.loggedIn()

    def _actUpon(self, held: Any) -> None:
        """Act upon a call that was held back."""
        if type(held) is tuple:
            items, references = held
            self._references.extend(references)
            self._receivePlain(items)
        else:
            self.callExpressionReceived(held)

    @property
    def brokeProtocol(self) -> bool:
        """Return whether the peer broke the rules of the protocol."""
        return self._violation is not None

    def setPrefixLimit(self, limit: int) -> None:
        """Set how long numbers may be (see `twisted.spread.banana.Banana`)."""
        vars(self).update(_numbersUpTo(limit))
        self._reader.limit = limit

    def _dialectChosen(self) -> None:
        # Before the login our own reader alone reads, in any dialect: it makes nothing but plain
        # values.
        self._reader.readsPlain = type(self._limits) is PreLoginLimits
        if self.currentDialect == b"pb":
            self._words = WORDS
            if not self._awaitsGreeting:
                self._readPlain()

    def _readPlain(self) -> None:
        self._reader.words = self.incomingVocabulary
        self._reader.readsPlain = self._plain or type(self._limits) is PreLoginLimits

    def sendEncoded(self, obj: Any) -> None:
        """Send an expression (see `twisted.spread.banana.Banana`), in one piece."""
        if obj is self.knownDialects and obj == _DIALECTS:
            # Each connection begins with it.
            self._send(_GREETING)
            return
        if obj == _VERSION and self._words:
            self._send(_VERSION_SENT)
            return
        pieces: list[bytes] = []
        encodeExpression(obj, pieces.append, self._reader.limit, self._words)
        self._send(b"".join(pieces))

    def sendAtOnce(self, message: tuple[Any, ...]) -> None:
        """
        Send a message without waiting for the reactor's next turn, where nothing waits before it.

        Args:
            message: its items, for `sendCall`.
        """
        if self._writer is None:
            self.sendCall(*message)
        else:
            self._writer.hold(self._sendItems, message)

    @property
    def takesEncoded(self) -> bool:
        """Return whether items of a message may be `Encoded`, in the words of ``pb``."""
        return bool(self._words) and self._writesOwnWay

    def _sendItems(self, message: tuple[Any, ...]) -> None:
        self.sendCall(*message)

    def _send(self, data: bytes) -> None:
        writer = self._writer
        if writer is not None:
            writer.write(data)
        else:
            transport: Any = self.transport
            transport.write(data)

    def sendDecRef(self, objectID: Any) -> None:
        """Tell the peer that a reference to its object is gone; in whatever thread it went."""
        self._inReactor(self._dropImport, objectID)

    def _dropImport(self, objectID: Any) -> None:
        if self._exports is not None:
            self._exports.dropImport(objectID)
        super().sendDecRef(objectID)

    def decCacheRef(self, objectID: Any) -> None:
        """Tell the peer that the copy of its `Cacheable` is gone; in whatever thread it went."""
        self._inReactor(super().decCacheRef, objectID)

    def _inReactor(self, send: Callable[[Any], None], objectID: Any) -> None:
        reactor = getattr(self.transport, "reactor", None)
        if reactor is None or threadable.ioThread in (None, threadable.getThreadID()):
            send(objectID)
        else:
            reactor.callFromThread(self._whileConnected, send, objectID)

    def _whileConnected(self, send: Callable[[Any], None], objectID: Any) -> None:
        if not self.disconnected:
            send(objectID)

    def exportingFor(self, session: Any, client: Any = None) -> ExportingBroker:
        """Return a broker that notes what a session exports (see `IRevokingBroker`)."""
        if self._exports is None:
            self._exports = Exports()
        sessions = frozenset({session})
        if isinstance(client, pb.RemoteReference) and client.broker is self:
            self._exports.ownImport(client.luid, sessions)
        return ExportingBroker(self, self._exports, sessions)

    def revoke(self, session: Any) -> None:
        """End what only this session has exported (see `IRevokingBroker`)."""
        if self._exports is not None and not self.disconnected:
            self._exports.revoke(self, session)

    def tellEnded(self, reference: Any, reason: str) -> None:
        """Tell the peer that this end has ended a session (see `IRevokingBroker`)."""
        if self.disconnected or not self.readsOurErrors:
            # Others than pbauth's brokers would not understand.
            return
        luid = self.luids.get(reference.processUniqueID())
        if luid is not None:
            self._callPeerObject(peerobject.ENDED, luid, reason)

    def tellLeaving(self, seconds: float) -> bool:
        """
        Tell the peer that this end is about to stop.

        Args:
            seconds: until it closes the connection.

        Returns:
            Whether the peer understands that.
        """
        if not self.readsOurErrors:
            return False
        self._callPeerObject(peerobject.LEAVING, seconds)
        return True

    def withdrawCall(self, requestID: Any) -> None:
        """
        Tell the peer that this end no longer waits for the answer to a call.

        Args:
            requestID: the number of the request.
        """
        if requestID in self.waitingForAnswers and self.readsOurErrors and not self.disconnected:
            self._callPeerObject(peerobject.CANCEL, requestID)

    def _callPeerObject(self, method: str, *arguments: Any) -> None:
        self.remoteForName(peerobject.NAME).callRemote(method, *arguments, pbanswer=False)

    @property
    def endings(self) -> Endings:
        """Return what the peer has said of the end of sessions, and of its own."""
        if self._ended is None:
            self._ended = Endings()
        return self._ended

    def connectionReady(self) -> None:
        """Take note that the protocol is agreed on; by a client that speaks first, supposed."""
        self._dialectChosen()
        super().connectionReady()
        if not self._awaitsGreeting:
            self._greeted.fire()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell whatever waits for the connection that it is closed."""
        if self._violation is not None:
            reason = Failure(self._violation)
        self._reader.close()
        self._underWay = None
        super().connectionLost(reason)
        if self._secured is not None:
            self._secured.fail(reason)
        self._greeted.fail(reason)
        self._closed.fire()
        if self.keepAlive is not None:
            self.keepAlive.forget(self)

    @property
    def greeted(self) -> bool:
        """Return whether both ends agreed to speak Perspective Broker."""
        return self._greeted.fired

    def whenGreeted(self) -> Deferred[None]:
        """
        Wait until both ends agreed to speak Perspective Broker.

        Returns:
            Fires then; fails with the reason if the connection is closed before.
        """
        return self._greeted.wait()

    def whenSecured(self) -> Deferred[None]:
        """
        Wait until the TLS handshake is over, if there is TLS.

        Returns:
            Fires then; fails with the reason if the connection is closed before.
        """
        if not ISSLTransport.providedBy(self.transport):
            self._whetherSecured().fire()
        return self._whetherSecured().wait()

    def whenClosed(self) -> Deferred[None]:
        """
        Wait until the connection is closed.

        Returns:
            Fires then.
        """
        return self._closed.wait()


class _Numbers:
    """What Twisted derives from the limit of a prefix; some are too large to be kept many times."""

    setPrefixLimit = banana.Banana.setPrefixLimit


@lru_cache(maxsize=8)
def _numbersUpTo(limit: int) -> dict[str, Any]:
    numbers = _Numbers()
    numbers.setPrefixLimit(limit)  # type: ignore[misc]
    return vars(numbers)


def _keeps(subclass: type[Broker], names: tuple[str, ...]) -> bool:
    return all(getattr(subclass, name) is getattr(Broker, name) for name in names)
