"""When a client logs in, waits and gives up: the machine, without a client."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.application.internet import backoffPolicy
from twisted.internet import error as netError
from twisted.spread import pb
from twisted.trial.unittest import SynchronousTestCase

from pbauth import (
    BackOff,
    Detached,
    InvalidName,
    KeyNotFound,
    LoginTimeout,
    MechanismNotSupported,
    ProtocolViolation,
    ServerNotTrusted,
    StoreError,
    TooManyAttempts,
    Unauthorized,
)
from pbauth.client.reconnect import (
    STEADY,
    TABLE,
    Action,
    BackoffState,
    Input,
    Machine,
    State,
    isFinal,
)


def hold(*facts: object) -> None:
    """All of these are as they should be."""
    assert all(facts), facts


class World(RuleBasedStateMachine):
    """
    All that the machine may be told, in any order in which it can happen; and what it has done.
    """

    def __init__(self) -> None:
        super().__init__()
        self.machine = Machine()
        # What there is, and what is being done with it.
        self.login = self.cancelled = False
        self.connection = self.closing = self.dropped = False
        self.timer: str | None = None
        self.question = False
        # What the application knows, and who waits.
        self.announced = self.reported = False
        self.isOpen = True
        self.served = False
        # What was asked for.
        self.running = self.begun = False
        self.stopping = 0

    def tell(self, happened: Input) -> None:
        """It happened; do what is to be done."""
        for action in self.machine.receive(happened):
            getattr(self, f"do_{action.name}")()

    # What is done.

    def do_OPEN(self) -> None:
        self.isOpen = True
        self.reported = False

    def do_LOG_IN(self) -> None:
        hold(not self.login, not self.connection, not self.timer)
        self.login = True
        self.cancelled = False

    def do_CANCEL_LOGIN(self) -> None:
        assert self.login
        self.cancelled = True

    def do_ANNOUNCE(self) -> None:
        hold(self.connection, not self.announced)
        self.announced = True

    def do_SERVE(self) -> None:
        hold(self.connection, self.announced, self.isOpen)
        self.served = True

    def do_ASK(self) -> None:
        assert self.connection
        self.question = True

    def do_RENOUNCE(self) -> None:
        assert self.announced
        self.announced = False

    def do_CLOSE(self) -> None:
        hold(self.connection, self.timer is None)
        self.closing, self.timer = True, "closing"

    def do_DROP(self) -> None:
        assert self.connection
        self.closing = self.dropped = True

    def do_WAIT(self) -> None:
        hold(not self.login, not self.connection, not self.timer)
        self.timer = "waiting"

    def do_CANCEL_TIMER(self) -> None:
        self.timer = None

    def do_TURN_AWAY(self) -> None:
        self.isOpen = False

    def do_REPORT(self) -> None:
        hold(not self.isOpen, not self.reported)
        self.reported = True

    def do_STOPPED(self) -> None:
        hold(not self.login, not self.connection, not self.timer)
        self.stopping = 0

    # What happens.

    @rule()
    def start(self) -> None:
        self.running = self.begun = True
        self.tell(Input.START)

    @rule()
    def stop(self) -> None:
        self.running = False
        self.begun = True
        self.stopping += 1
        self.tell(Input.STOP)

    @precondition(lambda self: self.login)
    @rule(final=st.booleans())
    def loginFails(self, final: bool) -> None:
        self.login = False
        self.tell(Input.REFUSED if final else Input.FAILED)

    @precondition(lambda self: self.login)
    @rule()
    def loginSucceeds(self) -> None:
        self.login = False
        self.connection = True
        self.served = self.closing = self.dropped = False
        self.tell(Input.LOGGED_IN)

    @precondition(lambda self: self.connection)
    @rule()
    def connectionIsLost(self) -> None:
        self.connection = self.closing = self.question = False
        self.tell(Input.LOST)

    @precondition(lambda self: self.connection)
    @rule()
    def callSaysDetached(self) -> None:
        # Calls wait from now on, until it is known whether that is true.
        self.served = False
        self.tell(Input.DOUBT)

    @precondition(lambda self: self.connection)
    @rule()
    def serverIsAsked(self) -> None:
        self.question = True

    @precondition(lambda self: self.question)
    @rule(live=st.booleans())
    def serverAnswers(self, live: bool) -> None:
        self.question = False
        self.tell(Input.LIVE if live else Input.SESSION_ENDED)

    @precondition(lambda self: self.timer)
    @rule()
    def timeIsUp(self) -> None:
        self.timer = None
        self.tell(Input.TIME_IS_UP)

    @precondition(lambda self: self.machine.state is State.WAITING)
    @rule()
    def backoffIsExhausted(self) -> None:
        # It comes in place of the timer.
        self.timer = None
        self.tell(Input.REFUSED)

    # What holds.

    @invariant()
    def oneThingAtATime(self) -> None:
        assert not (self.login and self.connection)
        assert not (self.login and self.timer)

    @invariant()
    def stateTellsWhatThereIs(self) -> None:
        state = self.machine.state
        if state in (State.STOPPED, State.GAVE_UP):
            hold(not self.login, not self.connection, not self.timer, not self.announced)
            assert state is State.GAVE_UP or not self.running
        elif state is State.WAITING:
            hold(self.timer == "waiting", not self.announced)
        elif state in (State.ATTACHED, State.DOUBTFUL):
            hold(self.connection, self.announced, self.timer is None, self.isOpen)
        elif state is State.LOGGING_IN:
            hold(self.login, self.isOpen)
        else:
            assert self.login or self.connection
            assert not self.announced

    @invariant()
    def whoAsksIsAnswered(self) -> None:
        # Who waits is served once there is a perspective, or turned away once there will be none.
        if self.machine.state is State.ATTACHED:
            assert self.served
        if self.begun:
            assert self.isOpen is (self.running and self.machine.state is not State.GAVE_UP)
        assert self.reported or self.machine.state is not State.GAVE_UP

    @invariant()
    def whoStopsIsTold(self) -> None:
        if self.stopping:
            assert self.machine.state in (State.STOPPING, State.RESTARTING)

    @invariant()
    def somethingWillHappen(self) -> None:
        # A client always has something to wait for, unless it is stopped.
        state = self.machine.state
        if state not in (State.STOPPED, State.GAVE_UP):
            assert self.login or self.connection or self.timer
        if state is State.DOUBTFUL:
            assert self.question
        if state is State.LEAVING:
            assert self.dropped
        if state in (State.STOPPING, State.RESTARTING):
            # It is closed, and if that takes too long, cut.
            assert self.cancelled if self.login else self.closing
            assert self.login or self.dropped or self.timer == "closing"


World.TestCase.settings = settings(max_examples=100, stateful_step_count=40)


class MachineTests(SynchronousTestCase):
    """The table."""

    def test_anyOrder(self) -> None:
        """Whatever happens in whatever order, nothing is done twice, forgotten or contradicted."""
        case = World.TestCase()
        case.runTest()

    def test_startAndStop(self) -> None:
        """A service may be started and stopped in any state."""
        self.assertEqual(set(TABLE), set(State))
        for reactions in TABLE.values():
            self.assertLessEqual({Input.START, Input.STOP}, set(reactions))

    def test_everythingIsUsed(self) -> None:
        """All states are reached, and there is no input or action that nothing leads to."""
        cells = [cell for reactions in TABLE.values() for cell in reactions.values()]
        self.assertEqual({state for state, _ in cells} | {State.STOPPED}, set(State))
        self.assertEqual({each for _, actions in cells for each in actions}, set(Action))
        self.assertEqual({each for reactions in TABLE.values() for each in reactions}, set(Input))

    def test_impossible(self) -> None:
        """What can't happen is a bug."""
        with self.assertRaises(KeyError):
            Machine().receive(Input.LOST)


