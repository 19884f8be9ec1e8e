"""``twistd pbauth``: the server as a Twisted plugin."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any

from attrs import evolve
from twisted.application.service import IService as IAnyService
from twisted.application.service import MultiService
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.strcred import AuthOptionMixin
from twisted.logger import Logger
from twisted.plugin import getPlugins
from twisted.python import usage
from twisted.python.reflect import namedAny

from pbauth._async import chooseReactor
from pbauth.admin.service import NAME as ADMIN
from pbauth.admin.service import AdminService
from pbauth.audit.file import AuditFile, AuditUnwritable
from pbauth.cred.authorizer import CredAuthorizer
from pbauth.errors import StoreError
from pbauth.interfaces import IConfigurableServiceFactory, IPerspectiveServiceFactory
from pbauth.login.connectionlimits import ConnectionLimits
from pbauth.login.policy import Policy, defaultMechanisms
from pbauth.login.root import AuthServerFactory
from pbauth.names import checkName
from pbauth.net.listening import DEFAULT_PORT, Port, Ports
from pbauth.server.firstrun import FirstRun, Reach, findTerminal, howToBegin
from pbauth.server.services import (
    AuditService,
    MetricsService,
    ObserverService,
    PortService,
    StoreService,
    stop,
)
from pbauth.server.state import DEFAULT_FOLDER, openAuthorizer, openCertificate

_log = Logger()

DEFAULT_SERVICE = "echo"


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
        [
            "no-admin",
            None,
            "Do not run the service admin, by which those who hold a key to it administer the "
            "accounts: pbauth --server",
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
            "accounts",
            None,
            None,
            "Accounts elsewhere: sqlite:FILE, passwd:FILE, or postgresql://user@host/database, "
            "which many servers may share.",
        ],
        [
            "default-service",
            None,
            None,
            "The service that clients of stock Twisted get, which can't name one. "
            "By default the only one there is, not counting admin.",
        ],
        ["guest", None, None, "The user that anonymous clients are. By default there is none."],
        [
            "audit",
            None,
            None,
            "Append a line of JSON to this file for each login, refusal, session and limit; "
            "SIGHUP opens it anew.",
        ],
        [
            "metrics",
            None,
            None,
            "Where to serve metrics for Prometheus, a Twisted endpoint: tcp:9187:interface="
            "127.0.0.1, as http://127.0.0.1:9187/metrics. Needs the package prometheus-client.",
        ],
    ]

    def __new__(cls) -> Options:
        """Make them, together with the options of the services that there are."""
        found = [
            [name, None, default, f"{text} (for --service {factory.name})"]
            for factory in findFactories().values()
            for name, default, text in _parametersOf(factory)
        ]
        return super().__new__(type(cls.__name__, (cls,), {"optParameters": found}))

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
            stop(str(mistake))
        if name in self["services"]:
            stop(f"There are two services named {name!r}. Give each a name of its own.")
        self["services"][name] = _importMaker(dotted) if dotted else self._findMaker(name)

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
            # What a plugin says is meant for people, and expected.
            said = str(mistake).removeprefix("Unexpected error: ").rstrip(".")
            stop(f"--auth {description.partition(':')[0]}: {said}. See: twistd pbauth --help-auth")

    def _findMaker(self, name: str) -> Any:
        factories = findFactories()
        if name not in factories:
            here = os.path.isdir(os.path.join("twisted", "plugins"))
            stop(
                f"There is no service {name!r}. Found: {', '.join(factories)}. "
                f"For one of your own say --service {name}=dotted.python.name"
                + ("; for plugins of this folder: PYTHONPATH=. twistd pbauth ..." if here else "")
            )
        factory = factories[name]

        def make(serviceName: str, authorizer: Any) -> Any:
            given = {
                option.replace("-", "_"): self[option] for option, _, _ in _parametersOf(factory)
            }
            return factory.makeService(serviceName, authorizer, **given)

        return make

    def postOptions(self) -> None:
        """Fill in the defaults."""
        if not self["ports"]:
            self.opt_port(DEFAULT_PORT)
        if not self["services"]:
            self.opt_service(DEFAULT_SERVICE)
        services = list(self["services"])
        for factory in findFactories().values():
            for option, default, _ in _parametersOf(factory):
                if self[option] != default and factory.name not in services:
                    stop(f"--{option} goes with --service {factory.name}.")
        if self["default-service"] is None and len({*services} - {ADMIN}) == 1:
            (self["default-service"],) = {*services} - {ADMIN}
        if self["default-service"] not in (None, *services):
            stop(f"--default-service {self['default-service']}: there is no such --service.")

    def policy(self) -> Policy:
        """The server's policy."""
        chosen = self["mechanisms"] or defaultMechanisms(bool(self["credCheckers"]))
        try:
            return Policy(
                mechanisms=chosen,
                legacyLogin=bool(self["legacy-login"]),
                defaultService=self["default-service"],
                guest=self["guest"],
            )
        except ValueError as mistake:
            stop(str(mistake))


