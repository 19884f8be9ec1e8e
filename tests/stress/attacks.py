"""Attacks, one after the other: each is cut off, and leaves nothing behind."""

from __future__ import annotations

import time
from typing import Any

from attrs import evolve, frozen

from pbauth import Policy
from tests.benchmarks.peers.accounts import nameOf
from tests.benchmarks.program import Program, Stage
from tests.stress.attackers import POURED, PROXIED
from tests.stress.findings import Findings
from tests.stress.greedy import GREED
from tests.stress.resources import MEBIBYTE, forgetPeakOf, peakOf, sizeOf

#: The most that the server may have grown after an attack.
MOST_GROWTH = 8 * MEBIBYTE

#: More than a connection may have at once, and may have refused: the address may have to wait from
#: any of them on.
_CHALLENGERS = 17 + 5

_ACCOUNTS = 40

# As many as fit into the bytes that a stranger may send.
_GUESSES = 250


@frozen
class Plan:
    """
    Attributes:
        graceTime: of the policy.
        seconds: for each attack that sends as much as it can.
        connections: the most for such an attack.
        held: connections at once, for attacks that hold them.
        pause: seconds between the bytes of a slow drip.
        crowded: connections at once, for the attack that holds more than there may be.
        most: how many there may be that have not logged in.
        calls: logins that are begun and never ended.
        tries: honest logins while one address takes all places.
        greedy: connections that ask for too much after their login, in each way.
        again: what needs memory for each connection is done twice.
        judged: the grace time is so long that a busy machine lets everybody in before its end.
    """

    graceTime: float = 30
    seconds: float = 3
    connections: int = 100_000
    held: int = 800
    pause: float = 0.5
    crowded: int = 1500
    most: int = 1000
    calls: int = 100_000
    tries: int = 200
    greedy: int = 50
    again: bool = True
    judged: bool = True


FULL = Plan()
SHORT = Plan(
    graceTime=0.7,
    seconds=0.05,
    connections=5,
    held=30,
    pause=0.1,
    crowded=60,
    most=40,
    calls=17 * 20,
    tries=10,
    greedy=2,
    again=False,
    judged=False,
)


def limited(plan: Plan, seconds: float | None, clients: int | None) -> Plan:
    """The plan with what the user says."""
    if seconds is not None:
        plan = evolve(plan, seconds=seconds / len(POURED))
    if clients is not None:
        plan = evolve(plan, held=min(clients, 800), crowded=max(clients, 1001))
    return plan


def lifetime(plan: Plan) -> float:
    """The most seconds that it may take."""
    return 180 + len(POURED) * (plan.seconds + 12) + 12 * (plan.graceTime + 20) + plan.calls / 250


def run(plan: Plan, findings: Findings, stage: Stage) -> None:
    """
    Args:
        plan: how much.
        findings: is told everything.
        stage: for the processes.
    """
    serverCore, clientCore = stage.cores
    server = stage.start(
        "tests.stress.server",
        "Server",
        serverCore,
        {
            "accounts": _ACCOUNTS,
            "policy": {"graceTime": plan.graceTime, "maxUnauthenticated": plan.most},
            "tls": True,
        },
    )
    attacker = stage.start("tests.stress.attackers", "Attacker", clientCore, {})
    honest = stage.start("tests.stress.clients", "Honest", clientCore, {})
    greedy = stage.start("tests.stress.greedy", "Greedy", clientCore, {})
    strangers = stage.start("tests.stress.strangers", "Strangers", clientCore, {})
    ports = server.ask("listen")
    attacker.ask("expect", graceTime=plan.graceTime)
    Attacks(plan, findings, server, attacker, honest, strangers, greedy, ports).all()


