"""``pbauth user``: users, and what they log in with."""

from __future__ import annotations

import codecs
import json
from datetime import datetime
from typing import Any

import click
from cryptography import x509

from pbauth._moments import toText
from pbauth._quoting import visible
from pbauth.accounts.hashing import Hashing
from pbauth.accounts.records import Record
from pbauth.cli.completion import completeUsers
from pbauth.cli.dates import METAVAR, readAge, readDate
from pbauth.cli.passwords import passwordOption, readPassword
from pbauth.cli.running import GlobalOptions, administer
from pbauth.cli.tables import Listing, jsonOption
from pbauth.mechanisms.authorizedkeys import AuthorizedKey
from pbauth.mechanisms.external import CertificateKey
from pbauth.mechanisms.keyfiles import readKeyFile
from pbauth.net.fingerprints import fingerprintOf

# How many users are read at once: there may be many.
_PAGE = 1_000

legacyOption = click.option(
    "--legacy",
    is_flag=True,
    help="Also keep the MD5 verifier that clients of stock Twisted and of Twisted 1.x need. "
    "Whoever steals it can log in with it: it is as good as the password.",
)


@click.group()
def user() -> None:
    """Add, remove and change users."""


@user.command("add")
@click.argument("name")
@passwordOption
@legacyOption
@click.option(
    "--no-password", is_flag=True, help="Add the user without a password, to log in with a key."
)
@click.pass_context
def addUser(
    context: click.Context, name: str, password_stdin: bool, legacy: bool, no_password: bool
) -> None:
    """Add a user. To give them access to a service: pbauth key grant NAME SERVICE"""
    if no_password and (password_stdin or legacy):
        raise click.UsageError("--no-password can't be used with --password-stdin or --legacy.")

    def ask() -> str | None:
        return None if no_password else _readPassword(context, password_stdin)

    administer(
        context,
        lambda admin, password: admin.addUser(name, password),
        Hashing(md5=legacy),
        ask,
    )
    click.echo(f"Added {name}.")


def _readPassword(context: click.Context, fromStdin: bool) -> str:
    options: GlobalOptions = context.obj
    # The administrator of a server has just been asked for another one.
    what = "Password" if options.remote is None else "New password"
    return readPassword(fromStdin, confirm=True, what=what)


@user.command("remove")
@click.argument("name", shell_complete=completeUsers)
@click.pass_context
def removeUser(context: click.Context, name: str) -> None:
    """Remove a user and all their keys."""
    administer(context, lambda admin: admin.removeUser(name))
    click.echo(f"Removed {name}.")


@user.command("passwd")
@click.argument("name", shell_complete=completeUsers)
@passwordOption
@legacyOption
@click.option(
    "--must-change",
    is_flag=True,
    help="The user has to change it before anything else: pbauth passwd ENDPOINT NAME",
)
@click.pass_context
def setPassword(
    context: click.Context, name: str, password_stdin: bool, legacy: bool, must_change: bool
) -> None:
    """Give a user a new password. Without --legacy, an MD5 verifier of the old one is removed."""
    administer(
        context,
        lambda admin, password: admin.setPassword(name, password, must_change),
        Hashing(md5=legacy),
        lambda: _readPassword(context, password_stdin),
    )
    click.echo(f"Changed the password of {name}.")


@user.command("lock")
@click.argument("name", shell_complete=completeUsers)
@click.pass_context
def lockUser(context: click.Context, name: str) -> None:
    """Lock a user out, but keep the keys and the password."""
    administer(context, lambda admin: admin.setLocked(name, True))
    click.echo(f"Locked {name}.")


@user.command("unlock")
@click.argument("name", shell_complete=completeUsers)
@click.pass_context
def unlockUser(context: click.Context, name: str) -> None:
    """Unlock a locked user."""
    administer(context, lambda admin: admin.setLocked(name, False))
    click.echo(f"Unlocked {name}.")


@user.command("expire")
@click.argument("name", shell_complete=completeUsers)
@click.argument("expires", metavar=METAVAR, callback=readDate)
@click.pass_context
def expireUser(context: click.Context, name: str, expires: datetime | None) -> None:
    """Set when a user expires: nobody can log in from then on, and sessions end.

    A date without a time is the beginning of that day, in UTC.
    """
    administer(context, lambda admin: admin.setExpiry(name, expires))
    click.echo(f"{name} {_expiry(expires)}.")


def _expiry(expires: datetime | None) -> str:
    return "does not expire" if expires is None else f"expires at {toText(expires)}"


@user.command("show")
@click.argument("name", shell_complete=completeUsers)
@jsonOption
@click.pass_context
def showUser(context: click.Context, name: str, asJSON: bool) -> None:
    """Show a user: dates, groups, keys and public keys."""
    record = administer(context, lambda admin: admin.showUser(name), reading=True)
    shown = _asJSON(record)
    if asJSON:
        click.echo(json.dumps(shown))
        return
    rows = [("name", name), ("locked", "yes" if record.locked else "no")]
    rows += [
        ("created", shown["created"] or "unknown"),
        ("last login", shown["lastLogin"] or "unknown"),
        ("expires", shown["expires"] or "never"),
        ("password", "must be changed" if record.mustChangePassword else "need not be changed"),
    ]
    rows += [("group", group) for group in shown["groups"]]
    rows += [("key", f"{perspective} of {service}") for service, perspective in shown["keys"]]
    rows += [
        ("public key", f"{key.fingerprint()} {key.label}".rstrip() + f", {_expiry(key.expires)}")
        for key in record.publicKeys()
    ]
    listing = Listing(("field", "value"), lambda *cells: cells, False)
    listing.add(rows)
    listing.end()


