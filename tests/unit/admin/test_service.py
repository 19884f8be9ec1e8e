"""The administration over Perspective Broker, in memory."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase

from pbauth import (
    AdminService,
    CredAuthorizer,
    DefaultAuthorizer,
    Detached,
    DuplicateIdentity,
    Hashing,
    KeyNotFound,
    MethodNotAllowed,
    ProtocolViolation,
    PublicKey,
    SQLAuthorizer,
    Unauthorized,
)
from pbauth.accounts.administrators import KeptAdministrator
from pbauth.accounts.records import recordOf
from pbauth.admin import protocol
from pbauth.admin.administration import Administration
from pbauth.admin.service import Administrator
from pbauth.audit.events import LeanLogger
from pbauth.errors import (
    CannotDrain,
    LastAdministrator,
    NotProtected,
    PasswordsElsewhere,
    UnknownKey,
    UnknownPublicKey,
    UnknownSession,
    UnknownUser,
)
from pbauth.mechanisms import md5, scram, verifiersFor
from pbauth.mechanisms.md5 import MD5Verifier
from pbauth.mechanisms.scram import ScramVerifier
from pbauth.testing import MemoryServer, RecordingService
from tests.support.records import SQL


def verifierOf(password: str) -> str:
    """An encoded verifier, as an administrator's program makes it."""
    return ScramVerifier.fromPassword(password, b"salt" * 4, scram.FEWEST_ITERATIONS).encode()


class AdminTestCase(SynchronousTestCase):
    """A server with an administrator who is logged in."""

    def setUp(self) -> None:
        self.memory = MemoryServer()
        self.accounts = self.memory.authorizer
        self.service = AdminService("admin", self.memory.services, self.accounts)
        self.admin = self.memory.addUser("admin", "secret", ("admin", "admin"))
        self.remote = self.logIn("admin")
        self.events: list[Any] = []

    def logIn(self, name: str, password: str = "secret", service: str = "admin") -> Any:
        """Log somebody in, to the perspective of their name."""
        return self.successResultOf(self.memory.logIn(name, password, service))

    def ask(self, method: str, *arguments: Any, of: Any = None) -> Any:
        """Call a method, and give the Deferred of its answer."""
        answer = (of or self.remote).callRemote(method, *arguments)
        self.memory.flush()
        return answer

    def do(self, method: str, *arguments: Any, of: Any = None) -> Any:
        """Call a method, and give its answer."""
        return self.successResultOf(self.ask(method, *arguments, of=of))

    def fails(self, error: type[Exception], method: str, *arguments: Any, of: Any = None) -> Any:
        """Call a method that fails."""
        return self.failureResultOf(self.ask(method, *arguments, of=of), error).value


