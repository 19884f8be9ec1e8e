"""
What runs in a process under measurement: the server or the client of one peer.

The harness sends requests, a line of JSON each, to its standard input: ``{"do": NAME, ...}`` calls
the method ``do_NAME`` of the peer's `Server` or `Client`. The answers, ``{"answer": ...}`` or
``{"error": ...}``, go out by what was its standard output. When its standard input ends, so does
the process, at once; and it never outlives the time that it was given.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from inspect import isawaitable
from typing import Any, TextIO


class Requests:
    """
    Carries out requests.

    Args:
        target: whose methods they are.
    """

    def __init__(self, target: Any) -> None:
        self._target = target

    def carryOut(self, line: str) -> Any:
        """Call the method; gives what that gives, which may have to be waited for."""
        request = json.loads(line)
        name = f"do_{request.pop('do')}"
        holder = self if hasattr(self, name) else self._target
        return getattr(holder, name)(**request)

    async def answer(self, line: str) -> str:
        """Carry out a request, and make the line to answer."""
        try:
            result = self.carryOut(line)
            if isawaitable(result):
                result = await result
            return answerOf(result)
        except Exception:
            return errorOf(traceback.format_exc())

    # What every process does.

    def do_usage(self) -> dict[str, Any]:
        """Tell the seconds of CPU of all threads so far, and the bytes of memory now."""
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[1])
        return {"cpu": time.process_time(), "rss": pages * resource.getpagesize()}

    def do_collect(self) -> None:
        """Leave no garbage for the next sample to clear away."""
        gc.collect()

    def do_affinity(self) -> list[int]:
        """Tell the cores that this process may run on."""
        return sorted(os.sched_getaffinity(0))


def answerOf(result: Any) -> str:
    """The line that answers."""
    return json.dumps({"answer": result}) + "\n"


def errorOf(text: str) -> str:
    """The line that says what went wrong."""
    return json.dumps({"error": text}) + "\n"


class Watch:
    """Takes the time of a sample, on the wall and of this process's CPU."""

    def __init__(self, count: int) -> None:
        self._count = count
        gc.collect()
        self._cpu = time.process_time()
        self._wall = time.perf_counter()

    def stop(self) -> dict[str, Any]:
        """Give the sample."""
        seconds = time.perf_counter() - self._wall
        return {
            "count": self._count,
            "seconds": seconds,
            "clientCpu": time.process_time() - self._cpu,
        }


def runThreads(makeTarget: Callable[[], Any], control: TextIO) -> None:
    """For peers that block: requests are carried out in the main thread."""
    requests = Requests(makeTarget())
    for line in sys.stdin:
        try:
            answer = answerOf(requests.carryOut(line))
        except Exception:
            answer = errorOf(traceback.format_exc())
        control.write(answer)
        control.flush()


def runAsyncio(makeTarget: Callable[[], Any], control: TextIO) -> None:
    """For peers on asyncio: requests are read in a thread, and carried out in the loop."""
    import asyncio

    async def run() -> None:
        requests = Requests(makeTarget())
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            control.write(await requests.answer(line))
            control.flush()
        os._exit(0)

    asyncio.run(run())


def runTwisted(makeTarget: Callable[[], Any], control: TextIO) -> None:
    """For peers on Twisted: requests are read and carried out by the reactor."""
    from twisted.internet import reactor, stdio
    from twisted.internet.defer import Deferred
    from twisted.internet.protocol import connectionDone
    from twisted.logger import globalLogBeginner
    from twisted.protocols.basic import LineOnlyReceiver

    from tests.benchmarks.peers.ontwisted import sendAtOnce

    requests: Requests

    class Control(LineOnlyReceiver):
        transport: Any
        delimiter = b"\n"

        def lineReceived(self, line: bytes) -> None:
            Deferred.fromCoroutine(self.answer(line.decode()))

        async def answer(self, line: str) -> None:
            self.transport.write((await requests.answer(line)).encode())

        def connectionLost(self, reason: Any = connectionDone) -> None:
            os._exit(0)

    # Without an observer; by default Twisted would keep the events until there is one.
    globalLogBeginner.beginLoggingTo([], discardBuffer=True, redirectStandardIO=False)
    sendAtOnce()
    requests = Requests(makeTarget())
    stdio.StandardIO(Control(), stdin=sys.stdin.fileno(), stdout=control.fileno())  # type: ignore[call-arg]
    reactor.run(installSignalHandlers=False)  # type: ignore[attr-defined,call-arg]


FAMILIES: dict[str, Callable[[Callable[[], Any], TextIO], None]] = {
    "threads": runThreads,
    "asyncio": runAsyncio,
    "twisted": runTwisted,
}


def main() -> None:
    """Set up the process as the harness says, and serve it."""
    module, role, settings = sys.argv[1:]
    options = json.loads(settings)
    # Ctrl-C is the harness's business; whatever happens to it, this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.alarm(options.pop("lifetime"))
    core = options.pop("core")
    if core is not None:
        os.sched_setaffinity(0, {core})
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # Nothing but answers goes to the harness, whatever a library prints.
    control = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    peer = import_module(module)
    kind: Callable[..., Any] = getattr(peer, role)
    FAMILIES[peer.FAMILY](lambda: kind(**options), control)
    os._exit(0)


if __name__ == "__main__":
    main()
