"""
Which servers a client trusts, and the certificate that a server shows.

A client trusts the certificate authorities of the system, or those in a file, or one certificate,
or one public key by its fingerprint (`pbauth.net.fingerprints`).
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from cryptography import x509
from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import (
    verify_certificate_hostname,
    verify_certificate_ip_address,
)
from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IHandshakeListener, IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from pbauth._arguments import checkType, listed
from pbauth._async import within
from pbauth.errors import ServerNotTrusted
from pbauth.net.certificates import isAddress, readCertificates
from pbauth.net.fingerprints import PIN_PREFIX, checkPin, fingerprintOf
from pbauth.net.refusals import NOT_TRUSTED, OTHER_NAME, explainRefusal, noteRefusal

#: What a client says of a server that does not speak TLS 1.3.
NO_TLS_1_3 = (
    "The server does not speak TLS 1.3, and older TLS can't bind a login to its connection: "
    "a man in the middle could relay the login. Upgrade the server; or, if you must, ask for the "
    "old version by name: tls:HOST:PORT:minimumTLS=1.2"
)

#: What an endpoint string may name as `minimumTLS`.
TLS_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


#: What a server is trusted by: a fingerprint (``SHA256:...``), the path of a PEM file of
#: certificates, or a certificate; `None`: the system's certificate authorities.
Trust: TypeAlias = str | os.PathLike[str] | ssl.Certificate | None


def checkTrust(trust: Trust) -> None:
    """
    Check an argument that says what a server is trusted by.

    Raises:
        TypeError: it is of none of these types.
    """
    if trust is not None and not isinstance(trust, (str, os.PathLike, ssl.Certificate)):
        raise TypeError(
            "trust must be a fingerprint, the path of a PEM file, or a "
            f"twisted.internet.ssl.Certificate, not {type(trust).__name__}."
        )


@implementer(IOpenSSLClientConnectionCreator)
class PinnedKey:
    """
    Makes client connections that accept one public key, whoever signed it, and no other.

    Args:
        pin: its fingerprint.
        host: the name to ask the server for; addresses are not sent.
        certificate: what to show to the server, or `None`.
        minimum: the oldest version of TLS.

    Raises:
        ValueError: the pin is none.
    """

    def __init__(
        self,
        pin: str,
        host: str = "",
        certificate: ssl.PrivateCertificate | None = None,
        minimum: Any = ssl.TLSVersion.TLSv1_3,
    ) -> None:
        self._pin = checkPin(pin)
        self._host = host
        shown: dict[str, Any] = {}
        if certificate is not None:
            shown = {
                "privateKey": certificate.privateKey.original,
                "certificate": certificate.original,
            }
        self._context = _contextFor(self._verify, minimum, **shown)

    def _verify(self, connection: Any, certificate: Any, code: int, depth: int, ok: int) -> bool:
        if depth:
            return True
        return hmac.compare_digest(fingerprintOf(certificate.to_cryptography()), self._pin)

    def clientConnectionForTLS(self, tlsProtocol: Any) -> Any:
        """Make a connection (see `IOpenSSLClientConnectionCreator`)."""
        return _connectionTo(self._host, self._context)

    def check(self, connection: Any) -> None:
        """
        Check the server of a connection that was made; see `NamedServer.check`.

        Raises:
            ServerNotTrusted: it has another key.
        """
        shown = connection.get_peer_certificate()
        if shown is None or not self._verify(connection, shown, 0, 0, 1):
            raise ServerNotTrusted(NOT_TRUSTED)


@implementer(IOpenSSLClientConnectionCreator)
class NamedServer:
    """
    Makes client connections that accept a certificate for a name, which an authority vouches for.

    Args:
        host: the name or address that the certificate must be for.
        trustRoot: the authorities, as `twisted.internet.ssl.optionsForClientTLS` takes them.
        certificate: what to show to the server, or `None`.
        minimum: the oldest version of TLS.
    """

    def __init__(
        self,
        host: str,
        trustRoot: Any,
        certificate: ssl.PrivateCertificate | None,
        minimum: Any,
    ) -> None:
        self._host = host
        self._options: Any = ssl.optionsForClientTLS(
            host,
            trustRoot=trustRoot,
            clientCertificate=certificate,
            extraCertificateOptions={"raiseMinimumTo": minimum},
        )

    def clientConnectionForTLS(self, tlsProtocol: Any) -> Any:
        """Make a connection (see `IOpenSSLClientConnectionCreator`)."""
        connection = self._options.clientConnectionForTLS(tlsProtocol)
        connection.set_verify(SSL.VERIFY_PEER, noteRefusal)
        return connection

    def check(self, connection: Any) -> None:
        """
        Check the server of a connection that was made, before it is trusted with anything.

        The handshake has checked the same, in callbacks of the library. But what goes wrong inside
        of those may be lost on the way, and has been: then every server was trusted. Whatever goes
        wrong here is a refusal.

        Args:
            connection: an `OpenSSL.SSL.Connection`, after its handshake.

        Raises:
            ServerNotTrusted: no authority vouches for it, or it is for another name.
        """
        try:
            shown = connection.get_peer_certificate()
            others = connection.get_peer_cert_chain()[1:]
            store = connection.get_context().get_cert_store()
            crypto.X509StoreContext(store, shown, others).verify_certificate()
        except crypto.X509StoreContextError as error:
            code, depth, _ = error.errors
            because = explainRefusal(code, depth, error.certificate.to_cryptography())
            raise ServerNotTrusted(because) from None
        except Exception:
            raise ServerNotTrusted(NOT_TRUSTED) from None
        try:
            verify = verify_certificate_ip_address if isAddress(self._host) else _verifyHostname
            verify(shown.to_cryptography(), self._host)
        except Exception:
            raise ServerNotTrusted(OTHER_NAME) from None


def _verifyHostname(certificate: x509.Certificate, host: str) -> None:
    verify_certificate_hostname(certificate, host.encode("idna").decode("ascii"))


@implementer(IOpenSSLClientConnectionCreator)
class _AnyKey:
    """
    Makes client connections that accept whatever the server shows: good for looking at it only.

    Args:
        host: the name to ask the server for; addresses are not sent.
    """

    def __init__(self, host: str) -> None:
        self._host = host

    def clientConnectionForTLS(self, tlsProtocol: Any) -> Any:
        """Make a connection (see `IOpenSSLClientConnectionCreator`)."""
        context = _contextFor(lambda *shown: True, ssl.TLSVersion.TLSv1_2)
        return _connectionTo(self._host, context)


def _contextFor(verify: Any, minimum: Any, **options: Any) -> Any:
    context = ssl.CertificateOptions(raiseMinimumTo=minimum, **options).getContext()
    context.set_verify(SSL.VERIFY_PEER, verify)
    return context


def _connectionTo(host: str, context: Any) -> Any:
    connection = SSL.Connection(context, None)
    connection.set_connect_state()
    if host and not isAddress(host):
        connection.set_tlsext_host_name(host.encode("idna"))
    return connection


def clientOptions(
    host: str,
    trust: Trust,
    certificate: ssl.PrivateCertificate | None = None,
    minimum: Any = ssl.TLSVersion.TLSv1_3,
) -> Any:
    """
    Make the options of a connection over TLS to a server that may be trusted.

    Args:
        host: the name or address that the server's certificate must be for; a pinned key needs
            no name.
        trust: a fingerprint (``SHA256:...``), the path of a PEM file of certificates, a
            `twisted.internet.ssl.Certificate`; `None`: the system's certificate authorities.
        certificate: what to show to the server, or `None`.
        minimum: the oldest version of TLS, as for `serverOptions`.

    Returns:
        An `IOpenSSLClientConnectionCreator`.

    Raises:
        ValueError: `trust` is not one of these.
    """
    if certificate is None and isinstance(trust, str):
        changed = 0 if trust.startswith(PIN_PREFIX) else _changed(trust)
        return _keptOptions(host, trust, minimum, changed)
    return _makeOptions(host, trust, certificate, minimum)


@lru_cache(maxsize=256)
def _keptOptions(host: str, trust: str, minimum: Any, changed: int) -> Any:
    # To make them for each connection would take longer than a login.
    return _makeOptions(host, trust, None, minimum)


def _changed(path: Any) -> int:
    """When a file was changed last; 0 where there is none."""
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def _makeOptions(
    host: str, trust: Trust, certificate: ssl.PrivateCertificate | None, minimum: Any
) -> Any:
    if isinstance(trust, str) and trust.startswith(PIN_PREFIX):
        return PinnedKey(trust, host, certificate, minimum)
    root: Any = trust
    if isinstance(trust, (str, os.PathLike)):
        root = ssl.trustRootFromCertificates(readCertificates(trust))
    return NamedServer(host, root, certificate, minimum)


def serverOptions(
    certificate: ssl.PrivateCertificate,
    *,
    askForCertificate: bool = False,
    chain: Sequence[ssl.Certificate] = (),
    dhParameters: bytes | None = None,
    minimum: Any = ssl.TLSVersion.TLSv1_3,
) -> ssl.CertificateOptions:
    """
    Make the options of a server that takes connections over TLS.

    Args:
        certificate: the server's, with its private key.
        askForCertificate: ask clients for a certificate, for the mechanism `EXTERNAL`. Whether
            they show one is up to them; who signed it does not matter, since accounts list keys.
        chain: the certificates between the server's and its authority's.
        dhParameters: for Diffie-Hellman, in PEM; TLS 1.3 needs none.
        minimum: the oldest version to take, a `twisted.internet.ssl.TLSVersion`. TLS 1.2 can't
            bind a login to its connection, and whoever is in the middle chooses the oldest version
            that both ends take: there a relayed login succeeds.

    Returns:
        The options, for `twisted.internet.endpoints.SSL4ServerEndpoint` and similar classes.
    """
    checkType(ssl.PrivateCertificate, certificate, "certificate")
    between = listed(chain, "certificates", "chain")
    options = ssl.CertificateOptions(
        privateKey=certificate.privateKey.original,
        certificate=certificate.original,
        extraCertChain=[each.original for each in between],
        raiseMinimumTo=minimum,
        dhParameters=None if dhParameters is None else ssl.DiffieHellmanParameters(dhParameters),
    )
    if askForCertificate:
        options.getContext().set_verify(SSL.VERIFY_PEER, _takeAny)
    return options


def _takeAny(connection: Any, certificate: Any, code: int, depth: int, ok: int) -> bool:
    return True


@implementer(IHandshakeListener)
class _Handshake(Protocol):
    """Sees the certificate that a server shows, and sends nothing."""

    def __init__(self) -> None:
        self.certificate: Deferred[x509.Certificate] = Deferred()
        self.closed: Deferred[None] = Deferred()

    def handshakeCompleted(self) -> None:
        """Learn that the TLS connection is established."""
        transport: Any = self.transport
        if not self.certificate.called:
            self.certificate.callback(transport.getPeerCertificate().to_cryptography())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Learn that the connection is closed, or was never protected."""
        if not self.certificate.called:
            self.certificate.errback(reason)
        self.closed.callback(None)


