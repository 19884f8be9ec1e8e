"""Which mechanisms and verifiers there are."""

from __future__ import annotations

import secrets

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from pbauth import Hashing, IMechanism
from pbauth.interfaces import IExchange
from pbauth.mechanisms import SERVER_MECHANISMS, decodeVerifier
from pbauth.mechanisms.channel import Channel
from pbauth.mechanisms.scram import ScramVerifier


class MechanismTests(SynchronousTestCase):
    """The lists."""

    def test_interfaces(self) -> None:
        """Each mechanism provides its interface, and so do its exchanges."""
        verifier = ScramVerifier.fromPassword("secret", b"0123456789abcdef", 4096)
        for mechanism in SERVER_MECHANISMS:
            verifyObject(IMechanism, mechanism)
            exchange = mechanism.begin("alice", verifier, Channel(), secrets.token_bytes)
            verifyObject(IExchange, exchange)

    def test_offers(self) -> None:
        """Strongest first; the bound form only where there is a channel to bind to."""
        for connection, names in [
            (Channel(), ["SCRAM-SHA-256", "ED25519"]),
            (Channel(secure=True), ["SCRAM-SHA-256", "ED25519"]),
            (
                Channel(secure=True, channelBinding=b"channel"),
                ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "ED25519"],
            ),
        ]:
            offered = [each.name for each in SERVER_MECHANISMS if each.offeredOn(connection)]
            self.assertEqual(offered, names)

    def test_freshNonces(self) -> None:
        """Each exchange has a nonce of its own."""
        verifier = ScramVerifier.fromPassword("secret", b"0123456789abcdef", 4096)
        scram = SERVER_MECHANISMS[1]
        challenges = {
            scram.begin("alice", verifier, Channel(), secrets.token_bytes).challenge(
                b"n,,n=alice,r=client"
            )
            for _ in range(20)
        }
        self.assertEqual(len(challenges), 20)

    def test_verifiers(self) -> None:
        """Whatever hashing makes can be stored as text, and read again."""
        hashing = Hashing(iterations=4096, md5=True)
        verifiers = hashing.makeVerifiers("secret", b"0123456789abcdef")
        self.assertEqual(set(verifiers), {"SCRAM-SHA-256", "PB-MD5"})
        for verifier in verifiers.values():
            self.assertEqual(decodeVerifier(verifier.encode()), verifier)
        for bad in ("", "secret", "UNKNOWN$x"):
            with self.assertRaises(ValueError):
                decodeVerifier(bad)
