"""Objects that have nothing but what an interface declares."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import maybeDeferred
from zope.interface import implementer

from pbauth import (
    IAuthorizer,
    IIdentity,
    IPerspective,
    IService,
)


def only(interface: Any) -> type:
    """A class that forwards to another object what an interface declares, and nothing else."""
    names = set(interface.names(all=True))

    @implementer(interface)
    class Only:
        def __init__(self, original: Any) -> None:
            object.__setattr__(self, "_Only__original", original)

        def __getattr__(self, name: str) -> Any:
            if name not in names:
                raise AttributeError(f"{name} is not in {interface.__name__}")
            return getattr(self.__original, name)

        def __setattr__(self, name: str, value: Any) -> None:
            if name not in names:
                raise AttributeError(f"{name} is not in {interface.__name__}")
            setattr(self.__original, name, value)

    Only.__name__ = f"Only{interface.__name__}"
    return Only


OnlyIdentity = only(IIdentity)
OnlyService = only(IService)
OnlyPerspective = only(IPerspective)


class OnlyAuthorizer(only(IAuthorizer)):  # type: ignore[misc]
    """An authorizer that is nothing but the interface, and gives such identities."""

    def __init__(self, original: Any) -> None:
        super().__init__(original)
        object.__setattr__(self, "_find", original.getIdentityRequest)

    async def getIdentityRequest(self, name: str) -> Any:
        return OnlyIdentity(await maybeDeferred(self._find, name))
