"""
The administration of a server that runs, from elsewhere: the operations of
`pbauth.admin.administration.Administration`, done by the service of `pbauth.admin.service`.
"""

from __future__ import annotations

import secrets
import unicodedata
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred

from pbauth._async import within
from pbauth.accounts.hashing import Derivations, Hashing
from pbauth.accounts.identity import checkIdentityName
from pbauth.accounts.records import Record
from pbauth.admin.service import MOST_ITEMS, NAME, asPlain, fromPlain
from pbauth.client.connection import openRoot, using
from pbauth.client.login import Login, prove
from pbauth.client.renewal import askHashing
from pbauth.errors import Detached, ProtocolViolation
from pbauth.mechanisms import ed25519, external
from pbauth.mechanisms.authorizedkeys import AuthorizedKey
from pbauth.mechanisms.ed25519 import PublicKey
from pbauth.mechanisms.external import CertificateKey
from pbauth.mechanisms.scram import preparePassword
from pbauth.names import checkName

#: About the most bytes of accounts in a message.
MOST_SENT = 600 * 1024

_KEY_READERS: dict[str, Callable[[str], AuthorizedKey]] = {
    ed25519.NAME: PublicKey.fromLine,
    external.NAME: CertificateKey.fromLine,
}


class RemoteAdministration:
    """
    What `Administration` does, on a server that runs. Passwords become verifiers here, hashed as
    the server says; it sees none.

    Where somebody's own account or key is taken away, the session ends with it, before the server
    can answer: that counts as done.

    Args:
        perspective: a reference to an `Administrator`, as `connect` gives it.
        login: the name of the identity that logged in.
        reactor: provides `IReactorTime`.
        timeout: seconds for each answer.
        legacy: keep MD5 verifiers of new passwords, too.
        check: takes each new password and the name of its user, and raises `InvalidPassword` where
            it is not good enough; the server does not see it.
    """

    def __init__(
        self,
        perspective: Any,
        login: str,
        reactor: Any,
        timeout: float = 30,
        legacy: bool = False,
        check: Callable[[str, str], None] | None = None,
    ) -> None:
        self._check = check
        self._perspective = perspective
        self._login = login
        self._reactor = reactor
        self._timeout = timeout
        self._legacy = legacy

    @property
    def broker(self) -> Any:
        """Of the connection; whoever is done closes it."""
        return self._perspective.broker

    # Users.

    async def addUser(self, name: str, password: str | None) -> None:
        """As `Administration.addUser`."""
        checkIdentityName(name)
        verifiers = [] if password is None else await self._verifiers(password, name)
        await self._ask("addUser", name, verifiers)

    async def removeUser(self, name: str) -> None:
        """As `Administration.removeUser`."""
        await self._askAbout(name, "removeUser", checkName(name, "name of an identity"))

    async def setPassword(self, name: str, password: str) -> None:
        """As `Administration.setPassword`; the sessions of this connection stay."""
        checkName(name, "name of an identity")
        await self._ask("setPassword", name, await self._verifiers(password, name))

    async def setLocked(self, name: str, locked: bool) -> None:
        """As `Administration.setLocked`."""
        await self._askAbout(name, "setLocked", checkName(name, "name of an identity"), locked)

    async def listUsers(
        self, after: str = "", most: int | None = None
    ) -> list[tuple[str, bool, int]]:
        """As `Administration.listUsers`."""
        return await _gathered(self._users(after), most)

    async def _users(self, after: str) -> AsyncIterator[tuple[str, bool, int]]:
        while page := await self._askPage((str, bool, int), "listUsers", after, MOST_ITEMS):
            for user in page:
                after = self._later(after, user[0])
                yield user

    # Keys to perspectives.

    async def grantKey(self, name: str, service: str, perspective: str) -> None:
        """As `Administration.grantKey`."""
        await self._ask("grantKey", *_checkedKey(name, service, perspective))

    async def revokeKey(self, name: str, service: str, perspective: str) -> None:
        """As `Administration.revokeKey`."""
        await self._askAbout(name, "revokeKey", *_checkedKey(name, service, perspective))

    async def listKeys(self, name: str) -> list[tuple[str, str]]:
        """As `Administration.listKeys`."""
        checkName(name, "name of an identity")
        found: list[tuple[str, str]] = []
        last = None
        while page := await self._askPage((str, str), "listKeys", name, last, MOST_ITEMS):
            found += page
            last = self._later(last, page[-1])
        return found

    async def whoCan(self, service: str) -> list[tuple[str, str, bool]]:
        """As `Administration.whoCan`."""
        checkName(service, "name of a service")
        found: list[tuple[str, str, bool]] = []
        last = None
        while page := await self._askPage((str, str, bool), "whoCan", service, last, MOST_ITEMS):
            found += page
            last = self._later(last, page[-1][:2])
        return found

    # Public keys.

    async def addPublicKeys(self, name: str, keys: list[AuthorizedKey]) -> None:
        """As `Administration.addPublicKeys`."""
        lines = [(key.mechanism, key.line()) for key in keys]
        await self._ask("addPublicKeys", checkName(name, "name of an identity"), lines)

    async def listPublicKeys(self, name: str) -> list[AuthorizedKey]:
        """As `Administration.listPublicKeys`."""
        checkName(name, "name of an identity")
        found: list[AuthorizedKey] = []
        while page := await self._askPage(
            (str, str), "listPublicKeys", name, len(found), MOST_ITEMS
        ):
            try:
                found += [_KEY_READERS[mechanism](line) for mechanism, line in page]
            except (ValueError, LookupError):
                raise _unlikely() from None
        return found

    async def removePublicKey(self, name: str, which: str) -> None:
        """As `Administration.removePublicKey`."""
        checkName(name, "name of an identity")
        await self._askAbout(name, "removePublicKey", name, checkName(which, "label of a key"))

    # Whole accounts.

    async def readRecords(self, after: str = "", most: int | None = None) -> list[Record]:
        """As `Administration.readRecords`; in as many messages as it takes."""
        return await _gathered(self._records(after), most)

    async def _records(self, after: str) -> AsyncIterator[Record]:
        while page := await self._ask("readRecords", after, MOST_ITEMS):
            if not isinstance(page, (list, tuple)):
                raise _unlikely()
            for plain in page:
                record = fromPlain(plain)
                after = self._later(after, record.name)
                yield record

    async def addRecords(self, records: Iterable[Record], skipKnown: bool = False) -> int:
        """
        As `Administration.addRecords`, but: all or none holds for each message, and a message takes
        at most `MOST_ITEMS` records, and fewer if they are long.
        """
        added = 0
        for page in _batches(records):
            number = await self._ask("addRecords", page, skipKnown)
            if type(number) is not int:
                raise _unlikely()
            added += number
        return added

    # Sessions.

    async def listSessions(self) -> list[tuple[str, str, str, str, str, float]]:
        """
        Returns:
            Of those who are attached now: id, identity, service, perspective, peer, and since when
            (seconds since the epoch).
        """
        found: list[tuple[str, str, str, str, str, float]] = []
        last = ""
        while page := await self._askPage(
            (str, str, str, str, str, float), "listSessions", last, MOST_ITEMS
        ):
            found += page
            last = self._later(last, page[-1][0])
        return found

    async def endSession(self, session: str) -> None:
        """
        End a session.

        Args:
            session: its id.

        Raises:
            UnknownSession: there is none of that id.
        """
        try:
            await self._ask("endSession", checkName(session, "session"))
        except Detached:
            # It was this one.
            pass

    async def endSessions(self, name: str) -> int:
        """
        End all sessions of an identity; of one's own all but this one.

        Args:
            name: of the identity.

        Returns:
            How many there were.
        """
        ended = await self._ask("endSessions", checkName(name, "name of an identity"))
        if type(ended) is not int:
            raise _unlikely()
        return ended

    # How.

    async def _ask(self, method: str, *arguments: Any) -> Any:
        answer: Deferred[Any] = self._perspective.callRemote(method, *arguments)
        return await answer.addTimeout(self._timeout, self._reactor)

    async def _askAbout(self, name: str, method: str, *arguments: Any) -> None:
        try:
            await self._ask(method, *arguments)
        except Detached:
            if name != self._login:
                raise

    async def _askPage(
        self, types: tuple[type, ...], method: str, *arguments: Any
    ) -> list[tuple[Any, ...]]:
        """Ask for a page of tuples of these types; all texts are names, and fit for a terminal."""
        page = await self._ask(method, *arguments)
        if not isinstance(page, (list, tuple)):
            raise _unlikely()
        for item in page:
            if (
                not isinstance(item, tuple)
                or len(item) != len(types)
                or not all(type(each) is kind for each, kind in zip(item, types, strict=True))
                or not all(_isLine(each) for each in item if type(each) is str)
            ):
                raise _unlikely()
        return list(page)

    def _later(self, before: Any, last: Any) -> Any:
        """Where the next page begins; a server that goes back would never come to an end."""
        if before is not None and last <= before:
            raise _unlikely()
        return last

    async def _verifiers(self, password: str, name: str) -> list[str]:
        preparePassword(password)
        if self._check is not None:
            self._check(password, name)
        hashing = await askHashing(self._perspective.identity) or Hashing()
        hashing = evolve(hashing, md5=self._legacy)
        salt = secrets.token_bytes(hashing.saltBytes)
        made = await Derivations(self._reactor).run(
            hashing.iterations, hashing.makeVerifiers, password, salt
        )
        return [verifier.encode() for verifier in made.values()]


