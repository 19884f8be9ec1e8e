"""
Dumps: many identities as lines of text, in one of two formats, both in UTF-8.

JSON Lines, an object a line; all but the name may be left out::

    {"name": "alice", "locked": true, "verifiers": ["SCRAM-SHA-256$4096:..."], "keys": [["echo", "alice"]]}

CSV (RFC 4180), with a header, any order of columns, and all but ``name`` may be missing::

    name,locked,password,verifiers,keys
    alice,true,,SCRAM-SHA-256$4096:...,echo:alice game:black

Besides, there may be ``groups`` (names), ``expires``, ``created`` and ``lastLogin`` (moments, as in ISO
8601), and ``mustChangePassword``.  A group has a line of its own, before those of its members: it has
``group``, the name, instead of ``name``, and besides that nothing but ``keys``::

    {"group": "staff", "keys": [["echo", "*"]]}

A key of a user that is good for some methods only lists them: ``["game", "alice", "getBoard", "history"]``.
Several values in one cell have a space between them, and a key is ``SERVICE:PERSPECTIVE``, or
``SERVICE:PERSPECTIVE::METHOD:METHOD``.  A space
inside of a value, a percent sign, a line's end, and a colon in the name of a service or a
perspective are written as in the addresses of web pages: ``%20``, ``%25``, ``%0A``, ``%3A``.

A password in clear is read, and never written.  Verifiers are as any mechanism of pbauth encodes
them; those of SCRAM are as PostgreSQL has them in ``pg_authid.rolpassword``.

Nothing here does I/O, except that lines are taken from an iterator.  One line is one identity,
whatever is in it, and has at most `LONGEST_LINE` bytes; so memory is bounded, and a mistake has a
line number.  What is wrong with a line is said without anything of a password or a verifier.
"""  # noqa: E501 - a line of JSON is one line

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, Protocol

from attrs import field, frozen

from pbauth._moments import fromText, toText
from pbauth.accounts.groups import Group
from pbauth.accounts.identity import checkIdentityName
from pbauth.accounts.records import Record
from pbauth.errors import InvalidName, InvalidPassword
from pbauth.mechanisms import PASSWORD_MECHANISMS, decodeVerifier
from pbauth.mechanisms.scram import preparePassword
from pbauth.names import checkName

#: The longest line, in bytes; this is also the largest cell that Python's `csv` reads.
LONGEST_LINE = 131_072

_MOMENTS = ("expires", "created", "lastLogin")
_FIELDS = (
    *("name", "locked", "password", "verifiers", "keys", "groups"),
    *("mustChangePassword", *_MOMENTS, "group"),
)

#: Of names of fields and columns that are shown: longer ones are cut.
_SHOWN = 40


class DumpError(ValueError):
    """
    A line of a dump can't be read, or an identity can't be written as one.

    Attributes:
        line: its number, from 1; 0 where it was to be written.
        reason: what is wrong, and what to do; nothing of a password or a verifier.
    """

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}" if line else reason)
        self.line = line
        self.reason = reason


@frozen
class Entry:
    """
    One identity as it stands in a dump.

    Attributes:
        line: the number of its line, from 1.
        end: how many bytes of the dump there are up to the end of that line.
        record: the identity; checked.
        password: in clear, still to be made a verifier of; `None` if there is none.
    """

    line: int
    end: int
    record: Record
    password: str | None = field(default=None, repr=False)


@frozen
class GroupEntry:
    """
    One group as it stands in a dump.

    Attributes:
        line: as for `Entry`.
        end: as for `Entry`.
        group: the group; checked.
    """

    line: int
    end: int
    group: Group


class Format(Protocol):
    """A format of dumps."""

    name: str

    def read(self, lines: Iterable[bytes]) -> Iterator[Entry | GroupEntry]:
        """
        Read a dump, as far as the entries are asked for.

        Args:
            lines: each with its end. One that is longer than `LONGEST_LINE` may be cut: it is
                refused anyway.

        Raises:
            DumpError: a line can't be read.
        """
        ...

    def header(self) -> bytes:
        """Return what is written before the first record."""
        ...

    def write(self, record: Record) -> bytes:
        """
        Write a record as a line, with its end.

        Raises:
            DumpError: it would take more than `LONGEST_LINE` bytes.
        """
        ...

    def writeGroup(self, group: Group) -> bytes:
        """
        Write a group as a line, with its end.

        Raises:
            DumpError: it would take more than `LONGEST_LINE` bytes.
        """
        ...


