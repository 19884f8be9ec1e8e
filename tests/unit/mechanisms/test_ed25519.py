"""Logins with a key pair."""

from __future__ import annotations

import os
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.spread import pb
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from pbauth import (
    Detached,
    Hashing,
    ICredentials,
    InvalidName,
    MechanismNotSupported,
    PrivateKey,
    PublicKey,
    ServerNotTrusted,
    SQLAuthorizer,
    Unauthorized,
    getObjectAt,
)
from pbauth.errors import ExchangeRefused
from pbauth.interfaces import IClientExchange, IExchange
from pbauth.mechanisms import decodeVerifier
from pbauth.mechanisms.authorizedkeys import AuthorizedKeys
from pbauth.mechanisms.channel import Channel
from pbauth.mechanisms.ed25519 import NAME, Ed25519Client, Ed25519Server, toBeSigned
from pbauth.net.certificates import makeCertificate
from pbauth.net.fingerprints import fingerprintOf
from tests.support.keys import KEY, OTHER, PUBLIC
from tests.support.tls import Relay, TLSTestCase
from tests.support.wire import WireTestCase

AUTHORIZED = AuthorizedKeys(NAME, (PUBLIC,))
CHALLENGE = bytes(range(100, 132))


class ExchangeTests(SynchronousTestCase):
    """The exchange, without I/O."""

    def exchange(
        self,
        key: Any = KEY,
        signedName: str = "alice",
        signedBinding: bytes | None = None,
        binding: bytes | None = None,
    ) -> bytes:
        """A login of alice; give its outcome."""
        client = Ed25519Client(signedName, key, signedBinding)
        server = Ed25519Server("alice", AUTHORIZED, binding, CHALLENGE)
        verifyObject(IClientExchange, client)
        verifyObject(IExchange, server)
        return server.outcome(client.respond(server.challenge(client.initial)))

    def test_login(self) -> None:
        """A key that is authorized logs in, with and without TLS."""
        self.assertEqual(self.exchange(), b"")
        self.assertEqual(self.exchange(signedBinding=b"channel", binding=b"channel"), b"")

    def test_refused(self) -> None:
        """Another key, another name, another channel, no channel, a channel of one side only."""
        for options in [
            {"key": OTHER},
            {"signedName": "bob"},
            {"signedBinding": b"one", "binding": b"other"},
            {"signedBinding": None, "binding": b"channel"},
            {"signedBinding": b"channel", "binding": None},
        ]:
            with self.assertRaises(ExchangeRefused):
                self.exchange(**options)

    def test_replay(self) -> None:
        """A signature is of use once, for one challenge."""
        client = Ed25519Client("alice", KEY, None)
        server = Ed25519Server("alice", AUTHORIZED, None, CHALLENGE)
        response = client.respond(server.challenge(client.initial))
        server.outcome(response)
        with self.assertRaises(ExchangeRefused):
            server.outcome(response)
        fresh = Ed25519Server("alice", AUTHORIZED, None, bytes(32))
        fresh.challenge(client.initial)
        with self.assertRaises(ExchangeRefused):
            fresh.outcome(response)

    def test_order(self) -> None:
        """A signature comes after the key."""
        with self.assertRaises(ExchangeRefused):
            Ed25519Server("alice", AUTHORIZED, None, CHALLENGE).outcome(bytes(64))

    @settings(max_examples=60)
    @given(
        st.one_of(st.binary(max_size=80), st.text(max_size=5), st.none()), st.binary(max_size=80)
    )
    def test_anyBytes(self, initial: Any, response: bytes) -> None:
        """No bytes lead to anything but a refusal."""
        server = Ed25519Server("alice", AUTHORIZED, None, CHALLENGE)
        try:
            server.challenge(initial)
        except ExchangeRefused:
            pass
        with self.assertRaises(ExchangeRefused):
            server.outcome(response)

    def test_signedText(self) -> None:
        """Every part counts, and none can be moved into its neighbour."""
        parts = ("alice", b"k" * 32, b"c" * 32, b"binding")
        texts = {
            toBeSigned(*parts),
            toBeSigned("alicek", b"k" * 31, b"c" * 32, b"binding"),
            toBeSigned("alice", b"k" * 32, b"c" * 33, b"inding"),
            toBeSigned("alice", b"k" * 32, b"c" * 32, None),
        }
        self.assertEqual(len(texts), 4)

    def test_clientRefuses(self) -> None:
        """A challenge or an outcome that the mechanism does not have is not trusted."""
        client = Ed25519Client("alice", KEY, None)
        with self.assertRaises(ServerNotTrusted):
            client.respond(b"sign this cheque, please")
        with self.assertRaises(ServerNotTrusted):
            client.checkOutcome(b"x")


