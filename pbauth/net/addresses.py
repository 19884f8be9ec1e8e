"""Where a peer is, told from its address."""

from __future__ import annotations

import ipaddress
import socket
import struct
from functools import lru_cache
from typing import Any

from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address


@lru_cache(maxsize=1024)
def isLoopback(host: str) -> bool:
    """
    Return whether a host is certainly this machine: on the loopback network, or ``localhost``.

    Any other name may lead anywhere.

    Args:
        host: an IP address, or the name of a host.
    """
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def hostOf(address: Any) -> str | None:
    """
    Return where a peer is, for rules that name hosts and networks.

    Args:
        address: an `IAddress`.

    Returns:
        An IP address, of IPv4 also where it stands in one of IPv6, or the name of a host; `None`:
        the peer has neither.
    """
    if isinstance(address, HostnameAddress):
        return address.hostname.decode("ascii", "replace")
    if isinstance(address, IPv6Address):
        mapped = ipaddress.IPv6Address(address.host).ipv4_mapped
        return address.host if mapped is None else str(mapped)
    return address.host if isinstance(address, IPv4Address) else None


def isLocal(address: Any) -> bool:
    """
    Return whether a peer is on this machine.

    It is if its address is on the loopback network, or if it does not speak IP at all (a UNIX
    socket, a pipe, a transport in memory).

    Args:
        address: an `IAddress`, as a transport's `getPeer` returns it.
    """
    if isinstance(address, (IPv4Address, IPv6Address)):
        return isLoopback(address.host)
    if isinstance(address, HostnameAddress):
        return isLoopback(address.hostname.decode("ascii", "replace"))
    return True


# Of Linux: process, user and group at the other end, in that order (unix(7)).
_CREDENTIALS = struct.Struct("iII")


def uidOf(transport: Any) -> int | None:
    """
    Find out which user of this machine is at the other end of a UNIX socket.

    Args:
        transport: of the connection, which is up.

    Returns:
        The number of the user; `None` where the system does not tell.
    """
    connected = getattr(transport, "socket", None)
    option = getattr(socket, "SO_PEERCRED", None)
    if connected is None or option is None:
        return None
    try:
        credentials = connected.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size)
    except OSError:
        return None
    uid: int = _CREDENTIALS.unpack(credentials)[1]
    return uid
