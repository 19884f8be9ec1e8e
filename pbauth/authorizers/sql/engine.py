"""
What `pbauth.authorizers.sql.authorizer` needs of a database, and what the schemas of all have in
common.

An engine knows one kind of database: how to open it, how to make and upgrade the tables, what its
errors mean, and how it tells that another process has changed something.  Statements are written
once, in the SQL that all understand, with ``?`` for each parameter.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import chain
from typing import Any, Protocol

from pbauth.accounts.authorizer import Cost
from pbauth.interfaces import IChangesService

#: The version of the schema.
SCHEMA_VERSION = 4

#: Says that something has changed: the names of the identities; `None`: any. What it gives is to be
#: waited for, and fails where the database can't be read.
Changed = Callable[[Iterable[str] | None], Awaitable[None]]

#: Seconds between two looks for changes, or attempts to listen for them again.
OFTEN = 0.5

#: How many connections to a database are open at most, for all but to listen.
MOST_CONNECTIONS = 5

#: How many rows are inserted by one statement: older versions of SQLite take 999 parameters.
_MANY_ROWS = 300

#: The row of the table ``meta`` that all decoys are made from.
DECOY_SECRET = "decoy secret"  # noqa: S105 - the name of a row


def costsOf(rows: Iterable[tuple[Any, ...]]) -> list[Cost]:
    """
    Read what verifiers cost.

    Args:
        rows: iterations as text, and the length of the salt in base64 without padding.
    """
    return [
        (int(iterations), int(length) * 3 // 4)
        for iterations, length in rows
        if str(iterations).isdigit()
    ]


class Engine(Protocol):
    """
    One database.

    Attributes:
        where: what it is called in messages; without secrets.
        Error: what its module raises.
        IntegrityError: of these, that a constraint is not met.
        forUpdate: ends a query whose rows are about to be changed.
        upgraded: what was upgraded when it was opened, for people; empty: nothing.
    """

    where: str
    upgraded: str
    forUpdate: str

    @property
    def Error(self) -> type[Exception]:
        """Return the class of all errors that the database's module raises."""

    @property
    def IntegrityError(self) -> type[Exception]:
        """Return the class of the errors that say that a constraint is not met."""

    def prepare(self, decoySecret: bytes) -> tuple[bytes, list[Cost]]:
        """
        Check the database, make the tables where there are none, upgrade older ones.

        Args:
            decoySecret: the secret that decoys are made from, of a database that has none yet.

        Returns:
            What decoys are made from: a secret; and what most verifiers of SCRAM cost.

        Raises:
            StoreError: it is not a database of pbauth, or one of a later version.
            Exception: one of `Error`.
        """

    def openPool(self, reactor: Any) -> Any:
        """Return a `twisted.enterprise.adbapi.ConnectionPool`."""

    def translate(self, statement: str) -> str:
        """Put a statement into its own words."""

    def beginWriting(self, cursor: Any) -> None:
        """Begin a transaction that will write. One that reads is a single statement."""

    def isLost(self, error: Exception) -> bool:
        """Return whether the connection is gone, so that another one may do better."""

    def explain(self, error: Exception) -> str:
        """Return what an error means and what to do, in one line without secrets."""

    def changesService(self, reactor: Any, pool: Any, changed: Changed) -> IChangesService:
        """Return a service that tells what others change, while it runs; `pool` is an open one."""


class Statements:
    """
    A transaction.

    Args:
        engine: of the database.
        cursor: of a connection to it.
    """

    def __init__(self, engine: Engine, cursor: Any) -> None:
        self._engine = engine
        self._cursor = cursor

    def run(self, statement: str, *parameters: Any) -> int:
        """Run a statement, and tell how many rows it was about."""
        self._cursor.execute(self._engine.translate(statement), parameters)
        return int(self._cursor.rowcount)

    def runEach(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Run a statement once for each of these rows of parameters."""
        if rows:
            self._cursor.executemany(self._engine.translate(statement), rows)

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
        """
        Insert these rows, many with one statement. SQLite's module lets other threads run while it
        works on a statement, and waits its turn after each: one for each row would take more
        time for that than for the work, where another thread also has work.
        """
        row = f"({', '.join('?' * len(columns))})"
        for start in range(0, len(rows), _MANY_ROWS):
            some = rows[start : start + _MANY_ROWS]
            statement = (
                f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * len(some))}"  # noqa: S608
            )
            self._cursor.execute(self._engine.translate(statement), list(chain.from_iterable(some)))

    def rows(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run a query."""
        self._cursor.execute(self._engine.translate(statement), parameters)
        return list(self._cursor.fetchall())

    def lock(self, name: str) -> bool:
        """Keep others from changing an identity until the end of this, and say if it is there."""
        query = f"SELECT 1 FROM identities WHERE name = ?{self._engine.forUpdate}"  # noqa: S608
        return bool(self.rows(query, name))

    def lockGroup(self, name: str) -> bool:
        """Keep others from changing a group until the end of this, and say if it is there."""
        query = f"SELECT 1 FROM groups WHERE name = ?{self._engine.forUpdate}"  # noqa: S608
        return bool(self.rows(query, name))

    def lockHolders(self, service: str, name: str) -> list[str]:
        """
        Keep others from changing who holds a key to a service until the end of this.

        Args:
            service: the name of the service.
            name: of one more identity to lock, in the same order as all others do.

        Returns:
            The names of those who hold a key to it, themselves or by a group, and this one if it is
            there.
        """
        query = (
            "SELECT name FROM identities WHERE name = ?"
            " OR name IN (SELECT identity FROM keys WHERE service = ?)"
            " OR name IN (SELECT identity FROM members JOIN group_keys"
            " ON group_keys.groupname = members.groupname WHERE service = ?) ORDER BY name"
        )
        query += self._engine.forUpdate
        return [found for (found,) in self.rows(query, name, service, service)]
