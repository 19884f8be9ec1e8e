"""
Identities in an SQLite file.

The file is opened once to check it, to make its tables where there are none, and to read what
all decoys are made from; after that every operation is one interaction of `adbapi`, that is one
transaction and one hop to a thread.  Other processes (the `pbauth` command) may change the file
at any time: an identity is read anew for each login.

An identity that this authorizer gives is a copy.  Changes to it count when it is saved, and that is
when sessions that are no longer allowed end.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from attrs import field, frozen
from twisted.enterprise import adbapi
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

from pbauth.authorizer import Authorizer
from pbauth.errors import DuplicateIdentity, StoreError, Unauthorized
from pbauth.hashing import Hashing
from pbauth.interfaces import IIdentity
from pbauth.mechanisms import decodeVerifier, scram
from pbauth.mechanisms.scram import ScramVerifier
from pbauth.reactors import chooseReactor

_log = Logger()
_Result = TypeVar("_Result")

#: Says of an SQLite file that it is one of ours: "pbau".
APPLICATION_ID = 0x70626175
#: The version of the schema below.
SCHEMA_VERSION = 1

_SCHEMA = (
    """
    CREATE TABLE meta (
        name TEXT PRIMARY KEY NOT NULL,
        value BLOB NOT NULL
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE identities (
        name TEXT PRIMARY KEY NOT NULL CHECK (length(CAST(name AS BLOB)) BETWEEN 1 AND 255),
        locked INTEGER NOT NULL DEFAULT 0 CHECK (locked IN (0, 1))
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE verifiers (
        identity TEXT NOT NULL REFERENCES identities (name) ON DELETE CASCADE,
        mechanism TEXT NOT NULL,
        verifier TEXT NOT NULL,
        PRIMARY KEY (identity, mechanism)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE keys (
        identity TEXT NOT NULL REFERENCES identities (name) ON DELETE CASCADE,
        service TEXT NOT NULL CHECK (length(CAST(service AS BLOB)) BETWEEN 1 AND 255),
        perspective TEXT NOT NULL CHECK (length(CAST(perspective AS BLOB)) BETWEEN 1 AND 255),
        PRIMARY KEY (identity, service, perspective)
    ) WITHOUT ROWID
    """,
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)

_DECOY_SECRET = "decoy secret"  # noqa: S105 - the name of a row


@frozen
class _State:
    """What is stored of one identity; verifiers are pairs of mechanism and encoded text."""

    locked: bool = False
    verifiers: frozenset[tuple[str, str]] = field(default=frozenset(), repr=False)
    keys: frozenset[tuple[str, str]] = frozenset()


class SQLAuthorizer(Authorizer):
    """
    Keeps identities in an SQLite file, which is made if there is none, readable by its owner only.

    Args:
        database: the path of the file.
        serviceCollection: as for `Authorizer`.
        hashing: as for `Authorizer`.
        reactor: provides threads; the global one by default.
        lockTimeout: seconds to wait while another process writes to the file.

    Raises:
        StoreError: the file can't be opened or made, is no database of pbauth, or is one of a
            later version.
    """

    def __init__(
        self,
        database: str | os.PathLike[str],
        serviceCollection: Any = None,
        hashing: Hashing = Hashing(),  # noqa: B008 - immutable
        *,
        reactor: Any = None,
        lockTimeout: float = 5.0,
    ) -> None:
        super().__init__(serviceCollection, hashing)
        # What is stored of each copy that was given out, so that saving it writes what was
        # changed in it and nothing else: two may change the same identity at once.
        self._storedState: WeakKeyDictionary[Any, _State] = WeakKeyDictionary()
        self._path = os.fspath(database)
        self._lockTimeout = lockTimeout
        self._decoySecret = self._prepare()
        self._pool: Any = adbapi.ConnectionPool(
            "sqlite3",
            self._path,
            timeout=lockTimeout,
            check_same_thread=False,
            cp_min=1,
            cp_max=3,
            cp_openfun=_configure,
            cp_noisy=False,
            cp_reactor=chooseReactor(reactor),
        )

    def close(self) -> None:
        """Close the file. Call it once, when nothing is under way any more."""
        self._pool.close()

    def addIdentity(self, identity: IIdentity) -> Deferred[None]:
        """
        Store a new identity.

        Returns:
            Fires when it is stored; fails with `DuplicateIdentity` if the name is taken, or
            with `StoreError`.
        """

        def add(cursor: sqlite3.Cursor, state: _State) -> None:
            try:
                cursor.execute("INSERT INTO identities (name) VALUES (?)", (identity.name,))
            except sqlite3.IntegrityError:
                raise DuplicateIdentity(identity.name) from None
            _writeChanges(cursor, identity.name, _State(), state)

        return Deferred.fromCoroutine(self._write(identity, add))

    def updateIdentity(self, identity: IIdentity) -> Deferred[None]:
        """
        Store what changed, and end the sessions that are no longer allowed.

        Returns:
            Fires when that is done; fails with `KeyError` if the identity is not known, or with
            `StoreError`.
        """

        def update(cursor: sqlite3.Cursor, state: _State) -> None:
            cursor.execute("SELECT 1 FROM identities WHERE name = ?", (identity.name,))
            if cursor.fetchone() is None:
                raise KeyError(identity.name)
            before = self._storedState.get(identity)
            if before is None:
                before = _readState(cursor, identity.name)
            _writeChanges(cursor, identity.name, before, state)

        async def updateAndEnd() -> None:
            await self._write(identity, update)
            self.sessions.endForbidden(identity)

        return Deferred.fromCoroutine(updateAndEnd())

    def renewVerifier(
        self, identity: IIdentity, old: ScramVerifier, new: ScramVerifier
    ) -> Deferred[bool]:
        """
        Replace a verifier by a stronger one of the same password, unless somebody, in whatever
        process, replaced it in the meantime.

        Returns:
            Fires with whether that was done; fails with `StoreError`.
        """

        def renew(cursor: sqlite3.Cursor) -> bool:
            cursor.execute("BEGIN IMMEDIATE")
            cursor.execute(
                "UPDATE verifiers SET verifier = ?"
                " WHERE identity = ? AND mechanism = ? AND verifier = ?",
                (new.encode(), identity.name, scram.NAME, old.encode()),
            )
            return bool(cursor.rowcount)

        return Deferred.fromCoroutine(self._run(renew))

    def removeIdentity(self, name: str) -> Deferred[None]:
        """
        Forget an identity, and end its sessions.

        Returns:
            Fires when that is done; fails with `KeyError` if it is not known, or with
            `StoreError`.
        """

        def remove(cursor: sqlite3.Cursor) -> None:
            cursor.execute("BEGIN IMMEDIATE")
            cursor.execute("DELETE FROM identities WHERE name = ?", (name,))
            if not cursor.rowcount:
                raise KeyError(name)

        async def removeAndEnd() -> None:
            await self._run(remove)
            self.sessions.endAll(name)

        return Deferred.fromCoroutine(removeAndEnd())

    def getIdentityRequest(self, name: str) -> Deferred[Any]:
        """
        Returns:
            Fires with a copy of the identity; fails with `Unauthorized` if there is none, or with
            `StoreError`.
        """

        def read(cursor: sqlite3.Cursor) -> _State:
            cursor.execute("BEGIN")
            return _readState(cursor, name)

        async def request() -> Any:
            state = await self._run(read)
            identity = self.createIdentity(name)
            identity.setVerifiers(
                {mechanism: decodeVerifier(verifier) for mechanism, verifier in state.verifiers}
            )
            for key in state.keys:
                identity.addKeyByString(*key)
            identity.locked = state.locked
            identity.stored = True
            self._storedState[identity] = state
            return identity

        return Deferred.fromCoroutine(request())

    def listIdentities(self) -> Deferred[list[tuple[str, bool, int]]]:
        """
        Returns:
            Fires with a tuple for each identity, sorted by name: the name, whether it is locked,
            and the number of its keys; fails with `StoreError`.
        """

        def read(cursor: sqlite3.Cursor) -> list[tuple[str, bool, int]]:
            cursor.execute(
                "SELECT name, locked, (SELECT count(*) FROM keys WHERE identity = name)"
                " FROM identities ORDER BY name"
            )
            return [(name, bool(locked), keys) for name, locked, keys in cursor.fetchall()]

        return Deferred.fromCoroutine(self._run(read))

    def identityChanged(self, identity: IIdentity) -> None:
        """Nothing: the identity is a copy, and counts when it is saved."""

    async def _write(
        self, identity: IIdentity, statements: Callable[[sqlite3.Cursor, _State], None]
    ) -> None:
        # Passwords may still be on their way to becoming verifiers.
        verifiers = await maybeDeferred(identity.getVerifiers)
        state = _State(
            bool(identity.locked),
            frozenset((name, verifier.encode()) for name, verifier in verifiers.items()),
            frozenset((service, perspective) for service, perspective in identity.getAllKeys()),
        )

        def write(cursor: sqlite3.Cursor) -> None:
            cursor.execute("BEGIN IMMEDIATE")
            statements(cursor, state)

        await self._run(write)
        self._storedState[identity] = state
        identity.stored = True

    async def _run(self, interaction: Callable[[sqlite3.Cursor], _Result]) -> _Result:
        with self._asStoreError():
            return await self._pool.runInteraction(interaction)

    @contextmanager
    def _asStoreError(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            refusal = StoreError(_explain(self._path, error, self._lockTimeout))
            # A client is told only that the accounts can't be reached.
            _log.error("{refusal}", refusal=refusal)
            raise refusal from None

    def _prepare(self) -> bytes:
        """Check the file, or make it; give the secret that decoys are made from."""
        with self._asStoreError():
            _makePrivate(self._path)
            with closing(
                sqlite3.connect(self._path, self._lockTimeout, isolation_level=None)
            ) as connection:
                _configure(connection)
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("BEGIN IMMEDIATE")
                version = _versionOf(connection, self._path)
                if not version:
                    for statement in _SCHEMA:
                        connection.execute(statement)
                    connection.execute(
                        "INSERT INTO meta (name, value) VALUES (?, ?)",
                        (_DECOY_SECRET, secrets.token_bytes(32)),
                    )
                row = connection.execute(
                    "SELECT value FROM meta WHERE name = ?", (_DECOY_SECRET,)
                ).fetchone()
                connection.execute("COMMIT")
                return bytes(row[0])


def _versionOf(connection: sqlite3.Connection, path: str) -> int:
    """The version of the schema; 0 for an empty database."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not tables and not application:
        return 0
    if application != APPLICATION_ID:
        raise StoreError(f"{path} is a database of another program. Name another file.")
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path} was made by a later version of pbauth (schema {version}; this one knows "
            f"{SCHEMA_VERSION}). Upgrade pbauth."
        )
    return int(version)


def _configure(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    # With a write-ahead log this makes each commit last, whatever happens to the machine.
    connection.execute("PRAGMA synchronous = FULL")


def _makePrivate(path: str) -> None:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        pass
    except OSError as error:
        raise StoreError(f"Can't make {path}: {error.strerror}.") from None


def _readState(cursor: sqlite3.Cursor, name: str) -> _State:
    cursor.execute("SELECT locked FROM identities WHERE name = ?", (name,))
    found = cursor.fetchone()
    if found is None:
        raise Unauthorized()
    cursor.execute("SELECT mechanism, verifier FROM verifiers WHERE identity = ?", (name,))
    verifiers = frozenset(cursor.fetchall())
    cursor.execute("SELECT service, perspective FROM keys WHERE identity = ?", (name,))
    return _State(bool(found[0]), verifiers, frozenset(cursor.fetchall()))


def _writeChanges(cursor: sqlite3.Cursor, name: str, before: _State, after: _State) -> None:
    if before.locked != after.locked:
        cursor.execute("UPDATE identities SET locked = ? WHERE name = ?", (int(after.locked), name))
    changed = before.verifiers ^ after.verifiers
    cursor.executemany(
        "DELETE FROM verifiers WHERE identity = ? AND mechanism = ?",
        sorted({(name, mechanism) for mechanism, _ in changed}),
    )
    cursor.executemany(
        "INSERT INTO verifiers (identity, mechanism, verifier) VALUES (?, ?, ?)",
        [(name, *verifier) for verifier in sorted(after.verifiers & changed)],
    )
    cursor.executemany(
        "DELETE FROM keys WHERE identity = ? AND service = ? AND perspective = ?",
        [(name, *key) for key in sorted(before.keys - after.keys)],
    )
    cursor.executemany(
        "INSERT INTO keys (identity, service, perspective) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        [(name, *key) for key in sorted(after.keys - before.keys)],
    )


def _explain(path: str, error: sqlite3.Error, lockTimeout: float) -> str:
    text = str(error)
    if "locked" in text or "busy" in text:
        return (
            f"{path} is locked by another process, for more than {lockTimeout:g} seconds now. "
            "Try again; if it stays so, find that process."
        )
    if "readonly" in text or "read-only" in text:
        return f"{path} is read-only. Make the file and its folder writable."
    if "not a database" in text or "malformed" in text:
        return f"{path} is damaged, or no SQLite database. Restore it from a backup."
    if "full" in text:
        return f"There is no space left to write {path}."
    if "unable to open" in text:
        return f"Can't open {path}. Is its folder there, and is it yours?"
    return f"{path}: {text}."
