"""
SASLprep, the one spelling of names and passwords before they are hashed (RFC 4013).

Both ends treat the text as a *query* (RFC 3454, section 7): code points that Unicode 3.2 did not
know, emoji for instance, are let through as they are.  They can be typed today, both ends treat
them alike, and refusing them would only make passwords poorer.

The tables are those of RFC 3454, as classes of a regular expression: Python's `stringprep` looks
every character up in each of them, which takes milliseconds where anybody may send a long text.
"""

from __future__ import annotations

import re
import stringprep
import unicodedata

# Table B.1, mapped to nothing, and table C.1.2, spaces, mapped to U+0020. A character of both
# (U+200B) is mapped to nothing.
_TO_NOTHING = re.compile("[\xad\u034f\u1806\u180b-\u180d\u200b-\u200d\u2060\ufe00-\ufe0f\ufeff]+")
_SPACES = "\xa0\u1680\u2000-\u200b\u202f\u205f\u3000"
_TO_SPACE = re.compile(f"[{_SPACES}]")

_PLANES = "".join(
    f"{chr((plane << 16) + 0xFFFE)}-{chr((plane << 16) + 0xFFFF)}" for plane in range(17)
)
# What RFC 4013, section 2.3 prohibits.
_PROHIBITED = {
    "a space other than U+0020": _SPACES,  # C.1.2
    "a control character": (  # C.2.1 and C.2.2
        "\\0-\x1f\x7f-\x9f\u06dd\u070f\u180e\u200c\u200d\u2028\u2029\u2060-\u2063\u206a-\u206f"
        "\ufeff\ufff9-\ufffc\U0001d173-\U0001d17a"
    ),
    "a private-use character": "\ue000-\uf8ff\U000f0000-\U000ffffd\U00100000-\U0010fffd",  # C.3
    "a non-character": f"\ufdd0-\ufdef{_PLANES}",  # C.4
    "half a surrogate pair": "\ud800-\udfff",  # C.5
    "a character that is not plain text": "\ufff9-\ufffd",  # C.6
    "a character that is not canonical": "\u2ff0-\u2ffb",  # C.7
    "a character that changes how others are shown": (  # C.8
        "\u0340\u0341\u200e\u200f\u202a-\u202e\u206a-\u206f"
    ),
    "a tag character": "\U000e0001\U000e0020-\U000e007f",  # C.9
}
_ANY_PROHIBITED = re.compile("[" + "".join(_PROHIBITED.values()) + "]")

# Table D.1: characters of text that is written from the right.
_FROM_RIGHT = re.compile(
    "[\u05be\u05c0\u05c3\u05d0-\u05ea\u05f0-\u05f4\u061b\u061f\u0621-\u063a\u0640-\u064a\u066d-\u066f"
    "\u0671-\u06d5\u06dd\u06e5\u06e6\u06fa-\u06fe\u0700-\u070d\u0710\u0712-\u072c\u0780-\u07a5\u07b1"
    "\u200f\ufb1d\ufb1f-\ufb28\ufb2a-\ufb36\ufb38-\ufb3c\ufb3e\ufb40\ufb41\ufb43\ufb44\ufb46-\ufbb1"
    "\ufbd3-\ufd3d\ufd50-\ufd8f\ufd92-\ufdc7\ufdf0-\ufdfc\ufe70-\ufe74\ufe76-\ufefc]"
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
    mapped = _TO_SPACE.sub(" ", _TO_NOTHING.sub("", text))
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    found = _ANY_PROHIBITED.search(prepared)
    if found is not None:
        raise ValueError(f"U+{ord(found[0]):04X} is {_whatIs(found[0])}.")
    _checkDirection(prepared)
    return prepared


def _whatIs(character: str) -> str:
    return next(what for what, some in _PROHIBITED.items() if re.match(f"[{some}]", character))


def _checkDirection(text: str) -> None:
    if not _FROM_RIGHT.search(text):
        return
    # Table D.2.
    if any(stringprep.in_table_d2(character) for character in text):
        raise ValueError("It mixes characters written from the right and from the left.")
    if not (_FROM_RIGHT.match(text[0]) and _FROM_RIGHT.match(text[-1])):
        raise ValueError("Text written from the right must begin and end with such characters.")
