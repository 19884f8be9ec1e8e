"""
What the system still has to send on a socket, and how much of it the peer has acknowledged.

That a program has written something says little: the system takes up to some megabytes, which a
slow link takes minutes to carry.
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import Any

try:
    from fcntl import ioctl
    from termios import TIOCOUTQ
except ImportError:  # Windows
    ioctl = None  # type: ignore[assignment]

# Where Linux has the field `tcpi_bytes_acked` in its `struct tcp_info`; since version 4.1.
_ACKED = 120

# Of macOS: how many bytes are in the buffer for sending.
_SO_NWRITE = 0x1024


def bytesQueued(theSocket: Any) -> int:
    """
    Return how many bytes the system has taken, and the peer's has not acknowledged.

    Args:
        theSocket: a TCP or UNIX socket; or `None`.

    Returns:
        How many; 0 where the system does not tell.
    """
    if theSocket is None:
        return 0
    try:
        if sys.platform == "darwin":
            return int(theSocket.getsockopt(socket.SOL_SOCKET, _SO_NWRITE))
        if ioctl is None:
            return 0
        (queued,) = struct.unpack("i", ioctl(theSocket.fileno(), TIOCOUTQ, bytes(4)))
    except (OSError, ValueError, AttributeError):
        # It is closed, or no socket of that kind.
        return 0
    return int(queued)


def bytesAcknowledged(theSocket: Any) -> int | None:
    """
    Return how many bytes the peer's system has acknowledged since the connection was made.

    Args:
        theSocket: a socket; or `None`.

    Returns:
        How many; `None` where the system does not tell.
    """
    if theSocket is None or sys.platform != "linux":
        return None
    try:
        info = theSocket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    except (OSError, ValueError, AttributeError):
        return None
    if len(info) < _ACKED + 8:
        return None
    (acknowledged,) = struct.unpack_from("Q", info, _ACKED)
    return int(acknowledged)
