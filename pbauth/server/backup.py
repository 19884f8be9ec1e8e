"""
A backup of all that a server keeps: its accounts, the secret behind the decoys, its key and
certificate.

It is a tar file with `_MANIFEST`, which says of what kind the accounts are, the accounts as their
store copies them, and the files of the state folder.  It is made while servers run, and put back
while they run: a store copies and replaces its accounts in one step, and servers look at all their
sessions again.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from pbauth._files import createPrivate, replacing, writePrivate
from pbauth.authorizers.passwd.file import PasswdFile
from pbauth.authorizers.sql.sqlitecopy import copyDatabase, replaceDatabase
from pbauth.errors import StoreError
from pbauth.server.state import STATE_FILES, accountsFile, makeFolder, openAuthorizer

_MANIFEST = "pbauth-backup.json"
_FORMAT = 1
_ACCOUNTS = "accounts"
_STATE = "state/"

# Of a file of the state folder, in bytes.
_LARGEST = 1 << 20

# Seconds to wait for others that write a passwd file.
_PATIENCE = 30.0


def backUp(folder: str, accounts: str | None, path: str) -> None:
    """
    Write a backup, readable by its owner only. It takes its name once it is whole.

    Args:
        folder: the state folder.
        accounts: as for `pbauth.server.state.openAuthorizer`.
        path: of the backup.

    Raises:
        StoreError: there are no such accounts, or they can't be read.
        OSError: the backup can't be written.
    """
    kind, file = _kindOf(accounts), accountsFile(folder, accounts)
    if file is not None and not os.path.exists(file):
        raise StoreError(f"There are no accounts in {file} to back up.")
    if os.path.exists(path) and not os.path.isfile(path):
        raise StoreError(f"{path} is not a file. Name a file for the backup.")
    # Refuses accounts that are damaged, or that other users can read.
    openAuthorizer(folder, accounts, reading=True).close()
    with (
        _scratch(path) as scratch,
        replacing(path) as whole,
        tarfile.open(fileobj=whole, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        _add(tar, _MANIFEST, json.dumps({"format": _FORMAT, "accounts": kind}).encode())
        copy = os.path.join(scratch, "copy")
        if kind == "sqlite" and file is not None:
            createPrivate(copy)
            copyDatabase(file, copy)
            _addFile(tar, _ACCOUNTS, copy)
        elif file is not None:
            passwd = PasswdFile(file, _PATIENCE)
            _add(tar, _ACCOUNTS, passwd.copy())
            _addIfThere(tar, f"{_ACCOUNTS}.decoy", f"{os.path.realpath(file)}.decoy")
        else:
            _copyTables(tar, str(accounts), scratch)
        for name in STATE_FILES:
            _addIfThere(tar, _STATE + name, os.path.join(folder, name))


def restore(folder: str, accounts: str | None, path: str, replace: bool) -> None:
    """
    Put a backup back. Nothing is written before all of it was looked at.

    Args:
        folder: the state folder; it is made if there is none.
        accounts: where the accounts go, in a store of the kind that was backed up.
        path: of the backup.
        replace: whether accounts that are there may be replaced.

    Raises:
        StoreError: this is no backup, it is damaged, or of another kind of store; there are
            accounts already; or it can't be written.
        OSError: the backup can't be read, or the state folder can't be written.
    """
    kind, file = _kindOf(accounts), accountsFile(folder, accounts)
    with _opened(path) as tar:
        found = _manifest(tar, path)
        if found != kind:
            raise StoreError(
                f"{path} has accounts of the kind {found}, and these are of the kind {kind}. To "
                "move accounts from one store to another: pbauth export, pbauth import"
            )
        state = _stateFiles(tar, path)
        if not replace:
            _checkEmpty(file, folder, accounts)
        if file is None or os.path.dirname(file) == os.path.abspath(folder) or state:
            makeFolder(folder)
        with _scratch(file or os.path.join(folder, _ACCOUNTS)) as scratch:
            copy = os.path.join(scratch, "copy")
            if kind == "sqlite" and file is not None:
                _extract(tar, _ACCOUNTS, copy, path)
                replaceDatabase(file, copy)
            elif file is not None:
                _restorePasswd(tar, file, path)
            else:
                _replaceTables(tar, str(accounts), path)
        for name, data in state.items():
            _write(os.path.join(folder, name), data)


def _kindOf(accounts: str | None) -> str:
    kind = "sqlite" if accounts is None else accounts.partition(":")[0]
    return "postgresql" if kind == "postgres" else kind


def _checkEmpty(file: str | None, folder: str, accounts: str | None) -> None:
    if file is not None and os.path.exists(file) and os.path.getsize(file):
        raise StoreError(f"There are accounts in {file}. To replace all of them: --replace")
    if file is None:
        from pbauth.authorizers.sql.postgrescopy import hasAccounts

        if hasAccounts(str(accounts)):
            raise StoreError(
                "There are accounts in the database. To replace all of them: --replace"
            )


def _restorePasswd(tar: tarfile.TarFile, file: str, path: str) -> None:
    data = _readMember(tar, _ACCOUNTS, path, None)
    decoy = f"{_ACCOUNTS}.decoy"
    secret = _readMember(tar, decoy, path) if decoy in tar.getnames() else None
    # Servers that notice the new file also read the secret.
    if secret is not None:
        _write(f"{os.path.realpath(file)}.decoy", secret)
    PasswdFile(file, _PATIENCE).restore(data)


def _copyTables(tar: tarfile.TarFile, url: str, scratch: str) -> None:
    from pbauth.authorizers.sql.postgrescopy import copyTables

    @contextmanager
    def opened(table: str) -> Iterator[BinaryIO]:
        draft = os.path.join(scratch, table)
        createPrivate(draft)
        with open(draft, "wb") as file:
            yield file
        _addFile(tar, f"{_ACCOUNTS}/{table}", draft)
        os.unlink(draft)

    copyTables(url, opened)


def _replaceTables(tar: tarfile.TarFile, url: str, path: str) -> None:
    from pbauth.authorizers.sql.postgrescopy import replaceTables

    replaceTables(url, lambda table: _member(tar, f"{_ACCOUNTS}/{table}", path))


# The tar file.


@contextmanager
def _scratch(path: str) -> Iterator[str]:
    """Make a private folder, on the same disk as a file, for as long as the body runs."""
    with tempfile.TemporaryDirectory(
        prefix=".draft-", dir=os.path.dirname(os.path.abspath(path))
    ) as folder:
        yield folder


@contextmanager
def _opened(path: str) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(path, "r:") as tar:
            yield tar
    except tarfile.TarError:
        damaged = StoreError(f"{path} is not a backup of pbauth, or is damaged.")
    else:
        return
    raise damaged


def _manifest(tar: tarfile.TarFile, path: str) -> Any:
    try:
        said = json.loads(_readMember(tar, _MANIFEST, path))
        form, kind = said["format"], said["accounts"]
    except (ValueError, LookupError, TypeError):
        raise StoreError(f"{path} is not a backup of pbauth, or is damaged.") from None
    if form != _FORMAT:
        raise StoreError(f"{path} was made by another version of pbauth. Upgrade pbauth.")
    return kind


def _stateFiles(tar: tarfile.TarFile, path: str) -> dict[str, bytes]:
    names = tar.getnames()
    state = {
        name: _readMember(tar, _STATE + name, path)
        for name in STATE_FILES
        if _STATE + name in names
    }
    for name, data in state.items():
        if not STATE_FILES[name](data):
            raise StoreError(f"{path} is damaged: {name} in it can't be read.")
    return state


def _member(tar: tarfile.TarFile, name: str, path: str) -> Any:
    try:
        file = tar.extractfile(name)
    except KeyError:
        file = None
    if file is None:
        raise StoreError(f"{path} is damaged, or not a backup of pbauth: there is no {name} in it.")
    return file


def _readMember(tar: tarfile.TarFile, name: str, path: str, most: int | None = _LARGEST) -> bytes:
    with _member(tar, name, path) as file:
        data: bytes = file.read() if most is None else file.read(most + 1)
    if most is not None and len(data) > most:
        raise StoreError(f"{path} is damaged: {name} in it is too large.")
    return data


def _extract(tar: tarfile.TarFile, name: str, target: str, path: str) -> None:
    with _member(tar, name, path) as source, _created(target) as file:
        while chunk := source.read(_LARGEST):
            file.write(chunk)


def _created(target: str) -> BinaryIO:
    return os.fdopen(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb")


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o600
    tar.addfile(member, io.BytesIO(data))


def _addFile(tar: tarfile.TarFile, name: str, path: str) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = os.path.getsize(path), 0o600
    with open(path, "rb") as file:
        tar.addfile(member, file)


def _addIfThere(tar: tarfile.TarFile, name: str, path: str) -> None:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return
    _add(tar, name, data)


def _write(path: str, data: bytes) -> None:
    try:
        former = os.stat(path)
    except FileNotFoundError:
        former = None
    writePrivate(path, data, former=former)
