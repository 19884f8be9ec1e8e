"""``pbauth server``: a running server as a whole."""

from __future__ import annotations

import click

from pbauth.cli.running import GlobalOptions, administer


@click.group()
@click.pass_context
def server(context: click.Context) -> None:
    """Stop a running server without failing its clients' calls. Needs --server."""
    options: GlobalOptions = context.obj
    if options.remote is None:
        raise click.UsageError(
            "Name the running server: pbauth --server ENDPOINT server ... On its own machine, this "
            "drains it: kill -TERM PID"
        )


@server.command()
@click.pass_context
def drain(context: click.Context) -> None:
    """Have the server take no more connections, let its clients go, and stop.

    The same as SIGTERM: calls under way may end. Through a load balancer, it is whichever server
    the balancer picks.
    """
    seconds = administer(context, lambda admin: admin.drain())
    click.echo(f"The server takes no more connections, and stops within {seconds:g} seconds.")
