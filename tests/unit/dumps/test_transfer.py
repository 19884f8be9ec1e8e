"""Many identities into stores and out of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from typing import Any

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import ConnectionLost
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase

from pbauth import DefaultAuthorizer, DuplicateIdentity, Hashing, SQLAuthorizer, StoreError
from pbauth.accounts.passwordpolicy import PasswordPolicy
from pbauth.accounts.records import Record
from pbauth.admin.administration import Administration
from pbauth.dumps import transfer
from pbauth.dumps.formats import FORMATS, DumpError, Entry
from pbauth.dumps.transfer import (
    ExportFailed,
    ImportFailed,
    ImportStopped,
    Progress,
    exportRecords,
    importRecords,
    replacing,
)
from pbauth.errors import InvalidName
from pbauth.names import LONGEST
from tests.support.records import SCRAM, records

JSONL = FORMATS["jsonl"]


def entries(there: Iterable[Record], password: str | None = None) -> Iterator[Entry]:
    """As if they were read, from line 1 on."""
    for line, record in enumerate(there, 1):
        if password is not None:
            record = evolve(record, verifiers=frozenset())
        yield Entry(line, line * 100, record, password)


class Store:
    """
    An `Administration` from far away: all that transfers need.

    Attributes:
        calls: the sizes of the batches.
    """

    def __init__(self, authorizer: Any = None) -> None:
        self.authorizer = authorizer or DefaultAuthorizer(hashing=Hashing.CHEAPEST)
        self.calls: list[int] = []
        self.pages: list[str] = []
        self.failsAfter: int | None = None
        self.failure: Exception = StoreError("There is no space left.")

    async def readRecords(self, after: str = "", most: int = 1000) -> list[Record]:
        self.pages.append(after)
        found: list[Record] = await maybeDeferred(self.authorizer.readRecords, after, most)
        return found

    async def addRecords(self, there: list[Record], skipKnown: bool = False) -> int:
        if self.failsAfter == len(self.calls):
            raise self.failure
        self.calls.append(len(there))
        added: int = await maybeDeferred(self.authorizer.addRecords, there, skipKnown)
        return added

    @property
    def names(self) -> list[str]:
        return sorted(self.authorizer.identities)


class ImportTests(TestCase):
    """Into a store that has two methods."""

    def setUp(self) -> None:
        self.store = Store()

    async def do(self, there: Iterable[Entry], **options: Any) -> Progress:
        """Import; no thread is left."""
        before = threading.active_count()
        try:
            return await importRecords(
                self.store, there, **{"hashing": Hashing.CHEAPEST, **options}
            )
        finally:
            self.assertEqual(threading.active_count(), before)

    async def fails(self, there: Iterable[Entry], **options: Any) -> ImportFailed:
        """Import what can't be imported."""
        with self.assertRaises(ImportFailed) as caught:
            await self.do(there, **options)
        return caught.exception

    async def test_batches(self) -> None:
        """Each batch is one call; how far it came is told after each."""
        told: list[Progress] = []
        done = await self.do(entries(records(*range(25))), batch=10, progress=told.append)
        self.assertEqual(self.store.calls, [10, 10, 5])
        self.assertEqual([(each.added, each.line) for each in told], [(10, 10), (20, 20), (25, 25)])
        self.assertEqual(done, Progress(25, 0, 25, end=2500))
        found = await self.store.readRecords()
        self.assertEqual(found, records(*range(25)))

    async def test_nothing(self) -> None:
        """Of an empty dump, nothing."""
        self.assertEqual(await self.do([]), Progress())
        self.assertEqual(self.store.calls, [])

    async def test_largeRecords(self) -> None:
        """However large the records are, a batch can cross a connection of PB."""
        keys = frozenset((f"{number:0100}", f"{number:0100}") for number in range(450))
        there = [Record(f"user{number}", keys=keys) for number in range(12)]
        await self.do(entries(there))
        self.assertEqual(self.store.calls, [4, 4, 4])

    async def test_bounded(self) -> None:
        """It never reads on while a batch waits to be written, but for the next one."""
        taken = 0
        waiting: list[Deferred[None]] = []
        again: list[Deferred[None]] = [Deferred()]

        def count() -> Iterator[Entry]:
            nonlocal taken
            for entry in entries(records(*range(100))):
                taken += 1
                yield entry

        async def slow(there: list[Record], skipKnown: bool = False) -> int:
            waiting.append(Deferred())
            again[0].callback(None)
            await waiting[-1]
            return len(there)

        self.store.addRecords = slow  # type: ignore[method-assign]
        importing = Deferred.fromCoroutine(self.do(count(), batch=10))
        for number in range(10):
            await again[0]
            again[0] = Deferred()
            self.assertLessEqual(taken, (number + 2) * 10)
            waiting[-1].callback(None)
        self.assertEqual((await importing).added, 100)

    async def test_badLine(self) -> None:
        """A line of the third batch leaves the first two, and nothing of the third."""

        def bad() -> Iterator[Entry]:
            yield from entries(records(*range(27)))
            raise DumpError(28, "it is bad.")

        failure = await self.fails(bad(), batch=10)
        self.assertEqual(self.store.names, [each.name for each in records(*range(20))])
        self.assertEqual((failure.line, failure.progress.line), (28, 20))
        self.assertEqual(
            str(failure), "line 28: it is bad. So far, 20 users were imported, up to line 20."
        )

    async def test_taken(self) -> None:
        """A name that is taken is named with its line; nothing of its batch is in."""
        await self.do(entries(records(13)))
        for password in (None, "long enough"):
            failure = await self.fails(entries(records(*range(20)), password), batch=10)
            self.assertEqual(failure.line, 14)
            self.assertIn("there is a user 'user0013' already", str(failure))
            self.assertIn("--resume", str(failure))
            self.assertEqual(len(self.store.names), 11)
            for name in self.store.names[:10]:
                self.store.authorizer.removeIdentity(name)

    async def test_twice(self) -> None:
        """A name that is there twice is named with both lines."""
        failure = await self.fails(entries(records(0, 1, 0)))
        self.assertIn("line 3: 'user0000' is already in line 1.", str(failure))
        self.assertEqual(self.store.names, [])

    async def test_resume(self) -> None:
        """Who is there already stays as he is, whether he has a password or a verifier."""
        await self.do(entries(records(*range(0, 30, 2))))
        lock = self.store.authorizer.identities["user0004"]
        lock.locked = True
        for password in (None, "long enough"):
            there = records(*range(30), 29) if password is None else records(*range(40))
            done = await self.do(entries(there, password), batch=10, skipKnown=True)
            self.assertEqual((done.added, done.skipped), (15, 16) if not password else (10, 30))
        self.assertEqual(len(self.store.names), 40)
        self.assertTrue(lock.locked)
        verifiers = {
            name: (await identity.getVerifiers())["SCRAM-SHA-256"].encode() == SCRAM
            for name, identity in self.store.authorizer.identities.items()
        }
        self.assertEqual(verifiers, {name: name < "user0030" for name in self.store.names})

    async def test_lookedUpInPages(self) -> None:
        """Where a dump is sorted, those of its users that are there are found in a few calls."""
        await self.do(entries(records(*range(500))))
        await self.do(entries(records(*range(500)), "long enough"), skipKnown=True)
        self.assertLessEqual(len(self.store.pages), 6)

    async def test_hashed(self) -> None:
        """Passwords become verifiers, beside the public keys that are there, on all cores."""
        self.patch(transfer, "_cores", lambda: 2)
        both = threading.Barrier(2, timeout=20)
        make = Hashing.makeVerifiers

        def together(hashing: Hashing, password: str, salt: bytes) -> Any:
            both.wait()
            return make(hashing, password, salt)

        self.patch(Hashing, "makeVerifiers", together)
        told: list[Progress] = []
        await self.do(
            entries(records(*range(6)), "open sesame"),
            hashing=Hashing(4096, md5=True),
            progress=told.append,
        )
        self.assertEqual([each.hashed for each in told], [1, 2, 3, 4, 5, 6, 0])
        self.assertEqual([each.end for each in told], [100, 200, 300, 400, 500, 600, 600])
        salts = set()
        for identity in self.store.authorizer.identities.values():
            await identity.verifyPlainPassword("open sesame")
            verifiers: dict[str, Any] = await identity.getVerifiers()
            self.assertEqual(set(verifiers), {"SCRAM-SHA-256", "PB-MD5"})
            salts.add(verifiers["SCRAM-SHA-256"].salt)
        self.assertEqual(len(salts), 6)

    async def test_hashedInSmallBatches(self) -> None:
        """What is lost where it ends early is a bounded amount of work."""
        self.patch(transfer, "MOST_ITERATIONS", 10 * 4096)
        await self.do(entries(records(*range(25)), "open sesame"))
        self.assertEqual(self.store.calls, [10, 10, 5])

    async def test_policy(self) -> None:
        """Passwords have to be as the policy says."""
        failure = await self.fails(entries(records(0), "five5"))
        self.assertIn("line 1: The password is too short.", str(failure))
        failure = await self.fails(entries(records(0), "five55"), policy=PasswordPolicy(7))
        self.assertNotIn("five55", str(failure))
        self.assertEqual(self.store.names, [])

    async def test_storeFails(self) -> None:
        """What is wrong with the store is said, and how far it came."""
        for failure, said in [
            (StoreError("There is no space left."), "There is no space left."),
            (ConnectionLost(), "the last batch may or may not be stored. Use --resume."),
        ]:
            self.store = Store()
            self.store.failsAfter, self.store.failure = 2, failure
            error = await self.fails(entries(records(*range(40))), batch=10)
            self.assertEqual(error.line, 21)
            self.assertIn(said, str(error))
            self.assertIn("So far, 20 users were imported, up to line 20.", str(error))

    async def test_enough(self) -> None:
        """Where the store fails while the next line is waited for, the wait ends."""
        stop = threading.Event()

        def slow() -> Iterator[Entry]:
            yield from entries(records(*range(10)))
            stop.wait(60)

        self.store.failsAfter = 0
        error = await self.fails(slow(), batch=10, enough=stop.set)
        self.assertEqual(error.progress, Progress())


