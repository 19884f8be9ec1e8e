"""
The certificate that a port shows, read again when its files change.

Certificates are renewed every few weeks by some other program, which replaces the
files.  A change is noticed with the next connection, or when somebody asks (SIGHUP): no
timer runs, and connections that are up keep what they have.  A pair that can't be used - key and
certificate are two files, and for a moment only one of them is new - changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from OpenSSL import SSL
from twisted.internet import ssl
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from zope.interface import implementer

from pbauth.errors import StoreError
from pbauth.net.fingerprints import fingerprintOf

_log = Logger()

_Signature = tuple[tuple[int, ...] | None, ...]


@implementer(IOpenSSLServerConnectionCreator)
class ServerCertificate:
    """
    Make the TLS connections of a port, with the certificate that its files hold now.

    Args:
        load: reads the files, and makes the options of the connections.
        paths: of the files; empty: nothing is ever read again.

    Raises:
        ValueError: the files can't be used, as `load` has it.
    """

    def __init__(
        self, load: Callable[[], ssl.CertificateOptions], paths: Sequence[str] = ()
    ) -> None:
        self._read = load
        self._paths = tuple(paths)
        self._seen = self._look()
        self._options = self._load()
        if None in self._seen:
            # It has just been made.
            self._seen = self._look()

    @property
    def fingerprint(self) -> str:
        """Return the fingerprint of the key, ``SHA256:...``."""
        return fingerprintOf(self._certificate)

    @property
    def expires(self) -> datetime:
        """When the certificate expires."""
        moment: datetime = self._certificate.not_valid_after_utc
        return moment

    @property
    def _certificate(self) -> Any:
        certificate: Any = self._options.certificate
        return certificate.to_cryptography()

    def refresh(self) -> None:
        """Read the files again if they have changed; log what can't be used, and keep what is."""
        seen = self._look()
        if seen == self._seen:
            return
        self._seen = seen
        before = self.fingerprint
        try:
            if None in seen:
                # Whoever makes a file that is missing would make another key.
                raise ValueError(f"there is no {self._paths[seen.index(None)]}")
            self._options = self._load()
        except (ValueError, StoreError) as mistake:
            _log.error(
                "The certificate has changed and can't be used, so the old one stays: {mistake}",
                mistake=mistake,
            )
            return
        _log.info(
            "The certificate in {path} was read again. It expires on {expires:%Y-%m-%d}{key}",
            path=self._paths[-1],
            expires=self.expires,
            key="" if self.fingerprint == before else f", and has the new key {self.fingerprint}",
        )

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """Make a connection (see `IOpenSSLServerConnectionCreator`)."""
        self.refresh()
        return SSL.Connection(self._options.getContext(), None)

    def _load(self) -> ssl.CertificateOptions:
        options = self._read()
        try:
            # Now, and not with the first client.
            options.getContext()
        except SSL.Error as error:
            raise ValueError(
                f"OpenSSL does not take this certificate: {_reasons(error)}."
            ) from None
        return options

    def _look(self) -> _Signature:
        return tuple(map(_signatureOf, self._paths))


def _reasons(error: SSL.Error) -> str:
    return "; ".join(str(part[-1]) for part in (error.args[0] if error.args else []) if part)


def _signatureOf(path: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev
