"""
Who does not log in, in a crowd: connections that never do, and wrong passwords, many a second.

What they send is made by hand, so that they take little of the CPU that the honest clients, on the
same core, are measured with; and they run at a lower priority.
"""

from __future__ import annotations

import base64
import os
import re
from collections import Counter
from typing import Any

from twisted.internet import protocol, task
from twisted.internet.protocol import connectionDone
from twisted.spread import banana, jelly

from tests.benchmarks.peers.accounts import nameOf
from tests.stress.resources import addressOf
from tests.stress.server import HOST

FAMILY = "twisted"

_SCRAM = "SCRAM-SHA-256"

#: The networks of the two kinds: see `addressOf`.
LURKING, GUESSING = 18, 32

#: How often a second new ones come.
_STEPS = 20

#: What a client says first of all.
GREETING = b"".join(map(banana.encode, (b"pb", [b"version", 6])))


def call(request: int, target: Any, name: bytes, *arguments: Any) -> bytes:
    """The bytes of a call."""
    message = [b"message", request, target, name, 1, jelly.jelly(arguments), jelly.jelly({})]
    return banana.encode(message)


def claim(name: str, request: int = 1) -> bytes:
    """The bytes by which a login with SCRAM begins."""
    initial = f"n,,n={name},r=fyko+d2lbbFgONRv9qkxdawL".encode()
    return call(request, b"root", b"username", name, _SCRAM, initial)


class Lurker(protocol.Protocol):
    """Connects, and does not log in; every other one not even speaks."""

    def __init__(self, lurkers: Lurkers, speaks: bool) -> None:
        self._lurkers = lurkers
        self._speaks = speaks

    def connectionMade(self) -> None:
        self._lurkers.there += 1
        if self._speaks:
            assert self.transport is not None
            self.transport.write(GREETING)

    def connectionLost(self, reason: Any = connectionDone) -> None:
        self._lurkers.there -= 1
        self._lurkers.dropped += 1


class Guess(protocol.Protocol):
    """A login with a wrong password."""

    def __init__(self, name: str, outcomes: Counter[str]) -> None:
        self._name = name
        self._outcomes = outcomes
        self._received = b""
        self._outcome = "cut off"

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(GREETING + claim(self._name))

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self._received += data
        refusal = re.search(rb"pbauth\.errors\.(\w+)", self._received)
        if refusal is not None:
            self._outcome = refusal[1].decode()
            self.transport.loseConnection()
            return
        challenge = re.search(rb"r=([!-+\--~]+),s=[^,]+,i=\d", self._received)
        if challenge is not None:
            self._received = b""
            # The right length, and the right nonce; only the password is not known.
            proof = base64.b64encode(os.urandom(32))
            response = b"c=biws,r=%s,p=%s" % (challenge[1], proof)
            # The first object that the server has given.
            self.transport.write(call(2, 1, b"respond", response))

    def connectionLost(self, reason: Any = connectionDone) -> None:
        self._outcomes[self._outcome] += 1


class Lurkers:
    """
    Those who never log in.

    Attributes:
        there: how many there are now.
        dropped: how many the server has dropped so far.
    """

    def __init__(self) -> None:
        self.there = 0
        self.dropped = 0
        self._wanted = 0
        self._came = 0
        self._source: str | None = None
        self._coming: Any = None

    def keep(self, port: int, number: int, source: str | None) -> None:
        """Have so many, from now on; who is dropped comes again."""
        self._wanted = number
        self._source = source
        if self._coming is None:
            self._coming = task.LoopingCall(self._come, port)
            self._coming.start(0.1)

    def _come(self, port: int) -> None:
        from twisted.internet import reactor as running

        reactor: Any = running
        for _ in range(min(self._wanted - self.there, 100)):
            self._came += 1
            factory = protocol.ClientFactory()
            factory.noisy = False
            lurker = Lurker(self, bool(self._came % 2))
            factory.buildProtocol = lambda address, lurker=lurker: lurker  # type: ignore
            where = self._source or addressOf(self._came, LURKING)
            reactor.connectTCP(HOST, port, factory, bindAddress=(where, 0))


class Strangers:
    """Both kinds."""

    def __init__(self) -> None:
        os.nice(10)
        self._lurkers = Lurkers()
        self._outcomes: Counter[str] = Counter()
        self._guesses = 0
        self._guessing: Any = None

    def do_lurk(self, port: int, number: int, source: str | None = None) -> None:
        """
        Keep so many connections that never log in.

        Args:
            port: where.
            number: how many.
            source: the address that they come from; by default each has its own.
        """
        self._lurkers.keep(port, number, source)

    def do_lurking(self) -> dict[str, int]:
        """Tell how many there are, and how many were dropped so far."""
        return {"there": self._lurkers.there, "dropped": self._lurkers.dropped}

    def do_guess(self, port: int, rate: int, accounts: int) -> None:
        """
        Send wrong passwords, each from another address: for those who log in honestly meanwhile
        (the last accounts), for all others, and for people who do not exist, in turn.

        Args:
            port: where.
            rate: how many a second.
            accounts: how many there are.
        """

        def start(steps: int) -> None:
            for _ in range(steps * rate // _STEPS):
                self._guess(port, accounts)

        self._guessing = task.LoopingCall.withCount(start)
        self._guessing.start(1 / _STEPS)

    def do_stopGuessing(self) -> dict[str, Any]:
        """Stop; gives how many there were so far, and what became of them."""
        if self._guessing is not None:
            self._guessing.stop()
            self._guessing = None
        return {"guesses": self._guesses, "outcomes": dict(self._outcomes)}

    def _guess(self, port: int, accounts: int) -> None:
        from twisted.internet import reactor as running

        reactor: Any = running
        number = self._guesses
        self._guesses += 1
        name = (
            nameOf(accounts - 1 - number // 3 % 20),
            nameOf(number * 7919 % accounts),
            f"nobody{number}",
        )[number % 3]
        factory = protocol.ClientFactory()
        factory.noisy = False
        factory.buildProtocol = lambda address: Guess(name, self._outcomes)  # type: ignore
        network = GUESSING + number // 65_000 % 64
        reactor.connectTCP(HOST, port, factory, bindAddress=(addressOf(number, network), 0))
