"""``pbauth completion``: shells complete commands, and names of users and services."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Coroutine
from typing import Any

import click
from click.shell_completion import ShellComplete, get_completion_class

from pbauth.admin.protocol import NAME
from pbauth.cli.running import runOnce
from pbauth.server.state import DEFAULT_FOLDER, accountsFile, openAuthorizer

#: How many names are offered at most.
_MOST = 100

#: Services are looked for on the keyrings of so many users.
_KEYRINGS = 1_000

# What every shell reads as one word, as it stands: nothing is quoted here, and a name that would
# have to be (``$(reboot)`` can be one) is not offered. zsh takes a colon for the end of a name.
_WORD = re.compile(r"[\w@,./][\w@%+=,./-]*")

_PROGRAM, _VARIABLE = "pbauth", "_PBAUTH_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script with which your shell completes subcommands, options, users and services.

    For instance, in ~/.bashrc: eval "$(pbauth completion bash)"
    """
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - click has these three
    # Not the shell's own `source`, which runs that shell to see how old it is.
    click.echo(ShellComplete.source(kind(click.Command(_PROGRAM), {}, _PROGRAM, _VARIABLE)))


def completeUsers(context: click.Context, parameter: Any, incomplete: str) -> list[str]:
    """Return names of users, if the accounts are in a file on this machine."""

    async def find(accounts: Any) -> list[str]:
        users = await accounts.listIdentities(_before(incomplete), _MOST)
        return [name for name, _, _ in users]

    return _found(context, incomplete, find)


def completeGroups(context: click.Context, parameter: Any, incomplete: str) -> list[str]:
    """Return names of groups, if the accounts are in a file on this machine."""

    async def find(accounts: Any) -> list[str]:
        groups: list[str] = await accounts.listGroups(_before(incomplete), _MOST)
        return groups

    return _found(context, incomplete, find)


def completeServices(context: click.Context, parameter: Any, incomplete: str) -> list[str]:
    """Return names of services on keyrings, if the accounts are in a file on this machine."""

    async def find(accounts: Any) -> list[str]:
        records = await accounts.readRecords("", _KEYRINGS)
        return sorted({NAME, *(service for record in records for service, _ in record.keys)})

    return _found(context, incomplete, find)


def _before(incomplete: str) -> str:
    """Return a text that stands before all that begin with this, and not long before them."""
    if not incomplete:
        return ""
    # The last character is counted down; what stands between is passed over.
    last = ord(incomplete[-1]) - 1
    return incomplete[:-1] + (chr(last) + "\U0010ffff" if 0 <= last < 0xD800 else "")


def _found(
    context: click.Context,
    incomplete: str,
    find: Callable[[Any], Coroutine[Any, Any, list[str]]],
) -> list[str]:
    options = context.find_root().params
    state = options.get("state") or DEFAULT_FOLDER
    accounts = options.get("accounts")
    file = accountsFile(state, accounts)
    # Nobody is asked for a password now, nothing is made, and no other machine keeps one waiting.
    if options.get("server") or file is None or not os.path.exists(file):
        return []

    async def main(reactor: Any) -> list[str]:
        store = openAuthorizer(state, accounts, reading=True, reactor=reactor)
        try:
            return await find(store)
        finally:
            store.close()

    try:
        names = runOnce(main)
    except Exception:
        # Whatever it is: a shell that completes a line has no place to tell it.
        return []
    return [name for name in names if name.startswith(incomplete) and _WORD.fullmatch(name)]
