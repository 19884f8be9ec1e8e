"""
gRPC on asyncio. Its messages are JSON, by Python's own module `json` (in C), in place of compiled
messages of Protocol Buffers: so values of any shape cross, as with the others, and no compiler is
needed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from tests.benchmarks.child import Watch
from tests.benchmarks.work import WORKS

FAMILY = "asyncio"

#: What streams of bytes are sent in.
PIECE = 65_536


def _encode(message: list[Any]) -> bytes:
    return json.dumps(message).encode()


# A value goes in a list: gRPC makes bytes of a str before it asks for them.
async def _echo(message: list[Any], context: Any) -> list[Any]:
    return message


async def _items(message: list[Any], context: Any) -> AsyncIterator[list[int]]:
    for number in range(message[0]):
        yield [number]


async def _pieces(message: list[Any], context: Any) -> AsyncIterator[bytes]:
    piece = bytes(PIECE)
    for _ in range(message[0]):
        yield piece


def _same(data: bytes) -> bytes:
    return data


async def _echoBytes(message: bytes, context: Any) -> bytes:
    return message


class Server:
    async def do_listen(self) -> dict[str, Any]:
        handler = grpc.unary_unary_rpc_method_handler(_echo, json.loads, _encode)
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    "Benchmark",
                    {
                        "echo": handler,
                        "echoBytes": grpc.unary_unary_rpc_method_handler(_echoBytes),
                        "items": grpc.unary_stream_rpc_method_handler(_items, json.loads, _encode),
                        "pieces": grpc.unary_stream_rpc_method_handler(_pieces, json.loads, _same),
                    },
                ),
            )
        )
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return {"port": port}


class Client:
    async def do_connect(self, port: int) -> None:
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        self._call = self._channel.unary_unary("/Benchmark/echo", _encode, json.loads)
        self._callBytes = self._channel.unary_unary("/Benchmark/echoBytes")
        self._items = self._channel.unary_stream("/Benchmark/items", _encode, json.loads)
        self._pieces = self._channel.unary_stream("/Benchmark/pieces", _encode, _same)

    async def do_items(self, count: int) -> dict[str, Any]:
        watch, expected = Watch(count), 0
        async for (number,) in self._items([count]):
            assert number == expected
            expected += 1
        assert expected == count
        return watch.stop()

    async def do_pieces(self, count: int) -> dict[str, Any]:
        watch, size = Watch(count), 0
        async for piece in self._pieces([count]):
            size += len(piece)
        assert size == count * PIECE
        return watch.stop()

    async def do_calls(self, work: str, count: int) -> dict[str, Any]:
        chosen = WORKS[work]
        call, message = self._call, [chosen.value]
        if isinstance(chosen.value, bytes):
            call, message = self._callBytes, chosen.value
        answer = await call(message)
        assert answer == message, (work, answer)
        waiting = iter(range(count))

        async def worker() -> None:
            for _ in waiting:
                await call(message)

        watch = Watch(count)
        if chosen.inFlight == 1:
            await worker()
        else:
            await asyncio.gather(*(worker() for _ in range(min(count, chosen.inFlight))))
        return watch.stop()
