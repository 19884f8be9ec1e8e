"""
Where a server listens: endpoint strings, with TLS and the PROXY protocol put in their right order.

A load balancer writes the header of the PROXY protocol before anything else, so it has to be read
before the TLS handshake; Twisted's own ``haproxy:ssl:`` looks for it behind.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import field, frozen
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import crypto
from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    AdoptedStreamServerEndpoint,
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    serverFromString,
)
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from pbauth._files import exposure
from pbauth.net.addresses import isLocal, isLoopback
from pbauth.net.certificates import privateCertificate, readCertificates
from pbauth.net.proxy import ProxiedEndpoint
from pbauth.net.servercertificate import ServerCertificate
from pbauth.net.strports import readDescription, spelledOut
from pbauth.net.trust import TLS_VERSIONS, serverOptions

_log = Logger()

#: Where a server listens by default.
DEFAULT_PORT = "ssl:8787:interface=127.0.0.1"

_PLAIN_TCP = ("tcp", "tcp4", "tcp6")
_SSL_FIELDS = frozenset(
    {
        "port",
        "interface",
        "backlog",
        "privateKey",
        "certKey",
        "extraCertChain",
        "dhParameters",
        "minimumTLS",
        "systemd",
    }
)


class NotProtected(ValueError):
    """The port would take logins from other machines without TLS."""

    def __init__(self, description: str) -> None:
        super().__init__(
            f"{description} would take connections from other machines without TLS. "
            "Use ssl: instead of tcp:, or --insecure if you must."
        )


@implementer(IStreamServerEndpoint)
@frozen
class TLSEndpoint:
    """
    An endpoint that speaks TLS on top of another one.

    Attributes:
        endpoint: the other one.
        certificate: makes the TLS connections.
    """

    endpoint: Any
    certificate: ServerCertificate

    def listen(self, protocolFactory: Any) -> Deferred[Any]:
        """Listen (see `IStreamServerEndpoint`)."""
        listening: Deferred[Any] = self.endpoint.listen(
            TLSMemoryBIOFactory(self.certificate, False, protocolFactory)
        )
        return listening


@frozen
class Port:
    """
    Somewhere to listen.

    Attributes:
        description: as the user wrote it.
        endpoint: an `IStreamServerEndpoint`.
        fingerprint: of the server's key, where it speaks TLS with one certificate; else `None`.
        insecure: plain connections from other machines are wanted.
        secure: it speaks TLS.
        certificate: the one that it shows; `None` where that is not known here.
        minimumTLS: the oldest version of TLS that it takes, ``"1.2"`` or ``"1.3"``.
    """

    description: str
    endpoint: Any
    fingerprint: str | None
    insecure: bool
    secure: bool = field(kw_only=True)
    certificate: ServerCertificate | None = field(default=None, kw_only=True)
    minimumTLS: str = field(default="1.3", kw_only=True)

    @secure.default
    def _speaksTLS(self) -> bool:
        return self.fingerprint is not None

    def check(self, address: Any) -> None:
        """
        Check where it turned out to listen.

        Args:
            address: of the listening port.

        Raises:
            NotProtected: others can connect without TLS.
        """
        if not (self.secure or self.insecure or isLocal(address)):
            raise NotProtected(self.description)


@frozen
class Ports:
    """
    Reads descriptions of endpoints.

    Attributes:
        reactor: will listen.
        ownCertificate: returns the server's own certificate, for an ``ssl:`` that names no file.
        ownPath: of the file that has it; `None`: it is not read again when it changes.
        insecure: plain connections from other machines are wanted.
        proxyProtocol: every connection comes from a load balancer, and begins with its header.
        askForCertificate: ask clients for a certificate, for the mechanism `EXTERNAL`.
    """

    reactor: Any
    ownCertificate: Callable[[], ssl.PrivateCertificate]
    ownPath: str | None = field(default=None, kw_only=True)
    insecure: bool = field(default=False, kw_only=True)
    proxyProtocol: bool = field(default=False, kw_only=True)
    askForCertificate: bool = field(default=False, kw_only=True)

    def read(self, description: str) -> Port:
        """
        Read a description.

        Args:
            description: ``"ssl:8787"``, and whatever else Twisted knows: ``tcp:``, ``unix:``,
                ``systemd:``, and ``haproxy:`` in front of any.

        Returns:
            The port.

        Raises:
            NotProtected: others could connect without TLS.
            ValueError: it makes no sense, or a file that it names can't be used.
        """
        proxied, inner = self.proxyProtocol, description
        while inner.startswith("haproxy:"):
            proxied, inner = True, inner.partition(":")[2]
        kind, named, positional = readDescription(inner)
        certificate: ServerCertificate | None = None
        if kind == "ssl":
            endpoint, certificate = self._ssl(inner, named, positional)
        else:
            if kind == "tls":
                _checkFolder(inner, named.get("path", positional[0] if positional else ""))
            endpoint = _fromString(self.reactor, spelledOut(inner))
            interface = named.get("interface", [*positional, "", ""][1])
            if kind in _PLAIN_TCP and not (self.insecure or isLoopback(interface)):
                raise NotProtected(description)
        if proxied:
            endpoint = ProxiedEndpoint(endpoint, self.reactor)
        if certificate is None:
            # Twisted's own tls: takes a folder of certificates, and speaks TLS with each.
            return Port(description, endpoint, None, self.insecure, secure=kind == "tls")
        return Port(
            description,
            TLSEndpoint(endpoint, certificate),
            certificate.fingerprint,
            self.insecure,
            certificate=certificate,
            minimumTLS=named.get("minimumTLS", "1.3"),
        )

    def _ssl(
        self, description: str, named: dict[str, str], positional: list[str]
    ) -> tuple[Any, ServerCertificate]:
        fields = {**dict(zip(("port", "privateKey", "certKey"), positional, strict=False)), **named}
        unknown = sorted(fields.keys() - _SSL_FIELDS)
        if unknown or len(positional) > 3:
            known = ", ".join(sorted(_SSL_FIELDS))
            raise ValueError(f"{description!r}: an ssl: port takes {known}, and nothing else.")
        if "systemd" in fields:
            endpoint: Any = self._passed(description, fields)
        else:
            endpoint = self._opened(description, fields)
        key = fields.get("privateKey")
        if key is None and "certKey" in fields:
            raise ValueError(f"{description!r}: certKey= needs privateKey=, the file of its key.")
        minimum = fields.get("minimumTLS", "1.3")
        if minimum not in TLS_VERSIONS:
            raise ValueError(f"{description!r}: minimumTLS is 1.3 (the default) or 1.2.")
        if minimum == "1.2":
            _log.warn(
                "{description} accepts TLS 1.2, which can't bind a login to its connection: a man "
                "in the middle can relay a login, and act in the client's place. Remove "
                "minimumTLS=1.2 as soon as all clients support TLS 1.3.",
                description=description,
            )
        certificatePath = fields.get("certKey", key)
        chain, parameters = fields.get("extraCertChain"), fields.get("dhParameters")

        def load() -> ssl.CertificateOptions:
            if key is None or certificatePath is None:
                certificate, between = self.ownCertificate(), list[ssl.Certificate]()
            else:
                certificate, between = _load(key, certificatePath)
            return serverOptions(
                certificate,
                askForCertificate=self.askForCertificate,
                chain=between if chain is None else [*between, *readCertificates(chain)],
                dhParameters=None if parameters is None else _readBytes(parameters),
                minimum=TLS_VERSIONS[minimum],
            )

        read = (chain, key, certificatePath, self.ownPath if key is None else None)
        paths = dict.fromkeys(path for path in read if path is not None)
        return endpoint, ServerCertificate(load, list(paths))

    def _opened(self, description: str, fields: dict[str, str]) -> Any:
        port, backlog = fields.get("port", ""), fields.get("backlog", "50")
        if not (_isNumber(port) and int(port) < 65_536 and _isNumber(backlog)):
            raise ValueError(f"{description!r} names no port. One that works: {DEFAULT_PORT}")
        interface = fields.get("interface", "")
        listens = TCP6ServerEndpoint if ":" in interface else TCP4ServerEndpoint
        return listens(self.reactor, int(port), int(backlog), interface)

    def _passed(self, description: str, fields: dict[str, str]) -> Any:
        """Return the endpoint of a socket that systemd has opened, and passes to this program."""
        if fields.keys() & {"port", "interface", "backlog"}:
            raise ValueError(f"{description!r}: systemd has chosen the port.")
        index, endpoint = fields["systemd"], None
        if _isNumber(index):
            try:
                # By Twisted's own parser, since only the first who looks finds the sockets.
                endpoint = serverFromString(self.reactor, f"systemd:domain=INET:index={index}")
            except LookupError:
                pass
        if not isinstance(endpoint, AdoptedStreamServerEndpoint):
            raise ValueError(
                f"{description!r}: systemd has not passed such a socket. The first one is "
                "systemd=0."
            )
        with socket.socket(fileno=os.dup(endpoint.fileno)) as found:
            endpoint.addressFamily = found.family
        return endpoint


def _checkFolder(description: str, folder: str) -> None:
    """Check that there are certificates: Twisted looks for them when a client comes."""
    if not folder or not any(Path(folder).rglob("*.pem")):
        raise ValueError(
            f"{description!r}: there is no *.pem in the folder {folder!r}, where tls: looks for "
            f"certificates. For the server's own certificate: {DEFAULT_PORT}"
        )
    for path in sorted(Path(folder).rglob("*.pem")):
        _readKey(str(path))


def _fromString(reactor: Any, description: str) -> Any:
    try:
        return serverFromString(reactor, description)
    except (ValueError, TypeError, KeyError, LookupError, AttributeError) as mistake:
        raise ValueError(
            f"{description!r} is not an endpoint ({mistake}). One that works: {DEFAULT_PORT}"
        ) from None
    except crypto.Error:
        raise ValueError(
            f"{description!r}: a *.pem in the folder holds what is no certificate and no key."
        ) from None


def _readBytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ValueError(f"Can't read {path}: {error.strerror}.") from None


def _readKey(path: str) -> bytes:
    """
    Read the file of a private key that an operator named, unless others can write to it, or put
    another one in its place. That others can read it is for the log alone: a group often may, and a
    server that has run for years must not stop by an upgrade.
    """
    try:
        with open(path, "rb") as file:
            found, data = os.fstat(file.fileno()), file.read()
            what = f"Other users can replace the private key in {path}"
            problem = exposure(path, found, what, forbidden=stat.S_IWGRP | stat.S_IWOTH)
    except OSError as error:
        raise ValueError(f"Can't read {path}: {error.strerror}.") from None
    if problem is not None:
        raise ValueError(problem)
    if found.st_mode & stat.S_IROTH and b"PRIVATE KEY-" in data:
        _log.warn(
            "Any user of this machine can read the private key in {path}, and act as this server "
            "elsewhere (mode {mode:04o}). Run: chmod o-r {path}",
            path=path,
            mode=stat.S_IMODE(found.st_mode),
        )
    return data


def _isNumber(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _load(
    keyPath: str, certificatePath: str
) -> tuple[ssl.PrivateCertificate, list[ssl.Certificate]]:
    """Load a key and its certificate; and the certificates behind that one in its file."""
    keyPEM = _readKey(keyPath)
    key = None
    try:
        key = load_pem_private_key(keyPEM, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # Raised below, without the chain: the cause may show what is in the files.
        pass
    if key is None:
        raise ValueError(f"{keyPath} must contain a private key in PEM, without a passphrase.")
    certificate, *between = readCertificates(certificatePath)
    return privateCertificate(key, certificate.original.to_cryptography()), between
