"""
Banana and plain values in one pass, against Twisted's own two.

Whatever Twisted's banana and jelly make of a value, or of bytes, `pbauth.wire` makes of it, too; or
leaves it to them.
"""

from __future__ import annotations

import collections
import enum
import struct
import sys
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.spread import banana, jelly, pb
from twisted.spread.banana import BananaError
from twisted.trial.unittest import SynchronousTestCase

from pbauth.wire.decoding import DEEPEST, Limits, MalformedMessage, Reader
from pbauth.wire.encoding import WORDS, Encoded, NotPlain, encodeExpression, encodePlain
from tests.support.values import (
    BYTES,
    EXPRESSIONS,
    HEADS,
    INTS,
    JELLIED,
    LARGEST,
    LIMIT,
    VALUES,
    Items,
    Number,
    Word,
    examples,
    parts,
    stockBanana,
    stockBytes,
    withinLimits,
)

# What is plain, and what is like it.


class Flag(enum.IntFlag):
    ONE = 1


class Data(bytes):
    pass


class Real(float):
    pass


Point = collections.namedtuple("Point", "x y")

#: Of subclasses, and of other types.
OTHERS = [
    Number.ONE,
    Flag.ONE,
    Word("list"),
    Data(b"list"),
    Real(1.5),
    Items([1]),
    Point(1, 2),
    collections.OrderedDict(a=1),
    collections.defaultdict(int),
    collections.Counter("a"),
    bytearray(b"a"),
    memoryview(b"a"),
    1j,
    range(3),
    object(),
    int,
    len,
    ...,
]


def isShared(value: Any) -> bool:
    """Whether a plain value holds something in two places."""
    held = [
        id(part) for part in parts(value) if isinstance(part, (list, tuple, dict, set, frozenset))
    ]
    return len(set(held)) < len(held)


def ourBytes(expression: Any, words: dict[bytes, bytes] = WORDS) -> bytes:
    """What `encodeExpression` writes."""
    pieces: list[bytes] = []
    encodeExpression(expression, pieces.append, LIMIT, words)
    return b"".join(pieces)


def outcome(function: Any, *arguments: Any) -> Any:
    """What a function returns, or what it raises."""
    try:
        return function(*arguments)
    except (BananaError, ValueError) as error:
        return type(error), str(error)


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


# Reading.

TOKENS = st.builds(
    lambda prefix, token, payload: prefix + bytes((token,)) + payload,
    st.binary(max_size=3).map(lambda data: bytes(byte & 0x7F for byte in data))
    | st.integers(0, LIMIT + 3).map(lambda length: b"\1" * length)
    | st.integers(0, 3).map(lambda number: bytes((number,))),
    st.integers(0x80, 0x88) | st.integers(0x80, 0xFF),
    st.binary(max_size=10),
)


CALLS = (
    st.builds(
        lambda head, items: [head, *items], HEADS, st.lists(JELLIED | EXPRESSIONS, max_size=4)
    )
    .filter(withinLimits)
    .map(stockBytes)
)
STREAMS = st.lists(
    CALLS
    | CALLS
    | EXPRESSIONS.filter(withinLimits).map(stockBytes)
    | TOKENS
    | st.lists(TOKENS, min_size=1, max_size=5).map(b"".join),
    max_size=5,
).map(b"".join)


@st.composite
def mutated(draw: Any) -> bytes:
    """A stream with a few bytes changed, lost or doubled."""
    data = draw(STREAMS)
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(data)))
        new = draw(st.binary(max_size=2))
        data = data[:place] + new + data[place + draw(st.integers(0, 2)) :]
    return data


