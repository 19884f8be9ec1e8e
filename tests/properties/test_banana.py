"""
Banana and plain values in one pass, against Twisted's own two.

Whatever Twisted's banana and jelly make of a value, or of bytes, `pbauth.wire` makes of it, too; or
leaves it to them.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.spread import jelly
from twisted.trial.unittest import SynchronousTestCase

from pbauth.wire.calllimits import CallLimits
from pbauth.wire.decoding import Limits, Reader
from pbauth.wire.encoding import Encoded, NotPlain, encodePlain
from pbauth.wire.tokens import WORDS
from tests.support.streams import (
    OTHERS,
    SIZES,
    STREAMS,
    Flag,
    Plain,
    ReadersTestCase,
    cut,
    frozen,
    isShared,
    mutated,
    newReader,
    ourBytes,
    outcome,
    stockReads,
    weRead,
)
from tests.support.values import (
    BYTES,
    INTS,
    LARGEST,
    LIMIT,
    RUNS,
    VALUES,
    examples,
    parts,
    stockBytes,
)


def callWith(values: list[Any]) -> bytes:
    """An answer that holds these values, as Twisted writes it."""
    return stockBytes([b"answer", 1, *map(jelly.jelly, values)])


class WritingTests(SynchronousTestCase):
    """`encodePlain` and `encodeExpression`."""

    @examples(150)
    @given(VALUES)
    def test_plain(self, value: Any) -> None:
        """A plain value comes to Twisted's bytes."""
        try:
            encoded = encodePlain(value, LIMIT)
        except NotPlain:
            self.assertTrue(
                isShared(value)
                or any(type(part) is int and abs(part) > LARGEST for part in parts(value))
            )
        else:
            self.assertEqual(encoded, stockBytes(jelly.jelly(value)))

    @examples(100)
    @given(RUNS)
    def test_runs(self, value: Any) -> None:
        """Long runs of equal items, and of nearly equal ones, come to Twisted's bytes."""
        self.assertEqual(encodePlain(value, LIMIT), stockBytes(jelly.jelly(value)))

    @examples(100)
    @given(st.lists(VALUES, min_size=1, max_size=3), st.data())
    def test_shared(self, values: list[Any], data: Any) -> None:
        """What is held twice, or holds itself, is not plain, however deep."""
        shared = data.draw(st.sampled_from([[], {}, set(), (1,), frozenset([1])]))
        values.insert(data.draw(st.integers(0, len(values))), shared)
        for value in ([values, shared], {"a": values, "b": [shared]}, (values, (shared,))):
            with self.assertRaises(NotPlain):
                encodePlain(value, LIMIT)
        values.append(values)
        with self.assertRaises(NotPlain):
            encodePlain(values, LIMIT)
        mapping: dict[Any, Any] = {}
        mapping[1] = (mapping,)
        with self.assertRaises(NotPlain):
            encodePlain(mapping, LIMIT)

    def test_sharedRecords(self) -> None:
        """A dictionary that is held twice is not plain, in a long list of such either."""
        records = [{"a": number} for number in range(60)]
        for value in (
            [*records, records[30]],
            [records[7], records],
            [records, records[7]],
            [records, [*records]],
            (records[3], [{"b": records[3]}], records[:2]),
        ):
            with self.assertRaises(NotPlain):
                encodePlain(value, LIMIT)
        self.assertEqual(
            encodePlain([records, {"a": 1}], LIMIT), stockBytes(jelly.jelly([records, {"a": 1}]))
        )

    def test_shortPrefixes(self) -> None:
        """Where prefixes are short, numbers of a run that are too long are not sent."""
        for value in (
            [2**20] * 50,
            [{"a": 2**20} for _ in range(50)],
            dict.fromkeys(range(50), 2**20),
        ):
            with self.assertRaises(NotPlain):
                encodePlain(value, 2)

    @examples(150)
    @given(
        st.recursive(
            st.one_of(INTS, st.floats(), BYTES, st.booleans())
            | st.sampled_from([*OTHERS, None, "text", 2**449, -(2**449), Flag(0)]),
            lambda inner: st.lists(inner, max_size=4) | st.lists(inner, max_size=4).map(tuple),
            max_leaves=8,
        )
    )
    def test_expressions(self, expression: Any) -> None:
        """Any expression comes to Twisted's bytes, or its error, in each dialect."""
        for dialect, words in ((b"pb", WORDS), (b"none", {})):
            self.assertEqual(
                outcome(ourBytes, expression, words), outcome(stockBytes, expression, dialect)
            )

    @examples(50)
    @given(st.lists(VALUES, max_size=3))
    def test_encoded(self, values: list[Any]) -> None:
        """What is encoded already goes out as it is."""
        try:
            expression = [b"answer", 1, *(Encoded(encodePlain(value, LIMIT)) for value in values)]
        except NotPlain:
            return
        self.assertEqual(
            ourBytes(expression), stockBytes([b"answer", 1, *map(jelly.jelly, values)])
        )


