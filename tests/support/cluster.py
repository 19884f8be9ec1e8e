"""Several servers on one PostgreSQL, behind a real HAProxy, as processes of their own."""

from __future__ import annotations

import os
import shutil
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.trial.unittest import TestCase

from pbauth.net.certificates import makeCertificate
from tests.support.processes import TWISTD, Program

HAPROXY = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")

#: As the documentation has it.
_CONFIGURATION = Path(__file__).parent.parent.parent / "docs" / "listings" / "haproxy.cfg"


def _freePort() -> int:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class Cluster:
    """
    Args:
        test: ends it all.
        url: of the database.
        options: of the servers, besides.
    """

    def __init__(self, test: TestCase, url: str, *options: str) -> None:
        self._test = test
        self._url = url
        self._options = options
        self._ports: list[int] = []
        self.servers: list[Program] = []
        self.certificate = os.path.abspath(test.mktemp())

    async def start(self) -> None:
        """Start the servers, and HAProxy in front of them."""
        # All show the same certificate, whichever a client gets to.
        with open(self.certificate, "wb") as file:
            file.write(makeCertificate())
        ports = self._ports
        for _ in range(3):
            ports.append(_freePort())
            self.servers.append(self._startServer(ports[-1]))
        await gatherResults([server.waitFor("Listening on") for server in self.servers])
        self.front = _freePort()
        configuration = os.path.abspath(self._test.mktemp())
        text = _CONFIGURATION.read_text()
        for written, port in zip((8787, 8801, 8802, 8803), (self.front, *ports), strict=True):
            assert text.count(f":{written}") == 1
            text = text.replace(f":{written}", f":{port}")
        with open(configuration, "w") as file:
            file.write(text)
        assert HAPROXY is not None
        proxy = Program("-db", "-f", configuration, executable=HAPROXY, stdin=None)
        self._test.addCleanup(proxy.stop)
        await self._untilOpen()

    def _startServer(self, port: int) -> Program:
        where = f"ssl:{port}:interface=127.0.0.1"
        server = Program(
            *TWISTD,
            *("--accounts", self._url, "--state", self._test.mktemp(), "--proxy-protocol"),
            *("--port", f"{where}:privateKey={self.certificate}:certKey={self.certificate}"),
            *self._options,
            stdin=None,
        )
        self._test.addCleanup(server.stop)
        return server

    async def restart(self, number: int) -> None:
        """Stop one of the servers in good order, and start it again."""
        server = self.servers[number]
        server.kill("TERM")
        await server.whenEnded()
        assert server.exitCode == 0, server.output
        self.servers[number] = self._startServer(self._ports[number])
        await self.servers[number].waitFor("Listening on")

    async def _untilOpen(self) -> None:
        from twisted.internet import reactor
        from twisted.internet.endpoints import TCP4ClientEndpoint
        from twisted.internet.error import ConnectError
        from twisted.internet.protocol import Factory, Protocol
        from twisted.internet.task import deferLater

        any_: Any = reactor
        for _ in range(200):
            try:
                found = await TCP4ClientEndpoint(any_, "127.0.0.1", self.front).connect(
                    Factory.forProtocol(Protocol)
                )
            except ConnectError:
                await deferLater(any_, 0.05)
            else:
                found.transport.loseConnection()
                return
        raise AssertionError("HAProxy does not listen.")

    @property
    def endpoint(self) -> str:
        """Where clients connect."""
        return f"tls:127.0.0.1:{self.front}"
