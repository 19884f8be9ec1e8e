"""
Runs the fuzzer, in a process of its own: ``python -m tests.stress.fuzzing ENGINE SECONDS FOLDER``.

With atheris it looks at which code each input reaches, and goes on from those that reach more.
With hypothesis, which knows nothing of the code, it tries to get more of an answer.  What happened
stands in ``status.json`` in the folder, now and then while it runs; an input that something was
wrong with, in ``crash-...``.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
import traceback
from pathlib import Path
from typing import Any

#: The longest input.
_LONGEST = 4096

#: Seconds that one input may take.
_TIMEOUT = 20

#: Seconds between two looks at how far it is.
_PERIOD = 1.0


class Status:
    """
    Writes down how far it is.

    Args:
        target: what is run.
        folder: where.
    """

    def __init__(self, target: Any, folder: Path) -> None:
        self._target = target
        self._path = folder / "status.json"
        self._next = 0.0

    def run(self, data: bytes) -> bool:
        """Run the target."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _PERIOD
            self.write()
        entered: bool = self._target.run(data)
        return entered

    def write(self) -> None:
        """Write."""
        temporary = self._path.with_suffix(".new")
        temporary.write_text(
            json.dumps({"counts": self._target.counts, "samples": self._target.samples})
        )
        temporary.replace(self._path)


def byAtheris(seconds: int, folder: Path) -> None:
    """Fuzz, guided by coverage. Does not return."""
    import atheris

    with atheris.instrument_imports(include=["pbauth", "twisted.spread"]):
        from tests.stress.fuzztarget import Target, record

    target = Target()
    _makeCorpus(record(target), folder)
    target.sample()
    status = Status(target, folder)

    def testOneInput(data: bytes) -> None:
        status.run(data)

    atheris.Setup(
        [
            sys.argv[0],
            f"-max_total_time={seconds}",
            f"-max_len={_LONGEST}",
            f"-timeout={_TIMEOUT}",
            "-rss_limit_mb=1024",
            "-print_final_stats=1",
            f"-artifact_prefix={folder}/",
            f"-dict={folder / 'words'}",
            str(folder / "corpus"),
        ],
        testOneInput,
    )
    atheris.Fuzz()


def byHypothesis(seconds: int, folder: Path) -> None:
    """Fuzz by changes of the recorded logins."""
    import hypothesis
    from hypothesis import strategies as st

    from tests.stress.fuzztarget import POLICIES, Target, record, write

    target = Target()
    logins = list(record(target).values())
    target.sample()
    status = Status(target, folder)
    places = st.integers(0, 400)
    bytes_ = st.binary(max_size=40) | st.sampled_from(_words())
    edits = st.lists(st.tuples(places, places, bytes_), max_size=6)

    @hypothesis.settings(
        max_examples=500,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(
        st.integers(0, len(POLICIES) - 1),
        st.binary(max_size=31),
        st.sampled_from(logins),
        edits,
    )
    def once(policy: int, cuts: bytes, login: bytes, changes: list[tuple[int, int, bytes]]) -> None:
        for start, length, put in changes:
            login = login[:start] + put + login[start + length // 20 :]
        data = write(policy, cuts, login)
        before = dict(target.counts)
        try:
            status.run(data)
        except BaseException:
            (folder / "crash-hypothesis").write_bytes(data)
            raise
        gained = target.counts["answered"] - before["answered"]
        gained -= target.counts["cutOff"] - before["cutOff"]
        hypothesis.target(float(gained), label="answered, and not cut off")

    until = time.monotonic() + seconds
    while time.monotonic() < until:
        once()
    target.sample()
    status.write()


def _words() -> list[bytes]:
    """What the bytes of a login are made of."""
    from twisted.spread import banana

    said = [
        *(b"message", b"root", b"username", b"respond", b"login", b"loginAnonymous", b"mechanisms"),
        *(b"SCRAM-SHA-256", b"ED25519", b"PB-MD5", b"ANONYMOUS", b"alice", b"guest", b"game"),
        *(b"version", b"decref", b"answer", b"error", b"pb", b"tuple", b"dictionary", b"unicode"),
        *(b"None", b"remote", b"local", b"list", b"set", b"boolean", b"true", b"reference"),
        *(
            b"dereference",
            b"bad",
            b"none",
            b"class",
            b"module",
            b"instance",
            b"persistent",
            b"copy",
            b"cached",
        ),
    ]
    tokens = [bytes((number, token)) for number in (0, 1, 2, 127) for token in range(0x80, 0x89)]
    spoken = [banana.encode(word) for word in said]
    vocabulary = [bytes((number, 0x87)) for number in banana.Banana.incomingVocabulary]
    return [*said, *spoken, *tokens, *vocabulary]


def _makeCorpus(logins: dict[str, bytes], folder: Path) -> None:
    from tests.stress.fuzztarget import POLICIES, write

    corpus = folder / "corpus"
    corpus.mkdir()
    chance = random.Random(1)
    for number, login in enumerate(logins.values()):
        for policy in range(len(POLICIES)):
            cuts = bytes(chance.choices(range(40), k=policy * 10))
            (corpus / f"{number}-{policy}").write_bytes(write(policy, cuts, login))
    with open(folder / "words", "w") as file:
        for word in _words():
            file.write('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n')


ENGINES = {"atheris": byAtheris, "hypothesis": byHypothesis}


def main(engine: str, seconds: int, folder: str) -> None:
    """Fuzz."""
    # There is nobody who waits for it.
    os.nice(10)
    try:
        ENGINES[engine](seconds, Path(folder))
    except Exception:
        traceback.print_exc()
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
