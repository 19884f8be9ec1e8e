"""
pbauth: the authentication layer of Twisted's Perspective Broker.

A folder is a floor, and imports run down.  A newcomer reads the login from the top:
`pbauth.login.root` is the server's half, in the order in which a client meets its objects, and
`pbauth.client.login` mirrors it.  The nouns of the domain are in `pbauth.accounts` and
`pbauth.perspectives`; how an identity proves who it is, in `pbauth.mechanisms`.
"""

from pbauth._calling import call
from pbauth.accounts.authorizer import Authorizer
from pbauth.accounts.hashing import Derivations, Hashing
from pbauth.accounts.identity import Identity
from pbauth.accounts.memory import DefaultAuthorizer
from pbauth.accounts.verifiers import EquivalentProofs
from pbauth.admin.service import AdminService
from pbauth.audit import Audit
from pbauth.audit.events import DropReason
from pbauth.authorizers.ondemand import OnDemandAuthorizer
from pbauth.authorizers.passwd.authorizer import PasswdFileAuthorizer
from pbauth.authorizers.sql.authorizer import SQLAuthorizer
from pbauth.client.connected import connected
from pbauth.client.connector import IdentityConnector
from pbauth.client.credentials import (
    Anonymous,
    ClientCertificate,
    Password,
    PlainPassword,
    PrivateKey,
)
from pbauth.client.furtherperspectives import FurtherPerspective
from pbauth.client.knownservers import KnownServers
from pbauth.client.login import (
    Login,
    authIdentity,
    changePassword,
    connect,
    getObjectAt,
    logIn,
)
from pbauth.client.perspectiveclient import PerspectiveClient
from pbauth.client.reconnect import BackOff
from pbauth.client.vouchers import issueVoucher, listVouchers, revokeVoucher
from pbauth.cred.authorizer import CredAuthorizer
from pbauth.cred.checker import IdentityChecker
from pbauth.cred.pam import PAMChecker
from pbauth.errors import (
    CallTimeout,
    Detached,
    DuplicateGroup,
    DuplicateIdentity,
    InvalidName,
    InvalidPassword,
    KeyNotFound,
    LimitExceeded,
    LoginTimeout,
    MechanismNotSupported,
    MethodNotAllowed,
    NobodyAttached,
    NotAMember,
    NotAttached,
    NotSerializable,
    PassphraseNeeded,
    PasswordChangeRequired,
    ProtocolViolation,
    ServerNotTrusted,
    StoreError,
    TooManyAttempts,
    TooManyReferences,
    Unauthorized,
    UnknownGroup,
    UnknownVoucher,
    WireError,
    wireError,
)
from pbauth.interfaces import (
    IAccountStore,
    IAdministration,
    IAuthorizer,
    IChangesService,
    IClients,
    IConfigurableServiceFactory,
    ICredentials,
    IGroupStore,
    IIdentity,
    IMechanism,
    IPerspective,
    IPerspectiveServiceFactory,
    IPresence,
    IService,
    ISessionAdministration,
    ISessionObserver,
    ISharedAccountStore,
)
from pbauth.login.connectionlimits import ConnectionLimits
from pbauth.login.policy import Policy
from pbauth.login.root import AuthChallenger, AuthRoot, AuthServ, AuthServerFactory, IdentityWrapper
from pbauth.login.throttle import Throttle
from pbauth.mechanisms.channel import Channel
from pbauth.mechanisms.ed25519 import PublicKey
from pbauth.mechanisms.external import CertificateKey
from pbauth.mechanisms.scram import ScramVerifier
from pbauth.mechanisms.voucher import Voucher
from pbauth.net.certificates import makeCertificate
from pbauth.net.fingerprints import fingerprintOf
from pbauth.net.trust import serverOptions
from pbauth.perspectives.clients import Clients
from pbauth.perspectives.perspective import Perspective
from pbauth.perspectives.service import Service
from pbauth.perspectives.sessions import EndReason, Session, Sessions, currentSession
from pbauth.wire.broker import Broker
from pbauth.wire.remotestreams import stream
from pbauth.wire.streams import Stream, sendBytes

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
    "CallTimeout",
    "CertificateKey",
    "Channel",
    "ClientCertificate",
    "Clients",
    "ConnectionLimits",
    "CredAuthorizer",
    "DefaultAuthorizer",
    "Derivations",
    "Detached",
    "DropReason",
    "DuplicateGroup",
    "DuplicateIdentity",
    "EndReason",
    "EquivalentProofs",
    "FurtherPerspective",
    "Hashing",
    "IAccountStore",
    "IAdministration",
    "IAuthorizer",
    "IChangesService",
    "IClients",
    "IConfigurableServiceFactory",
    "ICredentials",
    "IGroupStore",
    "IIdentity",
    "IMechanism",
    "IPerspective",
    "IPerspectiveServiceFactory",
    "IPresence",
    "IService",
    "ISessionAdministration",
    "ISessionObserver",
    "ISharedAccountStore",
    "Identity",
    "IdentityChecker",
    "IdentityConnector",
    "IdentityWrapper",
    "InvalidName",
    "InvalidPassword",
    "KeyNotFound",
    "KnownServers",
    "LimitExceeded",
    "Login",
    "LoginTimeout",
    "MechanismNotSupported",
    "MethodNotAllowed",
    "NobodyAttached",
    "NotAMember",
    "NotAttached",
    "NotSerializable",
    "OnDemandAuthorizer",
    "PAMChecker",
    "PassphraseNeeded",
    "PasswdFileAuthorizer",
    "Password",
    "PasswordChangeRequired",
    "Perspective",
    "PerspectiveClient",
    "PlainPassword",
    "Policy",
    "PrivateKey",
    "ProtocolViolation",
    "PublicKey",
    "SQLAuthorizer",
    "ScramVerifier",
    "ServerNotTrusted",
    "Service",
    "Session",
    "Sessions",
    "StoreError",
    "Stream",
    "Throttle",
    "TooManyAttempts",
    "TooManyReferences",
    "Unauthorized",
    "UnknownGroup",
    "UnknownVoucher",
    "Voucher",
    "WireError",
    "authIdentity",
    "call",
    "changePassword",
    "connect",
    "connected",
    "currentSession",
    "fingerprintOf",
    "getObjectAt",
    "issueVoucher",
    "listVouchers",
    "logIn",
    "makeCertificate",
    "revokeVoucher",
    "sendBytes",
    "serverOptions",
    "stream",
    "wireError",
]
