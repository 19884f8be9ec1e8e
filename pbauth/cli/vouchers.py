"""``pbauth voucher``: issue, weaken, show, list and revoke vouchers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import click

from pbauth._files import createPrivate
from pbauth.cli.completion import completeServices, completeUsers
from pbauth.cli.dates import readEnd
from pbauth.cli.passwords import readSecretFile
from pbauth.cli.running import administer
from pbauth.cli.tables import Listing, jsonOption
from pbauth.mechanisms.voucher import Voucher

_UNTIL = "90d|8h|30m|DATE"

_OPTIONS = (
    click.option(
        *("--service", "services"),
        multiple=True,
        shell_complete=completeServices,
        help="Good for this service. May be given more than once, as may the next three.",
    ),
    click.option("--perspective", "perspectives", multiple=True, help="Good for this perspective."),
    click.option("--method", "methods", multiple=True, help="Good for this method."),
    click.option(
        *("--network", "networks"),
        multiple=True,
        metavar="NETWORK",
        help="Good for clients in this network: 10.0.0.0/8",
    ),
    click.option("--sessions", type=click.IntRange(1), help="So many sessions at once."),
    click.option("--final", is_flag=True, help="Nobody can make a weaker one of it."),
    click.option(
        "--out",
        metavar="FILE",
        help="Write the voucher to this new file, for you only, instead of printing it.",
    ),
)


def _limiting(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that limit a voucher to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Return the limits that were given, for `Voucher.only`."""
    return {name: value for name, value in options.items() if value not in ((), None, False)}


@click.group()
def voucher() -> None:
    """Issue, weaken, show, list and revoke vouchers: parts of what a user may do, for a while.

    A voucher is a secret, as good as a password for what it allows.
    """


@voucher.command("issue")
@click.argument("name", shell_complete=completeUsers)
@click.option("--label", required=True, help="What to call it: the label that revokes it.")
@click.option(
    "--until",
    required=True,
    metavar=_UNTIL,
    callback=readEnd,
    help="From then on it is void; 90 days from now at most.",
)
@click.option(
    "--survives-password-change", is_flag=True, help="It stays when the user's password changes."
)
@_limiting
@click.pass_context
def issueVoucher(
    context: click.Context,
    /,
    name: str,
    label: str,
    until: datetime,
    survives_password_change: bool,
    out: str | None,
    **limits: Any,
) -> None:
    """Issue a voucher of a user, and print it, this once."""
    wanted = _given(limits)
    with _explained():
        made = administer(
            context,
            lambda admin: admin.issueVoucher(
                name, label, until, survives_password_change, **wanted
            ),
        )
    _tell(made, out)


@voucher.command("only")
@click.argument("file")
@click.option("--until", metavar=_UNTIL, callback=readEnd, help="From then on it is void.")
@click.option("--label", default="", help="What the audit log calls it.")
@_limiting
def narrowVoucher(
    file: str, until: datetime | None, label: str, out: str | None, **limits: Any
) -> None:
    """Make a weaker voucher of the one in FILE, and print it. No server is asked."""
    with _explained():
        made = _read(file).only(until=until, label=label, **_given(limits))
    _tell(made, out)


@voucher.command("show")
@click.argument("file")
@jsonOption
def showVoucher(file: str, asJSON: bool) -> None:
    """Show whose the voucher in FILE is, and what it is good for; not the voucher itself."""
    read = _read(file)
    shown = {"id": read.id, "label": read.label, "identity": read.identityName}
    shown |= read.limits.describe()
    if asJSON:
        click.echo(json.dumps(shown))
        return
    listing = Listing(("field", "value"), lambda *cells: cells, False)
    listing.add((field, _words(value)) for field, value in shown.items())
    listing.end()


@voucher.command("list")
@click.argument("name", shell_complete=completeUsers)
@jsonOption
@click.pass_context
def listVouchers(context: click.Context, name: str, asJSON: bool) -> None:
    """List the vouchers of a user: id, label, end and further limits."""
    listing = Listing(
        ("id", "label", "until", "survivesPasswordChange", "limits"),
        lambda id_, label, until, survives, limits: (
            *(id_, label, until),
            "survives password changes" if survives else "",
            _words(limits),
        ),
        asJSON,
    )
    for each in administer(context, lambda admin: admin.listVouchers(name), reading=True):
        limits = each.limits.describe()
        until = limits.pop("until")
        listing.add([(each.id, each.label, until, each.survivesPasswordChange, limits)])
    listing.end(f"{name} has no vouchers. Issue one: pbauth voucher issue {name}")


@voucher.command("revoke")
@click.argument("name", shell_complete=completeUsers)
@click.argument("which", metavar="ID|LABEL")
@click.pass_context
def revokeVoucher(context: click.Context, name: str, which: str) -> None:
    """Revoke a voucher of a user, or all of a label, and all that was made of them."""
    count = administer(context, lambda admin: admin.revokeVoucher(name, which))
    click.echo(f"Revoked {count} voucher{'' if count == 1 else 's'} of {name}.")


def _read(file: str) -> Voucher:
    return readSecretFile(Voucher.fromFile, file, False)


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={_words(each)}" for name, each in value.items())
    return ",".join(value) if isinstance(value, list) else str(value)


def _tell(made: Voucher, out: str | None) -> None:
    if out is None:
        click.echo(made.text())
        return
    try:
        new = createPrivate(out, f"{made.text()}\n".encode())
    except OSError as error:
        raise click.ClickException(f"Can't write {out}: {error.strerror}.") from None
    if not new:
        raise click.ClickException(f"{out} is there already. Choose another file.")
    click.echo(f"Wrote the voucher {made.id} to {out}.")


@contextmanager
def _explained() -> Iterator[None]:
    """Turn limits that make no sense into one line for the user."""
    try:
        yield
    except ValueError as mistake:
        raise click.ClickException(str(mistake)) from None
