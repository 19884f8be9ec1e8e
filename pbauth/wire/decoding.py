"""
Reading banana and the plain values of jelly, in one pass, without I/O.

The rules of the reader.  A *message* is an expression at the top.  It is read as a plain one first:
``message`` and ``answer`` of Perspective Broker, whose arguments are made into values as their
lists end.  What turns out to be anything else is read once more, into lists as Twisted has them.
State is kept between chunks, so each byte is looked at once, or twice; and copied a few times at
most, however small the chunks are.

Nothing here calls itself to read, so depth alone breaks nothing; but Python does, without looking,
when it hashes what is deep.  So what is deeper than `DEEPEST` is not plain, and Twisted's own
limit, which is lower, meets it.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.spread import banana

from pbauth.audit.events import DropReason
from pbauth.wire import runs
from pbauth.wire.encoding import NotPlain
from pbauth.wire.tokens import (
    FLOAT,
    INT,
    LIST,
    LONGINT,
    LONGNEG,
    NEG,
    NONE,
    STRING,
    VOCAB,
)


class MalformedMessage(Exception):
    """
    The peer has sent what is not Perspective Broker, or breaks its rules, or is too much.

    It is the only error by which the reader, and what acts upon messages, blames the peer: any
    other is a mistake on this side.

    Attributes:
        reason: what is recorded as the reason for dropping the connection.
    """

    reason = DropReason.PROTOCOL


class TooMuch(MalformedMessage):
    """
    A client that has logged in asks for far more than it may.

    Args:
        reason: the limit.
        text: what it asked for.
    """

    def __init__(self, reason: DropReason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class _Marker:
    """What a list that is being read will become, where that is no type."""


_HEAD = _Marker()  # not known yet: its first item says it
_NOTHING = _Marker()  # None
_REFERENCE = _Marker()  # a reference to an object of the peer's
_GENERIC = _Marker()  # a list as banana has it
_MESSAGE = _Marker()  # the list at the top
_PAIR_OF = _Marker()  # key and value of a dictionary

_MAKERS: dict[bytes, Any] = {
    b"tuple": tuple,
    b"list": list,
    b"dictionary": dict,
    b"set": set,
    b"frozenset": frozenset,
    b"unicode": str,
    b"boolean": bool,
    b"None": _NOTHING,
}
# Their names, as `twisted.spread.jelly.SecurityOptions` has them.
PLAIN_TYPES = frozenset(_MAKERS)
REFERENCE = b"remote"
_MAKERS[REFERENCE] = _REFERENCE
_NONE_HEAD = NONE[2:]
# What may have a run of items; they are put together as they come.
_OF_ITEMS = (list, tuple, set, frozenset, dict)

#: The most lists that may be open at once in a message that is read as a plain one. Twisted's
#: unjelly calls itself three times for each, and Python ends that at a thousand calls.
DEEPEST = 1000


@frozen
class Limits:
    """
    How much a client may send before it has logged in: a login takes half as much, or less.  Small
    values take more memory than bytes, so there may not be many of them.

    Attributes:
        longestString: the most bytes in a string.
        longestList: the most items in a list.
        deepest: the most lists that may be open at once.
        lists: the most lists in a message.
        plainOnly: messages of anything but plain values are not read.
        longestMessage: the most bytes in a message; `None`: it is not looked at.
    """

    longestString: int = 8_192
    longestList: int = 16
    deepest: int = 8
    lists: int = 32
    plainOnly: bool = True
    longestMessage: int | None = None


#: No limits but those of banana; for what is limited in other ways.
UNLIMITED = Limits(
    longestString=banana.SIZE_LIMIT,
    longestList=banana.SIZE_LIMIT,
    deepest=sys.maxsize,
    lists=sys.maxsize,
    plainOnly=False,
)


class _Unspoken(dict[int, bytes]):
    """The words before a dialect was agreed on, or in one without words."""

    def __missing__(self, number: int) -> bytes:
        """Refuse every word."""
        if number in banana.Banana.incomingVocabulary:
            raise MalformedMessage("Invalid item: a word, in a dialect without words")
        raise KeyError(number)


#: See `_Unspoken`.
UNSPOKEN: dict[int, bytes] = _Unspoken()


def _readPrefix(buffer: bytes, start: int, limit: int) -> tuple[int, int, int] | None:
    """Return a token's number, its type and where it ends; `None` if it is not whole yet."""
    number = shift = 0
    for place in range(start, min(len(buffer), start + limit + 1)):
        byte = buffer[place]
        if byte >= 0x80:
            return number, byte, place + 1
        number |= byte << shift
        shift += 7
    if len(buffer) - start > limit:
        raise MalformedMessage(f"Security precaution: longer than {limit} bytes worth of prefix")
    return None


