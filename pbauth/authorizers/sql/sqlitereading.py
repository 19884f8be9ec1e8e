"""An SQLite file that is only looked at: nothing is written, and no writer is waited for."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import Any
from urllib.parse import quote

from twisted.enterprise import adbapi

from pbauth.accounts.authorizer import Cost
from pbauth.authorizers.sql.engine import SCHEMA_VERSION
from pbauth.authorizers.sql.sqlite import (
    SQLiteEngine,
    checkPrivate,
    checkRegular,
    readCosts,
    versionOf,
)
from pbauth.authorizers.sql.sqliteschema import STEPS


class SQLiteReader(SQLiteEngine):
    """
    A file that is read as it is.

    SQLite needs a file beside that of a database for what readers and writers tell each other.
    Where it can't be made, and nobody writes, the database is read without. A database with an
    older schema is copied into memory, and the copy is upgraded.

    Args:
        path: of the file.
        lockTimeout: seconds to wait while another process recovers it.
    """

    def __init__(self, path: str, lockTimeout: float) -> None:
        super().__init__(path, lockTimeout)
        self._uri = f"file:{quote(path)}?mode=ro"
        # The copy in memory is there as long as this is open.
        self._copy: sqlite3.Connection | None = None

    def prepare(self, decoySecret: bytes) -> tuple[bytes, list[Cost]]:
        """Check the file (see `Engine`). No decoys are made where nobody logs in."""
        checkRegular(self.where)
        try:
            version = self._look()
        except sqlite3.OperationalError:
            if self._isWritten():
                raise
            self._uri += "&immutable=1"
            version = self._look()
        checkPrivate(self.where)
        if version < SCHEMA_VERSION:
            self._copyToMemory(version)
        with closing(self._connect()) as connection:
            return decoySecret, readCosts(connection)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._uri, self._lockTimeout, isolation_level=None, uri=True, check_same_thread=False
        )
        connection.execute("PRAGMA temp_store = MEMORY")
        return connection

    def _look(self) -> int:
        with closing(self._connect()) as connection:
            return versionOf(connection, self.where)

    def _isWritten(self) -> bool:
        """Return whether some of the database is in its write-ahead log, or may be any moment."""
        try:
            return os.stat(f"{self.where}-wal").st_size > 0
        except FileNotFoundError:
            return not os.path.exists(self.where)

    def _copyToMemory(self, version: int) -> None:
        with closing(self._connect()) as connection:
            self._uri = f"file:pbauth-{id(self):x}?mode=memory&cache=shared"
            self._copy = self._connect()
            connection.backup(self._copy)
        for step in range(version + 1, SCHEMA_VERSION + 1):
            for statement in STEPS[step]:
                self._copy.execute(statement)

    def openPool(self, reactor: Any) -> Any:
        """Open the file, or the copy of it (see `Engine`)."""
        return adbapi.ConnectionPool(
            "sqlite3",
            self._uri,
            uri=True,
            timeout=self._lockTimeout,
            check_same_thread=False,
            cp_min=1,
            cp_max=1,
            cp_openfun=_keepInMemory,
            cp_noisy=False,
            cp_reactor=reactor,
        )


def _keepInMemory(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA temp_store = MEMORY")
