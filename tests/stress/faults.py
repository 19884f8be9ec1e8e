"""Clients and servers that are killed, and cables that are cut: all is noticed, once."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from attrs import evolve, frozen

from tests.benchmarks.peers.accounts import nameOf
from tests.benchmarks.program import Program, Stage
from tests.stress.findings import Findings
from tests.stress.member import CAN_STAY
from tests.stress.server import CAN_PING, CAN_QUEUE

#: The most seconds to wait for something that has no time of its own.
_PATIENCE = 20.0

#: The account of the client that stays.
_STAYING = 0


@frozen
class Plan:
    """
    Attributes:
        clients: whose process is killed, or cable cut.
        pingInterval: seconds, at both ends.
        messages: to who is away.
        times: how often the cable is cut, of the client that stays.
    """

    clients: int = 200
    pingInterval: float = 5
    messages: int = 500
    times: int = 3


FULL = Plan()
SHORT = Plan(clients=5, pingInterval=1, messages=20, times=1)


def limited(plan: Plan, seconds: float | None, clients: int | None) -> Plan:
    """The plan with what the user says."""
    if seconds is not None:
        # It takes about ten times that.
        plan = evolve(plan, pingInterval=max(0.5, seconds / 12))
    if clients is not None:
        plan = evolve(plan, clients=clients)
    return plan


def lifetime(plan: Plan) -> float:
    """The most seconds that it may take."""
    return 120 + 4 * (2 + plan.times) * plan.pingInterval + plan.clients / 10


def run(plan: Plan, findings: Findings, stage: Stage) -> None:
    """
    Args:
        plan: how much.
        findings: is told everything.
        stage: for the processes.
    """
    faults = Faults(plan, findings, stage)
    faults.clientKilled()
    faults.serverKilled()
    if CAN_PING:
        faults.cableCut()
    else:
        findings.skip("a cable that is cut: this version has no Policy.pingInterval")
    if CAN_PING and CAN_STAY:
        faults.clientStays()
    else:
        findings.skip("clients that log in again: this version has no PerspectiveClient")
    faults.end()


class Faults:
    """
    One server, and those who are cut off from it.

    Args:
        plan: how much.
        findings: is told everything.
        stage: for the processes.
    """

    def __init__(self, plan: Plan, findings: Findings, stage: Stage) -> None:
        self._plan = plan
        self._findings = findings
        self._stage = stage
        self._port = 0
        self._server = self._startServer()

    def clientKilled(self) -> None:
        """A process with many clients is killed."""
        count = self._plan.clients
        doomed, witness = self._member(), self._member()
        witness.ask("join", port=self._port, first=count + 1, count=1)
        doomed.ask("join", port=self._port, first=1, count=count)
        os.kill(doomed.pid, signal.SIGKILL)
        seconds = self._waitFor(lambda: self._events()["detached"] == count)
        self._findings.note(
            f"a process with {count:,} clients was killed: the server noticed within "
            f"{seconds:.2f} s",
            clientsKilled=count,
            secondsAfterKill=seconds,
        )
        self._expectOnce(range(1, count + 1), "killed")
        sessions = self._server.ask("look")["sessions"]
        self._findings.expect(sessions == 1, "a client of another process is still logged in")
        self._witness = witness

    def serverKilled(self) -> None:
        """The server is killed, and started again."""
        os.kill(self._server.pid, signal.SIGKILL)
        seconds = self._waitFor(lambda: self._witness.ask("dead") == 1)
        self._findings.note(
            f"the server was killed: its client noticed within {seconds:.2f} s",
            secondsAfterServerKill=seconds,
        )
        self._server = self._startServer()
        self._witness.ask("join", port=self._port, first=1, count=1)
        events = self._events()
        self._findings.expect(
            (events["attached"], events["detached"]) == (1, 0),
            "a new one, on the same port, lets clients in",
        )
        self._witness.end()
        self._waitFor(lambda: self._events()["detached"] == 1)

    def cableCut(self) -> None:
        """The cable of many clients is cut: nobody says good-bye."""
        count, interval = self._plan.clients, self._plan.pingInterval
        cable = self._cable()
        member = self._member()
        before = self._events()["detached"]
        member.ask("join", port=cable.ask("listen"), first=1, count=count)
        cable.ask("cut")
        seconds = self._waitFor(lambda: self._events()["detached"] == before + count, 3 * interval)
        self._findings.note(
            f"the cable of {count:,} clients was cut, and no connection closed: the server noticed "
            f"within {seconds:.1f} s, with a ping interval of {interval:g} s",
            secondsAfterCut=seconds,
            pingInterval=interval,
        )
        # A question, and the time for its answer; and what a busy machine takes.
        self._findings.expect(seconds <= 2 * interval + 2, "in twice the ping interval")
        self._expectOnce(range(1, count + 1), "cut off")
        member.end()
        cable.end()

    def clientStays(self) -> None:
        """The cable of a client that stays is cut, again and again; then the server is killed."""
        interval, count = self._plan.pingInterval, self._plan.messages
        cable, member = self._cable(), self._member()
        member.ask("stay", port=cable.ask("listen"), number=_STAYING, pingInterval=interval)
        self._expectAttached(member, 1)
        sent: list[int] = []
        lost: list[int] = []
        for turn in range(self._plan.times):
            first = turn * 3 * count
            # To who is there; to who is cut off and nobody knows; to who is away.
            self._tell(first, count)
            sent += range(first, first + count)
            self._waitForMessages(member, len(sent))
            cable.ask("cut")
            self._tell(first + count, count)
            lost += range(first + count, first + 2 * count) if CAN_QUEUE else []
            self._waitFor(
                lambda turn=turn: self._detachedFrom(_STAYING) == turn + 1,  # type: ignore[misc]
                3 * interval,
            )
            self._tell(first + 2 * count, count)
            sent += range(first + 2 * count, first + 3 * count)
            cable.ask("mend")
            seconds = self._expectAttached(member, turn + 2)
            self._waitForMessages(member, len(sent))
        self._findings.note(
            f"the cable of a client that stays was cut {self._plan.times} times; it was attached "
            f"again {seconds:.1f} s after the last time that it was mended",
            timesCut=self._plan.times,
            secondsToAttachAgain=seconds,
        )
        if CAN_QUEUE:
            self._compare(member.ask("look")["received"], sent, lost)
        else:
            self._findings.skip("messages for who is away: this version has no perspective.clients")
        attached = self._plan.times + 1
        os.kill(self._server.pid, signal.SIGKILL)
        time.sleep(0.5)
        self._server = self._startServer()
        seconds = self._expectAttached(member, attached + 1)
        self._findings.note(
            f"the server was killed and started again: the client was back after {seconds:.1f} s",
            secondsToAttachToNewServer=seconds,
        )
        found = member.ask("look")
        self._findings.expect(
            (found["attached"], found["detached"]) == (attached + 1, attached),
            f"at the client, attached {attached + 1} times and detached {attached} times",
        )
        member.end()
        self._waitFor(lambda: self._detachedFrom(_STAYING) == 1)
        self._expectOnce([_STAYING], "that stayed")
        cable.end()

    def end(self) -> None:
        """Look at the log of the last server."""
        log = self._server.ask("log")
        self._findings.expect(
            not log["bad"], f"no traceback in the server's log {log['bad'] or ''}".rstrip()
        )

    # Processes.

    def _startServer(self) -> Program:
        plan = self._plan
        policy = {"pingInterval": plan.pingInterval} if CAN_PING else {}
        options = {
            "accounts": plan.clients + 2,
            "policy": policy,
            "port": self._port,
            "kept": 1,
            "queue": plan.messages,
        }
        server = self._stage.start("tests.stress.server", "Server", self._stage.cores[0], options)
        self._port = server.ask("listen")["tcp"]
        return server

    def _member(self) -> Program:
        return self._stage.start("tests.stress.member", "Member", self._stage.cores[1], {})

    def _cable(self) -> Program:
        options = {"port": self._port}
        return self._stage.start("tests.stress.cable", "Cable", self._stage.cores[1], options)

    # What happened.

    def _waitFor(self, happened: Callable[[], bool], seconds: float = 0.0) -> float:
        """Wait; gives the seconds that it took, even if it did not happen."""
        begun = time.monotonic()
        while not happened() and time.monotonic() - begun < seconds + _PATIENCE:
            time.sleep(0.02)
        return time.monotonic() - begun

    def _events(self) -> Counter[str]:
        return Counter(kind for kind, _ in self._server.ask("events"))

    def _detachedFrom(self, number: int) -> int:
        return int(self._server.ask("events").count(["detached", nameOf(number)]))

    def _expectOnce(self, numbers: Any, what: str) -> None:
        events = Counter(map(tuple, self._server.ask("events")))
        names = [nameOf(number) for number in numbers]
        once = all(events["attached", name] == events["detached", name] >= 1 for name in names)
        self._findings.expect(once, f"detached ran once for each client {what}")

    def _expectAttached(self, member: Program, times: int) -> float:
        seconds = self._waitFor(lambda: member.ask("look")["attached"] == times)
        if member.ask("look")["attached"] != times:
            self._findings.expect(False, f"the client that stays is attached for the {times}. time")
        return seconds

    # Messages.

    def _waitForMessages(self, member: Program, count: int) -> None:
        if CAN_QUEUE:
            self._waitFor(lambda: len(member.ask("look")["received"]) >= count)

    def _tell(self, first: int, count: int) -> None:
        if CAN_QUEUE:
            self._server.ask("tell", name=nameOf(_STAYING), first=first, count=count)

    def _compare(self, received: list[int], sent: list[int], lost: list[int]) -> None:
        outcomes: dict[int, str] = dict(self._server.ask("told"))
        self._findings.note(
            f"{len(sent):,} messages were sent to it while it was there, or known to be away; "
            f"{len(lost):,} while it was cut off and nobody knew: of those "
            f"{len(set(lost) & set(received)):,} arrived",
            messages=len(sent),
            messagesOnTheWay=len(lost),
        )
        self._findings.expect(
            len(received) == len(set(received)) and received == sorted(received),
            "no message came twice, and all came in order",
        )
        self._findings.expect(
            set(sent) <= set(received) and all(outcomes[number] == "taken" for number in sent),
            "each that waited for the client came",
        )
        told = all((outcomes[number] == "taken") == (number in received) for number in lost)
        waiting = any(outcome == "under way" for outcome in outcomes.values())
        self._findings.expect(
            told and not waiting, "of each that was lost on the way its sender was told"
        )
