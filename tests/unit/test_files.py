"""Private files: whole or not there, whatever fails."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pbauth import _files
from pbauth._files import (
    ForeignLink,
    OtherOwner,
    createPrivate,
    exposure,
    foreignLink,
    keepOwner,
    lock,
    replacing,
    writePrivate,
)
from tests.support.disks import smallFiles

#: Somebody who is not the superuser: to them a folder may be read-only.
NOBODY = 65534


def write(path: str, data: bytes) -> None:
    """Write a file by `replacing`, in two pieces."""
    with replacing(path) as file:
        file.write(data[:10])
        file.write(data[10:])


class FilesTestCase(SynchronousTestCase):
    """Has a folder."""

    #: All ways to write a file: a name, and the function.
    writers: tuple[tuple[str, Callable[[str, bytes], Any]], ...] = (
        ("replacing", write),
        ("writePrivate", writePrivate),
        ("createPrivate", createPrivate),
    )

    def setUp(self) -> None:
        self.folder = Path(os.path.abspath(self.mktemp()))
        self.folder.mkdir()
        self.path = str(self.folder / "file")

    def read(self) -> bytes:
        """What the file holds."""
        return Path(self.path).read_bytes()

    def names(self) -> list[str]:
        """What is in the folder."""
        return sorted(os.listdir(self.folder))


class DeviceTests(FilesTestCase):
    """What is there, and is no file."""

    def test_stays(self) -> None:
        """Root could put a file in the place of a device: it is refused, also behind a link."""
        os.mkfifo(self.path)
        link = self.folder / "link"
        link.symlink_to(self.path)
        for path in (self.path, str(link), str(self.folder)):
            for name, function in self.writers[:2]:
                error = self.assertRaises(OSError, function, path, b"x" * 20)
                self.assertIn("not a regular file", str(error), name)
        self.assertTrue(stat.S_ISFIFO(os.stat(self.path).st_mode))
        self.assertEqual(self.names(), ["file", "link"])


class ForeignTests(FilesTestCase):
    """Files, links and folders of other users."""

    def makeForeign(self, link: Path) -> None:
        """Let a link belong to somebody else."""
        if os.geteuid():
            self.patch(_files, "_user", lambda: os.geteuid() + 1)
        else:
            os.lchown(link, NOBODY, NOBODY)

    def problem(self, path: Any, forbidden: int = 0o077) -> str:
        """Say what is wrong with a file."""
        return exposure(str(path), os.stat(path), "Others can read it", forbidden) or ""

    def test_links(self) -> None:
        """A link of another user, in a folder that others can write to, leads nowhere."""
        writePrivate(self.path, b"secret")
        shared = self.folder / "shared"
        shared.mkdir()
        (shared / "file").symlink_to(self.path)
        (shared / "folder").symlink_to(self.folder)
        (self.folder / "way").symlink_to("shared/folder")
        paths = [shared / "file", shared / "folder" / "file", self.folder / "way" / "file"]
        for mode in (0o777, 0o1777, 0o775):
            shared.chmod(mode)
            for path in paths:
                self.assertEqual(self.problem(path), "", oct(mode))
        for link in shared.iterdir():
            self.makeForeign(link)
        for mode in (0o777, 0o1777, 0o775):
            shared.chmod(mode)
            for path in paths:
                self.assertIn("is a link that another user has made", self.problem(path))
                for name, function in self.writers[:2]:
                    error = self.assertRaises(ForeignLink, function, str(path), b"x" * 20)
                    self.assertIn("is a link that another", error.strerror, name)
        self.assertEqual(self.read(), b"secret")
        shared.chmod(0o755)
        for path in paths:
            self.assertIsNone(foreignLink(str(path)))

    def test_noLinks(self) -> None:
        """What is not there, or leads in a circle, is no way to something else."""
        (self.folder / "circle").symlink_to("circle")
        self.assertIsNone(foreignLink(str(self.folder / "nothing" / "at" / "all")))
        self.assertIsNone(foreignLink(str(self.folder / "nothing" / ".." / "file")))
        self.assertEqual(foreignLink(str(self.folder / "circle")), str(self.folder / "circle"))

    def test_owner(self) -> None:
        """What belongs to another user is not ours, but for root's; root uses that of anybody."""
        writePrivate(self.path, b"secret")
        found = os.stat(self.path)
        for user, refused in ((found.st_uid, False), (found.st_uid + 1, found.st_uid > 0)):
            self.patch(_files, "_user", lambda user=user: user)
            self.assertEqual("belongs to another user" in self.problem(self.path), refused)
        fields = list(found)
        fields[stat.ST_UID] = 4_000
        for user, refused in ((4_000, False), (4_001, True), (0, False), (None, False)):
            self.patch(_files, "_user", lambda user=user: user)
            text = exposure(self.path, os.stat_result(fields), "Others can read it") or ""
            self.assertEqual("chown 4001" in text, refused)

    def test_thirdUser(self) -> None:
        """Root uses files of their folder's owner, and no others that a user may have put there."""
        writePrivate(self.path, b"secret")
        fields, look = list(os.stat(self.path)), os.stat
        fields[stat.ST_UID] = 4_000
        found = os.stat_result(fields)
        self.patch(_files, "_user", lambda: 0)
        for owner, mode, refused in (
            *((4_000, 0o755, False), (4_000, 0o775, False), (4_001, 0o700, True)),
            *((0, 0o755, False), (0, 0o775, True), (0, 0o1777, True)),
        ):
            around = list(os.stat(self.folder))
            around[stat.ST_UID], around[stat.ST_MODE] = owner, stat.S_IFDIR | mode
            self.patch(os, "stat", lambda path, around=around: os.stat_result(around))
            text = exposure(self.path, found, "Others can read it") or ""
            self.patch(os, "stat", look)
            self.assertEqual(f"chown {owner}" in text, refused, (owner, oct(mode)))

    def test_folder(self) -> None:
        """In a folder that everybody can write to, without the sticky bit, nothing is ours."""
        writePrivate(self.path, b"secret")
        for mode, refused in ((0o777, True), (0o1777, False), (0o755, False)):
            self.folder.chmod(mode)
            self.assertEqual("Other users can replace" in self.problem(self.path), refused)


