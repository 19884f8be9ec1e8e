"""The certificates of a server expire."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pbauth import Audit
from pbauth.server.certificateexpiry import LOOK, WARNED_BEFORE, CertificateService

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
DAY = timedelta(days=1)


class ExpiryTests(SynchronousTestCase):
    """One port, and time that passes."""

    def service(self, left: timedelta) -> CertificateService:
        """The service, of a certificate that is good for so long."""
        self.events: list[Any] = []
        self.refreshed = 0
        self.clock = Clock()
        self.certificate = SimpleNamespace(expires=NOW + left, refresh=self.refresh)
        certificates: Any = {"ssl:8787": self.certificate}
        return CertificateService(
            self.clock,
            certificates,
            Audit(self.events.append),
            lambda: NOW + timedelta(seconds=self.clock.seconds()),
        )

    def refresh(self) -> None:
        self.refreshed += 1

    def test_past(self) -> None:
        """The server does not start with one that no client would trust."""
        for left in (-DAY, timedelta(0)):
            with self.assertRaises(SystemExit) as raised:
                self.service(left).privilegedStartService()
            self.assertIn("The certificate of ssl:8787 has expired on", str(raised.exception))

    def test_soon(self) -> None:
        """From two weeks before on there are warnings, in the log and in the audit log."""
        service = self.service(WARNED_BEFORE + DAY)
        service.privilegedStartService()
        service.startService()
        self.assertEqual(self.events, [])
        self.clock.pump([LOOK] * 3)
        self.assertEqual(len(self.events), 1)
        (event,) = self.events
        self.assertEqual(
            (event["event"], event["port"], event["expires"]),
            ("certificate.expiring", "ssl:8787", "2026-01-16T00:00:00+00:00"),
        )
        # It was renewed.
        self.certificate.expires = NOW + 90 * DAY
        self.clock.pump([LOOK] * 10)
        self.assertEqual(len(self.events), 1)
        self.assertEqual(self.refreshed, 14)
        service.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
