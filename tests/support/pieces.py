"""What perspectives of tests give: objects, and one that is observed."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.spread import pb


class Piece(pb.Referenceable):
    """Something that perspectives give."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.waiting: Deferred[str] = Deferred()
        self.inner: Any = None

    def remote_name(self) -> str:
        return self.name

    def remote_wait(self) -> Deferred[str]:
        return self.waiting

    def remote_inner(self) -> Any:
        self.inner = self.inner or Piece(f"inner {self.name}")
        return self.inner

    async def remote_innerLater(self) -> Any:
        await self.waiting
        return self.remote_inner()


class Board(pb.Cacheable):
    """Something that keeps its observers informed."""

    def __init__(self) -> None:
        self.observers: list[Any] = []

    def getStateToCacheAndObserveFor(self, perspective: Any, observer: Any) -> Any:
        self.observers.append(observer)
        return {"moves": 0}

    def stoppedObserving(self, perspective: Any, observer: Any) -> None:
        self.observers.remove(observer)


class BoardCopy(pb.RemoteCache):
    """The client's copy of it."""


pb.setUnjellyableForClass(Board, BoardCopy)
