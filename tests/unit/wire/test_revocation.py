"""References that a session was given, and that end with it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import Deferred
from twisted.spread import pb
from twisted.trial.unittest import SynchronousTestCase

from pbauth import Detached, EndReason, IdentityConnector, KeyNotFound, Password, Policy
from pbauth.interfaces import IRestrictableBroker, IRevokingBroker
from pbauth.testing import MemoryServer, RecordingPerspective, RecordingService
from tests.support.pieces import Board, Piece
from tests.support.wire import WireTestCase


class View(pb.Viewable):
    """Something that knows who looks."""

    def view_who(self, perspective: Any) -> str:
        return str(perspective.perspectiveName)


class Ticket(pb.Copyable, pb.RemoteCopy):
    """Something that can be awaited, and sent all the same."""

    def __await__(self) -> Any:
        raise AssertionError("Nobody asked for that.")
        yield


pb.setUnjellyableForClass(Ticket, Ticket)


class Player(RecordingPerspective):
    """Gives all of this."""

    shared = Piece("shared")

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.board = Board()

    def perspective_piece(self, name: str) -> Any:
        return Piece(name)

    def perspective_pieceLater(self) -> Any:
        self.later: Deferred[Any] = Deferred()
        return self.later

    def perspective_shared(self) -> Any:
        return self.shared

    def perspective_ticket(self) -> Any:
        return Ticket()

    def perspective_view(self) -> Any:
        return View()

    def perspective_board(self) -> Any:
        return self.board

    def perspective_take(self, thing: Any) -> str:
        return type(thing).__name__


class RevocationTests(WireTestCase):
    """One connection with one session or two."""

    def setUp(self) -> None:
        super().setUp()
        self.game.perspectiveClass = Player

    def attach(self, *names: str) -> list[Any]:
        """Attach to perspectives on one connection."""
        connector = IdentityConnector(
            self.memory, None, "alice", Password("secret"), reactor=self.memory.clock
        )
        found = []
        for name in names:
            request = connector.requestService("game", name)
            self.memory.flush()
            found.append(self.successResultOf(request))
        self.connector = connector
        return found

    def end(self, name: str) -> None:
        """End a session."""
        sessions = self.memory.authorizer.sessions
        (session,) = [each for each in sessions if each.perspectiveName == name]
        self.successResultOf(sessions.end(session, EndReason.ADMINISTRATOR))
        self.memory.flush()

    def assertDead(self, reference: Any, *call: Any) -> None:
        """A call gives `Detached`, now and always."""
        for _ in "12":
            self.assertIsInstance(self.refusal(reference, *(call or ("name",))), Detached)

    def test_interfaces(self) -> None:
        """The broker says what it can."""
        (alice,) = self.attach("alice")
        for interface in (IRevokingBroker, IRestrictableBroker):
            self.assertTrue(interface.providedBy(alice.broker))

    def test_obtained(self) -> None:
        """What a perspective gave, and what that gave, ends with the session, for good."""
        (alice,) = self.attach("alice")
        piece = self.answer(alice, "piece", "black")
        inner = self.answer(piece, "inner")
        view = self.answer(alice, "view")
        self.assertEqual(self.answer(inner, "name"), "inner black")
        self.assertEqual(self.answer(view, "who"), "alice")
        waiting = self.ask(piece, "wait")
        self.end("alice")
        self.failureResultOf(waiting, Detached)
        self.assertDead(alice, "whoami")
        for reference in (piece, inner):
            self.assertDead(reference)
        self.assertDead(view, "who")
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_givenLater(self) -> None:
        """So does what was only promised when it ended, and what came just before."""
        (alice,) = self.attach("alice")
        promised = self.ask(alice, "pieceLater")
        player = next(iter(self.memory.authorizer.sessions)).perspective
        piece = self.answer(alice, "piece", "black")
        inner = self.ask(piece, "innerLater")
        self.end("alice")
        player.later.callback(Piece("late"))
        self.failureResultOf(promised, Detached)
        self.failureResultOf(inner, Detached)
        (again,) = self.attach("alice")
        promised = self.ask(again, "pieceLater")
        (session,) = self.memory.authorizer.sessions
        session.perspective.later.callback(Piece("in time"))
        self.memory.flush()
        late = self.successResultOf(promised)
        self.assertEqual(self.answer(late, "name"), "in time")
        self.end("alice")
        self.assertDead(late)

    def test_awaitableCopy(self) -> None:
        """Only coroutines and Deferreds are waited for: what else can be awaited is sent."""
        (alice,) = self.attach("alice")
        self.assertIsInstance(self.answer(alice, "ticket"), Ticket)

    def test_otherSessionLives(self) -> None:
        """Another session on the same connection keeps what it was given."""
        alice, shared = self.attach("alice", "shared")
        mine, others = self.answer(alice, "piece", "a"), self.answer(shared, "piece", "b")
        self.end("alice")
        self.assertDead(mine)
        self.assertEqual(self.answer(others, "name"), "b")
        self.assertEqual(self.answer(shared, "whoami"), "shared")
        self.end("shared")
        self.assertDead(others)

    def test_sharedObject(self) -> None:
        """What both gave ends with the last of them."""
        alice, shared = self.attach("alice", "shared")
        piece = self.answer(alice, "shared")
        same = self.answer(shared, "shared")
        self.end("alice")
        self.assertEqual(self.answer(piece, "name"), "shared")
        self.assertEqual(self.answer(self.answer(same, "inner"), "name"), "inner shared")
        self.end("shared")
        self.assertDead(piece)

    def test_givenAgain(self) -> None:
        """The same object, given by a later session, is a new reference; the old one stays dead."""
        (alice,) = self.attach("alice")
        old = self.answer(alice, "shared")
        self.end("alice")
        request = self.connector.requestService("game", "alice")
        self.memory.flush()
        again = self.successResultOf(request)
        new = self.answer(again, "shared")
        self.assertEqual(self.answer(new, "name"), "shared")
        self.assertDead(old)
        del old
        gc.collect()
        self.memory.flush()
        self.assertEqual(self.answer(new, "name"), "shared")
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_comesBack(self) -> None:
        """What was given comes back as itself while the session lives, and is nothing after."""
        alice, shared = self.attach("alice", "shared")
        piece = self.answer(alice, "piece", "a")
        self.assertEqual(self.answer(alice, "take", piece), "Piece")
        self.end("alice")
        self.assertEqual(self.answer(shared, "take", piece), "RevokedObject")

    def test_cacheable(self) -> None:
        """Who observed something observes it no more, and may let go of the copy."""
        (alice,) = self.attach("alice")
        board = self.answer(alice, "board")
        player = next(iter(self.memory.authorizer.sessions)).perspective
        self.assertEqual(len(player.board.observers), 1)
        self.end("alice")
        self.assertEqual(player.board.observers, [])
        del board
        gc.collect()
        self.memory.flush()
        self.assertEqual(self.answer(self.connector._identity, "keys")[0], ("game", "alice"))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_otherConnections(self) -> None:
        """A session on another connection keeps what it was given, of the same perspective, too."""
        (alice,) = self.attach("alice")
        (again,) = self.attach("alice")
        one, other = self.answer(alice, "shared"), self.answer(again, "shared")
        first = next(iter(self.memory.authorizer.sessions))
        first.end(EndReason.ADMINISTRATOR)
        self.assertDead(one)
        self.assertEqual(self.answer(other, "name"), "shared")


class SeedTests(WireTestCase):
    """What the seed promises of references ("Third party references")."""

    def test_idsCannotBeGuessed(self) -> None:
        """A client that was not given an object does not reach it, whatever number it says."""
        perspective = self.successResultOf(self.login())
        other = self.successResultOf(self.login("alice", "secret", "game", "shared"))
        given = {perspective.luid, perspective.identity.luid, perspective.identity.challenger.luid}
        for luid in {*range(50), b"x", b"perspective", -1, 2**40} - given:
            guess = pb.RemoteReference(None, perspective.broker, luid, 0)
            failure = self.failureResultOf(self.ask(guess, "whoami"))
            self.assertIn("Invalid Object ID", str(failure.value))
        self.assertEqual(self.answer(other, "whoami"), "shared")

    def test_noThirdParties(self) -> None:
        """A reference can't be handed to somebody else."""
        perspective = self.successResultOf(self.login())
        other = self.successResultOf(self.login("alice", "secret", "game", "shared"))
        self.failureResultOf(other.callRemote("whoami", perspective), AssertionError)

    def test_goneWithTheConnection(self) -> None:
        """References end with their connection."""
        perspective = self.successResultOf(self.login())
        self.memory.disconnect(perspective)
        with self.assertRaises(pb.DeadReferenceError):
            perspective.callRemote("whoami")


