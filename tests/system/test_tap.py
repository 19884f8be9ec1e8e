"""`twistd pbauth`, in processes of its own."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from twisted.application.service import MultiService
from twisted.internet.defer import gatherResults
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from pbauth import (
    AdminService,
    Hashing,
    IPerspectiveServiceFactory,
    PlainPassword,
    Policy,
    SQLAuthorizer,
    Throttle,
    Unauthorized,
    connect,
    getObjectAt,
)
from pbauth.echo import EchoService, EchoServiceFactory
from pbauth.net.certificates import makeCertificate
from pbauth.server.firstrun import FirstRun
from pbauth.server.settings import findFactories
from pbauth.tap import Options, makeService
from pbauth.testing import MemoryServer
from tests.support.processes import AS_SYSTEMD, PBAUTH, TWIST, TWISTD, Program, run

ROOT = str(Path(__file__).parent.parent.parent)
PORT = "tcp:0:interface=127.0.0.1"

DROP_IN = """
from zope.interface import implementer
from pbauth import IPerspectiveServiceFactory
from pbauth.echo import EchoService

@implementer(IPerspectiveServiceFactory)
class Factory:
    name = "dropped"
    description = "came in a file of its own"

    def makeService(self, serviceName, authorizer):
        return EchoService(serviceName, authorizer=authorizer)

dropped = Factory()
"""


CONFIGURABLE = """
from zope.interface import implementer
from pbauth import IConfigurableServiceFactory
from pbauth.echo import EchoService

@implementer(IConfigurableServiceFactory)
class Factory:
    name = "painted"
    description = "has an option of its own"
    parameters = [("wall-colour", "grey", "Of the walls.")]

    def makeService(self, serviceName, authorizer, wall_colour):
        if wall_colour == "pink":
            raise ValueError("Nobody paints walls pink.")
        print("painted", wall_colour)
        return EchoService(serviceName, authorizer=authorizer)

