"""Endpoint strings, as Twisted writes them, taken apart."""

from __future__ import annotations


def readDescription(description: str) -> tuple[str, dict[str, str], list[str]]:
    """
    Args:
        description: of an endpoint: ``"tcp:8787:interface=127.0.0.1"``.

    Returns:
        Its kind, its named and its other arguments.
    """
    kind, *fields = description.replace(r"\:", "\0").split(":")
    fields = [field.replace("\0", ":") for field in fields]
    named = dict(field.split("=", 1) for field in fields if "=" in field)
    return kind, named, [field for field in fields if "=" not in field]


def readAddress(description: str) -> tuple[str, int]:
    """
    Args:
        description: of an endpoint that leads to a host and a port.

    Returns:
        Host and port.

    Raises:
        ValueError: it names no port.
    """
    _, named, positional = readDescription(description)
    host, port = [*positional, "", ""][:2]
    host, port = named.get("host", host), named.get("port", port)
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise ValueError(f"{description!r} names no port.")
    return host, int(port)


def tlsAddress(description: str) -> tuple[str, int] | None:
    """
    Where an endpoint string leads by TLS.

    Args:
        description: an endpoint string.

    Returns:
        Host and port; `None` where it is of another kind, or says by itself what to trust.

    Raises:
        ValueError: it names no port.
    """
    kind, named, positional = readDescription(description)
    plain = len(positional) <= 2 and named.keys() <= {"host", "port", "timeout", "bindAddress"}
    if kind not in ("tls", "ssl") or not plain:
        return None
    return readAddress(description)
