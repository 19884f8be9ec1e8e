"""The one rule for names."""

from __future__ import annotations

import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pbauth import InvalidName
from pbauth.names import checkName


class NameTests(SynchronousTestCase):
    """1 to 255 bytes of UTF-8, without control characters."""

    def test_good(self) -> None:
        """Names come back as they are."""
        for name in (
            "a",
            "a" * 255,
            "é" * 127,
            "Zoë",
            "日本語",
            " a b ",
            "a/b",
            "'; --",
            "\U0001f511",
        ):
            self.assertEqual(checkName(name), name)

    def test_types(self) -> None:
        """Anything but a `str` is a `TypeError`."""
        for name in (b"a", None, 5, ["a"]):
            with self.assertRaises(TypeError):
                checkName(name)

    def test_bad(self) -> None:
        """Each breach of the rule is told in one line."""
        for name in ("", "a" * 256, "é" * 128, "\0", "a\n", "\x7f", "\x85", "\u2028", "\ud800"):
            with self.assertRaises(InvalidName) as raised:
                checkName(name, "name of a service")
            self.assertIn("name of a service", str(raised.exception))
            self.assertNotIn("\n", str(raised.exception))

    @settings(max_examples=200)
    @given(st.text(st.characters(), max_size=300))
    def test_any(self, name: str) -> None:
        """A text is a name, or an `InvalidName`; a name can be written on one line."""
        try:
            checkName(name)
        except InvalidName:
            return
        self.assertLessEqual(len(name.encode()), 255)
        self.assertNotIn("Cc", map(unicodedata.category, name))
        self.assertEqual(len(name.splitlines()), 1)
