"""Open a connection to a server, to one that may be trusted with a login; and close it."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, TypeVar

from attrs import frozen
from OpenSSL import SSL
from service_identity import CertificateError, VerificationError
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    clientFromString,
    wrapClientTLS,
)
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import ClientFactory
from twisted.logger import Logger
from twisted.spread import pb
from twisted.spread.jelly import globalSecurity

from pbauth._arguments import checkProvides
from pbauth.errors import ServerNotTrusted
from pbauth.interfaces import Reactor
from pbauth.net.addresses import isLoopback
from pbauth.net.refusals import OTHER_NAME, notedRefusal
from pbauth.net.strports import readAddress, readDescription, spelledOut
from pbauth.net.transports import dropConnection
from pbauth.net.trust import NO_TLS_1_3, TLS_VERSIONS, Trust, clientOptions, explainSSL
from pbauth.wire.broker import Broker
from pbauth.wire.channel import channelOf, peerOf

_log = Logger()

_Result = TypeVar("_Result")


#: How many bytes a server may send before it has proved itself: what its methods say to the
#: client's object while it attaches counts, and is held back.
MOST_UNPROVED = 2**20


class _ClientFactory(ClientFactory):  # type: ignore[type-arg]
    noisy = False
    unsafeTracebacks = False

    def buildProtocol(self, addr: Any) -> Any:
        broker = Broker(True, globalSecurity)
        broker.factory = self  # type: ignore[assignment]
        broker.restrict(MOST_UNPROVED)
        return broker

    def clientConnectionMade(self, broker: Broker) -> None:
        """Take the broker of a new connection."""


@frozen
class Target:
    """
    Where a server is, and why it may be trusted with a login.

    Attributes:
        host: as for `pbauth.connect`.
        port: as for `pbauth.connect`.
        insecure: as for `pbauth.connect`.
        trust: as for `pbauth.connect`.
        certificate: what to show to the server in the TLS handshake, or `None`.
    """

    host: str | IStreamClientEndpoint
    port: int | None
    insecure: bool = False
    trust: Trust = None
    certificate: Any = None

    def endpoint(self, reactor: Reactor) -> Any:
        """
        Choose the endpoint.

        Returns:
            An `IStreamClientEndpoint`.

        Raises:
            Exception: as `choose`.
        """
        return self.choose(reactor)[0]

    def choose(self, reactor: Reactor) -> tuple[Any, Any]:
        """
        Choose the endpoint, and how to check the server behind it.

        Args:
            reactor: makes the connection.

        Returns:
            An `IStreamClientEndpoint`, and what `pbauth.net.trust.clientOptions` gave, or `None`.

        Raises:
            ServerNotTrusted: a connection to it would not be protected.
            TypeError: it is of no kind that is known.
            ValueError: the endpoint string or `trust` makes no sense.
        """
        if self.port is not None:
            if not isinstance(self.host, str):
                raise TypeError(
                    f"host must be a str where a port is given, not {type(self.host).__name__}."
                )
            self._checkPlain(self.host)
            return _tcpEndpoint(reactor, self.host, self.port), None
        if not isinstance(self.host, str):
            self._checkTrustIsUsed()
            checkProvides(IStreamClientEndpoint, self.host, "host")
            return self.host, None
        kind, named, positional = readDescription(self.host)
        # Twisted's own endpoints 'ssl:' look at a certificate only where both of these are named.
        unchecked = kind == "ssl" and not {"hostname", "caCertsDir"} <= named.keys()
        plain = kind == "tls" and named.keys() <= {"host", "port", "minimumTLS"}
        told = not (self.trust is None and self.certificate is None)
        if unchecked or plain or (kind in ("tls", "ssl") and told):
            host, port = readAddress(self.host)
            minimum = TLS_VERSIONS[self._minimumTLS]
            options = clientOptions(host, self.trust, self.certificate, minimum)
            return wrapClientTLS(options, _tcpEndpoint(reactor, host, port)), options
        if kind == "tcp":
            self._checkPlain(named.get("host", [*positional, ""][0]))
        self._checkTrustIsUsed()
        return clientFromString(reactor, spelledOut(self.host)), None

    @property
    def _minimumTLS(self) -> str:
        """Return the oldest version of TLS that the endpoint string asks for."""
        named = readDescription(self.host)[1] if isinstance(self.host, str) else {}
        version = named.get("minimumTLS", "1.3")
        if version not in TLS_VERSIONS:
            raise ValueError(f"{self.host!r}: minimumTLS is 1.3 (the default) or 1.2.")
        return version

    def checkBinding(self, broker: Any) -> None:
        """
        Check a connection over TLS, after its handshake: a login can be bound to it, unless the
        user has asked for less.

        Raises:
            ServerNotTrusted: it can't.
        """
        channel = channelOf(broker)
        if not channel.secure or channel.channelBinding is not None:
            return
        if not (self.insecure or self._minimumTLS == "1.2"):
            raise ServerNotTrusted(NO_TLS_1_3)
        _log.warn(
            "Logging in to {host!r} over TLS 1.2, as requested: a man in the middle could relay "
            "this login, and act in your place.",
            host=self.host,
        )

    def checkPeer(self, broker: Any) -> None:
        """
        Check the connection that was made, before anything is sent.

        Raises:
            ServerNotTrusted: it is not protected.
        """
        connection = channelOf(broker)
        if not (connection.local or connection.secure or self.insecure):
            raise _notProtected(peerOf(broker).host)

    def _checkPlain(self, host: str) -> None:
        self._checkTrustIsUsed()
        if not (self.insecure or isLoopback(host)):
            raise _notProtected(host)

    def _checkTrustIsUsed(self) -> None:
        if self.trust is not None:
            raise ValueError("trust is for endpoints of the form 'tls:HOST:PORT'.")
        if self.certificate is not None and isinstance(self.host, str):
            raise ValueError("A certificate needs an endpoint of the form 'tls:HOST:PORT'.")


def _tcpEndpoint(reactor: Reactor, host: str, port: int) -> Any:
    if isIPAddress(host):
        # Nothing to look up, and no several addresses to try.
        return TCP4ClientEndpoint(reactor, host, port)
    if isIPv6Address(host):
        return TCP6ClientEndpoint(reactor, host, port)
    return HostnameEndpoint(reactor, host, port)


async def openRoot(reactor: Reactor, target: Target) -> Any:
    """
    Open a connection to a server, and speak at once: that the server speaks Perspective Broker
    turns out with its first answer.

    Args:
        reactor: makes the endpoint.
        target: where it is.

    Returns:
        A reference to the server's root object.

    Raises:
        ServerNotTrusted: the connection would not be protected, and nothing was sent; or the
            server's certificate is not one to trust.
    """
    endpoint, options = target.choose(reactor)
    broker: Any = await endpoint.connect(_ClientFactory())
    try:
        broker.clock = reactor
        target.checkPeer(broker)
        broker.speakFirst()
        await broker.whenSecured()
        if options is not None:
            options.check(broker.transport.getHandle())
        target.checkBinding(broker)
    except (SSL.Error, VerificationError, CertificateError) as error:
        await closeConnection(broker)
        raise ServerNotTrusted(notedRefusal(broker.transport) or _explain(error)) from None
    except GeneratorExit:
        # Nobody waits for this any more, and it can wait for nothing.
        dropConnection(broker)
        raise
    except BaseException:
        await closeConnection(broker)
        raise
    return broker.remoteForName("root")


async def using(root: Any, use: Awaitable[_Result]) -> _Result:
    """
    Use a connection that was opened; where that fails, close it.

    Args:
        root: a reference to the server's root object.
        use: what is done with it.

    Returns:
        What that returns.

    Raises:
        ProtocolViolation: what answers is not Perspective Broker.
        Exception: whatever it raised; for a connection that was closed before the server greeted,
            the reason.
    """
    broker = root.broker
    try:
        return await use
    except GeneratorExit:
        dropConnection(broker)
        raise
    except BaseException as error:
        await closeConnection(broker)
        if isinstance(error, pb.PBConnectionLost):
            # Those who waited for an answer learned only that there will be none.
            await broker.whenGreeted()
        raise


async def closeConnection(broker: Any) -> None:
    """Close a connection now, and wait until it is."""
    closed = broker.whenClosed()
    dropConnection(broker)
    await closed


def _explain(error: Exception) -> str:
    if isinstance(error, SSL.Error):
        return explainSSL(error)
    return OTHER_NAME


def _notProtected(host: str) -> ServerNotTrusted:
    return ServerNotTrusted(
        f"The connection to {host} would not be protected by TLS. "
        "Use an endpoint 'tls:HOST:PORT', or pass insecure=True if you must."
    )
