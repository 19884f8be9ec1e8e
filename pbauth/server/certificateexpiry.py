"""The certificates that a server shows: when they expire."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from pbauth.audit import Audit
from pbauth.net.servercertificate import ServerCertificate
from pbauth.server.services import EarlyService, stop

_log = Logger()

#: So long before a certificate expires, its operator is warned.
WARNED_BEFORE = timedelta(days=14)

#: How often the certificates are looked at, in seconds.
LOOK = 12 * 3600.0


def _now() -> datetime:
    return datetime.now(timezone.utc)


class CertificateService(EarlyService):
    """
    Warn before the certificates of a server expire.

    Args:
        reactor: of the server.
        certificates: by the descriptions of their ports.
        audit: where it is recorded.
        now: returns the time of day.
    """

    def __init__(
        self,
        reactor: Any,
        certificates: Mapping[str, ServerCertificate],
        audit: Audit,
        now: Callable[[], datetime] = _now,
    ) -> None:
        self._certificates = certificates
        self._audit = audit
        self._now = now
        self._loop = LoopingCall(self._look)
        self._loop.clock = reactor

    def begin(self) -> None:
        """End the program if a certificate has expired: no client would trust it."""
        for port, certificate in self._certificates.items():
            if certificate.expires <= self._now():
                stop(
                    f"The certificate of {port} has expired on {certificate.expires:%Y-%m-%d}. "
                    "Renew it."
                )

    def startService(self) -> None:
        """Begin to look."""
        super().startService()
        self._loop.start(LOOK)

    def stopService(self) -> None:
        """Look no more."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()

    def _look(self) -> None:
        for port, certificate in self._certificates.items():
            certificate.refresh()
            if certificate.expires - self._now() < WARNED_BEFORE:
                self._audit.certificateExpiring(port, certificate.expires)
                _log.warn(
                    "The certificate of {port} expires on {expires:%Y-%m-%d}. Renew it: the server "
                    "reads the new one by itself.",
                    port=port,
                    expires=certificate.expires,
                )
