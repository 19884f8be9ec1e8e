"""
The receiving half of the broker: bytes become messages, and messages calls and answers.

What a peer sends that breaks the rules of Perspective Broker ends the connection with one line in
the log; what fails on this side is logged as a bug of this side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.python.failure import Failure
from twisted.spread import jelly, pb

from pbauth._fields import WrongFields
from pbauth._quoting import inLine
from pbauth.audit import Audit
from pbauth.audit.events import DropReason, LeanLogger
from pbauth.errors import Detached, ProtocolViolation
from pbauth.net.origin import originOf
from pbauth.net.transports import dropConnection
from pbauth.wire import peerobject
from pbauth.wire.calllimits import CallCounts
from pbauth.wire.decoding import MalformedMessage, TooMuch
from pbauth.wire.failures import ofOther, readable, unknownError, withException
from pbauth.wire.messages import checkKnown, checkName, fits, keyword, withTextKeys
from pbauth.wire.peerobject import PeerObject
from pbauth.wire.prelogin import LOGIN_SECURITY, PreLoginLimits, UnprovedServerLimits
from pbauth.wire.revocation import Exports, remotesIn
from pbauth.wire.serializing import SerializingBroker
from pbauth.wire.writer import CoalescingWriter

_log = LeanLogger()

_SCALARS = frozenset({bytes, int, float})

# The commands that carry values of the application.
_WITH_VALUES = frozenset({b"message", b"cachemessage", b"answer"})

_PEER_OBJECT = PeerObject()


class ReceivingBroker(SerializingBroker):
    """
    Twisted's broker, as far as it receives values; the rest is in `pbauth.wire.broker`.
    """

    __slots__ = ()

    # What the broker has: where drops are recorded; how long the peer has been silent; limits until
    # the login is over, and whether the peer is a guest; what is wrong with what it sent; the
    # references in the message that is being received; the writer, where there is one.
    audit: Audit | None
    idle: int
    _limits: PreLoginLimits | UnprovedServerLimits | None
    _isGuest: bool
    _violation: ProtocolViolation | None
    _references: list[pb.RemoteReference]
    _writer: CoalescingWriter | None
    _takeProof: Callable[[UnprovedServerLimits, tuple[Any, ...]], None]
    # Twisted's own annotation says that this is always None.
    waitingForAnswers: Any

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
        try:
            if self._limits is not None:
                self._limits.count(chunk)
            self._reader.feed(chunk)
        except Exception as error:
            self._blame(error)

    def _blame(self, error: Exception) -> None:
        """Drop the connection after an error, and blame one side; called while it is handled."""
        if isinstance(error, MalformedMessage):
            self._dropViolator(error)
        else:
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
        _log.failure("Can't process what {peer} sent", peer=self._peer())
        if self.audit is not None:
            self.audit.dropped(originOf(self), DropReason.INTERNAL, type(error).__name__)
        dropConnection(self)

    def _peer(self) -> Any:
        transport: Any = self.transport
        return transport.getPeer()

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
            if self._writesOwnWay:
                self.receiveCall(self._objectToCall, *items[1:])
            else:
                self._receiveCall(self._objectToCall, *items[1:])
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

    def proto_version(self, vnum: Any) -> None:
        """Take the version of the protocol that the peer speaks: there is one."""
        if vnum != self.version:
            raise MalformedMessage(f"The version of Perspective Broker is not {self.version}")

    def proto_didNotUnderstand(self, command: Any) -> None:
        """
        Do nothing: Twisted logs a line, however long, and a peer may send any number of these.
        """

    def proto_message(self, *call: Any) -> None:
        """Act upon a call, whose values are still expressions."""
        *start, netKw = call
        checkName(call[2])
        self._calling = call[2]
        self._request = call[0]
        self._receiveCall(self._objectToCall, *start, withTextKeys(netKw))
        self._calling = self._request = None

    def proto_cachemessage(self, *call: Any) -> None:
        """Act upon an update of the copy of a `Cacheable` of the peer's."""
        *start, netKw = call
        checkName(call[2])
        self._calling = call[2]
        self._receiveCall(self._cacheToCall, *start, withTextKeys(netKw))
        self._calling = None

    def _receiveCall(self, *call: Any) -> None:
        """Act upon a call; the application's broker may raise once the result is serialised."""
        before, self._given = self._given, []
        try:
            self.receiveCall(*call)
        finally:
            self._given = before

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
        try:
            return self.cachedLocallyAs(luid)
        except (KeyError, TypeError):
            # It may have been dropped while the update was on its way; Twisted answers so.
            return None

    def _admit(self, calls: CallCounts, luid: Any) -> None:
        try:
            calls.admit(self._reader.size, luid == peerobject.NAME)
        except TooMuch as fault:
            # Twisted would log it as a mistake of ours.
            self._dropViolator(fault)
            raise Detached() from None

    def localObjectForID(self, luid: Any) -> Any:
        """Find what the peer calls (see `twisted.spread.pb.Broker`)."""
        found = self.localObjects.get(luid)
        if found is not None:
            return found.object
        # Nobody is asked before the login.
        if luid == peerobject.NAME and self._limits is None:
            return _PEER_OBJECT
        return super().localObjectForID(luid)

    def proto_answer(self, requestID: Any, netResult: Any) -> None:
        """Take an answer; one that can't be read fails the call, not the connection."""
        waiting = self._takeWaiting(requestID)
        if self._calls is not None and self._calls.exceeds(self._reader.size):
            waiting.errback(Failure(self._calls.tooLarge()))
            return
        try:
            result = self._readAnswer(requestID, netResult)
        except BaseException:
            waiting.errback(self._unreadable())
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
        except BaseException:
            error = self._unreadable()
        if isinstance(error, pb.CopiedFailure):
            error = withException(error)
        elif error is None:
            error = ProtocolViolation("The peer answered with an error, but named none.")
        elif not isinstance(error, (Failure, BaseException)):
            error = ofOther(error)
        waiting.errback(error)

    def _unreadable(self) -> Failure:
        """Return the failure for an answer that can't be read; called while that is handled."""
        if isinstance(self._limits, UnprovedServerLimits):
            return Failure(ProtocolViolation("The server's answer is not one that a login has."))
        # Whatever the classes of the application raise, the caller gets it.
        return Failure()

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
