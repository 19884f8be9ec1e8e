"""What the stores have in common whose identities are copies of what is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakKeyDictionary

from attrs import evolve
from twisted.application.service import IServiceCollection
from twisted.internet.defer import Deferred
from twisted.python.components import Componentized

from pbauth._arguments import checkProvides
from pbauth._async import run
from pbauth.accounts.administrators import KeptAdministrator
from pbauth.accounts.authorizer import Authorizer
from pbauth.accounts.groups import Groups
from pbauth.accounts.hashing import Hashing
from pbauth.accounts.identity import checkReplacement
from pbauth.accounts.records import Record, recordOf
from pbauth.accounts.vouchers import VoucherKeeping
from pbauth.audit import Audit
from pbauth.errors import StoreError
from pbauth.interfaces import IIdentity, Reactor
from pbauth.mechanisms import Verifier, withoutPassword


class _ChangedMeanwhile(Exception):
    """Somebody else has changed the account, and wins."""


class CopyingAuthorizer(VoucherKeeping, Authorizer):
    """
    An authorizer whose identities count once they are saved.

    It remembers what was stored of each copy that was given out, so that saving it writes what was
    changed in it and nothing else: two may change the same identity at once.
    """

    def __init__(
        self,
        serviceCollection: IServiceCollection | Componentized | None,
        hashing: Hashing,
        *,
        audit: Audit | None = None,
        reactor: Reactor = None,
    ) -> None:
        super().__init__(serviceCollection, hashing, audit=audit, reactor=reactor)
        self._storedRecord: WeakKeyDictionary[Any, Record] = WeakKeyDictionary()
        self._notingLogins: set[str] = set()

    def addRecords(self, records: Iterable[Record], skipKnown: bool = False) -> Deferred[int]:
        """Store new identities (see `IAccountStore`)."""
        raise NotImplementedError

    def addIdentity(self, identity: IIdentity) -> Deferred[None]:
        """
        Store a new identity.

        Returns:
            Fires when it is stored; fails with `DuplicateIdentity` if the name is taken, or
            with `StoreError`.

        Raises:
            TypeError: it is not an identity.
        """

        checkProvides(IIdentity, identity, "identity")

        async def add() -> None:
            if identity.created is None:
                identity.created = self.now()
            record = await recordOf(identity)
            await self.addRecords([record])
            self._saved(identity, record)

        return Deferred.fromCoroutine(add())

    def changeIdentity(
        self,
        name: str,
        change: Callable[[Record], Record | None],
        keeping: KeptAdministrator | None = None,
    ) -> Deferred[None]:
        """Change an identity in one transaction (see `IAccountStore`)."""
        raise NotImplementedError

    def replacePassword(
        self, identity: IIdentity, before: dict[str, Verifier], verifiers: dict[str, Verifier]
    ) -> Deferred[bool]:
        """
        Replace the verifiers of a password by those of another one, unless somebody, in whatever
        process, changed a verifier or the lock in the meantime.

        Returns:
            Fires with whether that was done; fails with `StoreError`.

        Raises:
            TypeError: an argument is of the wrong type.
        """
        checkReplacement(identity, before, verifiers)
        old = frozenset((mechanism, each.encode()) for mechanism, each in before.items())
        kept = {**withoutPassword(before), **verifiers}
        new = frozenset((mechanism, each.encode()) for mechanism, each in kept.items())

        def change(stored: Record) -> Record:
            if stored.locked or stored.verifiers != old:
                raise _ChangedMeanwhile
            return evolve(stored, verifiers=new, mustChangePassword=False)

        async def replace() -> bool:
            try:
                await self.changeIdentity(identity.name, change)
            except (_ChangedMeanwhile, KeyError):
                return False
            return True

        return Deferred.fromCoroutine(replace())

    def _noteLogin(self, identity: IIdentity) -> None:
        """Store when an identity logs in; nobody waits for it."""
        name, now = identity.name, self.now()
        if name in self._notingLogins:
            return
        self._notingLogins.add(name)

        async def note() -> None:
            try:
                await self.changeIdentity(name, lambda stored: evolve(stored, lastLogin=now))
            except (KeyError, StoreError):
                # It was removed meanwhile; or it is in the log why this can't be stored.
                pass
            finally:
                self._notingLogins.discard(name)

        run(note())

    def identityChanged(self, identity: IIdentity) -> None:
        """Do nothing: the identity is a copy, and takes effect when it is saved."""

    def _saved(self, identity: IIdentity, record: Record) -> None:
        self._storedRecord[identity] = record
        identity.stored = True

    def _copyOf(self, record: Record, groups: Groups) -> IIdentity:
        identity = record.asIdentity(self, groups)
        self._saved(identity, record)
        return identity
