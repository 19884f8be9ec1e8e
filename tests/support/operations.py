"""What the page on operations has to type."""

from __future__ import annotations

import re

from docutils import nodes

from tests.support.pages import DOCS, read

#: What an installation downloads: the machine has it already.
DOWNLOADS = re.compile(
    r"python3 -m venv /opt/pbauth|"
    r"/opt/pbauth/bin/pip install (?:--upgrade )?'pbauth\[([\w,]+)\]'"
)


def blocks() -> list[tuple[str, str, str]]:
    """The blocks of the page: language, caption and text."""
    document, _ = read(DOCS / "howto" / "operations.rst")
    return [
        (block["classes"][0], block.get("caption", ""), block.astext())
        for block in document.findall(nodes.literal_block)
    ]


def commands(text: str) -> list[tuple[str, list[str]]]:
    """The commands of a block, each with the lines that follow it."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("# "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found
