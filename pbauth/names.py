"""
The one rule for names of identities, services and perspectives.

A name is a `str` of 1 to 255 bytes in UTF-8, without control characters.  Names are compared
code point by code point: no case is folded and nothing is normalised on look-up.  The name of an
identity must moreover pass SASLprep (RFC 4013), since SCRAM sends it in that form.
"""

from __future__ import annotations

import unicodedata

from pbauth.errors import InvalidName

#: The longest name, in bytes of UTF-8.
LONGEST = 255

#: In a key, instead of a perspective: every perspective of that service.
ANY = "*"

#: In a key, instead of a perspective: the one that is named like the identity which uses the key.
OWN = "{name}"


def checkName(name: object, what: str = "name") -> str:
    """
    Check a name.

    Args:
        name: what was given as a name.
        what: what it is the name of, for the text of the error.

    Returns:
        The name itself.

    Raises:
        TypeError: it is not a `str`.
        InvalidName: it is empty, too long, or holds control characters or lone surrogates.
    """
    if not isinstance(name, str):
        raise TypeError(f"A {what} is a str, not {type(name).__name__}.")
    if not name:
        raise InvalidName(f"A {what} must not be empty.")
    if len(name) <= LONGEST and name.isascii() and name.isprintable():
        # Nearly all are, and each login checks some.
        return name
    if isTooLong(name):
        # Before anything looks at its characters.
        raise InvalidName(f"A {what} has at most {LONGEST} bytes; this one has more.")
    for character in name:
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
            raise InvalidName(
                f"A {what} must not contain control characters, such as U+{ord(character):04X}."
            )
    return name


def checkPerspectiveName(name: object) -> str:
    """
    Check the name of a perspective, which is none of the patterns that keys may hold.

    Args:
        name: what was given as a name.

    Returns:
        The name itself.

    Raises:
        TypeError: it is not a `str`.
        InvalidName: it breaks the rule, or is `ANY` or `OWN`.
    """
    checked = checkName(name, "name of a perspective")
    if checked in (ANY, OWN):
        raise InvalidName(
            f"A perspective can't be called {checked!r}: in a key this stands for others."
        )
    return checked


def isTooLong(name: str) -> bool:
    """
    Return whether a text is longer than any name.

    Args:
        name: the text; it may hold anything.

    Returns:
        Whether it takes more than `LONGEST` bytes.
    """
    size = len(name)
    # Most texts need not be encoded to know.
    return size > LONGEST or (
        size * 4 > LONGEST and len(name.encode("utf-8", "surrogatepass")) > LONGEST
    )
