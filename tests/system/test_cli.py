"""The `pbauth` command, run as people run it."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from twisted.internet.defer import Deferred, gatherResults
from twisted.spread import pb
from twisted.trial.unittest import SynchronousTestCase, TestCase

from pbauth import DefaultAuthorizer, Hashing, PublicKey, SQLAuthorizer, Unauthorized
from pbauth.admin.administration import Administration
from pbauth.cli import main
from pbauth.errors import UnknownKey, UnknownUser
from pbauth.mechanisms import md5, scram
from pbauth.net.certificates import makeCertificate
from tests.support.postgres import postgres
from tests.support.processes import PBAUTH, Program, run
from tests.support.tls import pinOf

ROOT = str(Path(__file__).parent.parent.parent)
JUNK = b"this is no database" * 100


class AdministrationTests(SynchronousTestCase):
    """What an administrator does, apart from how it is said."""

    def setUp(self) -> None:
        self.authorizer = DefaultAuthorizer(hashing=Hashing.CHEAPEST)
        self.administration = Administration(self.authorizer)

    def do(self, name: str, *arguments: Any) -> Any:
        """Run an operation."""
        operation = getattr(self.administration, name)(*arguments)
        return self.successResultOf(Deferred.fromCoroutine(operation))

    def fails(self, error: type[Exception], name: str, *arguments: Any) -> None:
        """Run an operation that fails."""
        operation = getattr(self.administration, name)(*arguments)
        self.failureResultOf(Deferred.fromCoroutine(operation), error)

    def test_keys(self) -> None:
        """Keys are granted, listed and revoked."""
        self.do("addUser", "alice", "secret")
        self.do("grantKey", "alice", "game", "black")
        self.assertEqual(self.do("listKeys", "alice"), [("game", "black")])
        self.do("revokeKey", "alice", "game", "black")
        self.assertEqual(self.do("listKeys", "alice"), [])
        self.fails(UnknownKey, "revokeKey", "alice", "game", "black")

    def test_unknownUsers(self) -> None:
        """Whatever is done to somebody who is not there is an error."""
        for operation in [
            ("removeUser", "mallory"),
            ("setPassword", "mallory", "secret"),
            ("setLocked", "mallory", True),
            ("grantKey", "mallory", "game", "black"),
            ("listKeys", "mallory"),
        ]:
            self.fails(UnknownUser, *operation)


class CommandTests(TestCase):
    """The command in processes of its own, on a state folder of its own."""

    def setUp(self) -> None:
        self.state = os.path.abspath(self.mktemp())

    async def pbauth(self, *arguments: str, stdin: str = "") -> Program:
        """Run the command."""
        return await run(*PBAUTH, "--state", self.state, *arguments, stdin=stdin)

    def authorizer(self) -> SQLAuthorizer:
        """Open the accounts beside the command."""
        authorizer = SQLAuthorizer(os.path.join(self.state, "accounts.sqlite"))
        self.addCleanup(authorizer.close)
        return authorizer

    async def test_lifeOfAnAccount(self) -> None:
        """Every subcommand does what it says, and says what it did."""
        for arguments, stdin, said in [
            (["user", "add", "alice", "--password-stdin"], "secret\n", "Added alice.\n"),
            (["key", "grant", "alice", "game"], "", "alice holds the key to alice of service"),
            (["key", "grant", "alice", "game", "black"], "", "the key to black of service game"),
            (["key", "list", "alice"], "", "game\talice\ngame\tblack\n"),
            (["key", "revoke", "alice", "game"], "", "no longer holds the key to alice of"),
            (["user", "lock", "alice"], "", "Locked alice.\n"),
            (["user", "list"], "", "alice\t1 key\tlocked\n"),
            (["who-can", "game"], "", "alice\tblack\tlocked\n"),
            (["who-can", "chess"], "", "pbauth key grant NAME chess\n"),
            (["key", "grant", "alice", "go", "--method", "look"], "", "of service go, for look."),
            (["key", "list", "alice"], "", "game\tblack\ngo\talice\tlook\n"),
            (
                ["key", "list", "alice", "--json"],
                "",
                '"perspective": "alice", "methods": ["look"]}',
            ),
            (["who-can", "go"], "", "alice\talice\tlocked\t\tlook\n"),
            (["who-can", "go", "--json"], "", '"group": "", "methods": ["look"]}'),
            (["key", "revoke", "alice", "go"], "", "no longer holds"),
            (["who-can", "game", "--json"], "", '{"name": "alice", "perspective": "black", "lo'),
            (["user", "unlock", "alice"], "", "Unlocked alice.\n"),
            (["user", "list"], "", "alice\t1 key\n"),
            (["user", "passwd", "alice", "--password-stdin"], "another", "Changed the password"),
        ]:
            program = await self.pbauth(*arguments, stdin=stdin)
            self.assertIn(said, program.output)
            self.assertEqual(program.exitCode, 0, program.output)
        identity = await self.authorizer().getIdentityRequest("alice")
        await identity.verifyPlainPassword("another")
        with self.assertRaises(Unauthorized):
            await identity.verifyPlainPassword("secret")
        program = await self.pbauth("user", "remove", "alice")
        self.assertEqual((program.output, program.exitCode), ("Removed alice.\n", 0))

    async def test_legacy(self) -> None:
        """The MD5 verifier is kept where it was asked for, and goes with the password."""
        authorizer = None
        for arguments, kept in [
            (["add", "alice", "--legacy"], {scram.NAME, md5.NAME}),
            (["passwd", "alice"], {scram.NAME}),
            (["passwd", "--legacy", "alice"], {scram.NAME, md5.NAME}),
            (["add", "bob"], {scram.NAME}),
        ]:
            program = await self.pbauth("user", *arguments, "--password-stdin", stdin="secret\n")
            self.assertEqual(program.exitCode, 0, program.output)
            authorizer = authorizer or self.authorizer()
            name = "bob" if "bob" in arguments else "alice"
            identity = await authorizer.getIdentityRequest(name)
            verifiers = await identity.getVerifiers()
            self.assertEqual(set(verifiers), kept)
            if md5.NAME in kept:
                challenge = identity.challenge()
                await identity.verifyPassword(challenge, pb.respond(challenge, b"secret"))

    async def test_certificates(self) -> None:
        """Certificates open accounts as keys do; an account may do without a password."""
        pem = self.mktemp()
        Path(pem).write_bytes(makeCertificate())
        pin = pinOf(Path(pem).read_bytes())
        for arguments, said in [
            (["add", "alice", "--no-password"], "Added alice.\n"),
            (["addkey", "alice", pem], f"Added {pin} pbauth\n"),
            (["keys", "alice"], f"{pin}\tpbauth\n"),
            (["rmkey", "alice", pin], f"Removed {pin}.\n"),
            (["keys", "alice"], ""),
        ]:
            program = await self.pbauth("user", *arguments)
            self.assertEqual((program.output, program.exitCode), (said, 0))
        identity = await self.authorizer().getIdentityRequest("alice")
        self.assertEqual(await identity.getVerifiers(), {})

    async def test_keysOfWindows(self) -> None:
        """What its shell writes to a file is UTF-16."""
        await self.pbauth("user", "add", "alice", "--no-password")
        line = f"{PublicKey(bytes(32), 'laptop').line()}\r\n"
        for encoding in ("utf-16", "utf-8-sig"):
            path = Path(self.mktemp())
            path.write_bytes(line.encode(encoding))
            program = await self.pbauth("user", "addkey", "alice", str(path))
            self.assertRegex(program.output, r"^Added SHA256:\S+ laptop\n$")

    async def test_stateFolderIsPrivate(self) -> None:
        """The folder is made for its owner only, and so is the database."""
        await self.pbauth("user", "add", "alice", "--no-password")
        self.assertEqual(os.stat(self.state).st_mode & 0o777, 0o700)
        database = os.path.join(self.state, "accounts.sqlite")
        self.assertEqual(os.stat(database).st_mode & 0o777, 0o600)

    async def test_killed(self) -> None:
        """
        A process killed at any moment leaves a database that opens, with the old state or the new.
        """
        await self.pbauth("user", "add", "alice", "--password-stdin", stdin="password old")
        program = await run(
            "-m", "tests.support.killed", self.state, "100", directory=ROOT, forked=True
        )
        self.assertEqual(program.exitCode, 0, program.output)
        rounds = [line.split() for line in program.output.splitlines()]
        self.assertEqual(len(rounds), 103)
        self.assertDatabaseIsSound()
        authorizer = self.authorizer()
        there = {name for name, _, _ in await authorizer.listIdentities()}
        for operation, name, ending in rounds:
            if operation == "addUser" and ending == "done":
                self.assertIn(name, there)
        outcomes = [ending for _, _, ending in rounds]
        self.assertGreater(outcomes.count("killed"), 20)
        # Nobody is there by half: whoever was added can log in, by a password of some round.
        for name in there - {"alice"}:
            identity = await authorizer.getIdentityRequest(name)
            await identity.verifyPlainPassword(f"password {name.removeprefix('user')}")
        alice = await authorizer.getIdentityRequest("alice")
        tried = ["old", *range(-3, 100)]
        fits = await gatherResults(
            [
                alice.verifyPlainPassword(f"password {round_}").addCallbacks(
                    lambda _: 1, lambda _: 0
                )
                for round_ in tried
            ]
        )
        self.assertEqual(sum(fits), 1)

    def assertDatabaseIsSound(self) -> None:
        """SQLite itself finds nothing wrong with the file."""
        connection = sqlite3.connect(os.path.join(self.state, "accounts.sqlite"))
        try:
            self.assertEqual(connection.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
            self.assertEqual(connection.execute("PRAGMA foreign_key_check").fetchall(), [])
        finally:
            connection.close()


class AnyStoreTests(TestCase):
    """The same command, whatever the accounts are in."""

    async def test_stores(self) -> None:
        """Users come in, are listed, and who can do what is known."""
        folder = os.path.abspath(self.mktemp())
        os.mkdir(folder)
        dump = os.path.join(folder, "users.jsonl")
        Path(dump).write_text(
            '{"name": "alice", "keys": [["game", "black"]]}\n'
            '{"name": "bob", "keys": [["game", "white"]], "locked": true}\n'
        )
        stores = ["sqlite:accounts", "passwd:accounts.passwd", postgres().makeDatabase()]
        programs = []
        for accounts in stores:
            for command in (["import", dump], ["who-can", "game"]):
                program = await run(*PBAUTH, "--accounts", accounts, *command, directory=folder)
                self.assertEqual(program.exitCode, 0, program.output)
            programs.append(program)
        self.assertEqual({each.output for each in programs}, {"alice\tblack\nbob\twhite\tlocked\n"})

    async def test_noStore(self) -> None:
        """What is no store, and a password where others see it, are refused."""
        for accounts, said in (
            ("mysql:x", "Say sqlite:FILE, passwd:FILE, or postgresql://"),
            ("sqlite:", "Say sqlite:FILE"),
            ("postgresql://alice:hunter2@localhost/x", "~/.pgpass"),
        ):
            program = await run(*PBAUTH, "--accounts", accounts, "user", "list")
            self.assertEqual(program.exitCode, 1)
            self.assertRegex(program.output, rf"^Error: [^\n]*{said}[^\n]*\n$")
            self.assertNotIn("hunter2", program.output)


class HelpTests(SynchronousTestCase):
    """What the command says about itself."""

    def test_priceOfLegacy(self) -> None:
        """Whoever looks up --legacy is told what it costs."""
        for verb in ("add", "passwd"):
            ran = CliRunner().invoke(main, ["user", verb, "--help"])
            self.assertEqual(ran.exit_code, 0)
            words = " ".join(ran.output.split())
            self.assertIn("--legacy Also keep the MD5 verifier", words)
            self.assertIn("it is as good as the password.", words)


class MistakeTests(SynchronousTestCase):
    """Each mistake is one line that says what to do, and an exit code that is not 0."""

    def setUp(self) -> None:
        self.state = self.mktemp()

    def mistake(self, *arguments: str, stdin: str = "") -> str:
        """Run the command in this process, and give the line that it ends with."""
        ran = CliRunner().invoke(main, ["--state", self.state, *arguments], input=stdin)
        self.assertNotEqual(ran.exit_code, 0, ran.output)
        return ran.output.splitlines()[-1]

    def test_passwordsAreNoArguments(self) -> None:
        """There is no way to give a password as an argument."""
        self.assertIn("unexpected extra argument", self.mistake("user", "add", "alice", "secret"))

    def test_noTerminal(self) -> None:
        """Without a terminal, the way around is named."""
        self.assertIn("--password-stdin", self.mistake("user", "add", "alice", stdin="x"))

    def test_keyFiles(self) -> None:
        """Files that hold no public key, or one of another type."""
        for data, said in [
            (b"", "no public key"),
            (b"ssh-rsa AAAA laptop\n", "ssh-keygen -t ed25519"),
            (b"-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2\n", "line 1: this is a private key"),
            (b"\xff\xfe", "no public key"),
            (b"\xff\xfex", "is not a text in UTF-8"),
            (b"ssh-ed25519 \xe4\n", "is not a text in UTF-8"),
            (b"-----BEGIN CERTIFICATE-----\njunk\n", "PEM"),
        ]:
            path = self.mktemp()
            Path(path).write_bytes(data)
            self.assertIn(said, self.mistake("user", "addkey", "alice", path))
        self.assertFalse(os.path.exists(self.state))

    def test_noPassword(self) -> None:
        """An empty standard input holds no password."""
        self.assertIn(
            "no password on standard input",
            self.mistake("user", "add", "alice", "--password-stdin"),
        )


#: The command, which does not wait five seconds for a lock.
IMPATIENT = """
from pbauth import SQLAuthorizer
from pbauth.cli import main
SQLAuthorizer.__init__.__kwdefaults__["lockTimeout"] = 0.2
main()
"""


class InteractiveMistakeTests(TestCase):
    """Mistakes that are found only when the reactor runs: in processes of their own."""

    async def test_names(self) -> None:
        """Names that are none, users that are there or not, keys that are not held."""
        state = self.mktemp()
        made = await run(
            *PBAUTH, "--state", state, "user", "add", "alice", "--password-stdin", stdin="secret\n"
        )
        self.assertEqual(made.exitCode, 0, made.output)
        cases = [
            (["user", "add", "", "--password-stdin"], "must not be empty"),
            (["user", "add", "a" * 256, "--password-stdin"], "at most 255 bytes"),
            (["user", "add", "a\nb", "--password-stdin"], "control characters"),
            (["user", "add", "alice", "--password-stdin"], "already"),
            (["user", "passwd", "mallory", "--password-stdin"], "no user 'mallory'"),
            (["key", "revoke", "alice", "game"], "holds no key"),
            (
                ["call", "nonsense", "alice", "echo", "say", "--password-stdin"],
                "endpoint is: tls:",
            ),
            (["call", "tcp:192.0.2.1:8787", "a", "e", "say", "--password-stdin"], "TLS"),
            (["call", "tcp:127.0.0.1:1", "a", "e", "say", "--password-stdin"], "No connection"),
        ]
        programs = await gatherResults(
            [
                Program(*PBAUTH, "--state", state, *arguments, stdin="secret\n").whenEnded()
                for arguments, _ in cases
            ]
        )
        for program, (arguments, said) in zip(programs, cases, strict=True):
            lines = program.output.splitlines()
            self.assertIn(said, lines[-1], arguments)
            self.assertEqual(len(lines), 1, program.output)
            self.assertEqual(program.exitCode, 1)

    async def test_states(self) -> None:
        """State folders that can't be used, and databases that are none; all are left alone."""

        def folder(mode: int, database: bytes | None = None) -> str:
            path = self.mktemp()
            os.mkdir(path)
            os.chmod(path, mode)
            if database is not None:
                with open(os.path.join(path, "accounts.sqlite"), "wb") as file:
                    file.write(database)
            return path

        readable, corrupt, other = folder(0o755), folder(0o700, JUNK), folder(0o700)
        with closing(sqlite3.connect(os.path.join(other, "accounts.sqlite"))) as database:
            database.execute("CREATE TABLE recipes (name TEXT)")
        file = os.path.join(corrupt, "accounts.sqlite")
        cases = [
            (readable, f"chmod 700 {readable}"),
            (file, "is not a folder"),
            (os.path.join(self.mktemp(), "deeper"), "Can't create the state folder"),
            (corrupt, "not an SQLite database"),
            (other, "a database of another program"),
        ]
        programs = await gatherResults(
            [
                Program(*PBAUTH, "--state", state, "user", "lock", "alice").whenEnded()
                for state, _ in cases
            ]
        )
        for program, (_, said) in zip(programs, cases, strict=True):
            self.assertIn(said, program.output)
            self.assertEqual(len(program.output.splitlines()), 1, program.output)
            self.assertEqual(program.exitCode, 1)
        self.assertEqual(os.listdir(readable), [])
        with open(file, "rb") as unchanged:
            self.assertEqual(unchanged.read(), JUNK)

    async def test_lockedDatabase(self) -> None:
        """A database that another process keeps locked is said to be; nothing is changed."""
        state = self.mktemp()
        await run(*PBAUTH, "--state", state, "user", "add", "bob", "--no-password")
        with closing(sqlite3.connect(os.path.join(state, "accounts.sqlite"))) as database:
            database.execute("BEGIN EXCLUSIVE")
            program = await run(
                *("-c", IMPATIENT, "--state", state, "user", "add", "alice", "--password-stdin"),
                stdin="secret\n",
                forked=True,
            )
        self.assertIn("locked by another process, for more than 0.2 seconds", program.output)
        self.assertEqual(program.exitCode, 1)

    async def test_interrupted(self) -> None:
        """Ctrl-C ends the command without a traceback."""
        from twisted.internet import protocol, reactor

        connected: Deferred[None] = Deferred()

        class Silent(protocol.Protocol):
            def connectionMade(self) -> None:
                connected.callback(None)

        port = reactor.listenTCP(
            0, protocol.ServerFactory.forProtocol(Silent), interface="127.0.0.1"
        )
        self.addCleanup(port.stopListening)
        program = Program(
            *(*PBAUTH, "call", f"tcp:127.0.0.1:{port.getHost().port}"),
            *("alice", "echo", "say", "--password-stdin"),
            stdin="secret\n",
        )
        self.addCleanup(program.stop)
        await connected
        program.kill("INT")
        await program.whenEnded()
        self.assertNotIn("Traceback", program.output)
        self.assertEqual(program.exitCode, 1)


class AnswerTests(SynchronousTestCase):
    """How an answer is printed."""

    def test_plain(self) -> None:
        """What PB can send, JSON can show."""
        from pbauth.cli.calls import _plain

        answer = {"a": (1, 2.5, None), b"b": {3}, 4: [True, b"\xff", "é"], "o": object()}
        self.assertEqual(
            json.loads(json.dumps(_plain(answer))),
            {"a": [1, 2.5, None], "b": [3], "4": [True, "\\xff", "é"], "o": "<object>"},
        )
