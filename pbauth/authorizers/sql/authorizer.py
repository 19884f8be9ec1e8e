"""
Identities in an SQL database: an SQLite file, or PostgreSQL, which many servers may share.

The database is opened once to check it, to make its tables where there are none, and to read what
all decoys are made from; after that every operation is one interaction of `adbapi`, that is one
transaction and one hop to a thread.  What differs between the two is in their engines, `sqlite` and
`postgres`.

Other processes (the `pbauth` command, other servers) may change the accounts at any time.  An
identity is read again for each login; and while the service of `SQLAuthorizer.changesService` runs,
sessions end that somebody else's change no longer allows.

An identity that this authorizer gives is a copy.  Changes to it count when it is saved, and that is
when sessions that are no longer allowed end.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeVar

from attrs import frozen
from twisted.application.service import IServiceCollection
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.components import Componentized
from zope.interface import implementer

from pbauth._async import chooseReactor
from pbauth._contained import contained
from pbauth._moments import checkMoment, fromStamp, toStamp
from pbauth.accounts.administrators import (
    GroupLoss,
    KeptAdministrator,
    checkChange,
    checkKeeping,
)
from pbauth.accounts.groups import Groups, Key, checkGroupName, checkKey, filled
from pbauth.accounts.hashing import Hashing
from pbauth.accounts.identity import checkRenewal
from pbauth.accounts.records import Record, frequentCosts, listedRecords, recordOf
from pbauth.audit import Audit
from pbauth.authorizers.snapshots import CopyingAuthorizer
from pbauth.authorizers.sql.engine import DECOY_SECRET, MOST_CONNECTIONS, Engine, Statements
from pbauth.authorizers.sql.sqlite import SQLiteEngine
from pbauth.authorizers.sql.sqlitereading import SQLiteReader
from pbauth.errors import (
    DuplicateGroup,
    DuplicateIdentity,
    NotAMember,
    StoreError,
    Unauthorized,
    UnknownGroup,
)
from pbauth.interfaces import (
    IChangesService,
    IGroupStore,
    IIdentity,
    ISharedAccountStore,
    Reactor,
)
from pbauth.mechanisms import scram
from pbauth.mechanisms.scram import ScramVerifier

_log = Logger()
_Result = TypeVar("_Result")

#: How many identities are read at once.
_MANY = 240
#: How many earlier verifiers of one password are known again.
_FORMER = 4
#: Seconds in which nobody asks for a connection again, after there was none.
_PAUSE = 1.0

# More than there can be.
_ALL = 2**62

# One statement, so that all of it is of one moment.
_READ = """
    SELECT name, 0, CAST(locked AS TEXT), CAST(expires AS TEXT), CAST(must_change AS TEXT),
        CAST(created AS TEXT), CAST(last_login AS TEXT) FROM identities WHERE name IN ({names})
    UNION ALL SELECT identity, 1, mechanism, verifier, succeeds, NULL, NULL FROM verifiers
        WHERE identity IN ({names})
    UNION ALL SELECT identity, 2, service, perspective, methods, NULL, NULL FROM keys
        WHERE identity IN ({names})
    UNION ALL SELECT members.identity, 3, members.groupname, group_keys.service,
        group_keys.perspective, NULL, NULL FROM members
        LEFT JOIN group_keys ON group_keys.groupname = members.groupname
        WHERE members.identity IN ({names})
