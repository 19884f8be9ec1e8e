"""Many clients, many that never log in, and many wrong passwords: honest logins go on."""

from __future__ import annotations

import time
from statistics import median, quantiles
from typing import Any

from attrs import evolve, frozen

from tests.benchmarks.program import Program, Stage
from tests.stress.findings import Findings
from tests.stress.resources import secondsOf, sizeOf

_SERVER = "tests.stress.server"
_CLIENTS = "tests.stress.clients"
_STRANGERS = "tests.stress.strangers"

#: How many are logged in before memory is measured: they fit into what importing left free.
_FIRST = 200

#: How many log in honestly, in turn.
_HONEST = 20

#: Seconds between the beginning of the flood and the first login that counts.
_SETTLING = 0.5


@frozen
class Plan:
    """
    Attributes:
        clients: that are logged in, and do nothing.
        lurkers: that never log in.
        rate: wrong passwords a second.
        turns: how often the quiet server and the other one are measured.
        seconds: for all turns together.
        logins: the most in one turn.
        judged: the times tell something.
    """

    clients: int = 2000
    lurkers: int = 500
    rate: int = 200
    turns: int = 10
    seconds: float = 60
    logins: int = 100_000
    judged: bool = True


FULL = Plan()
SHORT = Plan(clients=60, lurkers=30, rate=100, turns=2, seconds=2, logins=30, judged=False)