def _asJSON(record: Record) -> dict[str, Any]:
    def text(moment: datetime | None) -> str | None:
        return None if moment is None else toText(moment)

    return {
        "name": record.name,
        "locked": record.locked,
        "created": text(record.created),
        "lastLogin": text(record.lastLogin),
        "expires": text(record.expires),
        "mustChangePassword": record.mustChangePassword,
        "groups": sorted(record.groups),
        "keys": sorted(record.keys),
        "publicKeys": [
            {"fingerprint": key.fingerprint(), "label": key.label, "expires": text(key.expires)}
            for key in record.publicKeys()
        ],
    }


@user.command("addkey")
@click.argument("name", shell_complete=completeUsers)
@click.argument("file", type=click.File("rb"), default="-")
@click.option(
    "--expires",
    metavar=METAVAR,
    callback=readDate,
    help="When they expire; by default, the expiry-time in the file.",
)
@click.pass_context
def addPublicKeys(context: click.Context, name: str, file: Any, expires: datetime | None) -> None:
    """Authorize public keys of a user: lines as in OpenSSH's authorized_keys or .pub files, or
    TLS client certificates in PEM.

    They are read from FILE, or from standard input.
    """

    async def add(admin: Any, keys: list[AuthorizedKey]) -> list[AuthorizedKey]:
        if expires is not None:
            keys = [key.expiring(expires) for key in keys]
        await admin.addPublicKeys(name, keys)
        return keys

    for each in administer(context, add, ask=lambda: _readKeyFile(file)):
        click.echo(visible(f"Added {each.fingerprint()} {each.label}".rstrip()))


def _readKeyFile(file: Any) -> list[AuthorizedKey]:
    data = file.read()
    # Windows writes UTF-16 where a command's output goes to a file, and says so by a mark.
    encoding = "utf-16" if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        raise click.ClickException(f"{file.name} is not a text in UTF-8.") from None
    try:
        keys = _readKeys(text)
    except ValueError as mistake:
        raise click.ClickException(f"{file.name}: {mistake}") from None
    if not keys:
        raise click.ClickException(f"There is no public key in {file.name}.")
    return keys


def _readKeys(text: str) -> list[AuthorizedKey]:
    if "-----BEGIN CERTIFICATE-----" in text:
        certificates = x509.load_pem_x509_certificates(text.encode("utf-8"))
        return [CertificateKey(fingerprintOf(each), _commonName(each)) for each in certificates]
    return [*readKeyFile(text)]


def _commonName(certificate: x509.Certificate) -> str:
    found = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


@user.command("keys")
@click.argument("name", shell_complete=completeUsers)
@jsonOption
@click.pass_context
def listPublicKeys(context: click.Context, name: str, asJSON: bool) -> None:
    """List the public keys of a user: fingerprint and label."""
    listing = Listing(("fingerprint", "label"), lambda *cells: cells, asJSON)
    keys = administer(context, lambda admin: admin.listPublicKeys(name), reading=True)
    listing.add((key.fingerprint(), key.label) for key in keys)
    listing.end()


@user.command("rmkey")
@click.argument("name", shell_complete=completeUsers)
@click.argument("public_key", metavar="KEY")
@click.pass_context
def removePublicKey(context: click.Context, name: str, public_key: str) -> None:
    """Remove an authorized public key; KEY is its fingerprint or its label."""
    administer(context, lambda admin: admin.removePublicKey(name, public_key))
    click.echo(f"Removed {public_key}.")


@user.command("list")
@click.option("--locked", is_flag=True, help="Only those that are locked.")
@click.option("--expired", is_flag=True, help="Only those that have expired.")
@click.option(
    "--inactive",
    metavar="DAYSd",
    callback=readAge,
    help="Only those that have not logged in for so many days: 90d",
)
@jsonOption
@click.pass_context
def listUsers(
    context: click.Context, locked: bool, expired: bool, inactive: datetime | None, asJSON: bool
) -> None:
    """List the users: name, number of keys, and whether locked."""
    some = bool(locked or expired or inactive)
    listing = Listing(
        ("name", "keys", "locked"),
        lambda name, keys, locked: (
            name,
            "1 key" if keys == 1 else f"{keys} keys",
            "locked" if locked else "",
        ),
        asJSON,
    )

    async def tell(admin: Any) -> None:
        after = ""
        while page := await (
            admin.findUsers(locked, expired, inactive, after, _PAGE)
            if some
            else admin.listUsers(after, _PAGE)
        ):
            listing.add((name, keys, locked) for name, locked, keys in page)
            after = page[-1][0]

    administer(context, tell, reading=True)
    nobody = "There are no users yet. Add one: pbauth user add NAME"
    listing.end("There are no such users." if some else nobody)
