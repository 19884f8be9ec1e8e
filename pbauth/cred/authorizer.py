"""
Accounts whose passwords somebody else checks: any `twisted.cred.checkers.ICredentialsChecker`,
for PAM, LDAP, a passwd file, or what a Twisted application has already.

Such a checker has to see the password, so logins are by the mechanism `PLAIN`, which runs on TLS
and UNIX sockets only.  Keyrings, locks and public keys are kept in other accounts, under the same
names.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from twisted.application.service import IServiceCollection
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import LoginDenied, LoginFailed, UnauthorizedLogin
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.components import Componentized, proxyForInterface
from zope.interface import implementer

from pbauth._arguments import checkProvides, listed
from pbauth._async import settled
from pbauth._quoting import inLine
from pbauth.accounts.authorizer import Authorizer
from pbauth.accounts.memory import DefaultAuthorizer
from pbauth.errors import (
    DuplicateIdentity,
    ExchangeRefused,
    NotAMember,
    StoreError,
    Unauthorized,
    UnknownGroup,
)
from pbauth.interfaces import IAuthorizer, ICheckedIdentity, IGroupStore, IIdentity
from pbauth.mechanisms import Verifier
from pbauth.mechanisms.terms import reasonOf

_log = Logger()


class RemoteUsernamePassword(UsernamePassword):
    """
    A name and a password, and where they come from.

    Args:
        username: in UTF-8.
        password: in UTF-8.
        host: the IP address of the client; `None`: it has none, being on this machine.
    """

    def __init__(self, username: bytes, password: bytes, host: str | None) -> None:
        super().__init__(username, password)
        self.host = host


@implementer(ICheckedIdentity)
class CheckedIdentity(proxyForInterface(IIdentity, "account")):  # type: ignore[misc]
    """
    An identity whose password a checker checks; everything else is the account's.

    Args:
        account: holds name, keyring, lock and public keys.
        checkers: as for `CredAuthorizer`.
    """

    def __init__(self, account: IIdentity, checkers: Sequence[ICredentialsChecker]) -> None:
        super().__init__(account)
        self._checkers = checkers

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.account.name!r}>"

    def verifyPlainPassword(self, password: str) -> Deferred[None]:
        """
        Ask the checkers, one after the other, until one vouches for the user.

        Args:
            password: what was typed.

        Returns:
            Fires with `None` if one does and the account is not locked; else fails with
            `Unauthorized`, or with `StoreError` if none does and one of them could not tell.
        """
        return self.verifyPlainPasswordFrom(password, None)

    def verifyPlainPasswordFrom(self, password: str, host: str | None) -> Deferred[None]:
        """
        Ask the checkers, and tell them where the client is (`RemoteUsernamePassword.host`).

        Args:
            password: what was typed.
            host: the IP address of the client, or `None`.

        Returns:
            As `verifyPlainPassword`.
        """
        return Deferred.fromCoroutine(self._verify(password, host))

    async def _verify(self, password: str, host: str | None) -> None:
        name = self.account.name.encode("utf-8")
        credentials = RemoteUsernamePassword(name, password.encode("utf-8"), host)
        broken = False
        reasons: dict[str, None] = {}
        for checker in self._checkers:
            try:
                avatar = await maybeDeferred(checker.requestAvatarId, credentials)
            except (UnauthorizedLogin, LoginDenied, LoginFailed) as refusal:
                reasons[reasonOf(refusal, "wrong password")] = None
                continue
            except StoreError as error:
                # Anybody can bring that about, so it is worth a line, and no traceback.
                _log.warn(
                    "The checker {checker!r} could not decide: {reason}",
                    checker=type(checker).__name__,
                    reason=inLine(error),
                )
                broken = True
                continue
            except Exception:
                # It is the application's: whatever it raises, nobody gets in by it.
                _log.failure("The checker {checker!r} failed", checker=type(checker).__name__)
                broken = True
                continue
            # One that knows the user by another name vouches for somebody else.
            if avatar not in (name, self.account.name):
                reasons["the checker vouches for somebody else"] = None
                continue
            if not self.account.isProvedBy(None):
                known = "is locked" if self.account.locked else "has expired"
                reasons = {f"the account {known}": None}
                break
            return
        if broken:
            raise StoreError()
        raise Unauthorized() from ExchangeRefused("; ".join(reasons) or "no checker")


@implementer(IAuthorizer)
class CredAuthorizer(Authorizer):
    """
    Lets `twisted.cred` checkers check passwords.

    A user whom a checker vouches for, but who has no account, gets in with an empty keyring: to
    give keys, add an account of that name.

    Args:
        checkers: `ICredentialsChecker` providers that take a user name and a password.
        serviceCollection: as for `Authorizer`.
        accounts: an `IAuthorizer` that keeps keyrings, locks and public keys; its passwords are
            not looked at. In memory by default.

    Raises:
        TypeError: an argument is of the wrong type, or a checker takes other credentials.
    """

    externalPasswords = True

    def __init__(
        self,
        checkers: Sequence[ICredentialsChecker],
        serviceCollection: IServiceCollection | Componentized | None = None,
        *,
        accounts: IAuthorizer | None = None,
    ) -> None:
        some = listed(checkers, "checkers", "checkers")
        self._checkers = [_check(checker) for checker in some]
        if accounts is not None:
            checkProvides(IAuthorizer, accounts, "accounts")
        self.accounts: IAuthorizer = DefaultAuthorizer() if accounts is None else accounts
        super().__init__(None, self.accounts.hashing)
        self.sessions = self.accounts.sessions
        self.proofs = self.accounts.proofs
        self.derivations = self.accounts.derivations
        self.identityClass = self.accounts.identityClass
        if serviceCollection is not None:
            self.setServiceCollection(serviceCollection)

    def createIdentity(self, name: str) -> IIdentity:
        """Make an account that is not saved yet."""
        return self.accounts.createIdentity(name)

    def addIdentity(self, identity: IIdentity) -> Awaitable[object]:
        """Store an account, as the accounts do it."""
        return self.accounts.addIdentity(identity)

    def updateIdentity(self, identity: IIdentity) -> Awaitable[object]:
        """Store what changed on an account, as the accounts do it."""
        return self.accounts.updateIdentity(identity)

    def removeIdentity(self, name: str) -> Awaitable[object]:
        """Forget an account, as the accounts do it."""
        return self.accounts.removeIdentity(name)

    def getDecoyVerifier(self, name: str, mechanism: str) -> Verifier | Awaitable[Verifier]:
        """Make a verifier that nothing fits, as the accounts do it."""
        return self.accounts.getDecoyVerifier(name, mechanism)

    def identityChanged(self, identity: IIdentity) -> None:
        """Note that an account was changed in memory."""
        self.accounts.identityChanged(identity)

    def setServiceCollection(self, collection: IServiceCollection | Componentized) -> None:
        """Say where services are looked up."""
        super().setServiceCollection(collection)
        self.accounts.setServiceCollection(collection)

    def getIdentityRequest(self, name: str) -> Deferred[IIdentity]:
        """
        Return an identity for any name: only the checker knows which names exist.

        Args:
            name: as the client claims it.

        Returns:
            Fires with the identity; fails with `StoreError`.
        """

        async def request() -> IIdentity:
            return CheckedIdentity(await self._accountOf(name), self._checkers)

        return Deferred.fromCoroutine(request())

    def groupsOf(self, identityName: str) -> Iterable[str] | Awaitable[Iterable[str]] | None:
        """
        Return the groups of an identity. Override it to have them from elsewhere, from LDAP for
        instance: what this returns then is written to the accounts, at each login, and sessions end
        that rested on groups that it does not return any more. Where somebody has no account and
        is in one of its groups, one is added.

        Args:
            identityName: as the client claims it; nothing is proved yet.

        Returns:
            Names of groups, or an awaitable of them; those that the accounts do not have are passed
            over. `None`: the groups are those that are stored.
        """
        return None

    async def _accountOf(self, name: str) -> IIdentity:
        account = None
        try:
            account = await settled(self.accounts.getIdentityRequest(name))
        except Unauthorized:
            pass
        names = None
        try:
            names = await settled(self.groupsOf(name))
            groups = frozenset() if names is None else frozenset(names)
        except Exception:
            # It is the application's: whatever it raises, nobody gets in by it.
            _log.failure("The groups of {name!r} can't be found out", name=name)
            raise StoreError() from None
        found: IIdentity = account or self.accounts.identityClass(name, self.accounts)
        if names is None or not IGroupStore.providedBy(self.accounts):
            return found
        wanted = groups.intersection(await settled(self.accounts.listGroups()))
        if wanted == found.groups:
            return found
        if account is None:
            with suppress(DuplicateIdentity):
                await settled(found.save())
        for group in sorted(wanted - found.groups):
            with suppress(UnknownGroup):
                await settled(self.accounts.addMember(group, name))
        for group in sorted(found.groups - wanted):
            with suppress(UnknownGroup, NotAMember):
                await settled(self.accounts.removeMember(group, name))
        again: IIdentity = await settled(self.accounts.getIdentityRequest(name))
        return again


def _check(checker: Any) -> ICredentialsChecker:
    checkProvides(ICredentialsChecker, checker, "checkers")
    if not any(each.implementedBy(UsernamePassword) for each in checker.credentialInterfaces):
        raise TypeError(f"{type(checker).__name__} does not check user names and passwords.")
    return checker  # type: ignore[no-any-return]
