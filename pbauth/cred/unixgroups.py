"""The groups of the machine: whoever is in a Unix group is in the group of the same name."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Iterable

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from pbauth._async import chooseReactor, settled
from pbauth.cred.authorizer import CredAuthorizer
from pbauth.interfaces import IGroupStore


def unixGroupsOf(name: str) -> list[str]:
    """
    Return the names of the Unix groups of a user; none, of somebody whom the machine does not know.

    May take long, since the machine may ask others.

    Args:
        name: of the user.
    """
    try:
        primary = pwd.getpwnam(name).pw_gid
    except (KeyError, ValueError):
        return []
    found = []
    for number in os.getgrouplist(name, primary):
        try:
            found.append(grp.getgrgid(number).gr_name)
        except KeyError:
            # A number without a name.
            continue
    return found


def isUnixGroup(name: str) -> bool:
    """Return whether the machine has a group of this name."""
    try:
        grp.getgrnam(name)
    except (KeyError, ValueError):
        return False
    return True


class UnixGroupsAuthorizer(CredAuthorizer):
    """
    A `CredAuthorizer` for PAM: a user is in a group of the accounts if they are in the Unix group
    of the same name. Groups of the accounts that the machine does not have stay as they are.
    """

    def groupsOf(self, identityName: str) -> Deferred[Iterable[str]]:
        """
        Find the groups of a user.

        Args:
            identityName: the name of the user.

        Returns:
            Fires with names of groups.
        """

        async def find() -> Iterable[str]:
            stored: list[str] = []
            if IGroupStore.providedBy(self.accounts):
                stored = await settled(self.accounts.groupsOf(identityName))
            reactor = chooseReactor(self.accounts.derivations.reactor)
            return await deferToThreadPool(
                reactor, reactor.getThreadPool(), _find, identityName, stored
            )

        return Deferred.fromCoroutine(find())


def _find(name: str, stored: list[str]) -> list[str]:
    return [*unixGroupsOf(name), *(group for group in stored if not isUnixGroup(group))]
