"""
The sending half of streams: values that are made one by one, for whoever asks at the other end.

What crosses the wire is a reference, marked as a stream (`MARK`).  The receiver asks for so many
values, or so many bytes of them, and asks again when it has used them: nothing is made that nobody
has asked for.  So a slow receiver takes no memory, and the order is kept.

A stream ends with its last value or its error; or when the receiver closes it, drops it or is cut
off, or the session ends that it belongs to: then what makes the values is cancelled and closed.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.spread import pb
from twisted.spread.jelly import Jellyable

from pbauth._async import run
from pbauth._contained import contained
from pbauth.audit.events import LeanLogger
from pbauth.errors import ProtocolViolation
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


class _End:
    """What stands for the value after the last one."""


class Stream(Jellyable):
    """
    Send the values of an asynchronous iterable, one by one, as the receiver asks for them.

    A method may return one, or be an asynchronous generator, which is the same; and either may be
    an argument of a call. At the other end it is an asynchronous iterator.

    Args:
        asyncIterable: gives the values. If it is a generator, it is closed at the end.

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
        self._source: StreamSource | None = None

    def __aiter__(self) -> AsyncIterator[Any]:
        """Iterate over the values here."""
        return aiter(self._iterable)

    def jellyFor(self, jellier: Any) -> Any:
        """Make an expression of it: a reference that is marked."""
        if self._source is None:
            self._source = StreamSource(self._iterable)
        return [MARK, self._source.jellyFor(jellier)]


class StreamSource(pb.Referenceable):
    """
    What a receiver asks for values.

    Args:
        iterable: gives them.
    """

    def __init__(self, iterable: AsyncIterable[Any]) -> None:
        self._iterable = iterable
        self._iterator: Any = None
        self._broker: Any = None
        # The value that is being made, if that has to be waited for.
        self._step: Any = None
        self._asked = False
        self._ended = False
        # The error that comes after the values that are sent before it.
        self._failure: Failure | None = None
        self._whenIdle: Deferred[None] | None = None

    def remoteMessageReceived(self, broker: Any, message: Any, args: Any, kw: Any) -> Any:
        """Take a call of the receiver's (see `twisted.spread.pb.Referenceable`)."""
        arguments = tuple(broker.unserialize(args))
        if message == "close" and not arguments:
            return broker.serialize(self._finish())
        if message != "next" or len(arguments) != 2 or {*map(type, arguments)} != {int}:
            raise ProtocolViolation("A stream takes next(items, bytes) and close().")
        if self._asked:
            raise ProtocolViolation("A stream is asked for one batch at a time.")
        self._watch(broker)
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
        if self._iterator is None:
            self._iterator = aiter(self._iterable)
        try:
            return await anext(self._iterator)
        except StopAsyncIteration:
            return _End
        finally:
            if self._whenIdle is not None:
                self._whenIdle.callback(None)

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
                    self._broker.takeBack(broker.serialize(value))
                except Exception:
                    break
                good += 1
            self._end()
            self._close()
            self._failure = failure
            if not good:
                self._failure = None
                raise
            return broker.serialize((made[:good], False))

    def _watch(self, broker: Any) -> None:
        """Learn when the receiver has gone, or its session has ended."""
        if self._broker is None and not self._ended:
            self._broker = broker
            whenReleased(broker, self, self._close)
            broker.notifyOnDisconnect(self._close)

    def _end(self) -> None:
        """There are no more values."""
        self._ended = True
        broker = self._broker
        if broker is not None and not broker.disconnected:
            broker.dontNotifyOnDisconnect(self._close)
            unlessReleased(broker, self)

    def _close(self) -> None:
        """Close what makes the values; nobody waits for that."""
        run(self._contain())

    async def _contain(self) -> None:
        with contained(_log, "What makes the values of a stream can't be closed"):
            await self._finish()

    async def _finish(self) -> None:
        """Cancel what makes the values, and close it."""
        if self._ended and self._iterator is None:
            return
        self._end()
        step = self._step
        if isinstance(step, Deferred) and not step.called:
            idle = self._whenIdle = Deferred()
            if not self._asked:
                # Nobody else hears of it.
                step.addErrback(lambda failure: failure.trap(CancelledError))
            step.cancel()
            await idle
        iterator, self._iterator = self._iterator, None
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()


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
        source: `bytes`; or a file that is open for reading bytes, which is closed at the end; or an
            iterable, or an asynchronous iterable, of `bytes` of any length.

    Returns:
        The stream.

    Raises:
        TypeError: it is of another kind.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        return Stream(_pieces([source]))
    if callable(getattr(source, "read", None)):
        return Stream(_read(source))
    if isinstance(source, str) or not (hasattr(source, "__iter__") or hasattr(source, "__aiter__")):
        raise TypeError(
            "source must be bytes, a file open for reading bytes, or an iterable of bytes, "
            f"not {type(source).__name__}."
        )
    return Stream(_pieces(source))


async def _read(file: Any) -> AsyncIterator[bytes]:
    try:
        while chunk := file.read(CHUNK):
            yield _checked(chunk)
    finally:
        file.close()


async def _pieces(source: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[bytes]:
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
