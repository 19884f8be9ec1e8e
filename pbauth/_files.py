"""
Private files, written atomically: accounts, keys, exports, known servers.

A file that is written here is whole or not there, whatever happens meanwhile: a full disk, a kill,
a power failure.  It is written under another name in the same folder, put on the disk, and then
takes its own name, which is put on the disk, like its contents.  It is for its owner only.  If
anything fails, what was there before stays, and no draft is left; only a process that is killed
leaves one.

Whatever the system refuses is its own `OSError`; callers put it into words.  The functions block,
for as long as a disk may take.  They are for POSIX; on other systems this module can be imported.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO


def giveToFolder(descriptor: int, path: str) -> None:
    """
    Give a new file to the owner of its folder, if that is somebody else: what root's command makes
    in the folder of a server must be the server's.

    Args:
        descriptor: of the file.
        path: of it.
    """
    folder = os.stat(os.path.dirname(path) or ".")
    # Anybody may write to a folder like /tmp; its owner does not own what is in it.
    if os.geteuid() == 0 and folder.st_uid != 0 and not folder.st_mode & stat.S_IWOTH:
        os.fchown(descriptor, folder.st_uid, folder.st_gid)


#: The path of a file.
AnyPath = str | os.PathLike[str]


class OtherOwner(PermissionError):
    """A file belongs to another user, and can't be given to them."""


class ForeignLink(PermissionError):
    """Another user has made a link that stands in a path."""

    def __init__(self, link: str) -> None:
        super().__init__(errno.EPERM, f"{link} is a link that another user has made")


@contextmanager
def replacing(path: str) -> Iterator[BinaryIO]:
    """
    Write a file in the body of the ``with``. At its end it takes its name, and the place of a file
    that has it, unless the body fails. If it is a link, its target is replaced.

    Args:
        path: of the file.

    Returns:
        The file, to be written to.

    Raises:
        ForeignLink: there is a link in the path that another user has made.
        OSError: it can't be written, or what is there is no file.
    """
    path = _target(path)
    with _draft(path, None) as (name, file):
        yield file
        _sync(file)
        os.replace(name, path)
        _syncFolder(path)


def writePrivate(
    path: str,
    data: bytes,
    *,
    former: os.stat_result | None = None,
    draft: str | None = None,
) -> os.stat_result:
    """
    Write a file, or replace it. If it is a link, its target is replaced.

    Args:
        path: of the file.
        data: what it is to hold.
        former: of the file that is replaced: its owner and group are kept, and its mode, as far as
            that is for the owner only. `None`: it is made for the user of this process, or by root
            for the owner of the folder.
        draft: the name to write under, for callers that keep others out by a lock: what one that
            was killed has left there is removed. `None`: a name that nobody else has.

    Returns:
        What the system tells about the new file.

    Raises:
        OtherOwner: the file belongs to somebody else, and can't be given to them.
        ForeignLink: there is a link in the path that another user has made.
        OSError: it can't be written.
    """
    path = _target(path)
    with _draft(path, draft) as (name, file):
        if former is not None:
            keepOwner(file.fileno(), former)
            os.fchmod(file.fileno(), stat.S_IMODE(former.st_mode) & 0o600)
        else:
            giveToFolder(file.fileno(), path)
        file.write(data)
        _sync(file)
        os.replace(name, path)
        _syncFolder(path)
        return os.fstat(file.fileno())


def createPrivate(path: str, data: bytes = b"") -> bool:
    """
    Write a file, unless there is one of its name. Of several who do that at once, one does it.

    Args:
        path: of the file.
        data: what it is to hold.

    Returns:
        Whether it was written; otherwise one was there.

    Raises:
        OSError: it can't be written.
    """
    if not data:
        # It is whole at once, even where a file can't have two names.
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            return False
        try:
            giveToFolder(descriptor, path)
        finally:
            os.close(descriptor)
        return True
    with _draft(path, None) as (name, file):
        file.write(data)
        giveToFolder(file.fileno(), path)
        _sync(file)
        try:
            os.link(name, path)
        except FileExistsError:
            return False
        _syncFolder(path)
        return True


def exposure(path: str, found: os.stat_result, what: str, forbidden: int = 0o077) -> str | None:
    """
    Return whether others may do with a file or a folder what only its owner may: by its mode, as
    its owner, or by a link that leads to it.

    Root administers the files of other users: it may use any folder, files that belong to the
    owner of their folder, and those in a folder that root alone can write to. Any other file of
    another user is one that this user may have put there.

    Args:
        path: of it.
        found: what the system tells about it.
        what: they could do; for the message.
        forbidden: the bits of a mode that allow it.

    Returns:
        What is wrong, and what to do about it; `None` if nothing is.
    """
    mode = stat.S_IMODE(found.st_mode)
    if mode & forbidden:
        private = "700" if stat.S_ISDIR(found.st_mode) else "600"
        return f"{what} (mode {mode:04o}). Run: chmod {private} {path}"
    user = _user()
    folder = os.path.dirname(os.path.realpath(path))
    around = os.stat(folder)
    owner = around.st_uid if user == 0 else user
    onlyRoot = around.st_uid == 0 and not around.st_mode & 0o022
    administered = user == 0 and (onlyRoot or stat.S_ISDIR(found.st_mode))
    if user is not None and not administered and found.st_uid not in (0, owner):
        return f"{what}: it belongs to another user ({found.st_uid}). Run: chown {owner} {path}"
    link = foreignLink(path)
    if link is not None:
        return f"{what}: {link} is a link that another user has made. Name the target itself."
    mode = stat.S_IMODE(around.st_mode)
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        return (
            f"Other users can replace {path}, since they can write to its folder "
            f"(mode {mode:04o}). Run: chmod o-w {folder}"
        )
    return None


