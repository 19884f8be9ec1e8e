"""Certificates that are made here."""

from __future__ import annotations

import datetime

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from twisted.trial.unittest import SynchronousTestCase

from pbauth.net.certificates import makeCertificate


class MakeTests(SynchronousTestCase):
    """A server's own certificate."""

    def setUp(self) -> None:
        """Make one."""
        self.made = x509.load_pem_x509_certificate(makeCertificate())

    def test_endEntity(self) -> None:
        """Its key signs handshakes, and no other certificate."""
        extensions = self.made.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints)
        self.assertTrue(constraints.critical)
        self.assertFalse(constraints.value.ca)
        usage = extensions.get_extension_for_class(x509.KeyUsage)
        self.assertTrue(usage.critical)
        self.assertTrue(usage.value.digital_signature)
        self.assertFalse(usage.value.key_cert_sign)
        self.assertFalse(usage.value.crl_sign)
        self.assertEqual(
            set(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value),
            {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH},
        )

    def test_life(self) -> None:
        """It lasts as long as it is asked to, ten years by default."""
        life = self.made.not_valid_after_utc - self.made.not_valid_before_utc
        self.assertEqual(life, datetime.timedelta(days=3650))
        brief = x509.load_pem_x509_certificate(makeCertificate(days=2))
        self.assertEqual(
            brief.not_valid_after_utc - brief.not_valid_before_utc, datetime.timedelta(days=2)
        )
