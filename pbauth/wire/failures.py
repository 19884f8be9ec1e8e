"""
Errors that come as failures: from stock Twisted, old ones, Python 2's, and from applications whose
errors do not cross the wire as themselves.

Twisted copies a failure with the text of its exception in place of the exception, so that whatever
raises it again, `Deferred.asFuture` for instance, fails; and it cannot read those of some peers.
"""

from __future__ import annotations

import sys
from typing import Any, TextIO

from twisted.python.failure import Failure
from twisted.python.reflect import qual
from twisted.spread import pb

_FAILURE = b"twisted.spread.pb.CopyableFailure"
_TRACEBACK = b"Traceback unavailable\n"


class RemoteFailure(pb.CopiedFailure):
    """
    A failure of the peer's.

    Attributes:
        type: the full name of the exception's class, as the peer has it.
        value: a `twisted.spread.pb.RemoteError` with the text of the exception.
    """

    def check(self, *errorTypes: Any) -> Any:
        """Return the first of these classes, or names of classes, that the exception is of."""
        for error in errorTypes:
            if (qual(error) if isinstance(error, type) else error) in self.parents:
                return error
        return None

    def printTraceback(
        self, file: TextIO | None = None, elideFrameworkCode: Any = 0, detail: str = "default"
    ) -> None:
        """Write where it comes from, and its text."""
        (file or sys.stderr).write(
            f"Traceback from remote host -- {_text(self.type)}: {self.value}\n"
        )

    printBriefTraceback = printDetailedTraceback = printTraceback

    def throwExceptionIntoGenerator(self, g: Any) -> Any:
        """Raise the exception in a generator."""
        return g.throw(self.value)


def withException(copied: pb.CopiedFailure) -> pb.CopiedFailure:
    """
    Make a failure whose value is an exception.

    Args:
        copied: what Twisted has made of the peer's failure.

    Returns:
        The same, of the class `RemoteFailure`; or as it was, if its value is one already.
    """
    if isinstance(copied.value, BaseException):
        return copied
    state = vars(copied)
    error = pb.RemoteError(_text(copied.type), _text(copied.value), state.get("traceback"))
    made = RemoteFailure.__new__(RemoteFailure)
    vars(made).update(state, value=error)
    return made


def asTwistedHas(fail: Failure) -> Failure:
    """
    Make a failure that can be sent to any peer of one whose exception is a `RemoteError`: a class
    that peers need not know, and that stock Twisted does not take.

    Args:
        fail: it came from another peer; or its exception was raised again, and came to this one.

    Returns:
        A failure with the text of the exception in its place, as Twisted has it.
    """
    made = pb.CopiedFailure.__new__(pb.CopiedFailure)
    made.setCopyableState({**fail.__getstate__(), "value": str(fail.value)})
    return made


def ofOther(value: Any) -> RemoteFailure:
    """
    Make a failure of what is no error, so that it can be raised.

    Args:
        value: what the peer sent: a text, as stock Twisted may pass on an error of another peer's;
            or anything else.

    Returns:
        The failure, named after the type of the value, as Twisted has it.
    """
    kind = qual(type(value))
    text = value if isinstance(value, str) else f"{kind}, which is no error"
    made = RemoteFailure.__new__(RemoteFailure)
    state = Failure(pb.RemoteError(kind, text, None)).__getstate__()
    vars(made).update(state, type=kind, _parents=[kind])
    return made


def unknownError(expression: Any) -> pb.RemoteError:
    """
    Make an error of one whose class is not known here, or has other fields.

    Args:
        expression: of the error, as jelly has it.

    Returns:
        The error: its name is that of the class, and its text that of the peer's error, if it is
        there to be read.
    """
    name, *state = expression
    kind = _text(name)
    message = f"{kind}, a class of errors that is not known here"
    match state:
        case [[b"dictionary", *pairs]]:
            match (_state(pairs) or {}).get(b"args"):
                case [b"tuple", [b"unicode", bytes(text)]]:
                    message = _text(text)
    return pb.RemoteError(kind, message, "Traceback unavailable")


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def readable(expression: Any) -> Any:
    """
    Complete the expression of a failure, so that Twisted can read it.

    Args:
        expression: of an error, as jelly has it.

    Returns:
        The expression with text for the names of attributes, which Python 2 sends as bytes; with
        names for the classes of exceptions, some of which Twisted sends as classes; and with all
        attributes that a failure needs. Any other expression as it is.
    """
    match expression:
        case [name, [b"dictionary", *pairs]] if name == _FAILURE:
            state = _state(pairs)
        case _:
            return expression
    if state is None:
        return expression
    kind = _name(state.get(b"type"))
    state[b"type"] = kind
    state[b"parents"] = _names(state.get(b"parents"), kind)
    state.setdefault(b"value", b"")
    state.setdefault(b"traceback", [b"unicode", _TRACEBACK])
    state.setdefault(b"tb", [b"None"])
    for name in (b"frames", b"stack"):
        state.setdefault(name, [b"list"])
    pairs = [[[b"unicode", key], value] for key, value in state.items()]
    return [_FAILURE, [b"dictionary", *pairs]]


def _state(pairs: list[Any]) -> dict[bytes, Any] | None:
    state = {}
    for pair in pairs:
        match pair:
            case [bytes(key), value] | [[b"unicode", bytes(key)], value]:
                state[key] = value
            case _:
                return None
    return state


def _name(expression: Any) -> bytes:
    """Return the name of a class, which is there as bytes, as text or as the class."""
    match expression:
        case bytes(name) | [b"unicode" | b"class", bytes(name)]:
            return name
    return b"unknown"


def _names(expression: Any, kind: bytes) -> list[Any]:
    match expression:
        case [b"list" | b"tuple", *items]:
            names = [_name(item) for item in items]
        case _:
            names = [kind]
    return [b"list", *([b"unicode", name] for name in names)]
