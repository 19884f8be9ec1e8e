"""``twistd pbauth``: the server as a Twisted plugin."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from twisted.application.service import MultiService
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.strcred import AuthOptionMixin
from twisted.python import usage
from twisted.python.reflect import accumulateClassList

from pbauth._async import chooseReactor
from pbauth._time import useMonotonicClock
from pbauth.admin.protocol import NAME as ADMIN
from pbauth.errors import StoreError
from pbauth.login.policy import Policy, defaultMechanisms
from pbauth.login.throttle import Throttle
from pbauth.net.listening import DEFAULT_PORT
from pbauth.server.assembly import assemble
from pbauth.server.configurationfile import FILE_VARIABLE, fromEnvironment, readFile
from pbauth.server.draining import DRAIN_TIME
from pbauth.server.services import stop
from pbauth.server.settings import (
    DEFAULT_SERVICE,
    ServiceSettings,
    Settings,
    SettingsError,
    findFactories,
    parametersOf,
)
from pbauth.server.state import DEFAULT_FOLDER, makeFolder

# The options that may be given more than once.
_LISTS = ("port", "service", "mechanism", "auth")


def _seconds(text: str | float) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= 86_400:
        raise ValueError(f"--drain takes a number of seconds from 0 to 86400, not {text!r}")
    return seconds


class Options(usage.Options, AuthOptionMixin):
    """The options of ``twistd pbauth``."""

    synopsis = "[options]"
    longdesc = (
        "A server on which identities log in and get perspectives. "
        "Create accounts with: pbauth user add NAME"
    )
    supportedInterfaces = (IUsernamePassword,)
    optFlags = [  # noqa: RUF012 - as usage.Options has it
        ["insecure", None, "Also take logins from other machines without TLS."],
        [
            "proxy-protocol",
            None,
            "Every connection comes from a load balancer, and begins with the PROXY header. "
            "Nobody else may reach the ports, since a client there can claim any address.",
        ],
        [
            "auth-groups",
            None,
            "With --auth: a user is in a group of the accounts if they are in the Unix group of "
            "the same name.",
        ],
        [
            "no-vouchers",
            None,
            "Do not issue vouchers, and let nobody log in with one.",
        ],
        [
            "no-admin",
            None,
            "Do not run the service admin, through which holders of a key to it administer the "
            "accounts (pbauth --server).",
        ],
        [
            "legacy-login",
            None,
            "Accept clients of Twisted 1.x and stock Twisted, which log in with MD5.",
        ],
    ]
    optParameters = [  # noqa: RUF012 - as usage.Options has it
        [
            "config",
            None,
            None,
            "A configuration file in TOML, with the names of these options as keys. Options on "
            "the command line come first. By default, what PBAUTH_CONFIG names, if it is set.",
        ],
        [
            "state",
            None,
            DEFAULT_FOLDER,
            "The folder of the accounts. If it does not exist, it is created for its owner only. "
            "Also set by PBAUTH_STATE.",
        ],
        [
            "accounts",
            None,
            None,
            "Accounts elsewhere: sqlite:FILE, passwd:FILE, or postgresql://user@host/database, "
            "which many servers may share. Also set by PBAUTH_ACCOUNTS.",
        ],
        [
            "default-service",
            None,
            None,
            "The service for clients of stock Twisted, which can't name one. "
            "By default, the only service besides admin.",
        ],
        [
            "guest",
            None,
            None,
            "The identity that anonymous clients log in as. By default, they are refused.",
        ],
        [
            "throttle",
            None,
            None,
            "How much failed logins are slowed down: off, or any of free=FAILURES a minute, "
            "longest=SECONDS, checks=PASSWORDS at once and exempt=NETWORK, separated by commas. "
            "By default free=5,longest=600,checks=4.",
        ],
        [
            "client-limits",
            None,
            None,
            "How much a client may ask for after its login: any of sessions=N of one identity, "
            "calls=N a second, burst=N calls after a pause, at-once=N calls and bytes=N in a "
            "message, separated by commas. By default there are no limits.",
        ],
        [
            "audit",
            None,
            None,
            "Append a line of JSON to this file for each login, refusal, session and limit; - is "
            "the standard output. "
            "SIGHUP opens the file again. Also set by PBAUTH_AUDIT.",
        ],
        [
            "metrics",
            None,
            None,
            "Where to serve metrics for Prometheus, a Twisted endpoint: tcp:9187:interface="
            "127.0.0.1, as http://127.0.0.1:9187/metrics. Needs the package prometheus-client.",
        ],
        [
            "health",
            None,
            None,
            "Where to serve /healthz and /readyz, for load balancers and container runtimes, a "
            "Twisted endpoint as for --metrics. By default, they are where the metrics are.",
        ],
        [
            "drain",
            None,
            DRAIN_TIME,
            "Seconds that calls under way have to end after SIGTERM, before the server stops. "
            "Clients that stay connected attach to another server meanwhile, if there is one. "
            "A second SIGTERM, and Ctrl-C, stop it at once; so does the first if this is 0.",
            _seconds,
        ],
    ]

    def __new__(cls) -> Options:
        """Create the options, together with those of the services that are installed."""
        found = [
            [name, None, default, f"{text} (for --service {factory.name})"]
            for factory in findFactories().values()
            for name, default, text in parametersOf(factory)
        ]
        return super().__new__(type(cls.__name__, (cls,), {"optParameters": found}))

    def __init__(self) -> None:
        super().__init__()
        self["ports"] = []
        self["services"] = []
        self["mechanisms"] = []
        self["credCheckers"] = []

    def parseOptions(self, options: Any = None) -> None:
        """Parse the options of the command line, and add what the file and the environment say."""
        given = [*(sys.argv[1:] if options is None else options)]
        try:
            self._configure(given)
        except ValueError as mistake:
            stop(str(mistake))
        super().parseOptions(given)

    @classmethod
    def schema(cls) -> dict[str, type]:
        """Return what a configuration file may say: each key, and the type of its value."""
        found: dict[str, list[Any]] = {"optFlags": [], "optParameters": []}
        for name, options in found.items():
            accumulateClassList(cls, name, options)
        flags = {flag[0]: bool for flag in found["optFlags"]}
        texts = {
            # What is converted is a number.
            each[0]: float if len(each) > 4 else str
            for each in found["optParameters"]
            if each[0] != "config"
        }
        return {**flags, **texts, **dict.fromkeys(_LISTS, list)}

    def _configure(self, given: list[str]) -> None:
        """Put in front of the options what the file and the environment say in their place."""
        path = os.environ.get(FILE_VARIABLE)
        names = set()
        for place, option in enumerate(given):
            name, equals, value = option.partition("=")
            names.add(name.removeprefix("--"))
            if name == "--config":
                path = value if equals else "".join(given[place + 1 : place + 2])
        said: dict[str, Any] = readFile(path, self.schema()) if path else {}
        said |= fromEnvironment(os.environ)
        front = []
        for name, value in said.items():
            if isinstance(value, list):
                # A list on the command line takes the place of that in the file.
                front += [f"--{name}={each}" for each in value if name not in names]
            elif isinstance(value, bool):
                front += [f"--{name}"] * value
            else:
                front.append(f"--{name}={value}")
        given[:0] = front

    def getUsage(self, width: int | None = None) -> str:
        """Return the help, with the services that are installed."""
        found = [f"  {each.name:<10}  {each.description}" for each in findFactories().values()]
        return "\n".join(
            [super().getUsage(width).rstrip(), "Services that --service finds by name:", *found, ""]
        )

    def opt_port(self, description: str) -> None:
        """
        Where to listen: a Twisted endpoint. An ssl: one without privateKey= uses the certificate
        in the state folder. May be given more than once. [default: ssl:8787:interface=127.0.0.1]
        """
        self["ports"].append(description)

    def opt_service(self, description: str) -> None:
        """
        A service to run: NAME, from a plugin, or NAME=dotted.python.name, which is a class of
        services, or is called with the name and the authorizer. May be given more than once.
        [default: echo]
        """
        self["services"].append(description)

    def opt_mechanism(self, name: str) -> None:
        """
        A mechanism to offer for logins, strongest first. May be given more than once.
        [default: SCRAM-SHA-256-PLUS, SCRAM-SHA-256 and ED25519; with --auth: PLAIN and ED25519]
        """
        self["mechanisms"].append(name)

    def opt_auth(self, description: str) -> None:
        """
        Have passwords checked elsewhere: TYPE:ARGUMENT of a twisted.cred plugin (file:PATH).
        Clients then log in with PLAIN. Keys are still granted to users of the state folder.
        """
        try:
            super().opt_auth(description)
        except usage.UsageError as mistake:
            # What a plugin says is meant for people, and expected.
            said = str(mistake).removeprefix("Unexpected error: ").rstrip(".")
            stop(f"--auth {description.partition(':')[0]}: {said}. See: twistd pbauth --help-auth")

    def postOptions(self) -> None:
        """Check that the options make a server."""
        try:
            self._settings = self._read()
        except ValueError as mistake:
            stop(str(mistake))

    def settings(self) -> Settings:
        """
        Return the settings that the options make up.

        Returns:
            The settings of the server.
        """
        return self._settings

    def _read(self) -> Settings:
        services = [self._readService(each) for each in self["services"] or [DEFAULT_SERVICE]]
        names = [service.name for service in services]
        for factory in findFactories().values():
            for option, default, _ in parametersOf(factory):
                if self[option] != default and factory.name not in names:
                    raise SettingsError(f"--{option} goes with --service {factory.name}.")
        others = {*names} - {ADMIN}
        (only,) = others if len(others) == 1 else (None,)
        return Settings(
            state=self["state"],
            accounts=self["accounts"],
            checkers=tuple(self["credCheckers"]),
            authGroups=bool(self["auth-groups"]),
            ports=tuple(self["ports"]) or (DEFAULT_PORT,),
            insecure=bool(self["insecure"]),
            proxyProtocol=bool(self["proxy-protocol"]),
            services=tuple(services),
            admin=not self["no-admin"],
            policy=Policy(
                mechanisms=self["mechanisms"] or defaultMechanisms(bool(self["credCheckers"])),
                legacyLogin=bool(self["legacy-login"]),
                defaultService=self["default-service"] or only,
                guest=self["guest"],
                vouchers=not self["no-vouchers"],
                throttle=_readThrottle(self["throttle"]),
                **_readClientLimits(self["client-limits"]),
            ),
            audit=self["audit"],
            metrics=self["metrics"],
            health=self["health"],
            drain=self["drain"],
        )

    def _readService(self, description: str) -> ServiceSettings:
        name, _, dotted = description.partition("=")
        if dotted:
            return ServiceSettings.ofClass(name, dotted)
        return ServiceSettings.ofPlugin(name, self)


def _readThrottle(text: str | None) -> bool | Throttle:
    if text is None or text == "off":
        return text is None
    try:
        return Throttle.fromText(text)
    except ValueError as mistake:
        raise SettingsError(f"--throttle {text}: {mistake}") from None


_CLIENT_LIMITS: dict[str, tuple[str, Callable[[str], float]]] = {
    "sessions": ("maxSessions", int),
    "calls": ("maxCallsPerSecond", float),
    "burst": ("callBurst", int),
    "at-once": ("maxCallsAtOnce", int),
    "bytes": ("maxMessageBytes", int),
}


def _readClientLimits(text: str | None) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    for part in [] if text is None else text.split(","):
        key, _, value = part.strip().partition("=")
        name, read = _CLIENT_LIMITS.get(key, ("", float))
        try:
            limits[name] = read(value)
            Policy(**{"maxCallsPerSecond": 1, name: limits[name]})
        except (ValueError, TypeError):
            raise SettingsError(
                f"--client-limits {text}: {part.strip()!r} is none of "
                f"{', '.join(f'{each}=N' for each in _CLIENT_LIMITS)}, with N over 0."
            ) from None
    if "callBurst" in limits and "maxCallsPerSecond" not in limits:
        raise SettingsError(f"--client-limits {text}: burst=N needs calls=N.")
    return limits


def makeService(options: Options) -> MultiService:
    """
    Create the server.

    Args:
        options: parsed.

    Returns:
        The service that holds everything: the accounts, the services and the ports.
    """
    reactor = chooseReactor()
    useMonotonicClock(reactor)
    settings = options.settings()
    try:
        owner = _userOf(getattr(options, "parent", None) or {})
        if owner is not None:
            # The server will run as that user, who must be able to use what is made here.
            makeFolder(settings.state, owner)
        return assemble(settings, reactor)
    except (SettingsError, StoreError) as mistake:
        stop(str(mistake))


def _userOf(program: Any) -> tuple[int, int] | None:
    """Return the user and the group that ``twistd --uid`` names, for a server that root starts."""
    uid, gid = program.get("uid"), program.get("gid")
    if uid is None or os.geteuid() != 0:
        return None
    import pwd

    return uid, pwd.getpwuid(uid).pw_gid if gid is None else gid
