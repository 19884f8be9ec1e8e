"""
The private attributes of Twisted's that this package uses; no other module uses any.

Twisted may change them without notice.  For each of them, why it is used, and the test that breaks:

``Broker._recvMessage``
    Acts upon a call. The public methods take expressions only. `OverridingTests.test_brokers`.
``Broker._sendAnswer``
    Is called with each answer: one that was encoded already goes out as it is, and one that is too
    large fails the call, not the connection. `DifferenceTests.test_answerThatCantBeSent`.
``Broker._sendError``
    Is called with each error: one that can't be sent is sent as its name.
    `DifferenceTests.test_errorThatCantBeSent`.
``Broker._sendFailureOrError``
    Is called with what a Deferred has failed with. `OptionsTests.test_mistakes`.
``Failure._parents``
    The names of an exception's classes, which Twisted gives for subclasses of `Exception` only:
    `SystemExit` would not arrive. `FailureTests.test_names`.
``Broker._sendFailure``
    Logs an error and sends it. `DifferenceTests.test_answerThatCantBeSent`.
``Broker._sendMessage``
    Is called with each call of the peer's objects: one that can't be sent fails as a Deferred.
    `SerializingTests.test_arguments`.
``Broker._localCleanup``
    Is called when the peer drops its last reference to an object, or when it is taken back: what
    clients of stock Twisted do to log out. `LegacyTests`, `RevocationTests`.
``jelly._Jellier``
    Is what jelly's values are made by: one that can't be serialised is an error. There is no public
    way to see where it is. `SerializingTests.test_paths`.
``FileDescriptor._tempDataBuffer``, ``FileDescriptor._tempDataLen``
    What waits in front of a socket, beside ``dataBuffer``. `CoalescingWriterTests`, `UnsentTests`.
``BufferingTLSTransport._aggregator``
    Holds small writes back until the next round of the reactor. `TLSWriterTests`.
``StreamServerEndpointService._raiseSynchronously``, ``StreamServerEndpointService._waitingForPort``
    A server that cannot listen says so at once; one that can tells its port.
    `tests.system.test_tap`.
"""

from __future__ import annotations

from collections.abc import Callable
from types import AsyncGeneratorType, FunctionType
from typing import Any, ClassVar

from twisted.application.internet import StreamServerEndpointService
from twisted.internet.defer import Deferred, fail
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.python.reflect import qual
from twisted.spread import banana, jelly, pb

from pbauth.audit.events import LeanLogger
from pbauth.errors import Detached, WireError, forStockClient
from pbauth.wire.decoding import Reader
from pbauth.wire.encoding import Encoded, encodeAnswer
from pbauth.wire.failures import asTwistedHas
from pbauth.wire.jellying import refusal

_log = LeanLogger()

#: How much of the name of a class the peer learns of an error that can't be sent, in characters.
_LONGEST_NAME = 200

#: What sees messages, or answers, as expressions on their way in, and out.
READING = (
    "callExpressionReceived",
    "expressionReceived",
    "proto_message",
    "proto_answer",
    "_recvMessage",
    "unserialize",
)
WRITING = ("serialize", "sendCall", "sendEncoded", "_sendAnswer")


