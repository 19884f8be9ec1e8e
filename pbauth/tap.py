"""``twistd pbauth``: the server as a Twisted plugin."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, NoReturn

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import IService as IAnyService
from twisted.application.service import MultiService, Service
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.strcred import AuthOptionMixin
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.plugin import getPlugins
from twisted.python import usage
from twisted.python.reflect import namedAny

from pbauth.authorizers.cred import CredAuthorizer
from pbauth.authorizers.sql import SQLAuthorizer
from pbauth.errors import StoreError
from pbauth.guard import Guard
from pbauth.interfaces import IPerspectiveServiceFactory
from pbauth.mechanisms import ed25519, external, plain
from pbauth.names import checkName
from pbauth.policy import Policy
from pbauth.ports import DEFAULT_PORT, NotProtected, Port, Ports
from pbauth.reactors import chooseReactor
from pbauth.root import AuthServerFactory
from pbauth.state import DEFAULT_FOLDER, openAuthorizer, openCertificate

_log = Logger()

DEFAULT_SERVICE = "echo"


def _stop(message: str) -> NoReturn:
    # A usage.UsageError would bury the line under a screenful of twistd's own help.
    raise SystemExit(f"pbauth: {message}")


def findFactories() -> dict[str, Any]:
    """
    Returns:
        The `IPerspectiveServiceFactory` plugins that Twisted finds, by name.
    """
    found: Iterable[Any] = getPlugins(IPerspectiveServiceFactory)
    return {plugin.name: plugin for plugin in sorted(found, key=lambda plugin: plugin.name)}


class Options(usage.Options, AuthOptionMixin):
    """The options of ``twistd pbauth``."""

    synopsis = "[options]"
    longdesc = (
        "A server of perspectives for identities that log in. "
        "Accounts are made by the command: pbauth user add NAME"
    )
    supportedInterfaces = (IUsernamePassword,)
    optFlags = [  # noqa: RUF012 - as usage.Options has it
        ["insecure", None, "Take logins from other machines without TLS, too."],
        [
            "proxy-protocol",
            None,
            "Every connection comes from a load balancer, and begins with the PROXY header. "
            "Nobody else may reach the ports: whoever does can name any address.",
        ],
        ["legacy-login", None, "Let clients of Twisted 1.x and stock Twisted in, by MD5."],
    ]
    optParameters = [  # noqa: RUF012 - as usage.Options has it
        [
            "state",
            None,
            DEFAULT_FOLDER,
            "The folder of the accounts. Made if there is none, for its owner only.",
        ],
        [
            "default-service",
            None,
            None,
            "The service that clients of stock Twisted get, which can't name one. "
            "By default the only one there is.",
        ],
        ["guest", None, None, "The user that anonymous clients are. By default there is none."],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["ports"] = []
        self["services"] = {}
        self["mechanisms"] = []
        self["credCheckers"] = []

    def getUsage(self, width: int | None = None) -> str:
        """The help, with the services that there are."""
        found = [f"  {each.name:<10}  {each.description}" for each in findFactories().values()]
        return "\n".join(
            [super().getUsage(width).rstrip(), "Services that --service finds by name:", *found, ""]
        )

    def opt_port(self, description: str) -> None:
        """
        Where to listen: a Twisted endpoint. An ssl: that names no privateKey= uses a certificate of
        the state folder. May be given more than once. [default: ssl:8787:interface=127.0.0.1]
        """
        self["ports"].append(description)

    def opt_service(self, description: str) -> None:
        """
        A service to run: NAME, of a plugin, or NAME=dotted.python.name, of a class of services, or
        of what is called with the name and the authorizer. May be given more than once.
        [default: echo]
        """
        name, _, dotted = description.partition("=")
        try:
            checkName(name, "name of a service")
        except ValueError as mistake:
            _stop(str(mistake))
        if name in self["services"]:
            _stop(f"There are two services named {name!r}. Give each a name of its own.")
        self["services"][name] = _importMaker(dotted) if dotted else _findMaker(name)

    def opt_mechanism(self, name: str) -> None:
        """
        A mechanism to log in by, strongest first. May be given more than once.
        [default: SCRAM-SHA-256-PLUS, SCRAM-SHA-256 and ED25519; with --auth: PLAIN and ED25519]
        """
        self["mechanisms"].append(name)

    def opt_auth(self, description: str) -> None:
        """
        Let passwords be checked elsewhere: TYPE:ARGUMENT of a twisted.cred plugin (file:PATH).
        Clients then log in by PLAIN. Keys are still granted to users of the state folder.
        """
        try:
            super().opt_auth(description)
        except usage.UsageError as mistake:
            _stop(
                f"--auth {description.partition(':')[0]}: {mistake}. See: twistd pbauth --help-auth"
            )

    def postOptions(self) -> None:
        """Fill in the defaults."""
        if not self["ports"]:
            self.opt_port(DEFAULT_PORT)
        if not self["services"]:
            self.opt_service(DEFAULT_SERVICE)
        services = list(self["services"])
        if self["default-service"] is None and len(services) == 1:
            (self["default-service"],) = services
        if self["default-service"] not in (None, *services):
            _stop(f"--default-service {self['default-service']}: there is no such --service.")

    def policy(self) -> Policy:
        """The server's policy."""
        chosen = self["mechanisms"]
        if not chosen and self["credCheckers"]:
            chosen = [plain.NAME, ed25519.NAME]
        try:
            return Policy(
                **({"mechanisms": chosen} if chosen else {}),
                legacyLogin=bool(self["legacy-login"]),
                defaultService=self["default-service"],
                guest=self["guest"],
            )
        except ValueError as mistake:
            _stop(str(mistake))


