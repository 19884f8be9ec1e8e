"""What the security options of a connection allow; it is looked at once for each connection."""

from __future__ import annotations

from typing import Any

from twisted.spread import pb

# By name: each look at that module takes long.
from twisted.spread.jelly import (
    SecurityOptions,
    unjellyableFactoryRegistry,
    unjellyableRegistry,
)

from pbauth.wire.decoding import PLAIN_TYPES, REFERENCE

_REFERENCES = frozenset({REFERENCE})
# Twisted's annotation has text where there is `bytes`.
_REGISTRY: Any = unjellyableRegistry


def _allows(security: Any, names: frozenset[bytes]) -> bool:
    """Return whether all values of these types may cross."""
    return (
        isinstance(security, SecurityOptions)
        and type(security).isTypeAllowed is SecurityOptions.isTypeAllowed
        and "isTypeAllowed" not in vars(security)
        and security.allowedTypes.keys() >= names
        # An application may have its own idea of them.
        and unjellyableFactoryRegistry.keys().isdisjoint(names)
    )


def allowsPlain(security: Any) -> bool:
    """
    Return whether all plain values may cross, so that nothing has to be asked for each.

    Args:
        security: of a connection, a `twisted.spread.jelly.SecurityOptions`.

    Returns:
        Whether they may, and no class of the application's takes their place.
    """
    return _allows(security, PLAIN_TYPES) and _REGISTRY.keys().isdisjoint(PLAIN_TYPES)


def allowsReferences(security: Any) -> bool:
    """
    Return whether references to objects of the peer's may come in.

    Args:
        security: of a connection, a `twisted.spread.jelly.SecurityOptions`.

    Returns:
        Whether they may, and are Twisted's own.
    """
    return _allows(security, _REFERENCES) and _REGISTRY[REFERENCE] is pb.RemoteReference
