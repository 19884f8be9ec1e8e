"""The authorizer: finds identities by name."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from twisted.application.service import IServiceCollection
from twisted.internet.defer import (
    Deferred,
    DeferredLock,
    execute,
    fail,
    maybeDeferred,
    succeed,
)
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.components import Componentized
from zope.interface import implementer

from pbauth._arguments import adapted, checkProvides, checkType
from pbauth._async import chooseReactor, run, settled
from pbauth._contained import contained
from pbauth._moments import atSeconds, checkMoment, secondsOf
from pbauth._time import wallTime
from pbauth.accounts.administrators import (
    GroupLoss,
    KeptAdministrator,
    checkChange,
    checkKeeping,
)
from pbauth.accounts.expiries import Expiries
from pbauth.accounts.groups import Groups, Key, checkGroupName, checkKey
from pbauth.accounts.hashing import Derivations, Hashing
from pbauth.accounts.identity import Identity, checkNewName, checkRenewal, checkReplacement
from pbauth.accounts.records import Record, holdersAmong, listedRecords, recordOf
from pbauth.accounts.verifiers import EquivalentProofs
from pbauth.accounts.vouchers import VoucherKeeping
from pbauth.audit import Audit
from pbauth.errors import (
    DuplicateGroup,
    DuplicateIdentity,
    NotAMember,
    Unauthorized,
    UnknownGroup,
)
from pbauth.interfaces import (
    IAccountStore,
    IAuthorizer,
    IGroupStore,
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

#: What whoever says nothing gets.
_HASHING = Hashing()


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
        hashing: Hashing = _HASHING,
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
        hashing: Hashing = _HASHING,
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
            members = self._membersOf(loss.group)
            if loss.member is not None:
                members = [each for each in members if each.name == loss.member]
                if not members:
                    raise NotAMember(loss.group, loss.member)
            elif loss.key is not None and loss.key not in self._groups[loss.group]:
                raise KeyError(loss.key)
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
