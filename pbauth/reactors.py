"""The one place below the front doors that knows the global reactor."""

from __future__ import annotations

from typing import Any


def chooseReactor(reactor: Any = None) -> Any:
    """
    Args:
        reactor: what the caller was given, a `twisted.internet.task.Clock` in tests; or `None`.

    Returns:
        That, or the global reactor where it is `None`.
    """
    if reactor is None:
        from twisted.internet import reactor as theReactor

        return theReactor
    return reactor