"""


def openEngine(
    database: str, lockTimeout: float, passwordInURL: bool, reading: bool = False
) -> Engine:
    """
    Return the engine for a kind of database.

    Args:
        database: the path of an SQLite file, or the URL of a PostgreSQL database.
        lockTimeout: seconds, as for `SQLAuthorizer`.
        passwordInURL: as for `SQLAuthorizer`.
        reading: as for `SQLAuthorizer`.

    Raises:
        StoreError: the package for this database is not installed, or the URL is not one.
    """
    if not database.startswith(("postgresql://", "postgres://")):
        return (SQLiteReader if reading else SQLiteEngine)(database, lockTimeout)
    try:
        from pbauth.authorizers.sql.postgres import PostgresEngine
    except ImportError:
        raise StoreError(
            "PostgreSQL needs one more package. Run: pip install 'pbauth[postgres]'"
        ) from None
    return PostgresEngine(database, passwordInURL, reading)


class _Reading:
    """
    Identities that are being read.

    Attributes:
        readers: how many read it.
        changes: how often somebody has changed it since the first of them began.
    """

    __slots__ = ("changes", "readers")

    def __init__(self) -> None:
        self.readers = self.changes = 0


@implementer(ISharedAccountStore, IGroupStore)
class SQLAuthorizer(CopyingAuthorizer):
    """
    Keeps identities in an SQL database. An SQLite file is created if it does not exist, readable by
    its owner only; a PostgreSQL database has to be there, its tables are made.

    Args:
        database: the path of an SQLite file; or ``postgresql://user@host/database``, with all
            that libpq knows.
        serviceCollection: as for `Authorizer`.
        hashing: as for `Authorizer`.
        reactor: provides threads; the global one by default.
        lockTimeout: seconds to wait while another process writes to the file.
        passwordInURL: whether a URL may hold a password. Not where others see it: in the arguments
            of a program, for instance.
        audit: as for `Authorizer`.
        decoySecret: what decoys are made from, 32 random bytes, in a database that is made now; by
            default new ones.
        reading: nothing is written: no database is made or upgraded, and nothing can be changed.

    Attributes:
        upgraded: what was upgraded when the database was opened, for people; empty: nothing.

    Raises:
        StoreError: the database can't be opened or made, is none of pbauth, or is one of a
            later version.
    """

    def __init__(
        self,
        database: str | os.PathLike[str],
        serviceCollection: IServiceCollection | Componentized | None = None,
        hashing: Hashing = Hashing(),  # noqa: B008 - immutable
        *,
        reactor: Reactor = None,
        lockTimeout: float = 5.0,
        passwordInURL: bool = True,
        audit: Audit | None = None,
        decoySecret: bytes | None = None,
        reading: bool = False,
    ) -> None:
        super().__init__(serviceCollection, hashing, audit=audit, reactor=reactor)
        self._reading: dict[str, _Reading] = {}
        self._reactor = chooseReactor(reactor)
        self._engine = openEngine(os.fspath(database), lockTimeout, passwordInURL, reading)
        self._pausedUntil = 0.0
        try:
            self._decoySecret, costs = self._engine.prepare(decoySecret or self._decoySecret)
        except self._engine.Error as error:
            raise self._refusal(error) from None
        self._noteCosts(costs)
        self.upgraded = self._engine.upgraded
        if self.upgraded:
            _log.warn("{upgraded}", upgraded=self.upgraded)
        self._pool: Any = self._engine.openPool(self._reactor)

    def close(self) -> None:
        """Close the database. Call it once, when nothing is under way any more."""
        self._pool.close()

    def changesService(self) -> IChangesService:
        """
        Return a service that watches for changes by others: another server, or the command.

        While it runs, it ends the sessions that such a change no longer allows: within a second,
        or as soon as the database can be reached again.
        """
        return self._engine.changesService(self._reactor, self._pool, self.changed)

    # Writing.

    def updateIdentity(self, identity: IIdentity) -> Deferred[None]:
        """
        Store what changed, and end the sessions that are no longer allowed.

        Returns:
            Fires when that is done; fails with `KeyError` if the identity is not known, or with
            `StoreError`.
        """

        async def update() -> None:
            record = await recordOf(identity)
            before = self._storedRecord.get(identity)

            def write(statements: Statements) -> Groups:
                if not statements.lock(record.name):
                    raise KeyError(record.name)
                found = _read(statements, [record.name])[record.name]
                _writeChanges(statements, before or found.record, record)
                return found.groups

            identity.setGroups(await self._write(write))
            self._saved(identity, record)
            self._noteChange([record.name])
            self.endUnauthorized(identity)

        return Deferred.fromCoroutine(update())

    def renewVerifier(
        self, identity: IIdentity, old: ScramVerifier, new: ScramVerifier
    ) -> Deferred[bool]:
        """
        Replace a verifier by a stronger one of the same password, unless somebody, in whatever
        process, replaced it in the meantime. Sessions on other servers stand.

        Returns:
            Fires with whether that was done; fails with `StoreError`.

        Raises:
            TypeError: an argument is of the wrong type.
        """
        checkRenewal(identity, old, new)

        def renew(statements: Statements) -> bool:
            return bool(
                statements.run(
                    "UPDATE verifiers SET verifier = ?,"
                    " succeeds = substr(? || coalesce(' ' || succeeds, ''), 1, ?)"
                    " WHERE identity = ? AND mechanism = ? AND verifier = ?",
                    *(new.encode(), old.digest(), _FORMER * (len(old.digest()) + 1)),
                    *(identity.name, scram.NAME, old.encode()),
                )
            )

        return Deferred.fromCoroutine(self._write(renew))

    def removeIdentity(self, name: str) -> Deferred[None]:
        """
        Forget an identity, and end its sessions.

        Returns:
            Fires when that is done; fails with `KeyError` if it is not known, or with
            `StoreError`.
        """

        def delete(statements: Statements) -> None:
            if not statements.run("DELETE FROM identities WHERE name = ?", name):
                raise KeyError(name)

        async def remove() -> None:
            await self._write(delete)
            self._noteChange([name])
            self.identityRemoved(name)

        return Deferred.fromCoroutine(remove())

    def changeIdentity(
        self,
        name: str,
        change: Callable[[Record], Record | None],
        keeping: KeptAdministrator | None = None,
    ) -> Deferred[None]:
        """
        Change an identity in one transaction, and end the sessions that it no longer allows (see
        `IAccountStore`).

        Returns:
            Fires when that is done; fails with `KeyError` if it is not known, with
            `LastAdministrator`, with whatever `change` raises, or with `StoreError`.

        Raises:
            TypeError: an argument is of the wrong type.
        """
        checkChange(change, keeping)

        def write(statements: Statements) -> tuple[Record | None, Groups]:
            holders = [] if keeping is None else statements.lockHolders(keeping.service, name)
            if not statements.lock(name):
                raise KeyError(name)
            found = _read(statements, [name, *(each for each in holders if each != name)])
            before = found[name].record
            after = change(before)
            if keeping is not None:
                keeping.check(before, after, *_recordsOf(found))
            if after is None:
                statements.run("DELETE FROM identities WHERE name = ?", name)
            else:
                _writeChanges(statements, before, after)
            return after, found[name].groups

        async def run() -> None:
            after, groups = await self._write(write)
            self._noteChange([name])
            if after is None:
                self.identityRemoved(name)
            else:
                self.endUnauthorized(after.asIdentity(self, groups))

        return Deferred.fromCoroutine(run())

    def addRecords(self, records: Iterable[Record], skipKnown: bool = False) -> Deferred[int]:
        """
        Store new identities, all or none.

        Returns:
            Fires with how many were added; fails with `DuplicateIdentity` if a name is taken, or
            with `StoreError`.

        Raises:
            TypeError: an argument is of the wrong type.
        """
        wanted = listedRecords(records)

        async def add() -> int:
            added = await self._write(lambda statements: _add(statements, wanted, skipKnown))
            self._noteCosts(frequentCosts(wanted))
            return added

        return Deferred.fromCoroutine(add())

    # Reading.

    def getIdentityRequest(self, name: str) -> Deferred[IIdentity]:
        """
        Read the identity of this name from the database.

        Args:
            name: as the client claims it.

        Returns:
            Fires with a copy of the identity; fails with `Unauthorized` if there is none, or with
            `StoreError`.
        """

        async def request() -> IIdentity:
            found = (await self._readNow([name])).get(name)
            if found is None:
                raise Unauthorized()
            return self._asIdentity(found)

        return Deferred.fromCoroutine(request())

    def _asIdentity(self, found: Found) -> IIdentity:
        record = found.record
        identity = self._copyOf(record, found.groups)
        if found.former:
            today = dict(record.verifiers)[scram.NAME]
            self.proofs.renewedElsewhere(record.name, found.former, ScramVerifier.decode(today))
        return identity

    async def _readNow(self, names: list[str]) -> dict[str, Found]:
        """
        Read identities. What was changed while they were read is read again: who looks after the
        sessions when there is a change finds those that exist then, and a login whose identity is
        on its way from the database has none yet.
        """
        for name in names:
            self._reading.setdefault(name, _Reading()).readers += 1
        try:
            while True:
                seen = [self._reading[name].changes for name in names]
                found = await self._run(lambda statements: _read(statements, names))
                if seen == [self._reading[name].changes for name in names]:
                    return found
        finally:
            for name in names:
                self._reading[name].readers -= 1
                if not self._reading[name].readers:
                    del self._reading[name]

    def _noteChange(self, names: Iterable[str]) -> None:
        for name in names:
            if name in self._reading:
                self._reading[name].changes += 1

    async def changed(self, names: Iterable[str] | None) -> None:
        """
        Somebody else has changed accounts: end the sessions that are no longer allowed.

        Args:
            names: of the identities; `None`: any may have changed.

        Raises:
            StoreError: the database can't be read.
        """
        changed = list(self._reading) if names is None else list(names)
        self._noteChange(changed)
        if names is None:
            # A backup was put back, maybe. Other servers may have its secret already.
            query = "SELECT value FROM meta WHERE name = ?"
            for (value,) in await self._run(lambda run: run.rows(query, DECOY_SECRET)):
                self._decoySecret = bytes(value)
        live = set(self.sessions.names())
        concerned = sorted(live if names is None else live.intersection(changed))
        for start in range(0, len(concerned), _MANY):
            some = concerned[start : start + _MANY]
            found = await self._readNow(some)
            for name in some:
                identity = None
                # Nobody stays because of what the class of the identity raises.
                with contained(_log, "Can't find out what {name!r} may do", name=name):
                    identity = self._asIdentity(found[name]) if name in found else None
                if identity is not None:
                    self.endUnauthorized(identity)
                else:
                    self.identityRemoved(name)

    def listIdentities(
        self, after: str = "", most: int | None = None
    ) -> Deferred[list[tuple[str, bool, int]]]:
        """
        List identities, sorted by name, as `IAccountStore` describes it.

        Args:
            after: the name behind which the list begins; empty: the first one.
            most: how many identities to list at most; `None`: all.

        Returns:
            Fires with a list of `(name, locked, number of keys)`; fails with `StoreError`.
        """

        def read(statements: Statements) -> list[tuple[str, bool, int]]:
            rows = statements.rows(
                "SELECT name, locked, (SELECT count(*) FROM keys WHERE identity = name)"
                " FROM identities WHERE name > ? ORDER BY name LIMIT ?",
                after,
                _ALL if most is None else most,
            )
            return [(name, bool(locked), keys) for name, locked, keys in rows]

        return Deferred.fromCoroutine(self._run(read))

    def listHolders(self, service: str) -> Deferred[list[tuple[str, str, bool, str]]]:
        """
        List the keys to a service with their holders, as `IAccountStore` describes it.

        Args:
            service: the name of the service.

        Returns:
            Fires with a sorted list of `(name, perspectiveName, locked, group)`; fails with
            `StoreError`.
        """

        def read(statements: Statements) -> list[tuple[str, str, bool, str]]:
            rows = statements.rows(
                "SELECT identity, perspective, locked, '' FROM keys"
                " JOIN identities ON identity = name WHERE service = ?"
                " UNION ALL SELECT identity, perspective, locked, members.groupname"
                " FROM group_keys JOIN members ON members.groupname = group_keys.groupname"
                " JOIN identities ON identity = name WHERE service = ?",
                *(service, service),
            )
            return sorted(
                (name, filled((service, perspective), name)[1], bool(locked), group)
                for name, perspective, locked, group in rows
            )

        return Deferred.fromCoroutine(self._run(read))

    def readRecords(self, after: str = "", most: int | None = None) -> Deferred[list[Record]]:
        """
        Read whole accounts, sorted by name, as `IAccountStore` describes it.

        Args:
            after: the name behind which the list begins; empty: the first one.
            most: how many accounts to read at most; `None`: all.

        Returns:
            Fires with a list of records; fails with `StoreError`.
        """

        def read(statements: Statements) -> list[Record]:
            rows = statements.rows(
                "SELECT name FROM identities WHERE name > ? ORDER BY name LIMIT ?",
                after,
                _ALL if most is None else most,
            )
            names = [name for (name,) in rows]
            found = _read(statements, names)
            return [found[name].record for name in names if name in found]

        return Deferred.fromCoroutine(self._run(read))

    def countExpiring(self, until: datetime) -> Deferred[int]:
        """Count the accounts that expire until then (see `IAccountStore`)."""
        wanted = toStamp(self.now()), toStamp(checkMoment(until, "until"))

        def read(statements: Statements) -> int:
            ((count,),) = statements.rows(
                "SELECT count(*) FROM identities WHERE expires > ? AND expires <= ?", *wanted
            )
            return int(count)

        return Deferred.fromCoroutine(self._run(read))

    # Groups.

    def addGroup(self, name: str) -> Deferred[None]:
        """Add a group (see `IGroupStore`)."""

        def add(statements: Statements) -> None:
            if statements.lockGroup(name):
                raise DuplicateGroup(name)
            statements.run("INSERT INTO groups (name) VALUES (?)", name)

        async def check() -> None:
            checkGroupName(name)
            await self._write(add)

        return Deferred.fromCoroutine(check())

    def removeGroup(self, name: str, keeping: KeptAdministrator | None = None) -> Deferred[None]:
        """Remove a group, and end the sessions that rested on it (see `IGroupStore`)."""
        return self._lose(GroupLoss(name), keeping)

    def listGroups(self, after: str = "", most: int | None = None) -> Deferred[list[str]]:
        """List the groups (see `IGroupStore`)."""

        def read(statements: Statements) -> list[str]:
            rows = statements.rows(
                "SELECT name FROM groups WHERE name > ? ORDER BY name LIMIT ?",
                after,
                _ALL if most is None else most,
            )
            return [name for (name,) in rows]

        return Deferred.fromCoroutine(self._run(read))

    def addMember(self, group: str, identityName: str) -> Deferred[None]:
        """Make an identity a member of a group (see `IGroupStore`)."""

        def add(statements: Statements) -> None:
            if not statements.lockGroup(group):
                raise UnknownGroup(group)
            if not statements.lock(identityName):
                raise KeyError(identityName)
            statements.run(
                "INSERT INTO members (identity, groupname) VALUES (?, ?) ON CONFLICT DO NOTHING",
                *(identityName, group),
            )

        return Deferred.fromCoroutine(self._write(add))

    def removeMember(
        self, group: str, identityName: str, keeping: KeptAdministrator | None = None
    ) -> Deferred[None]:
        """Take an identity out of a group (see `IGroupStore`)."""
        return self._lose(GroupLoss(group, member=identityName), keeping)

    def members(self, group: str) -> Deferred[list[str]]:
        """List the members of a group (see `IGroupStore`)."""

        def read(statements: Statements) -> list[str]:
            rows = statements.rows(
                "SELECT name, NULL FROM groups WHERE name = ?"
                " UNION ALL SELECT groupname, identity FROM members WHERE groupname = ?",
                *(group, group),
            )
            if not rows:
                raise UnknownGroup(group)
            return sorted(name for _, name in rows if name is not None)

        return Deferred.fromCoroutine(self._run(read))

    def groupsOf(self, identityName: str) -> Deferred[list[str]]:
        """List the groups of an identity (see `IGroupStore`)."""

        def read(statements: Statements) -> list[str]:
            rows = statements.rows(
                "SELECT groupname FROM members WHERE identity = ? ORDER BY groupname", identityName
            )
            return [name for (name,) in rows]

        return Deferred.fromCoroutine(self._run(read))

    def grantGroupKey(self, group: str, service: str, perspective: str) -> Deferred[None]:
        """Give a group a key (see `IGroupStore`)."""

        def grant(statements: Statements) -> None:
            if not statements.lockGroup(group):
                raise UnknownGroup(group)
            statements.run(
                "INSERT INTO group_keys (groupname, service, perspective) VALUES (?, ?, ?)"
                " ON CONFLICT DO NOTHING",
                *(group, service, perspective),
            )

        async def check() -> None:
            checkKey(service, perspective)
            await self._write(grant)

        return Deferred.fromCoroutine(check())

    def revokeGroupKey(
        self, group: str, service: str, perspective: str, keeping: KeptAdministrator | None = None
    ) -> Deferred[None]:
        """Take a key from a group, and end the sessions that rested on it (see `IGroupStore`)."""
        return self._lose(GroupLoss(group, key=(service, perspective)), keeping)

    def groupKeys(self, group: str) -> Deferred[list[Key]]:
        """List the keys of a group (see `IGroupStore`)."""

        def read(statements: Statements) -> list[Key]:
            rows = statements.rows(
                "SELECT service, perspective FROM groups LEFT JOIN group_keys ON groupname = name"
                " WHERE name = ?",
                group,
            )
            if not rows:
                raise UnknownGroup(group)
            return sorted(key for key in rows if key[0] is not None)  # type: ignore[misc]

        return Deferred.fromCoroutine(self._run(read))

    def _lose(self, loss: GroupLoss, keeping: KeptAdministrator | None) -> Deferred[None]:
        checkKeeping(keeping)

        def lose(statements: Statements) -> None:
            if keeping is not None:
                holders = statements.lockHolders(keeping.service, loss.member or "")
            if not statements.lockGroup(loss.group):
                raise UnknownGroup(loss.group)
            if keeping is not None:
                keeping.checkLoss(loss, *_recordsOf(_read(statements, holders)))
            if loss.member is not None:
                if not statements.run(
                    "DELETE FROM members WHERE groupname = ? AND identity = ?",
                    *(loss.group, loss.member),
                ):
                    raise NotAMember(loss.group, loss.member)
            elif loss.key is not None:
                if not statements.run(
                    "DELETE FROM group_keys WHERE groupname = ? AND service = ?"
                    " AND perspective = ?",
                    *(loss.group, *loss.key),
                ):
                    raise KeyError(loss.key)
            else:
                statements.run("DELETE FROM groups WHERE name = ?", loss.group)

        async def run() -> None:
            await self._write(lose)
            await self.changed(None if loss.member is None else [loss.member])

        return Deferred.fromCoroutine(run())

    # In a thread, and what becomes of errors.

    async def _write(self, act: Callable[[Statements], _Result]) -> _Result:
        return await self._run(act, writing=True)

    async def _run(self, act: Callable[[Statements], _Result], writing: bool = False) -> _Result:
        if self._reactor.seconds() < self._pausedUntil:
            raise StoreError()
        # After a restart of the database, all connections may be lost; each is replaced when it is
        # used.
        for _ in range(MOST_CONNECTIONS):
            with suppress(_OnceMore):
                return await self._runOnce(act, writing)
        try:
            return await self._runOnce(act, writing)
        except _OnceMore as failed:
            raise self._refusal(failed.error) from None

    async def _runOnce(self, act: Callable[[Statements], _Result], writing: bool) -> _Result:
        # How far it came: there was a connection; all was done but to commit it.
        steps = []

        def interact(cursor: Any) -> _Result:
            steps.append("connected")
            if writing:
                self._engine.beginWriting(cursor)
            result = act(Statements(self._engine, cursor))
            steps.append("done")
            return result

        try:
            result: _Result = await self._pool.runInteraction(interact)
            return result
        except self._engine.Error as error:
            if not steps:
                # Each attempt may take long: not everybody needs to find that out.
                self._pausedUntil = self._reactor.seconds() + _PAUSE
            elif steps == ["connected"] and (
                isinstance(error, self._engine.IntegrityError) or self._engine.isLost(error)
            ):
                raise _OnceMore(error) from None
            raise self._refusal(error) from None

    def _refusal(self, error: Exception) -> StoreError:
        refusal = StoreError(self._engine.explain(error))
        # A client learns only that the accounts can't be reached.
        _log.error("{refusal}", refusal=refusal)
        return refusal


class _OnceMore(Exception):
    """
    The connection was lost, before this perhaps; or somebody else has just added what was to be
    added. Nothing was committed, and another attempt may do better, or know more.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


