"""What is known of each identity, by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

_Item = TypeVar("_Item")


class ByName(Generic[_Item]):
    """
    Keep things by the names of the identities that they belong to, oldest first.

    Args:
        noneLeft: is called with the name of an identity whose last thing was removed.
    """

    __slots__ = ("_items", "_noneLeft")

    def __init__(self, noneLeft: Callable[[str], None] | None = None) -> None:
        self._items: dict[str, dict[_Item, None]] = {}
        self._noneLeft = noneLeft

    def __iter__(self) -> Iterator[_Item]:
        return iter([item for some in self._items.values() for item in some])

    def __contains__(self, name: str) -> bool:
        """Return whether an identity has any."""
        return name in self._items

    def __len__(self) -> int:
        return sum(map(len, self._items.values()))

    def names(self) -> list[str]:
        """Return the names of those who have any."""
        return list(self._items)

    def of(self, name: str) -> list[_Item]:
        """
        Return what belongs to an identity, oldest first.

        Args:
            name: of the identity.
        """
        return list(self._items.get(name, ()))

    def add(self, name: str, item: _Item) -> None:
        """
        Add something.

        Args:
            name: of the identity.
            item: what is to be kept.
        """
        self._items.setdefault(name, {})[item] = None

    def discard(self, name: str, item: _Item) -> None:
        """
        Remove something; it is no error if it is not there.

        Args:
            name: of the identity.
            item: what was kept.
        """
        some = self._items.get(name)
        if some is not None:
            some.pop(item, None)
            if not some:
                del self._items[name]
                if self._noneLeft is not None:
                    self._noneLeft(name)
