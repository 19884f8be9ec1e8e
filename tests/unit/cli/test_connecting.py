"""Whom the command line trusts, and that it asks for passwords only after that."""

from __future__ import annotations

import json
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import LoopingCall
from twisted.trial.unittest import SynchronousTestCase

from pbauth import KnownServers, ProtocolViolation, ServerNotTrusted
from pbauth.cli import connecting as module
from pbauth.cli import main, running
from pbauth.cli.calls import asJSON
from pbauth.cli.connecting import Connecting, explained
from pbauth.cli.running import CarefulGroup
from pbauth.client.knownservers import addressOf
from pbauth.mechanisms.scram import ScramVerifier
from pbauth.net.certificates import makeCertificate
from pbauth.net.trust import fingerprintOf
from tests.support.processes import PBAUTH, Program
from tests.support.tls import TLSTestCase
from tests.support.wire import SCRAM

OTHER = "SHA256:" + "A" * 43 + "="


class CommandLineTestCase(TLSTestCase):
    """A server with alice, and a file of known servers."""

    def setUp(self) -> None:
        self.path = os.path.join(os.path.abspath(self.mktemp()), "known_servers")
        self.known = KnownServers(self.path)
        self.port = self.serve()
        self.endpoint = f"tls:localhost:{self.port}"
        self.address = addressOf("localhost", self.port)

    async def pbauth(self, *arguments: str, stdin: str = "", **options: Any) -> Program:
        """Run the command beside the server."""
        program = Program(*PBAUTH, *arguments, stdin=stdin, **options)
        self.addCleanup(program.stop)
        await program.whenEnded()
        return program

    def call(self, *options: str) -> tuple[str, ...]:
        """The arguments that call alice's perspective."""
        where = (self.endpoint, "alice", "game", "whoami")
        return ("call", *where, "--known-servers", self.path, *options)


class NamedTests(CommandLineTestCase):
    """What the command line names, and can't be used."""

    async def test_named(self) -> None:
        """Files that an endpoint names, and odd times, are one line."""
        junk = os.path.abspath(self.mktemp())
        Path(junk).write_text("junk")
        cases: list[tuple[tuple[str, ...], str]] = [
            (("--server", "tls:localhost:1:certificate=/nowhere"), "can't read /nowhere: No such"),
            (("--server", f"tls:localhost:1:certificate={junk}:privateKey={junk}"), "key in PEM"),
            (("--server", "tls:localhost:1:trustRoots=/nowhere"), "can't read"),
            *(
                (("--server", "tls:localhost:1", "--timeout", text), "more than 0 and at most")
                for text in ("0", "-1", "nan", "inf")
            ),
        ]
        for options, said in cases:
            ran = await self.pbauth(
                *options, "--login-password-stdin", "user", "list", stdin="secret\n"
            )
            self.assertIn(said, ran.output)
            self.assertNotIn("Traceback", ran.output)


