"""Connections that come from a load balancer."""

from __future__ import annotations

import socket
import struct
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pbauth import AuthServerFactory, Policy
from pbauth.login.throttle import networkOf
from pbauth.net.listening import Ports
from pbauth.net.origin import originOf
from pbauth.net.proxy import (
    HEADER_TIME,
    SIGNATURE,
    UNKNOWN,
    MalformedHeader,
    ProxiedEndpoint,
    ProxiedFactory,
    readHeader,
)
from pbauth.testing import MemoryServer
from pbauth.wire.channel import channelOf

BALANCER = IPv4Address("TCP", "10.0.0.1", 999)


def version2(family: int, addresses: bytes, command: int = 0x21) -> bytes:
    """A header of version 2."""
    return SIGNATURE + bytes((command, family)) + struct.pack("!H", len(addresses)) + addresses


def ipv4(*hosts: str) -> bytes:
    """Addresses and ports as version 2 has them."""
    return b"".join(map(socket.inet_aton, hosts)) + struct.pack("!HH", 5000, 8787)


CLIENT_V4 = version2(0x11, ipv4("203.0.113.7", "192.0.2.1"))
CLIENT_V6 = version2(
    0x21,
    socket.inet_pton(socket.AF_INET6, "2001:db8::7")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + struct.pack("!HH", 5000, 8787),
)

#: Headers, and where they say that the client is.
HEADERS: list[tuple[bytes, Any]] = [
    (
        b"PROXY TCP4 203.0.113.7 192.0.2.1 5000 8787\r\n",
        IPv4Address("TCP", "203.0.113.7", 5000),
    ),
    (
        b"PROXY TCP6 2001:DB8::7 2001:db8::1 5000 8787\r\n",
        IPv6Address("TCP", "2001:db8::7", 5000),
    ),
    (
        b"PROXY TCP6 ::ffff:203.0.113.7 2001:db8::1 0 65535\r\n",
        IPv6Address("TCP", "::ffff:cb00:7107", 0),
    ),
    (b"PROXY UNKNOWN\r\n", UNKNOWN),
    (b"PROXY UNKNOWN whatever 1 2\r\n", UNKNOWN),
    (b"PROXY UNKNOWN " + b"f" * 91 + b"\r\n", UNKNOWN),
    (CLIENT_V4, IPv4Address("TCP", "203.0.113.7", 5000)),
    (CLIENT_V6, IPv6Address("TCP", "2001:db8::7", 5000)),
    # With an extension; of the balancer itself; without addresses; of a UNIX socket.
    (
        version2(0x11, ipv4("203.0.113.7", "192.0.2.1") + b"\x04\0\1x"),
        IPv4Address("TCP", "203.0.113.7", 5000),
    ),
    (version2(0x00, b"", 0x20), None),
    (version2(0x11, ipv4("203.0.113.7", "192.0.2.1"), 0x20), None),
    (version2(0xFF, b"anything", 0x20), None),
    (version2(0x00, b""), UNKNOWN),
    (version2(0x00, ipv4("203.0.113.7", "192.0.2.1")), UNKNOWN),
    (version2(0x31, bytes(216)), UNKNOWN),
]

