"""
The PROXY protocol: a load balancer says in front of each connection where the client is.

What stands behind a port is built once that is known, for the client's address.  So connections are
admitted, slowed down and logged by the address of the client, and never by that of the balancer.
The protocol is described in HAProxy's "The PROXY protocol, versions 1 & 2".
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

from attrs import frozen
from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer, providedBy

from pbauth._quoting import inLine
from pbauth.net.addresses import isLocal

_log = Logger()

#: Seconds for the header: the balancer sends it at once.
HEADER_TIME = 10.0

#: The signature of version 2.
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"

# The most bytes of a line of version 1, with its end, and what may follow the first 16 bytes of
# version 2: addresses and a few extensions.
_LONGEST_LINE = 107
_LONGEST_REST = 4_096

_LOCAL, _PROXY = 0x20, 0x21
_UNSPECIFIED, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31


#: Of a client of which the balancer does not know, or say, where it is: anywhere.
UNKNOWN = HostnameAddress(b"unknown", 0)


class MalformedHeader(ValueError):
    """The connection does not begin with a header of the PROXY protocol."""


@frozen
class Header:
    """
    What a balancer says of a connection.

    Attributes:
        size: of the header, in bytes.
        source: where the client is, an `IPv4Address` or `IPv6Address`, or `UNKNOWN`; `None`: it
            speaks for itself.
        destination: where the client connected to; `None` where that is not said.
    """

    size: int
    source: Any = None
    destination: Any = None


def readHeader(data: bytes) -> Header | None:
    """
    Read a header.

    Args:
        data: what came so far.

    Returns:
        The header; `None`: it is not whole yet.

    Raises:
        MalformedHeader: it will never be one.
    """
    if data.startswith(SIGNATURE):
        return _readVersion2(data)
    if data.startswith(b"PROXY "):
        return _readVersion1(data)
    if SIGNATURE.startswith(data) or b"PROXY ".startswith(data):
        return None
    raise MalformedHeader("it begins with something else")


def _readVersion1(data: bytes) -> Header | None:
    line, found, _ = data[:_LONGEST_LINE].partition(b"\r\n")
    if not found:
        if len(data) >= _LONGEST_LINE:
            raise MalformedHeader("the line is too long")
        return None
    size = len(line) + 2
    try:
        _, kind, *rest = line.decode("ascii").split(" ")
        if kind == "UNKNOWN":
            return Header(size, UNKNOWN)
        source, destination, *ports = rest
        sourcePort, destinationPort = map(_readPort, ports)
    except ValueError:
        raise MalformedHeader("malformed line") from None
    if kind not in ("TCP4", "TCP6"):
        raise MalformedHeader("an unknown protocol")
    version = int(kind[-1])
    return Header(
        size,
        _address(version, source, sourcePort),
        _address(version, destination, destinationPort),
    )


def _readPort(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) < 65_536):
        raise ValueError(text)
    return int(text)


def _readVersion2(data: bytes) -> Header | None:
    if len(data) < 16:
        return None
    command, family = data[12], data[13]
    length = int.from_bytes(data[14:16], "big")
    if command not in (_LOCAL, _PROXY) or length > _LONGEST_REST:
        raise MalformedHeader("an unknown command, or too long")
    size = 16 + length
    if len(data) < size:
        return None
    if command == _LOCAL:
        return Header(size)
    # The addresses of a UNIX socket are of another machine.
    if family in (_UNSPECIFIED, _UNIX):
        return Header(size, UNKNOWN)
    if family not in (_TCP4, _TCP6):
        raise MalformedHeader("an unknown protocol")
    version, width = (4, 4) if family == _TCP4 else (6, 16)
    rest = data[16:size]
    if len(rest) < 2 * width + 4:
        raise MalformedHeader("addresses are missing")
    hosts = (rest[:width], rest[width : 2 * width])
    ports = (rest[2 * width : 2 * width + 2], rest[2 * width + 2 : 2 * width + 4])
    return Header(
        size,
        *(
            _address(
                version, socket.inet_ntop(_FAMILIES[version], host), int.from_bytes(port, "big")
            )
            for host, port in zip(hosts, ports, strict=True)
        ),
    )


_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


def _address(version: int, host: str, port: int) -> Any:
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        found = None
    if found is None or found.version != version or "%" in host:
        raise MalformedHeader("an address is none")
    return (IPv4Address if version == 4 else IPv6Address)("TCP", str(found), port)


class _Proxied(ProtocolWrapper):
    """
    Reads the header of one connection, and then stands between it and what is behind the port.
    """

    wrappedProtocol: Any

    def __init__(self, factory: Any) -> None:
        super().__init__(factory, None)  # type: ignore[arg-type]
        self._header: Header | None = None
        self._data = b""
        self._timer: Any = None

    def makeConnection(self, transport: Any) -> None:
        """Begin to wait for the header."""
        directlyProvides(self, providedBy(transport))
        Protocol.makeConnection(self, transport)
        self.factory.registerProtocol(self)
        self._timer = self.factory.reactor.callLater(HEADER_TIME, self._drop, "it does not come")

    def dataReceived(self, data: bytes) -> None:
        """Read the header, or pass on what follows it."""
        if self._header is not None:
            if self.wrappedProtocol is not None:
                self.wrappedProtocol.dataReceived(data)
            return
        self._data += data
        try:
            self._header = header = readHeader(self._data)
        except MalformedHeader as fault:
            # Nothing is passed on after this.
            self._header = Header(0)
            self._drop(str(fault))
            return
        if header is None:
            return
        self._timer.cancel()
        rest, self._data = self._data[header.size :], b""
        self.wrappedProtocol = self.factory.wrappedFactory.buildProtocol(self.getPeer())
        if self.wrappedProtocol is None:
            self._abort()
            return
        self.wrappedProtocol.makeConnection(self)
        if rest:
            self.wrappedProtocol.dataReceived(rest)

    def _drop(self, fault: str) -> None:
        _log.warn(
            "Cut off {peer}, which sent no header of the PROXY protocol: {fault}",
            peer=inLine(self.transport.getPeer()),  # type: ignore[union-attr]
            fault=inLine(fault),
        )
        self._abort()

    def _abort(self) -> None:
        transport: Any = self.transport
        getattr(transport, "abortConnection", transport.loseConnection)()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell whoever is behind."""
        if self._timer.active():
            self._timer.cancel()
        self.factory.unregisterProtocol(self)
        if self.wrappedProtocol is not None:
            self.wrappedProtocol.connectionLost(reason)

    def getPeer(self) -> Any:
        """Return the address of the client."""
        balancer, header = super().getPeer(), self._header
        if header is None or header.source is None:
            return balancer
        # The loopback network is that of the balancer's machine.
        elsewhere = isLocal(header.source) and not isLocal(balancer)
        return UNKNOWN if elsewhere else header.source

    def getHost(self) -> Any:
        """Return the address that the client connected to."""
        if self._header is not None and self._header.destination is not None:
            return self._header.destination
        return super().getHost()


class ProxiedFactory(WrappingFactory):
    """
    What stands behind a port whose connections come from a load balancer.

    Args:
        wrappedFactory: builds a protocol for each client, once its address is known.
        reactor: provides `IReactorTime`.
    """

    noisy = False

    def __init__(self, wrappedFactory: Any, reactor: Any) -> None:
        super().__init__(wrappedFactory)
        self.reactor = reactor

    def buildProtocol(self, addr: Any) -> Any:
        """Wait for the header of a connection."""
        return _Proxied(self)


@implementer(IStreamServerEndpoint)
@frozen
class ProxiedEndpoint:
    """
    An endpoint whose connections begin with a header of the PROXY protocol.

    Attributes:
        endpoint: the endpoint itself.
        reactor: provides `IReactorTime`.
    """

    endpoint: Any
    reactor: Any

    def listen(self, protocolFactory: Any) -> Deferred[Any]:
        """Listen (see `IStreamServerEndpoint`)."""
        listening: Deferred[Any] = self.endpoint.listen(
            ProxiedFactory(protocolFactory, self.reactor)
        )
        return listening
