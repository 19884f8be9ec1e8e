"""A listener for notifications, with a PostgreSQL and a clock that tests turn by hand."""

from __future__ import annotations

import os
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import psycopg
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pbauth import StoreError
from pbauth.authorizers.sql.engine import OFTEN
from pbauth.authorizers.sql.notifications import (
    CHANNEL,
    LONGEST_WAIT,
    LOOK_EVERY,
    MESSAGES,
    PROOF_TIMEOUT,
    PROOFS,
    PROVE_EVERY,
    ChangesTold,
)


class Reactor(Clock):
    """A clock that runs what comes from threads at once, and knows who reads."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Any] = []
        self.addReader = self.readers.append
        self.removeReader = self.readers.remove

    def callFromThread(self, act: Any, *arguments: Any, **named: Any) -> None:
        """Do it now."""
        act(*arguments, **named)


class Connection:
    """
    A connection to PostgreSQL.

    Attributes:
        channels: that it listens to.
        waiting: notifications that can be read.
        broken: reading fails.
    """

    def __init__(self) -> None:
        self.channels: list[str] = []
        self.waiting: list[Any] = []
        self.broken = self.closed = self.deaf = False
        self._ends = os.pipe()
        self.pgconn = self

    def fileno(self) -> int:
        """Return the number of a descriptor that is open."""
        if self.broken:
            raise psycopg.OperationalError("the connection is lost")
        return self._ends[0]

    def execute(self, statement: str) -> None:
        """Listen."""
        if self.deaf:
            raise psycopg.OperationalError("it can't listen")
        self.channels.append(statement.removeprefix("LISTEN "))

    def close(self) -> None:
        """Close it, once or more often."""
        if not self.closed:
            self.closed = True
            for end in self._ends:
                os.close(end)

    def consume_input(self) -> None:
        """Read."""
        if self.broken:
            raise psycopg.OperationalError("the connection is lost")

    def notifies(self) -> Any:
        """Return a notification, while there are any."""
        return self.waiting.pop(0) if self.waiting else None

    def notify(self, channel: str, text: str) -> None:
        """Have a notification arrive."""
        self.waiting.append(SimpleNamespace(relname=channel.encode(), extra=text.encode()))


class Pool:
    """A pool of connections, whose thread is this one; it keeps what is asked."""

    def __init__(self) -> None:
        self.threadpool = self
        self.asked: list[tuple[Any, ...]] = []
        self.answer: Any = lambda: succeed([])

    def callInThreadWithCallback(self, done: Any, act: Any, *arguments: Any, **named: Any) -> None:
        """Do it now."""
        try:
            result = act(*arguments, **named)
        except Exception:
            done(False, Failure())
        else:
            done(True, result)

    def runQuery(self, statement: str, arguments: Any = ()) -> Deferred[Any]:
        """Keep it."""
        self.asked.append(tuple(arguments))
        answer: Deferred[Any] = self.answer()
        return answer


class ListenerTestCase(SynchronousTestCase):
    """A listener."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.pool = Pool()
        self.connections: list[Connection] = []
        self.away: Exception | None = None
        self.prepare: Any = lambda connection: None
        self.told: list[Any] = []
        self.answer: Any = lambda: succeed(None)
        self.listener = ChangesTold(
            self.connect, "The database", self.pool, self.reactor, self.changed
        )

    def connect(self, **options: Any) -> Connection:
        """Make a connection."""
        if self.away is not None:
            raise self.away
        connection = Connection()
        self.prepare(connection)
        self.addCleanup(connection.close)
        self.connections.append(connection)
        return connection

    def changed(self, names: Any) -> Any:
        """Keep the names of who may have changed."""
        self.told.append(names)
        return self.answer()

    def start(self) -> Connection:
        """Start it; it hears."""
        self.listener.startService()
        self.prove()
        self.told.clear()
        return self.connections[-1]

    def prove(self) -> None:
        """Have the last proof arrive."""
        channel, proof = self.pool.asked[-1]
        self.assertEqual(channel, PROOFS)
        self.connections[-1].notify(PROOFS, proof)
        self.listener.doRead()


