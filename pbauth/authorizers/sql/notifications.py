"""
How a server learns from PostgreSQL what others change.

A listener listens for notifications (``LISTEN``) on a connection of its own, and proves every
few seconds that it hears: it sends itself a notification by another connection.  While it does
not hear, since the connection is lost or a pooler drops notifications, it says so, begins again,
and has the accounts of all users who are logged in read again every second or so.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable
from typing import Any

import psycopg
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from zope.interface import implementer

from pbauth._contained import contained
from pbauth.authorizers.sql.engine import OFTEN, Changed
from pbauth.errors import StoreError
from pbauth.interfaces import IChangesService, IServerMessages

_log = Logger()

#: What the servers listen to: the names of the changed identities.
CHANNEL = "pbauth_changes"

#: Where a listener proves that it hears.
PROOFS = "pbauth_proofs"

#: What servers ask each other, and answer.
MESSAGES = "pbauth_messages"

#: How PostgreSQL names the connections that listen.
LISTENER = "pbauth listener"

#: Seconds from one proof to the next, and until a notification that has not come is taken for lost.
PROVE_EVERY = 10.0
PROOF_TIMEOUT = 5.0

#: Seconds between two looks at all users, while nothing is heard; more, where a look takes long.
LOOK_EVERY = 1.0

#: The longest wait between two attempts to listen again, in seconds.
LONGEST_WAIT = 5.0


class _NotHeard(Exception):
    """A notification did not arrive."""

    def __init__(self) -> None:
        super().__init__(
            "notifications do not arrive. A pooler must use pool_mode=session, or be left out"
        )


@implementer(IReadDescriptor, IChangesService, IServerMessages)
class ChangesTold(Service):
    """
    Listens for changes that others make; after a lost connection, listens again, and says that
    anything may have changed.

    Args:
        connect: makes a connection; called in a thread.
        where: the name of the database, for messages.
        pool: of connections to the database.
        reactor: looks at the connection.
        changed: takes the names of the changed identities.

    Attributes:
        hears: whether the last proof succeeded, and the connection stands.
    """

    def __init__(self, connect: Any, where: str, pool: Any, reactor: Any, changed: Changed) -> None:
        self._makeConnection = connect
        self._where = where
        self._pool = pool
        self._reactor = reactor
        self._changed = changed
        self._connection: psycopg.Connection[Any] | None = None
        # The number that the reactor knows. libpq closes its own whenever it likes; the number may
        # be somebody else's by the time that the reactor is told.
        self._descriptor = -1
        # The next attempt to listen, or proof, or end of the wait for one.
        self._next: Any = None
        self._wait = OFTEN
        self._proof: str | None = None
        self._subscribers: list[Callable[[str], None]] = []
        self.hears = False
        self._saidDeaf = False
        # Names that were notified, and not looked at yet; `None`: anything.
        self._names: set[str] | None = set()
        self._looking = False
        self._looked = False
        self._nextLook: Any = None

    @property
    def notices(self) -> bool:
        """Return whether changes are noticed, since they are heard or the last look succeeded."""
        return self.hears or (self._saidDeaf and self._looked)

    def startService(self) -> None:
        """Begin to listen."""
        super().startService()
        self._listen()

    def stopService(self) -> None:
        """Stop listening."""
        super().stopService()
        for call in (self._next, self._nextLook):
            if call is not None:
                call.cancel()
        self._next = self._nextLook = None
        self._hangUp()

    # Connecting.

    def _schedule(self, seconds: float, act: Any) -> None:
        if self._next is not None:
            self._next.cancel()
        self._next = self._reactor.callLater(seconds, self._act, act)

    def _act(self, act: Any) -> None:
        self._next = None
        act()

    def _listen(self) -> None:
        connecting = deferToThreadPool(self._reactor, self._pool.threadpool, self._connect)
        connecting.addCallbacks(self._connected, lambda failure: self._lost(failure.value))

    def _connect(self) -> psycopg.Connection[Any]:
        connection: psycopg.Connection[Any] = self._makeConnection(
            autocommit=True, application_name=LISTENER
        )
        try:
            for channel in (CHANNEL, PROOFS, MESSAGES):
                connection.execute(f"LISTEN {channel}")
        except psycopg.Error:
            connection.close()
            raise
        return connection

    def _connected(self, connection: psycopg.Connection[Any]) -> None:
        if not self.running:
            connection.close()
            return
        try:
            self._descriptor = os.dup(connection.fileno())
        except (psycopg.Error, OSError) as error:
            # It is lost already; or there are too many open files.
            connection.close()
            self._lost(error)
            return
        self._connection = connection
        self._reactor.addReader(self)
        # Whatever happened before is only known to have happened.
        self._tell(None)
        self._prove()
        self.doRead()

    def _prove(self) -> None:
        """Send a notification to this listener, by whichever connection."""
        proof = self._proof = secrets.token_hex(8)
        self._schedule(PROOF_TIMEOUT, lambda: self._lost(_NotHeard()))
        sent = self._pool.runQuery("SELECT pg_notify(%s, %s)", (PROOFS, proof))
        sent.addErrback(lambda failure: self._notSent(proof, failure.value))

    def _notSent(self, proof: str, error: Exception) -> None:
        # A connection of the pool that was lost says nothing of this one; a new proof does.
        if proof == self._proof:
            self._schedule(OFTEN, self._prove if self.hears else lambda: self._lost(error))
            self.hears = False

    def _heard(self) -> None:
        self._proof = None
        if self._saidDeaf:
            _log.info("{where} is back: its notifications arrive", where=self._where)
        self.hears, self._saidDeaf = True, False
        self._wait = OFTEN
        self._schedule(PROVE_EVERY, self._prove)

    def _lost(self, error: Exception) -> None:
        self._hangUp()
        if not self.running:
            return
        if not self._saidDeaf:
            self._saidDeaf, self._looked = True, False
            _log.error(
                "{where} sends no notifications of changes: {error}. Users who are logged in stay "
                "logged in; their accounts are read again every few seconds, if possible",
                where=self._where,
                error=str(error).strip().partition("\n")[0],
            )
        self._schedule(self._wait, self._listen)
        self._wait = min(2 * self._wait, LONGEST_WAIT)
        self._lookLater(LOOK_EVERY)

    def _hangUp(self) -> None:
        self.hears, self._proof = False, None
        connection, self._connection = self._connection, None
        if connection is not None:
            self._reactor.removeReader(self)
            os.close(self._descriptor)
            self._descriptor = -1
            connection.close()

    # What the reactor calls.

    def fileno(self) -> int:
        """Return the number of the descriptor that the reactor watches."""
        return self._descriptor

    def logPrefix(self) -> str:
        """Return the name of this in the log."""
        return "PostgreSQL"

    def connectionLost(self, reason: Any) -> None:
        """Learn from the reactor that it no longer reads from the socket."""
        if self._connection is not None:
            self._lost(reason.value)

    def doRead(self) -> None:
        """Read what has come from the database."""
        if self._connection is None:
            return
        names = set()
        try:
            protocol = self._connection.pgconn
            protocol.consume_input()
            while told := protocol.notifies():
                text = told.extra.decode("utf-8")
                channel = told.relname.decode("utf-8")
                if channel == CHANNEL:
                    names.add(text)
                elif channel == MESSAGES:
                    self._pass(text)
                elif text == self._proof:
                    self._heard()
        except psycopg.Error as error:
            self._lost(error)
        if names:
            self._tell(None if "" in names else names)

    # Messages between servers.

    def send(self, text: str) -> Deferred[Any]:
        """Send a text to all servers (see `IServerMessages`)."""
        sent: Deferred[Any] = self._pool.runQuery("SELECT pg_notify(%s, %s)", (MESSAGES, text))
        return sent

    def subscribe(self, receive: Callable[[str], None]) -> None:
        """Call this with each text that comes (see `IServerMessages`)."""
        self._subscribers.append(receive)

    def countOthers(self) -> Deferred[int]:
        """Count the other servers (see `IServerMessages`)."""
        counted: Deferred[Any] = self._pool.runQuery(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = %s",
            (LISTENER,),
        )
        return counted.addCallback(lambda rows: max(0, rows[0][0] - 1))

    def _pass(self, text: str) -> None:
        for receive in self._subscribers:
            with contained(_log, "A message between servers was not understood"):
                receive(text)

    # Telling.

    def _lookLater(self, seconds: float) -> None:
        if self._nextLook is None and not self._looking:
            self._nextLook = self._reactor.callLater(seconds, self._lookAtAll)

    def _lookAtAll(self) -> None:
        self._nextLook = None
        self._tell(None)

    def _tell(self, names: Iterable[str] | None) -> None:
        if names is None or self._names is None:
            self._names = None
        else:
            self._names.update(names)
        if not self._looking:
            self._looking = True
            Deferred.fromCoroutine(self._look()).addErrback(
                lambda failure: _log.failure("Checking changed accounts failed", failure)
            )

    async def _look(self) -> None:
        began = self._reactor.seconds()
        self._looked = False
        try:
            while self._names is None or self._names:
                names, self._names = self._names, set()
                await self._changed(names)
            self._looked = True
        except StoreError as error:
            # Once there is a connection again, all are looked at; so let there be a new one.
            if self._connection is not None:
                self._lost(error)
        finally:
            self._looking = False
            if self.running and not self.hears:
                took = self._reactor.seconds() - began
                self._lookLater(max(LOOK_EVERY, 4 * took) if self._looked else LONGEST_WAIT)
