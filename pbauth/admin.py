"""What an administrator does with accounts, whatever the front door."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import maybeDeferred

from pbauth.audit import Audit
from pbauth.errors import Unauthorized
from pbauth.interfaces import IIdentity
from pbauth.mechanisms.authorizedkeys import AuthorizedKey
from pbauth.names import checkName
from pbauth.passwordpolicy import PasswordPolicy
from pbauth.records import Record

_audit = Audit()


class UnknownUser(Exception):
    """
    There is no identity of that name.

    Attributes:
        name: that name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no user {name!r}. See: pbauth user list")
        self.name = name


class UnknownKey(Exception):
    """
    The key is not on the keyring.
    """

    def __init__(self, name: str, service: str, perspective: str) -> None:
        super().__init__(
            f"{name!r} holds no key to {perspective!r} of service {service!r}. "
            f"See: pbauth key list {name}"
        )


class UnknownPublicKey(Exception):
    """There is no public key of that fingerprint or label, or more than one."""

    def __init__(self, name: str, which: str) -> None:
        super().__init__(
            f"{name!r} has not just one public key {which!r}. See: pbauth user keys {name}"
        )


class Administration:
    """
    The operations of the ``pbauth`` command. Those that change something are told to the audit,
    once they are done.

    Args:
        authorizer: stores the identities; one with `listIdentities`.
        operator: the name of the one who does it all, for the audit.
        policy: what new passwords have to be like.
    """

    def __init__(
        self,
        authorizer: Any,
        operator: str = "",
        policy: PasswordPolicy = PasswordPolicy(),  # noqa: B008 - immutable
    ) -> None:
        self._authorizer = authorizer
        self._operator = operator
        self._policy = policy
        self._hasRead = False

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
        _audit.userAdded(self._operator, name)

    async def removeUser(self, name: str) -> None:
        """
        Remove an identity.

        Raises:
            UnknownUser: there is none of that name.
        """
        try:
            await maybeDeferred(self._authorizer.removeIdentity, name)
        except KeyError:
            raise UnknownUser(name) from None
        _audit.userRemoved(self._operator, name)

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
        await maybeDeferred(identity.save)
        _audit.passwordSet(self._operator, name)

    async def setLocked(self, name: str, locked: bool) -> None:
        """
        Lock or unlock an identity.

        Raises:
            UnknownUser: there is none of that name.
        """
        identity = await self._find(name)
        identity.locked = locked
        await maybeDeferred(identity.save)
        (_audit.locked if locked else _audit.unlocked)(self._operator, name)

    async def listUsers(self) -> list[tuple[str, bool, int]]:
        """
        Returns:
            For each identity its name, whether it is locked, and the number of its keys.
        """
        found: list[tuple[str, bool, int]] = await maybeDeferred(self._authorizer.listIdentities)
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
        await maybeDeferred(identity.save)
        _audit.keyGranted(self._operator, name, service, perspective)

    async def revokeKey(self, name: str, service: str, perspective: str) -> None:
        """
        Take a key from a keyring.

        Raises:
            UnknownUser: there is no identity of that name.
            UnknownKey: the key is not there.
        """
        identity = await self._find(name)
        try:
            identity.removeKey(service, perspective)
        except KeyError:
            raise UnknownKey(name, service, perspective) from None
        await maybeDeferred(identity.save)
        _audit.keyRevoked(self._operator, name, service, perspective)

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
        await maybeDeferred(identity.save)
        for key in keys:
            _audit.publicKeyAdded(self._operator, name, key.fingerprint())

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
        """
        identity = await self._find(name)
        found = [key for key in identity.getPublicKeys() if which in (key.fingerprint(), key.label)]
        if len(found) != 1:
            raise UnknownPublicKey(name, which)
        identity.removePublicKey(found[0])
        await maybeDeferred(identity.save)
        _audit.publicKeyRemoved(self._operator, name, found[0].fingerprint())

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
            _audit.exported(self._operator)
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
            _audit.imported(self._operator, added)
        return added

    async def _find(self, name: str) -> IIdentity:
        checkName(name, "name of an identity")
        try:
            found: IIdentity = await maybeDeferred(self._authorizer.getIdentityRequest, name)
        except Unauthorized:
            raise UnknownUser(name) from None
        return found