class UserTests(AdminTestCase):
    """Users, passwords and locks."""

    def test_lifeOfAnAccount(self) -> None:
        """Added, listed, given another password, locked, unlocked, removed."""
        self.do("addUser", "alice", [verifierOf("one")])
        self.do("grantKey", "alice", "admin", "alice")
        self.logIn("alice", "one")
        self.do("setPassword", "alice", [verifierOf("two")])
        self.failureResultOf(self.memory.logIn("alice", "one", "admin"), Unauthorized)
        alice = self.logIn("alice", "two")
        self.do("setLocked", "alice", True)
        self.assertEqual(self.do("listUsers", "", 10), [("admin", False, 1), ("alice", True, 1)])
        self.fails(Detached, "listUsers", "", 10, of=alice)
        self.do("setLocked", "alice", False)
        self.do("removeUser", "alice")
        self.assertEqual(self.do("listUsers", "", 10), [("admin", False, 1)])
        self.fails(UnknownUser, "removeUser", "alice")

    def test_noPassword(self) -> None:
        """An account may have none; and may keep an MD5 verifier, too."""
        self.do("addUser", "keyed", [])
        legacy = MD5Verifier.fromPassword("secret").encode()
        self.do("addUser", "old", [verifierOf("secret"), legacy])
        self.assertEqual(self.successResultOf(self.accounts.identities["keyed"].getVerifiers()), {})
        kept = self.successResultOf(self.accounts.identities["old"].getVerifiers())
        self.assertEqual(kept.keys(), {scram.NAME, md5.NAME})

    def test_vouchers(self) -> None:
        """Whoever has logged in with a voucher looks, and changes nothing."""
        until = self.accounts.now() + timedelta(hours=1)
        voucher = self.successResultOf(self.accounts.issueVoucher("admin", "agent", until))
        remote = self.successResultOf(self.memory.logIn(None, voucher, "admin"))
        self.assertEqual(self.do("listUsers", "", 10, of=remote), [("admin", False, 1)])
        for call in [
            ("addUser", "mallory", []),
            ("setPassword", "admin", [verifierOf("mine")]),
            ("grantKey", "admin", "game", "admin"),
            ("keepVoucher", "admin", ""),
            ("revokeVoucher", "admin", "agent"),
            ("readRecords", "", 10),
            ("addRecords", [], True),
            ("drain",),
            ("nothing",),
        ]:
            self.fails(MethodNotAllowed, *call, of=remote)

    def test_taken(self) -> None:
        """A name that is taken is the error itself."""
        self.assertEqual(self.fails(DuplicateIdentity, "addUser", "admin", []).name, "admin")

    def test_ownPassword(self) -> None:
        """Who changes the own password stays attached by this connection, and by no other."""
        other = self.logIn("admin")
        self.do("setPassword", "admin", [verifierOf("other")])
        self.do("listUsers", "", 10)
        self.fails(Detached, "listUsers", "", 10, of=other)
        self.logIn("admin", "other")

    def test_ownPasswordNotStored(self) -> None:
        """If it can't be stored, all sessions stay as they are."""

        def fail(identity: Any) -> Any:
            raise RuntimeError("the disk is full")

        before = [session.proof for session in self.accounts.sessions]
        self.patch(self.accounts, "updateIdentity", fail)
        # In memory a change counts at once; it is the proof that has to be as before.
        self.failureResultOf(self.ask("setPassword", "admin", [verifierOf("other")]))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual([session.proof for session in self.accounts.sessions], before)

    def test_externalPasswords(self) -> None:
        """Where a checker checks passwords, none can be set here; users can be added."""
        memory = MemoryServer()
        accounts = DefaultAuthorizer(hashing=Hashing.CHEAPEST)
        authorizer = CredAuthorizer([], memory.services, accounts=accounts)
        with self.assertRaises(TypeError):
            AdminService("admin", authorizer=authorizer)
        service = AdminService("admin", memory.services, authorizer, accounts=accounts)
        admin = self.successResultOf(service.getPerspectiveRequest("admin"))
        for name in ("admin", "other"):
            identity = accounts.createIdentity(name)
            identity.addKeyByString("admin", name)
            identity.save()
        own: Any = admin.brokerAttached(None, accounts.identities["admin"], None)

        def failure(method: str, *arguments: Any) -> Any:
            made = getattr(own, f"perspective_{method}")(*arguments)
            return self.failureResultOf(Deferred.fromCoroutine(made))

        failure("addUser", "alice", [verifierOf("x")]).trap(PasswordsElsewhere)
        failure("setPassword", "admin", [verifierOf("x")]).trap(PasswordsElsewhere)
        # Nobody has a verifier here, and yet both can log in.
        adding = own.perspective_addUser("alice", [])
        self.successResultOf(Deferred.fromCoroutine(adding))
        removing = own.perspective_removeUser("other")
        self.successResultOf(Deferred.fromCoroutine(removing))
        failure("setLocked", "admin", True).trap(LastAdministrator)


