"""Copies of all accounts in a PostgreSQL database, as text that COPY writes and reads."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import psycopg
from psycopg import sql

from pbauth.accounts.authorizer import DECOY_BYTES
from pbauth.authorizers.sql.notifications import CHANNEL
from pbauth.authorizers.sql.postgres import PostgresEngine
from pbauth.errors import StoreError

#: The tables, each after those that it refers to.
TABLES = ("meta", "identities", "groups", "verifiers", "keys", "members", "group_keys")

_CHUNK = 1 << 16


def copyTables(url: str, opened: Callable[[str], Any]) -> None:
    """
    Copy all tables as they are at one moment.

    Args:
        url: of the database.
        opened: takes the name of a table and gives a file to write it to, as a context manager.

    Raises:
        StoreError: the database can't be read, or has another version of the schema.
    """
    with _connected(url, reading=True) as connection:
        for table in TABLES:
            with (
                opened(table) as file,
                connection.cursor().copy(_statement("COPY {} TO STDOUT", table)) as copy,
            ):
                for chunk in copy:
                    file.write(chunk)


def replaceTables(url: str, opened: Callable[[str], Any]) -> None:
    """
    Replace all tables, in one transaction; servers look at all their sessions again.

    Args:
        url: of the database; the tables are made if there are none.
        opened: takes the name of a table and gives a file to read it from, as a context manager.

    Raises:
        StoreError: the database can't be written, or the copy can't be read.
    """
    with _connected(url, reading=False) as connection:
        names = sql.SQL(", ").join(sql.Identifier("pbauth", table) for table in TABLES)
        connection.execute(sql.SQL("TRUNCATE {}").format(names))
        for table in TABLES:
            with (
                opened(table) as file,
                connection.cursor().copy(_statement("COPY {} FROM STDIN", table)) as copy,
            ):
                while chunk := _read(file):
                    copy.write(chunk)
        # No name: anybody.
        connection.execute("SELECT pg_notify(%s, '')", (CHANNEL,))


def hasAccounts(url: str) -> bool:
    """Return whether there are accounts in a database."""
    with _connected(url, reading=False) as connection:
        found = connection.execute("SELECT 1 FROM pbauth.identities LIMIT 1").fetchone()
        return found is not None


def _read(file: BinaryIO) -> bytes:
    return file.read(_CHUNK)


def _statement(text: Any, table: str) -> sql.Composed:
    return sql.SQL(text).format(sql.Identifier("pbauth", table))


@contextmanager
def _connected(url: str, reading: bool) -> Iterator[psycopg.Connection[Any]]:
    engine = PostgresEngine(url, passwordInURL=False, reading=reading)
    try:
        engine.prepare(secrets.token_bytes(DECOY_BYTES))
        with engine.connect() as connection:
            if reading:
                # All tables are of one moment.
                connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.execute("SET LOCAL statement_timeout = 0")
            yield connection
    except psycopg.Error as error:
        raise StoreError(engine.explain(error)) from None
