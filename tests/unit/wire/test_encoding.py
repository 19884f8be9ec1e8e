"""Writing plain values; for any values see `tests.properties.test_banana`."""

from __future__ import annotations

import sys
from typing import Any

from twisted.spread import banana, jelly
from twisted.spread.banana import BananaError
from twisted.trial.unittest import SynchronousTestCase

from pbauth.wire.encoding import NotPlain, encodePlain
from pbauth.wire.tokens import WORDS
from tests.support.streams import (
    OTHERS,
    ourBytes,
    outcome,
)
from tests.support.values import (
    LARGEST,
    LIMIT,
    stockBytes,
)


class WritingTests(SynchronousTestCase):
    """`encodePlain` and `encodeExpression`."""

    def test_words(self) -> None:
        """Words with a number have it as `bytes`, as `str`, and as types."""
        for word in WORDS:
            for value in (word, word.decode(), [word], {word: word.decode()}):
                self.assertEqual(encodePlain(value, LIMIT), stockBytes(jelly.jelly(value)))

    def test_lengths(self) -> None:
        """Lengths about which the number of bytes of a prefix changes."""
        for length in (0, 1, 126, 127, 128, 129, 16382, 16383, 16384, 16385, 2**17):
            for value in (bytes(length), "x" * length, [0] * length, {"": (0,) * length}):
                self.assertEqual(encodePlain(value, LIMIT), stockBytes(jelly.jelly(value)))

    def test_surrogates(self) -> None:
        """Half a surrogate pair fails as in Twisted."""
        for value in ("\ud800", ["\udfff"], {"a\udc80": 1}):
            with self.assertRaises(UnicodeEncodeError):
                encodePlain(value, LIMIT)
            with self.assertRaises(UnicodeEncodeError):
                jelly.jelly(value)

    def test_others(self) -> None:
        """Whatever is of another type, be it a subclass, is not plain."""
        for other in OTHERS:
            for value in (other, [other], ({"a": other},)):
                with self.assertRaises(NotPlain):
                    encodePlain(value, LIMIT)
            if other is not OTHERS[7] and getattr(type(other), "__hash__", None):
                with self.assertRaises(NotPlain):
                    encodePlain({other: 1}, LIMIT)

    def test_tooDeep(self) -> None:
        """What is too deep to write is too deep for Twisted as well."""
        value: list[Any] = []
        for _ in range(2 * sys.getrecursionlimit()):
            value = [value]
        with self.assertRaises(RecursionError):
            encodePlain(value, LIMIT)
        with self.assertRaises(RecursionError):
            jelly.jelly(value)

    def test_limits(self) -> None:
        """What is as large as can be sent is sent; what is larger is not plain."""
        self.patch(banana, "SIZE_LIMIT", 200)
        for most, more in [
            (bytes(200), bytes(201)),
            ("x" * 200, "x" * 201),
            ("ä" * 100, "ä" * 101),
            ([0] * 199, [0] * 200),
            ((0,) * 199, (0,) * 200),
            (dict.fromkeys(range(199)), dict.fromkeys(range(200))),
            (set(range(199)), set(range(200))),
            (LARGEST, LARGEST + 1),
            (-LARGEST, -LARGEST - 1),
            (0, 1 << 1_000_000),
        ]:
            self.assertEqual(encodePlain(most, LIMIT), stockBytes(jelly.jelly(most)))
            with self.assertRaises(NotPlain):
                encodePlain(more, LIMIT)
            with self.assertRaises((BananaError, ValueError)):
                stockBytes(jelly.jelly(more))

    def test_sizeLimit(self) -> None:
        """The limit that there is, in truth."""
        most = bytes(banana.SIZE_LIMIT)
        self.assertEqual(encodePlain(most, LIMIT), stockBytes(most))
        for more in (most + b"x", [0] * banana.SIZE_LIMIT):
            with self.assertRaises(NotPlain):
                encodePlain(more, LIMIT)

    def test_otherPrefixLimit(self) -> None:
        """The limit of numbers is that of the connection."""
        encodePlain(2**35 - 1, 5)
        with self.assertRaises(NotPlain):
            encodePlain(2**35, 5)

    def test_expressionsTooLarge(self) -> None:
        """So do those that are too large."""
        for expression in (bytes(30), [0] * 30, (0,) * 30):
            expected = outcome(stockBytes, expression)
            self.assertEqual(outcome(ourBytes, expression), expected)
            self.patch(banana, "SIZE_LIMIT", 29)
            expected = outcome(stockBytes, expression)
            self.assertIs(expected[0], BananaError)
            self.assertEqual(outcome(ourBytes, expression), expected)
            self.patch(banana, "SIZE_LIMIT", 30)
