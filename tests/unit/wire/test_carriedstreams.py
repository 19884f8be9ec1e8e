"""Streams that are arguments of calls that fail."""

from __future__ import annotations

import gc
import io
from collections.abc import AsyncIterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.spread import pb

from pbauth import Broker, Detached, MethodNotAllowed, sendBytes
from tests.support.pairs import PairTestCase


class Unknown(pb.Copyable):
    """What the other end knows nothing of."""


class Called(pb.Referenceable):
    """Does not do as it should."""

    kept: Any = None
    before: Any = None

    def remote_raises(self, *things: Any, **more: Any) -> None:
        raise ValueError("no")

    def remote_keeps(self, *things: Any, **more: Any) -> None:
        self.kept = things, more
        raise ValueError("no")

    def remote_none(self) -> None:
        """It takes no arguments."""

    def remote_later(self, *things: Any, **more: Any) -> Any:
        return self.before.addCallback(self.remote_raises)

    def remote_gone(self, *things: Any, **more: Any) -> None:
        raise Detached("locked")

    def remote_refused(self, *things: Any, **more: Any) -> None:
        raise MethodNotAllowed("refused")


class CarriedTests(PairTestCase):
    """What becomes of the source."""

    def refuse(self, method: str, *arguments: Any, **more: Any) -> None:
        """Make a call, which fails."""
        self.called.before = Deferred()
        answer = self.reference.callRemote(method, *arguments, **more)
        self.pump.flush()
        self.called.before.callback(None)
        self.pump.flush()
        self.failureResultOf(answer)
        self.flushLoggedErrors()

    def setUp(self) -> None:
        self.start(Broker)

    def start(self, server: type[pb.Broker]) -> None:
        """Connect, and get what is called."""
        self.connect(server, client=Broker)  # type: ignore[arg-type]
        self.called = self.root.result = Called()
        self.reference = self.successResultOf(self.call("give"))

    def test_closed(self) -> None:
        """Generators and files are closed, whoever fails, and why; stock peers included."""
        for server in (Broker, pb.Broker):
            self.start(server)
            for method in ("nothing", "raises", "keeps", "none", "later", "gone", "refused"):
                for others in ((), (Unknown(),)):
                    for place in ("first", "inside", "named"):
                        ended: list[str] = []

                        async def count(ended: list[str] = ended) -> AsyncIterator[int]:
                            try:
                                yield 1
                            finally:
                                ended.append("ended")

                        file = io.BytesIO(b"data")
                        streams = [count(), sendBytes(file)]
                        if place == "named":
                            self.refuse(method, *others, streams=streams)
                        elif place == "inside":
                            self.refuse(method, *others, {"streams": streams})
                        else:
                            self.refuse(method, *streams, *others)
                        what = (server, method, others, place)
                        self.assertTrue(file.closed, what)
                        # It was not begun.
                        self.assertIsNone(streams[0].ag_frame, what)

    def test_keptAndRead(self) -> None:
        """Whoever keeps such a stream, and reads it later, learns why there is nothing in it."""
        file = io.BytesIO(b"data")
        self.refuse("keeps", sendBytes(file))
        ((stream,), _) = self.called.kept
        reading = Deferred.fromCoroutine(anext(aiter(stream)))
        self.pump.flush()
        error = self.failureResultOf(reading)
        self.assertIn("has failed", error.getErrorMessage())
        self.flushLoggedErrors()

    def test_read(self) -> None:
        """One that somebody has begun to read goes on."""

        async def count() -> AsyncIterator[int]:
            yield 1
            yield 2

        async def keep(stream: Any) -> None:
            self.called.kept = aiter(stream)
            self.assertEqual(await anext(self.called.kept), 1)
            raise ValueError("no")

        self.called.remote_raises = keep  # type: ignore[method-assign]
        self.refuse("raises", count())
        reading = Deferred.fromCoroutine(anext(self.called.kept))
        self.pump.flush()
        self.assertEqual(self.successResultOf(reading), 2)

    def test_answered(self) -> None:
        """An argument of a call that succeeds is there until it is dropped."""
        file = io.BytesIO(b"data")

        def keep(stream: Any) -> None:
            self.called.kept = stream

        self.called.remote_raises = keep  # type: ignore[method-assign]
        answer = self.reference.callRemote("raises", sendBytes(file))
        self.pump.flush()
        self.successResultOf(answer)
        self.assertFalse(file.closed)
        self.called.kept = None
        gc.collect()
        self.pump.flush()
        self.assertTrue(file.closed)
