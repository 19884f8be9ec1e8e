"""Docstrings: whatever is public says in a sentence what it does, before arguments and results."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import pbauth
from tests.support.sources import nodesOf

PACKAGE = Path(pbauth.__file__).parent

#: A sentence: a capital letter, and in the same paragraph a full stop.
SENTENCE = re.compile(r"(?!(Args|Attributes|Raises|Returns|Fires)\b)[A-Z].*?\.(\s|$)", re.DOTALL)

#: What the docstring of a function does not begin with: it says what the function does.
NOT_A_VERB = re.compile(
    r"(A|All|An|As|At|Both|Each|For|Give a Deferred|How|If|In|It|Its|No|None|Nothing|On|Other"
    r"|Say whether|Tell whether|That|The|These|They|This|What|Where|Whether|Which|Who)\b"
)

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def definitions(body: list[ast.stmt], owner: str = "") -> Iterator[tuple[str, Definition]]:
    """Yield the functions, methods and classes of a module, with their dotted names."""
    for node in body:
        if isinstance(node, Definition):
            yield owner + node.name, node
        if isinstance(node, ast.ClassDef):
            yield from definitions(node.body, f"{owner}{node.name}.")
        elif isinstance(node, (ast.If, ast.Try, ast.With)):
            yield from definitions(node.body, owner)


def needsDocstring(name: str, node: Definition) -> bool:
    """Return whether a definition is public, and its docstring not at another one of that name."""
    decorators = {ast.unparse(each) for each in node.decorator_list}
    other = any(each.endswith((".setter", "overload")) for each in decorators)
    return not other and not any(part.startswith("_") for part in name.split("."))


def opensWell(docstring: str) -> bool:
    """Return whether a docstring begins with a sentence."""
    return bool(SENTENCE.match(docstring.partition("\n\n")[0]))


def saysWhatItDoes(node: Definition, docstring: str) -> bool:
    """Return whether a function's docstring begins with a verb; an option's is its help."""
    if isinstance(node, ast.ClassDef) or node.name.startswith("opt_"):
        return True
    return not NOT_A_VERB.match(docstring)


class DocstringTests(SynchronousTestCase):
    """Read every docstring of the package."""

    def test_sentences(self) -> None:
        """All that is public has a docstring; and every docstring begins with a sentence."""
        bad, seen = [], 0
        for path in sorted(PACKAGE.rglob("*.py")):
            for node in nodesOf(path):
                if isinstance(node, ast.Module):
                    for name, each in definitions(node.body):
                        text = ast.get_docstring(each)
                        seen += 1
                        good = opensWell(text) and saysWhatItDoes(each, text) if text else None
                        if not (good or (text is None and not needsDocstring(name, each))):
                            bad.append(f"{path.relative_to(PACKAGE)}: {name}")
        self.assertGreater(seen, 1000)
        self.assertEqual(bad, [])

    def test_properties(self) -> None:
        """No property has a colon in its first line: what is before it, Sphinx shows as a type."""
        bad, seen = [], 0
        for path in sorted(PACKAGE.rglob("*.py")):
            for node in nodesOf(path):
                if isinstance(node, ast.FunctionDef) and "property" in ast.unparse(
                    ast.Module(list(map(ast.Expr, node.decorator_list)), [])
                ):
                    seen += 1
                    if ": " in (ast.get_docstring(node) or "").partition("\n")[0]:
                        bad.append(f"{path.relative_to(PACKAGE)}: {node.name}")
            for first in re.findall(r"(?<!\n)\n +#: (.*)", path.read_text()):
                if re.match(r"[^`]*\w: ", first):
                    bad.append(f"{path.relative_to(PACKAGE)}: #: {first}")
        self.assertGreater(seen, 50)
        self.assertEqual(bad, [])

    def test_opensWell(self) -> None:
        """What is a sentence, and what is none."""
        for text in (
            "Return the name.",
            "End the session\nand say why. Always.\n\nArgs:\n    x: y.",
        ):
            self.assertTrue(opensWell(text), text)
        for text in (
            "Args:\n    name: of a user.",
            "Returns:\n    The name.",
            "Fires with the name.",
            "the name.",
            "The name",
            "The name\n\nOf a user.",
            "`Name` of a user.",
        ):
            self.assertFalse(opensWell(text), text)

    def test_saysWhatItDoes(self) -> None:
        """A function does something; a class is something."""
        kind, function = ast.parse("class C: pass\ndef f(): pass").body
        for text in ("The name.", "Whether it is so.", "As `add`.", "Give a Deferred."):
            self.assertFalse(saysWhatItDoes(function, text), text)  # type: ignore[arg-type]
            self.assertTrue(saysWhatItDoes(kind, text), text)  # type: ignore[arg-type]
        for text in ("Return the name.", "Give each client a name.", "Add one."):
            self.assertTrue(saysWhatItDoes(function, text), text)  # type: ignore[arg-type]
