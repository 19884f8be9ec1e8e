"""The server under stress, in a process of its own (see `tests.benchmarks.child`)."""

from __future__ import annotations

import shutil
import tempfile
from functools import partial
from typing import Any

from attrs import evolve, fields_dict
from twisted.application.service import MultiService
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet import ssl
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import deferLater
from twisted.logger import globalLogPublisher, textFileLogObserver
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.spread import pb
from zope.interface import implementer

from pbauth import (
    AuthServerFactory,
    CredAuthorizer,
    DefaultAuthorizer,
    Hashing,
    Perspective,
    Policy,
    Service,
)
from pbauth.login.connectionlimits import ConnectionLimits
from pbauth.net.certificates import makeCertificate
from pbauth.net.proxy import ProxiedFactory
from pbauth.net.trust import serverOptions
from tests.benchmarks.peers.accounts import PASSWORD, SERVICE, nameOf

FAMILY = "twisted"

HOST = "127.0.0.1"

#: Of all accounts: who remembers the key has it for all of them.
_SALT = b"of the stress tests"

#: Whether this version asks silent clients whether they are there, and keeps messages for who is
#: away.
CAN_PING = "pingInterval" in fields_dict(Policy)
CAN_QUEUE = hasattr(Perspective, "clients")


class Thing(pb.Referenceable):
    """What is given."""


class Board(pb.Cacheable):
    """What is watched."""

    def getStateToCacheAndObserveFor(self, perspective: Any, observer: Any) -> Any:
        return {"first": Thing()}

    def stoppedObserving(self, perspective: Any, observer: Any) -> None:
        pass


class Guarded(Perspective):
    """Tells its service who comes and goes."""

    def attached(self, clientref: Any, identity: Any) -> Any:
        self.getService().events.append(("attached", self.perspectiveName))
        return self

    def detached(self, clientref: Any, identity: Any) -> None:
        self.getService().events.append(("detached", self.perspectiveName))

    def perspective_whoami(self) -> str:
        return self.perspectiveName

    def perspective_wait(self) -> Any:
        return Deferred()

    def perspective_take(self, value: Any) -> None:
        pass

    async def perspective_count(self, most: int, size: int) -> Any:
        """Numbers, each with so many bytes."""
        service = self.getService()
        service.streams += 1
        try:
            for number in range(most):
                service.made += 1
                yield number, bytes(size)
        finally:
            service.streams -= 1

    async def perspective_give(self, number: int, ear: Any) -> Any:
        await ear.callRemote("hear", Thing())
        return [Board(), *(Thing() for _ in range(number))]


class GuardedService(Service):
    """Makes the perspective of whoever has the key to it, and keeps those that have messages."""

    perspectiveClass = Guarded

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.events: list[tuple[str, str]] = []
        #: The streams that are being sent, and the values that were made for them.
        self.streams = self.made = 0

    def loadPerspective(self, name: str) -> Any:
        return self.perspectiveClass(name)


@implementer(ICredentialsChecker)
class SlowChecker:
    """
    Takes its time, as PAM does, and knows nobody.

    Attributes:
        checked: how many passwords it was given.
    """

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self) -> None:
        self.checked = 0

    def requestAvatarId(self, credentials: Any) -> Any:
        from twisted.internet import reactor

        self.checked += 1
        refusal: Any = partial(fail, UnauthorizedLogin())
        return deferLater(reactor, 0.1, refusal)  # type: ignore[arg-type]


