"""The folder in which a server and the ``pbauth`` command keep what lasts."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Any

from twisted.internet import ssl

from pbauth._files import createPrivate, exposure
from pbauth.accounts.authorizer import DECOY_BYTES
from pbauth.accounts.hashing import Hashing
from pbauth.accounts.memory import DefaultAuthorizer
from pbauth.authorizers.passwd.authorizer import PasswdFileAuthorizer
from pbauth.authorizers.sql.authorizer import SQLAuthorizer
from pbauth.errors import StoreError
from pbauth.net.certificates import makeCertificate

#: The default path of the state folder.
DEFAULT_FOLDER = "pbauth-state"

_DATABASE = "accounts.sqlite"
_CERTIFICATE = "server.pem"

# What decoys are made from. Each store keeps it; here it is kept for another store to begin with.
_DECOYS = "decoys"


def openAuthorizer(
    folder: str, accounts: str | None = None, *, reading: bool = False, **options: Any
) -> Any:
    """
    Open the accounts: of a state folder, unless they are said to be elsewhere. What is on this
    machine is made if it is not there.

    Args:
        folder: the path of the state folder.
        accounts: ``sqlite:FILE``, ``passwd:FILE`` or ``postgresql://user@host/database``; `None`:
            an SQLite file in the state folder.
        reading: nothing is changed, and so nothing is made or upgraded; accounts on this machine
            that are not there are empty.
        options: for `SQLAuthorizer`, or for `PasswdFileAuthorizer`.

    Returns:
        The authorizer, an `ISharedAccountStore`.

    Raises:
        StoreError: there are no such accounts, the folder can't be made, others can read it, or
            the database can't be used.
    """
    if reading:
        if accounts is None and os.path.lexists(folder):
            _checkPrivate(folder)
        file = accountsFile(folder, accounts)
        if file is not None and not os.path.lexists(file):
            return _NoAccounts(hashing=options.get("hashing", Hashing()))
        return _open(folder, accounts, reading=True, **options)
    if accounts is None:
        makeFolder(folder)
    authorizer = _open(folder, accounts, decoySecret=_readDecoySecret(folder), **options)
    _keepDecoySecret(folder, authorizer.decoySecret)
    return authorizer


class _NoAccounts(DefaultAuthorizer):
    """Accounts of which there are none yet."""

    def close(self) -> None:
        """Do nothing."""


def _open(folder: str, accounts: str | None, **options: Any) -> Any:
    if accounts is None:
        return SQLAuthorizer(os.path.abspath(os.path.join(folder, _DATABASE)), **options)
    kind, _, file = accounts.partition(":")
    if kind == "sqlite" and file:
        return SQLAuthorizer(os.path.abspath(file), **options)
    if kind == "passwd" and file:
        return PasswdFileAuthorizer(os.path.abspath(file), **options)
    if kind in ("postgresql", "postgres"):
        return SQLAuthorizer(accounts, passwordInURL=False, **options)
    raise StoreError(
        f"There are no accounts {kind}:... Say sqlite:FILE, passwd:FILE, or "
        "postgresql://user@host/database"
    )


def _readDecoySecret(folder: str) -> bytes | None:
    path = os.path.join(folder, _DECOYS)
    try:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            secret = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"Can't use {path}: {error.strerror}.") from None
    problem = exposure(path, found, f"Other users can read the secret in {path}")
    if problem is not None:
        raise StoreError(problem)
    if len(secret) != DECOY_BYTES:
        raise StoreError(f"{path} is damaged. Remove it, and it will be made again.")
    return secret


def _keepDecoySecret(folder: str, secret: bytes) -> None:
    path = os.path.join(folder, _DECOYS)
    # Whoever has accounts elsewhere may have no state folder.
    if os.path.isdir(folder) and not os.path.exists(path):
        try:
            createPrivate(path, secret)
        except OSError as error:
            raise StoreError(f"Can't create {path}: {error.strerror}.") from None


def accountsFile(folder: str, accounts: str | None = None) -> str | None:
    """
    Return the path of the file that `openAuthorizer` opens, which may not exist yet.

    Args:
        folder: the state folder, as for `openAuthorizer`.
        accounts: as for `openAuthorizer`.

    Returns:
        The absolute path; `None`: the accounts are not in a file.
    """
    if accounts is None:
        return os.path.abspath(os.path.join(folder, _DATABASE))
    kind, _, file = accounts.partition(":")
    return os.path.abspath(file) if kind in ("sqlite", "passwd") and file else None


#: What a backup of the state folder holds beside the accounts: for each file, whether it can hold
#: this.
STATE_FILES: dict[str, Callable[[bytes], bool]] = {
    _DECOYS: lambda data: len(data) == DECOY_BYTES,
    _CERTIFICATE: lambda data: _loadCertificate(data) is not None,
}


def certificatePath(folder: str) -> str:
    """Return the path of the file that `openCertificate` opens."""
    return os.path.join(folder, _CERTIFICATE)


def openCertificate(folder: str) -> ssl.PrivateCertificate:
    """
    Open the server's own certificate, self-signed; it is created if it does not exist, and then
    kept, since clients know the server by its key.

    Args:
        folder: the path of the state folder.

    Returns:
        The certificate with its private key.

    Raises:
        StoreError: it can't be made or read, or others can read it.
    """
    makeFolder(folder)
    path = certificatePath(folder)
    try:
        if not os.path.exists(path):
            createPrivate(path, makeCertificate())
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            pem = file.read()
    except OSError as error:
        raise StoreError(f"Can't use {path}: {error.strerror}.") from None
    problem = exposure(path, found, f"Other users can read the private key in {path}")
    if problem is not None:
        raise StoreError(problem)
    loaded = _loadCertificate(pem)
    if loaded is None:
        raise StoreError(
            f"{path} is damaged. Restore it, or remove it: then a new one is created, and clients "
            "that know the old key have to learn the new one."
        )
    return loaded


def _loadCertificate(pem: bytes) -> ssl.PrivateCertificate | None:
    try:
        return ssl.PrivateCertificate.loadPEM(pem)
    except Exception:
        # OpenSSL's errors, of which there are many kinds, may show what is in the file.
        return None


def makeFolder(folder: str, owner: tuple[int, int] | None = None) -> None:
    """
    Make the state folder, unless there is one.

    Args:
        folder: the path.
        owner: the user and the group that get a new folder; `None`: those of this process. What is
            made in it later belongs to the owner of the folder.

    Raises:
        StoreError: it can't be made, or others can read it.
    """
    try:
        os.mkdir(folder, 0o700)
        if owner is not None:
            os.chown(folder, *owner)
    except FileExistsError:
        _checkPrivate(folder)
    except OSError as error:
        raise StoreError(f"Can't create the state folder {folder}: {error.strerror}.") from None


def _checkPrivate(folder: str) -> None:
    try:
        found = os.stat(folder)
    except OSError as error:
        target = f" (a link to {os.readlink(folder)})" if os.path.islink(folder) else ""
        raise StoreError(
            f"Can't use the state folder {folder}{target}: {error.strerror}."
        ) from None
    if not stat.S_ISDIR(found.st_mode):
        raise StoreError(f"{folder} is not a folder. Name another one with --state.")
    problem = exposure(folder, found, f"Other users can access the state folder {folder}")
    if problem is not None:
        raise StoreError(problem)
