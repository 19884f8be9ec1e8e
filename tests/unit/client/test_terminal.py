"""Asking the user while a reactor runs."""

from __future__ import annotations

import signal
import sys
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pbauth import ServerNotTrusted
from pbauth.client import terminal as module
from pbauth.client.terminal import askOnTerminal, interruptible

PIN = "SHA256:" + "A" * 43 + "="


class TerminalTests(SynchronousTestCase):
    """What asks."""

    def test_interruptible(self) -> None:
        """While the user is waited for, signals do what Ctrl-C does where no reactor runs."""
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.assertRaises(KeyboardInterrupt):
                with interruptible():
                    signal.raise_signal(number)
        after = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        self.assertEqual(before, after)

    def ask(self, terminal: bool, answer: Any = None) -> Any:
        """Ask where there is a terminal, or none."""

        class Stdin:
            def isatty(self) -> bool:
                return terminal

        def confirm(text: str, default: bool, err: bool) -> Any:
            self.asked.append((text, default, err, signal.getsignal(signal.SIGINT)))
            return answer

        self.asked: list[Any] = []
        self.patch(sys, "stdin", Stdin())
        self.patch(module.click, "confirm", confirm)
        return askOnTerminal("example.com:87", PIN)

    def test_answers(self) -> None:
        """The user's answer counts; without one it is no. Ctrl-C ends the question."""
        question = f"The server example.com:87 shows the key {PIN}. It is not known. "
        for answer in (True, False):
            self.assertIs(self.ask(True, answer), answer)
            self.assertEqual(
                self.asked,
                [(f"{question}Trust it from now on?", False, True, signal.default_int_handler)],
            )

    def test_nobodyToAsk(self) -> None:
        """Where there is no terminal, the server is refused, and its key is told."""
        with self.assertRaises(ServerNotTrusted) as raised:
            self.ask(False, True)
        self.assertIn(PIN, str(raised.exception))
        self.assertEqual(self.asked, [])
