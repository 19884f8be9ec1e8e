"""
Accounts in a file of text, a line for each: what `htpasswd` is to a web server.

`pbauth.authorizers.passwdlines` says what stands in a line.  For a few hundred accounts that people
look after with an editor; for many, see `pbauth.SQLAuthorizer`.

- The file is read when it has changed, and kept in memory else. A look at its inode, times and size
  tells; they tell nothing about the last moments before they were looked at, so a file that was
  changed just now is read once more.
- It is written as a whole: beside it, to the disk, then renamed. Whatever happens in between, the
  old or the new file is there. What is not changed stays as it was, comments and order included.
- Who writes holds a lock (``FILE.lock``) and reads the file first, so several processes may write.
- A file that others can read, or with a line that is malformed, is refused as a whole: nobody gets
  in who was not in before, until it is repaired.
- ``FILE.decoy`` holds the secret of the decoys: a stranger must be challenged the same each time,
  also after a restart.

Reads, writes and changes of the file in memory come one after the other.  So whoever was given an
identity has gone on with it before the next version of the file is known, and its changes end the
session that was made of it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from attrs import evolve, field, frozen
from twisted.application.service import IService as IAnyService
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from zope.interface import implementer

from pbauth.authorizer import Authorizer
from pbauth.authorizers.passwdlines import BadLine, Line, readLines, writeLine, writeLines
from pbauth.errors import DuplicateIdentity, StoreError, Unauthorized
from pbauth.hashing import Hashing
from pbauth.interfaces import IIdentity, ISharedAccountStore
from pbauth.mechanisms import scram
from pbauth.mechanisms.scram import ScramVerifier
from pbauth.reactors import chooseReactor
from pbauth.records import Record, holdersAmong, recordOf

_log = Logger()
_Result = TypeVar("_Result")

#: Seconds between two looks of the service that ends sessions.
LOOK_EVERY = 0.5

#: Nanoseconds. Two changes within the grain of a file system's clock, two seconds at worst, may
#: leave the same time behind.
_GRAIN = 2_000_000_000
_MOST_ATTEMPTS = 100
_DECOY_BYTES = 32

#: What tells that a file has changed.
_Signature = tuple[int, ...]


def _signatureOf(found: os.stat_result) -> _Signature:
    return (
        *(found.st_dev, found.st_ino, found.st_size, found.st_mode, found.st_uid),
        *(found.st_mtime_ns, found.st_ctime_ns),
    )


@frozen
class _Content:
    """
    What a file held.

    Attributes:
        signature: of the file then.
        settled: no change since can have left the same signature.
        digest: of its bytes.
        records: of its identities, by name.
        refusal: what is wrong with it, and what to do; empty if nothing is.
    """

    signature: _Signature
    settled: bool
    digest: bytes
    records: dict[str, Record] = field(repr=False)
    refusal: str = ""


@implementer(ISharedAccountStore)
class PasswdFileAuthorizer(Authorizer):
    """
    Keeps identities in a file of text, which is made if there is none, readable by its owner only.

    Args:
        path: of the file.
        serviceCollection: as for `Authorizer`.
        hashing: as for `Authorizer`.
        reactor: provides threads; the global one by default.
        lockTimeout: seconds to wait while another process writes.

    Raises:
        StoreError: the file can't be read or made, others can read it, or a line is malformed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        serviceCollection: Any = None,
        hashing: Hashing = Hashing(),  # noqa: B008 - immutable
        *,
        reactor: Any = None,
        lockTimeout: float = 5.0,
    ) -> None:
        super().__init__(serviceCollection, hashing)
        self._file = _File(os.path.abspath(os.fspath(path)), lockTimeout)
        self._reactor = reactor
        self._turns = DeferredLock()
        self._said = ""
        # As `SQLAuthorizer` has it: saving a copy writes what was changed in it, and nothing else.
        self._stored: WeakKeyDictionary[Any, Record] = WeakKeyDictionary()
        self._file.make()
        self._content = self._file.read(None)
        if self._content.refusal:
            raise StoreError(self._content.refusal)
        self._decoySecret = self._file.decoySecret()

    def addIdentity(self, identity: IIdentity) -> Deferred[None]:
        """
        Store a new identity.

        Returns:
            Fires when it is stored; fails with `DuplicateIdentity` if the name is taken, or
            with `StoreError`.
        """

        async def add() -> None:
            record = await recordOf(identity)
            await self._change(lambda file: file.add(record))
            self._stored[identity] = record
            identity.stored = True

        return Deferred.fromCoroutine(add())

    def updateIdentity(self, identity: IIdentity) -> Deferred[None]:
        """
        Store what changed, and end the sessions that are no longer allowed.

        Returns:
            Fires when that is done; fails with `KeyError` if the identity is not known, or with
            `StoreError`.
        """

        async def update() -> None:
            record = await recordOf(identity)
            before = self._stored.get(identity)

            def change(file: _Editing) -> Record:
                current = file.find(record.name)
                return file.replace(_merge(current, before or current, record))

            merged = await self._change(change)
            self._stored[identity] = record
            identity.stored = True
            self.sessions.endForbidden(merged.asIdentity(self))

        return Deferred.fromCoroutine(update())

    def renewVerifier(
        self, identity: IIdentity, old: ScramVerifier, new: ScramVerifier
    ) -> Deferred[bool]:
        """
        Replace a verifier by a stronger one of the same password, unless somebody, in whatever
        process, replaced it in the meantime.

        Returns:
            Fires with whether that was done; fails with `StoreError`.
        """
        former, better = (scram.NAME, old.encode()), (scram.NAME, new.encode())

        def renew(file: _Editing) -> bool:
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
            self.sessions.endAll(name)

        return Deferred.fromCoroutine(remove())

    def getIdentityRequest(self, name: str) -> Deferred[Any]:
        """
        Returns:
            Fires with a copy of the identity; fails with `Unauthorized` if there is none, or with
            `StoreError`.
        """

        async def request() -> Any:
            record = (await self._records()).get(name)
            if record is None:
                raise Unauthorized()
            identity = record.asIdentity(self)
            identity.stored = True
            self._stored[identity] = record
            return identity

        return Deferred.fromCoroutine(request())

    def listIdentities(
        self, after: str = "", most: int | None = None
    ) -> Deferred[list[tuple[str, bool, int]]]:
        """
        Returns:
            Fires with a list of `(name, locked, number of keys)`, as `IAccountStore` has it; fails
            with `StoreError`.
        """

        async def find() -> list[tuple[str, bool, int]]:
            found = await self.readRecords(after, most)
            return [(record.name, record.locked, len(record.keys)) for record in found]

        return Deferred.fromCoroutine(find())

    def listHolders(self, service: str) -> Deferred[list[tuple[str, str, bool]]]:
        """
        Returns:
            Fires with a list of `(name, perspectiveName, locked)`, as `IAccountStore` has it;
            fails with `StoreError`.
        """

        async def find() -> list[tuple[str, str, bool]]:
            return holdersAmong((await self._records()).values(), service)

        return Deferred.fromCoroutine(find())

    def readRecords(self, after: str = "", most: int | None = None) -> Deferred[list[Record]]:
        """
        Returns:
            Fires with a list of records, as `IAccountStore` has it; fails with `StoreError`.
        """

        async def read() -> list[Record]:
            records = await self._records()
            return [records[name] for name in sorted(n for n in records if n > after)[:most]]

        return Deferred.fromCoroutine(read())

    def addRecords(self, records: Iterable[Record], skipKnown: bool = False) -> Deferred[int]:
        """
        Store new identities, all or none.

        Returns:
            Fires with how many were added; fails with `DuplicateIdentity` if a name is taken, or
            with `StoreError`.
        """
        given = list(records)

        def add(file: _Editing) -> int:
            before = len(file.records)
            for record in given:
                if not (skipKnown and record.name in file.records):
                    file.add(record)
            return len(file.records) - before

        return Deferred.fromCoroutine(self._change(add))

    def identityChanged(self, identity: IIdentity) -> None:
        """Nothing: the identity is a copy, and counts when it is saved."""

    def close(self) -> None:
        """Nothing: no file stays open."""

    def changesService(self, reactor: Any = None) -> IAnyService:
        """
        Make a service that looks at the file twice a second, and ends the sessions that are no
        longer allowed by what somebody else wrote: an editor, a command, another server.

        Args:
            reactor: provides `IReactorTime`; the global one by default.

        Returns:
            The service. Start it with the server.
        """
        return _ChangesService(self, self._records, reactor)

    # The file.

    async def _records(self) -> dict[str, Record]:
        """
        What the file holds now.

        Raises:
            StoreError: it can't be read, or is malformed.
        """
        if not self._isFresh():
            await _goingOn(self._turns.run(self._refresh))
        if self._content.refusal:
            raise StoreError(self._content.refusal)
        return self._content.records

    def _isFresh(self) -> bool:
        return self._content.settled and self._content.signature == self._file.signature()

    def _refresh(self) -> Deferred[None]:
        async def refresh() -> None:
            # Whoever was before in the queue may have done it.
            if not self._isFresh():
                self._know(await self._inThread(self._file.read, self._content))

        return Deferred.fromCoroutine(refresh())

    async def _change(self, change: Callable[[_Editing], _Result]) -> _Result:
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

    def _know(self, content: _Content) -> None:
        self._content = content
        # Clients are told only that the accounts can't be reached; the operator once, what is
        # wrong.
        self._say(content.refusal)

    def _say(self, refusal: str) -> None:
        if refusal and refusal != self._said:
            _log.error("{refusal}", refusal=refusal)
        self._said = refusal


