"""A Go service that keeps its games, for `twistd pbauth --service go=goserver.makeService`."""

from __future__ import annotations

import os
from typing import Any

from goservice import GoService


def makeService(name: str, authorizer: Any) -> GoService:
    """Make it; the environment says where the games are."""
    return GoService(name, authorizer=authorizer, folder=os.environ["GO_GAMES"])
