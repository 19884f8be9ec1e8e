"""
SASLprep, the one spelling of names and passwords before they are hashed (RFC 4013).

Both ends treat the text as a *query* (RFC 3454, section 7): code points that Unicode 3.2 did not
know, emoji for instance, are let through as they are.  They can be typed today, both ends treat
them alike, and refusing them would only make passwords poorer.
"""

from __future__ import annotations

import stringprep
import unicodedata

_PROHIBITED = (
    (stringprep.in_table_c12, "a space other than U+0020"),
    (stringprep.in_table_c21_c22, "a control character"),
    (stringprep.in_table_c3, "a private-use character"),
    (stringprep.in_table_c4, "a non-character"),
    (stringprep.in_table_c5, "half a surrogate pair"),
    (stringprep.in_table_c6, "a character that is not plain text"),
    (stringprep.in_table_c7, "a character that is not canonical"),
    (stringprep.in_table_c8, "a character that changes how others are shown"),
    (stringprep.in_table_c9, "a tag character"),
)


def saslprep(text: str) -> str:
    """
    Prepare a name or a password (RFC 4013).

    Args:
        text: as it was typed.

    Returns:
        The prepared text; it may be empty.

    Raises:
        ValueError: the text holds a prohibited character, or mixes writing directions in a way
            that RFC 3454, section 6 forbids.
    """
    if text.isascii() and text.isprintable():
        # Nothing to map, normalise or prohibit.
        return text
    mapped = "".join(
        " " if stringprep.in_table_c12(character) else character
        for character in text
        if not stringprep.in_table_b1(character)
    )
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    for character in prepared:
        for prohibited, what in _PROHIBITED:
            if prohibited(character):
                raise ValueError(f"U+{ord(character):04X} is {what}.")
    _checkDirection(prepared)
    return prepared


def _checkDirection(text: str) -> None:
    if not any(stringprep.in_table_d1(character) for character in text):
        return
    if any(stringprep.in_table_d2(character) for character in text):
        raise ValueError("It mixes characters written from the right and from the left.")
    if not (stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])):
        raise ValueError("Text written from the right must begin and end with such characters.")