class PrivateBroker(pb.Broker):
    """Twisted's broker with private methods overridden; the rest is in `pbauth.wire.broker`."""

    __slots__ = ()

    #: Twisted's `_recvMessage`, or what a subclass has put in its place.
    receiveCall: ClassVar[Callable[..., None]]

    # What the broker has.
    _reader: Reader
    _send: Callable[[bytes], None]
    readsOurErrors: bool
    _given: list[Any] | None
    _takeBack: Callable[[list[Any]], None]
    _watchStreams: Callable[[Deferred[Any], list[Any]], None]
    _request: Any
    _exports: Any
    _ended: Any
    stockSerialization: bool

    def __init_subclass__(cls, **kw: Any) -> None:
        """Give `_recvMessage` a public name, without another call for each message."""
        super().__init_subclass__(**kw)
        cls.receiveCall = cls._recvMessage

    def _sendMessage(
        self,
        prefix: bytes,
        perspective: Any,
        objectID: Any,
        message: bytes,
        args: tuple[Any, ...],
        kw: dict[str, Any],
    ) -> Any:
        """Send a call; one that can't be sent fails as a Deferred, and leaves nothing behind."""
        if self.stockSerialization:
            return super()._sendMessage(prefix, perspective, objectID, message, args, kw)
        callback, errback = kw.pop("pbcallback", None), kw.pop("pberrback", None)
        answerRequired = kw.pop("pbanswer", 1)
        if not answerRequired and (callback or errback):
            raise AssertionError("You can't specify a no-answer requirement.")
        ended = self._ended
        if ended is not None and objectID in ended.reasons:
            return fail(Detached(ended.reasons[objectID])) if answerRequired else None
        if self.disconnected:
            raise pb.DeadReferenceError("Calling Stale Broker")
        # Twisted's own annotation says that this is always None.
        waiting: Any = self.waitingForAnswers
        requestID = None
        answer: Deferred[Any] | None = None
        given: list[Any] = []
        gaveBefore, self._given = self._given, given
        exports = self._exports
        if exports is not None:
            before = exports.exporters
            exports.exporters = sessions = exports.sessionsOfCall(prefix, objectID)
        try:
            netArgs = self.serialize(args, perspective=perspective, method=message)
            netKw = self.serialize(kw, perspective=perspective, method=message)
            requestID = self.newRequestID()
            if answerRequired:
                answer = waiting[requestID] = Deferred()
                if exports is not None and sessions is not None:
                    exports.asked[requestID] = sessions
            self.sendCall(
                prefix + b"message", requestID, objectID, message, answerRequired, netArgs, netKw
            )
        except BaseException:
            waiting.pop(requestID, None)
            if exports is not None:
                exports.asked.pop(requestID, None)
            failure = Failure()
            self._takeBack(given)
            return fail(failure)
        finally:
            self._given = gaveBefore
            if exports is not None:
                exports.exporters = before
        if answer is not None and given:
            self._watchStreams(answer, given)
        if answer is not None and (callback or errback):
            answer.addCallbacks(callback, errback)
        return answer

    def _sendAnswer(self, netResult: Any, requestID: Any) -> None:
        """
        Send an answer, nearly always one that was encoded already; one that is too large fails
        the call, not the connection.
        """
        if type(netResult) is Encoded and type(requestID) is int:
            self._send(encodeAnswer(requestID, netResult, self._reader.limit))
            return
        try:
            super()._sendAnswer(netResult, requestID)
        except (banana.BananaError, ValueError):
            self._sendFailure(Failure(), requestID)

    def _sendFailureOrError(self, fail: Failure, requestID: Any) -> None:
        """Send an error, and log it if it is none that is meant for the peer."""
        try:
            meant = fail.check(pb.Error)
        except Exception:
            # It has no module, for instance.
            meant = None
        if meant is None:
            self._sendFailure(fail, requestID)
        else:
            self._sendError(fail, requestID)

    def _sendError(self, fail: Any, requestID: Any) -> None:
        """
        Send an error; one that can't be sent is sent as its name, and one of pbauth's to a peer
        that does not have it, as a failure that stock Twisted can read.
        """
        if self._given and requestID == self._request:
            # The application's broker has raised after it had serialised the result.
            self._takeBack(self._given)
        if self._exports is None:
            self._sendThisError(fail, requestID)
        else:
            # Something else may be being serialised, whose sessions have ended.
            self._exports.givenBy(None, self._sendThisError, fail, requestID)

    def _sendThisError(self, fail: Any, requestID: Any) -> None:
        error = fail.value if isinstance(fail, Failure) else fail
        # Whatever the classes of the application raise, the caller gets an answer.
        try:
            if isinstance(error, WireError) and not self.readsOurErrors:
                fail = Failure(forStockClient(error))
            self._sendReadable(fail, requestID)
        except Detached as ended:
            # The session that it belongs to has ended meanwhile.
            self._sendReadable(
                Failure(ended if self.readsOurErrors else forStockClient(ended)), requestID
            )
        except BaseException:
            _log.failure("An error can't be sent; the peer gets its name, and its text if it can")
            kind = type(getattr(error, "original", error))
            name = f"{kind.__module__}.{kind.__name__}"[:_LONGEST_NAME]
            unsent: Exception = pb.Error(f"{name}, an error that can't be sent")
            try:
                plain = forStockClient(error) if isinstance(error, WireError) else unsent
                self._sendReadable(Failure(plain), requestID)
            except BaseException:
                self._sendReadable(Failure(unsent), requestID)

    def _sendReadable(self, fail: Any, requestID: Any) -> None:
        """
        Send an error: as itself, if the application has said that its class crosses; otherwise as
        a failure, which any peer can read.
        """
        error = fail.value if isinstance(fail, Failure) else fail
        asStock = self.stockSerialization and self.readsOurErrors
        if asStock and isinstance(fail, Failure) and isinstance(error, pb.RemoteError):
            fail = asTwistedHas(fail)
            error = fail.value
        if isinstance(error, jelly.Jellyable) or (
            self.security.isClassAllowed(type(error))
            # Options by which anything may cross say nothing of what the peer knows.
            and (
                asStock
                or (isinstance(error, Exception) and not self.security.isClassAllowed(_Nobodys))
            )
        ):
            super()._sendError(fail, requestID)
            return
        factory: Any = self.factory
        if not isinstance(fail, pb.CopyableFailure):
            fail = fail if isinstance(fail, Failure) else Failure(error)
            fail = pb.failure2Copyable(fail, factory.unsafeTracebacks)
        fail.unsafeTracebacks = factory.unsafeTracebacks
        if isinstance(error, BaseException) and not isinstance(error, Exception):
            # Of others than exceptions Twisted gives the class, which no peer takes.
            fail._parents = [qual(each) for each in type(error).__mro__]
        try:
            expression = self.serialize(fail)
        except jelly.InsecureJelly:
            if asStock:
                raise
            # What a failure is made of may cross in any case.
            expression = jellyStrictly(fail, "result", jelly.globalSecurity, self)
        self.sendCall(b"error", requestID, expression)


