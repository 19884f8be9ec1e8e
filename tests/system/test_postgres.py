"""Identities in a PostgreSQL database."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import psycopg

from pbauth import Hashing, SQLAuthorizer, StoreError, Unauthorized
from pbauth.authorizers.sql.engine import SCHEMA_VERSION
from pbauth.authorizers.sql.notifications import CHANNEL
from pbauth.authorizers.sql.postgres import STEPS, PostgresEngine
from pbauth.authorizers.sql.postgresurl import protection, readURL
from tests.support.postgres import postgres
from tests.support.serving import ServingTestCase
from tests.support.suites.authorizers import SCRAM
from tests.support.suites.lives import LifeSuite
from tests.support.suites.sqlstores import SQLStoreSuite, addUser


class PostgresTestCase(ServingTestCase):
    """Makes a database where a test asks for it, and opens it."""

    @cached_property
    def url(self) -> str:
        """Of the database of the test."""
        return postgres().makeDatabase()

    def open(self, url: str | None = None, **options: Any) -> SQLAuthorizer:
        """Open a database; the same one by default."""
        authorizer = SQLAuthorizer(url or self.url, **{"hashing": Hashing.CHEAPEST, **options})
        self.addCleanup(authorizer.close)
        return authorizer

    def run_(self, *statements: str) -> None:
        """Run statements as another program would."""
        with psycopg.connect(self.url) as connection:
            for statement in statements:
                connection.execute(statement)  # type: ignore[call-overload]


class PostgresAuthorizerTests(LifeSuite, PostgresTestCase):
    """`SQLAuthorizer` on PostgreSQL passes the shared suite."""

    def makeAuthorizer(self, services: Any = None, hashing: Hashing = Hashing.CHEAPEST) -> Any:
        self.url = postgres().lendDatabase(self)
        return self.open(self.url, serviceCollection=services, hashing=hashing)

    def reopened(self, authorizer: Any) -> Any:
        return self.open(self.url, hashing=authorizer.hashing)

    def twoServers(self) -> tuple[Any, Any]:
        """Two on one database."""
        url = postgres().lendDatabase(self)
        return self.open(url), self.open(url)


class SharedDatabaseTests(SQLStoreSuite, PostgresTestCase):
    """Several processes on one database."""

    async def test_anyProgram(self) -> None:
        """What is taken away by any other program ends sessions, too."""
        await self.serve("alice", "bob")
        self.run_("DELETE FROM pbauth.keys WHERE identity = 'alice' AND perspective = 'shared'")
        await self.assertEnded(("alice", "shared"))

    async def test_lasts(self) -> None:
        """What was saved is there when the database is opened again; so are the decoys."""
        one, other = self.open(), self.open()
        await addUser(one, "alice")
        await (await other.getIdentityRequest("alice")).verifyPlainPassword("secret")
        self.assertEqual(
            one.getDecoyVerifier("mallory", SCRAM), other.getDecoyVerifier("mallory", SCRAM)
        )


class AwayTests(PostgresTestCase):
    """The database is away for a while."""

    async def test_connectionsLost(self) -> None:
        """Connections that were ended are made anew, and nobody notices."""
        authorizer = self.open()
        await addUser(authorizer, "alice")
        with psycopg.connect(postgres().urlOf("postgres"), autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname LIKE 'test%%' AND application_name = 'pbauth'"
            )
        alice = await authorizer.getIdentityRequest("alice")
        alice.addKeyByString("chat", "alice")
        await alice.save()
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_away(self) -> None:
        """Meanwhile there is a temporary error, not a refusal; then all is as before."""
        authorizer = self.open()
        await addUser(authorizer, "alice")
        self.addCleanup(postgres().start)
        postgres().stop()
        for _ in range(3):
            with self.assertRaises(StoreError) as raised:
                await authorizer.getIdentityRequest("alice")
            self.assertNotIsInstance(raised.exception, Unauthorized)
        postgres().start()
        authorizer._pausedUntil = 0.0
        await authorizer.getIdentityRequest("alice")


class TroubleTests(PostgresTestCase):
    """Databases that can't be used: one line that says what to do, and no secrets in it."""

    def assertRefused(self, said: str, url: str | None = None) -> None:
        """Opening the database fails, and says this."""
        with self.assertRaises(StoreError) as raised:
            SQLAuthorizer(url or self.url, hashing=Hashing.CHEAPEST)
        text = str(raised.exception)
        self.assertIn(said, text)
        self.assertNotIn("\n", text)
        self.assertNotIn("hunter2", text)

    def test_noServer(self) -> None:
        """Nobody listens there."""
        self.assertRefused(
            "Is PostgreSQL running there?", "postgresql://alice:hunter2@127.0.0.1:1/accounts"
        )

    def test_noURL(self) -> None:
        """It is no URL."""
        self.assertRefused("Example: postgresql://", "postgresql://alice:hunter2@[/accounts")
        self.assertRefused("Example: postgresql://", "postgresql://h/d?nonsense=hunter2")

    def test_noDatabase(self) -> None:
        """There is no database of that name."""
        self.assertRefused("no such database", postgres().urlOf("nothing"))

    def test_noUser(self) -> None:
        """The user is not known."""
        self.assertRefused("does not accept this user", postgres().urlOf("postgres", "mallory"))

    def test_noRights(self) -> None:
        """The user may not make tables."""
        self.run_("DROP ROLE IF EXISTS guest", "CREATE ROLE guest LOGIN")
        url = self.url.replace("postgres@", "guest@")
        self.assertRefused("GRANT CREATE ON DATABASE", url)

    def test_later(self) -> None:
        """A database of a later version of pbauth is left to it."""
        self.open()
        self.run_(
            f"UPDATE pbauth.meta SET value = '{SCHEMA_VERSION + 1}' WHERE name = 'schema version'"
        )
        self.assertRefused("Upgrade pbauth")

    async def test_upgraded(self) -> None:
        """A database of an earlier version is upgraded; nothing in it is lost."""
        for version, suffix in product(range(2, SCHEMA_VERSION), ("", "_2")):
            verifier = Hashing.CHEAPEST.makeVerifiers("secret", b"salt" * 4)[SCRAM].encode()
            with psycopg.connect(self.url, options="-c search_path=pbauth") as database:
                database.execute("DROP SCHEMA IF EXISTS pbauth CASCADE")
                database.execute("CREATE SCHEMA pbauth")
                database.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value BYTEA NOT NULL)")
                for step in range(2, version + 1):
                    for statement in STEPS[step]:
                        database.execute(statement)  # type: ignore[call-overload]
                database.execute(
                    "INSERT INTO meta VALUES ('decoy secret', %s), ('schema version', %s)",
                    (b"d" * 32, str(version).encode()),
                )
                database.execute(
                    "INSERT INTO identities (name, locked) VALUES ('alice', 0), ('bob', 1)"
                )
                database.execute(
                    "INSERT INTO verifiers (identity, mechanism, verifier)"
                    " VALUES ('alice', %s, %s)",
                    (SCRAM, verifier),
                )
                database.execute(
                    "INSERT INTO keys (identity, service, perspective)"
                    " VALUES ('alice', 'game', 'black')"
                )
                if suffix:
                    # Somebody has upgraded it before, and went back.
                    database.execute(f"CREATE TABLE keys_schema{version} (x INT)")
            for upgrades in (True, False):
                authorizer = self.open()
                self.assertEqual(bool(authorizer.upgraded), upgrades)
                if upgrades:
                    self.assertIn(
                        f"pbauth.identities_schema{version}{suffix}, ", authorizer.upgraded
                    )
                alice = await authorizer.getIdentityRequest("alice")
                self.assertEqual(alice.getAllKeys(), [("game", "black")])
                self.assertEqual((alice.expires, alice.created), (None, None))
                await alice.verifyPlainPassword("secret")
                self.assertTrue((await authorizer.getIdentityRequest("bob")).locked)
                self.assertEqual(authorizer._decoySecret, b"d" * 32)
            await authorizer.addGroup("staff")
            await authorizer.grantGroupKey("staff", "game", "*")
            await authorizer.addMember("staff", "alice")
            alice = await authorizer.getIdentityRequest("alice")
            self.assertTrue(alice.holdsKey("game", "white"))
            with psycopg.connect(self.url, options="-c search_path=pbauth") as database:
                for table, rows in (("identities", 2), ("verifiers", 1), ("keys", 1), ("meta", 2)):
                    count = database.execute(
                        f"SELECT count(*) FROM {table}_schema{version}{suffix}"  # type: ignore[call-overload]
                    )
                    self.assertEqual(count.fetchone(), (rows,), table)

    async def test_loginIsNotTold(self) -> None:
        """That somebody has logged in is told to nobody."""
        authorizer = self.open()
        alice = await addUser(authorizer, "alice")
        with psycopg.connect(self.url, autocommit=True) as listening:
            listening.execute(f"LISTEN {CHANNEL}")
            alice.lastLogin = datetime.now(timezone.utc)
            await alice.save()
            alice.expires = datetime.now(timezone.utc)
            await alice.save()
            told = [note.payload for note in listening.notifies(timeout=5, stop_after=1)]
            more = [note.payload for note in listening.notifies(timeout=0)]
        self.assertEqual((told, more), (["alice"], []))

    def test_damaged(self) -> None:
        """Tables are missing."""
        self.open()
        self.run_("DELETE FROM pbauth.meta WHERE name = 'decoy secret'")
        self.assertRefused("from a backup")

    async def test_readOnly(self) -> None:
        """A standby, for instance: reading goes on, and writing says what to do."""
        authorizer = self.open()
        alice = await addUser(authorizer, "alice")
        alice.addKeyByString("chat", "alice")
        database = psycopg.conninfo.conninfo_to_dict(self.url)["dbname"]
        self.run_(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
        other = self.open()
        with self.assertRaises(StoreError) as raised:
            await other.removeIdentity("alice")
        self.assertIn("read-only", str(raised.exception))
        await other.getIdentityRequest("alice")

    async def test_locked(self) -> None:
        """Somebody else keeps an account locked for too long."""
        authorizer = self.open(f"{self.url}&options=-c%20lock_timeout%3D50ms")
        alice = await addUser(authorizer, "alice")
        alice.locked = True
        with psycopg.connect(self.url) as connection:
            connection.execute("SELECT 1 FROM pbauth.identities FOR UPDATE")
            with self.assertRaises(StoreError) as raised:
                await alice.save()
        self.assertIn("busy", str(raised.exception))
        await alice.save()

    async def test_timeouts(self) -> None:
        """A statement that takes too long is not taken for one that waits for a lock."""
        authorizer = self.open(f"{self.url}&options=-c%20statement_timeout%3D50ms")
        await addUser(authorizer, "alice")
        with psycopg.connect(self.url) as connection:
            connection.execute("LOCK TABLE pbauth.identities")
            with self.assertRaises(StoreError) as raised:
                await authorizer.getIdentityRequest("alice")
        self.assertIn("statement_timeout", str(raised.exception))
        await authorizer.getIdentityRequest("alice")

    def test_noSlots(self) -> None:
        """A server that takes no more connections is not said to be away."""
        text = PostgresEngine("postgresql://localhost/accounts").explain(
            psycopg.OperationalError("connection failed: FATAL:  sorry, too many clients already")
        )
        self.assertIn("max_connections", text)

    def test_passwords(self) -> None:
        """A password in a URL is refused where others may see it, and is shown to nobody."""
        for url in ("postgresql://a:hunter2@db/accounts", "postgresql://db/a?password=hunter2"):
            with self.assertRaises(StoreError) as raised:
                SQLAuthorizer(url, passwordInURL=False)
            self.assertIn("~/.pgpass", str(raised.exception))
            self.assertNotIn("hunter2", str(raised.exception))
        engine = PostgresEngine("postgresql://alice:hunter2@db:5433/accounts")
        self.assertEqual(engine.where, "postgresql://alice@db:5433/accounts")
        self.assertNotIn("hunter2", repr(engine))

    def test_protected(self) -> None:
        """Over a network it uses TLS, to a certified server, unless the user says otherwise."""

        def mode(url: str) -> str | None:
            return psycopg.conninfo.conninfo_to_dict(PostgresEngine(url)._conninfo).get("sslmode")  # type: ignore[return-value]

        self.patch(os, "environ", {})
        for here in ("", "localhost", "127.0.0.1", "%2Frun%2Fpostgresql", "[::1]"):
            self.assertIsNone(mode(f"postgresql://{here}/accounts"))
        for there in ("db.example.com", "10.0.0.1", "localhost,db.example.com"):
            self.assertEqual(mode(f"postgresql://{there}/accounts"), "verify-full")
            self.assertEqual(mode(f"postgresql://{there}/accounts?sslmode=prefer"), "prefer")
        with mock.patch.dict(os.environ, {"PGSSLMODE": "require"}):
            self.assertIsNone(mode("postgresql://db.example.com/accounts"))

    def test_anotherMachine(self) -> None:
        """Where a connection really goes decides, whoever says so: URL, environment, service."""
        services = self.mktemp()
        Path(services).write_text(
            "[there]\nhost=db.example.com\n[here]\nhost=/run\n"
            "[chosen]\nhost=db.example.com\nsslmode=require\n"
        )

        def mode(url: str, **environment: str) -> Any:
            environment = {"PGSERVICEFILE": services, **environment}
            with mock.patch.dict(os.environ, environment):
                return protection(readURL(url)).get("sslmode")

        full = "verify-full"
        self.assertEqual(mode("postgresql:///a", PGHOST="db.example.com"), full)
        self.assertEqual(mode("postgresql:///a", PGHOSTADDR="10.0.0.1"), full)
        self.assertEqual(mode("postgresql://localhost/a", PGHOSTADDR="10.0.0.1"), full)
        self.assertEqual(mode("postgresql:///a?service=there"), full)
        self.assertEqual(mode("postgresql:///a", PGSERVICE="there"), full)
        self.assertEqual(mode("postgresql://localhost/a?hostaddr=10.0.0.1"), full)
        self.assertIsNone(mode("postgresql:///a?service=chosen"))
        self.assertIsNone(mode("postgresql:///a?service=here", PGHOST="db.example.com"))
        self.assertIsNone(mode("postgresql://db.example.com/a?hostaddr=127.0.0.1"))
        self.assertIsNone(mode("postgresql:///a", PGHOST="/run/postgresql"))
        with self.assertRaises(StoreError) as raised:
            mode("postgresql:///a?service=nowhere&password=hunter2")
        self.assertIn("nowhere", str(raised.exception))
        self.assertNotIn("hunter2", str(raised.exception))

    def test_noTLS(self) -> None:
        """A server without TLS is named as that."""
        text = PostgresEngine("postgresql://db/accounts").explain(
            psycopg.OperationalError("connection failed: server does not support SSL\nmore")
        )
        self.assertIn("sslrootcert=FILE", text)
        self.assertNotIn("more", text)

    def test_channel(self) -> None:
        """What is only added is told to nobody."""
        self.open()
        with psycopg.connect(self.url, autocommit=True) as listening:
            listening.execute(f"LISTEN {CHANNEL}")
            self.run_(
                "INSERT INTO pbauth.identities (name) VALUES ('alice')",
                "INSERT INTO pbauth.keys VALUES ('alice', 'game', 'alice')",
            )
            self.run_("DELETE FROM pbauth.keys")
            told = [note.payload for note in listening.notifies(timeout=5, stop_after=1)]
        self.assertEqual(told, ["alice"])
