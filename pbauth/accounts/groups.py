"""
Groups: named sets of identities that hold keys; and the patterns that a key may hold.

A key names a service and, of that, one perspective; or `ANY`: every perspective; or `OWN`: the one
that is named like the identity which uses the key.  A perspective can't be called by either.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from pbauth.names import ANY, OWN, checkName

#: A key: the name of a service, and that of a perspective, or a pattern.
Key = tuple[str, str]

#: Groups, with the keys of each.
Groups = Mapping[str, frozenset[Key]]


def filled(key: Key, name: str) -> Key:
    """
    Return a key with the name of the identity in place of `OWN`.

    Args:
        key: on the identity's keyring, or that of a group.
        name: of the identity.
    """
    service, perspective = key
    return (service, name) if perspective == OWN else key


def keysTo(service: str, perspective: str, name: str) -> tuple[Key, ...]:
    """
    Return the keys any of which is the key to a perspective.

    Args:
        service: the name of the service.
        perspective: the name of the perspective.
        name: of the identity.
    """
    if perspective in (ANY, OWN):
        return ()
    found = ((service, perspective), (service, ANY))
    return (*found, (service, OWN)) if perspective == name else found


@frozen
class Group:
    """
    Hold what is stored of one group, besides its members.

    Attributes:
        name: its name.
        keys: the pairs `(serviceName, perspectiveName)` that its members may use.
    """

    name: str
    keys: frozenset[Key] = frozenset()

    def check(self) -> None:
        """
        Check that this can be a group.

        Raises:
            TypeError: a name is not a `str`.
            InvalidName: a name breaks the rule of `pbauth.names`.
        """
        checkGroupName(self.name)
        for key in self.keys:
            checkKey(*key)


def checkGroupName(name: object) -> str:
    """
    Check the name of a group, and return it.

    Raises:
        TypeError: it is not a `str`.
        InvalidName: it breaks the rule of `pbauth.names`.
    """
    return checkName(name, "name of a group")


def checkKey(service: object, perspective: object) -> Key:
    """
    Check the two names of a key, and return the key.

    Raises:
        TypeError: a name is not a `str`.
        InvalidName: a name breaks the rule of `pbauth.names`.
    """
    return checkName(service, "name of a service"), checkName(perspective, "name of a perspective")
