"""A long session that is given a million objects, and drops them: memory stays as it is."""

from __future__ import annotations

from attrs import evolve, frozen

from tests.benchmarks.program import Stage
from tests.stress.findings import Findings
from tests.stress.resources import MEBIBYTE, sizeOf

#: How much the server's memory may differ between the last two samples, in bytes.
_DIFFERENCE = 2 * MEBIBYTE


@frozen
class Plan:
    """
    Attributes:
        given: how many objects have been given at each sample, in all.
        seconds: the most that it may take.
        judged: memory tells something.
    """

    given: tuple[int, ...] = (1_000, 100_000, 1_000_000)
    seconds: float = 600
    judged: bool = True


FULL = Plan()
SHORT = Plan(given=(1_000, 5_000, 10_000), judged=False)


def limited(plan: Plan, seconds: float | None, clients: int | None) -> Plan:
    """The plan with what the user says; there is one client."""
    return plan if seconds is None else evolve(plan, seconds=seconds)


def lifetime(plan: Plan) -> float:
    """The most seconds that it may take."""
    return 60 + plan.seconds


def run(plan: Plan, findings: Findings, stage: Stage) -> None:
    """
    Args:
        plan: how much.
        findings: is told everything.
        stage: for the processes.
    """
    serverCore, clientCore = stage.cores
    server = stage.start("tests.stress.server", "Server", serverCore, {"accounts": 1, "policy": {}})
    receiver = stage.start("tests.stress.receiver", "Receiver", clientCore, {})
    receiver.ask("join", port=server.ask("listen")["tcp"])
    samples = []
    for given in plan.given:
        receiver.ask("receive", upTo=given)
        for program in (receiver, server):
            program.ask("collect")
        held = server.ask("held")
        size = sizeOf(server.pid)
        samples.append({"given": given, "held": held, "bytes": size})
        findings.note(
            f"{given:,} objects given and dropped: the server's books have {held} entries, and it "
            f"takes {size / MEBIBYTE:.1f} MiB"
        )
    findings.figures["samples"] = samples
    findings.expect(
        len({sample["held"] for sample in samples}) == 1, "the books do not grow with what is given"
    )
    growth = samples[-1]["bytes"] - samples[-2]["bytes"]
    text = f"memory is flat: from the last but one to the last, {growth / MEBIBYTE:+.1f} MiB"
    if plan.judged:
        findings.expect(growth <= _DIFFERENCE, text)
    else:
        findings.note(f"{text}; these are too few to judge")
    findings.expect(server.ask("look")["sessions"] == 1, "it was one session")
    log = server.ask("log")
    findings.expect(not log["bad"], "no traceback in the server's log")
