"""A real pgbouncer for tests, in front of the PostgreSQL of `tests.support.postgres`."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import psycopg
from twisted.trial.unittest import TestCase

#: The program; `None`: it is not installed.
PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

_PORT = 6432


class PgBouncer:
    """
    A pooler that listens on a UNIX socket.

    Args:
        test: stops it by its cleanups.
        database: the URL of the database behind it.
        settings: lines of its configuration.
    """

    def __init__(self, test: TestCase, database: str, *settings: str) -> None:
        assert PGBOUNCER is not None
        behind = psycopg.conninfo.conninfo_to_dict(database)
        folder = tempfile.mkdtemp(prefix="pbauth-pgbouncer-")
        test.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        self._name = str(behind["dbname"])
        self._folder = folder
        lines = (
            "[databases]",
            f"* = host={behind['host']} user=postgres",
            "[pgbouncer]",
            f"unix_socket_dir = {folder}",
            f"listen_port = {_PORT}",
            "listen_addr =",
            "auth_type = any",
            *settings,
        )
        configuration = Path(folder) / "pgbouncer.ini"
        configuration.write_text("\n".join(lines) + "\n")
        user = []
        if os.getuid() == 0:
            # It refuses to run as root; so does PostgreSQL, into whose folder it has to look.
            account = pwd.getpwuid(os.stat(str(behind["host"])).st_uid)
            os.chown(folder, account.pw_uid, account.pw_gid)
            user = [f"--user={account.pw_name}"]
        self._process = subprocess.Popen(
            [PGBOUNCER, "--quiet", *user, str(configuration)],
            stderr=subprocess.DEVNULL,
        )
        test.addCleanup(self.stop)
        deadline = time.monotonic() + 10
        while not (Path(folder) / f".s.PGSQL.{_PORT}").exists():
            assert time.monotonic() < deadline, "pgbouncer does not start"
            time.sleep(0.02)

    @property
    def url(self) -> str:
        """Return the URL of the database, through the pooler."""
        return (
            f"postgresql://postgres@/{self._name}?host={quote(self._folder, safe='')}&port={_PORT}"
        )

    def stop(self) -> None:
        """Stop it at once."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        self._process.wait(10)
