"""Reading banana and plain values; for any bytes see `tests.properties.test_banana`."""

from __future__ import annotations

import sys
from itertools import count
from typing import Any

from twisted.spread import banana, jelly
from twisted.spread.banana import BananaError
from twisted.trial.unittest import SynchronousTestCase

from pbauth.wire.decoding import DEEPEST, Limits, Reader
from pbauth.wire.encoding import Encoded, encodePlain
from pbauth.wire.tokens import WORDS
from tests.support.streams import (
    FAULTS,
    CountingReader,
    Plain,
    ReadersTestCase,
    cut,
    frozen,
    nested,
    newReader,
    ourBytes,
    stockReads,
    weRead,
)
from tests.support.values import (
    LIMIT,
    stockBytes,
)


class ReadingTests(ReadersTestCase):
    """`Reader`."""

    def test_everyToken(self) -> None:
        """Each type of token there may be, with each prefix that is special."""
        for token in range(0x80, 0x100):
            for prefix in (
                b"",
                b"\0",
                b"\1",
                b"\2\0",
                b"\0\0\0",
                b"\1" * LIMIT,
                b"\1" * (LIMIT + 1),
            ):
                data = prefix + bytes((token,)) + b"\1\x81" * 8
                for sizes in ([1], [2], [1000]):
                    self.assertReadsAlike(data, sizes)

    def test_everyWord(self) -> None:
        """Each number of a word, in and out of plain messages."""
        for number in range(128):
            word = bytes((number, 0x87))
            for data in (word, b"\1\x80" + word, b"\2\x80\1\x81\2\x80" + word + b"\1\x81"):
                self.assertReadsAlike(data, [1000])

    def test_sizeLimit(self) -> None:
        """Lists and strings that are announced as too long, before they come."""
        for token in (b"\x80", b"\x82"):
            for size, error in (
                (banana.SIZE_LIMIT, None),
                (banana.SIZE_LIMIT + 1, FAULTS[BananaError]),
            ):
                data = bytes((size & 127, size >> 7 & 127, size >> 14)) + token
                for begun in (b"", b"\2\x80", b"\2\x80\2\x80\x08\x87"):
                    self.assertIs(weRead(newReader([]), [begun + data]), error)
                    self.assertIs(stockReads([begun + data], b"pb")[1], error)

    def test_prefixLimit(self) -> None:
        """It counts as soon as too many bytes are there, and may change."""
        for length, error in ((LIMIT, None), (LIMIT + 1, FAULTS[BananaError])):
            for sizes in ([1], [1000]):
                self.assertIs(weRead(newReader([]), cut(b"\1" * length, sizes)), error)
                self.assertIs(stockReads(cut(b"\1" * length, sizes), b"pb")[1], error)
        reader = newReader([])
        reader.limit = 3
        self.assertIs(weRead(reader, [b"\1\1\1\x81", b"\1\1\1\1\x81"]), FAULTS[BananaError])

    def test_emptyLists(self) -> None:
        """Lists without items, everywhere."""
        empty = b"\0\x80"
        for data in (
            empty * 3,
            b"\1\x80" + empty,
            b"\2\x80" + empty + WORDS[b"list"],
            b"\2\x80\x1a\x87" + empty,
            b"\1\x80\2\x80\x08\x87" + empty,
            b"\1\x80\2\x80\x05\x87" + empty,
            b"\1\x80\2\x80\x05\x87\2\x80" + empty * 2,
            b"\x80\x80",
        ):
            for sizes in ([1], [1000]):
                self.assertReadsAlike(data + b"\1\x80\1\x81", sizes)

    def test_almostPlain(self) -> None:
        """What is made of the words of jelly, but not as jelly does; or not as it mostly does."""
        for almost in (
            [b"None", 1],
            [b"boolean"],
            [b"boolean", b"maybe"],
            [b"boolean", b"false", 1],
            [b"boolean", b"true", b"false"],
            [b"boolean", 1],
            [b"unicode"],
            [b"unicode", b"a", b"b"],
            [b"unicode", 1],
            [b"unicode", [b"unicode", b"a"]],
            [b"remote"],
            [b"remote", 5],
            [b"remote", -5],
            [b"remote", 5, 6],
            [b"remote", b"root"],
            [b"remote", 1.5],
            [b"set", [b"remote", 5], [b"remote", 6], [b"remote", 5]],
            [b"dictionary", [[b"remote", 5], [b"remote", 6]]],
            [b"unicode", b"\xff"],
            [b"unicode", b"\xed\xa0\x80"],
            [b"dictionary", b"ab"],
            [b"dictionary", []],
            [b"dictionary", [1]],
            [b"dictionary", [1, 2, 3]],
            [b"dictionary", [[b"list"], 1]],
            [b"dictionary", [1, 2], [1, 3], [[b"boolean", b"true"], 4], [1.0, 5]],
            [b"set", 1, 1, [b"boolean", b"true"]],
            [b"set", [b"dictionary"]],
            [b"frozenset", [b"set"]],
            [b"tuple", [1]],
            [b"list", [b"tupl"]],
            [b"list", [[b"list"], 1]],
            [b"reference", 1, [b"list", [b"dereference", 1]]],
            [1.0, 2],
            b"list",
            5,
        ):
            data = stockBytes(almost) + stockBytes([almost]) + stockBytes([1, almost, [b"None"]])
            for sizes in ([1], [5], [1000]):
                self.assertReadsAlike(data + stockBytes([[b"tuple"]]), sizes)
            got: list[Any] = []
            newReader(got).feed(data + stockBytes([[b"tuple"]]))
            self.assertIsInstance(got[-1], Plain)

    def test_longList(self) -> None:
        """A list as long as may be."""
        value = [7] * (banana.SIZE_LIMIT - 1)
        data = ourBytes([b"answer", 1, Encoded(encodePlain(value, LIMIT))])
        got: list[Any] = []
        newReader(got).feed(data)
        self.assertEqual(got, [[b"answer", 1, value]])
        self.assertIsInstance(got[0], Plain)

    def test_closed(self) -> None:
        """Nothing is delivered to who does not want it any more, and nobody is held."""
        got: list[Any] = []
        reader = newReader(got)

        def receive(item: Any) -> None:
            got.append(item)
            reader.close()

        reader._receive = receive
        reader.feed(b"\1\x81\2\x81\1\x80\3\x81\xff\xff")
        self.assertEqual(got, [1])
        reader.feed(b"\4\x81")
        self.assertEqual(got, [1])
        self.assertNotIn(got, [reader._receive, reader._receivePlain])

    def test_limitsToTheLast(self) -> None:
        """As much as may be, and one more."""
        limits = Limits(longestString=20, longestList=5, deepest=4, lists=6)
        for most, more in [
            ([bytes(20)], [bytes(21)]),
            ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6]),
            ([[b"list", [b"list", [b"list"]]]], [[b"list", [b"list", [b"list", [b"list"]]]]]),
            ([*[[b"list"]] * 2, [b"list", *[[b"list"]] * 2]], [[b"list", *[[b"list"]] * 4]] * 2),
        ]:
            for message, error in ((most, None), (more, FAULTS[BananaError])):
                reader = newReader([])
                reader.limits = limits
                # Twice, since each message has them for itself.
                self.assertIs(weRead(reader, [stockBytes(message)] * 2), error)

    def test_limitsThatChange(self) -> None:
        """They count from the next message on, in the same chunk as well."""
        got: list[Any] = []
        reader = newReader(got)
        limits = [Limits(), None]
        plain = reader._receivePlain

        def receivePlain(items: list[Any]) -> bool:
            reader.limits = limits.pop(0)
            return plain(items)

        reader._receivePlain = receivePlain
        long = stockBytes([bytes(9000)])
        self.assertIs(weRead(reader, [stockBytes([1]) + long]), FAULTS[BananaError])
        reader = newReader(got)
        reader.limits = Limits()
        reader._receivePlain = receivePlain
        limits.append(None)
        self.assertIsNone(weRead(reader, [stockBytes([1]) + long]))

    def test_references(self) -> None:
        """Those that were made for a message that is not plain after all are dropped."""
        kept: list[int] = []
        dropped: list[int] = []

        def drop() -> None:
            dropped.extend(kept)
            kept.clear()

        def keep(luid: int) -> int:
            kept.append(luid)
            return luid

        got: list[Any] = []
        reader = Reader(got.append, lambda items: items[0] == 1, keep, drop)
        reader.limit = LIMIT
        reader.words = banana.Banana.incomingVocabulary
        reader.readsPlain = True
        reader.feed(stockBytes([1, [b"remote", 5]]))
        self.assertEqual((kept, dropped, got), ([5], [], []))
        kept.clear()
        # Not wanted so.
        reader.feed(stockBytes([2, [b"remote", 6]]))
        self.assertEqual((kept, dropped, got), ([], [6], [[2, [b"remote", 6]]]))
        # Not plain.
        reader.feed(stockBytes([1, [b"remote", 7], [b"local", 1]]))
        self.assertEqual((kept, dropped), ([], [6, 7]))
        # Not whole when the connection ends.
        reader.feed(stockBytes([1, [b"remote", 8], 1])[:-1])
        self.assertEqual(kept, [8])
        reader.close()
        self.assertEqual((kept, dropped), ([], [6, 7, 8]))

    def test_raised(self) -> None:
        """What the receiver raises comes out; the message after it can be read."""
        got: list[Any] = []
        reader = newReader(got)
        plain, reader._receivePlain = reader._receivePlain, lambda items: [][0]
        with self.assertRaises(IndexError):
            reader.feed(b"\2\x80\1\x81\2\x80\x08\x87\1\x81")
        reader._receivePlain = plain
        reader.feed(b"\1\x80\5\x81")
        self.assertEqual(got, [[5]])


