"""
The accounts of pbauth for other servers: what logs in to SSH, to a web page or to a mail box.

Twisted's servers ask a `twisted.cred.portal.Portal`, and the portal asks a checker.  This one asks
an authorizer, so that one account, one lock and one list of public keys count everywhere::

    portal = Portal(realm, [IdentityChecker(authorizer)])

It says who somebody is.  What they may do is for the realm to say, which is given the name.
"""

from __future__ import annotations

from typing import Any

from twisted.conch.error import ValidPublicKey
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ISSHPrivateKey, IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, fail
from zope.interface import implementer

from pbauth._arguments import checkProvides, checkType
from pbauth._async import chooseReactor, settled
from pbauth.accounts.hashing import Hashing
from pbauth.audit import Audit
from pbauth.errors import TooManyAttempts, Unauthorized
from pbauth.interfaces import IAuthorizer, IIdentity, Reactor
from pbauth.login.checks import Check
from pbauth.login.connectionlimits import ConnectionLimits
from pbauth.login.policy import Policy
from pbauth.mechanisms import scram
from pbauth.mechanisms.ed25519 import SSH_TYPE, PublicKey
from pbauth.mechanisms.terms import reasonOf
from pbauth.names import checkName
from pbauth.net.origin import ELSEWHERE

#: The most iterations that are derived, unless new passwords take many themselves: a verifier with
#: more would keep a thread busy for each guess.
MOST_ITERATIONS = Hashing().mostIterations

#: How many passwords wait for their turn, and the seconds after which somebody may try again for
#: whom there is no room.
MOST_WAITING = 200
RETRY_AFTER = 5.0

# What these servers do not tell: the network that a login comes from.
_NOWHERE = ""