def cut(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    """Cut it into chunks of these sizes, over and over."""
    place = turn = 0
    while place < len(data):
        size = sizes[turn % len(sizes)]
        yield data[place : place + size]
        place += size
        turn += 1


SIZES = st.just([1]) | st.just([10**9]) | st.lists(st.integers(1, 40), min_size=1, max_size=6)


def frozen(value: Any) -> Any:
    """To compare by: with types, the bits of numbers, and the order of what has one."""
    if isinstance(value, float):
        return struct.pack("!d", value)
    if isinstance(value, dict):
        return dict, [(frozen(key), frozen(item)) for key, item in value.items()]
    if isinstance(value, (set, frozenset)):
        return type(value), sorted(repr(frozen(item)) for item in value)
    if isinstance(value, (list, tuple)):
        return type(value), [frozen(item) for item in value]
    if isinstance(value, pb.RemoteReference):
        return pb.RemoteReference, value.luid
    return type(value), value


def stockReads(chunks: Iterable[bytes], dialect: bytes) -> tuple[list[Any], Any]:
    """The expressions that Twisted reads, and the error that ends it (see `fault`)."""
    got: list[Any] = []
    stock = stockBanana(dialect)
    stock.expressionReceived = got.append
    try:
        for chunk in chunks:
            stock.dataReceived(chunk)
    except Exception as error:
        return got, fault(error)
    return got, None


#: How the texts of our one error begin, by the class of Twisted's in its place.
FAULTS = {
    BananaError: "Security precaution: ",
    NotImplementedError: "Invalid ",
    KeyError: "There is no word ",
}


def fault(error: Exception) -> Any:
    """What is wrong with the bytes; where it is something else, the class of the error."""
    if isinstance(error, MalformedMessage):
        (begins,) = (begins for begins in FAULTS.values() if str(error).startswith(begins))
        return begins
    return FAULTS.get(type(error), type(error))


class Invoker:
    """As much of a broker as references take."""

    unserializingPerspective = None

    def sendDecRef(self, luid: Any) -> None:
        """A reference is gone."""


INVOKER: Any = Invoker()


def makeReference(luid: int) -> Any:
    """A reference to an object of the peer's."""
    return pb.RemoteReference(None, INVOKER, luid, 1)


class Plain(list[Any]):
    """A message whose values were read."""


def newReader(got: list[Any], takes: bool = True, kind: type[Reader] = Reader) -> Reader:
    """A reader past the greeting, in the dialect ``pb``."""

    def receivePlain(items: list[Any]) -> bool:
        if takes:
            got.append(Plain(items))
        return takes

    reader = kind(got.append, receivePlain, makeReference)
    reader.limit = LIMIT
    reader.words = banana.Banana.incomingVocabulary
    reader.readsPlain = True
    return reader


def weRead(reader: Reader, chunks: Iterable[bytes]) -> Any:
    """Read, and give the error that ends it (see `fault`); it is never one of Twisted's."""
    try:
        for chunk in chunks:
            reader.feed(chunk)
    except MalformedMessage as error:
        return fault(error)
    except Exception as error:
        return type(error)
    return None


class ReadingTests(SynchronousTestCase):
    """`Reader`."""

    def assertReadsAlike(self, data: bytes, sizes: list[int]) -> None:
        """Read as Twisted does; and the same messages as plain as in one chunk."""
        whole: list[Any] = []
        weRead(newReader(whole), [data])
        expected, stockError = stockReads(cut(data, sizes), b"pb")
        for takes in (True, False):
            got: list[Any] = []
            error = weRead(newReader(got, takes), cut(data, sizes))
            self.assertEqual(len(got), len(expected))
            self.assertEqual(error, stockError)
            for ours, stock in zip(got, expected, strict=True):
                if isinstance(ours, Plain):
                    # Without references each part is unjellied for itself.
                    stock = [
                        jelly.unjelly(part, jelly.globalSecurity, invoker=INVOKER) for part in stock
                    ]
                    ours = list(ours)
                self.assertEqual(frozen(ours), frozen(stock))
            if takes:
                self.assertEqual([type(item) for item in got], [type(item) for item in whole])

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
        reader._receive = lambda item: (got.append(item), reader.close())
        reader.feed(b"\1\x81\2\x81\1\x80\3\x81\xff\xff")
        self.assertEqual(got, [1])
        reader.feed(b"\4\x81")
        self.assertEqual(got, [1])
        self.assertNotIn(got, [reader._receive, reader._receivePlain])

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


def nested(head: bytes, depth: int) -> bytes:
    """A message of lists in lists."""
    return b"\1\x80" + (b"\2\x80" + head) * depth + b"\1\x81"


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
            self.assertEqual(frozen(got[0][0]), frozen(value))

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


class CountingReader(Reader):
    """Counts the bytes that it is given to look at: each copy of a chunk is given once."""

    looked = 0

    def _read(self, buffer: bytes, position: int) -> None:
        self.looked += len(buffer) - position
        super()._read(buffer, position)


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