class SettleTests(CommandLineTestCase):
    """Whom to trust."""

    def setUp(self) -> None:
        super().setUp()
        self.said: list[str] = []
        self.patch(module.click, "echo", lambda text, err: self.said.append(text))
        self.patch(module.click, "confirm", self.confirm)
        self.patch(module.sys, "stdin", self)
        self.agrees: bool | None = None

    def isatty(self) -> bool:
        """There is a terminal where somebody agrees, or does not."""
        return self.agrees is not None

    def confirm(self, text: str, **options: Any) -> bool | None:
        """The user is asked."""
        self.assertEqual(options["default"], False)
        self.said.append(text)
        return self.agrees

    def settle(self, endpoint: str | None = None, **options: Any) -> Any:
        """Settle whom to trust, as the command does."""
        from twisted.internet import reactor

        settings: dict[str, Any] = {
            "timeout": 10,
            "insecure": False,
            "keyFile": None,
            "trust": None,
            "knownServers": self.path,
            "acceptNew": False,
            "passwordStdin": False,
            **options,
        }
        settling = Connecting(**settings).settleTrust(reactor, endpoint or self.endpoint)
        return Deferred.fromCoroutine(settling)

    async def refused(self, **options: Any) -> str:
        """The server is not trusted; give the reason."""
        with self.assertRaises(ServerNotTrusted) as raised:
            await self.settle(**options)
        return str(raised.exception)

    async def test_known(self) -> None:
        """A known server is trusted by its key, without a word."""
        self.known.add(self.address, self.pin)
        self.assertEqual(await self.settle(), self.pin)
        self.assertEqual(await self.settle(f"ssl:LOCALHOST:{self.port}"), self.pin)
        self.assertEqual(self.said, [])

    async def test_secondLine(self) -> None:
        """A server with several keys is trusted by the one that it shows."""
        self.known.add(self.address, OTHER)
        with open(self.path, "a") as file:
            file.write(f"{self.address} {self.pin}\n")
        self.assertEqual(await self.settle(), self.pin)

    async def test_anotherKey(self) -> None:
        """Another key than before is refused loudly, whatever the options; nothing is changed."""
        self.known.add("other:87", self.pin)
        self.known.add(self.address, OTHER)
        before = Path(self.path).read_text()
        self.agrees = True
        for options in ({}, {"acceptNew": True}, {"passwordStdin": True}):
            lines = (await self.refused(**options)).splitlines()
            self.assertGreater(len(lines), 4)
            self.assertIn("ANOTHER KEY", lines[0])
            self.assertIn(f"  known: {OTHER} (line 2 of {self.path})", lines)
            self.assertIn(f"  shown: {self.pin}", lines)
            self.assertIn(f"line 2 of {self.path}", lines[-1])
        self.assertEqual((self.said, Path(self.path).read_text()), ([], before))

    async def test_agreed(self) -> None:
        """Who agrees on the terminal is not asked again."""
        self.agrees = True
        self.assertEqual(await self.settle(), self.pin)
        (question,) = self.said
        self.assertEqual(
            question,
            f"The server {self.address} shows the key {self.pin}. It is not known. "
            "Trust it from now on?",
        )
        self.assertEqual(await self.settle(), self.pin)
        self.assertEqual(len(self.said), 1)

    async def test_notAgreed(self) -> None:
        """Who does not agree goes no further."""
        self.agrees = False
        self.assertIn("not trusted", await self.refused())
        self.assertFalse(os.path.exists(self.path))

    async def test_nobodyToAsk(self) -> None:
        """Without a terminal, or where it is not for questions, the ways around are named."""
        for agrees, options in ((None, {}), (True, {"passwordStdin": True})):
            self.agrees = agrees
            reason = await self.refused(**options)
            self.assertIn("--accept-new", reason)
            self.assertIn(f"--trust {self.pin}", reason)
            self.assertNotIn("\n", reason)
        self.assertFalse(os.path.exists(self.path))

    async def test_acceptNew(self) -> None:
        """`--accept-new` asks nobody, and says so."""
        self.assertEqual(await self.settle(acceptNew=True), self.pin)
        (said,) = self.said
        self.assertIn(self.pin, said)
        self.assertEqual([known.pin for known in self.known.find(self.address)], [self.pin])

    async def test_addedMeanwhile(self) -> None:
        """Another key that was added while the user was asked is not overruled."""

        def confirm(text: str, **options: Any) -> bool:
            self.known.add(self.address, OTHER)
            return True

        self.agrees = True
        self.patch(module.click, "confirm", confirm)
        self.assertIn("ANOTHER KEY", await self.refused())

    async def test_vouchedFor(self) -> None:
        """Whom the system's certificate authorities vouch for is not asked about, nor stored."""
        path = os.path.abspath(self.mktemp())
        Path(path).write_bytes(self.pem)
        os.environ["SSL_CERT_FILE"] = path
        self.addCleanup(os.environ.pop, "SSL_CERT_FILE")
        self.assertIsNone(await self.settle())
        self.assertEqual(self.said, [])
        self.assertFalse(os.path.exists(self.path))
        self.assertEqual(await self.works(await self.attempt(self.port)), "SCRAM-SHA-256-PLUS")

    async def test_trust(self) -> None:
        """`--trust` is the last word, and nobody is contacted."""
        self.known.add(self.address, OTHER)
        self.assertEqual(await self.settle(trust=self.pin), self.pin)

    async def test_notByTLS(self) -> None:
        """Other endpoints need nobody's trust, or don't get it."""
        for endpoint in (f"tcp:127.0.0.1:{self.port}", "unix:/run/pbauth"):
            self.assertIsNone(await self.settle(endpoint, acceptNew=True))
        with self.assertRaises(ServerNotTrusted):
            await self.settle("tcp:192.0.2.1:8787")
        self.assertIsNone(await self.settle("tcp:192.0.2.1:8787", insecure=True))
        with self.assertRaises(ValueError):
            await self.settle("tls:localhost")
        self.assertFalse(os.path.exists(self.path))

    async def test_brokenFile(self) -> None:
        """A broken file is said to be, before anybody is contacted."""
        os.makedirs(os.path.dirname(self.path))
        Path(self.path).write_text("junk\n")
        self.assertIn("Line 1", await self.refused(endpoint="tls:192.0.2.1:8787"))


