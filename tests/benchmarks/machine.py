"""On what it was measured."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from OpenSSL import SSL
from twisted.internet import reactor

_DISTRIBUTIONS = (
    "pbauth",
    "Twisted",
    "pyOpenSSL",
    "cryptography",
    "foolscap",
    "Pyro5",
    "serpent",
    "rpyc",
    "grpcio",
)


def describe(cores: tuple[int | None, int | None]) -> dict[str, Any]:
    """
    Args:
        cores: of servers and of clients.

    Returns:
        The machine and the versions of what runs on it.
    """
    found = {}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "serverCore": cores[0],
        "clientCore": cores[1],
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        # The processes choose theirs in the same way.
        "reactor": type(reactor).__name__,
        "load": round(os.getloadavg()[0], 2),
        "openssl": SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode(),
        "versions": found,
    }


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
