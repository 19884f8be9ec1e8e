"""
Whether an SQLite database is still the one that was opened.

SQLite holds on to the file that it has opened.  Another one may be moved to its place, or copied
over it by a program that knows nothing of SQLite; what servers go on to read and to write then is
not what anybody means, and may damage the database.  So each database has an id, which its backups
do not have, and counts its transactions: by what SQLite writes, the one never changes, and the
other never goes back.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

#: The row of the table ``meta`` that holds the id.
ID = "file"
#: The row that holds how many transactions have written.
WRITES = "writes"

#: What the error says if another file was moved to the place of a database.
MOVED = "replaced"
#: What the error says if another file was copied over a database.
OVERWRITTEN = "overwritten"

#: Seconds for which a file may look the same and not hold what it should: another process is
#: writing to it.
PATIENCE = 1.0

_ID_BYTES = 16


class DatabaseFile:
    """
    The file of a database.

    Args:
        path: of the file, which need not exist yet.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._which: tuple[int, int] | None = None
        self._id = b""
        # How the file looked when what is in it was found to be right, or could not be read.
        self._right: tuple[int, int] | None = None
        self._doubtful: tuple[int, int] | None = None
        self._doubtfulSince = 0.0
        # Several threads look; what one has read may be older than what another has.
        self._lock = threading.Lock()
        # The id has been seen in the file; before, it may be in the write-ahead log alone.
        self._hasId = False
        self._writes = 0
        self._isOverwritten = False

    def open(self) -> None:
        """Take note which file it is that has the path."""
        # A link that leads nowhere is for SQLite to complain of.
        with suppress(FileNotFoundError):
            found = os.stat(self._path)
            self._which = found.st_dev, found.st_ino

    def identify(self, connection: sqlite3.Connection) -> None:
        """
        Give the database an id, if it has none, and take note of it.

        Args:
            connection: to the database, in a transaction that writes.
        """
        connection.executemany(
            "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING",
            [(ID, secrets.token_bytes(_ID_BYTES)), (WRITES, 0)],
        )
        self._id, _ = _idAndWrites(connection)

    def settle(self, connection: sqlite3.Connection) -> None:
        """
        Have the id written to the file itself, if it is not there yet.

        Args:
            connection: to the database, in no transaction.
        """
        self.check()
        if not self._hasId:
            connection.execute("PRAGMA wal_checkpoint (PASSIVE)").fetchall()

    def check(self) -> None:
        """
        Check that it is the same file, with the same database in it.

        Raises:
            sqlite3.OperationalError: it is not, `MOVED` or `OVERWRITTEN`.
        """
        with self._lock:
            try:
                found = os.stat(self._path)
            except FileNotFoundError:
                raise sqlite3.OperationalError(MOVED) from None
            if (found.st_dev, found.st_ino) != self._which:
                raise sqlite3.OperationalError(MOVED)
            # The file itself changes seldom: most of the time, all is in the write-ahead log.
            look = (found.st_mtime_ns, found.st_size)
            if look != self._right and not self._isOverwritten:
                self._compare(look)
            if self._isOverwritten:
                raise sqlite3.OperationalError(OVERWRITTEN)

    def _compare(self, look: tuple[int, int]) -> None:
        try:
            # What is in the file, whatever SQLite remembers of it.
            uri = f"{Path(os.path.abspath(self._path)).as_uri()}?mode=ro&immutable=1"
            with closing(sqlite3.connect(uri, uri=True)) as connection:
                found, writes = _idAndWrites(connection)
        except sqlite3.Error:
            found, writes = b"", 0
        if found == self._id and writes >= self._writes:
            self._hasId, self._writes, self._right = True, writes, look
            return
        # Another process may be writing just now.
        now = time.monotonic()
        if look != self._doubtful:
            self._doubtful, self._doubtfulSince = look, now
        elif now - self._doubtfulSince >= PATIENCE:
            self._isOverwritten = self._hasId


def withoutId(connection: sqlite3.Connection) -> None:
    """
    Take the id from a copy of a database, which is another one.

    Args:
        connection: to the copy.
    """
    connection.execute("DELETE FROM meta WHERE name = ?", (ID,))


def countWrite(cursor: sqlite3.Cursor) -> None:
    """
    Count a transaction that writes.

    Args:
        cursor: in the transaction.
    """
    cursor.execute("UPDATE meta SET value = value + 1 WHERE name = ?", (WRITES,))


def takePlace(connection: sqlite3.Connection, other: sqlite3.Connection) -> None:
    """
    Give a copy the id of the database whose contents it is about to replace, as a transaction.

    Args:
        connection: to the copy.
        other: to the database.
    """
    which, writes = _idAndWrites(other)
    rows = [(ID, which), (WRITES, writes + 1)]
    connection.executemany("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", rows)


def _idAndWrites(connection: sqlite3.Connection) -> tuple[bytes, int]:
    question = "SELECT name, value FROM meta WHERE name IN (?, ?)"
    rows = dict(connection.execute(question, (ID, WRITES)))
    return bytes(rows.get(ID, b"")), int(rows.get(WRITES, 0))