def readPrivate(path: AnyPath, what: str, most: int) -> bytes:
    """
    Read a file that holds a secret of its owner.

    Args:
        path: of the file.
        what: the secret is, for messages.
        most: how many bytes to read at most.

    Raises:
        ValueError: it can't be read, or others can read or replace it.
    """
    data, problem = readAndLook(path, what, most)
    if problem is not None:
        raise ValueError(problem)
    return data


def readAndLook(path: AnyPath, what: str, most: int = -1) -> tuple[bytes, str | None]:
    """
    Read a file that may hold a secret of its owner: what is in it tells.

    Args:
        path: of the file.
        what: the secret is, for messages.
        most: how many bytes to read at most; negative: all.

    Returns:
        What is in it; and whether others can read or replace it (see `exposure`).

    Raises:
        ValueError: it can't be read.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            found = os.fstat(file.fileno())
            problem = exposure(name, found, f"Other users can read the {what} in {name}")
            return file.read(most), problem
    except OSError as error:
        raise ValueError(f"Can't read {name}: {error.strerror}.") from None


def foreignLink(path: str) -> str | None:
    """
    Find a link that leads where somebody else wants it to lead: one in a folder that others can
    write to, made by another user than this one and root.

    Args:
        path: of a file or a folder, which need not exist.

    Returns:
        The path of the link; `None`: there is none.
    """
    user = _user()
    if user is None:
        return None
    rest = os.path.abspath(path).split(os.sep)[1:]
    place, seen = os.sep, 0
    while rest:
        name = rest.pop(0)
        if name in ("", os.curdir):
            continue
        if name == os.pardir:
            place = os.path.dirname(place)
            continue
        here = os.path.join(place, name)
        try:
            found = os.lstat(here)
            if not stat.S_ISLNK(found.st_mode):
                place = here
                continue
            folder = os.lstat(place)
            target = os.readlink(here)
        except OSError:
            # Nothing is there, or can't be reached: there is no link to follow.
            return None
        seen += 1
        if (folder.st_mode & 0o022 and found.st_uid not in (0, user)) or seen > _MOST_LINKS:
            return here
        rest = [*target.split(os.sep), *rest]
        if os.path.isabs(target):
            place = os.sep
    return None


# As many as the system follows, or more.
_MOST_LINKS = 40


def _user() -> int | None:
    """Return who runs this process; `None` where there are no such users."""
    return os.geteuid() if hasattr(os, "geteuid") else None


def _target(path: str) -> str:
    """Return the path of what is to be replaced, behind links that can be trusted."""
    link = foreignLink(path)
    if link is not None:
        raise ForeignLink(link)
    path = os.path.realpath(path)
    with suppress(FileNotFoundError):
        # Root could put a file in the place of a device, which all others use.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError(errno.EINVAL, "This is not a regular file", path)
    return path


def keepOwner(descriptor: int, former: os.stat_result) -> None:
    """
    Give a file to the owner and the group of another one: an administrator's command must not take
    a file away from the server.

    Args:
        descriptor: of the file.
        former: what the system tells about the other one.

    Raises:
        OtherOwner: it can't be given to that owner. That it can't be given to a group is no error.
    """
    made = os.fstat(descriptor)
    if (made.st_uid, made.st_gid) == (former.st_uid, former.st_gid):
        return
    try:
        os.fchown(descriptor, former.st_uid, former.st_gid)
    except PermissionError as error:
        if made.st_uid != former.st_uid:
            raise OtherOwner(error.errno, "It belongs to another user") from None


def lock(descriptor: int, *, wait: bool) -> bool:
    """
    Keep others out, in whatever process, until the file is closed.

    Args:
        descriptor: of a file that stays: not of one that is replaced.
        wait: for others that have it locked.

    Returns:
        Whether it is locked now; otherwise it is by somebody else.

    Raises:
        OSError: files can't be locked on this system.
    """
    try:
        import fcntl
    except ImportError:
        raise OSError(errno.ENOSYS, "Files can't be locked on this system") from None
    # `flock`, not `lockf`: two in one process must exclude each other.
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _draft(path: str, name: str | None) -> Iterator[tuple[str, BinaryIO]]:
    if name is None:
        descriptor, name = tempfile.mkstemp(dir=os.path.dirname(path) or ".", prefix=".draft-")
    else:
        with suppress(FileNotFoundError):
            os.unlink(name)
        descriptor = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield name, file
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _syncFolder(path: str) -> None:
    descriptor = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
