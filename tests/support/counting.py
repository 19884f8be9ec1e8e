"""A service that writes down each call, for ``twistd pbauth --service count=...``."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.task import deferLater

from pbauth.echo import EchoPerspective, EchoService


class Counting(EchoPerspective):
    """Writes down which calls it ran, in the file that the environment names."""

    async def perspective_run(self, call: str, seconds: float = 0.0) -> str:
        """Take some time, and write the call down."""
        from twisted.internet import reactor

        if seconds:
            await deferLater(reactor, seconds)  # type: ignore[arg-type]
        with open(os.environ["CALLS"], "a") as file:
            file.write(f"{call}\n")
        return call

    async def perspective_until(self, path: str) -> str:
        """Take until there is a file."""
        from twisted.internet import reactor

        while not os.path.exists(path):
            await deferLater(reactor, 0.05)  # type: ignore[arg-type]
        return "at last"

    def attached(self, clientref: Any, identity: Any) -> Any:
        """Give each client a perspective of its own."""
        own = Counting(self.perspectiveName, identity.name)
        own.setService(self.getService())
        return own


class CountingService(EchoService):
    """Has a perspective of every name."""

    def loadPerspective(self, name: str) -> Counting:
        return Counting(name)
