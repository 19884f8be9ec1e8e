"""The same administration, of accounts at hand and of a server that runs."""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from twisted.internet.defer import Deferred, TimeoutError, gatherResults
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from pbauth import (
    AdminService,
    DefaultAuthorizer,
    Detached,
    DuplicateGroup,
    DuplicateIdentity,
    Hashing,
    IAdministration,
    InvalidName,
    InvalidPassword,
    ISessionAdministration,
    KeyNotFound,
    Login,
    NotAMember,
    Password,
    PrivateKey,
    ProtocolViolation,
    PublicKey,
    Unauthorized,
    UnknownGroup,
)
from pbauth.accounts.administrators import KeptAdministrator
from pbauth.accounts.records import Record
from pbauth.admin import protocol
from pbauth.admin import service as service
from pbauth.admin.administration import Administration
from pbauth.admin.remote import RemoteAdministration, openAdministration
from pbauth.errors import (
    CannotDrain,
    LastAdministrator,
    LimitExceeded,
    UnknownKey,
    UnknownPublicKey,
    UnknownUser,
    UnknownVoucher,
)
from pbauth.mechanisms import md5, scram
from pbauth.mechanisms.external import CertificateKey
from pbauth.testing import MemoryServer, RecordingService
from tests.support.keys import KEY
from tests.support.processes import PBAUTH, Program
from tests.support.records import SQL
from tests.support.tls import TLSTestCase

KEYS = [PublicKey(b"1" * 32, "laptop"), CertificateKey("SHA256:" + "A" * 43 + "=", "card")]


class Administrating(SynchronousTestCase):
    """An administration of accounts in memory."""

    def setUp(self) -> None:
        self.memory = MemoryServer()
        self.accounts = self.memory.authorizer
        self.memory.addUser("admin", "secret", ("admin", "admin"))
        self.admin: Any = self.makeAdministration()

    def makeAdministration(self) -> Any:
        """Make it."""
        return Administration(self.accounts, "admin", keeping=KeptAdministrator("admin"))

    def start(self, operation: Any) -> Deferred[Any]:
        """Begin an operation, and carry all bytes."""
        begun = Deferred.fromCoroutine(operation)
        self.memory.flush()
        return begun

    def do(self, method: str, *arguments: Any) -> Any:
        """Do something, and give what comes of it."""
        return self.successResultOf(self.start(getattr(self.admin, method)(*arguments)))

    def fails(self, error: type[Exception], method: str, *arguments: Any) -> None:
        """Do what fails."""
        operation = self.start(getattr(self.admin, method)(*arguments))
        self.failureResultOf(operation, error)


