"""The file of known servers."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Thread
from typing import Any

from click.testing import CliRunner
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from pbauth import KnownServers, ServerNotTrusted, connect
from pbauth._files import lock
from pbauth.cli import main
from pbauth.client.knownservers import KnownServer, addressOf
from tests.support.processes import Program
from tests.support.tls import TLSTestCase

PIN = "SHA256:" + "A" * 43 + "="
OTHER = "SHA256:" + "B" * 42 + "A="


class KnownServersTests(SynchronousTestCase):
    """One file, one program."""

    def setUp(self) -> None:
        self.path = os.path.join(os.path.abspath(self.mktemp()), "known_servers")
        self.known = KnownServers(self.path)

    def write(self, text: str | bytes) -> None:
        """Write the file by hand."""
        os.makedirs(os.path.dirname(self.path), 0o700, exist_ok=True)
        Path(self.path).write_bytes(text.encode() if isinstance(text, str) else text)

    def mistake(self, operation: Any, *arguments: Any) -> str:
        """Do what fails, and give the one line."""
        with self.assertRaises(ServerNotTrusted) as raised:
            operation(*arguments)
        message = str(raised.exception)
        self.assertNotIn("\n", message)
        return message

    def test_types(self) -> None:
        """What can't be a path or a question is refused at once; a path may be a `Path`."""
        for path, *ask in ((None,), (object(),), (b"x",), (self.path, None), (self.path, "yes")):
            with self.assertRaises(TypeError):
                KnownServers(path, *ask)  # type: ignore[arg-type]
        self.assertEqual(KnownServers(Path(self.path)).path, self.path)

    def test_addresses(self) -> None:
        """A server has one spelling."""
        for host, address in [
            ("example.com", "example.com:87"),
            ("EXAMPLE.com.", "example.com:87"),
            ("127.0.0.1", "127.0.0.1:87"),
            ("0:0:0:0:0:0:0:1", "[::1]:87"),
            ("fe80::1%eth0", "[fe80::1%eth0]:87"),
            ("müller.example", "müller.example:87"),
        ]:
            self.assertEqual(addressOf(host, 87), address)
        for host in ("", ".", "a b", "a\nb", "#a", "\x1b[1m"):
            with self.assertRaises(ValueError):
                addressOf(host, 87)

    def test_noFile(self) -> None:
        """Where there is no file, nobody is known; and asking makes none."""
        self.assertEqual(self.known.find("example.com:87"), [])
        self.assertFalse(os.path.exists(os.path.dirname(self.path)))

    def test_add(self) -> None:
        """What was added is found, in a file and a folder for the owner only."""
        self.assertEqual(self.known.add("example.com:87", PIN), [])
        self.assertEqual(self.known.add("[::1]:87", OTHER), [])
        self.assertEqual(self.known.add("example.com:87", PIN), [])
        self.assertEqual(self.known.find("[::1]:87"), [KnownServer(2, "[::1]:87", OTHER)])
        lines = Path(self.path).read_text().splitlines()
        self.assertEqual(lines, [f"example.com:87 {PIN}", f"[::1]:87 {OTHER}"])
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)
        self.assertEqual(os.stat(os.path.dirname(self.path)).st_mode & 0o777, 0o700)
        self.assertEqual(
            sorted(os.listdir(os.path.dirname(self.path))), ["known_servers", "known_servers.lock"]
        )

    def test_byHand(self) -> None:
        """Comments, empty lines and the lack of a last line's end are kept as they are."""
        text = f"# mine\r\n\n  # too\n example.com:87\t{PIN.rstrip('=')}\r\nexample.com:87 {OTHER}"
        self.write(text)
        self.assertEqual(
            self.known.find("example.com:87"),
            [KnownServer(4, "example.com:87", PIN), KnownServer(5, "example.com:87", OTHER)],
        )
        self.known.add("other:87", PIN)
        self.assertEqual(Path(self.path).read_bytes(), f"{text}\nother:87 {PIN}\n".encode())

    def test_knownByAnotherKey(self) -> None:
        """A second key is not added behind the user's back."""
        self.known.add("example.com:87", PIN)
        self.assertEqual(
            self.known.add("example.com:87", OTHER), [KnownServer(1, "example.com:87", PIN)]
        )
        self.assertNotIn(OTHER, Path(self.path).read_text())

    def test_brokenLines(self) -> None:
        """A line that is none is named, and the file is left alone."""
        for broken in (
            b"example.com:87",
            b"example.com SHA256:" + b"A" * 43,
            f":87 {PIN}".encode(),
            f"example.com: {PIN}".encode(),
            f"example.com:87 {PIN} more".encode(),
            b"example.com:87 SHA256:AAAA",
            b"\xff:87 " + PIN.encode(),
        ):
            text = f"other:87 {PIN}\n".encode() + broken + b"\n"
            self.write(text)
            for operation in (
                (self.known.find, "other:87"),
                (self.known.add, "another:87", PIN),
            ):
                self.assertIn(f"Line 2 of {self.path}", self.mistake(*operation))
            self.assertEqual(Path(self.path).read_bytes(), text)

    def test_everybodysFile(self) -> None:
        """A file that everybody can write to says nothing."""
        self.write("")
        os.chmod(self.path, 0o666)
        self.assertIn(f"chmod 600 {self.path}", self.mistake(self.known.find, "other:87"))

    def test_noFileAtAll(self) -> None:
        """What can't be read or written is said."""
        os.makedirs(self.path)
        self.assertIn("Can't read", self.mistake(self.known.find, "other:87"))
        file = self.mktemp()
        Path(file).touch()
        below = KnownServers(os.path.join(os.path.abspath(file), "deeper", "known_servers"))
        self.assertIn("Can't write", self.mistake(below.add, "other:87", PIN))

    def test_failedWrite(self) -> None:
        """Where the new file can't be put into place, the old one stays, and nothing else."""
        self.known.add("example.com:87", PIN)
        before = Path(self.path).read_bytes()

        def full(*arguments: Any) -> None:
            raise OSError(28, "No space left on device")

        self.patch(os, "fsync", full)
        self.assertIn("No space left", self.mistake(self.known.add, "other:87", PIN))
        self.assertEqual(Path(self.path).read_bytes(), before)
        self.assertEqual(
            sorted(os.listdir(os.path.dirname(self.path))), ["known_servers", "known_servers.lock"]
        )

    def test_link(self) -> None:
        """A link to the file stays a link."""
        self.known.add("example.com:87", PIN)
        link = os.path.abspath(self.mktemp())
        os.symlink(self.path, link)
        KnownServers(link).add("other:87", PIN)
        self.assertTrue(os.path.islink(link))
        self.assertEqual(len(self.known.find("other:87")), 1)

    def test_threads(self) -> None:
        """Many who add at once lose nothing."""
        threads = [
            Thread(target=KnownServers(self.path).add, args=(f"host{number}:87", PIN))
            for number in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for number in range(20):
            self.assertEqual(len(self.known.find(f"host{number}:87")), 1)


class TrustTests(TLSTestCase):
    """Whom to trust, in a program of one's own."""

    def setUp(self) -> None:
        self.path = os.path.join(os.path.abspath(self.mktemp()), "known_servers")
        self.port = self.serve()
        self.endpoint = f"tls:localhost:{self.port}"
        self.address = addressOf("localhost", self.port)
        self.asked: list[tuple[str, str]] = []
        self.answer: Any = True

    def ask(self, address: str, pin: str) -> Any:
        """The application asks its user."""
        self.asked.append((address, pin))
        return self.answer() if callable(self.answer) else self.answer

    def trust(self) -> Deferred[str | None]:
        """A program starts, and asks whom to trust."""
        return KnownServers(self.path, self.ask).trustFor(self.endpoint, timeout=10)

    async def refused(self) -> str:
        """The server is not trusted; give the reason."""
        with self.assertRaises(ServerNotTrusted) as raised:
            await self.trust()
        return str(raised.exception)

    async def test_remembered(self) -> None:
        """Asked about once, remembered, and good to log in."""
        for _ in range(2):
            self.assertEqual(await self.trust(), self.pin)
            self.assertEqual(self.asked, [(self.address, self.pin)])
        trust = await self.trust()
        whoami = await connect(self.endpoint, None, "alice", "secret", "game", trust=trust)
        self.assertEqual(await self.works(whoami), "SCRAM-SHA-256-PLUS")

    async def test_answersThatTakeTime(self) -> None:
        """A Deferred and a coroutine may answer."""

        async def coroutine() -> bool:
            return True

        for answer in (lambda: succeed(True), coroutine):
            self.answer = answer
            self.assertEqual(await self.trust(), self.pin)
            os.remove(self.path)
        self.assertEqual(len(self.asked), 2)

    async def test_refused(self) -> None:
        """What is not a yes is a no, and nothing is remembered."""
        for answer in (False, None, 1, "yes", lambda: succeed(False)):
            self.answer = answer
            self.assertIn("not trusted, and nothing was sent", await self.refused())
        self.assertFalse(os.path.exists(self.path))

    async def test_anotherKey(self) -> None:
        """A server that shows another key than before is refused, without a question."""
        KnownServers(self.path).add(self.address, OTHER)
        reason = await self.refused()
        self.assertIn("SHOWS ANOTHER KEY THAN BEFORE", reason)
        self.assertIn(f"line 1 of {self.path}", reason)
        self.assertEqual(self.asked, [])

    async def test_failedQuestion(self) -> None:
        """What the question raises, whoever waits gets; nobody is trusted by that."""

        def fail() -> bool:
            raise ZeroDivisionError

        self.answer = fail
        with self.assertRaises(ZeroDivisionError):
            await self.trust()
        self.assertFalse(os.path.exists(self.path))

    async def test_locked(self) -> None:
        """The reactor runs while another program has the file locked, and not for ever."""
        os.mkdir(os.path.dirname(self.path))
        descriptor = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        self.assertTrue(lock(descriptor, wait=True))
        clock = Clock()
        remembering = Deferred.fromCoroutine(
            KnownServers(self.path)._remember(self.address, OTHER, 10, clock)
        )
        clock.pump([1] * 9)
        self.assertNoResult(remembering)
        clock.advance(1)
        reason = self.failureResultOf(remembering, ServerNotTrusted).getErrorMessage()
        self.assertIn(f"{self.path}.lock locked for 10 seconds", reason)
        self.assertEqual(clock.getDelayedCalls(), [])
        trusting = self.trust()
        while not self.asked:
            await self.turn()
        self.assertNoResult(trusting)
        os.close(descriptor)
        self.assertEqual(await trusting, self.pin)

    async def test_withoutQuestions(self) -> None:
        """Endpoints that are not over TLS, or say whom to trust, need no question."""
        for endpoint in (f"tcp:127.0.0.1:{self.port}", "unix:/run/pbauth"):
            self.endpoint = endpoint
            self.assertIsNone(await self.trust())
        self.endpoint = "tls:localhost"
        with self.assertRaises(ValueError):
            await self.trust()
        self.endpoint = None  # type: ignore[assignment]
        with self.assertRaises(TypeError):
            await self.trust()
        self.assertEqual(self.asked, [])


class ProcessesTests(TestCase):
    """One file, many programs."""

    async def test_noLineIsLost(self) -> None:
        """What several programs add at the same time is all there."""
        path = os.path.join(os.path.abspath(self.mktemp()), "known_servers")
        code = (
            "import sys; from pbauth import KnownServers\n"
            "for number in range(20): KnownServers(sys.argv[1]).add("
            "f'{sys.argv[2]}{number}:87', 'SHA256:' + 43 * 'A')"
        )
        programs = [
            Program("-c", code, path, name, forked=True) for name in ("one", "two", "three")
        ]
        for program in programs:
            self.addCleanup(program.stop)
        for program in await gatherResults([program.whenEnded() for program in programs]):
            self.assertEqual(program.exitCode, 0, program.output)
        known = KnownServers(path)
        for name in ("one", "two", "three"):
            for number in range(20):
                self.assertEqual(len(known.find(f"{name}{number}:87")), 1)


class ForgettingTests(SynchronousTestCase):
    """`pbauth known`, and what it is made of."""

    def setUp(self) -> None:
        self.path = os.path.abspath(self.mktemp())
        self.lines = [
            f"# mine\n127.0.0.1:8787 {PIN}\n",
            f"[::1]:8787 {PIN}\n",
            f"127.0.0.1:8787 {OTHER}\nexample.com:8787 {OTHER}\n",
        ]
        Path(self.path).write_text("".join(self.lines))

    def run_(self, *arguments: str) -> Any:
        """Run the command in this process."""
        return CliRunner().invoke(main, ["known", *arguments, "--known-servers", self.path])

    def test_listed(self) -> None:
        """A line for each key."""
        ran = self.run_("list")
        self.assertEqual(ran.exit_code, 0)
        self.assertEqual(ran.output.count("127.0.0.1:8787\t"), 2)
        self.assertIn(f"[::1]:8787\t{PIN}\n", ran.output)

    def test_forgotten(self) -> None:
        """A server with all its keys, however it is named; the rest stays."""
        for name in ("tls:127.0.0.1:8787", "Example.com.:8787", "[::1]:8787"):
            ran = self.run_("forget", name)
            self.assertEqual((ran.output, ran.exit_code), (f"Forgot {name}.\n", 0))
        self.assertEqual(Path(self.path).read_text(), "# mine\n")
        ran = self.run_("forget", "127.0.0.1:8787")
        self.assertIn("pbauth known list", ran.output)
        self.assertEqual(ran.exit_code, 1)
