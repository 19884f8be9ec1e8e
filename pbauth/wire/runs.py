"""
Runs of equal tokens: long lists of numbers, of text, or of small dictionaries with the same keys,
and long dictionaries, without a step of the interpreter for each token.

What is written and read here is what `pbauth.wire.encoding` would write, and `pbauth.wire.decoding`
read, item by item.  Items are *scalars* (`int`, `str`, `bool`, `float`, `None`), or *records*:
dictionaries of scalars.  Columns of them are taken together: all keys, or all values of one key.  A
run ends where anything is out of the ordinary, and the writer or the reader goes on there, item by
item.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Collection, Iterable
from contextlib import suppress
from functools import partial
from itertools import chain, repeat
from operator import add
from typing import Any

from attrs import frozen
from twisted.spread.banana import Banana

#: Shorter runs are not worth the look.
SHORTEST = 32

#: So many lists are open, at most, inside of the list that a run is in.
DEPTH = 3

#: The words of the dialect ``pb``, whose tokens may be in runs.
WORDS = Banana.incomingVocabulary

#: The longest prefix that a token in a run has.
PREFIX = 5

# So many numbers are known by their digits, or the other way round.
_MOST_KNOWN = 32_768

_VOCABULARY = Banana.outgoingVocabulary
_VOCABULARY_TEXTS = frozenset(word.decode() for word in _VOCABULARY)
_WORDS = {word: bytes((number, 0x87)) for word, number in _VOCABULARY.items()}
_INTS = re.compile(rb"(?:[\x00-\x7f]{1,%d}\x81){%d,}" % (PREFIX, SHORTEST - 1))
_TEXT = b"\x02\x80\x07\x82unicode"
_PAIR = b"\x02\x80"
_PAIR_OF_TEXT = _PAIR + _TEXT
_FLOAT = b"\x84"
_RECORD = b"\x80" + _WORDS[b"dictionary"]
_LARGEST = 2**31 - 1
_SMALLEST = -(2**31)
# A text of a run has fewer bytes than this, and so many stand in front of it.
_LONG = 128
_BEFORE_TEXT = len(_TEXT) + 2


class _Numbers(dict[bytes, int]):
    """Numbers, by their digits."""

    def __missing__(self, digits: bytes) -> int:
        number = 0
        for digit in reversed(digits):
            number = number << 7 | digit
        if len(self) < _MOST_KNOWN:
            self[digits] = number
        return number


class _Tokens(dict[int, bytes]):
    """The tokens of numbers of 31 bits and a sign; others are a `KeyError`."""

    def __missing__(self, number: int) -> bytes:
        if not _SMALLEST <= number <= _LARGEST:
            raise KeyError(number)
        digits = bytearray()
        left = abs(number)
        while left:
            digits.append(left & 0x7F)
            left >>= 7
        token = (bytes(digits) or b"\0") + (b"\x81" if number >= 0 else b"\x83")
        if len(self) < _MOST_KNOWN:
            self[number] = token
        return token


class _Scalars(dict[bytes, Any]):
    """Scalars that are no text, and a few texts, by their tokens; others are a `KeyError`."""

    def __missing__(self, token: bytes) -> int:
        digits, kind = token[:-1], token[-1:]
        if not 0 < len(digits) <= PREFIX or not digits.isascii():
            raise KeyError(token)
        if kind == b"\x81":
            number = _NUMBERS[digits]
        elif kind == b"\x83":
            number = -_NUMBERS[digits]
        else:
            raise KeyError(token)
        if len(self) < _MOST_KNOWN:
            self[token] = number
        return number


_NUMBERS = _Numbers()
_TOKENS = _Tokens()
_CONSTANTS: dict[Any, bytes] = {
    None: b"\x01\x80" + _WORDS[b"None"],
    True: _PAIR + b"\x07\x82boolean\x04\x82true",
    False: _PAIR + b"\x07\x82boolean\x05\x82false",
}
# What stands in front of short text, by its length, and the end of that; and text that is a word of
# the dialect.
_HEADS = {length: _TEXT + bytes((length, 0x82)) for length in range(_LONG)}
_SHORT_HEADS = {length: bytes((length, 0x82)) for length in range(_LONG)}
_WORD_TEXTS = {word: _TEXT + token for word, token in _WORDS.items()}
_SCALARS = _Scalars(
    {
        **{token: value for value, token in _CONSTANTS.items()},
        **{token: word.decode() for word, token in _WORD_TEXTS.items()},
    }
)


# Writing.


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
    return b"".join(chain.from_iterable(zip(repeat(_PAIR), keys, values)))


def _encodeRecords(records: Collection[dict[Any, Any]], seen: set[int]) -> bytes | None:
    ids = set(map(id, records))
    if len(ids) < len(records) or not ids.isdisjoint(seen):
        return None
    shapes = set(map(tuple, records))
    first = next(iter(shapes))
    if len(shapes) > 1 or not 0 < len(first) < _LONG - 1:
        return None
    keys = _encodeColumn(first)
    columns = [_encodeColumn(column) for column in zip(*map(dict.values, records), strict=False)]
    if keys is None or None in columns:
        return None
    head = bytes((len(first) + 1,)) + _RECORD
    parts = [repeat((_PAIR if number else head + _PAIR) + key) for number, key in enumerate(keys)]
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
            return list(map(add, map(_HEADS.__getitem__, map(len, texts)), texts))
        if kinds <= {bool, type(None)}:
            return list(map(_CONSTANTS.__getitem__, values))
        if kinds <= _ENCODERS.keys():
            return [_ENCODERS[type(value)](value) for value in values]
    except KeyError:
        pass
    return None


def _encodeText(text: str) -> bytes:
    data = text.encode()
    return _WORD_TEXTS.get(data) or _HEADS[len(data)] + data


_ENCODERS: dict[type, Any] = {
    int: _TOKENS.__getitem__,
    str: _encodeText,
    float: partial(struct.pack, "!cd", _FLOAT),
    bool: _CONSTANTS.__getitem__,
    type(None): _CONSTANTS.__getitem__,
}


# Reading.


def readItems(
    buffer: bytes, position: int, most: int, *, spoken: bool = False
) -> tuple[list[Any], int]:
    """
    Read a run of the items of a list.

    Args:
        buffer: what was received.
        position: where the next item begins.
        most: how many items there may be.
        spoken: the dialect has the words of ``pb``.

    Returns:
        The items of the run, and where it ends. Both may be as if there were none.
    """
    run = _INTS.match(buffer, position)
    if run is not None:
        tokens = run.group().split(b"\x81", most)
        rest = tokens.pop()
        return list(map(_NUMBERS.__getitem__, tokens)), run.end() - len(rest)
    if buffer.startswith(_TEXT, position):
        _, *texts = buffer[position:].split(_TEXT, most + 1)
        # What follows the last one is not known.
        texts.pop()
        items: list[Any] = _readTexts(texts, _SHORT_HEADS)
        end = position + sum(map(len, texts[: len(items)])) + len(_TEXT) * len(items)
        if len(items) == len(texts) < most:
            with suppress(_Cut, KeyError):
                stop = _scalarEnd(buffer, end, spoken)
                items.append(_readScalar(buffer[end:stop], spoken))
                end = stop
        return items, end
    if spoken and buffer.startswith(_RECORD, position + 1):
        return _readRecords(buffer, position, most)
    return [], position


def readPairs(
    buffer: bytes, position: int, most: int, *, spoken: bool = False
) -> tuple[dict[str, Any], int, int]:
    """
    Read a run of the keys and values of a dictionary, of text and scalars.

    Args:
        buffer: what was received.
        position: where the next pair begins.
        most: how many pairs there may be.
        spoken: the dialect has the words of ``pb``.

    Returns:
        The pairs of the run, how many they were, and where it ends.
    """
    if not buffer.startswith(_PAIR_OF_TEXT, position):
        return {}, 0, position
    _, *pairs = buffer[position:].split(_PAIR_OF_TEXT, most + 1)
    pairs.pop()
    try:
        keys = _readTexts([pair[: pair[0] + 2] for pair in pairs], _SHORT_HEADS)
        values = _readColumn([pair[pair[0] + 2 :] for pair in pairs], spoken)
    except IndexError:
        return {}, 0, position
    count = min(len(keys), len(values))
    end = position + sum(map(len, pairs[:count])) + len(_PAIR_OF_TEXT) * count
    found = dict(zip(keys, values, strict=False))
    if count == len(pairs) < most:
        with suppress(_Cut, KeyError):
            key, value, end = _readPair(buffer, end, spoken)
            found[key] = value
            count += 1
    return found, count, end


def isCut(buffer: bytes, position: int, kind: type, *, spoken: bool = False) -> bool:
    """
    Return whether what was received ends in the middle of an item that may belong to a run.

    Args:
        buffer: what was received.
        position: where the item begins.
        kind: `dict`, if it is a pair of such; else it is an item of a list.
        spoken: the dialect has the words of ``pb``.
    """
    try:
        if kind is dict:
            _readPair(buffer, position, spoken)
        else:
            if spoken:
                with suppress(KeyError):
                    _readRecord(buffer, position)
                    return False
            _scalarEnd(buffer, position, spoken)
    except _Cut:
        return True
    except KeyError:
        pass
    return False


class _Cut(Exception):
    """The buffer ends in the middle of something."""


def _after(expected: bytes, buffer: bytes, position: int) -> int:
    """Return where these bytes end, if they are there."""
    if buffer.startswith(expected, position):
        return position + len(expected)
    if expected.startswith(buffer[position : position + len(expected)]):
        raise _Cut
    raise KeyError(position)


def _scalarEnd(buffer: bytes, position: int, spoken: bool) -> int:
    """Return where a scalar ends; a `KeyError`: there is none that a run may hold."""
    end = len(buffer)
    head = buffer[position : position + _BEFORE_TEXT]
    if head.startswith(_TEXT) and len(head) == _BEFORE_TEXT:
        length, token = head[-2:]
        if token == 0x82 and length < _LONG:
            return _whole(position + _BEFORE_TEXT + length, end)
        if spoken and head in _SCALARS:
            return position + _BEFORE_TEXT
        raise KeyError(position)
    if _TEXT.startswith(head[: len(_TEXT)]):
        raise _Cut
    for constant in _CONSTANTS.values() if spoken else ():
        if buffer.startswith(constant, position):
            return position + len(constant)
        if constant.startswith(buffer[position : position + len(constant)]):
            raise _Cut
    for at in range(position, min(end, position + PREFIX + 1)):
        if buffer[at] in (0x81, 0x83) and at > position:
            return at + 1
        if buffer[at] == 0x84 and at == position:
            return _whole(at + 9, end)
        if buffer[at] >= 0x80:
            raise KeyError(position)
    if end - position > PREFIX:
        raise KeyError(position)
    raise _Cut


def _whole(stop: int, end: int) -> int:
    if stop > end:
        raise _Cut
    return stop


def _readPair(buffer: bytes, position: int, spoken: bool) -> tuple[Any, Any, int]:
    """Read a key and a value, and return where they end; a `KeyError`: a run can't hold them."""
    begin = _after(_PAIR, buffer, position)
    middle = _scalarEnd(buffer, begin, spoken)
    end = _scalarEnd(buffer, middle, spoken)
    key = _readScalar(buffer[begin:middle], spoken)
    return key, _readScalar(buffer[middle:end], spoken), end


