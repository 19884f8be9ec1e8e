"""The stress scenarios run, in short forms, and leave nothing behind. No time is judged."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet.defer import gatherResults
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.stress import attacks, crowd, exports, faults, fuzz, streams
from tests.stress.__main__ import SCENARIOS
from tests.stress.attackers import POURED
from tests.stress.findings import Findings
from tests.stress.fuzztarget import POLICIES, read, write
from tests.support.processes import Program, checkInterrupted, childrenOf, isThere

ROOT = str(Path(__file__).parent.parent.parent)


def start(*arguments: str) -> Program:
    """Start the command."""
    return Program("-m", "tests.stress", *arguments, directory=ROOT)


class ScenarioTests(TestCase):
    """The command, in a process of its own."""

    if not sys.platform.startswith("linux"):
        skip = (
            "The stress scenarios bind addresses all over 127/8 and read /proc: they are for Linux."
        )

    timeout = 100

    async def test_short(self) -> None:
        """All show what they are to show, and write it down; no process is left."""
        files = {name: os.path.abspath(self.mktemp()) for name in SCENARIOS}
        # All at once: most of the time they wait.
        programs = {name: start(name, "--short", "--json", path) for name, path in files.items()}
        for program in programs.values():
            self.addCleanup(program.stop)
        await gatherResults([program.whenEnded() for program in programs.values()])
        made = {}
        for name, program in programs.items():
            self.assertEqual(program.exitCode, 0, program.output)
            self.assertNotIn("Traceback", program.output)
            made[name] = json.loads(Path(files[name]).read_text())
            self.assertEqual((made[name]["scenario"], made[name]["shown"]), (name, True))
            self.assertEqual([pid for pid in made[name]["processes"] if isThere(pid)], [])
        figures = {name: each["figures"] for name, each in made.items()}
        self.checkCrowd(figures["crowd"])
        self.checkAttacks(figures["attacks"])
        self.assertEqual(figures["faults"]["clientsKilled"], faults.SHORT.clients)
        samples = figures["exports"]["samples"]
        self.assertEqual([each["given"] for each in samples], [*exports.SHORT.given])
        self.assertGreater(samples[0]["held"], 0)
        short = streams.SHORT
        self.assertEqual(figures["streams"]["manyValues"], short.streams * short.values)
        self.assertEqual(figures["streams"]["cutOutcomes"], {"PBConnectionLost": short.streams})
        self.assertGreater(figures["fuzz"]["counts"]["logins"], 0)
        self.assertGreater(figures["fuzz"]["counts"]["cutOff"], 0)

    def checkCrowd(self, figures: dict[str, Any]) -> None:
        """Those came that were to come."""
        self.assertEqual(figures["clients"], crowd.SHORT.clients)
        self.assertGreaterEqual(figures["lurkers"], crowd.SHORT.lurkers)
        self.assertGreater(figures["guesses"], 0)
        self.assertGreater(figures["busyLogins"], 0)

    def checkAttacks(self, figures: dict[str, Any]) -> None:
        """All attacks were tried."""
        self.assertLess(set(POURED), set(figures["attacks"]))
        for attack in figures["attacks"].values():
            self.assertGreater(attack["connections"], 0)
            self.assertEqual(attack["connections"], attack["ended"])

    async def test_interrupted(self) -> None:
        """Ctrl-C ends all processes at once."""
        await checkInterrupted(self, start("attacks", "--seconds", "1"), "(?m)^endless list: ")

    async def test_notShown(self) -> None:
        """What is not shown is told, and the command ends with 1."""
        program = start("crowd", "--short")
        self.addCleanup(program.stop)
        await program.waitFor("clients are logged in")
        for pid in childrenOf(program.process.pid):
            os.kill(pid, 9)
        await program.whenEnded()
        self.assertEqual(program.exitCode, 1, program.output)
        self.assertRegex(program.output, "(?m)^crowd: not shown: The .* ended too early")
        self.assertNotIn("Traceback", program.output)

    async def test_list(self) -> None:
        """They are listed; what is not there is refused in one line."""
        listing, unknown, nothing = start("--list"), start("nothing"), start()
        for program in (listing, unknown, nothing):
            self.addCleanup(program.stop)
            await program.whenEnded()
        self.assertEqual(listing.exitCode, 0)
        for name in SCENARIOS:
            self.assertRegex(listing.output, f"(?m)^{name} +[A-Z]")
        self.assertEqual((unknown.exitCode, nothing.exitCode), (2, 2))
        self.assertIn("see --list", nothing.output.lower())


class PlanTests(SynchronousTestCase):
    """How much is done."""

    def test_limited(self) -> None:
        """The user may say for how long, and how many."""
        self.assertEqual(
            crowd.limited(crowd.FULL, 10, 100),
            evolve(crowd.FULL, seconds=10, clients=100, lurkers=25),
        )
        self.assertEqual(attacks.limited(attacks.FULL, None, 100).held, 100)
        self.assertEqual(faults.limited(faults.FULL, None, 7).clients, 7)
        self.assertEqual(exports.limited(exports.FULL, 5, None).seconds, 5)
        self.assertEqual(fuzz.limited(fuzz.FULL, 5, None).seconds, 5)
        self.assertEqual(streams.limited(streams.FULL, 20, 5).clients, 5)
        for scenario in (crowd, attacks, faults, exports, streams, fuzz):
            plan: Any = scenario.FULL  # type: ignore[attr-defined]
            self.assertEqual(scenario.limited(plan, None, None), plan)  # type: ignore[attr-defined]


class FindingsTests(SynchronousTestCase):
    """What came of it."""

    def test_faults(self) -> None:
        """What is not shown is a fault; what is left out is none."""
        said: list[str] = []
        findings = Findings(said.append)
        findings.expect(True, "this")
        findings.note("3 of them", number=3)
        findings.skip("this")
        self.assertEqual((findings.faults, findings.figures), ([], {"number": 3}))
        findings.expect(False, "that")
        self.assertEqual(findings.faults, ["that"])
        self.assertEqual(
            said, ["  shown: this", "3 of them", "  left out: this", "  NOT shown: that"]
        )


class InputTests(SynchronousTestCase):
    """What the fuzzer's inputs mean."""

    def test_read(self) -> None:
        """A policy, chunks and pauses; whatever it is, it means something."""
        self.assertEqual(
            read(write(1, b"\x02\x00\x01", b"abcdef")), (POLICIES[1], [b"ab", b"", b"c", b"def"])
        )
        self.assertEqual(read(b""), (POLICIES[0], []))
        self.assertEqual(read(b"\x05"), (POLICIES[2], []))
        self.assertEqual(read(b"\x00\x21\x00abc"), (POLICIES[0], [b"", b"abc"]))


class MemoryTests(SynchronousTestCase):
    """Whether the fuzzer's memory grows."""

    def judge(self, blocks: list[int]) -> list[str]:
        """The faults, of samples of so many blocks."""
        findings = Findings(lambda line: None)
        samples = [[number * 10_000, each, 0] for number, each in enumerate(blocks)]
        fuzz._judgeMemory(fuzz.FULL, findings, samples)
        return findings.faults

    def test_growth(self) -> None:
        """What each execution leaves behind is noticed; what happens at first is not judged."""
        self.assertEqual(self.judge([0, 200_000, 201_000, 200_500]), [])
        self.assertEqual(
            self.judge([200_000 + 10_000 * n for n in range(9)]), ["memory does not grow"]
        )
