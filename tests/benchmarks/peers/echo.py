"""
Bytes there and back by a protocol of Twisted's: no message is read or written, nothing is called,
nothing is awaited. What is left is Twisted's transport, so this is the limit. A message is as long
as stock PB's call with the same argument.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from twisted.spread import pb

from tests.benchmarks.child import Watch
from tests.benchmarks.peers.ontwisted import HOST, OnTwisted, listen
from tests.benchmarks.work import WORKS

FAMILY = "twisted"


class Echo(Protocol):
    transport: Any

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)


class Server(OnTwisted):
    def do_listen(self) -> dict[str, Any]:
        return {"port": listen(Factory.forProtocol(Echo))}


def callOf(value: Any) -> bytes:
    """The bytes of a call by stock PB."""
    broker: Any = pb.PBClientFactory().buildProtocol(None)
    transport = StringTransport()
    broker.makeConnection(transport)
    # The greeting of a server, with the one dialect that PB has.
    broker.dataReceived(b"\x01\x80\x02\x82pb")
    transport.clear()
    pb.RemoteReference(None, broker, 1, 0).callRemote("echo", value)
    return transport.value()


class Caller(Protocol):
    """Sends messages, and counts the bytes that come back."""

    transport: Any

    def start(self, message: bytes, count: int, most: int) -> Deferred[None]:
        """Send a message `count` times, so that at most `most` are under way."""
        self._message = message
        self._toSend = self._toReceive = count
        self._received = 0
        self._done: Deferred[None] = Deferred()
        for _ in range(min(most, count)):
            self._send()
        return self._done

    def _send(self) -> None:
        self._toSend -= 1
        self.transport.write(self._message)

    def dataReceived(self, data: bytes) -> None:
        self._received += len(data)
        size = len(self._message)
        while self._received >= size:
            self._received -= size
            self._toReceive -= 1
            if self._toSend:
                self._send()
        if not self._toReceive:
            self._done.callback(None)


class Client(OnTwisted):
    async def do_connect(self, port: int) -> None:
        from twisted.internet import reactor

        self._messages = {name: callOf(work.value) for name, work in WORKS.items()}
        self._caller = await connectProtocol(TCP4ClientEndpoint(reactor, HOST, port), Caller())

    async def do_calls(self, work: str, count: int) -> dict[str, Any]:
        watch = Watch(count)
        await self._caller.start(self._messages[work], count, WORKS[work].inFlight)
        return watch.stop()