@frozen
class _Record:
    """
    A record.

    Attributes:
        pairs: its keys and values.
        parts: the bytes in front of each value.
        end: where it ends.
    """

    pairs: dict[Any, Any]
    parts: list[bytes]
    end: int


def _readRecord(buffer: bytes, position: int) -> _Record:
    """Read a record; a `KeyError`: a run can't hold it."""
    pairs, parts = {}, []
    if not 1 < buffer[position] < 0x80:
        raise KeyError(position)
    start, at = position, _after(_RECORD, buffer, position + 1)
    for _ in range(buffer[position] - 1):
        key, value, end = _readPair(buffer, at, spoken=True)
        pairs[key] = value
        parts.append(buffer[start : _scalarEnd(buffer, at + len(_PAIR), spoken=True)])
        start = at = end
    if len(pairs) < len(parts):
        # Some have the same key.
        raise KeyError(position)
    return _Record(pairs, parts, at)


def _readRecords(buffer: bytes, position: int, most: int) -> tuple[list[Any], int]:
    try:
        model = _readRecord(buffer, position)
    except (_Cut, KeyError):
        return [], position
    first, *others = model.parts
    _, *records = buffer[position:].split(first, most + 1)
    # What follows the last one is not known.
    records.pop()
    columns, rests = [], records
    for part in others:
        split = [rest.split(part, 1) for rest in rests]
        if min(map(len, split), default=2) < 2:
            del split[next(number for number, each in enumerate(split) if len(each) < 2) :]
        columns.append([value for value, _ in split])
        rests = [rest for _, rest in split]
    columns.append(rests)
    values = [_readColumn(column, spoken=True) for column in columns]
    rows = zip(*values, strict=False)
    items = list(map(dict, map(zip, repeat(list(model.pairs)), rows)))
    end = position + sum(map(len, records[: len(items)])) + len(first) * len(items)
    if len(items) == len(records) < most:
        with suppress(_Cut, KeyError):
            last = _readRecord(buffer, end)
            items.append(last.pairs)
            end = last.end
    return items, end


