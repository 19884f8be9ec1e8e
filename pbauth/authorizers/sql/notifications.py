"""How a server learns from PostgreSQL what others change: it listens for notifications."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import psycopg
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from zope.interface import implementer

from pbauth.authorizers.sql.engine import OFTEN, Changed
from pbauth.errors import StoreError

_log = Logger()

#: What the servers listen to.
CHANNEL = "pbauth_changes"

#: The longest wait between two attempts to listen again, in seconds.
LONGEST_WAIT = 5.0


@implementer(IReadDescriptor)
class ChangesTold(Service):
    """
    Listens for changes that others make; after a lost connection, listens again, and says that
    anything may have changed.

    Args:
        conninfo: of the database.
        where: it is, for messages.
        threads: in which connections are made.
        reactor: looks at the connection.
        changed: takes the names of the changed identities.
    """

    def __init__(
        self, conninfo: str, where: str, threads: Any, reactor: Any, changed: Changed
    ) -> None:
        self._conninfo = conninfo
        self._where = where
        self._threads = threads
        self._reactor = reactor
        self._changed = changed
        self._connection: psycopg.Connection[Any] | None = None
        self._again: Any = None
        self._wait = OFTEN
        # Names that were notified, and not looked at yet; `None`: anything.
        self._names: set[str] | None = set()
        self._looking = False

    def startService(self) -> None:
        """Begin to listen."""
        super().startService()
        self._listen()

    def stopService(self) -> None:
        """Listen no more."""
        super().stopService()
        if self._again is not None:
            self._again.cancel()
            self._again = None
        self._hangUp()

    # Connecting.

    def _listen(self) -> None:
        self._again = None
        connecting = deferToThreadPool(self._reactor, self._threads, self._connect)
        connecting.addCallbacks(self._connected, lambda failure: self._lost(failure.value))

    def _connect(self) -> psycopg.Connection[Any]:
        connection = psycopg.connect(self._conninfo, autocommit=True)
        connection.execute(f"LISTEN {CHANNEL}")
        return connection

    def _connected(self, connection: psycopg.Connection[Any]) -> None:
        if not self.running:
            connection.close()
            return
        if self._wait > OFTEN:
            _log.info("{where} is back", where=self._where)
        self._wait = OFTEN
        self._connection = connection
        self._reactor.addReader(self)
        # Whatever happened before is only known to have happened.
        self._tell(None)
        self.doRead()

    def _lost(self, error: Exception) -> None:
        self._hangUp()
        if not self.running or self._again is not None:
            return
        if self._wait == OFTEN:
            _log.error(
                "{where} can't be reached: {error}. Users who are logged in stay logged in; "
                "changes to their accounts take effect when it is back",
                where=self._where,
                error=str(error).strip().partition("\n")[0],
            )
        self._again = self._reactor.callLater(self._wait, self._listen)
        self._wait = min(2 * self._wait, LONGEST_WAIT)

    def _hangUp(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._reactor.removeReader(self)
            connection.close()

    # What the reactor calls.

    def fileno(self) -> int:
        """Return the number of the socket."""
        if self._connection is None:
            return -1
        with suppress(psycopg.Error):
            return self._connection.fileno()
        return -1

    def logPrefix(self) -> str:
        """Name this in the log."""
        return "PostgreSQL"

    def connectionLost(self, reason: Any) -> None:
        """Learn from the reactor that it no longer reads from the socket."""
        self._lost(reason.value)

    def doRead(self) -> None:
        """Something has come from the database."""
        if self._connection is None:
            return
        names = set()
        try:
            protocol = self._connection.pgconn
            protocol.consume_input()
            while told := protocol.notifies():
                names.add(told.extra.decode("utf-8"))
        except psycopg.Error as error:
            self._lost(error)
        if names:
            self._tell(None if "" in names else names)

    # Telling.

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
        try:
            while self._names is None or self._names:
                names, self._names = self._names, set()
                await self._changed(names)
        except StoreError as error:
            # Once there is a connection again, all are looked at; so let there be a new one.
            self._lost(error)
        finally:
            self._looking = False
