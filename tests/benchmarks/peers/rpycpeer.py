"""
RPyC. In flight together means its `async_`.

It passes what can change by reference: only a proxy of a list or a dict would cross the wire. So
that everything crosses, as with the others, it gets tuples, of pairs for a dict, and both ends make
of them what they stand for.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import rpyc
from rpyc.core.stream import SocketStream
from rpyc.utils.server import ThreadedServer

from tests.benchmarks.child import Watch
from tests.benchmarks.work import WORKS

FAMILY = "threads"

#: What streams of bytes are sent in.
PIECE = 65_536


class Called(rpyc.Service):  # type: ignore[misc]
    def exposed_echo(self, value: Any) -> Any:
        return value

    def exposed_items(self, count: int) -> Iterator[int]:
        yield from range(count)

    def exposed_pieces(self, count: int) -> Iterator[bytes]:
        piece = bytes(PIECE)
        for _ in range(count):
            yield piece

    def exposed_echoList(self, items: tuple[Any, ...]) -> Any:
        made = list(items)
        return tuple(made)

    def exposed_echoDict(self, items: tuple[Any, ...]) -> Any:
        made = dict(items)
        return tuple(made.items())


class Server:
    def do_listen(self) -> dict[str, Any]:
        server = ThreadedServer(Called, hostname="127.0.0.1", port=0)
        server.listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=server.start, daemon=True).start()
        return {"port": server.port}


class Client:
    def do_connect(self, port: int) -> None:
        stream = SocketStream.connect("127.0.0.1", port, nodelay=True)
        self._connection = rpyc.connect_stream(stream)

    def do_items(self, count: int) -> dict[str, Any]:
        watch, expected = Watch(count), 0
        for number in self._connection.root.items(count):
            assert number == expected
            expected += 1
        assert expected == count
        return watch.stop()

    def do_pieces(self, count: int) -> dict[str, Any]:
        watch, size = Watch(count), 0
        for piece in self._connection.root.pieces(count):
            size += len(piece)
        assert size == count * PIECE
        return watch.stop()

    def do_calls(self, work: str, count: int) -> dict[str, Any]:
        chosen, root = WORKS[work], self._connection.root
        value = chosen.value
        there: Callable[[Any], Any] = _same
        back: Callable[[Any], Any] = _same
        remote = root.echo
        if isinstance(value, list) and isinstance(value[0], dict):
            there, back, remote = _rows, _dicts, root.echoList
        elif isinstance(value, list):
            there, back, remote = tuple, list, root.echoList
        elif isinstance(value, dict):
            there, back, remote = _pairs, dict, root.echoDict
        answer = back(remote(there(value)))
        assert answer == value, (work, answer)
        watch = Watch(count)
        if chosen.inFlight == 1:
            for _ in range(count):
                back(remote(there(value)))
        else:
            start = rpyc.async_(remote)
            waiting: deque[Any] = deque()
            for _ in range(count):
                if len(waiting) == chosen.inFlight:
                    back(waiting.popleft().value)
                waiting.append(start(there(value)))
            for result in waiting:
                back(result.value)
        return watch.stop()


def _same(value: Any) -> Any:
    return value


def _rows(value: list[dict[Any, Any]]) -> tuple[Any, ...]:
    return tuple(map(_pairs, value))


def _dicts(rows: tuple[Any, ...]) -> list[dict[Any, Any]]:
    return list(map(dict, rows))


def _pairs(value: dict[Any, Any]) -> tuple[Any, ...]:
    return tuple(value.items())
