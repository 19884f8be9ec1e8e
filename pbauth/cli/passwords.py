"""Secrets at the command line: asked for, or read from standard input; never arguments."""

from __future__ import annotations

import sys

import click

from pbauth.credentials import PassphraseNeeded, PrivateKey


def readPassword(fromStdin: bool, confirm: bool, what: str = "Password") -> str:
    """
    Args:
        fromStdin: read one line of standard input; otherwise ask on the terminal.
        confirm: ask twice.
        what: to ask for.

    Returns:
        The password.
    """
    if fromStdin:
        line = sys.stdin.readline()
        if not line:
            raise click.ClickException(f"There is no {what.lower()} on standard input.")
        return line.rstrip("\r\n")
    if not sys.stdin.isatty():
        raise click.ClickException(
            "There is no terminal to ask for the password on. Say --password-stdin, and write "
            "the password to standard input."
        )
    password: str = click.prompt(what, hide_input=True, confirmation_prompt=confirm, err=True)
    return password


def readKey(path: str, fromStdin: bool) -> PrivateKey:
    """
    Args:
        path: of a file with a private key.
        fromStdin: where its passphrase comes from, if it has one, as for `readPassword`.

    Returns:
        The key.
    """
    try:
        try:
            return PrivateKey.fromFile(path)
        except PassphraseNeeded:
            return PrivateKey.fromFile(path, readPassword(fromStdin, confirm=False))
    except (ValueError, TypeError) as mistake:
        raise click.ClickException(str(mistake)) from None


passwordOption = click.option(
    "--password-stdin", is_flag=True, help="Read the password from one line of standard input."
)