class UnprotectedTests(AdminTestCase):
    """An administrator whose login somebody in the middle may have passed on."""

    #: What changes nothing, and shows no verifier.
    READING = frozenset(
        {
            *("listUsers", "findUsers", "showUser", "listGroups", "listMembers", "groupKeys"),
            *("listKeys", "whoCan", "listPublicKeys", "listVouchers", "listSessions"),
            "unheardServers",
        }
    )

    def setUp(self) -> None:
        super().setUp()
        self.memory._peer = IPv4Address("TCP", "192.0.2.7", 4000)

    def methods(self) -> list[str]:
        """All methods of an administrator."""
        found = (each.partition("perspective_")[2] for each in dir(Administrator))
        return [each for each in found if each]

    def test_afar(self) -> None:
        """From another machine, without a bound login, nothing is changed; all else is shown."""
        remote = self.logIn("admin")
        before = self.admin.getAllKeys()
        for method in self.methods():
            if method not in self.READING:
                self.fails(NotProtected, method, of=remote)
        self.fails(NotProtected, "addUser", "mallory", [], of=remote)
        self.fails(NotProtected, "grantKey", "admin", "game", "admin", of=remote)
        self.assertEqual(self.do("listUsers", "", 10, of=remote), [("admin", False, 1)])
        self.assertEqual(self.do("unheardServers", of=remote), None)
        self.assertEqual(self.admin.getAllKeys(), before)

    def test_bound(self) -> None:
        """Neither does it matter where a client is whose login is bound to its connection."""
        for bound in (False, True):
            remote = self.logIn("admin")
            *_, session = self.accounts.sessions
            session.bound = bound
            if bound:
                self.do("addUser", "alice", [], of=remote)
            else:
                self.fails(NotProtected, "addUser", "alice", [], of=remote)

    def test_externalPasswords(self) -> None:
        """
        A password that is sent as it is is known to whoever passes it on: nothing is lost. A key
        that was not bound to the connection is another thing.
        """
        remote = self.logIn("admin")
        self.accounts.externalPasswords = True
        self.fails(NotProtected, "addUser", "alice", [], of=remote)
        *_, session = self.accounts.sessions
        session.proof = None
        self.do("addUser", "alice", [], of=remote)
        self.accounts.externalPasswords = False
        self.fails(NotProtected, "addUser", "bob", [], of=remote)


class KeyTests(AdminTestCase):
    """Keys of both kinds."""

    def test_keys(self) -> None:
        """Granted, listed, looked up by service, revoked."""
        self.memory.addUser("alice", "secret")
        self.do("grantKey", "alice", "game", "black")
        self.do("grantKey", "alice", "game", "white")
        self.do("setLocked", "alice", True)
        self.assertEqual(
            self.do("listKeys", "alice", None, 10), [("game", "black"), ("game", "white")]
        )
        self.assertEqual(self.do("listKeys", "alice", ("game", "black"), 10), [("game", "white")])
        self.assertEqual(
            self.do("whoCan", "game", None, 10),
            [("alice", "black", True, ""), ("alice", "white", True, "")],
        )
        self.assertEqual(
            self.do("whoCan", "game", ("alice", "black", ""), 10), [("alice", "white", True, "")]
        )
        self.do("revokeKey", "alice", "game", "black")
        error = self.fails(UnknownKey, "revokeKey", "alice", "game", "black")
        self.assertEqual((error.name, error.service, error.perspective), ("alice", "game", "black"))
        self.assertIn("pbauth key list alice", str(error))

    def test_publicKeys(self) -> None:
        """Let in, listed, and taken back."""
        lines = [(key.mechanism, key.line()) for key in (PublicKey(b"1" * 32, "laptop"),)]
        self.do("addPublicKeys", "admin", lines)
        self.assertEqual(self.do("listPublicKeys", "admin", 0, 10), lines)
        self.assertEqual(self.do("listPublicKeys", "admin", 1, 10), [])
        self.fails(UnknownPublicKey, "removePublicKey", "admin", "phone")
        self.do("removePublicKey", "admin", "laptop")
        self.assertEqual(self.do("listPublicKeys", "admin", 0, 10), [])


