"""
A cable that can be cut: passes bytes on, or not, and then tells neither end (see
`tests.benchmarks.child`).
"""

from __future__ import annotations

from typing import Any

from twisted.internet import protocol
from twisted.internet.protocol import connectionDone

from tests.stress.server import HOST

FAMILY = "twisted"


class _End(protocol.Protocol):
    """One end of one connection."""

    def __init__(self, cable: Cable, other: _End | None = None) -> None:
        self._cable = cable
        self._waiting: list[bytes] | None = []
        self._other = other
        self.cut = False

    def connectionMade(self) -> None:
        self._cable.ends.append(self)
        if self._other is not None:
            # The far end, which is made last.
            self.join(self._other)
            self._other.join(self)

    def join(self, other: _End) -> None:
        """Both ends are connected: pass on what was sent so far."""
        self._other = other
        waiting, self._waiting = self._waiting, None
        for data in waiting or ():
            self.dataReceived(data)

    def dataReceived(self, data: bytes) -> None:
        if self.cut:
            # Lost on the way. The kernel has acknowledged it, as the far side of a broken link
            # would not; what is on top of TCP has to notice by itself all the more.
            return
        if self._waiting is not None:
            self._waiting.append(data)
        elif self._other is not None and self._other.transport is not None:
            self._other.transport.write(data)

    def connectionLost(self, reason: Any = connectionDone) -> None:
        self._cable.ends.remove(self)
        if not self.cut:
            self.hangUp(self._other)

    def hangUp(self, end: _End | None) -> None:
        """Close the connection of an end."""
        if end is not None and end.transport is not None:
            end.transport.loseConnection()


class Cable:
    """
    Args:
        port: that it leads to.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._broken = False
        self.ends: list[_End] = []

    def do_listen(self) -> int:
        """Listen, and tell the port."""
        from twisted.internet import reactor as running

        reactor: Any = running
        factory = protocol.ServerFactory()
        factory.noisy = False
        factory.buildProtocol = self._build  # type: ignore[method-assign, assignment]
        return int(reactor.listenTCP(0, factory, interface=HOST).getHost().port)

    def _build(self, address: Any) -> _End:
        from twisted.internet import reactor as running

        reactor: Any = running
        near = _End(self)
        near.cut = self._broken
        if not self._broken:
            factory = protocol.ClientFactory()
            factory.noisy = False
            factory.buildProtocol = lambda address: _End(self, near)  # type: ignore
            factory.clientConnectionFailed = (  # type: ignore[method-assign, assignment]
                lambda connector, reason: near.hangUp(near)
            )
            reactor.connectTCP(HOST, self._port, factory)
        return near

    def do_cut(self) -> int:
        """Cut it; gives how many connections there were. Nothing passes any more."""
        self._broken = True
        for end in self.ends:
            end.cut = True
        return len(self.ends)

    def do_mend(self) -> None:
        """Let new connections through. Those of before are never heard of again."""
        self._broken = False
