"""
Accounts in a file of text, a line for each: what `htpasswd` is to a web server.

`pbauth.authorizers.passwd.lines` says what stands in a line.  For a few hundred accounts that
people look after with an editor; for many, see `pbauth.SQLAuthorizer`.

- The file is read when it has changed, and kept in memory else. A look at its inode, times and size
  tells; they tell nothing about the last moments before they were looked at, so a file that was
  changed just now is read once more.
- It is written as a whole: beside it, to the disk, then renamed. Whatever happens in between, the
  old or the new file is there. What is not changed stays as it was, comments and order included.
- Who writes holds a lock (``FILE.lock``) and reads the file first, so several processes may write.
- A file that others can read, or with a line that is malformed, is refused as a whole: nobody gets
  in who was not in before, until it is repaired.
- ``FILE.decoy`` holds the secret of the decoys: a name must be challenged the same each time,
  even after a restart.

Reads, writes and changes of the file in memory come one after the other.  So whoever was given an
identity has gone on with it before the next version of the file is known, and its changes end the
session that was made of it.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from typing import Any, TypeVar

from attrs import evolve
from twisted.application.service import IServiceCollection, Service
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.components import Componentized
from zope.interface import implementer

from pbauth._async import chooseReactor
from pbauth._contained import contained
from pbauth._moments import checkMoment
from pbauth.accounts.administrators import (
    GroupLoss,
    KeptAdministrator,
    checkChange,
    checkKeeping,
)
from pbauth.accounts.authorizer import Authorizer
from pbauth.accounts.groups import Groups, Key, checkGroupName, checkKey
from pbauth.accounts.hashing import Hashing
from pbauth.accounts.identity import checkRenewal
from pbauth.accounts.records import Record, frequentCosts, holdersAmong, listedRecords, recordOf
from pbauth.audit import Audit
from pbauth.authorizers.passwd.file import Content, Editing, PasswdFile
from pbauth.authorizers.snapshots import CopyingAuthorizer
from pbauth.errors import DuplicateGroup, StoreError, Unauthorized, UnknownGroup
from pbauth.interfaces import IChangesService, IGroupStore, IIdentity, ISharedAccountStore, Reactor
from pbauth.mechanisms import scram
from pbauth.mechanisms.scram import ScramVerifier

_log = Logger()
_Result = TypeVar("_Result")

#: Seconds between two looks of the service that ends sessions.
LOOK_EVERY = 0.5


@implementer(ISharedAccountStore, IGroupStore)
class PasswdFileAuthorizer(CopyingAuthorizer):
    """
    Keeps identities in a file of text, which is created if it does not exist, readable by its owner
    only.

    Args:
        path: of the file.
        serviceCollection: as for `Authorizer`.
        hashing: as for `Authorizer`.
        reactor: provides threads; the global one by default.
        lockTimeout: seconds to wait while another process writes.
        audit: as for `Authorizer`.
        decoySecret: what decoys are made from, 32 random bytes, where there is no ``FILE.decoy``
            yet; by default new ones.
        reading: nothing is written, not even a file where there is none.

    Raises:
        StoreError: the file can't be read or made, others can read it, or a line is malformed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        serviceCollection: IServiceCollection | Componentized | None = None,
        hashing: Hashing = Hashing(),  # noqa: B008 - immutable
        *,
        reactor: Reactor = None,
        lockTimeout: float = 5.0,
        audit: Audit | None = None,
        decoySecret: bytes | None = None,
        reading: bool = False,
    ) -> None:
        super().__init__(serviceCollection, hashing, audit=audit, reactor=reactor)
        self._file = PasswdFile(os.path.abspath(os.fspath(path)), lockTimeout)
        self._reactor = reactor
        self._turns = DeferredLock()
        self._said = ""
        self._isReading = reading
        if not reading:
            self._file.make()
        self._content = self._file.read(None)
        if self._content.refusal:
            raise StoreError(self._content.refusal)
        self._noteCosts(frequentCosts(self._content.records.values()))
        if not reading:
            self._decoySecret = self._file.decoySecret(decoySecret or self._decoySecret)

    def updateIdentity(self, identity: IIdentity) -> Deferred[None]:
        """
        Store what changed, and end the sessions that are no longer allowed.

        Returns:
            Fires when that is done; fails with `KeyError` if the identity is not known, or with
            `StoreError`.
        """

        async def update() -> None:
            record = await recordOf(identity)
            before = self._storedRecord.get(identity)

            def change(file: Editing) -> Record:
                current = file.find(record.name)
                return file.replace(_merge(current, before or current, record))

            merged = await self._change(change)
            self._saved(identity, record)
            self.endUnauthorized(merged.asIdentity(self, self._content.groups))

        return Deferred.fromCoroutine(update())

    def renewVerifier(
        self, identity: IIdentity, old: ScramVerifier, new: ScramVerifier
    ) -> Deferred[bool]:
        """
        Replace a verifier by a stronger one of the same password, unless somebody, in whatever
        process, replaced it in the meantime.

        Returns:
            Fires with whether that was done; fails with `StoreError`.

        Raises:
            TypeError: an argument is of the wrong type.
        """
        checkRenewal(identity, old, new)
        former, better = (scram.NAME, old.encode()), (scram.NAME, new.encode())

        def renew(file: Editing) -> bool:
            current = file.records.get(identity.name)
            if current is None or former not in current.verifiers:
                return False
            file.replace(evolve(current, verifiers=current.verifiers - {former} | {better}))
            return True

        return Deferred.fromCoroutine(self._change(renew))

    def removeIdentity(self, name: str) -> Deferred[None]:
        """
        Forget an identity, and end its sessions.

        Returns:
            Fires when that is done; fails with `KeyError` if it is not known, or with
            `StoreError`.
        """

        async def remove() -> None:
            await self._change(lambda file: file.remove(name))
            self.identityRemoved(name)

        return Deferred.fromCoroutine(remove())

    def changeIdentity(
        self,
        name: str,
        change: Callable[[Record], Record | None],
        keeping: KeptAdministrator | None = None,
    ) -> Deferred[None]:
        """
        Change an identity while the file is locked, and end the sessions that it no longer allows
        (see `IAccountStore`).

        Returns:
            Fires when that is done; fails with `KeyError` if it is not known, with
            `LastAdministrator`, with whatever `change` raises, or with `StoreError`.

        Raises:
            TypeError: an argument is of the wrong type.
        """
        checkChange(change, keeping)

        def write(file: Editing) -> Record | None:
            before = file.find(name)
            after = change(before)
            if keeping is not None:
                keeping.check(before, after, file.records.values(), file.groups)
            if after is None:
                file.remove(name)
                return None
            return file.replace(after)

        async def run() -> None:
            after = await self._change(write)
            if after is None:
                self.identityRemoved(name)
            else:
                self.endUnauthorized(after.asIdentity(self, self._content.groups))

        return Deferred.fromCoroutine(run())

    def getIdentityRequest(self, name: str) -> Deferred[IIdentity]:
        """
        Read the identity of this name from the file.

        Args:
            name: as the client claims it.

        Returns:
            Fires with a copy of the identity; fails with `Unauthorized` if there is none, or with
            `StoreError`.
        """

        async def request() -> IIdentity:
            content = await self._current()
            record = content.records.get(name)
            if record is None:
                raise Unauthorized()
            return self._copyOf(record, content.groups)

        return Deferred.fromCoroutine(request())

    def listIdentities(
        self, after: str = "", most: int | None = None
    ) -> Deferred[list[tuple[str, bool, int]]]:
        """
        List identities, sorted by name, as `IAccountStore` describes it.

        Args:
            after: the name behind which the list begins; empty: the first one.
            most: how many identities to list at most; `None`: all.

        Returns:
            Fires with a list of `(name, locked, number of keys)`; fails with `StoreError`.
        """

        async def find() -> list[tuple[str, bool, int]]:
            found = await self.readRecords(after, most)
            return [(record.name, record.locked, len(record.keys)) for record in found]

        return Deferred.fromCoroutine(find())

    def listHolders(self, service: str) -> Deferred[list[tuple[str, str, bool, str]]]:
        """
        List the keys to a service with their holders, as `IAccountStore` describes it.

        Args:
            service: the name of the service.

        Returns:
            Fires with a sorted list of `(name, perspectiveName, locked, group)`; fails with
            `StoreError`.
        """

        async def find() -> list[tuple[str, str, bool, str]]:
            content = await self._current()
            return holdersAmong(content.records.values(), content.groups, service)

        return Deferred.fromCoroutine(find())

    def readRecords(self, after: str = "", most: int | None = None) -> Deferred[list[Record]]:
        """
        Read whole accounts, sorted by name, as `IAccountStore` describes it.

        Args:
            after: the name behind which the list begins; empty: the first one.
            most: how many accounts to read at most; `None`: all.

        Returns:
            Fires with a list of records; fails with `StoreError`.
        """

        async def read() -> list[Record]:
            records = (await self._current()).records
            return [records[name] for name in sorted(n for n in records if n > after)[:most]]

        return Deferred.fromCoroutine(read())

    def addRecords(self, records: Iterable[Record], skipKnown: bool = False) -> Deferred[int]:
        """
        Store new identities, all or none.

        Returns:
            Fires with how many were added; fails with `DuplicateIdentity` if a name is taken, or
            with `StoreError`.

        Raises:
            TypeError: an argument is of the wrong type.
        """
        given = listedRecords(records)

        def add(file: Editing) -> int:
            before = len(file.records)
            for record in given:
                if not (skipKnown and record.name in file.records):
                    file.add(record)
            return len(file.records) - before

        return Deferred.fromCoroutine(self._change(add))

    def close(self) -> None:
        """Do nothing: no file stays open."""

    def changesService(self, reactor: Reactor = None) -> IChangesService:
        """
        Make a service that looks at the file twice a second, and ends the sessions that are no
        longer allowed by what somebody else wrote: an editor, a command, another server.

        Args:
            reactor: provides `IReactorTime`; the global one by default.

        Returns:
            The service. Start it with the server.
        """
        return _ChangesService(self, self._current, reactor)

    def countExpiring(self, until: datetime) -> Deferred[int]:
        """Count the accounts that expire until then (see `IAccountStore`)."""
        checkMoment(until, "until")

        async def count() -> int:
            now = self.now()
            found = [each.expires for each in (await self._current()).records.values()]
            return sum(now < each <= until for each in found if each is not None)

        return Deferred.fromCoroutine(count())

    # Groups.

    def addGroup(self, name: str) -> Deferred[None]:
        """Add a group (see `IGroupStore`)."""

        def add(file: Editing) -> None:
            if checkGroupName(name) in file.groups:
                raise DuplicateGroup(name)
            file.setGroup(name, frozenset())

        return Deferred.fromCoroutine(self._change(add))

    def removeGroup(self, name: str, keeping: KeptAdministrator | None = None) -> Deferred[None]:
        """Remove a group, and end the sessions that rested on it (see `IGroupStore`)."""
        return self._lose(GroupLoss(name), keeping)

    def listGroups(self, after: str = "", most: int | None = None) -> Deferred[list[str]]:
        """List the groups (see `IGroupStore`)."""

        async def find() -> list[str]:
            groups = (await self._current()).groups
            return sorted(name for name in groups if name > after)[:most]

        return Deferred.fromCoroutine(find())

    def addMember(self, group: str, identityName: str) -> Deferred[None]:
        """Make an identity a member of a group (see `IGroupStore`)."""

        def add(file: Editing) -> None:
            file.checkGroups([group])
            record = file.find(identityName)
            file.replace(evolve(record, groups=record.groups | {group}))

        return Deferred.fromCoroutine(self._change(add))

    def removeMember(
        self, group: str, identityName: str, keeping: KeptAdministrator | None = None
    ) -> Deferred[None]:
        """Take an identity out of a group (see `IGroupStore`)."""
        return self._lose(GroupLoss(group, member=identityName), keeping)

    def members(self, group: str) -> Deferred[list[str]]:
        """List the members of a group (see `IGroupStore`)."""

        async def find() -> list[str]:
            content = await self._current()
            if group not in content.groups:
                raise UnknownGroup(group)
            return sorted(each.name for each in content.records.values() if group in each.groups)

        return Deferred.fromCoroutine(find())

    def groupsOf(self, identityName: str) -> Deferred[list[str]]:
        """List the groups of an identity (see `IGroupStore`)."""

        async def find() -> list[str]:
            record = (await self._current()).records.get(identityName)
            return [] if record is None else sorted(record.groups)

        return Deferred.fromCoroutine(find())

    def grantGroupKey(self, group: str, service: str, perspective: str) -> Deferred[None]:
        """Give a group a key (see `IGroupStore`)."""

        def grant(file: Editing) -> None:
            file.checkGroups([group])
            file.setGroup(group, file.groups[group] | {checkKey(service, perspective)})

        return Deferred.fromCoroutine(self._change(grant))

    def revokeGroupKey(
        self, group: str, service: str, perspective: str, keeping: KeptAdministrator | None = None
    ) -> Deferred[None]:
        """Take a key from a group, and end the sessions that rested on it (see `IGroupStore`)."""
        return self._lose(GroupLoss(group, key=(service, perspective)), keeping)

    def groupKeys(self, group: str) -> Deferred[list[Key]]:
        """List the keys of a group (see `IGroupStore`)."""

        async def find() -> list[Key]:
            groups = (await self._current()).groups
            if group not in groups:
                raise UnknownGroup(group)
            return sorted(groups[group])

        return Deferred.fromCoroutine(find())

    def _lose(self, loss: GroupLoss, keeping: KeptAdministrator | None) -> Deferred[None]:
        checkKeeping(keeping)

        def lose(file: Editing) -> list[Record]:
            file.checkGroups([loss.group])
            members = loss.members(file.records.values(), file.groups)
            if keeping is not None:
                keeping.checkLoss(loss, file.records.values(), file.groups)
            if loss.key is None:
                members = [
                    file.replace(evolve(each, groups=each.groups - {loss.group}))
                    for each in members
                ]
            if loss.member is None:
                file.setGroup(loss.group, loss.groups(file.groups).get(loss.group))
            return members

        async def run() -> None:
            for record in await self._change(lose):
                self.endUnauthorized(record.asIdentity(self, self._content.groups))

        return Deferred.fromCoroutine(run())

    # The file.

    async def _current(self) -> Content:
        """
        Return what the file holds now.

        Raises:
            StoreError: it can't be read, or is malformed.
        """
        if not self._isFresh():
            await _goingOn(self._turns.run(self._refresh))
        if self._content.refusal:
            raise StoreError(self._content.refusal)
        return self._content

    def _isFresh(self) -> bool:
        return self._content.settled and self._content.signature == self._file.signature()

    def _refresh(self) -> Deferred[None]:
        async def refresh() -> None:
            # Whoever was before in the queue may have done it.
            if not self._isFresh():
                self._know(await self._inThread(self._file.read, self._content))
                await self._readSecret()

        return Deferred.fromCoroutine(refresh())

    async def _readSecret(self) -> None:
        """Read the secret of the decoys again: a backup was put back, maybe."""
        if self._isReading:
            return
        try:
            self._decoySecret = await self._inThread(self._file.decoySecret, self._decoySecret)
        except StoreError as error:
            self._say(str(error))

    async def _change(self, change: Callable[[Editing], _Result]) -> _Result:
        def write() -> Deferred[_Result]:
            async def inTurn() -> _Result:
                try:
                    result, content = await self._inThread(self._file.change, change)
                except StoreError as error:
                    self._say(str(error))
                    raise
                self._know(content)
                return result

            return Deferred.fromCoroutine(inTurn())

        written: _Result = await _goingOn(self._turns.run(write))
        return written

    def _inThread(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        reactor = chooseReactor(self._reactor)
        return deferToThreadPool(reactor, reactor.getThreadPool(), function, *arguments)

    def _know(self, content: Content) -> None:
        self._content = content
        self._noteCosts(frequentCosts(content.records.values()))
        # Clients learn only that the accounts can't be reached; the operator once, what is
        # wrong.
        self._say(content.refusal)

    def _say(self, refusal: str) -> None:
        if refusal and refusal != self._said:
            _log.error("{refusal}", refusal=refusal)
        self._said = refusal


def _goingOn(running: Deferred[_Result]) -> Deferred[_Result]:
    """Return a Deferred that fires like another one, and that can be cancelled by itself."""
    waiter: Deferred[_Result] = Deferred()
    running.addCallbacks(waiter.callback, waiter.errback)
    return waiter


@implementer(IChangesService)
class _ChangesService(Service):
    """
    Ends the sessions that the file no longer allows.

    Args:
        authorizer: whose sessions they are.
        read: returns what the file holds now; fails with `StoreError`.
        reactor: provides `IReactorTime`.
    """

    def __init__(
        self,
        authorizer: Authorizer,
        read: Callable[[], Awaitable[Content]],
        reactor: Reactor,
    ) -> None:
        self._authorizer = authorizer
        self._read = read
        self._reactor = reactor
        self._known: Content | None = None
        self._loop = LoopingCall(self._look)
        self._looking: Deferred[None] | None = None
        self.hears = False

    @property
    def notices(self) -> bool:
        """Return whether the last look succeeded."""
        return self.hears

    def startService(self) -> None:
        """Begin to look."""
        super().startService()
        self._loop.clock = chooseReactor(self._reactor)
        self._loop.start(LOOK_EVERY)

    def stopService(self) -> Deferred[None] | None:
        """
        Stop looking at the file.

        Returns:
            Fires when a look that is under way has ended.
        """
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        return self._looking

    def _look(self) -> Deferred[None]:
        self._looking = looking = Deferred.fromCoroutine(self._endUnauthorized())
        return looking.addErrback(
            lambda failure: _log.failure("Checking changed accounts failed", failure)
        )

    async def _endUnauthorized(self) -> None:
        try:
            content = await self._read()
        except StoreError:
            # It is logged. Until the file is repaired nobody can log in; sessions stay.
            self.hears = False
            return
        self.hears = True
        known, self._known = self._known, content
        if known is not None and content.digest == known.digest:
            return
        for name in self._authorizer.sessions.names():
            record = content.records.get(name)
            if record is None:
                self._authorizer.identityRemoved(name)
            elif (
                known is None
                or _withoutDates(record) != _withoutDates(known.records.get(name))
                or any(content.groups[each] != known.groups.get(each) for each in record.groups)
            ):
                self._endUnauthorizedOf(record, content.groups)

    def _endUnauthorizedOf(self, record: Record, groups: Groups) -> None:
        identity = None
        # Nobody stays because of what the class of the identity raises.
        with contained(_log, "Can't find out what {name!r} may do", name=record.name):
            identity = record.asIdentity(self._authorizer, groups)
        if identity is not None:
            self._authorizer.endUnauthorized(identity)
        else:
            self._authorizer.identityRemoved(record.name)


def _withoutDates(record: Record | None) -> Record | None:
    """Return a record without what ends no session: a login of somebody else, for instance."""
    return None if record is None else evolve(record, created=None, lastLogin=None)


def _merge(current: Record, before: Record, after: Record) -> Record:
    """Return what is stored, with what somebody changed in a copy of what was stored before."""
    changed = {mechanism for mechanism, _ in before.verifiers ^ after.verifiers}
    kept = {pair for pair in current.verifiers if pair[0] not in changed}
    merged = {
        name: getattr(after, name)
        for name in ("locked", "expires", "mustChangePassword", "created", "lastLogin")
        if getattr(after, name) != getattr(before, name)
    }
    return evolve(
        current,
        verifiers=frozenset(kept | {pair for pair in after.verifiers if pair[0] in changed}),
        keys=current.keys - (before.keys - after.keys) | (after.keys - before.keys),
        methods=current.methods - (before.methods - after.methods)
        | (after.methods - before.methods),
        **merged,
    )
