"""Identities in a passwd file."""

from __future__ import annotations

import os
import re
import signal
import stat
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredList, gatherResults, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from pbauth import (
    AuthServerFactory,
    Detached,
    DuplicateIdentity,
    EndReason,
    Hashing,
    InvalidName,
    PasswdFileAuthorizer,
    PublicKey,
    StoreError,
    Unauthorized,
    connect,
)
from pbauth.accounts.groups import Group
from pbauth.accounts.identity import checkIdentityName
from pbauth.accounts.records import Record
from pbauth.authorizers.passwd.lines import (
    BadLine,
    readLine,
    readLines,
    writeGroup,
    writeLife,
    writeLine,
    writeLines,
)
from pbauth.mechanisms import decodeVerifier
from pbauth.mechanisms.authorizedkeys import AuthorizedKeys
from pbauth.mechanisms.md5 import MD5Verifier
from pbauth.mechanisms.scram import ScramVerifier
from pbauth.names import checkName
from pbauth.testing import MemoryServer, RecordingService
from tests.support.processes import PATIENCE, Program
from tests.support.suites.authorizers import SCRAM
from tests.support.suites.lives import LifeSuite

VERIFIER = ScramVerifier(b"0123456789abcdef", 4096, b"s" * 32, b"k" * 32).encode()
#: What of a verifier must not be shown.
SECRET = VERIFIER.partition("$")[2]
LINE = f"alice:{VERIFIER} key=game/alice"

#: A machine that has other things to do is no fault of the examples.
SLOW = [HealthCheck.too_slow]
#: What a name may be made of, the awkward characters often.
AWKWARD = st.sampled_from(list("%:#/ $=\"'\\;,|\u00a0\u3000\ufeff\u0301\u00e9\U0001f600")) | (
    st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"])
)


def isName(text: str) -> bool:
    """Whether it can be the name of a service."""
    try:
        checkName(text)
    except InvalidName:
        return False
    return True


def isIdentityName(text: str) -> bool:
    """Whether it can be the name of an identity."""
    try:
        checkIdentityName(text)
    except InvalidName:
        return False
    return True


TEXTS = st.text(AWKWARD, min_size=1, max_size=20)
NAMES = TEXTS.filter(isName)
VERIFIERS = st.tuples(
    st.none()
    | st.builds(
        ScramVerifier,
        st.binary(min_size=8, max_size=64),
        st.integers(4096, 10_000_000),
        st.binary(min_size=32, max_size=32),
        st.binary(min_size=32, max_size=32),
    ),
    st.none() | st.builds(MD5Verifier, st.binary(min_size=16, max_size=16)),
    st.none()
    | st.lists(
        st.builds(PublicKey, st.binary(min_size=32, max_size=32), st.just("") | NAMES), max_size=3
    ).map(lambda keys: AuthorizedKeys("ED25519", tuple(keys))),
).map(
    # As a store reads them: a label loses what `authorized_keys` can't hold.
    lambda some: frozenset(
        (encoded.partition("$")[0], encoded)
        for encoded in (decodeVerifier(each.encode()).encode() for each in some if each)
    )
)
RECORDS = st.builds(
    Record,
    TEXTS.filter(isIdentityName),
    st.booleans(),
    VERIFIERS,
    st.frozensets(st.tuples(NAMES, NAMES), max_size=3),
)


