"""What tests of streams share: who makes values, and a perspective that gives and takes streams."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.spread import pb

import pbauth
from pbauth import WireError, currentSession
from pbauth.testing import RecordingPerspective
from tests.support.wire import WireTestCase


class Spoilt(WireError):
    """An error of the application's."""


class Thing(pb.Referenceable):
    """Something that goes out by reference."""

    def remote_name(self) -> str:
        return "thing"


class Maker:
    """Makes values, and takes notes."""

    def __init__(self) -> None:
        self.made: list[Any] = []
        self.closed: list[Any] = []
        self.waiting: Deferred[None] = Deferred()

    async def count(self, most: int, wait: int = -1) -> AsyncIterator[int]:
        """Count; wait in front of one number."""
        try:
            for number in range(most):
                if number == wait:
                    await self.waiting
                self.made.append(number)
                yield number
            self.closed.append("end")
        except BaseException as error:
            self.closed.append(type(error).__name__)
            raise


class Player(RecordingPerspective):
    """Gives streams, and takes them."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.maker = Maker()
        self.got: list[Any] = []
        self.give: Any = None

    async def perspective_count(self, most: int, wait: int = -1) -> AsyncIterator[int]:
        async for number in self.maker.count(most, wait):
            yield number

    def perspective_stream(self, most: int, wait: int = -1) -> Any:
        return pbauth.Stream(self.maker.count(most, wait))

    async def perspective_later(self, most: int) -> Any:
        await self.maker.waiting
        return pbauth.Stream(self.maker.count(most))

    async def perspective_who(self) -> AsyncIterator[Any]:
        for _ in range(2):
            await self.maker.waiting
            session = currentSession()
            yield session and session.identity.name

    async def perspective_fail(self, after: int, own: bool) -> AsyncIterator[int]:
        for number in range(after):
            yield number
        raise Spoilt("sour") if own else ZeroDivisionError("oh")

    async def perspective_things(self, *kinds: str) -> AsyncIterator[Any]:
        for kind in kinds:
            yield Thing() if kind == "thing" else object() if kind == "object" else kind

    async def perspective_sizes(self, size: int, most: int) -> AsyncIterator[bytes]:
        for number in range(most):
            self.maker.made.append(number)
            yield bytes(size)

    def perspective_bytes(self, data: bytes) -> Any:
        return pbauth.sendBytes(data)

    def perspective_plain(self) -> int:
        return 1

    def perspective_refuse(self) -> Any:
        raise Spoilt("no")

    def perspective_large(self, size: int) -> bytes:
        return bytes(size)

    async def perspective_take(self, values: Any, most: int = -1) -> Any:
        async for value in values:
            self.got.append(value)
            if len(self.got) == most:
                return "enough"
        return len(self.got)

    async def perspective_hold(self, values: Any) -> Any:
        self.got.append(values)

    def perspective_give(self) -> Any:
        return self.give()

    def perspective_again(self, values: Any) -> Any:
        return values

    async def perspective_digest(self, chunks: Any) -> int:
        return sum([len(chunk) async for chunk in chunks])


class StreamTestCase(WireTestCase):
    """Alice and her perspective."""

    def setUp(self) -> None:
        super().setUp()
        self.game.perspectiveClass = Player
        self.perspective = self.successResultOf(self.login())
        self.player: Any = self.game.perspectives["alice"]
        self.maker = self.player.maker
        (self.pump,) = self.memory.pumps

    def run_(self, coroutine: Any) -> Deferred[Any]:
        """Run a coroutine, and carry everything."""
        running = Deferred.fromCoroutine(coroutine)
        self.memory.flush()
        return running

    def stream(self, *call: Any, **options: Any) -> Any:
        """Call a method that gives a stream."""
        return pbauth.stream(self.perspective, *call, **options)

    def read(self, *call: Any, **options: Any) -> list[Any]:
        """Read a stream to its end."""

        async def read() -> list[Any]:
            return [value async for value in self.stream(*call, **options)]

        return self.successResultOf(self.run_(read()))  # type: ignore[no-any-return]

    def next_(self, stream: Any) -> Deferred[Any]:
        """Read one value."""

        async def one() -> Any:
            return await anext(stream)

        return self.run_(one())

    def one(self, stream: Any) -> Any:
        """Read one value, which is there."""
        return self.successResultOf(self.next_(stream))

    def assertNothingLeft(self) -> None:
        """Neither end holds anything of streams."""
        gc.collect()
        self.memory.flush()
        client = self.perspective.broker
        for broker in (client, self.pump.server):
            self.assertEqual(broker.waitingForAnswers, {})
            kinds = [type(local.object).__name__ for local in broker.localObjects.values()]
            self.assertNotIn("StreamSource", kinds)
            self.assertEqual(broker._localCleanup, {})
        self.assertEqual(len(self.pump.server.disconnects), self.disconnects)

    @property
    def disconnects(self) -> int:
        """How many wait for the end of a connection without streams."""
        return 2
