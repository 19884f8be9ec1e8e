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
