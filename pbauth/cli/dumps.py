"""``pbauth export`` and ``pbauth import``: many users at once."""

from __future__ import annotations

import os
import select
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from pbauth._quoting import visible
from pbauth.accounts.hashing import Hashing
from pbauth.cli.running import GlobalOptions, administer
from pbauth.cli.users import legacyOption
from pbauth.dumps.formats import FORMATS, LONGEST_LINE, Format
from pbauth.dumps.transfer import (
    BATCH,
    ExportFailed,
    ImportFailed,
    ImportStopped,
    Progress,
    exportRecords,
    importRecords,
    replacing,
)

#: What the name of a file tells about its format.
_ENDINGS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv"}

_STANDARD = "-"

#: How many users are counted at once.
_COUNTED = 10_000

#: As a shell says that Ctrl-C ended a program.
_INTERRUPTED = 130

formatOption = click.option(
    "--format",
    "form",
    type=click.Choice(list(FORMATS)),
    help="By default, the ending of the file's name decides; jsonl without a file.",
)


@click.command("export")
@click.argument("file", default=_STANDARD)
@formatOption
@click.pass_context
def exportUsers(context: click.Context, file: str, form: str | None) -> None:
    """Write all users, with their verifiers and keys, to FILE or to standard output.

    Whoever can read the dump can try out passwords: FILE is made for its owner only. It takes its
    name once it is whole.
    """
    chosen = _choose(form, file)
    watch = _Watch()
    try:
        with _output(file) as write, _bar("Exporting", None) as update:

            async def export(admin: Any) -> int:
                whole = await _countUsers(admin) if sys.stderr.isatty() else None
                return await exportRecords(
                    admin,
                    chosen,
                    write,
                    progress=lambda users: update(users, watch.said(users), whole),
                )

            count = administer(context, export, reading=True, audited=True)
    except ExportFailed as error:
        raise click.ClickException(str(error)) from None
    said = f"Exported {_users(count)} in {watch.seconds:.1f} seconds."
    click.echo(said, err=file == _STANDARD)


@click.command("import")
@click.argument("file")
@formatOption
@click.option(
    "--batch",
    type=click.IntRange(1, 10_000),
    default=BATCH,
    show_default=True,
    help="The most users to add in one batch. If one of a batch is wrong, none of them is added.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Skip users that exist already, to continue an import that ended early.",
)
@legacyOption
@click.pass_context
def importUsers(
    context: click.Context, file: str, form: str | None, batch: int, resume: bool, legacy: bool
) -> None:
    """Add users from FILE, or from standard input if FILE is a dash.

    A line is a user, as pbauth export writes it, or with a password in place of verifiers.
    """
    chosen = _choose(form, file)
    options: GlobalOptions = context.obj
    hashing = Hashing(md5=legacy)
    watch = _Watch()
    with _opened(file) as lines, _bar("Importing", lines.size) as update:

        def tell(done: Progress) -> None:
            update(done.end, watch.said(done.added + done.skipped + done.hashed))

        try:
            done = administer(
                context,
                lambda admin: importRecords(
                    admin,
                    chosen.read(lines),
                    batch=batch,
                    skipKnown=resume,
                    hashing=hashing,
                    policy=options.policy,
                    progress=tell,
                    enough=lines.stop,
                ),
                hashing,
            )
            failure: Exception | None = None
        except (ImportFailed, ImportStopped) as error:
            failure = error
    if isinstance(failure, ImportStopped):
        click.echo(
            f"{visible(str(failure))} To continue, run the same command with --resume.", err=True
        )
        context.exit(_INTERRUPTED)
    if failure is not None:
        raise click.ClickException(
            f"{lines.name}, {failure} Fix that, and run the same command with --resume."
        )
    rate = (done.added + done.skipped) / max(watch.seconds, 0.001)
    skipped = f"; {done.skipped:,} were there already" if done.skipped else ""
    click.echo(
        f"Imported {_users(done.added)} in {watch.seconds:.1f} seconds "
        f"({rate:,.0f} users/s){skipped}."
    )


