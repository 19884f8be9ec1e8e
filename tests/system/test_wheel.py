"""The package as people install it: built, installed and run outside the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from email.parser import Parser
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import pbauth
from pbauth.cli.units import FILES

ROOT = Path(__file__).parent.parent.parent


class WheelTests(SynchronousTestCase):
    """
    The source archive, and the wheel that is made of it, without the network.

    Attributes:
        folder: where everything is that the tests make.
        environment: the variables with which pip and pipx find our wheel, and nothing else.
        venv: where a new virtual environment may be, whose commands are on the `PATH`.
    """

    def setUp(self) -> None:
        """Build both."""
        temporary = tempfile.TemporaryDirectory(prefix="pbauth-wheel")
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name).resolve()
        self.venv = self.folder / "venv"
        outside = {name: value for name, value in os.environ.items() if "PYTHON" not in name}
        self.environment = {
            **outside,
            "HOME": str(self.folder),
            # The new environment is activated; pipx is where the tests have it.
            "PATH": os.pathsep.join(
                [f"{self.venv}/bin", os.path.dirname(sys.executable), os.environ["PATH"]]
            ),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_FIND_LINKS": str(self.folder),
            "PIP_NO_INDEX": "1",
            "PIPX_DEFAULT_BACKEND": "pip",
            "PIPX_DISABLE_SHARED_LIBS_AUTO_UPGRADE": "1",
            "PIPX_HOME": str(self.folder / "pipx"),
            "PIPX_BIN_DIR": str(self.folder / "bin"),
            # The pip of the new environment: another one would have to come from the network.
            "PIPX_SHARED_LIBS": str(self.venv),
        }
        hatchling = [sys.executable, "-m", "hatchling", "build", "-d", str(self.folder)]
        self.do(*hatchling, "-t", "sdist", directory=ROOT)
        with tarfile.open(self.archive("*.tar.gz")) as source:
            source.extractall(self.folder)  # noqa: S202 - it is ours
        # That the wheel can be made of it says that the archive is complete.
        self.do(*hatchling, "-t", "wheel", directory=self.archive("pbauth-*[0-9]"))

    def archive(self, pattern: str) -> Path:
        """The one file, or folder, of that name."""
        (found,) = self.folder.glob(pattern)
        return found

    def do(self, *command: str, directory: Path | None = None) -> str:
        """Run a command elsewhere than in the checkout, and return what it prints."""
        done = subprocess.run(
            command,
            cwd=directory or self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise AssertionError(f"{command}: exit code {done.returncode}\n{done.stdout}")
        return done.stdout

    def makeVenv(self) -> None:
        """Make the virtual environment, with the packages that the tests have, without pbauth."""
        self.do(sys.executable, "-m", "venv", "--without-pip", str(self.venv))
        (folder,) = self.venv.glob("lib/python*/site-packages")
        for each in Path(sysconfig.get_path("purelib")).iterdir():
            if each.name == "twisted":
                # The wheel has a plugin that is installed into it.
                left = shutil.ignore_patterns("dropin.cache", "pbauth_plugin*")
                shutil.copytree(each, folder / "twisted", copy_function=os.symlink, ignore=left)
            elif each.suffix != ".pth" and "pbauth" not in each.name:
                (folder / each.name).symlink_to(each)
        pip = self.venv / "bin" / "pip"
        pip.write_text(f'#!/bin/sh\nexec "{self.venv}/bin/python" -m pip "$@"\n')
        pip.chmod(0o700)

    def checkVersion(self, environment: Path, command: Path) -> None:
        """Have a command say its version, which is that of the package in its environment."""
        self.assertEqual(
            self.do(str(command), "--version"), f"pbauth, version {pbauth.__version__}\n"
        )
        find = "from importlib.util import find_spec; print(find_spec('pbauth').origin)"
        where = self.do(str(environment / "bin" / "python"), "-c", find)
        self.assertIn(str(environment), where)

    def test_archives(self) -> None:
        """Both have the version of the package, and the wheel has all that its commands need."""
        self.archive(f"pbauth-{pbauth.__version__}.tar.gz")
        with zipfile.ZipFile(self.archive(f"pbauth-{pbauth.__version__}-*.whl")) as wheel:
            names = wheel.namelist()
            about = f"pbauth-{pbauth.__version__}.dist-info/METADATA"
            metadata = Parser().parsestr(wheel.read(about).decode())
        self.assertEqual(metadata["Version"], pbauth.__version__)
        self.assertIn("pbauth adds logins", str(metadata.get_payload()))
        there = {f"pbauth/server/files/{name}" for name in FILES.values()}
        there |= {"pbauth/py.typed", "twisted/plugins/pbauth_plugin.py"}
        self.assertEqual(there - set(names), set())
        tops = {name.partition("/")[0] for name in names}
        self.assertEqual(tops, {"pbauth", "twisted", about.partition("/")[0]})

    def test_installed(self) -> None:
        """
        The lines of the README that install a release do that, as printed, where pip finds one.

        The environment that pip installs into is also the one whose pip pipx uses. So pipx is
        first: it installs nothing that it finds there.
        """
        lines = re.findall(
            r"^    (pip install pbauth|pipx install pbauth) ",
            (ROOT / "README.rst").read_text(),
            re.M,
        )
        self.assertEqual(len(lines), 2)
        self.makeVenv()
        for line in sorted(lines, reverse=True):
            self.do("sh", "-c", line)
        self.checkVersion(self.folder / "pipx" / "venvs" / "pbauth", self.folder / "bin" / "pbauth")
        self.checkVersion(self.venv, self.venv / "bin" / "pbauth")
        self.do("sh", "-c", "pbauth --help")
        twistd = "from twisted.scripts.twistd import run; run()"
        options = self.do(f"{self.venv}/bin/python", "-c", twistd, "pbauth", "--help")
        self.assertIn("--audit", options)
        # All in one process: to start takes longer than what it does.
        program = """
import sys
from pbauth.cli import main
for kind in sys.argv[1:]:
    main(["print-unit", kind], standalone_mode=False)
    print("=" * 70)
"""
        python = f"{self.venv}/bin/python"
        *printed, rest = self.do(python, "-c", program, *FILES).split(f"{'=' * 70}\n")
        self.assertEqual(rest, "")
        for kind, text in zip(FILES, printed, strict=True):
            self.assertGreater(len(text.splitlines()), 3, kind)
