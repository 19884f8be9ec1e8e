"""What goes wrong with streams: readers, generators and sources that do not do as they should."""

from __future__ import annotations

import gc
import io
import os
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.spread import pb

import pbauth
from pbauth import EndReason, NotSerializable, PerspectiveClient, currentSession
from tests.support.streaming import Maker, StreamTestCase


class File(io.BytesIO):
    """A file that says what becomes of it."""

    def __init__(self, data: bytes = b"data", error: Exception | None = None) -> None:
        super().__init__(data)
        self.error = error

    def read(self, size: int | None = -1, /) -> bytes:
        if self.error is not None:
            raise self.error
        return super().read(size)


class Again:
    """Can be read any number of times."""

    async def __aiter__(self) -> AsyncIterator[int]:  # type: ignore[override]
        for number in range(20):
            yield number


class Slotted:
    """An iterator without weak references."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = 3

    def __aiter__(self) -> Slotted:
        return self

    async def __anext__(self) -> int:
        self._left -= 1
        if self._left < 0:
            raise StopAsyncIteration
        return self._left


class SourceTests(StreamTestCase):
    """What gives the values."""

    def setUp(self) -> None:
        super().setUp()
        self.before = len(self.pump.server.disconnects)

    @property
    def disconnects(self) -> int:
        return self.before

    def given(self, give: Callable[[], Any]) -> Any:
        """What the client gets."""
        self.player.give = give
        return self.answer(self.perspective, "give")

    def all(self, values: Any) -> Any:
        """Read everything."""

        async def read() -> list[Any]:
            return [value async for value in values]

        return self.run_(read())

    def test_sentTwice(self) -> None:
        """A generator has one reader; the second one is told so, and gets no part of the values."""
        generator = self.maker.count(50)
        stream = pbauth.Stream(self.maker.count(50))
        for give in (lambda: [generator, generator], lambda: [stream, stream]):
            first, second = self.given(give)
            self.assertEqual(self.one(first), 0)
            error = self.failureResultOf(self.next_(second), pb.RemoteError).value
            self.assertIn("A stream has one reader", str(error))
            rest = self.successResultOf(self.all(first))
            self.assertEqual(rest, list(range(1, 50)))
            third = self.given(give)[0]
            self.failureResultOf(self.all(third), pb.RemoteError)
            self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)
        first = second = third = rest = None
        self.assertNothingLeft()

    def test_secondUnread(self) -> None:
        """One that is dropped unread does not close what another one reads."""
        generator = self.maker.count(50)
        first, second = self.given(lambda: [generator, generator])
        self.assertEqual(self.one(first), 0)
        del second
        gc.collect()
        self.memory.flush()
        self.assertEqual(self.maker.closed, [])
        self.assertEqual(self.successResultOf(self.all(first)), list(range(1, 50)))

    def test_sentAgainFromClient(self) -> None:
        """Nor does a client send nothing where it sends the same generator again."""
        values = self.maker.count(3)
        self.assertEqual(self.answer(self.perspective, "take", values), 3)
        error = self.refusal(self.perspective, "take", values)
        self.assertIn("A stream has one reader", str(error))
        self.flushLoggedErrors()

    def test_sentAtLast(self) -> None:
        """One that could not be sent, since something else could not, is sent the next time."""
        values = self.maker.count(3)
        self.assertIsInstance(
            self.refusal(self.perspective, "take", values, object()), NotSerializable
        )
        self.assertEqual(self.perspective.broker._localCleanup, {})
        self.assertEqual(self.answer(self.perspective, "take", values), 3)
        self.assertNothingLeft()

    def test_iterables(self) -> None:
        """What can be read again is sent again; what has no weak references is sent."""
        again = Again()
        for _ in range(2):
            values = self.given(lambda: pbauth.Stream(again))
            self.assertEqual(self.successResultOf(self.all(values)), list(range(20)))
        values = self.given(lambda: pbauth.Stream(Slotted()))
        self.assertEqual(self.successResultOf(self.all(values)), [2, 1, 0])
        unread = self.given(lambda: pbauth.Stream(Slotted()))
        del unread, values
        self.assertNothingLeft()

    def test_files(self) -> None:
        """A file is closed, whatever becomes of the stream."""

        def closed(use: Callable[[Any], None], **options: Any) -> None:
            file = File(**options)
            use(self.given(lambda: pbauth.sendBytes(file)))
            gc.collect()
            self.memory.flush()
            self.assertTrue(file.closed)

        closed(lambda stream: self.assertEqual(self.one(stream), b"data"), data=b"data")
        closed(lambda stream: None)
        closed(lambda stream: self.successResultOf(self.run_(stream.aclose())))
        closed(lambda stream: self.failureResultOf(self.next_(stream)), error=OSError("disk"))
        self.flushLoggedErrors(OSError)
        self.assertNothingLeft()
        (session,) = self.game.online()
        closed(lambda stream: self.memory.authorizer.sessions.end(session))

    def test_filesOfClient(self) -> None:
        """So is one that a client sends, and nobody reads."""
        for method in ("nonsense", "hold", "count"):
            file = File()
            self.ask(self.perspective, method, pbauth.sendBytes(file)).addErrback(lambda _: None)
            self.player.got.clear()
            # These hold the arguments.
            self.flushLoggedErrors()
            gc.collect()
            self.memory.flush()
            self.assertTrue(file.closed, method)
        file = File()
        self.answer(self.perspective, "hold", pbauth.sendBytes(file))
        self.memory.disconnect(self.perspective)
        self.assertTrue(file.closed)

    def test_notWhole(self) -> None:
        """A file that has nothing to read yet has not ended."""

        class Later(io.RawIOBase):
            def read(self, size: int = -1, /) -> None:  # type: ignore[override]
                return None

        error = self.refusal(self.perspective, "digest", pbauth.sendBytes(Later()))
        self.assertIn("does not block", str(error))
        self.flushLoggedErrors()

    def test_readers(self) -> None:
        """Whatever has `read` is a file, though it can't be closed; also a pipe."""

        class Bare:
            left = 3

            def read(self, size: int) -> bytes:
                self.left -= 1
                return b"a" if self.left else b""

        reading, writing = os.pipe()
        os.write(writing, b"abc")
        os.close(writing)
        for source, size in ((Bare(), 2), (os.fdopen(reading, "rb"), 3)):
            answer = self.answer(self.perspective, "digest", pbauth.sendBytes(source))
            self.assertEqual(answer, size)

    def test_generatorOfBytes(self) -> None:
        """The generator that bytes come from is closed if they are not read to their end."""
        closed: list[str] = []

        def plain() -> Iterator[bytes]:
            try:
                while True:
                    yield bytes(1000)
            finally:
                closed.append("plain")

        async def waiting() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield bytes(1000)
            finally:
                closed.append("waiting")

        for make in (plain, waiting):
            stream = self.given(partial(pbauth.sendBytes, make()))
            self.one(stream)
            self.successResultOf(self.run_(stream.aclose()))
        self.assertEqual(closed, ["plain", "waiting"])

    def test_endsItself(self) -> None:
        """A generator that ends its own session is closed, wherever it is."""
        closed: list[str] = []

        async def suicidal(waits: bool) -> AsyncIterator[Any]:
            try:
                yield 1
                currentSession().end(EndReason.ADMINISTRATOR)  # type: ignore[union-attr]
                if waits:
                    await Deferred[None]()
                yield 2
            except BaseException as error:
                closed.append(type(error).__name__)
                raise

        for waits in (False, True):
            self.perspective = self.successResultOf(self.login())
            stream = self.given(partial(suicidal, waits))
            error = self.failureResultOf(self.all(stream)).value
            self.assertIsInstance(error, pbauth.Detached)
        self.assertEqual(closed, ["GeneratorExit", "CancelledError"])

    def test_whoIsGone(self) -> None:
        """A generator that is closed knows whose it was."""
        names: list[Any] = []

        async def watched(waits: bool) -> AsyncIterator[Any]:
            try:
                yield 1
                if waits:
                    await Deferred[None]()
                while True:
                    yield 2
            finally:
                session = currentSession()
                names.append(session and session.identity.name)

        for waits in (False, True):
            self.one(self.given(partial(watched, waits)))
            gc.collect()
            self.memory.flush()
        stream = self.given(lambda: watched(False))
        self.one(stream)
        (session,) = self.game.online()
        session.end(EndReason.ADMINISTRATOR)
        self.assertEqual(names, ["alice"] * 3)

    def test_cleaningUp(self) -> None:
        """One that takes long to clean up is waited for; once, and not for ever."""

        async def slow() -> AsyncIterator[Any]:
            try:
                await Deferred[None]()
                yield 1
            finally:
                self.maker.closed.append("cleaning")
                await self.maker.waiting

        stream = self.given(slow)
        reading = self.next_(stream)
        closing = self.run_(stream.aclose())
        self.assertNoResult(closing)
        closing.cancel()
        self.failureResultOf(closing, CancelledError)
        self.memory.disconnect(self.perspective)
        self.assertEqual(self.maker.closed, ["cleaning"])
        self.failureResultOf(reading, StopAsyncIteration, pb.PBConnectionLost)


