"""
An application that gives all sorts of objects, in all ways there are, and that raises, or ends
sessions, wherever it is called; at the server's and at the client's end.
"""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.spread import pb
from zope.interface import implementer

from pbauth import EndReason
from pbauth.interfaces import ISessionObserver
from pbauth.perspectives.perspective import Perspective
from pbauth.perspectives.service import Service

#: Where the application is called, and may raise, or end sessions.
PLACES = (
    *("attached", "detached", "method", "state", "errorState", "cache", "stopped"),
    *("ear", "told", "lost", "observer"),
)

#: Ways of giving, and what is given.
WAYS = (
    *("result", "later", "error", "laterError", "tellEar", "tellClient", "another", "update"),
    *("echo", "many"),
)
THINGS = ("thing", "shared", "view", "board", "sharedBoard", "card", "bad", "plain")


def numbers(failure: Failure) -> set[int]:
    """The numbers of the planted mistakes that a failure tells of."""
    return {int(each) for each in re.findall(r"planted (\d+)\.", str(failure.value))}


class Planted(Exception):
    """A mistake of the application's."""


class World:
    """
    Everything that both ends of the application share, and what goes wrong next.

    Attributes:
        plans: what happens next in each place: ``"raise"``; ``"end"``; or ``"ready"``, something
            else that the application was asked for.
        planted: how many mistakes were made; each has its number in its text.
        handled: the numbers of those that the application has seen to itself.
        seats: all that were ever attached to, or were about to be.
        ears: references to objects of clients, which the server keeps, with those objects' owners.
        listeners: the clients' own objects.
        later: what Deferreds come to that the application has not fired yet.
    """

    def __init__(self) -> None:
        self.plans: dict[str, str] = {}
        self.planted = 0
        self.handled: set[int] = set()
        self.seats: list[Seat] = []
        self.ears: list[tuple[Any, set[Seat]]] = []
        self.listeners: list[Ear] = []
        self.later: list[tuple[Deferred[Any], Any]] = []
        self.attaching: list[tuple[Deferred[Any], Seat]] = []
        self.slow = False
        self.count = 0
        #: The owners of the ear that a call brings with it.
        self.earOwners: set[Seat] = set()
        self.shared = Thing(self)
        self.board = Board(self)
        self.boards = [self.board]

    def number(self) -> int:
        """A new number."""
        self.count += 1
        return self.count

    def reach(self, place: str, seats: Any) -> None:
        """The application is called: it may raise, or end sessions, or finish something."""
        plan = self.plans.pop(place, None)
        if plan == "raise":
            self.planted += 1
            raise Planted(f"planted {self.planted}.")
        if plan == "end":
            for seat in sorted(seats, key=lambda seat: seat.number):
                seat.end(EndReason.ADMINISTRATOR)
        if plan == "ready" and self.later:
            waiting, result = self.later.pop(0)
            waiting.callback(result)

    def handle(self, failure: Failure) -> None:
        """The application sees to a mistake itself."""
        self.handled |= numbers(failure)

    def make(self, what: str, givers: set[Seat]) -> Any:
        """Make something to give."""
        if what == "plain":
            return "plain"
        thing: Any
        if what in ("shared", "sharedBoard"):
            thing = self.shared if what == "shared" else self.board
        elif what in ("thing", "bad"):
            thing = Thing(self)
        elif what == "view":
            thing = View(self)
        elif what == "board":
            thing = Board(self)
            self.boards.append(thing)
        else:
            thing = Card(self)
        thing.givers |= givers
        if isinstance(thing, (Board, Card)):
            thing.inner.givers |= givers
        # Something that can't be serialised takes all with it.
        return [thing, object()] if what == "bad" else thing

    def give(self, givers: set[Seat], way: str, what: str, ear: Any, echoed: Any) -> Any:
        """Give something, or call the client with it."""
        if ear is not None:
            self.ears.append(ear)
        # What leaves by a reference belongs to all whose calls it came with.
        given = self.make(what, givers | self.earOwners if way == "tellEar" else givers)
        self.reach("method", givers)
        if way == "echo":
            return echoed
        if way == "many":
            return [given, {"more": (given, self.make("thing", givers))}]
        if way in ("later", "laterError"):
            waiting: Deferred[Any] = Deferred()
            result = given if way == "later" else Failure(Handle(self, given, givers))
            self.later.append((waiting, result))
            return waiting
        if way == "error":
            raise Handle(self, given, givers)
        if way == "tellEar" and ear is not None:
            return ear[0].callRemote("hear", given)
        if way == "update":
            self.board.tell(given)
            return None
        for seat in sorted(givers, key=lambda seat: seat.number):
            if way in ("tellClient", "another") and seat.clientref is not None:
                if way == "tellClient":
                    return seat.clientref.callRemote("hear", given)
                return self.another(seat.clientref, given)
        return given

    async def another(self, client: Any, given: Any) -> None:
        """Ask the client for one more object, and call that."""
        other = await client.callRemote("another")
        await other.callRemote("hear", given)


