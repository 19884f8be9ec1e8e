"""Disks that are full, or read-only."""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from twisted.trial.unittest import SynchronousTestCase


@contextmanager
def smallFiles(size: int) -> Iterator[None]:
    """Let no file grow beyond this size, as on a disk that is nearly full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def mountDisk(test: SynchronousTestCase, size: str = "1m") -> str:
    """
    Return the folder of a small disk in memory, which is there until the test ends.

    Args:
        test: that needs it, run by root.
        size: of the disk.
    """
    folder = tempfile.mkdtemp(prefix="pbauth-disk-")
    options = f"size={size},mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)

    def remove() -> None:
        subprocess.run(["umount", folder], check=True)
        os.rmdir(folder)

    test.addCleanup(remove)
    return folder


def makeReadOnly(folder: str) -> None:
    """Mount a disk again, so that nothing can be written."""
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)


def fill(folder: str) -> None:
    """Leave no space on a disk."""
    with suppress(OSError), open(os.path.join(folder, "rest"), "wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
