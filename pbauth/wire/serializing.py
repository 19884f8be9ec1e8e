"""
The sending half of the broker: values become bytes, and objects references.

Plain values are written straight to the bytes that Twisted would send; anything else by Twisted's
jelly.  What is not sent after all, be it that a part of it can't be, leaves no references behind.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Coroutine, Sized
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.python.failure import Failure
from twisted.python.reflect import qual
from twisted.spread import pb
from twisted.spread.banana import SIZE_LIMIT, BananaError

from pbauth._contained import contained
from pbauth.audit.events import LeanLogger
from pbauth.errors import Detached, TooManyReferences
from pbauth.wire.calllimits import CallCounts
from pbauth.wire.encoding import (
    Encoded,
    NotPlain,
    encodeExpression,
    encodePlain,
    encodeRemote,
)
from pbauth.wire.messages import nameOf
from pbauth.wire.revocation import Exports
from pbauth.wire.streams import Stream, StreamSource
from pbauth.wire.twistedprivate import PrivateBroker, jellyStrictly

_log = LeanLogger()


#: What to do about values that Twisted's banana can't send, which are nearly always too long.
_ADVICE = (
    f"A string has at most {SIZE_LIMIT:,} bytes, and a list as many items. Send more as a stream: "
    "pbauth.sendBytes for bytes, pbauth.Stream for items"
)

_ABOUT_INTS = (
    "int is too large to send: it has more than 448 bits. Make it a str; or send bytes, as a "
    "stream if there are many: pbauth.sendBytes"
)

#: What the peer gets a reference to: its number, the object, whether it is copied, and the sessions
#: that it belonged to before.
Given = tuple[int, Any, bool, frozenset[Any] | None]


def _nothing() -> None:
    """Check nothing."""


class SerializingBroker(PrivateBroker):
    """
    Twisted's broker, as far as it sends values; the rest is in `pbauth.wire.broker`.
    """

    __slots__ = ()

    #: Serialise as Twisted does, so that what can't be serialised arrives as an `Unpersistable`,
    #: calls that can't be sent raise their error at once, and references of what was not sent are
    #: kept.
    stockSerialization = False

    #: How many references to objects of this end the peer may hold, and how many copies of
    #: `Cacheable` objects; where the factory does not say it.
    maxReferences: int = pb.MAX_BROKER_REFS

    # What the broker has: the name of the method that the peer calls, and the number of the
    # request; the calls of the peer's that go on; the exports of sessions; what the peer gets by
    # what is being serialised; the words of the dialect; whether plain values, and anything, are
    # written by this module.
    _calling: bytes | None
    _request: Any
    _calls: CallCounts | None
    _underWay: dict[Any, Deferred[Any]] | None
    _exports: Exports | None
    _given: list[Given] | None
    _words: dict[bytes, bytes]
    _writesPlain: bool
    _writesOwnWay: bool

    def serialize(
        self,
        object: Any,
        perspective: Any = None,
        method: Any = None,
        args: Any = None,
        kw: Any = None,
    ) -> Any:
        """
        Serialise an object; a coroutine is waited for, as a Deferred is.

        Args:
            object: the object.
            perspective: for which it is serialised.
            method: whose arguments or whose result it is.
            args: arguments of the method.
            kw: arguments of the method, by name.

        Returns:
            What is for sending, and nothing else.

        Raises:
            NotSerializable: it holds something that can't be serialised.
            TooManyReferences: it holds more references than the peer may get.
            Detached: it belongs to sessions that have all ended, the last of them meanwhile.
            Exception: whatever the application's classes raise. All references are taken back.
        """
        given: list[Given] = []
        before, self._given = self._given, given
        try:
            # A dialect without words, or none yet, is left to Twisted.
            if self._writesPlain and self._words:
                try:
                    data = encodePlain(object, self._reader.limit, self._encodeReference)
                    if given:
                        self._checkLive()
                    return Encoded(data)
                except (NotPlain, UnicodeEncodeError, RecursionError):
                    # Jelly will give them, and give them the same numbers.
                    self._takeBack(given)
            if isinstance(object, (Deferred, Coroutine)):
                return self._serializeLater(
                    object, perspective=perspective, method=method, args=args, kw=kw
                )
            if self.stockSerialization:
                made = super().serialize(object, perspective, method, args, kw)
                self._checkLive()
                return made
            made = self._jelly(object, perspective, method, args, kw)
            self._checkLive()
            # Now, since what can't be written is to be taken back.
            pieces: list[bytes] = []
            try:
                encodeExpression(made, pieces.append, self._reader.limit, self._words)
            except BananaError as error:
                text = str(error)
                # The number itself may have thousands of digits.
                advice = _ABOUT_INTS if text.startswith("int") else f"{text}. {_ADVICE}"
                raise BananaError(advice) from None
            if not (self._writesOwnWay and self._words):
                return made
            return Encoded(b"".join(pieces))
        except TooManyReferences as error:
            self._takeBack(given)
            raise TooManyReferences(nameOf(method or self._calling), error.limit) from None
        except BaseException:
            if not self.stockSerialization:
                self._takeBack(given)
            raise
        finally:
            self._given = before
            if given and before is not None:
                # Whoever has this serialised may still find that it is not sent.
                before += given

    def serializeIf(self, check: Callable[[], object], object: Any, *args: Any, **kw: Any) -> Any:
        """
        Serialise an object, and check afterwards whether it may be sent.

        Args:
            check: raises an error if it may not. All references are taken back then.
            object: the object, and the rest, are for `serialize`.

        Returns:
            What that gives.

        Raises:
            Exception: whatever the check or `serialize` raises.
        """
        given: list[Given] = []
        before, self._given = self._given, given
        try:
            made = self.serialize(object, *args, **kw)
            check()
            return made
        except BaseException:
            if not self.stockSerialization:
                self._takeBack(given)
            raise
        finally:
            self._given = before
            if given and before is not None:
                before += given

    def _checkLive(self) -> None:
        """Raise an error if what the application was asked for has ended all the sessions."""
        if self._exports is not None:
            self._exports.checkLive()

    def _checkReceiver(self) -> None:
        """Raise an error if nobody is there who could get a reference."""
        if self.disconnected:
            # What hears of that now may have something ready; see `pb.Broker.connectionLost`.
            raise Detached()
        self._checkLive()

    def _serializeLater(self, object: Any, **context: Any) -> Deferred[Any]:
        later: Deferred[Any] = self.cancellable(ensureDeferred(object))
        later.addCallback(self._serializeResult, self._calling, self._given, **context)
        return later

    def cancellable(self, running: Deferred[Any]) -> Deferred[Any]:
        """
        Let the peer cancel what its call, which is being begun, goes on with.

        Args:
            running: what the method gave.

        Returns:
            The same.
        """
        requestID = self._request
        if self._calls is not None and requestID is not None:
            self._calls.watch(running)
        if type(requestID) is not int or (running.called and not running.paused):
            return running
        if self._underWay is None:
            self._underWay = {}
        self._underWay[requestID] = running
        return running.addBoth(self._noLongerUnderWay, requestID)

    def _noLongerUnderWay(self, result: Any, requestID: int) -> Any:
        if self._underWay is None or self._underWay.pop(requestID, None) is not None:
            return result
        # The peer has cancelled it, and does not wait: this is nothing for the log.
        if isinstance(result, Failure) and result.check(CancelledError):
            return Failure(pb.Error("The call was cancelled."))
        return result

    def cancelUnderWay(self, requestID: Any) -> None:
        """
        Cancel what a call of the peer's goes on with, if it does.

        Args:
            requestID: the number of the request, as the peer said it.
        """
        if type(requestID) is int and self._underWay is not None:
            running = self._underWay.pop(requestID, None)
            if running is not None:
                with contained(_log, "A call can't be cancelled"):
                    running.cancel()

    def _serializeResult(
        self, result: Any, /, calling: bytes | None, given: list[Given] | None, **context: Any
    ) -> Any:
        before, self._calling = self._calling, calling
        outer = self._given
        if outer is not given:
            # What is being serialised now is another message.
            self._given = None
        try:
            if self._exports is None:
                return self.serializeIf(_nothing, result, **context)
            return self._exports.givenBy(None, self.serializeIf, _nothing, result, **context)
        finally:
            self._calling, self._given = before, outer

    def _jelly(self, object: Any, perspective: Any, method: Any, args: Any, kw: Any) -> Any:
        # The name of the method is there for arguments only.
        root = "result" if type(method) is not bytes else "kw" if type(object) is dict else "args"
        self.serializingPerspective = perspective
        self.jellyMethod, self.jellyArgs, self.jellyKw = method, args, kw
        try:
            return jellyStrictly(object, root, self.security, self)
        finally:
            self.serializingPerspective = None
            self.jellyMethod = self.jellyArgs = self.jellyKw = None

    def streamOf(self, generator: AsyncIterable[Any]) -> Stream:
        """Return what is sent in place of an asynchronous generator."""
        return Stream(generator)

    def _watchStreams(self, answer: Deferred[Any], given: list[Given]) -> None:
        """Close the streams that a call carries, should it fail without having read them."""
        streams = [each[1] for each in given if isinstance(each[1], StreamSource)]

        def abandon(failure: Failure) -> Failure:
            for stream in streams:
                stream.abandon()
            return failure

        if streams:
            answer.addErrback(abandon)

    def _encodeReference(self, value: Any) -> bytes:
        """Write a reference to an object of ours; other objects are written by jelly."""
        if getattr(type(value), "jellyFor", None) is not pb.Referenceable.jellyFor:
            raise NotPlain
        return encodeRemote(self.registerReference(value), self._reader.limit)

    def _takeBack(self, given: list[Given]) -> None:
        while given and not self.disconnected:
            luid, object, isCache, sessions = given.pop()
            if self._exports is not None:
                self._exports.putBack(isCache, luid, sessions)
            objects = self.remotelyCachedObjects if isCache else self.localObjects
            local: Any = objects.get(luid)
            if local is None or local.decref():
                continue
            del objects[luid]
            luids = self.remotelyCachedLUIDs if isCache else self.luids
            # Another one, if the session has ended meanwhile: the object has been taken back then.
            luids.pop(local.object.processUniqueID(), None)
            if luid == self.currentLocalID:
                self.currentLocalID -= 1
            if isinstance(local.object, StreamSource):
                local.object.forget()
            if isCache and local.object is object:
                observer = pb.RemoteCacheObserver(self, object, local.perspective)
                with contained(_log, "stoppedObserving failed for {kind}", kind=qual(type(object))):
                    object.stoppedObserving(local.perspective, observer)

    def registerReference(self, object: Any) -> Any:
        """Note that the peer gets a reference to an object, and by which sessions."""
        self._checkReceiver()
        exports = self._exports
        puid = object.processUniqueID()
        luid: Any = self.luids.get(puid)
        isNew = luid is None
        if self.stockSerialization:
            luid = super().registerReference(object)
        elif isNew:
            self._checkCount(self.luids)
            luid = self.newLocalID()
            self.localObjects[luid] = pb.Local(object)
            self.luids[puid] = luid
        else:
            self.localObjects[luid].incref()
        before = None if exports is None else exports.addObject(luid, isNew)
        if self._given is not None:
            self._given.append((luid, object, False, before))
        return luid

    def cacheRemotely(self, instance: Any) -> Any:
        """Note that the peer gets a copy of a `Cacheable`, and by which sessions."""
        self._checkReceiver()
        exports = self._exports
        if self.stockSerialization:
            luid: Any = super().cacheRemotely(instance)
        else:
            self._checkCount(self.remotelyCachedLUIDs)
            luid = self.newLocalID()
            self.remotelyCachedLUIDs[instance.processUniqueID()] = luid
            self.remotelyCachedObjects[luid] = pb.Local(instance, self.serializingPerspective)
        before = None if exports is None else exports.addCache(luid, True)
        if self._given is not None:
            self._given.append((luid, instance, True, before))
        return luid

    def cachedRemotelyAs(self, instance: Any, incref: int = 0) -> Any:
        """Find the number of a `Cacheable` that the peer has a copy of, if it has."""
        luid: Any = super().cachedRemotelyAs(instance, incref)
        if luid is not None and incref and self._given is not None:
            exports = self._exports
            before = None if exports is None else exports.addCache(luid, False)
            self._given.append((luid, instance, True, before))
        return luid

    def _checkCount(self, held: Sized) -> None:
        limit = getattr(self.factory, "maxReferences", self.maxReferences)
        if len(held) >= limit:
            # Whoever knows it adds the name of the call.
            raise TooManyReferences("", limit)
