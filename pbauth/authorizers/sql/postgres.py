"""
Identities in a PostgreSQL database, which many servers may share: the engine for that of
`pbauth.authorizers.sql.authorizer`.

All tables are in the schema ``pbauth``.  Triggers tell (``NOTIFY``) whose account something was
taken away from, whoever did it and by whatever program; each server listens.
"""

from __future__ import annotations

import re
from contextlib import suppress
from functools import lru_cache
from itertools import chain, count
from typing import Any

import psycopg
from psycopg import conninfo
from twisted.enterprise import adbapi

from pbauth.accounts.authorizer import MOST_COSTS, Cost
from pbauth.authorizers.sql.engine import (
    DECOY_SECRET,
    MOST_CONNECTIONS,
    SCHEMA_VERSION,
    Changed,
    costsOf,
)
from pbauth.authorizers.sql.notifications import CHANNEL, ChangesTold
from pbauth.authorizers.sql.postgreserrors import explain, isLost, refusesOptions
from pbauth.authorizers.sql.postgresurl import protection, readURL, withoutSecrets
from pbauth.errors import StoreError

#: The prefixes of the names of databases that this engine opens.
SCHEMES = ("postgresql://", "postgres://")

# Whatever the user says nothing about. Who is gone without a word is noticed within seconds.
_OPTIONS = {
    "application_name": "pbauth",
    "client_encoding": "UTF8",
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "11000",
}
_TIMEOUTS = {"lock_timeout": "10s", "statement_timeout": "30s"}
# The path is only a sign: a pooler that drops it drops the rest.
_SETTINGS = {
    "search_path": "pbauth",
    **_TIMEOUTS,
    "idle_in_transaction_session_timeout": "60s",
}

# The tables in the statements of `pbauth.authorizers.sql.authorizer`: where a pooler drops the
# settings of a connection, their schema is not looked for.
_TABLE = re.compile(
    r"\b(FROM|JOIN|INTO|UPDATE) (identities|verifiers|keys|groups|members|group_keys|meta)\b"
)

_SCHEMA_ROW = "schema version"

# For whoever makes or upgrades the tables: one at a time. The number is "pbau".
_LOCK = "SELECT pg_advisory_xact_lock(1885495669)"

# Of SCRAM-SHA-256$<iterations>:<salt>$<keys>, the most frequent ones.
_COSTS = """
    SELECT split_part(cost, ':', 1), length(rtrim(split_part(cost, ':', 2), '='))
    FROM (
        SELECT split_part(verifier, '$', 2) AS cost
        FROM pbauth.verifiers WHERE mechanism = 'SCRAM-SHA-256'
    ) AS costs
    GROUP BY 1, 2 ORDER BY count(*) DESC, 1, 2 LIMIT %s
"""

_TELL_OTHERS = """
    CREATE FUNCTION tell_{column}() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify('{channel}', OLD.{column});
        RETURN NULL;
    END $$
"""
_WHEN = "CREATE TRIGGER tell AFTER {event} ON {table} FOR EACH ROW EXECUTE FUNCTION tell_{column}()"