class SessionTests(AdminTestCase):
    """Who is attached, and how that is ended."""

    def setUp(self) -> None:
        super().setUp()
        self.game = RecordingService("game", self.memory.services, self.accounts)
        for name in ("alice", "bob"):
            self.memory.addUser(name, "secret", ("game", name))

    def test_list(self) -> None:
        """Each session with who, what, where from and since when, in pages."""
        self.memory.clock.advance(100)
        self.logIn("alice", service="game")
        first = self.do("listSessions", "", 1)
        rest = self.do("listSessions", first[-1][0], 10)
        self.assertEqual(self.do("listSessions", rest[-1][0], 10), [])
        sessions = {session[1:] for session in [*first, *rest]}
        self.assertEqual(
            sessions,
            {
                ("admin", "admin", "admin", "127.0.0.1 port 50000", 0.0),
                ("alice", "game", "alice", "127.0.0.1 port 50000", 100.0),
            },
        )

    def test_end(self) -> None:
        """One session, or all of somebody."""
        alice, bob, again = (self.logIn(n, service="game") for n in ("alice", "bob", "bob"))
        ids = {session[1]: session[0] for session in self.do("listSessions", "", 10)}
        self.do("endSession", ids["alice"])
        self.fails(Detached, "whoami", of=alice)
        self.assertEqual(self.do("whoami", of=bob), "bob")
        self.fails(UnknownSession, "endSession", ids["alice"])
        self.assertEqual(self.do("endSessions", "bob"), 2)
        for session in (bob, again):
            self.fails(Detached, "whoami", of=session)
        self.assertEqual(self.do("endSessions", "nobody"), 0)
        self.assertEqual(self.game.kinds().count("detached"), 3)

    def test_own(self) -> None:
        """Who ends all the own sessions keeps those of this connection."""
        other = self.logIn("admin")
        self.assertEqual(self.do("endSessions", "admin"), 1)
        self.fails(Detached, "listUsers", "", 10, of=other)
        self.do("listUsers", "", 10)


class DrainTests(AdminTestCase):
    """The end of the server."""

    def test_drained(self) -> None:
        """It is asked for, and recorded."""
        asked: list[str] = []

        def drain() -> float:
            asked.append("drain")
            return 7

        service: Any = self.memory.services.getServiceNamed("admin")
        service.drain = drain
        told: list[Any] = []
        globalLogPublisher.addObserver(told.append)
        self.addCleanup(globalLogPublisher.removeObserver, told.append)
        self.assertEqual(self.do("drain"), 7)
        self.assertEqual(asked, ["drain"])
        (event,) = (each for each in told if each.get("event") == "server.drained")
        self.assertEqual(event["operator"], "admin")

    def test_programOfOnesOwn(self) -> None:
        """Where nobody has said how, it can't be."""
        self.assertIn("where it runs", str(self.fails(CannotDrain, "drain")))
        with self.assertRaisesRegex(TypeError, "drain"):
            AdminService("other", self.memory.services, self.accounts, drain=5)  # type: ignore[arg-type]


class WhoTests(AdminTestCase):
    """Who gets in, and in whose name."""

    def test_endUser(self) -> None:
        """Who holds no key to it gets nothing of it."""
        self.memory.addUser("alice", "secret", ("game", "alice"))
        self.failureResultOf(self.memory.logIn("alice", "secret", "admin"), KeyNotFound)

    def test_anyPerspective(self) -> None:
        """Any name of a perspective will do, for those who hold the key to it."""
        self.memory.addUser("alice", "secret", ("admin", "whatever"))
        remote = self.successResultOf(self.memory.logIn("alice", "secret", "admin", "whatever"))
        self.assertEqual(len(self.do("listUsers", "", 10, of=remote)), 2)

    def test_revoked(self) -> None:
        """Who is taken the key administers no more, at once."""
        self.memory.addUser("alice", "secret", ("admin", "alice"))
        alice = self.logIn("alice")
        self.do("revokeKey", "alice", "admin", "alice")
        self.fails(Detached, "listUsers", "", 10, of=alice)

    def test_operator(self) -> None:
        """Each change is told in the name of who logged in, also on a shared perspective."""
        told: list[tuple[str, str]] = []
        for name in ("alice", "bob"):
            self.memory.addUser(name, "secret", ("admin", "shared"))
        remotes = [
            self.successResultOf(self.memory.logIn(name, "secret", "admin", "shared"))
            for name in ("alice", "bob")
        ]

        def send(log: Any, level: Any, format: Any, event: Any) -> None:
            if "operator" in event:
                told.append((event["event"], event["operator"]))

        self.patch(LeanLogger, "send", send)
        self.do("addUser", "carol", [verifierOf("x")], of=remotes[0])
        self.do("setPassword", "carol", [verifierOf("y")], of=remotes[1])
        self.do("grantKey", "carol", "game", "carol", of=remotes[0])
        self.do("setLocked", "carol", True, of=remotes[1])
        self.do("endSessions", "alice", of=remotes[1])
        self.assertEqual(
            told,
            [
                ("user.added", "alice"),
                ("user.password", "bob"),
                ("key.granted", "alice"),
                ("user.locked", "bob"),
                ("session.ended", "bob"),
            ],
        )