def _readTexts(texts: list[bytes], heads: dict[int, bytes]) -> list[str]:
    """Read texts with such heads, up to the first that is out of the ordinary."""
    start = len(heads[0])
    contents = [text[start:] for text in texts]
    begins = [text[:start] for text in texts]
    wanted = list(map(heads.get, map(len, contents)))
    if begins != wanted:
        good = next(number for number, begin in enumerate(begins) if begin != wanted[number])
        del contents[good:]
    try:
        return list(map(bytes.decode, contents))
    except UnicodeDecodeError:
        return []


def _readColumn(tokens: list[bytes], spoken: bool) -> list[Any]:
    """Read scalars, up to the first that is out of the ordinary."""
    if tokens and tokens[0].startswith(_TEXT):
        texts = _readTexts(tokens, _HEADS)
        if len(texts) == len(tokens):
            return texts
    try:
        if spoken:
            return list(map(_SCALARS.__getitem__, tokens))
    except KeyError:
        pass
    found: list[Any] = []
    for token in tokens:
        try:
            found.append(_readScalar(token, spoken))
        except KeyError:
            break
    return found


def _readScalar(token: bytes, spoken: bool) -> Any:
    """Read a scalar; a `KeyError`: it is out of the ordinary."""
    if token.startswith(_TEXT) and token not in _SCALARS:
        for text in _readTexts([token], _HEADS):
            return text
    elif token.startswith(_FLOAT) and len(token) == 9:
        return struct.unpack_from("!d", token, 1)[0]
    elif spoken or token[-1:] in (b"\x81", b"\x83"):
        return _SCALARS[token]
    raise KeyError(token)
