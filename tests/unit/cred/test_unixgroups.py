"""Groups of the machine."""

from __future__ import annotations

import grp
import os
import pwd

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.trial.unittest import TestCase

from pbauth import DefaultAuthorizer
from pbauth.cred.unixgroups import UnixGroupsAuthorizer, isUnixGroup, unixGroupsOf


class UnixGroupsTests(TestCase):
    """The groups of whoever runs the tests."""

    def setUp(self) -> None:
        user = pwd.getpwuid(os.getuid())
        self.user = user.pw_name
        self.group = grp.getgrgid(user.pw_gid).gr_name

    def test_machine(self) -> None:
        """What the machine says; nothing of somebody whom it does not know."""
        self.assertIn(self.group, unixGroupsOf(self.user))
        self.assertEqual(unixGroupsOf("no such user"), [])
        self.assertEqual(unixGroupsOf("nul\0"), [])
        self.assertTrue(isUnixGroup(self.group))
        self.assertFalse(isUnixGroup("no such group"))

    async def test_followed(self) -> None:
        """A user is in the group of the same name; other groups stay as they are."""
        accounts = DefaultAuthorizer()
        for name in (self.group, "no such group", "nobody's"):
            await accounts.addGroup(name)
        for name in (self.user, "mallory"):
            await accounts.addIdentity(accounts.createIdentity(name))
            await accounts.addMember("no such group", name)
        await accounts.addMember(self.group, "mallory")
        checker = InMemoryUsernamePasswordDatabaseDontUse()
        authorizer = UnixGroupsAuthorizer([checker], accounts=accounts)
        found = await authorizer.getIdentityRequest(self.user)
        self.assertEqual(found.groups, {self.group, "no such group"})
        found = await authorizer.getIdentityRequest("mallory")
        self.assertEqual(found.groups, {"no such group"})
