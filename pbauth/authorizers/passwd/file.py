"""
The file of `pbauth.authorizers.passwd.authorizer`, without a reactor: read, locked, changed and
replaced.

Its functions block, for as long as a disk may take, or the lock that another process holds; they
are run in threads.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from attrs import evolve, field, frozen

from pbauth._files import OtherOwner, createPrivate, exposure, keepOwner, lock, writePrivate
from pbauth.accounts.groups import Group, Groups, Key
from pbauth.accounts.records import Record
from pbauth.authorizers.passwd.lines import (
    BadLine,
    Line,
    readLines,
    writeGroup,
    writeLife,
    writeLine,
    writeLines,
)
from pbauth.errors import DuplicateIdentity, StoreError, UnknownGroup

_Result = TypeVar("_Result")

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
class Content:
    """
    What a file held.

    Attributes:
        signature: of the file then.
        settled: no change since can have left the same signature.
        digest: of its bytes.
        records: of its identities, by name.
        groups: their keys, by name.
        refusal: what is wrong with it, and what to do; empty if nothing is.
    """

    signature: _Signature
    settled: bool
    digest: bytes
    records: dict[str, Record] = field(repr=False)
    groups: Groups = field(factory=dict, repr=False)
    refusal: str = ""


class Editing:
    """
    The lines of a file while they are changed.

    Args:
        lines: of the file.

    Attributes:
        records: the identities in them, by name.
        groups: the keys of the groups in them, by name.
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
        self.groups = {
            line.group.name: line.group.keys for line in self._lines if line and line.group
        }
        self._groupPlaces = {
            line.group.name: place for place, line in enumerate(self._lines) if line and line.group
        }
        # The lines about identities; of some there may be no identity any more.
        self._lifePlaces = {
            line.life.name: place for place, line in enumerate(self._lines) if line and line.life
        }
        self.changed = False

    def find(self, name: str) -> Record:
        """
        Return the record of an identity.

        Args:
            name: of the identity.

        Raises:
            KeyError: there is no identity of that name.
        """
        return self.records[name]

    def add(self, record: Record) -> None:
        """
        Add a line for a new identity at the end of the file.

        Args:
            record: of the identity.

        Raises:
            DuplicateIdentity: the name is taken.
        """
        if record.name in self.records:
            raise DuplicateIdentity(record.name)
        # What can't be read again would keep everybody out.
        record.check()
        self.checkGroups(record.groups)
        self._places[record.name] = len(self._lines)
        self._lines.append(None)
        self._write(record, writeLine(record))

    def replace(self, record: Record) -> Record:
        """Replace a line, if anything in it is different."""
        if record != self.records[record.name]:
            record.check()
            self.checkGroups(record.groups)
            self._write(record, writeLine(record))
        return record

    def _write(self, record: Record, text: str) -> None:
        life = writeLife(record)
        place = self._lifePlaces.get(record.name)
        if place is not None:
            self._lines[place] = Line(life, None, life=record) if life else None
        elif life:
            # Both in one place: they are two lines again when the file is read.
            text = f"{text}\n{life}"
        self._lines[self._places[record.name]] = Line(text, record)
        self.records[record.name] = record
        self.changed = True

    def checkGroups(self, names: Iterable[str]) -> None:
        """
        Check that there are these groups.

        Args:
            names: of the groups.

        Raises:
            UnknownGroup: one is not there.
        """
        for name in names:
            if name not in self.groups:
                raise UnknownGroup(name)

    def setGroup(self, name: str, keys: frozenset[Key] | None) -> None:
        """
        Write the line of a group.

        Args:
            name: of the group; a new one is added at the end.
            keys: that it is to hold; `None`: it is removed.
        """
        place = self._groupPlaces.get(name)
        if keys is None:
            del self.groups[name]
            self._lines[self._groupPlaces.pop(name)] = None
        else:
            group = Group(name, keys)
            line = Line(writeGroup(group), None, group)
            self.groups[name] = keys
            if place is None:
                self._groupPlaces[name] = len(self._lines)
                self._lines.append(line)
            else:
                self._lines[place] = line
        self.changed = True

    def remove(self, name: str) -> None:
        """
        Remove the line of an identity.

        Args:
            name: of the identity.

        Raises:
            KeyError: there is no identity of that name.
        """
        del self.records[name]
        self._lines[self._places.pop(name)] = None
        if name in self._lifePlaces:
            self._lines[self._lifePlaces.pop(name)] = None
        self.changed = True

    def text(self) -> str:
        """Return the new text of the file."""
        return writeLines(line for line in self._lines if line is not None)