class KeyTests(SynchronousTestCase):
    """Keys as text, and in files."""

    def test_lines(self) -> None:
        """A line of `authorized_keys` comes back the same."""
        line = KEY.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        key = PublicKey.fromLine(f"{line.decode()} alice on her laptop\n")
        self.assertEqual((key, key.label), (PUBLIC, "alice on her laptop"))
        self.assertEqual(key.line(), f"{line.decode()} alice on her laptop")
        self.assertRegex(key.fingerprint(), r"^SHA256:[A-Za-z0-9+/]{43}$")

    def test_notLines(self) -> None:
        """Other types, damaged keys and other texts are refused."""
        encoded = PUBLIC.line().split()[1]
        for bad in (
            "",
            "ssh-rsa AAAAB3NzaC1yc2E= alice",
            f"ssh-ed25519 {encoded[:-4]}",
            "ssh-ed25519 !",
            f'command="x" ssh-ed25519 {encoded}',
        ):
            with self.assertRaises(ValueError):
                PublicKey.fromLine(bad)
        with self.assertRaises(InvalidName):
            PublicKey(bytes(32), "two\nlines")
        with self.assertRaises(ValueError):
            PublicKey(b"short")

    def test_ssh(self) -> None:
        """Keys and signatures as SSH writes them, to the byte (RFC 8709, sections 4 and 6)."""
        kind = b"\0\0\0\x0bssh-ed25519"
        blob = kind + b"\0\0\0\x20" + PUBLIC.raw
        signature = kind + b"\0\0\0\x40" + KEY.sign(b"text")
        self.assertEqual(PublicKey.fromBlob(blob), PUBLIC)
        self.assertTrue(PUBLIC.hasSigned(b"text", signature))
        for bad in (b"", PUBLIC.raw, blob[:-1], blob + b"\0", blob[1:], signature, PUBLIC.line()):
            with self.assertRaises(ValueError):
                PublicKey.fromBlob(bad)  # type: ignore[arg-type]
        for bad in (b"", signature[-64:], signature[:-1], signature + b"\0", blob, None):
            self.assertFalse(PUBLIC.hasSigned(b"text", bad))  # type: ignore[arg-type]
        self.assertFalse(PUBLIC.hasSigned(b"other text", signature))
        self.assertFalse(PublicKey(bytes(32)).hasSigned(b"text", signature))

    def test_verifier(self) -> None:
        """What a store keeps comes back the same, with labels."""
        keys = AuthorizedKeys(NAME, (PUBLIC, PublicKey(bytes(32))))
        again: Any = decodeVerifier(keys.encode())
        self.assertEqual(again, keys)
        self.assertEqual([key.label for key in again.keys], ["laptop", ""])
        self.assertEqual(decodeVerifier(AuthorizedKeys(NAME).encode()), AuthorizedKeys(NAME))

    def write(self, key: Any, form: Any, encryption: Any) -> str:
        """Write a key to a file."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(key.private_bytes(serialization.Encoding.PEM, form, encryption))
        os.chmod(path, 0o600)
        return path

    def test_files(self) -> None:
        """OpenSSH's form and PEM, with and without a passphrase."""
        for form in (serialization.PrivateFormat.OpenSSH, serialization.PrivateFormat.PKCS8):
            plain = self.write(KEY, form, serialization.NoEncryption())
            self.assertEqual(PrivateKey.fromFile(plain).publicKey, PUBLIC)
            secret = self.write(KEY, form, serialization.BestAvailableEncryption(b"sesame"))
            self.assertEqual(PrivateKey.fromFile(secret, "sesame").publicKey, PUBLIC)
            with self.assertRaises(ValueError) as raised:
                PrivateKey.fromFile(secret)
            self.assertIn("passphrase is needed", str(raised.exception))
            with self.assertRaises(ValueError) as raised:
                PrivateKey.fromFile(secret, "wrong")
            self.assertIn("passphrase is wrong", str(raised.exception))
            self.assertNotIn("\n", str(raised.exception))

    def test_exposedFiles(self) -> None:
        """A key that others can read, or replace, is not used; the error says what to do."""
        form = serialization.PrivateFormat.OpenSSH
        path = self.write(KEY, form, serialization.NoEncryption())
        secret = self.write(KEY, form, serialization.BestAvailableEncryption(b"sesame"))
        for mode in (0o644, 0o640, 0o604, 0o620, 0o666):
            for name, passphrase in ((path, None), (secret, "sesame")):
                os.chmod(name, mode)
                with self.assertRaises(ValueError) as raised:
                    PrivateKey.fromFile(name, passphrase)
                self.assertIn(f"Run: chmod 600 {name}", str(raised.exception))
        os.chmod(path, 0o400)
        self.assertEqual(PrivateKey.fromFile(path).publicKey, PUBLIC)
        folder = os.path.dirname(os.path.realpath(path))
        os.chmod(folder, 0o777)
        with self.assertRaises(ValueError) as raised:
            PrivateKey.fromFile(path)
        self.assertIn("Other users can replace", str(raised.exception))

    def test_otherFiles(self) -> None:
        """Keys of another type, other files, and no file."""
        form, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        with self.assertRaises(TypeError):
            PrivateKey.fromFile(self.write(ec.generate_private_key(ec.SECP256R1()), form, none))
        with self.assertRaises(ValueError):
            PrivateKey.fromFile(os.path.abspath(__file__))
        with self.assertRaises(ValueError):
            PrivateKey.fromFile(self.mktemp())

    def test_credentials(self) -> None:
        """It provides `ICredentials`, and shows only its fingerprint."""
        credentials = PrivateKey(KEY)
        verifyObject(ICredentials, credentials)
        self.assertEqual(repr(credentials), f"<PrivateKey {PUBLIC.fingerprint()}>")
        with self.assertRaises(MechanismNotSupported):
            credentials.begin("SCRAM-SHA-256", "alice", Channel())