class _Nobodys(Exception):
    """An error that no application has allowed."""


class _StrictJellier(jelly._Jellier):
    """Twisted's jellier, but raising an error where Twisted's puts an `Unpersistable`."""

    def __init__(self, root: str, security: Any, invoker: Any) -> None:
        super().__init__(security, None, invoker)
        self.root = root
        # The objects that are being made, outermost first.
        self._trail: list[Any] = []

    def jelly(self, obj: Any) -> Any:
        if type(obj) is AsyncGeneratorType:
            obj = self.invoker.streamOf(obj)
        self._trail.append(obj)
        if type(obj) is FunctionType:
            # Twisted's banana can't write what its jelly makes of them.
            self.unpersistable("function")
        made = super().jelly(obj)
        self._trail.pop()
        return made

    def unpersistable(self, reason: Any, sxp: Any = None) -> Any:
        raise refusal(self.root, self._trail)


def jellyStrictly(object: Any, root: str, security: Any, invoker: pb.Broker) -> Any:
    """
    Make an expression of an object, as Twisted's `jelly` does.

    Args:
        object: the object.
        root: what it is called in an error.
        security: which types may be sent.
        invoker: the broker.

    Returns:
        The expression.

    Raises:
        NotSerializable: it can't be serialised, or holds something that can't.
    """
    return _StrictJellier(root, security, invoker).jelly(object)


def whenReleased(broker: pb.Broker, object: pb.Serializable, act: Callable[[], Any]) -> None:
    """
    Call a function when the peer drops its last reference to an object.

    Args:
        broker: of the connection, any of Twisted's.
        object: the object; one function for each.
        act: the function.
    """
    broker._localCleanup[object.processUniqueID()] = act


def unlessReleased(broker: pb.Broker, object: pb.Serializable) -> None:
    """
    Take back `whenReleased`.

    Args:
        broker: of the connection.
        object: the object.
    """
    broker._localCleanup.pop(object.processUniqueID(), None)


def released(broker: pb.Broker, puid: Any) -> None:
    """
    Call what waits for the peer to drop its last reference to an object.

    Args:
        broker: of the connection.
        puid: the object's `processUniqueID()`.
    """
    broker._localCleanup.pop(puid, lambda: None)()


def encrypt(transport: Any, data: bytes) -> None:
    """
    Write to a connection with TLS, which hands what that comes to on to its own transport at once.

    Args:
        transport: a `twisted.protocols.tls.BufferingTLSTransport`.
        data: what is to be sent, behind all that was written before.
    """
    transport._aggregator.flush()
    TLSMemoryBIOProtocol.write(transport, data)


def nothingWaits(transport: Any) -> bool:
    """
    Return whether a transport has handed all that was written to the system.

    Args:
        transport: one of Twisted's for sockets.

    Returns:
        Whether it has.
    """
    return not (transport.dataBuffer or transport._tempDataBuffer)


def bytesWaiting(transport: Any) -> int:
    """
    Return how many bytes wait in front of a socket.

    Args:
        transport: any.

    Returns:
        How many, where Twisted lets us see that; otherwise 0.
    """
    try:
        waiting: int = len(transport.dataBuffer) - transport.offset + transport._tempDataLen
    except AttributeError:
        return 0
    return waiting


def raiseAtOnce(service: StreamServerEndpointService) -> None:
    """
    Let a service raise the error if it can't listen, instead of logging it.

    Args:
        service: one that has not been started yet.
    """
    service._raiseSynchronously = True


def listening(service: StreamServerEndpointService) -> Any:
    """
    Return what fires when a service listens.

    Args:
        service: one that has been started.

    Returns:
        A Deferred of the `IListeningPort`; what callbacks return is what the service stops.
    """
    return service._waitingForPort
