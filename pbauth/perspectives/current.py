"""
The session whose code is being run, in a context variable.

A coroutine keeps the variable while it waits; a callback of a Deferred does not.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from inspect import iscoroutine
from typing import Any

from pbauth._async import run

#: The `pbauth.Session`; `None` outside of a session's calls.
CURRENT: ContextVar[Any] = ContextVar("pbauth session", default=None)


def runFor(session: Any, act: Callable[..., Any], *arguments: Any) -> Any:
    """
    Run code of the application for a session.

    Args:
        session: the session.
        act: the code; may be a coroutine function.
        arguments: for it.

    Returns:
        What it returns; of a coroutine that has to wait, a Deferred of that.

    Raises:
        Exception: whatever it raises.
    """
    token = CURRENT.set(session)
    try:
        result = act(*arguments)
        return run(result) if iscoroutine(result) else result
    finally:
        CURRENT.reset(token)
