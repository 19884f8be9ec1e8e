"""The ``pbauth`` command: administers accounts, and tries out a server."""

from __future__ import annotations

from typing import Any

import click

from pbauth import __version__
from pbauth.accounts.passwordpolicy import PasswordPolicy
from pbauth.cli.backups import backup, restore
from pbauth.cli.calls import call
from pbauth.cli.completion import completion
from pbauth.cli.demo import runDemo
from pbauth.cli.dumps import exportUsers, importUsers
from pbauth.cli.groups import group
from pbauth.cli.keys import key
from pbauth.cli.known import known
from pbauth.cli.passwd import passwd
from pbauth.cli.remote import serverOf, serverOptions
from pbauth.cli.running import CarefulGroup, GlobalOptions, run
from pbauth.cli.servers import server
from pbauth.cli.sessions import session
from pbauth.cli.units import printUnit
from pbauth.cli.users import user
from pbauth.cli.vouchers import voucher
from pbauth.cli.whocan import whoCan
from pbauth.server.configurationfile import FILE_VARIABLE, SHARED, readFile
from pbauth.server.settings import SettingsError
from pbauth.server.state import DEFAULT_FOLDER


def _readPolicy(context: click.Context, option: Any, text: str) -> PasswordPolicy:
    try:
        return PasswordPolicy.fromText(text)
    except ValueError as mistake:
        raise click.BadParameter(str(mistake)) from None


def _readConfiguration(context: click.Context, option: Any, path: str | None) -> str | None:
    if path is not None:
        # Imported here, since few command lines need the server's options.
        from pbauth.tap import Options

        try:
            said = readFile(path, Options().schema())
        except SettingsError as mistake:
            raise click.BadParameter(str(mistake)) from None
        context.default_map = {name: said[name] for name in SHARED.values() if name in said}
    return path


@click.group(cls=CarefulGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    metavar="FILE",
    envvar=FILE_VARIABLE,
    show_envvar=True,
    is_eager=True,
    expose_value=False,
    callback=_readConfiguration,
    help="The server's configuration file: its state, accounts and audit are used.",
)
@click.option(
    "--state",
    envvar="PBAUTH_STATE",
    show_envvar=True,
    metavar="DIR",
    default=DEFAULT_FOLDER,
    show_default=True,
    help="The folder of the accounts. Created if it does not exist.",
)
@click.option(
    "--accounts",
    envvar="PBAUTH_ACCOUNTS",
    show_envvar=True,
    metavar="sqlite:FILE|passwd:FILE|postgresql://...",
    help="Where the accounts are, if not in the state folder.",
)
@click.option(
    "--audit",
    envvar="PBAUTH_AUDIT",
    show_envvar=True,
    metavar="FILE",
    help="Append a line of JSON to this file for each change to the accounts.",
)
@click.option(
    "--password-policy",
    "policy",
    metavar="length=N,strength=S",
    envvar="PBAUTH_PASSWORD_POLICY",
    show_envvar=True,
    default="",
    callback=_readPolicy,
    help="Requirements for new passwords: at least N characters (6 by default), and at least the "
    "strength S, from 0 to 4, as zxcvbn judges it.",
)
@serverOptions
@click.version_option(__version__, prog_name="pbauth")
@click.pass_context
def main(
    context: click.Context,
    /,
    state: str,
    accounts: str | None,
    audit: str | None,
    policy: PasswordPolicy,
    **server: Any,
) -> None:
    """Administer the accounts of a pbauth server, or try out a server.

    To start the server itself: twistd pbauth
    """
    context.obj = GlobalOptions(state, audit, accounts, policy, serverOf(context))


@main.command("demo")
def showDemo() -> None:
    """Show a server and two users at work, in a temporary folder."""
    run(lambda reactor: runDemo(reactor, click.echo))


main.add_command(user)
main.add_command(key)
main.add_command(group)
main.add_command(whoCan)
main.add_command(voucher)
main.add_command(session)
main.add_command(server)
main.add_command(call)
main.add_command(passwd)
main.add_command(known)
main.add_command(exportUsers)
main.add_command(backup)
main.add_command(restore)
main.add_command(importUsers)
main.add_command(completion)
main.add_command(printUnit)
