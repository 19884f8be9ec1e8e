"""What a client proves itself with."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    load_pem_private_key,
    load_ssh_private_key,
)
from twisted.internet import ssl
from twisted.internet.defer import Deferred, succeed
from twisted.spread import pb
from zope.interface import implementer

from pbauth._arguments import checkType
from pbauth._async import OneShot
from pbauth._files import readAndLook
from pbauth.accounts.hashing import Derivations
from pbauth.client.renewal import askHashing
from pbauth.errors import MechanismNotSupported, PassphraseNeeded, ServerNotTrusted
from pbauth.interfaces import ICredentials, IRenewingCredentials, IRenewingExchange, Reactor
from pbauth.mechanisms import anonymous, ed25519, external, plain, scram
from pbauth.mechanisms.channel import Channel
from pbauth.mechanisms.ed25519 import Ed25519Client, PublicKey
from pbauth.mechanisms.external import CertificateKey
from pbauth.mechanisms.onemessage import OneMessageClient
from pbauth.mechanisms.scram import ScramClient, ScramKeys, preparePassword
from pbauth.net.certificates import privateCertificate
from pbauth.net.fingerprints import fingerprintOf


def _check(credentials: ICredentials, mechanism: str) -> None:
    if mechanism not in credentials.mechanisms:
        raise MechanismNotSupported([mechanism])


@implementer(IRenewingCredentials)
class Password:
    """
    A password, for `connect` and similar functions.

    It remembers the keys that were derived last, so that a client that keeps the object logs in
    again without the slow derivation. Neither its `repr` nor an error shows anything of it.

    After a login that took the derivation it asks the server whether the verifier there has fewer
    iterations than it should, and if so, replaces it in the background; see
    `pbauth.client.renewal`.

    Args:
        password: as it was typed.
        renew: replace weak verifiers. Only where the server allows that: on its own machine, or
            after a login that was bound to its TLS connection.
        reactor: provides threads for the derivation, while it runs; the global one by default.

    Raises:
        TypeError: it is not a `str`.
        InvalidPassword: it is empty or too long, or holds what SASLprep (RFC 4013) prohibits.
    """

    mechanisms = (scram.NAME_PLUS, scram.NAME)
    clientCertificate = None

    def __init__(self, password: str, renew: bool = True, *, reactor: Reactor = None) -> None:
        self._prepared = preparePassword(password)
        self._renew = renew
        self._derivations = Derivations(reactor)
        self._remembered: tuple[bytes, int, ScramKeys] | None = None
        # How many renewals are under way; their end.
        self._renewals = 0
        self._renewed = OneShot()

    def __repr__(self) -> str:
        return "<Password, not shown>"

    def begin(self, mechanism: str, name: str, connection: Channel) -> ScramPasswordExchange:
        """
        Begin the client's half of one login.

        Args:
            mechanism: one of `mechanisms`.
            name: the identity's.
            connection: what it will run on.

        Returns:
            An `IClientExchange`.

        Raises:
            MechanismNotSupported: a password can't do that.
            ValueError: this can't be the name of an identity.
        """
        _check(self, mechanism)
        binding = connection.channelBinding
        client = ScramClient(
            name,
            scram.makeNonce(secrets.token_bytes),
            binding=binding if mechanism == scram.NAME_PLUS else None,
            couldBind=binding is not None,
        )
        bound = mechanism == scram.NAME_PLUS
        return ScramPasswordExchange(
            self, client, self._renew and connection.protects(bound), bound
        )

    def remembers(self, salt: bytes, iterations: int) -> bool:
        """Return whether the keys for this are there already."""
        return self._remembered is not None and self._remembered[:2] == (salt, iterations)

    def keysFor(self, salt: bytes, iterations: int) -> Deferred[ScramKeys]:
        """
        Derive the keys, or remember them.

        Args:
            salt: from the server.
            iterations: from the server.

        Returns:
            Fires with the keys.
        """
        if self._remembered is not None and self._remembered[:2] == (salt, iterations):
            return succeed(self._remembered[2])

        def remember(keys: ScramKeys) -> ScramKeys:
            self._remembered = (salt, iterations, keys)
            return keys

        return self._derive(salt, iterations).addCallback(remember)

    def _derive(self, salt: bytes, iterations: int) -> Deferred[ScramKeys]:
        return self._derivations.run(iterations, ScramKeys.derive, self._prepared, salt, iterations)

    async def renewVerifier(self, identity: pb.RemoteReference, iterations: int) -> None:
        """
        Replace the verifier of an account by a better one, if the server wants that.

        Args:
            identity: a reference to the `IdentityWrapper`.
            iterations: how many the verifier has.
        """
        self._renewals += 1
        try:
            hashing = await askHashing(identity)
            if hashing is None or hashing.iterations <= iterations or identity.broker.disconnected:
                return
            salt = secrets.token_bytes(hashing.saltBytes)
            keys = await self._derive(salt, hashing.iterations)
            if identity.broker.disconnected:
                return
            verifier = keys.verifier(salt, hashing.iterations)
            await identity.callRemote("renewVerifier", verifier.encode())
            self._remembered = (salt, hashing.iterations, keys)
        finally:
            self._renewals -= 1
            if not self._renewals:
                renewed, self._renewed = self._renewed, OneShot()
                renewed.fire()

    def whenRenewed(self) -> Deferred[None]:
        """
        Wait until no verifier is being renewed: before hanging up after a short visit.

        Returns:
            Fires then, at once if none is.
        """
        return self._renewed.wait() if self._renewals else succeed(None)


@implementer(IRenewingExchange)
class ScramPasswordExchange:
    """
    One login with a password and SCRAM.

    Args:
        password: derives the keys.
        client: the client's half of SCRAM.
        mayRenew: the verifier may be renewed on this connection.
        bound: with channel binding.
    """

    def __init__(
        self,
        password: Password,
        client: ScramClient,
        mayRenew: bool = False,
        bound: bool = False,
    ) -> None:
        self.bound = bound
        self._password = password
        self._client = client
        self._mayRenew = mayRenew
        self._derivedWith: int | None = None

    @property
    def initial(self) -> bytes:
        """Return the client-first message."""
        return self._client.initial

    async def respond(self, challenge: bytes) -> bytes:
        """
        Answer the server-first message.

        Raises:
            ServerNotTrusted: see `ScramClient.readChallenge`.
        """
        salt, iterations = self._client.readChallenge(challenge)
        if not self._password.remembers(salt, iterations):
            self._derivedWith = iterations
        return self._client.respond(await self._password.keysFor(salt, iterations))

    def checkOutcome(self, outcome: bytes) -> None:
        """
        Check the server-final message.

        Raises:
            ServerNotTrusted: it does not prove that the server knows the verifier.
        """
        self._client.checkOutcome(outcome)

    async def renew(self, identity: pb.RemoteReference) -> None:
        """
        Renew the verifier, if this login took a derivation, and if that is allowed.

        Args:
            identity: a reference to the `IdentityWrapper`.
        """
        if self._mayRenew and self._derivedWith is not None:
            await self._password.renewVerifier(identity, self._derivedWith)


@implementer(ICredentials)
class PlainPassword:
    """
    A password that the server gets to see: for servers that let somebody else check it, PAM for
    instance, and offer the mechanism `PLAIN`. Sent only over TLS or a UNIX socket.

    It is a class of its own, and never what a `Password` falls back to: a man in the middle would
    offer nothing else.

    Args:
        password: as it was typed.

    Raises:
        TypeError: it is not a `str`.
        InvalidPassword: it is empty or too long, or holds a character that can't be sent.
    """

    mechanisms = (plain.NAME,)
    clientCertificate = None

    def __init__(self, password: str) -> None:
        plain.makeMessage("", password)
        self._password = password

    def __repr__(self) -> str:
        return "<PlainPassword, not shown>"

    def begin(self, mechanism: str, name: str, connection: Channel) -> OneMessageClient:
        """
        Begin the client's half of one login.

        Raises:
            MechanismNotSupported: `mechanism` is not `PLAIN`.
            ServerNotTrusted: the password would be sent over a connection that others can read.
        """
        _check(self, mechanism)
        if not plain.maySend(connection):
            raise ServerNotTrusted(
                "The password would be sent without TLS. Use an endpoint 'tls:HOST:PORT'."
            )
        return OneMessageClient(plain.makeMessage(name, self._password))


@implementer(ICredentials)
class Anonymous:
    """
    Nothing: for servers that have guests. The user's name is that of the server's guest.

    Args:
        trace: what to tell of oneself, for the server's log.
    """

    mechanisms = (anonymous.NAME,)
    clientCertificate = None

    def __init__(self, trace: str = "") -> None:
        self._trace = trace

    def begin(self, mechanism: str, name: str, connection: Channel) -> OneMessageClient:
        """
        Begin the client's half of one login.

        Raises:
            MechanismNotSupported: `mechanism` is not `ANONYMOUS`.
        """
        _check(self, mechanism)
        return anonymous.beginClient(self._trace)


@implementer(ICredentials)
class PrivateKey:
    """
    A private key, for `connect` and similar functions. Its `repr` shows only the fingerprint.

    Args:
        key: an Ed25519 key of the library cryptography.

    Raises:
        TypeError: it is a key of another type.
    """

    mechanisms = (ed25519.NAME,)
    clientCertificate = None

    def __init__(self, key: Ed25519PrivateKey) -> None:
        if not isinstance(key, Ed25519PrivateKey):
            raise TypeError(
                f"key must be an Ed25519PrivateKey, not {type(key).__name__}. "
                "Make one: ssh-keygen -t ed25519"
            )
        self._key = key
        self.publicKey = PublicKey(key.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"<PrivateKey {self.publicKey.fingerprint()}>"

    @classmethod
    def fromFile(cls, path: str | os.PathLike[str], passphrase: str | None = None) -> PrivateKey:
        """
        Read a key file of OpenSSH or in PEM.

        Args:
            path: of the file.
            passphrase: that it is encrypted with, if it is.

        Returns:
            The key.

        Raises:
            PassphraseNeeded: the key is encrypted, and no passphrase was given.
            ValueError: the file can't be read, others can read or replace it, it holds no private
                key, or the passphrase is wrong.
            TypeError: it holds a key of another type.
        """
        data, problem = readAndLook(path, "private key")
        load = load_ssh_private_key if b"OPENSSH PRIVATE KEY" in data else load_pem_private_key
        key = _loadKey(path, data, passphrase, load)
        if problem is not None:
            raise ValueError(problem)
        return cls(key)

    def begin(self, mechanism: str, name: str, connection: Channel) -> Ed25519Client:
        """
        Begin the client's half of one login.

        Args:
            mechanism: `ED25519`.
            name: the identity's.
            connection: what it will run on.

        Returns:
            An `IClientExchange`.

        Raises:
            MechanismNotSupported: a key can't do that.
        """
        _check(self, mechanism)
        return Ed25519Client(name, self._key, connection.channelBinding)


@implementer(ICredentials)
class ClientCertificate:
    """
    A TLS client certificate, for `connect` to an endpoint ``"tls:HOST:PORT"``. Its `repr` shows
    only the fingerprint.

    Args:
        certificate: the certificate with its private key.

    Raises:
        TypeError: it is of another type.
    """

    mechanisms = (external.NAME,)

    def __init__(self, certificate: ssl.PrivateCertificate) -> None:
        checkType(ssl.PrivateCertificate, certificate, "certificate")
        self.clientCertificate = certificate
        self.publicKey = CertificateKey(fingerprintOf(certificate.original.to_cryptography()))

    def __repr__(self) -> str:
        return f"<ClientCertificate {self.publicKey.fingerprint()}>"

    @classmethod
    def fromFile(
        cls, path: str | os.PathLike[str], passphrase: str | None = None
    ) -> ClientCertificate:
        """
        Read a PEM file that holds a certificate and its private key.

        Args:
            path: of the file.
            passphrase: that the key is encrypted with, if it is.

        Returns:
            The certificate.

        Raises:
            PassphraseNeeded: the key is encrypted, and no passphrase was given.
            ValueError: the file can't be read, others can read or replace it, it lacks the one or
                the other, they do not belong together, or the passphrase is wrong.
        """
        data, problem = readAndLook(path, "private key")
        key = _loadKey(path, data, passphrase, load_pem_private_key)
        if problem is not None:
            raise ValueError(problem)
        try:
            certificate = x509.load_pem_x509_certificate(data)
        except ValueError:
            raise ValueError(f"{path}: there is no certificate in PEM beside the key.") from None
        return cls(privateCertificate(key, certificate))

    def begin(self, mechanism: str, name: str, connection: Channel) -> OneMessageClient:
        """
        Begin the client's half of one login.

        Raises:
            MechanismNotSupported: `mechanism` is not `EXTERNAL`.
        """
        _check(self, mechanism)
        return OneMessageClient(b"", bound=True)


def _loadKey(
    path: str | os.PathLike[str],
    data: bytes,
    passphrase: str | None,
    load: Callable[[bytes, bytes | None], Any],
) -> Any:
    secret = None if passphrase is None else passphrase.encode("utf-8")
    try:
        return load(data, secret)
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        reason = _whyNoKey(error, secret is not None)
    # Outside, so that no chain shows what the cause knows.
    kind = PassphraseNeeded if reason is _ENCRYPTED else ValueError
    raise kind(f"{path}: {reason}")


_ENCRYPTED = "the key is encrypted; its passphrase is needed."


def _whyNoKey(error: Exception, withPassphrase: bool) -> str:
    text = str(error)
    if "bcrypt" in text:
        return "encrypted keys of OpenSSH need one more package: pip install 'pbauth[keys]'."
    if not withPassphrase and ("password" in text.lower() or "encrypted" in text):
        return _ENCRYPTED
    if withPassphrase:
        return "the passphrase is wrong, or this is not an encrypted private key."
    return "this is not a private key in OpenSSH's format or in PEM."
