"""
Listings: a table for people, lines for scripts.

On a terminal the columns are aligned, under a heading. Otherwise a line has its columns between
tabs, and there is no heading. With ``--json`` each line is a JSON object, in ASCII.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable, Iterable
from typing import Any

import click

from pbauth._quoting import visible

jsonOption = click.option("--json", "asJSON", is_flag=True, help="Print one JSON object per line.")


class Listing:
    """
    One listing.

    Args:
        columns: the names of the fields of a row, and of the columns.
        cells: makes of a row what people read: a text for each column. Empty ones at the end of a
            line are left out.
        asJSON: print objects instead.
    """

    def __init__(
        self, columns: tuple[str, ...], cells: Callable[..., tuple[str, ...]], asJSON: bool
    ) -> None:
        self._columns = columns
        self._cells = cells
        self._asJSON = asJSON
        self._table = not asJSON and sys.stdout.isatty()
        self._lines: list[tuple[str, ...]] = []
        self._empty = True

    def add(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """
        Print rows; those of a table are kept until `end`, since all of them say how wide it is.

        Args:
            rows: each with a value for each column.
        """
        for row in rows:
            self._empty = False
            if self._asJSON:
                click.echo(json.dumps(dict(zip(self._columns, row, strict=True))))
            elif self._table:
                self._lines.append(tuple(map(visible, self._cells(*row))))
            else:
                # It may be shown on a terminal in the end, or read by lines.
                click.echo("\t".join(map(visible, self._cells(*row))).rstrip("\t"))

    def end(self, ifEmpty: str = "") -> None:
        """
        Print the rest.

        Args:
            ifEmpty: what to print for people if there was no row.
        """
        if self._empty:
            if ifEmpty and not self._asJSON:
                click.echo(ifEmpty, err=True)
        elif self._table:
            lines = [tuple(name.upper() for name in self._columns), *self._lines]
            widths = [max(map(width, column)) for column in zip(*lines, strict=True)]
            for line in lines:
                padded = [
                    cell + " " * (size - width(cell))
                    for cell, size in zip(line, widths, strict=True)
                ]
                click.echo("  ".join(padded).rstrip())


def width(text: str) -> int:
    """
    Return the number of columns that a text takes on a terminal.

    Args:
        text: without control characters, as `visible` returns it.
    """
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1
        for each in text
    )
