"""Dumps: what is written can be read, and what can't be read is said without its secrets."""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pbauth.accounts.groups import Group
from pbauth.accounts.identity import checkIdentityName
from pbauth.accounts.records import Record
from pbauth.dumps.formats import (
    CSV,
    FORMATS,
    LONGEST_LINE,
    DumpError,
    Entry,
    Format,
    GroupEntry,
    JSONLines,
)
from pbauth.mechanisms import decodeVerifier, md5, scram
from pbauth.mechanisms.authorizedkeys import AuthorizedKeys
from pbauth.mechanisms.ed25519 import PublicKey
from pbauth.mechanisms.external import CertificateKey
from pbauth.mechanisms.md5 import MD5Verifier
from pbauth.mechanisms.scram import ScramVerifier
from pbauth.names import checkName
from tests.support.records import SCRAM

LISTINGS = Path(__file__).parent.parent.parent.parent / "docs" / "listings"

HUNTER = "hunter-2-hunter"


def good(check: Any, text: str) -> bool:
    """Whether a check lets a text pass."""
    try:
        check(text)
    except ValueError:
        return False
    return True


texts = st.text(min_size=1, max_size=20) | st.sampled_from(
    ["alice", "=cmd()", 'a "b", c', "a:b %20;x", "\u00fcber \u6771\u4eac", "'", " ", "\ufeffx"]
)
names = texts.filter(lambda text: good(checkName, text))
users = names.filter(lambda text: good(checkIdentityName, text))
labels = names | st.just("")

verifiers = st.fixed_dictionaries(
    {},
    optional={
        scram.NAME: st.builds(
            ScramVerifier,
            st.binary(min_size=8, max_size=64),
            st.integers(4096, 10_000_000),
            st.binary(min_size=32, max_size=32),
            st.binary(min_size=32, max_size=32),
        ),
        md5.NAME: st.builds(MD5Verifier, st.binary(min_size=16, max_size=16)),
        "ED25519": st.lists(
            st.builds(PublicKey, st.binary(min_size=32, max_size=32), labels), max_size=3
        ).map(lambda keys: AuthorizedKeys("ED25519", tuple(keys))),
        "EXTERNAL": st.lists(
            st.builds(
                lambda seed, label: CertificateKey(pin(seed), label),
                st.binary(min_size=32, max_size=32),
                labels,
            ),
            max_size=3,
        ).map(lambda keys: AuthorizedKeys("EXTERNAL", tuple(keys))),
    },
)


def pin(seed: bytes) -> str:
    """The fingerprint of a certificate."""
    return "SHA256:" + scram._base64(seed).rstrip("=")


def readable(found: dict[str, Any]) -> bool:
    """Whether the verifiers can be read again: a label may hold what ends it."""
    return all(
        good(decodeVerifier, each.encode()) and decodeVerifier(each.encode()) == each
        for each in found.values()
    )


records = st.builds(
    Record,
    users,
    st.booleans(),
    verifiers.filter(readable).map(
        lambda found: frozenset((name, each.encode()) for name, each in found.items())
    ),
    st.frozensets(st.tuples(names, names), max_size=4),
)


def lines(*texts: str) -> list[bytes]:
    """Lines, as they are in a file."""
    return [text.encode() + b"\n" for text in texts]


def read(form: Format, *texts: str) -> list[Entry]:
    """Read such lines."""
    return list(form.read(lines(*texts)))


class RoundTripTests(SynchronousTestCase):
    """Both formats, whatever there is in a record."""

    def test_spaceAroundLabels(self) -> None:
        """No line of text keeps it, so no label has it."""
        self.assertEqual(PublicKey(b"k" * 32, "\u3000 at home ").label, "at home")
        self.assertEqual(CertificateKey(pin(b"k" * 32), " at home").label, "at home")

    @given(st.lists(records, max_size=5))
    def test_roundTrip(self, written: list[Record]) -> None:
        """What is written is what is read; a line for each record."""
        for form in FORMATS.values():
            dump = form.header() + b"".join(form.write(record) for record in written)
            there = io.BytesIO(dump).readlines()
            found: list[Any] = list(form.read(there))
            self.assertEqual([entry.record for entry in found], written)
            first = 1 + bool(form.header())
            self.assertEqual(
                [entry.line for entry in found], list(range(first, first + len(written)))
            )
            if found:
                self.assertEqual(found[-1].end, len(dump))

    @given(records)
    def test_standard(self, record: Record) -> None:
        """Other programs read it, too."""
        made = json.loads(JSONLines().write(record))
        self.assertEqual(made["name"], record.name)
        (row,) = csv.reader(io.StringIO(CSV().write(record).decode(), newline=""))
        self.assertEqual(row[0], record.name)

    def test_long(self) -> None:
        """What would be too long a line is not written."""
        keys = frozenset(("service", f"{number:0200}") for number in range(700))
        for form in FORMATS.values():
            with self.assertRaises(DumpError) as caught:
                form.write(Record("alice", keys=keys))
            self.assertIn("'alice' takes", str(caught.exception))


anyJSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)


class GroupTests(SynchronousTestCase):
    """Groups, and the life of an account."""

    def test_whole(self) -> None:
        """All of it comes back, in either format; a group has a line of its own."""
        moment = datetime(2026, 12, 31, 23, 59, 59, 123456, timezone.utc)
        groups = [
            Group("staff", frozenset({("game", "*"), ("a b", "{name}")})),
            Group("night shift, 50%"),
        ]
        written = [
            Record("bob"),
            Record(
                "alice",
                groups=frozenset({"staff", "night shift, 50%"}),
                expires=moment,
                mustChangePassword=True,
                created=moment.replace(year=2020, microsecond=0),
                lastLogin=moment.replace(year=2021),
            ),
        ]
        for form in FORMATS.values():
            lines = [form.header(), *map(form.writeGroup, groups), *map(form.write, written)]
            found: list[Any] = list(form.read([line for line in lines if line]))
            self.assertEqual([each.group for each in found[:2]], groups)
            self.assertEqual([each.record for each in found[2:]], written)

    def test_mistakes(self) -> None:
        """Each says what is wrong, and the line."""
        for line, reason in [
            ('{"group": "staff", "name": "alice"}', "a group has no 'name'"),
            ('{"group": "staff", "locked": true}', "a group has no 'locked'"),
            ('{"group": ""}', "must not be empty"),
            ('{"group": 5}', "'group' must be a text"),
            ('{"name": "alice", "groups": "staff"}', "'groups' must be a list of texts"),
            ('{"name": "alice", "groups": [""]}', "must not be empty"),
            ('{"name": "alice", "expires": "soon"}', "in 'expires': Write a date as 2026-12-31"),
            ('{"name": "alice", "created": 5}', "'created' must be a text"),
            ('{"name": "alice", "mustChangePassword": 1}', "must be true or false"),
        ]:
            with self.assertRaises(DumpError) as raised:
                list(FORMATS["jsonl"].read([line.encode()]))
            self.assertIn(reason, str(raised.exception))
            self.assertEqual(raised.exception.line, 1)
        with self.assertRaises(DumpError) as raised:
            list(CSV().read([b"name,mustChangePassword\n", b"alice,maybe\n"]))
        self.assertIn("must be true, false, or empty", str(raised.exception))


class GarbageTests(SynchronousTestCase):
    """Anything may be in a file."""

    def check(self, there: list[bytes]) -> None:
        """It is read, or refused by the one error."""
        for form in FORMATS.values():
            try:
                for entry in form.read(there):
                    checked = entry.group if isinstance(entry, GroupEntry) else entry.record
                    checked.check()
            except DumpError as error:
                self.assertGreaterEqual(error.line, 1)
                self.assertLessEqual(error.line, len(there))
                self.assertTrue(str(error).isprintable())
                self.assertLess(len(str(error)), 700)

    @given(st.lists(st.binary(max_size=60) | st.text(max_size=60).map(str.encode)))
    def test_bytes(self, there: list[bytes]) -> None:
        """Bytes, and text."""
        self.check(there)
        self.check([b"name,locked,password,verifiers,keys\n", *there])

    @given(
        st.fixed_dictionaries(
            {},
            optional={
                name: anyJSON | values
                for name, values in {
                    "name": st.text(max_size=9),
                    "locked": st.booleans(),
                    "password": st.text(max_size=9),
                    "verifier": st.just(SCRAM),
                    "verifiers": st.lists(st.just(SCRAM) | st.text(max_size=9)),
                    "keys": st.lists(st.lists(st.text(max_size=9), max_size=3)),
                    "more": anyJSON,
                }.items()
            },
        )
    )
    def test_json(self, found: Any) -> None:
        """Any JSON."""
        self.check([json.dumps(found).encode()])

    @given(st.lists(st.text(max_size=20), min_size=5, max_size=5))
    def test_cells(self, cells: list[str]) -> None:
        """Any cells."""
        # Not by the module csv: that of Python 3.10 can't write a NUL.
        line = ",".join(f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in cells)
        there = [b"name,locked,password,verifiers,keys\n"]
        self.check([*there, line.encode("utf-8", "surrogatepass")])

    def test_extremes(self) -> None:
        """Deep, long, and large."""
        for text in ("[" * 100_000, '{"name": ' * 10_000, '{"name":' + "9" * 9_999 + "}", "\0"):
            self.check([text.encode()])
        self.check([b"x" * (LONGEST_LINE + 1)])
        self.check([b"name\n", b'"' + b"x" * (LONGEST_LINE - 10) + b'"\n'])