painted = Factory()
"""


def makeEcho(serviceName: str, authorizer: Any) -> EchoService:
    """What `--service NAME=dotted.name` may name, too."""
    return EchoService(serviceName, authorizer=authorizer)


class ServerTests(TestCase):
    """A server and its users."""

    def setUp(self) -> None:
        self.state = os.path.abspath(self.mktemp())

    async def serve(self, *arguments: str, front: tuple[str, ...] = TWISTD) -> Program:
        """Start a server, and wait until it listens."""
        server = Program(*front, "--state", self.state, *arguments, PYTHONPATH=ROOT)
        self.addCleanup(server.stop)
        await server.waitFor("Listening on ")
        return server

    async def portOf(self, server: Program) -> int:
        """The port that a server listens on."""
        return int((await server.waitFor(r"Listening on 127\.0\.0\.1:(\d+)"))[1])

    async def pbauth(self, *arguments: str) -> Program:
        """Administer; every password is `secret`."""
        program = await run(*PBAUTH, "--state", self.state, *arguments, stdin="secret\n")
        self.assertEqual(program.exitCode, 0, program.output)
        return program

    async def addAlice(self, *services: str) -> None:
        """Add alice to the accounts of a server that runs, with a password hashed cheaply."""
        authorizer = SQLAuthorizer(
            os.path.join(self.state, "accounts.sqlite"), hashing=Hashing.CHEAPEST
        )
        alice = authorizer.createIdentity("alice")
        alice.setPassword("secret")
        for service in services:
            alice.addKeyByString(service, "alice")
        await alice.save()
        authorizer.close()

    async def test_echo(self) -> None:
        """A user who is added, and granted a key, while the server runs, calls it."""
        server = await self.serve("--port", PORT)
        endpoint = f"tcp:127.0.0.1:{await self.portOf(server)}"
        await self.pbauth("user", "add", "alice", "--password-stdin")
        await self.pbauth("key", "grant", "alice", "echo")
        call = ["call", endpoint, "alice", "echo"]
        said, who, typo = await gatherResults(
            [
                Program(*PBAUTH, *call, *words, "--password-stdin", stdin="secret\n").whenEnded()
                for words in (["say", "hello"], ["whoami"], ["nonsense"])
            ]
        )
        self.assertEqual((said.output, said.exitCode), ('"hello"\n', 0))
        self.assertEqual((who.output, who.exitCode), ('["alice", "alice"]\n', 0))
        self.assertIn("No such method: perspective_nonsense", typo.output)
        self.assertEqual((typo.exitCode, typo.output.count("\n")), (1, 1))

    async def test_publicKeys(self) -> None:
        """A user logs in with a key, over TLS with a pinned server, until the key is removed."""
        server = await self.serve("--port", "ssl:0:interface=127.0.0.1")
        pin = (await server.waitFor(r"with the key (SHA256:\S+)"))[1]
        key = Ed25519PrivateKey.generate()
        private, public = (os.path.abspath(self.mktemp()) for _ in "12")
        Path(private).write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        )
        Path(private).chmod(0o600)
        line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        Path(public).write_text(f"# my keys\n\n{line} laptop\n")
        await self.addAlice("echo")
        added = await self.pbauth("user", "addkey", "alice", public)
        self.assertRegex(added.output, r"^Added SHA256:\S+ laptop\n$")
        listed = await self.pbauth("user", "keys", "alice")
        self.assertRegex(listed.output, r"^SHA256:\S+\tlaptop\n$")
        call = [
            *(*PBAUTH, "call", f"tls:localhost:{await self.portOf(server)}", "alice", "echo"),
            *("say", "hello", "--key", private),
        ]
        said = await run(*call, "--trust", pin)
        self.assertEqual((said.output, said.exitCode), ('"hello"\n', 0))
        distrusted = await run(*call)
        self.assertIn("not one that you trust", distrusted.output)
        self.assertEqual((distrusted.exitCode, distrusted.output.count("\n")), (1, 1))
        await self.pbauth("user", "rmkey", "alice", "laptop")
        refused = await run(*call, "--trust", pin)
        self.assertIn("Login refused", refused.output)
        again = await run(*PBAUTH, "--state", self.state, "user", "rmkey", "alice", "laptop")
        self.assertEqual(again.exitCode, 1)
        self.assertIn("pbauth user keys alice", again.output)

    async def test_auth(self) -> None:
        """Passwords of a file that is not ours; keys of ours. The server keeps its certificate."""
        passwords = os.path.abspath(self.mktemp())
        Path(passwords).write_text("alice:swordfish\n")
        pins = set()
        for _ in "12":
            server = await self.serve(
                "--auth", f"file:{passwords}", "--port", "ssl:0:interface=127.0.0.1"
            )
            pins.add((await server.waitFor(r"with the key (SHA256:\S+)"))[1])
            await server.stop()
        server = await self.serve(
            *("--auth", f"file:{passwords}", "--port", "ssl:0:interface=127.0.0.1")
        )
        await self.addAlice("echo")
        (pin,) = pins
        where = f"tls:127.0.0.1:{await self.portOf(server)}"
        call = [*PBAUTH, "call", where, "alice", "echo", "whoami", "--trust", pin]
        called = await run(*call, "--plain", "--password-stdin", stdin="swordfish\n")
        self.assertEqual((called.output, called.exitCode), ('["alice", "alice"]\n', 0))
        perspective = await connect(
            where, None, "alice", PlainPassword("swordfish"), "echo", trust=pin
        )
        self.assertEqual(await perspective.callRemote("whoami"), ("alice", "alice"))
        perspective.broker.transport.loseConnection()
        await perspective.broker.whenClosed()
        with self.assertRaises(Unauthorized):
            await connect(where, None, "alice", PlainPassword("secret"), "echo", trust=pin)
        self.assertNotIn("swordfish", server.output)

    async def test_certificate(self) -> None:
        """A user logs in with a TLS client certificate."""
        server = await self.serve(
            *("--mechanism", "EXTERNAL", "--port", "ssl:0:interface=127.0.0.1")
        )
        pin = (await server.waitFor(r"with the key (SHA256:\S+)"))[1]
        pem = os.path.abspath(self.mktemp())
        Path(pem).write_bytes(makeCertificate(("alice",)))
        os.chmod(pem, 0o600)
        await self.addAlice("echo")
        await self.pbauth("user", "addkey", "alice", pem)
        where = f"tls:127.0.0.1:{await self.portOf(server)}"
        call = [*PBAUTH, "call", where, "alice", "echo", "whoami", "--trust", pin]
        called = await run(*call, "--certificate", pem)
        self.assertEqual((called.output, called.exitCode), ('["alice", "alice"]\n', 0))

    async def test_systemd(self) -> None:
        """A socket that systemd opened."""
        listening = socket.socket()
        self.addCleanup(listening.close)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        server = Program(
            *("-c", AS_SYSTEMD, str(listening.fileno())),
            *(*TWISTD, "--state", self.state, "--port", "systemd:domain=INET:index=0"),
            descriptors={listening.fileno(): listening.fileno()},
            PYTHONPATH=ROOT,
        )
        self.addCleanup(server.stop)
        await server.waitFor(f"Listening on 127.0.0.1:{port}")
        await self.addAlice("echo")
        perspective = await connect("127.0.0.1", port, "alice", "secret", "echo")
        perspective.broker.transport.loseConnection()
        await perspective.broker.whenClosed()

    async def test_changesCountAtTheNextLogin(self) -> None:
        """What the command changes, a running server knows at the next login."""
        server = await self.serve("--port", PORT)
        port = await self.portOf(server)
        await self.addAlice("echo")

        async def logIn() -> None:
            perspective = await connect("127.0.0.1", port, "alice", "secret", "echo")
            perspective.broker.transport.loseConnection()
            await perspective.broker.whenClosed()

        await logIn()
        await self.pbauth("user", "lock", "alice")
        with self.assertRaises(Unauthorized):
            await logIn()
        await self.pbauth("user", "unlock", "alice")
        await logIn()
        await self.pbauth("key", "revoke", "alice", "echo")
        with self.assertRaises(Unauthorized):
            await logIn()

    async def test_portsAndServices(self) -> None:
        """Several services on one port, several ports on one authorizer, by `twist` as well."""
        path = self.mktemp()[-20:].replace("/", "_")
        server = await self.serve(
            *("--port", PORT, "--port", f"unix:{path}"),
            *("--service", "echo", "--service", "parrot=pbauth.echo.EchoService"),
            *("--service", "cuckoo=pbauth.echo.EchoServiceFactory"),
            *("--service", "finch=tests.system.test_tap.makeEcho"),
            front=TWIST,
        )
        port = await self.portOf(server)
        await server.waitFor(f"Listening on {path}")
        services = ("echo", "parrot", "cuckoo", "finch")
        await self.addAlice(*services)
        for service in services:
            for where in (("127.0.0.1", port), (f"unix:{path}", None)):
                perspective = await connect(*where, "alice", "secret", service)  # type: ignore[call-arg]
                self.assertEqual(await perspective.callRemote("say", service), service)
                perspective.broker.transport.loseConnection()
                await perspective.broker.whenClosed()

    async def test_dropIn(self) -> None:
        """An application ships a service as a file in a folder `twisted/plugins`."""
        folder = Path(os.path.abspath(self.mktemp()))
        plugins = folder / "twisted" / "plugins"
        plugins.mkdir(parents=True)
        (plugins / "dropped_plugin.py").write_text(DROP_IN)
        helped = Program(*TWISTD, "--help", PYTHONPATH=str(folder))
        await helped.whenEnded()
        self.assertRegex(helped.output, r"\n  dropped +came in a file of its own\n")
        self.assertRegex(helped.output, r"\n  echo +returns what clients send")
        server = Program(
            *(*TWISTD, "--state", self.state, "--port", PORT, "--service", "dropped"),
            PYTHONPATH=str(folder),
        )
        self.addCleanup(server.stop)
        await server.waitFor("Listening on ")

    async def test_optionsOfServices(self) -> None:
        """A service from elsewhere may have options of its own."""
        folder = Path(self.mktemp()).absolute()
        plugins = folder / "twisted" / "plugins"
        plugins.mkdir(parents=True)
        (plugins / "painted_plugin.py").write_text(CONFIGURABLE)
        environment = {"PYTHONPATH": str(folder)}
        helped = Program(*TWISTD, "--help", **environment)
        await helped.whenEnded()
        self.assertRegex(helped.output, r"--wall-colour= +Of the walls\. \(for --service painted\)")
        for given, said in (
            ((), "painted grey"),
            (("--wall-colour", "blue"), "painted blue"),
        ):
            server = Program(
                *(*TWISTD, "--state", self.state, "--port", PORT, "--service", "painted", *given),
                **environment,
            )
            self.addCleanup(server.stop)
            await server.waitFor(said)
        for wrong, said in (
            (("--service", "painted", "--wall-colour", "pink"), "Nobody paints walls pink."),
            (("--wall-colour", "blue"), "--wall-colour goes with --service painted."),
        ):
            ended = Program(*TWISTD, "--state", self.state, "--port", PORT, *wrong, **environment)
            self.addCleanup(ended.stop)
            await ended.whenEnded()
            self.assertEqual(ended.exitCode, 1)
            self.assertRegex(ended.output, rf"^pbauth: .*{said}\n$")

    async def test_stops(self) -> None:
        """A polite signal stops the server with no traceback."""
        server = await self.serve("--port", PORT)
        # It runs, once it takes a connection.
        root = await getObjectAt("127.0.0.1", await self.portOf(server))
        root.broker.transport.loseConnection()
        await root.broker.whenClosed()
        server.kill("INT")
        await server.whenEnded()
        # twistd itself ends by the signal that it was given.
        self.assertIn((server.exitCode, server.signal), [(0, None), (None, signal.SIGINT)])
        self.assertNotIn("Traceback", server.output)


class MistakeTests(TestCase):
    """Each mistake ends the program with one line that says what to do."""

    async def test_mistakes(self) -> None:
        """Ports, services, names and folders that can't be."""
        readable = os.path.abspath(self.mktemp())
        os.mkdir(readable)
        os.chmod(readable, 0o755)
        corrupt = os.path.abspath(self.mktemp())
        os.mkdir(corrupt, 0o700)
        Path(corrupt, "accounts.sqlite").write_bytes(b"this is no database" * 100)
        with closing(socket.socket()) as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            cases = [
                (["--port", port], "Address already in use. Choose another --port"),
                (["--port", "nonsense"], "'nonsense' is not an endpoint"),
                (["--port", "tcp:notanumber"], "'tcp:notanumber' is not an endpoint"),
                (["--service", "chess"], "There is no service 'chess'. Found: echo."),
                (["--service", "x=no.such.thing"], "Can't import 'no.such.thing'"),
                (["--service", "x=os.sep"], "can't be called to create a service"),
                (["--service", "=os.getcwd"], "must not be empty"),
                (["--service", "echo", "--service", "echo"], "two services named 'echo'"),
                (["--state", readable], f"chmod 700 {readable}"),
                (["--state", corrupt], "not an SQLite database"),
            ]
            programs = []
            for place, (arguments, _) in enumerate(cases):
                state = ["--state", os.path.abspath(self.mktemp())]
                programs.append(
                    Program(*TWISTD, *([] if "--state" in arguments else state), *arguments)
                )
                if place % 4 == 3:
                    await gatherResults([program.whenEnded() for program in programs])
            await gatherResults([program.whenEnded() for program in programs])
        for program, (arguments, said) in zip(programs, cases, strict=True):
            self.assertIn(said, program.output, arguments)
            self.assertNotIn("Traceback", program.output)
            self.assertEqual(program.exitCode, 1, arguments)


