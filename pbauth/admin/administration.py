"""What an administrator does with accounts, whatever the front door."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from twisted.internet.defer import DeferredLock, maybeDeferred

from pbauth.accounts.passwordpolicy import PasswordPolicy
from pbauth.accounts.records import Record, recordOf
from pbauth.audit import Audit
from pbauth.errors import LastAdministrator, Unauthorized, UnknownKey, UnknownPublicKey, UnknownUser
from pbauth.interfaces import IIdentity
from pbauth.mechanisms import Verifier
from pbauth.mechanisms.authorizedkeys import AuthorizedKey, AuthorizedKeys
from pbauth.names import checkName


class Administration:
    """
    The operations of the ``pbauth`` command. A change is recorded in the audit log once it is done.

    Args:
        authorizer: stores the identities, an `IAccountStore`.
        operator: the name of the one who does it all, for the audit.
        policy: what new passwords have to be like.
        keeps: the name of the service of administration: the last identity that holds a key to it
            and can log in is not removed, locked, or deprived of that key. `None`: it is, as the
            owner of the store may do with it whatever they like.
        externalPasswords: passwords are not kept in this store: who has no verifier here can log
            in all the same.
        audit: where the changes are recorded; by default where the authorizer's sessions are.
    """

    def __init__(
        self,
        authorizer: Any,
        operator: str = "",
        policy: PasswordPolicy = PasswordPolicy(),  # noqa: B008 - immutable
        *,
        keeps: str | None = None,
        externalPasswords: bool = False,
        audit: Audit | None = None,
    ) -> None:
        self._authorizer = authorizer
        self._operator = operator
        self._policy = policy
        self._hasRead = False
        self._keeps = keeps
        self._audit: Audit = authorizer.sessions.audit if audit is None else audit
        self._externalPasswords = externalPasswords
        # Two changes at once, of which each leaves the other's administrator, would leave none.
        self._lock = DeferredLock()

    def by(self, operator: str) -> Administration:
        """
        Args:
            operator: somebody else's name.

        Returns:
            The same administration, in that name. Both keep the last administrator together.
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
        await maybeDeferred(identity.save)
        self._audit.userAdded(self._operator, name)

    async def addUserWithVerifiers(self, name: str, verifiers: dict[str, Verifier]) -> None:
        """
        As `addUser`, by verifiers of a password that were made elsewhere.

        Args:
            name: of the identity.
            verifiers: by the name of the mechanism; empty: it logs in in some other way.
        """
        identity = self._authorizer.createIdentity(name)
        identity.setVerifiers(verifiers)
        await maybeDeferred(identity.save)
        self._audit.userAdded(self._operator, name)

    async def removeUser(self, name: str) -> None:
        """
        Remove an identity.

        Raises:
            UnknownUser: there is none of that name.
            LastAdministrator: it is the one that is kept.
        """

        records: list[Record] = []

        async def remove() -> None:
            if self._keeps is not None:
                records.append(await recordOf(await self._find(name)))
            try:
                await maybeDeferred(self._authorizer.removeIdentity, name)
            except KeyError:
                raise UnknownUser(name) from None

        async def restore() -> None:
            await maybeDeferred(self._authorizer.addRecords, records, True)

        await self._keepingAdministrator(name, remove, restore)
        self._audit.userRemoved(self._operator, name)

    async def setPassword(self, name: str, password: str) -> None:
        """
        Give an identity a new password.

        Raises:
            UnknownUser: there is none of that name.
            InvalidPassword: it can't be a password, or the policy forbids it.
        """
        identity = await self._find(name)
        self._policy.check(password, name)
        identity.setPassword(password)
        await self._save(identity)
        self._audit.passwordSet(self._operator, name)

    async def setVerifiers(self, name: str, verifiers: dict[str, Verifier]) -> None:
        """
        As `setPassword`, by verifiers that were made elsewhere.

        Args:
            name: of the identity.
            verifiers: by the name of the mechanism, at least one.

        Raises:
            UnknownUser: there is none of that name.
        """
        identity = await self._find(name)
        identity.setVerifiers(verifiers)
        await self._save(identity)
        self._audit.passwordSet(self._operator, name)

    async def setLocked(self, name: str, locked: bool) -> None:
        """
        Lock or unlock an identity.

        Raises:
            UnknownUser: there is none of that name.
            LastAdministrator: it is the one that is kept.
        """

        async def change(value: bool) -> None:
            identity = await self._find(name)
            identity.locked = value
            await self._save(identity)

        if locked:
            await self._keepingAdministrator(name, lambda: change(True), lambda: change(False))
        else:
            await change(False)
        (self._audit.locked if locked else self._audit.unlocked)(self._operator, name)

    async def listUsers(
        self, after: str = "", most: int | None = None
    ) -> list[tuple[str, bool, int]]:
        """
        Args:
            after: begin behind this name, in the order of code points.
            most: how many; `None`: all.

        Returns:
            For each identity its name, whether it is locked, and the number of its keys.
        """
        found: list[tuple[str, bool, int]] = await maybeDeferred(
            self._authorizer.listIdentities, after, most
        )
        return found

    async def whoCan(self, service: str) -> list[tuple[str, str, bool]]:
        """
        Args:
            service: the name of a service.

        Returns:
            For each key to it that somebody holds: the name of that identity, the name of the
            perspective, and whether the identity is locked; sorted.

        Raises:
            InvalidName: the name breaks the rule of `pbauth.names`.
        """
        checkName(service, "name of a service")
        found: list[tuple[str, str, bool]] = await maybeDeferred(
            self._authorizer.listHolders, service
        )
        return found

    async def grantKey(self, name: str, service: str, perspective: str) -> None:
        """
        Put a key on a keyring.

        Raises:
            UnknownUser: there is no identity of that name.
            InvalidName: a name breaks the rule of `pbauth.names`.
        """
        identity = await self._find(name)
        identity.addKeyByString(service, perspective)
        await self._save(identity)
        self._audit.keyGranted(self._operator, name, service, perspective)

    async def revokeKey(self, name: str, service: str, perspective: str) -> None:
        """
        Take a key from a keyring.

        Raises:
            UnknownUser: there is no identity of that name.
            UnknownKey: the key is not there.
            LastAdministrator: it is the one that is kept.
        """

        async def revoke() -> None:
            identity = await self._find(name)
            try:
                identity.removeKey(service, perspective)
            except KeyError:
                raise UnknownKey(name, service, perspective) from None
            await self._save(identity)

        async def restore() -> None:
            identity = await self._find(name)
            identity.addKeyByString(service, perspective)
            await self._save(identity)

        await self._keepingAdministrator(name, revoke, restore, (service, perspective))
        self._audit.keyRevoked(self._operator, name, service, perspective)

    async def listKeys(self, name: str) -> list[tuple[str, str]]:
        """
        Returns:
            The pairs `(serviceName, perspectiveName)` on the keyring.

        Raises:
            UnknownUser: there is no identity of that name.
        """
        identity = await self._find(name)
        return identity.getAllKeys()

    async def addPublicKeys(self, name: str, keys: list[AuthorizedKey]) -> None:
        """
        Let public keys in.

        Raises:
            UnknownUser: there is no identity of that name.
        """
        identity = await self._find(name)
        for key in keys:
            identity.addPublicKey(key)
        await self._save(identity)
        for key in keys:
            self._audit.publicKeyAdded(self._operator, name, key.fingerprint())

    async def listPublicKeys(self, name: str) -> list[AuthorizedKey]:
        """
        Returns:
            The public keys of an identity.

        Raises:
            UnknownUser: there is no identity of that name.
        """
        return (await self._find(name)).getPublicKeys()

    async def removePublicKey(self, name: str, which: str) -> None:
        """
        Let a public key in no more.

        Args:
            name: of the identity.
            which: the fingerprint or the label of the key.

        Raises:
            UnknownUser: there is no identity of that name.
            UnknownPublicKey: there is no such key, or more than one of that label.
            LastAdministrator: the identity is the one that is kept, and has no other key and no
                password.
        """
        removed = await self._publicKey(name, which)

        async def remove() -> None:
            identity = await self._find(name)
            try:
                identity.removePublicKey(removed)
            except KeyError:
                raise UnknownPublicKey(name, which) from None
            await self._save(identity)

        async def restore() -> None:
            identity = await self._find(name)
            identity.addPublicKey(removed)
            await self._save(identity)

        await self._keepingAdministrator(name, remove, restore, publicKey=removed)
        self._audit.publicKeyRemoved(self._operator, name, removed.fingerprint())

    async def _publicKey(self, name: str, which: str) -> AuthorizedKey:
        keys = await self.listPublicKeys(name)
        found = [key for key in keys if which in (key.fingerprint(), key.label)]
        if len(found) != 1:
            raise UnknownPublicKey(name, which)
        return found[0]

    async def _keepingAdministrator(
        self,
        name: str,
        change: Callable[[], Awaitable[None]],
        undo: Callable[[], Awaitable[None]],
        key: tuple[str, str] | None = None,
        publicKey: AuthorizedKey | None = None,
    ) -> None:
        """
        Change an identity, unless nobody would be left who can administer.

        Args:
            name: of the identity.
            change: does it.
            undo: undoes it.
            key: the identity loses only this key.
            publicKey: the identity loses only this public key.
        """
        if self._keeps is None:
            await change()
            return
        async with self._lock:
            identity = await self._find(name)
            if not await self._isAdministrator(identity):
                # Nobody loses an administrator.
                await change()
                return
            stays = key is not None or publicKey is not None
            if not (stays and await self._isAdministrator(identity, key, publicKey)):
                if not await self._administratorLeft(name):
                    raise LastAdministrator(name)
            await change()
            # Another server may have taken away the others at the same moment.
            if not await self._administratorLeft():
                await undo()
                raise LastAdministrator(name)

    async def _administratorLeft(self, without: str | None = None) -> bool:
        for name in sorted(
            {name for name, _, locked in await self.whoCan(str(self._keeps)) if not locked}
        ):
            if name == without:
                continue
            try:
                identity = await self._find(name)
            except UnknownUser:
                continue
            if await self._isAdministrator(identity):
                return True
        return False

    async def _isAdministrator(
        self,
        identity: IIdentity,
        key: tuple[str, str] | None = None,
        publicKey: AuthorizedKey | None = None,
    ) -> bool:
        """Whether it can log in and administer, without these."""
        holds = any(held[0] == self._keeps and tuple(held) != key for held in identity.getAllKeys())
        if identity.locked or not holds:
            return False
        if self._externalPasswords:
            return True
        return any(
            not isinstance(verifier, AuthorizedKeys)
            or any(each != publicKey for each in verifier.keys)
            for verifier in (await maybeDeferred(identity.getVerifiers)).values()
        )

    async def readRecords(self, after: str = "", most: int = 1000) -> list[Record]:
        """
        Read whole identities, for an export. The audit is told of each export once, whichever page
        it begins with.

        Args:
            after: only those whose names come after this one.
            most: how many.

        Returns:
            The records, as `IAccountStore` has it.
        """
        if not after or not self._hasRead:
            self._hasRead = True
            self._audit.exported(self._operator)
        found: list[Record] = await maybeDeferred(self._authorizer.readRecords, after, most)
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
        added: int = await maybeDeferred(self._authorizer.addRecords, wanted, skipKnown)
        if added:
            self._audit.imported(self._operator, added)
        return added

    async def _find(self, name: str) -> IIdentity:
        checkName(name, "name of an identity")
        try:
            found: IIdentity = await maybeDeferred(self._authorizer.getIdentityRequest, name)
        except Unauthorized:
            raise UnknownUser(name) from None
        return found

    async def _save(self, identity: IIdentity) -> None:
        try:
            await maybeDeferred(identity.save)
        except KeyError:
            # Removed by somebody else in the meantime.
            raise UnknownUser(identity.name) from None
