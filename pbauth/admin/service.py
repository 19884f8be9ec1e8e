"""
The administration as a service: what the ``pbauth`` command does, for those who hold a key to it.

The seed: "administrators could get one Service, while mere end-users get a less-powerful Service".
Who calls is never an argument, it is the identity that logged in; and each change is told to the
audit under its name. What comes from the wire is checked for type and size. Answers are pages, so
that no number of users makes a message too long; an empty page is the end. Passwords do not come
here: an administrator's program makes the verifier, as `pbauth.changePassword` does.

Whoever holds a key to this service can give themselves any other, and read all verifiers. Keep it
to connections by TLS or of this machine, as the ports of ``twistd pbauth`` do by themselves.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Coroutine, Iterable
from heapq import nsmallest
from operator import attrgetter
from typing import Any

from twisted.internet.defer import ensureDeferred, maybeDeferred

from pbauth.accounts.administrators import KeptAdministrator
from pbauth.accounts.identity import checkIdentityName
from pbauth.accounts.records import Record
from pbauth.admin.administration import Administration
from pbauth.errors import InvalidName, PasswordsElsewhere, ProtocolViolation, UnknownSession
from pbauth.interfaces import IAccountStore, IIdentity
from pbauth.mechanisms import Verifier, decodeVerifier, ed25519, external, md5, scram
from pbauth.mechanisms.authorizedkeys import AuthorizedKey
from pbauth.mechanisms.ed25519 import PublicKey
from pbauth.mechanisms.external import CertificateKey
from pbauth.names import LONGEST, checkName
from pbauth.net.origin import originOf
from pbauth.perspectives.perspective import Perspective
from pbauth.perspectives.service import Service
from pbauth.perspectives.sessions import EndReason
from pbauth.wire.calls import readCall

#: The name of the service, unless it is given another one.
NAME = "admin"

#: The most items of a page, and of a list that is sent here.
MOST_ITEMS = 1_000
#: About the most bytes of a page; PB itself takes no string of more than 640 KiB.
MOST_BYTES = 256 * 1024

_KEY_READERS: dict[str, Callable[[str], AuthorizedKey]] = {
    ed25519.NAME: PublicKey.fromLine,
    external.NAME: CertificateKey.fromLine,
}


class Administrator(Perspective):
    """
    What an administrator holds: each client has its own.

    Args:
        perspectiveName: of the key; any will do.
        identityName: of the administrator.
    """

    _administration: Administration
    _broker: Any

    def brokerAttached(self, clientref: Any, identity: IIdentity, broker: Any) -> Administrator:
        """Give each client a perspective that knows who it is."""
        super().brokerAttached(clientref, identity, broker)
        own = type(self)(self.perspectiveName, identity.name)
        service = self.getService()
        own.setService(service)
        own._administration = service.administration.by(identity.name)
        own._broker = broker
        return own

    def perspectiveMessageReceived(self, broker: Any, message: Any, args: Any, kw: Any) -> Any:
        """
        The administrator calls a method. What does not fit is a `ProtocolViolation`: anything else
        would be logged with its arguments.
        """
        method, arguments, keywords = readCall(self, "perspective", broker, message, args, kw, self)
        result = method(*arguments, **keywords)
        if isinstance(result, Coroutine):
            result = ensureDeferred(result)
        return broker.serialize(result, self, method, arguments, keywords)

    # Users.

    async def perspective_addUser(self, name: Any, verifiers: Any) -> None:
        """
        Add an identity.

        Args:
            name: of the identity.
            verifiers: a list of encoded verifiers of its password, by SCRAM or MD5; may be empty.

        Raises:
            DuplicateIdentity: the name is taken.
            PasswordsElsewhere: there is a verifier, and passwords are not kept here.
        """
        made = self._passwordVerifiers(verifiers)
        await self._administration.addUserWithVerifiers(_identityName(name), made)

    async def perspective_removeUser(self, name: Any) -> None:
        """
        Remove an identity.

        Raises:
            UnknownUser: there is none of that name.
            LastAdministrator: nobody would be left who can administer.
        """
        await self._administration.removeUser(_name(name))

    async def perspective_setPassword(self, name: Any, verifiers: Any) -> None:
        """
        Give an identity a new password; its sessions that the old one opened end. If that is the
        administrator, those of this connection stay.

        Args:
            name: of the identity.
            verifiers: as for `perspective_addUser`, one at least.

        Raises:
            UnknownUser: there is none of that name.
            PasswordsElsewhere: passwords are not kept here.
        """
        made = self._passwordVerifiers(verifiers)
        if scram.NAME not in made:
            raise ProtocolViolation(f"There is no verifier for {scram.NAME}.")
        if _name(name) != self.identityName:
            await self._administration.setVerifiers(name, made)
            return
        authorizer = self.getService().authorizer
        identity = await maybeDeferred(authorizer.getIdentityRequest, name)
        replaced = (await maybeDeferred(identity.getVerifiers)).values()
        own = [each for each in self._sessions.ofIdentity(name) if each.broker is self._broker]
        with authorizer.proofs.changing(name, replaced, made[scram.NAME], own):
            await self._administration.setVerifiers(name, made)

    async def perspective_setLocked(self, name: Any, locked: Any) -> None:
        """
        Lock or unlock an identity.

        Raises:
            UnknownUser: there is none of that name.
            LastAdministrator: nobody would be left who can administer.
        """
        await self._administration.setLocked(_name(name), _flag(locked))

    async def perspective_listUsers(self, after: Any, most: Any) -> list[tuple[str, bool, int]]:
        """
        Args:
            after: a name; empty: begin with the first one.
            most: how many at most; there may be fewer.

        Returns:
            The next ones of `(name, locked, number of keys)`, by name; none: that was the end.
        """
        users = await self._administration.listUsers(_cursor(after), _count(most))
        return _page(tuple(user) for user in users)

    # Keys to perspectives.

    async def perspective_grantKey(self, name: Any, service: Any, perspective: Any) -> None:
        """
        Put a key on a keyring.

        Raises:
            UnknownUser: there is no identity of that name.
        """
        await self._administration.grantKey(_name(name), *_key(service, perspective))

    async def perspective_revokeKey(self, name: Any, service: Any, perspective: Any) -> None:
        """
        Take a key from a keyring.

        Raises:
            UnknownUser: there is no identity of that name.
            UnknownKey: the key is not there.
            LastAdministrator: nobody would be left who can administer.
        """
        await self._administration.revokeKey(_name(name), *_key(service, perspective))

    async def perspective_listKeys(self, name: Any, after: Any, most: Any) -> list[tuple[str, str]]:
        """
        Args:
            name: of an identity.
            after: a pair, the last one of the page before; `None`: begin with the first one.
            most: how many at most.

        Returns:
            The next ones of its keys; none: that was the end.

        Raises:
            UnknownUser: there is no identity of that name.
        """
        keys = await self._administration.listKeys(_name(name))
        return _pageAfter(keys, after, most)

    async def perspective_whoCan(
        self, service: Any, after: Any, most: Any
    ) -> list[tuple[str, str, bool]]:
        """
        Args:
            service: the name of a service.
            after: a pair, name and perspective of the last one; `None`: begin with the first one.
            most: how many at most.

        Returns:
            The next ones of `(name, perspective, locked)`; none: that was the end.
        """
        holders = await self._administration.whoCan(_name(service, "name of a service"))
        return _pageAfter(holders, after, most)

    # Public keys.

    async def perspective_addPublicKeys(self, name: Any, keys: Any) -> None:
        """
        Let public keys in.

        Args:
            name: of an identity.
            keys: a list of pairs: the name of the mechanism, and the line of the key.

        Raises:
            UnknownUser: there is no identity of that name.
        """
        read = [_publicKey(key) for key in _list(keys)]
        await self._administration.addPublicKeys(_name(name), read)

    async def perspective_listPublicKeys(
        self, name: Any, start: Any, most: Any
    ) -> list[tuple[str, str]]:
        """
        Args:
            name: of an identity.
            start: how many to pass over.
            most: how many at most.

        Returns:
            The next ones, as `perspective_addPublicKeys` takes them; none: that was the end.

        Raises:
            UnknownUser: there is no identity of that name.
        """
        keys = await self._administration.listPublicKeys(_name(name))
        first = _number(start, 0)
        chosen = keys[first : first + _count(most)]
        return _page((key.mechanism, key.line()) for key in chosen)

    async def perspective_removePublicKey(self, name: Any, which: Any) -> None:
        """
        Let a public key in no more.

        Args:
            name: of an identity.
            which: fingerprint or label of the key.

        Raises:
            UnknownUser: there is no identity of that name.
            UnknownPublicKey: there is no such key, or more than one of that label.
            LastAdministrator: nobody would be left who can administer.
        """
        await self._administration.removePublicKey(_name(name), _name(which, "label of a key"))

    # Whole accounts.

    async def perspective_readRecords(self, after: Any, most: Any) -> list[tuple[Any, ...]]:
        """
        Args:
            after: a name; empty: begin with the first one.
            most: how many at most.

        Returns:
            The next accounts, each as `asPlain` writes it; none: that was the end.
        """
        administration: Any = self._administration
        return _page(map(asPlain, await administration.readRecords(_cursor(after), _count(most))))

    async def perspective_addRecords(self, records: Any, skipKnown: Any) -> int:
        """
        Store new accounts, all of these or none.

        Args:
            records: a list of what `asPlain` writes.
            skipKnown: leave those alone whose names are taken.

        Returns:
            How many were added.

        Raises:
            DuplicateIdentity: a name is taken.
        """
        administration: Any = self._administration
        skip = _flag(skipKnown)
        read = [fromPlain(record) for record in _list(records)]
        return int(await administration.addRecords(read, skip))

    # Sessions.

    def perspective_listSessions(
        self, after: Any, most: Any
    ) -> list[tuple[str, str, str, str, str, float]]:
        """
        Args:
            after: the id of a session; empty: begin with the first one.
            most: how many at most.

        Returns:
            Of those who are attached to this server now, in the order of the ids, the next ones of
            `(id, identity, service, perspective, peer, since)`, the last one in seconds by the
            server's clock; none: that was the end.
        """
        first = _cursor(after)
        later = (each for each in self._sessions if each.live and each.id > first)
        return _page(
            (
                each.id,
                each.identity.name,
                each.serviceName,
                each.perspectiveName,
                originOf(each.broker).peer,
                float(each.since),
            )
            for each in nsmallest(_count(most), later, key=attrgetter("id"))
        )

    def perspective_endSession(self, session: Any) -> None:
        """
        End a session.

        Args:
            session: its id.

        Raises:
            UnknownSession: there is none of that id.
        """
        wanted = _name(session, "session")
        for each in list(self._sessions):
            if each.id == wanted and each.live:
                self._end(each)
                return
        raise UnknownSession(wanted)

    def perspective_endSessions(self, name: Any) -> int:
        """
        End all sessions of an identity; if that is the administrator, all but those of this
        connection.

        Args:
            name: of the identity.

        Returns:
            How many there were.
        """
        found = [
            each
            for each in self._sessions.ofIdentity(_name(name))
            if each.live and not (name == self.identityName and each.broker is self._broker)
        ]
        for each in found:
            self._end(each)
        return len(found)

    @property
    def _sessions(self) -> Any:
        return self.getService().authorizer.sessions

    def _end(self, session: Any) -> None:
        self._sessions.audit.sessionEnded(self.identityName, session.identity.name, session.id)
        # Nobody waits for what the application does then.
        session.end(EndReason.ADMINISTRATOR)

    def _passwordVerifiers(self, verifiers: Any) -> dict[str, Verifier]:
        made: dict[str, Verifier] = {}
        for encoded in _list(verifiers):
            mechanism = encoded.partition("$")[0] if isinstance(encoded, str) else ""
            if mechanism not in (scram.NAME, md5.NAME):
                raise ProtocolViolation("This is not a verifier of a password.")
            made[mechanism] = _decoded(encoded)
        if made and self.getService().authorizer.externalPasswords:
            raise PasswordsElsewhere()
        return made


class AdminService(Service):
    """
    The administration, for those who hold a key to it. It has a perspective of every name.

    Args:
        serviceName: as for `Service`.
        serviceParent: as for `Service`.
        authorizer: of the identities that use this service, and all others; whose sessions are
            listed and ended.
        accounts: the `IAccountStore` to administer; by default the authorizer is one. A
            `CredAuthorizer` is not: here belong its ``accounts``.

    Attributes:
        administration: what the administrators do, in nobody's name.

    Raises:
        TypeError: the accounts are no `IAccountStore`.
    """

    perspectiveClass = Administrator

    def __init__(
        self,
        serviceName: str = NAME,
        serviceParent: Any = None,
        authorizer: Any = None,
        *,
        accounts: Any = None,
    ) -> None:
        store = authorizer if accounts is None else accounts
        if authorizer is None or not IAccountStore.providedBy(store):
            raise TypeError(
                f"{type(store).__name__} can't be administered: it does not provide IAccountStore. "
                "Name the accounts by AdminService(..., accounts=...)."
            )
        super().__init__(serviceName, serviceParent, authorizer)
        self.administration = Administration(
            store,
            keeping=KeptAdministrator(serviceName, bool(authorizer.externalPasswords)),
            audit=authorizer.sessions.audit,
        )

    def loadPerspective(self, name: str) -> Any:
        """Make the perspective."""
        return self.perspectiveClass(name)


# What crosses the wire.


def asPlain(record: Record) -> tuple[Any, ...]:
    """
    Args:
        record: of an identity.

    Returns:
        `(name, locked, verifiers, keys)`, the last two as sorted lists of pairs.
    """
    return record.name, record.locked, sorted(record.verifiers), sorted(record.keys)


def fromPlain(plain: Any) -> Record:
    """
    Args:
        plain: what came from the wire for what `asPlain` writes.

    Returns:
        The record, checked.

    Raises:
        ProtocolViolation: it is not one.
    """
    if not isinstance(plain, (tuple, list)) or len(plain) != 4:
        raise ProtocolViolation("This is not a record of an account.")
    name, locked, verifiers, keys = plain
    record = Record(name, _flag(locked), _pairs(verifiers), _pairs(keys))
    try:
        record.check()
    except (TypeError, ValueError) as mistake:
        raise ProtocolViolation(str(mistake)) from None
    return record


def _pairs(value: Any) -> frozenset[tuple[str, str]]:
    if not isinstance(value, (tuple, list)) or not all(map(_isPair, value)):
        raise ProtocolViolation("These are not pairs of texts.")
    return frozenset((one, other) for one, other in value)


def _isPair(value: Any) -> bool:
    return (
        isinstance(value, (tuple, list))
        and len(value) == 2
        and all(isinstance(each, str) for each in value)
    )


def _name(value: Any, what: str = "name of an identity") -> str:
    try:
        return checkName(value, what)
    except (TypeError, InvalidName) as mistake:
        raise ProtocolViolation(str(mistake)) from None


def _identityName(value: Any) -> str:
    try:
        return checkIdentityName(value)
    except (TypeError, InvalidName) as mistake:
        raise ProtocolViolation(str(mistake)) from None


def _key(service: Any, perspective: Any) -> tuple[str, str]:
    return _name(service, "name of a service"), _name(perspective, "name of a perspective")


def _cursor(value: Any) -> str:
    # What comes before a name need not be one, nor be as short.
    if (
        not isinstance(value, str)
        or len(value) > 2 * LONGEST
        or any(unicodedata.category(each) in ("Cc", "Cs") for each in value)
    ):
        raise ProtocolViolation("No name comes after that.")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ProtocolViolation("This is not a truth value.")
    return value


def _number(value: Any, least: int) -> int:
    if type(value) is not int or value < least:
        raise ProtocolViolation(f"This is not a number, {least} or more.")
    return value


def _count(value: Any) -> int:
    return min(_number(value, 1), MOST_ITEMS)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, (tuple, list)) or len(value) > MOST_ITEMS:
        raise ProtocolViolation(f"This is not a list of at most {MOST_ITEMS} items.")
    return list(value)


def _decoded(encoded: str) -> Verifier:
    try:
        return decodeVerifier(encoded)
    except ValueError as mistake:
        raise ProtocolViolation(str(mistake)) from None


def _publicKey(value: Any) -> AuthorizedKey:
    if not _isPair(value) or value[0] not in _KEY_READERS or len(value[1]) > 2 * LONGEST + 100:
        raise ProtocolViolation("This is not a public key.")
    try:
        return _KEY_READERS[value[0]](value[1])
    except ValueError as mistake:
        raise ProtocolViolation(str(mistake)) from None


def _page(items: Iterable[Any]) -> list[Any]:
    """As many as go into one message, but one at least."""
    page: list[Any] = []
    size = 0
    for item in items:
        size += _size(item)
        if page and size > MOST_BYTES:
            break
        page.append(item)
    return page


def _size(value: Any) -> int:
    """About the bytes that a value takes on the wire."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "replace")) + 16
    if isinstance(value, (tuple, list)):
        return sum(map(_size, value)) + 16
    return 16


def _pageAfter(items: list[Any], after: Any, most: Any) -> list[Any]:
    """The page of sorted tuples that follows one that begins with this pair."""
    start = 0
    if after is not None:
        if not _isPair(after):
            raise ProtocolViolation("This is not a pair of texts.")
        start = bisect_right(items, tuple(after), key=lambda item: tuple(item[:2]))
    return _page(tuple(item) for item in items[start : start + _count(most)])