def _findMaker(name: str) -> Any:
    factories = findFactories()
    if name not in factories:
        _stop(
            f"There is no service {name!r}. Found: {', '.join(factories)}. "
            f"For one of your own say --service {name}=dotted.python.name"
        )
    return factories[name].makeService


def _importMaker(dotted: str) -> Any:
    sys.path.insert(0, "")
    try:
        found = namedAny(dotted)
    except Exception as error:
        # The module is the user's: whatever it raises is the answer.
        _stop(f"Can't import {dotted!r} ({type(error).__name__}: {error}).")
    finally:
        sys.path.remove("")
    if isinstance(found, type):
        if IAnyService.implementedBy(found):
            return lambda name, authorizer: found(name, authorizer=authorizer)  # type: ignore
        if IPerspectiveServiceFactory.implementedBy(found):
            return found().makeService  # type: ignore
    maker = getattr(found, "makeService", found)
    if not callable(maker):
        _stop(f"{dotted!r} can't be called to make a service.")
    return maker


class PortService(StreamServerEndpointService):
    """
    Listens on one port, says so, and ends the program with one line if it can't.

    Args:
        port: where.
        factory: for the connections.
    """

    def __init__(self, port: Port, factory: AuthServerFactory) -> None:
        super().__init__(port.endpoint, factory)
        self._raiseSynchronously = True
        self._port = port
        self._refusal: NotProtected | None = None

    def privilegedStartService(self) -> None:
        """Listen."""
        try:
            super().privilegedStartService()
        except (CannotListenError, OSError) as error:
            reason = getattr(error, "socketError", error)
            message = (
                f"Can't listen on {self._port.description}: "
                f"{getattr(reason, 'strerror', None) or reason}. "
                "Choose another --port, or end what uses it."
            )
            _stop(message)
        waiting: Any = self._waitingForPort
        waiting.addCallback(self._listening)
        if self._refusal is not None:
            _stop(str(self._refusal))

    def _listening(self, port: Any) -> Any:
        address = port.getHost()
        try:
            self._port.check(address)
        except NotProtected as refusal:
            _log.critical("{refusal}", refusal=refusal)
            self._refusal = refusal
            port.stopListening()
            return port
        where = getattr(address, "name", None) or f"{address.host}:{address.port}"
        if isinstance(where, bytes):
            where = where.decode("utf-8", "replace")
        if self._port.fingerprint is None:
            _log.info("Listening on {where}", where=where)
        else:
            _log.info(
                "Listening on {where} by TLS, with the key {fingerprint}",
                where=where,
                fingerprint=self._port.fingerprint,
            )
        return port


class StoreService(Service):
    """
    Closes the accounts when the server stops.

    Args:
        authorizer: has them open.
    """

    def __init__(self, authorizer: SQLAuthorizer) -> None:
        self._authorizer = authorizer

    def stopService(self) -> None:
        """Close them."""
        super().stopService()
        self._authorizer.close()


def makeService(options: Options) -> MultiService:
    """
    Make the server.

    Args:
        options: parsed.

    Returns:
        The service that holds everything: the accounts, the services and the ports.
    """
    reactor = chooseReactor()
    policy = options.policy()
    server = MultiService()
    services = MultiService()
    ports = Ports(
        reactor,
        lambda: openCertificate(options["state"]),
        insecure=bool(options["insecure"]),
        proxyProtocol=bool(options["proxy-protocol"]),
        askForCertificate=external.NAME in policy.mechanisms,
    )
    try:
        listening = [ports.read(description) for description in options["ports"]]
        accounts = openAuthorizer(options["state"], serviceCollection=services, reactor=reactor)
    except (StoreError, ValueError) as error:
        _stop(str(error))
    authorizer: Any = accounts
    if options["credCheckers"]:
        authorizer = CredAuthorizer(options["credCheckers"], services, accounts=accounts)
    for name, make in options["services"].items():
        made = make(name, authorizer)
        if not IAnyService.providedBy(made):
            _stop(f"What makes the service {name!r} gave {type(made).__name__}, not a service.")
        made.setName(name)
        made.setServiceParent(services)
    StoreService(accounts).setServiceParent(server)
    services.setServiceParent(server)
    guard = Guard(policy, reactor)
    for port in listening:
        factory = AuthServerFactory(authorizer, policy, reactor, guard)
        PortService(port, factory).setServiceParent(server)
    return server