class LastAdministratorTests(AdminTestCase):
    """One is always left."""

    def refused(self) -> None:
        """Nothing that would lock the last one out is done, and it is still there after that."""
        for act in [
            ("removeUser", "admin"),
            ("setLocked", "admin", True),
            ("revokeKey", "admin", "admin", "admin"),
        ]:
            self.assertEqual(self.fails(LastAdministrator, *act).name, "admin")
        self.assertIn(("admin", False, 1), self.do("listUsers", "", 10))

    def test_only(self) -> None:
        """There is no other; the last session lives on."""
        self.memory.addUser("alice", "secret", ("game", "alice"))
        self.refused()
        # Ordinary users come and go.
        self.do("setLocked", "alice", True)
        self.do("revokeKey", "alice", "game", "alice")
        self.do("removeUser", "alice")

    def test_others(self) -> None:
        """Those who are locked, hold no key, or can't log in are no administrators."""
        self.memory.addUser("locked", "secret", ("admin", "locked")).locked = True
        self.memory.addUser("keyless", "secret", ("game", "admin"))
        self.memory.addUser("without", "secret", ("admin", "without")).setPassword(None)
        self.refused()
        for name in ("locked", "keyless", "without"):
            self.do("removeUser", name)

    def test_limitedKey(self) -> None:
        """Nor are those whose key is good for some methods only; and the last one's stays whole."""
        reader: Any = self.memory.addUser("reader", "secret")
        reader.addKeyByString("admin", "reader", ["listUsers", "showUser"])
        reader.save()
        self.refused()
        self.fails(LastAdministrator, "grantKey", "admin", "admin", "admin", ["listUsers"])
        self.do("grantKey", "admin", "admin", "*")
        self.do("grantKey", "admin", "admin", "admin", ["listUsers"])
        self.fails(LastAdministrator, "revokeKey", "admin", "admin", "*")
        self.do("grantKey", "reader", "admin", "reader")
        self.do("removeUser", "admin", of=self.logIn("reader"))

    def test_mechanisms(self) -> None:
        """Nor are those who can log in only by a mechanism that the server does not offer."""
        self.service.disownServiceParent()
        AdminService("admin", self.memory.services, self.accounts, mechanisms=["SCRAM-SHA-256"])
        self.remote = self.logIn("admin")
        robot = self.memory.addUser("robot", "secret", ("admin", "robot"))
        robot.setPassword(None)
        robot.addPublicKey(PublicKey(b"1" * 32, "robot"))
        robot.save()
        self.refused()
        robot.setPassword("secret")
        robot.save()
        self.do("setLocked", "admin", True, of=self.logIn("robot"))

    def test_verifiers(self) -> None:
        """Which verifiers the mechanisms take, by the names that policies have."""
        for names, expected in [
            ([], set()),
            (["SCRAM-SHA-256"], {"SCRAM-SHA-256"}),
            (["SCRAM-SHA-256-PLUS", "ED25519"], {"SCRAM-SHA-256", "ED25519"}),
            (["EXTERNAL"], {"EXTERNAL"}),
            (["PLAIN"], set()),
        ]:
            self.assertEqual(verifiersFor(names), expected)

    def test_another(self) -> None:
        """With another one, even oneself may go; but then that one is the last."""
        self.memory.addUser("alice", "secret", ("admin", "alice"))
        alice = self.logIn("alice")
        self.do("removeUser", "admin", of=alice)
        self.fails(Detached, "listUsers", "", 10)
        self.fails(LastAdministrator, "removeUser", "alice", of=alice)

    def test_twoKeys(self) -> None:
        """One of two keys may go."""
        self.do("grantKey", "admin", "admin", "second")
        self.do("revokeKey", "admin", "admin", "second")
        self.fails(LastAdministrator, "revokeKey", "admin", "admin", "admin")

    def test_publicKey(self) -> None:
        """Nor may the last thing that the last one can log in with."""
        keys = [PublicKey(bytes([number]) * 32, str(number)) for number in (1, 2)]
        for key in keys:
            self.admin.addPublicKey(key)
        self.do("removePublicKey", "admin", "1")
        self.remote.broker.transport.loseConnection()
        self.memory.flush()
        self.admin.setVerifiers({})
        by = Administration(self.accounts, "alice", keeping=KeptAdministrator("admin"))
        removing = Deferred.fromCoroutine(by.removePublicKey("admin", "2"))
        self.failureResultOf(removing, LastAdministrator)
        self.assertEqual(self.admin.getPublicKeys(), keys[1:])

    def test_twoAtOnce(self) -> None:
        """Two who remove each other at the same moment, on one server: one stays."""
        self.memory.addUser("alice", "secret", ("admin", "alice"))
        gate: Deferred[None] = Deferred()
        find = self.accounts.getIdentityRequest

        def slowly(name: str) -> Any:
            return _after(gate, lambda: find(name))

        one, other = (self.service.administration.by(name) for name in ("admin", "alice"))
        self.patch(self.accounts, "getIdentityRequest", slowly)
        removing = [
            Deferred.fromCoroutine(one.removeUser("alice")),
            Deferred.fromCoroutine(other.removeUser("admin")),
        ]
        self.assertNoResult(removing[0])
        gate.callback(None)
        self.successResultOf(removing[0])
        self.failureResultOf(removing[1], LastAdministrator)
        self.assertEqual(list(self.accounts.identities), ["admin"])

    def test_ownerOfTheStore(self) -> None:
        """The local command may do it all."""
        owner = Administration(self.accounts, "root")
        self.successResultOf(Deferred.fromCoroutine(owner.removeUser("admin")))
        self.assertEqual(self.accounts.identities, {})


