"""The folder in which a server and the ``pbauth`` command keep what lasts."""

from __future__ import annotations

import os
import stat
from typing import Any

from pbauth.authorizers.sql import SQLAuthorizer
from pbauth.errors import StoreError

#: Where it is, unless the user says otherwise.
DEFAULT_FOLDER = "pbauth-state"

_DATABASE = "accounts.sqlite"


def openAuthorizer(folder: str, **options: Any) -> SQLAuthorizer:
    """
    Open the accounts of a state folder; folder and database are made if there are none.

    Args:
        folder: its path.
        options: for `SQLAuthorizer`.

    Returns:
        The authorizer.

    Raises:
        StoreError: the folder can't be made, others can read it, or the database can't be used.
    """
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        _checkPrivate(folder)
    except OSError as error:
        raise StoreError(f"Can't make the state folder {folder}: {error.strerror}.") from None
    return SQLAuthorizer(os.path.abspath(os.path.join(folder, _DATABASE)), **options)


def _checkPrivate(folder: str) -> None:
    mode = os.stat(folder).st_mode
    if not stat.S_ISDIR(mode):
        raise StoreError(f"{folder} is not a folder. Name another one with --state.")
    if mode & 0o077:
        raise StoreError(
            f"Others can get at the state folder {folder} (mode {stat.S_IMODE(mode):04o}). "
            f"Run: chmod 700 {folder}"
        )
