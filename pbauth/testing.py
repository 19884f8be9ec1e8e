"""
For the tests of applications: log in without a port, a thread or a sleep.

::

    class GameTests(SynchronousTestCase):
        def test_move(self):
            memory = MemoryServer()
            game = GameService("game", memory.services, memory.authorizer)
            memory.addUser("alice", "secret", ("game", "alice"))
            alice = self.successResultOf(memory.logIn("alice", "secret", "game"))
            answer = alice.callRemote("move", "D4")
            memory.flush()
            self.assertEqual(self.successResultOf(answer), "black")
"""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import Any
from weakref import ref

from attrs import frozen
from twisted.application.service import IServiceCollection, MultiService
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.task import Clock
from twisted.python.components import Componentized
from twisted.spread import pb
from twisted.test import iosim
from zope.interface import implementer

from pbauth._arguments import checkProvides, checkType
from pbauth._async import chooseReactor
from pbauth.accounts.hashing import Hashing
from pbauth.accounts.memory import DefaultAuthorizer
from pbauth.client.login import connect
from pbauth.interfaces import ClientReference, IAuthorizer, ICredentials, IIdentity, IPerspective
from pbauth.login.policy import Policy
from pbauth.login.root import AuthServerFactory
from pbauth.perspectives.perspective import Perspective
from pbauth.perspectives.service import Service

_CLIENT = IPv4Address("TCP", "127.0.0.1", 50_000)
_SERVER = IPv4Address("TCP", "127.0.0.1", 8_787)


@implementer(IReactorTime)
class _Calendar:
    """The date: that of the system, and what the clock was advanced by."""

    running = False

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.callLater = clock.callLater
        self.getDelayedCalls = clock.getDelayedCalls

    def seconds(self) -> float:
        return time.time() + self._clock.seconds()