class SameTests(Administrating):
    """What both do."""

    #: The interface of the administration under test.
    provides: Any = IAdministration

    def test_interface(self) -> None:
        """It provides what the command needs."""
        verifyObject(self.provides, self.admin)
        self.assertTrue(IAdministration.providedBy(self.admin))

    def test_vouchers(self) -> None:
        """Issued, listed in pages, revoked by id and by label."""
        self.do("addUser", "alice", None)
        until = self.accounts.now() + timedelta(days=1)
        issue = self.admin.issueVoucher
        voucher = self.successResultOf(
            self.start(issue("alice", "jenkins", until, True, methods=["move"]))
        )
        self.assertEqual(voucher.limits.methods, {"move"})
        for _ in range(3):
            self.do("issueVoucher", "alice", "friend", until)
        found = self.do("listVouchers", "alice")
        self.assertEqual([each.label for each in found], ["jenkins", "friend", "friend", "friend"])
        self.assertEqual(found[0].id, voucher.id)
        self.assertEqual([each.survivesPasswordChange for each in found], [True] + [False] * 3)
        self.assertEqual(self.do("revokeVoucher", "alice", "friend"), 3)
        self.assertEqual(self.do("revokeVoucher", "alice", voucher.id), 1)
        self.assertEqual(self.do("listVouchers", "alice"), [])
        self.fails(UnknownVoucher, "revokeVoucher", "alice", voucher.id)
        for call in [
            ("issueVoucher", "mallory", "x", until),
            ("listVouchers", "mallory"),
            ("revokeVoucher", "mallory", "x"),
        ]:
            self.fails(UnknownUser, *call)
        late = until + timedelta(days=90)
        self.fails(LimitExceeded, "issueVoucher", "alice", "x", late)

    def test_users(self) -> None:
        """Added, listed in pages, given a password, locked, unlocked, removed."""
        self.do("addUser", "alice", "number one")
        self.do("addUser", "bob", None)
        self.assertEqual(
            self.do("listUsers"), [("admin", False, 1), ("alice", False, 0), ("bob", False, 0)]
        )
        self.assertEqual(self.do("listUsers", "admin", 1), [("alice", False, 0)])
        self.assertEqual(self.do("listUsers", "bob"), [])
        self.do("setPassword", "alice", "number two")
        alice = self.accounts.identities["alice"]
        self.successResultOf(alice.verifyPlainPassword("number two"))
        self.do("setLocked", "alice", True)
        self.assertTrue(alice.locked)
        self.do("setLocked", "alice", False)
        self.do("removeUser", "alice")
        self.assertEqual(list(self.accounts.identities), ["admin", "bob"])

    def test_keys(self) -> None:
        """Granted, listed, looked up by service, revoked."""
        self.do("addUser", SQL, None)
        for perspective in ("white", "black", SQL):
            self.do("grantKey", SQL, "game", perspective)
        self.assertEqual(
            self.do("listKeys", SQL), [("game", SQL), ("game", "black"), ("game", "white")]
        )
        self.do("revokeKey", SQL, "game", "white")
        self.assertEqual(
            self.do("whoCan", "game"), [(SQL, SQL, False, ""), (SQL, "black", False, "")]
        )
        self.assertEqual(self.do("whoCan", "nothing"), [])

    def test_publicKeys(self) -> None:
        """Let in, listed, taken back."""
        self.do("addPublicKeys", "admin", KEYS)
        listed = self.do("listPublicKeys", "admin")
        self.assertEqual(listed, KEYS)
        self.assertEqual([key.label for key in listed], ["laptop", "card"])
        self.do("removePublicKey", "admin", "card")
        self.assertEqual(self.do("listPublicKeys", "admin"), KEYS[:1])

    def test_mistakes(self) -> None:
        """Each is the same error."""
        for error, *act in [
            (DuplicateIdentity, "addUser", "admin", "secret"),
            (InvalidName, "addUser", "a\nb", "secret"),
            (InvalidPassword, "addUser", "alice", ""),
            (UnknownUser, "removeUser", "mallory"),
            (UnknownUser, "setPassword", "mallory", "secret"),
            (InvalidPassword, "setPassword", "admin", "\x00"),
            (UnknownUser, "setLocked", "mallory", True),
            (UnknownUser, "grantKey", "mallory", "game", "black"),
            (InvalidName, "grantKey", "admin", "", "black"),
            (UnknownKey, "revokeKey", "admin", "game", "black"),
            (UnknownUser, "listKeys", "mallory"),
            (InvalidName, "whoCan", ""),
            (UnknownUser, "addPublicKeys", "mallory", KEYS),
            (UnknownPublicKey, "removePublicKey", "admin", "laptop"),
            (LastAdministrator, "removeUser", "admin"),
            (LastAdministrator, "setLocked", "admin", True),
            (LastAdministrator, "revokeKey", "admin", "admin", "admin"),
        ]:
            self.fails(error, *act)
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual(self.do("listUsers"), [("admin", False, 1)])

    def test_groups(self) -> None:
        """Added, given members and keys, listed; all of it taken back."""
        for name in ("alice", SQL):
            self.do("addUser", name, None)
            self.do("addGroup", name)
        self.do("addGroup", "staff")
        self.assertEqual(self.do("listGroups"), sorted(["alice", "staff", SQL]))
        self.assertEqual(self.do("listGroups", "alice", 1), ["staff"])
        for name in ("alice", SQL):
            self.do("joinGroup", "staff", name)
        self.assertEqual(self.do("listMembers", "staff"), sorted(["alice", SQL]))
        for key in (("game", "*"), ("game", "{name}"), (SQL, SQL)):
            self.do("grantGroupKey", "staff", *key)
        self.assertEqual(
            self.do("groupKeys", "staff"),
            sorted([("game", "*"), ("game", "{name}"), (SQL, SQL)]),
        )
        self.assertEqual(
            self.do("whoCan", "game"),
            sorted((who, key, False, "staff") for who in ("alice", SQL) for key in ("*", who)),
        )
        self.do("revokeGroupKey", "staff", "game", "*")
        self.do("leaveGroup", "staff", SQL)
        self.assertEqual(self.do("whoCan", "game"), [("alice", "alice", False, "staff")])
        self.do("removeGroup", "staff")
        self.assertEqual(self.do("whoCan", "game"), [])
        self.assertEqual(self.accounts.identities["alice"].groups, frozenset())

    def test_groupMistakes(self) -> None:
        """Each is the same error."""
        self.do("addGroup", "staff")
        for error, *act in [
            (DuplicateGroup, "addGroup", "staff"),
            (InvalidName, "addGroup", ""),
            (UnknownGroup, "removeGroup", "nobody"),
            (UnknownGroup, "joinGroup", "nobody", "admin"),
            (UnknownUser, "joinGroup", "staff", "mallory"),
            (UnknownGroup, "leaveGroup", "nobody", "admin"),
            (NotAMember, "leaveGroup", "staff", "admin"),
            (UnknownGroup, "listMembers", "nobody"),
            (UnknownGroup, "grantGroupKey", "nobody", "game", "*"),
            (InvalidName, "grantGroupKey", "staff", "game", ""),
            (UnknownGroup, "revokeGroupKey", "nobody", "game", "*"),
            (UnknownKey, "revokeGroupKey", "staff", "game", "*"),
            (UnknownGroup, "groupKeys", "nobody"),
            (UnknownUser, "setExpiry", "mallory", None),
            (UnknownUser, "showUser", "mallory"),
        ]:
            self.fails(error, *act)

    def test_administratorByGroup(self) -> None:
        """The administration may be held by group; its last administrator can't be taken out."""
        admin = self.accounts.identities["admin"]
        self.do("addGroup", "admins")
        self.do("grantGroupKey", "admins", "admin", "{name}")
        self.do("joinGroup", "admins", "admin")
        self.do("revokeKey", "admin", "admin", "admin")
        self.assertEqual(dict(admin.keyring), {})
        for act in (
            ("leaveGroup", "admins", "admin"),
            ("revokeGroupKey", "admins", "admin", "{name}"),
            ("removeGroup", "admins"),
            ("setExpiry", "admin", datetime(2100, 1, 1, tzinfo=timezone.utc)),
            ("setLocked", "admin", True),
        ):
            self.fails(LastAdministrator, *act)
        self.assertEqual(self.do("listMembers", "admins"), ["admin"])

    def test_life(self) -> None:
        """When a user expires, and what else there is to know."""
        moment = datetime(2100, 1, 1, 12, 0, 0, 1, timezone.utc)
        for name in ("alice", "bob"):
            self.do("addUser", name, "number one")
        self.do("setExpiry", "alice", moment)
        self.do("setPassword", "alice", "number two", True)
        self.do("addPublicKeys", "alice", [KEYS[0].expiring(moment)])
        self.do("addGroup", "staff")
        self.do("joinGroup", "staff", "alice")
        shown = self.do("showUser", "alice")
        alice = self.accounts.identities["alice"]
        self.assertEqual(
            (shown.name, shown.expires, shown.mustChangePassword, shown.groups, shown.created),
            ("alice", moment, True, {"staff"}, alice.created),
        )
        (key,) = shown.publicKeys()
        self.assertEqual(key.expires, moment)
        # No secret is shown.
        self.assertEqual({mechanism for mechanism, _ in shown.verifiers}, {"ED25519"})
        self.do("setPassword", "alice", "number three")
        self.assertFalse(alice.mustChangePassword)
        self.do("setExpiry", "alice", None)
        self.assertIsNone(alice.expires)

    def test_find(self) -> None:
        """Users who are locked, have expired, or have not logged in for long."""
        now = datetime.now(timezone.utc)
        for name in ("alice", "bob", "carol"):
            self.do("addUser", name, None)
        found = self.accounts.identities
        found["alice"].locked = True
        found["bob"].expires = now
        found["alice"].created = found["carol"].created = now - timedelta(days=100)
        found["carol"].lastLogin = now - timedelta(days=90)
        for arguments, names in [
            ((), ["admin", "alice", "bob", "carol"]),
            ((True,), ["alice"]),
            ((False, True), ["bob"]),
            ((True, True), []),
            ((False, False, now - timedelta(days=50)), ["alice", "carol"]),
            ((False, False, now - timedelta(days=95)), ["alice"]),
            ((False, False, now - timedelta(days=50), "alice"), ["carol"]),
            ((False, False, None, "", 2), ["admin", "alice"]),
        ]:
            self.assertEqual([name for name, _, _ in self.do("findUsers", *arguments)], names)

    def test_manyPages(self) -> None:
        """Any number of them, in order."""
        self.patch(protocol, "MOST_ITEMS", 3)
        for number in range(10):
            self.do("addUser", f"user{number}", None)
            self.do("grantKey", f"user{number}", "game", "white")
            self.do("grantKey", "admin", "game", f"{number}")
        names = [f"user{number}" for number in range(10)]
        self.assertEqual([name for name, _, _ in self.do("listUsers")], ["admin", *names])
        self.assertEqual([name for name, *_ in self.do("whoCan", "game")][10:], names)
        self.assertEqual(len(self.do("listKeys", "admin")), 11)
        self.assertEqual(len(self.do("listUsers", "user1", 7)), 7)


