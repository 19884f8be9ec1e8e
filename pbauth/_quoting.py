"""
Text that others chose, in what people read: logs, the audit log, terminals.

A line of a log must stay one line, of a bounded length, and a terminal must show what it is sent
rather than obey it.  C0 and C1 controls, characters that turn text round, and those that can't be
seen are escaped as Python escapes them.
"""

from __future__ import annotations

from typing import Any

from pbauth.names import LONGEST

#: The longest text in a line of a log, in characters.
MOST = 1024


def visible(text: str, keep: str = "") -> str:
    """
    Escape the characters that a terminal would not show, or would obey, as Python escapes them.

    Args:
        text: whatever was sent, read or typed.
        keep: characters that stay.
    """
    if text.isprintable():
        return text
    return "".join(
        each
        if each.isprintable() or each in keep
        else each.encode("unicode_escape").decode("ascii")
        for each in text
    )


def cut(text: str, most: int = LONGEST) -> str:
    """
    Cut a text that is too long: it would only fill the disk.

    Args:
        text: whatever was sent.
        most: how many characters stay.
    """
    return text if len(text) <= most else f"{text[:most]}..."


def inLine(what: Any, most: int = MOST) -> str:
    """
    Return a text for a line of a log: cut, and escaped unless it is printable.

    Args:
        what: an error, or a text, that may quote what others have sent.
        most: how many characters stay.
    """
    text = cut(str(what), most)
    return text if text.isprintable() else ascii(text)
