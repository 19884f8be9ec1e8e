"""What shells complete."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any

from click.testing import CliRunner
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from pbauth import Hashing, SQLAuthorizer
from pbauth.cli import main
from pbauth.cli.completion import _WORD, _before
from tests.support.processes import Program

PBAUTH = ("-c", "import sys; sys.argv[0] = 'pbauth'; from pbauth.cli import main; main()")


class ScriptTests(SynchronousTestCase):
    """The scripts for shells."""

    def test_scripts(self) -> None:
        """Each shell has its own."""
        for shell, said in [
            ("bash", "complete -o nosort -F _pbauth_completion pbauth"),
            ("zsh", "#compdef pbauth"),
            ("fish", "complete --no-files --command pbauth"),
        ]:
            ran = CliRunner().invoke(main, ["completion", shell])
            self.assertEqual(ran.exit_code, 0)
            self.assertIn(said, ran.output)
            self.assertIn("_PBAUTH_COMPLETE", ran.output)
        self.assertEqual(CliRunner().invoke(main, ["completion", "csh"]).exit_code, 2)

    def test_before(self) -> None:
        """A name to begin behind, for all names that begin with a text."""
        for text in ("a", "ab", "b\U0010ffff", "\u0000", "\ue000", "z", "é"):
            before = _before(text)
            for name in (text, text + "a", text + "\U0010ffff"):
                self.assertLess(before, name)
        self.assertEqual(_before(""), "")


class NameTests(TestCase):
    """Names, from the accounts."""

    async def setUp(self) -> None:  # type: ignore[override]
        self.state = os.path.abspath(self.mktemp())
        os.mkdir(self.state, 0o700)
        accounts = SQLAuthorizer(
            os.path.join(self.state, "accounts.sqlite"), hashing=Hashing.CHEAPEST
        )
        for name in ("alice", "albert", "al", "bob"):
            identity = accounts.createIdentity(name)
            identity.addKeyByString("game", name)
            await identity.save()
        accounts.close()

    async def complete(self, line: str, shell: str = "bash") -> list[str]:
        """Complete a line, as a shell does; give what is offered."""
        words = ["pbauth", *line.split(" ")]
        program = Program(
            *PBAUTH,
            forked=True,
            _PBAUTH_COMPLETE=f"{shell}_complete",
            COMP_WORDS=" ".join(words),
            COMP_CWORD=str(len(words) - 1),
        )
        self.addCleanup(program.stop)
        await program.whenEnded()
        self.assertEqual(program.exitCode, 0, program.output)
        return [each.partition(",")[2] for each in program.output.split()]

    async def test_names(self) -> None:
        """Users and services; silently nothing where that can't be known."""
        nowhere = os.path.join(self.state, "nowhere")
        folder = os.path.join(self.state, "folder")
        os.mkdir(folder)
        broken = os.path.join(folder, "accounts.sqlite")
        with open(broken, "wb") as file:
            file.write(b"no database" * 100)
        here = f"--state {self.state}"
        cases: list[tuple[str, list[str]]] = [
            (f"{here} user lock al", ["al", "albert", "alice"]),
            (f"{here} user lock ", ["al", "albert", "alice", "bob"]),
            (f"{here} key list x", []),
            (f"{here} who-can ", ["admin", "game"]),
            (f"{here} key grant alice g", ["game"]),
            (f"--accounts sqlite:{self.state}/accounts.sqlite user keys b", ["bob"]),
            (f"--state {nowhere} user lock a", []),
            (f"--state {folder} user lock a", []),
            ("--accounts postgresql://127.0.0.1:1/x user lock a", []),
            ("--server tls:127.0.0.1:1 user lock a", []),
            ("who", ["who-can"]),
        ]
        found: Any = await gatherResults(
            [Deferred.fromCoroutine(self.complete(line)) for line, _ in cases]
        )
        for (line, names), offered in zip(cases, found, strict=True):
            self.assertEqual(offered, names, line)
        self.assertFalse(os.path.exists(nowhere))

    async def test_oneWord(self) -> None:
        """A name that a shell would read as anything else than one word is not offered."""
        accounts = SQLAuthorizer(
            os.path.join(self.state, "accounts.sqlite"), hashing=Hashing.CHEAPEST
        )
        fit = ["x-1", "x@example.org", "x_y", "xé", "x+z=%"]
        unfit = ["x$(id)", "x[1]", "x{a,b}"]
        unfit += [f"x{each}y" for each in "\"' `;*?|&<>!#^~:\\"]
        for name in fit + unfit:
            # They may be older than the rule for new names.
            await accounts.identityClass(name, accounts).save()
        accounts.close()
        offered = await self.complete(f"--state {self.state} user lock x")
        self.assertEqual(sorted(offered), sorted(fit))
        for name in ("-x", "=ls", "~root", "%1", "+x", "x\u00a0y", ""):
            self.assertIsNone(_WORD.fullmatch(name), name)

    async def test_bash(self) -> None:
        """In a real bash, by the script."""
        bash = shutil.which("bash")
        if bash is None:
            raise SkipTest("There is no bash here.")
        script = CliRunner().invoke(main, ["completion", "bash"]).output
        line = f"pbauth --state {self.state} user lock ali"
        program = Program(
            "-c",
            f"{script}\nCOMP_WORDS=({line}); COMP_CWORD=5\n"
            '_pbauth_completion pbauth; echo "offered: ${COMPREPLY[*]}"',
            executable=bash,
            # Where pip has put the command, whether or not the environment is active.
            PATH=os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]),
        )
        self.addCleanup(program.stop)
        await program.whenEnded()
        self.assertIn("offered: alice", program.output)
