"""
Passwords that PAM checks: the real one, with rules and accounts of the tests' own (pam_wrapper).
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

from twisted.cred import strcred
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword, UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import DeferredList
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from pbauth import CredAuthorizer, PAMChecker, PlainPassword, StoreError, Unauthorized, connect
from pbauth.cred.pam import PAMCheckerFactory, PAMMissing
from pbauth.mechanisms.terms import reasonOf
from pbauth.tap import Options
from tests.support.processes import PBAUTH, TWISTD, Program, run

PASSWORD = "correct horse \u00e9"


class Library(ModuleType):
    """
    A module like ``pam``.

    Args:
        answer: takes name, password and service; gives PAM's code, or raises.
    """

    def __init__(self, answer: Any) -> None:
        super().__init__("pam")
        self.options: list[Any] = []

        class PamAuthenticator:
            code = 0
            reason: Any = None

            def authenticate(asked, name: bytes, password: bytes, service: bytes, **kw: Any) -> Any:
                self.options.append((service, kw))
                asked.code = answer(name, password, service)
                asked.reason = f"reason {asked.code}"
                return asked.code == 0

        self.PamAuthenticator = PamAuthenticator


def install(test: Any, module: Any) -> None:
    """Let ``import pam`` give this, for the time of a test."""
    patched = patch.dict(sys.modules, {"pam": module})
    patched.start()
    test.addCleanup(patched.stop)


class CheckerTests(TestCase):
    """The checker, with a library that answers as it is told."""

    def make(self, answer: Any, **options: Any) -> PAMChecker:
        """Make a checker."""
        self.library = Library(answer)
        install(self, self.library)
        return PAMChecker("notes", **options)

    def ask(self, checker: PAMChecker, name: Any = b"alice", password: Any = b"secret") -> Any:
        """Let a password be checked."""
        return checker.requestAvatarId(UsernamePassword(name, password))

    async def test_interface(self) -> None:
        """It is a checker of names and passwords, and its plugin is one."""
        checker = self.make(lambda *given: 0)
        verifyObject(ICredentialsChecker, checker)
        verifyObject(strcred.ICheckerFactory, PAMCheckerFactory())
        self.assertEqual(repr(checker), "<PAMChecker 'notes'>")
        CredAuthorizer([checker])

    async def test_answers(self) -> None:
        """Who is right is let in under that name; a refusal and a failure are told apart."""
        given = []

        codes = [0]

        def answer(*arguments: Any) -> int:
            given.append(arguments)
            return codes[-1]

        checker = self.make(answer)
        self.assertEqual(await self.ask(checker), b"alice")
        self.assertEqual(given, [(b"alice", b"secret", b"notes")])
        # No credentials are taken over, and whatever a module says can be read.
        ((_, options),) = self.library.options
        self.assertEqual(options, {"resetcreds": False, "encoding": "latin-1"})
        for code in (6, 7, 8, 10, 11, 12, 13, 16, 27):
            codes.append(code)
            with self.assertRaises(UnauthorizedLogin):
                await self.ask(checker)
        for code in (1, 3, 4, 9, 19, 26, 28, 99, -1):
            codes.append(code)
            with self.assertRaises(StoreError) as raised:
                await self.ask(checker)
            self.assertIn(f"service 'notes', can't tell: reason {code}", str(raised.exception))

    async def test_reasons(self) -> None:
        """The operator is told an unknown name from a wrong password, and what PAM says else."""
        codes = {
            7: "wrong password (PAM)",
            10: "no such identity (PAM)",
            13: "reason 13 (PAM)",
        }
        for code, reason in codes.items():
            checker = self.make(lambda *given, code=code: code)
            identity = await CredAuthorizer([checker]).getIdentityRequest("alice")
            with self.assertRaises(Unauthorized) as raised:
                await identity.verifyPlainPassword("secret")
            self.assertEqual(reasonOf(raised.exception, ""), reason)

    async def test_inconsistent(self) -> None:
        """A library that refuses, but has the code of success, lets nobody in."""
        checker = self.make(lambda *given: 0)
        self.library.PamAuthenticator.authenticate = lambda *given, **kw: False
        with self.assertRaises(StoreError):
            await self.ask(checker)

    async def test_raises(self) -> None:
        """What the library raises lets nobody in, and shows nothing of the password."""

        def fail(name: bytes, password: bytes, service: bytes) -> int:
            raise OSError(f"segment {password!r}")

        checker = self.make(fail)
        failures = []  # type: ignore[var-annotated]
        await self.ask(checker, password=b"hunter2").addErrback(failures.append)
        failures[0].trap(StoreError)
        for text in (str(failures[0].value), failures[0].getTraceback(detail="verbose")):
            self.assertNotIn("hunter2", text)
        logged: list[str] = []

        def observe(event: Any) -> None:
            logged.append(str(formatEvent(event)))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        identity = await CredAuthorizer([checker]).getIdentityRequest("alice")
        with self.assertRaises(StoreError):
            await identity.verifyPlainPassword("hunter2")
        # Anybody can bring it about, so the log has a line, and no traceback.
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertIn("could not decide: PAM, service 'notes': OSError.", logged[-1])
        self.assertNotIn("hunter2", "".join(logged))

    async def test_host(self) -> None:
        """PAM is told where the client is, unless that is this machine, before it is asked."""
        checker = self.make(lambda *given: 0)
        done: list[Any] = []

        class PamAuthenticator:
            code = 0
            reason = ""

            def pam_set_item(self, handle: Any, item: int, value: Any) -> int:
                done.append((item, value.value))
                return 0

            def pam_authenticate(self, handle: Any, flags: int) -> int:
                done.append("asked")
                return 0

            def authenticate(self, *given: Any, **kw: Any) -> bool:
                return self.pam_authenticate("handle", 0) == 0

        self.library.PamAuthenticator = PamAuthenticator
        identity = await CredAuthorizer([checker]).getIdentityRequest("alice")
        await identity.verifyPlainPasswordFrom("secret", "203.0.113.7")
        self.assertEqual(done, [(4, b"203.0.113.7"), "asked"])
        done.clear()
        await identity.verifyPlainPassword("secret")
        self.assertEqual(done, ["asked"])

    async def test_neverAsked(self) -> None:
        """What can't be a name or a password does not get to PAM."""
        checker = self.make(lambda *given: 0)
        for name in (b"", b"a\0b", b"alice\0", b"\xff", b"al\nice", b"a" * 256, "alice", None):
            with self.assertRaises(UnauthorizedLogin):
                await self.ask(checker, name)
        for password in (b"", b"secret\0", b"\0", "secret", None):
            with self.assertRaises(UnauthorizedLogin):
                await self.ask(checker, password=password)
        self.assertEqual(self.library.options, [])

    async def test_threads(self) -> None:
        """In threads, of which there are few, and which are nobody else's; few may wait."""
        from twisted.internet import reactor

        gate, lock = threading.Event(), threading.Lock()
        self.addCleanup(gate.set)
        running: set[Any] = set()
        most = 0

        def answer(name: bytes, password: bytes, service: bytes) -> int:
            nonlocal most
            thread = threading.current_thread()
            with lock:
                running.add(thread)
                most = max(most, len(running))
            gate.wait(60)
            with lock:
                running.discard(thread)
            return 0 if thread.daemon else 26

        checker = self.make(answer, threads=3, mostWaiting=5)
        asked = [self.ask(checker, f"user{number}".encode()) for number in range(10)]
        # Three are asked, five wait, two are told that there are too many.
        for refused in asked[8:]:
            with self.assertRaises(StoreError) as raised:
                await refused
            self.assertIn("more than 5 checks are waiting", str(raised.exception))
        # The threads of the reactor are free.
        self.assertEqual(await deferToThread(lambda: 5), 5)
        gate.set()
        results = await DeferredList(asked[:8])
        self.assertEqual(results, [(True, f"user{number}".encode()) for number in range(8)])
        self.assertEqual(most, 3)
        self.assertEqual(await self.ask(checker), b"alice")
        await deferLater(reactor, 0, lambda: None)

    async def test_hangs(self) -> None:
        """A module that hangs does not keep a program from ending."""
        program = Program("-c", HANG, forked=True)
        self.addCleanup(program.stop)
        await program.whenEnded()
        self.assertEqual((program.output, program.exitCode), ("", 0))