class DepthTests(SynchronousTestCase):
    """Lists in lists in lists."""

    def test_asDeepAsTwisted(self) -> None:
        """Whatever is deep enough for Twisted's unjelly is read as plain."""
        for build in (lambda inner: [inner], lambda inner: {1: inner}, lambda inner: (inner,)):
            value: Any = 1
            for depth in count():
                deeper = build(value)
                if depth > 200:
                    try:
                        jelly.unjelly(jelly.jelly(deeper))
                    except RecursionError:
                        break
                value = deeper
            got: list[Any] = []
            newReader(got).feed(stockBytes([jelly.jelly(value)]))
            self.assertIsInstance(got[0], Plain)
            # To compare may take more of the stack than Twisted has.
            limit = sys.getrecursionlimit()
            self.addCleanup(sys.setrecursionlimit, limit)
            sys.setrecursionlimit(2 * limit)
            self.assertEqual(frozen(got[0][0]), frozen(value))
            sys.setrecursionlimit(limit)

    def test_tooDeep(self) -> None:
        """What is very deep is an expression, not a value: Python can't hash it, but ends."""
        for head in (WORDS[b"tuple"], WORDS[b"list"], b"\x09\x82frozenset"):
            for depth, kind in ((DEEPEST, Plain), (DEEPEST + 2, list), (100_000, list)):
                got: list[Any] = []
                newReader(got).feed(nested(head, depth))
                self.assertIs(type(got[0]), kind)
        # As an item of a set it would be hashed.
        for depth in (900, 100_000):
            inner = nested(WORDS[b"tuple"], depth)[2:]
            got = []
            newReader(got).feed(b"\1\x80\2\x80\3\x82set" + inner)
            self.assertEqual(len(got), 1)

    def test_deepKeys(self) -> None:
        """Keys that are too deep to be compared do no harm either."""
        key = nested(WORDS[b"tuple"], DEEPEST - 5)[2:]
        pair = b"\2\x80" + key + b"\1\x81"
        got: list[Any] = []
        newReader(got).feed(b"\1\x80\3\x80" + WORDS[b"dictionary"] + pair + pair)
        self.assertEqual(len(got), 1)