def _tooLong(most: int) -> TooMuch:
    return TooMuch(DropReason.MESSAGE, f"more than {most} bytes in a message")


def _forget(_: Any) -> bool:
    return True


def _nothing() -> None:
    pass


class Reader:
    """
    Reads banana, however it is cut into chunks.

    Attributes:
        limit: the most bytes that a prefix may have; at least 2.
        words: the words that have a number in the dialect that is spoken.
        readsPlain: read messages of plain values as such.
        limits: of a peer that is not trusted; then messages that are not plain are not read at
            all. `None`: those of banana.
        closed: nobody wants to receive any more.
        size: of the message that is received, in bytes, where there is a `Limits.longestMessage`.

    Args:
        receive: takes each expression, as banana has it.
        receivePlain: takes the items of each message whose values were read; says `False` if it
            wants it as banana has it.
        makeReference: makes a reference to an object of the peer's, of its number; `None`: a
            message that holds one is read as banana has it.
        dropReferences: the references that were made for this message are not wanted after all.
    """

    __slots__ = (
        "_begun",
        "_carried",
        "_dropReferences",
        "_frame",
        "_generic",
        "_lists",
        "_makeReference",
        "_missing",
        "_receive",
        "_receivePlain",
        "_rest",
        "_start",
        "closed",
        "limit",
        "limits",
        "readsPlain",
        "size",
        "words",
    )

    def __init__(
        self,
        receive: Callable[[Any], None],
        receivePlain: Callable[[list[Any]], bool],
        makeReference: Callable[[int], Any] | None = None,
        dropReferences: Callable[[], None] = _nothing,
    ) -> None:
        self._receive: Callable[[Any], Any] = receive
        self._receivePlain = receivePlain
        self._makeReference = makeReference
        self._dropReferences = dropReferences
        self.limit = 0
        self.words = UNSPOKEN
        self.readsPlain = False
        self.limits: Limits | None = None
        self.closed = False
        self.size = 0
        # The bytes of the message that came in earlier chunks.
        self._carried = 0
        # The bytes of a token that is not whole yet, and how many more it takes at least to make
        # something of them.
        self._rest: bytearray | None = None
        self._missing = 0
        # Of the message that is being read: the lists that are open, outermost first; where it
        # starts in the buffer; the bytes of earlier chunks; whether it is to be read as banana
        # has it.
        self._frame: tuple[list[Any], Any, int, Any] = ([], None, 0, None)
        self._start = 0
        self._lists = 0
        self._begun: bytearray | None = None
        self._generic = False

    def close(self) -> None:
        """Stop receiving, and release the receivers."""
        self.closed = True
        self._receive = self._receivePlain = _forget
        self._makeReference = None
        self._dropReferences()
        self._dropReferences = _nothing
        self._rest = self._begun = None
        self._frame = ([], None, 0, None)

    def feed(self, chunk: bytes) -> None:
        """
        Read some bytes.

        Args:
            chunk: what came.

        Raises:
            MalformedMessage: they are not banana, or something is too large.
            Exception: whatever who receives raises; what follows in the chunk is lost.
        """
        if self.closed:
            return
        buffer = chunk
        if self._rest is not None:
            self._rest += chunk
            self._missing -= len(chunk)
            if self._missing > 0:
                return
            buffer = bytes(self._rest)
            self._rest = None
        position = 0
        while True:
            try:
                self._read(buffer, position)
                return
            except NotPlain:
                if self.limits is not None and self.limits.plainOnly:
                    raise MalformedMessage("Security precaution: not plain before login.") from None
                # Once more from the beginning of the message.
                position = self._start
                if self._begun is not None:
                    buffer = bytes(self._begun) + buffer
                    self._begun = None
                self._frame = ([], None, 0, None)
                self._generic = True
                self._carried = 0

    def _again(self, start: int) -> NotPlain:
        self._start = start
        self._dropReferences()
        return NotPlain()

    def _mayRun(self, limits: Limits | None) -> bool:
        """Return whether nothing has to be looked at for each item of a list."""
        return self.limit >= runs.PREFIX and (limits is None or limits.lists == sys.maxsize)

    def _read(self, buffer: bytes, position: int) -> None:
        # One long function without calls for the usual tokens: most of the time goes here.
        end = len(buffer)
        longest = longestString = banana.SIZE_LIMIT
        limits = self.limits
        if limits is not None:
            longestString = limits.longestString
        stack, items, need, make = self._frame
        start = position
        missing = 1
        # Whether there may be runs, and one may begin where the reader is.
        mayRun = self._mayRun(limits)
        lookForRun = mayRun and need > runs.SHORTEST and make in _OF_ITEMS
        spoken = self.words is runs.VOCABULARY
        while position < end:
            if lookForRun and len(stack) < DEEPEST - runs.DEPTH:
                lookForRun = False
                if make is dict:
                    pairs, count, position = runs.readPairs(
                        buffer, position, need - 1, spoken=spoken
                    )
                    items.update(pairs)
                    need -= count
                else:
                    run, position = runs.readItems(buffer, position, need - 1, spoken=spoken)
                    items += run
                    need -= len(run)
                if position == end or runs.isCut(buffer, position, make, spoken=spoken):
                    # The rest of it comes with the next chunk, and so does more of the run.
                    break
            # The number in front of the token, and its type.
            byte = buffer[position]
            at = position + 1
            number = 0
            if byte < 0x80:
                number = byte
                if at == end:
                    break
                byte = buffer[at]
                at += 1
                if byte < 0x80:
                    if at == end:
                        break
                    number |= byte << 7
                    byte = buffer[at]
                    at += 1
                    if byte < 0x80:
                        found = _readPrefix(buffer, position, self.limit)
                        if found is None:
                            break
                        number, byte, at = found
            # The token.
            item: Any
            if byte == STRING:
                if number > longestString:
                    raise MalformedMessage("Security precaution: String too long.")
                stop = at + number
                if stop > end:
                    missing = stop - end
                    break
                item = buffer[at:stop]
                position = stop
            elif byte == INT or byte == LONGINT:
                item = number
                position = at
            elif byte == VOCAB:
                try:
                    item = self.words[number]
                except KeyError:
                    raise MalformedMessage("There is no word of this number") from None
                position = at
            elif byte == LIST:
                if number > longest:
                    raise MalformedMessage("Security precaution: List too long.")
                if limits is not None:
                    self._lists = 0 if items is None else self._lists + 1
                    if (
                        number > limits.longestList
                        or self._lists >= limits.lists
                        or (items is not None and len(stack) + 1 >= limits.deepest)
                    ):
                        raise MalformedMessage("Security precaution: too much before login.")
                if items is None:
                    start = position
                    position = at
                    make = _GENERIC if self._generic or not self.readsPlain else _MESSAGE
                    if number:
                        items, need = [], number
                        continue
                    item = []
                elif make is _GENERIC:
                    position = at
                    if number:
                        stack.append((items, need, make))
                        items, need = [], number
                        continue
                    item = []
                elif make is dict:
                    if number != 2:
                        raise self._again(start)
                    position = at
                    stack.append((items, need, make))
                    items, need, make = [], 2, _PAIR_OF
                    continue
                elif number == 1 and buffer.startswith(_NONE_HEAD, at):
                    item = None
                    position = at + 2
                elif not number or len(stack) > DEEPEST:
                    raise self._again(start)
                else:
                    position = at
                    stack.append((items, need, make))
                    items, need, make = [], number, _HEAD
                    continue
            elif byte == NEG or byte == LONGNEG:
                item = -number
                position = at
            elif byte == FLOAT:
                stop = at + 8
                if stop > end:
                    missing = stop - end
                    break
                (item,) = struct.unpack_from("!d", buffer, at)
                position = stop
            else:
                raise MalformedMessage(f"Invalid Type Byte {bytes((byte,))!r}")
            # Put the item into the list that is open, and close the lists that are full.
            while items is not None:
                if make is _HEAD:
                    make = _MAKERS.get(item) if type(item) is bytes else None
                    if make is None:
                        raise self._again(start)
                    if make is dict:
                        items = {}
                    need -= 1
                    lookForRun = mayRun and need > runs.SHORTEST and make in _OF_ITEMS
                elif make is dict:
                    raise self._again(start)
                else:
                    items.append(item)
                    need -= 1
                if need:
                    break
                item = items
                if make is _PAIR_OF:
                    items, need, make = stack.pop()
                    try:
                        items[item[0]] = item[1]
                    except (TypeError, RecursionError):
                        raise self._again(start) from None
                    need -= 1
                    if need:
                        break
                    item = items
                elif make is _MESSAGE:
                    items = None
                    break
                elif make is tuple:
                    item = tuple(items)
                elif make is str:
                    if len(items) != 1 or type(items[0]) is not bytes:
                        raise self._again(start)
                    try:
                        item = items[0].decode("utf-8")
                    except UnicodeDecodeError:
                        raise self._again(start) from None
                elif make is bool:
                    if items == [b"true"]:
                        item = True
                    elif items == [b"false"]:
                        item = False
                    else:
                        raise self._again(start)
                elif make is _REFERENCE:
                    if len(items) != 1 or type(items[0]) is not int or not self._makeReference:
                        raise self._again(start)
                    item = self._makeReference(items[0])
                elif make is set or make is frozenset:
                    try:
                        item = make(items)
                    except (TypeError, RecursionError):
                        raise self._again(start) from None
                elif make is _NOTHING:
                    # As above, but a chunk ended in the middle of it.
                    if items:
                        raise self._again(start)
                    item = None
                if stack:
                    items, need, make = stack.pop()
                else:
                    items = None
            if items is None:
                # At the top.
                if limits is not None and limits.longestMessage is not None:
                    self.size = self._carried + position - start
                    if self.size > limits.longestMessage:
                        raise _tooLong(limits.longestMessage)
                    self._carried = 0
                self._frame = (stack, None, 0, None)
                self._generic = False
                if make is _MESSAGE:
                    make = None
                    if not self._receivePlain(item):
                        raise self._again(start)
                else:
                    self._receive(item)
                if self.closed:
                    return
                if limits is not self.limits:
                    limits = self.limits
                    longestString = longest if limits is None else limits.longestString
                    mayRun = self._mayRun(limits)
                self._begun = None
                start = position
        self._frame = (stack, items, need, make)
        if limits is not None and limits.longestMessage is not None:
            # What is left of the buffer comes again.
            self._carried += position - start
            if self._carried + end - position + missing > limits.longestMessage:
                raise _tooLong(limits.longestMessage)
        if position < end:
            self._rest = bytearray(buffer[position:])
            self._missing = missing
        if items is not None and make is not _GENERIC:
            if self._begun is None:
                self._begun = bytearray()
            self._begun += buffer[start:position]