HANG = """
import sys, threading, types
from twisted.cred.credentials import UsernamePassword
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from pbauth import PAMChecker

asked = Deferred()

class PamAuthenticator:
    def authenticate(self, *arguments, **options):
        reactor.callFromThread(asked.callback, None)
        threading.Event().wait()

sys.modules["pam"] = types.SimpleNamespace(PamAuthenticator=PamAuthenticator)

def main(reactor):
    PAMChecker().requestAvatarId(UsernamePassword(b"alice", b"secret"))
    return asked

react(main)
"""


class OptionTests(SynchronousTestCase):
    """Making one, and the option."""

    def test_services(self) -> None:
        """What can't be a service is refused at once: nothing else is a file in a folder."""
        for service in ("", "../shadow", "a/b", ".", "..", "a\0b", "a b", "-x", "é"):
            with self.assertRaises(ValueError) as raised:
                PAMChecker(service)
            self.assertIn("/etc/pam.d", str(raised.exception))

    def test_default(self) -> None:
        """Without an argument it is the service `login`."""
        install(self, Library(lambda *given: 0))
        for description, service in (("pam", "login"), ("pam:", "login"), ("pam:sshd", "sshd")):
            checker = strcred.makeChecker(description)
            self.assertEqual(repr(checker), f"<PAMChecker {service!r}>")

    def test_missing(self) -> None:
        """Without the package, or with another of that name, one line says how to get it."""
        for module in (None, ModuleType("pam")):
            install(self, module)
            with self.assertRaises(PAMMissing):
                PAMChecker()
            with self.assertRaises(SystemExit) as raised:
                Options().parseOptions(["--auth", "pam:login"])
            self.assertEqual(
                str(raised.exception),
                "pbauth: --auth pam: PAM needs one more package. Run: pip install 'pbauth[pam]'. "
                "See: twistd pbauth --help-auth",
            )

    def test_noPAM(self) -> None:
        """A machine without PAM is told of at once."""
        library = Library(None)

        def load() -> None:
            raise AttributeError("undefined symbol: pam_start")

        library.PamAuthenticator = load  # type: ignore[assignment,misc]
        install(self, library)
        with self.assertRaises(PAMMissing) as raised:
            PAMChecker()
        self.assertIn("no PAM on this machine", str(raised.exception))

    def test_badService(self) -> None:
        """A service that can't be one is one line, too."""
        with self.assertRaises(SystemExit) as raised:
            Options().parseOptions(["--auth", "pam:../x"])
        self.assertRegex(str(raised.exception), "^pbauth: --auth pam: '../x' can't be a service")
        self.assertNotIn("\n", str(raised.exception))

    def test_listed(self) -> None:
        """`--help-auth` lists it."""
        factories = {each.authType: each for each in strcred.findCheckerFactories()}
        self.assertEqual(factories["pam"].credentialInterfaces, (IUsernamePassword,))