async def openAdministration(
    reactor: Any,
    login: Login,
    legacy: bool = False,
    check: Callable[[str, str], None] | None = None,
) -> RemoteAdministration:
    """
    Connect to a server, and log in as an administrator.

    Args:
        reactor: makes the connection.
        login: who logs in where; its timeout is for each answer, too.
        legacy: as for `RemoteAdministration`.
        check: as for `RemoteAdministration`.

    Returns:
        The administration; close it.

    Raises:
        KeyNotFound: the identity holds no key to the administration, or the server has none.
        Exception: whatever else `connect` fails with.
    """

    async def logIn() -> Any:
        root = await openRoot(reactor, login.target)
        # Any key to it will do: the server chooses.
        proving = prove(root, login.identity, login.credentials, (NAME, None, None))
        _, perspective = await using(root, proving)
        return perspective

    perspective = await within(login.timeout, reactor, logIn())
    return RemoteAdministration(perspective, login.identity, reactor, login.timeout, legacy, check)


async def _gathered(items: AsyncIterator[Any], most: int | None) -> list[Any]:
    found: list[Any] = []
    if most is None or most > 0:
        async for item in items:
            found.append(item)
            if len(found) == most:
                break
    return found


def _batches(records: Iterable[Record]) -> Iterable[list[tuple[Any, ...]]]:
    batch: list[tuple[Any, ...]] = []
    size = 0
    for record in records:
        plain = asPlain(record)
        length = len(repr(plain).encode("utf-8", "replace"))
        if batch and (len(batch) == MOST_ITEMS or size + length > MOST_SENT):
            yield batch
            batch, size = [], 0
        batch.append(plain)
        size += length
    if batch:
        yield batch


def _checkedKey(name: str, service: str, perspective: str) -> tuple[str, str, str]:
    return (
        checkName(name, "name of an identity"),
        checkName(service, "name of a service"),
        checkName(perspective, "name of a perspective"),
    )


def _isLine(text: str) -> bool:
    """Whether there is nothing in it that a terminal would obey."""
    return not any(unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp") for each in text)


def _unlikely() -> ProtocolViolation:
    return ProtocolViolation("The server's answer is not one of an administration.")
