"""
The words of the domain: who calls what, when, and with what.

The wire (`pbauth.login.root`) uses nothing of an object but what is declared here, so a class of an
application that provides an interface, without inheriting from anything, works everywhere.
Where a method is said to give a Deferred, an implementation may also return the plain value or
be a coroutine: the caller takes all three.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from twisted.application import service
from twisted.plugin import IPlugin
from twisted.spread import pb
from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    # These stand above this module, which names them and does not need them.
    from datetime import datetime

    from twisted.python.components import Componentized

    from pbauth.accounts.administrators import KeptAdministrator
    from pbauth.accounts.records import Record
    from pbauth.mechanisms import Verifier
    from pbauth.mechanisms.authorizedkeys import AuthorizedKey
    from pbauth.mechanisms.channel import Channel
    from pbauth.mechanisms.scram import ScramVerifier
    from pbauth.mechanisms.terms import Claimant, Terms
    from pbauth.mechanisms.voucher import IssuedVoucher, Voucher
    from pbauth.perspectives.sessions import Session

#: A value that crosses the wire: whatever Perspective Broker carries.
WireValue: TypeAlias = Any

#: The client's own object, as the server knows it; `None`: the client has given none.
ClientReference: TypeAlias = pb.RemoteReference | None

#: A reactor. The text of each argument says which of Twisted's interfaces it has to provide;
#: ``from twisted.internet import reactor`` is of no type that provides them.
Reactor: TypeAlias = Any


class IAuthorizer(Interface):
    """
    Finds identities by name, and services; it hangs behind one or more ports.

    The wire asks it for an identity whenever a client claims a name.
    """

    identityClass = Attribute("The class of the identities that `createIdentity` makes.")
    hashing = Attribute("A `pbauth.Hashing`: how new passwords become verifiers.")
    derivations = Attribute("A `pbauth.Derivations`: where the slow part of a password is done.")
    sessions = Attribute(
        "The `pbauth.perspectives.sessions.Sessions` of this authorizer: who is attached to what."
    )
    proofs = Attribute(
        "The `pbauth.EquivalentProofs` of these sessions: which proofs stand for each other after "
        "the verifier of a password was renewed."
    )
    externalPasswords = Attribute(
        "Whether passwords are checked by somebody else (PAM, LDAP) who has to see them, and no "
        "verifier of them is kept here. Logins with a password then use `PLAIN`, never SCRAM."
    )

    def createIdentity(name: str) -> IIdentity:
        """Return a new identity, not saved yet, that belongs to this authorizer."""

    def addIdentity(identity: IIdentity) -> Awaitable[object]:
        """Store a new identity; a taken name is a `DuplicateIdentity`."""

    def updateIdentity(identity: IIdentity) -> Awaitable[object]:
        """
        Store what changed on a known identity, and end the sessions that it no longer allows;
        an unknown one is a `KeyError`.
        """

    def removeIdentity(name: str) -> Awaitable[object]:
        """Forget an identity and end its sessions; an unknown name is a `KeyError`."""

    def getIdentityRequest(name: str) -> Awaitable[IIdentity]:
        """
        Return a Deferred that fires with the identity of that name, or fails with `Unauthorized`.

        This is the method to override for passwd files, SQL, or identities made on demand.
        """

    def getDecoyVerifier(name: str, mechanism: str) -> Verifier | Awaitable[Verifier]:
        """
        Return a Deferred that fires with a verifier that no password fits.

        The wire runs the login of a name that does not exist, or that has no verifier for the
        mechanism, against it, so that the client can't tell.  It must look like a real one and be
        the same each time, even after a restart.
        """

    def renewVerifier(
        identity: IIdentity, old: ScramVerifier, new: ScramVerifier
    ) -> Awaitable[bool]:
        """
        Replace the SCRAM verifier `old` of an identity by `new`, a stronger one of the same
        password, unless it was replaced in the meantime.  Its other verifiers stay.

        Return a Deferred that fires with whether that was done; `False` also where nothing
        can be stored.
        """

    def replacePassword(
        identity: IIdentity, before: dict[str, Verifier], verifiers: dict[str, Verifier]
    ) -> Awaitable[bool]:
        """
        Replace the verifiers of an identity's password by others, and store that, unless any of its
        verifiers is not as `before`, or it is locked: whoever changed the account in the meantime
        wins.  Its public keys stay.  Its sessions that are no longer allowed end.

        Return a Deferred that fires with whether that was done.
        """

    def now() -> datetime:
        """Return the time, an aware `datetime`, that decides whether an identity has expired."""

    def identityChanged(identity: IIdentity) -> None:
        """
        Note that the password, the keyring or the lock of an identity was changed in memory.

        Where the identity in memory is the account, its sessions that are no longer allowed end
        now; where it is a copy of what is stored elsewhere, nothing happens before it is saved.
        """

    def getServiceNamed(name: str) -> IService:
        """Return the service of that name; `KeyError` if there is none."""

    def setServiceCollection(collection: service.IServiceCollection | Componentized) -> None:
        """Say where services are looked up: anything that adapts to `IServiceCollection`."""


class IAccountStore(IAuthorizer):
    """
    An authorizer that stores identities and can tell which ones: what administration needs.

    Names are in the order of their code points.
    """

    def changeIdentity(
        name: str,
        change: Callable[[Record], Record | None],
        keeping: KeptAdministrator | None = None,
    ) -> Awaitable[None]:
        """
        Change an identity in one transaction, and end the sessions that it no longer allows.

        Args:
            name: of the identity.
            change: takes the `pbauth.accounts.records.Record` of the identity as it is, and returns
                it as it should be; or `None`: it is removed. Pure, since it may be called in a
                thread, and more than once. If it raises an error nothing is changed.
            keeping: a `pbauth.accounts.administrators.KeptAdministrator` that must still hold;
                `None`: whatever is left will do.

        Returns:
            A Deferred that fires when that is done. It fails with `KeyError` if there is no such
            identity, with `LastAdministrator`, and with whatever `change` raises.
        """

    def listIdentities(
        after: str = "", most: int | None = None
    ) -> Awaitable[list[tuple[str, bool, int]]]:
        """
        Return a Deferred that fires with a list of `(name, locked, number of keys)`: of the first
        `most` identities whose names come after `after`.
        """

    def listHolders(service: str) -> Awaitable[list[tuple[str, str, bool, str]]]:
        """
        Return a Deferred that fires with a sorted list of `(name, perspectiveName, locked, group)`:
        of each key to the service, who holds it, and by which group; empty where it is their own.
        The perspective is ``*`` where the key is to any; ``{name}`` is replaced by the name.
        """

    def readRecords(after: str = "", most: int | None = None) -> Awaitable[list[Record]]:
        """
        Return a Deferred that fires with a list of `pbauth.accounts.records.Record`: of the first
        `most` identities whose names come after `after`.
        """

    def addRecords(records: Iterable[Record], skipKnown: bool = False) -> Awaitable[int]:
        """
        Store new identities, all of these records or none.  They have been checked.

        Return a Deferred that fires with the number of those that were added.  It fails with
        `DuplicateIdentity` if a name is taken; or, with `skipKnown`, leaves that identity as it is.
        """

    def issueVoucher(
        identityName: str,
        label: str,
        until: datetime,
        *,
        survivesPasswordChange: bool = False,
        **limits: Any,
    ) -> Awaitable[Voucher]:
        """
        Issue a voucher of an identity; the further limits are as for `pbauth.Voucher.only`.

        Return a Deferred that fires with the `pbauth.Voucher`, which is kept nowhere else. It fails
        with `KeyError` if there is no such identity, and with `ValueError`.
        """

    def keepVoucher(identityName: str, issued: IssuedVoucher) -> Awaitable[None]:
        """
        Keep a voucher whose key was made elsewhere; what it allows has been checked.

        Return a Deferred that fires when it is stored. It fails with `KeyError` if there is no such
        identity, and with `LimitExceeded` if it has too many vouchers.
        """

    def listVouchers(identityName: str) -> Awaitable[list[IssuedVoucher]]:
        """
        Return a Deferred that fires with the vouchers of an identity, each with `id`, `label`,
        `limits` and `survivesPasswordChange`. It fails with `KeyError` if there is no such
        identity.
        """

    def revokeVoucher(identityName: str, idOrLabel: str) -> Awaitable[int]:
        """
        Revoke a voucher, or all of a label, and end their sessions.

        Return a Deferred that fires with how many there were. It fails with `UnknownVoucher`, and
        with `KeyError` if there is no such identity.
        """

    def countExpiring(until: datetime) -> Awaitable[int]:
        """
        Return a Deferred that fires with the number of identities that have not expired yet, and
        will have at this moment.
        """


class IGroupStore(Interface):
    """
    Stores groups: named sets of identities that hold keys.

    Each method returns a Deferred.  `UnknownGroup`, a `KeyError`, means that there is no group of
    that name.  A key names a service and a perspective; ``*`` instead of the perspective stands
    for any of that service, and ``{name}`` for the one that is named like the identity.  Where
    something is taken away, the sessions end that rested on it and on nothing else.

    `keeping` is a `pbauth.accounts.administrators.KeptAdministrator` that must still hold, as for
    `IAccountStore.changeIdentity`: otherwise `LastAdministrator`, and nothing was changed.
    """

    def addGroup(name: str) -> Awaitable[None]:
        """Add a group without keys and members. `DuplicateGroup` if the name is taken."""

    def removeGroup(name: str, keeping: KeptAdministrator | None = None) -> Awaitable[None]:
        """Remove a group."""

    def listGroups(after: str = "", most: int | None = None) -> Awaitable[list[str]]:
        """
        Return the names of the first `most` groups whose names come after `after`, sorted by code
        points.
        """

    def addMember(group: str, identityName: str) -> Awaitable[None]:
        """
        Make an identity a member of a group, if it is none yet. `KeyError` if there is no such
        identity.
        """

    def removeMember(
        group: str, identityName: str, keeping: KeptAdministrator | None = None
    ) -> Awaitable[None]:
        """Take an identity out of a group. `NotAMember`, a `KeyError`, if it is not in it."""

    def members(group: str) -> Awaitable[list[str]]:
        """Return the names of the members of a group, sorted."""

    def groupsOf(identityName: str) -> Awaitable[list[str]]:
        """Return the names of the groups of an identity, sorted; none, of one that is not there."""

    def grantGroupKey(group: str, service: str, perspective: str) -> Awaitable[None]:
        """Give a group a key. `InvalidName` if a name breaks the rule."""

    def revokeGroupKey(
        group: str, service: str, perspective: str, keeping: KeptAdministrator | None = None
    ) -> Awaitable[None]:
        """Take a key from a group. `KeyError` if it does not hold it."""

    def groupKeys(group: str) -> Awaitable[list[tuple[str, str]]]:
        """Return the pairs `(serviceName, perspectiveName)` that a group holds, sorted."""


class IAdministration(Interface):
    """
    What an administrator can do: to accounts at hand, or to those of a running server.

    Each method is a coroutine.  `UnknownUser` means that there is no identity of that name;
    `LastAdministrator`, that nobody would be left who can log in and administer; nothing was
    changed then.
    """

    def addUser(name: str, password: str | None) -> Awaitable[None]:
        """
        Add an identity; with `None` it has no password.

        Raises `DuplicateIdentity`, `InvalidName`, `InvalidPassword`.
        """

    def removeUser(name: str) -> Awaitable[None]:
        """Remove an identity. Raises `UnknownUser`, `LastAdministrator`."""

    def setPassword(name: str, password: str, mustChange: bool = False) -> Awaitable[None]:
        """
        Give an identity a new password; with `mustChange`, one that it has to change before
        anything else. Raises `UnknownUser`, `InvalidPassword`.
        """

    def setExpiry(name: str, expires: datetime | None) -> Awaitable[None]:
        """
        Set when an identity expires; `None`: never. Raises `UnknownUser`, `LastAdministrator`, and
        `ValueError` where the moment has no time zone.
        """

    def showUser(name: str) -> Awaitable[Record]:
        """Return the record of an identity, without verifiers of passwords, or `UnknownUser`."""

    def setLocked(name: str, locked: bool) -> Awaitable[None]:
        """Lock or unlock an identity. Raises `UnknownUser`, `LastAdministrator`."""

    def listUsers(
        after: str = "", most: int | None = None
    ) -> Awaitable[list[tuple[str, bool, int]]]:
        """
        Return a list of `(name, locked, number of keys)`: of the first `most` identities whose
        names come after `after`.
        """

    def findUsers(
        locked: bool = False,
        expired: bool = False,
        inactiveSince: datetime | None = None,
        after: str = "",
        most: int | None = None,
    ) -> Awaitable[list[tuple[str, bool, int]]]:
        """
        Return what `listUsers` does, of those identities alone that are locked, that have expired,
        that have not logged in since a moment; of all that is asked for.
        """

    def addGroup(name: str) -> Awaitable[None]:
        """Add a group. Raises `DuplicateGroup`, `InvalidName`."""

    def removeGroup(name: str) -> Awaitable[None]:
        """Remove a group. Raises `UnknownGroup`, `LastAdministrator`."""

    def listGroups(after: str = "", most: int | None = None) -> Awaitable[list[str]]:
        """Return the names of the first `most` groups whose names come after `after`."""

    def joinGroup(group: str, name: str) -> Awaitable[None]:
        """Make an identity a member of a group. Raises `UnknownGroup`, `UnknownUser`."""

    def leaveGroup(group: str, name: str) -> Awaitable[None]:
        """
        Take an identity out of a group. Raises `UnknownGroup`, `NotAMember`, `LastAdministrator`.
        """

    def listMembers(group: str) -> Awaitable[list[str]]:
        """Return the names of the members of a group, sorted. Raises `UnknownGroup`."""

    def grantGroupKey(group: str, service: str, perspective: str) -> Awaitable[None]:
        """Give a group a key. Raises `UnknownGroup`, `InvalidName`."""

    def revokeGroupKey(group: str, service: str, perspective: str) -> Awaitable[None]:
        """Take a key from a group. Raises `UnknownGroup`, `UnknownKey`, `LastAdministrator`."""

    def groupKeys(group: str) -> Awaitable[list[tuple[str, str]]]:
        """Return the pairs `(service, perspective)` of a group, sorted. Raises `UnknownGroup`."""

    def issueVoucher(
        name: str,
        label: str,
        until: datetime,
        survivesPasswordChange: bool = False,
        **limits: Any,
    ) -> Awaitable[Voucher]:
        """
        Issue a voucher of an identity, a `pbauth.Voucher`; its key is made here.

        Raises `UnknownUser`, `LimitExceeded`, and `ValueError` where a limit makes no sense.
        """

    def listVouchers(name: str) -> Awaitable[list[IssuedVoucher]]:
        """Return what is kept of the vouchers of an identity. Raises `UnknownUser`."""

    def revokeVoucher(name: str, which: str) -> Awaitable[int]:
        """
        Revoke a voucher by its id, or all of a label; return how many. Raises `UnknownUser`,
        `UnknownVoucher`.
        """

    def grantKey(
        name: str, service: str, perspective: str, methods: Iterable[str] | None = None
    ) -> Awaitable[None]:
        """
        Put a key on a keyring; with `methods`, one that is good for these alone. Raises
        `UnknownUser`, `InvalidName`, and `ValueError` where there is no method.
        """

    def revokeKey(name: str, service: str, perspective: str) -> Awaitable[None]:
        """Take a key from a keyring. Raises `UnknownUser`, `UnknownKey`, `LastAdministrator`."""

    def listKeys(name: str) -> Awaitable[list[tuple[str, str]]]:
        """Return the pairs `(service, perspective)` on a keyring. Raises `UnknownUser`."""

    def whoCan(service: str) -> Awaitable[list[tuple[str, str, bool, str]]]:
        """
        Return a sorted list of `(name, perspective, locked, group)`: who holds keys to a service,
        and by which group; empty where the key is their own.
        """

    def addPublicKeys(name: str, keys: Iterable[AuthorizedKey]) -> Awaitable[None]:
        """Authorize public keys. Raises `UnknownUser`."""

    def listPublicKeys(name: str) -> Awaitable[list[AuthorizedKey]]:
        """Return the authorized public keys of an identity. Raises `UnknownUser`."""

    def removePublicKey(name: str, which: str) -> Awaitable[None]:
        """
        Remove the public key with this fingerprint or label.

        Raises `UnknownUser`, `UnknownPublicKey`, `LastAdministrator`.
        """

    def readRecords(after: str = "", most: int | None = None) -> Awaitable[list[Record]]:
        """
        Return a list of `pbauth.accounts.records.Record`: of the first `most` identities whose
        names come after `after`.
        """

    def addRecords(records: Iterable[Record], skipKnown: bool = False) -> Awaitable[int]:
        """
        Add identities, and return how many were added. Raises `DuplicateIdentity`, unless
        `skipKnown` leaves those alone that are there.
        """


class ISessionAdministration(IAdministration):
    """
    The administration of a running server, which has sessions.  Each method is a coroutine.
    """

    def listSessions() -> Awaitable[list[tuple[str, str, str, str, str, float]]]:
        """Return a list of `(id, identity, service, perspective, peer, since)`."""

    def endSession(session: str) -> Awaitable[None]:
        """End the session of this id. Raises `UnknownSession`."""

    def endSessions(name: str) -> Awaitable[int]:
        """End all sessions of an identity, except this one; return how many."""

    def unheardServers() -> Awaitable[int | None]:
        """
        Return how many other servers did not answer when sessions were last listed or ended, whose
        sessions are left out; `None`: this server can't ask others.
        """

    def drain() -> Awaitable[float]:
        """
        Have the server take no more connections, let its clients go, and stop; return the seconds
        that this takes at most. Raises `CannotDrain`.
        """


class IChangesService(service.IService):
    """
    A service that notices what other processes change in a store.
    """

    hears = Attribute("Whether a change is heard of at once, as far as is known.")
    notices = Attribute("Whether a change is noticed at all: at once, or a few seconds later.")


class IServerMessages(Interface):
    """
    Carries texts between the servers that share a store.
    """

    hears = Attribute("Whether texts arrive, as far as is known.")

    def send(text: str) -> Any:
        """Send a text of at most 7,500 bytes to all; return a Deferred that fires once it is."""

    def subscribe(receive: Any) -> None:
        """Call this with each text that comes, also with those of this server."""

    def countOthers() -> Any:
        """Return a Deferred of how many other servers there are now."""


class ISharedAccountStore(IAccountStore):
    """
    A store that other processes may change at any time: a file, a database.
    """

    def changesService() -> IChangesService:
        """
        Return a service that, while it runs, ends the sessions that somebody else's change no
        longer allows.
        """

    def close() -> None:
        """Close it. Called once, when nothing is under way any more."""


class IIdentity(Interface):
    """
    One person or program: proves who it is, and holds a keyring.

    The wire asks it for a verifier when somebody claims to be it, and for perspectives when that
    was proved.
    """

    name = Attribute("The name, a `str`.")
    authorizer = Attribute("The `IAuthorizer` that it belongs to.")
    keyring = Attribute("Its own keys: a mapping of `(serviceName, perspectiveName)` to truth.")
    groups = Attribute("The names of the groups that it is a member of, a `frozenset`.")
    locked = Attribute("Whether logging in is refused, whatever the proof.")
    expires = Attribute(
        "From when on logging in is refused, an aware `datetime`; `None`: never. Its sessions end "
        "at that moment."
    )
    mustChangePassword = Attribute(
        "Whether logging in is good for nothing but a change of the password."
    )
    created = Attribute("When it was added, an aware `datetime`; `None`: nobody knows.")
    lastLogin = Attribute(
        "When it logged in last, an aware `datetime`, accurate to an hour; `None`: never, or "
        "nobody knows."
    )
    stored = Attribute("Whether its authorizer has it already, so that `save` updates it.")

    def setPassword(password: str | None) -> Awaitable[None]:
        """Replace the password; `None`: no password fits any more."""

    def setVerifiers(verifiers: dict[str, Verifier]) -> None:
        """Replace the password by verifiers that were made elsewhere."""

    def addPublicKey(key: AuthorizedKey) -> None:
        """Let this `pbauth.PublicKey` or `pbauth.CertificateKey` in; or give it its new label."""

    def removePublicKey(key: AuthorizedKey) -> None:
        """Remove an authorized key; `KeyError` if it is not there."""

    def getPublicKeys() -> list[AuthorizedKey]:
        """Return the keys of both kinds."""

    def getVerifiers() -> Awaitable[dict[str, Verifier]]:
        """Return a Deferred that fires with all verifiers, by the name of the mechanism."""

    def verifyPlainPassword(password: str) -> Awaitable[None]:
        """Return a Deferred that fires if this is the password, or fails with `Unauthorized`."""

    def challenge() -> bytes:
        """Return a fresh random challenge for the scheme of Twisted 1.x."""

    def verifyPassword(challenge: bytes, response: bytes) -> Awaitable[None]:
        """Return a Deferred that fires if the response fits, or fails with `Unauthorized`."""

    def addKeyByString(serviceName: str, perspectiveName: str) -> None:
        """
        Put a key on the keyring. Instead of a perspective it may name ``*``: any of that service;
        or ``{name}``: the one that is named like the identity.
        """

    def addKeyForPerspective(perspective: IPerspective) -> None:
        """Put the key to this perspective on the keyring."""

    def removeKey(serviceName: str, perspectiveName: str) -> None:
        """Take a key from the keyring; `KeyError` if it is not there."""

    def getAllKeys() -> list[tuple[str, str]]:
        """
        Return the pairs that it may use, sorted: its own keys, and those of its groups. ``{name}``
        is replaced by its name; ``*`` stands for any perspective of the service.
        """

    def setGroups(groups: Mapping[str, Iterable[tuple[str, str]]]) -> None:
        """
        Set the groups that it is a member of, with the keys of each. Its authorizer calls it, and
        then ends the sessions that are no longer allowed.
        """

    def getKeyForService(serviceName: str) -> str:
        """
        Return the name of the perspective that is meant where only a service is named: the
        identity's own if that key is held, else the first in sorted order; `KeyNotFound` if none.
        """

    def requestPerspectiveForKey(serviceName: str, perspectiveName: str) -> Awaitable[IPerspective]:
        """Return a Deferred that fires with the perspective, or fails with `KeyNotFound`."""

    def requestPerspectiveForService(serviceName: str) -> Awaitable[IPerspective]:
        """Return a Deferred that fires with the perspective `getKeyForService` names."""

    def holdsKey(serviceName: str, perspectiveName: str) -> bool:
        """Return whether it holds a key to this perspective, itself or by one of its groups."""

    def isProvedBy(proof: object) -> bool:
        """
        Return whether a login that was proved by this verifier, or by this public key, still
        stands: the identity is not locked, neither it nor the public key has expired, and the proof
        was not replaced or taken away.
        """

    def standsUntil(proof: object) -> datetime | None:
        """
        Return when a login that was proved by this ends by itself, since the identity or the public
        key expires; `None`: never.
        """

    def save() -> Awaitable[object]:
        """Add it to its authorizer, or update it there. Returns a Deferred that fires then."""


class ICheckedIdentity(IIdentity):
    """
    An identity whose password somebody else checks, who wants to know where the client is: PAM,
    whose rules may depend on it.
    """

    def verifyPlainPasswordFrom(password: str, host: str | None) -> Awaitable[None]:
        """
        Check a password as `verifyPlainPassword` does, of a client at this IP address; `None`: it
        has none, being on this machine.
        """


class ILimitedIdentity(IIdentity):
    """
    An identity whose keys may be good for some methods only.
    """

    def addKeyByString(
        serviceName: str, perspectiveName: str, methods: Iterable[str] | None = None
    ) -> None:
        """
        Put a key on the keyring, as `IIdentity` has it; with `methods`, one that is good for these
        methods of the perspective alone.
        """

    def methodsFor(serviceName: str, perspectiveName: str) -> frozenset[str] | None:
        """
        Return the names of the methods that its keys to a perspective are good for, all together;
        `None`: any.
        """


class IService(service.IService):
    """
    Provides perspectives, by name.
    """

    perspectives = Attribute("The perspectives that are listed, a dict by name.")

    def getPerspectiveForIdentity(
        name: str, identity: IIdentity
    ) -> IPerspective | Awaitable[IPerspective]:
        """
        Return a Deferred that fires with the perspective of that name for this identity.

        An identity calls it once the key was found on the keyring. The usual one to override.
        """

    def getPerspectiveRequest(name: str) -> Awaitable[IPerspective]:
        """Return a Deferred that fires with the perspective of that name, listed or loaded."""

    def getPerspectiveNamed(name: str) -> IPerspective:
        """Return the listed perspective of that name; `KeyError` if there is none."""

    def loadPerspective(name: str) -> IPerspective | Awaitable[IPerspective]:
        """Return a Deferred that fires with a perspective from elsewhere."""

    def createPerspective(name: str) -> IPerspective:
        """Make, list and give a new perspective."""

    def addPerspective(perspective: IPerspective) -> None:
        """List an existing perspective."""

    def cachePerspective(perspective: IPerspective) -> None:
        """Keep the perspective listed: a client is about to be attached."""

    def uncachePerspective(perspective: IPerspective) -> None:
        """Forget a loaded perspective, if the client that was detached was its last one."""

    def getServiceName() -> str:
        """Return the name of the service."""

    def getServiceType() -> str:
        """Return the kind of service, for people."""


class IPerspective(pb.IPerspective):
    """
    The one object that an authenticated client may call.
    """

    perspectiveName = Attribute("The name, scoped to the service.")
    service = Attribute("The `IService` that owns it.")
    identityName = Attribute("The name of the identity that it is usually for.")

    def getPerspectiveName() -> str:
        """Return the name."""

    def getService() -> IService | None:
        """Return the service."""

    def setService(service: IService) -> None:
        """Set the service; called when a service lists the perspective."""

    def setIdentity(identity: IIdentity) -> None:
        """Set the name of the identity that it is for, from the identity."""

    def setIdentityName(name: str) -> None:
        """Set the name of the identity that it is for."""

    def getIdentityRequest() -> Awaitable[IIdentity]:
        """Return a Deferred that fires with the identity that it is for."""

    def brokerAttached(
        clientref: ClientReference, identity: IIdentity, broker: pb.Broker
    ) -> IPerspective | Awaitable[IPerspective]:
        """
        Attach a client that has logged in.

        Args:
            clientref: a reference to its client object, or `None`.
            identity: the `IIdentity` that it proved to be.
            broker: the broker of its connection.

        Returns:
            The perspective that the client gets: usually this one; or a Deferred of it.
        """

    def brokerDetached(
        clientref: ClientReference, identity: IIdentity, broker: pb.Broker
    ) -> object:
        """Detach a client. Called once for each `brokerAttached`, with the same arguments."""


class IClients(Interface):
    """
    Knows which client objects are attached to a perspective now.

    A perspective may have one, and then adapts to this interface: ``IClients(perspective, None)``
    is what the wire asks.  It works whatever the perspective does in `brokerAttached` and
    `brokerDetached`.
    """

    def joined(session: Session) -> None:
        """
        Add the client object of a `pbauth.Session` that is live; `brokerAttached` has run. Called
        on the clients of the perspective that `brokerAttached` gave.
        """

    def left(session: Session) -> None:
        """
        Remove the client object of a session; `brokerDetached` runs after this.

        Also called for a session that never joined.
        """


class IPresence(Interface):
    """
    Knows which sessions a service has in this server.

    A service may have one, and then adapts to this interface: ``IPresence(service, None)`` is what
    the wire asks, with the service of the perspective that was asked for.
    """

    def joined(session: Session) -> None:
        """Add a session that is live; `brokerAttached` has run."""

    def left(session: Session) -> None:
        """Remove a session that has ended; `brokerDetached` runs after this."""


class ISessionObserver(Interface):
    """
    Learns who comes to a service, and who goes: `pbauth.Service.observeSessions`.

    What it raises is logged, and changes nothing.
    """

    def sessionAttached(session: Session) -> None:
        """Take note that a client was attached: a `pbauth.Session`, which is live."""

    def sessionDetached(session: Session) -> None:
        """Take note that the session has ended; its `endReason` says why."""


class IMechanism(Interface):
    """
    A way to prove who one is, as a server offers it.  Pure: no I/O and no Twisted inside.

    All of them are in `pbauth.mechanisms.MECHANISMS`.
    """

    name = Attribute("Its name on the wire.")
    listedAs = Attribute("The names in a policy's list of mechanisms that ask for it.")
    hasSwitch = Attribute(
        "Whether a policy asks for it by a switch of its own (see `pbauth.mechanisms.terms.Terms`)."
    )
    verifierName = Attribute(
        "The name under which identities keep its verifier; `None` for a mechanism without."
    )
    usesKeys = Attribute("Whether its verifier is a list of public keys, and no password's.")
    provesNothing = Attribute(
        "Whether anybody can log in with it, as a guest whose connection keeps limits."
    )
    asksIdentity = Attribute(
        "Whether the identity checks the proof itself. Otherwise an identity that has no verifier "
        "of this mechanism can't log in with it."
    )

    def offeredOn(channel: Channel, terms: Terms) -> bool:
        """
        Return whether it may be offered on this `pbauth.mechanisms.channel.Channel`, by a server of
        these `pbauth.mechanisms.terms.Terms`.
        """

    def identityFor(name: str, terms: Terms) -> str | None:
        """Return the name of the identity that a claimed name stands for; `None`: of nobody."""

    def decodeVerifier(text: str) -> Verifier:
        """Read a verifier that its `encode` wrote; `ValueError` if it is not one."""

    def begin(
        claimant: Claimant, channel: Channel, randomBytes: Callable[[int], bytes]
    ) -> IExchange:
        """
        Return an `IExchange`, the server's half of one login for this
        `pbauth.mechanisms.terms.Claimant`.
        """


class IExchange(Interface):
    """The server's half of one login."""

    proof = Attribute(
        "What the login is proved by, a verifier or a public key, once `outcome` has given its "
        "answer; `None` for a mechanism that has neither."
    )
    bound = Attribute(
        "Whether the proof is good on this connection alone, so that nobody in between can have "
        "passed it on."
    )

    def challenge(initial: bytes) -> bytes | Coroutine[Any, Any, bytes]:
        """
        Return the answer to the client's first message, or something to await;
        `ExchangeRefused` if it is not acceptable.
        """

    def outcome(response: bytes) -> bytes | Coroutine[Any, Any, bytes]:
        """
        Return the answer to the client's response, or something to await, once;
        `ExchangeRefused` unless it proves the identity.
        """