class RemoteTests(SameTests):
    """By a server that runs, and what is only so there."""

    provides = ISessionAdministration

    def makeAdministration(self) -> Any:
        """Make it."""
        self.service = AdminService("admin", self.memory.services, self.accounts)
        return self.logIn()

    def logIn(self, name: str = "admin", password: Any = "secret", **options: Any) -> Any:
        """Log an administrator in."""
        return self.successResultOf(self.attempt(name, password, **options))

    def attempt(self, name: str, password: Any = "secret", **options: Any) -> Deferred[Any]:
        """Begin that."""
        login = Login(self.memory, name, Password(password), timeout=options.pop("timeout", 30))
        return self.start(openAdministration(self.memory.clock, login, **options))

    def test_login(self) -> None:
        """Any key to the service will do; without one, or with a wrong password, none is given."""
        self.memory.addUser("alice", "secret", ("admin", "whatever"))
        self.memory.addUser("bob", "secret", ("game", "admin"))
        self.logIn("alice")
        self.failureResultOf(self.attempt("bob"), KeyNotFound)
        self.failureResultOf(self.attempt("admin", "wrong"), Unauthorized)
        self.assertRaises(InvalidName, self.attempt, "a\nb")

    def test_hashing(self) -> None:
        """Passwords are hashed here, as the server says; it sees none of them."""
        seen: list[Any] = []
        receive = service.Administrator.perspectiveMessageReceived

        def watch(perspective: Any, broker: Any, message: Any, args: Any, kw: Any) -> Any:
            seen.append(broker.unserialize(args))
            return receive(perspective, broker, message, args, kw)

        self.patch(service.Administrator, "perspectiveMessageReceived", watch)
        self.accounts.hashing = Hashing(5_000)
        self.do("addUser", "alice", "swordfish")
        self.admin = self.logIn(legacy=True)
        self.do("addUser", "bob", "swordfish")
        verifiers = {
            name: self.successResultOf(self.accounts.identities[name].getVerifiers())
            for name in ("alice", "bob")
        }
        self.assertEqual(verifiers["alice"][scram.NAME].iterations, 5_000)
        self.assertEqual(verifiers["alice"].keys(), {scram.NAME})
        self.assertEqual(verifiers["bob"].keys(), {scram.NAME, md5.NAME})
        self.assertEqual(len(seen), 2)
        self.assertNotIn("swordfish", repr(seen))

    def test_check(self) -> None:
        """What new passwords have to be like is checked here, since the server sees none."""

        def check(password: str, name: str) -> None:
            if password == name:
                raise InvalidPassword("That is the name.")

        self.admin = self.logIn(check=check)
        self.fails(InvalidPassword, "addUser", "alice", "alice")
        self.fails(InvalidPassword, "setPassword", "admin", "admin")
        self.do("addUser", "alice", "other")

    def test_oneself(self) -> None:
        """Who is another one's administrator, too, may go; the session ends with that."""
        for act in [
            ("setLocked", "alice", True),
            ("revokeKey", "alice", "admin", "alice"),
            ("removeUser", "alice"),
        ]:
            self.accounts.identities.pop("alice", None)
            self.memory.addUser("alice", "secret", ("admin", "alice"))
            self.admin = self.logIn("alice")
            self.do(*act)
            self.fails(Detached, "listUsers")
            self.fails(Detached, "removeUser", "admin")

    def test_ownPassword(self) -> None:
        """One's own session stays."""
        self.do("setPassword", "admin", "other")
        self.do("listUsers")
        self.logIn("admin", "other")

    def test_sessions(self) -> None:
        """Listed, and ended."""
        game = RecordingService("game", self.memory.services, self.accounts)
        self.memory.addUser("alice", "secret", ("game", "alice"))
        for _ in range(2):
            self.successResultOf(self.memory.logIn("alice", "secret", "game"))
        self.patch(protocol, "MOST_ITEMS", 1)
        ids = {each[0]: each[1] for each in self.do("listSessions")}
        self.assertEqual(sorted(ids.values()), ["admin", "alice", "alice"])
        one = next(each for each, name in ids.items() if name == "alice")
        self.do("endSession", one)
        self.assertEqual(self.do("endSessions", "alice"), 1)
        self.assertIsNone(self.do("unheardServers"))
        self.assertEqual(game.kinds().count("detached"), 2)
        (own,) = [each for each, name in ids.items() if name == "admin"]
        self.do("endSession", own)
        self.fails(Detached, "listSessions")

    def test_drain(self) -> None:
        """The server says how long it takes, or that it can't."""
        self.fails(CannotDrain, "drain")
        service: Any = self.memory.services.getServiceNamed("admin")
        service.drain = lambda: 7
        self.assertEqual(self.do("drain"), 7.0)

    def test_records(self) -> None:
        """Whole accounts, read and added in as many messages as it takes."""
        self.do("addUser", "alice", "secret")
        self.do("grantKey", "alice", "game", "white")
        before = self.do("readRecords")
        self.assertEqual([record.name for record in before], ["admin", "alice"])
        self.assertEqual(self.do("readRecords", "admin", 1), before[1:])
        new = [
            Record(f"user{number}", number % 2 == 0, before[1].verifiers, before[1].keys)
            for number in range(10)
        ]
        self.patch(protocol, "MOST_ITEMS", 3)
        self.assertEqual(self.do("addRecords", new), 10)
        self.assertEqual(self.do("readRecords", "alice"), new)
        self.assertEqual(self.do("readRecords", "user2", 5), new[3:8])
        self.fails(DuplicateIdentity, "addRecords", new[:1])
        self.assertEqual(self.do("addRecords", [*new, Record("last")], True), 1)

    def test_longRecords(self) -> None:
        """Long ones go alone."""
        keys = frozenset(("game", f"{number}" + "x" * 240) for number in range(600))
        new = [Record(f"user{number}", keys=keys) for number in range(6)]
        self.patch(protocol, "MOST_SENT", 200_000)
        self.assertEqual([len(batch) for batch in protocol.encodeBatches(new)], [1] * 6)
        self.assertEqual(self.do("addRecords", new), 6)
        self.assertEqual(self.do("readRecords", "admin"), new)

    def test_late(self) -> None:
        """A server that does not answer is not waited for."""
        self.patch(self.accounts, "listIdentities", lambda *_: Deferred())
        self.admin = self.logIn(timeout=5)
        listing = self.start(self.admin.listUsers())
        self.memory.advance(6)
        self.failureResultOf(listing, TimeoutError)


