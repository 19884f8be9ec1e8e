"""Identities: what is not in the suite that all authorizers share."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import succeed
from twisted.trial.unittest import SynchronousTestCase, TestCase

from pbauth import (
    DefaultAuthorizer,
    Hashing,
    Identity,
    InvalidName,
    KeyNotFound,
    Perspective,
    Service,
    SQLAuthorizer,
    Unauthorized,
)
from pbauth.accounts.records import Record
from pbauth.testing import MemoryServer, RecordingService

#: Enough that the derivation takes a thread.
SLOW = Hashing(iterations=100_000)


class NewNameTests(SynchronousTestCase):
    """Names that look like those of others."""

    def test_looksLikeAnother(self) -> None:
        """
        The name of a new identity holds nothing that can't be seen or turns the text round, and is
        its own form in SASLprep. A name that exists is what it is.
        """
        for name in [
            # Of the category Cf, mapped to nothing, and to another character.
            "ali\u200bce",
            "ali\u202ece",
            "ali\u2066ce",
            "ali\U000e0001ce",
            "ali\u00adce",
            "ali\u034fce",
            "ali\ufe0fce",
            "Al\u0130ce\u0301",
            "\uff21lice",
            "ali\u00a0ce",
            # Of no such category, but invisible too.
            "ali\u115fce",
            "ali\u1160ce",
            "ali\u3164ce",
            "ali\uffa0ce",
            "ali\u17b4ce",
            "ali\u17b5ce",
            "ali\u180fce",
            "ali\u2065ce",
            "alice\u2800",
            "alice\U000e0100",
            "alice\U000e01ef",
            # Of no category yet.
            "ali\u0378ce",
            "ali\U000e0fffce",
            # Spaces where nobody sees them.
            "alice ",
            " alice",
            "alice  b",
            " ",
        ]:
            with self.assertRaises(InvalidName, msg=ascii(name)):
                DefaultAuthorizer().createIdentity(name)

    def test_looksLikeItself(self) -> None:
        """Ordinary names of any language are names of new identities."""
        for name in (
            "alice",
            "Alice B",
            "Zo\u00eb",
            "日本語",
            "नमस्ते",
            "שלום",
            "x" * 255,
            "\U0001f511",
        ):
            self.assertEqual(DefaultAuthorizer().createIdentity(name).name, name)

    def test_exists(self) -> None:
        """An identity that exists goes on working, whatever its name looks like."""
        memory = MemoryServer()
        RecordingService("game", memory.services, memory.authorizer)
        for name in ("ali\u1160ce", "alice ", "ali\u0378ce"):
            identity = Identity(name, memory.authorizer)
            identity.setPassword("secret")
            identity.addKeyByString("game", name)
            memory.authorizer.addIdentity(identity)
            self.successResultOf(memory.logIn(name, "secret", "game", name))


class DerivationTests(TestCase):
    """While a reactor runs, verifiers are made in a thread; what needs them waits."""

    async def test_oldPasswordIsVoidAtOnce(self) -> None:
        """From the call on, the old password does not fit; the new one does when it is ready."""
        await self.turn()
        identity = DefaultAuthorizer(hashing=SLOW).createIdentity("alice")
        await identity.setPassword("old")
        (old,) = (await identity.getVerifiers()).values()
        self.assertTrue(identity.isProvedBy(old))
        changing = identity.setPassword("new")
        self.assertFalse(changing.called)
        self.assertFalse(identity.isProvedBy(old))
        await identity.verifyPlainPassword("new")
        with self.assertRaises(Unauthorized):
            await identity.verifyPlainPassword("old")
        await changing

    async def test_lastOneCounts(self) -> None:
        """Of passwords that are set one after the other, the last counts."""
        await self.turn()
        identity = DefaultAuthorizer(hashing=SLOW).createIdentity("alice")
        for password in ("one", "two", "three"):
            identity.setPassword(password)
        await identity.verifyPlainPassword("three")
        identity.setPassword("four")
        identity.setPassword(None)
        self.assertEqual(await identity.getVerifiers(), {})

    async def test_cannotBeMade(self) -> None:
        """Where verifiers can't be made, whoever waits is told, and no password fits."""

        class Broken(Hashing):
            def makeVerifiers(self, password: str, salt: bytes) -> Any:
                raise ZeroDivisionError

        await self.turn()
        identity = DefaultAuthorizer(hashing=Broken()).createIdentity("alice")
        changing = identity.setPassword("secret")
        checking = identity.verifyPlainPassword("secret")
        with self.assertRaises(ZeroDivisionError):
            await changing
        with self.assertRaises(Unauthorized):
            await checking
        self.assertEqual(await identity.getVerifiers(), {})

    async def test_saveWaits(self) -> None:
        """A store gets the verifiers, however slow they come."""
        await self.turn()
        authorizer = SQLAuthorizer(self.mktemp(), hashing=SLOW)
        self.addCleanup(authorizer.close)
        identity = authorizer.createIdentity("alice")
        identity.setPassword("secret")
        await identity.save()
        await (await authorizer.getIdentityRequest("alice")).verifyPlainPassword("secret")

    async def test_loginWaits(self) -> None:
        """A login that comes before the verifiers waits for them."""
        await self.turn()
        memory = MemoryServer(DefaultAuthorizer(hashing=SLOW))
        memory.authorizer.setServiceCollection(memory.services)
        RecordingService("game", memory.services, memory.authorizer)
        alice = memory.addUser("alice", "secret", ("game", "alice"))
        login = memory.logIn("alice", "secret", "game")
        self.assertNoResult(login)
        while not login.called:
            await alice.getVerifiers()
            memory.flush()
            await self.turn()
        await login

    async def turn(self) -> None:
        """Let the reactor run, and threads work."""
        from twisted.internet import reactor
        from twisted.internet.task import deferLater

        await deferLater(reactor, 0.01, lambda: None)


