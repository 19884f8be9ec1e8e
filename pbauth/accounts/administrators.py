"""
The last administrator: what must be left of an account store, whatever is taken away.

The rule is checked by the store itself, in the transaction of the change (see
`IAccountStore.changeIdentity`), so that two servers that take away each other's last-but-one
administrator leave one.  Nothing is done first and undone afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from attrs import evolve, frozen

from pbauth._arguments import checkCallable, checkType
from pbauth.accounts.groups import Groups, Key
from pbauth.accounts.records import Record
from pbauth.errors import LastAdministrator, NotAMember
from pbauth.interfaces import IIdentity

_Member = TypeVar("_Member", Record, IIdentity)


@frozen
class KeptAdministrator:
    """
    At least one identity that can log in holds a key to a service, which is good for all methods.

    Attributes:
        service: the name of the service of administration.
        externalPasswords: passwords are not kept in this store: an identity without a verifier can
            log in all the same.
        verifiers: the names of the verifiers and public keys by one of which an identity can log
            in, see `pbauth.mechanisms.verifiersFor`; `None`: by any.
    """

    service: str
    externalPasswords: bool = False
    verifiers: frozenset[str] | None = None

    def administers(self, record: Record) -> bool:
        """
        Return whether an identity can log in and administer, and this does not end by itself.

        Args:
            record: of the identity, with the keys of its groups (`Record.withGroupKeys`).
        """
        return (
            not record.locked
            and any(key[0] == self.service and record.methodsOf(key) is None for key in record.keys)
            and record.expires is None
            and (self.externalPasswords or record.opensForGood(self.verifiers))
        )

    def check(
        self, before: Record, after: Record | None, others: Iterable[Record], groups: Groups
    ) -> None:
        """
        Check that a change of an identity leaves an administrator.

        Args:
            before: the identity as it is.
            after: as it would be; `None`: it would be removed.
            others: all identities that hold a key to the service, themselves or by a group; this
                one maybe among them.
            groups: the keys of their groups.

        Raises:
            LastAdministrator: it does not.
        """
        left = [other for other in others if other.name != before.name]
        self._check(
            [each.withGroupKeys(groups) for each in (before, *left)],
            [each.withGroupKeys(groups) for each in (after, *left) if each is not None],
        )

    def checkLoss(self, loss: GroupLoss, holders: Iterable[Record], groups: Groups) -> None:
        """
        Check that what happens to a group leaves an administrator.

        Args:
            loss: what happens.
            holders: all identities that hold a key to the service, themselves or by a group.
            groups: the keys of their groups.

        Raises:
            LastAdministrator: it does not.
        """
        records = list(holders)
        left = loss.groups(groups)
        self._check(
            [each.withGroupKeys(groups) for each in records],
            [loss.record(each).withGroupKeys(left) for each in records],
        )

    def _check(self, before: Iterable[Record], after: Iterable[Record]) -> None:
        administrators = [each.name for each in before if self.administers(each)]
        if administrators and not any(map(self.administers, after)):
            raise LastAdministrator(administrators[0])


@frozen
class GroupLoss:
    """
    What is taken from a group. With neither a member nor a key: the group is removed.

    Attributes:
        group: the name of the group.
        member: the name of an identity that leaves it.
        key: a key that it holds no longer.
    """

    group: str
    member: str | None = None
    key: Key | None = None

    def members(self, of: Iterable[_Member], groups: Groups) -> list[_Member]:
        """
        Return those whom it concerns.

        Args:
            of: identities, or their records, among them all members of the group.
            groups: the keys of groups, as they are.

        Raises:
            KeyError: there is no such group, or it holds no such key.
            NotAMember: the one who leaves is not in it.
        """
        if self.key is not None and self.key not in groups[self.group]:
            raise KeyError(self.key)
        found = [each for each in of if self.group in each.groups]
        if self.member is None:
            return found
        found = [each for each in found if each.name == self.member]
        if not found:
            raise NotAMember(self.group, self.member)
        return found

    def groups(self, before: Groups) -> Groups:
        """
        Return the keys of groups, as they are afterwards.

        Args:
            before: as they are.
        """
        if self.member is not None:
            return before
        if self.key is None:
            return {name: keys for name, keys in before.items() if name != self.group}
        return {
            name: keys - {self.key} if name == self.group else keys for name, keys in before.items()
        }

    def record(self, before: Record) -> Record:
        """
        Return the record of an identity, as it is afterwards.

        Args:
            before: as it is.
        """
        if self.member != before.name:
            return before
        return evolve(before, groups=before.groups - {self.group})


def checkChange(
    change: Callable[[Record], Record | None], keeping: KeptAdministrator | None
) -> None:
    """
    Check the arguments of `IAccountStore.changeIdentity`.

    Raises:
        TypeError: one is of the wrong type.
    """
    checkCallable(change, "change")
    checkKeeping(keeping)


def checkKeeping(keeping: KeptAdministrator | None) -> None:
    """
    Check an argument that says which administrator has to be left.

    Raises:
        TypeError: it is of the wrong type.
    """
    if keeping is not None:
        checkType(KeptAdministrator, keeping, "keeping")