#: What is none.
BAD = [
    b"GET / HTTP/1.1\r\n",
    b"\x07\x80",
    b"PROXY \r\n",
    b"PROXY TCP4\r\n",
    b"PROXY TCP4 203.0.113.7 192.0.2.1 5000\r\n",
    b"PROXY TCP4 203.0.113.7 192.0.2.1 port 8787\r\n",
    b"PROXY TCP4 203.0.113.7 192.0.2.1 65536 8787\r\n",
    b"PROXY TCP4 203.0.113.7 192.0.2.1 -1 8787\r\n",
    b"PROXY TCP4 203.0.113.7 192.0.2.1 5000 8787 1\r\n",
    b"PROXY TCP4 nowhere 192.0.2.1 5000 8787\r\n",
    b"PROXY TCP4 2001:db8::7 192.0.2.1 5000 8787\r\n",
    b"PROXY TCP6 fe80::1%eth0 2001:db8::1 5000 8787\r\n",
    b"PROXY TCP4 203.0.113.\xff 192.0.2.1 5000 8787\r\n",
    b"PROXY UDP4 203.0.113.7 192.0.2.1 5000 8787\r\n",
    b"PROXY " + b"x" * 200,
    version2(0x11, ipv4("203.0.113.7", "192.0.2.1"), 0x22),
    version2(0x11, ipv4("203.0.113.7", "192.0.2.1"), 0x11),
    version2(0x12, ipv4("203.0.113.7", "192.0.2.1")),
    version2(0x11, b"short"),
    version2(0x21, ipv4("203.0.113.7", "192.0.2.1")),
    version2(0x11, b"x" * 5000),
    # Of other protocols; without a body; with bytes that look like spaces or digits.
    version2(0x10, ipv4("203.0.113.7", "192.0.2.1")),
    version2(0x22, bytes(36)),
    version2(0x32, bytes(216)),
    version2(0x41, bytes(36)),
    version2(0x11, b""),
    b"PROXY TCP4 203.0.113.7\t192.0.2.1 5000 8787\r\n",
    b"PROXY  TCP4 203.0.113.7 192.0.2.1 5000 8787\r\n",
    b"PROXY TCP4 203.0.113.7 192.0.2.1 5000 8787 \r\n",
    b"PROXY TCP4 203.0.113.7 192.0.2.1 5000 8787\n\r\n",
    b"PROXY TCP4 203.0.113.7 192.0.2.1 +5000 8787\r\n",
    b"PROXY TCP4 203.0.113.7 192.0.2.1 5_000 8787\r\n",
    b"PROXY TCP4 203.0.113.7 192.0.2.1 000080 8787\r\n",
    b"PROXY TCP4 203.0.113.007 192.0.2.1 5000 8787\r\n",
    b"PROXY TCP4 0x7f.1 192.0.2.1 5000 8787\r\n",
    b"PROXY TCP4 2130706433 192.0.2.1 5000 8787\r\n",
    b"PROXY TCP4 203.0.113.0/24 192.0.2.1 5000 8787\r\n",
    b"PROXY TCP6 203.0.113.7 192.0.2.1 5000 8787\r\n",
    b"PROXY TCP6 [2001:db8::7] 2001:db8::1 5000 8787\r\n",
    b"PROXY tcp4 203.0.113.7 192.0.2.1 5000 8787\r\n",
    b"PROXY unknown\r\n",
    b"proxy TCP4 203.0.113.7 192.0.2.1 5000 8787\r\n",
    b"PROXY UNKNOWN " + b"f" * 92 + b"\r\n",
    b"\r\nPROXY UNKNOWN\r\n",
    SIGNATURE[:-1] + b"\r",
]


class HeaderTests(SynchronousTestCase):
    """Reading headers."""

    def test_good(self) -> None:
        """Both versions; however the header is cut, and whatever follows it."""
        for header, source in HEADERS:
            for end in range(len(header)):
                self.assertIsNone(readHeader(header[:end]), header)
            for rest in (b"", b"PROXY TCP4", SIGNATURE):
                found = readHeader(header + rest)
                assert found is not None
                self.assertEqual((found.size, found.source), (len(header), source))

    def test_bad(self) -> None:
        """Anything else."""
        for data in BAD:
            with self.assertRaises(MalformedHeader, msg=data):
                readHeader(data)

    @settings(max_examples=300)
    @given(
        st.sampled_from([b"", b"PROXY TCP4 ", b"PROXY ", SIGNATURE, SIGNATURE + b"\x21\x11\0\x0c"]),
        st.binary(max_size=60),
        st.sampled_from([b"", b"\r\n"]),
    )
    def test_any(self, begin: bytes, middle: bytes, end: bytes) -> None:
        """Whatever bytes come: a header, less than one, or the one error."""
        try:
            readHeader(begin + middle + end)
        except MalformedHeader:
            pass


