"""The site: what Sphinx makes of the pages, and what it needs for that."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any, ClassVar
from xml.dom import minidom

from docutils import nodes
from docutils.core import publish_doctree
from twisted.application import service
from twisted.cred import checkers, credentials, error, portal
from twisted.spread import pb
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.interface import InterfaceClass

import pbauth
from pbauth.cli import main
from pbauth.login.root import IdentityWrapper
from pbauth.mechanisms.scram import ScramServer
from pbauth.tap import Options
from tests.support.floors import floorplan
from tests.support.goexample import goservice
from tests.support.pages import DOCS, PAGES, ROOT, read

#: Settings of docutils for single lines, of which the directives are Sphinx's.
SILENT = {"report_level": 5, "warning_stream": False}

#: One of our two commands, at the beginning of a line or behind what runs it, and its words.
COMMAND = re.compile(
    r"(?:\$ |ExecStart=\S*/|sudo -u \w+ )?(pbauth|twistd [^|;&>]*?\bpbauth)\b([^|;&>]*)"
)


def commands() -> Iterator[str]:
    """The lines of the README and the pages that may be commands."""
    for page in [ROOT / "README.rst", *PAGES]:
        document, _ = read(page)
        for block in document.findall(nodes.literal_block):
            yield from re.sub(r"\\\n\s*", " ", block.astext()).splitlines()


def mistakes(line: str) -> list[str] | None:
    """
    Args:
        line: that may be a command.

    Returns:
        The words of it that our commands do not know; `None`: it calls none of them.
    """
    found = COMMAND.fullmatch(line.partition("#")[0].strip())
    if found is None:
        return None
    words = found[2].split()
    if found[1] != "pbauth":
        known = {f"--{name.rstrip('=')}" for name in Options().longOpt}
        if "--service go" in line:
            known |= {f"--{name}" for name, *_ in goservice.GoServiceFactory.parameters}
        return [word for word in words if word.startswith("--") and optionOf(word) not in known]
    wrong, command, valueFollows = [], main, False
    for word in words:
        options = {name: each for each in command.params for name in each.opts}
        if word.startswith("--"):
            option: Any = options.get(optionOf(word))
            if option is None and optionOf(word) != "--help":
                wrong.append(word)
            valueFollows = not getattr(option, "is_flag", True) and "=" not in word
        elif valueFollows:
            valueFollows = False
        elif hasattr(command, "commands"):
            if word not in command.commands:
                return [*wrong, word]
            command = command.commands[word]
    return wrong


def optionOf(word: str) -> str:
    """The option, without its value."""
    return word.partition("=")[0]


class CommandTests(SynchronousTestCase):
    """What a reader may type."""

    def test_known(self) -> None:
        """Commands have the subcommands and the options that there are."""
        found = {line: mistakes(line) for line in commands()}
        tried = {line: wrong for line, wrong in found.items() if wrong is not None}
        self.assertGreater(len(tried), 40)
        self.assertEqual({line: wrong for line, wrong in tried.items() if wrong}, {})

    def test_unknown(self) -> None:
        """Others would be noticed."""
        for line, wrong in {
            "pbauth user ad alice": ["ad"],
            "pbauth --state x user add --legcy alice": ["--legcy"],
            "$ pbauth --stat=x user list": ["--stat"],
            "twistd -n pbauth --insecur": ["--insecur"],
            "ExecStart=/opt/bin/twistd -n pbauth --sate x": ["--sate"],
            "from pbauth import connect": None,
        }.items():
            told = mistakes(line)
            self.assertEqual(told and [optionOf(word) for word in told], wrong, line)


class APIPagesTests(SynchronousTestCase):
    """The pages that are made from docstrings."""

    def test_everyName(self) -> None:
        """Each public name is on one of them, once, by the directive that is for its kind."""
        text = "".join(page.read_text() for page in (DOCS / "reference" / "api").glob("*.rst"))
        named = re.findall(
            r"^\.\. (autoclass|autofunction|autoexception|interface):: (\w+)", text, re.M
        )
        self.assertEqual(sorted(name for _, name in named), sorted(pbauth.__all__))
        for kind, name in named:
            value = getattr(pbauth, name)
            if isinstance(value, InterfaceClass):
                expected = "interface"
            elif not isinstance(value, type):
                expected = "autofunction"
            else:
                expected = "autoexception" if issubclass(value, Exception) else "autoclass"
            self.assertEqual(kind, expected, name)


def find(name: str, places: list[Any]) -> Any:
    """What a dotted name means in the first of the places that has it; `None` in none."""
    first, *rest = name.split(".")
    found = next((getattr(each, first) for each in places if hasattr(each, first)), None)
    for part in rest:
        if isinstance(found, InterfaceClass):
            return found.get(part)
        found = getattr(found, part, None)
    return found


class MigrationPageTests(SynchronousTestCase):
    """The page that gives old names their new ones."""

    def names(self, table: int, column: int) -> list[str]:
        """The names in a column of a table."""
        document, _ = read(DOCS / "howto" / "migrating.rst")
        rows = list(document.findall(nodes.tbody))[table].children
        return [
            literal.astext().partition("(")[0].removeprefix("twisted.application.service.")
            for row in rows
            for literal in row.children[column].findall(nodes.literal)
        ]

    def test_newNames(self) -> None:
        """What stands in the middle is there."""
        for table in (0, 1):
            found = self.names(table, 1)
            self.assertGreater(len(found), 10)
            for name in found:
                if name not in ("str", "clientref"):
                    self.assertIsNotNone(find(name, [pbauth, service]), name)

    def test_stockNames(self) -> None:
        """What stands at the left of the first table is in Twisted."""
        for name in self.names(0, 0):
            if name not in ("mind", "logout"):
                places = [pb, portal, checkers, credentials, error]
                self.assertIsNotNone(find(name.removeprefix("pb."), places), name)


class FloorsTests(SynchronousTestCase):
    """The picture of the floors, on the page on the architecture."""

    def test_read(self) -> None:
        """The list is read from top to bottom; the package itself is the floor without a name."""
        lines = ["cli: the command", "", "   pbauth: the public names", "errors: all: of them"]
        self.assertEqual(
            list(floorplan.readFloors(lines).items()),
            [("cli", "the command"), ("", "the public names"), ("errors", "all: of them")],
        )

    def test_mistakes(self) -> None:
        """A line that is no floor, and a floor that is listed twice, are errors."""
        for lines in (["cli"], ["cli: a", "net: b", "cli: c"], ["a floor: b"]):
            with self.assertRaisesRegex(floorplan.NotAFloor, re.escape(lines[-1])):
                floorplan.readFloors(lines)

    def test_drawn(self) -> None:
        """Floors are rows and columns; imports are dots, which say whether they run down."""
        floors = {"cli": "the <command>", "": "the names", "net": "addresses"}
        between = {("cli", ""): 3, ("", "net"): 1, ("net", "cli"): 2}
        drawn = floorplan.drawFloors("The floors", floors, between)
        picture: Any = minidom.parseString(drawn).documentElement  # noqa: S318
        words = [each.firstChild.data for each in picture.getElementsByTagName("text")]
        self.assertEqual(words[:3], ["cli", "the <command>", "cli"])
        self.assertEqual(words[3:6], ["pbauth", "the names", "pbauth"])
        dots = {
            each.getElementsByTagName("title")[0].firstChild.data: each.getAttribute("class")
            for each in picture.getElementsByTagName("circle")
        }
        self.assertEqual(
            dots,
            {
                "cli imports from pbauth: 3": "down",
                "pbauth imports from net: 1": "down",
                "net imports from cli: 2": "up",
            },
        )

    def test_unlisted(self) -> None:
        """An import from a floor that is not listed is an error, not a dot that is missing."""
        with self.assertRaises(KeyError):
            floorplan.drawFloors("The floors", {"cli": "the command"}, {("cli", "net"): 1})

    def test_page(self) -> None:
        """The picture on the page shows the package: all its floors, and no import that runs up."""
        between = floorplan.importsBetweenFloors()
        self.assertGreater(between["login", "errors"], 5)
        drawn = floorplan.drawFloors("The floors", floorplan.floorsOfPage(), between)
        self.assertIn("login imports from errors", drawn)
        self.assertNotIn('class="up"', drawn)


class ArchitecturePageTests(SynchronousTestCase):
    """The page on the architecture names what there is."""

    #: Who takes part in the sequence of a login, and whose methods they have.
    PARTIES: ClassVar[dict[str, tuple[Any, ...]]] = {
        "root": (pbauth.AuthServ, pbauth.AuthChallenger, IdentityWrapper),
        "mechanism": (ScramServer,),
        "authorizer": (pbauth.IAuthorizer,),
        "identity": (pbauth.IIdentity,),
        "service": (pbauth.IService,),
    }

    def setUp(self) -> None:
        self.text = (DOCS / "explanation" / "architecture.rst").read_text()

    def test_sequence(self) -> None:
        """Each call of the picture is a method of the one that it is sent to."""
        calls = re.findall(r"(\w+) -> (\w+): (\w+)\(", self.text)
        self.assertGreater(len(calls), 8)
        for sender, receiver, method in calls:
            name = f"remote_{method}" if sender == "client" else method
            found = [
                find(name, [each]) or self.declared(each, name) for each in self.PARTIES[receiver]
            ]
            self.assertTrue(any(found), f"{receiver}: {name}")

    def declared(self, holder: Any, name: str) -> Any:
        """What an interface declares by that name."""
        return holder.get(name) if isinstance(holder, InterfaceClass) else None

    def test_names(self) -> None:
        """Each dotted name, and each file, is there."""
        known = floorplan.modules()
        names = set(re.findall(r"``([a-z]\w*\.[\w.]+)``", self.text))
        seen = 0
        for name in names:
            if name.partition(".")[0] in floorplan.floorsOfPage():
                seen += 1
                module = max((each for each in known if f"{name}.".startswith(f"{each}.")), key=len)
                rest = name.removeprefix(module).removeprefix(".")
                found = import_module(f"pbauth.{module}")
                self.assertTrue(not rest or find(rest, [found]) is not None, name)
        self.assertGreater(seen, 20)
        for path in re.findall(r"``((?:tests|audit|client|mechanisms)/\w[\w/]*\.py)``", self.text):
            root = ROOT if path.startswith("tests/") else ROOT / "pbauth"
            self.assertTrue((root / path).exists(), path)


class ExtensionTests(SynchronousTestCase):
    """What Sphinx needs of ours. (The build itself is a step of .ci/run.)"""

    def setUp(self) -> None:
        self.patch(sys, "path", list(sys.path))
        self.configuration = runpy.run_path(str(DOCS / "conf.py"))

    def test_configuration(self) -> None:
        """It can be read, and finds its extensions."""
        self.assertEqual(self.configuration["release"], pbauth.__version__)
        for name in self.configuration["extensions"]:
            self.assertTrue(callable(import_module(name).setup), name)

    def test_twistdOptions(self) -> None:
        """Each option of `twistd pbauth` is on its page."""
        lines = "\n".join(import_module("options").describeTwistd())
        for option in Options().longOpt:
            name = option.rstrip("=")
            if name not in ("help", "version"):
                self.assertRegex(lines, rf"\.\. option:: --{name}(\s|$)")

    def test_dashes(self) -> None:
        """An option in a text is literal: elsewhere, Sphinx makes one dash of two hyphens."""
        options = import_module("options")
        for line in (*options.describeTwistd(), *options.describeCommands()):
            if line[:1] != ".":
                outside = re.sub(r"``[^`]*``", "", line)
                shown = line.startswith("   pbauth")
                self.assertTrue(shown or not re.search(r"(?<![\w-])--\w", outside), line)

    def test_noAddresses(self) -> None:
        """What is like an address, in an option or on a page, is no link to write a mail to."""
        lines = import_module("options")
        # A paragraph each.
        described = (*lines.describeTwistd(), *lines.describeCommands())
        text = "\n\n".join(line.strip() for line in described)
        self.assertNotIn("mailto:", publish_doctree(text, settings_overrides=SILENT).pformat())
        for page in PAGES:
            self.assertNotIn('"mailto:', read(page)[0].pformat(), page)

    def test_pbauthCommands(self) -> None:
        """So is each subcommand of `pbauth`, with its options."""
        lines = import_module("options").describeCommands()
        self.assertIn("pbauth user add", lines)
        self.assertIn(".. option:: --password-stdin", lines)
        self.assertIn(".. program:: pbauth call", lines)

    def test_interface(self) -> None:
        """An interface is described with its attributes and methods."""
        lines = "\n".join(import_module("interfaces").describeInterface(pbauth.IService))
        self.assertIn(".. py:class:: IService\n", lines)
        self.assertIn("   .. py:attribute:: perspectives\n", lines)
        self.assertIn("   .. py:method:: getPerspectiveForIdentity(name, identity)\n", lines)

    def test_signatures(self) -> None:
        """In signatures, interfaces have names."""
        nameInterfaces = import_module("interfaces").nameInterfaces
        signature = f"(service: {pbauth.IService!r} | None = None)"
        self.assertEqual(nameInterfaces(signature), "(service: IService | None = None)")
        self.assertIsNone(nameInterfaces(None))

    def test_links(self) -> None:
        """Literals of the pages that are names, or calls, may be links to the API."""
        nameIn = import_module("apilinks").nameIn
        for literal, name in {
            "connect": "connect",
            "pbauth.connect": "connect",
            "Policy(legacyLogin=True)": "Policy",
            "Policy.maxReferences": "Policy.maxReferences",
            "serverOptions": "serverOptions",
            "--trust FILE": None,
            "client": None,
            "user add NAME": None,
        }.items():
            self.assertEqual(nameIn(literal), name, literal)

    def test_outside(self) -> None:
        """Names without a page lead to the documentation of Twisted and Python."""
        addressOf = import_module("outside").addressOf
        twisted, python = (
            "https://docs.twisted.org/en/stable/api/",
            "https://docs.python.org/3/library/",
        )
        for name, address in {
            "twisted.internet.defer.Deferred": f"{twisted}twisted.internet.defer.Deferred.html",
            "twisted.internet._sslverify.KeyPair": f"{twisted}twisted.internet.ssl.KeyPair.html",
            "IReactorTime": f"{twisted}twisted.internet.interfaces.IReactorTime.html",
            "twisted.spread.pb.RemoteReference.callRemote": (
                f"{twisted}twisted.spread.pb.RemoteReference.html#callRemote"
            ),
            "collections.abc.Iterable": f"{python}collections.abc.html#collections.abc.Iterable",
            "twisted.internet.defer.Deffered": None,
            "IReactorTimes": None,
            "most": None,
        }.items():
            self.assertEqual(addressOf(name), address, name)

    def test_known(self) -> None:
        """Others are words, if they are arguments or existing classes; else it is a warning."""
        isKnown = import_module("outside").isKnown
        for name in (
            "most",
            "(name, locked)",
            "Record",
            "KeyError",
            "pbauth.accounts.records.Record",
        ):
            self.assertTrue(isKnown(name, "obj"), name)
        for name in ("Recrod", "pbauth.accounts.records.Recrod", "pbauth.acounts"):
            self.assertFalse(isKnown(name, "obj"), name)
        self.assertFalse(isKnown("most", "class"))

    def test_sequence(self) -> None:
        """A sequence becomes a picture, in which all words find room."""
        sequence = import_module("sequence")
        text = ["a: Alice", "b: Bob <b>", "", "a -> b: hello", "a <- b: yes & no", "note a: good"]
        picture: Any = minidom.parseString(sequence.drawSequence("A talk", text)).documentElement  # noqa: S318
        words = [each.firstChild.data for each in picture.getElementsByTagName("text")]
        self.assertEqual(words, ["Alice", "Bob <b>", "hello", "yes & no", "good"])
        width = float(picture.getAttribute("width"))
        for each in picture.getElementsByTagName("text"):
            if each.getAttribute("class") != "party":
                end = float(each.getAttribute("x")) + len(each.firstChild.data) * sequence.CHARACTER
                self.assertLessEqual(end, width)

    def test_noSequence(self) -> None:
        """What is none is said, with the line."""
        sequence = import_module("sequence")
        for text in (["a: Alice", "what?"], ["a: Alice", "a -> c: hello"]):
            with self.assertRaisesRegex(sequence.NotASequence, re.escape(text[1])):
                sequence.drawSequence("A talk", text)

    def test_protocol(self) -> None:
        """The picture of the login calls methods that there are."""
        text = (DOCS / "reference" / "protocol.rst").read_text()
        for owner, name in re.findall(r"client -> (\w+): (\w+)\(", text):
            if owner != "perspective":
                holder = {"root": pbauth.AuthServ, "challenger": pbauth.AuthChallenger}[owner]
                self.assertTrue(hasattr(holder, f"remote_{name}"), name)
