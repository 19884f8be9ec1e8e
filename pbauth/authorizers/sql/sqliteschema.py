"""The tables of an SQLite file, in all versions."""

from __future__ import annotations

#: Says of an SQLite file that it is one of ours: "pbau".
APPLICATION_ID = 0x70626175

_TELL_OTHERS = """
    CREATE TRIGGER {table}_{event}
    AFTER {event} {of} ON {table} BEGIN
        INSERT INTO changes (identity) VALUES (OLD.{name});
    END
"""

#: What leads to each version of the schema from the one before.
STEPS: dict[int, tuple[str, ...]] = {
    1: (
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
    ),
    2: (
        # Digests of earlier verifiers of the same password.
        "ALTER TABLE verifiers ADD COLUMN succeeds TEXT",
        "CREATE INDEX keys_by_service ON keys (service, identity, perspective)",
        # What was taken away from whom, for the servers that have clients of theirs. What is only
        # added ends no session.
        """
        CREATE TABLE changes (
            serial INTEGER PRIMARY KEY AUTOINCREMENT,
            identity TEXT NOT NULL
        )
        """,
        # Ten thousand are remembered.
        """
        CREATE TRIGGER changes_forget AFTER INSERT ON changes BEGIN
            DELETE FROM changes WHERE serial <= NEW.serial - 10000;
        END
        """,
        _TELL_OTHERS.format(table="identities", event="UPDATE", of="OF locked", name="name"),
        _TELL_OTHERS.format(table="identities", event="DELETE", of="", name="name"),
        _TELL_OTHERS.format(table="verifiers", event="UPDATE", of="", name="identity"),
        _TELL_OTHERS.format(table="verifiers", event="DELETE", of="", name="identity"),
        _TELL_OTHERS.format(table="keys", event="UPDATE", of="", name="identity"),
        _TELL_OTHERS.format(table="keys", event="DELETE", of="", name="identity"),
    ),
    3: (
        "ALTER TABLE identities ADD COLUMN expires INTEGER",
        "ALTER TABLE identities ADD COLUMN must_change INTEGER NOT NULL DEFAULT 0"
        " CHECK (must_change IN (0, 1))",
        "ALTER TABLE identities ADD COLUMN created INTEGER",
        "ALTER TABLE identities ADD COLUMN last_login INTEGER",
        """
        CREATE TABLE groups (
            name TEXT PRIMARY KEY NOT NULL CHECK (length(CAST(name AS BLOB)) BETWEEN 1 AND 255)
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE members (
            identity TEXT NOT NULL REFERENCES identities (name) ON DELETE CASCADE,
            groupname TEXT NOT NULL REFERENCES groups (name) ON DELETE CASCADE,
            PRIMARY KEY (identity, groupname)
        ) WITHOUT ROWID
        """,
        "CREATE INDEX members_by_group ON members (groupname, identity)",
        """
        CREATE TABLE group_keys (
            groupname TEXT NOT NULL REFERENCES groups (name) ON DELETE CASCADE,
            service TEXT NOT NULL CHECK (length(CAST(service AS BLOB)) BETWEEN 1 AND 255),
            perspective TEXT NOT NULL CHECK (length(CAST(perspective AS BLOB)) BETWEEN 1 AND 255),
            PRIMARY KEY (groupname, service, perspective)
        ) WITHOUT ROWID
        """,
        "CREATE INDEX group_keys_by_service ON group_keys (service, groupname, perspective)",
        "CREATE INDEX identities_by_expiry ON identities (expires) WHERE expires IS NOT NULL",
        # Other servers need not know of a login.
        "DROP TRIGGER identities_UPDATE",
        _TELL_OTHERS.format(
            table="identities", event="UPDATE", of="OF locked, expires", name="name"
        ),
        _TELL_OTHERS.format(table="members", event="DELETE", of="", name="identity"),
        # A group may have a million members: without a name, anybody may be concerned.
        """
        CREATE TRIGGER group_keys_DELETE AFTER DELETE ON group_keys BEGIN
            INSERT INTO changes (identity) VALUES ('');
        END
        """,
    ),
    4: (
        # The names of methods that the key is good for, in lines; nothing: all.
        "ALTER TABLE keys ADD COLUMN methods TEXT",
    ),
}
