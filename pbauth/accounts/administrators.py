"""
The last administrator: what must be left of an account store, whatever is taken away.

The rule is checked by the store itself, in the transaction of the change (see
`IAccountStore.changeIdentity`), so that two servers that take away each other's last-but-one
administrator leave one.  Nothing is done first and undone afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import frozen

from pbauth._arguments import checkCallable, checkType
from pbauth.accounts.records import Record
from pbauth.errors import LastAdministrator


@frozen
class KeptAdministrator:
    """
    At least one identity that can log in holds a key to a service.

    Attributes:
        service: the name of the service of administration.
        externalPasswords: passwords are not kept in this store: an identity without a verifier can
            log in all the same.
    """

    service: str
    externalPasswords: bool = False

    def administers(self, record: Record) -> bool:
        """
        Return whether an identity can log in and administer.

        Args:
            record: of the identity.
        """
        return (
            not record.locked
            and any(service == self.service for service, _ in record.keys)
            and (self.externalPasswords or bool(record.verifiers))
        )

    def check(self, before: Record, after: Record | None, others: Iterable[Record]) -> None:
        """
        Check that a change leaves an administrator.

        Args:
            before: the identity as it is.
            after: as it would be; `None`: it would be removed.
            others: all identities that hold a key to the service, this one maybe among them.

        Raises:
            LastAdministrator: it does not.
        """
        if not self.administers(before) or (after is not None and self.administers(after)):
            # Nobody loses an administrator.
            return
        if not any(self.administers(other) for other in others if other.name != before.name):
            raise LastAdministrator(before.name)


def checkChange(
    change: Callable[[Record], Record | None], keeping: KeptAdministrator | None
) -> None:
    """
    Check the arguments of `IAccountStore.changeIdentity`.

    Raises:
        TypeError: one is of the wrong type.
    """
    checkCallable(change, "change")
    if keeping is not None:
        checkType(KeptAdministrator, keeping, "keeping")
