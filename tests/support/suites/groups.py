"""What every store of groups does."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from zope.interface.verify import verifyObject

from pbauth import Detached, DuplicateGroup, InvalidName, KeyNotFound, NotAMember, UnknownGroup
from pbauth._async import settled
from pbauth.accounts.administrators import KeptAdministrator
from pbauth.accounts.records import Record
from pbauth.errors import LastAdministrator
from pbauth.interfaces import IGroupStore
from pbauth.testing import RecordingService
from tests.support.suites.authorizers import AccountStoreSuite


class GroupStoreSuite(AccountStoreSuite):
    """As `AccountStoreSuite`, for stores that have groups."""

    async def staffed(self, store: Any, *members: str) -> None:
        """Make a group `staff` that holds keys of each kind, and these members of it."""
        await store.addGroup("staff")
        for key in (("game", "table"), ("chat", "*"), ("mail", "{name}")):
            await store.grantGroupKey("staff", *key)
        for name in members:
            await self.make(store, name)
            await store.addMember("staff", name)

    async def test_groupStore(self) -> None:
        """It provides the interface, and all methods give Deferreds."""
        store = self.makeAuthorizer()
        verifyObject(IGroupStore, store)
        await self.make(store, "alice")
        for method, *arguments in (
            (store.addGroup, "staff"),
            (store.grantGroupKey, "staff", "game", "alice"),
            (store.addMember, "staff", "alice"),
            (store.listGroups,),
            (store.members, "staff"),
            (store.groupsOf, "alice"),
            (store.groupKeys, "staff"),
            (store.revokeGroupKey, "staff", "game", "alice"),
            (store.removeMember, "staff", "alice"),
            (store.removeGroup, "staff"),
        ):
            deferred = method(*arguments)
            self.assertIsInstance(deferred, Deferred)
            await deferred

    async def test_groups(self) -> None:
        """Groups are added and listed by code points, in pages; a name is taken once."""
        store = self.makeAuthorizer()
        self.assertEqual(await store.listGroups(), [])
        for name in reversed(self.NAMES):
            await store.addGroup(name)
        self.assertEqual(await store.listGroups(), list(self.NAMES))
        self.assertEqual(await store.listGroups("alice", 2), ["bob", "z"])
        self.assertEqual(await store.listGroups("bo", 1), ["bob"])
        with self.assertRaises(DuplicateGroup) as raised:
            await store.addGroup("bob")
        self.assertEqual(raised.exception.name, "bob")
        await store.removeGroup("bob")
        self.assertNotIn("bob", await store.listGroups())
        for bad in ("", "a" * 256, "a\nb"):
            with self.assertRaises(InvalidName):
                await store.addGroup(bad)
        with self.assertRaises(TypeError):
            await store.addGroup(5)

    async def test_unknownGroup(self) -> None:
        """Whatever is asked of a group that is not there fails."""
        store = self.makeAuthorizer()
        await self.make(store, "alice")
        for method, arguments in (
            (store.removeGroup, ()),
            (store.members, ()),
            (store.groupKeys, ()),
            (store.addMember, ("alice",)),
            (store.removeMember, ("alice",)),
            (store.grantGroupKey, ("game", "*")),
            (store.revokeGroupKey, ("game", "*")),
        ):
            with self.assertRaises(UnknownGroup) as raised:
                await method("staff", *arguments)
            self.assertEqual(raised.exception.name, "staff")
            self.assertIsInstance(raised.exception, KeyError)

    async def test_members(self) -> None:
        """Identities join and leave; each knows its groups."""
        store = self.makeAuthorizer()
        await self.staffed(store, "bob", "alice")
        await store.addMember("staff", "bob")
        await store.addGroup("empty")
        self.assertEqual(await store.members("staff"), ["alice", "bob"])
        self.assertEqual(await store.members("empty"), [])
        self.assertEqual(await store.groupsOf("alice"), ["staff"])
        self.assertEqual(await store.groupsOf("mallory"), [])
        await store.addMember("empty", "alice")
        self.assertEqual((await self.find(store)).groups, frozenset({"staff", "empty"}))
        await store.removeMember("staff", "alice")
        self.assertEqual((await self.find(store)).groups, frozenset({"empty"}))
        self.assertEqual(await store.members("staff"), ["bob"])
        with self.assertRaises(NotAMember):
            await store.removeMember("staff", "alice")
        with self.assertRaises(KeyError) as raised:
            await store.addMember("staff", "mallory")
        self.assertNotIsInstance(raised.exception, UnknownGroup)
        self.assertEqual((await self.make(store, "new")).groups, frozenset())

    async def test_removedIdentity(self) -> None:
        """Whoever is removed leaves all groups, and one of the same name is in none."""
        store = self.makeAuthorizer()
        await self.staffed(store, "alice", "bob")
        await maybeDeferred(store.removeIdentity, "alice")
        self.assertEqual(await store.members("staff"), ["bob"])
        await self.make(store, "alice")
        self.assertEqual((await self.find(store)).groups, frozenset())

    async def test_removedGroup(self) -> None:
        """A group of the name of one that was removed has neither its keys nor its members."""
        store = self.makeAuthorizer()
        await self.staffed(store, "alice")
        await store.removeGroup("staff")
        alice = await self.find(store)
        self.assertEqual((alice.groups, alice.getAllKeys()), (frozenset(), []))
        await store.addGroup("staff")
        self.assertEqual(await store.members("staff"), [])
        self.assertEqual(await store.groupKeys("staff"), [])

    async def test_groupKeys(self) -> None:
        """The members of a group may use its keys, and those alone."""
        store = self.makeAuthorizer()
        await self.staffed(store, "alice")
        await store.grantGroupKey("staff", "game", "table")
        self.assertEqual(
            await store.groupKeys("staff"), [("chat", "*"), ("game", "table"), ("mail", "{name}")]
        )
        alice = await self.find(store)
        self.assertEqual(alice.getAllKeys(), [("chat", "*"), ("game", "table"), ("mail", "alice")])
        self.assertEqual(dict(alice.keyring), {})
        for key in (("game", "table"), ("chat", "anything"), ("chat", "alice"), ("mail", "alice")):
            self.assertTrue(alice.holdsKey(*key), key)
        for key in (
            ("game", "alice"),
            ("mail", "bob"),
            ("chat", "*"),
            ("chat", "{name}"),
            ("mail", "{name}"),
            ("other", "alice"),
        ):
            self.assertFalse(alice.holdsKey(*key), key)
        await store.revokeGroupKey("staff", "chat", "*")
        self.assertFalse((await self.find(store)).holdsKey("chat", "alice"))
        with self.assertRaises(KeyError):
            await store.revokeGroupKey("staff", "chat", "*")
        for bad in (("game", ""), ("", "x"), ("game", "a\nb")):
            with self.assertRaises(InvalidName):
                await store.grantGroupKey("staff", *bad)

    async def test_ownPatterns(self) -> None:
        """An identity's own key may be a pattern, too; it is stored as it is."""
        store = self.makeAuthorizer()
        await self.make(store, "alice", ("chat", "*"), ("mail", "{name}"))
        alice = await self.find(store)
        self.assertEqual(alice.getAllKeys(), [("chat", "*"), ("mail", "alice")])
        self.assertTrue(alice.holdsKey("chat", "x") and alice.holdsKey("mail", "alice"))
        alice.removeKey("mail", "{name}")
        await alice.save()
        self.assertEqual((await self.find(store)).getAllKeys(), [("chat", "*")])

    async def test_requestByGroup(self) -> None:
        """Perspectives are given for a group's keys."""
        services = MultiService()
        store = self.makeAuthorizer(services)
        for name in ("game", "chat", "mail"):
            RecordingService(name, services, store)
        await self.staffed(store, "alice")
        alice = await self.find(store)
        for service, name in (("game", "table"), ("chat", "alice"), ("mail", "alice")):
            found = await alice.requestPerspectiveForService(service)
            self.assertEqual(found.getPerspectiveName(), name)
            found = await alice.requestPerspectiveForKey(service, name)
            self.assertEqual(found.getPerspectiveName(), name)
        with self.assertRaises(KeyNotFound):
            await alice.requestPerspectiveForKey("chat", "*")
        with self.assertRaises(KeyNotFound):
            await alice.requestPerspectiveForKey("mail", "bob")

    async def test_savingKeepsGroups(self) -> None:
        """A change of an identity is no change of its groups, even by an old copy."""
        store = self.makeAuthorizer()
        await self.staffed(store, "alice")
        old = await self.find(store)
        await store.addGroup("late")
        await store.addMember("late", "alice")
        old.addKeyByString("own", "alice")
        await old.save()
        alice = await self.find(store)
        self.assertEqual(alice.groups, {"staff", "late"})
        self.assertEqual(dict(alice.keyring), {("own", "alice"): True})
        await store.changeIdentity("alice", lambda record: evolve(record, locked=True))
        self.assertEqual((await self.find(store)).groups, {"staff", "late"})

    async def test_groupRecords(self) -> None:
        """A record names the groups; it can be added where they are."""
        store, other = self.makeAuthorizer(), self.makeAuthorizer()
        await self.staffed(store, "alice")
        (record,) = await settled(store.readRecords())
        self.assertEqual((record.groups, record.keys), ({"staff"}, frozenset()))
        with self.assertRaises(UnknownGroup):
            await settled(other.addRecords([record]))
        self.assertEqual(await settled(other.readRecords()), [])
        await other.addGroup("staff")
        await settled(other.addRecords([record]))
        self.assertEqual(await other.members("staff"), ["alice"])

    async def test_holdersByGroup(self) -> None:
        """Who holds a key is told with the group that they hold it by."""
        store = self.makeAuthorizer()
        await self.staffed(store, "alice", "bob")
        await self.make(store, "carol", ("mail", "alice"))
        await store.addGroup("more")
        await store.grantGroupKey("more", "mail", "alice")
        await store.addMember("more", "alice")
        self.assertEqual(
            await settled(store.listHolders("mail")),
            [
                ("alice", "alice", False, "more"),
                ("alice", "alice", False, "staff"),
                ("bob", "bob", False, "staff"),
                ("carol", "alice", False, ""),
            ],
        )
        self.assertEqual(
            await settled(store.listHolders("chat")),
            [("alice", "*", False, "staff"), ("bob", "*", False, "staff")],
        )
        self.assertEqual(
            await settled(store.listIdentities()),
            [("alice", False, 0), ("bob", False, 0), ("carol", False, 1)],
        )

    # Sessions.

    async def assertLost(self, change: Any, ended: set[str]) -> None:
        """
        A change of the group that alice and bob belong to ends just these of the sessions; alice
        holds the key to her own perspective herself.
        """
        services = MultiService()
        store = self.makeAuthorizer(services)
        await store.addGroup("staff")
        await store.addGroup("others")
        for key in ("alice", "shared", "bob"):
            await store.grantGroupKey("staff", "game", key)
        perspectives = await self.logIn(store, services, own=[("alice", "alice")], group="staff")
        await change(store)
        self.assertEqual(
            {event.perspectiveName for event in self.game.events if event.kind == "detached"},
            ended,
        )
        for name, perspective in perspectives.items():
            if name in ended:
                with self.assertRaises(Detached) as raised:
                    await perspective.callRemote("whoami")
                self.assertEqual(raised.exception.reason, "key revoked")
            else:
                self.assertEqual(await perspective.callRemote("whoami"), name)

    async def test_leavingEndsSessions(self) -> None:
        """Whoever leaves a group loses the sessions that rested on it and on nothing else."""
        await self.assertLost(lambda store: store.removeMember("staff", "alice"), {"shared"})

    async def test_revokedGroupKeyEndsSessions(self) -> None:
        """So does everybody in it, of a key that is taken from it."""
        await self.assertLost(lambda store: store.revokeGroupKey("staff", "game", "bob"), {"bob"})

    async def test_removedGroupEndsSessions(self) -> None:
        """And of all keys when it is removed."""
        await self.assertLost(lambda store: store.removeGroup("staff"), {"shared", "bob"})

    async def test_otherGroupsEndNothing(self) -> None:
        """What happens to other groups, and what is only added, ends nothing."""

        async def change(store: Any) -> None:
            await store.addMember("others", "alice")
            await store.grantGroupKey("others", "game", "shared")
            await store.removeMember("staff", "alice")
            await store.grantGroupKey("staff", "game", "*")
            await store.revokeGroupKey("staff", "game", "bob")

        await self.assertLost(change, set())

    # The last administrator.

    async def administered(self, store: Any) -> None:
        """Alice and bob administer by the group `admins`, and nobody else does."""
        await store.addGroup("admins")
        await store.grantGroupKey("admins", "admin", "{name}")
        for name in ("alice", "bob"):
            await self.make(store, name)
            await store.addMember("admins", name)

    async def test_lastAdministratorByGroup(self) -> None:
        """Whatever would take away the last administrator by group fails, and changes nothing."""
        store = self.makeAuthorizer()
        await self.administered(store)
        keeping = KeptAdministrator("admin")

        def lock(record: Record) -> Record:
            return evolve(record, locked=True)

        await store.changeIdentity("bob", lock, keeping)
        for act in (
            lambda: store.removeMember("admins", "alice", keeping),
            lambda: store.revokeGroupKey("admins", "admin", "{name}", keeping),
            lambda: store.removeGroup("admins", keeping),
            lambda: store.changeIdentity("alice", lock, keeping),
            lambda: store.changeIdentity("alice", lambda record: None, keeping),
        ):
            with self.assertRaises(LastAdministrator) as raised:
                await act()
            self.assertEqual(raised.exception.name, "alice")
        self.assertEqual(await store.members("admins"), ["alice", "bob"])
        self.assertTrue((await self.find(store)).holdsKey("admin", "alice"))
        # One who holds the key alone is enough.
        await self.make(store, "carol", ("admin", "carol"))
        await store.removeGroup("admins", keeping)
        with self.assertRaises(LastAdministrator):
            await store.changeIdentity("carol", lock, keeping)

    async def test_eachOtherByGroup(self) -> None:
        """Two administrators who take each other out at the same moment: one is left."""
        one, other = self.twoServers()
        await self.administered(one)
        keeping = KeptAdministrator("admin")
        done = await DeferredList(
            [
                one.removeMember("admins", "alice", keeping),
                other.changeIdentity("bob", lambda record: evolve(record, locked=True), keeping),
            ],
            consumeErrors=True,
        )
        failures = [result for succeeded, result in done if not succeeded]
        self.assertEqual(len(failures), 1, failures)
        failures[0].trap(LastAdministrator)
