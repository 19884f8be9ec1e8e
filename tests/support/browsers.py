"""A real browser under test, without a window: Chromium, driven through Selenium."""

from __future__ import annotations

import atexit
import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_DRIVERS = (
    "chromedriver",
    "/usr/lib/chromium/chromedriver",
    "/usr/lib/chromium-browser/chromedriver",
)

#: Seconds after which what does not come in sight has failed.
PATIENCE = 20.0


def _find(names: tuple[str, ...]) -> str | None:
    return next(filter(None, map(shutil.which, names)), None)


def whyNot() -> str | None:
    """Why there is no browser here, to skip the tests that need one; `None`: there is."""
    if find_spec("selenium") is None:
        return "Selenium is not installed: pip install selenium"
    if _find(_BROWSERS) is None:
        return f"no browser found ({', '.join(_BROWSERS)}): apt-get install chromium"
    if _find(_DRIVERS) is None:
        return "no chromedriver found: apt-get install chromium-driver"
    return None


class Chromium:
    """
    A browser. Selenium blocks: what is done with it, is done in a thread.

    Attributes:
        driver: of Selenium.
    """

    def __init__(self) -> None:
        # Takes its time, and few tests need it.
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        options.binary_location = _find(_BROWSERS)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        for argument in (
            "--headless=new",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--disable-extensions",
            "--disable-background-networking",
            "--no-first-run",
            "--hide-scrollbars",
            # Root has no other choice.
            *(["--no-sandbox"] if os.getuid() == 0 else []),
        ):
            options.add_argument(argument)
        # With its path Selenium looks for no driver in the net.
        service = webdriver.ChromeService(executable_path=_find(_DRIVERS))
        self.driver = webdriver.Chrome(options, service)

    @classmethod
    def start(cls) -> Deferred[Chromium]:
        """Start one, in a thread."""
        return deferToThread(cls)

    @classmethod
    def share(cls) -> Deferred[Chromium]:
        """Give the browser of this process, in a thread; whoever asks first starts it."""

        def share() -> Chromium:
            if not _running:
                _running.append(cls())
                atexit.register(_running[0].driver.quit)
            return _running[0]

        return deferToThread(share)

    def clear(self) -> Deferred[None]:
        """Leave the page, and forget all that was done, for the next test; for `addCleanup`."""

        def clear() -> None:
            self.driver.get("about:blank")
            self.driver.delete_all_cookies()
            self.driver.execute_cdp_cmd("Network.clearBrowserCache", {})
            self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
            self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
            self.driver.get_log("browser")

        return deferToThread(clear)

    def stop(self) -> Deferred[None]:
        """End it, in a thread."""
        return deferToThread(self.driver.quit)

    def open(self, url: str) -> Deferred[None]:
        """Open a page."""
        return deferToThread(self.driver.get, url)

    def run(self, script: str, *arguments: Any) -> Deferred[Any]:
        """Run a script in the page, and give what it returns."""
        return deferToThread(self.driver.execute_script, script, *arguments)

    def until(self, script: str, *arguments: Any) -> Deferred[Any]:
        """Wait until an expression is true in the page, and give its value."""

        def wait() -> Any:
            from selenium.webdriver.support.wait import WebDriverWait

            return WebDriverWait(self.driver, PATIENCE, 0.02).until(
                lambda driver: driver.execute_script(f"return {script}", *arguments),
                f"never true: {script} {arguments}",
            )

        return deferToThread(wait)

    def do(self, function: Callable[[Any], Any]) -> Deferred[Any]:
        """Do something with the driver, in a thread."""
        return deferToThread(function, self.driver)

    def look(self, width: int, height: int, dark: bool = False, scale: float = 1) -> Deferred[None]:
        """
        Choose the screen.

        Args:
            width: in pixels of the page; below 500 it is a phone.
            height: as well.
            dark: whether the user likes it dark.
            scale: pixels of the screen for one of the page.
        """

        def choose() -> None:
            self.driver.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {
                    "width": width,
                    "height": height,
                    "deviceScaleFactor": scale,
                    "mobile": width < 500,
                },
            )
            scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

        return deferToThread(choose)

    def complaints(self) -> Deferred[list[str]]:
        """What the browser's console says of warnings and errors, since the last time."""

        def read() -> list[str]:
            entries = self.driver.get_log("browser")
            return [each["message"] for each in entries if each["level"] in ("SEVERE", "WARNING")]

        return deferToThread(read)


_running: list[Chromium] = []