@frozen
class Found:
    """
    An identity that was read.

    Attributes:
        record: what is stored of it.
        former: the digests of the verifiers that its one was preceded by.
        groups: the keys of its groups.
    """

    record: Record
    former: frozenset[str]
    groups: Groups


def _recordsOf(found: dict[str, Found]) -> tuple[list[Record], Groups]:
    """Return the records of identities, and the keys of their groups."""
    groups = {name: keys for each in found.values() for name, keys in each.groups.items()}
    return [each.record for each in found.values()], groups


def _read(statements: Statements, names: Sequence[str]) -> dict[str, Found]:
    """Read identities."""
    # This is done for each login, so it is written for speed.
    identities: dict[str, tuple[Any, ...]] = {}
    former: dict[str, frozenset[str]] = {}
    verifiers: dict[str, list[tuple[str, str]]] = {}
    keys: dict[str, list[Key]] = {}
    methods: dict[str, list[tuple[str, str, str]]] = {}
    groups: dict[str, dict[str, list[Key]]] = {}
    for start in range(0, len(names), _MANY):
        page = names[start : start + _MANY]
        query = _READ.format(names=", ".join("?" * len(page)))
        for row in statements.rows(query, *page, *page, *page, *page):
            name, part, first, second, third = row[:5]
            if part == 0:
                identities[name] = row[2:]
            elif part == 1:
                verifiers.setdefault(name, []).append((first, second))
                if third:
                    former[name] = frozenset(third.split())
            elif part == 2:
                keys.setdefault(name, []).append((first, second))
                if third:
                    limited = methods.setdefault(name, [])
                    limited += [(first, second, each) for each in third.split("\n")]
            else:
                some = groups.setdefault(name, {}).setdefault(first, [])
                if second is not None:
                    some.append((second, third))
    found = {}
    for name, (locked, expires, mustChange, created, lastLogin) in identities.items():
        held = {group: frozenset(some) for group, some in groups.get(name, {}).items()}
        record = Record(
            name,
            locked == "1",
            frozenset(verifiers.get(name, ())),
            frozenset(keys.get(name, ())),
            frozenset(held),
            None if expires is None else fromStamp(expires),
            mustChange == "1",
            None if created is None else fromStamp(created),
            None if lastLogin is None else fromStamp(lastLogin),
            frozenset(methods.get(name, ())),
        )
        found[name] = Found(record, former.get(name, _NONE), held)
    return found


