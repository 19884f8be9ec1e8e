"""The pages of the documentation, read by docutils."""

from __future__ import annotations

import io
import re
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.core import publish_doctree
from docutils.parsers.rst import Directive, directives, roles

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(
    path for path in DOCS.rglob("*.rst") if not {"_build", "newsfragments"} & set(path.parts)
)


class Toctree(Directive):
    """Sphinx's `toctree`, as far as the names of its pages."""

    has_content = True
    option_spec = {"maxdepth": int, "hidden": directives.flag, "caption": str}  # noqa: RUF012

    def run(self) -> list[Any]:
        return [nodes.comment("", line, classes=["toctree"]) for line in self.content if line]


class LiteralInclude(Directive):
    """Sphinx's `literalinclude`: the text of a file, or of a part of it."""

    required_arguments = 1
    option_spec = dict.fromkeys(
        ["language", "caption", "pyobject", "lines", "start-at", "end-at", "end-before"],
        directives.unchanged_required,
    )

    def run(self) -> list[Any]:
        page = Path(self.state.document.settings._source)
        text = (page.parent / self.arguments[0]).read_text()
        for option in ("start-at", "end-at", "end-before"):
            if self.options.get(option, "") not in text:
                raise self.error(f"{self.arguments[0]} does not hold {self.options[option]}")
        for name in self.options.get("pyobject", "").split("."):
            if name and not re.search(rf"(def|class) {name}\b", text):
                raise self.error(f"{self.arguments[0]} has no {name}")
        return [nodes.literal_block(text, text)]


class CodeBlock(Directive):
    """Sphinx's `code-block`, with its caption."""

    required_arguments = 1
    has_content = True
    option_spec = {"caption": directives.unchanged_required}  # noqa: RUF012

    def run(self) -> list[Any]:
        text = "\n".join(self.content)
        return [nodes.literal_block(text, text, classes=[self.arguments[0]], **self.options)]


class Ours(Directive):
    """What Sphinx and our extensions fill in."""

    optional_arguments = 1
    final_argument_whitespace = True
    has_content = True
    option_spec = {"members": directives.flag}  # noqa: RUF012

    def run(self) -> list[Any]:
        return []


def linkToPage(
    role: str, rawtext: str, text: str, lineno: int, inliner: Any, options: Any = None, content=()
) -> Any:
    """Sphinx's `doc`: a link to a page, which has to be there."""
    target = re.sub(r".*<(.*)>$", r"\1", text, flags=re.S)
    page = Path(inliner.document.settings._source)
    base = DOCS / target[1:] if target.startswith("/") else page.parent / target
    if not base.with_suffix(".rst").exists():
        return [], [inliner.reporter.error(f"no page {target}", line=lineno)]
    return [nodes.literal(rawtext, text)], []


directives.register_directive("toctree", Toctree)
directives.register_directive("literalinclude", LiteralInclude)
directives.register_directive("code-block", CodeBlock)
for _name in (
    *("autoclass", "autofunction", "autoexception", "automodule", "py:currentmodule"),
    *(
        "floors",
        "interface",
        "sequence",
        "towncrier-draft-entries",
        "twistd-options",
        "pbauth-commands",
    ),
):
    directives.register_directive(_name, Ours)
roles.register_local_role("doc", linkToPage)


@cache
def read(path: Path) -> tuple[Any, str]:
    """Return the document, which nobody changes, and what docutils has to say about it."""
    warnings = io.StringIO()
    document = publish_doctree(
        path.read_text(),
        source_path=str(path),
        settings_overrides={
            "warning_stream": warnings,
            "report_level": 1,
            "syntax_highlight": "none",
        },
    )
    return document, warnings.getvalue()
