"""Streams: values that are made one by one, for whoever asks at the other end."""

from __future__ import annotations

import gc
import io
from collections.abc import AsyncIterator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.spread import pb
from twisted.spread.jelly import InsecureJelly, unjelly

import pbauth
from pbauth import Detached, PerspectiveClient, ProtocolViolation
from pbauth.wire.remotestreams import RemoteStream
from pbauth.wire.streams import CHUNK, MOST_BYTES, sizeOf
from tests.support.streaming import Maker, Spoilt, StreamTestCase


class FromServerTests(StreamTestCase):
    """A server sends, and a client reads."""

    def setUp(self) -> None:
        super().setUp()
        self.before = len(self.pump.server.disconnects)

    @property
    def disconnects(self) -> int:
        return self.before

    def test_values(self) -> None:
        """All values arrive, in order, of generators and of `Stream`."""
        for method in ("count", "stream"):
            for most in (0, 1, 16, 17, 100):
                self.assertEqual(self.read(method, most), list(range(most)))
                self.assertNothingLeft()
        self.assertEqual({*self.maker.closed}, {"end"})

    def test_waiting(self) -> None:
        """What has been made arrives, though the next value has to be waited for."""
        stream = self.stream("count", 4, 2)
        self.assertEqual([self.one(stream), self.one(stream)], [0, 1])
        third = self.next_(stream)
        self.assertNoResult(third)
        self.maker.waiting.callback(None)
        self.memory.flush()
        self.assertEqual(self.successResultOf(third), 2)
        self.assertEqual(self.one(stream), 3)
        self.failureResultOf(self.next_(stream), StopAsyncIteration)
        self.failureResultOf(self.next_(stream), StopAsyncIteration)
        self.assertNothingLeft()

    def test_later(self) -> None:
        """A coroutine may return a stream."""
        self.maker.waiting.callback(None)
        self.assertEqual(self.read("later", 3), [0, 1, 2])

    def test_whoCalls(self) -> None:
        """The generator knows whose call it runs."""
        stream = self.stream("who")
        first = self.next_(stream)
        self.maker.waiting.callback(None)
        self.memory.flush()
        self.assertEqual(self.successResultOf(first), "alice")
        self.assertEqual(self.one(stream), "alice")

    def test_backPressure(self) -> None:
        """Nothing is made that nobody has room for."""
        stream = self.stream("count", 1000)
        self.assertEqual(self.maker.made, [])
        for number in range(100):
            self.assertEqual(self.one(stream), number)
            self.assertLessEqual(len(self.maker.made), number + 17)
        self.memory.flush()
        self.assertLess(len(self.maker.made), 120)

    def test_buffer(self) -> None:
        """The reader says how much is on its way."""
        for buffer in (1, 2, 5):
            self.maker.made.clear()
            stream = self.stream("count", 1000, buffer=buffer)
            for number in range(20):
                self.assertEqual(self.one(stream), number)
                self.assertLessEqual(len(self.maker.made), number + 1 + buffer)

    def test_bytesInFlight(self) -> None:
        """Large values count by their size."""
        stream = self.stream("sizes", 100_000, 50)
        self.assertEqual(len(self.one(stream)), 100_000)
        self.assertLessEqual(len(self.maker.made), 1 + MOST_BYTES // 100_000 + 1)
        self.assertEqual(len(self.read("sizes", 100_000, 50)), 50)

    def test_error(self) -> None:
        """An error comes after the values before it; the application's own as itself."""
        for after in (0, 1, 16, 20):
            stream = self.stream("fail", after, True)
            for number in range(after):
                self.assertEqual(self.one(stream), number)
            error = self.failureResultOf(self.next_(stream), Spoilt).value
            self.assertEqual(str(error), "sour")
            self.failureResultOf(self.next_(stream), StopAsyncIteration)
        self.assertEqual(self.flushLoggedErrors(), [])
        stream = self.stream("fail", 0, False)
        error = self.failureResultOf(self.next_(stream), pb.RemoteError).value
        self.assertEqual(error.remoteType, "builtins.ZeroDivisionError")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertNothingLeft()

    def test_refused(self) -> None:
        """A method that raises at once, and one that gives no stream."""
        self.failureResultOf(self.next_(self.stream("refuse")), Spoilt)
        stream = self.stream("plain")
        error = self.failureResultOf(self.next_(stream), TypeError).value
        self.assertIn("'plain' has returned no stream", str(error))
        self.failureResultOf(self.next_(stream), StopAsyncIteration)

    def test_close(self) -> None:
        """`aclose` reaches the generator, whether it waits or not."""
        for wait in (-1, 1):
            stream = self.stream("count", 100, wait)
            self.one(stream)
            self.successResultOf(self.run_(stream.aclose()))
            self.failureResultOf(self.next_(stream), StopAsyncIteration)
            self.successResultOf(self.run_(stream.aclose()))
            self.maker.waiting = Deferred()
            del stream
            self.assertNothingLeft()
        self.assertEqual(self.maker.closed, ["GeneratorExit", "CancelledError"])
        unread = self.stream("count", 1)
        self.successResultOf(self.run_(unread.aclose()))
        self.failureResultOf(self.next_(unread), StopAsyncIteration)

    def test_cancel(self) -> None:
        """A reader that is cancelled cancels the generator where it waits."""
        stream = self.stream("count", 100, 1)
        self.one(stream)
        waiting = self.next_(stream)
        waiting.cancel()
        self.memory.flush()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(self.maker.closed, ["CancelledError"])
        self.failureResultOf(self.next_(stream), StopAsyncIteration)
        del stream
        self.assertNothingLeft()

    def test_break(self) -> None:
        """A reader that goes away closes the generator."""

        async def read(wait: int) -> int:
            async for number in self.stream("count", 100, wait):
                if number == 3:
                    return number
            return -1

        for wait in (-1, 4):
            self.assertEqual(self.successResultOf(self.run_(read(wait))), 3)
            self.assertNothingLeft()
        self.assertEqual(self.maker.closed, ["GeneratorExit", "CancelledError"])

    def test_sessionEnds(self) -> None:
        """The end of the session ends the stream, and the generator."""
        for wait in (-1, 1):
            self.setUp()
            stream = self.stream("count", 1000, wait)
            self.one(stream)
            waiting = self.next_(stream) if wait == 1 else None
            (session,) = self.memory.authorizer.sessions
            self.memory.authorizer.sessions.end(session)
            self.memory.flush()
            self.assertEqual(len(self.maker.closed), 1)
            if waiting is not None:
                self.failureResultOf(waiting, Detached)
            else:
                # What was on its way arrives first.
                results: list[Any] = [0]
                while not isinstance(results[-1], Failure):
                    self.next_(stream).addBoth(results.append)
                self.assertEqual(results[:-1], list(range(len(results) - 1)))
                self.assertTrue(results[-1].check(Detached))

    def test_connectionLost(self) -> None:
        """So does the end of the connection."""
        for wait in (-1, 1):
            self.setUp()
            stream = self.stream("count", 1000, wait)
            self.one(stream)
            waiting = self.next_(stream) if wait == 1 else None
            self.memory.disconnect(self.perspective)
            self.assertEqual(len(self.maker.closed), 1)
            if waiting is not None:
                self.failureResultOf(waiting, pb.PBConnectionLost)
            self.successResultOf(self.run_(stream.aclose()))

    def test_things(self) -> None:
        """Values may be references; one that can't be sent comes after those before it."""
        stream = self.stream("things", "a", "thing", "b", "object", "c")
        self.assertEqual(self.one(stream), "a")
        thing = self.one(stream)
        self.assertEqual(self.answer(thing, "name"), "thing")
        self.assertEqual(self.one(stream), "b")
        error = self.failureResultOf(self.next_(stream), pb.RemoteError).value
        self.assertIn("NotSerializable", error.remoteType)
        del stream
        self.failureResultOf(self.next_(self.stream("things", "object")), pb.RemoteError)
        self.flushLoggedErrors()
        self.assertNothingLeft()

    def test_manyAtOnce(self) -> None:
        """Several streams of one connection do not disturb each other."""

        async def read(most: int) -> list[Any]:
            return [value async for value in self.stream("count", most)]

        running = [Deferred.fromCoroutine(read(most)) for most in range(50)]
        self.memory.flush()
        for most, each in enumerate(running):
            self.assertEqual(self.successResultOf(each), list(range(most)))
        self.assertNothingLeft()

    def test_staying(self) -> None:
        """A client that stays logged in reads streams in the same way."""
        client = PerspectiveClient(
            self.memory, "secret", "game", username="alice", reactor=self.memory.clock
        )
        client.startService()
        self.memory.flush()

        async def read() -> list[Any]:
            return [value async for value in pbauth.stream(client, "count", 20)]

        self.assertEqual(self.successResultOf(self.run_(read())), list(range(20)))
        client.stopService()
        self.memory.flush()

    def test_wrong(self) -> None:
        """Arguments that make no sense are refused at once."""
        for bad in (None, object(), "alice"):
            with self.assertRaises(TypeError):
                pbauth.stream(bad, "count")
        with self.assertRaises(TypeError):
            pbauth.stream(self.perspective, 5)  # type: ignore[arg-type]
        for buffer in (0, -1, 1001, "5", 1.5, True):
            with self.assertRaises(ValueError):
                pbauth.stream(self.perspective, "count", buffer=buffer)  # type: ignore[arg-type]
        for wrong in (object(), [1], None):
            with self.assertRaises(TypeError):
                pbauth.Stream(wrong)  # type: ignore[arg-type]

    def test_hostileReader(self) -> None:
        """A reader that breaks the rules gets an error, and not more than it may."""
        remote = self.answer(self.perspective, "count", 5000)
        source = remote._reference
        for call in (
            ("next",),
            ("next", 1),
            ("next", "1", 1),
            ("next", 1, True),
            ("next", 1.0, 1),
            ("close", 1),
            ("nonsense",),
        ):
            self.assertIsInstance(self.refusal(source, *call), ProtocolViolation)
        values, ended = self.answer(source, "next", 10**9, 10**9)
        self.assertEqual((len(values), ended), (1000, False))
        values, _ = self.answer(source, "next", -5, -5)
        self.assertEqual(values, [1000])
        waiting = self.answer(self.perspective, "count", 5, 0)._reference
        first, second = self.ask(waiting, "next", 1, 1), self.ask(waiting, "next", 1, 1)
        self.failureResultOf(second, ProtocolViolation)
        self.maker.waiting.callback(None)
        self.memory.flush()
        self.assertEqual(self.successResultOf(first), ([0], False))


class FromClientTests(StreamTestCase):
    """A client sends, and a server reads."""

    def test_values(self) -> None:
        """Generators and streams are arguments of calls."""
        maker = Maker()
        self.assertEqual(self.answer(self.perspective, "take", maker.count(100)), 100)
        self.assertEqual(self.player.got, list(range(100)))
        self.player.got.clear()
        stream = pbauth.Stream(maker.count(3))
        self.assertEqual(self.answer(self.perspective, "take", values=stream), 3)
        self.assertEqual(maker.closed, ["end", "end"])
        self.assertEqual(self.perspective.broker._localCleanup, {})

    def test_enough(self) -> None:
        """A method that has read enough closes the generator."""
        maker = Maker()
        answer = self.answer(self.perspective, "take", maker.count(100), 3)
        gc.collect()
        self.memory.flush()
        self.assertEqual((answer, maker.closed), ("enough", ["GeneratorExit"]))
        self.assertLess(len(maker.made), 40)

    def test_error(self) -> None:
        """An error of the client's generator is raised in the method."""

        async def spoilt() -> AsyncIterator[int]:
            yield 1
            raise Spoilt("sour")

        self.assertIsInstance(self.refusal(self.perspective, "take", spoilt()), Spoilt)
        self.assertEqual(self.player.got, [1])

    def test_cancelled(self) -> None:
        """A call that is cancelled cancels the method, and the generator."""
        maker = Maker()
        call = pbauth.call(self.perspective, "take", maker.count(100, 1))
        self.memory.flush()
        self.assertEqual(self.player.got, [0])
        call.cancel()
        self.memory.flush()
        self.failureResultOf(call, CancelledError)
        self.assertEqual(maker.closed, ["CancelledError"])

    def test_sessionEnds(self) -> None:
        """The end of the session ends the method's reading, and the generator."""
        maker = Maker()
        call = self.ask(self.perspective, "take", maker.count(100, 1))
        (session,) = self.memory.authorizer.sessions
        self.memory.authorizer.sessions.end(session)
        self.memory.flush()
        self.failureResultOf(call, Detached)
        self.assertEqual(maker.closed, ["CancelledError"])

    def test_notARead(self) -> None:
        """A stream that is never read is never begun, and one that is no stream is refused."""
        maker = Maker()
        self.answer(self.perspective, "hold", maker.count(3))
        self.assertIsInstance(self.player.got[0], RemoteStream)
        self.player.got.clear()
        gc.collect()
        self.memory.flush()
        self.assertEqual((maker.made, maker.closed), ([], []))
        with self.assertRaises(InsecureJelly):
            unjelly([b"pbauth.Stream", [b"list", 1]])


class BytesTests(StreamTestCase):
    """Bytes of any length."""

    def test_download(self) -> None:
        """They arrive in pieces that can be sent."""
        data = bytes(range(256)) * 2000
        pieces = self.read("bytes", data)
        self.assertEqual(b"".join(pieces), data)
        self.assertLessEqual(max(map(len, pieces)), CHUNK)
        self.assertEqual(self.read("bytes", b""), [])

    def test_upload(self) -> None:
        """Of bytes, files, and iterables of both kinds."""
        data = b"x" * 1_000_000
        file = io.BytesIO(data)

        async def later() -> AsyncIterator[bytes]:
            yield data
            yield b""
            yield data

        for source, size in [
            (data, 1_000_000),
            (bytearray(data), 1_000_000),
            (file, 1_000_000),
            ([data, b"y", memoryview(data)], 2_000_001),
            (later(), 2_000_000),
        ]:
            answer = self.answer(self.perspective, "digest", pbauth.sendBytes(source))
            self.assertEqual(answer, size)
        self.assertTrue(file.closed)

    def test_wrong(self) -> None:
        """What is no source of bytes is refused, at once or when it turns out."""
        for bad in (None, "text", 5, object()):
            with self.assertRaises(TypeError):
                pbauth.sendBytes(bad)
        error = self.refusal(self.perspective, "digest", pbauth.sendBytes(["text"]))
        self.assertIn("sendBytes sends bytes, not str", str(error))
        self.flushLoggedErrors()

    def test_tooLarge(self) -> None:
        """A value that is too large to send fails with an error that names streams."""
        error = self.refusal(self.perspective, "large", 1_000_000)
        self.assertIn("pbauth.sendBytes", str(error))
        self.flushLoggedErrors()
        error = self.refusal(self.perspective, "bytes", bytes(1_000_000))
        self.assertIn("pbauth.sendBytes", str(error))
        error = self.refusal(self.perspective, "hold", [0] * 1_000_000)
        self.assertIn("pbauth.Stream", str(error))

    def test_sizes(self) -> None:
        """The size of a value is about what it takes."""
        for value, least, most in [
            (None, 1, 20),
            (b"x" * 1000, 1000, 1100),
            ("x" * 1000, 1000, 1100),
            ([1] * 100, 100, 2000),
            ({"key": {"other": (b"x" * 100, frozenset({1}))}}, 100, 250),
            (object(), 1, 20),
        ]:
            self.assertTrue(least <= sizeOf(value) <= most, value)
