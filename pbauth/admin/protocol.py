"""
The messages of the administration: both halves of each, side by side, without I/O.

An argument or an answer is written by ``encode...`` at one end and read by ``decode...`` at the
other; what comes from the wire is checked for type and size, and anything else is a
`ProtocolViolation`.  Names, truth values and numbers cross as they are.  Answers are pages, so that
no number of users makes a message too long; an empty page is the end.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from attrs import evolve

from pbauth._moments import fromText, toText
from pbauth.accounts.identity import checkIdentityName, checkMethods
from pbauth.accounts.records import Record
from pbauth.errors import InvalidName, ProtocolViolation
from pbauth.mechanisms import PASSWORD_MECHANISMS, Verifier, decodeKey, decodeVerifier
from pbauth.mechanisms.authorizedkeys import AuthorizedKey
from pbauth.mechanisms.voucher import IssuedVoucher
from pbauth.mechanisms.voucherchain import MOST_BYTES as MOST_BLOCK
from pbauth.names import LONGEST, checkName

#: The name of the service, unless it is given another one.
NAME = "admin"

#: The most items of a page, and of a list of arguments.
MOST_ITEMS = 1_000
#: About the most bytes of a page; PB itself takes no string of more than 640 KiB.
MOST_BYTES = 256 * 1024
#: About the most bytes of accounts that are sent in one message.
MOST_SENT = 600 * 1024

# Names, numbers and truth values.


def decodeName(value: Any, what: str = "name of an identity") -> str:
    """Read a name."""
    try:
        return checkName(value, what)
    except (TypeError, InvalidName) as mistake:
        raise ProtocolViolation(str(mistake)) from None


def decodeIdentityName(value: Any) -> str:
    """Read the name of a new identity."""
    try:
        return checkIdentityName(value)
    except (TypeError, InvalidName) as mistake:
        raise ProtocolViolation(str(mistake)) from None


def decodeGroup(value: Any) -> str:
    """Read the name of a group."""
    return decodeName(value, "name of a group")


def encodeMoment(moment: datetime | None) -> str | None:
    """Write a moment, or that there is none."""
    return None if moment is None else toText(moment)


def decodeMoment(value: Any) -> datetime | None:
    """Read a moment, or that there is none."""
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > LONGEST:
        raise ProtocolViolation("This is not a date.")
    try:
        return fromText(value)
    except ValueError as mistake:
        raise ProtocolViolation(str(mistake)) from None


def decodePerspectiveKey(service: Any, perspective: Any) -> tuple[str, str]:
    """Read the key to a perspective."""
    return decodeName(service, "name of a service"), decodeName(
        perspective, "name of a perspective"
    )


def decodeMethods(value: Any) -> frozenset[str]:
    """Read the names of the methods that a key is good for."""
    try:
        return checkMethods(decodeList(value))
    except (TypeError, ValueError) as mistake:
        raise ProtocolViolation(str(mistake)) from None


def decodeCursor(value: Any) -> str:
    """Read what the next page comes behind."""
    # What comes before a name need not be one, nor be as short.
    if (
        not isinstance(value, str)
        or len(value) > 2 * LONGEST
        or any(unicodedata.category(each) in ("Cc", "Cs") for each in value)
    ):
        raise ProtocolViolation("No name comes after that.")
    return value


def decodeFlag(value: Any) -> bool:
    """Read a truth value."""
    if not isinstance(value, bool):
        raise ProtocolViolation("This is not a truth value.")
    return value


def decodeNumber(value: Any, least: int) -> int:
    """Read a number, so large at least."""
    if type(value) is not int or value < least:
        raise ProtocolViolation(f"This is not a number, {least} or more.")
    return value


def decodeCount(value: Any) -> int:
    """Read how many items a page may have."""
    return min(decodeNumber(value, 1), MOST_ITEMS)


def decodeList(value: Any) -> list[Any]:
    """Read a list of anything."""
    if not isinstance(value, (tuple, list)) or len(value) > MOST_ITEMS:
        raise ProtocolViolation(f"This is not a list of at most {MOST_ITEMS} items.")
    return list(value)


# The verifiers of a password.


def encodeVerifiers(verifiers: dict[str, Verifier]) -> list[str]:
    """Write the verifiers of a password."""
    return [verifier.encode() for verifier in verifiers.values()]


def decodeVerifiers(value: Any) -> dict[str, Verifier]:
    """Read the verifiers of a password, by the name of the mechanism."""
    made: dict[str, Verifier] = {}
    for encoded in decodeList(value):
        mechanism = encoded.partition("$")[0] if isinstance(encoded, str) else ""
        if mechanism not in PASSWORD_MECHANISMS:
            raise ProtocolViolation("This is not a verifier of a password.")
        try:
            made[mechanism] = decodeVerifier(encoded)
        except ValueError as mistake:
            raise ProtocolViolation(str(mistake)) from None
    return made


# Public keys.


def encodePublicKey(key: AuthorizedKey) -> tuple[str, str]:
    """Write a public key: the name of its mechanism, and its line."""
    return key.mechanism, key.line()


def decodePublicKey(value: Any) -> AuthorizedKey:
    """Read a public key."""
    if not _isPair(value) or len(value[1]) > 2 * LONGEST + 100:
        raise ProtocolViolation("This is not a public key.")
    try:
        return decodeKey(*value)
    except ValueError as mistake:
        raise ProtocolViolation(str(mistake)) from None


# Vouchers.


def encodeVoucher(issued: IssuedVoucher) -> str:
    """Write what is kept of a voucher."""
    return issued.line()


def decodeVoucher(value: Any) -> IssuedVoucher:
    """Read what is kept of a voucher."""
    if not isinstance(value, str) or len(value) > 2 * MOST_BLOCK:
        raise ProtocolViolation("This is not a voucher.")
    try:
        return IssuedVoucher.fromLine(value)
    except ValueError as mistake:
        raise ProtocolViolation(str(mistake)) from None


# Whole accounts.


def encodeRecord(record: Record) -> tuple[Any, ...]:
    """
    Write an account: name, whether it is locked, verifiers and keys as sorted lists of pairs; and
    its groups, when it expires, whether the password has to be changed, when it was created and
    logged in last.
    """
    return (
        *(record.name, record.locked, sorted(record.verifiers), sorted(record.keys)),
        *(sorted(record.groups), encodeMoment(record.expires), record.mustChangePassword),
        *(encodeMoment(record.created), encodeMoment(record.lastLogin)),
        # What is not there need not be understood.
        *([sorted(record.methods)] if record.methods else ()),
    )


def decodeRecord(value: Any) -> Record:
    """Read an account, and check it."""
    # Without the rest it is one of a program that does not know of it.
    if not isinstance(value, (tuple, list)) or len(value) not in (4, 9, 10):
        raise ProtocolViolation("This is not a record of an account.")
    name, locked, verifiers, keys = value[:4]
    record = Record(name, decodeFlag(locked), _pairs(verifiers), _pairs(keys))
    if len(value) > 4:
        groups, expires, mustChange, created, lastLogin, *methods = value[4:]
        record = evolve(
            record,
            groups=frozenset(map(decodeGroup, decodeList(groups))),
            expires=decodeMoment(expires),
            mustChangePassword=decodeFlag(mustChange),
            created=decodeMoment(created),
            lastLogin=decodeMoment(lastLogin),
            methods=frozenset().union(*map(_triples, methods)),
        )
    try:
        record.check()
    except (TypeError, ValueError) as mistake:
        raise ProtocolViolation(str(mistake)) from None
    return record


def encodeBatches(records: Iterable[Record]) -> Iterable[list[tuple[Any, ...]]]:
    """Write accounts, as many in each message as it takes."""
    batch: list[tuple[Any, ...]] = []
    size = 0
    for record in records:
        plain = encodeRecord(record)
        length = len(repr(plain).encode("utf-8", "replace"))
        if batch and (len(batch) == MOST_ITEMS or size + length > MOST_SENT):
            yield batch
            batch, size = [], 0
        batch.append(plain)
        size += length
    if batch:
        yield batch


def decodeBatch(value: Any) -> list[Record]:
    """Read the accounts of one message."""
    return [decodeRecord(record) for record in decodeList(value)]


def _pairs(value: Any) -> frozenset[tuple[str, str]]:
    if not isinstance(value, (tuple, list)) or not all(map(_isPair, value)):
        raise ProtocolViolation("These are not pairs of texts.")
    return frozenset((one, other) for one, other in value)


def _triples(value: Any) -> frozenset[tuple[str, str, str]]:
    if not isinstance(value, (tuple, list)) or not all(
        isinstance(each, (tuple, list))
        and len(each) == 3
        and all(isinstance(part, str) for part in each)
        for each in value
    ):
        raise ProtocolViolation("These are not triples of texts.")
    return frozenset((one, two, three) for one, two, three in value)


def _isPair(value: Any) -> bool:
    return (
        isinstance(value, (tuple, list))
        and len(value) == 2
        and all(isinstance(each, str) for each in value)
    )


# Pages. Those of users, keys, holders and sessions are of tuples of these types.

USER = (str, bool, int)
KEY = (str, str)
NAMED = (str,)
HOLDER = (str, str, bool, str)
SESSION = (str, str, str, str, str, float)


def encodePage(items: Iterable[Any]) -> list[Any]:
    """Write a page: as many items as fit into one message, but at least one."""
    page: list[Any] = []
    size = 0
    for item in items:
        size += _size(item)
        if page and size > MOST_BYTES:
            break
        page.append(item)
    return page


def encodePageAfter(items: list[Any], after: Any, most: Any, texts: int = 2) -> list[Any]:
    """
    Write the page of sorted tuples that follows the one that ends at this place, so many texts.
    """
    start = 0
    if after is not None:
        if (
            not isinstance(after, (tuple, list))
            or len(after) != texts
            or not all(type(each) is str for each in after)
        ):
            raise ProtocolViolation(f"These are not {texts} texts.")
        start = bisect_right(items, tuple(after), key=placeOf)
    return encodePage(tuple(item) for item in items[start : start + decodeCount(most)])


def placeOf(item: Any) -> tuple[str, ...]:
    """Return what tells an item of a sorted page from all others: its texts."""
    return tuple(each for each in item if type(each) is str)


def decodePage(value: Any, types: tuple[type, ...]) -> list[tuple[Any, ...]]:
    """Read a page of tuples of these types; all texts are names, and fit for a terminal."""
    if not isinstance(value, (list, tuple)):
        raise notAnAnswer()
    for item in value:
        if (
            not isinstance(item, tuple)
            or len(item) != len(types)
            or not all(type(each) is kind for each, kind in zip(item, types, strict=True))
            or not all(_isLine(each) for each in item if type(each) is str)
        ):
            raise notAnAnswer()
    return list(value)


def decodeRecordPage(value: Any) -> list[Record]:
    """Read a page of accounts."""
    if not isinstance(value, (list, tuple)):
        raise notAnAnswer()
    return [decodeRecord(plain) for plain in value]


def decodeAnswer(value: Any) -> int:
    """Read how many there were."""
    if type(value) is not int:
        raise notAnAnswer()
    return value


def later(before: Any, last: Any) -> Any:
    """Return where the next page begins; a server that goes back would never come to an end."""
    if before is not None and last <= before:
        raise notAnAnswer()
    return last


def decodeSeconds(value: Any) -> float:
    """Read a length of time, in seconds."""
    if type(value) not in (int, float) or not 0 <= value < float("inf"):
        raise notAnAnswer()
    return float(value)


def notAnAnswer() -> ProtocolViolation:
    """Return what to raise where a server answers anything else."""
    return ProtocolViolation("The server's answer is not one of an administration.")


def _size(value: Any) -> int:
    """Return about the bytes that a value takes on the wire."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "replace")) + 16
    if isinstance(value, (tuple, list)):
        return sum(map(_size, value)) + 16
    return 16


def _isLine(text: str) -> bool:
    """Return whether there is nothing in a text that a terminal would obey."""
    return not any(unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp") for each in text)
