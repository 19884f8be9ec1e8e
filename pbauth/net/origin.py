"""Where events come from: what logs and the audit log record of a connection."""

from __future__ import annotations

import os
import random
from typing import Any

from twisted.internet.address import HostnameAddress, UNIXAddress

from pbauth._quoting import cut
from pbauth.net.addresses import uidOf

# Ids tell connections and sessions apart in the log, and open nothing: they need not be secret.
_RANDOM = random.Random()  # noqa: S311
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_RANDOM.seed)


def newId() -> str:
    """
    Make an id.

    Returns:
        A name for a connection or a session that no other one has, in whatever process.
    """
    return f"{_RANDOM.getrandbits(64):016x}"


class Origin:
    """
    Describe where events come from: one connection.

    Attributes:
        connection: its id.
        host: where the peer is: an IP address, or ``unix``. Behind the PROXY protocol it is what
            the load balancer said, so anything that no address has is escaped.
        port: the peer's, or `None`.
        peer: both, for people.
        authenticated: whether there was a login on it.
        address: of the peer, an `IAddress`; `None`: not known.
        uid: of the user at the other end of a UNIX socket; `None`: not known.

    Args:
        address: of the peer, an `IAddress`; `None`: not known.
        uid: of the user at the other end.
    """

    __slots__ = ("address", "authenticated", "connection", "host", "peer", "port", "uid")

    def __init__(self, address: Any, uid: int | None = None) -> None:
        self.address = address
        self.uid = uid
        self.connection: str | None = None if address is None else newId()
        self.host: str | None = None
        self.port: int | None = None
        self.authenticated = False
        host = getattr(address, "host", None)
        if isinstance(address, HostnameAddress):
            # Such as `pbauth.net.proxy.UNKNOWN`.
            host = address.hostname.decode("ascii", "replace")
        if isinstance(host, str):
            host = cut(host)
            self.host = host if host.isprintable() and " " not in host else ascii(host)
            self.port = address.port or None
            self.peer = self.host if self.port is None else f"{self.host} port {self.port}"
        elif address is not None:
            self.host = "unix" if isinstance(address, UNIXAddress) else type(address).__name__
            self.peer = self.host
        else:
            self.peer = "elsewhere"


#: Of what did not come by Perspective Broker.
ELSEWHERE = Origin(None)


def originOf(broker: Any) -> Origin:
    """
    Find out where the events of a connection come from.

    Args:
        broker: of a connection.

    Returns:
        Its origin, the same for all events.
    """
    origin: Origin | None = getattr(broker, "origin", None)
    if origin is None:
        if broker.transport is None:
            return ELSEWHERE
        peer = broker.transport.getPeer()
        uid = uidOf(broker.transport) if isinstance(peer, UNIXAddress) else None
        origin = broker.origin = Origin(peer, uid)
    return origin
