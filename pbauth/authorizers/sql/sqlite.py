"""Identities in an SQLite file: the engine that needs no server."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from itertools import chain, count
from typing import Any

from twisted.application.service import Service
from twisted.enterprise import adbapi
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from pbauth._files import createPrivate, exposure
from pbauth.accounts.authorizer import MOST_COSTS, Cost
from pbauth.authorizers.sql.engine import DECOY_SECRET, OFTEN, SCHEMA_VERSION, Changed, costsOf
from pbauth.authorizers.sql.sqlitefile import MOVED, OVERWRITTEN, DatabaseFile, countWrite
from pbauth.authorizers.sql.sqliteschema import APPLICATION_ID, STEPS
from pbauth.errors import StoreError
from pbauth.interfaces import IChangesService

_log = Logger()

# Of SCRAM-SHA-256$<iterations>:<salt>$<keys>, the most frequent ones.
_COSTS = """
    SELECT iterations, length(rtrim(substr(rest, 1, instr(rest, '$') - 1), '='))
    FROM (
        SELECT
            substr(verifier, 15, instr(verifier, ':') - 15) AS iterations,
            substr(verifier, instr(verifier, ':') + 1) AS rest
        FROM verifiers WHERE mechanism = 'SCRAM-SHA-256'
    )
    GROUP BY 1, 2 ORDER BY count(*) DESC, 1, 2 LIMIT ?
"""


class SQLiteEngine:
    """
    A file. It is created if it does not exist, readable by its owner only.

    Args:
        path: of the file.
        lockTimeout: seconds to wait while another process writes to it.
    """

    Error = sqlite3.Error
    IntegrityError = sqlite3.IntegrityError
    forUpdate = ""

    def __init__(self, path: str, lockTimeout: float) -> None:
        self.where = path
        self.upgraded = ""
        self._file = DatabaseFile(path)
        self._lockTimeout = lockTimeout

    def prepare(self, decoySecret: bytes) -> tuple[bytes, list[Cost]]:
        """Check the file, make it, or upgrade it (see `Engine`)."""
        _makePrivate(self.where)
        checkRegular(self.where)
        self._file.open()
        with closing(
            sqlite3.connect(self.where, self._lockTimeout, isolation_level=None)
        ) as connection:
            _configure(connection)
            self._chooseWriteAheadLog(connection)
            connection.execute("BEGIN IMMEDIATE")
            version = versionOf(connection, self.where)
            checkPrivate(self.where)
            if version < SCHEMA_VERSION:
                self._upgrade(connection, version)
            connection.execute(
                "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING",
                (DECOY_SECRET, decoySecret),
            )
            row = connection.execute(
                "SELECT value FROM meta WHERE name = ?", (DECOY_SECRET,)
            ).fetchone()
            self._file.identify(connection)
            connection.execute("COMMIT")
            self._file.settle(connection)
            return bytes(row[0]), readCosts(connection)

    def _upgrade(self, connection: sqlite3.Connection, version: int) -> None:
        """Bring the tables from a version to the current one, in the transaction that is open."""
        if version:
            kept = self._keepCopy(version)
            self.upgraded = (
                f"{self.where} was upgraded from version {version} of its schema to "
                f"{SCHEMA_VERSION}. A copy of it from before is in {kept}"
            )
        for step in range(version + 1, SCHEMA_VERSION + 1):
            for statement in STEPS[step]:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _keepCopy(self, version: int) -> str:
        """Copy what was committed to a new private file beside it, and return its path."""
        names = chain([""], (f"-{number}" for number in count(2)))
        for suffix in names:
            path = f"{self.where}.schema{version}{suffix}"
            if _makePrivate(path):
                break
        with (
            closing(sqlite3.connect(self.where, self._lockTimeout)) as source,
            closing(sqlite3.connect(path)) as copy,
        ):
            source.backup(copy)
        return path

    def _chooseWriteAheadLog(self, connection: sqlite3.Connection) -> None:
        """Choose the write-ahead log; SQLite itself would not wait for another process."""
        deadline = time.monotonic() + self._lockTimeout
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return

    def openPool(self, reactor: Any) -> Any:
        """Open the file (see `Engine`)."""
        return _Pool(
            self._file.check,
            "sqlite3",
            self.where,
            timeout=self._lockTimeout,
            check_same_thread=False,
            cp_min=1,
            cp_max=3,
            cp_openfun=_configure,
            cp_noisy=False,
            cp_reactor=reactor,
        )

    def translate(self, statement: str) -> str:
        """Return the statement as it is."""
        return statement

    def beginWriting(self, cursor: Any) -> None:
        """Keep all others from writing."""
        cursor.execute("BEGIN IMMEDIATE")
        countWrite(cursor)

    def isLost(self, error: Exception) -> bool:
        """Return `False`: a file is never lost."""
        return False

    def explain(self, error: Exception) -> str:
        """Return what an error means (see `Engine`)."""
        text = str(error)
        if "locked" in text or "busy" in text:
            return (
                f"{self.where} is locked by another process, for more than "
                f"{self._lockTimeout:g} seconds now. Try again; if it stays so, find that process."
            )
        if "readonly" in text or "read-only" in text:
            return f"{self.where} is read-only. Make the file and its folder writable."
        if text == MOVED:
            return (
                f"{self.where} was replaced by another file while it was in use. Restart this "
                "server. To put a backup in place while servers run, use: pbauth restore"
            )
        if text == OVERWRITTEN:
            return (
                f"{self.where} was overwritten while it was in use. Stop all servers that use it, "
                f"remove {self.where}-wal and {self.where}-shm, and copy the backup there again. "
                "To put a backup in place while servers run, use: pbauth restore"
            )
        if "not a database" in text or "malformed" in text:
            return f"{self.where} is damaged, or not an SQLite database. Restore it from a backup."
        if "full" in text:
            return f"There is no space left to write {self.where}."
        if "unable to open" in text:
            return f"Can't open {self.where}. Does its folder exist, and may you write there?"
        return f"{self.where}: {text}."

    def changesService(self, reactor: Any, pool: Any, changed: Changed) -> ChangesInFile:
        """Return a service that looks for changes (see `Engine`)."""
        return ChangesInFile(pool, reactor, changed, self.explain)


class _Pool(adbapi.ConnectionPool):
    """
    Connections to a file, which are of use as long as the file is the same.

    Args:
        check: raises an error if it is not.
    """

    def __init__(self, check: Callable[[], None], *arguments: Any, **options: Any) -> None:
        self._check = check
        super().__init__(*arguments, **options)

    def connect(self) -> Any:
        """Check the file, and give a connection; called for each interaction."""
        self._check()
        return super().connect()


#: What SQLite puts beside a database.
_SIDES = ("", "-wal", "-shm", "-journal")


def checkRegular(path: str) -> None:
    """
    Check that a database is a file, if there is one.

    Args:
        path: of the database.

    Raises:
        StoreError: it is a folder, or a device.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise StoreError(f"{path} is not a regular file. Name another one.")


