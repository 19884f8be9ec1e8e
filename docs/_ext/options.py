"""
``.. twistd-options::`` and ``.. pbauth-commands::`` list what the two commands take.

Nothing of it is written by hand: the one reads `pbauth.tap.Options`, the other `pbauth.cli.main`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import click
from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.util.nodes import nested_parse_with_titles

from pbauth.cli import main
from pbauth.tap import Options


def _plain(text: str) -> str:
    """Text that says in reStructuredText what it says; options are literal, with both dashes."""
    escaped = re.sub(r"([\\*`|_<:@])", r"\\\1", " ".join(text.split()))
    return re.sub(r"(?<![\w-])--[a-z][a-z-]*", r"``\g<0>``", escaped)


def _option(synopsis: str, text: str) -> list[str]:
    return [f".. option:: {synopsis}", "", f"   {_plain(text)}", ""]


def describeTwistd() -> list[str]:
    """
    Returns:
        The options of ``twistd pbauth``, lines of reStructuredText.
    """
    options = Options()
    lines = [".. program:: twistd pbauth", ""]
    for name, _, text in Options.optFlags:
        lines += _option(f"--{name}", text)
    for name, _, default, text, *_ in Options.optParameters:
        told = "" if default is None else f" [default: {default}]"
        lines += _option(f"--{name} <{name}>", text + told)
    for attribute in dir(options):
        name = attribute.removeprefix("opt_").replace("_", "-")
        if attribute == f"opt_{name.replace('-', '_')}" and name not in ("version", "help"):
            method = getattr(options, attribute)
            value = f" <{name}>" if inspect.signature(method).parameters else ""
            value = "" if name == "help-auth" else value
            lines += _option(f"--{name}{value}", method.__doc__ or "")
    return lines


def _commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    for word, child in getattr(command, "commands", {}).items():
        if not child.hidden:
            yield from _commands(child, f"{name} {word}")


def describeCommands(command: click.Command = main, name: str = "pbauth") -> list[str]:
    """
    Args:
        command: of click.
        name: how it is called.

    Returns:
        A section for it and for each subcommand, lines of reStructuredText.
    """
    lines: list[str] = []
    for full, each in _commands(command, name):
        context = click.Context(each, info_name=full)
        usage = " ".join(each.collect_usage_pieces(context))
        lines += [full, "-" * len(full), "", f".. program:: {full}", ""]
        lines += [".. code-block:: text", "", f"   {full} {usage}", ""]
        for paragraph in inspect.cleandoc(each.help or "").split("\n\n"):
            lines += [_plain(paragraph), ""]
        for parameter in each.get_params(context):
            record = parameter.get_help_record(context)
            if record is not None and record[1] and "--help" not in parameter.opts:
                lines += _option(record[0].replace(" / ", ", "), record[1])
    return lines


class TwistdOptions(Directive):
    """The options of ``twistd pbauth``."""

    def run(self) -> list[nodes.Node]:
        return _parsed(self, describeTwistd(), "pbauth.tap")


class PbauthCommands(Directive):
    """The subcommands of ``pbauth``, with their options."""

    def run(self) -> list[nodes.Node]:
        return _parsed(self, describeCommands(), "pbauth.cli")


def _parsed(directive: Directive, lines: list[str], source: str) -> list[nodes.Node]:
    parent = nodes.section()
    parent.document = directive.state.document
    nested_parse_with_titles(directive.state, StringList(lines, source=f"<{source}>"), parent)
    return parent.children


def setup(app: Any) -> dict[str, bool]:
    """Tell Sphinx."""
    app.add_directive("twistd-options", TwistdOptions)
    app.add_directive("pbauth-commands", PbauthCommands)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