class HearingTests(ListenerTestCase):
    """While it hears."""

    def test_names(self) -> None:
        """Who changed is looked at, each once; a notification without a name is for all."""
        connection = self.start()
        self.assertEqual(connection.channels, [CHANNEL, PROOFS, MESSAGES])
        self.assertEqual(self.reactor.readers, [self.listener])
        self.assertTrue(self.listener.notices)
        for name in ("alice", "bob", "alice", "jürgen"):
            connection.notify(CHANNEL, name)
        self.listener.doRead()
        self.assertEqual(self.told, [{"alice", "bob", "jürgen"}])
        self.told.clear()
        connection.notify(CHANNEL, "alice")
        connection.notify(CHANNEL, "")
        self.listener.doRead()
        self.assertEqual(self.told, [None])

    def test_whileItLooks(self) -> None:
        """What changes during a look is looked at after it, together; all, if one may be any."""
        connection = self.start()
        looking: list[Deferred[None]] = []

        def look() -> Deferred[None]:
            looking.append(Deferred())
            return looking[-1]

        self.answer = look
        for name in ("alice", "bob", "carol"):
            connection.notify(CHANNEL, name)
            self.listener.doRead()
        self.assertEqual(self.told, [{"alice"}])
        looking.pop().callback(None)
        self.assertEqual(self.told, [{"alice"}, {"bob", "carol"}])
        for name in ("", "dave"):
            connection.notify(CHANNEL, name)
            self.listener.doRead()
        looking.pop().callback(None)
        self.assertEqual(self.told[2:], [None])
        looking.pop().callback(None)
        self.assertEqual(looking, [])

    def test_messages(self) -> None:
        """Servers send each other texts; a subscriber with a bug keeps them from nobody."""
        heard: list[str] = []
        self.listener.subscribe(lambda text: 1 // 0)
        self.listener.subscribe(heard.append)
        connection = self.start()
        connection.notify(MESSAGES, "who is there?")
        self.listener.doRead()
        self.assertEqual(heard, ["who is there?"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.listener.send("I am")
        self.assertEqual(self.pool.asked[-1], (MESSAGES, "I am"))
        for count, others in ((0, 0), (1, 0), (3, 2)):
            self.pool.answer = lambda count=count: succeed([(count,)])
            self.assertEqual(self.successResultOf(self.listener.countOthers()), others)

    def test_proves(self) -> None:
        """It proves that it hears every few seconds; what it did not send proves nothing."""
        connection = self.start()
        proofs = len(self.pool.asked)
        self.reactor.advance(PROVE_EVERY)
        self.assertEqual(len(self.pool.asked), proofs + 1)
        connection.notify(PROOFS, "of another server")
        self.listener.doRead()
        self.assertTrue(self.listener.hears)
        self.reactor.advance(PROOF_TIMEOUT)
        self.assertFalse(self.listener.hears)
        self.assertTrue(connection.closed)

    def test_proofNotSent(self) -> None:
        """A proof that can't be sent by a connection of the pool is sent again by another one."""
        connection = self.start()
        self.pool.answer = lambda: fail(StoreError("lost"))
        self.reactor.advance(PROVE_EVERY)
        self.assertFalse(self.listener.hears)
        self.pool.answer = lambda: succeed([])
        self.reactor.advance(OFTEN)
        self.prove()
        self.assertTrue(self.listener.hears)
        self.assertFalse(connection.closed)
        # Twice in a row it is taken for the end of the connection.
        self.pool.answer = lambda: fail(StoreError("lost"))
        self.reactor.advance(PROVE_EVERY)
        self.reactor.advance(OFTEN)
        self.reactor.advance(OFTEN)
        self.assertTrue(connection.closed)

    def test_lateFailure(self) -> None:
        """That an earlier proof could not be sent says nothing once there is another one."""
        sent: Deferred[Any] = Deferred()
        self.pool.answer = lambda: sent
        self.start()
        self.pool.answer = lambda: succeed([])
        self.reactor.advance(PROVE_EVERY)
        self.prove()
        sent.errback(StoreError("lost"))
        self.assertTrue(self.listener.hears)


class DeafTests(ListenerTestCase):
    """While it does not hear."""

    def test_lost(self) -> None:
        """A connection that is lost is closed; all are looked at, and it listens again."""
        for isRead in (True, False):
            connection = self.start()
            if isRead:
                connection.broken = True
                self.listener.doRead()
            else:
                self.listener.connectionLost(Failure(ConnectionError("gone")))
            self.assertTrue(connection.closed)
            self.assertEqual(self.reactor.readers, [])
            self.assertFalse(self.listener.hears)
            self.assertFalse(self.listener.notices)
            # Neither is for the connection that there was.
            self.listener.doRead()
            self.listener.connectionLost(Failure(ConnectionError("gone")))
            self.reactor.advance(OFTEN)
            self.assertIsNot(self.connections[-1], connection)
            self.assertEqual(self.told, [None])
            self.prove()
            self.assertTrue(self.listener.hears)
            self.listener.stopService()
            self.assertTrue(self.connections[-1].closed)

    def test_away(self) -> None:
        """While the database is away, it tries ever less often, and looks at all if it can."""
        self.away = psycopg.OperationalError("nobody\nis there")
        self.listener.startService()
        self.assertFalse(self.listener.notices)
        self.reactor.advance(LOOK_EVERY)
        self.assertEqual(self.told, [None])
        self.assertTrue(self.listener.notices)
        tried = []
        connect = self.listener._makeConnection

        def counted(**options: Any) -> Any:
            tried.append(self.reactor.seconds())
            return connect(**options)

        self.listener._makeConnection = counted
        self.reactor.pump([0.125] * 320)
        waits = [after - before for before, after in pairwise(tried)]
        self.assertGreater(len(waits), 4)
        self.assertEqual(sorted(waits[:3]), waits[:3])
        self.assertAlmostEqual(max(waits), LONGEST_WAIT, 3)
        self.assertGreater(len(self.told), 20)
        self.away = None
        self.reactor.advance(LONGEST_WAIT)
        self.prove()
        self.assertTrue(self.listener.hears)
        self.told.clear()
        self.reactor.pump([LOOK_EVERY] * 5)
        self.assertEqual(len(self.told), 1, "It looks no more.")

    def test_looksFail(self) -> None:
        """While it can't look either, it notices nothing; and looks less often."""
        self.away = psycopg.OperationalError("nobody is there")
        self.answer = lambda: fail(StoreError("nobody is there"))
        self.listener.startService()
        self.reactor.advance(LOOK_EVERY)
        self.assertFalse(self.listener.notices)
        self.assertEqual(len(self.told), 1)
        self.reactor.advance(LONGEST_WAIT - 0.1)
        self.assertEqual(len(self.told), 1)
        self.reactor.advance(0.2)
        self.assertEqual(len(self.told), 2)

    def test_lookFails(self) -> None:
        """If a look fails while it hears, it listens anew, and then looks at all."""
        connection = self.start()
        self.answer = lambda: fail(StoreError("lost"))
        connection.notify(CHANNEL, "alice")
        self.listener.doRead()
        self.assertTrue(connection.closed)
        self.answer = lambda: succeed(None)
        self.told.clear()
        self.reactor.advance(OFTEN)
        self.assertEqual(self.told, [None])

    def test_bug(self) -> None:
        """A bug in the look is logged, and the next change is looked at."""
        connection = self.start()
        self.answer = lambda: fail(ZeroDivisionError())
        connection.notify(CHANNEL, "alice")
        self.listener.doRead()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.answer = lambda: succeed(None)
        connection.notify(CHANNEL, "bob")
        self.listener.doRead()
        self.assertEqual(self.told, [{"alice"}, {"bob"}])

    def test_cannotListen(self) -> None:
        """A connection that can't listen, or is lost before it is used, is closed."""
        for what in ("deaf", "broken"):
            self.prepare = lambda connection, what=what: setattr(connection, what, True)
            self.listener.startService()
            (connection,) = self.connections
            self.assertTrue(connection.closed)
            self.assertEqual(self.reactor.readers, [])
            self.assertEqual(self.listener.fileno(), -1)
            self.listener.stopService()
            self.assertEqual(self.reactor.getDelayedCalls(), [])
            self.connections.clear()

    def test_stoppedMeanwhile(self) -> None:
        """A connection that is made after it has stopped is closed."""
        begun: list[Any] = []
        self.pool.callInThreadWithCallback = (  # type: ignore[method-assign]
            lambda *what, **named: begun.append((what, named))
        )
        for work in (True, False):
            self.listener.startService()
            self.listener.stopService()
            ((done, act, *arguments), named) = begun.pop()
            if work:
                done(True, act(*arguments, **named))
                self.assertTrue(self.connections[-1].closed)
            else:
                # Nor does it try again.
                done(False, Failure(psycopg.OperationalError("nobody is there")))
            self.assertEqual(self.reactor.readers, [])
            self.assertEqual(self.reactor.getDelayedCalls(), [])
