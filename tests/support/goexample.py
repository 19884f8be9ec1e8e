"""The modules of the Go example, which are importable where it is started."""

from __future__ import annotations

import sys
from pathlib import Path

GO = Path(__file__).parent.parent.parent / "docs" / "examples" / "go"

# Not for longer than that: the folder has plugins, too.
sys.path.append(str(GO))
import board_text  # noqa: E402
import gogame  # noqa: E402
import goservice  # noqa: E402
import goweb  # noqa: E402
import play  # noqa: E402
import screen  # noqa: E402
import signin  # noqa: E402
import tableview  # noqa: E402

sys.path.remove(str(GO))

__all__ = [
    "GO",
    "board_text",
    "gogame",
    "goservice",
    "goweb",
    "play",
    "screen",
    "signin",
    "tableview",
]
