"""
What the fuzzer runs: a fresh connection to a server in memory, that is sent some bytes.

An input is one byte that chooses the policy, one that says how many cuts there are, the cuts, and
the bytes of the stream.  A cut is the length of a chunk; 0 lets time pass instead.  Randomness is
the same each time, so that what was recorded of a real login is a login again.

Whatever the bytes are: nothing may be raised, no error logged, no object made of a registered
class, and nothing left when the connection is closed.  What comes after a login is not the point
here, and what an application's methods raise then is logged by right; but not that the broker could
not act upon a message.
"""

from __future__ import annotations

import gc
import os
import secrets
import sys
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.application.service import MultiService
from twisted.cred.credentials import Anonymous as StockAnonymous
from twisted.cred.credentials import UsernamePassword
from twisted.internet import error as netError
from twisted.internet.address import IPv4Address
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel, globalLogBeginner
from twisted.python.failure import Failure
from twisted.spread import pb

from pbauth import (
    Anonymous,
    AuthServerFactory,
    DefaultAuthorizer,
    Hashing,
    Password,
    Policy,
    PrivateKey,
    getObjectAt,
)
from pbauth.testing import MemoryServer, RecordingService
from pbauth.wire.broker import Broker
from tests.stress.resources import sizeOf

#: What an input may ask for by its first byte.
POLICIES = (
    Policy(),
    Policy(legacyLogin=True, defaultService="game", guest="guest"),
    Policy(maxUnauthenticatedBytes=300, maxAttempts=1, graceTime=20),
)

#: Seconds that a cut of 0 takes.
_PAUSE = 16

#: How often it is looked at what memory there is.
_SAMPLED = 10_000

_PEER = IPv4Address("TCP", "203.0.113.7", 50_000)
_PASSWORD, _SALT = "secret", b"of the fuzzer"
_KEY = PrivateKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))


class _Watched(Broker):
    """Tells when it is logged in, and what it received."""

    entered = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.received: list[bytes] = []

    def loggedIn(self, guest: bool = False) -> None:
        self.entered = True
        super().loggedIn(guest)

    def dataReceived(self, chunk: bytes) -> None:
        self.received.append(chunk)
        super().dataReceived(chunk)


class Unwanted(pb.Copyable, pb.RemoteCopy):
    """What this process would make of what a stranger sends, if it were told to."""

    made = 0

    def setCopyableState(self, state: Any) -> None:
        Unwanted.made += 1


# A name that is soon found.
pb.setUnjellyableForClass("bad", Unwanted)


class Target:
    """
    Attributes:
        counts: what happened so far, by name.
        samples: of memory: executions, blocks that Python has allocated, bytes of the process.
    """

    def __init__(self) -> None:
        secrets.token_bytes = lambda count=32: b"\x5a" * count  # type: ignore[assignment,operator]
        globalLogBeginner.beginLoggingTo(
            [self._observe],  # type: ignore[list-item]
            redirectStandardIO=False,
            discardBuffer=True,
        )
        self._errors: list[Any] = []
        self.counts = {"executions": 0, "logins": 0, "cutOff": 0, "answered": 0}
        self.samples: list[tuple[int, int, int]] = []
        self.services = MultiService()
        self.authorizer = DefaultAuthorizer(self.services, Hashing(4096, md5=True))
        RecordingService("game", self.services, self.authorizer)
        verifiers = self.authorizer.hashing.makeVerifiers(_PASSWORD, _SALT)
        for name in ("alice", "guest"):
            identity = self.authorizer.createIdentity(name)
            identity.setVerifiers(verifiers)
            identity.addPublicKey(_KEY.publicKey)
            identity.addKeyByString("game", name)
            identity.save()

    def _observe(self, event: Any) -> None:
        if event["log_level"] >= LogLevel.error:
            self._errors.append(event)

    def run(self, data: bytes) -> bool:
        """
        Send an input to a server.

        Args:
            data: the input.

        Returns:
            Whether it was a login.

        Raises:
            Exception: whatever should not have been raised.
            AssertionError: an error was logged, or something was left.
        """
        policy, chunks = read(data)
        clock = Clock()
        factory = self.makeFactory(policy, clock)
        broker: Any = factory.buildProtocol(_PEER)
        transport: Any = _Transport(broker)
        broker.makeConnection(transport)
        greeting = transport.io.tell()
        for chunk in chunks:
            if broker.entered or broker.disconnected:
                break
            if chunk:
                broker.dataReceived(chunk)
                # What was put off until the answer was out.
                clock.advance(0)
            else:
                clock.advance(_PAUSE)
        entered: bool = broker.entered
        Unwanted.made *= not entered
        self.counts["logins"] += entered
        self.counts["cutOff"] += transport.aborted
        self.counts["answered"] += transport.io.tell() > greeting
        if not broker.disconnected:
            broker.connectionLost(Failure(netError.ConnectionDone()))
        clock.advance(0)
        errors, self._errors = self._errors, []
        if entered:
            # Errors of calls are logged by right; a mistake in reading what came is not.
            errors = [event for event in errors if event["log_namespace"] == Broker.__module__]
        assert not errors, f"logged: {errors[0]}"
        assert entered or not Unwanted.made, "an object was made of what came"
        assert not clock.getDelayedCalls(), "a timer is left"
        assert not len(factory._authRoot.limits.unauthenticated), "a stranger is left"
        assert not len(self.authorizer.sessions), "a session is left"
        self._count()
        return entered

    def makeFactory(self, policy: Policy, clock: Clock) -> Any:
        """Make a server; the accounts are always the same."""
        factory = AuthServerFactory(self.authorizer, policy, clock)
        factory.protocol = _Watched
        return factory

    def _count(self) -> None:
        self.counts["executions"] += 1
        if not self.counts["executions"] % _SAMPLED:
            self.sample()

    def sample(self) -> None:
        """Look at what memory there is."""
        for service in self.services:
            service.events.clear()
        gc.collect()
        self.samples.append(
            (self.counts["executions"], sys.getallocatedblocks(), sizeOf(os.getpid()))
        )


