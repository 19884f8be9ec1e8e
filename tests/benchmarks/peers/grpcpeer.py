"""
gRPC on asyncio. Its messages are JSON, by Python's own module `json` (in C), in place of compiled
messages of Protocol Buffers: so values of any shape cross, as with the others, and no compiler is
needed.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import grpc
import grpc.aio

from tests.benchmarks.child import Watch
from tests.benchmarks.work import WORKS

FAMILY = "asyncio"


def _encode(message: list[Any]) -> bytes:
    return json.dumps(message).encode()


# A value goes in a list: gRPC makes bytes of a str before it asks for them.
async def _echo(message: list[Any], context: Any) -> list[Any]:
    return message


class Server:
    async def do_listen(self) -> dict[str, Any]:
        handler = grpc.unary_unary_rpc_method_handler(_echo, json.loads, _encode)
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("Benchmark", {"echo": handler}),)
        )
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return {"port": port}


class Client:
    async def do_connect(self, port: int) -> None:
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        self._call = self._channel.unary_unary("/Benchmark/echo", _encode, json.loads)

    async def do_calls(self, work: str, count: int) -> dict[str, Any]:
        chosen, call = WORKS[work], self._call
        message = [chosen.value]
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
