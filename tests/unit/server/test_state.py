"""The folder of what lasts."""

from __future__ import annotations

import os
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pbauth import StoreError
from pbauth.server.state import openAuthorizer

SCRAM = "SCRAM-SHA-256"


class DecoyTests(SynchronousTestCase):
    """Names that do not exist are challenged as before, even after a move to another store."""

    def setUp(self) -> None:
        self.folder = self.mktemp()

    def open(self, accounts: str | None = None, folder: str | None = None) -> Any:
        """Open accounts."""
        authorizer = openAuthorizer(folder or self.folder, accounts)
        self.addCleanup(authorizer.close)
        return authorizer

    def decoy(self, authorizer: Any) -> Any:
        """How a name that does not exist is challenged."""
        return authorizer.getDecoyVerifier("mallory", SCRAM)

    def test_moved(self) -> None:
        """From the state folder to another database, to a file, and back to a new folder's."""
        first = self.decoy(self.open())
        elsewhere = f"sqlite:{self.mktemp()}"
        file = f"passwd:{self.mktemp()}"
        for accounts in (elsewhere, file, elsewhere, None):
            self.assertEqual(self.decoy(self.open(accounts)), first)
        # Without that folder it is another server.
        self.assertNotEqual(self.decoy(self.open(f"sqlite:{self.mktemp()}", self.mktemp())), first)

    def test_fromElsewhere(self) -> None:
        """A folder that has only the certificate keeps the secret of accounts elsewhere."""
        os.mkdir(self.folder, 0o700)
        first = self.decoy(self.open(f"sqlite:{self.mktemp()}"))
        self.assertEqual(self.decoy(self.open()), first)

    def test_keptByStores(self) -> None:
        """A store that has a secret keeps it, whatever the folder says."""
        accounts = f"sqlite:{self.mktemp()}"
        first = self.decoy(self.open(accounts, self.mktemp()))
        self.open()
        self.assertEqual(self.decoy(self.open(accounts)), first)

    def test_file(self) -> None:
        """The file is its owner's alone; one that is not, or is damaged, is refused."""
        self.open()
        path = os.path.join(self.folder, "decoys")
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        os.chmod(path, 0o644)
        with self.assertRaisesRegex(StoreError, "Other users can read the secret"):
            self.open()
        os.chmod(path, 0o600)
        with open(path, "wb") as file:
            file.write(b"short")
        with self.assertRaisesRegex(StoreError, "is damaged. Remove it"):
            self.open()

    def test_noFolder(self) -> None:
        """Accounts elsewhere need no folder, and make none."""
        self.open(f"sqlite:{self.mktemp()}")
        self.assertFalse(os.path.exists(self.folder))
