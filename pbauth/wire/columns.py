"""
Long lists of numbers, of text, or of small dictionaries with the same keys, and long dictionaries,
written without a step of the interpreter for each token.

What is written here is what `pbauth.wire.encoding` would write, item by item; `pbauth.wire.runs`
tells what scalars, records and columns are, and reads them.  Where anything is out of the ordinary,
nothing is written, and the writer goes on item by item.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable
from functools import partial
from itertools import chain, repeat
from operator import add
from typing import Any

from pbauth.wire.runs import CONSTANTS, HEADS, LONG, MOST_KNOWN, RECORD, WORD_TEXTS
from pbauth.wire.tokens import FLOAT_HEAD, LARGEST_INT, PAIR, SMALLEST_INT, WORDS, digitsOf

_VOCABULARY_TEXTS = frozenset(word.decode() for word in WORDS)


class _Tokens(dict[int, bytes]):
    """The tokens of numbers of 31 bits and a sign; others are a `KeyError`."""

    def __missing__(self, number: int) -> bytes:
        if not SMALLEST_INT <= number <= LARGEST_INT:
            raise KeyError(number)
        token = digitsOf(abs(number)) + (b"\x81" if number >= 0 else b"\x83")
        if len(self) < MOST_KNOWN:
            self[number] = token
        return token


_TOKENS = _Tokens()


def encodeItems(items: Collection[Any], seen: set[int]) -> bytes | None:
    """
    Write the items of a list.

    Args:
        items: scalars, or records with the same keys.
        seen: the ids of the lists and dictionaries in the message; those of the records are added.

    Returns:
        Their tokens; `None`: some are something else, or too large, or there twice.
    """
    kinds = set(map(type, items))
    if kinds == {dict}:
        return _encodeRecords(items, seen)
    column = _encodeColumn(items, kinds)
    return None if column is None else b"".join(column)


def encodePairs(pairs: dict[Any, Any]) -> bytes | None:
    """
    Write the keys and values of a dictionary.

    Args:
        pairs: of scalars.

    Returns:
        Their tokens; `None`: some are something else, or too large.
    """
    values = _encodeColumn(pairs.values())
    keys = None if values is None else _encodeColumn(pairs)
    if keys is None or values is None:
        return None
    return b"".join(chain.from_iterable(zip(repeat(PAIR), keys, values)))


def _encodeRecords(records: Collection[dict[Any, Any]], seen: set[int]) -> bytes | None:
    ids = set(map(id, records))
    if len(ids) < len(records) or not ids.isdisjoint(seen):
        return None
    shapes = set(map(tuple, records))
    first = next(iter(shapes))
    if len(shapes) > 1 or not 0 < len(first) < LONG - 1:
        return None
    keys = _encodeColumn(first)
    columns = [_encodeColumn(column) for column in zip(*map(dict.values, records), strict=False)]
    if keys is None or None in columns:
        return None
    head = bytes((len(first) + 1,)) + RECORD
    parts = [repeat((PAIR if number else head + PAIR) + key) for number, key in enumerate(keys)]
    seen |= ids
    # Each part is repeated as often as there are values.
    pieces: list[Iterable[Any]] = [*chain.from_iterable(zip(parts, columns, strict=True))]  # type: ignore[list-item]
    return b"".join(chain.from_iterable(zip(*pieces, strict=False)))


def _encodeColumn(values: Collection[Any], kinds: set[type] | None = None) -> list[bytes] | None:
    """Return the tokens of scalars; `None`: some are something else, or too large."""
    if kinds is None:
        kinds = set(map(type, values))
    try:
        if kinds == {int}:
            return list(map(_TOKENS.__getitem__, values))
        # Text keeps its hash, once it is known.
        if kinds == {str} and _VOCABULARY_TEXTS.isdisjoint(values):
            texts = list(map(str.encode, values))
            return list(map(add, map(HEADS.__getitem__, map(len, texts)), texts))
        if kinds <= {bool, type(None)}:
            return list(map(CONSTANTS.__getitem__, values))
        if kinds <= _ENCODERS.keys():
            return [_ENCODERS[type(value)](value) for value in values]
    except KeyError:
        pass
    return None


def _encodeText(text: str) -> bytes:
    data = text.encode()
    return WORD_TEXTS.get(data) or HEADS[len(data)] + data


_ENCODERS: dict[type, Any] = {
    int: _TOKENS.__getitem__,
    str: _encodeText,
    float: partial(struct.pack, "!cd", FLOAT_HEAD),
    bool: CONSTANTS.__getitem__,
    type(None): CONSTANTS.__getitem__,
}
