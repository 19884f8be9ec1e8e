"""The modules of the Go example, which are importable where it is started."""

from __future__ import annotations

import sys
from pathlib import Path

GO = Path(__file__).parent.parent / "docs" / "examples" / "go"
# Not for longer than that: the folder has plugins, too.
sys.path.append(str(GO))
from gogame import BLACK, WHITE, GoGame, GoGameError  # noqa: E402
from goservice import MAIN, GoService, GoServiceFactory  # noqa: E402

sys.path.remove(str(GO))

__all__ = ["BLACK", "GO", "MAIN", "WHITE", "GoGame", "GoGameError", "GoService", "GoServiceFactory"]
