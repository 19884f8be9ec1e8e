"""The authorizer: finds identities by name."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Awaitable, Iterable
from datetime import datetime, timedelta
from typing import Any

from twisted.application.service import IServiceCollection
from twisted.internet.defer import (
    Deferred,
)
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.components import Componentized
from zope.interface import implementer

from pbauth._arguments import adapted, checkProvides, checkType
from pbauth._async import chooseReactor, run, settled
from pbauth._contained import contained
from pbauth._moments import atSeconds, secondsOf
from pbauth._time import wallTime
from pbauth.accounts.expiries import Expiries
from pbauth.accounts.hashing import Derivations, Hashing
from pbauth.accounts.identity import Identity, checkNewName, checkRenewal, checkReplacement
from pbauth.accounts.verifiers import EquivalentProofs
from pbauth.audit import Audit
from pbauth.errors import (
    Unauthorized,
)
from pbauth.interfaces import (
    IAuthorizer,
    IIdentity,
    IService,
    Reactor,
)
from pbauth.mechanisms import KEY_MECHANISMS, Verifier, md5, scram, voucher
from pbauth.mechanisms.authorizedkeys import AuthorizedKeys
from pbauth.mechanisms.ed25519 import PublicKey
from pbauth.mechanisms.md5 import MD5Verifier
from pbauth.mechanisms.scram import ScramVerifier
from pbauth.mechanisms.voucher import IssuedVouchers, VoucherProof
from pbauth.perspectives.sessions import EndReason, Session, Sessions

_log = Logger()

#: Of a verifier of SCRAM, what anybody sees who claims the name: iterations, and bytes of salt.
Cost = tuple[int, int]

#: How many bytes the secret has that decoys are made from.
DECOY_BYTES = 32

#: How old `IIdentity.lastLogin` may be before a login is noted again.
LOGIN_ACCURACY = timedelta(hours=1)

#: So many of them are told apart among the accounts of a store, the most frequent ones.
MOST_COSTS = 8


@implementer(IAuthorizer)
class Authorizer:
    """
    Find identities by name: the base class of authorizers.

    A subclass overrides `getIdentityRequest`; and, if its identities can be changed, the three
    methods that write: `addIdentity`, `updateIdentity` (which calls `endUnauthorized`) and
    `removeIdentity` (which calls `identityRemoved`).

    Args:
        serviceCollection: where services are looked up; anything that provides or adapts to
            `IServiceCollection`, such as a `MultiService` or an `Application`.
        hashing: how new passwords become verifiers.
        audit: where what happens to these accounts is recorded; by default every observer of the
            program's log sees it.
        reactor: provides threads for the slow part of a password, while it runs, and the time at
            which accounts expire; the global one by default.

    Raises:
        TypeError: an argument is of the wrong type.
    """

    #: What `createIdentity` makes.
    identityClass: Any = Identity

    #: Whether passwords are checked elsewhere (PAM, LDAP), where they have to be seen.
    externalPasswords: bool = False

    def __init__(
        self,
        serviceCollection: IServiceCollection | Componentized | None = None,
        hashing: Hashing = Hashing(),  # noqa: B008 - immutable
        *,
        audit: Audit | None = None,
        reactor: Reactor = None,
    ) -> None:
        checkType(Hashing, hashing, "hashing")
        self.hashing = hashing
        self.derivations = Derivations(reactor)
        self.sessions = Sessions(audit, self._loggedIn, self._noneLeft)
        self._clock = reactor if IReactorTime.providedBy(reactor) else None
        self._expiries = Expiries(lambda: chooseReactor(self._clock), self._expire)
        self.proofs = EquivalentProofs(self.sessions.holders)
        self._services: Any = None
        self._decoySecret = secrets.token_bytes(DECOY_BYTES)
        # Iterations and bytes of salt of verifiers that are not as `hashing` has them.
        self._otherCosts: set[Cost] = set()
        if serviceCollection is not None:
            self.setServiceCollection(serviceCollection)

    def createIdentity(self, name: str) -> IIdentity:
        """
        Make a new identity that belongs to this authorizer and is not saved yet.

        Args:
            name: of it: its own form in SASLprep (RFC 4013), without invisible characters. Names of
                identities that exist may be others.

        Raises:
            TypeError: the name is not a `str`.
            InvalidName: the name breaks the rule of `pbauth.names`, or this one.
        """
        return self.identityClass(checkNewName(name), self)

    def addIdentity(self, identity: IIdentity) -> Awaitable[object]:
        """
        Store a new identity.

        Raises:
            DuplicateIdentity: the name is taken.
        """
        raise NotImplementedError(f"{type(self).__name__} does not store identities.")

    def updateIdentity(self, identity: IIdentity) -> Awaitable[object]:
        """
        Store what changed on a known identity, and end its sessions that are no longer allowed.

        Raises:
            KeyError: it is not known.
        """
        raise NotImplementedError(f"{type(self).__name__} does not store identities.")

    def removeIdentity(self, name: str) -> Awaitable[object]:
        """
        Forget an identity, and end its sessions.

        Raises:
            KeyError: it is not known.
        """
        raise NotImplementedError(f"{type(self).__name__} does not store identities.")

    def getIdentityRequest(self, name: str) -> Awaitable[IIdentity]:
        """
        Find an identity. Override it: passwd files, SQL, identities made on demand.

        Returns:
            Fires with the identity; fails with `Unauthorized` if there is none.
        """
        raise NotImplementedError(f"{type(self).__name__} must define getIdentityRequest.")

    @property
    def decoySecret(self) -> bytes:
        """Return what decoys are made from; where it moves along with the accounts, decoys stay."""
        return self._decoySecret

    def getDecoyVerifier(self, name: str, mechanism: str) -> Verifier | Awaitable[Verifier]:
        """
        Make a verifier that no password fits, for a name that does not exist.

        Args:
            name: the claimed name.
            mechanism: whose verifier.

        Returns:
            A verifier that is the same each time for the same name.
        """
        return self._decoy(self._decoySecret, name, mechanism)

    def _decoy(self, secret: bytes, name: str, mechanism: str) -> Verifier:
        if mechanism in KEY_MECHANISMS:
            return AuthorizedKeys(mechanism)
        if mechanism == voucher.NAME:
            return IssuedVouchers()

        def derive(parts: str) -> bytes:
            text = f"{mechanism}\0{name}{parts}"
            return hashlib.blake2b(text.encode(), key=secret).digest()

        if mechanism == md5.NAME:
            return MD5Verifier(derive("")[:16])
        # The client sees iterations and salt. Some accounts have those of another time, or of
        # another server; so have some decoys, each of them always the same.
        iterations, saltBytes = self.hashing.iterations, self.hashing.saltBytes
        costs = {(iterations, saltBytes), *self._otherCosts}
        if len(costs) > 1:
            iterations, saltBytes = max(costs, key=lambda cost: derive(f"\0{cost[0]}\0{cost[1]}"))
        salt = derive(f"\0{iterations}\0{saltBytes}\0salt")
        if saltBytes > len(salt):
            salt += derive(f"\0{iterations}\0{saltBytes}\0more salt")
        # To fit these keys a proof would have to hash to zero.
        return ScramVerifier(salt[:saltBytes], iterations, bytes(32), bytes(32))

    def _noteCosts(self, costs: Iterable[Cost]) -> None:
        """Take note of iterations and bytes of salt that verifiers of accounts have."""
        for cost in costs:
            if len(self._otherCosts) >= MOST_COSTS:
                return
            self._otherCosts.add(cost)

    def renewVerifier(
        self, identity: IIdentity, old: ScramVerifier, new: ScramVerifier
    ) -> Deferred[bool]:
        """
        Replace a verifier by a stronger one of the same password, and store that.

        This one compares first and saves then. Override it for a store that others write to at
        the same time, and do both in one step there: whoever changed the password must win.

        Args:
            identity: whose it is.
            old: the verifier so far.
            new: the stronger one.

        Returns:
            Fires with whether that was done: not if `old` was replaced in the meantime, or if
            this authorizer does not store identities.

        Raises:
            TypeError: an argument is of the wrong type.
        """
        checkRenewal(identity, old, new)

        async def renew() -> bool:
            verifiers = await settled(identity.getVerifiers())
            if verifiers.get(scram.NAME) != old:
                return False
            identity.setVerifiers({**verifiers, scram.NAME: new})
            try:
                await settled(identity.save())
            except NotImplementedError:
                identity.setVerifiers(verifiers)
                return False
            except BaseException:
                identity.setVerifiers(verifiers)
                raise
            return True

        return Deferred.fromCoroutine(renew())

    def replacePassword(
        self, identity: IIdentity, before: dict[str, Verifier], verifiers: dict[str, Verifier]
    ) -> Deferred[bool]:
        """
        Replace the verifiers of a password by those of another one, and store that.

        This one compares first and saves then. Override it for a store that others write to at
        the same time, and do both in one step there: whoever changed the account in the meantime
        must win.

        Args:
            identity: whose they are.
            before: all its verifiers so far, by the name of the mechanism.
            verifiers: of the new password; public keys stay.

        Returns:
            Fires with whether that was done: not if any verifier was replaced in the meantime, or
            the identity is locked.

        Raises:
            TypeError: an argument is of the wrong type.
        """
        checkReplacement(identity, before, verifiers)

        async def replace() -> bool:
            if await settled(identity.getVerifiers()) != before or identity.locked:
                return False
            identity.setVerifiers(verifiers)
            identity.mustChangePassword = False
            await settled(identity.save())
            return True

        return Deferred.fromCoroutine(replace())

    def identityChanged(self, identity: IIdentity) -> None:
        """
        End the sessions and the logins that were given this object and are no longer allowed by it.
        """
        holders = self.sessions.holders(identity.name)
        self._endUnauthorized(identity, [each for each in holders if each.identity is identity])

    def endUnauthorized(self, identity: IIdentity) -> None:
        """
        End the sessions and the logins that an identity, as it is now, no longer allows.

        Args:
            identity: as it is now; the sessions may have been given other objects that stand for
                the same identity.

        Raises:
            TypeError: it is not an identity.
        """
        checkProvides(IIdentity, identity, "identity")
        self._endUnauthorized(identity, self.sessions.holders(identity.name))

    def _endUnauthorized(self, identity: IIdentity, holders: list[Any]) -> None:
        begun = self.now()
        for holder in holders:
            reason: EndReason | None = EndReason.REVOKED
            # Nobody stays because of what the class of the identity raises.
            with contained(_log, "Can't find out what {holder!r} may do", holder=holder):
                reason = self._reasonToEnd(identity, holder)
            if reason is not None:
                holder.end(reason)
        if holders:
            self._watch(identity.name, begun, identity)

    def _watch(self, name: str, since: datetime, identity: IIdentity | None) -> None:
        """
        Set the timer to when the first login of an identity ends by itself.

        Args:
            name: of the identity.
            since: what was to end until then has been ended; it may still be there, if it is just
                being attached.
            identity: as it is now; `None`: that can't be found out.
        """
        with contained(_log, "Can't find out when {name!r} expires", name=name):
            ends = [
                (identity or holder.identity).standsUntil(holder.proof)
                for holder in self.sessions.holders(name)
            ]
            later = [secondsOf(end) for end in ends if end is not None and end > since]
            self._expiries.set(name, min(later, default=None))

    def _expire(self, name: str) -> None:
        async def expire() -> None:
            identity: Any = None
            try:
                # It may have been given more time elsewhere.
                identity = await settled(self.getIdentityRequest(name))
            except Unauthorized:
                return
            except Exception:
                _log.failure("Can't find out whether {name!r} has been given more time", name=name)
            now = self.now()
            for holder in self.sessions.holders(name):
                ended = True
                with contained(_log, "Can't find out when {holder!r} ends", holder=holder):
                    end = (identity or holder.identity).standsUntil(holder.proof)
                    ended = end is not None and end <= now
                if ended:
                    holder.end(EndReason.EXPIRED)
            self._watch(name, now, identity)

        run(expire())

    def _loggedIn(self, identity: IIdentity, proof: object) -> None:
        end = identity.standsUntil(proof)
        if end is not None:
            before = self._expiries.get(identity.name)
            self._expiries.set(
                identity.name, secondsOf(end) if before is None else min(before, secondsOf(end))
            )
        last = identity.lastLogin
        if last is None or not timedelta(0) <= self.now() - last < LOGIN_ACCURACY:
            try:
                self._noteLogin(identity)
            except BaseException:
                _log.failure("Can't note the login of {name!r}", name=identity.name)

    def _noneLeft(self, name: str) -> None:
        self._expiries.set(name, None)

    def _noteLogin(self, identity: IIdentity) -> None:
        """
        Take note that an identity logs in now, as `IIdentity.lastLogin` has it. Called if the last
        time was more than `LOGIN_ACCURACY` ago. Override it for a store that keeps this.
        """

    def now(self) -> datetime:
        """Return the time of the reactor that this was given, or of the system."""
        return atSeconds(time.time() if self._clock is None else wallTime(self._clock))

    def _reasonToEnd(self, identity: IIdentity, holder: Any) -> EndReason | None:
        if self.proofs.proves(identity, holder):
            if not isinstance(holder, Session):
                return None
            held = identity.holdsKey(holder.serviceName, holder.perspectiveName)
            if not held:
                return EndReason.KEY_REVOKED
            holder.limitTo(identity)
            return None
        if identity.locked:
            return EndReason.LOCKED
        end = identity.standsUntil(holder.proof)
        if end is not None and end <= self.now():
            return EndReason.EXPIRED
        if isinstance(holder.proof, (ScramVerifier, MD5Verifier)):
            return EndReason.PASSWORD_CHANGED
        if isinstance(holder.proof, PublicKey):
            return EndReason.PUBLIC_KEY_REMOVED
        if isinstance(holder.proof, VoucherProof):
            return EndReason.VOUCHER_REVOKED
        return EndReason.REVOKED

    def identityRemoved(self, name: str) -> None:
        """
        End the sessions and the logins of an identity that was removed, and forget which proofs
        stood for it.

        Args:
            name: of the identity.
        """
        self.proofs.forget(name)
        self.sessions.endAll(name)

    def getServiceNamed(self, name: str) -> IService:
        """
        Look up a service.

        Raises:
            KeyError: there is none of that name.
        """
        if self._services is None:
            raise KeyError(name)
        return self._services.getServiceNamed(name)

    def setServiceCollection(self, collection: IServiceCollection | Componentized) -> None:
        """
        Set where services are looked up.

        Args:
            collection: anything that provides or adapts to `IServiceCollection`.

        Raises:
            TypeError: it does neither.
        """
        self._services = adapted(IServiceCollection, collection, "collection")