class WritingTests(FilesTestCase):
    """What is written."""

    def test_private(self) -> None:
        """Each way to write a file makes one for its owner only, whatever the umask."""
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        for name, function in self.writers:
            function(self.path, b"some data, more than ten bytes")
            self.assertEqual(self.read(), b"some data, more than ten bytes", name)
            self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600, name)
            self.assertEqual(self.names(), ["file"], name)
            os.unlink(self.path)

    def test_replaces(self) -> None:
        """Who has the old file open goes on reading that; the new one is private."""
        for name, function in self.writers[:2]:
            Path(self.path).write_bytes(b"old")
            os.chmod(self.path, 0o644)
            with open(self.path, "rb") as old:
                function(self.path, b"new")
                self.assertEqual((old.read(), self.read()), (b"old", b"new"), name)
            self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600, name)

    def test_creates(self) -> None:
        """The first one wins, and the others are told."""
        for data in (b"", b"first"):
            self.assertTrue(createPrivate(self.path, data))
            self.assertFalse(createPrivate(self.path, data and b"second"))
            self.assertEqual(self.read(), data)
            self.assertEqual(self.names(), ["file"])
            os.unlink(self.path)

    def test_links(self) -> None:
        """Of a link, what stands behind it is replaced; the link stays."""
        link = self.folder / "link"
        link.symlink_to("file")
        for _, function in self.writers[:2]:
            function(str(link), b"through the link")
            self.assertTrue(link.is_symlink())
            self.assertEqual(self.read(), b"through the link")

    def test_relative(self) -> None:
        """A path without a folder is one of the current folder."""
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.folder)
        for name, function in self.writers:
            function(name, b"data")
        self.assertEqual(self.names(), sorted(name for name, _ in self.writers))

    def test_durable(self) -> None:
        """The file is on the disk before it gets its name, and the folder after that."""
        done: list[str] = []

        def fsync(descriptor: int) -> None:
            isFolder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
            done.append("folder" if isFolder else "file")
            size = os.fstat(descriptor).st_size
            self.assertEqual(os.path.exists(self.path), isFolder)
            self.assertTrue(isFolder or size == 4)

        self.patch(os, "fsync", fsync)
        for _, function in self.writers:
            function(self.path, b"data")
            os.unlink(self.path)
        self.assertEqual(done, ["file", "folder"] * 3)

    def test_keeps(self) -> None:
        """Owner and mode of the one that is replaced stay, as far as it is for the owner only."""
        for mode, kept in ((0o400, 0o400), (0o640, 0o600), (0o777, 0o600)):
            Path(self.path).touch()
            os.chmod(self.path, mode)
            if os.geteuid() == 0:
                os.chown(self.path, NOBODY, NOBODY)
            former = os.stat(self.path)
            made = writePrivate(self.path, b"new", former=former)
            found = os.stat(self.path)
            self.assertEqual(made, found)
            self.assertEqual(stat.S_IMODE(found.st_mode), kept)
            self.assertEqual((found.st_uid, found.st_gid), (former.st_uid, former.st_gid))
            os.unlink(self.path)

    def test_draft(self) -> None:
        """What one that was killed left under the name of a draft is no obstacle."""
        draft = self.folder / "draft"
        draft.write_bytes(b"half of a li")
        writePrivate(self.path, b"whole", draft=str(draft))
        self.assertEqual((self.read(), self.names()), (b"whole", ["file"]))

    @settings(max_examples=30)
    @given(st.lists(st.binary(max_size=200), max_size=5))
    def test_anything(self, pieces: list[bytes]) -> None:
        """What is written is what is there."""
        with replacing(self.path) as file:
            for piece in pieces:
                file.write(piece)
        self.assertEqual(self.read(), b"".join(pieces))
        self.assertEqual(writePrivate(self.path, b"".join(pieces[:2])).st_size, len(self.read()))


