"""``pbauth demo``: a real server, two users, and what the layer does for them, line by line."""

from __future__ import annotations

import os
import re
import secrets
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.spread import pb

from pbauth.admin.administration import Administration
from pbauth.client.credentials import Password
from pbauth.client.login import connect
from pbauth.errors import KeyNotFound, Unauthorized
from pbauth.interfaces import IIdentity
from pbauth.perspectives.perspective import Perspective
from pbauth.perspectives.service import Service
from pbauth.server.state import openAuthorizer

_log = Logger()
_Tell = Callable[[str], None]

#: Seconds for each thing that the demonstration waits for.
TIMEOUT = 10.0


class DemoFailed(Exception):
    """Something did not go as it should; the text says what."""


# The server's side: what an application would write.


class DemoPerspective(Perspective):
    """A user's own perspective."""

    clientref: Any = None

    def attached(self, clientref: Any, identity: IIdentity) -> DemoPerspective:
        """Keep the client's object, to call it back."""
        self.clientref = clientref
        _log.info("demo: {name!r} attached", name=self.perspectiveName)
        return self

    def detached(self, clientref: Any, identity: IIdentity) -> None:
        """Let go of it."""
        self.clientref = None
        _log.info("demo: {name!r} detached", name=self.perspectiveName)

    async def perspective_greet(self) -> str:
        """Call the client back, and tell it who it is."""
        heard: str = await self.clientref.callRemote("notice", f"hello, {self.perspectiveName}")
        return f"you are {self.perspectiveName}, and your client said {heard!r}"


class DemoService(Service):
    """What ``twistd pbauth --service demo=pbauth.cli.demo.DemoService`` runs."""

    def __init__(self, serviceName: str, authorizer: Any) -> None:
        super().__init__(serviceName, authorizer=authorizer)

    def loadPerspective(self, name: str) -> DemoPerspective:
        """Make the perspective."""
        return DemoPerspective(name)


# The clients' side.


class DemoClient(pb.Referenceable):
    """The object of a client that the server may call back."""

    def __init__(self, name: str, tell: _Tell) -> None:
        self._name = name
        self._tell = tell

    def remote_notice(self, text: str) -> str:
        """Show a text that the server sends."""
        self._tell(f"    {self._name}'s client is called back: {text!r}")
        return "thank you"