class JSONLines:
    """An object of JSON a line."""

    name = "jsonl"

    def read(self, lines: Iterable[bytes]) -> Iterator[Entry | GroupEntry]:
        """Do what `Format.read` does."""
        reader = _Reader()
        for number, end, text in _decoded(lines):
            if text.strip():
                yield reader.entry(number, end, _parseJSON(number, text))

    def header(self) -> bytes:
        """Return nothing: there is no header."""
        return b""

    def write(self, record: Record) -> bytes:
        """Do what `Format.write` does."""
        made: dict[str, Any] = {"name": record.name}
        if record.locked:
            made["locked"] = True
        if record.verifiers:
            made["verifiers"] = sorted(encoded for _, encoded in record.verifiers)
        if record.keys:
            made["keys"] = sorted(_keysOf(record))
        if record.groups:
            made["groups"] = sorted(record.groups)
        if record.mustChangePassword:
            made["mustChangePassword"] = True
        made.update({name: text for name, text in _momentsOf(record) if text})
        return _line(f"user {record.name!r}", _encodeJSON(made) + "\n")

    def writeGroup(self, group: Group) -> bytes:
        """Write a group (see `Format.writeGroup`)."""
        made = {"group": group.name, "keys": sorted(group.keys)}
        return _line(f"group {group.name!r}", _encodeJSON(made) + "\n")


class CSV:
    """Cells with commas between them, under a header."""

    name = "csv"

    def read(self, lines: Iterable[bytes]) -> Iterator[Entry | GroupEntry]:
        """Do what `Format.read` does."""
        reader = _Reader()
        columns: list[str] | None = None
        separator = ","
        for number, end, text in _decoded(lines):
            if columns is None:
                if _SEPARATOR_LINE.fullmatch(text):
                    # For Excel, whose own separator is another one in each country.
                    continue
                separator = _separatorIn(text)
            # A spreadsheet writes the separators of an empty row. A name may be a space.
            if not text.strip() or not text.replace(separator, "").strip("\r\n"):
                continue
            cells = _parseCells(number, text, separator)
            if columns is None:
                columns = _checkColumns(number, _withoutEnd(cells))
                continue
            cells = _withoutEnd(cells, len(columns))
            if len(cells) != len(columns):
                raise DumpError(
                    number,
                    f"there {_cells(len(cells))}, and {len(columns)} columns. Cells are "
                    'separated by commas. Put one that contains a comma in double quotes: "a, b"',
                )
            yield reader.entry(number, end, _fieldsOf(number, columns, cells))

    def header(self) -> bytes:
        """Return the names of the columns; there is none for passwords."""
        names = ("name", "locked", "verifiers", "keys", "groups", "mustChangePassword")
        return ",".join((*names, *_MOMENTS, "group")).encode() + b"\r\n"

    def write(self, record: Record) -> bytes:
        """Do what `Format.write` does."""
        verifiers = sorted(encoded for _, encoded in record.verifiers)
        return _row(
            f"user {record.name!r}",
            record.name,
            "true" if record.locked else "",
            " ".join(map(_escape, verifiers)),
            _joinKeys(_keysOf(record)),
            " ".join(map(_escape, sorted(record.groups))),
            "true" if record.mustChangePassword else "",
            *(text for _, text in _momentsOf(record)),
            "",
        )

    def writeGroup(self, group: Group) -> bytes:
        """Write a group (see `Format.writeGroup`)."""
        empty = [""] * 5
        return _row(f"group {group.name!r}", "", "", "", _joinKeys(group.keys), *empty, group.name)


#: By name.
FORMATS: dict[str, Format] = {each.name: each for each in (JSONLines(), CSV())}

_encodeJSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _momentsOf(record: Record) -> list[tuple[str, str]]:
    moments = [(name, getattr(record, name)) for name in _MOMENTS]
    return [(name, "" if moment is None else toText(moment)) for name, moment in moments]


