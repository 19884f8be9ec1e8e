"""Check what callers pass, where they pass it."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Any

from zope.interface import Interface


def checkProvides(interface: type[Interface], value: Any, name: str) -> Any:
    """
    Check that an argument provides an interface.

    Args:
        interface: what it has to provide.
        value: the argument.
        name: of the argument.

    Returns:
        The argument.

    Raises:
        TypeError: it does not provide it.
    """
    if not interface.providedBy(value):
        raise TypeError(
            f"{name} must provide {interface.__name__}, which {type(value).__name__} does not."
        )
    return value


def adapted(interface: type[Interface], value: Any, name: str) -> Any:
    """
    Adapt an argument to an interface.

    Args:
        interface: what it has to provide, or to adapt to.
        value: the argument.
        name: of the argument.

    Returns:
        What provides the interface.

    Raises:
        TypeError: it does neither.
    """
    return checkProvides(interface, interface(value, value), name)


def checkType(kind: type, value: Any, name: str) -> None:
    """
    Check that an argument is of a type.

    Args:
        kind: the type.
        value: the argument.
        name: of the argument.

    Raises:
        TypeError: it is of another one.
    """
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be of type {kind.__name__}, not {type(value).__name__}.")


def isPositive(value: Any) -> bool:
    """
    Return whether an argument is a number greater than 0, and one at all.

    Args:
        value: the argument.
    """
    # Not a number is neither over nor under any: nothing would ever reach such a limit.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < inf


def isCount(value: Any) -> bool:
    """
    Return whether an argument is a whole number greater than 0.

    Args:
        value: the argument.
    """
    return isinstance(value, int) and isPositive(value)


def checkCallable(value: Any, name: str) -> None:
    """
    Check that an argument can be called.

    Args:
        value: the argument.
        name: of the argument.

    Raises:
        TypeError: it can't.
    """
    if not callable(value):
        raise TypeError(f"{name} must be callable, not {type(value).__name__}.")


def listed(values: Any, what: str, name: str) -> list[Any]:
    """
    List what an argument consists of.

    Args:
        values: the argument, anything to iterate over but a `str`.
        what: it consists of, for the text of the error: "names of mechanisms".
        name: of the argument.

    Returns:
        A new list.

    Raises:
        TypeError: it can't be iterated over, or is a `str`.
    """
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a list of {what}, not {type(values).__name__}.")
    return list(values)
