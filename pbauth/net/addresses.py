"""Where a peer is, told from its address."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Any

from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address


@lru_cache(maxsize=1024)
def isLoopback(host: str) -> bool:
    """
    Args:
        host: an IP address, or the name of a host.

    Returns:
        Whether it is this machine for certain: an address of the loopback network, or
        ``localhost``. Other names may lead anywhere.
    """
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def isLocal(address: Any) -> bool:
    """
    Args:
        address: an `IAddress`, as a transport's `getPeer` gives it.

    Returns:
        Whether the peer is on this machine: it is on the loopback network, or it does not speak
        IP at all (a UNIX socket, a pipe, a transport in memory).
    """
    if isinstance(address, (IPv4Address, IPv6Address)):
        return isLoopback(address.host)
    if isinstance(address, HostnameAddress):
        return isLoopback(address.hostname.decode("ascii", "replace"))
    return True