def _goingOn(running: Deferred[_Result]) -> Deferred[_Result]:
    """What fires as another Deferred does. Whoever cancels it does not disturb the order there."""
    waiter: Deferred[_Result] = Deferred()
    running.addCallbacks(waiter.callback, waiter.errback)
    return waiter


class _ChangesService(Service):
    """
    Ends the sessions that the file no longer allows.

    Args:
        authorizer: whose sessions they are.
        read: gives what the file holds now, by name; fails with `StoreError`.
        reactor: provides `IReactorTime`.
    """

    def __init__(
        self,
        authorizer: Authorizer,
        read: Callable[[], Awaitable[dict[str, Record]]],
        reactor: Any,
    ) -> None:
        self._authorizer = authorizer
        self._read = read
        self._reactor = reactor
        self._known: dict[str, Record] | None = None
        self._loop = LoopingCall(self._look)
        self._looking: Deferred[None] | None = None

    def startService(self) -> None:
        """Begin to look."""
        super().startService()
        self._loop.clock = chooseReactor(self._reactor)
        self._loop.start(LOOK_EVERY).addErrback(
            lambda failure: _log.failure("The accounts are looked at no more", failure)
        )

    def stopService(self) -> Deferred[None] | None:
        """
        Look no more.

        Returns:
            Fires when a look that is under way has ended.
        """
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        return self._looking

    def _look(self) -> Deferred[None]:
        self._looking = looking = Deferred.fromCoroutine(self._endForbidden())
        return looking

    async def _endForbidden(self) -> None:
        try:
            records = await self._read()
        except StoreError:
            # It has been told. Until it is repaired nobody comes in, and nobody goes.
            return
        known, self._known = self._known, records
        if records is known:
            return
        for name in {session.identity.name for session in self._authorizer.sessions}:
            record = records.get(name)
            if record is None:
                self._authorizer.sessions.endAll(name)
            elif known is None or record != known.get(name):
                self._endForbiddenOf(record)

    def _endForbiddenOf(self, record: Record) -> None:
        sessions = self._authorizer.sessions
        try:
            sessions.endForbidden(record.asIdentity(self._authorizer))
        except Exception:
            # The class of the identities is the application's: nobody stays in by what it raises.
            _log.failure("What {name!r} may do can't be told", name=record.name)
            sessions.endAll(record.name)


