"""
Runs of equal tokens: long lists of numbers or of text, and long dictionaries, without a step of the
interpreter for each item.

What is read here is what `pbauth.wire.decoding` would make of the same bytes. A run ends where
anything is out of the ordinary, and the reader goes on there, item by item.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

#: Shorter runs are not worth the look.
SHORTEST = 32

#: The longest prefix that a token in a run has.
PREFIX = 5

# So many numbers are known by their digits, or the other way round.
_MOST_KNOWN = 32_768

_INTS = re.compile(rb"(?:[\x00-\x7f]{1,%d}\x81){%d,}" % (PREFIX, SHORTEST - 1))
_TEXT = b"\x02\x80\x07\x82unicode"
_PAIR = b"\x02\x80" + _TEXT
_LARGEST = 2**31 - 1
# Items of a run have fewer bytes.
_LONGEST = len(_PAIR) + 2 + 127 + PREFIX + 1


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
    """The tokens of numbers from 0 to 2**31 - 1; others are a `KeyError`."""

    def __missing__(self, number: int) -> bytes:
        if not 0 <= number <= _LARGEST:
            raise KeyError(number)
        digits = bytearray()
        left = number
        while left:
            digits.append(left & 0x7F)
            left >>= 7
        token = (bytes(digits) or b"\0") + b"\x81"
        if len(self) < _MOST_KNOWN:
            self[number] = token
        return token


class _Scalars(dict[bytes, Any]):
    """Plain values that are no lists, by the bytes of their tokens; others are a `KeyError`."""

    def __missing__(self, token: bytes) -> int:
        digits = token[:-1]
        if not 0 < len(digits) <= PREFIX or token[-1] != 0x81 or not digits.isascii():
            raise KeyError(token)
        return _NUMBERS[digits]


_NUMBERS = _Numbers()
_TOKENS = _Tokens()
# Not those that a dialect may spell in another way.
_SCALARS = _Scalars()
# What stands in front of short text, by its length.
_HEADS = {length: bytes((length, 0x82)) for length in range(128)}


def encodeInts(numbers: Iterable[int]) -> bytes | None:
    """
    Write numbers.

    Args:
        numbers: all of them `int`.

    Returns:
        Their tokens; `None`: one of them is negative, or has more than 31 bits.
    """
    try:
        return b"".join(map(_TOKENS.__getitem__, numbers))
    except KeyError:
        return None


def readItems(buffer: bytes, position: int, most: int) -> tuple[list[Any], int]:
    """
    Read a run of the items of a list.

    Args:
        buffer: what was received.
        position: where the next item begins.
        most: how many items there may be.

    Returns:
        The items of the run, and where it ends. Both may be as if there were none.
    """
    run = _INTS.match(buffer, position)
    if run is not None:
        tokens = run.group().split(b"\x81", most)
        rest = tokens.pop()
        return list(map(_NUMBERS.__getitem__, tokens)), run.end() - len(rest)
    if not buffer.startswith(_TEXT, position):
        return [], position
    _, *texts = buffer[position:].split(_TEXT, most + 1)
    # What follows the last one is not known.
    texts.pop()
    contents = [text[2:] for text in texts]
    heads = list(map(_HEADS.get, map(len, contents)))
    if [text[:2] for text in texts] != heads:
        good = next(
            number
            for number, (text, head) in enumerate(zip(texts, heads, strict=True))
            if text[:2] != head
        )
        del texts[good:], contents[good:]
    try:
        items = list(map(bytes.decode, contents))
    except UnicodeDecodeError:
        return [], position
    return items, position + sum(map(len, texts)) + len(_TEXT) * len(texts)


def readPairs(buffer: bytes, position: int, most: int) -> tuple[Mapping[str, Any], int, int]:
    """
    Read a run of the keys and values of a dictionary, of text and numbers.

    Args:
        buffer: what was received.
        position: where the next pair begins.
        most: how many pairs there may be.

    Returns:
        The pairs of the run, how many they were, and where it ends.
    """
    if not buffer.startswith(_PAIR, position):
        return {}, 0, position
    _, *pairs = buffer[position:].split(_PAIR, most + 1)
    pairs.pop()
    read: dict[str, Any] = {}
    done = 0
    try:
        for pair in pairs:
            value = pair[0] + 2
            if pair[1] != 0x82:
                break
            key = pair[2:value].decode()
            read[key] = _SCALARS[pair[value:]]
            position += len(pair)
            done += 1
    except (LookupError, UnicodeDecodeError):
        # This one is left to the reader.
        pass
    return read, done, position + len(_PAIR) * done


def isCut(buffer: bytes, position: int, kind: type) -> bool:
    """
    Return whether what was received ends in the middle of an item that may belong to a run.

    Args:
        buffer: what was received.
        position: where the item begins.
        kind: `dict`, if it is a pair of such; else it is an item of a list.
    """
    head = _PAIR if kind is dict else _TEXT
    rest = buffer[position : position + _LONGEST]
    if len(rest) < len(head) + 2:
        return head.startswith(rest[: len(head)])
    length, token = rest[len(head) : len(head) + 2]
    if not rest.startswith(head) or length > 127 or token != 0x82:
        return False
    text = len(head) + 2 + length
    if kind is not dict or len(rest) < text:
        return len(rest) < text
    # In front of the value's type there are only digits.
    return len(rest) - text <= PREFIX and rest[text:].isascii()
