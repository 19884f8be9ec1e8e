"""What stock PB and pbauth share: TLS, logins, and clients that stay."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet import ssl
from twisted.internet.defer import Deferred

from tests.benchmarks.child import Watch
from tests.benchmarks.peers.accounts import spread
from tests.benchmarks.peers.ontwisted import HOST, CallClient, workers

#: How many clients that stay are made at once.
_MAKERS = 20


def serverOptions(path: str) -> Any:
    """How servers take connections over TLS: the same for stock PB and pbauth."""
    with open(path, "rb") as file:
        certificate = ssl.PrivateCertificate.loadPEM(file.read())
    return ssl.CertificateOptions(
        privateKey=certificate.privateKey.original,
        certificate=certificate.original,
        raiseMinimumTo=ssl.TLSVersion.TLSv1_2,
    )


def clientOptions(path: str) -> Any:
    """How clients connect over TLS, made once in a process: the same for stock PB and pbauth."""
    with open(path, "rb") as file:
        certificate = ssl.Certificate.loadPEM(file.read())
    return ssl.optionsForClientTLS(HOST, trustRoot=certificate)


async def closeConnectionOf(reference: Any) -> None:
    """Close the connection of a reference, and wait until it is closed."""
    closed: Deferred[None] = Deferred()
    reference.broker.notifyOnDisconnect(lambda: closed.callback(None))
    reference.broker.transport.loseConnection()
    await closed


class LoginClient(CallClient):
    """
    Logs in with the methods ``logInBy_KIND`` of a subclass, which take the name of an account and
    give the perspective.

    Args:
        certificate: the file of the servers' certificate.
    """

    def __init__(self, certificate: str) -> None:
        super().__init__()
        self.certificate = certificate
        self.tlsOptions = clientOptions(certificate)
        self.held: list[Any] = []

    async def do_logins(
        self, kind: str, port: int, accounts: int, count: int, together: int = 1
    ) -> dict[str, Any]:
        """
        Log in: connect, log in until the perspective is there, close, and wait for that.

        Args:
            kind: of login.
            port: to connect to.
            accounts: how many accounts there are.
            count: of logins.
            together: how many are under way at once.
        """
        logIn: Callable[[int, str], Awaitable[Any]] = getattr(self, f"logInBy_{kind}")

        async def once(number: int) -> None:
            await closeConnectionOf(await logIn(port, spread(number, accounts)))

        watch = Watch(count)
        await workers(together, count, once)
        return watch.stop()

    async def do_hold(self, port: int, upTo: int) -> int:
        """Connect clients, which stay, until there are so many; they do not log in."""

        async def one(_: int) -> None:
            self.held.append(await self.openConnection(port))

        await workers(_MAKERS, upTo - len(self.held), one)
        return len(self.held)

    async def do_logHeldIn(self, accounts: int) -> None:
        """Log in, on their connections, the clients that stay and have not logged in."""

        async def one(number: int) -> None:
            if not isinstance(self.held[number], _LoggedIn):
                perspective = await self.logInHeld(self.held[number], spread(number, accounts))
                self.held[number] = _LoggedIn(self.held[number], perspective)

        await workers(_MAKERS, len(self.held), one)

    async def openConnection(self, port: int) -> Any:
        """Connect, until both ends agreed to speak PB; gives what `logInHeld` needs."""
        raise NotImplementedError

    async def logInHeld(self, opened: Any, name: str) -> Any:
        """Log in on a connection; gives the perspective."""
        raise NotImplementedError


class _LoggedIn:
    def __init__(self, opened: Any, perspective: Any) -> None:
        self.kept = opened, perspective