def _keysOf(record: Record) -> Iterable[tuple[str, ...]]:
    """Return its keys, each with the methods that it is good for, if not all."""
    return [(*key, *sorted(record.methodsOf(key) or ())) for key in record.keys]


def _joinKeys(keys: Iterable[tuple[str, ...]]) -> str:
    return " ".join(
        ":".join(_escape(part, ":") for part in (*key[:2], *(("", *key[2:]) if key[2:] else ())))
        for key in sorted(keys)
    )


def _row(what: str, *cells: str) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return _line(what, text.getvalue())


def _line(what: str, text: str) -> bytes:
    line = text.encode("utf-8")
    if len(line) > LONGEST_LINE:
        raise DumpError(
            0,
            f"The {what} takes {len(line):,} bytes, and a line of a dump has at most "
            f"{LONGEST_LINE:,}. Remove keys from that user, or copy the store itself.",
        )
    return line


# Lines.


def _decoded(lines: Iterable[bytes]) -> Iterator[tuple[int, int, str]]:
    """Yield the number of each line, how many bytes there are up to its end, and its text."""
    end = 0
    for number, line in enumerate(lines, 1):
        end += len(line)
        if len(line) > LONGEST_LINE:
            raise DumpError(
                number,
                f"it is longer than {LONGEST_LINE:,} bytes. A dump has a line for each user.",
            )
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            text = None
        # Raised outside, here as below: a chain of errors would show what is in the line.
        if text is None:
            raise DumpError(number, "it is not in UTF-8. Convert the file to UTF-8.")
        yield number, end, text.removeprefix("\ufeff") if number == 1 else text


# JSON.


class _Repeated(ValueError):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _Repeated
    return made


_decodeJSON = json.JSONDecoder(object_pairs_hook=_object).decode


def _parseJSON(number: int, text: str) -> dict[str, Any]:
    found: Any = None
    reason = 'it is not a JSON object. Write, for instance: {"name": "alice"}'
    try:
        found = _decodeJSON(text)
    except _Repeated:
        reason = "a field occurs twice. Remove one of them."
    except json.JSONDecodeError as error:
        reason = f"it is not JSON from column {error.pos + 1} on. Each line is one JSON object."
    except (ValueError, RecursionError):
        # A number of thousands of digits, or thousands of brackets.
        pass
    if not isinstance(found, dict):
        raise DumpError(number, reason)
    if "verifier" in found:
        if "verifiers" in found:
            raise DumpError(
                number, "there are both 'verifier' and 'verifiers'. Remove one of them."
            )
        single = found.pop("verifier")
        found["verifiers"] = None if single is None else [single]
    for name in found:
        if name not in _FIELDS:
            raise DumpError(number, _unknown("field", name))
    return found


def _unknown(what: str, name: str) -> str:
    shown = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..."
    return f"there is no {what} {shown!r}. There are: {', '.join(_FIELDS)}."


# CSV.

_SEPARATOR_LINE = re.compile(r"(?i)sep=[,;\t]\r?\n?")


def _cells(number: int) -> str:
    return "is 1 cell" if number == 1 else f"are {number} cells"


def _separatorIn(header: str) -> str:
    """Return what separates the cells: in many countries spreadsheets write semicolons."""
    return next((each for each in ",;\t" if each in header), ",")


def _withoutEnd(cells: list[str], columns: int = 0) -> list[str]:
    """Return the cells without the empty ones at the end for which there are no columns."""
    while len(cells) > columns and not cells[-1].strip():
        cells = cells[:-1]
    return cells


def _parseCells(number: int, text: str, separator: str) -> list[str]:
    cells: list[str] | None = None
    try:
        # One row for each line: what is cut off in quotes is an error of this line.
        rows = list(csv.reader([text], strict=True, delimiter=separator))
        cells = rows[0] if len(rows) == 1 else None
    except csv.Error:
        pass
    if cells is None and "\r" in text.rstrip("\r\n"):
        raise DumpError(
            number, "its rows end as on old Macs. Save the file as CSV in UTF-8, with LF or CRLF."
        )
    if cells is None:
        raise DumpError(
            number,
            'its double quotes are wrong. In a quoted cell, a quote is written twice: "a ""b"""; '
            "and a cell ends in its line.",
        )
    return cells