_NONE: frozenset[str] = frozenset()


def _groupOf(statements: Statements, name: str) -> None:
    if not statements.rows("SELECT 1 FROM groups WHERE name = ?", name):
        raise UnknownGroup(name)


def _known(statements: Statements, names: list[str]) -> set[str]:
    known: set[str] = set()
    for start in range(0, len(names), _MANY):
        some = names[start : start + _MANY]
        query = f"SELECT name FROM identities WHERE name IN ({', '.join('?' * len(some))})"  # noqa: S608
        known.update(name for (name,) in statements.rows(query, *some))
    return known


def _add(statements: Statements, records: list[Record], skipKnown: bool = False) -> int:
    known = _known(statements, [record.name for record in records])
    new: dict[str, Record] = {}
    for record in records:
        if record.name not in known and record.name not in new:
            new[record.name] = record
        elif not skipKnown:
            raise DuplicateIdentity(record.name)
    for group in {group for record in new.values() for group in record.groups}:
        _groupOf(statements, group)
    statements.insert(
        "identities",
        ("name", "locked", *_LIFE),
        [(record.name, int(record.locked), *_lifeOf(record)) for record in new.values()],
    )
    statements.insert(
        "verifiers",
        ("identity", "mechanism", "verifier"),
        [(name, *verifier) for name, record in new.items() for verifier in record.verifiers],
    )
    statements.insert(
        "keys",
        ("identity", "service", "perspective", "methods"),
        [(name, *key) for name, record in new.items() for key in _keysOf(record)],
    )
    statements.insert(
        "members",
        ("identity", "groupname"),
        [(name, group) for name, record in new.items() for group in record.groups],
    )
    return len(new)