class CommandTests(CommandLineTestCase):
    """`pbauth call`, in a process of its own."""

    async def test_acceptNew(self) -> None:
        """Accepted once, known from then on; and refused after the key has changed."""
        program = await self.pbauth(
            *self.call("--password-stdin", "--accept-new"), stdin="secret\n"
        )
        said, answer = program.output.splitlines()
        self.assertIn(f"{self.address} shows the key {self.pin}", said)
        self.assertEqual((answer, program.exitCode), ('"alice"', 0))
        program = await self.pbauth(*self.call("--password-stdin"), stdin="secret\n")
        self.assertEqual(program.output, '"alice"\n')
        pem = makeCertificate()
        other = self.listen(self.factory(), pem)
        Path(self.path).write_text(f"{addressOf('localhost', other)} {self.pin}\n")
        self.endpoint = f"tls:localhost:{other}"
        program = await self.pbauth(
            *self.call("--password-stdin", "--accept-new"), stdin="secret\n"
        )
        self.assertEqual(program.exitCode, 1)
        self.assertIn("ANOTHER KEY", program.output)
        self.assertIn(fingerprintOf(x509.load_pem_x509_certificate(pem)), program.output)

    def factory(self) -> Any:
        """Make another front door to the same accounts."""
        from pbauth import AuthServerFactory

        return AuthServerFactory(self.authorizer)

    async def test_unknown(self) -> None:
        """Without a terminal: one line, and exit code 1; the default file is the user's own."""
        home = os.path.abspath(self.mktemp())
        arguments = [each for each in self.call() if each not in ("--known-servers", self.path)]
        program = await self.pbauth(*arguments, HOME=home, XDG_CONFIG_HOME=home)
        self.assertEqual(len(program.output.splitlines()), 1, program.output)
        self.assertIn("--accept-new", program.output)
        self.assertEqual(program.exitCode, 1)
        self.assertFalse(os.path.exists(home))
        program = await self.pbauth(
            *(*arguments, "--accept-new", "--password-stdin"),
            stdin="secret\n",
            HOME=home,
            XDG_CONFIG_HOME=home,
        )
        self.assertEqual(program.exitCode, 0, program.output)
        path = os.path.join(home, "pbauth", "known_servers")
        self.assertEqual(Path(path).read_text(), f"{self.address} {self.pin}\n")

    async def test_terminal(self) -> None:
        """On a terminal: first the question, then the password. Nothing of it is echoed."""
        program = Program(*PBAUTH, *self.call(), stdin=None, terminal=True)
        self.addCleanup(program.stop)
        await program.waitFor(r"not known\. Trust it from now on\? \[y/N\]")
        self.assertNotIn("Password", program.output)
        program.write("y\n")
        await program.waitFor("Password: ")
        program.write("secret\n")
        await program.whenEnded()
        self.assertEqual(program.exitCode, 0, program.output)
        self.assertIn('"alice"', program.output)
        self.assertNotIn("secret", program.output)

    async def test_interrupted(self) -> None:
        """Ctrl-C ends the question, though a reactor runs; nobody is trusted by that."""
        program = Program(*PBAUTH, *self.call(), stdin=None, terminal=True)
        self.addCleanup(program.stop)
        await program.waitFor(r"\[y/N\]")
        # More than once: Python forgets a Ctrl-C between writing a prompt and reading.
        typing = LoopingCall(program.write, "\x03")
        typing.start(1)
        await program.whenEnded().addBoth(lambda ended: typing.stop())
        # One that comes while Python is on its way out ends it, too, in its own way.
        self.assertIn((program.exitCode, program.signal), [(1, None), (None, signal.SIGINT)])
        self.assertNotIn("Traceback", program.output)
        self.assertFalse(os.path.exists(self.path))

    async def test_renewal(self) -> None:
        """A weak verifier is renewed before the command hangs up."""
        weak = ScramVerifier.fromPassword("secret", b"0123456789abcdef", 4096)
        alice = self.authorizer.identities["alice"]
        alice.setVerifiers({SCRAM: weak})
        self.authorizer.hashing = self.authorizer.hashing.__class__(50_000)
        program = await self.pbauth(
            *self.call("--password-stdin", "--trust", self.pin), stdin="secret\n"
        )
        self.assertEqual(program.exitCode, 0, program.output)
        self.assertEqual((await alice.getVerifiers())[SCRAM].iterations, 50_000)

    async def test_mistakes(self) -> None:
        """Each is one line, and nobody is asked for a password."""
        for endpoint, said in [
            ("tls:localhost", "names no port"),
            ("tls:a b:87", "not the name of a host"),
            ("tls:nobody.invalid:87", "No connection"),
        ]:
            self.endpoint = endpoint
            program = await self.pbauth(*self.call())
            self.assertIn(said, program.output)
            self.assertEqual(len(program.output.splitlines()), 1, program.output)
            self.assertEqual(program.exitCode, 1)


