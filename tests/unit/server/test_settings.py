"""What a server is, as one value."""

from __future__ import annotations

from typing import Any

from attrs.exceptions import FrozenInstanceError
from twisted.trial.unittest import SynchronousTestCase

from pbauth import Policy
from pbauth.echo import EchoService
from pbauth.server.settings import ServiceSettings, Settings, SettingsError


class ServiceTests(SynchronousTestCase):
    """The services that are named."""

    def test_found(self) -> None:
        """By a plugin's name, and by a dotted name of a class, or of what makes one."""
        for settings in (
            ServiceSettings.ofPlugin("echo", {}),
            ServiceSettings.ofClass("echo", "pbauth.echo.EchoService"),
            ServiceSettings.ofClass("echo", "pbauth.echo.EchoServiceFactory"),
        ):
            self.assertEqual(settings.name, "echo")
            self.assertIsInstance(settings.make("echo", None), EchoService)

    def test_mistakes(self) -> None:
        """Whatever is wrong with a name is one line that says what to do."""
        cases: list[tuple[Any, str]] = [
            (lambda: ServiceSettings.ofPlugin("nope", {}), "There is no service 'nope'. Found: "),
            (lambda: ServiceSettings.ofPlugin("", {}), "must not be empty"),
            (lambda: ServiceSettings.ofClass("a\nb", "x"), "control characters"),
            (lambda: ServiceSettings.ofClass("x", "no.such.module"), "Can't import"),
            (lambda: ServiceSettings.ofClass("x", "pbauth.__version__"), "can't be called"),
        ]
        for make, said in cases:
            error = self.assertRaises(SettingsError, make)
            self.assertIn(said, str(error))
            self.assertNotIn("\n", str(error))


class SettingsTests(SynchronousTestCase):
    """The whole."""

    def test_defaults(self) -> None:
        """Nothing but defaults is the echo service, over TLS on loopback, with administration."""
        settings = Settings()
        self.assertEqual(settings.ports, ("ssl:8787:interface=127.0.0.1",))
        self.assertEqual(settings.serviceNames, ["echo", "admin"])
        self.assertEqual(settings.policy, Policy())
        self.assertRaises(FrozenInstanceError, setattr, settings, "state", "elsewhere")

    def test_admin(self) -> None:
        """The administration runs unless it is not wanted, or another service has its name."""
        own = ServiceSettings.ofClass("admin", "pbauth.echo.EchoService")
        self.assertEqual(Settings(admin=False).serviceNames, ["echo"])
        self.assertFalse(Settings(services=(own,)).runsAdmin)
        self.assertEqual(Settings(services=(own,)).serviceNames, ["admin"])

    def test_mistakes(self) -> None:
        """Two services of one name, and a default service that does not run."""
        echo = ServiceSettings.ofPlugin("echo", {})
        error = self.assertRaises(SettingsError, Settings, services=(echo, echo))
        self.assertIn("two services named 'echo'", str(error))
        error = self.assertRaises(SettingsError, Settings, policy=Policy(defaultService="chess"))
        self.assertIn("no such --service", str(error))