class _Transport(StringTransport):
    """Closes at once when it is told to, as a dropped connection does."""

    aborted = False

    def __init__(self, broker: Any) -> None:
        super().__init__(peerAddress=_PEER)
        self._broker = broker

    def abortConnection(self) -> None:
        if not self.aborted:
            self.aborted = True
            self._broker.connectionLost(Failure(netError.ConnectionAborted()))


def read(data: bytes) -> tuple[Policy, list[bytes]]:
    """
    Args:
        data: an input.

    Returns:
        The policy that it asks for, and the chunks; empty ones let time pass.
    """
    policy = POLICIES[data[0] % len(POLICIES)] if data else POLICIES[0]
    count = data[1] % 32 if len(data) > 1 else 0
    cuts, stream = data[2 : 2 + count], data[2 + count :]
    chunks, position = [], 0
    for cut in cuts:
        chunks.append(stream[position : position + cut] if cut else b"")
        position += cut
    if position < len(stream):
        chunks.append(stream[position:])
    return policy, chunks


def write(policy: int, cuts: bytes, stream: bytes) -> bytes:
    """The input that `read` reads so."""
    return bytes((policy, len(cuts))) + cuts + stream


def record(target: Target) -> dict[str, bytes]:
    """
    Record real logins.

    Args:
        target: where they log in.

    Returns:
        What the clients send, by the kind of login.
    """
    password = Password(_PASSWORD)
    found = {}
    logins: dict[str, Callable[[MemoryServer], Any]] = {
        "SCRAM": lambda memory: memory.logIn("alice", password, "game"),
        "SCRAM, with a client": lambda memory: memory.logIn(
            "alice", password, "game", client=pb.Referenceable()
        ),
        "SCRAM, wrong": lambda memory: memory.logIn("alice", "wrong", "game"),
        "SCRAM, nobody": lambda memory: memory.logIn("nobody", "wrong", "game"),
        "ED25519": lambda memory: memory.logIn("alice", _KEY, "game"),
        "ANONYMOUS": lambda memory: memory.logIn("guest", Anonymous(), "game"),
        "stock": lambda memory: _stock(memory, UsernamePassword(b"alice", _PASSWORD.encode())),
        "stock, anonymous": lambda memory: _stock(memory, StockAnonymous()),
        "Twisted 1.x": _twisted1,
        "mechanisms": _mechanisms,
    }
    for name, logIn in logins.items():
        clock = Clock()
        factory = target.makeFactory(POLICIES[1], clock)
        memory = MemoryServer(target.authorizer, factory=factory, peer=_PEER)
        memory.clock = clock
        brokers: list[Any] = []
        build = factory.buildProtocol

        def buildProtocol(address: Any, build: Any = build, brokers: Any = brokers) -> Any:
            brokers.append(build(address))
            return brokers[-1]

        factory.buildProtocol = buildProtocol
        logIn(memory).addErrback(lambda failure: None)
        memory.flush()
        found[name] = b"".join(brokers[0].received)
        for pump in memory.pumps:
            pump.client.transport.loseConnection()
        memory.flush()
    return found


def _stock(memory: MemoryServer, credentials: Any) -> Any:
    factory: Any = pb.PBClientFactory()
    memory.connect(factory)
    memory.flush()
    return factory.login(credentials, pb.Referenceable())


def _twisted1(memory: MemoryServer) -> Any:
    factory: Any = pb.PBClientFactory()
    memory.connect(factory)

    async def logIn() -> None:
        root = await factory.getRootObject()
        challenge, challenger = await root.callRemote("username", b"alice")
        response = pb.respond(challenge, _PASSWORD.encode())
        identity = await challenger.callRemote("respond", response)
        await identity.callRemote("attach", b"game", b"alice", pb.Referenceable())

    return ensureDeferred(logIn())


def _mechanisms(memory: MemoryServer) -> Any:
    opening = getObjectAt(memory, None, reactor=memory.clock)
    memory.flush()
    return opening.addCallback(lambda root: root.callRemote("mechanisms"))
