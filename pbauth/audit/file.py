"""
The audit log as a file: a line of JSON for each event.

The file is made for its owner only.  Each line is appended by a single write, so a server and the
``pbauth`` command may share the file.  Whatever happens to it, the server goes on: that lines are
lost is logged once in the ordinary log, and recorded in the file itself as soon as it can be
written again (the event ``audit.gap``).  A file that was removed is created again; one that was
renamed is written to until `AuditFile.reopen` is called, so that no line is lost when logs are
rotated.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import time

from twisted.logger import ILogObserver, LogEvent, Logger, globalLogPublisher
from zope.interface import implementer

from pbauth._files import exposure, giveToFolder
from pbauth.audit.events import AUDIT_GAP, asLine, encode

_log = Logger()


class AuditUnwritable(Exception):
    """Say that the audit log can't be written, why, and what to do."""


@implementer(ILogObserver)
class AuditFile:
    """
    Write the events of the audit log to a file.

    Args:
        path: of the file, which is created if it does not exist; ``-``: standard output.

    Attributes:
        path: the same, absolute.
        lost: how many events could not be written since the last one that could.

    Raises:
        AuditUnwritable: it can't be opened, is no file, or others may write to it.
    """

    def __init__(self, path: str) -> None:
        self._isOutput = path == "-"
        self.path = path if self._isOutput else os.path.abspath(path)
        self.lost = 0
        self._torn = False
        self._descriptor = _output() if self._isOutput else _open(self.path)

    def __call__(self, event: LogEvent) -> None:
        """Write an event, if it is one of the audit (see `ILogObserver`)."""
        line = asLine(event)
        if line is None:
            return
        gap = encode(AUDIT_GAP, time(), {"lost": self.lost}) if self.lost else b""
        try:
            self._write(gap + line)
        except (OSError, AuditUnwritable) as error:
            self.lost += 1
            if self.lost == 1:
                _log.error(
                    "{problem} Events are lost until it can be written.", problem=_explain(error)
                )
            return
        if gap:
            lost, self.lost = self.lost, 0
            _log.warn(
                "The audit file {path} can be written again; {lost} events are missing.",
                path=self.path,
                lost=lost,
            )

    def reopen(self) -> None:
        """Open the file of that name again. If it can't be opened, that is logged."""
        try:
            self._reopen()
        except AuditUnwritable as problem:
            _log.error("{problem} The old file stays in use.", problem=problem)

    def close(self) -> None:
        """Close the file. Nothing may be written after that."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def _reopen(self) -> None:
        if self._isOutput:
            return
        old, self._descriptor = self._descriptor, _open(self.path)
        os.close(old)
        self._torn = False

    def _write(self, data: bytes) -> None:
        if not os.fstat(self._descriptor).st_nlink:
            # It was removed, maybe with its folder: what is written there, nobody can read.
            self._reopen()
        if self._torn:
            # A line was cut off by a full disk.
            data = b"\n" + data
        while data:
            written = os.write(self._descriptor, data)
            data = data[written:]
            self._torn = bool(data)


def _explain(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"Can't write to the audit file: {error.strerror}."
    return str(error)


def _output() -> int:
    # Where it was closed at the start, the number is that of some other file by now.
    if sys.__stdout__ is None:
        raise AuditUnwritable(
            "The standard output, where the audit log goes, is closed. Name a file with --audit."
        )
    return os.dup(1)


def _open(path: str) -> int:
    # Not to wait for a reader, if it is a pipe.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK
    isNew = not os.path.lexists(path)
    try:
        descriptor = os.open(path, flags, 0o600)
        if isNew:
            giveToFolder(descriptor, path)
    except OSError as error:
        raise AuditUnwritable(f"Can't open the audit file {path}: {error.strerror}.") from None
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode):
        problem = exposure(path, found, f"Other users can write to the audit file {path}", 0o022)
    else:
        problem = f"The audit file {path} is not a regular file. Name another one."
    if problem is not None:
        os.close(descriptor)
        raise AuditUnwritable(problem)
    return descriptor


@contextmanager
def auditing(path: str | None) -> Iterator[None]:
    """
    Write the events of the audit to a file, as long as the body of the ``with`` runs.

    Args:
        path: of the file; `None`: write nothing.

    Raises:
        AuditUnwritable: it can't be opened; or, in the end, it could not be written to.
    """
    if path is None:
        yield
        return
    file = AuditFile(path)
    globalLogPublisher.addObserver(file)
    try:
        yield
    finally:
        globalLogPublisher.removeObserver(file)
        file.close()
    if file.lost:
        raise AuditUnwritable(
            f"The change was made, but could not be written to the audit file {file.path}."
        )
