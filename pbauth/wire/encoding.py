"""
Writing banana and the plain values of jelly, in one pass, without I/O.

Twisted's `twisted.spread.banana` reads tokens into nested lists and cuts the buffer at each one;
`twisted.spread.jelly` then makes values of the lists, and lists of values.  Most of what crosses a
connection is plain: ``None``, ``bool``, ``int``, ``float``, ``bytes``, ``str``, ``tuple``,
``list``, ``dict``, ``set``, ``frozenset``, each held in one place only.  Such values are written
straight to the bytes that Twisted would send; `pbauth.wire.decoding` reads them straight from the
bytes.  Whatever is anything else is left to Twisted: `NotPlain` says so.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from twisted.python.reflect import fullyQualifiedName
from twisted.spread import banana
from twisted.spread.banana import BananaError

from pbauth.wire import columns, runs
from pbauth.wire.tokens import (
    FALSE,
    FLOAT_HEAD,
    INT,
    LARGEST_INT,
    LIST,
    NONE,
    PAIR,
    SMALLEST_INT,
    STRING,
    TEXT,
    TRUE,
    WORDS,
    digitsOf,
)


class NotPlain(Exception):
    """The value is not plain, or the expression is not that of plain values."""


class Encoded:
    """
    What a value comes to on the wire.

    Attributes:
        data: the bytes.
    """

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __repr__(self) -> str:
        return f"<Encoded {len(self.data)} bytes>"


_SHORT_INTS = [bytes((number, INT)) for number in range(128)]
_SHORT_STRINGS = [bytes((number, STRING)) for number in range(128)]
_SHORT_LISTS = [bytes((number, LIST)) for number in range(128)]


def _head(length: int, token: int) -> bytes:
    if length > banana.SIZE_LIMIT:
        raise NotPlain
    if length < 16384:
        return bytes((length & 0x7F, length >> 7, token))
    return digitsOf(length) + bytes((token,))


def encodeInt(number: int, limit: int) -> bytes:
    """
    Write a number.

    Args:
        number: any `int`.
        limit: the most bytes that a prefix may have.

    Returns:
        Its token.

    Raises:
        NotPlain: it is too large to send.
    """
    if 0 <= number < 128:
        return _SHORT_INTS[number]
    if 128 <= number < 16384:
        return bytes((number & 0x7F, number >> 7, INT))
    # Before the digits are made: each takes the longer, the more there are.
    if number.bit_length() > 7 * limit:
        raise NotPlain
    digits = digitsOf(abs(number))
    if number >= 0:
        return digits + (b"\x81" if number <= LARGEST_INT else b"\x85")
    return digits + (b"\x83" if number >= SMALLEST_INT else b"\x86")


def encodeBytes(data: bytes) -> bytes:
    """
    Write bytes.

    Args:
        data: any `bytes`.

    Returns:
        Its token in the dialect ``pb``.

    Raises:
        NotPlain: it is too long to send.
    """
    word = WORDS.get(data)
    if word is not None:
        return word
    length = len(data)
    return (_SHORT_STRINGS[length] if length < 128 else _head(length, STRING)) + data


_CONTAINERS: dict[type, bytes] = {
    tuple: WORDS[b"tuple"],
    list: WORDS[b"list"],
    set: b"\x03\x82set",
    frozenset: b"\x09\x82frozenset",
}
_REMOTE = PAIR + WORDS[b"remote"]
_ANSWER = b"\x03\x80" + WORDS[b"answer"]
_DICTIONARY = WORDS[b"dictionary"]


def _notPlain(value: Any) -> bytes:
    raise NotPlain


def encodePlain(
    value: object, limit: int, encodeOther: Callable[[Any], bytes] = _notPlain
) -> bytes:
    """
    Write a value as ``jelly`` and banana would, in the dialect ``pb``.

    Args:
        value: any value.
        limit: the most bytes that a prefix may have.
        encodeOther: writes a value that is not plain; or raises `NotPlain`.

    Returns:
        The bytes.

    Raises:
        NotPlain: it is, or holds, something that is not plain or is held in two places, or that
            is too large to send.
        UnicodeEncodeError: it holds half a surrogate pair.
        RecursionError: it is too deep.
    """
    out: list[bytes] = []
    _write(value, out.append, set(), limit, encodeOther)
    return out[0] if len(out) == 1 else b"".join(out)


def _write(
    value: Any,
    write: Callable[[bytes], None],
    seen: set[int],
    limit: int,
    encodeOther: Callable[[Any], bytes],
) -> None:
    kind = type(value)
    if kind is str:
        data = value.encode("utf-8")
        length = len(data)
        if data in WORDS:
            write(TEXT + WORDS[data])
        elif length < 128:
            write(TEXT + _SHORT_STRINGS[length] + data)
        else:
            write(TEXT + _head(length, STRING) + data)
    elif kind is int:
        if 0 <= value < 128:
            write(_SHORT_INTS[value])
        else:
            write(encodeInt(value, limit))
    elif kind in _CONTAINERS:
        if id(value) in seen:
            raise NotPlain
        seen.add(id(value))
        length = len(value) + 1
        write(_SHORT_LISTS[length] if length < 128 else _head(length, LIST))
        write(_CONTAINERS[kind])
        if length > runs.SHORTEST and limit >= runs.PREFIX:
            tokens = columns.encodeItems(value, seen)
            if tokens is not None:
                write(tokens)
                return
        for item in value:
            _write(item, write, seen, limit, encodeOther)
    elif kind is dict:
        if id(value) in seen:
            raise NotPlain
        seen.add(id(value))
        length = len(value) + 1
        write(_SHORT_LISTS[length] if length < 128 else _head(length, LIST))
        write(_DICTIONARY)
        if length > runs.SHORTEST and limit >= runs.PREFIX:
            tokens = columns.encodePairs(value)
            if tokens is not None:
                write(tokens)
                return
        for key, item in value.items():
            write(PAIR)
            _write(key, write, seen, limit, encodeOther)
            _write(item, write, seen, limit, encodeOther)
    elif kind is bytes:
        write(encodeBytes(value))
    elif value is None:
        write(NONE)
    elif kind is bool:
        write(TRUE if value else FALSE)
    elif kind is float:
        write(FLOAT_HEAD + struct.pack("!d", value))
    else:
        write(encodeOther(value))


def encodeRemote(luid: int, limit: int) -> bytes:
    """
    Write a reference to an object of this end.

    Args:
        luid: the number of an object that the peer gets a reference to.
        limit: the most bytes that a prefix may have.

    Returns:
        The reference, as ``jelly`` has it.
    """
    return _REMOTE + encodeInt(luid, limit)


def encodeAnswer(requestID: int, result: Encoded, limit: int) -> bytes:
    """
    Write the message ``answer`` of Perspective Broker.

    Args:
        requestID: what is answered.
        result: the answer.
        limit: the most bytes that a prefix may have.

    Returns:
        The message.
    """
    return _ANSWER + encodeInt(requestID, limit) + result.data


def encodeExpression(
    expression: Any, write: Callable[[bytes], None], limit: int, words: dict[bytes, bytes]
) -> None:
    """
    Write an expression, as banana does; what is `Encoded` already is taken as it is.

    Args:
        expression: lists, tuples, numbers, `bytes`, `Encoded`.
        write: takes the bytes.
        limit: the most bytes that a prefix may have.
        words: those that have a number in the dialect that is spoken, with their tokens.

    Raises:
        BananaError: it holds something else, or something that is too large to send.
    """
    kind = type(expression)
    if kind is Encoded:
        write(expression.data)
    elif isinstance(expression, int):
        try:
            write(encodeInt(expression, limit))
        except NotPlain:
            raise BananaError("int is too large to send (%d)" % expression) from None  # noqa: UP031
    elif isinstance(expression, bytes):
        word = words.get(expression)
        if word is not None:
            write(word)
            return
        length = len(expression)
        if length > banana.SIZE_LIMIT:
            raise BananaError(f"byte string is too long to send ({length})")
        write(_SHORT_STRINGS[length] if length < 128 else _head(length, STRING))
        write(expression)
    elif isinstance(expression, (list, tuple)):
        length = len(expression)
        if length > banana.SIZE_LIMIT:
            raise BananaError(f"list/tuple is too long to send ({length})")
        write(_SHORT_LISTS[length] if length < 128 else _head(length, LIST))
        for item in expression:
            encodeExpression(item, write, limit, words)
    elif isinstance(expression, float):
        write(FLOAT_HEAD + struct.pack("!d", expression))
    else:
        raise BananaError(f"Banana cannot send {fullyQualifiedName(kind)} objects: {expression!r}")
