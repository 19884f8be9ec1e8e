"""Foolscap, PB's successor with object capabilities. It knows no connection without TLS."""

from __future__ import annotations

from typing import Any

from foolscap.api import Referenceable, Tub
from twisted.internet.defer import Deferred

from tests.benchmarks.peers.ontwisted import HOST, CallClient, OnTwisted

FAMILY = "twisted"


class Called(Referenceable):  # type: ignore[misc]
    def remote_echo(self, value: Any) -> Any:
        return value


class Server(OnTwisted):
    async def do_listen(self) -> dict[str, Any]:
        from twisted.internet import reactor

        tub = Tub()
        tub.startService()
        listener = tub.listenOn(f"tcp:0:interface={HOST}")
        # The port is there a turn of the reactor later.
        turn: Deferred[None] = Deferred()
        reactor.callLater(0, turn.callback, None)  # type: ignore[attr-defined]
        await turn
        tub.setLocation(f"tcp:{HOST}:{listener.getPortnum()}")
        return {"furl": tub.registerReference(Called(), "echo")}


class Client(CallClient):
    async def do_connect(self, furl: str) -> None:
        tub = Tub()
        tub.startService()
        reference = await tub.getReference(furl)
        self.call = lambda value: reference.callRemote("echo", value)