class ICredentials(Interface):
    """What a client proves itself with: a `Password`, for instance."""

    mechanisms = Attribute("The names of the mechanisms that it can use, strongest first.")
    clientCertificate = Attribute(
        "What to show to the server in the TLS handshake: a "
        "`twisted.internet.ssl.PrivateCertificate`, or `None`."
    )

    def begin(mechanism: str, name: str, connection: Channel) -> IClientExchange:
        """Return an `IClientExchange` for one login."""


class IClientExchange(Interface):
    """The client's half of one login."""

    initial = Attribute("The first message, `bytes`.")
    bound = Attribute("Whether it is good on this TLS connection alone: nobody can pass it on.")

    def respond(challenge: bytes) -> bytes | Awaitable[bytes]:
        """Return a Deferred that fires with the response to the server's challenge."""

    def checkOutcome(outcome: bytes) -> None:
        """Check the server's last message; `ServerNotTrusted` if it proves nothing."""


class IRenewingCredentials(ICredentials):
    """Credentials whose verifier may be renewed in the background, after a login."""

    def whenRenewed() -> Awaitable[None]:
        """Return a Deferred that fires when nothing is being renewed (any more)."""


class IRenewingExchange(IClientExchange):
    """The client's half of a login after which it may give the server a better verifier."""

    def renew(identity: pb.RemoteReference) -> Awaitable[None]:
        """
        Renew the verifier, if there is a reason to.

        Called once the login's outcome was checked; nobody waits for the Deferred that it gives.

        Args:
            identity: a reference to the `IdentityWrapper` on the server.
        """