class StopTests(TestCase):
    """When the reactor is stopped."""

    async def test_stopped(self) -> None:
        """The batch that is being written is finished, and counts; then it ends."""
        for password in (None, "open sesame"):
            clock = Reactor()
            store = Store()
            told: list[Progress] = []

            def tell(done: Progress, clock: Reactor = clock, told: Any = told) -> None:
                told.append(done)
                if done.line == 20:
                    clock.stopIt()

            with self.assertRaises(ImportStopped) as caught:
                await importRecords(
                    store,
                    entries(records(*range(100)), password),
                    batch=10,
                    hashing=Hashing.CHEAPEST,
                    progress=tell,
                    reactor=clock,
                )
            self.assertEqual(caught.exception.progress.line, 20)
            self.assertEqual(len(store.names), 20)
            self.assertEqual(
                str(caught.exception), "Interrupted: 20 users were imported, up to line 20."
            )
            await clock.stopped

    async def test_notStopped(self) -> None:
        """Nothing is left in the reactor."""
        clock = Reactor()
        await importRecords(Store(), entries(records(1)), reactor=clock)
        self.assertEqual(clock.triggers, [])


class Reactor:
    """The real one, but for its end."""

    def __init__(self) -> None:
        from twisted.internet import reactor

        self._reactor: Any = reactor
        self.triggers: list[Any] = []
        self.stopped: Any = succeed(None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def addSystemEventTrigger(self, phase: str, event: str, act: Any) -> Any:
        assert (phase, event) == ("before", "shutdown")
        self.triggers.append(act)
        return act

    def removeSystemEventTrigger(self, trigger: Any) -> None:
        self.triggers.remove(trigger)

    def stopIt(self) -> None:
        (act,) = self.triggers
        self.stopped = act()


class ExportTests(TestCase):
    """Out of a store."""

    async def test_pages(self) -> None:
        """Page by page, each user once, whatever the size of the pages that the store gives."""
        store = Store()
        store.authorizer.addRecords(records(*range(25)))
        for form in FORMATS.values():
            for most in (1, 7, 25, 1000):
                written: list[bytes] = []
                told: list[int] = []
                count = await exportRecords(
                    store, form, written.append, most=most, progress=told.append
                )
                self.assertEqual(count, 25)
                self.assertEqual(told[-1], 25)
                found: list[Any] = list(form.read(b"".join(written).splitlines(keepends=True)))
                self.assertEqual([entry.record for entry in found], records(*range(25)))

    async def test_fails(self) -> None:
        """Why is said."""

        class Failing(Store):
            async def readRecords(self, after: str = "", most: int = 1000) -> list[Record]:
                raise StoreError("It is locked.")

        with self.assertRaises(ExportFailed) as caught:
            await exportRecords(Failing(), JSONL, lambda data: None)
        self.assertEqual(str(caught.exception), "It is locked.")
        store = Store()
        keys = frozenset(("service", f"{number:0200}") for number in range(700))
        store.authorizer.addRecords([Record("alice", keys=keys)])
        with self.assertRaises(ExportFailed) as caught:
            await exportRecords(store, JSONL, lambda data: None)
        self.assertIn("'alice' takes", str(caught.exception))


class FileTests(SynchronousTestCase):
    """Where an export goes."""

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        os.mkdir(self.folder)
        self.path = os.path.join(self.folder, "users.jsonl")

    def test_whole(self) -> None:
        """It is there once it is whole, for its owner only, in the place of an older one."""
        for text in (b"one", b"two"):
            with replacing(self.path) as file:
                file.write(text)
                file.flush()
                if text == b"one":
                    self.assertFalse(os.path.exists(self.path))
            with open(self.path, "rb") as written:
                self.assertEqual(written.read(), text)
            self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)
            os.chmod(self.path, 0o644)
        self.assertEqual(os.listdir(self.folder), ["users.jsonl"])

    def test_fails(self) -> None:
        """What fails leaves the older one, and nothing else."""
        with replacing(self.path) as file:
            file.write(b"one")
        for error in (KeyboardInterrupt, ExportFailed):
            with self.assertRaises(error):
                with replacing(self.path) as file:
                    file.write(b"two")
                    raise error
        with open(self.path, "rb") as written:
            self.assertEqual(written.read(), b"one")
        self.assertEqual(os.listdir(self.folder), ["users.jsonl"])

    def test_link(self) -> None:
        """A link stays one."""
        link = os.path.join(self.folder, "link")
        os.symlink("users.jsonl", link)
        with replacing(link) as file:
            file.write(b"one")
        self.assertTrue(os.path.islink(link))
        self.assertTrue(os.path.exists(self.path))

    def test_noFile(self) -> None:
        """Where no file can be, that is said."""
        for path, said in [
            (self.folder, "is not a file"),
            ("/dev/null", "is not a file"),
            (os.path.join(self.folder, "none", "users.jsonl"), "No such file or directory"),
        ]:
            with self.assertRaises(ExportFailed) as caught:
                with replacing(path):
                    pass
            self.assertIn(said, str(caught.exception))