class Server:
    """
    Args:
        accounts: how many there are.
        policy: fields of the `Policy` that are not the default.
        port: where to listen by TCP; 0: anywhere.
        tls: listen over TLS as well.
        kept: the first so many perspectives are always there, not only while somebody is attached.
        queue: how many messages these keep for who is away.
    """

    def __init__(
        self,
        accounts: int,
        policy: dict[str, Any],
        port: int = 0,
        tls: bool = False,
        kept: int = 0,
        queue: int = 0,
    ) -> None:
        self._log = tempfile.TemporaryFile("w+")
        globalLogPublisher.addObserver(textFileLogObserver(self._log))
        self._accounts = accounts
        self._policy = Policy(**policy)
        self._port = port
        self._tls = tls
        services = MultiService()
        self._authorizer = DefaultAuthorizer(services, Hashing.CHEAPEST)
        self._service = GuardedService(SERVICE, services, self._authorizer)
        self._service.perspectiveClass = type("Kept", (Guarded,), {"queueSize": queue})
        for number in range(kept):
            self._service.createPerspective(nameOf(number))
        self._addAccounts()
        self._outcomes: dict[int, str] = {}
        self._slow = SlowChecker()

    def _addAccounts(self) -> None:
        ((mechanism, made),) = Hashing.CHEAPEST.makeVerifiers(PASSWORD, _SALT).items()
        text = made.encode()
        for number in range(self._accounts):
            identity = self._authorizer.createIdentity(nameOf(number))
            # Nobody's verifier is shared.
            identity.setVerifiers({mechanism: type(made).decode(text)})
            identity.addKeyByString(SERVICE, identity.name)
            identity.save()

    def do_listen(self) -> dict[str, int]:
        """Listen, and tell the ports."""
        from twisted.internet import reactor as running

        reactor: Any = running
        self._limits = ConnectionLimits(self._policy, reactor)
        factory: Any = AuthServerFactory(self._authorizer, self._policy, reactor, self._limits)
        port = reactor.listenTCP(self._port, factory, interface=HOST, backlog=1024)
        ports = {"tcp": port.getHost().port}
        if self._tls:
            options = serverOptions(ssl.PrivateCertificate.loadPEM(makeCertificate()))
            # As ``twistd pbauth`` does.
            factory = TLSMemoryBIOFactory(options, False, factory)
            port = reactor.listenTCP(0, factory, interface=HOST, backlog=1024)
            ports["tls"] = port.getHost().port
            port = reactor.listenTCP(
                0, ProxiedFactory(factory.wrappedFactory, reactor), interface=HOST, backlog=1024
            )
            ports["proxied"] = port.getHost().port
        return ports

    def do_listenPlain(self) -> str:
        """Listen on a UNIX socket, for passwords that are checked elsewhere; tell its path."""
        from twisted.internet import reactor as running

        reactor: Any = running
        authorizer = CredAuthorizer([self._slow], accounts=self._authorizer)
        policy = evolve(self._policy, mechanisms=["PLAIN"])
        folder = tempfile.mkdtemp()
        reactor.addSystemEventTrigger("after", "shutdown", shutil.rmtree, folder, True)
        path = f"{folder}/socket"
        reactor.listenUNIX(path, AuthServerFactory(authorizer, policy, reactor, self._limits))
        return path

    def do_listenLimited(self, limits: dict[str, int]) -> int:
        """Listen for clients that may not ask for much after their login; tell the port."""
        from twisted.internet import reactor as running

        reactor: Any = running
        policy = evolve(self._policy, **limits)
        shared = ConnectionLimits(policy, reactor)
        factory: Any = AuthServerFactory(self._authorizer, policy, reactor, shared)
        port = reactor.listenTCP(0, factory, interface=HOST, backlog=1024)
        return int(port.getHost().port)

    def do_checked(self) -> int:
        """Tell how many passwords were checked elsewhere."""
        return self._slow.checked

    def do_look(self) -> dict[str, int]:
        """Tell how many are logged in, and how many are connected and not logged in."""
        return {
            "sessions": len(self._authorizer.sessions),
            "strangers": len(self._limits.unauthenticated),
        }

    def do_held(self) -> int:
        """Tell how many entries the books of the sessions' connections have."""
        brokers: Any = {session.broker for session in self._authorizer.sessions}
        return sum(
            len(book)
            for broker in brokers
            for book in (
                *(broker.localObjects, broker.luids),
                *(broker.remotelyCachedObjects, broker.remotelyCachedLUIDs),
                *(broker.locallyCachedObjects, broker.waitingForAnswers),
                broker._exports,
            )
        )

    def do_streams(self) -> dict[str, int]:
        """Tell how many streams are being sent, and how many values were made for them."""
        return {"streams": self._service.streams, "made": self._service.made}

    def do_events(self) -> list[tuple[str, str]]:
        """Tell who was attached and detached, in that order."""
        return self._service.events

    def do_log(self) -> dict[str, Any]:
        """Tell how many lines the log has, and those about tracebacks with what follows them."""
        self._log.seek(0)
        count, bad = 0, []  # type: ignore[var-annotated]
        # Line by line: the memory of this process is looked at.
        for line in self._log:
            count += 1
            if len(bad) < 30 and (bad or "Traceback" in line or "Unhandled" in line):
                bad.append(line.rstrip())
        return {"lines": count, "bad": bad}

    def do_tell(self, name: str, first: int, count: int) -> None:
        """Send a client so many messages, which are numbers."""
        clients: Any = self._service.getPerspectiveNamed(name).clients  # type: ignore[attr-defined]
        for number in range(first, first + count):
            self._outcomes[number] = "under way"
            told = clients.callNewest("take", number)
            told.addCallbacks(self._taken, self._lost, callbackArgs=[number], errbackArgs=[number])

    def _taken(self, answer: Any, number: int) -> None:
        self._outcomes[number] = "taken"

    def _lost(self, reason: Any, number: int) -> None:
        self._outcomes[number] = reason.type.__name__

    def do_told(self) -> list[tuple[int, str]]:
        """Tell what became of each message."""
        return list(self._outcomes.items())