class HostileServerTests(SynchronousTestCase):
    """Answers that no administration gives."""

    def test_answers(self) -> None:
        """Each is a `ProtocolViolation`, none goes to the terminal, and none goes on for ever."""
        user = ("alice", False, 1)
        for method, *pages in [  # type: ignore[var-annotated]
            ("listUsers", "none"),
            ("listUsers", ["alice"]),
            ("listUsers", [("alice", False)]),
            ("listUsers", [("alice", 0, 1)]),
            ("listUsers", [("a\x1b[2J", False, 1)]),
            ("listUsers", [user], [user]),
            ("listUsers", [("b", False, 1), ("a", False, 1)]),
            ("listKeys", [("game",)]),
            ("listKeys", [("game", "x")], [("game", "x")]),
            ("whoCan", [("alice", "x", None, "")]),
            ("whoCan", [("alice", "x", False, "")], [("alice", "x", False, "")]),
            ("listPublicKeys", [("ED25519", "nonsense")]),
            ("listPublicKeys", [("ROT13", "x")]),
            ("listSessions", [("1", "a", "b", "c", "d", "now")]),
            ("listGroups", ["staff"]),
            ("listGroups", [("staff",)], [("staff",)]),
            ("listMembers", [("a\x1b[2J",)]),
            ("groupKeys", [("game",)]),
            ("findUsers", [("alice", False)]),
            ("showUser", "alice"),
            ("showUser", ("alice", False, [], [], [], "tomorrow", False, None, None)),
            ("readRecords", ["alice"]),
            ("readRecords", 5),
            ("readRecords", [("alice", False, [], [])], [("alice", False, [], [])]),
            ("endSessions", "many"),
            ("unheardServers", "many"),
            ("unheardServers", True),
            ("drain", None),
            ("drain", -1),
            ("drain", True),
            ("drain", float("inf")),
            ("drain", float("nan")),
            ("addRecords", None),
        ]:
            answers = list(pages)

            class Perspective:
                """Gives one answer after the other."""

                def callRemote(self, *call: Any, answers: Any = answers) -> Any:
                    answer: Deferred[Any] = Deferred()
                    answer.callback(answers.pop(0))
                    return answer

            admin = RemoteAdministration(Perspective(), "admin", MemoryServer().clock)
            arguments: dict[str, tuple[Any, ...]] = {
                "listUsers": (),
                "listGroups": (),
                "findUsers": (),
                "readRecords": (),
                "listSessions": (),
                "addRecords": ([Record("alice")],),
                "drain": (),
                "unheardServers": (),
            }
            asked = getattr(admin, method)(*arguments.get(method, ("alice",)))  # type: ignore[call-overload]
            self.failureResultOf(Deferred.fromCoroutine(asked), ProtocolViolation)