class PlaceTests(SynchronousTestCase):
    """Texts that come just before a name."""

    names = st.text(
        st.characters(min_codepoint=33, exclude_categories=("Cs",)), min_size=1, max_size=63
    ).filter(lambda name: len(name.encode()) <= LONGEST)

    @given(names, names)
    def test_nothingBetween(self, name: str, other: str) -> None:
        """Just before: no other name is between the two."""
        before = transfer._before(name)
        self.assertLess(before, name)
        self.assertLess(len(before.encode("utf-8")), LONGEST + 5)
        for each in (other, name[:-1] + other, name[:-1] or other):
            self.assertFalse(before < each < name and len(each.encode()) <= LONGEST)

    def test_surrogates(self) -> None:
        """There are none in UTF-8, and so not before the first character after them."""
        before = transfer._before("a\ue000")
        self.assertEqual(before[1], "\ud7ff")


class AdministrationTests(TestCase):
    """What an administrator may do of it, and what the audit is told."""

    def setUp(self) -> None:
        self.events: list[Any] = []
        globalLogPublisher.addObserver(self._observe)
        self.addCleanup(globalLogPublisher.removeObserver, self._observe)

    def _observe(self, event: Any) -> None:
        if event.get("log_namespace") == "pbauth.audit":
            self.events.append((event["event"], event.get("users"), event["operator"]))

    async def test_audited(self) -> None:
        """Each batch is told, and each export once."""
        admin = Administration(DefaultAuthorizer(hashing=Hashing.CHEAPEST), "carol")
        await importRecords(admin, entries(records(*range(25))), batch=10)
        self.assertEqual(
            self.events, [("users.imported", number, "carol") for number in (10, 10, 5)]
        )
        self.events.clear()
        await importRecords(admin, entries(records(*range(25))), skipKnown=True)
        self.assertEqual(self.events, [])
        for _ in range(2):
            await exportRecords(admin, JSONL, lambda data: None, most=10)
        self.assertEqual(self.events, [("users.read", None, "carol")] * 2)

    async def test_noWayRound(self) -> None:
        """Who begins somewhere else is told of as well."""
        admin = Administration(DefaultAuthorizer(), "carol")
        await admin.readRecords("a")
        self.assertEqual(self.events, [("users.read", None, "carol")])

    async def test_checked(self) -> None:
        """Records that nobody has checked are checked, before one of them is stored."""
        authorizer = DefaultAuthorizer()
        admin = Administration(authorizer)
        for bad, error in [
            (Record("\0"), InvalidName),
            (Record("eve", verifiers=frozenset({("PB-MD5", SCRAM)})), ValueError),
        ]:
            with self.assertRaises(error):
                await admin.addRecords([Record("alice"), bad])
        self.assertEqual(authorizer.identities, {})
        with self.assertRaises(DuplicateIdentity):
            await admin.addRecords([Record("alice"), Record("alice")])
        self.assertEqual(self.events, [])


