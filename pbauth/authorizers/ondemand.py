"""
Identities that are made for whoever
asks.

Anybody may ask, for any number of names. So what was made is kept only while
somebody holds it - a session, a login under way - and a bounded number beyond that; the
others are made again when they are asked for.  What is saved is kept as `DefaultAuthorizer`
keeps it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any
from weakref import WeakValueDictionary

from twisted.application.service import IServiceCollection
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.components import Componentized

from pbauth._arguments import checkCallable
from pbauth._async import SingleFlight, settled
from pbauth.accounts.hashing import Hashing
from pbauth.accounts.identity import checkIdentityName, checkRenewal
from pbauth.accounts.memory import DefaultAuthorizer
from pbauth.audit import Audit
from pbauth.errors import InvalidName, StoreError, Unauthorized
from pbauth.interfaces import IIdentity, Reactor
from pbauth.mechanisms import scram
from pbauth.mechanisms.scram import ScramVerifier

_log = Logger()

#: Of this many unsaved identities it is remembered at most that they were made, those aside that
#: somebody holds.
MOST_KEPT = 1_000


class OnDemandAuthorizer(DefaultAuthorizer):
    """
    Make an identity when it is asked for the first time.

    An identity that is not saved is in memory, and a change to it counts at once; but it may be
    forgotten when nobody is logged in with it, and made again. Save it, and it stays: `create` is
    not asked for that name any more. A client that changes its password saves its identity.

    Args:
        create: is called with a name; gives an identity of that name, made by `createIdentity`, or
            `None`: there is nobody of that name. A plain value, a coroutine or a Deferred. Two who
            ask for a name at once get the same identity. What it raises is logged, and the client
            gets `StoreError`; `Unauthorized` is as `None`.
        serviceCollection: as for `Authorizer`.
        hashing: as for `Authorizer`.
        mostKept: unsaved identities to keep that nobody holds.
        audit: as for `Authorizer`.
        reactor: as for `Authorizer`.

    Raises:
        TypeError: an argument is of the wrong type.
    """

    def __init__(
        self,
        create: Callable[[str], IIdentity | Awaitable[IIdentity | None] | None],
        serviceCollection: IServiceCollection | Componentized | None = None,
        hashing: Hashing = Hashing(),  # noqa: B008 - immutable
        *,
        mostKept: int = MOST_KEPT,
        audit: Audit | None = None,
        reactor: Reactor = None,
    ) -> None:
        checkCallable(create, "create")
        super().__init__(serviceCollection, hashing, audit=audit, reactor=reactor)
        self._create = create
        self._mostKept = mostKept
        # What was made and not saved: all that somebody holds, and those that were asked for last.
        self._made: WeakValueDictionary[str, IIdentity] = WeakValueDictionary()
        self._kept: OrderedDict[str, IIdentity] = OrderedDict()
        self._making: SingleFlight[IIdentity] = SingleFlight(self._make)

    def getIdentityRequest(self, name: str) -> Deferred[IIdentity]:
        """
        Find the identity of this name; make it if there is none yet.

        Args:
            name: as the client claims it.

        Returns:
            Fires with the identity; fails with `Unauthorized` if nobody has this name, or with
            `StoreError` if the identity can't be made.
        """
        found = self._find(name)
        if found is not None:
            return self._grouped(found)
        try:
            checkIdentityName(name)
        except (InvalidName, TypeError):
            return fail(Unauthorized())
        made: Deferred[Any] = self._making.run(name)
        return made.addCallback(self._grouped)

    def groupsOf(self, identityName: str) -> Awaitable[list[str]]:
        """
        Return the groups of an identity: by default, those that `addMember` has made it a member
        of. Override it to have them from elsewhere: it is asked at each login, and sessions end
        that rested on groups that it does not return any more.

        Args:
            identityName: the name of an identity that there is.

        Returns:
            Names of groups, or an awaitable of them; those that were not added are passed over.
        """
        return super().groupsOf(identityName)

    def _grouped(self, identity: IIdentity) -> Deferred[IIdentity]:
        async def group() -> IIdentity:
            try:
                names = frozenset(await settled(self.groupsOf(identity.name)))
            except Exception:
                # It is the application's: whatever it raises, nobody gets in by it.
                _log.failure("The groups of {name!r} can't be found out", name=identity.name)
                raise StoreError() from None
            groups = self._keysOf(names)
            if groups.keys() != identity.groups:
                identity.setGroups(groups)
                self.endUnauthorized(identity)
            return identity

        return Deferred.fromCoroutine(group())

    async def _make(self, name: str) -> IIdentity:
        made = None
        try:
            made = await settled(self._create(name))
            if made is not None:
                self._check(made, name)
        except (Unauthorized, InvalidName):
            made = None
        except Exception:
            # It is the application's: whatever it raises, nobody gets in by it.
            _log.failure("No identity could be created for {name!r}", name=name)
            raise StoreError() from None
        # `create` may have saved it; or somebody else one of that name, meanwhile.
        found = self._find(name)
        if found is not None:
            return found
        if made is None:
            raise Unauthorized()
        self._made[name] = made
        self._keep(name, made)
        return made

    def _check(self, made: Any, name: str) -> None:
        if not IIdentity.providedBy(made):
            raise TypeError(f"create() must return an identity or None, not {type(made).__name__}.")
        if made.name != name:
            raise ValueError(f"create() was asked for {name!r} and returned {made.name!r}.")
        if made.authorizer is not self:
            raise ValueError("create() returned the identity of another authorizer.")

    def _find(self, name: str) -> IIdentity | None:
        saved = self.identities.get(name)
        if saved is not None:
            return saved
        made = self._made.get(name)
        if made is not None:
            self._keep(name, made)
        return made

    def _keep(self, name: str, made: IIdentity) -> None:
        self._kept[name] = made
        self._kept.move_to_end(name)
        while len(self._kept) > self._mostKept:
            self._kept.popitem(last=False)

    def _known(self) -> dict[str, IIdentity]:
        return {**self._made, **self.identities}

    def _forget(self, name: str) -> IIdentity | None:
        self._kept.pop(name, None)
        return self._made.pop(name, None)

    def addIdentity(self, identity: IIdentity) -> Deferred[None]:
        """
        Save a new identity, or one that was made: it stays.

        Raises:
            DuplicateIdentity: the name is taken by one that was saved.
        """
        added = super().addIdentity(identity)
        if self._forget(identity.name) is not identity:
            self.endUnauthorized(identity)
        return added

    def removeIdentity(self, name: str) -> Deferred[None]:
        """
        Forget an identity, and end its sessions. When it is asked for, it is made again; to
        keep somebody out, lock the identity and save it.

        Raises:
            KeyError: it is not known.
        """
        if name in self.identities:
            return super().removeIdentity(name)
        if self._forget(name) is None:
            raise KeyError(name)
        self.identityRemoved(name)
        return succeed(None)

    def renewVerifier(
        self, identity: IIdentity, old: ScramVerifier, new: ScramVerifier
    ) -> Deferred[bool]:
        """
        Replace a verifier by a stronger one of the same password. One that is not saved is not
        saved by that either.

        Returns:
            Fires with whether that was done.

        Raises:
            TypeError: an argument is of the wrong type.
        """
        checkRenewal(identity, old, new)
        if identity.name in self.identities:
            return super().renewVerifier(identity, old, new)

        async def renew() -> bool:
            verifiers = await settled(identity.getVerifiers())
            if verifiers.get(scram.NAME) != old:
                return False
            identity.setVerifiers({**verifiers, scram.NAME: new})
            return True

        return Deferred.fromCoroutine(renew())

    def identityChanged(self, identity: IIdentity) -> None:
        """End the sessions that the identity no longer allows."""
        known = self.identities.get(identity.name, self._made.get(identity.name))
        if known is identity:
            self.endUnauthorized(identity)