class ReadingTests(ReadersTestCase):
    """`Reader`."""

    @examples(150)
    @given(STREAMS, SIZES)
    def test_streams(self, data: bytes, sizes: list[int]) -> None:
        """Any stream, in any chunks."""
        self.assertReadsAlike(data, sizes)

    @examples(150)
    @given(mutated(), SIZES)
    def test_mutated(self, data: bytes, sizes: list[int]) -> None:
        """Any stream that came to harm."""
        self.assertReadsAlike(data, sizes)

    @examples(150)
    @given(st.lists(st.binary(min_size=1, max_size=30), max_size=4))
    def test_anyBytes(self, chunks: list[bytes]) -> None:
        """Any bytes."""
        data = b"".join(chunks)
        self.assertReadsAlike(data, [len(chunk) for chunk in chunks] or [1])

    @examples(100)
    @given(mutated(st.lists(RUNS, max_size=2).map(callWith)), SIZES)
    def test_runs(self, data: bytes, sizes: list[int]) -> None:
        """Long runs of items that are alike, or nearly so, also if they came to harm."""
        self.assertReadsAlike(data, sizes)

    def test_wrongLengthsInRuns(self) -> None:
        """Text in a run has the length that stands in front of it, or the run ends."""
        data = callWith([["text"] * 60])
        for place in (5, 30, 50):
            start = [match.start() for match in re.finditer(rb"\x04\x82text", data)][place]
            for length in (0, 3, 5, 9, 127):
                wrong = data[:start] + bytes((length,)) + data[start + 1 :]
                self.assertReadsAlike(wrong, [len(wrong)])

    def test_keysTwiceInRuns(self) -> None:
        """A dictionary in a run that has a key twice is read as Twisted reads it."""
        a, b = [b"unicode", b"a"], [b"unicode", b"b"]
        record = [b"dictionary", [a, 1], [a, 2], [b, 3]]
        data = ourBytes([b"answer", 1, [b"list", *[record] * 60]])
        for size in (len(data), 7):
            self.assertReadsAlike(data, [size])

    @examples(60)
    @given(st.lists(RUNS, min_size=1, max_size=2), SIZES, st.booleans())
    def test_runsAsPlain(self, values: list[Any], sizes: list[int], limited: bool) -> None:
        """They are read as plain, and at once, whatever the chunks are."""
        got: list[Any] = []
        reader = newReader(got)
        if limited:
            reader.limits = CallLimits(None, 1, None, 2**20, lambda: 0.0, Counter()).reading(None)
        for chunk in cut(callWith(values), sizes):
            reader.feed(chunk)
        self.assertEqual([frozen(each) for each in got], [frozen(Plain([b"answer", 1, *values]))])

    @examples(60)
    @given(st.lists(st.lists(VALUES, max_size=3), max_size=4), SIZES)
    def test_readAsPlain(self, messages: list[list[Any]], sizes: list[int]) -> None:
        """What was written as plain is read as plain, and is what it was."""
        try:
            data = b"".join(
                ourBytes([b"message", 1, *(Encoded(encodePlain(value, LIMIT)) for value in values)])
                for values in messages
            )
        except NotPlain:
            return
        got: list[Any] = []
        self.assertIsNone(weRead(newReader(got), cut(data, sizes)))
        self.assertEqual(
            [frozen(message) for message in got],
            [frozen(Plain([b"message", 1, *values])) for values in messages],
        )

    @examples(60)
    @given(mutated(), SIZES)
    def test_withoutWords(self, data: bytes, sizes: list[int]) -> None:
        """Where no dialect with words was agreed on."""
        expected, stockError = stockReads(cut(data, sizes), b"none")
        got: list[Any] = []
        reader = Reader(got.append, lambda _: self.fail("It is not to be read as plain."))
        reader.limit = LIMIT
        self.assertIs(weRead(reader, cut(data, sizes)), stockError)
        self.assertEqual(frozen(got), frozen(expected))

    @examples(100)
    @given(mutated(), SIZES, st.sampled_from([Limits(), Limits(20, 5, 4, 6)]))
    def test_limits(self, data: bytes, sizes: list[int], limits: Limits) -> None:
        """What a peer may send that is not trusted does not depend on how it is cut."""
        seen = []
        for chunks in ([data] if data else [], list(cut(data, sizes))):
            got: list[Any] = []
            reader = newReader(got)
            reader.limits = limits
            error = weRead(reader, chunks)
            seen.append((error, frozen(got)))
            for item in got:
                self.assertTrue(isinstance(item, Plain) or type(item) is not list or not item)
        self.assertEqual(seen[1], seen[0])
