"""
``.. floors::`` lists the floors of the package, and draws which of them imports from which.

Its argument says what the picture shows; below come the floors, top to bottom::

    .. floors:: Which floor imports from which

       cli: the command
       login: the server's half of a login

The imports are read from the code when the pages are built. See `floorplan`.
"""

from __future__ import annotations

from typing import Any

import floorplan
from docutils import nodes
from docutils.parsers.rst import Directive
from floorplan import NotAFloor, drawFloors, importsBetweenFloors, modules, readFloors


class floors(nodes.General, nodes.Element):
    """The picture, in the document."""


class Floors(Directive):
    """The directive; a floor that the code does not have, or one that is missing, is an error."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True

    def run(self) -> list[nodes.Node]:
        try:
            found = readFloors(list(self.content))
            picture = drawFloors(self.arguments[0], found, importsBetweenFloors())
        except NotAFloor as mistake:
            raise self.error(str(mistake)) from None
        except KeyError as missing:
            raise self.error(f"not in the list of floors: {missing}") from None
        environment = self.state.document.settings.env
        for path in (floorplan.__file__, *modules().values()):
            environment.note_dependency(str(path))
        return [floors("", picture=picture, lines=list(self.content))]


def _visitHTML(writer: Any, node: Any) -> None:
    writer.body.append(f'<div class="floors" tabindex="0">{node["picture"]}</div>\n')
    raise nodes.SkipNode


def _visitOther(writer: Any, node: Any) -> None:
    """Show the list, in a writer that can't show pictures."""
    writer.visit_literal_block(nodes.literal_block("", "\n".join(node["lines"])))
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Tell Sphinx."""
    app.add_node(floors, html=(_visitHTML, None), text=(_visitOther, None))
    app.add_directive("floors", Floors)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
