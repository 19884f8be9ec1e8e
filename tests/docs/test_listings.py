"""The programs of the documentation, each run as a process of its own."""

from __future__ import annotations

import os
import re
import socket
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.conch.ssh.keys import Key
from twisted.internet.defer import gatherResults
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from pbauth import Detached, PlainPassword, Unauthorized, connect
from tests.support.listings import DOCS, LISTINGS, ListingTestCase
from tests.support.otherclients import getPage, runByConch
from tests.support.pages import ROOT
from tests.support.processes import PBAUTH, TWISTD, Program, run

#: Runs a program whose client soon tries again.
_SOON_AGAIN = """
import runpy, sys
from pbauth.client import reconnect
reconnect.REFUSED_WAIT = 0.1
wait = reconnect.BackOff.__call__
reconnect.BackOff.__call__ = lambda policy, failures: wait(policy, failures) / 10
sys.argv[:] = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class ListingTests(ListingTestCase):
    """Each program does what the text says that it does."""

    async def test_pb5(self) -> None:
        """One user, one perspective."""
        server, port = await self.serve("pb5server.py", "0")
        self.assertEqual(
            await self.client("pb5client.py", port), "got a perspective\nthe answer is 42\n"
        )
        await server.waitFor(r"I am perspective1\. perspective_foo\(21\) called on")

    async def test_staying(self) -> None:
        """It goes on after its server was killed and started again; it ends if it is refused."""
        server, port = await self.serve("pb5server.py", "0")
        client = Program("-c", _SOON_AGAIN, str(LISTINGS / "stayingclient.py"), port, forked=True)
        self.addCleanup(client.stop)
        await client.waitFor("attached\nthe answer is 2\n")
        server.kill()
        await client.waitFor("detached\n")
        server, _ = await self.serve("pb5server.py", port)
        await client.waitFor(r"detached\n(nobody knows.*\n)?attached\nthe answer is \d+\n")
        self.assertNotIn("refused", client.output)
        server.kill()
        folder = os.path.abspath(self.mktemp())
        os.mkdir(folder)
        text = (LISTINGS / "pb5server.py").read_text()
        Path(folder, "otherserver.py").write_text(text.replace("pass1", "another"))
        await server.whenEnded()
        other = Program("otherserver.py", port, directory=folder, forked=True)
        self.addCleanup(other.stop)
        await client.whenEnded()
        self.assertIn("no longer let in: Login refused", client.output)
        self.assertEqual(client.exitCode, 0)

    async def test_pb6(self) -> None:
        """Two users get a perspective each, and the server sees them come and go."""
        server, port = await self.serve("pb6server.py", "0")
        outputs = await gatherResults(
            [self.start(f"pb6client{number}.py", port).whenEnded() for number in (1, 2)]
        )
        for number, client in enumerate(outputs, 1):
            self.assertEqual(client.exitCode, 0, client.output)
            self.assertIn(
                f"refused: No key to perspective 'perspective{3 - number}'", client.output
            )
            await server.waitFor(f"client of user{number} attached to perspective{number}")
            await server.waitFor(f"perspective{number} was called with 'bar from client {number}'")
            await server.waitFor(f"client of user{number} detached from perspective{number}")
        self.assertEqual(server.output.count("attached"), 2)
        self.assertEqual(server.output.count("detached"), 2)

    async def test_pb7(self) -> None:
        """Three services, two authorizers, two ports, and perspectives made on the fly."""
        server, _ = await self.serve("pb7server.py", "0")
        await server.waitFor(r"listening on .*\nlistening on .*\n")
        ports = re.findall(r"listening on 127\.0\.0\.1:(\d+)", server.output)
        lines = (await self.client("pb7client.py", *ports)).splitlines()
        self.assertEqual(lines[:3], ["alice in chat", "white in game", "operator root in control"])
        self.assertRegex(lines[3], "^refused: Login refused")

    async def test_chat(self) -> None:
        """Groups and one-to-one messages; everyone speaks in their own name only."""
        _, port = await self.serve("chatserver.py", "0")
        clients = {
            name: self.start("chatclient.py", port, name, stdin=None)
            for name in ("alice", "bob", "eve")
        }
        for client in clients.values():
            await client.waitFor("attached")

        async def say(name: str, line: str, answer: str = "done: ") -> None:
            clients[name].write(line + "\n")
            await clients[name].waitFor(re.escape(answer + (line if answer == "done: " else "")))

        for name in ("alice", "bob"):
            await say(name, "join vegetarians")
        await say("alice", "group vegetarians i like tofu")
        for name in ("alice", "bob"):
            await clients[name].waitFor(r"\[vegetarians\] alice: i like tofu")
        await say("eve", "group vegetarians i like pork", "error: Join vegetarians before")
        await say("eve", "user bob i am alice")
        await clients["bob"].waitFor("eve to you: i am alice")
        clients["bob"].write("quit\n")
        await clients["bob"].whenEnded()
        self.assertEqual(clients["bob"].exitCode, 0, clients["bob"].output)
        await say("alice", "user bob still here?", "error: bob is not here.")
        self.assertNotIn("pork", clients["bob"].output)

    async def test_ownAuthorizer(self) -> None:
        """Accounts from a file like /etc/passwd, which holds no password."""
        path = os.path.abspath(self.mktemp())
        for name in ("alice", "bob"):
            program = await run(
                str(LISTINGS / "ownauthorizer.py"),
                *("add", path, name, f"greetings/{name}"),
                stdin=f"{name}'s password\n",
            )
            self.assertEqual(program.exitCode, 0, program.output)
        self.assertNotIn("password", Path(path).read_text())
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        _, port = await self.serve("ownauthorizer.py", "serve", path, "0")
        perspective = await connect(
            "127.0.0.1", int(port), "alice", "alice's password", "greetings"
        )
        self.assertEqual(await perspective.callRemote("greet"), "hello, alice")
        perspective.broker.transport.loseConnection()
        await perspective.broker.whenClosed()
        for name, password in (("alice", "bob's password"), ("mallory", "alice's password")):
            with self.assertRaises(Unauthorized):
                await connect("127.0.0.1", int(port), name, password, "greetings")

    async def test_passwdServer(self) -> None:
        """The example of a passwd file; and a change of it, by an editor, while the server runs."""
        path = Path(self.mktemp()).absolute()
        text = (LISTINGS / "accounts.passwd").read_text()
        path.write_text(text)
        path.chmod(0o644)
        refused = await run(str(LISTINGS / "passwdserver.py"), str(path), "0")
        self.assertEqual(refused.exitCode, 1)
        self.assertRegex(refused.output, rf"\AOther users can .* Run: chmod 600 {path}\n\Z")
        path.chmod(0o600)
        _, port = await self.serve("passwdserver.py", str(path), "0")

        def logIn(name: str) -> Any:
            return connect("127.0.0.1", int(port), name, "open sesame", "greetings")

        alice = await logIn("alice")
        self.assertEqual(await alice.callRemote("greet"), "hello, alice")
        for name in ("bob", "Zoë", "mallory"):
            with self.assertRaises(Unauthorized):
                await logIn(name)
        path.write_text("".join(line for line in text.splitlines(True) if "alice:" not in line))
        with self.assertRaises(Detached):
            while True:
                await alice.callRemote("greet")
        alice.broker.transport.loseConnection()
        await alice.broker.whenClosed()
        with self.assertRaises(Unauthorized):
            await logIn("alice")

    async def test_onDemand(self) -> None:
        """Anyone is let in by the one password, but for nobody."""
        server, port = await self.serve("ondemandserver.py", "0")
        for name in ("alice", "日本語"):
            perspective = await connect("127.0.0.1", int(port), name, "1234", "guestbook")
            await perspective.callRemote("sign", "was here")
            await server.waitFor(f"{name} wrote: was here")
            perspective.broker.transport.loseConnection()
            await perspective.broker.whenClosed()
        for name, password in (("root", "1234"), ("alice", "12345")):
            with self.assertRaises(Unauthorized):
                await connect("127.0.0.1", int(port), name, password, "guestbook")
        self.assertNotIn("Traceback", server.output)

    async def test_stock(self) -> None:
        """A server for clients of stock Twisted, and one of them; accounts by the command."""
        folder = os.path.abspath(self.mktemp())
        os.mkdir(folder)
        for arguments in (
            ["user", "add", "--legacy", "worker1", "--password-stdin"],
            ["key", "grant", "worker1", "builds"],
        ):
            program = await run(*PBAUTH, *arguments, stdin="secret\n", directory=folder)
            self.assertEqual(program.exitCode, 0, program.output)
        server = self.start("stockserver.py", "0", directory=folder)
        port = (await server.waitFor(r"listening on 127\.0\.0\.1:(\d+)"))[1]
        refused = self.start("stockclient.py", port, stdin="wrong\n")
        await refused.whenEnded()
        self.assertRegex(refused.output, "^refused: Login refused: .*\n$")
        self.assertEqual(refused.exitCode, 1)
        client = self.start("stockclient.py", port, stdin="secret\n")
        await client.whenEnded()
        self.assertEqual((client.output, client.exitCode), ("welcome, worker1\n", 0))
        await server.waitFor("worker1 detached")
        self.assertEqual(
            server.output.splitlines()[1:], ["worker1 attached, version 1.0", "worker1 detached"]
        )

    async def test_cred(self) -> None:
        """Passwords of somebody else's file, over TLS."""
        passwords = self.mktemp()
        Path(passwords).write_text("alice:secret\nbob:secret\n")
        server, port = await self.serve("credserver.py", passwords, "0")
        pin = (await server.waitFor(r"the key is (\S+)"))[1]

        def logIn(name: str, password: str) -> Any:
            where = f"tls:127.0.0.1:{port}"
            return connect(where, None, name, PlainPassword(password), "notes", trust=pin)

        alice = await logIn("alice", "secret")
        self.assertEqual(await alice.callRemote("greet"), "hello, alice")
        alice.broker.transport.loseConnection()
        await alice.broker.whenClosed()
        for name, password in (("alice", "wrong"), ("bob", "secret"), ("carol", "secret")):
            with self.assertRaises(Unauthorized):
                await logIn(name, password)

    async def test_sshAndWeb(self) -> None:
        """A user and a key of the state folder, for SSH and for the web."""
        folder, private = os.path.abspath(self.mktemp()), Key(Ed25519PrivateKey.generate())
        for command, stdin in [
            (("add", "alice", "--password-stdin"), "secret\n"),
            (("addkey", "alice"), private.public().toString("openssh").decode()),
        ]:
            program = await run(*PBAUTH, "--state", folder, "user", *command, stdin=stdin)
            self.assertEqual(program.exitCode, 0, program.output)
        server, _ = await self.serve("ssh_and_web.py", folder, "0", "0")
        await server.waitFor(r"listening on .*\nlistening on .*\n")
        ssh, web = re.findall(r"listening on 127\.0\.0\.1:(\d+)", server.output)
        hostKey = Path(folder, "ssh_host_ed25519_key")
        self.assertEqual(hostKey.stat().st_mode & 0o777, 0o600)
        login = (int(ssh), Key.fromFile(str(hostKey)).public(), self.mktemp(), b"alice", b"")
        for proof in ({"password": b"secret"}, {"keys": [private]}):
            self.assertEqual(await runByConch(*login, **proof), b"hello, alice\r\n")
        self.assertEqual(await getPage(int(web), "alice", "secret"), (200, b"hello, alice\n"))
        self.assertEqual((await getPage(int(web), "alice", "wrong"))[0], 401)

    async def test_readme(self) -> None:
        """The server and the client of the README, on any free port."""
        folder = Path(os.path.abspath(self.mktemp()))
        folder.mkdir()
        port = self.freePort()
        for name in ("readme_server.py", "readme_client.py"):
            text = (LISTINGS / name).read_text()
            self.assertEqual(text.count("8800"), 1)
            self.assertLessEqual(len(text.splitlines()), 25)
            (folder / name).write_text(text.replace("8800", str(port)))
        server = Program("readme_server.py", directory=str(folder), forked=True)
        self.addCleanup(server.stop)
        output = ""
        while "Hello, alice!" not in output:
            self.assertIsNone(server.exitCode, server.output)
            client = await run("readme_client.py", directory=str(folder), forked=True)
            output = client.output
        self.assertEqual(output, "Hello, alice!\n")
        text = (folder / "readme_client.py").read_text().replace("open sesame", "close sesame")
        (folder / "readme_client.py").write_text(text)
        refused = await run("readme_client.py", directory=str(folder), forked=True)
        self.assertRegex(refused.output, r"^Login refused: .*\n$")

    def freePort(self) -> int:
        """A port that nobody listens on."""
        with closing(socket.socket()) as found:
            found.bind(("127.0.0.1", 0))
            return int(found.getsockname()[1])

    async def test_testingExample(self) -> None:
        """The examples that are tests pass."""
        program = await run(
            *("-m", "twisted.trial", "--temp-directory", os.path.abspath(self.mktemp())),
            *(
                "testing_example",
                "calling_clients",
                "everyday",
                "observer_example",
                "policy_example",
                "vouchers_example",
            ),
            directory=str(LISTINGS),
            forked=True,
        )
        self.assertIn("PASSED (successes=16)", program.output)

    async def test_pytest(self) -> None:
        """The example for pytest passes with Twisted's reactor, and with that of asyncio."""
        if find_spec("pytest_twisted") is None:
            raise SkipTest("pytest-twisted is not installed: pip install -e '.[dev]'")
        for reactor in ("default", "asyncio"):
            program = await run(
                *("-m", "pytest", "-q", "-p", "no:cacheprovider", f"--reactor={reactor}"),
                *("-p", "pytest_twisted", "pytest_example.py"),
                directory=str(LISTINGS),
                # Others that are installed, as that of Hypothesis, take as long as all the rest.
                PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",
            )
            self.assertIn("2 passed", program.output)

    async def test_asyncio(self) -> None:
        """A client in a program of asyncio's logs in to a server in its loop, and ends cleanly."""
        _, port = await self.serve("asyncio_server.py", "0")
        client = self.start("asyncio_client.py", port, PYTHONDEVMODE="1")
        await client.whenEnded()
        self.assertEqual(client.exitCode, 0, client.output)
        answers = "Is it alive? Yes.\n['Does it last? Yes.', 'Does it end? Yes.']\n"
        self.assertEqual(client.output, answers)

    async def test_sharedState(self) -> None:
        """The services of board_services.py, started as their page says, share what users write."""
        page = (DOCS / "howto" / "services.rst").read_text()
        (options,) = re.findall(r"pbauth ((?:--service \S+ ?){2})", page)
        keys = re.findall(r"^ +pbauth (key grant .*)$", page, re.M)
        folder = os.path.abspath(self.mktemp())
        for stdin, command in [
            *(("secret\n", f"user add --password-stdin {name}") for name in ("alice", "carol")),
            *(("", each) for each in keys),
        ]:
            program = await run(*PBAUTH, "--state", folder, *command.split(), stdin=stdin)
            self.assertEqual(program.exitCode, 0, program.output)
        unix = os.path.join(folder, "s")
        server = Program(
            *(*TWISTD, "--state", folder, "--port", f"unix:{unix}", *options.split()),
            PYTHONPATH=os.pathsep.join([str(LISTINGS), str(ROOT)]),
        )
        self.addCleanup(server.stop)
        await server.waitFor("Listening on")

        async def logIn(name: str, service: str) -> Any:
            found = await connect(f"unix:{unix}", None, name, "secret", service)
            self.addCleanup(found.broker.whenClosed)
            self.addCleanup(found.broker.transport.loseConnection)
            return found

        alice, carol = await logIn("alice", "board"), await logIn("carol", "office")
        self.assertEqual(await alice.callRemote("pin", "I have lost a pen."), 1)
        self.assertEqual(await carol.callRemote("authors"), ["alice"])
        await carol.callRemote("clear", "alice")
        self.assertEqual(await alice.callRemote("pin", "I have found it."), 1)

    async def test_sqlAccounts(self) -> None:
        """Accounts that the command keeps, while the server runs."""
        path = os.path.abspath(self.mktemp())

        async def administer(*arguments: str, stdin: str = "") -> None:
            program = await run(*PBAUTH, "--accounts", f"sqlite:{path}", *arguments, stdin=stdin)
            self.assertEqual(program.exitCode, 0, program.output)

        await administer("user", "add", "alice", "--password-stdin", stdin="secret\n")
        await administer("key", "grant", "alice", "greetings")
        _, port = await self.serve("sqlaccounts.py", path, "0")
        alice = await connect("127.0.0.1", int(port), "alice", "secret", "greetings")
        self.assertEqual(await alice.callRemote("greet"), "hello, alice")
        await administer("user", "lock", "alice")
        with self.assertRaises(Detached):
            while True:
                await alice.callRemote("greet")
        alice.broker.transport.loseConnection()
        await alice.broker.whenClosed()

    async def test_keys(self) -> None:
        """A key that the command lets in, and a login with it."""
        folder, private = os.path.abspath(self.mktemp()), Key(Ed25519PrivateKey.generate())
        for command in (
            ("user", "add", "--no-password", "alice"),
            ("key", "grant", "alice", "echo"),
        ):
            await run(*PBAUTH, "--state", folder, *command)
        public = private.public().toString("openssh").decode()
        program = await run(*PBAUTH, "--state", folder, "user", "addkey", "alice", stdin=public)
        self.assertEqual(program.exitCode, 0, program.output)
        path = Path(folder, "id_ed25519")
        path.write_bytes(private.toString("openssh", subtype="v1"))
        server = Program(*TWISTD, "--state", folder, "--port", "ssl:0:interface=127.0.0.1")
        self.addCleanup(server.stop)
        said = await server.waitFor(r"Listening on 127\.0\.0\.1:(\d+) over TLS, with the key (\S+)")
        path.chmod(0o600)
        output = await self.client("keyclient.py", said[1], said[2], str(path), "alice")
        self.assertEqual(output, "('alice', 'alice')\n")

    async def test_remembering(self) -> None:
        """A server is asked about once; whoever says no is not asked for a password."""
        folder = os.path.abspath(self.mktemp())
        for stdin, *command in (
            ("secret\n", "user", "add", "--password-stdin", "alice"),
            ("", "key", "grant", "alice", "echo"),
        ):
            program = await run(*PBAUTH, "--state", folder, *command, stdin=stdin)
            self.assertEqual(program.exitCode, 0, program.output)
        server = Program(*TWISTD, "--state", folder, "--port", "ssl:0:interface=127.0.0.1")
        self.addCleanup(server.stop)
        said = await server.waitFor(r"Listening on 127\.0\.0\.1:(\d+) over TLS, with the key (\S+)")
        where = f"tls:127.0.0.1:{said[1]}"
        options: dict[str, Any] = {"stdin": None, "terminal": True, "directory": folder}
        for answer in ("n", "y", None):
            client = self.start("rememberingclient.py", where, "alice", **options)
            if answer is not None:
                await client.waitFor(re.escape(said[2]) + r".* Trust it from now on\? \[y/N\]")
                client.write(f"{answer}\n")
            if answer != "n":
                await client.waitFor("Password: ")
                client.write("secret\n")
            await client.whenEnded()
            refused = answer == "n"
            self.assertEqual(client.exitCode, refused, client.output)
            self.assertEqual("The server is not trusted" in client.output, refused)
            self.assertEqual("('alice', 'alice')" in client.output, not refused)
            self.assertEqual("Trust it" in client.output, answer is not None)


class CoverageTests(SynchronousTestCase):
    """Nothing is shown that is not run."""

    def test_everyListingIsRun(self) -> None:
        """Each program is named in this module, or by the tutorial, which a test types."""
        source = Path(__file__).read_text()
        source += "".join(page.read_text() for page in (DOCS / "tutorial").glob("*.rst"))
        for path in LISTINGS.glob("*.py"):
            name = path.name.replace("pb6client1", "pb6client{number}").replace(
                "pb6client2", "pb6client{number}"
            )
            self.assertTrue(name in source or path.stem in source, path.name)
