"""The plan of the package, as the documentation draws it."""

from __future__ import annotations

import sys
from pathlib import Path

_EXTENSIONS = str(Path(__file__).parent.parent.parent / "docs" / "_ext")

# Not for longer than that: other modules there have names that are common.
sys.path.append(_EXTENSIONS)
import floorplan  # noqa: E402

sys.path.remove(_EXTENSIONS)

__all__ = ["floorplan"]
