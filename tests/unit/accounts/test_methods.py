"""Keys that are good for some methods only: who may call what, and that all stores keep it."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from twisted.trial.unittest import TestCase

from pbauth import (
    DefaultAuthorizer,
    Hashing,
    InvalidName,
    MethodNotAllowed,
    PasswdFileAuthorizer,
    SQLAuthorizer,
)
from pbauth._async import settled
from pbauth.accounts.records import Record, recordOf
from pbauth.admin import protocol
from pbauth.authorizers.passwd.lines import BadLine, readLines
from pbauth.dumps.formats import FORMATS, DumpError
from tests.support.wire import WireTestCase

METHODS = frozenset({"getBoard", "history"})


class CallTests(WireTestCase):
    """Where a session's calls arrive."""

    alice: Any

    def key(self, perspective: str, *methods: str) -> None:
        """Give alice a key."""
        self.alice.addKeyByString("game", perspective, methods or None)

    def test_limited(self) -> None:
        """A method that the key does not list is refused."""
        self.key("alice", "getBoard")
        perspective = self.successResultOf(self.login())
        self.assertIsInstance(self.refusal(perspective, "whoami"), MethodNotAllowed)
        self.key("alice", "getBoard", "whoami")
        self.assertEqual(self.answer(perspective, "whoami"), "alice")

    def test_changedMeanwhile(self) -> None:
        """A session that is live is limited at once, and stays."""
        perspective = self.successResultOf(self.login())
        self.answer(perspective, "whoami")
        self.key("alice", "getBoard")
        self.assertIsInstance(self.refusal(perspective, "whoami"), MethodNotAllowed)
        self.key("alice")
        self.answer(perspective, "whoami")

    def test_union(self) -> None:
        """Keys to the same perspective are good for what all of them list; one without, for all."""
        self.key("alice", "getBoard")
        self.key("*", "history")
        self.assertEqual(self.alice.methodsFor("game", "alice"), METHODS)
        self.assertEqual(self.alice.methodsFor("game", "bob"), {"history"})
        self.key("{name}")
        self.assertIsNone(self.alice.methodsFor("game", "alice"))

    def test_groups(self) -> None:
        """A key of a group is good for all methods."""
        accounts = self.memory.authorizer
        self.key("alice", "getBoard")
        for step in (
            accounts.addGroup("staff"),
            accounts.grantGroupKey("staff", "game", "alice"),
            accounts.addMember("staff", "alice"),
        ):
            self.successResultOf(step)
        perspective = self.successResultOf(self.login())
        self.answer(perspective, "whoami")
        self.successResultOf(accounts.removeMember("staff", "alice"))
        self.assertIsInstance(self.refusal(perspective, "whoami"), MethodNotAllowed)

    def test_withVoucher(self) -> None:
        """A voucher narrows what the key is good for."""
        self.key("alice", "whoami", "getBoard")
        accounts = self.memory.authorizer
        soon = accounts.now() + timedelta(hours=1)
        for methods, error in ((["whoami"], None), (["history"], MethodNotAllowed)):
            voucher = self.successResultOf(
                accounts.issueVoucher("alice", "friend", soon, methods=methods)
            )
            perspective = self.successResultOf(self.memory.logIn(None, voucher, "game"))
            if error is None:
                self.answer(perspective, "whoami")
            else:
                self.assertIsInstance(self.refusal(perspective, "whoami"), error)
                self.assertIsInstance(self.refusal(perspective, "history"), error)

    def test_mistakes(self) -> None:
        """A list has a method at least, and names."""
        for wrong, error in (([], ValueError), ("getBoard", TypeError), ([""], InvalidName)):
            with self.assertRaises(error):
                self.alice.addKeyByString("game", "alice", wrong)


class StoreTests(TestCase):
    """What is kept."""

    def stores(self) -> list[Any]:
        """Open one of each kind, and how it is opened again."""
        path = os.path.abspath(self.mktemp())
        memory = DefaultAuthorizer(hashing=Hashing.CHEAPEST)
        opened = [lambda: memory]
        for kind, end in ((SQLAuthorizer, ".sqlite"), (PasswdFileAuthorizer, ".passwd")):
            opened.append(lambda kind=kind, end=end: self.open(kind(path + end)))  # type: ignore[misc]
        return opened

    def open(self, store: Any) -> Any:
        """See to it that it is closed."""
        self.addCleanup(store.close)
        return store

    async def test_kept(self) -> None:
        """Saved, read, changed and taken back."""
        for opened in self.stores():
            store = opened()
            alice = store.createIdentity("alice")
            alice.addKeyByString("game", "alice", METHODS)
            alice.addKeyByString("game", "a/b %:", ["x y"])
            alice.addKeyByString("chess", "alice")
            await settled(alice.save())
            other = opened()
            alice = await other.getIdentityRequest("alice")
            self.assertEqual(alice.methodsFor("game", "alice"), METHODS)
            self.assertEqual(alice.methodsFor("game", "a/b %:"), {"x y"})
            self.assertIsNone(alice.methodsFor("chess", "alice"))
            (record,) = await store.readRecords()
            self.assertEqual(record, await recordOf(alice))
            await other.changeIdentity(
                "alice", lambda one: one.withKey(("chess", "alice"), frozenset({"move"}))
            )
            await other.changeIdentity("alice", lambda one: one.withKey(("game", "alice"), None))
            alice = await opened().getIdentityRequest("alice")
            self.assertEqual(alice.methodsFor("chess", "alice"), {"move"})
            self.assertIsNone(alice.methodsFor("game", "alice"))
            await other.changeIdentity("alice", lambda one: one.withoutKey(("chess", "alice")))
            alice = await opened().getIdentityRequest("alice")
            self.assertFalse(alice.holdsKey("chess", "alice"))

    def test_written(self) -> None:
        """Dumps of both formats, and the administration, carry it."""
        record = Record(
            "alice",
            keys=frozenset({("game", "alice"), ("a b", "c:d")}),
            methods=frozenset({("game", "alice", "getBoard"), ("a b", "c:d", "e:f %")}),
        )
        for form in FORMATS.values():
            lines = [form.header(), form.write(record)]
            (entry,) = form.read([each for each in lines if each])
            self.assertEqual(entry.record, record)  # type: ignore[union-attr]
        self.assertEqual(protocol.decodeRecord(protocol.encodeRecord(record)), record)
        self.assertEqual(len(protocol.encodeRecord(record.withoutKey(("a b", "c:d")))), 10)
        self.assertEqual(len(protocol.encodeRecord(Record("alice"))), 9)

    def test_malformed(self) -> None:
        """What makes no sense is refused."""
        for text in (
            "alice:\n#:user alice methods=game/alice/move\n",
            "alice: key=game/alice\n#:user alice methods=game/alice\n",
            "alice: key=game/alice\n#:user alice methods=game/alice/\n",
        ):
            with self.subTest(text), self.assertRaises(BadLine):
                readLines(text)
        for line in (
            b'{"name":"a","keys":[["game","a",1]]}',
            b'{"name":"a","keys":[["game","a",""]]}',
            b'{"name":"a","keys":[["game","a","x"],["game","a"]]}',
            b'{"group":"a","keys":[["game","a","x"]]}',
        ):
            with self.subTest(line), self.assertRaises(DumpError):
                list(FORMATS["jsonl"].read([line]))
