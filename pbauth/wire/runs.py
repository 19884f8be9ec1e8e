"""
Runs of equal tokens: long lists of numbers, of text, or of small dictionaries with the same keys,
and long dictionaries, read without a step of the interpreter for each token.

What is read here is what `pbauth.wire.decoding` would read, item by item, and `pbauth.wire.columns`
writes.  Items are *scalars* (`int`, `str`, `bool`, `float`, `None`), or *records*: dictionaries of
scalars.  Columns of them are taken together: all keys, or all values of one key.  A run ends where
anything is out of the ordinary, and the reader goes on there, item by item.
"""

from __future__ import annotations

import re
import struct
from contextlib import suppress
from itertools import repeat
from typing import Any

from attrs import frozen
from twisted.spread.banana import Banana

from pbauth.wire.tokens import FALSE, FLOAT_HEAD, NONE, PAIR, TEXT, TRUE, WORDS

#: Shorter runs are not worth the look.
SHORTEST = 32

#: So many lists are open, at most, inside of the list that a run is in.
DEPTH = 3

#: The words of the dialect ``pb``, whose tokens may be in runs.
VOCABULARY = Banana.incomingVocabulary

#: The longest prefix that a token in a run has.
PREFIX = 5

#: A text of a run has fewer bytes than this.
LONG = 128

#: So many numbers are known by their digits, or the other way round.
MOST_KNOWN = 32_768

#: The beginning of a record, after the number of its items.
RECORD = b"\x80" + WORDS[b"dictionary"]

#: The constants, and what they come to.
CONSTANTS: dict[Any, bytes] = {None: NONE, True: TRUE, False: FALSE}

#: Text that is a word of the dialect, and what it comes to.
WORD_TEXTS = {word: TEXT + token for word, token in WORDS.items()}

#: What stands in front of short text, by its length.
HEADS = {length: TEXT + bytes((length, 0x82)) for length in range(LONG)}

# The end of that.
_SHORT_HEADS = {length: bytes((length, 0x82)) for length in range(LONG)}
_INTS = re.compile(rb"(?:[\x00-\x7f]{1,%d}\x81){%d,}" % (PREFIX, SHORTEST - 1))
_PAIR_OF_TEXT = PAIR + TEXT
# So many bytes stand in front of a text.
_BEFORE_TEXT = len(TEXT) + 2


class _Numbers(dict[bytes, int]):
    """Numbers, by their digits."""

    def __missing__(self, digits: bytes) -> int:
        number = 0
        for digit in reversed(digits):
            number = number << 7 | digit
        if len(self) < MOST_KNOWN:
            self[digits] = number
        return number


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
        if len(self) < MOST_KNOWN:
            self[token] = number
        return number


_NUMBERS = _Numbers()
_SCALARS = _Scalars(
    {
        **{token: value for value, token in CONSTANTS.items()},
        **{token: word.decode() for word, token in WORD_TEXTS.items()},
    }
)


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
    if buffer.startswith(TEXT, position):
        _, *texts = buffer[position:].split(TEXT, most + 1)
        # What follows the last one is not known.
        texts.pop()
        items: list[Any] = _readTexts(texts, _SHORT_HEADS)
        end = position + sum(map(len, texts[: len(items)])) + len(TEXT) * len(items)
        if len(items) == len(texts) < most:
            with suppress(_Cut, KeyError):
                stop = _scalarEnd(buffer, end, spoken)
                items.append(_readScalar(buffer[end:stop], spoken))
                end = stop
        return items, end
    if spoken and buffer.startswith(RECORD, position + 1):
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
    if head.startswith(TEXT) and len(head) == _BEFORE_TEXT:
        length, token = head[-2:]
        if token == 0x82 and length < LONG:
            return _whole(position + _BEFORE_TEXT + length, end)
        if spoken and head in _SCALARS:
            return position + _BEFORE_TEXT
        raise KeyError(position)
    if TEXT.startswith(head[: len(TEXT)]):
        raise _Cut
    for constant in CONSTANTS.values() if spoken else ():
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
    begin = _after(PAIR, buffer, position)
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
    start, at = position, _after(RECORD, buffer, position + 1)
    for _ in range(buffer[position] - 1):
        key, value, end = _readPair(buffer, at, spoken=True)
        pairs[key] = value
        parts.append(buffer[start : _scalarEnd(buffer, at + len(PAIR), spoken=True)])
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
    if tokens and tokens[0].startswith(TEXT):
        texts = _readTexts(tokens, HEADS)
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
    if token.startswith(TEXT) and token not in _SCALARS:
        for text in _readTexts([token], HEADS):
            return text
    elif token.startswith(FLOAT_HEAD) and len(token) == 9:
        return struct.unpack_from("!d", token, 1)[0]
    elif spoken or token[-1:] in (b"\x81", b"\x83"):
        return _SCALARS[token]
    raise KeyError(token)