class FailingTests(FilesTestCase):
    """What fails leaves nothing behind, and takes nothing away."""

    def assertFails(self, error: int, case: str, function: Callable[[str, bytes], Any]) -> None:
        """Writing fails with this error, and the folder is as before."""
        before = {name: (self.folder / name).read_bytes() for name in self.names()}
        with self.assertRaises(OSError) as raised:
            function(self.path, b"x" * 100_000)
        self.assertEqual(raised.exception.errno, error, case)
        after = {name: (self.folder / name).read_bytes() for name in self.names()}
        self.assertEqual(before, after, case)

    def test_fullDisk(self) -> None:
        """A file that can't grow, in the middle of it."""
        with smallFiles(50_000):
            for name, function in self.writers:
                self.assertFails(errno.EFBIG, name, function)
        Path(self.path).write_bytes(b"old")
        with smallFiles(50_000):
            for name, function in self.writers[:2]:
                self.assertFails(errno.EFBIG, name, function)

    def test_fullDiskLater(self) -> None:
        """A disk that turns out to be full when the data is put on it."""

        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        self.patch(os, "fsync", full)
        for name, function in self.writers:
            self.assertFails(errno.ENOSPC, name, function)

    def test_noRename(self) -> None:
        """A system that refuses the last step."""

        def refuse(*arguments: Any) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        self.patch(os, "replace", refuse)
        self.patch(os, "link", refuse)
        for name, function in self.writers:
            self.assertFails(errno.EPERM, name, function)

    def test_readOnlyFolder(self) -> None:
        """A folder that can't be written to."""
        Path(self.path).write_bytes(b"old")
        os.chmod(self.path, 0o644)
        os.chmod(self.folder, 0o555)
        self.addCleanup(os.chmod, self.folder, 0o755)
        if os.geteuid() == 0:
            # The way to the folder has to be open; that back need not be, for nobody.
            self.addCleanup(os.chdir, os.getcwd())
            self.addCleanup(os.seteuid, 0)
            os.chdir(self.folder)
            self.folder, self.path = Path("."), "file"
            self.patch(os.path, "realpath", lambda path: path)
            os.seteuid(NOBODY)
        for name, function in (*self.writers, ("empty", lambda path, data: createPrivate("new"))):
            self.assertFails(errno.EACCES, name, function)

    def test_noFolder(self) -> None:
        """A folder that is not there."""
        self.path = str(self.folder / "no" / "such")
        for name, function in self.writers:
            self.assertFails(errno.ENOENT, name, function)

    def test_interrupted(self) -> None:
        """Whatever the body of the ``with`` raises."""
        Path(self.path).write_bytes(b"old")
        for error in (KeyboardInterrupt, ZeroDivisionError, GeneratorExit):
            with self.assertRaises(error), replacing(self.path) as file:
                file.write(b"half of a li")
                raise error
            self.assertEqual((self.read(), self.names()), (b"old", ["file"]))

    def test_otherOwner(self) -> None:
        """A file that belongs to another user is not taken away from them."""
        Path(self.path).write_bytes(b"old")
        found = list(os.stat(self.path))
        # Nobody has it; and the superuser may give files to anybody.
        found[stat.ST_UID] = NOBODY - 1

        def refuse(*arguments: Any) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        self.patch(os, "fchown", refuse)
        other = os.stat_result(found)
        with self.assertRaises(OtherOwner):
            writePrivate(self.path, b"new", former=other)
        self.assertEqual((self.read(), self.names()), (b"old", ["file"]))
        # Another group is no reason.
        found[stat.ST_UID], found[stat.ST_GID] = os.stat(self.path).st_uid, NOBODY - 1
        with open(self.path, "rb") as file:
            keepOwner(file.fileno(), os.stat_result(found))


