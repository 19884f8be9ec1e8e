"""
pbauth's own broker: Twisted's, on the same wire, with better manners towards bad peers.

What stock PB answers with a traceback in the log (bytes that are not banana, commands and ids that
do not exist) ends the connection here with one line; and whatever waits for the connection fails
with `ProtocolViolation`.

The broker itself is overrides of Twisted's methods and glue.  What is sent is in
`pbauth.wire.serializing`; limits before a login (`prelogin`), the writer and the exports of
sessions (`revocation`) are objects of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHandshakeListener, ISSLTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python import threadable
from twisted.python.failure import Failure
from twisted.spread import banana, jelly, pb
from zope.interface import implementer

from pbauth._async import OneShot
from pbauth._fields import WrongFields
from pbauth._quoting import inLine
from pbauth.audit import Audit
from pbauth.audit.events import DropReason, LeanLogger
from pbauth.errors import Detached, ProtocolViolation, ServerNotTrusted
from pbauth.interfaces import IRestrictableBroker, IRevokingBroker
from pbauth.net.addresses import isOverTCP
from pbauth.net.origin import originOf
from pbauth.wire import peerobject
from pbauth.wire.calllimits import CallCounts, CallLimits
from pbauth.wire.decoding import MalformedMessage, Reader, TooMuch
from pbauth.wire.encoding import (
    WORDS,
    encodeExpression,
)
from pbauth.wire.failures import readable, unknownError, withException
from pbauth.wire.messages import checkKnown, checkName, fits, keyword, withTextKeys
from pbauth.wire.peerobject import Endings, PeerObject
from pbauth.wire.prelogin import (
    GUEST_LIMITS,
    LIMITS,
    LOGIN_SECURITY,
    PreLoginLimits,
    UnprovedServerLimits,
)
from pbauth.wire.references import compareReferences
from pbauth.wire.revocation import ExportingBroker, Exports, remotesIn
from pbauth.wire.security import allowsPlain, allowsReferences
from pbauth.wire.serializing import Given, SerializingBroker
from pbauth.wire.twistedprivate import READING, WRITING
from pbauth.wire.writer import CoalescingWriter, coalesces

_log = LeanLogger()

_SCALARS = frozenset({bytes, int, float})

# The commands that carry values of the application.
_WITH_VALUES = frozenset({b"message", b"cachemessage", b"answer"})


def dropConnection(protocol: Protocol) -> None:
    """Close a connection now, whatever still waits to be written."""
    transport: Any = protocol.transport
    getattr(transport, "abortConnection", transport.loseConnection)()


_PEER_OBJECT = PeerObject()

_DIALECTS = [b"pb", b"none"]
_GREETING = b"\x02\x80\x02\x82pb\x04\x82none"

compareReferences()


@implementer(IHandshakeListener, IRestrictableBroker, IRevokingBroker)
class Broker(SerializingBroker):
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
        if coalesces(transport):
            self._writer = CoalescingWriter(transport)
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
                self._blame(self._actUpon, held)

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
        pieces: list[bytes] = []
        encodeExpression(obj, pieces.append, self._reader.limit, self._words)
        self._send(b"".join(pieces))

    def _send(self, data: bytes) -> None:
        writer = self._writer
        if writer is not None:
            writer.write(data)
        else:
            transport: Any = self.transport
            transport.write(data)

    def dataReceived(self, chunk: bytes) -> None:
        """Take what the peer sent; a peer that breaks the protocol is cut off."""
        if self._reader.closed:
            return
        self.idle = 0
        writer = self._writer
        if writer is not None:
            writer.hold(self._read, chunk)
        else:
            self._read(chunk)

    def _read(self, chunk: bytes) -> None:
        self._blame(self._count if self._limits is not None else self._reader.feed, chunk)

    def _count(self, chunk: bytes) -> None:
        if self._limits is not None:
            self._limits.count(chunk)
        self._reader.feed(chunk)

    def _blame(self, act: Callable[[Any], None], argument: Any) -> None:
        """Act upon what came; where that fails, drop the connection, and say whose fault it is."""
        try:
            act(argument)
        except MalformedMessage as fault:
            self._dropViolator(fault)
        except Exception as error:
            self._dropUnserved(error)

    def _dropViolator(self, fault: MalformedMessage) -> None:
        """Drop the connection, for which the peer is to blame."""
        self._violation = ProtocolViolation(
            "The peer does not speak Perspective Broker, or breaks its rules."
        )
        self._reader.close()
        if self.audit is None:
            _log.info(
                "Cut off {peer}, which broke the protocol: {fault}",
                peer=self._peer(),
                fault=inLine(fault),
            )
        else:
            greedy = self._limits is not None and self._limits.exceeded
            reason = DropReason.BYTES if greedy else fault.reason
            self.audit.dropped(originOf(self), reason, str(fault))
        dropConnection(self)

    def _dropUnserved(self, error: Exception) -> None:
        """Drop the connection after a mistake on this side; called while it is handled."""
        self._reader.close()
        _log.failure("Cannot act upon what {peer} sent", peer=self._peer())
        if self.audit is not None:
            self.audit.dropped(originOf(self), DropReason.INTERNAL, type(error).__name__)
        dropConnection(self)

    def expressionReceived(self, sexp: Any) -> None:
        """
        Act upon a message (see `twisted.spread.pb.Broker`).

        Args:
            sexp: the message, as banana has it.

        Raises:
            MalformedMessage: it breaks the rules of Perspective Broker.
        """
        if type(sexp) is not list or not sexp:
            raise MalformedMessage("The message is not a list that begins with a command")
        command, *items = sexp
        if type(command) is not bytes:
            raise MalformedMessage("The command is not a string")
        try:
            name = command.decode("utf-8")
        except UnicodeDecodeError:
            raise MalformedMessage("The command is not UTF-8") from None
        limits = self._limits
        if isinstance(limits, UnprovedServerLimits) and limits.holds(name):
            limits.held.append(sexp)
            return
        if command in _WITH_VALUES and self._isGuest:
            # Plain ones do not get here, and objects are made for nobody whom we do not know.
            raise MalformedMessage("Security precaution: not plain, from a guest.")
        act = getattr(self, f"proto_{name}", None)
        if act is None:
            # Twisted means to answer this, and fails to.
            raise MalformedMessage("There is no such command")
        if not fits(act, name, len(items)):
            raise MalformedMessage("There are too many items for the command, or too few")
        act(*items)

    def proto_version(self, vnum: Any) -> None:
        """Take the version of the protocol that the peer speaks: there is one."""
        if vnum != self.version:
            raise MalformedMessage(f"The version of Perspective Broker is not {self.version}")

    def proto_decref(self, objectID: Any) -> None:
        """Take note that the peer has dropped a reference."""
        checkKnown(objectID, self.localObjects)
        super().proto_decref(objectID)
        if self._exports is not None and objectID not in self.localObjects:
            self._exports.forget(False, objectID)

    def proto_decache(self, objectID: Any) -> None:
        """Take note that the peer has dropped its copy of a `Cacheable`."""
        checkKnown(objectID, self.remotelyCachedObjects)
        local: Any = self.remotelyCachedObjects[objectID]
        if self._exports is not None and local.refcount == 1:
            # Before `stoppedObserving` runs, which may end the session: it has to run once.
            self._exports.forget(True, objectID)
        super().proto_decache(objectID)

    def proto_uncache(self, objectID: Any) -> None:
        """Forget the copy of a `Cacheable` of the peer's."""
        checkKnown(objectID, self.locallyCachedObjects)
        super().proto_uncache(objectID)

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

    def localObjectForID(self, luid: Any) -> Any:
        """Find what the peer calls (see `twisted.spread.pb.Broker`)."""
        found = self.localObjects.get(luid)
        if found is not None:
            return found.object
        # Nobody is asked before the login.
        if luid == peerobject.NAME and self._limits is None:
            return _PEER_OBJECT
        return super().localObjectForID(luid)

    def _makeReference(self, luid: int) -> pb.RemoteReference:
        reference = pb.RemoteReference(None, self, luid, 1)
        self._countImport(luid)
        self._references.append(reference)
        return reference

    def _dropReferences(self) -> None:
        for reference in self._references:
            # The peer has not counted this one: another one will be made for it.
            reference.doRefCount = 0
            if self._exports is not None:
                self._exports.dropImport(reference.luid)
        self._references.clear()

    def _receivePlain(self, items: list[Any]) -> bool:
        """Act upon a message whose values were read, unless it has to be read as by Twisted."""
        if not items:
            raise MalformedMessage("The message is empty")
        command = items[0]
        limits = self._limits
        if limits is not None and not limits.permit(
            items, bool(self._references), self.localObjectForID
        ):
            return False
        if (
            command == b"message"
            and len(items) == 7
            and type(items[1]) is int
            and type(items[2]) in (int, bytes)
            and type(items[3]) is bytes
            and type(items[4]) is int
            and type(items[5]) is tuple
            and type(items[6]) is dict
        ):
            checkName(items[3])
            if limits is not None and isinstance(limits, UnprovedServerLimits):
                if items[2] == peerobject.NAME and items[3] == peerobject.PROVED:
                    self._takeProof(limits, items[5])
                else:
                    limits.held.append((items, [*self._references]))
                self._references.clear()
                return True
            if items[6]:
                items[6] = {keyword(key): value for key, value in items[6].items()}
            self._calling = items[3]
            self._request = items[1]
            self.receiveCall(self._objectToCall, *items[1:])
            self._calling = self._request = None
            self._references.clear()
        elif command == b"answer" and len(items) == 3 and type(items[1]) is int:
            waiting = self._takeWaiting(items[1])
            if self._exports is not None:
                self._exports.answered(items[1], self._noteReferences)
            self._references.clear()
            if self._calls is not None and self._calls.exceeds(self._reader.size):
                waiting.errback(Failure(self._calls.tooLarge()))
            else:
                waiting.callback(items[2])
        elif _SCALARS.issuperset(map(type, items)):
            # There was nothing to be read otherwise.
            self.callExpressionReceived(items)
        else:
            return False
        return True

    def proto_message(self, *call: Any) -> None:
        """Act upon a call, whose values are still expressions."""
        *start, netKw = call
        checkName(call[2])
        self._calling = call[2]
        self._request = call[0]
        self.receiveCall(self._objectToCall, *start, withTextKeys(netKw))
        self._calling = self._request = None

    def proto_cachemessage(self, *call: Any) -> None:
        """Act upon an update of the copy of a `Cacheable` of the peer's."""
        *start, netKw = call
        checkName(call[2])
        self._calling = call[2]
        self.receiveCall(self._cacheToCall, *start, withTextKeys(netKw))
        self._calling = None

    def _objectToCall(self, luid: Any) -> Any:
        if self._calls is not None:
            self._admit(self._calls, luid)
        found = self.localObjectForID(luid)
        if found is None or self._exports is None:
            return found
        return self._exports.objectToCall(self, luid, found)

    def _cacheToCall(self, luid: Any) -> Any:
        if self._calls is not None:
            self._admit(self._calls, luid)
        return self.cachedLocallyAs(luid)

    def _admit(self, calls: CallCounts, luid: Any) -> None:
        try:
            calls.admit(self._reader.size, luid == peerobject.NAME)
        except TooMuch as fault:
            # Twisted would log it as a mistake of ours.
            self._dropViolator(fault)
            raise Detached() from None

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

    def proto_answer(self, requestID: Any, netResult: Any) -> None:
        """Take an answer; one that can't be read fails the call, not the connection."""
        waiting = self._takeWaiting(requestID)
        if self._calls is not None and self._calls.exceeds(self._reader.size):
            waiting.errback(Failure(self._calls.tooLarge()))
            return
        try:
            result = self._readAnswer(requestID, netResult)
        except Exception:
            # Whatever the classes of the application raise, the caller gets it.
            waiting.errback(Failure())
        else:
            waiting.callback(result)

    def proto_error(self, requestID: Any, fail: Any) -> None:
        """Take an error; one of a class that is not known here is known by its name only."""
        waiting = self._takeWaiting(requestID)
        if self._calls is not None and self._calls.exceeds(self._reader.size):
            waiting.errback(Failure(self._calls.tooLarge()))
            return
        if self._isGuest:
            # Nothing is made of it.
            message = "A guest's program answers with an error."
            waiting.errback(Failure(pb.RemoteError("error", message, "Traceback unavailable")))
            return
        try:
            error = self._readAnswer(requestID, readable(fail))
        except (jelly.InsecureJelly, WrongFields):
            error = Failure(unknownError(fail))
        except Exception:
            error = Failure()
        if isinstance(error, pb.CopiedFailure):
            error = withException(error)
        elif error is None:
            error = ProtocolViolation("The peer answered with an error, but named none.")
        waiting.errback(error)

    def _takeWaiting(self, requestID: Any) -> Any:
        """Return what waits for the answer to a call of ours, which is done now."""
        waiting = (
            self.waitingForAnswers.pop(requestID, None) if type(requestID) in _SCALARS else None
        )
        if waiting is None:
            raise MalformedMessage("It answers a call that was not made")
        return waiting

    def _readAnswer(self, requestID: Any, expression: Any) -> Any:
        if self._exports is None:
            return self.unserialize(expression)
        return self._exports.answered(requestID, self.unserialize, expression)

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
        self._whetherSecured().fail(reason)
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

    def _peer(self) -> Any:
        transport: Any = self.transport
        return transport.getPeer()

    def unserialize(self, sexp: Any, perspective: Any = None) -> Any:
        """Unjelly an expression; values that were read already are taken as they are."""
        if type(sexp) is tuple or type(sexp) is dict:
            for reference in self._references:
                reference.perspective = perspective
            if self._references:
                self._noteReferences()
            return sexp
        if self._limits is not None and isinstance(self._limits, UnprovedServerLimits):
            return jelly.unjelly(sexp, LOGIN_SECURITY, None, self)
        for luid in remotesIn(sexp):
            exports = self._countImport(luid)
            exports.ownImport(luid)
        return super().unserialize(sexp, perspective)

    @property
    def holdsReferences(self) -> bool:
        """Return whether there are references in the message that is being received."""
        return bool(self._references)

    def _countImport(self, luid: Any) -> Exports:
        exports = self._exports
        if exports is None:
            exports = self._exports = Exports()
        exports.countImport(luid)
        return exports

    def _noteReferences(self) -> None:
        if self._exports is not None:
            for reference in self._references:
                self._exports.ownImport(reference.luid)


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
