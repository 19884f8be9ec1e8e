"""The policy, and where peers are."""

from __future__ import annotations

import math
from datetime import timedelta

import attrs
from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from pbauth import Policy
from pbauth.net.addresses import hostOf, isLocal, isLoopback

#: The limits that are whole numbers, and all that are numbers.
COUNTS = (
    "maxAttempts",
    "maxUnauthenticatedBytes",
    "maxUnauthenticated",
    "maxReferences",
    "maxSessions",
    "maxCallsAtOnce",
    "maxMessageBytes",
)
NUMBERS = (*COUNTS, "graceTime", "pingInterval", "maxVoucherLife", "maxCallsPerSecond")


class PolicyTests(SynchronousTestCase):
    """Limits and switches, as one value."""

    def test_defaults(self) -> None:
        """Who says nothing gets the safe values of the contract."""
        self.assertEqual(
            attrs.asdict(Policy()),
            {
                "mechanisms": ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "ED25519"),
                "minimumTLS": "1.3",
                "legacyLogin": False,
                "defaultService": None,
                "guest": None,
                "graceTime": 30,
                "maxAttempts": 6,
                "maxUnauthenticatedBytes": 65536,
                "maxUnauthenticated": 1000,
                "throttle": True,
                "pingInterval": 30,
                "maxReferences": 1024,
                "vouchers": True,
                "maxVoucherLife": timedelta(days=90),
                "maxSessions": None,
                "maxCallsPerSecond": None,
                "callBurst": None,
                "maxCallsAtOnce": None,
                "maxMessageBytes": None,
            },
        )

    def test_immutable(self) -> None:
        """A policy does not change under a running server."""
        with self.assertRaises(attrs.exceptions.FrozenInstanceError):
            Policy().legacyLogin = True  # type: ignore[misc]

    def test_nonsense(self) -> None:
        """Limits are numbers over 0, names are names."""
        for options in [
            {"graceTime": 0},
            {"maxAttempts": -1},
            {"maxUnauthenticated": "many"},
            {"maxUnauthenticatedBytes": True},
            {"pingInterval": -1},
            {"pingInterval": True},
            {"maxReferences": 0},
            {"maxSessions": 0},
            {"maxSessions": 1.5},
            {"maxCallsPerSecond": 0},
            {"callBurst": 5},
            {"callBurst": 0, "maxCallsPerSecond": 5},
            {"maxCallsAtOnce": True},
            {"maxMessageBytes": -1},
            # What no number is over, or under.
            *({name: each} for name in NUMBERS for each in (math.nan, math.inf, -math.inf)),
            *({name: 2.5} for name in COUNTS),
            {"maxVoucherLife": 1e300},
            {"guest": ""},
            {"mechanisms": ["SCRAM-SHA-1"]},
        ]:
            with self.assertRaises(ValueError, msg=options):
                Policy(**options)
        for off in (0, None):
            self.assertEqual(Policy(pingInterval=off).pingInterval, off)
        with self.assertRaises(TypeError):
            Policy(defaultService=b"game")
        with self.assertRaises(TypeError):
            Policy(mechanisms="PLAIN")


class PeerTests(SynchronousTestCase):
    """Which peers are on this machine."""

    def test_hosts(self) -> None:
        """Only the loopback network and `localhost` are, for certain."""
        for host in (
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "localhost",
            "LOCALHOST.",
            "::ffff:127.0.0.1",
        ):
            self.assertTrue(isLoopback(host), host)
        for host in ("192.0.2.1", "::2", "example.com", "localhost.example.com", "127.1", "", "::"):
            self.assertFalse(isLoopback(host), host)

    def test_rules(self) -> None:
        """
        Rules that name networks, of PAM for instance, see an IPv4 address also where a port for
        both has it as one of IPv6; and an unknown place is none of theirs, and not this machine.
        """
        for address, host in [
            (IPv4Address("TCP", "192.0.2.7", 1), "192.0.2.7"),
            (IPv6Address("TCP", "::ffff:192.0.2.7", 1), "192.0.2.7"),
            (IPv6Address("TCP", "::ffff:c000:207%eth0", 1), "192.0.2.7"),
            (IPv6Address("TCP", "2001:db8::7", 1), "2001:db8::7"),
            (IPv6Address("TCP", "fe80::7%eth0", 1), "fe80::7%eth0"),
            (HostnameAddress(b"unknown", 0), "unknown"),
            (UNIXAddress(b"socket"), None),
            (None, None),
        ]:
            self.assertEqual(hostOf(address), host)

    def test_addresses(self) -> None:
        """Peers that do not speak IP are on this machine."""
        self.assertTrue(isLocal(UNIXAddress(b"/run/pbauth")))
        self.assertTrue(isLocal(IPv4Address("TCP", "127.0.0.1", 1)))
        self.assertTrue(isLocal(IPv6Address("TCP", "::1", 1)))
        self.assertFalse(isLocal(IPv4Address("TCP", "192.0.2.1", 1)))
        self.assertFalse(isLocal(IPv6Address("TCP", "2001:db8::1", 1)))
        self.assertFalse(isLocal(HostnameAddress(b"example.com", 1)))
