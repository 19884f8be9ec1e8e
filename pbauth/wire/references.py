"""
References compare by identity, even those of different connections.

Twisted's raise `AttributeError` when they are compared with one of another connection, or with
anything else (twisted#9671): ``self.observers.remove(observer)``, as its own tutorial has it, fails
as soon as two clients share a `Cacheable`.  Twisted makes them itself, so they are mended there,
for the whole program.
"""

from __future__ import annotations

from typing import Any

from twisted.spread import pb


def _identity(reference: Any) -> tuple[Any, ...]:
    if isinstance(reference, pb.RemoteCacheObserver):
        return id(reference.broker), id(reference.cached), id(reference.perspective)
    return id(reference.broker), reference.luid


def _equals(self: Any, other: Any) -> Any:
    for kind in (pb.RemoteReference, pb.RemoteCacheObserver):
        if isinstance(self, kind) and isinstance(other, kind):
            return _identity(self) == _identity(other)
    return NotImplemented


def _hash(self: Any) -> int:
    return hash(_identity(self))


def compareReferences() -> None:
    """Let two references be equal where they stand for the same object of the same peer."""
    for kind in (pb.RemoteReference, pb.RemoteCacheObserver):
        changing: Any = kind
        changing.__eq__ = _equals
        changing.__ne__ = object.__ne__
        changing.__hash__ = _hash
