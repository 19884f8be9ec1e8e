"""The benchmarks run, and leave nothing behind. What they measure is no matter of tests."""

from __future__ import annotations

import json
import os
import sys
from io import StringIO
from pathlib import Path
from typing import Any
from xml.dom import minidom

from docutils.core import publish_doctree
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.benchmarks import suite
from tests.benchmarks.bars import BARS, judge
from tests.benchmarks.logins import KINDS
from tests.benchmarks.peers import BESIDE, PEERS, Peer
from tests.benchmarks.picture import draw
from tests.benchmarks.plan import LEAST
from tests.benchmarks.report import asReStructuredText, asText
from tests.benchmarks.samples import calibrate, ratios
from tests.benchmarks.streams import KINDS as STREAMS
from tests.benchmarks.suite import PARTS, runAll
from tests.benchmarks.work import WORKS
from tests.support.processes import Program, checkInterrupted, childrenOf, isThere

ROOT = str(Path(__file__).parent.parent.parent)

BENCHMARKS = ("-m", "tests.benchmarks")


def start(*arguments: str) -> Program:
    """Start the benchmarks."""
    return Program(*BENCHMARKS, *arguments, directory=ROOT)


class WholeTests(TestCase):
    """All parts, with stock PB and pbauth, here and beside, as little of each as there can be."""

    if not sys.platform.startswith("linux"):
        skip = "The benchmarks pin processes and read /proc: they are for Linux."

    # Where stock PB is slow, on a machine that does other work.
    timeout = LEAST.limit + 20

    async def test_least(self) -> None:
        """Everything is measured once and written down, and no process is left."""
        files = {name: self.mktemp() for name in ("json", "plot", "rst")}
        names = ",".join(("stock", "pbauth", BESIDE, *PARTS))
        options = [
            text for name, path in files.items() for text in (f"--{name}", os.path.abspath(path))
        ]
        program = start("--least", "--only", names, "--beside", str(ROOT), *options)
        self.addCleanup(program.stop)
        await program.whenEnded(LEAST.limit)
        self.assertEqual(program.exitCode, 0, program.output)

        made = json.loads(Path(files["json"]).read_text())
        self.assertEqual(made["plan"], "least")
        self.assertEqual(made["leftOut"], [])
        self.assertEqual(
            {work: set(found) for work, found in made["calls"].items()},
            {work: {"stock", "pbauth", BESIDE} for work in WORKS},
        )
        for found in made["calls"].values():
            for summary in found.values():
                self.checkSummary(summary)
                self.assertIn("timesStock", summary)
        for kind in STREAMS:
            self.checkSummary(made["streams"][kind]["pbauth"])
        self.assertEqual(set(made["streams"]["pieces"]["pbauth"]["grown"]), {"server", "client"})
        self.assertEqual(made["logins"].keys(), KINDS.keys())
        for name, ways in made["logins"].items():
            self.assertEqual(set(ways), {"alone"} if KINDS[name].slow else {"alone", "together"})
            for summary in ways.values():
                self.checkSummary(summary)
        for name in ("stock", "pbauth"):
            for state in ("connected", "loggedIn"):
                self.assertIn("median", made["memory"][name][state]["bytes"])
        self.assertEqual(
            [(each["store"], each["identities"]) for each in made["identities"]],
            [("memory", number) for number in LEAST.identities]
            + [("SQLite", number) for number in LEAST.storedIdentities],
        )
        self.assertEqual(
            [(each["peer"], each["connections"]) for each in made["connections"]],
            [(name, number) for number in LEAST.connections for name in ("stock", "pbauth")],
        )
        for each in [*made["identities"], *made["connections"]]:
            self.checkSummary(each)
        self.assertEqual([each["identities"] for each in made["stores"]], list(LEAST.filled))
        for each in made["stores"]:
            self.assertGreater(each["import"]["rate"], 0)
            self.assertEqual(len(each["lookup"]["samples"]), LEAST.growthRounds)
            for name in ("start", "memory"):
                self.assertEqual(set(each[name]), {"median", "min", "max"})
        self.assertEqual(len(made["bars"]), len(BARS))
        values = [bar["value"] for bar in made["bars"] if "SQLite" in bar["work"]]
        self.assertEqual([type(value) for value in values], [float])

        self.assertGreater(len(made["processes"]), 10)
        self.assertEqual([pid for pid in made["processes"] if isThere(pid)], [])

        minidom.parse(files["plot"])  # noqa: S318 - our own
        self.checkPage(Path(files["rst"]).read_text())

    def checkSummary(self, summary: dict[str, Any]) -> None:
        """A summary has its samples and what they come to."""
        for sample in summary["samples"]:
            self.assertEqual(set(sample), {"count", "seconds", "clientCpu", "serverCpu"}, sample)
            self.assertGreater(sample["count"], 0)
        for name in ("rate", "serverCpu", "clientCpu"):
            self.assertEqual(set(summary[name]), {"median", "min", "max"})

    def checkPage(self, text: str) -> None:
        """It is good reStructuredText."""
        warnings = StringIO()
        publish_doctree(text, settings_overrides={"warning_stream": warnings, "report_level": 1})
        self.assertEqual(warnings.getvalue(), "")

    async def test_interrupted(self) -> None:
        """Ctrl-C ends all processes at once."""
        await checkInterrupted(self, start("--quick", "--only", "stock,pbauth"), "calls: ")

    async def test_failed(self) -> None:
        """Where a process dies, the others are ended, and it is said which one it was."""
        program = start("--quick", "--only", "stock,pbauth")
        self.addCleanup(program.stop)
        await program.waitFor("calls: ")
        started = childrenOf(program.process.pid)
        os.kill(started[0], 9)
        await program.whenEnded()
        self.assertEqual(program.exitCode, 1, program.output)
        self.assertRegex(program.output, "(?m)^The (server|client) of .* ended too early$")
        self.assertEqual([pid for pid in started if isThere(pid)], [])

    async def test_unknownName(self) -> None:
        """What is not there is not measured in silence."""
        program = start("--only", "stock,nobody")
        self.addCleanup(program.stop)
        await program.whenEnded()
        self.assertEqual(program.exitCode, 2)
        self.assertIn("--only: there is no 'nobody'.", program.output)