class PluginTests(SynchronousTestCase):
    """What Twisted's plugin system finds."""

    def test_echoIsFound(self) -> None:
        """The service that comes with pbauth is found by its name."""
        factory = findFactories()["echo"]
        verifyObject(IPerspectiveServiceFactory, factory)
        self.assertEqual(factory, EchoServiceFactory())

    def test_defaults(self) -> None:
        """Without options: the echo service, over TLS on loopback, with the default policy."""
        options = Options()
        options.parseOptions([])
        self.assertEqual(options.settings().ports, ("ssl:8787:interface=127.0.0.1",))
        self.assertEqual(options.settings().policy, Policy(defaultService="echo"))
        self.assertEqual([each.name for each in options.settings().services], ["echo"])
        self.assertEqual(options["state"], "pbauth-state")

    def test_policy(self) -> None:
        """What the options say of the policy."""
        for arguments, policy in [
            (
                ["--mechanism", "EXTERNAL", "--mechanism", "ED25519"],
                {"mechanisms": ["EXTERNAL", "ED25519"]},
            ),
            (["--auth", "memory:alice:secret"], {"mechanisms": ["PLAIN", "ED25519"]}),
            (["--legacy-login", "--guest", "nobody"], {"legacyLogin": True, "guest": "nobody"}),
            (["--throttle", "off"], {"throttle": False}),
            (
                ["--throttle", "free=20,exempt=192.0.2.0/24"],
                {"throttle": Throttle(freeFailures=20, exempt=["192.0.2.0/24"])},
            ),
            (
                ["--client-limits", "sessions=5,calls=0.5,burst=20,at-once=8,bytes=100000"],
                {
                    "maxSessions": 5,
                    "maxCallsPerSecond": 0.5,
                    "callBurst": 20,
                    "maxCallsAtOnce": 8,
                    "maxMessageBytes": 100_000,
                },
            ),
        ]:
            options = Options()
            options.parseOptions(arguments)
            self.assertEqual(options.settings().policy, Policy(defaultService="echo", **policy))
        options = Options()
        options.parseOptions(["--service", "echo", "--service", "e=pbauth.echo.EchoService"])
        self.assertIsNone(options.settings().policy.defaultService)
        options = Options()
        options.parseOptions(["--service", "echo", "--service", "admin=pbauth.echo.EchoService"])
        self.assertEqual(options.settings().policy.defaultService, "echo")

    def test_admin(self) -> None:
        """The administration runs, too, unless it is not wanted, or another one is."""
        for arguments, kind in [
            ([], AdminService),
            (["--auth", "memory:alice:secret"], AdminService),
            (["--no-admin"], type(None)),
            (["--service", "admin=pbauth.echo.EchoService"], EchoService),
        ]:
            options = Options()
            options.parseOptions(["--state", self.mktemp(), "--port", PORT, *arguments])
            server = makeService(options)
            services = [each for each in server if isinstance(each, MultiService)][-1]
            names = {each.name: each for each in services}
            self.assertIs(type(names.get("admin")), kind)
            for each in server:
                if isinstance(each, FirstRun):
                    self.assertIs(kind, AdminService)

    def test_mistakes(self) -> None:
        """Options that make no sense are said to, in one line, and nothing is made."""
        state = self.mktemp()
        for arguments, said in [
            (["--mechanism", "ROT13"], "There is no mechanism 'ROT13'"),
            (["--auth", "nonsense:x"], "--auth nonsense"),
            (["--auth", "anonymous"], "--auth anonymous"),
            (["--default-service", "chess"], "there is no such --service"),
            (["--guest", "a\nb"], "control characters"),
            (["--throttle", "free=0"], "--throttle free=0: freeFailures must be"),
            (["--throttle", "exempt=office"], "'office' is not an address"),
            (["--client-limits", "many=5"], "'many=5' is none of sessions=N, calls=N, burst=N"),
            (["--client-limits", "sessions=0"], "'sessions=0' is none of"),
            (["--client-limits", "burst=5"], "burst=N needs calls=N"),
            (["--port", "tcp:8787"], "--insecure"),
            (["--port", "ssl:8787:/no/such/file"], "No such file"),
        ]:
            with self.assertRaises(SystemExit) as raised:
                options = Options()
                options.parseOptions(["--state", state, *arguments])
                makeService(options)
            self.assertIn(said, str(raised.exception))
            self.assertNotIn("\n", str(raised.exception))
        self.assertFalse(os.path.exists(state))

    def test_eachClientIsItself(self) -> None:
        """Two identities with a key to the same perspective are told apart by echo."""
        memory = MemoryServer()
        EchoService("echo", memory.services, memory.authorizer)
        for name in ("alice", "bob"):
            memory.addUser(name, "secret", ("echo", "shared"))
            perspective = self.successResultOf(memory.logIn(name, "secret", "echo", "shared"))
            answer = perspective.callRemote("whoami")
            memory.flush()
            self.assertEqual(self.successResultOf(answer), (name, "shared"))
