"""
What a configuration file and the environment say in place of options.

An option on the command line comes first, then an environment variable, then the file.  The file
is TOML: its keys are the names of the options of ``twistd pbauth``, without the dashes in front.
The command ``pbauth`` reads the same file, of which it uses `SHARED`.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from pbauth.server.settings import SettingsError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: The environment variable that names the configuration file.
FILE_VARIABLE = "PBAUTH_CONFIG"

#: The options that the server and the command share, by the environment variable of each.
SHARED = {"PBAUTH_STATE": "state", "PBAUTH_ACCOUNTS": "accounts", "PBAUTH_AUDIT": "audit"}

_KINDS = {
    str: "a string",
    float: "a number",
    bool: "true or false",
    list: "a string, or a list of strings",
}


def readFile(path: str, schema: Mapping[str, type]) -> dict[str, Any]:
    """
    Read a configuration file.

    Args:
        path: of the file.
        schema: which keys there may be, each with the type of its value: `str`, `float`, `bool`,
            or `list` for a list of strings.

    Returns:
        The values by key. Where the schema says `list` it is one, even if the file has one string.

    Raises:
        SettingsError: the file can't be read, is no TOML, or says something else than the schema.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            # Some editors write a mark at the beginning.
            found = tomllib.loads(file.read())
    except OSError as error:
        raise SettingsError(f"Can't read the configuration {path}: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"The configuration {path} is not TOML: {error}.") from None
    return {key: _check(path, key, value, schema) for key, value in found.items()}


def _check(path: str, key: str, value: Any, schema: Mapping[str, type]) -> Any:
    if key not in schema:
        raise SettingsError(f"{path}: there is no setting {key!r}.{_nearest(key, schema)}")
    kind = schema[key]
    if kind is list and isinstance(value, str):
        value = [value]
    if kind is float and type(value) is int:
        value = float(value)
    fits = isinstance(value, kind)
    if kind is list and fits:
        fits = all(isinstance(each, str) for each in value)
    if not fits:
        raise SettingsError(f"{path}: {key} must be {_KINDS[kind]}, not {value!r}.")
    empty = value == "" and key in SHARED.values()
    if empty or (kind is list and (not value or "" in value)):
        raise SettingsError(f"{path}: {key} is empty. Leave it out for the default.")
    return value


def _nearest(key: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(key.replace("_", "-").lower(), known, 1)
    return f" Did you mean {near[0]!r}?" if near else ""


def fromEnvironment(environment: Mapping[str, str]) -> dict[str, str]:
    """
    Return what the environment says of the `SHARED` options.

    Args:
        environment: such as `os.environ`. A variable that is empty says nothing.

    Returns:
        The values by the name of the option.
    """
    return {
        option: environment[variable]
        for variable, option in SHARED.items()
        if environment.get(variable)
    }
