"""
Finds what can't be serialised, and says where it is.

Twisted's jelly sends an `Unpersistable` in its place, which arrives as if all were well.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import AsyncIterable, Callable, Coroutine, Generator
from itertools import pairwise
from reprlib import repr as shortRepr
from types import FunctionType
from typing import Any

from twisted.internet.defer import Deferred
from twisted.spread.jelly import Jellyable

from pbauth.errors import NotSerializable

#: What something is, and what to do about it, by what tells it.
_KINDS: list[tuple[Callable[[Any], bool], str, str]] = [
    (lambda value: isinstance(value, enum.Enum), "Enum ", "make it a str, or Copyable"),
    (dataclasses.is_dataclass, "dataclass ", "make it a dict, or Copyable"),
    (
        lambda value: hasattr(value, "__attrs_attrs__"),
        "attrs class ",
        "make it a dict, or Copyable",
    ),
    (lambda value: hasattr(value, "_fields"), "namedtuple ", "make it a tuple, or Copyable"),
    (lambda value: isinstance(value, (bytearray, memoryview)), "", "make it bytes"),
    (lambda value: isinstance(value, Coroutine), "", "await it"),
    (lambda value: isinstance(value, Deferred), "", "wait for it"),
    (lambda value: isinstance(value, BaseException), "", "raise it, or make it a str"),
    (lambda value: isinstance(value, AsyncIterable), "", "make it a pbauth.Stream"),
    (lambda value: isinstance(value, Generator), "", "make it a list, or an async generator"),
    (lambda value: callable(getattr(value, "read", None)), "", "use pbauth.sendBytes"),
    *(
        (lambda value, kind=kind: isinstance(value, kind), "", f"make it a {kind.__name__}")
        for kind in (str, bytes, int, float, tuple, list, dict)
    ),
]


def refusal(root: str, trail: list[Any]) -> NotSerializable:
    """
    Say what can't be serialised, and where it is.

    Args:
        root: what the outermost object is called.
        trail: the objects, each of which holds the next one; the last one can't be serialised.

    Returns:
        What to raise.
    """
    kind, advice = _describe(trail[-1])
    return NotSerializable(_path(root, trail), kind, advice)


def _describe(value: Any) -> tuple[str, str]:
    if isinstance(value, FunctionType):
        return f"function {value.__qualname__}", "make it a method of a Referenceable"
    name = type(value).__qualname__
    for tells, prefix, advice in _KINDS:
        if tells(value):
            return prefix + name, advice
    return name, "make it a str, or Copyable"


def _path(root: str, trail: list[Any]) -> str:
    path = root
    ofState = False
    for outer, inner in pairwise(trail):
        path += _step(outer, inner, ofState)
        # The state of a `Copyable` is a dict.
        ofState = isinstance(outer, Jellyable)
    return path


def _step(outer: Any, inner: Any, isState: bool) -> str:
    if isinstance(outer, (list, tuple)):
        return f"[{next(place for place, item in enumerate(outer) if item is inner)}]"
    if isinstance(outer, dict):
        for key, value in outer.items():
            if value is inner:
                return f".{key}" if isState and isinstance(key, str) else f"[{shortRepr(key)}]"
        return " (a key)"
    return " (an item)" if isinstance(outer, (set, frozenset)) else ""