class LineTests(SynchronousTestCase):
    """Lines, without a file."""

    def bad(self, line: str) -> str:
        """Why a line is refused: in one line, and without what may be a verifier."""
        with self.assertRaises(BadLine) as raised:
            readLine(line)
        problem = str(raised.exception)
        self.assertNotIn("\n", problem)
        self.assertIsNone(raised.exception.__cause__)
        for word in line.partition(":")[2].split():
            if "key=" not in word and word != "locked":
                self.assertNotIn(word, problem)
        return problem

    def test_whole(self) -> None:
        """Name, verifiers, keys and lock."""
        record = readLine(f"alice:{VERIFIER} key=game/white key=chat/alice locked")
        keys = {("game", "white"), ("chat", "alice")}
        self.assertEqual(
            record, Record("alice", True, frozenset([(SCRAM, VERIFIER)]), frozenset(keys))
        )
        assert record is not None
        self.assertEqual(
            writeLine(record), f"alice:{VERIFIER} key=chat/alice key=game/white locked"
        )

    def test_postgresForm(self) -> None:
        """The verifier is what PostgreSQL keeps, from its documentation's form."""
        written = writeLine(Record("alice", False, frozenset([(SCRAM, VERIFIER)])))
        self.assertRegex(
            written, r"\Aalice:SCRAM-SHA-256\$4096:[\w+/=]+\$[\w+/=]{44}:[\w+/=]{44}\Z"
        )

    def test_people(self) -> None:
        """What people write: any order, any spaces, tabs, and line ends of another system."""
        for line in (
            f"  alice:\t{VERIFIER}   key=game/alice\r",
            f"alice: key=game/alice {VERIFIER} key=game/alice",
            f"alice:key=g%61me/%61lice\t{VERIFIER}",
        ):
            self.assertEqual(readLine(line), readLine(LINE))
        for line in ("alice:", "alice: ", " alice:\r"):
            self.assertEqual(readLine(line), Record("alice"))
        for line in ("", "  ", "\r", "# alice:nonsense", "  #"):
            self.assertIsNone(readLine(line))

    def test_encoded(self) -> None:
        """Names and parts of keys that look like something else."""
        for name, written in [
            ("a:b", "a%3Ab:"),
            ("100%", "100%25:"),
            ("#1", "%231:"),
            ("a#1", "a#1:"),
            (" a b ", "%20a b%20:"),
            ("  ", "%20%20:"),
            ("\ufeffa", "%EF%BB%BFa:"),
            ("é", "é:"),
        ]:
            self.assertEqual(writeLine(Record(name)), written)
            self.assertEqual(readLine(written), Record(name))
        record = Record("a", keys=frozenset([("a/b c", "%")]))
        self.assertEqual(writeLine(record), "a:key=a%2Fb%20c/%25")
        self.assertEqual(readLine("a:key=a%2Fb%20c/%25"), record)

    def test_publicKey(self) -> None:
        """A public key in one word."""
        keys = AuthorizedKeys("ED25519", (PublicKey(b"k" * 32, "her laptop"),)).encode()
        record = Record("a", verifiers=frozenset([("ED25519", keys)]))
        line = writeLine(record)
        self.assertIn("her%20laptop", line)
        self.assertEqual(readLine(line), record)

    def test_groups(self) -> None:
        """Groups, and what is said of identities besides, in lines that others pass over."""
        text = (
            "#:user alice group=staff group=night%20shift expires=2026-12-31T00:00:00Z "
            "created=2026-01-02T03:04:05.678901Z must-change\n"
            "alice: locked\n"
            "# a comment\n"
            "#:group staff key=game/* key=mail/{name}\n"
            "bob:\n"
            "#:group night%20shift\n"
            "#:user gone last-login=2026-01-01T00:00:00Z\n"
        )
        lines = readLines(text)
        self.assertEqual(writeLines(lines), text)
        groups = {line.group.name: line.group.keys for line in lines if line.group}
        keys = frozenset({("game", "*"), ("mail", "{name}")})
        self.assertEqual(groups, {"staff": keys, "night shift": frozenset()})
        alice, bob = (line.record for line in lines if line.record)
        expected = Record(
            "alice",
            True,
            groups=frozenset({"staff", "night shift"}),
            expires=datetime(2026, 12, 31, tzinfo=timezone.utc),
            mustChangePassword=True,
            created=datetime(2026, 1, 2, 3, 4, 5, 678901, timezone.utc),
        )
        self.assertEqual((alice, bob), (expected, Record("bob")))
        self.assertEqual(
            [writeLife(expected), writeGroup(Group("staff", keys)), writeLife(Record("bob"))],
            [
                "#:user alice group=night%20shift group=staff expires=2026-12-31T00:00:00Z "
                "created=2026-01-02T03:04:05.678901Z must-change",
                "#:group staff key=game/* key=mail/{name}",
                "",
            ],
        )
        # What older versions see.
        older = [readLine(line) for line in text.splitlines() if line.startswith("#")]
        self.assertEqual(older, [None] * 5)

    def test_badGroups(self) -> None:
        """A mistake in such a line is one, with its number: else a date might not count."""
        for text, problem in [
            ("#:group staff game/*", "is no key"),
            ("#:group staff\n#:group staff", "already in line 1"),
            ("#:group %zz", "Write %25"),
            ("alice:\n#:user alice group=staff", "Add it"),
            ("alice:\n#:user alice expires=tomorrow", "Write a date as 2026-12-31"),
            ("alice:\n#:user alice nonsense", "is none of group="),
            ("#:user alice must-change\n#:user alice must-change", "already in line 1"),
        ]:
            with self.assertRaises(BadLine) as raised:
                readLines(text)
            self.assertIn(problem, str(raised.exception))
            self.assertEqual(raised.exception.number, len(text.split("\n")))

    def test_bad(self) -> None:
        """Every way to be malformed says what is wrong and what to do, and shows no word."""
        damaged = VERIFIER[:-3]
        for line, problem in [
            ("alice", "there is no ':' after the name"),
            (f"{VERIFIER.replace(':', '')}", "there is no ':'"),
            (":", "must not be empty"),
            (f":{VERIFIER}", "must not be empty"),
            ("a\x07:", r"control characters, such as U\+0007"),
            ("%0A:", "U.000A"),
            ("%00:", "U.0000"),
            (f"{'a' * 256}:", "at most 255 bytes"),
            ("\u00ad:", "must not be empty"),
            ("al%ice:", "Write %25 for a %"),
            ("al%f:", "Write %25 for a %"),
            ("al%FFice:", "not UTF-8"),
            ("al\ud800ice:", "U.D800"),
            ("al%41\ud800ice:", "not UTF-8"),
            ("alice:hunter2", "A plain password is not allowed here"),
            (f"alice:{VERIFIER} Locked", "word 2 .* nor locked"),
            ("alice:$apr1$lZL6V/ci$eIMz/iKDkbtys/uU7LEK00", "hash of another program"),
            ("alice:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "hash of another program"),
            ("alice:$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC", "set the pass"),
            ("alice:*", "hash of another program"),
            (f"alice:{damaged}", "damaged verifier"),
            ("alice:SCRAM-SHA-256$1:AAAAAAAAAAAAAAAA$a:b", "damaged verifier"),
            ("alice:SCRAM-SHA-1$4096:c2FsdA==$a:b", "damaged verifier"),
            ("alice:PB-MD5$short", "damaged verifier"),
            ("alice:ED25519$%0Assh-rsa%20AAAA", "damaged verifier"),
            ("alice:NOTHING$abc", "damaged verifier"),
            (f"alice:{VERIFIER}%", "Write %25"),
            (f"alice:{VERIFIER} {VERIFIER}", "two verifiers of SCRAM-SHA-256"),
            ("alice:key=game", "key=SERVICE/PERSPECTIVE"),
            ("alice:key=", "key=SERVICE/PERSPECTIVE"),
            ("alice:key=a/b/c", "%2F for a /"),
            ("alice:key=/alice", "name of a service must not be empty"),
            ("alice:key=game/", "name of a perspective must not be empty"),
            ("alice:key=ga%me/alice", "Write %25"),
            ("alice:key=g%00/alice", "U.0000"),
        ]:
            self.assertRegex(self.bad(line), problem)

    def test_file(self) -> None:
        """Which line it is; a name stands once; a byte order mark is not part of a name."""
        for text, number, problem in [
            (f"# x\n\n{LINE}\nbob\n", 4, "no ':'"),
            (f"{LINE}\n# alice\n\nalice:\n", 4, "is already in line 1."),
            ("alice:\n%61lice:\n", 2, "is already in line 1."),
            ("\ufeffalice:\n", 1, "byte order mark"),
        ]:
            with self.assertRaises(BadLine) as raised:
                readLines(text)
            self.assertEqual(raised.exception.number, number)
            self.assertIn(problem, str(raised.exception))

    @settings(max_examples=200, suppress_health_check=SLOW)
    @given(RECORDS)
    def test_roundTrip(self, record: Record) -> None:
        """What is written of a record is one line, and read as that record."""
        line = writeLine(record)
        self.assertNotIn("\n", line)
        self.assertEqual(readLine(line), record)
        self.assertEqual([each.record for each in readLines(f"{line}\n")], [record])

    @settings(max_examples=300, suppress_health_check=SLOW)
    @given(
        st.text()
        | st.lists(
            st.sampled_from(["alice", ":", " ", "%", "%41", "\n", "#", "key=", "/", "locked", "$"])
            | st.sampled_from([VERIFIER, SCRAM, "ED25519$", "ssh-ed25519%20AAAA", "\ud800", "\0"])
        ).map("".join)
    )
    def test_anyText(self, text: str) -> None:
        """Any text is read, or refused by one error; and what was read stays as it is."""
        try:
            lines = readLines(text)
        except BadLine as bad:
            self.assertGreater(bad.number, 0)
            self.assertNotIn(SECRET, str(bad))
            return
        self.assertIn(writeLines(lines), (text, f"{text}\n"))
        for line in lines:
            if line.record is not None:
                line.record.check()
                self.assertEqual(readLine(writeLine(line.record)), line.record)


class FileTestCase(TestCase):
    """Opens files."""

    def setUp(self) -> None:
        self.path = os.path.abspath(self.mktemp())
        self.events: list[dict[str, Any]] = []

    def write(self, text: str | bytes, mode: int = 0o600) -> None:
        """Write the file, in place, as a person would."""
        data = text.encode() if isinstance(text, str) else text
        Path(self.path).write_bytes(data)
        os.chmod(self.path, mode)

    def read(self) -> str:
        """What is in the file."""
        return Path(self.path).read_bytes().decode()

    def readOld(self) -> str:
        """What versions see in the file that knew neither groups nor dates."""
        return re.sub("^#:.*\n", "", self.read(), flags=re.MULTILINE)

    def open(self, path: str | None = None, **options: Any) -> PasswdFileAuthorizer:
        """Open a file; the same one by default."""
        return PasswdFileAuthorizer(path or self.path, **{"hashing": Hashing.CHEAPEST, **options})

    async def add(self, authorizer: PasswdFileAuthorizer, name: str = "alice") -> Any:
        """Add an identity whose password is `secret`, with one key."""
        identity = authorizer.createIdentity(name)
        identity.setPassword("secret")
        identity.addKeyByString("game", name)
        await identity.save()
        return identity

    def watchLog(self) -> None:
        """Collect what is logged as an error."""

        def observe(event: Any) -> None:
            if event["log_namespace"].startswith("pbauth") and event["log_level"] >= LogLevel.error:
                self.events.append(event)

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def refused(self, *patterns: str) -> str:
        """Why opening the file is refused: one line."""
        with self.assertRaises(StoreError) as raised:
            self.open()
        refusal = str(raised.exception)
        self.assertNotIn("\n", refusal)
        self.assertIn(self.path, refusal)
        self.assertNotIn(SECRET, refusal)
        for pattern in patterns:
            self.assertRegex(refusal, pattern)
        return refusal


class PasswdFileAuthorizerTests(LifeSuite, TestCase):
    """`PasswdFileAuthorizer` passes the shared suite."""

    def makeAuthorizer(self, services: Any = None, hashing: Hashing = Hashing.CHEAPEST) -> Any:
        self.path = self.mktemp()
        return PasswdFileAuthorizer(self.path, services, hashing)

    def reopened(self, authorizer: Any) -> Any:
        return PasswdFileAuthorizer(self.path, hashing=authorizer.hashing)

    def twoServers(self) -> tuple[Any, Any]:
        """Two on one file."""
        path = self.mktemp()
        return (
            PasswdFileAuthorizer(path, hashing=Hashing.CHEAPEST),
            PasswdFileAuthorizer(path, hashing=Hashing.CHEAPEST),
        )


class FileTests(FileTestCase):
    """What lasts, and for whom."""

    async def test_lasts(self) -> None:
        """What was saved is there when the file is opened again; so are the decoys."""
        authorizer = self.open()
        await self.add(authorizer)
        decoy = authorizer.getDecoyVerifier("mallory", SCRAM)
        reopened = self.open()
        identity = await reopened.getIdentityRequest("alice")
        self.assertEqual(identity.getAllKeys(), [("game", "alice")])
        await identity.verifyPlainPassword("secret")
        self.assertEqual(reopened.getDecoyVerifier("mallory", SCRAM), decoy)
        self.assertNotEqual(self.open(self.mktemp()).getDecoyVerifier("mallory", SCRAM), decoy)

    async def test_private(self) -> None:
        """Only the owner can read what is made; a mode that is stricter is kept."""
        authorizer = self.open()
        await self.add(authorizer)
        for path in (self.path, f"{self.path}.lock", f"{self.path}.decoy"):
            self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        os.chmod(self.path, 0o400)
        await self.add(authorizer, "bob")
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o400)
        self.assertNotIn("secret", self.read())

    async def test_keepsTheRest(self) -> None:
        """Comments, empty lines, order, spelling and line ends of others stay to the byte."""
        head = f"# our users\r\n\n   # more\nzoe:   {VERIFIER}\tlocked  \n"
        self.write(f"{head}{LINE}\n\nbob:key=game/bob\n# end")
        authorizer = self.open()
        alice = await authorizer.getIdentityRequest("alice")
        alice.locked = True
        await alice.save()
        await authorizer.removeIdentity("bob")
        carol = authorizer.createIdentity("carol")
        await carol.save()
        self.assertEqual(self.readOld(), f"{head}{LINE} locked\n\n# end\ncarol:\n")

    async def test_nothingToWrite(self) -> None:
        """Saving what is the same writes nothing."""
        self.write(f"alice:key=game/alice    {VERIFIER}")
        authorizer = self.open()
        before = os.stat(self.path)
        await (await authorizer.getIdentityRequest("alice")).save()
        await authorizer.addRecords([])
        self.assertEqual(os.stat(self.path), before)

    async def test_link(self) -> None:
        """What stands behind a symbolic link is replaced, not the link."""
        link = f"{self.path}-link"
        os.symlink(self.path, link)
        self.write("")
        await self.add(self.open(link))
        self.assertTrue(os.path.islink(link))
        self.assertRegex(self.read(), r"\Aalice:SCRAM")

    async def test_owner(self) -> None:
        """A file that belongs to another user belongs to that user after it was rewritten."""
        if os.geteuid() != 0:
            self.skipTest("Only root can give files away.")
        self.write("alice:\n")
        os.chown(self.path, 12345, 12345)
        authorizer = self.open()
        await self.add(authorizer, "bob")
        for path in (self.path, f"{self.path}.lock"):
            found = os.stat(path)
            self.assertEqual((found.st_uid, found.st_gid), (12345, 12345))

    async def test_copies(self) -> None:
        """A change to a copy counts once it is saved."""
        authorizer = self.open()
        await self.add(authorizer)
        copy = await authorizer.getIdentityRequest("alice")
        copy.addKeyByString("chat", "alice")
        copy.locked = True
        other = await authorizer.getIdentityRequest("alice")
        self.assertEqual((other.getAllKeys(), other.locked), ([("game", "alice")], False))

    async def test_twoChangesAtOnce(self) -> None:
        """Two who change the same identity at once do not undo each other's change."""
        authorizer, administrator = self.open(), self.open()
        await self.add(authorizer)
        one = await authorizer.getIdentityRequest("alice")
        other = await administrator.getIdentityRequest("alice")
        one.addKeyByString("chat", "alice")
        one.removeKey("game", "alice")
        other.setPassword("changed")
        other.addKeyByString("chess", "alice")
        other.locked = True
        await one.save()
        await other.save()
        one.addPublicKey(PublicKey(b"k" * 32))
        await one.save()
        found = await authorizer.getIdentityRequest("alice")
        self.assertEqual(found.getAllKeys(), [("chat", "alice"), ("chess", "alice")])
        self.assertEqual(len(found.getPublicKeys()), 1)
        self.assertTrue(found.locked)
        found.locked = False
        await found.verifyPlainPassword("changed")

    async def test_sameNameAtOnce(self) -> None:
        """Of many who add the same name at once, one succeeds."""
        authorizers = [self.open(), self.open()]
        results: list[tuple[bool, Any]] = await DeferredList(
            [each.addIdentity(each.createIdentity("alice")) for each in authorizers * 4],
            consumeErrors=True,
        )
        failures = [result for done, result in results if not done]
        self.assertEqual(len(failures), 7)
        for failure in failures:
            failure.trap(DuplicateIdentity)
        self.assertEqual(self.readOld(), "alice:\n")

    async def test_text(self) -> None:
        """SQL, colons, percents and quotes are text in every field."""
        awkward = 'a:b%41 \'); DROP--"%s" #/$\\ \u00e9'
        authorizer = self.open()
        identity = authorizer.createIdentity(awkward)
        identity.setPassword(awkward)
        identity.addKeyByString(awkward, awkward)
        identity.addPublicKey(PublicKey(b"k" * 32, awkward))
        await identity.save()
        await self.add(authorizer, "bob")
        self.assertEqual(self.readOld().count("\n"), 2)
        found = await self.open().getIdentityRequest(awkward)
        self.assertEqual((found.name, found.getAllKeys()), (awkward, [(awkward, awkward)]))
        self.assertEqual(found.getPublicKeys()[0].label, awkward)
        await found.verifyPlainPassword(awkward)

    async def test_readOnce(self) -> None:
        """A file that has not changed for a while is not read again."""
        self.write(f"{LINE}\n")
        os.utime(self.path, (1, 1))
        authorizer = self.open()
        reads = []
        read = authorizer._file._readOnce

        def readOnce(known: Any) -> Any:
            reads.append(known)
            return read(known)

        self.patch(authorizer._file, "_readOnce", readOnce)
        # Its ctime is of this moment: by the time alone it could have changed just now.
        await authorizer.getIdentityRequest("alice")
        self.assertEqual(len(reads), 1)
        before = authorizer._content
        self.patch(authorizer, "_content", evolve(before, settled=True))
        for _ in range(3):
            await authorizer.getIdentityRequest("alice")
        self.assertEqual(len(reads), 1)
        self.write("bob:\n")
        with self.assertRaises(Unauthorized):
            await authorizer.getIdentityRequest("alice")
        self.assertEqual(len(reads), 2)

    async def test_sameTimeAndSize(self) -> None:
        """A change that leaves inode, size and time as they were is seen."""
        self.write("alice:\n")
        authorizer = self.open()
        found = os.stat(self.path)
        self.write("carol:\n")
        os.utime(self.path, ns=(found.st_atime_ns, found.st_mtime_ns))
        await authorizer.getIdentityRequest("carol")
        with self.assertRaises(Unauthorized):
            await authorizer.getIdentityRequest("alice")

    async def test_changedWhileRead(self) -> None:
        """What was changed while it was read is read again."""
        self.write("alice:\n")
        authorizer = self.open()
        check, changes = authorizer._file._check, iter(["bob:\n", "carol:\n"])

        def checkAndChange(found: Any) -> None:
            check(found)
            for text in changes:
                draft = f"{self.path}.draft"
                Path(draft).write_text(text)
                os.chmod(draft, 0o600)
                os.rename(draft, self.path)
                break

        self.patch(authorizer._file, "_check", checkAndChange)
        await authorizer.getIdentityRequest("carol")

    async def test_neverStill(self) -> None:
        """A file that keeps changing is refused, not waited for."""
        self.write("alice:\n")
        authorizer = self.open()
        self.patch(authorizer._file, "signature", lambda: None)
        with self.assertRaises(StoreError) as raised:
            await authorizer.getIdentityRequest("alice")
        self.assertIn("keeps changing", str(raised.exception))

    async def test_manyAtOnce(self) -> None:
        """Who asks while the file is read gets what it holds, and nobody waits for ever."""
        self.write("".join(f"user{number}:key=game/{number}\n" for number in range(50)))
        authorizer = self.open()
        asked = [authorizer.getIdentityRequest(f"user{number}") for number in range(50)]
        asked[0].addErrback(lambda failure: None)
        asked[0].cancel()
        found = await gatherResults(asked[1:])
        self.assertEqual([identity.name for identity in found], [f"user{n}" for n in range(1, 50)])

    async def test_anotherProcess(self) -> None:
        """What somebody else writes is seen at the next request."""
        authorizer = self.open()
        with self.assertRaises(Unauthorized):
            await authorizer.getIdentityRequest("alice")
        self.write(f"{LINE}\n")
        found = await authorizer.getIdentityRequest("alice")
        self.assertEqual(found.getAllKeys(), [("game", "alice")])