#: What leads to each version of the schema from the one before; there was none before the second.
STEPS: dict[int, tuple[str, ...]] = {
    2: (
        # The order of names is that of their code points, whatever the database's is.
        """
        CREATE TABLE identities (
            name TEXT COLLATE "C" PRIMARY KEY CHECK (octet_length(name) BETWEEN 1 AND 255),
            locked SMALLINT NOT NULL DEFAULT 0 CHECK (locked IN (0, 1))
        )
        """,
        # Digests of earlier verifiers of the same password are what one succeeds.
        """
        CREATE TABLE verifiers (
            identity TEXT COLLATE "C" NOT NULL REFERENCES identities (name) ON DELETE CASCADE,
            mechanism TEXT COLLATE "C" NOT NULL,
            verifier TEXT NOT NULL,
            succeeds TEXT,
            PRIMARY KEY (identity, mechanism)
        )
        """,
        """
        CREATE TABLE keys (
            identity TEXT COLLATE "C" NOT NULL REFERENCES identities (name) ON DELETE CASCADE,
            service TEXT COLLATE "C" NOT NULL CHECK (octet_length(service) BETWEEN 1 AND 255),
            perspective TEXT COLLATE "C" NOT NULL
                CHECK (octet_length(perspective) BETWEEN 1 AND 255),
            PRIMARY KEY (identity, service, perspective)
        )
        """,
        "CREATE INDEX keys_by_service ON keys (service, identity, perspective)",
        _TELL_OTHERS.format(column="name", channel=CHANNEL),
        _TELL_OTHERS.format(column="identity", channel=CHANNEL),
        # What is only added ends no session.
        _WHEN.format(event="UPDATE OR DELETE", table="identities", column="name"),
        _WHEN.format(event="UPDATE OR DELETE", table="verifiers", column="identity"),
        _WHEN.format(event="UPDATE OR DELETE", table="keys", column="identity"),
    ),
    3: (
        "ALTER TABLE identities ADD COLUMN expires BIGINT, ADD COLUMN must_change SMALLINT NOT NULL"
        " DEFAULT 0 CHECK (must_change IN (0, 1)), ADD COLUMN created BIGINT,"
        " ADD COLUMN last_login BIGINT",
        """
        CREATE TABLE groups (
            name TEXT COLLATE "C" PRIMARY KEY CHECK (octet_length(name) BETWEEN 1 AND 255)
        )
        """,
        """
        CREATE TABLE members (
            identity TEXT COLLATE "C" NOT NULL REFERENCES identities (name) ON DELETE CASCADE,
            groupname TEXT COLLATE "C" NOT NULL REFERENCES groups (name) ON DELETE CASCADE,
            PRIMARY KEY (identity, groupname)
        )
        """,
        "CREATE INDEX members_by_group ON members (groupname, identity)",
        """
        CREATE TABLE group_keys (
            groupname TEXT COLLATE "C" NOT NULL REFERENCES groups (name) ON DELETE CASCADE,
            service TEXT COLLATE "C" NOT NULL CHECK (octet_length(service) BETWEEN 1 AND 255),
            perspective TEXT COLLATE "C" NOT NULL
                CHECK (octet_length(perspective) BETWEEN 1 AND 255),
            PRIMARY KEY (groupname, service, perspective)
        )
        """,
        "CREATE INDEX group_keys_by_service ON group_keys (service, groupname, perspective)",
        "CREATE INDEX identities_by_expiry ON identities (expires) WHERE expires IS NOT NULL",
        # Other servers need not know of a login.
        "DROP TRIGGER tell ON identities",
        _WHEN.format(
            event="UPDATE OF locked, expires OR DELETE",
            table="identities",
            column="name",
        ),
        _WHEN.format(event="UPDATE OR DELETE", table="members", column="identity"),
        # A group may have a million members: without a name, anybody may be concerned.
        f"""
        CREATE FUNCTION tell_all() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pg_notify('{CHANNEL}', '');
            RETURN NULL;
        END $$
        """,
        "CREATE TRIGGER tell AFTER UPDATE OR DELETE ON group_keys"
        " FOR EACH STATEMENT EXECUTE FUNCTION tell_all()",
    ),
    # The names of methods that the key is good for, in lines; nothing: all.
    4: ("ALTER TABLE keys ADD COLUMN methods TEXT",),
}


