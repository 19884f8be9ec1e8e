"""How much is measured: all counts and times are bounded here."""

from __future__ import annotations

from attrs import frozen


@frozen(kw_only=True)
class Plan:
    """
    Attributes:
        name: of the plan.
        limit: seconds for all of it; what takes longer is ended.
        rounds: how often each sample is taken, peers in turn.
        callSeconds: about how long one sample of calls takes.
        mostCalls: how many calls one sample has at most.
        loginSeconds: about how long one sample of logins takes.
        mostLogins: how many logins one sample has at most.
        together: how many logins are in flight at once, where several are.
        slowRounds: rounds of logins whose derivation is slow.
        slowTogether: whether these are also measured together.
        memoryRounds: how often memory is measured, with fresh servers.
        held: clients that are connected at once to measure it.
        identities: numbers of identities in memory.
        storedIdentities: numbers of identities in SQLite.
        connections: numbers of idle clients.
        idleSeconds: how long they are watched while they do nothing.
        growthRounds: rounds for these.
        growthLogins: logins of one sample for these.
        filled: numbers of identities in SQLite files that are filled by an import; the first one is
            what the others are compared with.
        starts: how often a server is started on each of these.
        streamed: pieces of bytes in one long stream.
        lookups: look-ups of one sample in these; there are as many rounds as for the others.
    """

    name: str
    limit: float
    rounds: int
    callSeconds: float
    mostCalls: int = 1_000_000
    loginSeconds: float
    mostLogins: int = 100_000
    together: int = 20
    slowRounds: int
    slowTogether: bool
    memoryRounds: int
    held: int
    identities: tuple[int, ...]
    storedIdentities: tuple[int, ...]
    connections: tuple[int, ...]
    idleSeconds: float
    growthRounds: int
    growthLogins: int
    filled: tuple[int, ...]
    starts: int
    lookups: int
    streamed: int


FULL = Plan(
    name="full",
    limit=1800,
    rounds=7,
    callSeconds=0.4,
    loginSeconds=0.5,
    slowRounds=3,
    slowTogether=True,
    memoryRounds=3,
    held=2000,
    identities=(1_000, 10_000, 100_000, 1_000_000),
    storedIdentities=(1_000, 100_000, 1_000_000),
    connections=(0, 2000, 20_000),
    idleSeconds=40,
    growthRounds=5,
    growthLogins=150,
    filled=(1_000, 1_000_000),
    starts=3,
    lookups=1000,
    streamed=8000,
)

QUICK = Plan(
    name="quick",
    limit=240,
    rounds=3,
    callSeconds=0.06,
    loginSeconds=0.08,
    slowRounds=1,
    slowTogether=False,
    memoryRounds=1,
    held=1000,
    identities=(1_000, 50_000),
    storedIdentities=(1_000, 100_000),
    connections=(0, 500),
    idleSeconds=5,
    growthRounds=3,
    growthLogins=30,
    filled=(1_000, 100_000),
    starts=1,
    lookups=300,
    streamed=1600,
)

#: Each work once: says nothing, but shows that all of it runs.
LEAST = Plan(
    name="least",
    limit=180,
    rounds=1,
    callSeconds=0,
    mostCalls=1,
    loginSeconds=0,
    mostLogins=1,
    together=2,
    slowRounds=1,
    slowTogether=False,
    memoryRounds=1,
    held=5,
    identities=(30,),
    storedIdentities=(30,),
    connections=(0, 3),
    idleSeconds=0.1,
    growthRounds=1,
    growthLogins=2,
    filled=(20, 30),
    starts=1,
    lookups=2,
    streamed=3,
)