class Attacks:
    """
    Attacks one server.

    Args:
        plan: how much.
        findings: is told everything.
        server: is attacked.
        attacker: attacks.
        honest: logs in after each attack.
        strangers: takes all places.
        greedy: logs in, and asks for too much.
        ports: of the server.
    """

    def __init__(
        self,
        plan: Plan,
        findings: Findings,
        server: Program,
        attacker: Program,
        honest: Program,
        strangers: Program,
        greedy: Program,
        ports: dict[str, int],
    ) -> None:
        self._plan = plan
        self._findings = findings
        self._server = server
        self._attacker = attacker
        self._honest = honest
        self._strangers = strangers
        self._greedy = greedy
        self._ports = ports
        self._made: dict[str, Any] = {}

    def all(self) -> None:
        """Attack, in all ways."""
        plan, port = self._plan, self._ports["tcp"]
        # So that what is loaded late is there.
        self._logIn(_ACCOUNTS)
        before = sizeOf(self._server.pid)
        for what in POURED:
            self._attack(
                what,
                "pour",
                what=what,
                port=self._ports["proxied"] if what in PROXIED else port,
                seconds=plan.seconds,
                connections=plan.connections,
            )
        self._guesses()
        self._greed()
        self._ordinary()
        self._attack(
            f"{plan.calls:,} logins that are never ended",
            "challengers",
            port=port,
            calls=plan.calls,
            each=_CHALLENGERS,
            most=min(100, plan.held),
            seconds=60 + plan.calls / 500,
        )
        self._attack("a slow drip", "drip", port=port, connections=plan.held, pause=plan.pause)
        self._attack("answers that nobody reads", "deaf", port=port, connections=plan.held // 10)
        # OpenSSL has a buffer for what a client only announces.
        self._attackTwice(
            "handshakes of TLS that never end",
            "handshakes",
            160 * 1024,
            port=self._ports["tls"],
            pause=0.1,
        )
        self._attackTwice(
            "as much as strangers may send, and more than its bytes in memory",
            "fill",
            3 * Policy().maxUnauthenticatedBytes,
            port=port,
        )
        self._attack(
            "connections that say nothing, more than there may be",
            "silence",
            port=port,
            connections=plan.crowded,
        )
        self._flood()
        growth = sizeOf(self._server.pid) - before
        self._findings.note(
            f"after all attacks the server is {growth / MEBIBYTE:.1f} MiB larger than before",
            attacks=self._made,
            growthOfAll=growth,
        )
        log = self._server.ask("log")
        self._findings.figures["logLines"] = log["lines"]
        self._findings.expect(
            not log["bad"], f"no traceback in the {log['lines']:,} lines of the server's log"
        )

    def _guesses(self) -> None:
        """Many passwords before the first answer: no more are looked at than may fail."""
        path, most = self._server.ask("listenPlain"), Policy().maxAttempts
        name = f"{_GUESSES} passwords at once, to be checked elsewhere"
        self._attack(name, "guesses", path=path, account=nameOf(0), guesses=_GUESSES)
        checked = self._server.ask("checked")
        self._made[name]["checked"] = checked
        self._findings.expect(
            0 < checked <= most, f"of {_GUESSES} passwords {checked} were looked at"
        )

    def _greed(self) -> None:
        """Who has logged in asks for too much: it is refused, and at last disconnected."""
        for what, (limit, most, name) in GREED.items():
            port = self._server.ask("listenLimited", limits={limit: most})
            self._attack(
                name, "ask", by=self._greedy, what=what, port=port, connections=self._plan.greedy
            )
            made = self._made[name]
            self._findings.note(
                f"  {made['calls'] / made['connections']:,.0f} calls on each connection until it "
                f"was ended, {made['answered'] / made['connections']:,.0f} of them answered, "
                f"{made['refused'] / made['connections']:,.0f} refused"
            )

    def _ordinary(self) -> None:
        """What as many connections take as there will be at once; the attacks should add little."""
        before = sizeOf(self._server.pid)
        for tls in (False, True):
            self._attacker.ask(
                "ordinary",
                port=self._ports["tls" if tls else "tcp"],
                connections=self._plan.held,
                tls=tls,
            )
            self._strangersLeft()
        growth = sizeOf(self._server.pid) - before
        self._findings.note(
            f"{self._plan.held:,} ordinary connections at once, over TCP and then over TLS, came "
            f"and went: the server grew by {growth / MEBIBYTE:.2f} MiB",
            growthByOrdinaryConnections=growth,
        )

    def _flood(self) -> None:
        """One address takes all places, for ever; after the first grace time others get in."""
        plan, findings, port = self._plan, self._findings, self._ports["tcp"]
        self._strangers.ask("lurk", port=port, number=plan.crowded, source="127.21.0.1")
        time.sleep(plan.graceTime + 0.5)
        strangers = self._server.ask("look")["strangers"]
        found = self._honest.ask(
            "logins", port=port, accounts=_ACCOUNTS, seconds=10, most=plan.tries
        )
        self._strangers.ask("lurk", port=port, number=0)
        tried, failed = len(found["took"]) + len(found["errors"]), len(found["errors"])
        self._strangersLeft(plan.graceTime + 5)
        findings.note(
            f"one address that takes all places, whenever one is free: it has {strangers:,} of "
            f"{plan.most:,} after the first {plan.graceTime:g} s; meanwhile {tried - failed} of "
            f"{tried} honest logins succeeded",
            floodTook=strangers,
            floodLogins=tried,
            floodLoginsFailed=failed,
        )
        most = 0 if plan.judged else tried // 2
        findings.expect(tried > 0 and failed <= most, "others log in all the same")

    def _attackTwice(self, name: str, do: str, each: int, **arguments: Any) -> None:
        """
        Whoever lets strangers in has to have the memory for them, and may have it from then on:
        what is freed stays with the process, more or less. But the next time it takes no more.

        Args:
            name: of the attack.
            do: what the attacker does.
            each: the most bytes that a connection may take.
            arguments: for the attacker.
        """
        connections = self._plan.held
        arguments["connections"] = connections
        highest = self._attack(name, do, allowed=connections * each, **arguments)
        if self._plan.again:
            self._attack(f"{name}, again", do, highest=highest, **arguments)

    def _attack(
        self,
        name: str,
        do: str,
        *,
        allowed: float = MOST_GROWTH,
        highest: int | None = None,
        by: Program | None = None,
        **arguments: Any,
    ) -> int:
        """
        Attack in one way.

        Args:
            name: of the attack.
            do: what the attacker does.
            by: the attacker, if it is one that logs in.
            allowed: so much the server may grow.
            highest: what it had at most the last time; by default, what it has before.
            arguments: for the attacker.

        Returns:
            The bytes of memory that the server had at most.
        """
        server, findings = self._server, self._findings
        forgetPeakOf(server.pid)
        before, lines = sizeOf(server.pid), self._server.ask("log")["lines"]
        begun = time.monotonic()
        told = (by or self._attacker).ask(do, **arguments)
        seconds = time.monotonic() - begun
        left = self._strangersLeft()
        after, peak = sizeOf(server.pid), peakOf(server.pid)
        log = server.ask("log")
        login = self._logIn(1)
        self._made[name] = {
            **told,
            "seconds": seconds,
            "growth": after - before,
            "peakGrowth": peak - before,
            "login": login,
        }
        more = "".join(
            f", {told[key]:,} {text}"
            for key, text in (
                ("sent", "bytes sent"),
                ("calls", "calls"),
                ("refusedEarly", "ended early"),
            )
            if told.get(key)
        )
        findings.note(
            f"{name}: {told['connections']:,} connections{more}, in {seconds:.1f} s; the server "
            f"grew by {(after - before) / MEBIBYTE:.2f} MiB, meanwhile by at most "
            f"{(peak - before) / MEBIBYTE:.2f} MiB, and wrote {log['lines'] - lines:,} lines"
        )
        ended = told["ended"] == told["connections"] and not left
        small = after - before < allowed if highest is None else peak - highest < allowed
        if ended and small and login is not None and not log["bad"]:
            findings.expect(
                True, "all were ended, nothing is left, and an honest login works at once"
            )
            return peak
        findings.expect(ended, f"{name}: all connections are ended by the server")
        findings.expect(
            small,
            f"{name}: the server grows by less than {allowed / MEBIBYTE:.0f} MiB"
            + ("" if highest is None else " above what it took the last time"),
        )
        findings.expect(login is not None, f"{name}: an honest login works at once")
        findings.expect(not log["bad"], f"{name}: no traceback in the log; {log['bad']}")
        return peak

    def _strangersLeft(self, seconds: float = 5) -> int:
        # The attacker is told of the end of a connection before the server has cleared it away.
        until = time.monotonic() + seconds
        while True:
            left: int = self._server.ask("look")["strangers"]
            if not left or time.monotonic() > until:
                return left
            time.sleep(0.02)

    def _logIn(self, count: int) -> float | None:
        """Log in; gives the seconds, of the last."""
        for _ in range(1 if self._plan.judged else 3):
            found = self._honest.ask(
                "logins", port=self._ports["tcp"], accounts=_ACCOUNTS, seconds=30, most=count
            )
            if found["took"] and not found["errors"]:
                return float(found["took"][-1])
        return None
