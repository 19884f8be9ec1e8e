"""``pbauth who-can``: who holds a key to a service."""

from __future__ import annotations

from typing import Any

import click

from pbauth.accounts.groups import filled
from pbauth.cli.completion import completeServices
from pbauth.cli.running import administer
from pbauth.cli.tables import Listing, jsonOption


@click.command("who-can")
@click.argument("service", shell_complete=completeServices)
@jsonOption
@click.pass_context
def whoCan(context: click.Context, service: str, asJSON: bool) -> None:
    """List who holds a key to a service: name, perspective, whether locked, and by which group."""
    columns: tuple[str, ...] = ("name", "perspective", "locked", "group")
    rows, methods = administer(context, lambda admin: _find(admin, service), reading=True)
    if methods:
        columns = (*columns, "methods")
        rows = [(*row, methods.get((row[0], row[1], row[3]), [])) for row in rows]
    listing = Listing(
        columns,
        lambda name, perspective, locked, group, *more: (
            *(name, perspective, "locked" if locked else ""),
            *(f"by group {group}" if group else "", *map(",".join, more)),
        ),
        asJSON,
    )
    listing.add(rows)
    listing.end(f"Nobody holds a key to {service}. Grant one: pbauth key grant NAME {service}")


async def _find(
    admin: Any, service: str
) -> tuple[list[tuple[Any, ...]], dict[tuple[str, str, str], list[str]]]:
    """Return the rows of `whoCan`, and the methods of keys that are not good for all."""
    rows = await admin.whoCan(service)
    methods: dict[tuple[str, str, str], list[str]] = {}
    for name in sorted({row[0] for row in rows if not row[3]}):
        record = await admin.showUser(name)
        for key in record.keys:
            limited = record.methodsOf(key)
            if key[0] == service and limited is not None:
                methods[name, filled(key, name)[1], ""] = sorted(limited)
    return rows, methods