class CommandTests(TLSTestCase):
    """The command in processes of its own, beside a server."""

    def setUp(self) -> None:
        self.port = self.serve()
        self.accounts: DefaultAuthorizer = self.authorizer
        AdminService("admin", self.game.parent, self.accounts)
        admin = self.accounts.createIdentity("admin")
        admin.setPassword("open sesame")
        admin.addKeyByString("admin", "admin")
        admin.save()
        self.endpoint = f"tls:localhost:{self.port}"
        self.folder = os.path.abspath(self.mktemp())
        os.mkdir(self.folder)

    def pbauth(
        self, *arguments: str, stdin: str | None = "open sesame\n", **options: Any
    ) -> Program:
        """Start the command, in a folder of its own."""
        before = ("--server", self.endpoint, "--trust", self.pin)
        if not options.get("terminal"):
            before = (*before, "--login-password-stdin")
        program = Program(
            *PBAUTH, *before, *arguments, stdin=stdin, directory=self.folder, **options
        )
        self.addCleanup(program.stop)
        return program

    async def says(self, *arguments: str, stdin: str = "open sesame\n") -> str:
        """Run the command, and give what it says."""
        program = await self.pbauth(*arguments, stdin=stdin).whenEnded()
        self.assertEqual(program.exitCode, 0, program.output)
        return str(program.output)

    async def test_dumps(self) -> None:
        """Many users at once cross, both ways; a bad line says which, and its batch is not in."""
        dump = os.path.join(self.folder, "new.jsonl")
        lines = [
            json.dumps({"name": f"user{n:04}", "password": "a good one", "keys": [["game", "x"]]})
            for n in range(3)
        ]
        verifier = await self.verifierOf("admin")
        lines += [json.dumps({"name": f"user{n:04}", "verifier": verifier}) for n in range(3, 2500)]
        Path(dump).write_text("\n".join(lines))
        self.assertIn("Imported 2,500 users", await self.says("import", dump))
        self.assertEqual(len(self.accounts.identities), 2502)
        made = self.accounts.identities["user0001"]
        await made.verifyPlainPassword("a good one")
        self.assertEqual(made.getAllKeys(), [("game", "x")])
        out = os.path.join(self.folder, "all.jsonl")
        await self.says("export", out)
        names = [json.loads(line)["name"] for line in Path(out).read_text().splitlines()]
        self.assertEqual(names, sorted(self.accounts.identities))
        Path(dump).write_text('{"name": "late"}\n{"name": "la\\nter"}\n')
        failed = await self.pbauth("import", dump).whenEnded()
        self.assertEqual(failed.exitCode, 1)
        self.assertIn("line 2", failed.output)
        self.assertNotIn("late", self.accounts.identities)

    async def verifierOf(self, name: str) -> str:
        """A verifier, as text."""
        verifiers: Any = await self.accounts.identities[name].getVerifiers()
        return str(verifiers[scram.NAME].encode())

    async def test_lifeOfAnAccount(self) -> None:
        """The same words as without --server; a second password is in the second line."""
        line = KEYS[0].line()
        for arguments, more, said in [
            (["user", "add", "bob", "--password-stdin"], "number one\n", "Added bob.\n"),
            (
                ["user", "passwd", "bob", "--password-stdin"],
                "number two",
                "Changed the password of bob",
            ),
            (["key", "grant", "bob", "game"], "", "bob holds the key to bob of service game.\n"),
            (["key", "list", "bob"], "", "game\tbob\n"),
            (["user", "addkey", "bob"], f"{line}\n", f"Added {KEYS[0].fingerprint()} laptop\n"),
            (["user", "keys", "bob"], "", f"{KEYS[0].fingerprint()}\tlaptop\n"),
            (["user", "lock", "bob"], "", "Locked bob.\n"),
            (["user", "list"], "", "admin\t1 key\nalice\t1 key\nbob\t1 key\tlocked\n"),
            (["who-can", "game"], "", "alice\talice\nbob\tbob\tlocked\n"),
        ]:
            self.assertIn(said, await self.says(*arguments, stdin=f"open sesame\n{more}"))
        verifiers: Any = await self.accounts.identities["bob"].getVerifiers()
        self.assertTrue(verifiers[scram.NAME].matches("number two"))
        self.assertEqual(await self.says("user", "remove", "bob"), "Removed bob.\n")
        # Nothing was made on this side.
        self.assertEqual(os.listdir(self.folder), [])

    async def test_groupsAndDates(self) -> None:
        """Groups, and the life of an account, by the command."""
        for arguments, said in [
            (["group", "add", "staff"], "Added the group staff.\n"),
            (["group", "list"], "staff\n"),
            (["group", "join", "staff", "alice"], "alice is a member of staff.\n"),
            (["group", "members", "staff", "--json"], '{"name": "alice"}\n'),
            (
                ["key", "grant", "--group", "staff", "chess"],
                "The group staff holds the key to {name} of service chess.\n",
            ),
            (["key", "list", "--group", "staff"], "chess\t{name}\n"),
            (["who-can", "chess"], "alice\talice\t\tby group staff\n"),
            (
                ["user", "expire", "alice", "2100-01-01"],
                "alice expires at 2100-01-01T00:00:00Z.\n",
            ),
            (["user", "list", "--expired"], "There are no such users.\n"),
            (["user", "list", "--inactive", "1d"], "There are no such users.\n"),
            (["key", "revoke", "--group", "staff", "chess"], "no longer holds the key to {name}"),
            (["group", "leave", "staff", "alice"], "alice is no longer a member of staff.\n"),
            (["group", "remove", "staff"], "Removed the group staff.\n"),
        ]:
            self.assertIn(said, await self.says(*arguments))
        line = KEYS[0].line()
        await self.says(
            *("user", "addkey", "alice", "--expires", "2100-01-02T03:04:05Z"),
            stdin=f"open sesame\n{line}\n",
        )
        await self.says(
            *("user", "passwd", "alice", "--must-change", "--password-stdin"),
            stdin="open sesame\nnumber two\n",
        )
        shown = json.loads(await self.says("user", "show", "alice", "--json"))
        created = self.accounts.identities["alice"].created
        assert created is not None
        self.assertEqual(
            shown,
            {
                "name": "alice",
                "locked": False,
                "created": created.isoformat().replace("+00:00", "Z"),
                "lastLogin": None,
                "expires": "2100-01-01T00:00:00Z",
                "mustChangePassword": True,
                "groups": [],
                "keys": [["game", "alice"]],
                "publicKeys": [
                    {
                        "fingerprint": KEYS[0].fingerprint(),
                        "label": "laptop",
                        "expires": "2100-01-02T03:04:05Z",
                    }
                ],
            },
        )
        self.assertIn("password\tmust be changed\n", await self.says("user", "show", "alice"))
        for bad in (["user", "expire", "alice", "soon"], ["user", "list", "--inactive", "long"]):
            program = await self.pbauth(*bad).whenEnded()
            self.assertEqual(program.exitCode, 2, program.output)
            self.assertIn("Write a", program.output)

    async def test_json(self) -> None:
        """An object a line, in ASCII."""
        bob = self.accounts.createIdentity("bøb")
        bob.addKeyByString("game", "bøb")
        bob.addPublicKey(KEYS[0])
        bob.locked = True
        bob.save()
        cases: list[tuple[list[str], Any]] = [
            (["user", "list"], {"name": "bøb", "keys": 1, "locked": True}),
            (
                ["who-can", "game"],
                {"name": "bøb", "perspective": "bøb", "locked": True, "group": ""},
            ),
            (["key", "list", "bøb"], {"service": "game", "perspective": "bøb"}),
            (["user", "keys", "bøb"], {"fingerprint": KEYS[0].fingerprint(), "label": "laptop"}),
        ]
        said = await gatherResults(
            [Deferred.fromCoroutine(self.says(*arguments, "--json")) for arguments, _ in cases]
        )
        for text, (_, last) in zip(said, cases, strict=True):
            self.assertTrue(text.isascii())
            self.assertEqual(json.loads(text.splitlines()[-1]), last)

    async def test_sessions(self) -> None:
        """Who is attached, and no more."""
        perspective = await self.attempt(self.port, trust=self.pin)
        listed = (await self.says("session", "list")).splitlines()
        (line,) = [line for line in listed if "\tgame\t" in line]
        number, *rest = line.split("\t")
        self.assertEqual(rest[:3], ["alice", "game", "alice"])
        self.assertRegex(rest[3], r"127\.0\.0\.1 port \d+")
        self.assertRegex(rest[4], r"^\d{4}-\d\d-\d\dT[\d:]{8}Z$")
        self.assertEqual(await self.says("session", "end", number), f"Ended {number}.\n")
        with self.assertRaises(Detached):
            await perspective.callRemote("whoami")
        self.assertEqual(
            await self.says("session", "end", "--user", "alice"),
            "Ended 0 sessions of alice.\n"
            "This covers one server only: it can't ask others that may share its accounts.\n",
        )
        await self.hangUp(perspective)

    async def test_terminal(self) -> None:
        """On a terminal: one's own password is asked for first; a listing is a table."""
        program = self.pbauth("user", "add", "bob", stdin=None, terminal=True)
        for asked, typed in [
            ("Password of admin: ", "open sesame"),
            ("New password: ", "swordfish"),
            ("Repeat for confirmation: ", "swordfish"),
        ]:
            await program.waitFor(asked)
            program.write(f"{typed}\n")
        await program.whenEnded()
        self.assertEqual(program.exitCode, 0, program.output)
        self.assertNotIn("swordfish", program.output)
        await self.accounts.identities["bob"].verifyPlainPassword("swordfish")
        self.accounts.identities["bob"].locked = True
        program = self.pbauth("user", "list", stdin=None, terminal=True)
        await program.waitFor("Password of admin: ")
        program.write("open sesame\n")
        await program.whenEnded()
        table = program.output.replace("\r\n", "\n").partition(": \n")[2]
        self.assertEqual(
            table,
            "NAME   KEYS    LOCKED\nadmin  1 key\nalice  1 key\nbob    0 keys  locked\n",
        )

    async def test_mistakes(self) -> None:
        """Each is one line."""
        good = "open sesame\n"
        down = ("--server", "tls:127.0.0.1:1", "--trust", self.pin)
        cases: list[tuple[tuple[str, ...], str, str]] = [
            (("user", "list"), "wrong\n", "Login refused"),
            (("user", "list"), "", "no password of admin on standard input"),
            (("--login", "alice", "user", "list"), "secret\n", "No key to any perspective of"),
            (("user", "remove", "mallory"), good, "no user 'mallory'"),
            (("user", "lock", "admin"), good, "last administrator"),
            (("user", "add", "bob", "--password-stdin"), good, "no new password on standard"),
            (("user", "add", SQL, "--no-password"), good, "Added Robert'); DROP TABLE"),
            (("session", "end", "nonsense"), good, "no session 'nonsense'"),
            ((*down, "user", "list"), good, "No connection to tls:127.0.0.1:1"),
            (("--server", "nonsense", "user", "list"), good, "endpoint is: tls:"),
        ]
        programs = [self.pbauth(*arguments, stdin=stdin) for arguments, stdin, _ in cases]
        await gatherResults([program.whenEnded() for program in programs])
        for program, (arguments, _, said) in zip(programs, cases, strict=True):
            self.assertIn(said, program.output, arguments)
            self.assertEqual(len(program.output.splitlines()), 1, program.output)
            self.assertEqual(program.exitCode, 0 if SQL in arguments else 1, program.output)
        self.assertIn(SQL, self.accounts.identities)

    async def test_faults(self) -> None:
        """A server that fails, and a connection that is lost before the answer: one line each."""

        def fail(*arguments: Any) -> Any:
            raise RuntimeError("a secret of the server")

        def hangUp(*arguments: Any) -> Any:
            for session in self.accounts.sessions:
                session.broker.transport.loseConnection()
            return Deferred()

        for act, said in [
            (fail, "The server failed"),
            (hangUp, "was lost. Check whether the change was"),
        ]:
            self.patch(self.accounts, "listHolders", act)
            program = await self.pbauth("who-can", "game").whenEnded()
            self.assertIn(said, program.output)
            self.assertNotIn("secret", program.output)
            self.assertEqual(len(program.output.splitlines()), 1, program.output)
            self.assertEqual(program.exitCode, 1)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    async def test_options(self) -> None:
        """Options that do not go together are said not to, before anything is asked."""
        cases = [
            (("--state", "x", "user", "list"), "--state can't be used with --server"),
            (("--audit", "x", "user", "list"), "--audit can't be used with --server"),
            (("demo",), "demo can't be used with --server"),
            (("session", "end"), "the id of a session, or --user"),
            (("--login-plain", "--login-key", "x", "user", "list"), "Only one of"),
        ]
        alone = [
            (("--login", "x", "user", "list"), "needs --server"),
            (("--accept-new", "user", "list"), "needs --server"),
            (("session", "list"), "pbauth --server ENDPOINT session"),
        ]
        programs = [self.pbauth(*arguments) for arguments, _ in cases]
        programs += [Program(*PBAUTH, *each, directory=self.folder) for each, _ in alone]
        await gatherResults([program.whenEnded() for program in programs])
        for program, (arguments, said) in zip(programs, [*cases, *alone], strict=True):
            self.assertIn(said, program.output, arguments)
            self.assertEqual(program.exitCode, 2)
        self.assertEqual(os.listdir(self.folder), [])

    async def test_key(self) -> None:
        """The administrator may log in with a key."""
        self.accounts.identities["admin"].addPublicKey(PrivateKey(KEY).publicKey)
        path = os.path.join(self.folder, "key")
        Path(path).write_bytes(
            KEY.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        Path(path).chmod(0o600)
        program = Program(
            *(*PBAUTH, "--server", self.endpoint, "--trust", self.pin, "--login-key", path),
            *("user", "add", "bob", "--password-stdin"),
            stdin="secret\n",
        )
        self.addCleanup(program.stop)
        await program.whenEnded()
        self.assertEqual((program.output, program.exitCode), ("Added bob.\n", 0))
        await self.accounts.identities["bob"].verifyPlainPassword("secret")