class PasswdFile:
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
            createPrivate(self._path)

    def signature(self) -> _Signature | None:
        """Return the signature that it has now; `None` if it is not there."""
        try:
            return _signatureOf(os.stat(self._path))
        except OSError:
            return None

    def read(self, known: Content | None) -> Content:
        """
        Read it.

        Args:
            known: what was read last: the same bytes are not looked through twice.

        Returns:
            What the file holds, with what is wrong with it.
        """
        try:
            for _ in range(_MOST_ATTEMPTS):
                found = self._readOnce(known)
                if found is not None:
                    return found
            raise StoreError(
                f"{self._path} keeps changing while it is read. Find out which program writes it."
            )
        except StoreError as refusal:
            return Content((), False, b"", {}, refusal=str(refusal))

    def _readOnce(self, known: Content | None) -> Content | None:
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
        self, data: bytes, signature: _Signature, now: int, known: Content | None
    ) -> Content:
        settled = max(signature[-2:]) + _GRAIN < now
        digest = hashlib.sha256(data).digest()
        if known is not None and known.digest == digest:
            return evolve(known, signature=signature, settled=settled)
        try:
            read = Editing(self._lines(data))
        except StoreError as refusal:
            return Content(signature, settled, digest, {}, refusal=str(refusal))
        return Content(signature, settled, digest, read.records, read.groups)

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
            raise StoreError(f"{self._path} is not a regular file. Name another one.")
        problem = exposure(
            self._path,
            found,
            f"Other users can access the verifiers in {self._path}",
            # Root chooses who may read, as with /etc/shadow: the group of a server, for instance.
            0o077 if found.st_uid else 0o037,
        )
        if problem is not None:
            raise StoreError(problem)

    def change(self, change: Callable[[Editing], _Result]) -> tuple[_Result, Content]:
        """
        Change it, while nobody else does.

        Args:
            change: is called with the lines; what it raises leaves the file as it is.

        Returns:
            What `change` returned, and what the file holds now.

        Raises:
            StoreError: it can't be read or written, or is malformed.
        """
        # The target of a link is replaced, not the link.
        path = os.path.realpath(self._path)
        with self._locked(path), self._explained("write"):
            with _opened(path, os.O_RDONLY | os.O_NONBLOCK) as descriptor:
                found = os.fstat(descriptor)
                self._check(found)
                with os.fdopen(os.dup(descriptor), "rb") as file:
                    data = file.read()
            editing = Editing(self._lines(data))
            result = change(editing)
            signature = _signatureOf(found)
            if editing.changed:
                data = editing.text().encode("utf-8")
                # Whoever writes holds the lock, so nobody else uses this draft.
                with self._keepingOwner():
                    written = writePrivate(path, data, former=found, draft=f"{path}.new")
                signature = _signatureOf(written)
            digest = hashlib.sha256(data).digest()
            return result, Content(signature, False, digest, editing.records, editing.groups)

    def copy(self) -> bytes:
        """
        Return all that it holds.

        Raises:
            StoreError: it can't be read, or is malformed.
        """
        with self._explained("read"), open(self._path, "rb") as file:
            data = file.read()
        self._lines(data)
        return data

    def restore(self, data: bytes) -> None:
        """
        Replace all that it holds, while nobody else changes it; it is made if there is none.

        Args:
            data: from `copy`.

        Raises:
            StoreError: it can't be written, or the data is malformed.
        """
        Editing(self._lines(data))
        self.make()
        path = os.path.realpath(self._path)
        with self._locked(path), self._explained("write"), self._keepingOwner():
            writePrivate(path, data, former=os.stat(path), draft=f"{path}.new")

    @contextmanager
    def _keepingOwner(self) -> Iterator[None]:
        try:
            yield
        except OtherOwner:
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
                with self._keepingOwner():
                    keepOwner(descriptor, former)
            deadline = time.monotonic() + self._lockTimeout
            while not lock(descriptor, wait=False):
                if time.monotonic() > deadline:
                    raise StoreError(
                        f"{self._path} is locked by another process, for more than "
                        f"{self._lockTimeout:g} seconds now. Try again; if it stays so, find that "
                        "process."
                    )
                time.sleep(0.01)
            yield

    def decoySecret(self, new: bytes) -> bytes:
        """
        Return the secret that decoys are made from.

        Args:
            new: kept from now on if there is none yet.

        Raises:
            StoreError: it can't be made or read, or others can read it.
        """
        path = f"{os.path.realpath(self._path)}.decoy"
        with self._explained("make the secret of the decoys beside"):
            if not os.path.exists(path):
                createPrivate(path, new)
            with _opened(path, os.O_RDONLY | os.O_NONBLOCK) as descriptor:
                found = os.fstat(descriptor)
                secret = os.read(descriptor, _DECOY_BYTES)
        problem = exposure(path, found, f"Other users can read the secret in {path}")
        if problem is not None:
            raise StoreError(problem)
        if len(secret) != _DECOY_BYTES:
            raise StoreError(f"{path} is damaged. Remove it, and a new one will be created.")
        return secret

    @contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or type(error).__name__
            refusal = StoreError(
                f"Can't {doing} {self._path}: {reason}. Do the file and its folder exist, and may "
                "you read and write them?"
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