async def _lookAt(reactor: Any, host: str, port: int, options: Any) -> x509.Certificate:
    endpoint = wrapClientTLS(options, HostnameEndpoint(reactor, host, port))
    handshake: Any = await endpoint.connect(Factory.forProtocol(_Handshake))
    try:
        certificate: x509.Certificate = await handshake.certificate
        if hasattr(options, "check"):
            options.check(handshake.transport.getHandle())
        return certificate
    finally:
        handshake.transport.abortConnection()
        await handshake.closed


#: What OpenSSL says of an answer that is not TLS.
_NOT_TLS = (
    "wrong version number",
    "http request",
    "packet length too long",
    "record layer failure",
)

NO_TLS = (
    "The connection could not be protected: the server does not answer in TLS. Another program "
    "listens at this address and port, or the server listens there on plain TCP. In that case, if "
    "it is on this machine, use tcp: in place of tls:."
)


def explainSSL(error: SSL.Error) -> str:
    """
    Explain in one sentence, for people, why a TLS connection failed.

    Args:
        error: of the handshake, or of a connection that broke.
    """
    details = "; ".join(str(part[-1]) for part in (error.args[0] if error.args else []) if part)
    if "protocol version" in details or "unsupported protocol" in details:
        return NO_TLS_1_3
    if any(each in details for each in _NOT_TLS):
        return NO_TLS
    if "verify failed" in details:
        return NOT_TRUSTED
    return f"The connection could not be protected: {details or 'TLS failed'}."


