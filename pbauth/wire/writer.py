"""
The coalescing writer: what is sent while one chunk is received goes out in one piece, at once.

Twisted's own `write` waits until the reactor has asked the system whether the socket takes bytes,
which costs a round through the reactor for each answer; over TLS, it also waits for one to put
small writes together.  Here the socket is written to right away where nothing waits in front of it.

A message is never torn: the garbage collector may send at any time that a reference is gone, also
between the part of a message that the system has taken and the rest of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.tcp import Connection
from twisted.protocols.tls import BufferingTLSTransport

from pbauth.wire.twistedprivate import encrypt, nothingWaits

# How many messages go out in one piece.
_PIECE = 16


class CoalescingWriter:
    """
    Writes the messages of one TCP connection.

    Args:
        transport: of the connection, see `writerFor`.
    """

    __slots__ = ("_pending", "_transport", "_writing")

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        # The messages that are held back; `None` while none are to be.
        self._pending: list[bytes] | None = None
        # The socket is being written to.
        self._writing = False

    def write(self, data: bytes) -> None:
        """
        Send a message; inside of `hold`, together with others.

        Args:
            data: the message.
        """
        pending = self._pending
        if pending is None:
            self._transport.write(data)
            return
        pending.append(data)
        if len(pending) >= _PIECE and not self._writing:
            # So that the peer has something to do meanwhile.
            self._flush()

    def hold(self, act: Callable[[Any], None], argument: Any) -> None:
        """
        Call a function, and send all that it writes in one piece, at once.

        Args:
            act: the function.
            argument: its argument.
        """
        if self._pending is not None:
            # It is called by what is held already.
            act(argument)
            return
        self._pending = []
        try:
            act(argument)
        finally:
            self._flush()
            pending, self._pending = self._pending, None
            if pending:
                self._transport.write(b"".join(pending))

    def _flush(self) -> None:
        """Write what is held back; what is written meanwhile queues behind it."""
        self._writing = True
        try:
            while self._pending:
                pending, self._pending = self._pending, []
                self._writeNow(b"".join(pending))
        finally:
            self._writing = False

    def _writeNow(self, data: bytes) -> None:
        """Write to the socket, if nothing waits to be written."""
        transport = self._transport
        if nothingWaits(transport) and not transport.disconnecting and transport.producer is None:
            sent = transport.writeSomeData(data)
            # An error is found again, and dealt with, by the reactor.
            if isinstance(sent, int):
                data = data[sent:]
        if data:
            transport.write(data)


class TLSWriter(CoalescingWriter):
    """Writes the messages of one connection with TLS."""

    __slots__ = ()

    def _writeNow(self, data: bytes) -> None:
        encrypt(self._transport, data)
        connection = self._transport.transport
        if connection.connected and not connection.disconnecting and connection.producer is None:
            if not nothingWaits(connection):
                # An error is found again, and dealt with, by the reactor.
                connection.doWrite()


def writerFor(transport: Any) -> CoalescingWriter | None:
    """
    Make what writes the messages of a connection.

    Args:
        transport: of the connection.

    Returns:
        The writer; `None` for others than TCP and UNIX connections of Twisted's, without TLS or
        with.
    """
    if isinstance(transport, Connection) and not transport.TLS:
        return CoalescingWriter(transport)
    if isinstance(transport, BufferingTLSTransport) and isinstance(transport.transport, Connection):
        return TLSWriter(transport)
    return None
