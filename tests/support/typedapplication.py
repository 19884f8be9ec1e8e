"""An application as its author would type it: a server, a client, accounts and credentials."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.application.service import MultiService
from twisted.internet import endpoints, reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.spread import pb
from zope.interface import implementer

from pbauth import (
    AdminService,
    Anonymous,
    Audit,
    Authorizer,
    AuthServerFactory,
    BackOff,
    Channel,
    CredAuthorizer,
    DefaultAuthorizer,
    Hashing,
    IAuthorizer,
    ICredentials,
    Identity,
    IdentityChecker,
    IdentityConnector,
    IIdentity,
    IPerspective,
    IPerspectiveServiceFactory,
    KeyNotFound,
    KnownServers,
    Login,
    OnDemandAuthorizer,
    Password,
    Perspective,
    PerspectiveClient,
    Policy,
    PrivateKey,
    PublicKey,
    Service,
    SQLAuthorizer,
    Throttle,
    Unauthorized,
    changePassword,
    connect,
    getObjectAt,
    logIn,
)
from pbauth.interfaces import IClientExchange


class Player(Perspective):
    """What a user of the game holds."""

    moves: int = 0

    def attached(self, clientref: pb.RemoteReference | None, identity: IIdentity) -> Player:
        """Greet a client."""
        if clientref is not None:
            clientref.callRemote("greet", identity.name)
        return self

    def detached(self, clientref: pb.RemoteReference | None, identity: IIdentity) -> None:
        """Count nothing more."""

    async def perspective_move(self, where: str) -> int:
        """Tell the others of a move."""
        self.moves += 1
        await self.clients.callRemote("moved", where)
        game = self.getService()
        assert isinstance(game, Game)
        return game.total


class Game(Service):
    """Perspectives that are made for whoever asks."""

    perspectiveClass = Player

    @property
    def total(self) -> int:
        """The moves of all."""
        return sum(each.moves for each in self.perspectives.values() if isinstance(each, Player))

    async def getPerspectiveForIdentity(self, name: str, identity: IIdentity) -> IPerspective:
        """Refuse those who play under another's name."""
        if name != identity.name:
            raise KeyNotFound(self.getServiceName(), name)
        return await self.getPerspectiveRequest(name)

    def loadPerspective(self, name: str) -> Player:
        """Make a perspective."""
        return Player(name)


@implementer(IPerspectiveServiceFactory)
class GameFactory:
    """What ``twistd pbauth --service typed-game`` finds."""

    name = "typed-game"
    description = "A game."

    def makeService(self, serviceName: str, authorizer: IAuthorizer) -> Game:
        """Make the service."""
        return Game(serviceName, authorizer=authorizer)


@implementer(ICredentials)
class AskedPassword:
    """A password that is asked for when it is needed."""

    mechanisms = Password.mechanisms
    clientCertificate = None

    def __init__(self, ask: Callable[[], str]) -> None:
        self._ask = ask

    def begin(self, mechanism: str, name: str, connection: Channel) -> IClientExchange:
        """Begin the client's half of a login."""
        return Password(self._ask()).begin(mechanism, name, connection)


class Staff(Authorizer):
    """Identities from elsewhere."""

    def getIdentityRequest(self, name: str) -> Deferred[IIdentity]:
        """Find an identity."""
        return Deferred.fromCoroutine(self._find(name))

    async def _find(self, name: str) -> IIdentity:
        if name != "boss":
            raise Unauthorized()
        boss = Identity(name, self)
        await boss.setPassword("secret")
        boss.addKeyByString("game", "boss")
        return boss


@implementer(IAuthorizer)
class Wrapped(DefaultAuthorizer):
    """An authorizer of one's own that says so."""


async def fill(authorizer: IAuthorizer, line: str) -> None:
    """Make an account, and store it."""
    alice = authorizer.createIdentity("alice")
    await alice.setPassword("secret")
    alice.addKeyByString("game", "alice")
    alice.addPublicKey(PublicKey.fromLine(line))
    alice.locked = False
    keys: list[tuple[str, str]] = alice.getAllKeys()
    await alice.save()
    assert keys


def serve(endpoint: IStreamServerEndpoint, authorizer: IAuthorizer | None = None) -> MultiService:
    """Make a server."""
    services = MultiService()
    accounts = DefaultAuthorizer(services, Hashing.CHEAPEST, audit=Audit())
    game = Game("game", services, authorizer or accounts)
    player: Player = game.createPerspective("alice")
    identity = player.makeIdentity("secret")
    identity.addKeyForPerspective(player)
    AdminService("admin", services, accounts)
    policy = Policy(mechanisms=["SCRAM-SHA-256"], throttle=Throttle(exempt=["192.0.2.0/24"]))
    factory = AuthServerFactory(authorizer or accounts, policy, reactor)
    endpoint.listen(factory)
    return services


def stores(path: str) -> list[IAuthorizer]:
    """Make one of each kind."""
    services = MultiService()

    async def create(name: str) -> IIdentity | None:
        return None

    onDemand = OnDemandAuthorizer(create, services)
    checker = IdentityChecker(onDemand)
    return [
        onDemand,
        SQLAuthorizer(path, services),
        CredAuthorizer([checker], services),
        Staff(services),
        Wrapped(),
    ]


class Screen(pb.Referenceable):
    """What the server calls."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def remote_greet(self, name: str) -> None:
        """Be greeted."""
        self.heard.append(f"greet {name}")

    def remote_moved(self, where: str) -> None:
        """Hear of a move."""
        self.heard.append(f"moved {where}")


def credentials() -> list[ICredentials]:
    """Make one of each kind that an application chooses from."""
    return [Password("secret"), AskedPassword(input), PrivateKey.fromFile("key"), Anonymous()]


async def play() -> int:
    """Log in in each of the ways."""
    endpoint = endpoints.TCP4ClientEndpoint(reactor, "localhost", 8787)
    perspective = await connect(
        "tls:example.com", None, "alice", PrivateKey.fromFile("key"), "game", client=Screen()
    )
    moves: int = await perspective.callRemote("move", "D4")
    root = await getObjectAt(endpoint, None)
    await logIn(root, None, "game", "alice", "secret")
    connector = IdentityConnector(endpoint, None, "alice", Password("secret"))
    await changePassword(await connector.requestLogin(), "changed")
    other = await connector.requestService("game", client=Screen())
    answer: Deferred[object] = other.callRemote("move", "D5")
    await answer
    await connector.disconnect()
    login = Login(endpoint, "alice", "secret", "game")
    await login.run(reactor)
    return moves


class Stays(PerspectiveClient):
    """A client that stays."""

    def attached(self, perspective: pb.RemoteReference) -> None:
        """Begin."""
        perspective.callRemote("move", "D4")


def stay() -> Stays:
    """Make a client that stays logged in."""
    client = Stays(
        "tls:example.com", "secret", "game", "alice", Screen(), retryPolicy=BackOff(attempts=3)
    )
    client.startService()
    called: Awaitable[object] = client.callRemote("move", "D6")
    assert called
    return client


def trust(path: str) -> Deferred[str | None]:
    """Ask whether a server is known."""

    async def ask(address: str, fingerprint: str) -> bool:
        return address.startswith("example.com")

    return KnownServers(path, ask).trustFor("tls:example.com")
