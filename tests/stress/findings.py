"""What a scenario did, its figures, and whether it showed what is to be shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Findings:
    """
    Attributes:
        figures: by name, for the JSON.
        faults: what was to be shown and was not, in words.
        skipped: what could not be tried here, and why.

    Args:
        say: tells people, line by line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.figures: dict[str, Any] = {}
        self.faults: list[str] = []
        self.skipped: list[str] = []

    def note(self, text: str, **figures: Any) -> None:
        """Say something, and keep the figures that are in it."""
        self.figures.update(figures)
        self.say(text)

    def expect(self, shown: bool, text: str) -> None:
        """Say whether something was shown."""
        if shown:
            self.say(f"  shown: {text}")
        else:
            self.faults.append(text)
            self.say(f"  NOT shown: {text}")

    def skip(self, text: str) -> None:
        """Say what is left out, and why."""
        self.skipped.append(text)
        self.say(f"  left out: {text}")