class Given(pb.Referenceable):
    """
    What a session may give.

    Attributes:
        givers: the seats that ever gave it.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.name = f"thing {world.number()}"
        self.givers: set[Seat] = set()

    def called(self, broker: Any) -> set[Seat]:
        """The seats that gave it on this connection, and have not ended."""
        here = broker.transport
        return {seat for seat in self.givers if not seat.dead and seat.transport is here}


class Thing(Given):
    """Something that can be called."""

    here: Any = None

    def remoteMessageReceived(self, broker: Any, message: Any, args: Any, kw: Any) -> Any:
        self.here = broker
        return super().remoteMessageReceived(broker, message, args, kw)

    def remote_name(self) -> str:
        return self.name

    def remote_give(self, way: str, what: str, ear: Any, echoed: Any) -> Any:
        return self.world.give(self.called(self.here), way, what, withOwners(ear), echoed)


class View(pb.Viewable):
    """Something that knows who calls it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.name = f"thing {world.number()}"
        self.givers: set[Seat] = set()

    def view_name(self, perspective: Any) -> str:
        return self.name

    def view_give(self, perspective: Any, way: str, what: str, ear: Any, echoed: Any) -> Any:
        if isinstance(perspective, Seat):
            givers = {perspective}
        else:
            # It was given while some of them were being attached to the table; or in an error,
            # for nobody.
            givers = {seat for seat in self.givers if perspective in (None, seat.table)}
        return self.world.give(givers, way, what, withOwners(ear), echoed)


class Card(pb.Copyable):
    """Something that is copied, with an object in it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.inner = Thing(world)
        self.givers: set[Seat] = set()

    def getStateToCopyFor(self, perspective: Any) -> Any:
        inner = Thing(self.world)
        inner.givers |= self.givers
        self.world.reach("state", self.givers)
        return {"first": self.inner, "second": inner}


class CardCopy(pb.RemoteCopy):
    """The client's."""


class Handle(pb.Error, pb.Copyable):
    """An error with an object in its state."""

    def __init__(self, world: World, inner: Any, givers: set[Seat]) -> None:
        super().__init__("no")
        self.world = world
        self.inner = inner
        self.givers = givers

    def getStateToCopy(self) -> Any:
        self.world.reach("errorState", self.givers)
        return {"inner": self.inner}


class HandleCopy(pb.Error, pb.RemoteCopy):
    """The client's."""


class Board(pb.Cacheable):
    """Something that keeps its observers up to date, with an object in its state."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.inner = Thing(world)
        self.givers: set[Seat] = set()
        self.observers: list[Any] = []
        self.stale: list[Any] = []

    def getStateToCacheAndObserveFor(self, perspective: Any, observer: Any) -> Any:
        self.observers.append(observer)
        self.world.reach("cache", self.givers)
        return {"inner": self.inner}

    def stoppedObserving(self, perspective: Any, observer: Any) -> None:
        self.observers.remove(observer)
        self.stale.append(observer)
        self.world.reach("stopped", [seat for seat in self.givers if not seat.dead])

    def tell(self, given: Any, stale: bool = False) -> None:
        """Tell the observers; or those that observe no more."""
        for observer in list(self.stale if stale else self.observers):
            if isinstance(given, (Thing, View, Board, Card)):
                given.givers |= self.givers
                if isinstance(given, (Board, Card)):
                    given.inner.givers |= self.givers
            try:
                observer.callRemote("told", given).addErrback(self.world.handle)
            except (pb.ProtocolError, AttributeError, TypeError):
                # The client has no copy, or the connection is lost: there is nobody to tell. This
                # may be so since one before it was told.
                assert stale or observer not in self.observers, observer


class BoardCopy(pb.RemoteCache):
    """The client's."""

    def setCopyableState(self, state: Any) -> None:
        self.inner = state["inner"]
        self.heard: list[Any] = []
        self.world: Any = None

    def observe_told(self, given: Any) -> None:
        self.heard.append(given)
        if self.world is not None:
            self.world.reach("told", ())


