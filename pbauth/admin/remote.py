"""
Administer a running server from elsewhere: the operations of
`pbauth.admin.administration.Administration`, done by the service of `pbauth.admin.service`.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import datetime
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from zope.interface import implementer

from pbauth._async import within
from pbauth._limits import Limits
from pbauth._moments import checkMoment
from pbauth.accounts.groups import checkGroupName, checkKey
from pbauth.accounts.hashing import Derivations, Hashing
from pbauth.accounts.identity import checkIdentityName, checkMethods
from pbauth.accounts.records import Record
from pbauth.admin import protocol
from pbauth.client.connection import openRoot, using
from pbauth.client.login import Login, prove
from pbauth.client.renewal import askHashing, checkProtected
from pbauth.errors import Detached
from pbauth.interfaces import ISessionAdministration
from pbauth.mechanisms.authorizedkeys import AuthorizedKey
from pbauth.mechanisms.scram import preparePassword
from pbauth.mechanisms.voucher import IssuedVoucher, Voucher, makeVoucher
from pbauth.names import checkName


@implementer(ISessionAdministration)
class RemoteAdministration:
    """
    Do what `Administration` does, on a running server. Passwords become verifiers here, hashed as
    the server says; it sees none.

    Where somebody's own account or key is taken away, the session ends with it, before the server
    can answer: that counts as done.

    Args:
        perspective: a reference to an `Administrator`, as `connect` gives it.
        login: the name of the identity that logged in.
        reactor: provides `IReactorTime`.
        timeout: seconds for each answer.
        legacy: also keep MD5 verifiers of new passwords.
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
        """Do what `Administration.addUser` does."""
        checkIdentityName(name)
        verifiers = [] if password is None else await self._verifiers(password, name)
        await self._ask("addUser", name, verifiers)

    async def removeUser(self, name: str) -> None:
        """Do what `Administration.removeUser` does."""
        await self._askAbout(name, "removeUser", checkName(name, "name of an identity"))

    async def setPassword(self, name: str, password: str, mustChange: bool = False) -> None:
        """Do what `Administration.setPassword` does; the sessions of this connection stay."""
        checkName(name, "name of an identity")
        verifiers = await self._verifiers(password, name)
        # A server that does not know of the third argument is asked for nothing new.
        more = (True,) if mustChange else ()
        await self._ask("setPassword", name, verifiers, *more)

    async def setLocked(self, name: str, locked: bool) -> None:
        """Do what `Administration.setLocked` does."""
        await self._askAbout(name, "setLocked", checkName(name, "name of an identity"), locked)

    async def listUsers(
        self, after: str = "", most: int | None = None
    ) -> list[tuple[str, bool, int]]:
        """Do what `Administration.listUsers` does."""
        return await _gathered(self._users(after), most)

    async def findUsers(
        self,
        locked: bool = False,
        expired: bool = False,
        inactiveSince: datetime | None = None,
        after: str = "",
        most: int | None = None,
    ) -> list[tuple[str, bool, int]]:
        """Do what `Administration.findUsers` does."""
        since = protocol.encodeMoment(checkMoment(inactiveSince, "inactiveSince"))
        return await _gathered(self._users(after, "findUsers", locked, expired, since), most)

    async def _users(
        self, after: str, method: str = "listUsers", *which: Any
    ) -> AsyncIterator[tuple[str, bool, int]]:
        while page := await self._askPage(protocol.USER, method, *which, after):
            for user in page:
                after = protocol.later(after, user[0])
                yield user

    async def showUser(self, name: str) -> Record:
        """Do what `Administration.showUser` does."""
        plain = await self._ask("showUser", checkName(name, "name of an identity"))
        return protocol.decodeRecord(plain)

    async def setExpiry(self, name: str, expires: datetime | None) -> None:
        """Do what `Administration.setExpiry` does."""
        moment = protocol.encodeMoment(checkMoment(expires, "expires"))
        checkName(name, "name of an identity")
        await self._askAbout(name, "setExpiry", name, moment)

    # Groups.

    async def addGroup(self, name: str) -> None:
        """Do what `Administration.addGroup` does."""
        await self._ask("addGroup", checkGroupName(name))

    async def removeGroup(self, name: str) -> None:
        """Do what `Administration.removeGroup` does."""
        await self._askAbout(self._login, "removeGroup", checkGroupName(name))

    async def listGroups(self, after: str = "", most: int | None = None) -> list[str]:
        """Do what `Administration.listGroups` does."""
        return await _gathered(self._groups(after), most)

    async def _groups(self, after: str) -> AsyncIterator[str]:
        while page := await self._askPage(protocol.NAMED, "listGroups", after):
            for (name,) in page:
                after = protocol.later(after, name)
                yield name

    async def joinGroup(self, group: str, name: str) -> None:
        """Do what `Administration.joinGroup` does."""
        checkName(name, "name of an identity")
        await self._ask("joinGroup", checkGroupName(group), name)

    async def leaveGroup(self, group: str, name: str) -> None:
        """Do what `Administration.leaveGroup` does."""
        checkName(name, "name of an identity")
        await self._askAbout(name, "leaveGroup", checkGroupName(group), name)

    async def listMembers(self, group: str) -> list[str]:
        """Do what `Administration.listMembers` does."""
        rows = await self._askPages(protocol.NAMED, "listMembers", checkGroupName(group))
        return [name for (name,) in rows]

    async def grantGroupKey(self, group: str, service: str, perspective: str) -> None:
        """Do what `Administration.grantGroupKey` does."""
        key = checkKey(service, perspective)
        await self._ask("grantGroupKey", checkGroupName(group), *key)

    async def revokeGroupKey(self, group: str, service: str, perspective: str) -> None:
        """Do what `Administration.revokeGroupKey` does."""
        key = checkKey(service, perspective)
        await self._askAbout(self._login, "revokeGroupKey", checkGroupName(group), *key)

    async def groupKeys(self, group: str) -> list[tuple[str, str]]:
        """Do what `Administration.groupKeys` does."""
        found: Any = await self._askPages(protocol.KEY, "groupKeys", checkGroupName(group))
        return list(found)

    # Keys to perspectives.

    async def grantKey(
        self, name: str, service: str, perspective: str, methods: Iterable[str] | None = None
    ) -> None:
        """Do what `Administration.grantKey` does."""
        # A server that does not know of methods is asked for nothing new.
        more = () if methods is None else (sorted(checkMethods(methods)),)
        await self._ask("grantKey", *_checkedKey(name, service, perspective), *more)

    async def revokeKey(self, name: str, service: str, perspective: str) -> None:
        """Do what `Administration.revokeKey` does."""
        await self._askAbout(name, "revokeKey", *_checkedKey(name, service, perspective))

    async def listKeys(self, name: str) -> list[tuple[str, str]]:
        """Do what `Administration.listKeys` does."""
        found: Any = await self._askPages(
            protocol.KEY, "listKeys", checkName(name, "name of an identity")
        )
        return list(found)

    async def whoCan(self, service: str) -> list[tuple[str, str, bool, str]]:
        """Do what `Administration.whoCan` does."""
        found: Any = await self._askPages(
            protocol.HOLDER, "whoCan", checkName(service, "name of a service")
        )
        return list(found)

    # Public keys.

    async def addPublicKeys(self, name: str, keys: Iterable[AuthorizedKey]) -> None:
        """Do what `Administration.addPublicKeys` does."""
        lines = [protocol.encodePublicKey(key) for key in keys]
        await self._ask("addPublicKeys", checkName(name, "name of an identity"), lines)

    async def listPublicKeys(self, name: str) -> list[AuthorizedKey]:
        """Do what `Administration.listPublicKeys` does."""
        checkName(name, "name of an identity")
        found: list[AuthorizedKey] = []
        while page := await self._askPage(protocol.KEY, "listPublicKeys", name, len(found)):
            found += [protocol.decodePublicKey(key) for key in page]
        return found

    async def removePublicKey(self, name: str, which: str) -> None:
        """Do what `Administration.removePublicKey` does."""
        checkName(name, "name of an identity")
        await self._askAbout(name, "removePublicKey", name, checkName(which, "label of a key"))

    # Vouchers.

    async def issueVoucher(
        self,
        name: str,
        label: str,
        until: datetime,
        survivesPasswordChange: bool = False,
        **limits: Any,
    ) -> Voucher:
        """Do what `Administration.issueVoucher` does; the server does not see the key."""
        made = makeVoucher(name, label, Limits(until=until, **limits))
        issued = IssuedVoucher(made.chain.blocks[0], survivesPasswordChange)
        await self._ask("keepVoucher", name, protocol.encodeVoucher(issued))
        return made

    async def listVouchers(self, name: str) -> list[IssuedVoucher]:
        """Do what `Administration.listVouchers` does."""
        checkName(name, "name of an identity")
        found: list[IssuedVoucher] = []
        while page := await self._askPage(protocol.NAMED, "listVouchers", name, len(found)):
            found += [protocol.decodeVoucher(line) for (line,) in page]
        return found

    async def revokeVoucher(self, name: str, which: str) -> int:
        """Do what `Administration.revokeVoucher` does."""
        checkName(name, "name of an identity")
        answer = await self._ask("revokeVoucher", name, checkName(which, "label of a voucher"))
        return protocol.decodeAnswer(answer)

    # Whole accounts.

    async def readRecords(self, after: str = "", most: int | None = None) -> list[Record]:
        """Do what `Administration.readRecords` does; in as many messages as it takes."""
        return await _gathered(self._records(after), most)

    async def _records(self, after: str) -> AsyncIterator[Record]:
        while page := await self._ask("readRecords", after, protocol.MOST_ITEMS):
            for record in protocol.decodeRecordPage(page):
                after = protocol.later(after, record.name)
                yield record

    async def addRecords(self, records: Iterable[Record], skipKnown: bool = False) -> int:
        """
        Do what `Administration.addRecords` does, but: all or none holds for each message, and a
        message takes at most `protocol.MOST_ITEMS` records, and fewer if they are long.
        """
        # Their verifiers are sent.
        checkProtected(self._perspective)
        added = 0
        for page in protocol.encodeBatches(records):
            added += protocol.decodeAnswer(await self._ask("addRecords", page, skipKnown))
        return added

    # Sessions.

    async def listSessions(self) -> list[tuple[str, str, str, str, str, float]]:
        """
        List the live sessions of the server.

        Returns:
            For each session its id, identity, service, perspective, the address of its peer, and
            the time at which it began, in seconds since the epoch.
        """
        found: list[tuple[str, str, str, str, str, float]] = []
        last = ""
        while page := await self._askPage(protocol.SESSION, "listSessions", last):
            found += page
            last = protocol.later(last, page[-1][0])
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
        End all sessions of an identity, except this one.

        Args:
            name: of the identity.

        Returns:
            How many there were.
        """
        name = checkName(name, "name of an identity")
        return protocol.decodeAnswer(await self._ask("endSessions", name))

    async def unheardServers(self) -> int | None:
        """
        Return how many other servers did not answer when sessions were last listed or ended, whose
        sessions are left out; `None`: this server can't ask others.
        """
        answer = await self._ask("unheardServers")
        return None if answer is None else protocol.decodeAnswer(answer)

    # The server.

    async def drain(self) -> float:
        """
        Have the server take no more connections, let its clients go, and stop.

        Returns:
            The seconds that this takes at most.

        Raises:
            CannotDrain: the program has no way to stop itself.
        """
        return protocol.decodeSeconds(await self._ask("drain"))

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

    async def _askPages(
        self, types: tuple[type, ...], method: str, *arguments: Any
    ) -> list[tuple[Any, ...]]:
        """Ask for all pages of sorted rows, each of which is behind the last row before."""
        found: list[tuple[Any, ...]] = []
        last = None
        while page := await self._askPage(types, method, *arguments, last):
            found += page
            last = protocol.later(last, protocol.placeOf(page[-1]))
        return found

    async def _askPage(
        self, types: tuple[type, ...], method: str, *arguments: Any
    ) -> list[tuple[Any, ...]]:
        answer = await self._ask(method, *arguments, protocol.MOST_ITEMS)
        return protocol.decodePage(answer, types)

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
        return protocol.encodeVerifiers(made)


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
        login: who logs in where; its timeout also applies to each answer.
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
        proving = prove(root, login.identity, login.credentials, (protocol.NAME, None, None))
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


def _checkedKey(name: str, service: str, perspective: str) -> tuple[str, str, str]:
    return (
        checkName(name, "name of an identity"),
        checkName(service, "name of a service"),
        checkName(perspective, "name of a perspective"),
    )
