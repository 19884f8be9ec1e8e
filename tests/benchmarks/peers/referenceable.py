"""Twisted's own Perspective Broker without a login: the root object is what is called."""

from __future__ import annotations

from typing import Any

from twisted.spread import pb

from tests.benchmarks.peers.ontwisted import HOST, CallClient, OnTwisted, listen

FAMILY = "twisted"


class Called(pb.Root):
    def remote_echo(self, value: Any) -> Any:
        return value


class Server(OnTwisted):
    def do_listen(self) -> dict[str, Any]:
        return {"port": listen(pb.PBServerFactory(Called()))}


class Client(CallClient):
    async def do_connect(self, port: int) -> None:
        from twisted.internet import reactor as running

        reactor: Any = running
        factory = pb.PBClientFactory()
        reactor.connectTCP(HOST, port, factory)
        root = await factory.getRootObject()
        self.call = lambda value: root.callRemote("echo", value)