class RealPAMTests(TestCase):
    """PAM itself, in processes of their own."""

    def setUp(self) -> None:
        wrappers = sorted(Path("/usr/lib").glob("*/libpam_wrapper.so"))
        if not wrappers:
            raise SkipTest("pam_wrapper is not installed. Run: apt-get install libpam-wrapper")
        try:
            PAMChecker()
        except PAMMissing as missing:
            raise SkipTest(str(missing)) from None
        matrix = wrappers[0].parent / "pam_wrapper" / "pam_matrix.so"
        self.folder = os.path.abspath(self.mktemp())
        services = Path(self.folder, "services")
        services.mkdir(parents=True)
        accounts = Path(self.folder, "accounts")
        accounts.write_text(f"alice:{PASSWORD}:notes\nbob:secret:other\nZo\u00eb:secret:notes\n")
        for service, options in [
            ("notes", f"passdb={accounts}"),
            ("broken", f"passdb={self.folder}/nothing"),
        ]:
            lines = [f"{kind} required {matrix} {options}\n" for kind in ("auth", "account")]
            Path(services, service).write_text("".join(lines))
        Path(services, "other").write_text(
            "auth required pam_deny.so\naccount required pam_deny.so\n"
        )
        self.environment = {
            "PAM_WRAPPER": "1",
            "PAM_WRAPPER_SERVICE_DIR": str(services),
            "WRAPPER": str(wrappers[0]),
        }

    def start(self, program: str, *arguments: str) -> Program:
        """Start a Python program for which libpam is pam_wrapper's."""
        # To preload it would not do: ctypes looks functions up in the library that it names.
        running = Program(
            *("-c", WRAPPED + program, *arguments),
            directory=self.folder,
            forked=True,
            **self.environment,
        )
        self.addCleanup(running.stop)
        return running

    async def ask(self, service: str, *pairs: tuple[str, str]) -> list[str]:
        """What the checker says to names and passwords, all at once."""
        program = self.start(ASK, service, json.dumps(pairs))
        await program.whenEnded()
        self.assertEqual(program.exitCode, 0, program.output)
        answers: list[str] = json.loads(program.output.splitlines()[-1])
        return answers

    async def test_passwords(self) -> None:
        """Right and wrong passwords, unknown users, and names in other scripts."""
        pairs = [
            ("alice", PASSWORD),
            ("alice", "wrong"),
            ("alice", PASSWORD + "x"),
            ("mallory", PASSWORD),
            ("Zo\u00eb", "secret"),
            ("ALICE", PASSWORD),
        ]
        self.assertEqual(
            await self.ask("notes", *pairs),
            ["alice", "Unauthorized", "Unauthorized", "Unauthorized", "Zo\u00eb", "Unauthorized"],
        )

    async def test_account(self) -> None:
        """A right password of an account that PAM does not let in by this service is refused."""
        self.assertEqual(
            await self.ask("notes", ("bob", "secret"), ("bob", "wrong")), ["Unauthorized"] * 2
        )

    async def test_broken(self) -> None:
        """Where a module can't reach its accounts, that is no refusal, and says what it is."""
        (answer,) = await self.ask("broken", ("alice", PASSWORD))
        self.assertRegex(answer, "^PAM, service 'broken', can't tell: .+")

    async def test_noSuchService(self) -> None:
        """A service that there is not is PAM's own `other`, which refuses all."""
        self.assertEqual(await self.ask("nosuch", ("alice", PASSWORD)), ["Unauthorized"])

    async def test_manyAtOnce(self) -> None:
        """Many checks at once do not get into each other's way."""
        pairs = [("alice", PASSWORD), ("alice", "wrong"), ("Zo\u00eb", "secret")] * 50
        self.assertEqual(
            await self.ask("notes", *pairs), ["alice", "Unauthorized", "Zo\u00eb"] * 50
        )

    async def test_twistd(self) -> None:
        """`twistd pbauth --auth pam:SERVICE`, with the keys of the state folder."""
        for arguments in (
            ["user", "add", "--no-password", "alice"],
            ["key", "grant", "alice", "echo"],
        ):
            program = await run(*PBAUTH, *arguments, directory=self.folder)
            self.assertEqual(program.exitCode, 0, program.output)
        server = self.start(
            TWISTD[1],
            *TWISTD[2:],
            *("--auth", "pam:notes", "--port", "ssl:0:interface=127.0.0.1"),
        )
        found = await server.waitFor(
            r"Listening on 127\.0\.0\.1:(\d+) over TLS, with the key (\S+)"
        )

        def logIn(name: str, password: str) -> Any:
            return connect(
                f"tls:127.0.0.1:{found[1]}",
                *(None, name, PlainPassword(password), "echo"),
                trust=found[2],
            )

        alice = await logIn("alice", PASSWORD)
        self.assertEqual(await alice.callRemote("whoami"), ("alice", "alice"))
        alice.broker.transport.loseConnection()
        await alice.broker.whenClosed()
        for name, password in (("alice", "hunter2"), ("bob", "secret"), ("Zo\u00eb", "secret")):
            with self.assertRaises(Unauthorized):
                await logIn(name, password)
        for secret in (PASSWORD, "hunter2", "secret"):
            self.assertNotIn(secret, server.output)
        self.assertNotIn("Traceback", server.output)
        server.kill("TERM")
        await server.whenEnded()
        self.assertIn("Server Shut Down", server.output)


WRAPPED = """
import ctypes.util, os
find = ctypes.util.find_library
ctypes.util.find_library = lambda name: os.environ["WRAPPER"] if name == "pam" else find(name)
"""

ASK = """
import json, sys
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import react
from pbauth import PAMChecker, StoreError

async def ask(checker, name, password):
    try:
        avatar = await checker.requestAvatarId(UsernamePassword(name.encode(), password.encode()))
        return avatar.decode()
    except UnauthorizedLogin as refusal:
        return "Unauthorized"
    except StoreError as error:
        return str(error)

async def main(reactor):
    checker = PAMChecker(sys.argv[1])
    asked = [ensureDeferred(ask(checker, *pair)) for pair in json.loads(sys.argv[2])]
    print(json.dumps([await each for each in asked]))

react(lambda reactor: ensureDeferred(main(reactor)))
"""
