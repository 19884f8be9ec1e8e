"""
Names that have no page of their own: Twisted's, Python's, and those inside pbauth.

In docstrings a name in single backticks is one of the API if there is a page for it. Otherwise it
is a link to the documentation of Twisted or Python, or just the word. A name of a class that does
not exist anywhere is a warning, so that it is noticed when a class is renamed.
"""

from __future__ import annotations

import builtins
import re
from functools import cache
from importlib import import_module
from typing import Any

from docutils import nodes
from floorplan import modules
from sphinx.util.nodes import make_refnode

TWISTED = "https://docs.twisted.org/en/stable/api/{}.html"
PYTHON = "https://docs.python.org/3/library/{}.html#{}"

#: Where the documentation of Python has names that it is enough to know by their module.
_STANDARD = ("collections.abc", "contextlib", "datetime", "os")

#: Modules of Twisted whose classes docstrings name without their module.
_NAMED_BARE = (
    "twisted.application.service",
    "twisted.conch.interfaces",
    "twisted.cred.checkers",
    "twisted.cred.credentials",
    "twisted.cred.error",
    "twisted.internet.interfaces",
    "twisted.logger",
    "twisted.plugin",
    "twisted.python.failure",
    "twisted.spread.pb",
)

_CLASS = re.compile(r"[A-Z]\w*[a-z]\w*")


def _found(dotted: str) -> Any:
    """Return what a dotted name of a module, or of something in one, means; `None`: nothing."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        try:
            value: Any = import_module(".".join(parts[:count]))
        except ImportError:
            continue
        for part in parts[count:]:
            value = getattr(value, part, None)
        return value
    return None


@cache
def _classesInside() -> frozenset[str]:
    """Return the names of all classes of the package."""
    found: set[str] = set()
    for path in modules().values():
        found.update(re.findall(r"^ *class (\w+)", path.read_text(), re.M))
    return frozenset(found)


def addressOf(name: str) -> str | None:
    """
    Return where the documentation of Twisted or of Python has a name.

    Args:
        name: dotted, or the bare name of a class of Twisted's.

    Returns:
        The address; `None`: it is none of theirs.
    """
    # What stands for a class in a private module is documented where it is public.
    name = name.replace("_sslverify.OpenSSL", "_sslverify.").replace("._sslverify.", ".ssl.")
    if "." not in name:
        for module in _NAMED_BARE:
            if _CLASS.fullmatch(name) and hasattr(import_module(module), name):
                return TWISTED.format(f"{module}.{name}")
        return None
    module, _, last = name.rpartition(".")
    if name.startswith("twisted.") and _found(name) is not None:
        attribute = last[0].islower() and isinstance(_found(module), type)
        return TWISTED.format(module) + f"#{last}" if attribute else TWISTED.format(name)
    if module in _STANDARD:
        return PYTHON.format(module, name)
    return None


def isKnown(name: str, kind: str) -> bool:
    """
    Return whether a name that has no page may stand as a word.

    Args:
        name: as the docstring has it.
        kind: the role: ``obj`` for what is in single backticks, which may be an argument, a value
            or an expression; or that of a signature or an error.
    """
    if name.startswith(("pbauth.", "cryptography.")):
        return _found(name) is not None
    if kind == "obj" and not _CLASS.fullmatch(name):
        return True
    return hasattr(builtins, name) or name in _classesInside()


def _bare(target: str) -> str:
    """Return a name without what zope.interface writes around that of an interface."""
    return re.sub(r"<InterfaceClass ([\w.]+)>", r"\1", target)


def _onMissing(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    if node.get("refdomain") != "py":
        return None
    target = _bare(node["reftarget"])
    objects = env.get_domain("py").objects
    for name in (f"pbauth.{target}", f"pbauth.{target.rpartition('.')[2]}"):
        if name in objects and not (name.count(".") == 1 and target.startswith("twisted.")):
            entry = objects[name]
            return make_refnode(
                app.builder, node["refdoc"], entry.docname, entry.node_id, contnode, name
            )
    address = addressOf(target)
    if address is not None:
        return nodes.reference("", "", contnode, internal=False, refuri=address)
    return contnode if isKnown(target, node["reftype"]) else None


def setup(app: Any) -> dict[str, bool]:
    """Tell Sphinx."""
    app.connect("missing-reference", _onMissing)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
