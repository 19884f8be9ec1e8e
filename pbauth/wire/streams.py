"""
The sending half of streams: values that are made one by one, for whoever asks at the other end.

What crosses the wire is a reference, marked as a stream (`MARK`).  The receiver asks for so many
values, or so many bytes of them, and asks again when it has used them: nothing is made that nobody
has asked for.  So a slow receiver takes no memory, and the order is kept.

A stream ends with its last value or its error; or when the receiver closes it, drops it or is cut
off, or the session ends that it belongs to: then what makes the values is cancelled and closed.  So
is one that nobody reads, when the call fails that it was an argument of: whoever failed may not
even have looked at the arguments.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from contextlib import suppress
from typing import Any
from weakref import WeakSet

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.spread import pb
from twisted.spread.jelly import Jellyable

from pbauth._async import OneShot, run, settled
from pbauth.audit.events import LeanLogger
from pbauth.errors import NotSerializable, ProtocolViolation
from pbauth.perspectives.current import CURRENT, runFor
from pbauth.wire.twistedprivate import unlessReleased, whenReleased

_log = LeanLogger()

#: What a reference to a stream is marked with on the wire.
MARK = b"pbauth.Stream"

#: The most values, and about the most bytes of them, that are on their way at a time.
MOST_ITEMS = 1000
MOST_BYTES = 262_144

#: The length of the pieces that bytes are sent in.
CHUNK = 65_536

#: What a value takes beside its own bytes, more or less.
_OVERHEAD = 16


class _Tried(Exception):
    """Whether a value can be sent is known, and it is not sent now."""


def _tried() -> None:
    raise _Tried


class _End:
    """What stands for the value after the last one."""


#: The iterators that a stream has begun to read: each has one reader.
_BEGUN: WeakSet[Any] = WeakSet()


class Stream(Jellyable):
    """
    Send the values of an asynchronous iterable, one by one, as the receiver asks for them.

    A method may return one, or be an asynchronous generator, which is the same; and either may be
    an argument of a call. At the other end it is an asynchronous iterator.

    Args:
        asyncIterable: produces the values. If it is a generator, it is closed at the end, even if
            nobody has read it, and can be sent once.

    Raises:
        TypeError: it is none.
    """

    def __init__(self, asyncIterable: AsyncIterable[Any]) -> None:
        if not hasattr(asyncIterable, "__aiter__"):
            raise TypeError(
                "asyncIterable must be an asynchronous iterable, "
                f"not {type(asyncIterable).__name__}."
            )
        self._iterable = asyncIterable

    def __aiter__(self) -> AsyncIterator[Any]:
        """Iterate over the values here."""
        return aiter(self._iterable)

    def jellyFor(self, jellier: Any) -> Any:
        """Make an expression of it: a reference that is marked."""
        if not getattr(jellier.invoker, "readsOurErrors", True):
            raise NotSerializable(
                getattr(jellier, "root", "result"),
                "stream",
                "a peer needs pbauth to read it; send others a list",
            )
        return [MARK, StreamSource(self._iterable).jellyFor(jellier)]


class StreamSource(pb.Referenceable):
    """
    What a receiver asks for values.

    Args:
        iterable: produces them.
    """

    def __init__(self, iterable: AsyncIterable[Any]) -> None:
        self._iterable = iterable
        self._iterator: Any = None
        self._broker: Any = None
        #: The session whose calls ask for the values.
        self._session: Any = None
        # The value that is being made, if that has to be waited for.
        self._step: Any = None
        self._asked = self._advancing = False
        self._ended = False
        # The error that comes after the values that are sent before it.
        self._failure: Failure | None = None
        self._whenIdle: Deferred[None] | None = None
        self._closing: OneShot | None = None

    def jellyFor(self, jellier: Any) -> Any:
        """Make a reference of it, and learn when it is gone: the receiver, or its session."""
        reference = super().jellyFor(jellier)
        broker = self._broker = jellier.invoker
        whenReleased(broker, self, self._close)
        broker.notifyOnDisconnect(self._close)
        return reference

    def forget(self) -> None:
        """Learn nothing more: there are no more values, or they were not sent after all."""
        broker, self._broker = self._broker, None
        if broker is not None and not broker.disconnected:
            broker.dontNotifyOnDisconnect(self._close)
            unlessReleased(broker, self)

    def abandon(self) -> None:
        """Close it, unless somebody reads it: the call that it was an argument of has failed."""
        if self._iterator is None and not self._asked:
            self._close()
            self._failure = Failure(pb.Error("The call that this stream was sent with has failed."))

    def remoteMessageReceived(self, broker: Any, message: Any, args: Any, kw: Any) -> Any:
        """Take a call of the receiver's (see `twisted.spread.pb.Referenceable`)."""
        arguments = tuple(broker.unserialize(args))
        if message == "close" and not arguments:
            return broker.serialize(self._finish())
        if message != "next" or len(arguments) != 2 or {*map(type, arguments)} != {int}:
            raise ProtocolViolation("A stream takes next(items, bytes) and close().")
        if self._asked:
            raise ProtocolViolation("A stream is asked for one batch at a time.")
        self._session = CURRENT.get()
        items, size = arguments
        self._asked = True
        batch = run(self._pull(min(items, MOST_ITEMS), min(size, MOST_BYTES)))
        if isinstance(batch, Deferred):
            return batch.addCallback(lambda made: self._serialize(broker, made))
        return self._serialize(broker, batch)

    async def _pull(self, items: int, size: int) -> list[Any]:
        """Make values, as many as are asked for, or fewer if the next one has to be waited for."""
        made: list[Any] = []
        try:
            while not self._ended and len(made) < max(items, 1) and (size > 0 or not made):
                step = self._step
                if step is None:
                    step = run(self._advance())
                if isinstance(step, Deferred):
                    self._step = step
                    if self._ended:
                        # What makes the values has ended the session itself, and goes on.
                        _abandon(step)
                        break
                    if made:
                        break
                    step = await step
                    self._step = None
                if step is _End:
                    self._end()
                    break
                made.append(step)
                size -= sizeOf(step)
            return made
        except BaseException as error:
            self._step = None
            if self._ended and isinstance(error, CancelledError):
                return []
            self._end()
            self._failure = Failure()
            return made
        finally:
            self._asked = False

    async def _advance(self) -> Any:
        self._advancing = True
        try:
            if self._iterator is None:
                self._iterator = self._begin()
            return await anext(self._iterator)
        except StopAsyncIteration:
            return _End
        finally:
            self._advancing = False
            if self._whenIdle is not None:
                self._whenIdle.callback(None)

    def _begin(self) -> Any:
        """Return the iterator, which has one reader."""
        iterator = aiter(self._iterable)
        if _isBegun(iterator):
            raise RuntimeError("A stream has one reader, and this one was sent before.")
        with suppress(TypeError):
            _BEGUN.add(iterator)
        return iterator

    def _serialize(self, broker: Any, made: list[Any]) -> Any:
        if self._failure is not None and not made:
            failure, self._failure = self._failure, None
            failure.raiseException()
        try:
            return broker.serialize((made, self._ended and self._failure is None))
        except Exception:
            # The values before the one that can't be sent arrive.
            failure = Failure()
            good = 0
            for value in made:
                try:
                    broker.serializeIf(_tried, value)
                except _Tried:
                    good += 1
                except Exception:
                    break
            self._close()
            self._failure = failure
            if not good:
                self._failure = None
                raise
            return broker.serialize((made[:good], False))

    def _end(self) -> None:
        """There are no more values."""
        self._ended = True
        self.forget()

    def _close(self) -> None:
        """Close what makes the values; nobody waits for that."""
        if self._closing is None:
            self._finish().addErrback(
                lambda failure: _log.failure("The source of a stream could not be closed", failure)
            )

    def _finish(self) -> Deferred[None]:
        """Cancel what makes the values, and close it; once, however many wait for that."""
        if self._closing is None:
            self._closing = OneShot()
            runFor(self._session, self._cleanUp, self._closing)
        return self._closing.wait()

    async def _cleanUp(self, closing: OneShot) -> None:
        try:
            over = self._ended and self._iterator is None
            self._end()
            if self._advancing:
                idle = self._whenIdle = Deferred()
                if self._asked and self._step is not None:
                    self._step.cancel()
                elif self._step is not None:
                    _abandon(self._step)
                await idle
            iterator = self._iterator
            if iterator is None and not over and not _isBegun(self._iterable):
                # What nobody has read may hold a file.
                iterator = self._iterable
            if iterator is not None:
                close = getattr(iterator, "aclose", None)
                if close is not None:
                    await close()
        except GeneratorExit:
            # It is cleaning up still, and nobody is there any more.
            raise
        except BaseException:
            closing.fail(Failure())
        else:
            closing.fire()