class BackOffTests(SynchronousTestCase):
    """How long to wait."""

    def test_growth(self) -> None:
        """Each time longer, up to the longest."""
        backOff = BackOff(shortest=1, longest=10, factor=2, jitter=0)
        self.assertEqual([backOff(failures) for failures in range(1, 7)], [1, 2, 4, 8, 10, 10])
        self.assertEqual(backOff(100_000), 10)

    def test_jitter(self) -> None:
        """A part of it is up to chance, and never adds to it."""
        chances = iter([0.0, 0.5, 1.0])
        backOff = BackOff(shortest=8, jitter=0.5, random=lambda: next(chances))
        self.assertEqual([backOff(1) for _ in range(3)], [8, 6, 4])
        delays = {BackOff()(1) for _ in range(100)}
        self.assertGreater(len(delays), 90)
        for delay in delays:
            assert delay is not None
            self.assertTrue(0.5 <= delay <= 1)

    def test_attempts(self) -> None:
        """After so many it gives up."""
        backOff = BackOff(attempts=2)
        self.assertIsNotNone(backOff(2))
        self.assertIsNone(backOff(3))
        self.assertIsNone(BackOff(attempts=0)(1))

    def test_nonsense(self) -> None:
        """What can't be right is refused, in words."""
        options: list[dict[str, Any]] = [
            {"shortest": 0},
            {"shortest": "1"},
            {"longest": 0.5},
            {"factor": 0.9},
            {"factor": True},
            {"factor": float("nan")},
            {"jitter": -0.1},
            {"jitter": 1.1},
            {"attempts": -1},
        ]
        for each in options:
            with self.assertRaises(ValueError) as raised:
                BackOff(**each)
            self.assertIn(next(iter(each)), str(raised.exception))

    def test_value(self) -> None:
        """It is a value."""
        self.assertEqual(BackOff(longest=5), BackOff(longest=5))
        self.assertNotEqual(BackOff(longest=5), BackOff())