class ReaderTests(StreamTestCase):
    """What reads the values."""

    def test_two(self) -> None:
        """There is one reader at a time, before and after the stream is there."""
        stream = self.stream("later", 2)
        first = self.next_(stream)
        self.failureResultOf(self.next_(stream), RuntimeError)
        self.maker.waiting.callback(None)
        self.memory.flush()
        self.assertEqual(self.successResultOf(first), 0)
        waiting = self.stream("count", 2, 1)
        self.maker.waiting = Deferred()
        self.assertEqual(self.one(waiting), 0)
        first = self.next_(waiting)
        self.failureResultOf(self.next_(waiting), RuntimeError)
        self.maker.waiting.callback(None)
        self.memory.flush()
        self.assertEqual(self.successResultOf(first), 1)

    def test_closedBefore(self) -> None:
        """A stream that is closed while its method is waited for ends, and cancels the method."""
        stream = self.stream("later", 2)
        reading = self.next_(stream)
        self.successResultOf(self.run_(stream.aclose()))
        self.failureResultOf(reading, StopAsyncIteration)
        self.assertTrue(self.maker.waiting.called)
        self.failureResultOf(self.next_(stream), StopAsyncIteration)
        self.assertNothingLeft()

    def test_closedWhileReading(self) -> None:
        """So does one that is closed while a value is waited for."""
        stream = self.stream("count", 2, 0)
        reading = self.next_(stream)
        self.successResultOf(self.run_(stream.aclose()))
        self.failureResultOf(reading, StopAsyncIteration)
        self.assertEqual(self.maker.closed, ["CancelledError"])

    def test_sentOn(self) -> None:
        """A stream of the peer's is sent on as it is, in both directions, and before it is read."""
        back = self.answer(self.perspective, "again", Maker().count(40))
        self.assertEqual(self.successResultOf(self.run_(_all(back))), list(range(40)))
        there = self.answer(self.perspective, "count", 40)
        self.assertEqual(self.answer(self.perspective, "take", there), 40)
        self.player.got.clear()
        self.assertEqual(self.answer(self.perspective, "take", self.stream("count", 40)), 40)
        there = back = None
        self.assertNothingLeft()

    def test_emptyPart(self) -> None:
        """A peer that sends nothing, and does not end, is not taken to have ended."""
        remote = self.answer(self.perspective, "count", 3)
        remote._inbox.take(([], False))
        self.failureResultOf(self.next_(remote), pbauth.ProtocolViolation)

    def test_stockClient(self) -> None:
        """A client that may not have pbauth is told that it can't read a stream; it stays."""
        self.pump.server.readsOurErrors = False
        error = self.refusal(self.perspective, "count", 3)
        self.assertIn("result: stream; a peer needs pbauth to read it", str(error))
        self.assertEqual(self.answer(self.perspective, "plain"), 1)
        self.flushLoggedErrors()

    def test_stockServer(self) -> None:
        """Nor is a stream sent to a server that may not have it."""
        self.perspective.broker.readsOurErrors = False
        error = self.refusal(self.perspective, "take", Maker().count(3))
        self.assertIn("args: stream; a peer needs pbauth to read it", str(error))
        self.assertEqual(self.answer(self.perspective, "plain"), 1)

    def test_advice(self) -> None:
        """Who gives something that is nearly a stream is told what to do."""
        for give, advice in (
            (lambda: (number for number in range(3)), "make it a list, or an async generator"),
            (lambda: Again(), "make it a pbauth.Stream"),
            (lambda: io.BytesIO(b"data"), "use pbauth.sendBytes"),
            (lambda: 1 << 4000, "int is too large to send: it has more than 448 bits"),
        ):
            self.player.give = give
            text = str(self.refusal(self.perspective, "give"))
            self.assertIn(advice, text)
            self.assertLess(len(text), 200)
        self.flushLoggedErrors()

    def test_staying(self) -> None:
        """A stream of a client that stays logged in ends with the connection, and says so."""
        login = pbauth.Login(self.memory, "alice", "secret", "game")
        client = PerspectiveClient(login, reactor=self.memory.clock)
        client.startService()
        self.memory.flush()
        stream = pbauth.stream(client, "count", 3, 1)
        self.assertEqual(self.one(stream), 0)
        reading = self.next_(stream)
        self.memory.pumps[-1].client.transport.loseConnection()
        self.memory.flush()
        self.failureResultOf(reading, pb.PBConnectionLost)
        client.stopService()
        self.memory.flush()


async def _all(values: Any) -> list[Any]:
    return [value async for value in values]