def _checkColumns(number: int, cells: list[str]) -> list[str]:
    # As spreadsheets and people write headings: in any case.
    spelt = {name.lower(): name for name in _FIELDS}
    columns = [spelt.get(cell.strip().lower(), cell.strip()) for cell in cells]
    if "name" not in columns:
        # If this is no header it is a user, maybe with a password: nothing of it is shown.
        raise DumpError(
            number,
            "it must name the columns, separated by commas, and 'name' must be one of them: "
            f"{','.join(_FIELDS)}",
        )
    for column in columns:
        if column not in _FIELDS:
            raise DumpError(number, _unknown("column", column))
        if columns.count(column) > 1:
            raise DumpError(number, f"the column {column!r} occurs twice. Remove one of them.")
    return columns


_LOCKED = {"": False, "false": False, "true": True}


def _fieldsOf(number: int, columns: list[str], cells: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = dict(zip(columns, cells, strict=True))
    if "locked" in found:
        found["locked"] = _LOCKED.get(found["locked"].strip().lower())
        if found["locked"] is None:
            raise DumpError(number, "'locked' must be true, false or empty.")
    if "mustChangePassword" in found:
        must = _LOCKED.get(found["mustChangePassword"].strip().lower())
        if must is None:
            raise DumpError(number, "'mustChangePassword' must be true, false, or empty.")
        found["mustChangePassword"] = must
    for name in ("password", "group", *_MOMENTS):
        if name in found:
            found[name] = found[name] or None
    if "verifiers" in found:
        found["verifiers"] = [
            _unescape(number, text) for text in found["verifiers"].split(" ") if text
        ]
    if "groups" in found:
        found["groups"] = [_unescape(number, text) for text in found["groups"].split(" ") if text]
    if "keys" in found:
        found["keys"] = [_splitKey(number, text) for text in found["keys"].split(" ") if text]
    return found


def _splitKey(number: int, text: str) -> list[str]:
    parts = text.split(":")
    if len(parts) > 3 and not parts[2]:
        del parts[2]
    elif len(parts) != 2:
        raise DumpError(
            number,
            "a key is SERVICE:PERSPECTIVE, and keys are separated by spaces. A space in a name "
            "is written %20, a colon %3A.",
        )
    return [_unescape(number, part) for part in parts]


def _escape(text: str, also: str = "") -> str:
    for character in ("%", " ", "\n", *also):
        text = text.replace(character, f"%{ord(character):02X}")
    return text


_PERCENT = re.compile("%(.{0,2})", re.DOTALL)


def _unescape(number: int, text: str) -> str:
    if "%" not in text:
        return text
    found = _PERCENT.findall(text)
    if not all(re.fullmatch("[0-7][0-9A-Fa-f]", digits) for digits in found):
        raise DumpError(number, "a percent sign is written %25, a space %20, a colon %3A.")
    return _PERCENT.sub(lambda match: chr(int(match[1], 16)), text)


# What the fields hold, whatever the format.


class _Reader:
    """
    Makes entries of the fields of lines.
    """

    def __init__(self) -> None:
        # Names that have been found good: most users hold keys to the same services.
        self._good: set[str] = set()

    def entry(self, line: int, end: int, found: dict[str, Any]) -> Entry | GroupEntry:
        """
        Check the fields of one identity, or of one group, and return them as an entry.

        Args:
            line: the first line, as in `Entry`.
            end: the last line, as in `Entry`.
            found: the fields by name; those that are missing or `None` were not given.

        Raises:
            DumpError: a field has a value that it can't have.
        """
        try:
            entry: Entry | GroupEntry
            if found.get("group") is not None:
                return self._groupOf(line, end, found)
            name = _get(found, "name", str, "a text", "")
            verifiers = _verifiersOf(found)
            keys, methods = self._keysOf(found, name)
            entry = Entry(
                line,
                end,
                Record(
                    checkIdentityName(name),
                    _get(found, "locked", bool, "true or false", False),
                    frozenset(verifiers.items()),
                    keys,
                    self._groupsOf(found),
                    methods=methods,
                    mustChangePassword=_get(
                        found, "mustChangePassword", bool, "true or false", False
                    ),
                    **{each: _momentOf(found, each) for each in _MOMENTS},
                ),
                _passwordOf(found, verifiers),
            )
            reason = None
        except (_Mistake, InvalidName, InvalidPassword) as error:
            reason = str(error)
        if reason is not None:
            raise DumpError(line, reason)
        return entry

    def _keysOf(
        self, found: dict[str, Any], owner: str
    ) -> tuple[frozenset[tuple[str, str]], frozenset[tuple[str, str, str]]]:
        keys = []
        limits: list[tuple[str, str, str]] = []
        for key in _get(found, "keys", list, "a list of pairs of texts", ()):
            if type(key) is not list or len(key) < 2 or not all(type(part) is str for part in key):
                raise _Mistake(_PAIRS)
            service, perspective, *methods = key
            for method in methods:
                self._check(method, "name of a method")
                limits.append((service, perspective, method))
            self._check(service, "name of a service")
            if perspective != owner:
                self._check(perspective, "name of a perspective")
            keys.append((service, perspective))
        if len(limits) and len(set(keys)) < len(keys):
            raise _Mistake("a key with methods stands there twice. Remove one of them.")
        return frozenset(keys), frozenset(limits)

    def _groupsOf(self, found: dict[str, Any]) -> frozenset[str]:
        names = _get(found, "groups", list, "a list of texts", ())
        for name in names:
            if type(name) is not str:
                raise _Mistake("'groups' must be a list of texts.")
            self._check(name, "name of a group")
        return frozenset(names)

    def _groupOf(self, line: int, end: int, found: dict[str, Any]) -> GroupEntry:
        name = _get(found, "group", str, "a text", "")
        for field_, value in found.items():
            if value and field_ not in ("group", "keys"):
                raise _Mistake(f"a group has no {field_!r}. Leave it out.")
        keys, methods = self._keysOf(found, "")
        if methods:
            raise _Mistake("the keys of a group are good for all methods. Leave the methods out.")
        group = Group(name, keys)
        group.check()
        return GroupEntry(line, end, group)

    def _check(self, name: str, what: str) -> None:
        if name not in self._good:
            checkName(name, what)
            if len(self._good) >= _REMEMBERED:
                self._good.clear()
            self._good.add(name)


#: How many names are remembered.
_REMEMBERED = 5_000

_PAIRS = 'in \'keys\' must be a list of pairs: [["SERVICE", "PERSPECTIVE"]]'


class _Mistake(ValueError):
    """What is wrong with a line."""


def _get(found: dict[str, Any], name: str, kind: type, what: str, default: Any) -> Any:
    value = found.get(name)
    if value is None:
        return default
    if type(value) is not kind:
        raise _Mistake(f"{name!r} must be {what}.")
    return value


def _momentOf(found: dict[str, Any], name: str) -> datetime | None:
    text = _get(found, name, str, "a text", None)
    if text is None:
        return None
    reason = ""
    try:
        return fromText(text)
    except ValueError as error:
        reason = str(error)
    raise _Mistake(f"in {name!r}: {reason}")


def _verifiersOf(found: dict[str, Any]) -> dict[str, str]:
    made: dict[str, str] = {}
    for text in _get(found, "verifiers", list, "a list of texts", ()):
        if type(text) is not str:
            raise _Mistake("'verifiers' must be a list of texts.")
        try:
            # In the one spelling that stores compare.
            encoded = decodeVerifier(text).encode()
        except ValueError:
            encoded = ""
        mechanism = encoded.partition("$")[0]
        if not encoded:
            raise _Mistake(
                f"the verifier number {len(made) + 1} is none. One of a password is, as in "
                "PostgreSQL: SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY, with 4096 "
                "iterations or more."
            )
        if mechanism in made:
            raise _Mistake(f"there are two verifiers of {mechanism}. Remove one of them.")
        made[mechanism] = encoded
    return made


def _passwordOf(found: dict[str, Any], verifiers: dict[str, str]) -> str | None:
    password: str | None = _get(found, "password", str, "a text", None)
    if password is None:
        return None
    if PASSWORD_MECHANISMS.intersection(verifiers):
        raise _Mistake(
            "there are both a password and a verifier of a password. Remove one of them."
        )
    preparePassword(password)
    return password