#: Columns of ``identities``.
_LIFE = ("expires", "must_change", "created", "last_login")


def _lifeOf(record: Record) -> tuple[int | None, ...]:
    return (
        toStamp(record.expires),
        int(record.mustChangePassword),
        toStamp(record.created),
        toStamp(record.lastLogin),
    )


def _writeChanges(statements: Statements, before: Record, after: Record) -> None:
    name = after.name
    if before.locked != after.locked:
        statements.run("UPDATE identities SET locked = ? WHERE name = ?", int(after.locked), name)
    for column, was, becomes in zip(_LIFE, _lifeOf(before), _lifeOf(after), strict=True):
        if was != becomes:
            statements.run(f"UPDATE identities SET {column} = ? WHERE name = ?", becomes, name)  # noqa: S608
    changed = before.verifiers ^ after.verifiers
    statements.runEach(
        "DELETE FROM verifiers WHERE identity = ? AND mechanism = ?",
        sorted({(name, mechanism) for mechanism, _ in changed}),
    )
    statements.runEach(
        "INSERT INTO verifiers (identity, mechanism, verifier) VALUES (?, ?, ?)",
        [(name, *verifier) for verifier in sorted(after.verifiers & changed)],
    )
    statements.runEach(
        "DELETE FROM keys WHERE identity = ? AND service = ? AND perspective = ?",
        sorted((name, *key[:2]) for key in _keysOf(before) - _keysOf(after)),
    )
    statements.runEach(
        "INSERT INTO keys (identity, service, perspective, methods) VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO NOTHING",
        [(name, *key) for key in _keysOf(after) - _keysOf(before)],
    )


def _keysOf(record: Record) -> set[tuple[str, str, str | None]]:
    """Return the rows of its keys: service, perspective, and its methods in lines."""
    found = set()
    for key in record.keys:
        methods = record.methodsOf(key)
        found.add((*key, None if methods is None else "\n".join(sorted(methods))))
    return found
