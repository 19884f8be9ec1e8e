"""
What a store with many identities costs: to fill it, to start a server on it, to look one up.

Each store is a state folder, filled by ``pbauth import`` from a dump of verifiers, and served by
``twistd pbauth``: the programs that users run.  The figures are held against each other, of the
smallest store and of the largest.
"""

from __future__ import annotations

import os
import random
import resource
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from pbauth.accounts.groups import Group
from pbauth.accounts.records import Record
from pbauth.dumps.formats import JSONLines
from pbauth.mechanisms.scram import ScramVerifier
from tests.benchmarks.peers.accounts import SERVICE, nameOf
from tests.benchmarks.plan import Plan
from tests.benchmarks.program import ROOT, BenchmarkFailed, Stage
from tests.benchmarks.samples import ratios, spread

_READER = "tests.benchmarks.peers.accountstore"

_PBAUTH = ("-m", "pbauth")
_TWISTD = ("-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile=", "pbauth")

#: The groups of a store, each with a key; and of how many of them each identity is a member.
GROUPS = [f"group {number}" for number in range(100)]
MEMBERSHIPS = 3

#: Seconds that a server gets to end.
_PATIENCE = 5.0


class Command:
    """
    A command of users, under measurement; on all cores.

    Args:
        arguments: of Python.
        deadline: of all, by `time.monotonic`.
    """

    def __init__(self, arguments: tuple[str, ...], deadline: float) -> None:
        self._deadline = deadline
        self._began = time.monotonic()
        self._said = b""
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            bufsize=0,
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.pid = self._process.pid

    def waitFor(self, text: bytes | None) -> float:
        """
        Wait until it says something, or (`None`) until it ends well.

        Returns:
            Seconds since it was started.

        Raises:
            BenchmarkFailed: it does not, or the time of all was over before.
        """
        assert self._process.stdout is not None
        while text is None or text not in self._said:
            left = self._deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise self._failed("took too long")
            chunk = os.read(self._process.stdout.fileno(), 65536)
            if not chunk:
                if self._process.wait() or text is not None:
                    raise self._failed("failed")
                break
            self._said += chunk
        return time.monotonic() - self._began

    def memory(self) -> int:
        """The bytes of memory that it has now."""
        with open(f"/proc/{self.pid}/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()

    def dismiss(self) -> None:
        """Let it end by itself."""
        self._process.terminate()

    def end(self) -> None:
        """End it, whatever it is doing."""
        assert self._process.stdout is not None
        self.dismiss()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _failed(self, what: str) -> BenchmarkFailed:
        said = self._said.decode("utf-8", "replace").strip()
        return BenchmarkFailed(f"The command {what}\n{said}")


def measureStores(
    plan: Plan, stage: Stage, certificate: str, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """
    Fill stores, start servers on them, and look identities up.

    Args:
        plan: how much.
        stage: for the processes.
        certificate: none is needed.
        say: tells people how far it is.

    Returns:
        For each number of identities, the smallest first: the seconds and the rate of the
        ``import``; spreads of the seconds of the ``start`` of a server and of its ``memory``; and
        of the seconds of a ``lookup``, with its ratio ``timesFirst`` to those in the first store,
        and the memory of the process that made them.
    """
    with tempfile.TemporaryDirectory() as folder:
        made = []
        for number in plan.filled:
            say(f"a store of {number:,} identities")
            state = os.path.join(folder, f"state{number}")
            made.append({"identities": number, "import": _fill(stage, folder, state, number)})
            made[-1] |= _serve(plan, stage, state)
        say("look-ups in these stores")
        for found, lookups in zip(made, _lookUp(plan, stage, folder), strict=True):
            found["lookup"] = lookups
        return made


def _fill(stage: Stage, folder: str, state: str, number: int) -> dict[str, float]:
    dump = os.path.join(folder, "users.jsonl")
    chance = random.Random(number)
    with open(dump, "wb") as file:
        for group in GROUPS:
            file.write(JSONLines().writeGroup(Group(group, frozenset({(group, "{name}")}))))
        for name in map(nameOf, range(number)):
            verifier = ScramVerifier(
                chance.randbytes(16), 4096, chance.randbytes(32), chance.randbytes(32)
            )
            record = Record(
                name,
                verifiers=frozenset({("SCRAM-SHA-256", verifier.encode())}),
                keys=frozenset(
                    {(SERVICE, name), ("mail", name), ("game", f"table {chance.randrange(1000)}")}
                ),
                groups=frozenset(chance.sample(GROUPS, MEMBERSHIPS)),
            )
            file.write(JSONLines().write(record))
    command = _command(stage, (*_PBAUTH, "--state", state, "import", dump))
    seconds = command.waitFor(None)
    os.unlink(dump)
    return {"seconds": seconds, "rate": number / seconds}


def _serve(plan: Plan, stage: Stage, state: str) -> dict[str, Any]:
    seconds, sizes = [], []
    for _ in range(plan.starts):
        with Stage(stage.deadline, stage) as fresh:
            server = _command(
                fresh, (*_TWISTD, "--state", state, "--port", "ssl:0:interface=127.0.0.1")
            )
            seconds.append(server.waitFor(b"Listening on "))
            sizes.append(float(server.memory()))
    return {"start": spread(seconds), "memory": spread(sizes)}


def _command(stage: Stage, arguments: tuple[str, ...]) -> Command:
    command = Command(arguments, stage.deadline)
    stage.adopt(command)
    return command


def _lookUp(plan: Plan, stage: Stage, folder: str) -> list[dict[str, Any]]:
    readers = [
        stage.server(
            _READER,
            store=os.path.join(folder, f"state{number}", "accounts.sqlite"),
            accounts=number,
        )
        for number in plan.filled
    ]
    taken: list[list[float]] = [[] for _ in readers]
    # The first round warms up.
    for round_ in range(plan.growthRounds + 1):
        for reader, values in zip(readers, taken, strict=True):
            reader.ask("collect")
            value = reader.ask("lookUp", count=plan.lookups, seed=round_)
            if round_:
                values.append(value)
    return [
        {
            "samples": values,
            "seconds": spread(values),
            "timesFirst": spread(ratios(values, taken[0])),
            "memory": reader.ask("usage")["rss"],
        }
        for reader, values in zip(readers, taken, strict=True)
    ]
