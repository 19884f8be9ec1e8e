"""What the peers on Twisted share."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet import tcp
from twisted.internet.defer import Deferred

from tests.benchmarks.child import Watch
from tests.benchmarks.work import WORKS

HOST = "127.0.0.1"

#: A method that gives back what it was given, on the other side.
Call = Callable[[Any], Deferred[Any]]


def sendAtOnce() -> None:
    """
    Switch Nagle's algorithm off for all sockets of this process: those that connect, and, since
    Linux lets them inherit it, those that are accepted.
    """

    def withoutDelay(create: Any) -> Any:
        def createInternetSocket(self: Any) -> Any:
            made = create(self)
            if made.family != socket.AF_UNIX:
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return made

        return createInternetSocket

    for kind in (tcp.BaseClient, tcp.Port):
        setattr(kind, "createInternetSocket", withoutDelay(kind.createInternetSocket))  # noqa: B010


class OnTwisted:
    """The base of all servers and clients on Twisted."""

    def do_sendsAtOnce(self) -> bool:
        """Tell whether all connections are without Nagle's algorithm; there must be some."""
        from twisted.internet import reactor as running

        reactor: Any = running
        found = [
            reader.getTcpNoDelay()
            for reader in reactor.getReaders()
            if isinstance(reader, tcp.Connection)
        ]
        return bool(found) and all(found)


def listen(factory: Any, options: Any = None) -> int:
    """
    Listen on loopback, over TCP or, with the options of a certificate, over TLS.

    Returns:
        The port.
    """
    from twisted.internet import reactor as running

    reactor: Any = running
    if options is None:
        port = reactor.listenTCP(0, factory, interface=HOST, backlog=1024)
    else:
        port = reactor.listenSSL(0, factory, options, interface=HOST, backlog=1024)
    return int(port.getHost().port)


class CallClient(OnTwisted):
    """
    A client that makes calls.

    Attributes:
        call: set by `do_connect` of the subclass.
    """

    call: Call

    def __init__(self) -> None:
        self._seen: set[str] = set()

    async def do_calls(self, work: str, count: int) -> dict[str, Any]:
        """Make calls."""
        chosen = WORKS[work]
        if work not in self._seen:
            self._seen.add(work)
            answer = await self.call(chosen.value)
            assert answer == chosen.value, (work, answer)
        watch = Watch(count)
        if chosen.inFlight == 1:
            await oneByOne(self.call, chosen.value, count)
        else:
            await inFlight(self.call, chosen.value, count, chosen.inFlight)
        return watch.stop()


async def oneByOne(call: Call, value: Any, count: int) -> None:
    """Make calls, each when the one before was answered."""
    for _ in range(count):
        await call(value)


def inFlight(call: Call, value: Any, count: int, most: int) -> Deferred[None]:
    """Make calls, a new one whenever one was answered, so that `most` are under way."""
    done: Deferred[None] = Deferred()
    toStart = toAnswer = count

    def start() -> None:
        nonlocal toStart
        toStart -= 1
        call(value).addCallbacks(answered, failed)

    def answered(_: Any) -> None:
        nonlocal toAnswer
        toAnswer -= 1
        if toStart:
            start()
        elif not toAnswer:
            done.callback(None)

    def failed(failure: Any) -> None:
        if not done.called:
            done.errback(failure)

    for _ in range(min(most, count)):
        start()
    return done


async def workers(number: int, count: int, job: Callable[[int], Awaitable[None]]) -> None:
    """Do a job for each number under `count`, `number` of them at once."""
    waiting = iter(range(count))

    async def work() -> None:
        for index in waiting:
            await job(index)

    for running in [Deferred.fromCoroutine(work()) for _ in range(min(number, count))]:
        await running