class BackoffStateTests(SynchronousTestCase):
    """How long a client waits after failures and short sessions."""

    def setUp(self) -> None:
        self.counted: list[int] = []
        self.backoff = BackoffState(self.policy)

    def policy(self, failures: int) -> float:
        """Note it, and say as many seconds."""
        self.counted.append(failures)
        return float(failures)

    def test_failures(self) -> None:
        """They count until a login succeeds and lasts."""
        for _ in range(3):
            self.backoff.failed(StoreError())
        self.backoff.attached()
        self.assertEqual(self.backoff.lost(STEADY), 1)
        self.backoff.failed(StoreError())
        self.assertEqual(self.counted, [1, 2, 3, 1, 2])

    def test_shortSessions(self) -> None:
        """A server that drops whoever it lets in is asked less and less often."""
        for _ in range(4):
            self.backoff.attached()
            self.backoff.lost(0.1)
        self.backoff.attached()
        self.backoff.lost(STEADY)
        self.backoff.attached()
        self.backoff.lost(0.1)
        self.assertEqual(self.counted, [1, 2, 3, 4, 1, 1])

    def test_failuresAmongShortSessions(self) -> None:
        """A server that was away for long and then restarts once more is found soon."""
        for _ in range(9):
            self.backoff.failed(StoreError())
        self.backoff.attached()
        self.assertEqual(self.backoff.lost(0.1), 1)

    def test_tooManyAttempts(self) -> None:
        """What the server says comes on top."""
        self.assertEqual(self.backoff.failed(TooManyAttempts(40)), 41)
        self.assertEqual(self.backoff.failed(StoreError()), 2)

    def test_reset(self) -> None:
        """A client that is started anew begins anew."""
        self.backoff.lost(0.1)
        self.backoff.lost(0.1)
        self.backoff.reset()
        self.assertEqual(self.backoff.failed(StoreError()), 1)

    def test_givingUp(self) -> None:
        """The policy may have enough."""
        backoff = BackoffState(BackOff(attempts=1))
        self.assertIsNotNone(backoff.failed(TooManyAttempts(40)))
        self.assertIsNone(backoff.failed(TooManyAttempts(40)))

    def test_twistedsPolicy(self) -> None:
        """What Twisted makes for its own service will do."""
        policy = backoffPolicy(initialDelay=3, jitter=lambda: 0)
        self.assertEqual(BackoffState(policy).failed(StoreError()), policy(1))


class FinalTests(SynchronousTestCase):
    """What another login is of no use for."""

    def test_final(self) -> None:
        """Refusals, and arguments that can't be right."""
        for error in [
            Unauthorized(),
            KeyNotFound("game", "alice"),
            MechanismNotSupported([]),
            InvalidName("no"),
            ValueError("no endpoint"),
            TypeError("no str"),
        ]:
            self.assertTrue(isFinal(error), error)

    def test_temporary(self) -> None:
        """Networks, servers in trouble, and whatever else."""
        for error in [
            TooManyAttempts(1),
            ServerNotTrusted(),
            StoreError(),
            ProtocolViolation(),
            Detached(),
            LoginTimeout(30),
            pb.PBConnectionLost("gone"),
            pb.RemoteError("ZeroDivisionError", "in attached", None),
            netError.ConnectionRefusedError(),
            netError.ConnectionLost(),
            netError.DNSLookupError(),
            netError.NoRouteError(),
            OSError(),
            ZeroDivisionError(),
        ]:
            self.assertFalse(isFinal(error), error)
