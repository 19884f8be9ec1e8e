"""
The tokens of banana, and what the constants of jelly come to, in the dialect ``pb``.

A token is a prefix, digits of seven bits with the lowest first, and a type, a byte over 0x7F; what
follows is its contents, or the items of a list.
"""

from __future__ import annotations

from twisted.spread import banana

#: The types.
LIST, INT, STRING, NEG, FLOAT, LONGINT, LONGNEG, VOCAB = range(0x80, 0x88)

#: The numbers that are an `INT` or a `NEG`; others are a `LONGINT` or a `LONGNEG`.
LARGEST_INT = 2**31 - 1
SMALLEST_INT = -(2**31)

#: The words that have a number, and their tokens.
WORDS = {word: bytes((number, VOCAB)) for word, number in banana.Banana.outgoingVocabulary.items()}

#: The beginning of a list of two.
PAIR = b"\x02\x80"
#: The beginning of text.
TEXT = PAIR + b"\x07\x82unicode"
#: The beginning of a float.
FLOAT_HEAD = b"\x84"

NONE = b"\x01\x80" + WORDS[b"None"]
TRUE = PAIR + b"\x07\x82boolean\x04\x82true"
FALSE = PAIR + b"\x07\x82boolean\x05\x82false"


def digitsOf(number: int) -> bytes:
    """
    Write the prefix of a number.

    Args:
        number: 0, or more.
    """
    digits = bytearray()
    while number:
        digits.append(number & 0x7F)
        number >>= 7
    return bytes(digits) or b"\0"
