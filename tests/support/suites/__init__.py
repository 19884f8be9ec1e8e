"""Suites of tests that several implementations of an interface pass."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase as Mixin
else:

    class Mixin:
        """A suite is no test case, lest it is run by itself; with one it makes one."""


__all__ = ["Mixin"]
