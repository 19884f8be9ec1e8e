"""What a process takes, as Linux tells it."""

from __future__ import annotations

import os
import resource

#: Bytes.
MEBIBYTE = 2**20


def sizeOf(pid: int) -> int:
    """The bytes of memory of a process (RSS)."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def forgetPeakOf(pid: int) -> None:
    """Begin anew with `peakOf`."""
    with open(f"/proc/{pid}/clear_refs", "w") as file:
        file.write("5")


def peakOf(pid: int) -> int:
    """The most bytes of memory that a process had since `forgetPeakOf`."""
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    raise ValueError("The system does not tell the peak of the memory.")


def secondsOf(pid: int) -> float:
    """The seconds of CPU that a process has taken."""
    with open(f"/proc/{pid}/stat") as file:
        # The name, which may hold anything, is in parentheses.
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def allowMany() -> None:
    """Let this process open as many connections as the system allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def addressOf(number: int, network: int) -> str:
    """
    A loopback address of its own for each of many clients.

    Args:
        number: of the client.
        network: which of 256 networks, of 65,000 clients each.
    """
    place = number % 65_000
    return f"127.{network}.{place // 250}.{place % 250 + 1}"
