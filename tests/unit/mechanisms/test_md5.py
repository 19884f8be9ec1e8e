"""The scheme of Twisted 1.x."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.spread import pb
from twisted.trial.unittest import SynchronousTestCase

import pbauth
from pbauth.mechanisms import md5
from pbauth.mechanisms.md5 import MD5Verifier
from tests.support.sources import nodesOf


class MD5Tests(SynchronousTestCase):
    """Challenge and response as in the seed."""

    @settings(max_examples=50)
    @given(st.text(), st.binary(max_size=40))
    def test_respond(self, password: str, challenge: bytes) -> None:
        """Our response is that of stock Twisted, and our verifier accepts it."""
        raw = password.encode("utf-8", "replace")
        password = raw.decode()
        response = md5.respond(password, challenge)
        self.assertEqual(response, pb.respond(challenge, raw))
        verifier = MD5Verifier.fromPassword(password)
        self.assertTrue(verifier.accepts(challenge, response))
        self.assertFalse(verifier.accepts(challenge + b"x", response))
        self.assertFalse(verifier.accepts(challenge, response[:-1]))

    def test_text(self) -> None:
        """As text it comes back the same; other texts are refused."""
        verifier = MD5Verifier.fromPassword("secret")
        self.assertEqual(MD5Verifier.decode(verifier.encode()), verifier)
        for bad in ("", "PB-MD5$", "PB-MD5$!", "PB-MD5$AAAA", "SCRAM$AAAAAAAAAAAAAAAAAAAAAA=="):
            with self.assertRaises(ValueError):
                MD5Verifier.decode(bad)

    def test_secret(self) -> None:
        """The verifier is not shown: it is as good as the password."""
        verifier = MD5Verifier.fromPassword("secret")
        self.assertNotIn(repr(hashlib.md5(b"secret").digest()), repr(verifier))  # noqa: S324

    def test_noMD5Elsewhere(self) -> None:
        """No other module of the package hashes by MD5."""
        package = Path(pbauth.__file__).parent
        callers = {
            path.relative_to(package).as_posix()
            for path in package.rglob("*.py")
            for node in nodesOf(path)
            if (
                (isinstance(node, ast.Attribute) and node.attr in ("md5", "respond_md5"))
                and isinstance(node.value, ast.Name)
                and node.value.id == "hashlib"
            )
            or (isinstance(node, ast.Constant) and node.value == "md5" and "mech" not in path.name)
            or (isinstance(node, ast.ImportFrom) and node.module == "hashlib")
        }
        self.assertEqual(callers, {"mechanisms/md5.py"})
