"""Files of public keys as people have them."""

from __future__ import annotations

from datetime import datetime, timezone

from twisted.trial.unittest import SynchronousTestCase

from pbauth import PrivateKey
from pbauth.mechanisms.keyfiles import BadKeyFile, readKeyFile
from tests.support.keys import KEY

PUBLIC = PrivateKey(KEY).publicKey
LINE = PUBLIC.line().split()[:2]
KEYLINE = " ".join(LINE)


class KeyFileTests(SynchronousTestCase):
    """What is read, and what is refused with the number of the line."""

    def test_taken(self) -> None:
        """A mark at the beginning, comments, empty lines, ends of lines, spaces."""
        text = f"\ufeff# mine\r\n\r\n  \t# indented\r\n  {KEYLINE} laptop\r\n{KEYLINE}"
        self.assertEqual([key.label for key in readKeyFile(text)], ["laptop", ""])
        self.assertEqual(readKeyFile(text), [PUBLIC, PUBLIC])
        self.assertEqual(readKeyFile(f"\ufeff{KEYLINE} a"), [PUBLIC])

    def test_options(self) -> None:
        """Options that concern a shell are left out; the time of expiry stays."""
        for options in ("no-pty", "restrict,pty", 'environment="A=\\"b c\\"",no-X11-forwarding'):
            self.assertEqual(readKeyFile(f"{options} {KEYLINE} laptop"), [PUBLIC])
        (key,) = readKeyFile(f'no-pty,expiry-time="20300101Z",restrict {KEYLINE} laptop')
        self.assertEqual(key.expires, datetime(2030, 1, 1, tzinfo=timezone.utc))
        self.assertEqual(key.label, "laptop")

    def test_refused(self) -> None:
        """What can't be taken is said in one line, with its number, and nothing of a secret."""
        for line, said in (
            (f'from="10.0.0.0/8",no-pty {KEYLINE}', "option 'from'"),
            (f'command="reboot" {KEYLINE}', "option 'command'"),
            (f"cert-authority {KEYLINE}", "option 'cert-authority'"),
            ("ssh-rsa AAAA laptop", "type ssh-rsa"),
            ("ecdsa-sha2-nistp256 AAAA", "type ecdsa-sha2-nistp256"),
            ("-----BEGIN OPENSSH PRIVATE KEY-----", "private key"),
            ("-----BEGIN PRIVATE KEY-----", "private key"),
            ("---- BEGIN SSH2 PUBLIC KEY ----", "ssh-keygen -i"),
            ("ssh-ed25519 hunter2 x", "damaged"),
            ("hunter2", "not a line"),
        ):
            with self.assertRaises(BadKeyFile) as raised:
                readKeyFile(f"# keys\n{KEYLINE}\n\n{line}\n{KEYLINE}\n")
            text = str(raised.exception)
            self.assertRegex(text, rf"^line 4: .*{said}")
            self.assertNotIn("\n", text)
            self.assertNotIn("hunter2", text)
            self.assertIsNone(raised.exception.__context__)
