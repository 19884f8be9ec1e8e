"""pbauth."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.application.service import MultiService
from twisted.internet.endpoints import SSL4ClientEndpoint
from twisted.spread import pb

from pbauth import (
    AuthServerFactory,
    DefaultAuthorizer,
    Hashing,
    Password,
    Perspective,
    Policy,
    PrivateKey,
    Service,
    SQLAuthorizer,
    Stream,
    connect,
    getObjectAt,
    logIn,
    sendBytes,
    stream,
)
from tests.benchmarks.child import Watch
from tests.benchmarks.peers import stock
from tests.benchmarks.peers.accounts import PASSWORD, SERVICE, SLOW, nameOf, spread
from tests.benchmarks.peers.ontwisted import HOST, OnTwisted, listen
from tests.benchmarks.peers.pbclients import LoginClient, serverOptions

FAMILY = "twisted"

_SALT = b"of the benchmark"

#: What streams of bytes are sent in; and how many small values are on their way.
PIECE = 65_536
BUFFER = 100

#: A private key that everybody may know: it opens nothing but these accounts.
_KEY = PrivateKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))


class Caller(Perspective):
    """What a client may call."""

    def perspective_echo(self, value: Any) -> Any:
        return value

    async def perspective_items(self, count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number

    def perspective_pieces(self, count: int) -> Stream:
        piece = bytes(PIECE)
        return sendBytes(piece for _ in range(count))


class CallerService(Service):
    """Makes the perspective of whoever has the key to it."""

    perspectiveClass = Caller

    def loadPerspective(self, name: str) -> Any:
        return self.perspectiveClass(name)


class Server(OnTwisted):
    """
    Args:
        certificate: the file of the certificate.
        accounts: how many there are. Each has a verifier of its own, all of one password and one
            salt, so that there can be a million of them without a million derivations.
        logins: there are ports for all kinds of logins, with accounts fit for each.
        store: the path of an SQLite file to be made; `None`: the accounts are in memory.
        mostConnected: how many clients may be there that have not logged in.
    """

    def __init__(
        self,
        certificate: str,
        accounts: int = 20,
        logins: bool = False,
        store: str | None = None,
        mostConnected: int = 1000,
    ) -> None:
        self._certificate = certificate
        self._accounts = accounts
        self._logins = logins
        self._store = store
        self._policy = Policy(maxUnauthenticated=mostConnected, graceTime=600)

    def do_listen(self) -> dict[str, Any]:
        options = serverOptions(self._certificate)
        factory = AuthServerFactory(self._authorizer(), self._policy)
        ports = {
            "tcp": listen(factory),
            "tls": listen(factory, options),
            "accounts": self._accounts,
        }
        if self._logins:
            legacy = Policy(legacyLogin=True, defaultService=SERVICE)
            old = AuthServerFactory(self._inMemory(Hashing(4096, md5=True)), legacy)
            slow = AuthServerFactory(self._inMemory(Hashing(SLOW)), self._policy)
            ports |= {"legacy": listen(old), "slow": listen(slow)}
        return ports

    def _authorizer(self) -> Any:
        if self._store is None:
            return self._inMemory(Hashing.CHEAPEST)
        services = MultiService()
        authorizer = SQLAuthorizer(self._store, services, Hashing.CHEAPEST)
        CallerService(SERVICE, services, authorizer)
        _fill(self._store, self._accounts)
        return authorizer

    def _inMemory(self, hashing: Hashing) -> DefaultAuthorizer:
        services = MultiService()
        authorizer = DefaultAuthorizer(services, hashing)
        CallerService(SERVICE, services, authorizer)
        made = hashing.makeVerifiers(PASSWORD, _SALT)
        encoded = {name: (type(verifier), verifier.encode()) for name, verifier in made.items()}
        for number in range(self._accounts):
            identity = authorizer.createIdentity(nameOf(number))
            # Nobody's verifier is shared.
            identity.setVerifiers(
                {name: kind.decode(text) for name, (kind, text) in encoded.items()}
            )
            identity.addKeyByString(SERVICE, identity.name)
            if self._logins:
                identity.addPublicKey(_KEY.publicKey)
            identity.save()
        return authorizer


def _fill(path: str, accounts: int) -> None:
    # By the store's own methods each account is a transaction of its own, on the disk before the
    # next: right for accounts, and too slow for a million of them.
    (verifier,) = Hashing.CHEAPEST.makeVerifiers(PASSWORD, _SALT).items()
    mechanism, encoded = verifier[0], verifier[1].encode()

    def names() -> Iterator[str]:
        return map(nameOf, range(accounts))

    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA synchronous = OFF")
        with connection:
            connection.executemany(
                "INSERT INTO identities (name) VALUES (?)", ((name,) for name in names())
            )
            connection.executemany(
                "INSERT INTO verifiers (identity, mechanism, verifier) VALUES (?, ?, ?)",
                ((name, mechanism, encoded) for name in names()),
            )
            connection.executemany(
                "INSERT INTO keys (identity, service, perspective) VALUES (?, ?, ?)",
                ((name, SERVICE, name) for name in names()),
            )
        connection.execute("PRAGMA wal_checkpoint (TRUNCATE)")
    finally:
        connection.close()


class Client(LoginClient):
    """
    Args:
        certificate: the file of the servers' certificate.
        tls: calls go over TLS.
    """

    def __init__(self, certificate: str, tls: bool = False) -> None:
        super().__init__(certificate)
        self._tls = tls
        self._kept = Password(PASSWORD)
        self._stock = stock.Client(certificate)

    async def do_connect(self, tcp: int, tls: int, accounts: int, **others: int) -> None:
        name = spread(0, accounts)
        if self._tls:
            perspective = await self.logInBy_plusRemembered(tls, name)
        else:
            perspective = await self.logInBy_remembered(tcp, name)
        self.call = lambda value: perspective.callRemote("echo", value)
        self._perspective = perspective

    async def do_items(self, count: int) -> dict[str, Any]:
        """Read a stream of ints."""
        watch, expected = Watch(count), 0
        async for number in stream(self._perspective, "items", count, buffer=BUFFER):
            assert number == expected
            expected += 1
        assert expected == count
        return watch.stop()

    async def do_pieces(self, count: int) -> dict[str, Any]:
        """Read a stream of bytes."""
        watch, size = Watch(count), 0
        async for piece in stream(self._perspective, "pieces", count):
            size += len(piece)
        assert size == count * PIECE
        return watch.stop()

    # By TCP.

    def logInBy_remembered(self, port: int, name: str) -> Any:
        """SCRAM, by a `Password` that is kept, and so remembers the key."""
        return connect(HOST, port, name, self._kept, SERVICE)

    def logInBy_derived(self, port: int, name: str) -> Any:
        """SCRAM, with a derivation each time, as hard as the port's accounts are hashed."""
        return connect(HOST, port, name, PASSWORD, SERVICE)

    def logInBy_key(self, port: int, name: str) -> Any:
        """ED25519."""
        return connect(HOST, port, name, _KEY, SERVICE)

    def logInBy_legacy(self, port: int, name: str) -> Any:
        """MD5, by the client of stock PB."""
        return self._stock.logInBy_tcp(port, name)

    # Over TLS.

    def _endpoint(self, port: int) -> Any:
        # What `reactor.connectSSL` does, which the client of stock PB uses; with the same options.
        from twisted.internet import reactor

        return SSL4ClientEndpoint(reactor, HOST, port, self.tlsOptions)

    def logInBy_plusRemembered(self, port: int, name: str) -> Any:
        """SCRAM bound to the connection, by a `Password` that is kept."""
        return connect(self._endpoint(port), None, name, self._kept, SERVICE)

    def logInBy_plusDerived(self, port: int, name: str) -> Any:
        """SCRAM bound to the connection, with a derivation each time."""
        return connect(self._endpoint(port), None, name, PASSWORD, SERVICE)

    def logInBy_plusByName(self, port: int, name: str) -> Any:
        """As `logInBy_plusRemembered`; pbauth reads the endpoint, and the certificate, anew."""
        where = f"tls:{HOST}:{port}"
        return connect(where, None, name, self._kept, SERVICE, trust=self.certificate)

    def logInBy_keyByTLS(self, port: int, name: str) -> Any:
        """ED25519."""
        return connect(self._endpoint(port), None, name, _KEY, SERVICE)

    # Clients that stay.

    async def openConnection(self, port: int) -> Any:
        return await getObjectAt(HOST, port)

    async def logInHeld(self, opened: pb.RemoteReference, name: str) -> Any:
        return await logIn(opened, None, SERVICE, name, self._kept)
