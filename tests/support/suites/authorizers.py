"""What every authorizer that stores identities does, whatever it stores them in."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.application.service import MultiService
from twisted.internet.defer import DeferredList, maybeDeferred
from twisted.spread import pb
from zope.interface.verify import verifyObject

from pbauth import (
    AuthServerFactory,
    Detached,
    DuplicateIdentity,
    Hashing,
    IAuthorizer,
    IIdentity,
    InvalidName,
    InvalidPassword,
    KeyNotFound,
    Password,
    Unauthorized,
    connect,
)
from pbauth._async import settled
from pbauth.accounts.administrators import KeptAdministrator
from pbauth.accounts.records import Record, recordOf
from pbauth.errors import LastAdministrator
from pbauth.interfaces import IAccountStore
from pbauth.mechanisms.ed25519 import PublicKey
from pbauth.mechanisms.scram import ScramVerifier
from pbauth.testing import RecordingService
from tests.support.suites import Mixin

SCRAM = "SCRAM-SHA-256"
MD5 = Hashing(iterations=4096, md5=True)


class AuthorizerSuite(Mixin):
    """
    Mix it into a `twisted.trial.unittest.TestCase`, and define `makeAuthorizer`.
    """

    def makeAuthorizer(self, services: Any = None, hashing: Hashing = Hashing.CHEAPEST) -> Any:
        """Make an authorizer, with nobody in it; each call makes another one."""
        raise NotImplementedError

    async def make(self, authorizer: Any, name: str = "alice", *keys: tuple[str, str]) -> Any:
        """Make and save an identity whose password is `secret`."""
        # Also what is no name for a new one: accounts may be older than that rule.
        identity = authorizer.identityClass(name, authorizer)
        identity.setPassword("secret")
        for key in keys:
            identity.addKeyByString(*key)
        await maybeDeferred(identity.save)
        return identity

    async def find(self, authorizer: Any, name: str = "alice") -> Any:
        """Find an identity."""
        return await maybeDeferred(authorizer.getIdentityRequest, name)

    # Storing.

    async def test_awaitable(self) -> None:
        """Whatever the store, what writes to it can be awaited."""
        authorizer: Any = self.makeAuthorizer()
        identity = authorizer.createIdentity("alice")
        identity.setPassword("secret")
        await identity.save()
        identity.addKeyByString("game", "alice")
        await identity.save()
        await authorizer.updateIdentity(identity)
        other = authorizer.createIdentity("bob")
        await authorizer.addIdentity(other)
        self.assertTrue((await self.find(authorizer)).holdsKey("game", "alice"))
        await authorizer.removeIdentity("bob")
        with self.assertRaises(Unauthorized):
            await self.find(authorizer, "bob")

    async def test_interfaces(self) -> None:
        """The authorizer and its identities provide the interfaces."""
        authorizer = self.makeAuthorizer()
        verifyObject(IAuthorizer, authorizer)
        verifyObject(IIdentity, authorizer.createIdentity("alice"))
        await self.make(authorizer)
        verifyObject(IIdentity, await self.find(authorizer))

    async def test_createdIsNotSaved(self) -> None:
        """An identity that is only created can't be found."""
        authorizer = self.makeAuthorizer()
        identity = authorizer.createIdentity("alice")
        self.assertEqual((identity.name, identity.authorizer), ("alice", authorizer))
        with self.assertRaises(Unauthorized):
            await self.find(authorizer)

    async def test_identityClass(self) -> None:
        """`createIdentity` makes what the authorizer was told to, and so does finding."""
        authorizer = self.makeAuthorizer()

        class Special(authorizer.identityClass):  # type: ignore[name-defined]
            pass

        authorizer.identityClass = Special
        await self.make(authorizer)
        self.assertIsInstance(await self.find(authorizer), Special)

    async def test_addIdentity(self) -> None:
        """What was added is found, with password, keyring and lock."""
        authorizer = self.makeAuthorizer()
        identity = authorizer.createIdentity("alice")
        identity.setPassword("secret")
        identity.addKeyByString("game", "black")
        identity.locked = True
        await maybeDeferred(authorizer.addIdentity, identity)
        found = await self.find(authorizer)
        self.assertEqual(found.name, "alice")
        self.assertEqual(found.getAllKeys(), [("game", "black")])
        self.assertTrue(found.locked)
        found.locked = False
        await found.verifyPlainPassword("secret")

    async def test_duplicate(self) -> None:
        """A name is taken once; the first of that name stays as it was."""
        authorizer = self.makeAuthorizer()
        await self.make(authorizer)
        other = authorizer.createIdentity("alice")
        other.setPassword("other")
        with self.assertRaises(DuplicateIdentity) as raised:
            await maybeDeferred(authorizer.addIdentity, other)
        self.assertEqual(raised.exception.name, "alice")
        await (await self.find(authorizer)).verifyPlainPassword("secret")

    async def test_update(self) -> None:
        """A saved change of password, keyring and lock is found."""
        authorizer = self.makeAuthorizer()
        await self.make(authorizer, "alice", ("game", "black"), ("game", "white"))
        changed = await self.find(authorizer)
        changed.setPassword("other")
        changed.removeKey("game", "white")
        changed.addKeyByString("chat", "alice")
        changed.locked = True
        await maybeDeferred(authorizer.updateIdentity, changed)
        found = await self.find(authorizer)
        self.assertTrue(found.locked)
        self.assertEqual(found.getAllKeys(), [("chat", "alice"), ("game", "black")])
        found.locked = False
        await found.verifyPlainPassword("other")

    async def test_updateUnknown(self) -> None:
        """Who was never added, or was removed, can't be updated."""
        authorizer = self.makeAuthorizer()
        with self.assertRaises(KeyError):
            await maybeDeferred(authorizer.updateIdentity, authorizer.createIdentity("mallory"))

    async def test_remove(self) -> None:
        """Who was removed is not found, and the name is free again."""
        authorizer = self.makeAuthorizer()
        await self.make(authorizer, "alice", ("game", "black"))
        await maybeDeferred(authorizer.removeIdentity, "alice")
        with self.assertRaises(Unauthorized):
            await self.find(authorizer)
        await self.make(authorizer)
        self.assertEqual((await self.find(authorizer)).getAllKeys(), [])

    async def test_removeUnknown(self) -> None:
        """Who is not there can't be removed."""
        with self.assertRaises(KeyError):
            await maybeDeferred(self.makeAuthorizer().removeIdentity, "mallory")

    async def test_renewVerifier(self) -> None:
        """A verifier is replaced if it is still the stored one; everything else stays."""
        authorizer = self.makeAuthorizer(hashing=MD5)
        identity = await self.make(authorizer, "alice", ("game", "black"))
        before = dict(await maybeDeferred(identity.getVerifiers))
        old = before[SCRAM]
        better, other = (
            ScramVerifier.fromPassword("secret", salt, 5000) for salt in (b"s" * 16, b"t" * 16)
        )
        for new, done in ((better, True), (other, False)):
            found = await self.find(authorizer)
            self.assertIs(await maybeDeferred(authorizer.renewVerifier, found, old, new), done)
            found = await self.find(authorizer)
            verifiers = await maybeDeferred(found.getVerifiers)
            self.assertEqual(verifiers, {**before, SCRAM: better})
            self.assertEqual(found.getAllKeys(), [("game", "black")])

    async def test_decoysOfOldCosts(self) -> None:
        """
        Where accounts have iterations and salts of another time, some names that do not exist have
        them, too, always the same ones; so no account stands out by them.
        """
        authorizer = self.makeAuthorizer(hashing=Hashing(iterations=4096, saltBytes=16))
        costs = [(5000, 12), (6000, 64), (7000, 17)]
        for number, (iterations, saltBytes) in enumerate(costs):
            identity = authorizer.createIdentity(f"user{number}")
            salt = b"s" * saltBytes
            identity.setVerifiers({SCRAM: ScramVerifier.fromPassword("secret", salt, iterations)})
            await maybeDeferred(identity.save)
        authorizer = self.reopened(authorizer)

        async def decoys() -> list[Any]:
            names = [f"nobody{number}" for number in range(200)]
            return [await settled(authorizer.getDecoyVerifier(name, SCRAM)) for name in names]

        found = await decoys()
        self.assertEqual(await decoys(), found)
        seen = [decoy.cost for decoy in found]
        for cost in [(4096, 16), *costs]:
            self.assertTrue(20 < seen.count(cost) < 90, (cost, seen.count(cost)))
        self.assertEqual(len({decoy.salt for decoy in found}), 200)

    def reopened(self, authorizer: Any) -> Any:
        """Another authorizer on the same store, as after a restart."""
        return authorizer

    async def test_replacePassword(self) -> None:
        """A password is replaced if nobody has changed the account in the meantime; keys stay."""
        authorizer = self.makeAuthorizer(hashing=MD5)
        identity = await self.make(authorizer, "alice", ("game", "black"))
        key = PublicKey(bytes(32), "laptop")
        identity.addPublicKey(key)
        await maybeDeferred(identity.save)
        new = {SCRAM: ScramVerifier.fromPassword("changed", b"s" * 16, 5000)}
        found = await self.find(authorizer)
        before = dict(await maybeDeferred(found.getVerifiers))
        self.assertTrue(await maybeDeferred(authorizer.replacePassword, found, before, new))
        found = await self.find(authorizer)
        self.assertEqual(set(await found.getVerifiers()), {SCRAM, "ED25519"})
        self.assertEqual((await found.getVerifiers())[SCRAM], new[SCRAM])
        self.assertEqual(found.getPublicKeys(), [key])
        self.assertEqual(found.getAllKeys(), [("game", "black")])

        async def reset(again: Any) -> None:
            await maybeDeferred(again.setPassword, "reset")

        async def lock(again: Any) -> None:
            again.locked = True

        async def removeKey(again: Any) -> None:
            again.removePublicKey(key)

        for change in (removeKey, reset, lock):
            found = await self.find(authorizer)
            before = dict(await maybeDeferred(found.getVerifiers))
            again = await self.find(authorizer)
            await change(again)
            await maybeDeferred(again.save)
            expected = await recordOf(await self.find(authorizer))
            # As somebody sees it who read it before.
            self.assertFalse(await maybeDeferred(authorizer.replacePassword, found, before, new))
            self.assertEqual(await recordOf(await self.find(authorizer)), expected)
        await maybeDeferred(authorizer.removeIdentity, "alice")

    async def test_save(self) -> None:
        """`save` adds what is new, updates what is known, and changes nothing by itself."""
        authorizer = self.makeAuthorizer()
        identity = await self.make(authorizer)
        before = await identity.getVerifiers()
        identity.addKeyByString("game", "black")
        for _ in range(3):
            await maybeDeferred(identity.save)
        found = await self.find(authorizer)
        await maybeDeferred(found.save)
        found = await self.find(authorizer)
        self.assertEqual(found.getAllKeys(), [("game", "black")])
        self.assertEqual(await found.getVerifiers(), before)

    async def test_namesComeBackAsGiven(self) -> None:
        """Whatever a name holds, it is only a name."""
        authorizer = self.makeAuthorizer()
        names = [
            "Robert'); DROP TABLE identities;--",
            '"quoted" %s ? :name {0}',
            "Zoë Ångström",
            "日本語の名前",
            "a" * 255,
            " spaces ",
            "NULL",
        ]
        for name in names:
            await self.make(authorizer, name, (name, name))
        for name in names:
            found = await self.find(authorizer, name)
            self.assertEqual((found.name, found.getAllKeys()), (name, [(name, name)]))

    async def test_namesDifferByAnything(self) -> None:
        """Names are told apart code point by code point."""
        authorizer = self.makeAuthorizer()
        for name in ("alice", "Alice", "ALICE", "alicé", "alice\u0301"):
            await self.make(authorizer, name)
        with self.assertRaises(Unauthorized):
            await self.find(authorizer, "aLICE")

    async def test_badNames(self) -> None:
        """A name is a `str` of 1 to 255 bytes without control characters."""
        authorizer = self.makeAuthorizer()
        for name in (b"alice", None, 5):
            with self.assertRaises(TypeError):
                authorizer.createIdentity(name)
        for name in ("", "a" * 256, "a\nb", "a\0b", "\u00ad", "\ue000"):
            with self.assertRaises(InvalidName):
                authorizer.createIdentity(name)

    async def test_newNames(self) -> None:
        """A new name is its own form in SASLprep, and can be seen; older ones go on working."""
        authorizer = self.makeAuthorizer()
        for name in (
            "alice\u0301",
            "\uff41lice",
            "al\u00adice",
            "a\u00a0b",
            "alice\u0600",
            "a\u2066b",
        ):
            with self.assertRaises(InvalidName) as raised:
                authorizer.createIdentity(name)
            self.assertNotIn("\n", str(raised.exception))
        for name in ("alicé", "日本語の名前", "🎉"):
            self.assertEqual(authorizer.createIdentity(name).name, name)
        old = await self.make(authorizer, "alice\u0301", ("game", "alice"))
        found = await self.find(authorizer, old.name)
        self.assertEqual((found.name, found.getAllKeys()), (old.name, [("game", "alice")]))
        found.addKeyByString("game", "other")
        await maybeDeferred(found.save)
        self.assertEqual(len((await self.find(authorizer, old.name)).getAllKeys()), 2)

    # Passwords.

    async def test_password(self) -> None:
        """The right password fits, in any spelling that looks the same; others do not."""
        authorizer = self.makeAuthorizer()
        identity = authorizer.createIdentity("alice")
        identity.setPassword("pass\u00e9 IX")
        await maybeDeferred(identity.save)
        found = await self.find(authorizer)
        for right in ("pass\u00e9 IX", "passe\u0301 IX", "pass\u00e9\u00a0\u2168"):
            await found.verifyPlainPassword(right)
        for wrong in ("passe IX", "", "PASSÉ IX", "\0", None, b"pass"):
            with self.assertRaises(Unauthorized):
                await found.verifyPlainPassword(wrong)

    async def test_noPassword(self) -> None:
        """Without a password none fits."""
        authorizer = self.makeAuthorizer()
        identity = await self.make(authorizer)
        identity.setPassword(None)
        await maybeDeferred(identity.save)
        found = await self.find(authorizer)
        with self.assertRaises(Unauthorized):
            await found.verifyPlainPassword("secret")
        self.assertEqual(await found.getVerifiers(), {})

    async def test_badPasswords(self) -> None:
        """What is no password is refused, and the old one stays."""
        identity = await self.make(self.makeAuthorizer())
        for bad in (b"secret", 5, ["secret"]):
            with self.assertRaises(TypeError):
                identity.setPassword(bad)
        for bad in ("", "\u00ad", "bell\x07", "\ud800"):
            with self.assertRaises(InvalidPassword):
                identity.setPassword(bad)
        await identity.verifyPlainPassword("secret")

    async def test_onlyVerifiersAreKept(self) -> None:
        """What is stored of a password is salted, hashed as often as asked for, and hidden."""
        authorizer = self.makeAuthorizer(hashing=Hashing(iterations=5000, saltBytes=20))
        await self.make(authorizer, "alice")
        await self.make(authorizer, "bob")
        alice, bob = [
            (await (await self.find(authorizer, name)).getVerifiers())[SCRAM]
            for name in ("alice", "bob")
        ]
        self.assertEqual((alice.iterations, len(alice.salt)), (5000, 20))
        self.assertNotEqual(alice.salt, bob.salt)
        self.assertNotEqual(alice.storedKey, bob.storedKey)
        self.assertNotIn("secret", repr(vars(await self.find(authorizer))))

    async def test_lock(self) -> None:
        """Nobody gets in by the password of a locked identity."""
        authorizer = self.makeAuthorizer(hashing=MD5)
        identity = await self.make(authorizer)
        identity.locked = True
        await maybeDeferred(identity.save)
        found = await self.find(authorizer)
        with self.assertRaises(Unauthorized):
            await found.verifyPlainPassword("secret")
        challenge = found.challenge()
        with self.assertRaises(Unauthorized):
            await found.verifyPassword(challenge, pb.respond(challenge, b"secret"))

    async def test_md5(self) -> None:
        """The scheme of the seed works where the hashing keeps a verifier for it."""
        authorizer = self.makeAuthorizer(hashing=MD5)
        await self.make(authorizer)
        found = await self.find(authorizer)
        challenge = found.challenge()
        self.assertNotEqual(challenge, found.challenge())
        await found.verifyPassword(challenge, pb.respond(challenge, b"secret"))
        for response in (pb.respond(challenge, b"wrong"), b"", "text", None):
            with self.assertRaises(Unauthorized):
                await found.verifyPassword(challenge, response)

    async def test_md5IsOffByDefault(self) -> None:
        """Without an MD5 verifier the scheme of the seed lets nobody in."""
        found = await self.make(self.makeAuthorizer())
        challenge = found.challenge()
        with self.assertRaises(Unauthorized):
            await found.verifyPassword(challenge, pb.respond(challenge, b"secret"))

    async def test_decoys(self) -> None:
        """A decoy looks like a verifier, is the same each time, and no password fits it."""
        authorizer = self.makeAuthorizer()
        one, again, other = [
            await maybeDeferred(authorizer.getDecoyVerifier, name, SCRAM)
            for name in ("mallory", "mallory", "malcolm")
        ]
        self.assertIsInstance(one, ScramVerifier)
        self.assertEqual(one, again)
        self.assertNotEqual(one.salt, other.salt)
        real = (await (await self.make(authorizer)).getVerifiers())[SCRAM]
        self.assertEqual(
            (len(one.salt), one.iterations, len(one.storedKey), len(one.serverKey)),
            (len(real.salt), real.iterations, len(real.storedKey), len(real.serverKey)),
        )

    # Keyrings.

    async def test_keyring(self) -> None:
        """Keys are added, listed and removed; what is absent can't be removed."""
        authorizer = self.makeAuthorizer()
        identity = await self.make(authorizer, "alice", ("game", "white"), ("game", "black"))
        self.assertEqual(identity.getAllKeys(), [("game", "black"), ("game", "white")])
        self.assertTrue(identity.keyring["game", "black"])
        identity.addKeyByString("game", "black")
        identity.removeKey("game", "black")
        self.assertEqual(identity.getAllKeys(), [("game", "white")])
        with self.assertRaises(KeyError):
            identity.removeKey("game", "black")
        for bad in ((5, "black"), ("game", b"black")):
            with self.assertRaises(TypeError):
                identity.addKeyByString(*bad)
        with self.assertRaises(InvalidName):
            identity.addKeyByString("game", "")

    async def test_requestPerspective(self) -> None:
        """A perspective is given for a key that is held, of a service that is there."""
        services = MultiService()
        authorizer = self.makeAuthorizer(services)
        game = RecordingService("game", services, authorizer)
        black = game.createPerspective("black")
        alice = await self.make(authorizer, "alice", ("gone", "black"))
        alice.addKeyForPerspective(black)
        self.assertIs(await alice.requestPerspectiveForKey("game", "black"), black)
        self.assertIs(await alice.requestPerspectiveForService("game"), black)
        own = game.createPerspective("alice")
        alice.addKeyForPerspective(own)
        alice.addKeyByString("game", "aaa")
        self.assertIs(await alice.requestPerspectiveForService("game"), own)
        for pair in (("game", "white"), ("gone", "black"), ("other", "black")):
            with self.assertRaises(KeyNotFound) as raised:
                await alice.requestPerspectiveForKey(*pair)
            self.assertEqual((raised.exception.serviceName, raised.exception.perspectiveName), pair)
        with self.assertRaises(KeyNotFound):
            await alice.requestPerspectiveForService("other")

    # Services.

    async def test_services(self) -> None:
        """Services are looked up in the collection; without one there are none."""
        authorizer = self.makeAuthorizer()
        with self.assertRaises(KeyError):
            authorizer.getServiceNamed("game")
        services = MultiService()
        game = RecordingService("game", services, authorizer)
        authorizer.setServiceCollection(services)
        self.assertIs(authorizer.getServiceNamed("game"), game)
        with self.assertRaises(KeyError):
            authorizer.getServiceNamed("chat")
        with self.assertRaises(TypeError):
            authorizer.setServiceCollection(object())

    # Live sessions, over a real connection.

    async def logIn(
        self,
        authorizer: Any,
        services: Any,
        own: Any = (("alice", "alice"), ("alice", "shared"), ("bob", "bob")),
        group: str | None = None,
    ) -> dict[str, Any]:
        """
        Log alice and bob in, alice twice, over TCP; with these keys of their own, as members of
        this group.
        """
        from twisted.internet import reactor

        self.game = RecordingService("game", services, authorizer)
        for name in ("alice", "bob"):
            await self.make(authorizer, name, *(("game", key) for who, key in own if who == name))
            if group is not None:
                await authorizer.addMember(group, name)
        port = reactor.listenTCP(0, AuthServerFactory(authorizer), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        number = port.getHost().port
        password = Password("secret")
        perspectives = {}
        for name in ("alice", "shared", "bob"):
            user = "bob" if name == "bob" else "alice"
            perspectives[name] = await connect("127.0.0.1", number, user, password, "game", name)
            self.addCleanup(self.close, perspectives[name])
        return perspectives

    def close(self, perspective: Any) -> Any:
        """Close a connection."""
        closed = perspective.broker.whenClosed()
        perspective.broker.transport.loseConnection()
        return closed

    async def assertRevoked(self, change: Any, ended: set[str]) -> None:
        """A change of alice's identity ends just these sessions once it counts."""
        services = MultiService()
        authorizer = self.makeAuthorizer(services)
        perspectives = await self.logIn(authorizer, services)
        alice = await self.find(authorizer)
        change(alice)
        await maybeDeferred(alice.save)
        self.assertEqual(
            {event.perspectiveName for event in self.game.events if event.kind == "detached"},
            ended,
        )
        for name, perspective in perspectives.items():
            if name in ended:
                with self.assertRaises(Detached):
                    await perspective.callRemote("whoami")
            else:
                self.assertEqual(await perspective.callRemote("whoami"), name)

    async def test_removedKeyEndsItsSession(self) -> None:
        """A key that is taken away ends the sessions that used it, and no others."""
        await self.assertRevoked(lambda alice: alice.removeKey("game", "alice"), {"alice"})

    async def test_lockEndsSessions(self) -> None:
        """Locking an identity ends all its sessions."""

        def lock(alice: Any) -> None:
            alice.locked = True

        await self.assertRevoked(lock, {"alice", "shared"})

    async def test_newPasswordEndsSessions(self) -> None:
        """A new password ends the sessions that the old one opened."""
        await self.assertRevoked(lambda alice: alice.setPassword("other"), {"alice", "shared"})

    async def test_savingEndsNothing(self) -> None:
        """A change that takes nothing away ends nothing."""
        await self.assertRevoked(lambda alice: alice.addKeyByString("chat", "alice"), set())

    async def test_removalEndsSessions(self) -> None:
        """Removing an identity ends all its sessions, and nobody else's."""
        services = MultiService()
        authorizer = self.makeAuthorizer(services)
        perspectives = await self.logIn(authorizer, services)
        await maybeDeferred(authorizer.removeIdentity, "alice")
        for name in ("alice", "shared"):
            with self.assertRaises(Detached):
                await perspectives[name].callRemote("whoami")
        self.assertEqual(await perspectives["bob"].callRemote("whoami"), "bob")
        self.assertEqual(len(authorizer.sessions), 1)


class AccountStoreSuite(AuthorizerSuite):
    """
    As `AuthorizerSuite`, for authorizers that can tell which identities they store.
    """

    #: Names in the order of their code points, which is neither that of an alphabet nor of UTF-16.
    NAMES = ("Zo\u00eb", "alice", "bob", "z", "\u00e9", "\uff5e", "\U0001f600")

    def record(self, name: str, *keys: tuple[str, str], locked: bool = False) -> Record:
        """A record as a dump may hold it."""
        verifier = ScramVerifier(b"0123456789abcdef", 4096, b"s" * 32, b"k" * 32).encode()
        return Record(name, locked, frozenset([(SCRAM, verifier)]), frozenset(keys))

    async def listing(self, authorizer: Any) -> list[str]:
        """The names that are stored."""
        return [name for name, *_ in await maybeDeferred(authorizer.listIdentities)]

    async def test_accountStore(self) -> None:
        """It provides the interface."""
        verifyObject(IAccountStore, self.makeAuthorizer())

    async def test_nobody(self) -> None:
        """Where nobody is, nobody is told of."""
        authorizer = self.makeAuthorizer()
        self.assertEqual(await maybeDeferred(authorizer.listIdentities), [])
        self.assertEqual(await maybeDeferred(authorizer.listHolders, "game"), [])
        self.assertEqual(await maybeDeferred(authorizer.readRecords), [])
        self.assertEqual(await maybeDeferred(authorizer.addRecords, []), 0)

    async def test_listIdentities(self) -> None:
        """Name, lock and number of keys, as they are stored."""
        authorizer = self.makeAuthorizer()
        await self.make(authorizer, "bob", ("game", "bob"), ("game", "white"))
        alice = await self.make(authorizer)
        alice.locked = True
        await maybeDeferred(alice.save)
        self.assertEqual(
            await maybeDeferred(authorizer.listIdentities), [("alice", True, 0), ("bob", False, 2)]
        )

    async def test_pages(self) -> None:
        """Names come in the order of their code points, in pages of any size."""
        authorizer = self.makeAuthorizer()
        records = [self.record(name) for name in reversed(self.NAMES)]
        self.assertEqual(await maybeDeferred(authorizer.addRecords, records), len(records))
        for read in (authorizer.listIdentities, authorizer.readRecords):
            for most in (1, 2, 3, len(self.NAMES), 100, None):
                found: list[str] = []
                while True:
                    page = await maybeDeferred(read, found[-1] if found else "", most)
                    names = [getattr(each, "name", None) or each[0] for each in page]
                    self.assertLessEqual(len(names), most or len(self.NAMES))
                    if not names:
                        break
                    found += names
                self.assertEqual(found, list(self.NAMES))
        # A page begins behind any name, also one that nobody has.
        page = await maybeDeferred(authorizer.listIdentities, "alicf", 1)
        self.assertEqual(page, [("bob", False, 0)])
        self.assertEqual(await maybeDeferred(authorizer.readRecords, "", 0), [])

    async def test_listHolders(self) -> None:
        """Who holds a key to a service, sorted; services are told apart to the letter."""
        authorizer = self.makeAuthorizer()
        records = [
            self.record("bob", ("game", "white"), ("game", "black"), ("chat", "bob")),
            self.record("alice", ("game", "alice"), locked=True),
            self.record("carol", ("Game", "carol"), ("game ", "carol"), ("gam_", "carol")),
        ]
        await maybeDeferred(authorizer.addRecords, records)
        self.assertEqual(
            await maybeDeferred(authorizer.listHolders, "game"),
            [
                ("alice", "alice", True, ""),
                ("bob", "black", False, ""),
                ("bob", "white", False, ""),
            ],
        )
        self.assertEqual(await maybeDeferred(authorizer.listHolders, "gam%"), [])

    async def test_readRecords(self) -> None:
        """A record is what is stored of an identity; with it somebody else can store the same."""
        authorizer, other = self.makeAuthorizer(hashing=MD5), self.makeAuthorizer()
        identity = await self.make(authorizer, "alice", ("game", "black"), ("'%:;--\\/", "\u00e9"))
        identity.addPublicKey(PublicKey(b"k" * 32, "her laptop, 50% \u00e9"))
        identity.locked = True
        await maybeDeferred(identity.save)
        await self.make(authorizer, "bob")
        records = await maybeDeferred(authorizer.readRecords)
        self.assertEqual([record.name for record in records], ["alice", "bob"])
        self.assertEqual(records[0], await recordOf(identity))
        self.assertEqual(
            {mechanism for mechanism, _ in records[0].verifiers}, {SCRAM, "PB-MD5", "ED25519"}
        )
        for record in records:
            record.check()
        self.assertEqual(await maybeDeferred(other.addRecords, records), 2)
        self.assertEqual(await maybeDeferred(other.readRecords), records)
        found = await self.find(other)
        self.assertEqual([key.label for key in found.getPublicKeys()], ["her laptop, 50% \u00e9"])
        found.locked = False
        await found.verifyPlainPassword("secret")

    async def test_addedRecords(self) -> None:
        """What was added as a record can be found, changed, saved and removed."""
        authorizer = self.makeAuthorizer()
        await maybeDeferred(authorizer.addRecords, [self.record("alice", ("game", "black"))])
        found = await self.find(authorizer)
        self.assertTrue(found.stored)
        found.addKeyByString("chat", "alice")
        found.setPassword("secret")
        await maybeDeferred(found.save)
        again = await self.find(authorizer)
        self.assertEqual(again.getAllKeys(), [("chat", "alice"), ("game", "black")])
        await again.verifyPlainPassword("secret")
        await maybeDeferred(authorizer.removeIdentity, "alice")
        self.assertEqual(await self.listing(authorizer), [])

    async def test_addRecordsAllOrNone(self) -> None:
        """If a name is taken, by whomever, nothing is added and nobody is changed."""
        authorizer = self.makeAuthorizer()
        await self.make(authorizer)
        before = await maybeDeferred(authorizer.readRecords)
        for records in (
            [self.record("aaa"), self.record("alice", ("game", "black")), self.record("zzz")],
            [self.record("zzz"), self.record("bob"), self.record("zzz", locked=True)],
        ):
            with self.assertRaises(DuplicateIdentity) as raised:
                await maybeDeferred(authorizer.addRecords, records)
            self.assertIn(raised.exception.name, ("alice", "zzz"))
            self.assertEqual(await maybeDeferred(authorizer.readRecords), before)
        for name in ("aaa", "bob", "zzz"):
            with self.assertRaises(Unauthorized):
                await self.find(authorizer, name)

    async def test_addRecordsSkipsKnown(self) -> None:
        """Where that is asked for, known names stay as they are, and the others are added."""
        authorizer = self.makeAuthorizer()
        await self.make(authorizer)
        records = [
            self.record(name, ("game", name), locked=True) for name in ("aaa", "alice", "bob")
        ]
        for added in (2, 0):
            self.assertEqual(
                await maybeDeferred(authorizer.addRecords, iter(records), skipKnown=True), added
            )
        self.assertEqual(
            await maybeDeferred(authorizer.listIdentities),
            [("aaa", True, 1), ("alice", False, 0), ("bob", True, 1)],
        )
        await (await self.find(authorizer)).verifyPlainPassword("secret")

    async def test_addRecordsFromAnything(self) -> None:
        """Records may come from a generator; the first of a name counts."""
        authorizer = self.makeAuthorizer()
        records = (self.record("alice", ("game", each)) for each in ("black", "white"))
        self.assertEqual(await maybeDeferred(authorizer.addRecords, records, True), 1)
        self.assertEqual(
            await maybeDeferred(authorizer.listHolders, "game"), [("alice", "black", False, "")]
        )

    # Changes on a condition.

    async def administrators(self, store: Any, *names: str) -> None:
        """Make identities that hold a key to the service `admin`."""
        for name in names:
            await self.make(store, name, ("admin", name), ("game", name))

    async def test_changeIdentity(self) -> None:
        """A record is changed, in whatever of it, and what else there is stays."""
        store = self.makeAuthorizer()
        await self.make(store, "alice", ("game", "alice"), ("game", "white"))
        await self.make(store, "bob", ("game", "bob"))
        key = PublicKey(b"1" * 32, "laptop")

        def change(record: Record) -> Record:
            keys = record.keys - {("game", "white")} | {("chess", "alice")}
            return evolve(record.withPublicKeys([key]), locked=True, keys=keys)

        await store.changeIdentity("alice", change)
        alice = await self.find(store)
        self.assertTrue(alice.locked)
        self.assertEqual(alice.getAllKeys(), [("chess", "alice"), ("game", "alice")])
        self.assertEqual(alice.getPublicKeys(), [key])
        verifiers = await maybeDeferred(alice.getVerifiers)
        self.assertTrue(verifiers[SCRAM].matches("secret"))
        await store.changeIdentity("alice", lambda record: record.withPublicKeys([]))
        self.assertEqual((await self.find(store)).getPublicKeys(), [])
        await store.changeIdentity("alice", lambda record: None)
        names = [name for name, _, _ in await settled(store.listIdentities())]
        self.assertEqual(names, ["bob"])

    async def test_changeNothing(self) -> None:
        """A change that fails changes nothing; nor does one of nobody."""
        store = self.makeAuthorizer()
        await self.make(store, "alice", ("game", "alice"))

        def fail(record: Record) -> Record:
            raise ValueError(record.name)

        with self.assertRaises(ValueError):  # type: ignore[attr-defined]
            await store.changeIdentity("alice", fail)
        with self.assertRaises(KeyError):  # type: ignore[attr-defined]
            await store.changeIdentity("mallory", lambda record: evolve(record, locked=True))
        self.assertEqual((await self.find(store)).getAllKeys(), [("game", "alice")])

    async def test_lastAdministrator(self) -> None:
        """Whatever would take away the last administrator fails, and changes nothing."""
        store = self.makeAuthorizer()
        await self.administrators(store, "alice", "bob")
        keeping = KeptAdministrator("admin")
        locked = await self.find(store, "bob")
        locked.locked = True
        await settled(locked.save())
        before = await settled(store.readRecords())

        def withoutVerifiers(record: Record) -> Record:
            return evolve(record, verifiers=frozenset())

        def withoutKey(record: Record) -> Record:
            return evolve(record, keys=frozenset({("game", "alice")}))

        def withLimitedKey(record: Record) -> Record:
            for key in record.keys:
                record = record.withKey(key, frozenset({"listUsers"}))
            return record

        changes: list[Any] = [
            lambda record: None,
            lambda record: evolve(record, locked=True),
            withoutKey,
            withLimitedKey,
            withoutVerifiers,
        ]
        for change in changes:
            with self.assertRaises(LastAdministrator) as raised:  # type: ignore[attr-defined]
                await store.changeIdentity("alice", change, keeping)
            self.assertEqual(raised.exception.name, "alice")
            self.assertEqual(await settled(store.readRecords()), before)
        # Others may go, and so may she once another one can log in.
        await store.changeIdentity("bob", lambda record: evolve(record, locked=False), keeping)
        await store.changeIdentity("alice", lambda record: None, keeping)
        with self.assertRaises(LastAdministrator):  # type: ignore[attr-defined]
            await store.changeIdentity("bob", lambda record: None, keeping)
        # Without a condition the owner of the store does as they like.
        await store.changeIdentity("bob", lambda record: None)
        self.assertEqual(await settled(store.readRecords()), [])

    async def test_eachOther(self) -> None:
        """Two administrators who take each other away at the same moment: one is left."""
        for change in (
            lambda record: None,
            lambda record: evolve(record, locked=True),
            lambda record: evolve(record, keys=frozenset()),
        ):
            one, other = self.twoServers()
            for _ in range(3):
                await self.administrators(one, "alice", "bob")
                keeping = KeptAdministrator("admin")
                done = await DeferredList(
                    [
                        one.changeIdentity("alice", change, keeping),
                        other.changeIdentity("bob", change, keeping),
                    ],
                    consumeErrors=True,
                )
                failures = [result for succeeded, result in done if not succeeded]
                self.assertEqual(len(failures), 1, failures)
                failures[0].trap(LastAdministrator)
                left = [each for each in await settled(one.readRecords()) if each.keys]
                self.assertEqual([each.locked for each in left].count(False), 1)
                for record in await settled(one.readRecords()):
                    await settled(one.removeIdentity(record.name))

    def twoServers(self) -> tuple[Any, Any]:
        """Two servers on the same accounts; of a store in memory there is only one."""
        store = self.makeAuthorizer()
        return store, store