class _Refused(Exception):
    """
    Why a login is refused: for the operator's log; the client gets `Unauthorized`.

    Attributes:
        reason: the real reason.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@implementer(ICredentialsChecker)
class IdentityChecker:
    """
    Checks passwords and keys of SSH against the identities of an authorizer.

    Passwords are slowed down as those of `AuthServerFactory` are, by the name that is claimed,
    since nobody says here where a client is. Few are looked at at once, and none whose verifier
    takes more than `MOST_ITERATIONS`.

    Args:
        authorizer: finds the identities; anything that provides `IAuthorizer`.
        audit: where logins are recorded; by default where the authorizer's sessions are.
        limits: the throttle, and the checks under way; those of an `AuthServerFactory`, to count
            failures here and there together. By default this one has its own.
        reactor: provides `IReactorTime`; the global one by default.
    """

    credentialInterfaces = (IUsernamePassword, ISSHPrivateKey)

    def __init__(
        self,
        authorizer: IAuthorizer,
        *,
        audit: Audit | None = None,
        limits: ConnectionLimits | None = None,
        reactor: Reactor = None,
    ) -> None:
        checkProvides(IAuthorizer, authorizer, "authorizer")
        if audit is not None:
            checkType(Audit, audit, "audit")
        if limits is not None:
            checkType(ConnectionLimits, limits, "limits")
        self.authorizer = authorizer
        self._limits = limits
        self._reactor = reactor
        self._waiting = 0
        self._audit: Audit = authorizer.sessions.audit if audit is None else audit

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes | tuple[()]]:
        """
        Check credentials; the portal calls it.

        Args:
            credentials: providing `IUsernamePassword` or `ISSHPrivateKey`. Name and password are
                UTF-8, or `str` as some servers have them.

        Returns:
            Fires with the name of the identity, in UTF-8. Fails with `Unauthorized`, and always
            the same one, if the credentials are not good, for whatever reason; with
            `TooManyAttempts`, which is a subclass, if there were too many failures; with
            `twisted.conch.error.ValidPublicKey` if a client only asks whether a key would do,
            and it would; with `StoreError` if the accounts can't be read.
        """
        if ISSHPrivateKey.providedBy(credentials):
            return Deferred.fromCoroutine(self._request("ssh key", self._byKey, credentials))
        if IUsernamePassword.providedBy(credentials):
            return Deferred.fromCoroutine(self._request("password", self._byPassword, credentials))
        return fail(Unauthorized())

    async def _request(self, means: str, check: Any, credentials: Any) -> bytes | tuple[()]:
        try:
            identity: IIdentity = await check(credentials)
        except TooManyAttempts as refusal:
            self._audit.throttled(ELSEWHERE, _claimed(credentials), means, refusal.retryAfter)
            raise
        except _Refused as refusal:
            self._audit.refused(ELSEWHERE, _claimed(credentials), means, refusal.reason)
            raise Unauthorized() from None
        # Not the name that was given: an authorizer may know an identity by more than one.
        name: str = identity.name
        self._audit.loggedIn(ELSEWHERE, name, means)
        return name.encode("utf-8")

    async def _byPassword(self, credentials: Any) -> IIdentity:
        name, password = _text(credentials.username), _text(credentials.password)
        limits = self._sharedLimits()
        check = await self._beginCheck(limits, name)
        try:
            identity = await self._checkPassword(name, password)
        except _Refused:
            limits.failed(_NOWHERE, name)
            raise
        else:
            limits.succeeded(_NOWHERE, name)
            return identity
        finally:
            check.end()

    def _sharedLimits(self) -> ConnectionLimits:
        if self._limits is None:
            self._limits = ConnectionLimits(Policy(), chooseReactor(self._reactor))
        return self._limits

    async def _beginCheck(self, limits: ConnectionLimits, name: str) -> Check:
        def checkWait() -> None:
            wait = limits.wait(_NOWHERE, name)
            if wait:
                raise TooManyAttempts(wait)

        checkWait()
        if self._waiting >= MOST_WAITING:
            raise TooManyAttempts(RETRY_AFTER)
        self._waiting += 1
        try:
            return await limits.beginCheck(_NOWHERE, name, checkWait)
        finally:
            self._waiting -= 1

    async def _checkPassword(self, name: str, password: str) -> IIdentity:
        identity = await self._find(name)
        if identity is None:
            await self._deriveInVain(name, password)
            raise _Refused("there is no such identity")
        verifiers = await settled(identity.getVerifiers())
        verifier = verifiers.get(scram.NAME)
        most = max(MOST_ITERATIONS, self.authorizer.hashing.mostIterations)
        if getattr(verifier, "iterations", 0) > most:
            await self._deriveInVain(name, password)
            raise _Refused("the verifier takes too many iterations")
        try:
            await settled(identity.verifyPlainPassword(password))
        except UnauthorizedLogin as refusal:
            if verifier is None:
                await self._deriveInVain(name, password)
            raise _Refused(
                reasonOf(refusal, "the password is wrong, or the account is locked")
            ) from None
        return _unlocked(identity)

    async def _byKey(self, credentials: Any) -> IIdentity:
        name = _text(credentials.username)
        try:
            key = PublicKey.fromBlob(credentials.blob)
        except ValueError as error:
            raise _Refused(str(error)) from None
        if credentials.algName != SSH_TYPE:
            raise _Refused("the key is of another type than its signature")
        identity = await self._find(name)
        if identity is None:
            raise _Refused("there is no such identity")
        if not _unlocked(identity).isProvedBy(key):
            known = key in identity.getPublicKeys()
            problem = "has expired" if known else "is not a key of this identity"
            raise _Refused(f"{key.fingerprint()} {problem}")
        if credentials.signature is None:
            raise ValidPublicKey()
        if not key.hasSigned(credentials.sigData, credentials.signature):
            raise _Refused(f"not signed by {key.fingerprint()}")
        return identity

    async def _find(self, name: str) -> IIdentity | None:
        try:
            checkName(name)
            found: IIdentity | None = await settled(self.authorizer.getIdentityRequest(name))
        except (UnauthorizedLogin, ValueError):
            return None
        return found

    async def _deriveInVain(self, name: str, password: str) -> None:
        """Work as long as for a password that is wrong, so that the time tells nothing."""
        decoy: Any = await settled(self.authorizer.getDecoyVerifier(name, scram.NAME))
        await self.authorizer.derivations.run(decoy.iterations, decoy.matches, password)


def _claimed(credentials: Any) -> str:
    given = credentials.username
    return given.decode("utf-8", "replace") if isinstance(given, bytes) else str(given)


def _unlocked(identity: IIdentity) -> IIdentity:
    if identity.locked:
        raise _Refused("the account is locked")
    if not identity.isProvedBy(None):
        raise _Refused("the account has expired")
    return identity


def _text(given: Any) -> str:
    try:
        encoded = given.encode("utf-8") if isinstance(given, str) else given
        return bytes.decode(encoded, "utf-8")
    except (UnicodeError, TypeError):
        raise _Refused("the name or the password is not UTF-8") from None
