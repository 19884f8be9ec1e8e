"""Values and expressions that hypothesis makes, and what Twisted writes for them."""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from twisted.internet.testing import StringTransport
from twisted.spread import banana, jelly

from pbauth.wire.tokens import WORDS

#: For a long run: so many times as many examples.
MORE = int(os.environ.get("PBAUTH_EXAMPLES", "1"))


def examples(number: int) -> Any:
    """Settings of hypothesis."""
    return settings(max_examples=number * MORE)


#: The most bytes of a prefix, by default.
LIMIT = 64
LARGEST = 2 ** (7 * LIMIT) - 1

# What is plain.

BYTES = st.binary(max_size=20) | st.sampled_from(sorted(WORDS)) | st.just(bytes(200))
TEXTS = (
    st.text(max_size=10)
    | st.sampled_from(sorted(word.decode() for word in WORDS))
    | st.sampled_from(["", "x" * 127, "x" * 128, "ä" * 64, "\0"])
)
INTS = st.integers(-(2**40), 2**40) | st.sampled_from(
    [
        sign * (number + one)
        for number in (0, 127, 128, 2**14, 2**31 - 1, 2**31, 2**63, LARGEST - 1)
        for one in (-1, 0, 1)
        for sign in (1, -1)
    ]
)
SCALARS = st.one_of(st.none(), st.booleans(), INTS, st.floats(), BYTES, TEXTS)
KEYS = st.recursive(
    SCALARS,
    lambda inner: st.frozensets(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple),
    max_leaves=4,
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(KEYS, inner, max_size=4),
        st.sets(KEYS, max_size=3),
        st.frozensets(KEYS, max_size=3),
    ),
    max_leaves=12,
)

#: What the items of a long list or dictionary are, by their number.
_ALIKE: tuple[Any, ...] = (
    lambda number: number,
    lambda number: number * 977,
    lambda number: 2**31 - 40 + number,
    lambda number: 2**35 - 40 + number,
    lambda number: f"item {number}",
    lambda number: "x" * (100 + number),
    lambda number: "ä" * (number % 70),
    lambda number: "",
    lambda number: -number,
    lambda number: number / 7,
    lambda number: (True, False, None)[number % 3],
    lambda number: (number, -number, "text", 0.5, None, True)[number % 6],
    lambda number: ("list", "a word", "tuple")[number % 3],
    lambda number: {"name": f"user {number}", "x": -number, "ok": number % 2 == 0, "note": None},
    lambda number: {"message": "list", "score": number / 3, "any": (number, "text")[number % 2]},
    lambda number: {"a": number, "b": "x"} if number % 50 else {"b": "x", "a": number},
    lambda number: {"a": "x" * (number % 130), "long": 2**40 * (number == 60)},
    lambda number: {"a": 1, "bytes": b"abc"} if number % 70 == 69 else {"a": 1, "bytes": "abc"},
    lambda number: {"a": "text", "list": [number] if number % 40 == 39 else 5},
    lambda number: {number: "a key that is no text", "b": None},
    lambda number: {},
)


def _alike(kind: Any, count: int, odd: list[tuple[int, Any]], what: Callable[[Any], Any]) -> Any:
    items = [kind(number) for number in range(count)]
    for place, item in odd:
        items.insert(place, item)
    if what is dict:
        return {f"key {number}": item for number, item in enumerate(items)}
    if what is zip:
        return {item: number for number, item in enumerate(items) if type(item) not in (dict, list)}
    if what is set:
        return {item for item in items if type(item) in (int, str)}
    return what(items)


#: Long runs of items that are equal, or nearly so.
RUNS = st.builds(
    _alike,
    st.sampled_from(_ALIKE),
    st.integers(28, 140),
    st.lists(st.tuples(st.integers(0, 140), SCALARS | st.builds(lambda: [1])), max_size=3),
    st.sampled_from((list, tuple, dict, set, zip)),
)


class Number(enum.IntEnum):
    ONE = 1


class Word(str):
    __slots__ = ()


class Items(list[Any]):
    pass


def parts(value: Any) -> Iterator[Any]:
    """A plain value, and all that it holds."""
    yield value
    if isinstance(value, dict):
        for item in value.items():
            yield from parts(item[0])
            yield from parts(item[1])
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from parts(item)


def stockBanana(dialect: bytes = b"pb") -> Any:
    """Twisted's own, past the greeting."""
    stock = banana.Banana()
    stock.makeConnection(StringTransport())
    stock._selectDialect(dialect)
    return stock


def stockBytes(expression: Any, dialect: bytes = b"pb") -> bytes:
    """What Twisted writes."""
    stock = stockBanana(dialect)
    stock.sendEncoded(expression)
    return stock.transport.value()


JELLIED = VALUES.map(jelly.jelly)
#: Expressions that look like jelly.
HEADS = st.sampled_from(
    [
        *(b"None", b"boolean", b"unicode", b"list", b"tuple", b"dictionary", b"set", b"frozenset"),
        *(b"reference", b"dereference", b"remote", b"true", b"false", b"message", b"answer", b""),
        *(b"\xff", b"datetime", b"decimal", b"no.such.Thing", b"ab"),
    ]
)

EXPRESSIONS = st.recursive(
    st.one_of(st.integers(-9, 9), INTS.filter(lambda number: abs(number) <= LARGEST))
    | st.floats()
    | HEADS
    | BYTES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(HEADS, inner).map(list),
        st.builds(lambda head, items: [head, *items], HEADS, st.lists(inner, max_size=3)),
        st.lists(st.tuples(inner, inner).map(list), max_size=2).map(
            lambda pairs: [b"dictionary", *pairs]
        ),
        JELLIED,
    ),
    max_leaves=8,
)


def withinLimits(expression: Any) -> bool:
    """Whether it can be sent."""
    return not any(type(part) is int and abs(part) > LARGEST for part in parts(expression))