class GroupTests(TestCase):
    """Groups go along, and with them who belongs to them."""

    async def test_groups(self) -> None:
        """From one store to another, by either format."""
        store = DefaultAuthorizer()
        for name in ("staff", "empty"):
            await store.addGroup(name)
        await store.grantGroupKey("staff", "game", "*")
        alice = store.createIdentity("alice")
        alice.expires = datetime(2100, 1, 1, tzinfo=timezone.utc)
        await alice.save()
        await store.addMember("staff", "alice")
        for form in FORMATS.values():
            written: list[bytes] = []
            self.assertEqual(await exportRecords(Administration(store), form, written.append), 1)
            lines = b"".join(written).splitlines(keepends=True)
            other = DefaultAuthorizer()
            done = await importRecords(other, form.read(lines), hashing=Hashing.CHEAPEST)
            self.assertEqual((done.added, done.skipped), (1, 0))
            self.assertEqual(await other.readRecords(), await store.readRecords())
            self.assertEqual(await other.listGroups(), ["empty", "staff"])
            self.assertTrue(other.identities["alice"].holdsKey("game", "any"))
            # What is there stays as it is.
            await other.revokeGroupKey("staff", "game", "*")
            with self.assertRaises(ImportFailed) as raised:
                await importRecords(other, form.read(lines))
            self.assertIn("there is a group 'empty' already", str(raised.exception))
            done = await importRecords(other, form.read(lines), skipKnown=True)
            self.assertEqual((done.added, done.skipped), (0, 1))
            self.assertEqual(await other.groupKeys("staff"), [])

    async def test_missing(self) -> None:
        """Who belongs to a group that is not there is not imported."""
        lines = [b'{"name": "alice", "groups": ["staff"]}\n']
        other = DefaultAuthorizer()
        with self.assertRaises(ImportFailed) as raised:
            await importRecords(other, JSONL.read(lines))
        self.assertIn("There is no group 'staff'", str(raised.exception))
        self.assertEqual(other.identities, {})


