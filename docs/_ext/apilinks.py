"""
Names of the API in the tutorial, the how-to guides and the explanation are links to their pages.

A page writes a name as any other literal, for instance ``connect`` or ``Policy(guest="anybody")``.
If a page of the API documents it, the literal becomes a link.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.util.nodes import make_refnode

#: Which pages have links: those that are read, not those that list the API.
_LINKED = (
    "index",
    "tutorial/",
    "howto/",
    "explanation/",
    "reference/attacks",
    "reference/mechanisms",
)

#: Where the first column of tables has names of other packages.
_OTHERS_FIRST = "howto/migrating"

_NAME = re.compile(
    r"(?:pbauth\.)?([A-Z]\w*(?:\.\w+)?|[a-z]\w*[A-Z]\w*|connect)(?:\(.*\))?", re.DOTALL
)


def nameIn(literal: str) -> str | None:
    """
    Return the name in a literal that the API may have.

    Args:
        literal: its text, which may be a call.

    Returns:
        The name without ``pbauth`` and arguments; `None`: it is something else.
    """
    found = _NAME.fullmatch(literal)
    return found and found[1]


def _inFirstColumn(node: Any) -> bool:
    while node.parent is not None:
        if isinstance(node, nodes.entry):
            return node.parent.index(node) == 0
        node = node.parent
    return False


def _onResolved(app: Any, doctree: Any, docname: str) -> None:
    if not docname.startswith(_LINKED):
        return
    objects = app.env.get_domain("py").objects
    for literal in list(doctree.findall(nodes.literal)):
        name = nameIn(literal.astext())
        entry = objects.get(f"pbauth.{name}")
        if entry is None or isinstance(literal.parent, nodes.reference):
            continue
        if docname == _OTHERS_FIRST and _inFirstColumn(literal):
            continue
        link = make_refnode(
            app.builder, docname, entry.docname, entry.node_id, literal.deepcopy(), f"pbauth.{name}"
        )
        literal.replace_self(link)


def setup(app: Any) -> dict[str, bool]:
    """Tell Sphinx."""
    app.connect("doctree-resolved", _onResolved)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