def _parametersOf(factory: Any) -> list[tuple[str, str | None, str]]:
    """The options that a service has of its own."""
    configurable = IConfigurableServiceFactory.providedBy(factory)
    return list(factory.parameters) if configurable else []


def _importMaker(dotted: str) -> Any:
    sys.path.insert(0, "")
    try:
        found = namedAny(dotted)
    except Exception as error:
        # The module is the user's: whatever it raises is the answer.
        stop(f"Can't import {dotted!r} ({type(error).__name__}: {error}).")
    finally:
        sys.path.remove("")
    if isinstance(found, type):
        if IAnyService.implementedBy(found):
            return lambda name, authorizer: found(name, authorizer=authorizer)  # type: ignore
        if IPerspectiveServiceFactory.implementedBy(found):
            return found().makeService  # type: ignore
    maker = getattr(found, "makeService", found)
    if not callable(maker):
        stop(f"{dotted!r} can't be called to make a service.")
    return maker


def _importMetrics() -> Any:
    try:
        from pbauth.server import metrics
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] != "prometheus_client":
            raise
        stop("--metrics needs one more package. Run: pip install 'pbauth[metrics]'")
    return metrics


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
    metrics = None if options["metrics"] is None else _importMetrics()
    server = MultiService()
    services = MultiService()
    ports = Ports(
        reactor,
        lambda: openCertificate(options["state"]),
        insecure=bool(options["insecure"]),
        proxyProtocol=bool(options["proxy-protocol"]),
        askForCertificate=policy.wantsCertificates,
    )
    try:
        listening = [ports.read(description) for description in options["ports"]]
        watching = None if metrics is None else _metricsPort(ports, options["metrics"])
        accounts = openAuthorizer(
            options["state"], options["accounts"], serviceCollection=services, reactor=reactor
        )
        audit = None if options["audit"] is None else AuditFile(options["audit"])
    except (StoreError, ValueError, AuditUnwritable) as error:
        stop(str(error))
    authorizer: Any = accounts
    if options["credCheckers"]:
        authorizer = CredAuthorizer(options["credCheckers"], services, accounts=accounts)
    for name, make in options["services"].items():
        try:
            made = make(name, authorizer)
        except ValueError as mistake:
            stop(f"The service {name!r} can't be made: {mistake}")
        if not IAnyService.providedBy(made):
            stop(f"What makes the service {name!r} gave {type(made).__name__}, not a service.")
        made.setName(name)
        made.setServiceParent(services)
    administered = not options["no-admin"] and ADMIN not in options["services"]
    if administered:
        AdminService(ADMIN, services, authorizer, accounts=accounts)
    makeFactory = AuthServerFactory
    if audit is not None:
        AuditService(reactor, audit).setServiceParent(server)
    if metrics is not None and watching is not None:
        names = [*options["services"], *([ADMIN] if administered else [])]
        observer = metrics.Metrics(names, authorizer.sessions)
        makeFactory = observer.serverFactory
        ObserverService(reactor, observer).setServiceParent(server)
        MetricsService(watching, metrics.MetricsSite(observer)).setServiceParent(server)
    StoreService(accounts).setServiceParent(server)
    accounts.changesService().setServiceParent(server)
    services.setServiceParent(server)
    limits = ConnectionLimits(policy, reactor)
    portServices = [
        PortService(port, makeFactory(authorizer, policy, reactor, limits)) for port in listening
    ]
    for portService in portServices:
        portService.setServiceParent(server)
    if administered:
        first = FirstRun(
            accounts,
            # Through a load balancer, wherever that is.
            Reach if options["proxy-protocol"] else portServices[0].reach,
            howToBegin(options["state"], options["accounts"], bool(options["credCheckers"])),
            # Where passwords are kept elsewhere, none can be made here.
            None if options["credCheckers"] else findTerminal(),
        )
        first.setServiceParent(server)
    return server


def _metricsPort(ports: Ports, description: str) -> Port:
    # Prometheus is no client that comes through the load balancer, or shows a certificate.
    return evolve(ports, proxyProtocol=False, askForCertificate=False).read(description)