class IRestrictableBroker(Interface):
    """
    The broker of a connection that takes little from its peer until the login is over.
    """

    brokeProtocol = Attribute("Whether the peer broke the rules of the protocol.")
    audit = Attribute(
        "The `pbauth.Audit` where it is recorded that the connection is dropped for that; the "
        "server's factory sets it. `None`: nowhere."
    )

    def restrict(mostBytes: int) -> None:
        """
        Take only what a login needs, until `loggedIn`, and not more than so many bytes in all. Of a
        client: calls with plain arguments, small ones. Of a server: answers; its calls are held
        back.
        """

    def loggedIn(guest: bool = False) -> None:
        """
        Take everything: the client has logged in, or the server has proved itself. A guest, who has
        proved nothing, may send plain values only, and not too large ones; but any number of them.
        """


class IRevokingBroker(Interface):
    """
    The broker of a connection that can end what a session has exported to the peer.
    """

    def exportingFor(session: Session, client: ClientReference = None) -> object:
        """
        Return a broker that is like this one, but notes that the references which the peer gets
        through it are exports of this `pbauth.perspectives.sessions.Session`; as are those that go
        out in calls of `client`, the peer's own object, if it is one.
        """

    def revoke(session: Session) -> None:
        """End what only this session has exported: from now on calls give `Detached`."""

    def tellEnded(reference: Any, reason: str) -> None:
        """
        Tell the client that its session has ended.

        Takes what the client holds, and why, the value of a `pbauth.EndReason`. Clients other than
        pbauth's are told nothing.
        """

    def tellLeaving(seconds: float) -> bool:
        """
        Tell the client that the server is about to stop.

        Takes the seconds until the connection is closed. Returns whether the client understands
        that: it has pbauth.
        """


class IPerspectiveServiceFactory(IPlugin):
    """
    Makes a service for ``twistd pbauth --service NAME``.

    An application ships one by putting an object that provides this interface into a module of
    the folder ``twisted/plugins``.
    """

    name = Attribute("The name for ``--service``, a `str`.")
    description = Attribute("One line for ``--help``.")

    def makeService(serviceName: str, authorizer: IAuthorizer) -> IService:
        """Return the `IService`, to be run under this name."""


class IConfigurableServiceFactory(IPerspectiveServiceFactory):
    """
    Makes a service that has options of its own: ``twistd pbauth --service NAME --OPTION VALUE``.
    """

    parameters = Attribute(
        "The options: a list of `(name, default, text)`. The text is for ``--help``; the names are "
        "not those of other options."
    )

    def makeService(serviceName: str, authorizer: IAuthorizer, **options: str | None) -> IService:
        """
        Return the `IService`, to be run under this name; with the values of the options, a hyphen
        in whose names is an underscore. `ValueError` with a text for the user if one makes no
        sense.
        """