def checkPrivate(path: str) -> None:
    """
    Check that a database, and what SQLite puts beside it, are for their owner only.

    Args:
        path: of the database.

    Raises:
        StoreError: others can read or change them.
    """
    for side in _SIDES:
        try:
            found = os.stat(path + side)
        except OSError:
            # There is none, or opening it will say more.
            continue
        problem = exposure(
            path + side, found, f"Other users can access the verifiers in {path}{side}"
        )
        if problem is not None:
            raise StoreError(problem)


@implementer(IChangesService)
class ChangesInFile(Service):
    """
    Looks for changes that other processes make, twice a second.

    Args:
        pool: of connections.
        reactor: provides `IReactorTime`.
        changed: takes the names of the changed identities.
        explain: returns what an error means.
    """

    def __init__(
        self,
        pool: Any,
        reactor: Any,
        changed: Changed,
        explain: Callable[[Exception], str] = str,
    ) -> None:
        self._pool = pool
        self._explain = explain
        self._changed = changed
        self._seen: int | None = None
        self._failed = False
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor

    @property
    def hears(self) -> bool:
        """Return whether the last look succeeded."""
        return self._seen is not None and not self._failed

    notices = hears

    def startService(self) -> None:
        """Begin to look."""
        super().startService()
        self._looking.start(OFTEN)

    def stopService(self) -> None:
        """Stop looking."""
        super().stopService()
        self._looking.stop()

    async def _lookOnce(self) -> None:
        rows = await self._pool.runQuery("SELECT seq FROM sqlite_sequence WHERE name = 'changes'")
        last: int = rows[0][0] if rows else 0
        if self._seen is None:
            self._seen = last
        if last == self._seen:
            return
        found = await self._pool.runQuery(
            "SELECT serial, identity FROM changes WHERE serial > ? ORDER BY serial", (self._seen,)
        )
        names = {name for _, name in found}
        whole = bool(found) and found[0][0] == self._seen + 1 and "" not in names
        await self._changed(names if whole else None)
        self._seen = found[-1][0] if found else last

    async def _look(self) -> None:
        try:
            await self._lookOnce()
        except (sqlite3.Error, StoreError) as error:
            # What was missed is seen next time.
            if not self._failed:
                text = self._explain(error) if isinstance(error, sqlite3.Error) else str(error)
                _log.error("Can't look for changes to the accounts: {error}", error=text)
            self._failed = True
        except Exception:
            # As above; the loop must not end by whatever it is.
            if not self._failed:
                _log.failure("Can't look for changes to the accounts")
            self._failed = True
        else:
            self._failed = False


def versionOf(connection: sqlite3.Connection, where: str) -> int:
    """
    Return the version of the schema of a database; 0 for an empty one.

    Args:
        connection: to the database.
        where: the path, for messages.

    Raises:
        StoreError: it is of another program, or of a later version of pbauth.
    """
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not tables and not application:
        return 0
    if application != APPLICATION_ID:
        raise StoreError(f"{where} is a database of another program. Name another file.")
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{where} was made by a later version of pbauth (schema {version}; this one "
            f"knows {SCHEMA_VERSION}). Upgrade pbauth."
        )
    return int(version)


def readCosts(connection: sqlite3.Connection) -> list[Cost]:
    """Return what most verifiers of SCRAM in a database cost."""
    return costsOf(connection.execute(_COSTS, (MOST_COSTS,)))


def _configure(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    # With a write-ahead log this makes each commit last, whatever happens to the machine.
    connection.execute("PRAGMA synchronous = FULL")


def _makePrivate(path: str) -> bool:
    try:
        return createPrivate(path)
    except OSError as error:
        raise StoreError(f"Can't create {path}: {error.strerror}.") from None