def _merge(current: Record, before: Record, after: Record) -> Record:
    """What is stored, with what somebody changed in a copy of what was stored before."""
    changed = {mechanism for mechanism, _ in before.verifiers ^ after.verifiers}
    kept = {pair for pair in current.verifiers if pair[0] not in changed}
    return Record(
        current.name,
        after.locked if after.locked != before.locked else current.locked,
        frozenset(kept | {pair for pair in after.verifiers if pair[0] in changed}),
        current.keys - (before.keys - after.keys) | (after.keys - before.keys),
    )


class _Editing:
    """
    The lines of a file while they are changed.

    Args:
        lines: of the file.

    Attributes:
        records: the identities in them, by name.
    """

    def __init__(self, lines: Iterable[Line]) -> None:
        self._lines: list[Line | None] = list(lines)
        self._places = {
            line.record.name: place
            for place, line in enumerate(self._lines)
            if line is not None and line.record is not None
        }
        self.records = {
            line.record.name: line.record for line in self._lines if line and line.record
        }
        self.changed = False

    def find(self, name: str) -> Record:
        """
        Raises:
            KeyError: there is none of that name.
        """
        return self.records[name]

    def add(self, record: Record) -> None:
        """
        Raises:
            DuplicateIdentity: the name is taken.
        """
        if record.name in self.records:
            raise DuplicateIdentity(record.name)
        # What can't be read again would keep everybody out.
        record.check()
        self._places[record.name] = len(self._lines)
        self._lines.append(Line(writeLine(record), record))
        self.records[record.name] = record
        self.changed = True

    def replace(self, record: Record) -> Record:
        """Write a line anew, if anything is different in it."""
        if record != self.records[record.name]:
            record.check()
            self._lines[self._places[record.name]] = Line(writeLine(record), record)
            self.records[record.name] = record
            self.changed = True
        return record

    def remove(self, name: str) -> None:
        """
        Raises:
            KeyError: there is none of that name.
        """
        del self.records[name]
        self._lines[self._places.pop(name)] = None
        self.changed = True

    def text(self) -> str:
        """The file as it is to be."""
        return writeLines(line for line in self._lines if line is not None)


