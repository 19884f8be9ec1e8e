"""What is known of each identity, by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

_Item = TypeVar("_Item")


class ByName(Generic[_Item]):
    """
    Keep things by the names of the identities that they belong to, oldest first.

    Args:
        noneLeft: is called with the name of an identity whose last thing was removed.
    """

    __slots__ = ("_items", "_noneLeft")

    def __init__(self, noneLeft: Callable[[str], None] | None = None) -> None:
        # Nearly always there is one of a name, which then stands for itself: a dict of it would
        # take more memory than the thing. Several are the keys of a dict, in their order.
        self._items: dict[str, _Item | dict[_Item, None]] = {}
        self._noneLeft = noneLeft

    def __iter__(self) -> Iterator[_Item]:
        return iter([item for name in self._items for item in self.of(name)])

    def __contains__(self, name: str) -> bool:
        """Return whether an identity has any."""
        return name in self._items

    def __len__(self) -> int:
        return sum(len(some) if type(some) is dict else 1 for some in self._items.values())

    def names(self) -> list[str]:
        """Return the names of those who have any."""
        return list(self._items)

    def of(self, name: str) -> list[_Item]:
        """
        Return what belongs to an identity, oldest first.

        Args:
            name: of the identity.
        """
        some: Any = self._items.get(name)
        if type(some) is dict:
            return list(some)
        return [] if some is None else [some]

    def add(self, name: str, item: _Item) -> None:
        """
        Add something.

        Args:
            name: of the identity.
            item: what is to be kept.
        """
        some: Any = self._items.setdefault(name, item)
        if type(some) is dict:
            some[item] = None
        elif some is not item:
            self._items[name] = {some: None, item: None}

    def discard(self, name: str, item: _Item) -> None:
        """
        Remove something; it is no error if it is not there.

        Args:
            name: of the identity.
            item: what was kept.
        """
        some: Any = self._items.get(name)
        if type(some) is dict:
            some.pop(item, None)
            if some:
                return
        elif some is None or some is not item:
            return
        del self._items[name]
        if self._noneLeft is not None:
            self._noneLeft(name)