class SlowPlayer(Player):
    """Takes its time to attach, if it is told to."""

    def attached(self, clientref: Any, identity: Any) -> Any:
        super().attached(clientref, identity)
        service: Any = self.getService()
        if not service.slow:
            return self
        service.attaching.append((Deferred(), self))
        return service.attaching[-1][0]


class SlowService(RecordingService):
    """Has them."""

    perspectiveClass = SlowPlayer

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.slow = False
        self.attaching: list[tuple[Deferred[Any], SlowPlayer]] = []


class Attached:
    """
    One session, as the test sees it.

    Attributes:
        name: of the perspective.
        connector: that asked for it.
        dead: it was ended, by whatever.
        references: that came by it, each with a method and its answer.
    """

    def __init__(self, name: str, connector: Any) -> None:
        self.name = name
        self.connector = connector
        self.dead = False
        self.references: list[tuple[Any, str, str]] = []


class Machine(RuleBasedStateMachine):
    """
    Attach at once or slowly, detach, revoke, grant, end, change the password, disconnect and log in
    again, join and leave groups, take keys from them, remove them, expire, in any order: what was
    attached is detached once each, what was ended stays dead, what was not is alive, and no call
    reaches a perspective that its identity holds no key for.
    """

    names = ("alice", "shared", "third")
    groups = ("crew", "staff")
    groupKeys = ("*", "{name}", "shared", "third")

    def __init__(self) -> None:
        super().__init__()
        self.memory = MemoryServer(policy=Policy(throttle=False))
        self.game = SlowService("game", self.memory.services, self.memory.authorizer)
        self.alice = self.memory.addUser("alice", "secret", *(("game", n) for n in self.names))
        self.password = Password("secret")
        self.passwords = 0
        self.own = set(self.names)
        # Of each group that is there: its keys, and whether alice is in it.
        self.keys: dict[str, set[str]] = {}
        self.member: set[str] = set()
        self.connectors: list[Any] = []
        self.attached: list[Attached] = []
        # Those that are slow: what finishes it, and what it will come to.
        self.attaching: list[tuple[Attached, Deferred[Any], SlowPlayer, Any]] = []

    @property
    def held(self) -> set[str]:
        """The perspectives that alice may use."""
        patterns = set().union(*(self.keys[group] for group in self.member))
        held = self.own | (patterns & set(self.names))
        held |= {"alice"} if "{name}" in patterns else set()
        return set(self.names) if "*" in patterns else held

    @contextmanager
    def losing(self) -> Iterator[None]:
        """Sessions whose key is held before, and not afterwards, are ended."""
        before = self.held
        yield
        lost = before - self.held
        self.kill(lambda each: each.name in lost)

    def result(self, deferred: Any) -> Any:
        """What a call came to: a value, or an error."""
        self.memory.flush()
        found: list[Any] = []
        deferred.addCallbacks(found.append, lambda failure: found.append(failure.value))
        (outcome,) = found
        return outcome

    def kill(self, condition: Any) -> None:
        """These sessions are ended, also those that are being attached."""
        for each in [*self.attached, *(waiting[0] for waiting in self.attaching)]:
            each.dead |= condition(each)

    def got(self, session: Attached, found: Any) -> None:
        """A session is attached."""
        self.attached.append(session)
        name = session.name
        piece = self.result(found.callRemote("piece", name))
        inner = self.result(piece.callRemote("inner"))
        session.references += [
            (found, "whoami", name),
            (piece, "name", name),
            (inner, "name", f"inner {name}"),
        ]

    @rule()
    def connect(self) -> None:
        connector = IdentityConnector(
            self.memory, None, "alice", self.password, reactor=self.memory.clock
        )
        self.result(connector.requestLogin())
        self.connectors.append(connector)

    @precondition(lambda self: self.connectors)
    @rule(data=st.data(), name=st.sampled_from(names))
    def attach(self, data: Any, name: str) -> None:
        connector = data.draw(st.sampled_from(self.connectors))
        found = self.result(connector.requestService("game", name))
        assert isinstance(found, pb.RemoteReference) == (name in self.held)
        if name in self.held:
            self.got(Attached(name, connector), found)

    @precondition(lambda self: self.connectors)
    @rule(data=st.data(), name=st.sampled_from(names))
    def attachSlowly(self, data: Any, name: str) -> None:
        connector = data.draw(st.sampled_from(self.connectors))
        self.game.slow = True
        request = connector.requestService("game", name)
        self.memory.flush()
        self.game.slow = False
        if name not in self.held:
            assert isinstance(self.result(request), KeyNotFound)
            return
        assert not request.called
        waiting, perspective = self.game.attaching.pop()
        self.attaching.append((Attached(name, connector), waiting, perspective, request))

    @precondition(lambda self: self.attaching)
    @rule(data=st.data())
    def finish(self, data: Any) -> None:
        which = data.draw(st.integers(0, len(self.attaching) - 1))
        session, waiting, perspective, request = self.attaching.pop(which)
        waiting.callback(perspective)
        found = self.result(request)
        assert isinstance(found, pb.RemoteReference) != session.dead
        if not session.dead:
            self.got(session, found)

    @precondition(lambda self: self.attached)
    @rule(data=st.data())
    def call(self, data: Any) -> None:
        session = data.draw(st.sampled_from(self.attached))
        self.check(session, *data.draw(st.sampled_from(session.references)))

    def check(self, session: Attached, reference: Any, method: str, expected: str) -> None:
        """A reference of a session that was not ended answers, and no other."""
        try:
            answer = self.result(reference.callRemote(method))
        except pb.DeadReferenceError:
            assert session.dead
            return
        if session.dead:
            assert isinstance(answer, Detached)
        else:
            assert (answer, session.name in self.held) == (expected, True)

    @precondition(lambda self: self.attached)
    @rule(data=st.data())
    def detach(self, data: Any) -> None:
        session = data.draw(st.sampled_from(self.attached))
        reference = session.references[0][0]
        identity = session.connector._identity
        if identity is not None and identity.broker is reference.broker:
            self.result(identity.callRemote("detach", reference))
            session.dead = True

    @precondition(lambda self: self.attached)
    @rule(data=st.data())
    def end(self, data: Any) -> None:
        session = data.draw(st.sampled_from(self.attached))
        reference = session.references[0][0]
        if not session.dead:
            # What stands behind it, at the other end of its connection.
            (server,) = [
                pump.server
                for pump in self.memory.pumps
                if pump.clientIO is reference.broker.transport
            ]
            theSession = server.localObjectForID(reference.luid).session
            self.result(self.memory.authorizer.sessions.end(theSession))
            session.dead = True

    @rule(name=st.sampled_from(names))
    def revoke(self, name: str) -> None:
        if name in self.own:
            with self.losing():
                self.own.discard(name)
                self.alice.removeKey("game", name)

    @rule(name=st.sampled_from(names))
    def grant(self, name: str) -> None:
        self.own.add(name)
        self.alice.addKeyByString("game", name)

    @rule(group=st.sampled_from(groups), key=st.sampled_from(groupKeys))
    def grantGroup(self, group: str, key: str) -> None:
        if group not in self.keys:
            self.result(self.memory.authorizer.addGroup(group))
        self.keys.setdefault(group, set()).add(key)
        self.result(self.memory.authorizer.grantGroupKey(group, "game", key))

    @precondition(lambda self: self.keys)
    @rule(data=st.data())
    def join(self, data: Any) -> None:
        group = data.draw(st.sampled_from(sorted(self.keys)))
        self.member.add(group)
        self.result(self.memory.authorizer.addMember(group, "alice"))

    @precondition(lambda self: self.member)
    @rule(data=st.data())
    def leave(self, data: Any) -> None:
        group = data.draw(st.sampled_from(sorted(self.member)))
        with self.losing():
            self.member.discard(group)
            self.result(self.memory.authorizer.removeMember(group, "alice"))

    @precondition(lambda self: any(self.keys.values()))
    @rule(data=st.data())
    def revokeGroup(self, data: Any) -> None:
        some = sorted((group, key) for group, keys in self.keys.items() for key in keys)
        group, key = data.draw(st.sampled_from(some))
        with self.losing():
            self.keys[group].discard(key)
            self.result(self.memory.authorizer.revokeGroupKey(group, "game", key))

    @precondition(lambda self: self.keys)
    @rule(data=st.data())
    def removeGroup(self, data: Any) -> None:
        group = data.draw(st.sampled_from(sorted(self.keys)))
        with self.losing():
            self.member.discard(group)
            del self.keys[group]
            self.result(self.memory.authorizer.removeGroup(group))

    @rule(seconds=st.sampled_from([0, 10]))
    def expire(self, seconds: int) -> None:
        self.alice.expires = self.memory.authorizer.now() + timedelta(seconds=seconds)
        if seconds:
            self.memory.advance(seconds - 1)
            for session in self.attached:
                self.check(session, *session.references[-1])
            self.memory.advance(1)
        self.leaveAll()
        self.alice.expires = None

    @rule()
    def changePassword(self) -> None:
        self.passwords += 1
        self.alice.setPassword(f"secret {self.passwords}")
        self.password = Password(f"secret {self.passwords}")
        self.leaveAll()

    def leaveAll(self) -> None:
        """All logins are void. Who has logged in gets nowhere; so they go, all of them."""
        self.kill(lambda each: True)
        for session in self.attached:
            self.check(session, *session.references[-1])
        for connector in self.connectors:
            connector.disconnect()
        self.memory.flush()
        self.connectors.clear()

    @precondition(lambda self: self.connectors)
    @rule(data=st.data())
    def disconnect(self, data: Any) -> None:
        connector = data.draw(st.sampled_from(self.connectors))
        connector.disconnect()
        self.kill(lambda each: each.connector is connector)
        self.memory.flush()

    def teardown(self) -> None:
        for connector in self.connectors:
            connector.disconnect()
        self.memory.flush()
        for _, waiting, perspective, request in self.attaching:
            waiting.callback(perspective)
            self.result(request)
        counts: dict[tuple[str, str], int] = {}
        for event in self.game.events:
            key = (event.kind, event.perspectiveName)
            counts[key] = counts.get(key, 0) + 1
        for name in self.names:
            assert counts.get(("attached", name)) == counts.get(("detached", name))
        assert not len(self.memory.authorizer.sessions)


class MachineTests(SynchronousTestCase):
    """The same, run."""

    def test_anyOrder(self) -> None:
        """Whatever happens in whatever order."""
        run_state_machine_as_test(
            Machine, settings=settings(max_examples=50, stateful_step_count=30)
        )