def fetchFingerprint(reactor: Any, host: str, port: int, timeout: float = 30) -> Deferred[str]:
    """
    Look at the key that a server shows, whoever it is: by a TLS handshake after which nothing is
    sent, over a connection that is closed again.

    Args:
        reactor: provides `IReactorTime` and what the connection needs.
        host: the name or address of the server.
        port: its port.
        timeout: seconds that it may take.

    Returns:
        Fires with the fingerprint, once the connection is closed. Fails with

        - `ServerNotTrusted`: it speaks no TLS that is safe;
        - `LoginTimeout`: it took longer;
        - `twisted.internet.error.ConnectError` and its kind: nobody listens there.
    """

    async def fetch() -> str:
        try:
            return fingerprintOf(await _lookAt(reactor, host, port, _AnyKey(host)))
        except SSL.Error as error:
            raise ServerNotTrusted(explainSSL(error)) from None

    return within(timeout, reactor, fetch())


def isVouchedFor(reactor: Any, host: str, port: int, timeout: float = 30) -> Deferred[bool]:
    """
    Ask whether the system's certificate authorities vouch for a server, in the same way.

    Args:
        reactor: as for `fetchFingerprint`, and so are the others.
        host: the name or address that the certificate must be for.
        port: its port.
        timeout: seconds that it may take.

    Returns:
        Fires with the answer; fails as `fetchFingerprint` does, but says only "no" where there
        is no TLS.
    """

    async def ask() -> bool:
        try:
            # Only looked at; for a login a newer TLS is asked for.
            options = clientOptions(host, None, minimum=ssl.TLSVersion.TLSv1_2)
            await _lookAt(reactor, host, port, options)
        except (SSL.Error, VerificationError, CertificateError, ServerNotTrusted):
            return False
        return True

    return within(timeout, reactor, ask())
