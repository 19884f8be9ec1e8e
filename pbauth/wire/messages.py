"""Checks of messages, as Perspective Broker has them, before anything acts upon them."""

from __future__ import annotations

from inspect import signature
from typing import Any

from pbauth.wire.decoding import MalformedMessage

# How many items follow each command of Perspective Broker.
_ITEMS = {
    "version": 1,
    "message": 6,
    "cachemessage": 6,
    "answer": 2,
    "error": 2,
    "decref": 1,
    "decache": 1,
    "uncache": 1,
    "didNotUnderstand": 1,
}


def fits(act: Any, name: str, count: int) -> bool:
    """
    Return whether a method takes so many items of a message.

    Args:
        act: the method.
        name: of the command.
        count: how many items follow the command.

    Returns:
        Whether it does.
    """
    known = _ITEMS.get(name)
    if known is not None:
        return count == known
    # A command that a subclass has added.
    try:
        signature(act).bind(*range(count))
    except TypeError:
        return False
    return True


def nameOf(method: Any) -> str:
    """
    Return the name of a method, for people.

    Args:
        method: its name, as it came, or itself; or `None`.

    Returns:
        The name; empty where there is none.
    """
    if isinstance(method, bytes):
        return method.decode("utf-8", "replace")
    return str(getattr(method, "__name__", method or ""))


def checkName(message: Any) -> None:
    """
    Check what is to be the name of a method.

    Args:
        message: as it came.

    Raises:
        MalformedMessage: it can't be one.
    """
    if type(message) is not bytes:
        raise MalformedMessage("The name of the method is not a string")
    if not message.isascii():
        try:
            message.decode("utf-8")
        except UnicodeDecodeError:
            raise MalformedMessage("The name of the method is not UTF-8") from None


def keyword(key: Any) -> Any:
    """
    Return the name of an argument as text.

    Args:
        key: as it came; Python 2 sends bytes.

    Returns:
        The name.
    """
    return key.decode("utf-8", "replace") if type(key) is bytes else key


def withTextKeys(netKw: Any) -> Any:
    """
    Return the expression of arguments by name, with text for names that are bytes.

    Args:
        netKw: the expression, or anything else.

    Returns:
        The same, where no name is bytes.
    """
    match netKw:
        case [b"dictionary", *pairs] if any(
            isinstance(pair, list) and len(pair) == 2 and type(pair[0]) is bytes for pair in pairs
        ):
            return [
                b"dictionary",
                *(
                    [[b"unicode", pair[0]], *pair[1:]]
                    if isinstance(pair, list) and pair and type(pair[0]) is bytes
                    else pair
                    for pair in pairs
                ),
            ]
    return netKw


def checkKnown(objectID: Any, known: Any) -> None:
    """
    Check the number of an object.

    Args:
        objectID: as it came.
        known: the objects, by number.

    Raises:
        MalformedMessage: it is none of theirs.
    """
    if type(objectID) not in (int, float) or objectID not in known:
        raise MalformedMessage("It refers to an object that does not exist")
