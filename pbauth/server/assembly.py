"""The server that a `Settings` describes, assembled of its services."""

from __future__ import annotations

import os
from typing import Any

from attrs import evolve
from twisted.application.service import IService, MultiService

from pbauth.admin.peers import SessionPeers
from pbauth.admin.protocol import NAME as ADMIN
from pbauth.admin.service import AdminService
from pbauth.audit.file import AuditFile, AuditUnwritable
from pbauth.cred.authorizer import CredAuthorizer
from pbauth.errors import StoreError
from pbauth.interfaces import IServerMessages
from pbauth.login.connectionlimits import ConnectionLimits
from pbauth.login.drain import Drain
from pbauth.login.root import AuthServerFactory
from pbauth.net.listening import Ports
from pbauth.server.certificateexpiry import CertificateService
from pbauth.server.draining import DrainService
from pbauth.server.firstrun import FirstRun, Reach, findTerminal, howToBegin
from pbauth.server.health import ACCOUNTS, HealthSite, Readiness
from pbauth.server.notify import Notifier, NotifyService
from pbauth.server.services import (
    AuditService,
    HealthService,
    MetricsService,
    ObserverService,
    PortService,
    ReloadService,
    StoreService,
)
from pbauth.server.settings import Settings, SettingsError
from pbauth.server.state import certificatePath, openAuthorizer, openCertificate


def assemble(settings: Settings, reactor: Any) -> MultiService:
    """
    Assemble a server.

    Args:
        settings: what it is.
        reactor: that it will run on.

    Returns:
        The service that holds everything: the accounts, the services and the ports.

    Raises:
        SettingsError: something that the settings name can't be used.
    """
    metrics = None if settings.metrics is None else _importMetrics()
    server, services = MultiService(), MultiService()
    ports = Ports(
        reactor,
        lambda: openCertificate(settings.state),
        ownPath=os.path.abspath(certificatePath(settings.state)),
        insecure=settings.insecure,
        proxyProtocol=settings.proxyProtocol,
        askForCertificate=settings.policy.wantsCertificates,
    )
    try:
        listening = [ports.read(description) for description in settings.ports]
        # Prometheus is no client that comes through the load balancer, or shows a certificate.
        plainPorts = evolve(ports, proxyProtocol=False, askForCertificate=False)
        metricsPort = None if settings.metrics is None else plainPorts.read(settings.metrics)
        healthPort = None if settings.health is None else plainPorts.read(settings.health)
        accounts = openAuthorizer(
            settings.state, settings.accounts, serviceCollection=services, reactor=reactor
        )
        audit = None if settings.audit is None else AuditFile(settings.audit)
    except (StoreError, ValueError, AuditUnwritable) as error:
        raise SettingsError(str(error)) from None
    authorizer: Any = accounts
    if settings.checkers:
        kind = _importUnixGroups() if settings.authGroups else CredAuthorizer
        authorizer = kind(settings.checkers, services, accounts=accounts)
    changes = accounts.changesService()
    peers = None
    if IServerMessages.providedBy(changes):
        peers = SessionPeers(authorizer.sessions, changes, reactor)
    makeFactory: Any = AuthServerFactory
    limits = ConnectionLimits(settings.policy, reactor)
    notifying = NotifyService(reactor, Notifier.fromEnvironment(os.environ))
    draining = DrainService(
        reactor, Drain(limits, authorizer.sessions, reactor), settings.drain, notifying.stopping
    )
    _addServices(settings, services, authorizer)
    if settings.runsAdmin:
        AdminService(
            ADMIN,
            services,
            authorizer,
            accounts=accounts,
            mechanisms=settings.policy.mechanisms,
            peers=peers,
            drain=draining.request,
        )
    readiness = Readiness(
        {
            "it does not listen": lambda: all(port.listens for port in draining.ports),
            "it is draining": lambda: not draining.draining,
            ACCOUNTS: lambda: _canRead(accounts),
            "it does not notice changes of the accounts": lambda: changes.notices,
        },
        reactor,
    )
    if audit is not None:
        AuditService(reactor, audit).setServiceParent(server)
    certificates = {
        port.description: port.certificate for port in listening if port.certificate is not None
    }
    CertificateService(reactor, certificates, authorizer.sessions.audit).setServiceParent(server)
    ReloadService(
        reactor,
        [
            *(certificate.refresh for certificate in certificates.values()),
            *([] if audit is None else [audit.reopen]),
        ],
    ).setServiceParent(server)
    notifying.setServiceParent(server)
    if metrics is not None and metricsPort is not None:
        observer = metrics.Metrics(
            settings.serviceNames,
            authorizer.sessions,
            changes,
            certificates,
            readiness,
            accounts.countExpiring,
        )
        makeFactory = observer.serverFactory
        ObserverService(reactor, observer).setServiceParent(server)
        MetricsService(metricsPort, metrics.MetricsSite(observer, readiness)).setServiceParent(
            server
        )
    if healthPort is not None:
        HealthService(healthPort, HealthSite(readiness)).setServiceParent(server)
    StoreService(accounts).setServiceParent(server)
    changes.setServiceParent(server)
    services.setServiceParent(server)
    draining.setServiceParent(server)
    portServices = [
        PortService(
            port,
            makeFactory(
                authorizer, evolve(settings.policy, minimumTLS=port.minimumTLS), reactor, limits
            ),
        )
        for port in listening
    ]
    for portService in portServices:
        portService.setServiceParent(server)
    draining.ports = portServices
    if settings.runsAdmin:
        FirstRun(
            accounts,
            # Through a load balancer, wherever that is.
            Reach if settings.proxyProtocol else portServices[0].reach,
            howToBegin(settings.state, settings.accounts, bool(settings.checkers)),
            # Where passwords are kept elsewhere, none can be made here.
            None if settings.checkers else findTerminal(),
        ).setServiceParent(server)
    return server


def _importUnixGroups() -> Any:
    try:
        from pbauth.cred.unixgroups import UnixGroupsAuthorizer
    except ImportError:
        raise SettingsError("--auth-groups: this system has no Unix groups.") from None
    return UnixGroupsAuthorizer


async def _canRead(accounts: Any) -> bool:
    await accounts.listIdentities("", 1)
    return True


def _addServices(settings: Settings, services: MultiService, authorizer: Any) -> None:
    for service in settings.services:
        try:
            made = service.make(service.name, authorizer)
        except ValueError as mistake:
            raise SettingsError(
                f"The service {service.name!r} can't be created: {mistake}"
            ) from None
        if not IService.providedBy(made):
            raise SettingsError(
                f"The factory of the service {service.name!r} returned {type(made).__name__}, "
                "not a service."
            )
        made.setName(service.name)
        made.setServiceParent(services)


def _importMetrics() -> Any:
    try:
        from pbauth.server import metrics
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] != "prometheus_client":
            raise
        raise SettingsError(
            "--metrics needs one more package. Run: pip install 'pbauth[metrics]'"
        ) from None
    return metrics
