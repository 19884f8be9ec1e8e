"""Endpoint strings, as Twisted writes them, taken apart."""

from __future__ import annotations

import ipaddress
import re

_BRACKETED = re.compile(r"(?<=[:=])\[([^][/]*)\](?=:|$)")
_NAMED = re.compile(r"(?<=:)(interface|host|bindAddress)=([0-9A-Fa-f:.%\w]*)")


def spelledOut(description: str) -> str:
    """
    Escape the colons of IPv6 addresses, as Twisted wants them: ``tls:[::1]:8787`` and
    ``ssl:8787:interface=::1`` are what people type.

    Args:
        description: of an endpoint.

    Returns:
        The description, for `twisted.internet.endpoints`.
    """
    description = _BRACKETED.sub(_escapeBracketed, description)
    return _NAMED.sub(_escapeNamed, description)


def _escapeBracketed(found: re.Match[str]) -> str:
    return found[1].replace(":", r"\:") if _isIPv6(found[1]) else found[0]


def _escapeNamed(found: re.Match[str]) -> str:
    # The longest address that is there; further arguments may follow.
    pieces = found[2].split(":")
    for count in range(len(pieces), 2, -1):
        address = ":".join(pieces[:count])
        if _isIPv6(address):
            rest = "".join(f":{piece}" for piece in pieces[count:])
            return f"{found[1]}=" + address.replace(":", r"\:") + rest
    return found[0]


def _isIPv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def readDescription(description: str) -> tuple[str, dict[str, str], list[str]]:
    """
    Take an endpoint string apart.

    Args:
        description: of an endpoint: ``"tcp:8787:interface=127.0.0.1"``.

    Returns:
        Its kind, its named and its other arguments.
    """
    kind, *fields = spelledOut(description).replace(r"\:", "\0").split(":")
    fields = [field.replace("\0", ":") for field in fields]
    named = dict(field.split("=", 1) for field in fields if "=" in field)
    return kind, named, [field for field in fields if "=" not in field]


def readAddress(description: str) -> tuple[str, int]:
    """
    Read the host and the port of an endpoint string.

    Args:
        description: of an endpoint that leads to a host and a port.

    Returns:
        The host, without the final dot of the DNS root, and the port.

    Raises:
        ValueError: it names no port.
    """
    _, named, positional = readDescription(description)
    host, port = [*positional, "", ""][:2]
    host, port = named.get("host", host), named.get("port", port)
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise ValueError(f"{description!r} names no port from 1 to 65535.")
    return host.removesuffix("."), int(port)


def tlsAddress(description: str) -> tuple[str, int] | None:
    """
    Read where an endpoint string leads over TLS.

    Args:
        description: an endpoint string.

    Returns:
        Host and port; `None` where it is of another kind, or says by itself what to trust.

    Raises:
        ValueError: it names no port.
    """
    kind, named, positional = readDescription(description)
    plain = len(positional) <= 2 and named.keys() <= {
        "host",
        "port",
        "minimumTLS",
        "timeout",
        "bindAddress",
    }
    if kind not in ("tls", "ssl") or not plain:
        return None
    return readAddress(description)
