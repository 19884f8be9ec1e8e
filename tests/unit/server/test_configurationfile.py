"""The configuration file and the environment, for the server and for the command."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pbauth import Policy, Throttle
from pbauth.cli import main
from pbauth.server.configurationfile import fromEnvironment, readFile
from pbauth.server.settings import Settings, SettingsError
from pbauth.tap import Options
from tests.support.listings import LISTINGS

SCHEMA = {"state": str, "insecure": bool, "port": list}


class ConfigurationTestCase(SynchronousTestCase):
    """A file, and an environment without our variables."""

    def setUp(self) -> None:
        environment = {name: text for name, text in os.environ.items() if "PBAUTH" not in name}
        self.patch(os, "environ", environment)
        self.path = self.mktemp()

    def write(self, text: str) -> str:
        """Write the file, and return its path."""
        Path(self.path).write_text(text, encoding="utf-8")
        return self.path


class FileTests(ConfigurationTestCase):
    """What a file may say."""

    def test_values(self) -> None:
        """Strings, switches and lists; a list of one may be a string."""
        path = self.write('state = "there"\ninsecure = true\nport = ["tcp:1", "tcp:2"]\n')
        self.assertEqual(
            readFile(path, SCHEMA), {"state": "there", "insecure": True, "port": ["tcp:1", "tcp:2"]}
        )
        self.assertEqual(readFile(self.write('port = "tcp:1"'), SCHEMA), {"port": ["tcp:1"]})
        self.assertEqual(readFile(self.write(""), SCHEMA), {})
        self.assertEqual(readFile(self.write('\ufeffstate = "a"\r\n'), SCHEMA), {"state": "a"})

    def test_mistakes(self) -> None:
        """Each is one line that names the file, and what is wrong."""
        for text, said in [
            ("stat = 1", "there is no setting 'stat'. Did you mean 'state'?"),
            ("State = 1", "there is no setting 'State'. Did you mean 'state'?"),
            ("colour = 1", "there is no setting 'colour'."),
            ("state = 1", "state must be a string, not 1."),
            ("insecure = 1", "insecure must be true or false, not 1."),
            ("port = 1", "port must be a string, or a list of strings, not 1."),
            ("port = [1]", "port must be a string, or a list of strings, not [1]."),
            ('state = ""', "state is empty."),
            ("port = []", "port is empty."),
            ('port = ""', "port is empty."),
            ('port = ["tcp:1", ""]', "port is empty."),
            ("[state]", "state must be a string, not {}."),
            ("state", "is not TOML"),
            ('state = "a"\nstate = "b"', "is not TOML"),
        ]:
            error = self.assertRaises(SettingsError, readFile, self.write(text), SCHEMA)
            self.assertIn(said, str(error))
            self.assertIn(self.path, str(error))
            self.assertNotIn("\n", str(error))
        Path(self.path).write_bytes(b"\xff")
        self.assertIn(
            "is not TOML", str(self.assertRaises(SettingsError, readFile, self.path, SCHEMA))
        )
        self.assertIn(
            "Can't read", str(self.assertRaises(SettingsError, readFile, self.mktemp(), SCHEMA))
        )

    @given(st.text(max_size=30))
    def test_anything(self, text: str) -> None:
        """Whatever the file holds, it is read, or there is one error."""
        path = self.mktemp()
        Path(path).write_text(text, encoding="utf-8", errors="replace", newline="")
        try:
            self.assertLessEqual(readFile(path, SCHEMA).keys(), SCHEMA.keys())
        except SettingsError:
            pass

    def test_environment(self) -> None:
        """Variables that are empty say nothing."""
        self.assertEqual(
            fromEnvironment({"PBAUTH_STATE": "a", "PBAUTH_AUDIT": "", "HOME": "/"}), {"state": "a"}
        )


class ServerTests(ConfigurationTestCase):
    """``twistd pbauth --config FILE``."""

    def settings(self, *arguments: str) -> Settings:
        """What the options make."""
        options = Options()
        options.parseOptions([*arguments])
        return options.settings()

    def test_everything(self) -> None:
        """The file says all that options can."""
        path = self.write(
            """
            state = "there"
            accounts = "passwd:users"
            port = ["tcp:1", "unix:/run/x"]
            service = ["echo=pbauth.echo.EchoService", "chess=pbauth.echo.EchoService"]
            mechanism = ["SCRAM-SHA-256"]
            default-service = "chess"
            guest = "nobody"
            throttle = "free=20"
            legacy-login = true
            insecure = true
            proxy-protocol = false
            no-admin = true
            audit = "log"
            metrics = "tcp:9187"
            """
        )
        settings = self.settings("--config", path)
        self.assertEqual(
            (settings.state, settings.accounts, settings.ports, settings.audit, settings.metrics),
            ("there", "passwd:users", ("tcp:1", "unix:/run/x"), "log", "tcp:9187"),
        )
        self.assertEqual(settings.serviceNames, ["echo", "chess"])
        self.assertEqual((settings.insecure, settings.proxyProtocol), (True, False))
        self.assertEqual(
            settings.policy,
            Policy(
                mechanisms=["SCRAM-SHA-256"],
                legacyLogin=True,
                defaultService="chess",
                guest="nobody",
                throttle=Throttle(freeFailures=20),
            ),
        )

    def test_auth(self) -> None:
        """Checkers as well."""
        settings = self.settings("--config", self.write('auth = "memory:alice:secret"'))
        self.assertEqual(len(settings.checkers), 1)

    def test_example(self) -> None:
        """That of the documentation is one."""
        settings = self.settings("--config", str(LISTINGS / "pbauth.toml"))
        self.assertEqual(settings.state, "/var/lib/pbauth")

    def test_order(self) -> None:
        """First the command line, then the environment, then the file."""
        path = self.write('state = "of the file"\naccounts = "passwd:file"\nport = "tcp:1"')
        os.environ["PBAUTH_CONFIG"] = path
        self.assertEqual(self.settings().state, "of the file")
        os.environ["PBAUTH_STATE"] = "of the environment"
        os.environ["PBAUTH_AUDIT"] = "log"
        settings = self.settings("--port", "tcp:2")
        self.assertEqual(
            (settings.state, settings.accounts, settings.ports, settings.audit),
            ("of the environment", "passwd:file", ("tcp:2",), "log"),
        )
        self.assertEqual(self.settings("--state=mine").state, "mine")
        self.assertEqual(
            self.settings("--config=" + self.mktemp_("port='tcp:3'")).ports, ("tcp:3",)
        )

    def mktemp_(self, text: str) -> str:
        """Write another file."""
        path = self.mktemp()
        Path(path).write_text(text, encoding="utf-8")
        return path

    def test_mistakes(self) -> None:
        """The server does not start, and says why in one line."""
        for text, said in [("prot = 'tcp:1'", "Did you mean 'port'?"), ("config = 'x'", "config")]:
            stopped = self.assertRaises(
                SystemExit, Options().parseOptions, ["--config", self.write(text)]
            )
            self.assertIn(said, str(stopped))


class CommandTests(ConfigurationTestCase):
    """``pbauth`` takes the same file and variables."""

    def invoke(self, *arguments: str, **environment: str) -> Any:
        """Run the command in this process."""
        return CliRunner().invoke(main, [*arguments], env=environment)

    def options(self, *arguments: str, **environment: str) -> Any:
        """What the options in front of a subcommand come to."""
        found: list[Any] = []
        self.patch(
            main.commands["demo"],
            "invoke",
            lambda context: found.append(context.obj),
        )
        result = self.invoke(*arguments, "demo", **environment)
        self.assertEqual(result.output, "")
        return found[0]

    def test_shared(self) -> None:
        """State, accounts and audit, in the same order."""
        path = self.write('state = "of the file"\nport = "tcp:1"\naudit = "log"')
        for arguments, environment, expected in [
            ((), {}, ("pbauth-state", None, None)),
            (("--config", path), {}, ("of the file", None, "log")),
            ((), {"PBAUTH_CONFIG": path}, ("of the file", None, "log")),
            ((), {"PBAUTH_CONFIG": path, "PBAUTH_STATE": "a"}, ("a", None, "log")),
            (("--state", "b"), {"PBAUTH_CONFIG": path, "PBAUTH_STATE": "a"}, ("b", None, "log")),
            ((), {"PBAUTH_ACCOUNTS": "passwd:x"}, ("pbauth-state", "passwd:x", None)),
        ]:
            options = self.options(*arguments, **environment)
            self.assertEqual((options.state, options.accounts, options.audit), expected)

    def test_mistakes(self) -> None:
        """Each is one line."""
        result = self.invoke("--config", self.write("prot = 'x'"), "demo")
        self.assertEqual(result.exit_code, 2)
        self.assertIn("Did you mean 'port'?", result.output)

    def test_withServer(self) -> None:
        """What the environment says of the accounts is no contradiction to ``--server``."""
        result = self.invoke(
            "--server", "tcp:127.0.0.1:1", "user", "--help", PBAUTH_STATE="there", PBAUTH_AUDIT="x"
        )
        self.assertEqual(result.exit_code, 0, result.output)
