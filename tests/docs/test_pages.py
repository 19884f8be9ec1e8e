"""The documentation: it can be read, and what it shows is what is run."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Any
from unittest import mock

from attrs import fields_dict
from docutils import nodes
from twisted.trial.unittest import SynchronousTestCase

from pbauth.audit.events import KINDS
from pbauth.cli import main
from pbauth.login.policy import LISTABLE, Policy
from pbauth.server.metrics import Metrics
from pbauth.tap import Options
from tests.stress.__main__ import SCENARIOS
from tests.support.pages import (
    DOCS,
    PAGES,
    ROOT,
    read,
)


class PageTests(SynchronousTestCase):
    """The README and the pages under docs."""

    def test_noWarnings(self) -> None:
        """All pages are good reStructuredText."""
        self.assertGreater(len(PAGES), 30)
        for page in [ROOT / "README.rst", *PAGES]:
            document, warnings = read(page)
            self.assertEqual(warnings, "", page)
            self.assertTrue(document.children)

    def test_reached(self) -> None:
        """From the index one comes to all pages, and to each once."""
        reached, waiting = [], [DOCS / "index.rst"]
        while waiting:
            page = waiting.pop()
            reached.append(page)
            document, _ = read(page)
            for each in document.findall(nodes.comment):
                if "toctree" in each["classes"]:
                    waiting.append(page.parent / f"{each.astext()}.rst")
        self.assertEqual(sorted(reached), sorted(PAGES))

    def test_parts(self) -> None:
        """Each of the four parts has an index, and all pages but three are in one of them."""
        parts = {"tutorial", "howto", "reference", "explanation"}
        for part in parts:
            self.assertTrue((DOCS / part / "index.rst").exists(), part)
        others = {page.name for page in DOCS.glob("*.rst")}
        self.assertEqual(others, {"index.rst", "changes.rst", "contributing.rst"})

    def test_programs(self) -> None:
        """Python is included from files that are run, never written into a page."""
        for page in PAGES:
            self.assertNotRegex(page.read_text(), r"code-block:: (python|py)\b", page)

    def test_listings(self) -> None:
        """The table of programs names all there are, and no others."""
        text = (DOCS / "index.rst").read_text().partition("Programs to start from")[2]
        named = set(re.findall(r"``(\w+\.(?:py|cfg|service|toml|passwd|jsonl|csv|ini))``", text))
        there = {path.name for path in (DOCS / "listings").iterdir() if path.is_file()}
        self.assertEqual(named - there, set())
        tutorial = {name for name in there if name.startswith(("notice_", "pens_"))}
        self.assertEqual(there - named, {"readme_server.py", "readme_client.py"} | tutorial)


class NewsTests(SynchronousTestCase):
    """The fragments of which towncrier makes the page of changes."""

    def test_names(self) -> None:
        """Each has the name of a kind that there is; towncrier leaves out what has another."""
        kinds = re.findall(
            r'^\[\[tool\.towncrier\.type\]\]\ndirectory = "(\w+)"',
            (ROOT / "pyproject.toml").read_text(),
            re.M,
        )
        self.assertEqual(kinds, ["security", "removal", "feature", "bugfix"])
        wrong = [
            path.name
            for path in (DOCS / "newsfragments").iterdir()
            if path.name != ".gitignore"
            and not re.fullmatch(rf"(\+[\w-]+|\d+)\.({'|'.join(kinds)})\.rst", path.name)
        ]
        self.assertEqual(wrong, [])

    def test_content(self) -> None:
        """They are good reStructuredText, without headings or bullets of their own."""
        for path in (DOCS / "newsfragments").glob("*.rst"):
            document, warnings = read(path)
            self.assertEqual(warnings, "", path)
            kinds = {type(each) for each in document.children}
            self.assertLessEqual(kinds, {nodes.paragraph, nodes.literal_block}, path)


class ContributingPageTests(SynchronousTestCase):
    """The page for those who change pbauth."""

    def setUp(self) -> None:
        self.text = (DOCS / "contributing.rst").read_text()
        self.project = (ROOT / "pyproject.toml").read_text()

    def test_files(self) -> None:
        """The files and folders that it names are there, in the page and in the README."""
        seen = 0
        for page in (self.text, (ROOT / "README.rst").read_text()):
            for name in re.findall(r"``((?:pbauth|tests|docs|\.github|\.ci)/[\w./]*)``", page):
                if "NAME" not in name:
                    seen += 1
                    self.assertTrue((ROOT / name).exists(), name)
        self.assertGreater(seen, 30)

    def test_environments(self) -> None:
        """Its table has the environments of tox, and no others."""
        table = self.text.partition("environment  ")[2].partition("\n\n")[0]
        self.assertEqual(
            re.findall(r"^``(\w+)``", table, re.M),
            sorted(
                re.findall(r"^\[tool\.tox\.env\.(\w+)\]$", self.project, re.M),
                key=table.find,
            ),
        )

    def test_setUp(self) -> None:
        """One command sets up a checkout, the same one wherever it is named."""
        command = (
            "python3 -m venv .venv && .venv/bin/pip install -e '.[dev]' && "
            ".venv/bin/trial -j2 tests"
        )
        for path in ("README.rst", "docs/contributing.rst", ".github/CONTRIBUTING.md"):
            self.assertIn(command, (ROOT / path).read_text(), path)

    def test_workflow(self) -> None:
        """The workflow installs what the tests use, and runs tests that exist."""
        script = (ROOT / ".ci" / "run").read_text()
        wanted = set(re.findall(r"^    \[([\w-]+)\]=", script, re.M)) - {"bash"}
        workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text()
        for name in re.findall(r"tests(?:\.\w+)+", workflow):
            self.assertTrue(find_spec(name), name)
        (named,) = re.findall(r"apt-get install -y -q ([^:]+?)\n\s*- run", workflow)
        self.assertEqual(set(named.split()), wanted)


class ThreatPagesTests(SynchronousTestCase):
    """The pages that say who gains what, and what that costs."""

    def test_tests(self) -> None:
        """The tests that they name are there."""
        sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
        there = set(re.findall(r"def (test_\w+)\(", sources))
        for page in ("mechanisms.rst", "attacks.rst"):
            named = set(re.findall(r"``(test_\w+)``", (DOCS / "reference" / page).read_text()))
            self.assertGreater(len(named), 20, page)
            self.assertEqual(named - there, set(), page)

    def test_scripts(self) -> None:
        """So are the scripts and the fields of the policy that the page of attacks names."""
        text = (DOCS / "reference" / "attacks.rst").read_text()
        scripts = set(re.findall(r"``python -m tests\.stress (\w+)``", text))
        self.assertEqual(scripts, set(SCENARIOS))
        fields = set(re.findall(r"``Policy\.(\w+)``", text))
        self.assertGreater(len(fields), 5)
        self.assertEqual(fields - fields_dict(Policy).keys(), set())

    def test_mechanisms(self) -> None:
        """One has a section for each mechanism."""
        text = (DOCS / "reference" / "mechanisms.rst").read_text()
        for name in LISTABLE | {"PB-MD5"}:
            self.assertIn(f"\n``{name}``\n---", text)


class MonitoringPageTests(SynchronousTestCase):
    """The page that says what an operator can see."""

    def rows(self, table: int) -> list[list[Any]]:
        """The cells of a table of the page."""
        document, _ = read(DOCS / "howto" / "monitoring.rst")
        body = list(document.findall(nodes.tbody))[table]
        return [list(row.children) for row in body.children]

    def test_events(self) -> None:
        """Its table has each kind of event, with all that it holds."""
        words = {
            "where": {"host", "port", "connection"},
            "session": {"identity", "service", "perspective", "mechanism", "session"},
        }
        told = {}
        for name, _, holds in self.rows(0):
            fields = {each.astext() for each in holds.findall(nodes.literal)}
            for word in holds.findall(nodes.emphasis):
                fields |= words[word.astext()]
            told[name.astext()] = fields
        self.assertEqual(told, {name: set(kind.fields) for name, kind in KINDS.items()})

    def test_metrics(self) -> None:
        """Its table has each metric, of the right kind."""
        told = {
            name.astext().removesuffix("_total"): kind.astext() for name, kind, _ in self.rows(1)
        }
        del told["process_..."]
        there = {
            family.name: family.type for family in Metrics([], [], mock.Mock(hears=True)).collect()
        }
        self.assertEqual(told, there)


class OptionTablesTests(SynchronousTestCase):
    """The tables of options and subcommands, which are in the reference and nowhere else."""

    def test_server(self) -> None:
        """Every option of `twistd pbauth` is in the table of its page."""
        text = (DOCS / "reference" / "twistd.rst").read_text()
        for option in Options().longOpt:
            name = option.rstrip("=")
            if name not in ("help", "version"):
                self.assertRegex(text, f"``--{name}[ `]")

    def test_command(self) -> None:
        """So is every subcommand of `pbauth`."""
        text = (DOCS / "reference" / "command.rst").read_text()
        for name, command in main.commands.items():
            if hasattr(command, "commands"):
                for verb in command.commands:
                    self.assertRegex(text, rf"``{name} [a-z|]*\b{verb}\b")
            else:
                self.assertIn(f"``{name}", text)

    def test_connecting(self) -> None:
        """And every option of `pbauth call` and `pbauth passwd`, which are for connecting."""
        text = (DOCS / "reference" / "command.rst").read_text()
        for option in main.commands["passwd"].params:
            for name in option.opts:
                if name.startswith("--"):
                    self.assertIn(f"``{name}", text)


class ReadmeTests(SynchronousTestCase):
    """What the README shows."""

    def setUp(self) -> None:
        self.text = (ROOT / "README.rst").read_text()
        self.document, _ = read(ROOT / "README.rst")
        self.blocks = [block.astext() for block in self.document.findall(nodes.literal_block)]

    def test_programs(self) -> None:
        """Its server and its client are the programs that the tests run."""
        for name in ("readme_server.py", "readme_client.py"):
            program = (DOCS / "listings" / name).read_text()
            self.assertIn(program.rstrip("\n"), self.blocks)

    def test_commands(self) -> None:
        """The two commands that set up and run the demonstration and the tests."""
        for command in (
            "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/pbauth demo",
            "python3 -m venv .venv && .venv/bin/pip install -e '.[dev]' && "
            ".venv/bin/trial -j2 tests",
        ):
            self.assertIn(command, self.blocks)

    def test_packages(self) -> None:
        """The system packages that it names are those that continuous integration installs."""
        script = (ROOT / ".ci" / "run").read_text()
        wanted = set(re.findall(r"^    \[([\w-]+)\]=", script, re.M)) - {"bash"}
        (command,) = re.findall(r"``apt-get install ([^`]+)``", self.text)
        self.assertEqual(set(command.split()), wanted)

    def test_firstRun(self) -> None:
        """The server starts before there are accounts, so that it creates an administrator."""
        (block,) = (each for each in self.blocks if "pbauth user add" in each)
        self.assertLess(block.index("twistd -n pbauth"), block.index("pbauth user add"))

    def test_length(self) -> None:
        """It fits on three screens: the tables of options are in the reference."""
        self.assertLess(len(self.text.splitlines()), 140)

    def test_files(self) -> None:
        """Files and folders that it names are there."""
        for name in re.findall(r"``(docs[/\w]*(?:\.\w+)?)``", self.text):
            self.assertTrue((ROOT / name).exists(), name)

    def test_topLevel(self) -> None:
        """The top level holds what the packaging expects, and nothing else that is not hidden."""
        found = {path.name for path in ROOT.iterdir() if not path.name.startswith((".", "_"))}
        found -= {"build", "dist", "pbauth-state"}
        self.assertEqual(
            found, {"pyproject.toml", "README.rst", "LICENSE", "twisted", "pbauth", "tests", "docs"}
        )
        plugin = [path.relative_to(ROOT).as_posix() for path in (ROOT / "twisted").rglob("*.py")]
        self.assertEqual(plugin, ["twisted/plugins/pbauth_plugin.py"])
