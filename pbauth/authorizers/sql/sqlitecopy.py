"""Copies of whole SQLite databases: made, and put in place, while servers use them."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from pbauth.accounts.authorizer import DECOY_BYTES
from pbauth.authorizers.sql.sqlite import SQLiteEngine, versionOf
from pbauth.authorizers.sql.sqlitefile import takePlace, withoutId
from pbauth.errors import StoreError

#: Seconds to wait for others that write.
_PATIENCE = 30.0


def copyDatabase(path: str, target: str) -> None:
    """
    Copy a database as it is at one moment.

    Args:
        path: of the database.
        target: of the copy, an empty file.

    Raises:
        StoreError: it is not a database of pbauth, or can't be read.
    """
    with _explained(path), closing(_connect(path)) as source, closing(_connect(target)) as copy:
        versionOf(source, path)
        source.backup(copy)
        if versionOf(copy, target):
            withoutId(copy)


def replaceDatabase(path: str, copy: str) -> None:
    """
    Put a copy in the place of a database, in one transaction; the servers that use it look at all
    their sessions again.

    Args:
        path: of the database; it is made if there is none.
        copy: the path of the copy, which is changed: an older schema is upgraded.

    Raises:
        StoreError: the copy is damaged, or the database can't be written.
    """
    with _explained(copy):
        with closing(_connect(copy)) as source:
            if not versionOf(source, copy):
                raise StoreError("There are no accounts in the backup.")
            if source.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
                raise StoreError("The database in the backup is damaged.")
        SQLiteEngine(copy, _PATIENCE).prepare(secrets.token_bytes(DECOY_BYTES))
    with _explained(path):
        SQLiteEngine(path, _PATIENCE).prepare(secrets.token_bytes(DECOY_BYTES))
        with closing(_connect(path)) as target, closing(_connect(copy)) as source:
            # A server looks at what comes after the last change that it saw; no name: anybody.
            last = max(_lastChange(target), _lastChange(source))
            source.execute("INSERT INTO changes (serial, identity) VALUES (?, '')", (last + 1,))
            takePlace(source, target)
            source.backup(target)


def _lastChange(connection: sqlite3.Connection) -> int:
    (last,) = connection.execute(
        "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'changes'"
    ).fetchone()
    return int(last)


def _connect(path: str) -> sqlite3.Connection:
    return sqlite3.connect(path, _PATIENCE, isolation_level=None)


@contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(SQLiteEngine(path, _PATIENCE).explain(error)) from None