def samplesOf(*rates: float, cpu: float = 0.001) -> list[dict[str, float]]:
    """Samples of a second each."""
    return [
        {"count": rate, "seconds": 1.0, "serverCpu": cpu * rate, "clientCpu": cpu * rate}
        for rate in rates
    ]


class ReportTests(SynchronousTestCase):
    """What the samples come to."""

    def test_leftOut(self) -> None:
        """Who is not installed is left out, with a line that says so."""
        absent = Peer("Absent", "absent", "notinstalled", "not-installed")
        self.patch(suite, "PEERS", {**PEERS, "absent": absent})
        said: list[str] = []
        made = runAll(LEAST, parts=(), peers=("absent",), say=said.append)
        self.assertEqual(said, ["Absent is left out, not installed: pip install not-installed"])
        self.assertEqual(made["leftOut"][0]["peer"], "absent")

    def test_ratiosByRound(self) -> None:
        """Samples are compared with those of the same round."""
        self.assertEqual(ratios([20.0, 30.0], [10.0, 10.0]), [2.0, 3.0])
        self.assertEqual(ratios([20.0], [0.0]), [])

    def test_bars(self) -> None:
        """A bar is reached, or it is missed, or it was not measured."""
        calls = {
            "int": {"stock": {"samples": samplesOf(10)}, "pbauth": {"samples": samplesOf(30)}},
            "dict": {"stock": {"samples": samplesOf(10)}, "pbauth": {"samples": samplesOf(39)}},
        }
        judged = {
            (bar["work"], bar["compared"]): (bar["value"], bar["reached"])
            for bar in judge({"calls": calls})
        }
        self.assertEqual(judged["pipelined calls, int", "stock PB"], (3.0, True))
        self.assertEqual(judged["pipelined calls, small dict", "stock PB"], (3.9, False))
        self.assertEqual(judged["pipelined calls, int", "Pyro5's batches"], (None, None))

    def test_calibrated(self) -> None:
        """The count grows until a sample takes long enough, and never over the most."""

        def takeOne(count: int) -> dict[str, float]:
            return {"seconds": count / 1000}

        self.assertEqual(calibrate(takeOne, 1.0, 5, 1_000_000), 1000)
        self.assertEqual(calibrate(takeOne, 1.0, 5, 300), 300)
        self.assertEqual(calibrate(takeOne, 0.001, 5, 300), 5)

    def test_nothing(self) -> None:
        """Where little was measured, there is little to show."""
        made = runAll(LEAST, parts=(), say=lambda line: None)
        self.assertIn(made["machine"]["python"], asText(made))
        self.assertNotIn("To reach", asReStructuredText(made))
        minidom.parseString(draw(made))  # noqa: S318 - our own
