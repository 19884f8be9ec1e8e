"""``twistd pbauth``: the server as a Twisted plugin."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, NoReturn

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import IService as IAnyService
from twisted.application.service import MultiService, Service
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.plugin import getPlugins
from twisted.python import usage
from twisted.python.reflect import namedAny

from pbauth.authorizers.sql import SQLAuthorizer
from pbauth.errors import StoreError
from pbauth.interfaces import IPerspectiveServiceFactory
from pbauth.names import checkName
from pbauth.reactors import chooseReactor
from pbauth.root import AuthServerFactory
from pbauth.state import DEFAULT_FOLDER, openAuthorizer

_log = Logger()

DEFAULT_PORT = "tcp:8787:interface=127.0.0.1"
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


class Options(usage.Options):
    """The options of ``twistd pbauth``."""

    synopsis = "[options]"
    longdesc = (
        "A server of perspectives for identities that log in. "
        "Accounts are made by the command: pbauth user add NAME"
    )
    optParameters = [  # noqa: RUF012 - as usage.Options has it
        [
            "state",
            None,
            DEFAULT_FOLDER,
            "The folder of the accounts. Made if there is none, for its owner only.",
        ],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["ports"] = []
        self["services"] = {}

    def getUsage(self, width: int | None = None) -> str:
        """The help, with the services that there are."""
        found = [f"  {each.name:<10}  {each.description}" for each in findFactories().values()]
        return "\n".join(
            [super().getUsage(width).rstrip(), "Services that --service finds by name:", *found, ""]
        )

    def opt_port(self, description: str) -> None:
        """
        Where to listen: a Twisted endpoint. May be given more than once.
        [default: tcp:8787:interface=127.0.0.1]
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

    def postOptions(self) -> None:
        """Fill in the defaults."""
        if not self["ports"]:
            self.opt_port(DEFAULT_PORT)
        if not self["services"]:
            self.opt_service(DEFAULT_SERVICE)


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
        description: the endpoint string.
        reactor: listens.
        factory: for the connections.
    """

    def __init__(self, description: str, reactor: Any, factory: AuthServerFactory) -> None:
        try:
            endpoint = serverFromString(reactor, description)
        except (ValueError, TypeError, KeyError) as mistake:
            _stop(f"{description!r} is not an endpoint ({mistake}). One that works: {DEFAULT_PORT}")
        super().__init__(endpoint, factory)
        self._raiseSynchronously = True
        self._description = description

    def privilegedStartService(self) -> None:
        """Listen."""
        try:
            super().privilegedStartService()
        except (CannotListenError, OSError) as error:
            reason = getattr(error, "socketError", error)
            message = (
                f"Can't listen on {self._description}: "
                f"{getattr(reason, 'strerror', None) or reason}. "
                "Choose another --port, or end what uses it."
            )
            _stop(message)
        waiting: Any = self._waitingForPort
        waiting.addCallback(self._listening)

    def _listening(self, port: Any) -> Any:
        address = port.getHost()
        where = getattr(address, "name", None) or f"{address.host}:{address.port}"
        if isinstance(where, bytes):
            where = where.decode("utf-8", "replace")
        _log.info("Listening on {where}", where=where)
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
    server = MultiService()
    services = MultiService()
    try:
        authorizer = openAuthorizer(options["state"], serviceCollection=services, reactor=reactor)
    except StoreError as error:
        _stop(str(error))
    for name, make in options["services"].items():
        made = make(name, authorizer)
        if not IAnyService.providedBy(made):
            _stop(f"What makes the service {name!r} gave {type(made).__name__}, not a service.")
        made.setName(name)
        made.setServiceParent(services)
    StoreService(authorizer).setServiceParent(server)
    services.setServiceParent(server)
    for description in options["ports"]:
        PortService(description, reactor, AuthServerFactory(authorizer)).setServiceParent(server)
    return server
