"""
What a server is, as one value.

``twistd pbauth`` reads its options into a `Settings`, and `pbauth.server.assembly` makes the server
of it.  Whatever is wrong with them is said here, in one line that a user can act on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from attrs import Attribute, field, frozen
from twisted.application.service import IService
from twisted.plugin import getPlugins
from twisted.python.reflect import namedAny

from pbauth.admin.protocol import NAME as ADMIN
from pbauth.errors import InvalidName
from pbauth.interfaces import IConfigurableServiceFactory, IPerspectiveServiceFactory
from pbauth.login.policy import Policy
from pbauth.names import checkName
from pbauth.net.listening import DEFAULT_PORT
from pbauth.server.draining import DRAIN_TIME
from pbauth.server.state import DEFAULT_FOLDER

#: The service that runs unless another one is named.
DEFAULT_SERVICE = "echo"


class SettingsError(ValueError):
    """The settings make no server; the text says why, and what to do."""


def findFactories() -> dict[str, Any]:
    """
    Return the plugins that make services.

    Returns:
        The `IPerspectiveServiceFactory` plugins that Twisted finds, by name.
    """
    found: Iterable[Any] = getPlugins(IPerspectiveServiceFactory)
    return {plugin.name: plugin for plugin in sorted(found, key=lambda plugin: plugin.name)}


def parametersOf(factory: Any) -> list[tuple[str, str | None, str]]:
    """
    Return the options that a service has of its own.

    Args:
        factory: an `IPerspectiveServiceFactory`.

    Returns:
        Name, default and text of each.
    """
    configurable = IConfigurableServiceFactory.providedBy(factory)
    return list(factory.parameters) if configurable else []


def _checkServiceName(name: str) -> str:
    try:
        return checkName(name, "name of a service")
    except InvalidName as mistake:
        raise SettingsError(str(mistake)) from None


@frozen
class ServiceSettings:
    """
    A service to run.

    Attributes:
        name: that it runs under.
        make: makes it, of the name and the authorizer.
    """

    name: str = field(converter=_checkServiceName)
    make: Callable[[str, Any], Any]

    @classmethod
    def ofPlugin(cls, name: str, options: Mapping[str, str | None]) -> ServiceSettings:
        """
        Find a service by the name of its plugin.

        Args:
            name: of the plugin; the service runs under this name.
            options: the values of its options, by name, and maybe others.

        Raises:
            SettingsError: there is no such plugin.
        """
        factories = findFactories()
        factory = factories.get(_checkServiceName(name))
        if factory is None:
            here = os.path.isdir(os.path.join("twisted", "plugins"))
            raise SettingsError(
                f"There is no service {name!r}. Found: {', '.join(factories)}. "
                f"For one of your own use --service {name}=dotted.python.name"
                + ("; for plugins of this folder: PYTHONPATH=. twistd pbauth ..." if here else "")
            )
        given = {
            option.replace("-", "_"): options.get(option, default)
            for option, default, _ in parametersOf(factory)
        }
        return cls(
            name,
            lambda serviceName, authorizer: factory.makeService(serviceName, authorizer, **given),
        )

    @classmethod
    def ofClass(cls, name: str, dotted: str) -> ServiceSettings:
        """
        Find a service by a dotted Python name.

        Args:
            name: that it is to run under.
            dotted: of a class of services, or of what is called with the name and the authorizer.

        Raises:
            SettingsError: it can't be imported, or can't make a service.
        """
        _checkServiceName(name)
        sys.path.insert(0, "")
        try:
            found: Any = namedAny(dotted)
        except Exception as error:
            # The module is the user's: whatever it raises is the answer.
            raise SettingsError(
                f"Can't import {dotted!r} ({type(error).__name__}: {error})."
            ) from None
        finally:
            sys.path.remove("")
        if isinstance(found, type):
            made: Any = found
            if IService.implementedBy(found):
                return cls(name, lambda name, authorizer: made(name, authorizer=authorizer))
            if IPerspectiveServiceFactory.implementedBy(found):
                return cls(name, made().makeService)
        maker = getattr(found, "makeService", found)
        if not callable(maker):
            raise SettingsError(f"{dotted!r} can't be called to create a service.")
        return cls(name, maker)


def _checkServices(
    instance: Settings, attribute: Attribute[Any], services: tuple[ServiceSettings, ...]
) -> None:
    names = [service.name for service in services]
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(
                f"There are two services named {name!r}. Give each a name of its own."
            )


@frozen(kw_only=True)
class Settings:
    """
    What a server is.

    Attributes:
        state: the path of the state folder.
        accounts: where the accounts are, as for `pbauth.server.state.openAuthorizer`; `None`: in
            the state folder.
        checkers: check passwords elsewhere, `twisted.cred.checkers.ICredentialsChecker`; empty: the
            accounts hold verifiers.
        authGroups: users are in the groups of their Unix groups (see
            `pbauth.cred.unixgroups`).
        ports: descriptions of where to listen, as for `pbauth.net.listening.Ports.read`.
        insecure: plain connections from other machines are wanted.
        proxyProtocol: every connection comes from a load balancer, and begins with its header.
        services: to run.
        admin: whether to run the service ``admin``.
        policy: limits and switches of logins.
        audit: the path of the file for the audit log, or `None`.
        metrics: the description of where to serve metrics, or `None`.
        health: the description of where to serve the pages on health, or `None`: where the metrics
            are.
        drain: seconds that calls under way have to end after SIGTERM, before the server stops.

    Raises:
        SettingsError: they make no server.
    """

    state: str = DEFAULT_FOLDER
    accounts: str | None = None
    checkers: tuple[Any, ...] = ()
    authGroups: bool = False
    ports: tuple[str, ...] = (DEFAULT_PORT,)
    insecure: bool = False
    proxyProtocol: bool = False
    services: tuple[ServiceSettings, ...] = field(validator=_checkServices)
    admin: bool = True
    policy: Policy = field(factory=Policy)
    audit: str | None = None
    metrics: str | None = None
    health: str | None = None
    drain: float = DRAIN_TIME

    @services.default
    def _defaultServices(self) -> tuple[ServiceSettings, ...]:
        return (ServiceSettings.ofPlugin(DEFAULT_SERVICE, {}),)

    def __attrs_post_init__(self) -> None:
        if self.authGroups and not self.checkers:
            raise SettingsError("--auth-groups needs --auth: pam:SERVICE, for instance.")
        wanted = self.policy.defaultService
        if wanted is not None and wanted not in self.serviceNames:
            raise SettingsError(f"--default-service {wanted}: there is no such --service.")

    @property
    def runsAdmin(self) -> bool:
        """Return whether the service ``admin`` runs beside those that are named."""
        return self.admin and all(service.name != ADMIN for service in self.services)

    @property
    def serviceNames(self) -> list[str]:
        """Return the names of all services that run."""
        return [*(service.name for service in self.services), *([ADMIN] if self.runsAdmin else [])]
