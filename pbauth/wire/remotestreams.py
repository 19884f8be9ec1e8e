"""The receiving half of streams; how they work stands in `pbauth.wire.streams`."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.spread import pb
from twisted.spread.jelly import InsecureJelly, Jellyable, Unjellyable, setUnjellyableForClass

from pbauth._calling import send
from pbauth.errors import Detached, ProtocolViolation
from pbauth.perspectives.current import CURRENT
from pbauth.wire.streams import MARK, MOST_BYTES, MOST_ITEMS, Stream, sizeOf

#: How many values are on their way, or wait here, by default.
BUFFER = 16

_GONE = (Detached, pb.DeadReferenceError, pb.PBConnectionLost)


class _Inbox:
    """
    What has arrived of a stream, and who waits for it.

    It does not know the stream: while an answer is waited for, the stream may be dropped.
    """

    __slots__ = ("asking", "ended", "failure", "items", "size", "waiting")

    def __init__(self) -> None:
        self.items: deque[tuple[Any, int]] = deque()
        self.size = 0
        self.asking = self.ended = False
        self.failure: Failure | None = None
        self.waiting: Deferred[None] | None = None

    def take(self, answer: Any) -> None:
        """Take an answer to `next`, or a failure."""
        self.asking = False
        match answer:
            case Failure():
                self.failure = answer
                self.ended = True
            case (list() as items, bool() as ended):
                for item in items:
                    size = sizeOf(item)
                    self.items.append((item, size))
                    self.size += size
                if not items and not ended:
                    # It would be asked without an end.
                    self.failure = Failure(ProtocolViolation("The peer has sent an empty part."))
                self.ended = ended or not items
            case _:
                self.failure = Failure(ProtocolViolation("The peer has sent no part of a stream."))
                self.ended = True
        waiting, self.waiting = self.waiting, None
        if waiting is not None:
            waiting.callback(None)


class RemoteStream(Jellyable, Unjellyable):
    """
    The values of a stream of the peer's: an asynchronous iterator, for one reader. Where it is sent
    on, the reader at the other end is that one.

    Args:
        reference: to the peer's `pbauth.wire.streams.StreamSource`.
        buffer: how many values are on their way, or wait here.
    """

    def __init__(self, reference: pb.RemoteReference, buffer: int = BUFFER) -> None:
        # Until the stream is over: then the peer need not keep it.
        self._reference: pb.RemoteReference | None = reference
        self._buffer = buffer
        self._inbox = _Inbox()
        # At a server, whose call the stream was an argument of.
        self._session = CURRENT.get()

    def unjellyFor(self, unjellier: Any, jellyList: list[Any]) -> RemoteStream:
        """Make it from what the peer sent."""
        reference = unjellier.unjelly(jellyList[1]) if len(jellyList) == 2 else None
        if not isinstance(reference, pb.RemoteReference):
            raise InsecureJelly("A stream is a reference.")
        self.__init__(reference)  # type: ignore[misc]
        return self

    def jellyFor(self, jellier: Any) -> Any:
        """Send it on."""
        return Stream(self).jellyFor(jellier)

    def withBuffer(self, buffer: int) -> RemoteStream:
        """Return the stream, with a buffer of this size; before anything is read."""
        self._buffer = buffer
        return self

    def __aiter__(self) -> RemoteStream:
        return self

    async def __anext__(self) -> Any:
        """
        Return the next value, which may have to be waited for.

        Raises:
            Exception: what the generator at the other end raised.
            Detached: the session has ended.
            twisted.spread.pb.PBConnectionLost: the connection was lost.
        """
        inbox = self._inbox
        if inbox.waiting is not None:
            raise RuntimeError("A stream has one reader, and somebody else is reading this one.")
        while not inbox.items:
            if inbox.failure is not None:
                failure, inbox.failure = inbox.failure, None
                if self._session is not None and self._session.ended:
                    self._sendClose()
                self._reference = None
                failure.raiseException()
            if inbox.ended:
                self._reference = None
                raise StopAsyncIteration
            self._ask()
            if inbox.items or inbox.ended:
                continue
            inbox.waiting = Deferred()
            try:
                await inbox.waiting
            except CancelledError:
                inbox.waiting = None
                self._abandon()
                raise
        item, size = inbox.items.popleft()
        inbox.size -= size
        self._ask()
        return item

    def _ask(self) -> None:
        """Ask for more, once half of the buffer is used."""
        inbox = self._inbox
        room = self._buffer - len(inbox.items)
        free = MOST_BYTES - inbox.size
        if inbox.asking or inbox.ended or 2 * room < self._buffer or 2 * free < MOST_BYTES:
            return
        inbox.asking = True
        answer = send(self._reference, "next", (room, free), {})
        if self._session is not None:
            answer = self._session.watch(answer)
        answer.addBoth(inbox.take)

    def _abandon(self) -> None:
        """Let go of what is to come; nobody waits for that."""
        inbox = self._inbox
        if not inbox.ended:
            inbox.ended = True
            self._sendClose()
        inbox.items.clear()

    def _sendClose(self) -> None:
        if self._reference is not None:
            quiet = {"pbanswer": False}
            send(self._reference, "close", (), quiet).addErrback(lambda _: None)

    async def aclose(self) -> None:
        """
        Close the stream: the generator at the other end is cancelled where it waits, and closed.

        Raises:
            Exception: what it raised thereupon.
        """
        inbox = self._inbox
        over, inbox.ended = inbox.ended, True
        inbox.items.clear()
        inbox.failure = None
        if not over:
            try:
                await send(self._reference, "close", (), {})
            except _GONE:
                # So is the generator.
                pass
        if inbox.waiting is not None:
            inbox.take(([], True))


setUnjellyableForClass(MARK, RemoteStream)  # type: ignore[arg-type]


class _Calling(Jellyable):
    """
    A stream that is asked for when it is read, here or where it is sent on.

    Args:
        reference: to what is called.
        method: its name.
        args: its arguments.
        kw: its arguments by name.
        buffer: as for `stream`.
    """

    def __init__(self, reference: Any, method: str, args: Any, kw: Any, buffer: int) -> None:
        self._call = reference, method, args, kw
        self._buffer = buffer
        self._stream: RemoteStream | None = None
        self._answer: Deferred[Any] | None = None
        self._over = False

    def __aiter__(self) -> _Calling:
        return self

    async def __anext__(self) -> Any:
        if self._stream is None:
            if self._over:
                raise StopAsyncIteration
            if self._answer is not None:
                raise RuntimeError("A stream has one reader, and somebody else is reading it.")
            self._answer = send(*self._call)
            try:
                answer = await self._answer
            except BaseException as error:
                closed, self._over = self._over, True
                if closed and isinstance(error, CancelledError):
                    raise StopAsyncIteration from None
                raise
            if not isinstance(answer, RemoteStream):
                self._over = True
                raise TypeError(
                    f"{self._call[1]!r} has returned no stream, but {type(answer).__name__}: "
                    "call it with callRemote."
                )
            self._stream = answer.withBuffer(self._buffer)
        return await anext(self._stream)

    async def aclose(self) -> None:
        self._over = True
        if self._stream is not None:
            await self._stream.aclose()
        elif self._answer is not None:
            self._answer.cancel()

    def jellyFor(self, jellier: Any) -> Any:
        return Stream(self).jellyFor(jellier)


def stream(
    reference: Any, method: str, /, *args: Any, buffer: int = BUFFER, **kw: Any
) -> AsyncIterator[Any]:
    """
    Call a method that gives a stream, and read its values.

    ::

        async for line in pbauth.stream(perspective, "log", jobId):
            print(line)

    The method is called when the first value is read. If the reader is cancelled, or calls
    ``aclose()``, or drops the stream, the generator at the other end is cancelled and closed.

    Args:
        reference: to what is called: a perspective, another `twisted.spread.pb.RemoteReference`, or
            a `PerspectiveClient`.
        method: its name, without prefix.
        args: as for `twisted.spread.pb.RemoteReference.callRemote`, and so are `kw`.
        buffer: how many values are on their way, or wait here, before the other end makes more; and
            not more than about 256 KiB of them.

    Returns:
        An asynchronous iterator with ``aclose()``, for one reader. It raises what the method or its
        generator raises.

    Raises:
        TypeError: `reference` or `method` is of the wrong type.
        ValueError: `buffer` is not a number from 1 to 1,000.
    """
    if not callable(getattr(reference, "callRemote", None)):
        raise TypeError(
            "reference must be a reference to a remote object, "
            f"or a PerspectiveClient, not {type(reference).__name__}."
        )
    if not isinstance(method, str):
        raise TypeError(f"method must be a str, not {type(method).__name__}.")
    if type(buffer) is not int or not 1 <= buffer <= MOST_ITEMS:
        raise ValueError(f"buffer must be a number from 1 to {MOST_ITEMS:,}, not {buffer!r}.")
    return _Calling(reference, method, args, kw, buffer)
