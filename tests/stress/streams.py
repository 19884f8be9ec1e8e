"""Streams: a thousand at once, readers that are slow or gone, and cables that are cut."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from attrs import evolve, frozen

from tests.benchmarks.program import Program, Stage
from tests.stress.findings import Findings
from tests.stress.resources import MEBIBYTE, forgetPeakOf, peakOf, sizeOf

#: The most seconds to wait for something that has no time of its own.
_PATIENCE = 30.0

#: What a stream may take of the server's memory, in bytes: two buffers of 16 values.
_EACH = 32_768

#: The default buffer of a reader, and what of the next batch may have been made.
_BUFFER = 2 * 16


@frozen
class Plan:
    """
    Attributes:
        streams: at once.
        clients: that they are shared out to.
        values: in each stream that is read to its end.
        size: of a value, in bytes.
        pingInterval: seconds, at both ends.
        judged: memory tells something.
    """

    streams: int = 1000
    clients: int = 10
    values: int = 200
    size: int = 1000
    pingInterval: float = 2
    judged: bool = True


FULL = Plan()
SHORT = Plan(streams=20, clients=2, values=40, pingInterval=1, judged=False)


def limited(plan: Plan, seconds: float | None, clients: int | None) -> Plan:
    """The plan with what the user says."""
    if seconds is not None:
        plan = evolve(plan, pingInterval=max(0.5, seconds / 20))
    if clients is not None:
        plan = evolve(plan, clients=clients)
    return plan


def lifetime(plan: Plan) -> float:
    """The most seconds that it may take."""
    return 180 + 10 * plan.pingInterval


def run(plan: Plan, findings: Findings, stage: Stage) -> None:
    """
    Args:
        plan: how much.
        findings: is told everything.
        stage: for the processes.
    """
    serverCore, clientCore = stage.cores
    policy = {"pingInterval": plan.pingInterval}
    options = {"accounts": plan.clients, "policy": policy}
    server = stage.start("tests.stress.server", "Server", serverCore, options)
    port = server.ask("listen")["tcp"]
    streams = _Streams(plan, findings, stage, server)
    reader = streams.reader(clientCore, port)
    streams.many(reader)
    streams.slow(reader)
    streams.cut(clientCore, port)
    log = server.ask("log")
    findings.expect(not log["bad"], "no traceback in the server's log")


class _Streams:
    """The parts, one after the other."""

    def __init__(self, plan: Plan, findings: Findings, stage: Stage, server: Program) -> None:
        self._plan = plan
        self._findings = findings
        self._stage = stage
        self._server = server

    def reader(self, core: int | None, port: int) -> Program:
        """Start a process of readers."""
        reader = self._stage.start("tests.stress.reader", "Reader", core, {})
        plan = self._plan
        reader.ask("join", port=port, clients=plan.clients, pingInterval=plan.pingInterval)
        return reader

    def _grown(self, before: int, what: str) -> None:
        grown = peakOf(self._server.pid) - before
        text = f"the server's memory grew by {grown / MEBIBYTE:.1f} MiB at most, {what}"
        if self._plan.judged:
            self._findings.expect(grown <= self._plan.streams * _EACH, text)
        else:
            self._findings.note(f"{text}; these are too few to judge")

    def _memory(self) -> int:
        self._server.ask("collect")
        forgetPeakOf(self._server.pid)
        return sizeOf(self._server.pid)

    def _waitFor(self, said: Callable[[], bool]) -> float:
        begun = time.monotonic()
        until = begun + _PATIENCE + 4 * self._plan.pingInterval
        while not said() and time.monotonic() < until:
            time.sleep(0.1)
        return time.monotonic() - begun

    def many(self, reader: Program) -> None:
        """All are read at once, to their ends."""
        plan, findings = self._plan, self._findings
        before, begun = self._memory(), time.monotonic()
        read = reader.ask("read", count=plan.streams, most=plan.values, size=plan.size)
        seconds = time.monotonic() - begun
        findings.note(
            f"{plan.streams:,} streams at once over {plan.clients} connections: {read['values']:,} "
            f"values of {plan.size:,} bytes in {seconds:.1f} s",
            manySeconds=seconds,
            manyValues=read["values"],
        )
        findings.expect(read["whole"] == plan.streams, "each one arrived whole, and in order")
        findings.expect(self._server.ask("streams")["streams"] == 0, "each generator has ended")
        self._grown(before, "while they were sent")

    def slow(self, reader: Program) -> None:
        """Streams without an end, whose readers take three values and stop; then these go."""
        plan, findings = self._plan, self._findings
        made = self._server.ask("streams")["made"]
        before = self._memory()
        reader.ask("begin", count=plan.streams, most=10**9, size=plan.size, taken=3)
        # Whatever goes on would go on now.
        time.sleep(min(2.0, plan.pingInterval))
        there = self._server.ask("streams")
        each = (there["made"] - made) / plan.streams
        findings.note(
            f"{plan.streams:,} readers took 3 values and stopped: {each:.1f} were made for each",
            slowMade=each,
        )
        findings.expect(there["streams"] == plan.streams, "all streams are open")
        findings.expect(each <= _BUFFER + 3, "a generator waits for its reader")
        self._grown(before, "while the readers did nothing")
        reader.ask("drop")
        self._waitFor(lambda: self._server.ask("streams")["streams"] == 0)
        findings.expect(
            self._server.ask("streams")["streams"] == 0, "readers that go end their generators"
        )

    def cut(self, core: int | None, port: int) -> None:
        """The cable is cut while all are being read: both ends notice."""
        plan, findings = self._plan, self._findings
        cable = self._stage.start("tests.stress.cable", "Cable", None, {"port": port})
        reader = self.reader(core, cable.ask("listen"))
        before = self._memory()
        reader.ask("start", count=plan.streams, most=10**9, size=plan.size)
        self._waitFor(lambda: self._server.ask("streams")["streams"] == plan.streams)
        cable.ask("cut")
        took = self._waitFor(lambda: self._server.ask("streams")["streams"] == 0)
        findings.expect(
            self._server.ask("streams")["streams"] == 0,
            f"a cable that is cut ends all {plan.streams:,} generators, {took:.1f} s later",
        )
        outcomes = Counter(ended for _, ended in reader.ask("outcomes"))
        findings.note(f"their readers: {dict(outcomes)}", cutOutcomes=dict(outcomes))
        findings.expect(
            outcomes == {"PBConnectionLost": plan.streams},
            "each reader has its values in order, and then an error: none takes that for the end",
        )
        self._grown(before, "meanwhile")
        cable.end()
