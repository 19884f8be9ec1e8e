"""
Many identities at once, into a store and out of it.

A store is asked for `readRecords` and `addRecords` of `IAccountStore`; and, where there are groups,
for `listGroups`, `groupKeys`, `addGroup` and `grantGroupKey` of `IGroupStore`. So it may also be an
`Administration`, or one at the other end of a connection.

An import goes batch by batch, and each batch is one call of `addRecords`: all of it or nothing.
While the store writes one batch, the next one is read and checked in a thread, so there are never
more than two in memory.  Passwords in clear are hashed on all cores; that takes thousands of times
as long as the rest, so batches with them are smaller.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, BinaryIO

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ConnectionClosed
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from twisted.spread import pb

from pbauth import _files
from pbauth._async import chooseReactor, settled
from pbauth.accounts.groups import Group
from pbauth.accounts.hashing import Hashing
from pbauth.accounts.passwordpolicy import PasswordPolicy
from pbauth.accounts.records import Record
from pbauth.dumps.formats import DumpError, Entry, Format, GroupEntry
from pbauth.errors import DuplicateGroup, DuplicateIdentity, InvalidPassword, WireError
from pbauth.interfaces import IAdministration, IGroupStore
from pbauth.names import LONGEST

#: The default for the most identities of a batch, or of a page.
BATCH = 1000
#: About the most bytes of a batch: one has to cross a connection of PB in one piece.
MOST_BYTES = 500_000
#: The most iterations that the passwords of one batch are hashed with; about 15 s on two cores.
MOST_ITERATIONS = 60_000_000

#: What ends an import, or an export, that is not its fault.
_STORE_ERRORS = (WireError, ConnectionClosed, pb.PBConnectionLost, pb.DeadReferenceError)


@frozen
class Progress:
    """
    How far an import has come.

    Attributes:
        added: how many identities are in the store that were not there before.
        skipped: how many were there already, and were left as they are.
        line: up to which line of the dump that is.
        hashed: how many passwords of the next batch are hashed already.
        end: how many bytes of the dump all that is.
    """

    added: int = 0
    skipped: int = 0
    line: int = 0
    hashed: int = 0
    end: int = 0

    def inWords(self) -> str:
        """Return the progress in words."""
        if not self.line:
            return "nothing was imported."
        skipped = f", {self.skipped:,} were there already" if self.skipped else ""
        users = "user was" if self.added == 1 else "users were"
        return f"{self.added:,} {users} imported{skipped}, up to line {self.line}."


class ImportFailed(Exception):
    """
    An import could not go on. What was imported before stays, and nothing of the batch at fault
    was imported.

    Attributes:
        line: of the dump, that is at fault; or where the batch at fault begins.
        reason: what is wrong; nothing of a password or a verifier.
        progress: how far it came.
    """

    def __init__(self, line: int, reason: str, progress: Progress) -> None:
        super().__init__(f"line {line}: {reason} So far, {progress.inWords()}")
        self.line = line
        self.reason = reason
        self.progress = progress


class ImportStopped(Exception):
    """
    An import was interrupted, between two batches.

    Attributes:
        progress: how far it came.
    """

    def __init__(self, progress: Progress) -> None:
        super().__init__(f"Interrupted: {progress.inWords()}")
        self.progress = progress


class ExportFailed(Exception):
    """An export could not go on; the text says why."""


async def importRecords(
    store: Any,
    entries: Iterable[Entry | GroupEntry],
    *,
    batch: int = BATCH,
    skipKnown: bool = False,
    hashing: Hashing = Hashing(),  # noqa: B008 - immutable
    policy: PasswordPolicy = PasswordPolicy(),  # noqa: B008 - immutable
    progress: Callable[[Progress], None] | None = None,
    enough: Callable[[], None] | None = None,
    reactor: Any = None,
) -> Progress:
    """
    Add identities to a store. If the reactor is stopped meanwhile, that waits for the end of the
    batch that is being written, and the import ends there.

    Args:
        store: what they are added to; see the module.
        entries: the identities, as a `pbauth.dumps.formats.Format` reads them. Taken in a thread.
        batch: how many are added at once, at most.
        skipKnown: leave identities that are there already as they are; otherwise that is an error.
        hashing: how passwords in clear become verifiers.
        policy: what passwords in clear have to be like.
        progress: is called now and then with how far the import has come.
        enough: is called when no more entries are wanted, for entries that may have to be waited
            for: a thread may be waiting for one then, and has to be let go. May be called twice.
        reactor: provides threads; the global one by default.

    Returns:
        How far it has come, in the end.

    Raises:
        ImportFailed: a line is wrong, a name is taken, or the store failed.
        ImportStopped: the reactor was stopped.
    """
    theReactor = chooseReactor(reactor)
    importing = _Import(
        theReactor,
        store,
        entries,
        batch,
        skipKnown,
        hashing,
        policy,
        progress or (lambda done: None),
        enough or (lambda: None),
    )
    ended: Deferred[None] = Deferred()

    def stop() -> Deferred[None]:
        importing.stop()
        return ended

    trigger = theReactor.addSystemEventTrigger("before", "shutdown", stop)
    try:
        return await importing.run()
    finally:
        if importing.stopped:
            # Once whoever called this has seen it end.
            theReactor.callLater(0, ended.callback, None)
        else:
            theReactor.removeSystemEventTrigger(trigger)


class _Import:
    """
    One import; the arguments are those of `importRecords`.

    Attributes:
        stopped: it is to end after the batch that is being written.
    """

    def __init__(
        self,
        reactor: Any,
        store: Any,
        entries: Iterable[Entry | GroupEntry],
        batch: int,
        skipKnown: bool,
        hashing: Hashing,
        policy: PasswordPolicy,
        progress: Callable[[Progress], None],
        enough: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._store = store
        self._entries = iter(entries)
        self._batch = batch
        self._skipKnown = skipKnown
        self._hashing = hashing
        self._policy = policy
        self._tell = progress
        self._enough = enough
        self._done = Progress()
        # The first entry of the next batch, where it did not fit into the one before.
        self._left: list[Entry | GroupEntry] = []
        self._pool = ThreadPool(0, _cores() + 1, name="pbauth import")
        self.stopped = False

    def stop(self) -> None:
        """End it after the batch that is being written."""
        self.stopped = True
        self._enough()

    async def run(self) -> Progress:
        """Import it all."""
        self._pool.start()
        try:
            reading = self._inThread(self._read)
            try:
                while entries := await self._orFail(reading):
                    reading = self._inThread(self._read)
                    await self._import(entries)
            finally:
                # What is read ahead is not wanted any more.
                self._enough()
                if not reading.called:
                    await reading
        finally:
            self._pool.stop()
        return self._done

    def _inThread(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._pool, function, *arguments)

    async def _orFail(
        self, reading: Deferred[list[Entry | GroupEntry] | DumpError]
    ) -> list[Entry | GroupEntry]:
        found = await reading
        self._checkStopped()
        if isinstance(found, DumpError):
            raise ImportFailed(found.line, found.reason, self._done)
        return found

    def _checkStopped(self) -> None:
        if self.stopped:
            raise ImportStopped(self._done)

    # In a thread, one batch after the other.

    def _read(self) -> list[Entry | GroupEntry] | DumpError:
        """Return the next batch, or why there is none."""
        try:
            return self._readOn()
        except DumpError as error:
            return error

    def _readOn(self) -> list[Entry | GroupEntry]:
        entries: list[Entry | GroupEntry] = []
        size = iterations = 0
        left, self._left = self._left, []
        for entry in chain(left, self._entries):
            if self.stopped:
                break
            if isinstance(entry, Entry) and entry.password is not None:
                self._checkPassword(entry)
                iterations += self._hashing.iterations
            size += _sizeOf(entry)
            full = size > MOST_BYTES or iterations > MOST_ITERATIONS
            if entries and full:
                self._left = [entry]
                break
            entries.append(entry)
            if len(entries) == self._batch:
                break
        return entries

    def _checkPassword(self, entry: Entry) -> None:
        reason = None
        try:
            self._policy.check(entry.password or "", entry.record.name)
        except InvalidPassword as error:
            reason = str(error)
        if reason is not None:
            raise DumpError(entry.line, reason)

    def _makeVerifiers(self, entry: Entry) -> Record:
        if self.stopped:
            return entry.record
        salt = secrets.token_bytes(self._hashing.saltBytes)
        made = self._hashing.makeVerifiers(entry.password or "", salt)
        verifiers = {(mechanism, verifier.encode()) for mechanism, verifier in made.items()}
        return evolve(entry.record, verifiers=entry.record.verifiers | verifiers)

    # One batch.

    async def _import(self, given: list[Entry | GroupEntry]) -> None:
        last, added = given[-1], 0
        entries = [entry for entry in given if isinstance(entry, Entry)]
        number = len(entries)
        try:
            for entry in given:
                if isinstance(entry, GroupEntry):
                    await self._addGroup(entry)
            entries = self._once(entries)
            plain = [entry for entry in entries if entry.password is not None]
            records = [entry.record for entry in entries if entry.password is None]
            if plain:
                # Not to hash for minutes what is not wanted then.
                known = await self._whichAreKnown([entry.record.name for entry in plain])
                if known and not self._skipKnown:
                    raise DuplicateIdentity(min(known))
                records += await self._hash(
                    [entry for entry in plain if entry.record.name not in known]
                )
            self._checkStopped()
            if records:
                added = await settled(self._store.addRecords(records, skipKnown=self._skipKnown))
        except DuplicateIdentity as error:
            line = next((each.line for each in entries if each.record.name == error.name), 0)
            raise ImportFailed(
                line or entries[0].line,
                f"there is a user {error.name!r} already. Remove the line; or use --resume, which "
                "leaves existing users as they are.",
                self._done,
            ) from None
        except DumpError as error:
            raise ImportFailed(error.line, error.reason, self._done) from None
        except _STORE_ERRORS as error:
            raise ImportFailed(given[0].line, _inWords(error), self._done) from None
        self._done = Progress(
            self._done.added + added,
            self._done.skipped + number - added,
            last.line,
            end=last.end,
        )
        self._tell(self._done)

    async def _addGroup(self, entry: GroupEntry) -> None:
        group = entry.group
        try:
            await settled(self._store.addGroup(group.name))
        except DuplicateGroup:
            if self._skipKnown:
                return
            raise DumpError(
                entry.line,
                f"there is a group {group.name!r} already. Remove the line; or use --resume, which "
                "leaves existing groups as they are.",
            ) from None
        for key in sorted(group.keys):
            await settled(self._store.grantGroupKey(group.name, *key))

    def _once(self, entries: list[Entry]) -> list[Entry]:
        """Return each name once: a name that comes again exists already, as in a later batch."""
        first: dict[str, Entry] = {}
        for entry in entries:
            if first.setdefault(entry.record.name, entry) is not entry and not self._skipKnown:
                line = first[entry.record.name].line
                raise DumpError(
                    entry.line,
                    f"{entry.record.name!r} is already in line {line}. Remove one of them.",
                )
        return list(first.values())

    async def _hash(self, entries: list[Entry]) -> list[Record]:
        ends = sorted(entry.end for entry in entries)
        hashed = 0

        def tell(record: Record) -> Record:
            nonlocal hashed
            hashed += 1
            self._tell(evolve(self._done, hashed=hashed, end=ends[hashed - 1]))
            return record

        made = [self._inThread(self._makeVerifiers, entry).addCallback(tell) for entry in entries]
        return await gatherResults(made)

    async def _whichAreKnown(self, names: list[str]) -> set[str]:
        """Those of the names that are in the store, where dumps are sorted in a few calls."""
        found: set[str] = set()
        after, upTo = "", ""
        for name in sorted(names):
            if after and name <= upTo:
                continue
            after = _before(name)
            page = await settled(self._store.readRecords(after, _PAGE))
            found.update(record.name for record in page)
            if len(page) == 0:
                break
            upTo = page[-1].name
        return found.intersection(names)


#: How many records are looked at where a few names are looked up.
_PAGE = 100


def _before(name: str) -> str:
    """
    Return a text that comes before this name in the order of code points, while no other name does
    that comes after the text.
    """
    # Whatever comes in between begins with this text, and no name is so long.
    last = ord(name[-1]) - 1
    head = name[:-1] + chr(0xD7FF if 0xD800 <= last <= 0xDFFF else last)
    missing = LONGEST + 1 - len(head.encode("utf-8"))
    return head + "\U0010ffff" * max(0, -(-missing // 4))


def _sizeOf(entry: Entry | GroupEntry) -> int:
    """About how many bytes it takes on the wire, and rather more."""
    if isinstance(entry, GroupEntry):
        return 0
    record = entry.record
    size = _bytes(record.name) + sum(_bytes(text) for _, text in record.verifiers)
    if entry.password is not None:
        size += 300
    size += sum(map(_bytes, record.groups))
    return size + sum(_bytes(service) + _bytes(name) for service, name in record.keys)


def _bytes(text: str) -> int:
    return 20 + (len(text) if text.isascii() else 4 * len(text))


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def _inWords(error: Exception) -> str:
    if isinstance(error, WireError):
        return str(error)
    return "The connection was lost; the last batch may or may not be stored. Use --resume."


async def exportRecords(
    store: Any,
    form: Format,
    write: Callable[[bytes], Any],
    *,
    most: int = BATCH,
    progress: Callable[[int], None] | None = None,
) -> int:
    """
    Write all identities of a store. One that is added or removed meanwhile may be in it or not;
    each of the others is in it once.

    Args:
        store: whose; see the module.
        form: of the dump.
        write: is given the dump piece by piece.
        most: how many are asked for at once. The store may give fewer.
        progress: is called now and then with the number of users so far.

    Returns:
        How many there are.

    Raises:
        ExportFailed: the store failed, or an identity does not fit into a line.
    """
    write(form.header())
    count = 0
    after = ""
    try:
        if IGroupStore.providedBy(store) or IAdministration.providedBy(store):
            for group in await _groupsOf(store):
                write(form.writeGroup(group))
        while page := await settled(store.readRecords(after, most)):
            write(b"".join(form.write(record) for record in page))
            count += len(page)
            after = page[-1].name
            if progress is not None:
                progress(count)
    except DumpError as error:
        raise ExportFailed(error.reason) from None
    except _STORE_ERRORS as error:
        raise ExportFailed(_inWords(error)) from None
    return count


async def _groupsOf(store: Any) -> list[Group]:
    names = await settled(store.listGroups())
    keys = [(name, await settled(store.groupKeys(name))) for name in names]
    return [Group(name, frozenset(some)) for name, some in keys]


@contextmanager
def replacing(path: str) -> Iterator[BinaryIO]:
    """
    Write a file for its owner only, that is whole or not there: it takes its name, and the place
    of one that has it, at the end of the ``with`` block, unless that fails.

    Args:
        path: of the file.

    Returns:
        The file, to be written to.

    Raises:
        ExportFailed: it can't be written, or the path is that of something else than a file.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise ExportFailed(f"{path} is not a file. Name a file, or - for standard output.")
    try:
        with _files.replacing(path) as file:
            yield file
    except OSError as error:
        raise ExportFailed(f"Can't write {path}: {error.strerror}.") from None
