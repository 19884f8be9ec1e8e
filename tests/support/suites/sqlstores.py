"""What `SQLAuthorizer` does in any database that several processes use at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import DeferredList
from zope.interface.verify import verifyObject

from pbauth import (
    AuthServerFactory,
    Detached,
    DuplicateIdentity,
    Hashing,
    MethodNotAllowed,
    Password,
    SQLAuthorizer,
    StoreError,
    Unauthorized,
    connect,
)
from pbauth.interfaces import ISharedAccountStore
from pbauth.mechanisms.scram import ScramVerifier
from tests.support.serving import AwaitedPerspective, AwaitedService
from tests.support.suites import Mixin
from tests.support.suites.authorizers import SCRAM


class Awaited(AwaitedService):
    """A service with a perspective for each key."""

    perspectiveClass = AwaitedPerspective


async def addUser(authorizer: SQLAuthorizer, name: str, *keys: str) -> Any:
    """Add an identity whose password is `secret`, with one key or these."""
    identity = authorizer.createIdentity(name)
    identity.setPassword("secret")
    for key in keys or (name,):
        identity.addKeyByString("game", key)
    await identity.save()
    return identity


class SQLStoreSuite(Mixin):
    """
    Mix it into a `tests.support.serving.ServingTestCase`, and define `open`.

    Attributes:
        open: opens the database of this test; as a process of its own would each time.
    """

    open: Callable[..., SQLAuthorizer]

    async def test_storeInterface(self) -> None:
        """It is a store that can be administered."""
        verifyObject(ISharedAccountStore, self.open())

    async def test_copies(self) -> None:
        """A change to a copy counts once it is saved."""
        authorizer = self.open()
        await addUser(authorizer, "alice")
        copy = await authorizer.getIdentityRequest("alice")
        copy.addKeyByString("chat", "alice")
        copy.locked = True
        other = await authorizer.getIdentityRequest("alice")
        self.assertEqual((other.getAllKeys(), other.locked), ([("game", "alice")], False))

    async def test_anotherProcess(self) -> None:
        """What another opened file changes is seen at the next request."""
        authorizer, administrator = self.open(), self.open()
        await addUser(authorizer, "alice")
        identity = await administrator.getIdentityRequest("alice")
        identity.addKeyByString("chat", "alice")
        await identity.save()
        found = await authorizer.getIdentityRequest("alice")
        self.assertEqual(found.getAllKeys(), [("chat", "alice"), ("game", "alice")])

    async def test_twoChangesAtOnce(self) -> None:
        """Two who change the same identity at once do not undo each other's change."""
        authorizer, administrator = self.open(), self.open()
        await addUser(authorizer, "alice")
        one = await authorizer.getIdentityRequest("alice")
        other = await administrator.getIdentityRequest("alice")
        one.addKeyByString("chat", "alice")
        one.removeKey("game", "alice")
        other.setPassword("changed")
        other.addKeyByString("chess", "alice")
        await one.save()
        await other.save()
        found = await authorizer.getIdentityRequest("alice")
        self.assertEqual(found.getAllKeys(), [("chat", "alice"), ("chess", "alice")])
        await found.verifyPlainPassword("changed")

    async def test_sameNameAtOnce(self) -> None:
        """Of many who add the same name at once, one succeeds."""
        authorizers = [self.open(), self.open()]
        attempts = []
        for place in range(10):
            identity = authorizers[place % 2].createIdentity("alice")
            identity.setPassword(f"password {place}")
            attempts.append(identity.save())
        outcomes: list[tuple[bool, Any]] = await DeferredList(attempts, consumeErrors=True)
        failures = [failure for succeeded, failure in outcomes if not succeeded]
        self.assertEqual(len(failures), 9)
        for failure in failures:
            self.assertTrue(failure.check(DuplicateIdentity))

    async def test_allOrNothing(self) -> None:
        """What the schema refuses leaves nothing behind, nor an open transaction."""
        authorizer = self.open()
        identity = authorizer.createIdentity("alice")
        identity.setPassword("secret")
        identity.keyring["game", ""] = True
        with self.assertRaises(StoreError):
            await identity.save()
        self.flushLoggedErrors()
        with self.assertRaises(Unauthorized):
            await authorizer.getIdentityRequest("alice")
        del identity.keyring["game", ""]
        await identity.save()
        await authorizer.getIdentityRequest("alice")

    # What others change.

    async def serve(self, *names: str, group: str | None = None) -> SQLAuthorizer:
        """
        Run a server of its own on the database, and log these in: `self.perspectives`. They hold
        the keys to their own perspectives by the group, if there is one.
        """
        services = MultiService()
        authorizer = self.open(serviceCollection=services)
        self.game = Awaited("game", services, authorizer)
        for name in names:
            await addUser(authorizer, name, *(() if group else (name,)), "shared")
            if group:
                await authorizer.addMember(group, name)
        watching: Any = authorizer.changesService()
        watching.startService()
        self.addCleanup(watching.stopService)
        port = self.listen(AuthServerFactory(authorizer))
        self.perspectives = {}
        for name in names:
            for key in (name, "shared"):
                self.perspectives[name, key] = await connect(
                    "127.0.0.1", port, name, Password("secret", renew=False), "game", key
                )
        self.attached = len(self.game.events)
        return authorizer

    async def assertEnded(self, *ended: tuple[str, str]) -> None:
        """Just these sessions end."""
        for watched in self.perspectives.values():
            self.addCleanup(watched.broker.transport.loseConnection)
        await self.game.whenHappened(self.attached + len(ended))
        for key, perspective in self.perspectives.items():
            if key in ended:
                with self.assertRaises(Detached):
                    await perspective.callRemote("whoami")
            else:
                self.assertEqual(await perspective.callRemote("whoami"), key[1])

    async def test_keyRevokedElsewhere(self) -> None:
        """A key that another process takes away ends the sessions that used it."""
        await self.serve("alice", "bob")
        alice = await self.open().getIdentityRequest("alice")
        alice.removeKey("game", "alice")
        alice.addKeyByString("chat", "alice")
        await alice.save()
        await self.assertEnded(("alice", "alice"))

    async def assertLostElsewhere(self, change: Any, *ended: tuple[str, str]) -> None:
        """What another process does to a group ends just these sessions."""
        store = self.open()
        await store.addGroup("staff")
        await store.grantGroupKey("staff", "game", "{name}")
        await self.serve("alice", "bob", group="staff")
        await change(store)
        await self.assertEnded(*ended)

    async def test_leftElsewhere(self) -> None:
        """Whom another process takes out of a group loses the sessions that rested on it."""
        await self.assertLostElsewhere(
            lambda store: store.removeMember("staff", "alice"), ("alice", "alice")
        )

    async def test_groupKeyRevokedElsewhere(self) -> None:
        """So do all members, of a key that it takes from the group."""
        await self.assertLostElsewhere(
            lambda store: store.revokeGroupKey("staff", "game", "{name}"),
            *(("alice", "alice"), ("bob", "bob")),
        )

    async def test_groupRemovedElsewhere(self) -> None:
        """And when it removes the group."""
        await self.assertLostElsewhere(
            lambda store: store.removeGroup("staff"), ("alice", "alice"), ("bob", "bob")
        )

    async def test_removedElsewhere(self) -> None:
        """A user whom another process removes has no sessions any more."""
        await self.serve("alice", "bob")
        await self.open().removeIdentity("alice")
        await self.assertEnded(("alice", "alice"), ("alice", "shared"))

    async def test_lockedElsewhere(self) -> None:
        """Nor has one whom it locks."""
        await self.serve("alice", "bob")
        bob = await self.open().getIdentityRequest("bob")
        bob.locked = True
        await bob.save()
        await self.assertEnded(("bob", "bob"), ("bob", "shared"))

    async def test_passwordChangedElsewhere(self) -> None:
        """Nor one who gets a new password."""
        await self.serve("alice", "bob")
        alice = await self.open().getIdentityRequest("alice")
        alice.setPassword("other")
        await alice.save()
        await self.assertEnded(("alice", "alice"), ("alice", "shared"))

    async def test_keyLimitedElsewhere(self) -> None:
        """A key that another process limits to some methods refuses the others, and stays."""
        authorizer = await self.serve("alice")
        store = self.open()
        alice: Any = await store.getIdentityRequest("alice")
        alice.addKeyByString("game", "alice", ["look", "listen"])
        alice.removeKey("game", "shared")
        await alice.save()
        await self.assertEndedOnly("shared")
        alice = await authorizer.getIdentityRequest("alice")
        self.assertEqual(alice.methodsFor("game", "alice"), {"look", "listen"})
        with self.assertRaises(MethodNotAllowed):
            await self.perspectives["alice", "alice"].callRemote("whoami")

    async def assertEndedOnly(self, key: str) -> None:
        """The session of alice with this key ends."""
        for watched in self.perspectives.values():
            self.addCleanup(watched.broker.transport.loseConnection)
        await self.game.whenHappened(self.attached + 1)
        with self.assertRaises(Detached):
            await self.perspectives["alice", key].callRemote("whoami")

    async def test_voucherRevokedElsewhere(self) -> None:
        """A voucher that another process revokes ends its sessions, and so does a new password."""
        authorizer = await self.serve("alice")
        store = self.open()
        until = store.now() + timedelta(hours=1)
        (port,) = {each.broker.transport.getPeer().port for each in self.perspectives.values()}
        vouchers = {}
        for label, survives in (("friend", False), ("job", False), ("agent", True)):
            vouchers[label] = await store.issueVoucher(
                "alice", label, until, survivesPasswordChange=survives, methods=["whoami"]
            )
            self.perspectives[label, "alice"] = await connect(
                "127.0.0.1", port, None, vouchers[label].only(), "game", "alice"
            )
        self.attached = len(self.game.events)
        self.assertEqual(
            [each.label for each in await authorizer.listVouchers("alice")], [*vouchers]
        )
        self.assertEqual(await store.revokeVoucher("alice", "friend"), 1)
        await self.assertEnded(("friend", "alice"))
        alice = await store.getIdentityRequest("alice")
        alice.setPassword("other")
        await alice.save()
        await self.game.whenHappened(self.attached + 4)
        sessions = authorizer.sessions.ofIdentity("alice")
        left = [each.voucher for each in sessions if each.live]
        self.assertEqual([each and each.label for each in left], ["agent"])
        for label in ("friend", "job"):
            with self.assertRaises(Unauthorized):
                await connect("127.0.0.1", port, None, vouchers[label], "game", "alice")

    async def test_renewedElsewhere(self) -> None:
        """A verifier that another server renews ends nothing: it is the same password."""
        authorizer = await self.serve("alice", "bob")
        other = self.open()
        for salt in (b"s" * 16, b"t" * 16):
            alice = await other.getIdentityRequest("alice")
            old: Any = (await alice.getVerifiers())[SCRAM]
            better = ScramVerifier.fromPassword("secret", salt, old.iterations + 1)
            self.assertTrue(await other.renewVerifier(alice, old, better))
        bob = await other.getIdentityRequest("bob")
        bob.removeKey("game", "shared")
        await bob.save()
        await self.assertEnded(("bob", "shared"))
        self.assertEqual({s.proof for s in authorizer.sessions.ofIdentity("alice")}, {better})

    async def test_changedAtLogin(self) -> None:
        """A change that comes while an identity is being read for a login is not missed."""
        authorizer = self.open()
        await addUser(authorizer, "alice", "black", "white")
        other = self.open()
        run, reads = authorizer._run, []

        async def slowly(act: Any, writing: bool = False) -> Any:
            result = await run(act, writing)
            reads.append(result)
            if len(reads) == 1:
                # It was read, and is on its way.
                alice = await other.getIdentityRequest("alice")
                alice.removeKey("game", "black")
                await alice.save()
                await authorizer.changed(["alice"])
            return result

        self.patch(authorizer, "_run", slowly)
        found = await authorizer.getIdentityRequest("alice")
        self.assertEqual(found.getAllKeys(), [("game", "white")])

    async def test_textOnly(self) -> None:
        """Statements in any field are text."""
        evil = "'); DELETE FROM identities; --\\ %s ? $1 {0} :x"
        authorizer = self.open()
        await addUser(authorizer, "alice")
        identity = authorizer.createIdentity(evil)
        identity.addKeyByString(evil, evil)
        await identity.save()
        self.assertEqual(await authorizer.listHolders(evil), [(evil, evil, False, "")])
        self.assertEqual(
            await authorizer.listIdentities(), sorted([(evil, False, 1), ("alice", False, 1)])
        )
        (record,) = await authorizer.readRecords(after="", most=1)
        self.assertEqual((record.name, record.keys), (evil, {(evil, evil)}))
        await authorizer.removeIdentity(evil)
        self.assertEqual(await authorizer.listIdentities(after="\\"), [("alice", False, 1)])

    async def test_hashing(self) -> None:
        """Nobody's verifiers are shown when an identity is."""
        authorizer = self.open(hashing=Hashing.CHEAPEST)
        await addUser(authorizer, "alice")
        (record,) = await authorizer.readRecords()
        for _, encoded in record.verifiers:
            self.assertNotIn(encoded, repr(record))
