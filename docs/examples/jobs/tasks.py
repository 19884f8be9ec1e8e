"""What the workers can do: a generator for each task, which yields lines for its log, and bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from hashlib import sha256

from joberrors import BadInput
from twisted.internet import reactor
from twisted.internet.task import deferLater


async def checksum(data: AsyncIterator[bytes]) -> AsyncIterator[str | bytes]:
    """Give the SHA-256 of the input."""
    digest, size = sha256(), 0
    async for chunk in data:
        digest.update(chunk)
        size += len(chunk)
    yield f"{size:,} bytes were read"
    yield digest.hexdigest().encode() + b"\n"


async def upper(data: AsyncIterator[bytes]) -> AsyncIterator[str | bytes]:
    """Give the input in upper case."""
    async for chunk in data:
        yield chunk.upper()


async def countdown(data: AsyncIterator[bytes]) -> AsyncIterator[str | bytes]:
    """Count down from the number in the input, once a second."""
    text = b"".join([chunk async for chunk in data])
    if not text.strip().isdigit():
        raise BadInput("The input must be a number.")
    for number in range(int(text), 0, -1):
        yield f"{number}"
        await deferLater(reactor, 1.0)
    yield b"lift-off\n"


TASKS = {task.__name__: task for task in (checksum, upper, countdown)}
