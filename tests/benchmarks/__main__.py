"""The command: ``python -m tests.benchmarks``."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from tests.benchmarks.peers import PEERS
from tests.benchmarks.picture import draw
from tests.benchmarks.plan import FULL, LEAST, QUICK
from tests.benchmarks.program import BenchmarkFailed
from tests.benchmarks.report import asReStructuredText, asText
from tests.benchmarks.suite import FORMAT, PARTS, runAll
from tests.benchmarks.work import WORKS


def main(arguments: list[str]) -> int:
    """Measure, or read what was measured, and write it down."""
    parser = _parser()
    options = parser.parse_args(arguments)
    chosen = _only(parser, options.only)
    for path in (options.json, options.plot, options.rst):
        # Not after ten minutes.
        if path is not None and not os.path.isdir(os.path.dirname(path) or "."):
            parser.error(f"There is no folder for {path}.")
    try:
        if options.read is not None:
            made = _read(parser, options.read)
        else:
            made = runAll(options.plan, **chosen, other=options.beside, say=_say)
    except BenchmarkFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; nothing was written.", file=sys.stderr)
        return 130
    print(asText(made), end="")
    for path, text in (
        (options.json, json.dumps(made, indent=1) + "\n"),
        (options.plot, draw(made)),
        (options.rst, asReStructuredText(made)),
    ):
        if path is not None:
            Path(path).write_text(text)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description="Measure pbauth beside stock PB and others, on loopback.",
    )
    parser.set_defaults(plan=FULL)
    group = parser.add_mutually_exclusive_group()
    for plan, text in (
        (QUICK, "about a minute, in place of about eight"),
        (LEAST, "everything once, to see that it runs; the figures say nothing"),
    ):
        group.add_argument(
            f"--{plan.name}", dest="plan", action="store_const", const=plan, help=text
        )
    group.add_argument(
        "--from", dest="read", metavar="FILE", help="measure nothing; read this JSON"
    )
    parser.add_argument("--json", metavar="FILE", help="write everything, with all samples")
    parser.add_argument(
        "--beside",
        metavar="FOLDER",
        type=_checkout,
        help="measure the pbauth of another checkout, too; it has these benchmarks, or older ones",
    )
    parser.add_argument("--plot", metavar="FILE", help="draw a picture, SVG")
    parser.add_argument("--rst", metavar="FILE", help="write the tables as reStructuredText")
    parser.add_argument(
        "--only",
        metavar="NAMES",
        help="measure only these parts, peers and works, with commas between. "
        f"Parts: {', '.join(PARTS)}. Peers: {', '.join(PEERS)}. Works: {', '.join(WORKS)}",
    )
    return parser


def _checkout(folder: str) -> Path:
    path = Path(folder).resolve()
    if not (path / "tests/benchmarks/child.py").is_file():
        raise argparse.ArgumentTypeError(f"{folder} is not a checkout of pbauth.")
    return path


def _only(parser: argparse.ArgumentParser, text: str | None) -> dict[str, Any]:
    names = [] if text is None else [name.strip() for name in text.split(",")]
    chosen: dict[str, Any] = {}
    for kind, known in (("parts", PARTS), ("peers", tuple(PEERS)), ("works", tuple(WORKS))):
        found = tuple(name for name in known if name in names)
        if found:
            chosen[kind] = found
    for name in names:
        if name not in (*PARTS, *PEERS, *WORKS):
            parser.error(f"--only: there is no {name!r}. See --help.")
    if {"peers", "works"} & chosen.keys():
        # They are of calls.
        chosen.setdefault("parts", ("calls",))
    return chosen


def _read(parser: argparse.ArgumentParser, path: str) -> Any:
    try:
        made = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        parser.error(f"Can't read {path}: {error}")
    if not isinstance(made, dict) or made.get("format") != FORMAT:
        parser.error(f"{path} was not written by this version of the benchmarks.")
    return made


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _interrupted(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    # Also where Ctrl-C was ignored, as for what runs in a shell's background.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)
    sys.exit(main(sys.argv[1:]))
