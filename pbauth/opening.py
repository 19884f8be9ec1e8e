"""Open a connection to a server, to one that may be trusted with a login; and close it."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, clientFromString
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure
from twisted.spread.jelly import globalSecurity

from pbauth.broker import Broker, dropConnection
from pbauth.errors import LoginTimeout, ServerNotTrusted
from pbauth.peers import isLoopback
from pbauth.wireobject import connectionOf, peerOf

_Result = TypeVar("_Result")


class _ClientFactory(ClientFactory):  # type: ignore[type-arg]
    noisy = False
    unsafeTracebacks = False

    def buildProtocol(self, addr: Any) -> Any:
        broker = Broker(True, globalSecurity)
        broker.factory = self  # type: ignore[assignment]
        return broker

    def clientConnectionMade(self, broker: Broker) -> None:
        """The broker calls it."""


async def openRoot(
    reactor: Any, host: str | IStreamClientEndpoint, port: int | None, insecure: bool
) -> Any:
    """
    Open a connection to a server.

    Args:
        reactor: makes the endpoint.
        host: as for `pbauth.connect`.
        port: as for `pbauth.connect`.
        insecure: as for `pbauth.connect`.

    Returns:
        A reference to the server's root object.

    Raises:
        ServerNotTrusted: the connection would not be protected; nothing was sent.
        ProtocolViolation: what answers is not Perspective Broker.
    """
    endpoint = _chooseEndpoint(reactor, host, port, insecure)
    broker: Any = await endpoint.connect(_ClientFactory())
    try:
        connection = connectionOf(broker)
        if not (connection.local or connection.secure or insecure):
            raise _notProtected(peerOf(broker).host)
        await broker.whenGreeted()
    except BaseException:
        await closeConnection(broker)
        raise
    return broker.remoteForName("root")


async def closeConnection(broker: Any) -> None:
    """Close a connection now, and wait until it is."""
    closed = broker.whenClosed()
    dropConnection(broker)
    await closed


def within(
    seconds: float, reactor: Any, coroutine: Coroutine[Any, Any, _Result]
) -> Deferred[_Result]:
    """
    Run a coroutine within a time.

    Args:
        seconds: that it may take.
        reactor: provides `IReactorTime`.
        coroutine: to be run; it is cancelled when the time is over, and may clean up.

    Returns:
        Fires with what it returns; fails with `LoginTimeout` if the time was over.
    """

    def late(result: Any, seconds: float) -> Any:
        if isinstance(result, Failure) and result.check(CancelledError):
            raise LoginTimeout(seconds)
        return result

    return Deferred.fromCoroutine(coroutine).addTimeout(seconds, reactor, late)


def _chooseEndpoint(
    reactor: Any, host: str | IStreamClientEndpoint, port: int | None, insecure: bool
) -> Any:
    if port is not None:
        if not isinstance(host, str):
            raise TypeError("host must be a str where a port is given.")
        if not (insecure or isLoopback(host)):
            raise _notProtected(host)
        return HostnameEndpoint(reactor, host, port)
    if isinstance(host, str):
        plainHost = _hostOfTCP(host)
        if plainHost is not None and not (insecure or isLoopback(plainHost)):
            raise _notProtected(plainHost)
        return clientFromString(reactor, host)
    if not IStreamClientEndpoint.providedBy(host):
        raise TypeError("host must be a str, or provide IStreamClientEndpoint.")
    return host


def _hostOfTCP(description: str) -> str | None:
    """The host in an endpoint string ``tcp:...``; `None` for other kinds of endpoints."""
    kind, *fields = description.replace(r"\:", "\0").split(":")
    if kind != "tcp":
        return None
    named = dict(field.split("=", 1) for field in fields if "=" in field)
    positional = [field for field in fields if "=" not in field]
    host = named.get("host") or (positional[0] if positional else "")
    return host.replace("\0", ":")


def _notProtected(host: str) -> ServerNotTrusted:
    return ServerNotTrusted(
        f"The connection to {host} would not be protected by TLS. "
        "Use an endpoint 'tls:HOST:PORT', or say insecure=True if you must."
    )
