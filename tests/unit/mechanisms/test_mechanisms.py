"""Which mechanisms and verifiers there are."""

from __future__ import annotations

import secrets

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from pbauth import Hashing, IMechanism
from pbauth.interfaces import IExchange
from pbauth.mechanisms import MECHANISMS, decodeVerifier
from pbauth.mechanisms.authorizedkeys import AuthorizedKeys
from pbauth.mechanisms.channel import Channel
from pbauth.mechanisms.scram import ScramVerifier
from pbauth.mechanisms.terms import Claimant, Terms


class MechanismTests(SynchronousTestCase):
    """The lists."""

    def test_interfaces(self) -> None:
        """Each mechanism provides its interface, and so do its exchanges."""
        verifier = ScramVerifier.fromPassword("secret", b"0123456789abcdef", 4096)
        for mechanism in MECHANISMS:
            verifyObject(IMechanism, mechanism)
            claimant = Claimant("alice", None, verifier)
            exchange = mechanism.begin(claimant, Channel(), secrets.token_bytes)
            verifyObject(IExchange, exchange)
        self.assertEqual(len({mechanism.name for mechanism in MECHANISMS}), 8)

    def test_offers(self) -> None:
        """Strongest first; the bound form only where there is a channel to bind to."""
        bound = Channel(secure=True, channelBinding=b"channel", peerPin="SHA256:")
        for channel, terms, names in [
            (Channel(), Terms(), ["SCRAM-SHA-256", "ED25519"]),
            (Channel(secure=True), Terms(), ["SCRAM-SHA-256", "ED25519"]),
            (bound, Terms(), ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "ED25519", "EXTERNAL"]),
            (bound, Terms(externalPasswords=True), ["ED25519", "EXTERNAL", "PLAIN"]),
            (Channel(local=True), Terms(externalPasswords=True), ["ED25519"]),
            (Channel(unix=True), Terms(externalPasswords=True), ["ED25519", "PLAIN"]),
            (
                Channel(),
                Terms(guest="guest", legacy=True),
                ["SCRAM-SHA-256", "ED25519", "ANONYMOUS", "PB-MD5"],
            ),
        ]:
            offered = [each.name for each in MECHANISMS if each.offeredOn(channel, terms)]
            self.assertEqual(offered, names)

    def test_bound(self) -> None:
        """What is proved is good on this connection alone, or not: a fact of each exchange."""
        channel = Channel(secure=True, channelBinding=b"channel", peerPin="SHA256:" + "A" * 43)
        keys = AuthorizedKeys("ED25519", ())
        for where, bound in [
            (channel, {"SCRAM-SHA-256-PLUS", "ED25519", "EXTERNAL", "VOUCHER"}),
            (Channel(secure=True), {"EXTERNAL"}),
        ]:
            exchanges = {
                each.name: each.begin(Claimant("alice", None, keys), where, secrets.token_bytes)
                for each in MECHANISMS
            }
            self.assertEqual({name for name, each in exchanges.items() if each.bound}, bound)

    def test_guest(self) -> None:
        """Nobody but the guest, named or not, is anonymous."""
        (anonymous,) = [each for each in MECHANISMS if each.name == "ANONYMOUS"]
        for name, found in [("", "guest"), ("guest", "guest"), ("alice", None)]:
            self.assertEqual(anonymous.identityFor(name, Terms(guest="guest")), found)

    def test_freshNonces(self) -> None:
        """Each exchange has a nonce of its own."""
        verifier = ScramVerifier.fromPassword("secret", b"0123456789abcdef", 4096)
        scram = MECHANISMS[1]
        challenges = {
            scram.begin(
                Claimant("alice", None, verifier), Channel(), secrets.token_bytes
            ).challenge(b"n,,n=alice,r=client")
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
