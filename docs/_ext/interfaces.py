"""
``.. interface:: IService`` documents an interface of zope.interface, which autodoc can't.
In the signatures that autodoc makes, interfaces get their names.

The name is looked up in `pbauth.interfaces`.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.ext.napoleon import Config, GoogleDocstring
from zope.interface.interface import InterfaceClass, Method

from pbauth import interfaces

_NAPOLEON = Config(napoleon_use_ivar=True, napoleon_use_rtype=False)


def _indented(lines: list[str]) -> list[str]:
    return [f"   {line}".rstrip() for line in lines]


def _doc(text: str | None) -> list[str]:
    # "_NAPOLEON" is all that this part of Sphinx needs: no application.
    return [*GoogleDocstring(inspect.cleandoc(text or ""), _NAPOLEON).lines(), ""]


def describeInterface(interface: InterfaceClass) -> list[str]:
    """
    Args:
        interface: to be documented.

    Returns:
        The lines of its documentation, reStructuredText.
    """
    bases = ", ".join(f"`{base.__name__}`" for base in interface.__bases__)
    body = [f"An interface, on the floor of {bases}.", ""] if bases != "`Interface`" else []
    body += _doc(interface.__doc__)
    for name, part in interface.namesAndDescriptions():
        kind = "method" if isinstance(part, Method) else "attribute"
        signature = part.getSignatureString() if isinstance(part, Method) else ""
        body += [f".. py:{kind}:: {name}{signature}", "", *_indented(_doc(part.getDoc())), ""]
    return [f".. py:class:: {interface.__name__}", "", *_indented(body)]


class Interface(Directive):
    """The directive; its argument is the interface's name."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        found: Any = getattr(interfaces, self.arguments[0], None)
        if not isinstance(found, InterfaceClass):
            raise self.error(f"pbauth.interfaces has no {self.arguments[0]}")
        lines = StringList(describeInterface(found), source=f"<{found.__identifier__}>")
        parent = nodes.Element()
        self.state.nested_parse(lines, self.content_offset, parent)
        return parent.children


def nameInterfaces(signature: str | None) -> str | None:
    """
    Args:
        signature: as autodoc found it, in which an interface is what its `repr` says.

    Returns:
        The same, with the interfaces' names.
    """
    return signature and re.sub(r"<InterfaceClass [\w.]*?(\w+)>", r"\1", signature)


def _onSignature(*event: Any) -> tuple[str | None, str | None]:
    *_, arguments, returns = event
    return nameInterfaces(arguments), nameInterfaces(returns)


def setup(app: Any) -> dict[str, bool]:
    """Tell Sphinx."""
    app.connect("autodoc-process-signature", _onSignature)
    app.add_directive("interface", Interface)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
