"""Clients of other protocols: a command over SSH, a page over HTTP."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from twisted.conch.client.knownhosts import KnownHostsFile
from twisted.conch.endpoints import SSHCommandClientEndpoint
from twisted.conch.ssh.keys import Key
from twisted.conch.ssh.userauth import SSHUserAuthServer
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.python.filepath import FilePath
from twisted.web.client import Agent, HTTPConnectionPool, readBody
from twisted.web.http_headers import Headers


class Prompt(SSHUserAuthServer):
    """Does not let a client wait after a wrong password."""

    passwordDelay = 0


class Answer(Protocol):
    """What an SSH server says, to its end."""

    def __init__(self) -> None:
        self.received = b""
        self.whole: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Any = None) -> None:
        self.whole.callback(self.received)


async def runByConch(
    port: int, hostKey: Key, path: str, name: bytes, command: bytes, **proof: Any
) -> bytes:
    """
    Run a command on an SSH server by Conch's client.

    Args:
        port: the server's.
        hostKey: the server's public key.
        path: where the client may keep what it knows of servers.
        name: the user's.
        command: to be run.
        proof: `password`, or `keys`.

    Returns:
        The answer.

    Raises:
        AuthenticationFailed: the login was refused.
    """
    from twisted.internet import reactor

    knownHosts = KnownHostsFile(FilePath(path))
    knownHosts.addHostKey(b"127.0.0.1", hostKey)
    endpoint = SSHCommandClientEndpoint.newConnection(
        reactor, command, name, b"127.0.0.1", port, knownHosts=knownHosts, **proof
    )
    protocol = await endpoint.connect(Factory.forProtocol(Answer))
    connection = protocol.transport.conn.transport.transport
    answer: bytes = await protocol.whole
    while connection.connected:
        await deferLater(reactor, 0)  # type: ignore[arg-type]
    return answer


async def getPage(port: int, *login: str) -> tuple[int, bytes]:
    """
    Ask a web server for a page.

    Args:
        port: the server's.
        login: name and password, if any.

    Returns:
        The answer's code and text.
    """
    from twisted.internet import reactor

    headers = Headers()
    if login:
        encoded = b64encode(":".join(login).encode()).decode()
        headers.addRawHeader("Authorization", f"Basic {encoded}")
    agent = Agent(reactor, pool=HTTPConnectionPool(reactor, persistent=False))
    response: Any = await agent.request(b"GET", f"http://127.0.0.1:{port}/".encode(), headers)
    return response.code, await readBody(response)
