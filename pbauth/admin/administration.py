"""What an administrator does with accounts, whatever the front door."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from attrs import evolve
from zope.interface import implementer

from pbauth._async import settled
from pbauth._limits import Limits
from pbauth._moments import checkMoment, toText
from pbauth.accounts.administrators import KeptAdministrator
from pbauth.accounts.groups import checkKey
from pbauth.accounts.identity import checkMethods
from pbauth.accounts.passwordpolicy import PasswordPolicy
from pbauth.accounts.records import Record, recordOf
from pbauth.accounts.vouchers import checkIssued
from pbauth.audit import Audit
from pbauth.errors import (
    Unauthorized,
    UnknownGroup,
    UnknownKey,
    UnknownPublicKey,
    UnknownUser,
    UnknownVoucher,
)
from pbauth.interfaces import IAdministration, IIdentity
from pbauth.mechanisms import KEY_MECHANISMS, Verifier
from pbauth.mechanisms.authorizedkeys import AuthorizedKey
from pbauth.mechanisms.voucher import IssuedVoucher, Voucher, makeVoucher
from pbauth.names import checkName

#: How many accounts are looked at at once.
_PAGE = 1_000


@implementer(IAdministration)
class Administration:
    """
    The operations of the ``pbauth`` command. A change is recorded in the audit log once it is done.

    Args:
        authorizer: stores the identities, an `IAccountStore` and `IGroupStore`.
        operator: the name of the one who does it all, for the audit.
        policy: what new passwords have to be like.
        keeping: the administrator that must be left by whatever is taken away. `None`: nobody, as
            the owner of the store may do with it whatever they like.
        audit: where the changes are recorded; by default where the authorizer's sessions are.
    """

    def __init__(
        self,
        authorizer: Any,
        operator: str = "",
        policy: PasswordPolicy = PasswordPolicy(),  # noqa: B008 - immutable
        *,
        keeping: KeptAdministrator | None = None,
        audit: Audit | None = None,
    ) -> None:
        self._authorizer = authorizer
        self._operator = operator
        self._policy = policy
        self._hasRead = False
        self._keeping = keeping
        self._audit: Audit = authorizer.sessions.audit if audit is None else audit

    def by(self, operator: str) -> Administration:
        """
        Return the same administration in another operator's name.

        Args:
            operator: the name that the audit log records for each change.
        """
        other = copy.copy(self)
        other._operator = operator
        return other

    async def addUser(self, name: str, password: str | None) -> None:
        """
        Add an identity.

        Args:
            name: of the identity.
            password: of the identity; `None`: it logs in in some other way.

        Raises:
            DuplicateIdentity: the name is taken.
            InvalidName: the name breaks the rule of `pbauth.names`.
            InvalidPassword: it can't be a password, or the policy forbids it.
        """
        identity = self._authorizer.createIdentity(name)
        if password is not None:
            self._policy.check(password, name)
        identity.setPassword(password)
        await settled(identity.save())
        self._audit.userAdded(self._operator, name)

    async def addUserWithVerifiers(self, name: str, verifiers: dict[str, Verifier]) -> None:
        """
        Do what `addUser` does, with verifiers of a password that were made elsewhere.

        Args:
            name: of the identity.
            verifiers: by the name of the mechanism; empty: it logs in in some other way.
        """
        identity = self._authorizer.createIdentity(name)
        identity.setVerifiers(verifiers)
        await settled(identity.save())
        self._audit.userAdded(self._operator, name)

    async def removeUser(self, name: str) -> None:
        """
        Remove an identity.

        Args:
            name: of the identity.

        Raises:
            UnknownUser: there is none of that name.
            LastAdministrator: nobody would be left who can administer.
        """
        await self._change(name, lambda record: None)
        self._audit.userRemoved(self._operator, name)

    async def setPassword(self, name: str, password: str, mustChange: bool = False) -> None:
        """
        Give an identity a new password.

        Args:
            name: of the identity.
            password: the new one.
            mustChange: it has to be changed before anything else.

        Raises:
            UnknownUser: there is none of that name.
            InvalidPassword: it can't be a password, or the policy forbids it.
        """
        identity = await self._find(name)
        self._policy.check(password, name)
        identity.setPassword(password)
        identity.mustChangePassword = mustChange
        await self._save(identity)
        self._audit.passwordSet(self._operator, name)

    async def setVerifiers(
        self, name: str, verifiers: dict[str, Verifier], mustChange: bool = False
    ) -> None:
        """
        Do what `setPassword` does, with verifiers that were made elsewhere.

        Args:
            name: of the identity.
            verifiers: by the name of the mechanism, at least one.
            mustChange: as for `setPassword`.

        Raises:
            UnknownUser: there is none of that name.
        """
        identity = await self._find(name)
        identity.setVerifiers(verifiers)
        identity.mustChangePassword = mustChange
        await self._save(identity)
        self._audit.passwordSet(self._operator, name)

    async def setLocked(self, name: str, locked: bool) -> None:
        """
        Lock or unlock an identity.

        Args:
            name: of the identity.
            locked: whether it is to be locked.

        Raises:
            UnknownUser: there is none of that name.
            LastAdministrator: nobody would be left who can administer.
        """
        await self._change(name, lambda record: evolve(record, locked=locked))
        (self._audit.locked if locked else self._audit.unlocked)(self._operator, name)

    async def listUsers(
        self, after: str = "", most: int | None = None
    ) -> list[tuple[str, bool, int]]:
        """
        List the identities of the store, sorted by name (by code points).

        Args:
            after: the name behind which the list begins; empty: the first one.
            most: how many identities to return at most; `None`: all.

        Returns:
            For each identity its name, whether it is locked, and the number of its keys.
        """
        found: list[tuple[str, bool, int]] = await settled(
            self._authorizer.listIdentities(after, most)
        )
        return found

    async def findUsers(
        self,
        locked: bool = False,
        expired: bool = False,
        inactiveSince: datetime | None = None,
        after: str = "",
        most: int | None = None,
    ) -> list[tuple[str, bool, int]]:
        """
        List the identities that are as asked for, sorted by name (by code points).

        Args:
            locked: only those that are locked.
            expired: only those that have expired.
            inactiveSince: only those that have not logged in since this moment, and are older;
                accurate to an hour. Where nothing is known, they have not.
            after: as for `listUsers`.
            most: as for `listUsers`.

        Returns:
            As `listUsers`.

        Raises:
            TypeError: `inactiveSince` is not a `datetime`.
            ValueError: it has no time zone.
        """
        since = checkMoment(inactiveSince, "inactiveSince")
        now = self._authorizer.now()
        found: list[tuple[str, bool, int]] = []
        while most is None or len(found) < most:
            page: list[Record] = await settled(self._authorizer.readRecords(after, _PAGE))
            if not page:
                break
            after = page[-1].name
            found += [
                (each.name, each.locked, len(each.keys))
                for each in page
                if (each.locked or not locked)
                and (not expired or each.hasExpired(now))
                and (since is None or not each.wasActive(since))
            ]
        return found[:most]

    async def showUser(self, name: str) -> Record:
        """
        Return what is stored of an identity, without the verifiers of its password.

        Args:
            name: of the identity.

        Raises:
            UnknownUser: there is none of that name.
        """
        record = await recordOf(await self._find(name))
        kept = [each for each in record.verifiers if each[0] in KEY_MECHANISMS]
        return evolve(record, verifiers=frozenset(kept))

    async def setExpiry(self, name: str, expires: datetime | None) -> None:
        """
        Set when an identity expires.

        Args:
            name: of the identity.
            expires: the moment; `None`: never.

        Raises:
            UnknownUser: there is none of that name.
            LastAdministrator: nobody would be left who can administer for good.
            TypeError: the moment is not a `datetime`.
            ValueError: it has no time zone.
        """
        moment = checkMoment(expires, "expires")
        await self._change(name, lambda record: evolve(record, expires=moment))
        self._audit.expirySet(self._operator, name, "never" if moment is None else toText(moment))

    # Groups.

    async def addGroup(self, name: str) -> None:
        """
        Add a group, without keys and members.

        Raises:
            DuplicateGroup: the name is taken.
            InvalidName: the name breaks the rule of `pbauth.names`.
        """
        await settled(self._authorizer.addGroup(name))
        self._audit.groupAdded(self._operator, name)

    async def removeGroup(self, name: str) -> None:
        """
        Remove a group; its members stay users.

        Raises:
            UnknownGroup: there is none of that name.
            LastAdministrator: nobody would be left who can administer.
        """
        await settled(self._authorizer.removeGroup(name, self._keeping))
        self._audit.groupRemoved(self._operator, name)

    async def listGroups(self, after: str = "", most: int | None = None) -> list[str]:
        """
        List the names of the groups, sorted by code points.

        Args:
            after: the name behind which the list begins; empty: the first one.
            most: how many names to return at most; `None`: all.
        """
        found: list[str] = await settled(self._authorizer.listGroups(after, most))
        return found

    async def joinGroup(self, group: str, name: str) -> None:
        """
        Make an identity a member of a group, if it is none yet.

        Raises:
            UnknownGroup: there is no group of that name.
            UnknownUser: there is no identity of that name.
        """
        try:
            await settled(self._authorizer.addMember(group, name))
        except UnknownGroup:
            raise
        except KeyError:
            raise UnknownUser(name) from None
        self._audit.groupJoined(self._operator, group, name)

    async def leaveGroup(self, group: str, name: str) -> None:
        """
        Take an identity out of a group.

        Raises:
            UnknownGroup: there is no group of that name.
            NotAMember: the identity is not in it.
            LastAdministrator: nobody would be left who can administer.
        """
        await settled(self._authorizer.removeMember(group, name, self._keeping))
        self._audit.groupLeft(self._operator, group, name)

    async def listMembers(self, group: str) -> list[str]:
        """
        List the names of the members of a group, sorted.

        Raises:
            UnknownGroup: there is no group of that name.
        """
        found: list[str] = await settled(self._authorizer.members(group))
        return found

    async def grantGroupKey(self, group: str, service: str, perspective: str) -> None:
        """
        Give a group a key.

        Raises:
            UnknownGroup: there is no group of that name.
            InvalidName: a name breaks the rule of `pbauth.names`.
        """
        await settled(self._authorizer.grantGroupKey(group, service, perspective))
        self._audit.groupKeyGranted(self._operator, group, service, perspective)

    async def revokeGroupKey(self, group: str, service: str, perspective: str) -> None:
        """
        Take a key from a group.

        Raises:
            UnknownGroup: there is no group of that name.
            UnknownKey: it does not hold the key.
            LastAdministrator: nobody would be left who can administer.
        """
        key = service, perspective
        try:
            await settled(self._authorizer.revokeGroupKey(group, *key, self._keeping))
        except UnknownGroup:
            raise
        except KeyError:
            raise UnknownKey(group, *key) from None
        self._audit.groupKeyRevoked(self._operator, group, *key)

    async def groupKeys(self, group: str) -> list[tuple[str, str]]:
        """
        List the keys of a group, sorted.

        Raises:
            UnknownGroup: there is no group of that name.
        """
        found: list[tuple[str, str]] = await settled(self._authorizer.groupKeys(group))
        return found

    async def whoCan(self, service: str) -> list[tuple[str, str, bool, str]]:
        """
        List the keys to a service, with their holders.

        Args:
            service: the name of the service.

        Returns:
            For each key the name of the identity that holds it, the name of the perspective,
            whether the identity is locked, and the name of the group that it holds the key by;
            empty where the key is its own. Sorted.

        Raises:
            InvalidName: the name breaks the rule of `pbauth.names`.
        """
        checkName(service, "name of a service")
        found: list[tuple[str, str, bool, str]] = await settled(
            self._authorizer.listHolders(service)
        )
        return found

    async def grantKey(
        self, name: str, service: str, perspective: str, methods: Iterable[str] | None = None
    ) -> None:
        """
        Put a key on a keyring.

        Args:
            name: of the identity.
            service: of the key.
            perspective: of the key.
            methods: the names of the methods that it is good for, in place of others that it may
                have been good for; `None`: all.

        Raises:
            UnknownUser: there is no identity of that name.
            InvalidName: a name breaks the rule of `pbauth.names`.
            LastAdministrator: nobody would be left who can administer.
        """
        key = checkKey(service, perspective)
        limited = None if methods is None else checkMethods(methods)
        await self._change(name, lambda record: record.withKey(key, limited))
        self._audit.keyGranted(self._operator, name, service, perspective)

    async def revokeKey(self, name: str, service: str, perspective: str) -> None:
        """
        Take a key from a keyring.

        Args:
            name: of the identity.
            service: of the key.
            perspective: of the key.

        Raises:
            UnknownUser: there is no identity of that name.
            UnknownKey: the key is not there.
            LastAdministrator: nobody would be left who can administer.
        """
        key = service, perspective

        def revoke(record: Record) -> Record:
            if key not in record.keys:
                raise UnknownKey(name, service, perspective)
            return record.withoutKey(key)

        await self._change(name, revoke)
        self._audit.keyRevoked(self._operator, name, service, perspective)

    async def listKeys(self, name: str) -> list[tuple[str, str]]:
        """
        List the keys on the keyring of an identity, its own ones.

        Args:
            name: of the identity.

        Returns:
            The pairs `(serviceName, perspectiveName)`.

        Raises:
            UnknownUser: there is no identity of that name.
        """
        identity = await self._find(name)
        return sorted(key for key, held in identity.keyring.items() if held)

    async def addPublicKeys(self, name: str, keys: Iterable[AuthorizedKey]) -> None:
        """
        Authorize public keys for an identity.

        Raises:
            UnknownUser: there is no identity of that name.
        """
        identity = await self._find(name)
        added = list(keys)
        for key in added:
            identity.addPublicKey(key)
        await self._save(identity)
        for key in added:
            self._audit.publicKeyAdded(self._operator, name, key.fingerprint())

    async def listPublicKeys(self, name: str) -> list[AuthorizedKey]:
        """
        List the authorized public keys of an identity.

        Args:
            name: of the identity.

        Returns:
            The keys of both kinds, each kind in the order in which they were added.

        Raises:
            UnknownUser: there is no identity of that name.
        """
        return (await self._find(name)).getPublicKeys()

    async def removePublicKey(self, name: str, which: str) -> None:
        """
        Remove an authorized public key.

        Args:
            name: of the identity.
            which: the fingerprint or the label of the key.

        Raises:
            UnknownUser: there is no identity of that name.
            UnknownPublicKey: there is no such key, or more than one of that label.
            LastAdministrator: nobody would be left who can administer.
        """
        removed: dict[str, AuthorizedKey] = {}

        def remove(record: Record) -> Record:
            keys = record.publicKeys()
            found = [key for key in keys if which in (key.fingerprint(), key.label)]
            if len(found) != 1:
                raise UnknownPublicKey(name, which)
            removed[name] = found[0]
            return record.withPublicKeys(key for key in keys if key != found[0])

        await self._change(name, remove)
        self._audit.publicKeyRemoved(self._operator, name, removed[name].fingerprint())

    async def issueVoucher(
        self,
        name: str,
        label: str,
        until: datetime,
        survivesPasswordChange: bool = False,
        **limits: Any,
    ) -> Voucher:
        """
        Issue a voucher of an identity.

        Args:
            name: of the identity.
            label: what to call it.
            until: from when on it is void, an aware `datetime`.
            survivesPasswordChange: it stays when the password changes.
            limits: further ones, as for `pbauth.Voucher.only`.

        Returns:
            The voucher, which is kept nowhere else.

        Raises:
            UnknownUser: there is no identity of that name.
            LimitExceeded: it would be good for more than 90 days, or there are too many.
            ValueError: a limit makes no sense.
        """
        made = makeVoucher(name, label, Limits(until=until, **limits))
        await self.keepVoucher(name, IssuedVoucher(made.chain.blocks[0], survivesPasswordChange))
        return made

    async def keepVoucher(self, name: str, issued: IssuedVoucher) -> None:
        """
        Do what `issueVoucher` does, with a voucher that was made elsewhere.

        Args:
            name: of the identity.
            issued: what is kept of it.

        Raises:
            UnknownUser: there is no identity of that name.
            LimitExceeded: it would be good for more than 90 days, or there are too many.
            ValueError: it has expired.
        """
        checkIssued(issued, self._authorizer.now())
        with _known(name):
            await settled(self._authorizer.keepVoucher(name, issued))
        self._audit.voucherIssued(self._operator, name, issued)

    async def listVouchers(self, name: str) -> list[IssuedVoucher]:
        """
        List the vouchers of an identity.

        Raises:
            UnknownUser: there is no identity of that name.
        """
        checkName(name, "name of an identity")
        with _known(name):
            found: list[IssuedVoucher] = await settled(self._authorizer.listVouchers(name))
        return found

    async def revokeVoucher(self, name: str, which: str) -> int:
        """
        Revoke a voucher, or all of a label, and end their sessions.

        Args:
            name: of the identity.
            which: the id of the voucher, or the label.

        Returns:
            How many there were.

        Raises:
            UnknownUser: there is no identity of that name.
            UnknownVoucher: there is no such voucher.
        """
        checkName(name, "name of an identity")
        with _known(name):
            count: int = await settled(self._authorizer.revokeVoucher(name, which))
        self._audit.voucherRevoked(self._operator, name, which, count)
        return count

    async def _change(self, name: str, change: Callable[[Record], Record | None]) -> None:
        try:
            await settled(self._authorizer.changeIdentity(name, change, self._keeping))
        except KeyError:
            raise UnknownUser(name) from None

    async def readRecords(self, after: str = "", most: int | None = None) -> list[Record]:
        """
        Read whole identities, for an export. Each export is recorded in the audit log once,
        whichever page it begins with.

        Args:
            after: only those whose names come after this one.
            most: how many.

        Returns:
            The records, as `IAccountStore` has it.
        """
        if not after or not self._hasRead:
            self._hasRead = True
            self._audit.exported(self._operator)
        found: list[Record] = await settled(self._authorizer.readRecords(after, most))
        return found

    async def addRecords(self, records: Iterable[Record], skipKnown: bool = False) -> int:
        """
        Add identities, all of them or none.

        Args:
            records: of the identities. Their passwords, if they have any, are verifiers already:
                no policy can be asked.
            skipKnown: leave identities that are there already as they are.

        Returns:
            How many were added.

        Raises:
            DuplicateIdentity: a name is taken.
            InvalidName: a name breaks the rule of `pbauth.names`.
            ValueError: a verifier is of no known form.
        """
        wanted = list(records)
        for record in wanted:
            record.check()
        added: int = await settled(self._authorizer.addRecords(wanted, skipKnown))
        if added:
            self._audit.imported(self._operator, added)
        return added

    async def _find(self, name: str) -> IIdentity:
        checkName(name, "name of an identity")
        try:
            found: IIdentity = await settled(self._authorizer.getIdentityRequest(name))
        except Unauthorized:
            raise UnknownUser(name) from None
        return found

    async def _save(self, identity: IIdentity) -> None:
        try:
            await settled(identity.save())
        except KeyError:
            # Removed by somebody else in the meantime.
            raise UnknownUser(identity.name) from None


@contextmanager
def _known(name: str) -> Iterator[None]:
    """Raise `UnknownUser` where the store says that there is nobody of that name."""
    try:
        yield
    except UnknownVoucher:
        raise
    except KeyError:
        raise UnknownUser(name) from None
