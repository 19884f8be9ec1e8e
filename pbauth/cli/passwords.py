"""Secrets at the command line: asked for, or read from standard input; never arguments."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TypeVar

import click

from pbauth.errors import PassphraseNeeded

_Credentials = TypeVar("_Credentials")


def readPassword(
    fromStdin: bool,
    confirm: bool,
    what: str = "Password",
    option: str = "--password-stdin",
) -> str:
    """
    Read a password from the terminal or from standard input.

    Args:
        fromStdin: whether to read one line of standard input; otherwise ask on the terminal.
        confirm: whether to ask twice.
        what: what to ask for, as the prompt says it.
        option: the option that sets `fromStdin`, for the messages.

    Returns:
        The password, which may be empty.

    Raises:
        click.ClickException: standard input has ended, or there is no terminal to ask on.
    """
    if fromStdin:
        line = _readLine()
        if not line:
            raise click.ClickException(
                f"There is no {what[0].lower()}{what[1:]} on standard input."
            )
        return line.rstrip("\r\n")
    if not sys.stdin.isatty():
        raise click.ClickException(
            f"There is no terminal to ask for the password on. Use {option}, and write "
            "the password to standard input."
        )
    password: str = click.prompt(what, hide_input=True, confirmation_prompt=confirm, err=True)
    return password


def _readLine() -> str:
    """Read one line of standard input, and nothing of what follows."""
    try:
        descriptor = sys.stdin.fileno()
    except OSError:
        # Not a file at all.
        return sys.stdin.readline()
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(descriptor, 1)):
        line += byte
    try:
        return line.decode(sys.stdin.encoding)
    except UnicodeDecodeError:
        raise click.ClickException(
            f"The password on standard input is not text in {sys.stdin.encoding}."
        ) from None


def readSecretFile(read: Callable[..., _Credentials], path: str, fromStdin: bool) -> _Credentials:
    """
    Read credentials from a file; ask for its passphrase if it is encrypted.

    Args:
        read: takes the path of the file, and its passphrase where it has one.
        path: of the file.
        fromStdin: where the passphrase comes from, as for `readPassword`.

    Returns:
        What `read` returns.

    Raises:
        click.ClickException: the file can't be read, or the passphrase is wrong.
    """
    try:
        try:
            return read(path)
        except PassphraseNeeded:
            return read(path, readPassword(fromStdin, confirm=False, what="Passphrase"))
    except (ValueError, TypeError) as mistake:
        raise click.ClickException(str(mistake)) from None


passwordOption = click.option(
    "--password-stdin", is_flag=True, help="Read the password from one line of standard input."
)
