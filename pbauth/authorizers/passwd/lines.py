"""
The lines of a passwd file, without I/O: text in, records out, and back.

An identity is a line::

    alice:SCRAM-SHA-256$600000:<salt>$<stored>:<server> key=game/alice locked

- The name ends at the first ``:``. After it come words, separated by spaces, in any order.
- A word with a ``$`` is a verifier: SCRAM's as PostgreSQL writes it; or one of another mechanism,
  the public keys among them.
- ``key=SERVICE/PERSPECTIVE`` is a key of the keyring; ``locked``: logging in is refused.
- Without words (``alice:``) nobody can log in with a password.
- Empty lines, and those that begin with ``#``, are the reader's own; except for these, which
  versions of pbauth that knew no groups do not read::

      #:group staff key=game/* key=mail/{name}
      #:user alice group=staff expires=2026-12-31T00:00:00Z

- ``#:group`` and a name is a group, with its keys.
- ``#:user`` and a name, of an identity in this file: ``group=GROUP``, it is a member;
  ``expires=``, ``created=`` and ``last-login=`` are moments; ``must-change``: the password has to
  be changed; ``key-expires=MOMENT,FINGERPRINT``: when one of its public keys expires;
  ``methods=SERVICE/PERSPECTIVE/METHOD/METHOD``: the methods that a key is good for, if not all.

What would be misread is written as ``%`` and two hexadecimal digits for each byte of its UTF-8:
``%`` itself everywhere; in a name ``:``, a ``#`` in front and spaces at the ends; in a word spaces
and line ends; in the parts of a key also ``/``.

An error tells what is wrong and what to do, and never shows a word: it may be a verifier.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from attrs import evolve, field, frozen

from pbauth._moments import fromText, toText
from pbauth.accounts.groups import Group, Key
from pbauth.accounts.identity import checkIdentityName
from pbauth.accounts.records import Record
from pbauth.mechanisms import decodeVerifier
from pbauth.mechanisms.authorizedkeys import AuthorizedKey
from pbauth.mechanisms.scram import NAME as SCRAM
from pbauth.names import checkName

_SPACES = " \t\r"
_ENCODED = re.compile(rb"%(?:([0-9A-Fa-f]{2})|)")
_IN_NAME = re.compile(r"[%:\t\r\n]|^[# \ufeff]| \Z")
_IN_WORD = re.compile(r"[% \t\r\n]")
_IN_KEY = re.compile(r"[%/ \t\r\n]")
_KEY = "key="
_LOCKED = "locked"
_GROUP = "#:group "
_USER = "#:user "
_MUST_CHANGE = "must-change"
_KEY_EXPIRES = "key-expires"
_METHODS = "methods="
#: Moments in the life of an account, and the fields of its record.
_MOMENTS = {"expires": "expires", "created": "created", "last-login": "lastLogin"}
#: How the hashes of other programs begin: htpasswd, crypt, LDAP.
_FOREIGN = ("$", "{", "*", "!")


class BadLine(ValueError):
    """
    A line is malformed.

    Attributes:
        number: of the line, from 1; 0 where only one was read.
    """

    def __init__(self, problem: str, number: int = 0) -> None:
        super().__init__(problem)
        self.number = number


@frozen
class Line:
    """
    A line.

    Attributes:
        text: as it stands in the file.
        record: the identity in it; `None` for any other line.
        group: the group in it; `None` for any other line.
        life: what it says about an identity in another line; `None` for any other line.
    """

    text: str = field(repr=False)
    record: Record | None
    group: Group | None = None
    life: Record | None = None


def readLines(text: str) -> list[Line]:
    """
    Read a file.

    Args:
        text: all of it.

    Returns:
        Its lines.

    Raises:
        BadLine: one is malformed, or a name stands in two lines.
    """
    if text.startswith("\ufeff"):
        raise BadLine(
            "the file begins with a byte order mark. Save the file as UTF-8 without one.", 1
        )
    lines = []
    seen: dict[str, int] = {}
    texts = text.split("\n")
    if not texts[-1]:
        # The end of the last line, not an empty one.
        texts.pop()
    groups: dict[str, int] = {}
    lives: dict[str, tuple[int, Record]] = {}
    for number, each in enumerate(texts, 1):
        try:
            line = _readAnyLine(each)
        except BadLine as bad:
            raise BadLine(str(bad), number) from None
        first = number
        if line.record is not None:
            first = seen.setdefault(line.record.name, number)
        elif line.group is not None:
            first = groups.setdefault(line.group.name, number)
        elif line.life is not None:
            first, _ = lives.setdefault(line.life.name, (number, line.life))
        if first != number:
            raise BadLine(f"the name is already in line {first}. Remove one of them.", number)
        lines.append(line)
    for number, life in lives.values():
        for group in life.groups - groups.keys():
            raise BadLine(f"there is no line '{_GROUP}{_encode(group, _IN_WORD)}'. Add it.", number)
    return [_withLife(line, lives) for line in lines]


def _withLife(line: Line, lives: dict[str, tuple[int, Record]]) -> Line:
    if line.record is None or line.record.name not in lives:
        return line
    number, life = lives[line.record.name]
    verifiers = line.record.verifiers
    expiries = dict(life.keys)
    if expiries:
        keys = line.record.publicKeys()
        for fingerprint in expiries.keys() - {key.fingerprint() for key in keys}:
            raise BadLine(f"{fingerprint} is not a key of this user. Remove it.", number)
        verifiers = line.record.withPublicKeys(
            key.expiring(_readMoment(expiries.get(key.fingerprint()))) for key in keys
        ).verifiers
    record = evolve(life, locked=line.record.locked, verifiers=verifiers, keys=line.record.keys)
    try:
        record.check()
    except ValueError as mistake:
        raise BadLine(f"{mistake} Correct it.", number) from None
    return evolve(line, record=record)


def _readMoment(text: str | None) -> datetime | None:
    return None if text is None else fromText(text)


def _readAnyLine(text: str) -> Line:
    words = re.split(f"[{_SPACES}]+", text.strip(_SPACES))
    if len(words) < 2 or words[0] not in (_GROUP.strip(), _USER.strip()):
        return Line(text, readLine(text))
    name = _decode(words[1], "the name")
    try:
        if words[0] == _GROUP.strip():
            keys = [_readKey(word, number) for number, word in enumerate(words[2:], 1)]
            group = Group(name, frozenset(keys))
            group.check()
            return Line(text, None, group)
        life = Record(checkIdentityName(name), **_readLife(words[2:]))
        evolve(life, methods=frozenset()).check()
        return Line(text, None, life=life)
    except BadLine:
        raise
    except ValueError as mistake:
        raise BadLine(f"{mistake} Correct it, or remove the colon after the #.") from None


def _readLife(words: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    groups = []
    methods: list[tuple[str, str, str]] = []
    # The expiries of public keys, until the line of the identity is found.
    keys = []
    for number, word in enumerate(words, 1):
        what, _, value = word.partition("=")
        if what == "group":
            groups.append(_decode(value, f"word {number} after the name"))
        elif what in _MOMENTS:
            found[_MOMENTS[what]] = fromText(value)
        elif what == _KEY_EXPIRES:
            moment, _, fingerprint = value.partition(",")
            fromText(moment)
            keys.append((fingerprint, moment))
        elif word == _MUST_CHANGE:
            found["mustChangePassword"] = True
        elif word.startswith(_METHODS):
            service, *rest = (
                _decode(each, f"word {number} after the name")
                for each in word.removeprefix(_METHODS).split("/")
            )
            if len(rest) < 2:
                raise BadLine(
                    f"word {number} after the name is not methods=SERVICE/PERSPECTIVE/METHOD. "
                    "Correct it."
                )
            methods += [(service, rest[0], each) for each in rest[1:]]
        else:
            raise BadLine(
                f"word {number} after the name is none of group=, {'=, '.join(_MOMENTS)}= and "
                f"{_MUST_CHANGE}. Correct it."
            )
    return {
        **found,
        "groups": frozenset(groups),
        "keys": frozenset(keys),
        "methods": frozenset(methods),
    }


def writeLines(lines: Iterable[Line]) -> str:
    """
    Return the text of a file that consists of these lines.

    Args:
        lines: of the file, in order.
    """
    return "".join(f"{line.text}\n" for line in lines)


def readLine(text: str) -> Record | None:
    """
    Read a line.

    Args:
        text: without the line end.

    Returns:
        The identity in it; `None` for a comment and an empty line.

    Raises:
        BadLine: it is malformed.
    """
    stripped = text.strip(_SPACES)
    if not stripped or stripped.startswith("#"):
        return None
    name, colon, rest = stripped.partition(":")
    if not colon:
        raise BadLine(
            "there is no ':' after the name. Write NAME:VERIFIER, or begin the line with #."
        )
    locked = False
    keys: set[tuple[str, str]] = set()
    verifiers: dict[str, str] = {}
    for number, word in enumerate(re.split(f"[{_SPACES}]+", rest.strip(_SPACES)), 1):
        if word == _LOCKED:
            locked = True
        elif word.startswith(_KEY):
            keys.add(_readKey(word, number))
        elif word:
            mechanism, encoded = _readVerifier(word, number)
            if mechanism in verifiers:
                raise BadLine(f"there are two verifiers of {mechanism}. Remove one of them.")
            verifiers[mechanism] = encoded
    record = Record(
        _decode(name, "the name"), locked, frozenset(verifiers.items()), frozenset(keys)
    )
    try:
        checkIdentityName(record.name)
        for service, perspective in record.keys:
            checkName(service, "name of a service")
            checkName(perspective, "name of a perspective")
    except ValueError as mistake:
        raise BadLine(f"{mistake} Correct it, or begin the line with #.") from None
    return record


def _readKey(word: str, number: int) -> tuple[str, str]:
    service, slash, perspective = word.removeprefix(_KEY).partition("/")
    if not word.startswith(_KEY) or not slash or "/" in perspective:
        raise BadLine(
            f"word {number} after the name is no key. Write key=SERVICE/PERSPECTIVE, and %2F for "
            "a / in a name."
        )
    what = f"word {number} after the name"
    return _decode(service, what), _decode(perspective, what)


def _readVerifier(word: str, number: int) -> tuple[str, str]:
    what = f"word {number} after the name"
    if word.startswith(_FOREIGN):
        raise BadLine(
            f"{what} is the hash of another program. No {SCRAM} verifier can be made of it: remove "
            "it, and set the password again."
        )
    mechanism, dollar, _ = word.partition("$")
    if not dollar:
        raise BadLine(
            f"{what} is neither a verifier, nor key=SERVICE/PERSPECTIVE, nor {_LOCKED}. Correct "
            "it. A plain password is not allowed here."
        )
    try:
        verifier = decodeVerifier(_decode(word, what))
    except BadLine:
        raise
    except ValueError:
        # Without the chain, and without the text of the cause: it may show what is in the word.
        verifier = None
    if verifier is None:
        raise BadLine(f"{what} is a damaged verifier. Set the password, or add the key, again.")
    return mechanism, verifier.encode()


def writeLine(record: Record) -> str:
    """
    Write a line.

    Args:
        record: of an identity.

    Returns:
        The line, without a line end.
    """
    if _expiringKeys(record):
        # Versions that knew no expiry could not read that of a key here.
        record = record.withPublicKeys(key.expiring(None) for key in record.publicKeys())
    # SCRAM's first: that is what other programs look for after the colon.
    verifiers = sorted(record.verifiers, key=lambda pair: (pair[0] != SCRAM, pair))
    words = [_encode(encoded, _IN_WORD) for _, encoded in verifiers]
    words += _writeKeys(record.keys)
    if record.locked:
        words.append(_LOCKED)
    return f"{_encode(record.name, _IN_NAME)}:{' '.join(words)}"


def writeLife(record: Record) -> str:
    """
    Write the line about an identity that older versions do not read.

    Args:
        record: of the identity.

    Returns:
        The line, without a line end; empty if there is nothing to say.
    """
    words = [f"group={_encode(group, _IN_WORD)}" for group in sorted(record.groups)]
    for word, attribute in _MOMENTS.items():
        moment = getattr(record, attribute)
        if moment is not None:
            words.append(f"{word}={toText(moment)}")
    words += [
        f"{_KEY_EXPIRES}={toText(key.expires)},{key.fingerprint()}"
        for key in _expiringKeys(record)
        if key.expires is not None
    ]
    if record.mustChangePassword:
        words.append(_MUST_CHANGE)
    for key in sorted(record.keys):
        methods = record.methodsOf(key)
        if methods is not None:
            parts = [_encode(each, _IN_KEY) for each in (*key, *sorted(methods))]
            words.append(_METHODS + "/".join(parts))
    return f"{_USER}{_encode(record.name, _IN_WORD)} {' '.join(words)}" if words else ""


def _expiringKeys(record: Record) -> list[AuthorizedKey]:
    if not any("expiry-time" in encoded for _, encoded in record.verifiers):
        return []
    return [key for key in record.publicKeys() if key.expires is not None]


def writeGroup(group: Group) -> str:
    """
    Write the line of a group.

    Args:
        group: with its keys.

    Returns:
        The line, without a line end.
    """
    return " ".join([f"{_GROUP}{_encode(group.name, _IN_WORD)}", *_writeKeys(group.keys)])


def _writeKeys(keys: Iterable[Key]) -> list[str]:
    return [
        f"{_KEY}{_encode(service, _IN_KEY)}/{_encode(perspective, _IN_KEY)}"
        for service, perspective in sorted(keys)
    ]


def _encode(text: str, what: re.Pattern[str]) -> str:
    return what.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), text)


def _decode(text: str, what: str) -> str:
    def byte(found: re.Match[bytes]) -> bytes:
        if found[1] is None:
            raise BadLine(f"{what} has a % without two hexadecimal digits. Write %25 for a %.")
        return bytes.fromhex(found[1].decode())

    if "%" not in text:
        return text
    try:
        return _ENCODED.sub(byte, text.encode("utf-8")).decode("utf-8")
    except UnicodeError:
        problem = f"{what} is not UTF-8 after its % are decoded. Correct it."
    # Outside, so that no chain shows the text.
    raise BadLine(problem)