# What a terminal obeys, or shows elsewhere than it stands: C0, C1, and what turns text round.
OBEYED = "\x1b[2J\x9b2J\x85\u202e\u2066\u200b\udc80"


class PiecesTests(SynchronousTestCase):
    """What the commands share."""

    def test_errors(self) -> None:
        """What an error quotes of a server or of the command line, a terminal does not obey."""

        def fails(kind: type[Exception]) -> None:
            raise kind(f"No {OBEYED}.\nNo.")

        for kind in (click.ClickException, click.UsageError, click.BadParameter):
            group = CarefulGroup("pbauth")
            group.command("fail")(partial(fails, kind))
            result = CliRunner().invoke(group, ["fail"])
            self.assertIn("No \\x1b[2J\\x9b2J\\x85\\u202e\\u2066", result.output)
            for line in result.output.splitlines():
                self.assertTrue(line.isprintable(), ascii(line))
        self.assertIsInstance(main, CarefulGroup)

    def test_serverErrors(self) -> None:
        """An error of the server is one line, however many it has."""
        for raised in (ProtocolViolation, ConnectionLost):

            async def fails(reactor: Any, raised: Any = raised) -> None:
                raise raised(f"{OBEYED}\nError: another")

            self.patch(running, "runOnce", lambda main: self.failureOf(main(None)))
            with self.assertRaises(click.ClickException) as shown:
                with explained("tls:localhost:1"):
                    running.run(fails)
            self.assertTrue(shown.exception.message.isprintable(), ascii(shown.exception.message))

    def failureOf(self, coroutine: Any) -> Any:
        """Run a coroutine that fails; let its error through."""
        self.failureResultOf(Deferred.fromCoroutine(coroutine)).raiseException()

    @given(st.recursive(st.text() | st.sampled_from(OBEYED), st.lists))
    def test_answers(self, answer: Any) -> None:
        """What a server answers is JSON in one line, and can be printed."""
        text = asJSON(answer)
        self.assertTrue(text.isprintable(), ascii(text))
        self.assertEqual(json.loads(text), answer)

    def test_explained(self) -> None:
        """What is no endpoint is put into one line; other errors are left as they are."""
        with self.assertRaises(click.ClickException) as raised:
            with explained("nonsense"):
                raise ValueError("Unknown endpoint type: 'nonsense'.")
        self.assertIn("An endpoint is: tls:", raised.exception.format_message())
        with self.assertRaises(ZeroDivisionError):
            with explained("nonsense"):
                raise ZeroDivisionError