pb.setUnjellyableForClass(Card, CardCopy)
pb.setUnjellyableForClass(Handle, HandleCopy)
pb.setUnjellyableForClass(Board, BoardCopy)


class Ear(pb.Referenceable):
    """
    An object of the client's.

    Attributes:
        owners: the seats that what it hears belongs to.
    """

    def __init__(self, world: World, owners: set[Seat]) -> None:
        self.world = world
        self.owners = owners
        self.heard: list[Any] = []
        world.listeners.append(self)

    def remote_hear(self, *things: Any) -> None:
        self.heard.extend(things)
        self.world.reach("ear", ())

    def remote_another(self) -> Any:
        self.world.reach("ear", ())
        return Ear(self.world, self.owners)


def withOwners(ear: Any) -> Any:
    """The server keeps a reference to a client's object."""
    return None if ear is None else (ear, set())


class Seat(Perspective):
    """
    A perspective of one session, and what is known of that.

    Attributes:
        dead: the session has ended, or is about to be refused.
        table: what the client has asked for.
        conn: the connection that it is on.
        session: the server's.
        reference: the client's.
    """

    def __init__(self, world: World, table: Table, clientref: Any, identity: Any) -> None:
        super().__init__(table.perspectiveName)
        self.setService(table.getService())
        self.world = world
        self.table = table
        self.number = world.number()
        self.identity = identity.name
        self.clientref = clientref
        self.dead = self.isAttached = False
        self.farewells = 0
        self.transport: Any = None
        self.conn: Any = None
        self.session: Any = None
        self.reference: Any = None
        world.seats.append(self)

    def end(self, reason: EndReason) -> None:
        """End the session."""
        self.dead = True
        self.session.end(reason)

    def detached(self, clientref: Any, identity: Any) -> None:
        self.farewells += 1
        others = [seat for seat in self.world.seats if not seat.dead]
        # Its own session is ended already.
        self.world.reach("detached", [self, *others[:1]])

    def perspective_name(self) -> str:
        return f"seat {self.number}"

    def perspective_give(self, way: str, what: str, ear: Any, echoed: Any) -> Any:
        return self.world.give({self}, way, what, withOwners(ear), echoed)

    def __hash__(self) -> int:
        # So that sets of them have the same order each time.
        return self.number


class Table(Perspective):
    """What the client asks for; it gets a seat of its own."""

    def brokerAttached(self, clientref: Any, identity: Any, broker: Any) -> Any:
        world: World = self.getService().world
        seat = Seat(world, self, clientref, identity)
        seat.transport = broker.transport
        seat.session = self.getService().authorizer.sessions.ofIdentity(identity.name)[-1]
        if clientref is not None:
            clientref.notifyOnDisconnect(lambda reference: world.reach("lost", ()))
            greeting = Thing(world)
            greeting.givers.add(seat)
            clientref.callRemote("hear", greeting).addErrback(world.handle)
        try:
            world.reach("attached", ())
        except Planted:
            seat.dead = True
            raise
        if not world.slow:
            return seat
        waiting: Deferred[Any] = Deferred()
        world.attaching.append((waiting, seat))
        return waiting


class Tables(Service):
    """The service."""

    world: World

    def loadPerspective(self, name: str) -> Any:
        return Table(name)


@implementer(ISessionObserver)
class Watcher:
    """Observes who comes and goes."""

    def __init__(self, world: World) -> None:
        self.world = world

    def sessionAttached(self, session: Any) -> None:
        (seat,) = (each for each in self.world.seats if each.session is session)
        seat.isAttached = True
        self.world.reach("observer", [seat])

    def sessionDetached(self, session: Any) -> None:
        self.world.reach("observer", [seat for seat in self.world.seats if not seat.dead][:1])