class ProxiedTestCase(SynchronousTestCase):
    """A port, and connections to it."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.built: list[Any] = []
        self.got: list[bytes] = []
        test = self

        class Behind(Protocol):
            def dataReceived(self, data: bytes) -> None:
                test.got.append(data)

            def connectionLost(self, reason: Any = None) -> None:
                test.got.append(b"lost")

        class Builder(Factory):
            protocol = Behind

            def buildProtocol(self, addr: Any) -> Any:
                test.built.append(addr)
                return super().buildProtocol(addr)

        self.factory = ProxiedFactory(Builder(), self.clock)

    def connect(self, factory: Any = None, balancer: Any = BALANCER) -> Any:
        """Connect, as the balancer does; give the protocol."""
        protocol = (factory or self.factory).buildProtocol(balancer)
        transport: Any = StringTransport(peerAddress=balancer)
        transport.aborted = False

        def abort() -> None:
            if not transport.aborted:
                transport.aborted = True
                protocol.connectionLost(Failure(ConnectionDone()))

        transport.abortConnection = abort
        protocol.makeConnection(transport)
        return protocol


class ConnectionTests(ProxiedTestCase):
    """What stands behind."""

    def test_clientsAddress(self) -> None:
        """It is built for the address of the client, and sees nothing of the header."""
        for header, source in HEADERS:
            self.built.clear()
            self.got.clear()
            protocol = self.connect()
            for byte in header[:-1]:
                protocol.dataReceived(bytes((byte,)))
            self.assertEqual(self.built, [])
            protocol.dataReceived(header[-1:] + b"hello")
            protocol.dataReceived(b"world")
            self.assertEqual(self.built, [source or BALANCER])
            self.assertEqual(protocol.wrappedProtocol.transport.getPeer(), source or BALANCER)
            protocol.connectionLost(Failure(ConnectionDone()))
            self.assertEqual(self.got, [b"hello", b"world", b"lost"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_elsewhere(self) -> None:
        """
        A client of which the balancer does not know where it is, or that is on the balancer's
        machine, is not on this one; and a client of this machine is one if the balancer is here.
        """
        here = b"PROXY TCP4 127.0.0.1 192.0.2.1 5000 8787\r\n"
        mapped = b"PROXY TCP6 ::ffff:127.0.0.1 2001:db8::1 5000 8787\r\n"
        local4 = IPv4Address("TCP", "127.0.0.1", 1)
        for balancer, header, local, host in [
            (local4, b"PROXY UNKNOWN\r\n", False, "unknown"),
            (UNIXAddress(b"socket"), b"PROXY UNKNOWN\r\n", False, "unknown"),
            (UNIXAddress(b"socket"), version2(0x31, bytes(216)), False, "unknown"),
            (UNIXAddress(b"socket"), version2(0x00, b""), False, "unknown"),
            (BALANCER, here, False, "unknown"),
            (BALANCER, mapped, False, "unknown"),
            (local4, here, True, "127.0.0.1"),
            (UNIXAddress(b"socket"), mapped, True, "::ffff:7f00:1"),
            (UNIXAddress(b"socket"), version2(0x00, b"", 0x20), True, "unix"),
        ]:
            memory = MemoryServer()
            behind = AuthServerFactory(memory.authorizer, Policy(), self.clock)
            protocol = self.connect(ProxiedFactory(behind, self.clock), balancer)
            protocol.dataReceived(header)
            broker = protocol.wrappedProtocol
            facts = channelOf(broker)
            unix = host == "unix"
            self.assertEqual((facts.local, facts.unix, originOf(broker).host), (local, unix, host))
            self.assertEqual(
                facts.host, {"::ffff:7f00:1": "127.0.0.1", "unix": None}.get(host, host)
            )
            self.assertEqual(networkOf(protocol.getPeer()) == "unknown", host == "unknown")

    def test_malformed(self) -> None:
        """A header that can't be read ends the connection; nothing is raised or built."""
        for data in BAD:
            protocol = self.connect()
            protocol.dataReceived(data)
            self.assertTrue(protocol.transport.aborted, data)
            protocol.dataReceived(b"more")
        self.assertEqual((self.built, self.got), ([], []))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_noHeader(self) -> None:
        """Who says nothing is dropped."""
        protocol = self.connect()
        protocol.dataReceived(b"PROXY TCP4")
        self.clock.advance(HEADER_TIME)
        self.assertTrue(protocol.transport.aborted)
        self.assertEqual((self.built, self.got), ([], []))
        gone = self.connect()
        gone.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_ports(self) -> None:
        """That is what a port with the PROXY protocol has in front."""
        port = Ports(self.clock, lambda: None, insecure=True).read("haproxy:tcp:0")  # type: ignore
        self.assertIsInstance(port.endpoint, ProxiedEndpoint)


class AdmissionTests(ProxiedTestCase):
    """Who is held responsible is the client."""

    def say(self, factory: Any, host: str) -> Any:
        """Connect from a client, and say something that is not Perspective Broker."""
        protocol = self.connect(factory)
        protocol.dataReceived(b"PROXY TCP4 %s 192.0.2.1 5000 8787\r\n" % host.encode())
        protocol.dataReceived(b"GET / HTTP/1.1" + b"x" * 99)
        return protocol

    def test_penalties(self) -> None:
        """One client's faults make that client wait, and nobody else behind the balancer."""
        memory = MemoryServer()
        behind = AuthServerFactory(memory.authorizer, Policy(), self.clock)
        factory = ProxiedFactory(behind, self.clock)
        for _ in range(3):
            self.assertTrue(self.say(factory, "203.0.113.7").transport.aborted)
        throttle = behind._authRoot.limits.throttle
        assert throttle is not None
        self.assertGreater(throttle.waitOfNetwork("203.0.113.7"), 0)
        for other in ("10.0.0.1", "203.0.113.8"):
            self.assertEqual(throttle.waitOfNetwork(other), 0)

    def test_slowHeaders(self) -> None:
        """Connections whose header does not come are nobody's fault, and take no place."""
        memory = MemoryServer()
        behind = AuthServerFactory(memory.authorizer, Policy(maxUnauthenticated=2), self.clock)
        factory = ProxiedFactory(behind, self.clock)
        for _ in range(10):
            self.connect(factory)
        self.clock.advance(HEADER_TIME)
        throttle = behind._authRoot.limits.throttle
        assert throttle is not None
        self.assertEqual(throttle.waitOfNetwork("10.0.0.1"), 0)
        self.assertEqual(len(behind._authRoot.limits.unauthenticated), 0)