def limited(plan: Plan, seconds: float | None, clients: int | None) -> Plan:
    """The plan with what the user says."""
    if seconds is not None:
        plan = evolve(plan, seconds=seconds)
    if clients is not None:
        # In the proportions of the full plan.
        plan = evolve(plan, clients=clients, lurkers=max(1, min(800, clients // 4)))
    return plan


def lifetime(plan: Plan) -> float:
    """The most seconds that it may take."""
    return 120 + 3 * plan.seconds + plan.clients / 20


def run(plan: Plan, findings: Findings, stage: Stage) -> None:
    """
    Args:
        plan: how much.
        findings: is told everything.
        stage: for the processes.
    """
    accounts = plan.clients + _HONEST
    serverCore, clientCore = stage.cores
    options = {"accounts": accounts, "policy": {}}
    servers = [stage.start(_SERVER, "Server", serverCore, options) for _ in "12"]
    crowd = stage.start(_CLIENTS, "Crowd", clientCore, {})
    honest = stage.start(_CLIENTS, "Honest", clientCore, {})
    strangers = stage.start(_STRANGERS, "Strangers", clientCore, {})
    quiet, busy = (server.ask("listen")["tcp"] for server in servers)
    server = servers[1]

    def logins(port: int, seconds: float) -> Any:
        return honest.ask(
            "logins", port=port, accounts=accounts, seconds=seconds, most=plan.logins, among=_HONEST
        )

    # Everybody warms up, and has logged in from where they are once.
    for port in (quiet, busy):
        honest.ask(
            "logins", port=port, accounts=accounts, seconds=30, most=2 * _HONEST, among=_HONEST
        )

    _fill(plan, findings, server, crowd, busy)

    strangers.ask("lurk", port=busy, number=plan.lurkers)
    lurking = _waitForLurkers(plan, strangers)
    findings.note(f"{lurking:,} connections that do not log in", lurkers=lurking)

    _guess(plan, findings, servers, strangers, logins, (quiet, busy))

    answered = crowd.ask("call")
    findings.expect(answered == plan.clients, f"all {plan.clients:,} clients are still served")
    dropped = strangers.ask("lurking")["dropped"]
    findings.note(
        f"{dropped:,} connections were dropped that had not logged in, and others came",
        lurkersDropped=dropped,
    )
    log = server.ask("log")
    findings.expect(
        not log["bad"], f"no traceback in the {log['lines']:,} lines of the server's log"
    )


def _fill(plan: Plan, findings: Findings, server: Program, crowd: Program, port: int) -> None:
    first = min(_FIRST, plan.clients // 2)
    crowd.ask("hold", port=port, upTo=first)
    server.ask("collect")
    before = sizeOf(server.pid)
    seconds = crowd.ask("hold", port=port, upTo=plan.clients)
    server.ask("collect")
    each = (sizeOf(server.pid) - before) / (plan.clients - first)
    sessions = server.ask("look")["sessions"]
    findings.expect(sessions == plan.clients, f"{sessions:,} clients are logged in")
    findings.note(
        f"they took {seconds:.1f} s; each takes {each / 1024:.1f} KiB of the server's memory",
        clients=sessions,
        secondsToFill=seconds,
        bytesForIdleSession=each,
    )


def _waitForLurkers(plan: Plan, strangers: Program) -> int:
    until = time.monotonic() + 20
    while True:
        there: int = strangers.ask("lurking")["there"]
        if there >= plan.lurkers or time.monotonic() > until:
            return there
        time.sleep(0.05)


def _guess(
    plan: Plan,
    findings: Findings,
    servers: list[Program],
    strangers: Program,
    logins: Any,
    ports: tuple[int, int],
) -> None:
    """Measure both servers in turn; the flood stops while the quiet one is measured."""
    quiet, busy = ports
    each = plan.seconds / plan.turns / 2
    took: dict[int, list[float]] = {quiet: [], busy: []}
    ratios: list[float] = []
    errors: list[str] = []
    guessing = guesses = cpu = 0.0
    outcomes: dict[str, int] = {}
    for _ in range(plan.turns):
        found = {quiet: logins(quiet, each)}
        begun, before = time.monotonic(), secondsOf(servers[1].pid)
        strangers.ask("guess", port=busy, rate=plan.rate, accounts=plan.clients + _HONEST)
        time.sleep(_SETTLING)
        found[busy] = logins(busy, each)
        if not plan.judged:
            # A turn ends after so many logins; the flood should have been one.
            time.sleep(_SETTLING)
        told = strangers.ask("stopGuessing")
        guessing += time.monotonic() - begun
        cpu += secondsOf(servers[1].pid) - before
        guesses, outcomes = told["guesses"], told["outcomes"]
        for port, result in found.items():
            took[port] += result["took"]
            errors += result["errors"]
        if found[quiet]["took"] and found[busy]["took"]:
            ratios.append(median(found[busy]["took"]) / median(found[quiet]["took"]))

    rate = guesses / guessing
    told = ", ".join(f"{name} {count:,}" for name, count in sorted(outcomes.items()))
    findings.note(
        f"{guesses:,.0f} wrong passwords, {rate:.0f} a second, each from another address, at names "
        f"of those who log in, of others and of nobody; what they got: {told}",
        guesses=guesses,
        guessesASecond=rate,
        guessOutcomes=outcomes,
        serverCoreBusy=cpu / guessing,
    )
    if plan.judged:
        findings.expect(rate >= 0.8 * plan.rate, f"at least {0.8 * plan.rate:.0f} a second came")
    findings.expect(
        set(outcomes) <= {"Unauthorized", "TooManyAttempts"}, "each of them was refused"
    )
    findings.expect(not errors, _errors(errors))
    if took[quiet] and took[busy]:
        _compare(plan, findings, took[quiet], took[busy], ratios)
    else:
        findings.expect(False, "honest clients log in")


def _errors(errors: list[str]) -> str:
    more = f" (there were {len(errors)} errors, the first: {errors[0]})" if errors else ""
    return f"each honest login succeeds, also by the names that are guessed at{more}"


def _compare(
    plan: Plan, findings: Findings, quiet: list[float], busy: list[float], ratios: list[float]
) -> None:
    ratio = median(busy) / median(quiet)
    for name, times in (("quiet", quiet), ("busy", busy)):
        slow = quantiles(times, n=20)[-1] if len(times) > 1 else times[0]
        findings.note(
            f"{len(times):,} honest logins at the {name} server: median {1000 * median(times):.2f} "
            f"ms, 19 of 20 within {1000 * slow:.2f} ms, longest {1000 * max(times):.1f} ms",
            **{
                f"{name}Logins": len(times),
                f"{name}Median": median(times),
                f"{name}NineteenOfTwenty": slow,
                f"{name}Longest": max(times),
            },
        )
    text = (
        f"the median login takes {ratio:.2f} times that of the quiet server "
        f"(turn by turn {min(ratios):.2f} to {max(ratios):.2f}), at most twice"
    )
    findings.figures["ratio"], findings.figures["ratios"] = ratio, ratios
    if plan.judged:
        findings.expect(ratio <= 2, text)
    else:
        findings.note(f"{text}; these are too few to judge")