class CopyingTests(SynchronousTestCase):
    """Long messages in small chunks are not copied over and over."""

    def assertLinear(self, data: bytes, size: int) -> None:
        """Each byte is looked at a few times at most."""
        for takes in (True, False):
            got: list[Any] = []
            reader = newReader(got, takes, CountingReader)
            for chunk in cut(data, [size]):
                reader.feed(chunk)
                kept = len(reader._rest or b"") + len(reader._begun or b"")
                self.assertLessEqual(kept, len(data))
            self.assertEqual(len(got), 1)
            # Of a token that is cut: its beginning is looked at again.
            again = 80 * (len(data) // size + 1)
            self.assertLessEqual(reader.looked, 3 * len(data) + again)

    def test_longString(self) -> None:
        """A long string, alone or in a message."""
        for value in (bytes(300_000), ["x" * 300_000, 1]):
            data = stockBytes([b"answer", 1, jelly.jelly(value)])
            for size in (100, 1460):
                self.assertLinear(data, size)

    def test_manyItems(self) -> None:
        """A long list; a long list that turns out not to be plain at its end."""
        items = [[b"tuple", number, b"x"] for number in range(10_000)]
        for last in (b"x", [b"remote", 1]):
            data = stockBytes([b"answer", 1, [b"list", *items, last]])
            for size in (100, 1460):
                self.assertLinear(data, size)

    def test_manyMessages(self) -> None:
        """Many messages in one chunk that are not plain."""
        got: list[Any] = []
        reader = newReader(got, kind=CountingReader)
        message = stockBytes([b"answer", 1, [b"remote", 5]])
        reader.feed(message * 1000)
        self.assertEqual(len(got), 1000)
        self.assertIsNone(reader._rest)
        self.assertIsNone(reader._begun)

    def test_nothingKept(self) -> None:
        """Between messages nothing is kept."""
        reader = newReader([])
        data = stockBytes([b"answer", 1, [b"list", 1, 2, bytes(500)]])
        for chunk in cut(data, [7]):
            reader.feed(chunk)
        self.assertIsNone(reader._rest)
        self.assertIsNone(reader._begun)
