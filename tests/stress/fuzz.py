"""Whatever bytes come before a login: nothing is raised, no error logged, nothing kept."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from tests.benchmarks.program import ROOT, Stage
from tests.stress.findings import Findings
from tests.stress.resources import MEBIBYTE

#: Seconds between two lines that say how far it is.
_PERIOD = 60.0

#: How many objects Python may have more at the end: what is kept of how the fuzzer itself fared,
#: and so few for each execution that none leaves any behind.
_MOST_BLOCKS, _MOST_BLOCKS_EACH = 20_000, 0.02


@frozen
class Plan:
    """
    Attributes:
        seconds: for so long.
        judged: it is long enough to tell whether memory grows, and to have the code prepared first.
    """

    seconds: float = 600
    judged: bool = True


FULL = Plan()
SHORT = Plan(seconds=2, judged=False)


def limited(plan: Plan, seconds: float | None, clients: int | None) -> Plan:
    """The plan with what the user says; there are no clients."""
    return plan if seconds is None else evolve(plan, seconds=seconds)


def lifetime(plan: Plan) -> float:
    """The most seconds that it may take."""
    return plan.seconds + 120


def run(plan: Plan, findings: Findings, stage: Stage) -> None:
    """
    Args:
        plan: how long.
        findings: is told everything.
        stage: is told the process.
    """
    engine, guided = _engine(plan)
    findings.note(f"{plan.seconds:.0f} s of fuzzing by {engine}, {guided}", engine=engine)
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryFile("w+") as output:
        folder = Path(name)
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.stress.fuzzing"),
                *(engine, str(int(plan.seconds)), name),
            ],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        stage.pids.append(process.pid)
        try:
            _wait(process, stage.deadline, folder, findings)
        finally:
            process.kill()
            process.wait()
        output.seek(0)
        _judge(plan, findings, folder, process.returncode, output.read())


def _engine(plan: Plan) -> tuple[str, str]:
    if not plan.judged:
        return "hypothesis", "not guided by coverage, which takes longer to prepare than this lasts"
    if find_spec("atheris") is None:
        return "hypothesis", "not guided by coverage: for that, pip install atheris"
    return "atheris", "guided by coverage"


def _wait(
    process: subprocess.Popen[bytes], deadline: float, folder: Path, findings: Findings
) -> None:
    while time.monotonic() < deadline:
        try:
            process.wait(min(_PERIOD, max(0.1, deadline - time.monotonic())))
            return
        except subprocess.TimeoutExpired:
            counts = _status(folder)["counts"]
            findings.say(f"  {counts.get('executions', 0):,} executions so far")
    findings.expect(False, "the fuzzer ends in time")


def _status(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / "status.json").read_text())
    except FileNotFoundError:
        return {"counts": {}, "samples": []}
    return found


def _judge(plan: Plan, findings: Findings, folder: Path, code: int, output: str) -> None:
    status = _status(folder)
    counts = status["counts"]
    executions = _executions(counts, output)
    findings.note(
        f"{executions:,} executions; of those counted, {counts.get('logins', 0):,} were logins, "
        f"{counts.get('answered', 0):,} got an answer, {counts.get('cutOff', 0):,} were cut off",
        executions=executions,
        counts=counts,
    )
    covered = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)/", output)
    if covered:
        first, last = ([int(number) for number in each] for each in (covered[0], covered[-1]))
        findings.note(
            f"{last[0]:,} places of the code were reached, {first[0]:,} at first; {last[2]:,} "
            "inputs reach something that no other does",
            covered=last[0],
            corpus=last[2],
        )
    for crash in sorted(folder.glob("*-*")):
        findings.note(f"{crash.name}: {crash.read_bytes().hex()}")
    sound = code == 0 and executions > 0
    findings.expect(
        sound,
        "nothing was raised, no error logged, no timer, session or connection left"
        + ("" if sound else f" (exit code {code}):\n{output[-4000:]}"),
    )
    _judgeMemory(plan, findings, status["samples"])


def _executions(counts: dict[str, int], output: str) -> int:
    done = re.search(r"Done (\d+) runs", output)
    return int(done[1]) if done else counts.get("executions", 0)


def _judgeMemory(plan: Plan, findings: Findings, samples: list[list[int]]) -> None:
    # The first one was taken before anything had run.
    settled = samples[1:]
    if not plan.judged or len(settled) < 2:
        findings.say("  too short to tell whether memory grows")
        return
    (begun, before, sizeBefore), (ended, after, sizeAfter) = settled[0], settled[-1]
    findings.note(
        f"between execution {begun:,} and {ended:,} Python's objects grew by {after - before:,} "
        f"blocks, the whole process, with the fuzzer's own inputs, by "
        f"{(sizeAfter - sizeBefore) / MEBIBYTE:.1f} MiB",
        blocksGrown=after - before,
        bytesGrown=sizeAfter - sizeBefore,
        samples=samples,
    )
    most = _MOST_BLOCKS + _MOST_BLOCKS_EACH * (ended - begun)
    findings.expect(after - before < most, "memory does not grow")