class PostgresEngine:
    """
    A database.

    Args:
        url: ``postgresql://user@host/database?option=value``, with all that libpq knows. A password
            in it is used, and shown to nobody.
        passwordInURL: whether there may be one.
        reading: no table is made or upgraded.

    Raises:
        StoreError: this is no such URL, or holds a password where it may not.
    """

    Error = psycopg.Error
    IntegrityError = psycopg.IntegrityError
    forUpdate = " FOR UPDATE"

    def __init__(self, url: str, passwordInURL: bool = True, reading: bool = False) -> None:
        self._reading = reading
        self.upgraded = ""
        self._parameters = readURL(url)
        if "password" in self._parameters and not passwordInURL:
            raise StoreError(
                "Others on this machine can see the password in that URL. Leave it out, and put "
                "it into ~/.pgpass, or into a file that PGPASSFILE names."
            )
        self.where = withoutSecrets(self._parameters)
        settings = " ".join(f"-c {name}={value}" for name, value in _SETTINGS.items())
        self._conninfo = self._withOptions(
            f"{settings} {self._parameters.get('options', '')}".strip()
        )
        # Whether a pooler takes the settings of connections away, so that each transaction needs
        # its own; and what it changes for psycopg.
        self._dropsSettings = False
        self._arguments: dict[str, Any] = {}

    def _withOptions(self, options: str) -> str:
        return conninfo.make_conninfo(
            **{
                **_OPTIONS,
                **protection(self._parameters),
                **self._parameters,
                "options": options,
            }
        )

    def connect(self, **arguments: Any) -> psycopg.Connection[Any]:
        """
        Return a new connection.

        Args:
            arguments: for `psycopg.connect`, beside those that a pooler needs.
        """
        return psycopg.connect(self._conninfo, **self._arguments, **arguments)

    def _connectFirst(self) -> psycopg.Connection[Any]:
        """Connect, and find out what a pooler allows, if there is one."""
        try:
            connection = self.connect()
        except psycopg.OperationalError as error:
            if not refusesOptions(error) or "options" in self._parameters:
                raise
            self._conninfo = self._withOptions("")
            connection = self.connect()
        with connection.transaction():
            pid, path = connection.execute(
                "SELECT pg_backend_pid(), current_setting('search_path')"
            ).fetchone() or (0, "")
        self._dropsSettings = path != _SETTINGS["search_path"]
        if self._dropsSettings or pid != connection.info.backend_pid:
            # What is prepared on one connection of a pooler is not there on the next.
            self._arguments = {"prepare_threshold": None}
            connection.prepare_threshold = None
        return connection

    def prepare(self, decoySecret: bytes) -> tuple[bytes, list[Cost]]:
        """Check the database, make the tables, or upgrade them (see `Engine`)."""
        with self._connectFirst() as connection:
            connection.execute("SET LOCAL search_path = pbauth")
            # With as little of the rights as will do: a schema that is there is not made.
            if not _exists(connection, "pbauth.meta"):
                self._checkWriting("has no accounts yet")
                connection.execute(_LOCK)
            if not _exists(connection, "pbauth.meta"):
                connection.execute("CREATE SCHEMA IF NOT EXISTS pbauth")
                connection.execute(
                    "CREATE TABLE meta (name TEXT PRIMARY KEY, value BYTEA NOT NULL)"
                )
                self._setRow(connection, _SCHEMA_ROW, b"1")
                self._setRow(connection, DECOY_SECRET, decoySecret)
            if self._checkVersion(connection) < SCHEMA_VERSION:
                self._checkWriting("has an older schema")
                connection.execute(_LOCK)
                version = self._checkVersion(connection)
                if 1 < version < SCHEMA_VERSION:
                    connection.execute("SET LOCAL statement_timeout = 0")
                    kept = _keepCopies(connection, version)
                    self.upgraded = (
                        f"{self.where} was upgraded from version {version} of its schema to "
                        f"{SCHEMA_VERSION}. Copies of its tables from before are {', '.join(kept)}"
                    )
                for step in range(version + 1, SCHEMA_VERSION + 1):
                    for statement in STEPS[step]:
                        connection.execute(statement)  # type: ignore[call-overload]
                self._setRow(connection, _SCHEMA_ROW, str(SCHEMA_VERSION).encode())
            return _row(connection, DECOY_SECRET), costsOf(
                connection.execute(_COSTS, (MOST_COSTS,))
            )

    def _checkWriting(self, found: str) -> None:
        if self._reading:
            raise StoreError(
                f"{self.where} {found}. A server that is started there, or a command that changes "
                "something, makes or upgrades the tables."
            )

    def _checkVersion(self, connection: psycopg.Connection[Any]) -> int:
        version = int(_row(connection, _SCHEMA_ROW))
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"{self.where} was made by a later version of pbauth (schema {version}; this one "
                f"knows {SCHEMA_VERSION}). Upgrade pbauth."
            )
        return version

    def _setRow(self, connection: psycopg.Connection[Any], name: str, value: bytes) -> None:
        connection.execute(
            "INSERT INTO meta (name, value) VALUES (%s, %s)"
            " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (name, value),
        )

    def openPool(self, reactor: Any) -> Any:
        """Return connections to the database (see `Engine`)."""
        return _Pool(
            "psycopg",
            self._conninfo,
            **self._arguments,
            cp_min=1,
            cp_max=MOST_CONNECTIONS,
            cp_noisy=False,
            cp_reactor=reactor,
        )

    def translate(self, statement: str) -> str:
        """Write the parameters of a statement as psycopg expects them."""
        return _translate(statement)

    def beginWriting(self, cursor: Any) -> None:
        """Set what a pooler took away; a transaction begins by itself."""
        if self._dropsSettings:
            for name, value in _TIMEOUTS.items():
                cursor.execute(f"SET LOCAL {name} = '{value}'")

    def isLost(self, error: Exception) -> bool:
        """Return whether the connection is gone, or the server is about to be."""
        return isLost(error)

    def explain(self, error: Exception) -> str:
        """Return what an error means (see `Engine`)."""
        return explain(error, self.where)

    def changesService(self, reactor: Any, pool: Any, changed: Changed) -> ChangesTold:
        """Return a service that listens for changes (see `Engine`)."""
        return ChangesTold(self.connect, self.where, pool, reactor, changed)


