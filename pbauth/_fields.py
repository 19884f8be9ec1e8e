"""
What an application's errors carry: the fields that their classes declare, and how these are read.

A class declares a field by an annotation of its own, or as an argument of its constructor.
"""

from __future__ import annotations

import inspect
import types
import typing
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, ClassVar

_SCALARS = frozenset(
    {type(None), bool, int, float, str, bytes, datetime, date, time, timedelta, Decimal}
)
_LISTS = frozenset({tuple, list, set, frozenset})

#: A field deeper than this is not plain.
_DEEPEST = 20


class WrongFields(Exception):
    """The peer has sent fields that are not those that the class declares."""


@lru_cache(maxsize=1024)
def declared(kind: type) -> dict[str, Any]:
    """
    Find the fields that a class of errors declares.

    Args:
        kind: the class.

    Returns:
        Their names, and their types; `Any` where a type can't be found out.
    """
    found: dict[str, Any] = {}
    for each in reversed(kind.__mro__):
        if not _isApplications(each):
            continue
        constructor = vars(each).get("__init__")
        if inspect.isfunction(constructor):
            _, *parameters = inspect.signature(constructor).parameters.values()
            hints = _hints(constructor)
            for one in parameters:
                if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
                    found[one.name] = hints.get(one.name, Any)
        hints = _hints(each)
        for name in inspect.get_annotations(each):
            hint = hints.get(name, Any)
            if not name.startswith("_") and typing.get_origin(hint) is not ClassVar:
                found[name] = hint
    return found


def _isApplications(kind: type) -> bool:
    return kind.__module__.partition(".")[0] not in ("builtins", "twisted", "pbauth")


def _hints(of: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(of)
    except Exception:
        # Names that exist for a type checker only.
        return {}


def stateOf(error: BaseException) -> dict[str, Any]:
    """
    Return what is sent of an error.

    Args:
        error: of a class that declares fields.

    Returns:
        The arguments that its text is made from, and each declared field that it has.
    """
    kind: Any = type(error)
    state: dict[str, Any] = {
        name: getattr(error, name) for name in declared(kind) if hasattr(error, name)
    }
    arguments = error.args if _isPlain(error.args) else (str(error),)
    return {"fields": state, "args": arguments}


def restore(error: BaseException, state: Any) -> None:
    """
    Give an error that was made without its constructor what arrived from the wire.

    Args:
        error: of a class that declares fields.
        state: what the peer sent.

    Raises:
        WrongFields: it is not what the class declares.
    """
    fields = state.get("fields") if isinstance(state, dict) else None
    arguments = state.get("args") if isinstance(state, dict) else None
    if not isinstance(fields, dict) or not isinstance(arguments, tuple) or not _isPlain(arguments):
        raise WrongFields
    error.args = arguments
    kind: Any = type(error)
    for name, hint in declared(kind).items():
        if name in fields:
            if not (_isPlain(fields[name]) and _fits(fields[name], hint)):
                raise WrongFields
            setattr(error, name, fields[name])


def _isPlain(value: object, depth: int = 0) -> bool:
    if type(value) in _SCALARS:
        return True
    if depth > _DEEPEST:
        return False
    if isinstance(value, dict) and type(value) is dict:
        return all(_isPlain(each, depth + 1) for pair in value.items() for each in pair)
    if type(value) in _LISTS:
        items: Any = value
        return all(_isPlain(item, depth + 1) for item in items)
    return False


def _fits(value: object, hint: Any) -> bool:
    """
    Return whether a value is of a type.

    A type that can't be checked fits every value.
    """
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, each) for each in typing.get_args(hint))
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    if origin is typing.Annotated:
        return _fits(value, typing.get_args(hint)[0])
    if hint is None:
        return value is None
    kind = hint if origin is None else origin
    # `Any` is a class in newer versions of Python.
    if not isinstance(kind, type) or kind in (object, Any):
        return True
    if kind is float:
        return type(value) in (int, float)
    if kind is int:
        return type(value) is int
    try:
        return isinstance(value, kind)
    except TypeError:
        # A `Protocol`, or a `TypedDict`.
        return True