def _isBegun(iterator: Any) -> bool:
    try:
        return iterator in _BEGUN
    except TypeError:
        # It has no weak references: nobody can tell.
        return False


def _abandon(step: Deferred[Any]) -> None:
    """Cancel a step whose outcome nobody waits for."""
    step.addErrback(lambda failure: failure.trap(CancelledError))
    step.cancel()


def sizeOf(value: Any) -> int:
    """
    Estimate how many bytes a value takes on the wire.

    Args:
        value: any value.

    Returns:
        About that many.
    """
    size, waiting = 0, [value]
    while waiting:
        item = waiting.pop()
        size += _OVERHEAD
        if isinstance(item, (bytes, str)):
            size += len(item)
        elif isinstance(item, dict):
            waiting.extend(item.keys())
            waiting.extend(item.values())
        elif isinstance(item, (list, tuple, set, frozenset)):
            waiting.extend(item)
    return size


def sendBytes(source: Any) -> Stream:
    """
    Send bytes, however many: a `Stream` of pieces of at most 64 KiB.

    A method returns it, or it is an argument of a call. The other end reads the pieces with
    ``async for``.

    Args:
        source: `bytes`; or a file that is open for reading bytes; or an iterable, or an
            asynchronous iterable, of `bytes` of any length. Files and generators are closed at the
            end, even if the other end has not read them.

    Returns:
        The stream.

    Raises:
        TypeError: it is of another kind.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        return Stream(_ofIterable([source]))
    if callable(getattr(source, "read", None)):
        return Stream(_Pieces(source, _ofFile(source)))
    if isinstance(source, str) or not (hasattr(source, "__iter__") or hasattr(source, "__aiter__")):
        raise TypeError(
            "source must be bytes, a file open for reading bytes, or an iterable of bytes, "
            f"not {type(source).__name__}."
        )
    return Stream(_Pieces(source, _ofIterable(source)))


class _Pieces:
    """
    The pieces of a source, which is closed at the end, even if nobody has read it.

    Args:
        source: what is closed, if it can be.
        pieces: reads it.
    """

    def __init__(self, source: Any, pieces: AsyncGenerator[bytes, None]) -> None:
        self._source = source
        self._pieces = pieces

    def __aiter__(self) -> _Pieces:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._pieces)
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        source, self._source = self._source, None
        await self._pieces.aclose()
        close = getattr(source, "aclose", None) or getattr(source, "close", None)
        if callable(close):
            await settled(close())


async def _ofFile(file: Any) -> AsyncGenerator[bytes, None]:
    while (chunk := file.read(CHUNK)) is not None:
        if not _checked(chunk):
            return
        yield _checked(chunk)
    raise BlockingIOError("sendBytes can't wait for a file that does not block.")


async def _ofIterable(source: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[bytes, None]:
    if isinstance(source, AsyncIterable):
        async for data in source:
            for piece in _cut(data):
                yield piece
    else:
        for data in source:
            for piece in _cut(data):
                yield piece


def _cut(data: Any) -> Iterable[bytes]:
    checked = _checked(data)
    if len(checked) <= CHUNK:
        return [checked] if checked else []
    view = memoryview(checked)
    return (bytes(view[start : start + CHUNK]) for start in range(0, len(view), CHUNK))


def _checked(data: Any) -> bytes:
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"sendBytes sends bytes, not {type(data).__name__}.")
    return bytes(data)