class TwoServersTests(TestCase):
    """Two servers on one database."""

    async def test_twoAtOnce(self) -> None:
        """Two administrators who remove each other at the same moment: one is left."""
        path = self.mktemp()
        servers = [SQLAuthorizer(path, hashing=Hashing.CHEAPEST) for _ in "12"]
        for server in servers:
            self.addCleanup(server.close)
        names = ("alice", "bob")
        for turn in range(5):
            for name in names:
                identity = servers[0].createIdentity(name)
                identity.setPassword("secret")
                identity.addKeyByString("admin", name)
                await servers[0].addRecords([await recordOf(identity)], True)
            acts = [
                Administration(server, name, keeping=KeptAdministrator("admin"))
                for server, name in zip(servers, names, strict=True)
            ]
            other = {"alice": "bob", "bob": "alice"}
            done = await DeferredList(
                [
                    Deferred.fromCoroutine(
                        act.removeUser(other[name])
                        if turn % 2
                        else act.revokeKey(other[name], "admin", other[name])
                    )
                    for act, name in zip(acts, names, strict=True)
                ],
                consumeErrors=True,
            )
            left = await servers[0].listHolders("admin")
            self.assertEqual(len(left), 1)
            self.assertEqual([succeeded for succeeded, _ in done].count(True), 1)
            for succeeded, failure in done:
                if not succeeded:
                    failure.trap(LastAdministrator)
            for name in names:
                with contextlib.suppress(KeyError):
                    await servers[0].removeIdentity(name)


def _after(gate: Deferred[None], then: Any) -> Deferred[Any]:
    """What comes of this, once the gate is open."""
    later: Deferred[Any] = Deferred()
    gate.addCallback(lambda _: later.callback(None))
    return later.addCallback(lambda _: then())


