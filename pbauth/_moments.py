"""Moments in the life of an account: aware `datetime` values in UTC, and how they are stored."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from pbauth._arguments import checkType

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_UNIT = timedelta(microseconds=1)

#: The first and the last moment, in microseconds since 1970.
FIRST = (datetime.min.replace(tzinfo=timezone.utc) - _EPOCH) // _UNIT
LAST = (datetime.max.replace(tzinfo=timezone.utc) - _EPOCH) // _UNIT


def checkMoment(value: object, name: str) -> datetime | None:
    """
    Check a moment, and return it in UTC.

    Args:
        value: a `datetime` with a time zone; `None`: never.
        name: of the argument or the attribute.

    Raises:
        TypeError: it is neither.
        ValueError: it has no time zone, or is too far away.
    """
    if value is None:
        return None
    checkType(datetime, value, name)
    assert isinstance(value, datetime)  # noqa: S101 - for the type checker
    if value.utcoffset() is None:
        raise ValueError(f"{name} must have a time zone: datetime(..., tzinfo=timezone.utc).")
    try:
        return value.astimezone(timezone.utc)
    except OverflowError:
        raise ValueError(f"{name} is too far away.") from None


def atSeconds(seconds: float) -> datetime:
    """
    Return a moment.

    Args:
        seconds: since 1970, as a reactor's clock has them.
    """
    return _EPOCH + timedelta(seconds=seconds)


def secondsOf(moment: datetime) -> float:
    """Return the seconds from 1970 to a moment."""
    return (moment - _EPOCH).total_seconds()


def toStamp(moment: datetime | None) -> int | None:
    """Return the microseconds from 1970 to a moment, as stores keep it."""
    return None if moment is None else (moment - _EPOCH) // _UNIT


def fromStamp(stamp: int | str | None) -> datetime | None:
    """
    Return the moment that `toStamp` made a number of.

    Raises:
        ValueError: it is not one.
    """
    if stamp is None:
        return None
    number = int(stamp)
    if not FIRST <= number <= LAST:
        raise ValueError("This is not a moment.")
    return _EPOCH + timedelta(microseconds=number)


def toText(moment: datetime) -> str:
    """Return a moment as text (ISO 8601, in UTC)."""
    return moment.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")


def fromText(text: str) -> datetime:
    """
    Return the moment that a text names.

    Args:
        text: ``2026-12-31T23:59:59Z``; without a time it is the beginning of that day, and without
            a time zone it is UTC.

    Raises:
        ValueError: it is not one.
    """
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise ValueError("Write a date as 2026-12-31, or 2026-12-31T23:59:59Z.") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    found = checkMoment(moment, "A date")
    assert found is not None  # noqa: S101 - for the type checker
    return found
