"""
Pages on the health of a server, for load balancers and container runtimes.

``/healthz`` answers as long as the server runs.  ``/readyz`` says whether it takes clients: it
listens, its accounts can be read, it notices when they change, and it is not draining.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from pbauth._async import SingleFlight

_log = Logger()

#: Seconds that a check may take.
LONGEST = 5.0


#: What is wrong where the accounts can't be read.
ACCOUNTS = "the accounts can't be read"


class Readiness:
    """
    Whether a server takes clients.

    Args:
        checks: by what is wrong where they fail; each gives whether it passes, or a Deferred of it.
        reactor: provides `IReactorTime`.

    Attributes:
        last: what was wrong when somebody asked last.
    """

    def __init__(self, checks: Mapping[str, Callable[[], Any]], reactor: Any) -> None:
        self.last: list[str] = []
        self._checks = checks
        self._reactor = reactor
        # However many ask, the accounts are read by one of them.
        self._asking: SingleFlight[list[str]] = SingleFlight(self._ask)

    def problems(self) -> Deferred[list[str]]:
        """
        Find out what is wrong.

        Returns:
            Fires with all that is wrong; empty: the server is ready.
        """
        return self._asking.run()

    async def _ask(self) -> list[str]:
        checks = self._checks.items()
        self.last = [problem for problem, check in checks if not await self._passes(check)]
        return self.last

    async def _passes(self, check: Callable[[], Any]) -> bool:
        try:
            return bool(await maybeDeferred(check).addTimeout(LONGEST, self._reactor))
        except Exception as error:
            # The log has the reason; anybody may read this page.
            _log.debug("A check of the server's health failed: {error!r}", error=error)
            return False


class _Alive(Resource):
    """Answers."""

    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        """Answer."""
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        return b"alive\n"


class _Ready(Resource):
    """Says whether the server is ready."""

    isLeaf = True

    def __init__(self, readiness: Readiness) -> None:
        super().__init__()
        self._readiness = readiness

    def render_GET(self, request: Any) -> int:
        """Answer once that is known; 503: not ready, with what is wrong, a line each."""
        request.notifyFinish().addErrback(lambda _: gone.append(True))
        gone: list[bool] = []

        def answer(problems: list[str]) -> None:
            if not gone:
                request.setResponseCode(503 if problems else 200)
                request.setHeader(b"content-type", b"text/plain; charset=utf-8")
                lines = [f"not ready: {problem}\n" for problem in problems] or ["ready\n"]
                request.write("".join(lines).encode())
                request.finish()

        self._readiness.problems().addCallback(answer)
        return NOT_DONE_YET


def addPages(root: Resource, readiness: Readiness) -> None:
    """
    Add the pages to a web server.

    Args:
        root: of its pages.
        readiness: of the server.
    """
    root.putChild(b"healthz", _Alive())
    root.putChild(b"readyz", _Ready(readiness))


class HealthSite(Site):
    """
    A web server that has these pages, and nothing else.

    Args:
        readiness: of the server.
    """

    noisy = False
    displayTracebacks = False

    def __init__(self, readiness: Readiness) -> None:
        root = Resource()
        addPages(root, readiness)
        super().__init__(root, timeout=30)

    def log(self, request: Any) -> None:
        """Say nothing: whoever asks does so every few seconds."""
