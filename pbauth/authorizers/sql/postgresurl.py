"""Where the URL of a PostgreSQL database leads, and how the connection to it is protected."""

from __future__ import annotations

import os
from itertools import zip_longest

import psycopg
from psycopg import conninfo, pq

from pbauth.errors import StoreError
from pbauth.net.addresses import isLoopback

_DEFAULT_MODE = "prefer"
_NO_VALUE = "pbauth-looks-where-this-leads"


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


def resolve(parameters: dict[str, str]) -> dict[str, str]:
    """
    Return the parameters of a connection: those of a URL, of a service file, of the
    environment (``PGHOST``, ``PGSSLMODE``, ...), and libpq's defaults, as libpq itself puts them
    together.

    Args:
        parameters: those of the URL.

    Raises:
        StoreError: a service is not defined, for instance.
    """
    # There is no such value: libpq finds that out after it has put everything together, and
    # before it looks for a host.
    nowhere = {**parameters, "target_session_attrs": _NO_VALUE}
    attempt = pq.PGconn.connect_start(conninfo.make_conninfo("", **nowhere).encode())
    try:
        said = attempt.error_message.decode("utf-8", "replace").strip().partition("\n")[0]
        if _NO_VALUE not in said:
            raise StoreError(f"{withoutSecrets(parameters)} can't be used: {said}.")
        return {each.keyword.decode(): each.val.decode() for each in attempt.info if each.val}
    finally:
        attempt.finish()


def protection(parameters: dict[str, str]) -> dict[str, str]:
    """
    Return parameters that protect a connection to another machine: verified TLS, since verifiers
    cross it. The user's own settings of TLS come first.

    Args:
        parameters: those of the URL.

    Raises:
        StoreError: as for `resolve`.
    """
    found = resolve(parameters)
    if all(map(_isHere, _addresses(found))):
        return {}
    chosen = "sslmode" in parameters or "PGSSLMODE" in os.environ
    # A service file may also choose a mode; "prefer" is what there is without a choice.
    if chosen or found.get("sslmode", _DEFAULT_MODE) != _DEFAULT_MODE:
        return {}
    own = os.path.exists(os.path.expanduser("~/.postgresql/root.crt"))
    authority = {} if own or "sslrootcert" in found else {"sslrootcert": "system"}
    return {"sslmode": "verify-full", **authority}


def _addresses(found: dict[str, str]) -> list[str]:
    """Return where libpq connects to: ``hostaddr`` is where, and then ``host`` is only a name."""
    names, addresses = (found.get(key, "").split(",") for key in ("host", "hostaddr"))
    return [address or name for name, address in zip_longest(names, addresses, fillvalue="")]


def _isHere(address: str) -> bool:
    # A path is a UNIX socket, also in the abstract namespace; nothing is the default one.
    return not address or address.startswith(("/", "@")) or isLoopback(address)


def withoutSecrets(parameters: dict[str, str]) -> str:
    """Return a URL for messages: of the user, the host and the database."""
    user = f"{parameters['user']}@" if "user" in parameters else ""
    host = parameters.get("host", "")
    port = f":{parameters['port']}" if "port" in parameters else ""
    # The folder of a UNIX socket is a parameter.
    where = f"/{parameters.get('dbname', '')}" + (f"?host={host}" if "/" in host else "")
    return f"postgresql://{user}{'' if '/' in host else host}{port}{where}"
