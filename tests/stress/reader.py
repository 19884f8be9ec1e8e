"""Who reads many streams at once, in a process of its own (see `tests.benchmarks.child`)."""

from __future__ import annotations

import gc
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IReactorTCP

import pbauth
from tests.benchmarks.peers.accounts import PASSWORD, SERVICE, nameOf
from tests.stress.server import HOST

FAMILY = "twisted"


class Reader:
    """Clients that stay logged in, and their streams."""

    def __init__(self) -> None:
        self._password = pbauth.Password(PASSWORD)
        self._clients: list[pbauth.PerspectiveClient] = []
        self._slow: list[Any] = []
        self._cut: list[Deferred[tuple[int, str]]] = []

    async def do_join(self, port: int, clients: int, pingInterval: float) -> None:
        """Log clients in."""
        from twisted.internet import reactor

        for number in range(clients):
            name = nameOf(number)
            endpoint = TCP4ClientEndpoint(IReactorTCP(reactor), HOST, port, timeout=5)
            login = pbauth.Login(endpoint, name, self._password, SERVICE, name)
            client = pbauth.PerspectiveClient(login, pingInterval=pingInterval)
            client.startService()
            self._clients.append(client)
            await client.whenAttached()

    def _streams(self, count: int, most: int, size: int) -> list[Any]:
        return [
            pbauth.stream(self._clients[number % len(self._clients)], "count", most, size)
            for number in range(count)
        ]

    async def do_read(self, count: int, most: int, size: int) -> dict[str, int]:
        """Read streams, all at once, to their ends; gives what arrived, and in order."""
        streams = self._streams(count, most, size)
        read = await gatherResults([Deferred.fromCoroutine(_read(each)) for each in streams])
        return {
            "values": sum(number for number, _ in read),
            "whole": sum(outcome == (most, "ended") for outcome in read),
        }

    async def do_begin(self, count: int, most: int, size: int, taken: int) -> None:
        """Take a few values of each stream, and then no more for now."""
        self._slow = self._streams(count, most, size)
        for stream in self._slow:
            for number in range(taken):
                assert (await anext(stream))[0] == number

    def do_drop(self) -> None:
        """Drop those."""
        self._slow = []
        gc.collect()

    def do_start(self, count: int, most: int, size: int) -> None:
        """Begin to read streams, and go on."""
        streams = self._streams(count, most, size)
        self._cut = [Deferred.fromCoroutine(_read(each)) for each in streams]

    async def do_outcomes(self) -> list[tuple[int, str]]:
        """Tell what became of those: how many values arrived in order, and how each one ended."""
        return list(await gatherResults(self._cut))


async def _read(stream: Any) -> tuple[int, str]:
    expected = 0
    try:
        async for number, _ in stream:
            if number != expected:
                return expected, f"{number} is not the next one"
            expected += 1
    except Exception as error:
        return expected, type(error).__name__
    return expected, "ended"
