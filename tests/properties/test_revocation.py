"""
What was given ends with its session, and nothing else does: applications that raise or end sessions
wherever they are called, clients with several sessions on a connection, and all ways out, in any
order.

What must answer is known from what the client received, and by which sessions.  All of it is called
by its number on the raw wire, since a client of our own would not even ask.
"""

from __future__ import annotations

import gc
import inspect
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from attrs import evolve
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.spread import pb
from twisted.trial.unittest import SynchronousTestCase

from pbauth import (
    Detached,
    EndReason,
    IdentityConnector,
    NotSerializable,
    Password,
    Policy,
    PrivateKey,
    changePassword,
)
from pbauth.testing import MemoryServer
from tests.support.giving import (
    PLACES,
    THINGS,
    WAYS,
    Board,
    BoardCopy,
    CardCopy,
    Ear,
    HandleCopy,
    Seat,
    Tables,
    Watcher,
    World,
    numbers,
)
from tests.support.memory import freezeHeap
from tests.support.values import MORE

NAMES = ("black", "white", "referee")
#: To this one users have no key of their own.
BY_GROUP = "referee"
USERS = ("alice", "bob")
# The same each time.
KEYS = {
    user: PrivateKey(Ed25519PrivateKey.from_private_bytes(user.encode().ljust(32)))
    for user in USERS
}

#: What happens to accounts, each a method of the machine.
CHANGES = (
    *("changeKey", "changePassword", "changeOwnPassword", "lock", "remove", "expire", "expireKey"),
    *("joinOrLeave", "changeGroupKey", "removeGroup"),
)

#: Where the application may raise when a session ends.
MISTAKES = st.sampled_from((None, "stopped", "stopped", "detached", "observer"))


class Held:
    """
    What the client holds a reference to.

    Attributes:
        owners: the seats that gave it.
        references: one for each time that it arrived.
        dead: they have all ended.
    """

    def __init__(self) -> None:
        self.owners: set[Seat] = set()
        self.references: list[Any] = []
        self.ended = False

    def alive(self) -> bool:
        """Whether one of the seats has not ended; once none is left, it stays so."""
        self.ended = self.ended or all(seat.dead for seat in self.owners)
        return not self.ended


class Connection:
    """
    One connection, as its client sees it.

    Attributes:
        held: what the client has references to, by number.
        copies: the copies of boards that it has, by number.
        byKey: its login was proved by the user's key.
        mayClose: somebody closes it, or its login no longer stands.
        calls: those that were not answered yet: the seats that they belong to, and the answer.
    """

    def __init__(self, user: str, byKey: bool, connector: Any, server: Any, client: Any) -> None:
        self.user = user
        self.byKey = byKey
        self.connector = connector
        self.server = server
        self.client = client
        self.wire = server.transport
        self.base = set(server.localObjects)
        self.held: dict[Any, Held] = {}
        self.copies: dict[Any, Held] = {}
        self.calls: list[tuple[set[Seat], list[Any]]] = []
        self.seats: list[Seat] = []
        self.ears: list[Ear] = []
        self.mayClose = False

    @property
    def isOpen(self) -> bool:
        """Whether it is."""
        return not (self.server.disconnected or self.client.disconnected)

    def absorb(self, value: Any, owners: set[Seat]) -> None:
        """The client got something that belongs to these seats."""
        if isinstance(value, pb.RemoteReference):
            if value.luid in self.base or any(seat.reference == value for seat in self.seats):
                return
            self.note(self.held, value, owners)
        elif isinstance(value, BoardCopy):
            self.note(self.copies, value, owners)
            vars(value)["world"] = next(iter(owners)).world
            self.absorb(vars(value)["inner"], owners)
        elif isinstance(value, CardCopy):
            self.absorb(vars(value)["first"], owners)
            self.absorb(vars(value)["second"], owners)
        elif isinstance(value, HandleCopy):
            self.absorb(vars(value)["inner"], owners)
        elif isinstance(value, dict):
            self.absorb([*value.values()], owners)
        elif isinstance(value, (list, tuple)):
            for each in value:
                self.absorb(each, owners)

    def note(self, book: dict[Any, Held], value: Any, owners: set[Seat]) -> None:
        """It has one more reference to it."""
        held = book.setdefault(value.luid, Held())
        if any(value is each for each in held.references):
            return
        if not held.references or held.alive():
            held.owners |= {seat for seat in owners if not seat.dead} or owners
        held.references.append(value)


