"""Identities in a passwd file."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from pbauth import Hashing, PasswdFileAuthorizer
from tests.suites.authorizers import AccountStoreSuite


class PasswdFileAuthorizerTests(AccountStoreSuite, TestCase):
    """`PasswdFileAuthorizer` passes the shared suite."""

    def makeAuthorizer(self, services: Any = None, hashing: Hashing = Hashing.CHEAPEST) -> Any:
        return PasswdFileAuthorizer(self.mktemp(), services, hashing)