class SaveTests(SynchronousTestCase):
    """Authorizers of an application."""

    def test_whatever(self) -> None:
        """`save` gives a Deferred, whatever the authorizer's methods give."""

        class Strange(DefaultAuthorizer):
            answer: Any = None

            def addIdentity(self, identity: Any) -> Any:
                return self.answer() if callable(self.answer) else self.answer

        async def coroutine() -> str:
            return "stored"

        authorizer = Strange(hashing=Hashing.CHEAPEST)
        for answer, expected in ((None, None), (succeed(5), 5), (coroutine, "stored")):
            authorizer.answer = answer
            saved = authorizer.createIdentity("alice").save()
            self.assertEqual(self.successResultOf(saved), expected)


class KeyTests(SynchronousTestCase):
    """Keyrings and perspectives."""

    def setUp(self) -> None:
        self.memory = MemoryServer()
        self.authorizer = self.memory.authorizer
        self.game = Service("game", self.memory.services, self.authorizer)
        self.alice: Identity = self.memory.addUser("alice", "secret")

    def test_keyThatIsFalse(self) -> None:
        """A pair that maps to something false is not held."""
        self.alice.keyring["game", "alice"] = False
        self.assertFalse(self.alice.holdsKey("game", "alice"))
        self.assertEqual(self.alice.getAllKeys(), [])
        with self.assertRaises(KeyNotFound):
            self.alice.getKeyForService("game")

    def test_keyForService(self) -> None:
        """The identity's own name if that key is held, else the first in sorted order."""
        for name in ("white", "black"):
            self.alice.addKeyByString("game", name)
        self.alice.addKeyByString("chat", "alice")
        self.assertEqual(self.alice.getKeyForService("game"), "black")
        self.alice.addKeyByString("game", "alice")
        self.assertEqual(self.alice.getKeyForService("game"), "alice")

    def test_serviceChooses(self) -> None:
        """The service's `getPerspectiveForIdentity` has the last word; it may be anything."""
        black = self.game.createPerspective("black")

        async def coroutine(value: Any) -> Any:
            return value

        self.alice.addKeyByString("game", "any")
        asked = []
        for wrap in (lambda value: value, coroutine, succeed):

            def choose(name: str, identity: Any, wrap: Any = wrap) -> Any:
                asked.append((name, identity))
                return wrap(black)

            self.game.getPerspectiveForIdentity = choose  # type: ignore[method-assign]
            request = self.alice.requestPerspectiveForKey("game", "any")
            self.assertIs(self.successResultOf(request), black)
        self.assertEqual(asked, [("any", self.alice)] * 3)

    def test_addKeyForPerspective(self) -> None:
        """The pair is that of the perspective's service and name."""
        self.alice.addKeyForPerspective(self.game.createPerspective("black"))
        self.assertEqual(self.alice.keyring, {("game", "black"): True})

    def test_perspectiveWithoutService(self) -> None:
        """There is no key to a perspective that belongs to no service: what to do is said."""
        with self.assertRaisesRegex(ValueError, "'lonely'.* belongs to no service: add it"):
            self.alice.addKeyForPerspective(Perspective("lonely"))
        self.assertEqual(self.alice.getAllKeys(), [])

    def test_wrongVerifiers(self) -> None:
        """What is no verifier is named, and the verifiers so far stay."""
        before = self.successResultOf(self.alice.getVerifiers())
        wrong: Any = {"SCRAM-SHA-256": "SCRAM-SHA-256$4096:salt$stored:server"}
        with self.assertRaisesRegex(TypeError, r"verifiers\['SCRAM-SHA-256'\] must be .* not str"):
            self.alice.setVerifiers(wrong)
        self.assertEqual(self.successResultOf(self.alice.getVerifiers()), before)

    def test_wrongRecords(self) -> None:
        """One wrong record among others, and none is stored."""
        records: Any = [Record("bob"), "carol"]
        with self.assertRaisesRegex(TypeError, "records must be of type Record, not str"):
            self.authorizer.addRecords(records)
        listed = self.successResultOf(self.authorizer.listIdentities())
        self.assertEqual([name for name, *_ in listed], ["alice"])

    def test_ownIdentityClass(self) -> None:
        """An identity that decides by itself which keys it holds is asked."""

        class Host(Identity):
            def holdsKey(self, serviceName: str, perspectiveName: str) -> bool:
                return serviceName == "rooms"

        self.authorizer.identityClass = Host
        rooms = RecordingService("rooms", self.memory.services, self.authorizer)
        host = self.memory.addUser("host", "secret")
        self.successResultOf(self.memory.logIn("host", "secret", "rooms", "any room"))
        host.save()
        self.assertEqual(rooms.kinds(), ["attached"])
        self.failureResultOf(self.memory.logIn("host", "secret", "game"), KeyNotFound)

    def test_repr(self) -> None:
        """The name is shown, and nothing else."""
        self.assertEqual(repr(self.alice), "<Identity 'alice'>")