class ServerProcess(ProcessProtocol):
    """
    The server, in a process of its own.

    Args:
        reactor: spawns it.
        state: its state folder.
    """

    def __init__(self, reactor: Any, state: str) -> None:
        self._reactor = reactor
        self._output = ""
        self._waiting: list[tuple[re.Pattern[str], Deferred[re.Match[str]]]] = []
        self._ended: Deferred[None] = Deferred()
        arguments = [
            *(sys.executable, "-m", "twisted", "--log-format=text", "pbauth"),
            *("--state", state, "--port", "ssl:0:interface=127.0.0.1"),
            *("--service", "demo=pbauth.cli.demo.DemoService"),
        ]
        self._process = reactor.spawnProcess(self, sys.executable, arguments, os.environ)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Collect what the server logs."""
        self._output += data.decode("utf-8", "replace")
        for item in list(self._waiting):
            pattern, waiter = item
            found = pattern.search(self._output)
            if found is not None:
                self._waiting.remove(item)
                waiter.callback(found)

    def processEnded(self, reason: Any) -> None:
        """Learn that the server has ended."""
        for _, waiter in self._waiting:
            waiter.errback(
                DemoFailed(f"The server ended by itself. Its last words:\n{self._output[-2000:]}")
            )
        self._waiting = []
        self._ended.callback(None)

    def waitFor(self, pattern: str) -> Deferred[re.Match[str]]:
        """
        Wait for a line of the server's log.

        Args:
            pattern: a regular expression for it.

        Returns:
            Fires with the match.
        """
        compiled = re.compile(pattern)
        if self._ended.called:
            return fail(DemoFailed("The server has ended."))
        waiter: Deferred[re.Match[str]] = Deferred()
        self._waiting.append((compiled, waiter))
        self.childDataReceived(1, b"")

        def late(result: Any, seconds: float) -> Any:
            raise DemoFailed(f"The server did not print {pattern!r} within {seconds:g} seconds.")

        return waiter.addTimeout(TIMEOUT, self._reactor, late)

    async def stop(self) -> None:
        """End the server, and wait until it is gone."""
        try:
            self._process.signalProcess("TERM")
        except ProcessExitedAlready:
            pass
        if not self._ended.called:
            await self._ended


async def runDemo(reactor: Any, tell: _Tell) -> None:
    """
    Run the demonstration.

    Args:
        reactor: the running reactor.
        tell: takes each line for the user.

    Raises:
        DemoFailed: something did not go as it should.
    """
    with tempfile.TemporaryDirectory(prefix="pbauth-demo-") as folder:
        state = os.path.join(folder, "state")
        passwords = {name: secrets.token_urlsafe(12) for name in ("alice", "bob")}
        tell(f"Accounts are in a temporary folder: {state}")
        await _addUsers(reactor, state, passwords, tell)
        server = ServerProcess(reactor, state)
        try:
            said = await server.waitFor(
                r"Listening on 127\.0\.0\.1:(\d+) over TLS, with the key (\S+)"
            )
            port, key = said.groups()
            tell(f"A server process listens on 127.0.0.1, port {port}, over TLS.")
            tell(f"Its clients know it by its key: {key}")
            await _useServer(reactor, server, (f"tls:127.0.0.1:{port}", key), passwords, tell)
        finally:
            await server.stop()
    tell("The server is stopped, and its folder is removed. That was the demonstration.")


async def _addUsers(reactor: Any, state: str, passwords: dict[str, str], tell: _Tell) -> None:
    authorizer = openAuthorizer(state, reactor=reactor)
    try:
        administration = Administration(authorizer)
        for name, password in passwords.items():
            await administration.addUser(name, password)
            await administration.grantKey(name, "demo", name)
            tell(f"Added {name}, with a random password and the key to demo/{name}.")
    finally:
        authorizer.close()


async def _useServer(
    reactor: Any,
    server: ServerProcess,
    where: tuple[str, str],
    passwords: dict[str, str],
    tell: _Tell,
) -> None:
    endpoint, key = where
    credentials = {name: Password(password) for name, password in passwords.items()}

    def logIn(
        name: str, credential: Password, perspective: str, client: Any = None
    ) -> Deferred[Any]:
        return connect(
            *(endpoint, None, name, credential, "demo", perspective, client, TIMEOUT),
            trust=key,
            reactor=reactor,
        )

    perspectives = {}
    for name in passwords:
        client = DemoClient(name, tell)
        perspectives[name] = await logIn(name, credentials[name], name, client)
        await server.waitFor(f"demo: {name!r} attached")
        tell(f"{name} logs in; on the server, attached() is called for {name}.")
    for name, perspective in perspectives.items():
        tell(f"{name} calls the perspective:")
        answer = await perspective.callRemote("greet")
        if not answer.startswith(f"you are {name},"):
            raise DemoFailed(f"{name} got the answer of somebody else: {answer}")
        tell(f"    it answers: {answer}")

    wrong = logIn("alice", Password("a wrong guess"), "alice")
    await _expectRefusal(wrong, Unauthorized, "a wrong password")
    tell("alice with a wrong password: refused.")
    await _expectRefusal(
        logIn("alice", credentials["alice"], "bob"), KeyNotFound, "a key that she does not hold"
    )
    tell("alice asks for bob's perspective: refused, it is not on her keyring.")

    for name, perspective in perspectives.items():
        perspective.broker.transport.loseConnection()
        await server.waitFor(f"demo: {name!r} detached")
        tell(f"{name} hangs up; on the server, detached() is called for {name}.")


async def _expectRefusal(attempt: Deferred[Any], refusal: type[Unauthorized], what: str) -> None:
    try:
        await attempt
    except Unauthorized as error:
        if type(error) is refusal:
            return
        raise DemoFailed(f"The server refused {what} by {error!r}.") from None
    raise DemoFailed(f"The server accepted alice with {what}.")
