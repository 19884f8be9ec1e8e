"""Who is given objects, and drops them, in a process of its own (see `tests.benchmarks.child`)."""

from __future__ import annotations

import gc
from typing import Any

from twisted.spread import pb

from pbauth import Password
from tests.benchmarks.peers.accounts import PASSWORD
from tests.stress.clients import logIn

FAMILY = "twisted"

_NETWORK = 24

#: How many objects one call gives: in its result, and by a call of the client's own object.
_AT_ONCE = 100


class Ear(pb.Referenceable):
    """What the server calls; it keeps nothing."""

    def __init__(self) -> None:
        self.heard = 0

    def remote_hear(self, thing: Any) -> None:
        self.heard += 1


class BoardCopy(pb.RemoteCache):
    """The copy of what is watched."""


pb.setUnjellyableForClass("tests.stress.server.Board", BoardCopy)


class Receiver:
    """One client, of one session."""

    def __init__(self) -> None:
        self._perspective: Any = None
        self._received = 0

    async def do_join(self, port: int) -> None:
        """Log in."""
        self._perspective = await logIn(port, 0, _NETWORK, Password(PASSWORD))

    async def do_receive(self, upTo: int) -> None:
        """Be given objects until there were so many."""
        while self._received < upTo:
            # An object of its own for each call, which the server drops.
            ear = Ear()
            things = await self._perspective.callRemote("give", _AT_ONCE - 2, ear)
            self._received += len(things) + ear.heard
            del things
        gc.collect()
        # Whatever was dropped, the server knows before it answers this.
        await self._perspective.callRemote("whoami")