@lru_cache(maxsize=256)
def _translate(statement: str) -> str:
    return _TABLE.sub(r"\1 pbauth.\2", statement).replace("%", "%%").replace("?", "%s")


def _exists(connection: psycopg.Connection[Any], table: str) -> bool:
    found = connection.execute("SELECT to_regclass(%s)", (table,)).fetchone()
    return found is not None and found[0] is not None


def _keepCopies(connection: psycopg.Connection[Any], version: int) -> list[str]:
    """Copy all tables beside themselves, as they are before an upgrade; return the new names."""
    tables = connection.execute(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'pbauth'"
        r" AND tablename !~ '_schema\d+(_\d+)?$' ORDER BY 1"
    ).fetchall()
    for suffix in chain([""], (f"_{number}" for number in count(2))):
        copies = {name: f"pbauth.{name}_schema{version}{suffix}" for (name,) in tables}
        if not any(_exists(connection, copy) for copy in copies.values()):
            break
    for name, copy in copies.items():
        connection.execute(f"CREATE TABLE {copy} AS TABLE pbauth.{name}")  # type: ignore[call-overload]
    return list(copies.values())


def _row(connection: psycopg.Connection[Any], name: str) -> bytes:
    found = connection.execute("SELECT value FROM meta WHERE name = %s", (name,)).fetchone()
    if found is None:
        raise StoreError(f"The table pbauth.meta has no row {name!r}. Restore it from a backup.")
    return bytes(found[0])


class _Connection(adbapi.Connection):  # type: ignore[misc]
    """A connection of the pool, which is replaced when it is lost."""

    def rollback(self) -> None:
        connection: Any = self._connection
        if not connection.closed:
            # The error may be the first that is heard of a lost connection, and this the second.
            with suppress(psycopg.Error):
                connection.rollback()
        if connection.closed:
            self._pool.disconnect(connection)


class _Pool(adbapi.ConnectionPool):  # type: ignore[misc]
    connectionFactory = _Connection

    def connect(self) -> Any:
        """Return the connection of this thread; a new one in place of one that is lost."""
        connection: Any = super().connect()
        if connection.closed:
            self.disconnect(connection)
            connection = super().connect()
        return connection
