"""
pbauth: the authentication layer of Twisted's Perspective Broker.

A newcomer reads the login from the top: `pbauth.root` is the server's half, in the order in which
a client meets its objects, and `pbauth.client` mirrors it.  The nouns of the domain have a module
each: `pbauth.identity`, `pbauth.authorizer`, `pbauth.service`, `pbauth.perspective`; how an
identity proves who it is stands in `pbauth.mechanisms`.
"""

from pbauth.adminservice import AdminService
from pbauth.audit import Audit, DropReason
from pbauth.authorizer import Authorizer, DefaultAuthorizer
from pbauth.authorizers.cred import CredAuthorizer
from pbauth.authorizers.ondemand import OnDemandAuthorizer
from pbauth.authorizers.pam import PAMChecker
from pbauth.authorizers.passwdfile import PasswdFileAuthorizer
from pbauth.authorizers.sql import SQLAuthorizer
from pbauth.broker import Broker
from pbauth.checker import IdentityChecker
from pbauth.client import authIdentity, changePassword, connect, getObjectAt, logIn
from pbauth.clients import Clients
from pbauth.connector import IdentityConnector
from pbauth.credentials import (
    Anonymous,
    ClientCertificate,
    Password,
    PlainPassword,
    PrivateKey,
)
from pbauth.errors import (
    Detached,
    DuplicateIdentity,
    InvalidName,
    InvalidPassword,
    KeyNotFound,
    LoginTimeout,
    MechanismNotSupported,
    NobodyAttached,
    NotAttached,
    ProtocolViolation,
    ServerNotTrusted,
    StoreError,
    TooManyAttempts,
    Unauthorized,
)
from pbauth.hashing import Hashing
from pbauth.identity import Identity
from pbauth.identitywrapper import IdentityWrapper
from pbauth.interfaces import (
    IAccountStore,
    IAuthorizer,
    IClients,
    IConfigurableServiceFactory,
    ICredentials,
    IIdentity,
    IMechanism,
    IPerspective,
    IPerspectiveServiceFactory,
    IService,
    ISharedAccountStore,
)
from pbauth.mechanisms.ed25519 import PublicKey
from pbauth.mechanisms.external import CertificateKey
from pbauth.perspective import Perspective
from pbauth.perspectiveclient import PerspectiveClient
from pbauth.policy import Policy
from pbauth.reconnecting import BackOff
from pbauth.root import (
    AuthChallenger,
    AuthRoot,
    AuthServ,
    AuthServerFactory,
)
from pbauth.service import Service
from pbauth.sessions import EndReason, Session, Sessions

__version__ = "0.1.0"

__all__ = [
    "AdminService",
    "Anonymous",
    "Audit",
    "AuthChallenger",
    "AuthRoot",
    "AuthServ",
    "AuthServerFactory",
    "Authorizer",
    "BackOff",
    "Broker",
    "CertificateKey",
    "ClientCertificate",
    "Clients",
    "CredAuthorizer",
    "DefaultAuthorizer",
    "Detached",
    "DropReason",
    "DuplicateIdentity",
    "EndReason",
    "Hashing",
    "IAccountStore",
    "IAuthorizer",
    "IClients",
    "IConfigurableServiceFactory",
    "ICredentials",
    "IIdentity",
    "IMechanism",
    "IPerspective",
    "IPerspectiveServiceFactory",
    "IService",
    "ISharedAccountStore",
    "Identity",
    "IdentityChecker",
    "IdentityConnector",
    "IdentityWrapper",
    "InvalidName",
    "InvalidPassword",
    "KeyNotFound",
    "LoginTimeout",
    "MechanismNotSupported",
    "NobodyAttached",
    "NotAttached",
    "OnDemandAuthorizer",
    "PAMChecker",
    "PasswdFileAuthorizer",
    "Password",
    "Perspective",
    "PerspectiveClient",
    "PlainPassword",
    "Policy",
    "PrivateKey",
    "ProtocolViolation",
    "PublicKey",
    "SQLAuthorizer",
    "ServerNotTrusted",
    "Service",
    "Session",
    "Sessions",
    "StoreError",
    "TooManyAttempts",
    "Unauthorized",
    "authIdentity",
    "changePassword",
    "connect",
    "getObjectAt",
    "logIn",
]