class ArgumentTests(AdminTestCase):
    """What comes from the wire is looked at first."""

    def test_wrong(self) -> None:
        """Each wrong argument is a `ProtocolViolation`, and nothing is logged or changed."""
        good = verifierOf("secret")
        before = self.do("listUsers", "", 10)
        for act in [
            ("addUser", "", []),
            ("addUser", 5, []),
            ("addUser", None, []),
            ("addUser", "a\nb", []),
            ("addUser", "a" * 256, []),
            ("addUser", "\u00ad", []),
            ("addUser", "alice", None),
            ("addUser", "alice", ["secret"]),
            ("addUser", "alice", [5]),
            ("addUser", "alice", [b"bytes"]),
            ("addUser", "alice", ["ED25519$\nssh-ed25519 AAAA"]),
            ("addUser", "alice", ["SCRAM-SHA-256$1:YWFhYWFhYWFhYWFh$AA==:AA=="]),
            ("addUser", "alice", [good] * (protocol.MOST_ITEMS + 1)),
            ("addUser", "alice"),
            ("addUser", "alice", [], "more"),
            ("setPassword", "admin", []),
            ("setPassword", "admin", [MD5Verifier.fromPassword("x").encode()]),
            ("setLocked", "admin", 1),
            ("listUsers", None, 10),
            ("listUsers", "", 0),
            ("listUsers", "", True),
            ("listUsers", "", "10"),
            ("listUsers", "", 1.5),
            ("grantKey", "admin", "", "x"),
            ("grantKey", "admin", "x", None),
            ("listKeys", "admin", "after", 10),
            ("listKeys", "admin", ("a",), 10),
            ("whoCan", ["admin"], None, 10),
            ("addPublicKeys", "admin", "key"),
            ("addPublicKeys", "admin", [("ED25519", "ssh-rsa AAAA")]),
            ("addPublicKeys", "admin", [("PLAIN", "x")]),
            ("addPublicKeys", "admin", [("EXTERNAL", "x" * 10_000)]),
            ("listPublicKeys", "admin", -1, 10),
            ("removePublicKey", "admin", ""),
            ("listSessions", None, 10),
            ("endSession", {}),
            ("endSessions", None),
            ("drain", 5),
            ("addRecords", [("alice", False, [], [])], "no"),
            ("addRecords", [("alice", False, [])], False),
            ("addRecords", [("alice", 0, [], [])], False),
            ("addRecords", [("alice", False, [("PB-MD5", good)], [])], False),
            ("addRecords", [("alice", False, [], [("game", "")])], False),
            ("addRecords", [("alice", False, [], "ab")], False),
            ("addRecords", ["alice"], False),
            ("nonsense",),
            ("_end", "x"),
        ]:
            self.fails(ProtocolViolation, *act)
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual(self.do("listUsers", "", 10), before)

    def test_names(self) -> None:
        """There is no argument by which to be somebody else."""
        answer = self.remote.callRemote("addUser", "alice", [], operator="root")
        self.memory.flush()
        self.failureResultOf(answer, ProtocolViolation)

    def test_sql(self) -> None:
        """SQL comes back as text, from every field."""
        self.do("addUser", SQL, [])
        self.do("grantKey", SQL, SQL, SQL)
        self.assertEqual(self.do("listKeys", SQL, None, 10), [(SQL, SQL)])
        self.assertEqual(self.do("whoCan", SQL, None, 10), [(SQL, SQL, False, "")])
        self.assertIn((SQL, False, 1), self.do("listUsers", "", 10))
        self.fails(UnknownPublicKey, "removePublicKey", SQL, SQL)
        self.fails(UnknownSession, "endSession", SQL)


class PageTests(AdminTestCase):
    """No number of users makes one message too long."""

    def test_count(self) -> None:
        """There are no more items in an answer than there may be."""
        for number in range(25):
            self.memory.addUser(f"user{number:02}", "secret", ("game", "white"))
        self.patch(protocol, "MOST_ITEMS", 10)
        self.assertEqual(len(self.do("listUsers", "", 10**9)), 10)
        self.assertEqual(len(self.do("whoCan", "game", None, 10**9)), 10)
        names: list[str] = []
        while page := self.do("listUsers", names[-1] if names else "", 1000):
            names += [name for name, _, _ in page]
        self.assertEqual(names, sorted(self.accounts.identities))

    def test_size(self) -> None:
        """Nor is there more text in it; but there is one item at least."""
        self.patch(protocol, "MOST_BYTES", 1000)
        for number in range(20):
            self.admin.addKeyByString("game", f"{number:02}" + "x" * 250)
        last, found = None, []
        while page := self.do("listKeys", "admin", last, 1000):
            self.assertLess(len(page), 5)
            last = page[-1]
            found += page
        self.assertEqual(found, self.admin.getAllKeys())
        self.patch(protocol, "MOST_BYTES", 10)
        self.assertEqual(len(self.do("listKeys", "admin", None, 1000)), 1)


class ServiceTests(SynchronousTestCase):
    """How it is made."""

    def test_accounts(self) -> None:
        """It needs a store that can be administered."""
        for wrong in (None, object()):
            with self.assertRaises(TypeError):
                AdminService("admin", authorizer=wrong)

    def test_name(self) -> None:
        """It is called admin, unless it is given another name."""
        self.assertEqual(AdminService(authorizer=DefaultAuthorizer()).getServiceName(), "admin")
