"""Where the URL of a PostgreSQL database leads, and how the connection to it is protected."""

from __future__ import annotations

import os

import psycopg
from psycopg import conninfo

from pbauth.errors import StoreError
from pbauth.net.addresses import isLoopback


def readURL(url: str) -> dict[str, str]:
    """
    Return the parameters in a URL of libpq.

    Raises:
        StoreError: it is no such URL. The message does not quote it.
    """
    try:
        found = conninfo.conninfo_to_dict(url)
    except psycopg.Error:
        # Its text quotes the URL.
        found = None
    if not found:
        raise StoreError(
            "This is not the URL of a PostgreSQL database. Example: postgresql://user@host/database"
        )
    return {name: str(value) for name, value in found.items()}


def protection(parameters: dict[str, str]) -> dict[str, str]:
    """
    Return parameters that protect a connection over a network: verified TLS, since verifiers
    cross it. The user's own settings of TLS come first.
    """
    hosts = ",".join(parameters.get(name, "") for name in ("host", "hostaddr")).split(",")
    if all(not host or host.startswith(("/", "@")) or isLoopback(host) for host in hosts):
        return {}
    if "sslmode" in parameters or "PGSSLMODE" in os.environ:
        return {}
    own = os.path.exists(os.path.expanduser("~/.postgresql/root.crt"))
    return {"sslmode": "verify-full", **({} if own else {"sslrootcert": "system"})}


def withoutSecrets(parameters: dict[str, str]) -> str:
    """Return a URL for messages: of the user, the host and the database."""
    user = f"{parameters['user']}@" if "user" in parameters else ""
    host = parameters.get("host", "")
    port = f":{parameters['port']}" if "port" in parameters else ""
    # The folder of a UNIX socket is a parameter.
    where = f"/{parameters.get('dbname', '')}" + (f"?host={host}" if "/" in host else "")
    return f"postgresql://{user}{'' if '/' in host else host}{port}{where}"