class BadFileTests(FileTestCase):
    """Files that are refused."""

    def test_modes(self) -> None:
        """A file that others can get at is refused, with what to do."""
        for mode in (0o604, 0o640, 0o660, 0o620, 0o601, 0o644):
            self.write("alice:\n", mode)
            # Root may let a group read its own: see `tests.system.test_reading`.
            os.chown(self.path, 65534, -1)
            self.refused(rf"mode {mode:04o}", rf"Run: chmod 600 {self.path}\Z")

    def test_folder(self) -> None:
        """So is one in a folder that others can write to, where they could replace it."""
        folder = os.path.dirname(self.path)
        before = stat.S_IMODE(os.stat(folder).st_mode)
        self.addCleanup(os.chmod, folder, before)
        self.write("alice:\n")
        os.chmod(folder, 0o777)
        self.refused(f"Run: chmod o-w {folder}")
        os.chmod(folder, 0o1777)
        self.open()

    def test_noFile(self) -> None:
        """A folder, a pipe, a device, a place that is not there."""
        os.mkdir(self.path)
        self.refused("is not a regular file|directory")
        os.rmdir(self.path)
        os.mkfifo(self.path, 0o600)
        self.refused("is not a regular file")
        os.unlink(self.path)
        os.symlink("/nowhere/at/all", self.path)
        self.refused("Can't read")
        self.path = os.path.join(self.path, "passwd")
        self.refused("Can't make")

    def test_malformed(self) -> None:
        """A malformed line is named, with what is wrong, and without the verifier."""
        self.write(f"# ours\n{LINE}\nbob:{VERIFIER}x\n")
        self.refused(", line 3: ", "damaged verifier", "again")
        self.write(f"{LINE}\n\n{LINE}\n")
        self.refused(", line 3: ", "already in line 1")
        self.write(LINE.encode() + b"\n\nzo\xeb:\n")
        self.refused(", line 3: ", "Save the file in UTF-8")
        self.write(LINE.encode("utf-16"))
        self.refused(", line 1: ")
        self.write(b"\0" * 100)
        self.refused(", line 1: ")

    def test_decoySecret(self) -> None:
        """The secret of the decoys is for the owner only, and whole."""
        self.open()
        secret = f"{self.path}.decoy"
        os.chmod(secret, 0o644)
        self.refused(f"Run: chmod 600 {secret}")
        os.chmod(secret, 0o600)
        Path(secret).write_bytes(b"short")
        self.refused("is damaged. Remove it")
        os.unlink(secret)
        self.open()

    async def test_becomesMalformed(self) -> None:
        """
        A file that becomes malformed lets nobody in, and nothing is written to it; that is logged
        once; and once it is repaired, all is as before.
        """
        self.write(f"{LINE}\n")
        authorizer = self.open()
        alice = await authorizer.getIdentityRequest("alice")
        self.watchLog()
        self.write(f"{LINE}\nbob\n")
        for _ in range(5):
            with self.assertRaises(StoreError) as raised:
                await authorizer.getIdentityRequest("alice")
            self.assertIn(", line 2: there is no ':'", str(raised.exception))
        alice.locked = True
        for change in (
            alice.save,
            lambda: authorizer.removeIdentity("alice"),
            lambda: authorizer.addRecords([Record("carol")]),
            authorizer.listIdentities,
        ):
            with self.assertRaises(StoreError):
                await change()
        self.assertEqual(self.read(), f"{LINE}\nbob\n")
        self.assertEqual(len(self.events), 1)
        self.write(f"{LINE}\nbob:\n")
        await authorizer.getIdentityRequest("bob")
        self.write("bob\n")
        with self.assertRaises(StoreError):
            await authorizer.getIdentityRequest("alice")
        self.assertEqual(len(self.events), 2)
        for event in self.events:
            self.assertNotIn(SECRET, repr(event))

    async def test_becomesReadable(self) -> None:
        """So does one that others may read from now on, and one that is gone."""
        self.write(f"{LINE}\n")
        authorizer = self.open()
        await authorizer.getIdentityRequest("alice")
        os.chmod(self.path, 0o644)
        with self.assertRaises(StoreError) as raised:
            await authorizer.getIdentityRequest("alice")
        self.assertIn("chmod 600", str(raised.exception))
        os.unlink(self.path)
        with self.assertRaises(StoreError) as raised:
            await authorizer.getIdentityRequest("alice")
        self.assertIn("Can't read", str(raised.exception))
        with self.assertRaises(StoreError):
            await self.add(authorizer, "bob")
        self.assertFalse(os.path.exists(self.path))

    async def test_locked(self) -> None:
        """Who writes for longer than one waits is reported; reading goes on."""
        import fcntl

        self.write(f"{LINE}\n")
        authorizer = self.open(lockTimeout=0.05)
        with open(f"{self.path}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with self.assertRaises(StoreError) as raised:
                await self.add(authorizer, "bob")
            self.assertIn("locked by another process", str(raised.exception))
            await authorizer.getIdentityRequest("alice")
        await self.add(authorizer, "bob")

    async def test_full(self) -> None:
        """A disk that is full leaves the old file, and no draft."""
        self.write(f"{LINE}\n")
        authorizer = self.open()

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        self.patch(os, "fsync", full)
        with self.assertRaises(StoreError) as raised:
            await self.add(authorizer, "bob")
        self.assertIn("No space left on device", str(raised.exception))
        self.assertEqual(self.read(), f"{LINE}\n")
        self.assertFalse(os.path.exists(f"{self.path}.new"))

    async def test_badRecord(self) -> None:
        """A record that could not be read again is not written."""
        authorizer = self.open()
        for record in (
            Record("alice", verifiers=frozenset([("NOTHING", "NOTHING$x")])),
            Record("a\nb"),
            Record("alice", keys=frozenset([("game", "")])),
        ):
            with self.assertRaises(ValueError):
                await authorizer.addRecords([Record("bob"), record])
        self.assertEqual(self.read(), "")


class ProcessTests(FileTestCase):
    """Other processes, that write at the same time, or die."""

    def start(self, program: str, *arguments: str) -> Program:
        """Start a program that works on the file."""
        running = Program("-c", program, self.path, *arguments, forked=True)
        self.addCleanup(running.stop)
        return running

    async def test_writeAtOnce(self) -> None:
        """What two processes and this one write at the same time is all there."""
        authorizer = self.open()
        programs = [self.start(ADD, prefix, "15") for prefix in ("one", "two")]
        for program in programs:
            await program.waitFor("begun")
        for number in range(15):
            await self.add(authorizer, f"three{number}")
        for program in programs:
            await program.whenEnded()
            self.assertEqual(program.exitCode, 0, program.output)
        names = {f"{prefix}{n}" for prefix in ("one", "two", "three") for n in range(15)}
        self.assertEqual({name for name, *_ in await authorizer.listIdentities()}, names)
        there = {each.record.name for each in readLines(self.read()) if each.record is not None}
        self.assertEqual(there, names)

    async def test_killed(self) -> None:
        """Whoever is killed in the middle of a write leaves the old file or the new one, whole."""
        self.write(f"# ours\n{LINE}\n")
        authorizer = self.open()
        for function, number in (("write", 1), ("fsync", 1), ("replace", 1), ("fsync", 2)):
            before = self.readOld()
            program = self.start(DIE, function, str(number), f"{function}{number}")
            await program.whenEnded()
            self.assertEqual(program.signal, signal.SIGKILL, program.output)
            after = self.readOld()
            if (function, number) == ("fsync", 2):
                self.assertEqual(after, f"{before}{function}{number}:\n")
            else:
                self.assertEqual(after, before)
            # Nobody is locked out by the one who is dead, and its draft is no obstacle.
            await authorizer.addRecords([Record(f"after {function}{number}")])
            self.assertFalse(os.path.exists(f"{self.path}.new"))
        found = await self.open().listIdentities()
        self.assertEqual(len(found), 6)


ADD = """
import sys
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import react
from pbauth import PasswdFileAuthorizer, Hashing

async def main(reactor):
    path, prefix, many = sys.argv[1:]
    authorizer = PasswdFileAuthorizer(path, hashing=Hashing.CHEAPEST)
    print("begun", flush=True)
    for number in range(int(many)):
        identity = authorizer.createIdentity(f"{prefix}{number}")
        identity.setPassword("secret")
        await identity.save()

react(lambda reactor: ensureDeferred(main(reactor)))
"""

DIE = """
import os, signal, sys
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import react
from pbauth import PasswdFileAuthorizer, Hashing

path, function, number, name = sys.argv[1:]
authorizer = PasswdFileAuthorizer(path, hashing=Hashing.CHEAPEST)
left = int(number)

def die(*arguments):
    global left
    left -= 1
    if left:
        return original(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)

if function == "write":
    # In the middle of it: half of the draft is there.
    original = os.fdopen
    def fdopen(descriptor, mode):
        file = original(descriptor, mode)
        if mode == "wb":
            os.write(descriptor, b"half of a li")
            os.kill(os.getpid(), signal.SIGKILL)
        return file
    os.fdopen = fdopen
else:
    original = getattr(os, function)
    setattr(os, function, die)

react(lambda reactor: authorizer.createIdentity(name).save())
"""


class Threadless(Clock):
    """
    A reactor without threads.

    Attributes:
        held: what was to be done in a thread and has not been done; `None`: it is done at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Any] | None = None

    def getThreadPool(self) -> Threadless:
        return self

    def callInThreadWithCallback(self, tell: Any, function: Any, *args: Any, **kw: Any) -> None:
        def work() -> None:
            try:
                result = True, function(*args, **kw)
            except BaseException:
                result = False, Failure()
            tell(*result)

        if self.held is None:
            work()
        else:
            self.held.append(work)

    def callFromThread(self, function: Any, *args: Any, **kw: Any) -> None:
        function(*args, **kw)

    def release(self) -> None:
        """Do what is held, and what comes of that."""
        held, self.held = self.held or [], None
        for work in held:
            work()


class ChangesTests(FileTestCase):
    """Sessions end when somebody else changes the file."""

    def setUp(self) -> None:
        super().setUp()
        self.reactor = Threadless()
        self.authorizer = self.open(reactor=self.reactor)
        self.server = MemoryServer(self.authorizer)
        self.authorizer.setServiceCollection(self.server.services)
        self.game = RecordingService("game", self.server.services, self.authorizer)
        for name in ("alice", "bob"):
            self.server.addUser(name, "secret", ("game", name), ("game", "shared"))
        self.service = self.authorizer.changesService(self.reactor)
        self.other = self.open(reactor=Threadless())

    def start(self) -> None:
        """Start the service."""
        self.service.startService()
        self.addCleanup(self.service.stopService)

    def logIn(self, name: str = "alice", perspective: str | None = None) -> Any:
        """Log somebody in."""
        reference = self.successResultOf(self.server.logIn(name, "secret", "game", perspective))
        self.addCleanup(self.server.disconnect, reference)
        return reference

    def change(self, change: Any, name: str = "alice") -> None:
        """Somebody else changes an identity."""
        identity = self.successResultOf(self.other.getIdentityRequest(name))
        change(identity)
        self.successResultOf(identity.save())

    def ended(self) -> set[tuple[str, str]]:
        """Whose sessions have ended."""
        return {
            (event.identityName, event.perspectiveName)
            for event in self.game.events
            if event.kind == "detached"
        }

    def test_twiceASecond(self) -> None:
        """Within half a second, and just those that are no longer allowed."""
        self.start()
        for name, perspective in (("alice", None), ("alice", "shared"), ("bob", "shared")):
            self.logIn(name, perspective)
        self.change(lambda alice: alice.removeKey("game", "alice"))
        self.reactor.advance(0.4)
        self.assertEqual(self.ended(), set())
        self.reactor.advance(0.1)
        self.assertEqual(self.ended(), {("alice", "alice")})
        self.change(lambda alice: alice.addKeyByString("chat", "alice"))
        self.reactor.advance(0.5)
        self.assertEqual(self.ended(), {("alice", "alice")})
        self.change(lambda bob: setattr(bob, "locked", True), "bob")
        self.reactor.advance(0.5)
        self.assertEqual(self.ended(), {("alice", "alice"), ("bob", "shared")})
        self.change(lambda alice: alice.setPassword("other"))
        self.reactor.advance(0.5)
        self.assertEqual(len(self.authorizer.sessions), 0)

    def test_groups(self) -> None:
        """What is taken from a group counts for its members."""
        for act in (
            self.other.addGroup("staff"),
            self.other.grantGroupKey("staff", "game", "any"),
            self.other.grantGroupKey("staff", "game", "{name}"),
            self.other.addMember("staff", "alice"),
            self.other.addMember("staff", "bob"),
        ):
            self.successResultOf(act)
        self.start()
        for name, perspective in (("alice", "any"), ("alice", "alice"), ("bob", "any")):
            self.logIn(name, perspective)
        self.successResultOf(self.other.removeMember("staff", "alice"))
        self.reactor.advance(0.5)
        self.assertEqual(self.ended(), {("alice", "any")})
        self.successResultOf(self.other.revokeGroupKey("staff", "game", "any"))
        self.reactor.advance(0.5)
        self.assertEqual(self.ended(), {("alice", "any"), ("bob", "any")})
        self.assertEqual(len(self.authorizer.sessions), 1)

    def test_removed(self) -> None:
        """Who was removed, by an editor for instance, is out."""
        self.start()
        self.logIn()
        self.logIn("bob")
        lines = self.readOld().splitlines(keepends=True)
        self.write(lines[1])
        self.reactor.advance(0.5)
        self.assertEqual(self.ended(), {("alice", "alice")})
        self.assertEqual(len(self.authorizer.sessions), 1)

    def test_beforeTheStart(self) -> None:
        """What was changed before the first look counts as well."""
        self.logIn()
        self.logIn("bob")
        self.successResultOf(self.other.removeIdentity("bob"))
        self.change(lambda alice: alice.removeKey("game", "alice"))
        self.start()
        self.assertEqual(len(self.authorizer.sessions), 0)

    def test_malformed(self) -> None:
        """Live sessions stay while the file is malformed, and what it says counts afterwards."""
        self.start()
        self.logIn()
        self.logIn("bob")
        self.watchLog()
        whole = self.read()
        self.write(whole + "???\n")
        self.reactor.advance(5)
        self.reactor.pump([0.5] * 10)
        self.assertEqual((self.ended(), len(self.events)), (set(), 1))
        refused = self.server.logIn("alice", "secret", "game")
        failure = self.failureResultOf(refused, StoreError)
        self.assertNotIn(self.path, failure.getErrorMessage())
        self.write(whole.replace(" key=game/alice", ""))
        self.reactor.advance(0.5)
        self.assertEqual(self.ended(), {("alice", "alice")})
        self.logIn("alice", "shared")

    def test_loginUnderWay(self) -> None:
        """A login whose look at the file is under way while it changes does not slip through."""
        self.start()
        self.reactor.held = []
        login = self.server.logIn("alice", "secret", "game")
        self.successResultOf(self.other.removeIdentity("alice"))
        self.reactor.advance(0.5)
        self.reactor.release()
        self.server.flush()
        self.failureResultOf(login, Unauthorized)
        self.assertEqual(len(self.authorizer.sessions), 0)

    def test_removedBeforeAttach(self) -> None:
        """
        Nor does one that has been given the identity: what it makes of it is there before anybody
        knows of the change.
        """
        self.start()
        seen = []
        request = self.authorizer.getIdentityRequest

        def requestAndRemove(name: str) -> Any:
            seen.append(name)
            found = request(name)
            if len(seen) == 2:
                # The second time is for the attachment.
                self.successResultOf(self.other.removeIdentity("alice"))
            return found

        self.patch(self.authorizer, "getIdentityRequest", requestAndRemove)
        login = self.server.logIn("alice", "secret", "game")
        self.successResultOf(login)
        self.assertEqual(len(self.authorizer.sessions), 1)
        self.reactor.advance(0.5)
        self.assertEqual(self.ended(), {("alice", "alice")})

    def test_readWhileRemoved(self) -> None:
        """
        What an older read of the file gives is used up before a newer one, or a change of our own,
        counts: it ends the session that was made of it.
        """
        self.start()
        self.reactor.held = []
        login = self.server.logIn("alice", "secret", "game")
        removal = self.authorizer.removeIdentity("alice")
        # The read, and only then the removal.
        self.assertEqual(len(self.reactor.held), 1)
        self.reactor.release()
        self.server.flush()
        self.successResultOf(removal)
        self.failureResultOf(login, Unauthorized)
        self.assertEqual(len(self.authorizer.sessions), 0)

    def test_ownChanges(self) -> None:
        """A new password by the client, and a renewed verifier, leave its session alone."""
        self.start()
        alice = self.logIn()
        identity = self.successResultOf(self.authorizer.getIdentityRequest("alice"))
        verifiers: Deferred[dict[str, Any]] = identity.getVerifiers()
        old = self.successResultOf(verifiers)[SCRAM]
        better = ScramVerifier.fromPassword("secret", b"0123456789abcdef", 5000)
        with self.authorizer.proofs.renewing("alice", old, better):
            self.assertTrue(
                self.successResultOf(self.authorizer.renewVerifier(identity, old, better))
            )
        self.reactor.advance(0.5)
        called = alice.callRemote("whoami")
        self.server.flush()
        self.assertEqual(self.successResultOf(called), "alice")

    def test_brokenIdentities(self) -> None:
        """Where the application's identities raise, the session ends, and the looks go on."""
        self.start()
        self.logIn()
        self.logIn("bob")

        class Broken(self.authorizer.identityClass):  # type: ignore[name-defined,misc]
            def holdsKey(self, serviceName: str, perspectiveName: str) -> bool:
                raise OSError("nobody knows")

        self.authorizer.identityClass = Broken
        self.change(lambda alice: alice.addKeyByString("chat", "alice"))
        self.reactor.advance(0.5)
        self.assertEqual(self.ended(), {("alice", "alice")})
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.successResultOf(self.other.removeIdentity("bob"))
        self.reactor.advance(0.5)
        self.assertEqual(len(self.ended()), 2)

    def test_stop(self) -> None:
        """It stops, also in the middle of a look, and can be started again."""
        self.service.startService()
        self.assertTrue(self.service.running)
        self.reactor.held = []
        self.reactor.advance(0.5)
        stopped = maybeDeferred(self.service.stopService)
        self.assertNoResult(stopped)
        self.reactor.release()
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.logIn()
        self.successResultOf(self.other.removeIdentity("alice"))
        self.start()
        self.assertEqual(len(self.authorizer.sessions), 0)


class ServerTests(FileTestCase):
    """A server, and another process that changes its file."""

    async def test_revoked(self) -> None:
        """Within a second the session is at an end."""
        services = MultiService()
        authorizer = self.open(serviceCollection=services)
        RecordingService("game", services, authorizer)
        await self.add(authorizer)
        from twisted.internet import reactor

        service = authorizer.changesService(reactor)
        service.startService()
        self.addCleanup(service.stopService)
        port = reactor.listenTCP(  # type: ignore[attr-defined]
            0, AuthServerFactory(authorizer), interface="127.0.0.1"
        )
        self.addCleanup(port.stopListening)
        alice = await connect("127.0.0.1", port.getHost().port, "alice", "secret", "game")
        self.assertEqual(await alice.callRemote("whoami"), "alice")
        (session,) = authorizer.sessions
        program = Program("-c", REMOVE, self.path, forked=True)
        self.addCleanup(program.stop)
        await program.whenEnded()
        self.assertEqual(program.exitCode, 0, program.output)
        began = reactor.seconds()  # type: ignore[attr-defined]
        with self.assertRaises(Detached):
            while True:
                await alice.callRemote("whoami")
        self.assertLess(reactor.seconds() - began, PATIENCE)  # type: ignore[attr-defined]
        self.assertEqual(session.endReason, EndReason.REMOVED)
        alice.broker.transport.loseConnection()
        await alice.broker.whenClosed()


REMOVE = """
import sys
from twisted.internet.task import react
from pbauth import PasswdFileAuthorizer

react(lambda reactor: PasswdFileAuthorizer(sys.argv[1]).removeIdentity("alice"))
"""
