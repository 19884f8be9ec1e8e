"""Dates on the command line."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Any

import click

from pbauth._moments import fromText

#: What an option or an argument of this type looks like.
METAVAR = "DATE|30d|never"


def readDate(context: click.Context, parameter: Any, text: str | None) -> datetime | None:
    """
    Read a date; a callback of click.

    Args:
        context: of the command.
        parameter: that the text was given for.
        text: ``2026-12-31``, with or without a time; ``30d``, days from now; ``never``; `None`.

    Returns:
        The moment; `None`: never.
    """
    if text is None or text == "never":
        return None
    days = readDays(text)
    try:
        return fromText(text) if days is None else _now() + days
    except OverflowError:
        raise click.BadParameter("This is too far away.") from None
    except ValueError:
        raise click.BadParameter(
            "Write a date as 2026-12-31 or 2026-12-31T23:59:59Z, a number of days as 30d, or never."
        ) from None


def readAge(context: click.Context, parameter: Any, text: str | None) -> datetime | None:
    """
    Read how long ago something was; a callback of click.

    Args:
        context: of the command.
        parameter: that the text was given for.
        text: ``90d``, a number of days; `None`.

    Returns:
        The moment; `None`: nothing was given.
    """
    if text is None:
        return None
    days = readDays(text)
    if days is None:
        raise click.BadParameter("Write a number of days as 90d.")
    try:
        return _now() - days
    except OverflowError:
        raise click.BadParameter("This is too long ago.") from None


def readEnd(context: click.Context, parameter: Any, text: str | None) -> datetime | None:
    """
    Read when something ends; a callback of click.

    Args:
        context: of the command.
        parameter: that the text was given for.
        text: ``90d``, ``8h`` or ``30m`` from now, or a date as for `readDate`; `None`.

    Returns:
        The moment; `None`: nothing was given.
    """
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,9})([dhm])", text)
    try:
        if found is None:
            return fromText(text)
        return _now() + int(found[1]) * _UNITS[found[2]]
    except OverflowError:
        raise click.BadParameter("This is too far away.") from None
    except ValueError:
        raise click.BadParameter(
            "Write a time from now as 90d, 8h or 30m; or a date as 2026-12-31T23:59:59Z."
        ) from None


_UNITS = {"d": timedelta(days=1), "h": timedelta(hours=1), "m": timedelta(minutes=1)}


def _now() -> datetime:
    return datetime.now(timezone.utc).replace(microsecond=0)


def readDays(text: str) -> timedelta | None:
    """Read a number of days; `None`: it is none."""
    found = re.fullmatch(r"([0-9]{1,9})d", text)
    return timedelta(days=int(found[1])) if found else None
