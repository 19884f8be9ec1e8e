"""What is asked of transports, and done to them, whatever they are."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import ITCPTransport, IUNIXTransport
from twisted.internet.protocol import Protocol


def isOverTCP(transport: Any) -> bool:
    """
    Return whether a transport has the socket of a TCP connection, also below TLS.

    Args:
        transport: of a connection; the family of its socket takes three times as long to get at.
    """
    return (
        ITCPTransport.providedBy(transport)
        and not IUNIXTransport.providedBy(transport)
        and hasattr(transport, "socket")
    )


def dropConnection(protocol: Protocol) -> None:
    """Close a connection now, whatever still waits to be written."""
    transport: Any = protocol.transport
    getattr(transport, "abortConnection", transport.loseConnection)()