def _choose(form: str | None, file: str) -> Format:
    if form is None:
        form = "jsonl"
        if file != _STANDARD:
            found = _ENDINGS.get(os.path.splitext(file)[1].lower())
            if found is None:
                raise click.UsageError(
                    f"The name {file} does not say in what format it is. Use --format jsonl or "
                    "--format csv."
                )
            form = found
    return FORMATS[form]


def _users(count: int) -> str:
    return "1 user" if count == 1 else f"{count:,} users"


async def _countUsers(admin: Any) -> int:
    count, after = 0, ""
    while page := await admin.listUsers(after, _COUNTED):
        count += len(page)
        after = page[-1][0]
    return count


class _Watch:
    """Says how fast it goes."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    def said(self, users: int) -> str:
        """Return how many users there are so far, and how many in a second."""
        return f"{users:,} users, {users / max(self.seconds, 0.001):,.0f} users/s"


@contextmanager
def _bar(label: str, length: int | None) -> Iterator[Callable[..., None]]:
    """
    Show on a terminal how far it is.

    Args:
        label: what is done.
        length: of the whole; `None`: not known.

    Returns:
        A function that takes the position in the whole, and a text to show; and the length, once it
        is known.
    """
    if not sys.stderr.isatty():
        yield lambda place, text, whole=None: None
        return
    with click.progressbar(
        None if length else iter([None]),
        length=length or None,
        label=label,
        file=sys.stderr,
        item_show_func=lambda text: text,
    ) as bar:

        def update(place: int, text: str, whole: int | None = length) -> None:
            # Where the length is not known a step moves what is shown in place of a bar.
            step = 1
            if whole:
                bar.length = whole
                step = max(0, min(place, whole) - bar.pos)
            bar.update(step, text)  # type: ignore[arg-type]

        yield update


@contextmanager
def _output(file: str) -> Iterator[Callable[[bytes], Any]]:
    if file == _STANDARD:
        yield sys.stdout.buffer.write
        sys.stdout.buffer.flush()
    else:
        with replacing(file) as opened:
            yield opened.write


class _Lines:
    """
    The lines of a file, or of whatever else can be read.

    Args:
        descriptor: to be read.
        name: for people.

    Attributes:
        name: for people.
        size: how many bytes there are; `None`: that is not known.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self.name = name
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise click.ClickException(f"{name} is a folder. Name a file, or - for standard input.")
        self.size = status.st_size if stat.S_ISREG(status.st_mode) else None
        self._stopped, self._stop = os.pipe()

    def __iter__(self) -> Iterator[bytes]:
        rest = b""
        while chunk := self._read():
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                yield line + b"\n"
            if len(rest) > LONGEST_LINE:
                # It will be refused as it is; no need to read on for its end.
                break
        if rest and chunk is not None:
            yield rest

    def _read(self) -> bytes | None:
        """Return what comes next, empty at the end; `None` once it is stopped."""
        ready, _, _ = select.select([self._descriptor, self._stopped], [], [])
        if self._stopped in ready:
            return None
        try:
            return os.read(self._descriptor, 65_536)
        except OSError as error:
            raise click.ClickException(f"Can't read {self.name}: {error.strerror}.") from None

    def stop(self) -> None:
        """Let go a thread that waits for a line."""
        os.write(self._stop, b"\0")

    def close(self) -> None:
        """Close what tells a thread; what is read stays open."""
        os.close(self._stopped)
        os.close(self._stop)


@contextmanager
def _opened(file: str) -> Iterator[_Lines]:
    if file == _STANDARD:
        descriptor, name = sys.stdin.fileno(), "standard input"
    else:
        name = file
        try:
            descriptor = os.open(file, os.O_RDONLY)
        except OSError as error:
            raise click.ClickException(f"Can't read {file}: {error.strerror}.") from None
    try:
        lines = _Lines(descriptor, name)
        try:
            yield lines
        finally:
            lines.close()
    finally:
        if file != _STANDARD:
            os.close(descriptor)
