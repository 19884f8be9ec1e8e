"""
The plan of the package: which floors it has, which module imports which, and a picture of both.

A floor is a folder of ``pbauth``, or a module beside the folders. The page on the architecture
lists the floors from top to bottom, below the directive ``.. floors::``; the imports come from the
code. The test of the floors reads the same list, so page, picture and test can't differ.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from html import escape
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent.parent
PACKAGE = PROJECT / "pbauth"
PAGE = PROJECT / "docs" / "explanation" / "architecture.rst"

#: How the page names the floor of ``pbauth/__init__.py``, which is called ``""`` here.
TOP = "pbauth"

ROW = 19
CELL = 13
HEAD = 96
NAME = 108
WORD = 5.5  # the width of a character of 12 px, in a description

_LINE = re.compile(r"(\w+): +(\S.*)")


class NotAFloor(ValueError):
    """A line of the list can't be read; the message quotes it."""


def readFloors(lines: list[str]) -> dict[str, str]:
    """
    Read the list of the floors.

    Args:
        lines: ``name: what it holds``, top to bottom. Empty lines do not count.

    Returns:
        What each floor holds, by its name, top to bottom.

    Raises:
        NotAFloor: a line is not one of these, or names a floor twice.
    """
    floors: dict[str, str] = {}
    for line in filter(None, map(str.strip, lines)):
        found = _LINE.fullmatch(line)
        name = "" if found and found[1] == TOP else found and found[1]
        if found is None or name is None or name in floors:
            raise NotAFloor(f"not a floor, or listed twice: {line}")
        floors[name] = found[2]
    return floors


def floorsOfPage() -> dict[str, str]:
    """Return the floors as the page on the architecture lists them."""
    _, _, rest = PAGE.read_text().partition("\n.. floors::")
    lines = rest.splitlines()[1:]
    end = next((n for n, line in enumerate(lines) if line and not line.startswith(" ")), len(lines))
    return readFloors(lines[:end])


def modules(package: Path = PACKAGE) -> dict[str, Path]:
    """Return the modules of the package, by name without ``pbauth.``; itself, it is ``""``."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def namesForTypes(nodes: Iterable[ast.AST]) -> set[ast.AST]:
    """
    Return what stands in ``if TYPE_CHECKING:``, which nothing imports when the module runs.

    Args:
        nodes: all nodes of the module, from `ast.walk`.
    """
    return {
        inner
        for node in nodes
        if isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }


def imports(nodes: Collection[ast.AST], known: Mapping[str, Path]) -> Iterator[str]:
    """
    Yield the modules of the package that a module imports, at any depth of its code. Imports for
    the type checker alone do not count.

    Args:
        nodes: all nodes of the module, from `ast.walk`.
        known: the modules of the package, from `modules`.

    Raises:
        ValueError: an import is relative.
    """
    forTypes = namesForTypes(nodes)
    for node in nodes:
        if node in forTypes:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"relative import in line {node.lineno}")
            source = node.module or ""
            names = [
                f"{source}.{alias.name}"
                if f"{source}.{alias.name}".removeprefix("pbauth.") in known
                else source
                for alias in node.names
            ]
        else:
            continue
        for name in names:
            if name == "pbauth" or name.startswith("pbauth."):
                yield name.removeprefix("pbauth").removeprefix(".")


def floorOf(module: str) -> str:
    """Return the floor of a module: its folder, or its own name."""
    return module.partition(".")[0]


def importsBetweenFloors() -> Counter[tuple[str, str]]:
    """Return how many names each floor imports from each other one, as the code has it."""
    known = modules()
    found: Counter[tuple[str, str]] = Counter()
    for module, path in known.items():
        for imported in imports(list(ast.walk(ast.parse(path.read_text()))), known):
            if floorOf(module) != floorOf(imported):
                found[floorOf(module), floorOf(imported)] += 1
    return found


def _shown(floor: str) -> str:
    return floor or TOP


def drawFloors(title: str, floors: dict[str, str], between: Mapping[tuple[str, str], int]) -> str:
    """
    Draw the floors, and beside each of them a mark for each floor that it imports from.

    Args:
        title: what the picture shows, for those who can't see it.
        floors: what each floor holds, by its name, top to bottom.
        between: the number of imports for each pair of floors, the importing one first.

    Returns:
        An SVG element. Marks at the right of the diagonal are imports that run down; an import that
        runs up would be a mark at its left, of the class ``up``.

    Raises:
        KeyError: an import is from or to a floor that is not listed.
    """
    names = list(floors)
    place = {name: number for number, name in enumerate(names)}
    left = NAME + max(len(each) for each in floors.values()) * WORD + 12
    width = left + len(names) * CELL + 12
    height = HEAD + len(names) * ROW + 6
    drawn = []
    for name, number in place.items():
        x, y = left + (number + 0.5) * CELL, HEAD + number * ROW
        drawn.append(
            f'<rect x="1" y="{y}" width="{width - 2:.0f}" height="{ROW - 3}" rx="3" class="floor"/>'
            f'<text x="9" y="{y + 12}" class="name">{escape(_shown(name))}</text>'
            f'<text x="{NAME}" y="{y + 12}" class="holds">{escape(floors[name])}</text>'
            f'<text transform="translate({x + 4:.1f} {HEAD - 6}) rotate(-90)" class="name">'
            f"{escape(_shown(name))}</text>"
            f'<rect x="{x - 5:.1f}" y="{y + 3}" width="10" height="10" class="self"/>'
        )
    for (above, below), count in sorted(between.items()):
        x, y = left + (place[below] + 0.5) * CELL, HEAD + place[above] * ROW + 8
        way = "down" if place[below] > place[above] else "up"
        words = f"{_shown(above)} imports from {_shown(below)}: {count}"
        drawn.append(
            f'<circle cx="{x:.1f}" cy="{y}" r="{min(5, 2 + count**0.5 / 2):.1f}" class="{way}">'
            f"<title>{escape(words)}</title></circle>"
        )
    return (
        f'<svg class="floors" role="img" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" '
        f'height="{height}" style="min-width: min({width:.0f}px, 42rem)" '
        f'xmlns="http://www.w3.org/2000/svg">'
        f"<title>{escape(title)}</title>{''.join(drawn)}</svg>"
    )
