"""A proxy between client and server, whose cables can be cut."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import connectionDone
from twisted.protocols import portforward
from twisted.python.failure import Failure


class _Half:
    """
    One of the two connections that the proxy joins.

    Attributes:
        isCut: it carries nothing, and the other one is not told of its end.
    """

    isCut = False
    noisy = False
    peer: Any
    factory: Any
    transport: Any

    def dataReceived(self, data: bytes) -> None:
        if not self.isCut:
            super().dataReceived(data)  # type: ignore[misc]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.isCut:
            self.peer = None
        super().connectionLost(reason)  # type: ignore[misc]


class _ToServer(_Half, portforward.ProxyClient):  # type: ignore[misc]
    def connectionMade(self) -> None:
        super().connectionMade()
        self.peer.factory.joined += [self, self.peer]


class _ToServerFactory(portforward.ProxyClientFactory):
    noisy = False
    protocol = _ToServer


class _FromClient(_Half, portforward.ProxyServer):  # type: ignore[misc]
    clientProtocolFactory = _ToServerFactory


class ProxyFactory(portforward.ProxyFactory):
    """
    Forwards connections.

    Args:
        host: of the server.
        port: of the server.
    """

    noisy = False
    protocol = _FromClient

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.joined: list[_Half] = []

    def cut(self) -> None:
        """Cut all cables, without a word to either end; connections to come are forwarded."""
        for half in self.joined:
            half.isCut = True

    def close(self) -> None:
        """Close what is left."""
        for half in self.joined:
            if half.transport is not None:
                half.transport.abortConnection()