class MistakeTests(SynchronousTestCase):
    """Each has a line number, says what to do, and shows nothing secret."""

    def fails(self, form: Format, said: str, *texts: str, line: int = 1) -> None:
        """Read what can't be read."""
        with self.assertRaises(DumpError) as caught:
            read(form, *texts)
        error = caught.exception
        self.assertIn(said, str(error))
        self.assertEqual(error.line, line, str(error))
        self.assertTrue(str(error).startswith(f"line {line}: "))
        self.assertNotIn(HUNTER, str(error))
        self.assertNotIn(SCRAM[20:], str(error))
        # What Python would show as its cause, or keeps beside it.
        self.assertIsNone(error.__cause__)
        self.assertIsNone(error.__context__)

    def test_json(self) -> None:
        """Of JSON Lines."""
        two = f'["{SCRAM}", "{SCRAM}"]'
        for text, said in [
            (f'{{"name": "alice", "password": "{HUNTER}}}', "not JSON from column"),
            (f'["{HUNTER}"]', "not a JSON object"),
            (f'{{"name": "alice", "pass": "{HUNTER}"}}', "no field 'pass'. There are: name"),
            (f'{{"name": "alice", "name": "{HUNTER}"}}', "occurs twice"),
            (f'{{"password": "{HUNTER}"}}', "must not be empty"),
            ('{"name": "a\\u0007"}', "U+0007"),
            ('{"name": 5}', "'name' must be a text"),
            ('{"name": "alice", "locked": "yes"}', "must be true or false"),
            ('{"name": "alice", "password": ""}', "password must not be empty"),
            (
                f'{{"name": "alice", "password": "{HUNTER}\\u0007"}}',
                "a character that is not allowed",
            ),
            (f'{{"name": "alice", "password": ["{HUNTER}"]}}', "'password' must be a text"),
            (f'{{"name": "alice", "verifiers": "{SCRAM}"}}', "must be a list of texts"),
            (f'{{"name": "alice", "verifiers": {two}}}', "two verifiers of SCRAM-SHA-256"),
            (f'{{"name": "alice", "verifiers": ["{SCRAM}", "{HUNTER}"]}}', "verifier number 2"),
            (f'{{"name": "alice", "verifier": "md5{HUNTER}"}}', "as in PostgreSQL"),
            (
                f'{{"name": "alice", "verifier": "{SCRAM}", "verifiers": []}}',
                "'verifier' and 'verifiers'",
            ),
            (
                f'{{"name": "alice", "verifier": "{SCRAM}", "password": "{HUNTER}"}}',
                "a password and a verifier",
            ),
            ('{"name": "alice", "keys": [["game"]]}', "a list of pairs"),
            ('{"name": "alice", "keys": {"game": "black"}}', "a list of pairs"),
            ('{"name": "alice", "keys": [["game", ""]]}', "perspective must not be empty"),
        ]:
            self.fails(JSONLines(), said, text)
        self.fails(JSONLines(), "not JSON", '{"name": "alice"}', "", "x", line=3)

    def test_csv(self) -> None:
        """Of CSV."""
        head = "name,password,verifiers,keys,locked"
        for said, *texts in [
            ("must name the columns", f"alice,{HUNTER}"),
            ("there is no column 'mail'", "name,mail"),
            ("'name' occurs twice", "name,name"),
            ("There is no column"[6:], f"name,{'x' * 99}"),
        ]:
            self.fails(CSV(), said, *texts)
        for row, said in [
            (f"alice,{HUNTER}", "2 cells, and 5 columns"),
            (f'alice,"{HUNTER},,,', "double quotes"),
            (f'alice,"{HUNTER}"x,,,', "double quotes"),
            (f",{HUNTER},,,", "must not be empty"),
            (f"alice,{HUNTER},,,,x", "6 cells, and 5 columns"),
            ("alice", "there is 1 cell, and 5 columns"),
            (f"alice,{HUNTER},,,\rbob,{HUNTER},,,", "end as on old Macs"),
            ("alice,,,,maybe", "true, false or empty"),
            (f"alice,{HUNTER},{SCRAM},,", "a password and a verifier"),
            (f"alice,,{HUNTER},,", "the verifier number 1 is none"),
            ("alice,,,game,", "SERVICE:PERSPECTIVE"),
            ("alice,,,game:a:b,", "a colon %3A"),
            ("alice,,,game:100%,", "a percent sign is written %25"),
            ("alice,,,game:%C3%BC,", "a percent sign is written %25"),
            ("alice,,,game:%0A,", "control characters"),
        ]:
            self.fails(CSV(), said, head, row, line=2)

    def test_encoding(self) -> None:
        """What is not in UTF-8, or too long, is not taken for something else."""
        for form in FORMATS.values():
            for line, said in [
                ('{"name": "ünsal"}'.encode("latin-1"), "not in UTF-8"),
                (b"x" * (LONGEST_LINE + 1), "longer than 131,072 bytes"),
            ]:
                with self.assertRaises(DumpError) as caught:
                    list(form.read([b"\n", line]))
                self.assertIn(said, str(caught.exception))
                self.assertEqual(caught.exception.line, 2)
                self.assertIsNone(caught.exception.__context__)

    def test_repr(self) -> None:
        """An entry does not show its password, nor its verifier."""
        (entry,) = read(JSONLines(), f'{{"name": "alice", "password": "{HUNTER}"}}')
        self.assertEqual(entry.password, HUNTER)
        self.assertNotIn(HUNTER, repr(entry))
        (entry,) = read(JSONLines(), f'{{"name": "alice", "verifier": "{SCRAM}"}}')
        self.assertNotIn(SCRAM[20:], repr(entry))


