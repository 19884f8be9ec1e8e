"""``pbauth print-unit``: files for what runs and watches a server."""

from __future__ import annotations

import os
import sys
from importlib.resources import files

import click

#: The files, by the names by which the command knows them.
FILES = {
    "systemd": "pbauth.service",
    "logrotate": "pbauth.logrotate",
    "container": "Containerfile",
    "prometheus": "pbauth.rules.yml",
    "fail2ban": "pbauth.fail2ban",
}

# The folder of the programs, as the file of systemd has it.
_BIN = "/opt/pbauth/bin"


def readFile(kind: str) -> str:
    """
    Return a file, with the folder that this program runs from.

    Args:
        kind: one of `FILES`.
    """
    text = (files("pbauth.server") / "files" / FILES[kind]).read_text("utf-8")
    return text.replace(_BIN, os.path.dirname(os.path.abspath(sys.executable)))


@click.command("print-unit")
@click.argument("kind", type=click.Choice([*FILES]), default="systemd")
def printUnit(kind: str) -> None:
    """Print a file to run or to watch the server with.

    That is a unit for systemd; with "logrotate", the configuration that rotates the audit log of
    that server; with "container", a Containerfile; with "prometheus", rules for alerts; with
    "fail2ban", the filter that finds failed logins in the audit log.

    For instance: pbauth print-unit | sudo tee /etc/systemd/system/pbauth.service
    """
    click.echo(readFile(kind), nl=False)