class Machine(RuleBasedStateMachine):
    """
    One server, two users, a few connections.

    After each step: nothing is logged but planted mistakes, and these are; what ended has told
    `detached` once; the books of each connection hold nothing of an ended session, and nothing that
    the client does not hold.
    """

    flushErrors: Callable[[], list[Failure]]

    def __init__(self) -> None:
        super().__init__()
        # What Hypothesis keeps is much in the end, and need not be looked at again and again.
        gc.collect()
        gc.freeze()
        # Of another one, which failed.
        self.flushErrors()
        self.world = World()
        self.memory = MemoryServer(policy=Policy(throttle=False))
        self.game = Tables("game", self.memory.services, self.memory.authorizer)
        self.game.world = self.world
        self.users: Any = {}
        self.passwords: dict[str, str] = {}
        self.keys: set[tuple[str, str]] = set()
        for user in USERS:
            self.addUser(user)
        # The one group: who is in it, and to what it has the key.
        self.members: set[str] = set()
        self.groupKeys: set[str] = set()
        self.now(self.memory.authorizer.addGroup("players"))
        self.changeGroupKey(BY_GROUP)
        for user in USERS:
            self.joinOrLeave(user)
        self.game.observeSessions(Watcher(self.world))
        self.connections: list[Connection] = []
        # What the requests of seats that are slow come to.
        self.requests: dict[Seat, list[Any]] = {}
        self.logged: set[int] = set()

    # Helpers.

    def addUser(self, user: str) -> None:
        """A user is new."""
        self.passwords[user] = "secret"
        own = [name for name in NAMES if name != BY_GROUP]
        self.keys |= {(user, name) for name in own}
        identity = self.memory.addUser(user, "secret", *(("game", name) for name in own))
        identity.addPublicKey(KEYS[user].publicKey)
        self.users[user] = identity

    def result(self, deferred: Any) -> Any:
        """What a call comes to now: a value, or an error."""
        (outcome,) = self.outcome(deferred)
        return outcome

    def outcome(self, deferred: Any) -> list[Any]:
        """The same, if it comes to anything."""
        found: list[Any] = []
        deferred.addCallbacks(found.append, lambda failure: found.append(failure.value))
        self.memory.flush()
        return found

    def now(self, stored: Any) -> None:
        """Something is stored, without waiting."""
        (outcome,) = self.outcome(stored)
        assert not isinstance(outcome, Exception), outcome

    def mayUse(self, user: str, name: str) -> bool:
        """Whether a user has the key to a perspective, or the group has that the user is in."""
        return (user, name) in self.keys or (user in self.members and name in self.groupKeys)

    def endWithoutKey(self) -> None:
        """The sessions end whose key is gone."""
        self.kill(lambda seat: not self.mayUse(seat.identity, seat.perspectiveName))

    def live(self) -> list[Seat]:
        """The seats that clients hold, and that have not ended."""
        return [seat for seat in self.world.seats if seat.reference is not None and not seat.dead]

    def raw(self, conn: Connection, luid: Any) -> Any:
        """Call ``name`` of whatever has the number, as a client that no library holds back."""
        client = conn.client
        requestID = client.newRequestID()
        answer: Deferred[Any] = Deferred()
        client.waitingForAnswers[requestID] = answer
        client.sendCall(
            b"message", requestID, luid, b"name", 1, client.serialize(()), client.serialize({})
        )
        return self.result(answer)

    def sweep(self, conn: Connection) -> None:
        """Call all numbers that there ever were on a connection, and a few more."""
        seats = {seat.reference.luid: seat for seat in conn.seats if seat.reference is not None}
        for luid in range(1, conn.server.currentLocalID + 4):
            if luid in conn.base:
                continue
            answer = self.raw(conn, luid)
            if luid in seats:
                if seats[luid].dead:
                    assert isinstance(answer, Detached), answer
                else:
                    assert answer == f"seat {seats[luid].number}", answer
            elif luid in conn.held:
                if conn.held[luid].alive():
                    assert isinstance(answer, str), (luid, answer)
                else:
                    assert isinstance(answer, Detached), (luid, answer)
            else:
                assert isinstance(answer, Exception), (luid, answer)

    def sweepAll(self) -> None:
        """The same on all connections: the one as it should be, and the others as before."""
        self.settle()
        for conn in self.connections:
            if conn.isOpen:
                self.sweep(conn)

    def logOut(self, user: str) -> None:
        """All sessions of a user end, and the connections, with their last login, may close."""
        self.kill(lambda seat: seat.identity == user)
        for conn in self.connections:
            conn.mayClose = conn.mayClose or conn.user == user

    def kill(self, condition: Any) -> None:
        """These are to end, also those that are being attached."""
        for seat in self.world.seats:
            seat.dead = seat.dead or bool(condition(seat))

    def settle(self) -> None:
        """Take in all that clients got meanwhile."""
        self.memory.flush()
        for conn in self.connections:
            if not conn.isOpen:
                assert conn.mayClose, "A connection was closed for no reason."
                self.kill(lambda seat, conn=conn: seat.transport is conn.server.transport)
        for conn in self.connections:
            for held in [*conn.copies.values()]:
                copy = held.references[0]
                heard, copy.heard[:] = [*copy.heard], []
                conn.absorb(heard, {seat for seat in held.owners if not seat.dead} or held.owners)
            waiting = []
            for seats, outcome in conn.calls:
                if outcome:
                    conn.absorb(outcome.pop(), seats)
                else:
                    # It belongs to somebody who is there.
                    assert any(not seat.dead for seat in seats), "An ended session waits for it."
                    waiting.append((seats, outcome))
            conn.calls = waiting
        for ear in self.world.listeners:
            heard, ear.heard = ear.heard, []
            for thing in heard:
                self.connectionOf(thing).absorb(thing, ear.owners)

    def connectionOf(self, thing: Any) -> Any:
        """The connection that the client got something over."""
        if isinstance(thing, CardCopy):
            thing = vars(thing)["first"]
        broker = getattr(thing, "broker", None)
        found = [conn for conn in self.connections if conn.client is broker]
        return found[0] if found else self.connections[0]

    # Coming.

    @initialize()
    def begin(self) -> None:
        """Both users are there, one of them twice, and at two tables."""
        for user, byKey in ((USERS[0], False), (USERS[1], False), (USERS[0], True)):
            self.connect(user, byKey)
            self.sit(self.connections[-1], NAMES[0], True, False)
        self.sit(self.connections[0], NAMES[1], True, False)
        self.sit(self.connections[1], BY_GROUP, True, False)
        # What several of them share, on one connection and on others.
        for seat in self.live():
            for what in ("sharedBoard", "shared", "board", "board"):
                given = seat.reference.callRemote("give", "result", what, None, None)
                seat.conn.calls.append(({seat}, self.outcome(given)))

    @precondition(lambda self: sum(conn.isOpen for conn in self.connections) < 3)
    @rule(user=st.sampled_from(USERS), byKey=st.booleans())
    def connect(self, user: str, byKey: bool) -> None:
        credentials: Any = KEYS[user] if byKey else Password(self.passwords[user])
        connector = IdentityConnector(
            self.memory, None, user, credentials, reactor=self.memory.clock
        )
        found = self.result(connector.requestLogin())
        assert isinstance(found, pb.RemoteReference), found
        pump = self.memory.pumps[-1]
        self.connections.append(Connection(user, byKey, connector, pump.server, pump.client))

    def drawConnection(self, data: Any) -> Connection:
        conn: Connection = data.draw(st.sampled_from([c for c in self.connections if c.isOpen]))
        return conn

    @precondition(lambda self: any(conn.isOpen for conn in self.connections))
    @rule(
        data=st.data(),
        name=st.sampled_from(NAMES),
        listens=st.booleans(),
        slow=st.sampled_from([False, False, True]),
    )
    def attach(self, data: Any, name: str, listens: bool, slow: bool) -> None:
        self.sit(self.drawConnection(data), name, listens, slow)

    def sit(self, conn: Connection, name: str, listens: bool, slow: bool) -> None:
        """Attach to a perspective."""
        owners: set[Seat] = set()
        ear = Ear(self.world, owners) if listens else None
        known = len(self.world.seats)
        self.world.slow = slow
        request = conn.connector.requestService("game", name, ear)
        found: list[Any] = []
        request.addCallbacks(found.append, lambda failure: found.append(failure.value))
        self.memory.flush()
        self.world.slow = False
        seats = self.world.seats[known:]
        if not self.mayUse(conn.user, name) or not conn.isOpen:
            assert isinstance(found[0], Exception)
            assert not seats
            return
        (seat,) = seats
        seat.conn = conn
        owners.add(seat)
        if not found:
            self.requests[seat] = found
        else:
            self.attached(seat, found[0])

    def attached(self, seat: Seat, found: Any) -> None:
        """A request was answered."""
        if seat.dead:
            assert isinstance(found, Exception), found
            return
        assert isinstance(found, pb.RemoteReference), found
        seat.reference = found
        assert seat.conn.server.localObjectForID(found.luid).session is seat.session
        seat.isAttached = True
        seat.conn.seats.append(seat)

    @precondition(lambda self: self.world.attaching)
    @rule(data=st.data())
    def finish(self, data: Any) -> None:
        which = data.draw(st.integers(0, len(self.world.attaching) - 1))
        waiting, seat = self.world.attaching.pop(which)
        found = self.requests.pop(seat)
        seat.isAttached = True
        waiting.callback(seat)
        self.memory.flush()
        if found:
            self.attached(seat, found[0])

    # Giving.

    @rule(place=st.sampled_from(PLACES), plan=st.sampled_from(("raise", "end", "ready")))
    def plant(self, place: str, plan: str) -> None:
        self.world.plans[place] = plan

    def callable(self) -> list[tuple[Connection, Any, set[Seat]]]:
        """What clients can call, and the seats that this belongs to."""
        found: list[tuple[Connection, Any, set[Seat]]] = []
        for conn in self.connections:
            if conn.isOpen:
                found += [(conn, seat.reference, {seat}) for seat in conn.seats]
                found += [(conn, h.references[-1], h.owners) for h in conn.held.values()]
        return found

    @precondition(lambda self: self.callable())
    @rule(
        data=st.data(),
        way=st.sampled_from(WAYS),
        what=st.sampled_from(THINGS),
        oldEar=st.booleans(),
    )
    def call(self, data: Any, way: str, what: str, oldEar: bool) -> None:
        conn, reference, owners = data.draw(st.sampled_from(self.callable()))
        mine = [each for each in self.callable() if each[0] is conn]
        echoed = data.draw(st.sampled_from(mine))[1] if way == "echo" else None
        held = conn.held.get(reference.luid)
        seats = {seat for seat in owners if not seat.dead}
        if held is not None and not held.alive():
            seats = set()
        ear = None
        if way in ("tellEar", "later"):
            if oldEar and conn.ears:
                ear = data.draw(st.sampled_from(conn.ears))
            else:
                ear = Ear(self.world, set())
                conn.ears.append(ear)
            ear.owners |= seats
        self.world.earOwners = ear.owners if ear is not None else set()
        outcome = self.outcome(reference.callRemote("give", way, what, ear, echoed))
        for kept, keepers in self.world.ears[-1:]:
            if ear is not None and not keepers:
                self.world.ears[-1] = (kept, ear.owners)
        if not seats:
            assert isinstance(outcome[0], Detached), outcome
            return
        if outcome and all(seat.dead for seat in seats) and conn.isOpen:
            assert isinstance(outcome[0], Detached), outcome
        conn.calls.append((seats, outcome))

    @precondition(lambda self: self.callable())
    @rule(data=st.data(), what=st.sampled_from(THINGS))
    def obtain(self, data: Any, what: str) -> None:
        """What most calls do: they give a result."""
        conn, reference, owners = data.draw(st.sampled_from(self.callable()))
        held = conn.held.get(reference.luid)
        seats = {seat for seat in owners if not seat.dead}
        if seats and (held is None or held.alive()):
            outcome = self.outcome(reference.callRemote("give", "result", what, None, None))
            conn.calls.append((seats, outcome))

    @precondition(lambda self: self.world.later)
    @rule(data=st.data())
    def ready(self, data: Any) -> None:
        which = data.draw(st.integers(0, len(self.world.later) - 1))
        waiting, result = self.world.later.pop(which)
        waiting.callback(result)

    @precondition(lambda self: self.world.ears or self.live())
    @rule(data=st.data(), what=st.sampled_from(THINGS))
    def tell(self, data: Any, what: str) -> None:
        """The server calls an object of a client's on its own account."""
        kept = [
            *((each, owners) for each, owners in self.world.ears),
            *((seat.clientref, {seat}) for seat in self.world.seats if seat.clientref is not None),
        ]
        if not kept:
            return
        reference, owners = data.draw(st.sampled_from(kept))
        given = self.world.make(what, owners)
        before = {} if reference.broker.disconnected else dict(reference.broker.localObjects)
        try:
            answer = reference.callRemote("hear", given)
        except pb.DeadReferenceError:
            return
        answer.addErrback(self.world.handle)
        if what != "plain" and all(seat.dead for seat in owners):
            assert reference.broker.localObjects == before

    @rule(data=st.data(), what=st.sampled_from(THINGS), stale=st.booleans())
    def update(self, data: Any, what: str, stale: bool) -> None:
        board = data.draw(st.sampled_from(self.world.boards))
        board.tell(self.world.make(what, set()), stale)

    @precondition(lambda self: any(conn.isOpen and conn.held for conn in self.connections))
    @rule(data=st.data())
    def drop(self, data: Any) -> None:
        """A client drops all its references to something."""
        conn = data.draw(st.sampled_from([c for c in self.connections if c.isOpen and c.held]))
        luid = data.draw(st.sampled_from(sorted(conn.held)))
        self.forget(conn, conn.held, luid)
        assert luid not in conn.server.localObjects

    @precondition(lambda self: any(conn.isOpen and conn.copies for conn in self.connections))
    @rule(data=st.data())
    def dropCopy(self, data: Any) -> None:
        """A client drops its copies of a board."""
        conn = data.draw(st.sampled_from([c for c in self.connections if c.isOpen and c.copies]))
        luid = data.draw(st.sampled_from(sorted(conn.copies)))
        inner = getattr(vars(conn.copies[luid].references[0])["inner"], "luid", None)
        if inner in conn.held:
            # The same one is in the copy's state.
            self.forget(conn, conn.held, inner)
        self.forget(conn, conn.copies, luid)
        assert luid not in conn.server.remotelyCachedObjects

    def forget(self, conn: Connection, book: dict[Any, Held], luid: Any) -> None:
        """Drop the references to something; also those in the states of copies."""
        if book is conn.held:
            self.emptyCopies(conn, luid)
        book.pop(luid)
        self.memory.flush()
        if luid in conn.server.localObjects or luid in conn.server.remotelyCachedObjects:
            gc.collect()
            self.memory.flush()

    def emptyCopies(self, conn: Connection, luid: Any) -> None:
        """Drop the references in the states of copies; in a frame of its own, which holds them."""
        for held in conn.copies.values():
            for copy in held.references:
                if getattr(vars(copy)["inner"], "luid", None) == luid:
                    vars(copy)["inner"] = None

    # Ending.

    @rule(
        user=st.sampled_from(USERS),
        name=st.sampled_from(NAMES),
        what=st.sampled_from(CHANGES),
        mistake=MISTAKES,
    )
    def changeAccount(self, user: str, name: str, what: str, mistake: str | None) -> None:
        """The administrator, or the user, changes something, at which sessions may end."""
        self.err(mistake)
        arguments = {"user": user, "name": name}
        change = getattr(self, what)
        change(**{each: arguments[each] for each in inspect.signature(change).parameters})

    def err(self, mistake: str | None) -> None:
        """The application is going to make a mistake when sessions end."""
        if mistake is not None:
            self.world.plans[mistake] = "raise"

    @precondition(lambda self: self.live())
    @rule(
        data=st.data(),
        reason=st.sampled_from([r for r in EndReason if r.revokes]),
        mistake=MISTAKES,
    )
    def end(self, data: Any, reason: EndReason, mistake: str | None) -> None:
        self.err(mistake)
        data.draw(st.sampled_from(self.live())).end(reason)
        self.sweepAll()

    @precondition(lambda self: self.live())
    @rule(data=st.data())
    def detach(self, data: Any) -> None:
        seat = data.draw(st.sampled_from(self.live()))
        self.outcome(seat.conn.connector._identity.callRemote("detach", seat.reference))
        seat.dead = True
        self.sweepAll()

    def changeKey(self, user: str, name: str) -> None:
        key = (user, name)
        if key in self.keys:
            self.keys.discard(key)
            self.endWithoutKey()
            self.users[user].removeKey("game", name)
            self.sweepAll()
        if name not in (NAMES[0], BY_GROUP):
            self.keys.add(key)
            self.users[user].addKeyByString("game", name)

    def joinOrLeave(self, user: str) -> None:
        """A user joins the group, or leaves it."""
        groups = self.memory.authorizer
        if user in self.members:
            self.members.discard(user)
            self.endWithoutKey()
            self.now(groups.removeMember("players", user))
            self.sweepAll()
        else:
            self.members.add(user)
            self.now(groups.addMember("players", user))

    def changeGroupKey(self, name: str) -> None:
        """The group gets a key, or loses it."""
        groups = self.memory.authorizer
        if name in self.groupKeys:
            self.groupKeys.discard(name)
            self.endWithoutKey()
            self.now(groups.revokeGroupKey("players", "game", name))
            self.sweepAll()
        else:
            self.groupKeys.add(name)
            self.now(groups.grantGroupKey("players", "game", name))

    def removeGroup(self) -> None:
        """The group is removed, and another one has its name."""
        self.members.clear()
        self.groupKeys.clear()
        self.endWithoutKey()
        self.now(self.memory.authorizer.removeGroup("players"))
        self.now(self.memory.authorizer.addGroup("players"))
        self.sweepAll()

    def expire(self, user: str) -> None:
        """The account of a user expires, and is given more time later."""
        identity = self.users[user]
        identity.expires = self.memory.authorizer.now() + timedelta(seconds=0.5)
        self.memory.flush()
        self.logOut(user)
        self.memory.clock.advance(0.5)
        self.sweepAll()
        identity.expires = None

    def expireKey(self, user: str) -> None:
        """The key that a user has logged in by expires; the password is as good as before."""
        for conn in self.connections:
            conn.mayClose = conn.mayClose or (conn.user == user and conn.byKey)
        byKey = {conn.wire for conn in self.connections if conn.user == user and conn.byKey}
        self.kill(lambda seat: seat.transport in byKey)
        key = KEYS[user].publicKey
        soon = self.memory.authorizer.now() + timedelta(seconds=0.5)
        self.users[user].addPublicKey(evolve(key, expires=soon))
        self.memory.flush()
        self.memory.clock.advance(0.5)
        self.sweepAll()
        self.users[user].addPublicKey(key)

    def remove(self, user: str) -> None:
        """A user is removed, and another one has the name."""
        self.logOut(user)
        self.members.discard(user)
        self.now(self.memory.authorizer.removeIdentity(user))
        self.sweepAll()
        self.close([conn for conn in self.connections if conn.user == user])
        self.addUser(user)

    def changeOwnPassword(self, user: str) -> None:
        """A user sets another password: the sessions of that connection stay."""
        mine = [conn for conn in self.connections if conn.isOpen and conn.user == user]
        if not mine:
            return
        conn = mine[-1]
        password = f"secret {self.world.number()}"
        changing = changePassword(conn.connector._identity, password, reactor=self.memory.clock)
        outcome = self.result(changing)
        if outcome is not None:
            assert conn.mayClose, outcome
            return
        self.passwords[conn.user] = password
        others = [
            other
            for other in self.connections
            if other.user == conn.user and other is not conn and not other.byKey
        ]
        self.endLogins(others)
        self.sweepAll()
        self.close(others)

    def lock(self, user: str) -> None:
        self.logOut(user)
        self.users[user].locked = True
        self.sweepAll()
        self.users[user].locked = False

    def changePassword(self, user: str) -> None:
        self.passwords[user] = f"secret {self.world.number()}"
        others = [conn for conn in self.connections if conn.user == user and not conn.byKey]
        self.endLogins(others)
        self.users[user].setPassword(self.passwords[user])
        self.sweepAll()
        self.close(others)

    def endLogins(self, connections: list[Connection]) -> None:
        """The logins of connections no longer stand."""
        for conn in connections:
            conn.mayClose = True
            self.kill(lambda seat, conn=conn: seat.transport is conn.wire)

    def close(self, connections: list[Connection]) -> None:
        """Clients hang up that get nowhere, as long as they do not log in again."""
        for conn in connections:
            if conn.isOpen:
                conn.client.transport.loseConnection()
        self.settle()

    @precondition(lambda self: any(conn.isOpen for conn in self.connections))
    @rule(data=st.data(), byServer=st.booleans())
    def disconnect(self, data: Any, byServer: bool) -> None:
        conn = self.drawConnection(data)
        self.kill(lambda seat: seat.transport is conn.server.transport)
        conn.mayClose = True
        (conn.server if byServer else conn.client).transport.loseConnection()
        self.sweepAll()

    # What holds.

    @invariant()
    def holds(self) -> None:
        # What was dropped in a cycle goes at the same step each time.
        gc.collect(0)
        self.settle()
        self.checkLog()
        sessions = list(self.memory.authorizer.sessions)
        for seat in self.world.seats:
            assert seat.farewells == (seat.dead and seat.isAttached), seat.number
            assert seat.session.ended == seat.dead, seat.number
            if seat not in self.requests:
                assert seat.dead == (seat.session not in sessions), seat.number
        for conn in self.connections:
            if conn.isOpen:
                self.checkBooks(conn)
        for board in self.world.boards:
            for observer in board.observers:
                assert any(
                    not seat.dead and seat.transport is observer.broker.transport
                    for seat in board.givers
                )

    def checkLog(self) -> None:
        """Planted mistakes are logged, and nothing else is."""
        for failure in self.flushErrors():
            made = numbers(failure)
            assert made or failure.check(NotSerializable), failure.getTraceback()
            self.logged |= made
        assert self.logged | self.world.handled >= set(range(1, self.world.planted + 1))

    def checkBooks(self, conn: Connection) -> None:
        """The server holds what the client holds, and nothing of an ended session."""
        server = conn.server
        exports = server._exports
        if exports is not None:
            for book in (exports._objects, exports._caches):
                for owners in book.values():
                    assert owners
                    assert not any(session.ended for session in owners), owners
            assert set(exports._objects) <= set(server.localObjects)
            assert set(exports._caches) <= set(server.remotelyCachedObjects)
            assert not exports.asked
        for objects, luids in (
            (server.localObjects, server.luids),
            (server.remotelyCachedObjects, server.remotelyCachedLUIDs),
        ):
            there = {
                local.object.processUniqueID(): n for n, local in objects.items() if n != b"root"
            }
            assert there == luids, (there, luids)
        seats = {seat.reference.luid for seat in conn.seats if seat.reference is not None}
        assert set(server.localObjects) - conn.base - seats <= set(conn.held)
        assert set(server.remotelyCachedObjects) <= set(conn.copies)
        for luid, held in conn.held.items():
            assert server.localObjects[luid].refcount == len(held.references), luid
        for luid, held in conn.copies.items():
            watched = server.remotelyCachedObjects[luid].object
            assert isinstance(watched, Board) == held.alive(), luid

    def teardown(self) -> None:
        gc.collect()
        self.sweepAll()
        for conn in self.connections:
            if conn.isOpen:
                conn.mayClose = True
                conn.client.transport.loseConnection()
        self.settle()
        for waiting, seat in self.world.attaching:
            seat.isAttached = True
            waiting.callback(seat)
        for deferred, result in self.world.later:
            deferred.callback(result)
        self.world.attaching.clear()
        self.holds()
        assert not any(board.observers for board in self.world.boards)
        assert not len(self.memory.authorizer.sessions)


