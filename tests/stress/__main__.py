"""The command: ``python -m tests.stress``."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.program import BenchmarkFailed, Stage
from tests.stress import attacks, crowd, exports, faults, fuzz, streams
from tests.stress.findings import Findings

SCENARIOS: dict[str, Any] = {
    "crowd": crowd,
    "attacks": attacks,
    "faults": faults,
    "exports": exports,
    "streams": streams,
    "fuzz": fuzz,
}


def main(arguments: list[str]) -> int:
    """Run a scenario, and say what came of it."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.list:
        for name, scenario in SCENARIOS.items():
            print(f"{name:<8}  {scenario.__doc__.splitlines()[0]}")
        return 0
    if options.name is None:
        parser.error("Say which one: see --list.")
    if options.json is not None and not os.path.isdir(os.path.dirname(options.json) or "."):
        # Not after ten minutes.
        parser.error(f"There is no folder for {options.json}.")
    scenario = SCENARIOS[options.name]
    plan = scenario.SHORT if options.short else scenario.FULL
    plan = scenario.limited(plan, options.seconds, options.clients)
    findings = Findings(_say)
    begun, load = time.monotonic(), os.getloadavg()[0]
    pids: list[int] = []
    try:
        with Stage(begun + scenario.lifetime(plan)) as stage:
            pids = stage.pids
            scenario.run(plan, findings, stage)
    except BenchmarkFailed as failure:
        findings.expect(False, str(failure))
    except KeyboardInterrupt:
        print("Interrupted; all processes are ended.", file=sys.stderr)
        return 130
    seconds = time.monotonic() - begun
    _say(
        f"{options.name}: {seconds:.0f} s; load of the machine before {load:.2f}, after "
        f"{os.getloadavg()[0]:.2f}"
    )
    if options.json is not None:
        made = {
            "scenario": options.name,
            "short": options.short,
            "shown": not findings.faults,
            "faults": findings.faults,
            "leftOut": findings.skipped,
            "seconds": seconds,
            "load": [load, os.getloadavg()[0]],
            "processes": pids,
            "figures": findings.figures,
        }
        Path(options.json).write_text(json.dumps(made, indent=1) + "\n")
    for fault in findings.faults:
        print(f"{options.name}: not shown: {fault}", file=sys.stderr)
    return 1 if findings.faults else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.stress",
        description="Show what a server withstands, on loopback. Ends with 0 if all was shown that "
        "is to be shown, with 1 and the reason if not.",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", choices=SCENARIOS, help="see --list")
    parser.add_argument("--list", action="store_true", help="list the scenarios, and run nothing")
    parser.add_argument("--seconds", type=_positive, metavar="N", help="how long, where it matters")
    parser.add_argument(
        "--clients", type=lambda text: int(_positive(text)), metavar="N", help="how many clients"
    )
    parser.add_argument(
        "--short", action="store_true", help="a few seconds, small numbers; judges no time"
    )
    parser.add_argument("--json", metavar="FILE", help="write everything, with all figures")
    return parser


def _positive(text: str) -> float:
    number = float(text)
    if not 1 <= number <= 100_000:
        raise argparse.ArgumentTypeError("must be from 1 to 100,000")
    return number


def _say(line: str) -> None:
    print(line, flush=True)


def _interrupted(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    # Also where Ctrl-C was ignored, as for what runs in a shell's background.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)
    sys.exit(main(sys.argv[1:]))