class SQLiteTests(TestCase):
    """Into an SQLite file and out of it."""

    async def test_roundTrip(self) -> None:
        """What comes out is what went in; one wrong line leaves whole batches."""
        authorizer = SQLAuthorizer(self.mktemp(), hashing=Hashing.CHEAPEST)
        self.addCleanup(authorizer.close)
        there = records(*range(0, 2000, 2))
        self.assertEqual((await importRecords(authorizer, entries(there), batch=300)).added, 1000)
        written: list[bytes] = []
        self.assertEqual(await exportRecords(authorizer, JSONL, written.append), 1000)
        found: list[Any] = list(JSONL.read(b"".join(written).splitlines(keepends=True)))
        self.assertEqual([entry.record for entry in found], there)

        with self.assertRaises(ImportFailed) as caught:
            await importRecords(authorizer, entries(records(*range(1, 2000, 2), 0)), batch=300)
        self.assertEqual((caught.exception.line, caught.exception.progress.added), (1001, 900))
        done = await importRecords(
            authorizer, entries(records(*range(2000))), batch=300, skipKnown=True
        )
        self.assertEqual((done.added, done.skipped), (100, 1900))
        done = await importRecords(
            authorizer,
            entries(records(*range(1990, 2010)), "open sesame"),
            skipKnown=True,
            hashing=Hashing.CHEAPEST,
        )
        self.assertEqual((done.added, done.skipped), (10, 10))
