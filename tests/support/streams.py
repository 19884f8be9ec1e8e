"""Values, streams of bytes, and Twisted's and our own readers and writers of them."""

from __future__ import annotations

import collections
import enum
import struct
from collections.abc import Iterable, Iterator
from typing import Any

from hypothesis import strategies as st
from twisted.spread import banana, jelly, pb
from twisted.spread.banana import BananaError
from twisted.trial.unittest import SynchronousTestCase

from pbauth.wire.decoding import MalformedMessage, Reader
from pbauth.wire.encoding import encodeExpression
from pbauth.wire.tokens import WORDS
from tests.support.values import (
    EXPRESSIONS,
    HEADS,
    JELLIED,
    LIMIT,
    Items,
    Number,
    Word,
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
def mutated(draw: Any, streams: Any = STREAMS) -> bytes:
    """A stream with a few bytes changed, lost or doubled."""
    data: bytes = draw(streams)
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


def nested(head: bytes, depth: int) -> bytes:
    """A message of lists in lists."""
    return b"\1\x80" + (b"\2\x80" + head) * depth + b"\1\x81"


class CountingReader(Reader):
    """Counts the bytes that it is given to look at: each copy of a chunk is given once."""

    looked = 0

    def _read(self, buffer: bytes, position: int) -> None:
        self.looked += len(buffer) - position
        super()._read(buffer, position)


class ReadersTestCase(SynchronousTestCase):
    """Compares our reader with Twisted's."""

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