class LoginTests(WireTestCase):
    """Over the wire."""

    def setUp(self) -> None:
        super().setUp()
        self.alice.addPublicKey(PUBLIC)

    def test_login(self) -> None:
        """A key that is authorized logs in, even where there is no password."""
        self.alice.setPassword(None)
        perspective = self.successResultOf(self.login("alice", PrivateKey(KEY), "game"))
        self.assertEqual(self.answer(perspective, "whoami"), "alice")

    def test_refused(self) -> None:
        """Another key, another name, an unknown name, a locked account: one answer."""
        self.memory.addUser("bob", "secret", ("game", "bob"))
        for name, key in [("alice", OTHER), ("bob", KEY), ("mallory", KEY)]:
            failure = self.failureResultOf(self.login(name, PrivateKey(key), "game"), Unauthorized)
            self.assertEqual(str(failure.value), str(Unauthorized()))
        self.alice.locked = True
        self.failureResultOf(self.login("alice", PrivateKey(KEY), "game"), Unauthorized)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_keysAndPasswords(self) -> None:
        """A new password leaves keys and their sessions alone, and the other way round."""
        second = PublicKey(OTHER.public_key().public_bytes_raw(), "phone")
        self.alice.addPublicKey(second)
        self.assertEqual(self.alice.getPublicKeys(), [PUBLIC, second])
        byKey = self.successResultOf(self.login("alice", PrivateKey(KEY), "game"))
        byOther = self.successResultOf(self.login("alice", PrivateKey(OTHER), "game"))
        self.alice.setPassword("changed")
        byPassword = self.successResultOf(self.login("alice", "changed", "game"))
        self.alice.removePublicKey(PUBLIC)
        self.assertIsInstance(self.refusal(byKey, "whoami"), Detached)
        for perspective in (byOther, byPassword):
            self.assertEqual(self.answer(perspective, "whoami"), "alice")
        with self.assertRaises(KeyError):
            self.alice.removePublicKey(PUBLIC)
        self.failureResultOf(self.login("alice", PrivateKey(KEY), "game"), Unauthorized)

    def test_label(self) -> None:
        """A key that is there gets another label."""
        self.alice.addPublicKey(PublicKey(PUBLIC.raw, "desktop"))
        self.assertEqual([key.label for key in self.alice.getPublicKeys()], ["desktop"])


class StoreTests(TestCase):
    """Keys last."""

    async def test_sql(self) -> None:
        """What is saved is found, and a key that is removed is gone."""
        authorizer = SQLAuthorizer(self.mktemp(), hashing=Hashing.CHEAPEST)
        self.addCleanup(authorizer.close)
        alice = authorizer.createIdentity("alice")
        alice.addPublicKey(PUBLIC)
        alice.setPassword("secret")
        await alice.save()
        found = await authorizer.getIdentityRequest("alice")
        self.assertEqual(found.getPublicKeys(), [PUBLIC])
        self.assertEqual(found.getPublicKeys()[0].label, "laptop")
        await found.verifyPlainPassword("secret")
        found.removePublicKey(PUBLIC)
        await found.save()
        found = await authorizer.getIdentityRequest("alice")
        self.assertEqual(found.getPublicKeys(), [])
        await found.verifyPlainPassword("secret")


class TLSTests(TLSTestCase):
    """A signature is for one TLS connection."""

    async def test_login(self) -> None:
        """A key logs in over TLS."""
        port = self.serve()
        self.authorizer.identities["alice"].addPublicKey(PUBLIC)
        perspective = await self.attempt(port, PrivateKey(KEY), trust=self.pin)
        self.assertEqual(await self.works(perspective), "ED25519")

    async def test_relay(self) -> None:
        """Passed on by a man in the middle it is refused: that is another connection."""
        port = self.serve()
        self.authorizer.identities["alice"].addPublicKey(PUBLIC)
        root = await getObjectAt(f"tls:localhost:{port}", None, trust=self.pin)
        self.addCleanup(self.hangUp, root)
        relay = Relay(root)
        pem = makeCertificate()
        pin = fingerprintOf(x509.load_pem_x509_certificate(pem))
        relayPort = self.listen(pb.PBServerFactory(relay), pem)
        with self.assertRaises(Unauthorized):
            await self.attempt(relayPort, PrivateKey(KEY), trust=pin)
        self.assertFalse(relay.won)