@implementer(IStreamClientEndpoint)
class MemoryServer:
    """
    A server in memory, and an endpoint that connects to it.

    Attributes:
        services: the collection that the authorizer looks services up in.
        authorizer: by default a `DefaultAuthorizer` with `Hashing.CHEAPEST`, whose time is that of
            the system and what the clock was advanced by.
        clock: the time of both ends, a `twisted.internet.task.Clock`.
        pumps: one `twisted.test.iosim.IOPump` for each connection that was made.
        refusal: an exception that new connections fail with, such as a
            `twisted.internet.error.ConnectionRefusedError`; `None`: none does.

    Args:
        authorizer: an authorizer of your own.
        policy: the server's.
        factory: another server factory than `AuthServerFactory(authorizer, policy)`.
        peer: the address that the server sees; loopback by default.
    """

    def __init__(
        self,
        authorizer: IAuthorizer | None = None,
        policy: Policy | None = None,
        factory: pb.PBServerFactory | None = None,
        peer: IPv4Address = _CLIENT,
    ) -> None:
        self.services = MultiService()
        self.clock = Clock()
        self._moving = False
        self._soon: Any = None
        if authorizer is None:
            calendar = _Calendar(self.clock)
            authorizer = DefaultAuthorizer(self.services, Hashing.CHEAPEST, reactor=calendar)
        self.authorizer: Any = authorizer
        self.pumps: list[Any] = []
        self.refusal: BaseException | None = None
        if factory is not None:
            checkProvides(IProtocolFactory, factory, "factory")
        checkProvides(IAddress, peer, "peer")
        self._factory = factory or AuthServerFactory(authorizer, policy, self.clock)
        self._peer = peer

    def addUser(self, name: str, password: str, *keys: tuple[str, str]) -> IIdentity:
        """
        Make and save an identity.

        Args:
            name: its name.
            password: its password.
            keys: pairs `(serviceName, perspectiveName)`.

        Returns:
            The identity.
        """
        identity = self.authorizer.createIdentity(name)
        identity.setPassword(password)
        for key in keys:
            identity.addKeyByString(*key)
        identity.save()
        return identity

    def logIn(
        self,
        username: str,
        password: str | ICredentials,
        serviceName: str,
        *more: Any,
        **options: Any,
    ) -> Deferred[pb.RemoteReference]:
        """
        Log a client in: `pbauth.connect`, without host and port, over a connection of its own.

        Args:
            username: as for `pbauth.connect`, and so are the others.
            password: a `str`, or credentials.
            serviceName: the service to attach to.
            more: what follows there.
            options: what follows there, by name.

        Returns:
            A Deferred of the remote perspective.
        """
        login = connect(
            self, None, username, password, serviceName, *more, reactor=self.clock, **options
        )
        self.flush()
        return login

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect a protocol (see `IStreamClientEndpoint`); nothing is carried before `flush`.

        Args:
            protocolFactory: of the client.

        Returns:
            Fires with the client's protocol; fails with `refusal` if there is one.
        """
        checkProvides(IProtocolFactory, protocolFactory, "protocolFactory")
        if self.refusal is not None:
            return fail(self.refusal)
        client: Any = protocolFactory.buildProtocol(_SERVER)
        server = self._factory.buildProtocol(self._peer)
        pump = iosim.connect(
            server,
            _Transport(self._moveSoon, server, True, _SERVER, self._peer),
            client,
            _Transport(self._moveSoon, client, False, self._peer, _SERVER),
            greet=False,
        )
        self.pumps.append(pump)
        self._moveSoon()
        return succeed(client)

    def flush(self) -> None:
        """Carry all bytes, both ways, until there are no more."""
        soon, self._soon = self._soon, None
        if soon is not None and soon.active():
            soon.cancel()
        before, self._moving = self._moving, True
        try:
            moved = True
            while moved:
                self.clock.advance(0)
                moved = sum(bool(pump.pump()) for pump in self.pumps) > 0
        finally:
            self._moving = before

    def _moveSoon(self) -> None:
        """Carry what was sent once a reactor runs, as it does while a test waits."""
        if not self._moving and self._soon is None:
            self._soon = chooseReactor().callLater(0, _flush, ref(self))

    def advance(self, seconds: float) -> None:
        """
        Let time pass; what is due meanwhile happens in its time, and all that is sent is carried.

        Args:
            seconds: how long.
        """
        self.flush()
        end = self.clock.seconds() + seconds
        while True:
            due = [call.getTime() for call in self.clock.getDelayedCalls()]
            next_ = min([*due, end])
            self.clock.advance(max(0, next_ - self.clock.seconds()))
            self.flush()
            if next_ == end:
                return

    def cut(self, reference: pb.RemoteReference) -> None:
        """
        Cut the cable of a connection: nothing is carried any more, and neither end notices.

        Args:
            reference: anything remote that either end got over it.
        """
        checkType(pb.RemoteReference, reference, "reference")
        transport = reference.broker.transport
        self.pumps = [
            _CutPump(pump)
            if transport in (pump.clientIO, pump.serverIO) and not isinstance(pump, _CutPump)
            else pump
            for pump in self.pumps
        ]

    def disconnect(self, reference: pb.RemoteReference) -> None:
        """
        Cut a connection.

        Args:
            reference: anything remote that the client got over it.
        """
        checkType(pb.RemoteReference, reference, "reference")
        reference.broker.transport.loseConnection()
        self.flush()


def _flush(weak: ref[MemoryServer]) -> None:
    memory = weak()
    if memory is not None:
        memory.flush()


class _Transport(iosim.FakeTransport):
    """Tells when there is something to carry."""

    def __init__(self, moveSoon: Any, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._moveSoon = moveSoon

    def write(self, data: bytes) -> None:
        super().write(data)
        self._moveSoon()

    def loseConnection(self) -> None:
        super().loseConnection()
        self._moveSoon()

    def abortConnection(self) -> None:
        super().abortConnection()
        self._moveSoon()


class _CutPump:
    """Carries nothing; each end that closes the connection learns of that, and of nothing else."""

    def __init__(self, pump: Any) -> None:
        self.clientIO = client = pump.clientIO
        self.serverIO = server = pump.serverIO
        # The other end learns first that an end is closed.
        self._toTell = [
            end for end, other in ((client, server), (server, client)) if not other.disconnected
        ]

    def pump(self) -> bool:
        closed = [end for end in self._toTell if end.disconnecting]
        for end in self._toTell:
            end.getOutBuffer()
        for end in closed:
            self._toTell.remove(end)
            end.disconnected = True
            end.reportDisconnect()
        return bool(closed)


@frozen
class Event:
    """
    A client came or went.

    Attributes:
        kind: ``"attached"`` or ``"detached"``.
        perspectiveName: on which perspective.
        identityName: who.
        clientref: a reference to its client object, or `None`.
    """

    kind: str
    perspectiveName: str
    identityName: str
    clientref: ClientReference


class RecordingPerspective(Perspective):
    """A perspective that tells its `RecordingService` who comes and goes."""

    def attached(
        self, clientref: ClientReference, identity: IIdentity
    ) -> IPerspective | Awaitable[IPerspective]:
        """Record it."""
        self._record("attached", clientref, identity)
        return self

    def detached(self, clientref: ClientReference, identity: IIdentity) -> None:
        """Record it."""
        self._record("detached", clientref, identity)

    def _record(self, kind: str, clientref: ClientReference, identity: IIdentity) -> None:
        event = Event(kind, self.perspectiveName, identity.name, clientref)
        self.getService().events.append(event)

    def perspective_whoami(self) -> str:
        """Return the name of the perspective."""
        return self.perspectiveName


class RecordingService(Service):
    """
    A service that records who was attached and detached, on perspectives made on the fly.

    Attributes:
        events: list of `Event`.
    """

    perspectiveClass: Any = RecordingPerspective

    def __init__(
        self,
        serviceName: str,
        serviceParent: IServiceCollection | Componentized | None = None,
        authorizer: IAuthorizer | None = None,
    ) -> None:
        super().__init__(serviceName, serviceParent, authorizer)
        self.events: list[Event] = []

    def loadPerspective(self, name: str) -> IPerspective | Awaitable[IPerspective]:
        """Make the perspective."""
        return self.perspectiveClass(name)

    def kinds(self) -> list[str]:
        """Return the kinds of the events, in their order."""
        return [event.kind for event in self.events]


__all__ = [
    "Event",
    "MemoryServer",
    "RecordingPerspective",
    "RecordingService",
]