class RevocationTests(SynchronousTestCase):
    """The machine, run: 1,000 steps, or as many times that as ``PBAUTH_EXAMPLES`` says."""

    def test_anyOrder(self) -> None:
        """What was given ends with its session, whatever happens, and nothing else does."""

        freezeHeap()
        gc.disable()
        self.addCleanup(gc.unfreeze)
        self.addCleanup(gc.enable)
        broken: list[str] = []

        class Run(Machine):
            flushErrors = self.flushLoggedErrors

            def teardown(self) -> None:
                # Of an error that does not come again with the same steps, Hypothesis says no more
                # than that.
                try:
                    if isinstance(sys.exc_info()[1], Exception):
                        broken.append(traceback.format_exc())
                    super().teardown()
                except Exception:
                    broken.append(traceback.format_exc())
                    raise

        try:
            run_state_machine_as_test(
                Run,
                settings=settings(
                    max_examples=20 * MORE,
                    stateful_step_count=50,
                    deadline=None,
                    database=None,
                    # The short run takes the same steps each time, and a long one others.
                    derandomize=MORE == 1,
                ),
            )
        except Exception as error:
            # The steps that led there, of each failure.
            told = [*getattr(error, "__notes__", ()), *traceback.format_exception(error)]
            told += broken[:1]
            raise self.failureException("\n".join(told)) from error
