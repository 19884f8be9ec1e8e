"""What callers pass is what it has to be, or they are told so where they pass it."""

from __future__ import annotations

from typing import Any

from zope.interface import Interface


def checkProvides(interface: type[Interface], value: Any, what: str) -> None:
    """
    Check that an argument provides an interface.

    Args:
        interface: what it has to provide.
        value: the argument.
        what: what it is for, for the text of the error: "an identity".

    Raises:
        TypeError: it does not provide it.
    """
    if not interface.providedBy(value):
        raise TypeError(
            f"{what[0].upper()}{what[1:]} provides {interface.__name__}, "
            f"which {type(value).__name__} does not."
        )


def checkType(kind: type, value: Any, what: str) -> None:
    """
    Check that an argument is of a type.

    Args:
        kind: the type.
        value: the argument.
        what: what it is for, for the text of the error: "a session".

    Raises:
        TypeError: it is of another one.
    """
    if not isinstance(value, kind):
        raise TypeError(
            f"{what[0].upper()}{what[1:]} is of type {kind.__name__}, not {type(value).__name__}."
        )