class LockTests(FilesTestCase):
    """Keeping others out."""

    def test_lock(self) -> None:
        """One at a time, also within a process."""
        with open(self.path, "w") as one, open(self.path) as other:
            self.assertTrue(lock(one.fileno(), wait=False))
            self.assertFalse(lock(other.fileno(), wait=False))
            one.close()
            self.assertTrue(lock(other.fileno(), wait=True))

    def test_noLocks(self) -> None:
        """A system without `fcntl` says so."""
        self.patchModules({"fcntl": None})
        with open(self.path, "w") as file, self.assertRaises(OSError) as raised:
            lock(file.fileno(), wait=False)
        self.assertEqual(raised.exception.errno, errno.ENOSYS)

    def patchModules(self, modules: dict[str, Any]) -> None:
        """Let modules be missing."""
        from unittest import mock

        patcher = mock.patch.dict("sys.modules", modules)
        patcher.start()
        self.addCleanup(patcher.stop)


class ExposureTests(FilesTestCase):
    """What others may not do."""

    def test_exposure(self) -> None:
        """The mode, and what to run, for files and folders."""
        Path(self.path).touch()
        for path, mode, forbidden, expected in (
            (self.path, 0o600, 0o077, None),
            (self.path, 0o400, 0o077, None),
            (self.path, 0o644, 0o022, None),
            (self.path, 0o644, 0o077, f"Others (mode 0644). Run: chmod 600 {self.path}"),
            (self.path, 0o622, 0o022, f"Others (mode 0622). Run: chmod 600 {self.path}"),
            (str(self.folder), 0o701, 0o077, f"Others (mode 0701). Run: chmod 700 {self.folder}"),
        ):
            os.chmod(path, mode)
            self.assertEqual(exposure(path, os.stat(path), "Others", forbidden), expected)