class _File:
    """
    The file: everything here waits for the disk, and is for a thread.

    Args:
        path: where it is; absolute.
        lockTimeout: seconds to wait for the lock.
    """

    def __init__(self, path: str, lockTimeout: float) -> None:
        self._path = path
        self._lockTimeout = lockTimeout

    def make(self) -> None:
        """Make an empty file, unless there is one."""
        with self._explained("make"):
            try:
                os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            except FileExistsError:
                pass

    def signature(self) -> _Signature | None:
        """The signature that it has now; `None` if it is not there."""
        try:
            return _signatureOf(os.stat(self._path))
        except OSError:
            return None

    def read(self, known: _Content | None) -> _Content:
        """
        Read it.

        Args:
            known: what was read last: the same bytes are not looked through twice.

        Returns:
            What it holds. What is wrong with it, is in there, too.
        """
        try:
            for _ in range(_MOST_ATTEMPTS):
                found = self._readOnce(known)
                if found is not None:
                    return found
            raise StoreError(f"{self._path} does not stop changing. Find out who writes it.")
        except StoreError as refusal:
            return _Content((), False, b"", {}, str(refusal))

    def _readOnce(self, known: _Content | None) -> _Content | None:
        now = time.time_ns()
        with (
            self._explained("read"),
            _opened(self._path, os.O_RDONLY | os.O_NONBLOCK) as descriptor,
        ):
            before = os.fstat(descriptor)
            self._check(before)
            with os.fdopen(os.dup(descriptor), "rb") as file:
                data = file.read()
            signature = _signatureOf(os.fstat(descriptor))
        # Neither written to nor replaced meanwhile.
        if not _signatureOf(before) == signature == self.signature():
            return None
        return self._content(data, signature, now, known)

    def _content(
        self, data: bytes, signature: _Signature, now: int, known: _Content | None
    ) -> _Content:
        settled = max(signature[-2:]) + _GRAIN < now
        digest = hashlib.sha256(data).digest()
        if known is not None and known.digest == digest:
            return evolve(known, signature=signature, settled=settled)
        try:
            records = {each.record.name: each.record for each in self._lines(data) if each.record}
        except StoreError as refusal:
            return _Content(signature, settled, digest, {}, str(refusal))
        return _Content(signature, settled, digest, records)

    def _lines(self, data: bytes) -> list[Line]:
        try:
            return readLines(data.decode("utf-8"))
        except UnicodeDecodeError as error:
            bad = BadLine("this is not UTF-8. Save the file in UTF-8.")
            bad.number = data.count(b"\n", 0, error.start) + 1
        except BadLine as error:
            bad = error
        # Outside, so that no chain shows what is in the file.
        raise StoreError(f"{self._path}, line {bad.number}: {bad}")

    def _check(self, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise StoreError(f"{self._path} is no file. Name another one.")
        mode = stat.S_IMODE(found.st_mode)
        if mode & 0o077:
            raise StoreError(
                f"Others can get at the verifiers in {self._path} (mode {mode:04o}). "
                f"Run: chmod 600 {self._path}"
            )
        folder = os.path.dirname(os.path.realpath(self._path))
        mode = stat.S_IMODE(os.stat(folder).st_mode)
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise StoreError(
                f"Others can replace {self._path}, since they can write to its folder "
                f"(mode {mode:04o}). Run: chmod o-w {folder}"
            )

    def change(self, change: Callable[[_Editing], _Result]) -> tuple[_Result, _Content]:
        """
        Change it, while nobody else does.

        Args:
            change: is called with the lines; what it raises leaves the file as it is.

        Returns:
            What `change` returned, and what the file holds now.

        Raises:
            StoreError: it can't be read or written, or is malformed.
        """
        # What stands behind a link is replaced, not the link.
        path = os.path.realpath(self._path)
        with self._locked(path), self._explained("write"):
            with _opened(path, os.O_RDONLY | os.O_NONBLOCK) as descriptor:
                found = os.fstat(descriptor)
                self._check(found)
                with os.fdopen(os.dup(descriptor), "rb") as file:
                    data = file.read()
            editing = _Editing(self._lines(data))
            result = change(editing)
            signature = _signatureOf(found)
            if editing.changed:
                data = editing.text().encode("utf-8")
                signature = self._replace(path, data, found)
            digest = hashlib.sha256(data).digest()
            return result, _Content(signature, False, digest, editing.records)

    def _replace(self, path: str, data: bytes, former: os.stat_result) -> _Signature:
        draft = f"{path}.new"
        try:
            # Of somebody who was killed: whoever writes holds the lock.
            os.unlink(draft)
        except FileNotFoundError:
            pass
        with _opened(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600) as descriptor:
            try:
                self._keepOwner(descriptor, former)
                os.fchmod(descriptor, stat.S_IMODE(former.st_mode) & 0o600)
                with os.fdopen(os.dup(descriptor), "wb") as file:
                    file.write(data)
                os.fsync(descriptor)
                os.rename(draft, path)
            except BaseException:
                os.unlink(draft)
                raise
            with _opened(os.path.dirname(path), os.O_RDONLY) as folder:
                os.fsync(folder)
            return _signatureOf(os.fstat(descriptor))

    def _keepOwner(self, descriptor: int, former: os.stat_result) -> None:
        made = os.fstat(descriptor)
        if (made.st_uid, made.st_gid) == (former.st_uid, former.st_gid):
            return
        try:
            # An administrator's command must not take the file away from the server.
            os.fchown(descriptor, former.st_uid, former.st_gid)
        except PermissionError:
            if made.st_uid != former.st_uid:
                raise StoreError(
                    f"{self._path} belongs to another user. Do this as that user."
                ) from None

    @contextmanager
    def _locked(self, path: str) -> Iterator[None]:
        with self._explained("lock"):
            former = os.stat(path)
        with (
            self._explained("lock"),
            _opened(f"{path}.lock", os.O_CREAT | os.O_RDONLY | os.O_NOFOLLOW, 0o600) as descriptor,
        ):
            if os.fstat(descriptor).st_uid != former.st_uid:
                self._keepOwner(descriptor, former)
            deadline = time.monotonic() + self._lockTimeout
            while not _tryLock(descriptor):
                if time.monotonic() > deadline:
                    raise StoreError(
                        f"{self._path} is locked by another process, for more than "
                        f"{self._lockTimeout:g} seconds now. Try again; if it stays so, find that "
                        "process."
                    )
                time.sleep(0.01)
            yield

    def decoySecret(self) -> bytes:
        """
        The secret that decoys are made from; it is made if there is none, and then kept.

        Raises:
            StoreError: it can't be made or read, or others can read it.
        """
        path = f"{os.path.realpath(self._path)}.decoy"
        with self._explained("make the secret of the decoys beside"):
            if not os.path.exists(path):
                _writeOnce(path, secrets.token_bytes(_DECOY_BYTES))
            with _opened(path, os.O_RDONLY | os.O_NONBLOCK) as descriptor:
                mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
                secret = os.read(descriptor, _DECOY_BYTES)
        if mode & 0o077:
            raise StoreError(
                f"Others can read the secret in {path} (mode {mode:04o}). Run: chmod 600 {path}"
            )
        if len(secret) != _DECOY_BYTES:
            raise StoreError(f"{path} is damaged. Remove it: then a new one is made.")
        return secret

    @contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or type(error).__name__
            refusal = StoreError(
                f"Can't {doing} {self._path}: {reason}. Are the file and its folder there, and "
                "yours to read and to write?"
            )
        else:
            return
        raise refusal


@contextmanager
def _opened(path: str, flags: int, mode: int = 0o777) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC, mode)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _tryLock(descriptor: int) -> bool:
    # `flock`, not `lockf`: two in one process exclude each other, too.
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _writeOnce(path: str, data: bytes) -> None:
    """Write a private file that is either whole or not there; the first of several wins."""
    draft = f"{path}.{secrets.token_hex(8)}"
    try:
        with _opened(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600) as descriptor:
            os.write(descriptor, data)
            os.fsync(descriptor)
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
    finally:
        if os.path.exists(draft):
            os.unlink(draft)