class KindnessTests(SynchronousTestCase):
    """What other programs write is read."""

    def test_spreadsheet(self) -> None:
        """A mark at the beginning, CRLF, columns in any order, empty lines."""
        dump = "\ufeffkeys,name,locked\r\necho:alice  game:a%20b%3A%25,alice,TRUE\r\n\r\n,bob,\r\n"
        found: list[Any] = list(CSV().read(io.BytesIO(dump.encode())))
        self.assertEqual(
            [entry.record for entry in found],
            [
                Record("alice", True, keys=frozenset({("echo", "alice"), ("game", "a b:%")})),
                Record("bob"),
            ],
        )
        self.assertEqual([entry.line for entry in found], [2, 4])

    def test_emptyCells(self) -> None:
        """Rows of empty cells, columns without a heading and contents, headings in any case."""
        dump = "Name,LOCKED,,\r\n,,,\r\nalice,true,,\r\n\r\nbob,,,\r\ncarol,,,,,\r\n"
        found: list[Any] = list(CSV().read(io.BytesIO(dump.encode())))
        self.assertEqual(
            [(entry.record, entry.line) for entry in found],
            [(Record("alice", True), 3), (Record("bob"), 5), (Record("carol"), 6)],
        )

    def test_separatorLine(self) -> None:
        """The line with which Excel is told what separates the cells."""
        dump = "\ufeffSEP=;\r\nname;keys\r\nalice;game:a\r\n"
        entry: Any
        (entry,) = CSV().read(io.BytesIO(dump.encode()))
        self.assertEqual((entry.line, entry.record.name), (3, "alice"))

    def test_separators(self) -> None:
        """Semicolons, as spreadsheets write them where a comma is in numbers; and tabs."""
        for separator in ";\t":
            dump = f"name{separator}keys\nalice{separator}game:a,b\n{separator}\n"
            entry: Any
            (entry,) = CSV().read(io.BytesIO(dump.encode()))
            self.assertEqual(entry.record.keys, {("game", "a,b")})

    def test_null(self) -> None:
        """In JSON, what is null is not there."""
        (entry,) = read(
            JSONLines(),
            '\ufeff{"name": "alice", "locked": null, "verifier": null, "keys": null}\r',
        )
        self.assertEqual(entry.record, Record("alice"))

    def test_oneSpelling(self) -> None:
        """A verifier that is spelt in another way is stored as pbauth spells it."""
        other = SCRAM.replace("$4096:", "$04096:")
        (entry,) = read(JSONLines(), json.dumps({"name": "alice", "verifier": other}))
        self.assertEqual(entry.record.verifiers, frozenset({("SCRAM-SHA-256", SCRAM)}))

    def test_keysBesidePassword(self) -> None:
        """A password may stand beside public keys."""
        key = AuthorizedKeys("ED25519", (PublicKey(bytes(32), "laptop"),)).encode()
        (entry,) = read(
            JSONLines(), json.dumps({"name": "alice", "verifiers": [key], "password": HUNTER})
        )
        self.assertEqual(entry.password, HUNTER)
        self.assertEqual(entry.record.verifiers, frozenset({("ED25519", key)}))

    def test_listings(self) -> None:
        """The files of the documentation are good."""
        for name, there in (
            ("users.jsonl", ["carol", "dave"]),
            ("users.csv", ["alice", "bob smith"]),
        ):
            with open(LISTINGS / name, "rb") as file:
                found: list[Any] = list(FORMATS[name.partition(".")[2]].read(file))
            self.assertEqual([entry.record.name for entry in found], there)
        self.assertIn(("echo", "bob smith"), found[1].record.keys)
