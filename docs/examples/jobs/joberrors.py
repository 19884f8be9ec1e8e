"""The errors that cross the wire, for the server, its clients and its workers."""

from __future__ import annotations

import pbauth


class NoSuchJob(pbauth.WireError):
    """There is no job of this number, or it is somebody else's."""

    def __init__(self, number: int) -> None:
        super().__init__(f"You have no job {number}.")
        self.number = number


class JobFailed(pbauth.WireError):
    """A job has no result."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(f"Job {number}: {reason}")
        self.number = number
        self.reason = reason


class Refused(pbauth.WireError):
    """A job can't be taken on; the text says why."""


class BadInput(pbauth.WireError):
    """A task can't do anything with its input; the text says why."""
