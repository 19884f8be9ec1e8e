"""Endpoint strings, taken apart."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pbauth.net.strports import readAddress, readDescription, spelledOut


class AddressTests(SynchronousTestCase):
    """Addresses of IPv6 as people type them, and as Twisted wants them."""

    def test_spelledOut(self) -> None:
        """An address in brackets, or behind a name, is escaped; everything else stays."""
        for typed, escaped in [
            ("ssl:8787:interface=::1", r"ssl:8787:interface=\:\:1"),
            ("ssl:8787:interface=::", r"ssl:8787:interface=\:\:"),
            ("ssl:8787:interface=::1:backlog=9", r"ssl:8787:interface=\:\:1:backlog=9"),
            ("ssl:8787:interface=fe80::1%eth0", r"ssl:8787:interface=fe80\:\:1%eth0"),
            ("ssl:8787:interface=::ffff:127.0.0.1", r"ssl:8787:interface=\:\:ffff\:127.0.0.1"),
            ("tls:[::1]:8787", r"tls:\:\:1:8787"),
            ("tls:host=[2001:db8::1]:port=8787", r"tls:host=2001\:db8\:\:1:port=8787"),
            ("tcp:host=2001:db8::1:port=8787", r"tcp:host=2001\:db8\:\:1:port=8787"),
            (r"tcp6:8787:interface=\:\:1", r"tcp6:8787:interface=\:\:1"),
            ("ssl:8787:interface=127.0.0.1", "ssl:8787:interface=127.0.0.1"),
            ("tls:example.com:8787", "tls:example.com:8787"),
            ("unix:/run/pbauth[1]:mode=660", "unix:/run/pbauth[1]:mode=660"),
            ("ssl:8787:interface=", "ssl:8787:interface="),
            ("nonsense", "nonsense"),
        ]:
            self.assertEqual(spelledOut(typed), escaped)
            self.assertEqual(spelledOut(escaped), escaped)
            self.assertEqual(readDescription(typed), readDescription(escaped))

    def test_readAddress(self) -> None:
        """Host and port; the root of the DNS behind a name is no part of the name."""
        for description, found in [
            ("tls:[::1]:8787", ("::1", 8787)),
            ("tls:host=::1:port=8787", ("::1", 8787)),
            ("tls:example.com.:8787", ("example.com", 8787)),
            ("tls:localhost:1", ("localhost", 1)),
        ]:
            self.assertEqual(readAddress(description), found)

    def test_noPort(self) -> None:
        """A port that is none is refused in words that say what to type."""
        for description in ("tls:h", "tls:h:0", "tls:h:65536", "tls:h:-1", "tls:h:٣", "tls:[::1]"):
            with self.assertRaises(ValueError) as raised:
                readAddress(description)
            self.assertIn("names no port from 1 to 65535", str(raised.exception))
