"""What the errors of PostgreSQL, and of poolers before it, mean: in words that say what to do."""

from __future__ import annotations

import re

import psycopg
from psycopg import errors

_MEANINGS: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    (
        (errors.LockNotAvailable, errors.DeadlockDetected),
        "{where} is busy: another transaction has locked the account. Try again.",
    ),
    (
        (errors.QueryCanceled,),
        "{where} is busy: it did not answer in time, or an administrator ended the statement. Try "
        "again; if it stays so, see statement_timeout of the user, and what the database does.",
    ),
    (
        (errors.ReadOnlySqlTransaction,),
        "{where} is read-only; it may be a standby. Use the primary server.",
    ),
    ((errors.DiskFull,), "There is no space left to write {where}."),
    (
        (errors.InsufficientPrivilege,),
        "{where} does not let this user do that. Make its owner: ALTER SCHEMA pbauth OWNER TO ...; "
        "or, where there is no schema yet: GRANT CREATE ON DATABASE ... TO ...",
    ),
    (
        (errors.UndefinedTable, errors.UndefinedColumn),
        "{where}: tables of pbauth are missing. Restore the schema pbauth from a backup.",
    ),
    (
        (errors.DataCorrupted, errors.IndexCorrupted),
        "{where} is damaged. Restore it from a backup.",
    ),
)


# What pgbouncer says.
_NO_OPTIONS = r"unsupported startup parameter"

_REFUSED = (
    (
        _NO_OPTIONS,
        "{where}: the pooler there refuses options ({said}). Leave them out of the URL, or add "
        "'options' to ignore_startup_parameters in pgbouncer.ini.",
    ),
    (
        r"too many (clients|connections)|connection slots|no more connections",
        "{where} takes no more connections ({said}). Raise max_connections there, or use a pooler.",
    ),
    (
        "certificate|SSL|channel binding",
        "{where} can't be reached over TLS ({said}). Use sslrootcert=FILE for a certificate "
        "authority of your own; or sslmode=prefer in a network that nobody else can read.",
    ),
    (r'database ".*" does not exist', "{where}: there is no such database. Run: createdb"),
    (
        r'role ".*" does not exist|authentication failed|no password supplied|pg_hba\.conf',
        "{where} does not accept this user. See PGPASSFILE, ~/.pgpass and pg_hba.conf.",
    ),
)


def isLost(error: Exception) -> bool:
    """Return whether the connection is gone, or the server is about to be."""
    return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)) and (
        error.sqlstate is None
        or error.sqlstate[:2] == "08"
        or isinstance(error, (errors.AdminShutdown, errors.CrashShutdown, errors.CannotConnectNow))
    )


def refusesOptions(error: Exception) -> bool:
    """Return whether a pooler refuses the settings of a connection."""
    return re.search(_NO_OPTIONS, str(error)) is not None


def explain(error: Exception, where: str) -> str:
    """
    Return what an error means and what to do, in one line without secrets.

    Args:
        error: one of psycopg.
        where: the name of the database.
    """
    for kinds, text in _MEANINGS:
        if isinstance(error, kinds):
            return text.format(where=where)
    # The text may have several lines; the first says it. It may quote a statement below.
    said = str(error).strip().partition("\n")[0]
    for pattern, text in _REFUSED:
        # Of a connection that is not made nothing but the text is known.
        if getattr(error, "sqlstate", None) is None and re.search(pattern, said):
            return text.format(where=where, said=said)
    if isLost(error):
        return f"{where} can't be reached: {said}. Is PostgreSQL running there?"
    return f"{where}: {said}."
