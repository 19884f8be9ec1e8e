"""Accounts in memory: the authorizer for those who name no other store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime

from twisted.application.service import IServiceCollection
from twisted.internet.defer import (
    Deferred,
    DeferredLock,
    execute,
    fail,
    maybeDeferred,
    succeed,
)
from twisted.python.components import Componentized
from zope.interface import implementer

from pbauth._arguments import checkProvides
from pbauth._async import settled
from pbauth._moments import checkMoment
from pbauth.accounts.administrators import (
    GroupLoss,
    KeptAdministrator,
    checkChange,
    checkKeeping,
)
from pbauth.accounts.authorizer import Authorizer
from pbauth.accounts.groups import Groups, Key, checkGroupName, checkKey
from pbauth.accounts.hashing import Hashing
from pbauth.accounts.records import Record, holdersAmong, listedRecords, recordOf
from pbauth.accounts.vouchers import VoucherKeeping
from pbauth.audit import Audit
from pbauth.errors import (
    DuplicateGroup,
    DuplicateIdentity,
    Unauthorized,
    UnknownGroup,
)
from pbauth.interfaces import (
    IAccountStore,
    IGroupStore,
    IIdentity,
    Reactor,
)
from pbauth.mechanisms import Verifier, scram
from pbauth.mechanisms.scram import ScramVerifier


@implementer(IAccountStore, IGroupStore)
class DefaultAuthorizer(VoucherKeeping, Authorizer):
    """
    Keep identities in memory, in a dict.

    Attributes:
        identities: the dict, by name.
    """

    def __init__(
        self,
        serviceCollection: IServiceCollection | Componentized | None = None,
        hashing: Hashing = Hashing(),  # noqa: B008 - immutable
        *,
        audit: Audit | None = None,
        reactor: Reactor = None,
    ) -> None:
        super().__init__(serviceCollection, hashing, audit=audit, reactor=reactor)
        self.identities: dict[str, IIdentity] = {}
        # Who is a member stands in the identities.
        self._groups: dict[str, frozenset[Key]] = {}
        # Changes that look at others first take turns.
        self._changes = DeferredLock()

    def addIdentity(self, identity: IIdentity) -> Deferred[None]:
        """
        Store a new identity.

        Returns:
            Has fired: nobody has to wait for this store.

        Raises:
            DuplicateIdentity: the name is taken.
            TypeError: it is not an identity.
        """
        checkProvides(IIdentity, identity, "identity")
        if identity.name in self.identities:
            raise DuplicateIdentity(identity.name)
        self._checkGroups(identity.groups)
        if identity.created is None:
            identity.created = self.now()
        self._hold(identity)
        return succeed(None)

    def _hold(self, identity: IIdentity) -> None:
        identity.setGroups(self._keysOf(identity.groups))
        self.identities[identity.name] = identity
        identity.stored = True
        self._noteCostOf(identity)

    def updateIdentity(self, identity: IIdentity) -> Deferred[None]:
        """
        Store what changed, and end the sessions that are no longer allowed. Where the identity is
        the stored object itself, its changes have counted already.

        Returns:
            Has fired.

        Raises:
            KeyError: it is not known.
            TypeError: it is not an identity.
        """
        checkProvides(IIdentity, identity, "identity")
        if identity.name not in self.identities:
            raise KeyError(identity.name)
        identity.setGroups(self._keysOf(self.identities[identity.name].groups))
        self.identities[identity.name] = identity
        identity.stored = True
        self._noteCostOf(identity)
        self.endUnauthorized(identity)
        return succeed(None)

    def removeIdentity(self, name: str) -> Deferred[None]:
        """
        Forget an identity, and end its sessions.

        Returns:
            Has fired.

        Raises:
            KeyError: it is not known.
        """
        self.identities.pop(name).stored = False
        self.identityRemoved(name)
        return succeed(None)

    def getIdentityRequest(self, name: str) -> Deferred[IIdentity]:
        """
        Find an identity.

        Returns:
            Fires with the identity of that name; fails with `Unauthorized` if there is none.
        """
        try:
            return succeed(self.identities[name])
        except KeyError:
            return fail(Unauthorized())

    def changeIdentity(
        self,
        name: str,
        change: Callable[[Record], Record | None],
        keeping: KeptAdministrator | None = None,
    ) -> Deferred[None]:
        """
        Change an identity, and end the sessions that it no longer allows (see `IAccountStore`).

        Returns:
            Fires when that is done; fails with `KeyError` if it is not known, with
            `LastAdministrator`, and with whatever `change` raises.

        Raises:
            TypeError: an argument is of the wrong type.
        """
        checkChange(change, keeping)

        async def inTurn() -> None:
            try:
                identity = await self.getIdentityRequest(name)
            except Unauthorized:
                raise KeyError(name) from None
            before = await recordOf(identity)
            others = [] if keeping is None else await self.readRecords()
            after = change(before)
            if keeping is not None:
                keeping.check(before, after, others, self._groups)
            if after is None:
                await settled(self.removeIdentity(name))
                return
            after.applyTo(identity, before)
            await settled(identity.save())

        return self._changes.run(lambda: Deferred.fromCoroutine(inTurn()))

    def listIdentities(
        self, after: str = "", most: int | None = None
    ) -> Deferred[list[tuple[str, bool, int]]]:
        """
        List the identities.

        Returns:
            Fires with a list of `(name, locked, number of keys)`, as `IAccountStore` has it.
        """
        found = [(name, self.identities[name]) for name in self._names(after, most)]
        return succeed(
            [
                (name, bool(each.locked), sum(map(bool, each.keyring.values())))
                for name, each in found
            ]
        )

    def listHolders(self, service: str) -> Deferred[list[tuple[str, str, bool, str]]]:
        """
        List who holds keys to a service.

        Returns:
            Fires with a list of `(name, perspectiveName, locked, group)`, as `IAccountStore` has
            it.
        """

        async def find() -> list[tuple[str, str, bool, str]]:
            return holdersAmong(await self.readRecords(), self._groups, service)

        return Deferred.fromCoroutine(find())

    def readRecords(self, after: str = "", most: int | None = None) -> Deferred[list[Record]]:
        """
        Read whole accounts.

        Returns:
            Fires with a list of records, as `IAccountStore` has it.
        """

        async def read() -> list[Record]:
            found = [self.identities[name] for name in self._names(after, most)]
            return [await recordOf(identity) for identity in found]

        return Deferred.fromCoroutine(read())

    def addRecords(self, records: Iterable[Record], skipKnown: bool = False) -> Deferred[int]:
        """
        Store new identities, all of them or none.

        Returns:
            Fires with how many were added.

        Raises:
            DuplicateIdentity: a name is taken.
            UnknownGroup: there is no group of that name.
            TypeError: one is no record.
        """
        made: dict[str, IIdentity] = {}
        for record in listedRecords(records):
            if record.name not in self.identities and record.name not in made:
                self._checkGroups(record.groups)
                made[record.name] = record.asIdentity(self, self._groups)
            elif not skipKnown:
                raise DuplicateIdentity(record.name)
        for identity in made.values():
            self._hold(identity)
        return succeed(len(made))

    def _noteLogin(self, identity: IIdentity) -> None:
        """Set the identity's `lastLogin`."""
        identity.lastLogin = self.now()

    def countExpiring(self, until: datetime) -> Deferred[int]:
        """Count the accounts that expire until then (see `IAccountStore`)."""
        checkMoment(until, "until")
        now = self.now()
        found = [each.expires for each in self.identities.values()]
        return succeed(sum(now < each <= until for each in found if each is not None))

    # Groups.

    def addGroup(self, name: str) -> Deferred[None]:
        """Add a group (see `IGroupStore`)."""

        def add() -> None:
            if checkGroupName(name) in self._groups:
                raise DuplicateGroup(name)
            self._groups[name] = frozenset()

        return execute(add)

    def removeGroup(self, name: str, keeping: KeptAdministrator | None = None) -> Deferred[None]:
        """Remove a group, and end the sessions that rested on it (see `IGroupStore`)."""
        return self._lose(GroupLoss(name), keeping)

    def listGroups(self, after: str = "", most: int | None = None) -> Deferred[list[str]]:
        """List the groups (see `IGroupStore`)."""
        return succeed(sorted(name for name in self._groups if name > after)[:most])

    def addMember(self, group: str, identityName: str) -> Deferred[None]:
        """Make an identity a member of a group (see `IGroupStore`)."""

        def add() -> None:
            self._checkGroups([group])
            identity = self._known()[identityName]
            identity.setGroups(self._keysOf({*identity.groups, group}))

        return execute(add)

    def removeMember(
        self, group: str, identityName: str, keeping: KeptAdministrator | None = None
    ) -> Deferred[None]:
        """Take an identity out of a group (see `IGroupStore`)."""
        return self._lose(GroupLoss(group, member=identityName), keeping)

    def members(self, group: str) -> Deferred[list[str]]:
        """List the members of a group (see `IGroupStore`)."""

        def find() -> list[str]:
            self._checkGroups([group])
            return sorted(each.name for each in self._membersOf(group))

        return execute(find)

    def groupsOf(self, identityName: str) -> Awaitable[list[str]]:
        """List the groups of an identity (see `IGroupStore`)."""
        identity = self._known().get(identityName)
        return succeed([] if identity is None else sorted(identity.groups))

    def grantGroupKey(self, group: str, service: str, perspective: str) -> Deferred[None]:
        """Give a group a key (see `IGroupStore`)."""

        def grant() -> None:
            self._checkGroups([group])
            key = checkKey(service, perspective)
            self._groups[group] |= {key}
            for identity in self._membersOf(group):
                identity.setGroups(self._keysOf(identity.groups))

        return execute(grant)

    def revokeGroupKey(
        self, group: str, service: str, perspective: str, keeping: KeptAdministrator | None = None
    ) -> Deferred[None]:
        """Take a key from a group, and end the sessions that rested on it (see `IGroupStore`)."""
        return self._lose(GroupLoss(group, key=(service, perspective)), keeping)

    def groupKeys(self, group: str) -> Deferred[list[Key]]:
        """List the keys of a group (see `IGroupStore`)."""

        def find() -> list[Key]:
            self._checkGroups([group])
            return sorted(self._groups[group])

        return execute(find)

    def _lose(self, loss: GroupLoss, keeping: KeptAdministrator | None) -> Deferred[None]:
        checkKeeping(keeping)

        async def inTurn() -> None:
            records = [] if keeping is None else await self.readRecords()
            self._checkGroups([loss.group])
            members = loss.members(self._known().values(), self._groups)
            if keeping is not None:
                keeping.checkLoss(loss, records, self._groups)
            self._groups = dict(loss.groups(self._groups))
            for identity in members:
                left = identity.groups - ({loss.group} if loss.key is None else set())
                identity.setGroups(self._keysOf(left))
                self.endUnauthorized(identity)

        return self._changes.run(lambda: Deferred.fromCoroutine(inTurn()))

    def _known(self) -> dict[str, IIdentity]:
        """Return the identities that can be members, by name."""
        return self.identities

    def _membersOf(self, group: str) -> list[IIdentity]:
        return [each for each in self._known().values() if group in each.groups]

    def _checkGroups(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self._groups:
                raise UnknownGroup(name)

    def _keysOf(self, names: Iterable[str]) -> Groups:
        return {name: self._groups[name] for name in names if name in self._groups}

    def _noteCostOf(self, identity: IIdentity) -> None:
        def note(verifiers: dict[str, Verifier]) -> None:
            verifier = verifiers.get(scram.NAME)
            if isinstance(verifier, ScramVerifier):
                self._noteCosts([verifier.cost])

        # Those who wait for a password that can't be derived get the error.
        maybeDeferred(identity.getVerifiers).addCallbacks(note, lambda failure: None)

    def _names(self, after: str, most: int | None) -> list[str]:
        return sorted(name for name in self.identities if name > after)[:most]

    def identityChanged(self, identity: IIdentity) -> None:
        """End the sessions that the stored identity no longer allows."""
        if self.identities.get(identity.name) is identity:
            self.endUnauthorized(identity)
