"""
The administration as a service: what the ``pbauth`` command does, for those who hold a key to it.

Who calls is never an argument, it is the identity that logged in; and each change is recorded in
the audit log under its name. What crosses the wire is in `pbauth.admin.protocol`. Passwords do not
come here: an administrator's program makes the verifier, as `pbauth.changePassword` does.

Whoever holds a key to this service can give themselves any other, and read all verifiers. Keep it
to connections over TLS or from this machine, as the ports of ``twistd pbauth`` do by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from heapq import nsmallest
from typing import Any

from twisted.application.service import IServiceCollection
from twisted.internet.defer import ensureDeferred, maybeDeferred
from twisted.python.components import Componentized
from twisted.spread import pb

from pbauth._arguments import checkCallable, checkProvides, checkType, listed
from pbauth._async import shielded
from pbauth.accounts.administrators import KeptAdministrator
from pbauth.admin import protocol
from pbauth.admin.administration import Administration
from pbauth.admin.peers import Answers, SessionPeers, SessionRow, endByAdministrator, rowOf
from pbauth.errors import (
    CannotDrain,
    MethodNotAllowed,
    NotProtected,
    PasswordsElsewhere,
    ProtocolViolation,
    UnknownSession,
)
from pbauth.interfaces import ClientReference, IAccountStore, IAuthorizer, IIdentity
from pbauth.mechanisms import Verifier, plain, scram, verifiersFor
from pbauth.perspectives.perspective import Perspective
from pbauth.perspectives.service import Service
from pbauth.perspectives.sessions import currentSession
from pbauth.wire.calls import readCall
from pbauth.wire.channel import isProtected

#: What an administrator may call who has logged in with a voucher, or whose login may have been
#: passed on by somebody else.
_READING = frozenset(
    {
        *("listUsers", "findUsers", "showUser", "listGroups", "listMembers", "groupKeys"),
        *("listKeys", "whoCan", "listPublicKeys", "listVouchers", "listSessions"),
        "unheardServers",
    }
)


class Administrator(Perspective):
    """
    What an administrator holds: each client has its own.

    Args:
        perspectiveName: of the key; any will do.
        identityName: of the administrator.
    """

    _administration: Administration
    _broker: Any
    # What other servers answered last; their sessions, while they are listed page by page.
    _elsewhere = Answers()

    def brokerAttached(
        self, clientref: ClientReference, identity: IIdentity, broker: pb.Broker
    ) -> Administrator:
        """Give each client a perspective that knows who it is."""
        super().brokerAttached(clientref, identity, broker)
        own = type(self)(self.perspectiveName, identity.name)
        service = self.getService()
        own.setService(service)
        own._administration = service.administration.by(identity.name)
        own._broker = broker
        return own

    def perspectiveMessageReceived(self, broker: Any, message: Any, args: Any, kw: Any) -> Any:
        """
        Run a method that the administrator calls. What does not fit is a `ProtocolViolation`:
        anything else would be logged with its arguments. So is what changes an account, or shows
        a verifier, where somebody may stand in between.
        """
        session = currentSession()
        name = message.decode("utf-8", "replace") if isinstance(message, bytes) else message
        if session is not None and name not in _READING:
            if session.voucher is not None:
                # Otherwise whoever has one could make more of it: a user, a key, another voucher.
                raise MethodNotAllowed(name)
            # Whoever passes a password on as it is knows it: there is nothing left to protect.
            knowsIt = session.proof is None and self.getService().authorizer.externalPasswords
            if not (knowsIt or isProtected(broker, session.bound)):
                raise NotProtected()
        method, arguments, keywords = readCall(self, "perspective", broker, message, args, kw, self)
        result = method(*arguments, **keywords)
        if isinstance(result, Coroutine):
            # A caller that gives up does not leave an account half changed.
            result = shielded(ensureDeferred(result))
        return broker.serialize(result, self, method, arguments, keywords)

    # Users.

    async def perspective_addUser(self, name: Any, verifiers: Any) -> None:
        """
        Add an identity.

        Args:
            name: of the identity.
            verifiers: a list of encoded verifiers of its password, by SCRAM or MD5; may be empty.

        Raises:
            DuplicateIdentity: the name is taken.
            PasswordsElsewhere: there is a verifier, and passwords are not kept here.
        """
        made = self._passwordVerifiers(verifiers)
        await self._administration.addUserWithVerifiers(protocol.decodeIdentityName(name), made)

    async def perspective_removeUser(self, name: Any) -> None:
        """
        Remove an identity.

        Raises:
            UnknownUser: there is none of that name.
            LastAdministrator: nobody would be left who can administer.
        """
        await self._administration.removeUser(protocol.decodeName(name))

    async def perspective_setPassword(
        self, name: Any, verifiers: Any, mustChange: Any = False
    ) -> None:
        """
        Give an identity a new password; its sessions that the old one opened end. If that is the
        administrator, those of this connection stay.

        Args:
            name: of the identity.
            verifiers: as for `perspective_addUser`, one at least.
            mustChange: the password has to be changed before anything else.

        Raises:
            UnknownUser: there is none of that name.
            PasswordsElsewhere: passwords are not kept here.
        """
        made = self._passwordVerifiers(verifiers)
        must = protocol.decodeFlag(mustChange)
        if scram.NAME not in made:
            raise ProtocolViolation(f"There is no verifier for {scram.NAME}.")
        if protocol.decodeName(name) != self.identityName:
            await self._administration.setVerifiers(name, made, must)
            return
        authorizer = self.getService().authorizer
        identity = await maybeDeferred(authorizer.getIdentityRequest, name)
        replaced = (await maybeDeferred(identity.getVerifiers)).values()
        own = [each for each in self._sessions.holders(name) if each.broker is self._broker]
        with authorizer.proofs.changing(name, replaced, made[scram.NAME], own):
            await self._administration.setVerifiers(name, made, must)

    async def perspective_setLocked(self, name: Any, locked: Any) -> None:
        """
        Lock or unlock an identity.

        Raises:
            UnknownUser: there is none of that name.
            LastAdministrator: nobody would be left who can administer.
        """
        await self._administration.setLocked(protocol.decodeName(name), protocol.decodeFlag(locked))

    async def perspective_listUsers(self, after: Any, most: Any) -> list[tuple[str, bool, int]]:
        """
        Return the next page of identities, sorted by name.

        Args:
            after: the last name of the page before; empty: begin with the first name.
            most: how many rows to return at most; there may be fewer.

        Returns:
            Rows of `(name, locked, number of keys)`; no rows after the last identity.
        """
        users = await self._administration.listUsers(
            protocol.decodeCursor(after), protocol.decodeCount(most)
        )
        return protocol.encodePage(tuple(user) for user in users)

    async def perspective_findUsers(
        self, locked: Any, expired: Any, inactiveSince: Any, after: Any, most: Any
    ) -> list[tuple[str, bool, int]]:
        """
        Return the next page of identities that are as asked for, sorted by name.

        Args:
            locked: only those that are locked.
            expired: only those that have expired.
            inactiveSince: only those that have not logged in since this moment; `None`: all.
            after: as for `perspective_listUsers`.
            most: as for `perspective_listUsers`.

        Returns:
            As `perspective_listUsers`.
        """
        users = await self._administration.findUsers(
            protocol.decodeFlag(locked),
            protocol.decodeFlag(expired),
            protocol.decodeMoment(inactiveSince),
            protocol.decodeCursor(after),
            protocol.decodeCount(most),
        )
        return protocol.encodePage(users)

    async def perspective_showUser(self, name: Any) -> tuple[Any, ...]:
        """
        Return what is stored of an identity, without the verifiers of its password.

        Args:
            name: of the identity.

        Returns:
            What `encodeRecord` writes.

        Raises:
            UnknownUser: there is none of that name.
        """
        record = await self._administration.showUser(protocol.decodeName(name))
        return protocol.encodeRecord(record)

    async def perspective_setExpiry(self, name: Any, expires: Any) -> None:
        """
        Set when an identity expires.

        Args:
            name: of the identity.
            expires: the moment; `None`: never.

        Raises:
            UnknownUser: there is none of that name.
            LastAdministrator: nobody would be left who can administer for good.
        """
        moment = protocol.decodeMoment(expires)
        await self._administration.setExpiry(protocol.decodeName(name), moment)

    # Groups.

    async def perspective_addGroup(self, name: Any) -> None:
        """
        Add a group.

        Raises:
            DuplicateGroup: the name is taken.
        """
        await self._administration.addGroup(protocol.decodeGroup(name))

    async def perspective_removeGroup(self, name: Any) -> None:
        """
        Remove a group.

        Raises:
            UnknownGroup: there is none of that name.
            LastAdministrator: nobody would be left who can administer.
        """
        await self._administration.removeGroup(protocol.decodeGroup(name))

    async def perspective_listGroups(self, after: Any, most: Any) -> list[tuple[str]]:
        """
        Return the next page of the names of groups, sorted.

        Args:
            after: the last name of the page before; empty: begin with the first name.
            most: how many rows to return at most.

        Returns:
            Rows of `(name,)`; no rows after the last group.
        """
        groups = await self._administration.listGroups(
            protocol.decodeCursor(after), protocol.decodeCount(most)
        )
        return protocol.encodePage((name,) for name in groups)

    async def perspective_joinGroup(self, group: Any, name: Any) -> None:
        """
        Make an identity a member of a group.

        Raises:
            UnknownGroup: there is no group of that name.
            UnknownUser: there is no identity of that name.
        """
        names = protocol.decodeGroup(group), protocol.decodeName(name)
        await self._administration.joinGroup(*names)

    async def perspective_leaveGroup(self, group: Any, name: Any) -> None:
        """
        Take an identity out of a group.

        Raises:
            UnknownGroup: there is no group of that name.
            NotAMember: the identity is not in it.
            LastAdministrator: nobody would be left who can administer.
        """
        names = protocol.decodeGroup(group), protocol.decodeName(name)
        await self._administration.leaveGroup(*names)

    async def perspective_listMembers(self, group: Any, after: Any, most: Any) -> list[tuple[str]]:
        """
        Return the next page of the members of a group, sorted.

        Args:
            group: the name of the group.
            after: the last row of the page before; `None`: begin with the first one.
            most: how many rows to return at most.

        Returns:
            Rows of `(name,)`; no rows after the last member.

        Raises:
            UnknownGroup: there is no group of that name.
        """
        members = await self._administration.listMembers(protocol.decodeGroup(group))
        return protocol.encodePageAfter([(name,) for name in members], after, most, texts=1)

    async def perspective_grantGroupKey(self, group: Any, service: Any, perspective: Any) -> None:
        """
        Give a group a key.

        Raises:
            UnknownGroup: there is no group of that name.
        """
        await self._administration.grantGroupKey(
            protocol.decodeGroup(group), *protocol.decodePerspectiveKey(service, perspective)
        )

    async def perspective_revokeGroupKey(self, group: Any, service: Any, perspective: Any) -> None:
        """
        Take a key from a group.

        Raises:
            UnknownGroup: there is no group of that name.
            UnknownKey: it does not hold the key.
            LastAdministrator: nobody would be left who can administer.
        """
        await self._administration.revokeGroupKey(
            protocol.decodeGroup(group), *protocol.decodePerspectiveKey(service, perspective)
        )

    async def perspective_groupKeys(
        self, group: Any, after: Any, most: Any
    ) -> list[tuple[str, str]]:
        """
        Return the next page of the keys of a group.

        Args:
            group: the name of the group.
            after: the last pair of the page before; `None`: begin with the first one.
            most: how many rows to return at most.

        Returns:
            Pairs of `(service, perspective)`; none after the last key.

        Raises:
            UnknownGroup: there is no group of that name.
        """
        keys = await self._administration.groupKeys(protocol.decodeGroup(group))
        return protocol.encodePageAfter(keys, after, most)

    # Keys to perspectives.

    async def perspective_grantKey(
        self, name: Any, service: Any, perspective: Any, methods: Any = None
    ) -> None:
        """
        Put a key on a keyring.

        Args:
            name: of the identity.
            service: of the key.
            perspective: of the key.
            methods: a list of the methods that it is good for; `None`: all.

        Raises:
            UnknownUser: there is no identity of that name.
        """
        key = protocol.decodePerspectiveKey(service, perspective)
        limited = None if methods is None else protocol.decodeMethods(methods)
        await self._administration.grantKey(protocol.decodeName(name), *key, limited)

    async def perspective_revokeKey(self, name: Any, service: Any, perspective: Any) -> None:
        """
        Take a key from a keyring.

        Raises:
            UnknownUser: there is no identity of that name.
            UnknownKey: the key is not there.
            LastAdministrator: nobody would be left who can administer.
        """
        await self._administration.revokeKey(
            protocol.decodeName(name), *protocol.decodePerspectiveKey(service, perspective)
        )

    async def perspective_listKeys(self, name: Any, after: Any, most: Any) -> list[tuple[str, str]]:
        """
        Return the next page of the keys of an identity.

        Args:
            name: of the identity.
            after: the last pair of the page before; `None`: begin with the first one.
            most: how many rows to return at most.

        Returns:
            Pairs of `(service, perspective)`; none after the last key.

        Raises:
            UnknownUser: there is no identity of that name.
        """
        keys = await self._administration.listKeys(protocol.decodeName(name))
        return protocol.encodePageAfter(keys, after, most)

    async def perspective_whoCan(
        self, service: Any, after: Any, most: Any
    ) -> list[tuple[str, str, bool, str]]:
        """
        Return the next page of those who hold a key to a service.

        Args:
            service: the name of the service.
            after: name, perspective and group of the last row of the page before; `None`: begin
                with the first row.
            most: how many rows to return at most.

        Returns:
            Rows of `(name, perspective, locked, group)`; no rows after the last key.
        """
        holders = await self._administration.whoCan(
            protocol.decodeName(service, "name of a service")
        )
        return protocol.encodePageAfter(holders, after, most, texts=3)

    # Public keys.

    async def perspective_addPublicKeys(self, name: Any, keys: Any) -> None:
        """
        Authorize public keys for an identity.

        Args:
            name: of an identity.
            keys: a list of pairs: the name of the mechanism, and the line of the key.

        Raises:
            UnknownUser: there is no identity of that name.
        """
        read = [protocol.decodePublicKey(key) for key in protocol.decodeList(keys)]
        await self._administration.addPublicKeys(protocol.decodeName(name), read)

    async def perspective_listPublicKeys(
        self, name: Any, start: Any, most: Any
    ) -> list[tuple[str, str]]:
        """
        Return the next page of the authorized public keys of an identity.

        Args:
            name: of the identity.
            start: how many keys to pass over.
            most: how many keys to return at most.

        Returns:
            Keys in the form that `perspective_addPublicKeys` takes; none after the last key.

        Raises:
            UnknownUser: there is no identity of that name.
        """
        keys = await self._administration.listPublicKeys(protocol.decodeName(name))
        first = protocol.decodeNumber(start, 0)
        chosen = keys[first : first + protocol.decodeCount(most)]
        return protocol.encodePage(protocol.encodePublicKey(key) for key in chosen)

    # Vouchers.

    async def perspective_keepVoucher(self, name: Any, voucher: Any) -> None:
        """
        Keep a voucher of an identity, whose key the administrator's program has made.

        Args:
            name: of the identity.
            voucher: what is kept of it, the line of an `IssuedVoucher`.

        Raises:
            UnknownUser: there is no identity of that name.
            LimitExceeded: it would be good for too long, or there are too many.
        """
        issued = protocol.decodeVoucher(voucher)
        try:
            await self._administration.keepVoucher(protocol.decodeName(name), issued)
        except ValueError as mistake:
            raise ProtocolViolation(str(mistake)) from None

    async def perspective_listVouchers(self, name: Any, start: Any, most: Any) -> list[tuple[str]]:
        """
        Return the next page of the vouchers of an identity.

        Args:
            name: of the identity.
            start: how many vouchers to pass over.
            most: how many vouchers to return at most.

        Returns:
            Rows of one line, as `perspective_keepVoucher` takes it; none after the last voucher.

        Raises:
            UnknownUser: there is no identity of that name.
        """
        vouchers = await self._administration.listVouchers(protocol.decodeName(name))
        first = protocol.decodeNumber(start, 0)
        chosen = vouchers[first : first + protocol.decodeCount(most)]
        return protocol.encodePage((protocol.encodeVoucher(each),) for each in chosen)

    async def perspective_revokeVoucher(self, name: Any, which: Any) -> int:
        """
        Revoke a voucher by its id, or all of a label.

        Returns:
            How many there were.

        Raises:
            UnknownUser: there is no identity of that name.
            UnknownVoucher: there is no such voucher.
        """
        wanted = protocol.decodeName(which, "label of a voucher")
        return await self._administration.revokeVoucher(protocol.decodeName(name), wanted)

    async def perspective_removePublicKey(self, name: Any, which: Any) -> None:
        """
        Remove an authorized public key.

        Args:
            name: of an identity.
            which: fingerprint or label of the key.

        Raises:
            UnknownUser: there is no identity of that name.
            UnknownPublicKey: there is no such key, or more than one of that label.
            LastAdministrator: nobody would be left who can administer.
        """
        await self._administration.removePublicKey(
            protocol.decodeName(name), protocol.decodeName(which, "label of a key")
        )

    # Whole accounts.

    async def perspective_readRecords(self, after: Any, most: Any) -> list[tuple[Any, ...]]:
        """
        Return the next page of whole accounts, with their verifiers, sorted by name.

        Args:
            after: the last name of the page before; empty: begin with the first name.
            most: how many accounts to return at most.

        Returns:
            Accounts in the form of `encodeRecord`; none after the last account.
        """
        page = protocol.decodeCursor(after), protocol.decodeCount(most)
        records = await self._administration.readRecords(*page)
        return protocol.encodePage(map(protocol.encodeRecord, records))

    async def perspective_addRecords(self, records: Any, skipKnown: Any) -> int:
        """
        Store new accounts, all of these or none.

        Args:
            records: a list of what `encodeRecord` writes.
            skipKnown: leave those alone whose names are taken.

        Returns:
            How many were added.

        Raises:
            DuplicateIdentity: a name is taken.
        """
        skip = protocol.decodeFlag(skipKnown)
        read = protocol.decodeBatch(records)
        return await self._administration.addRecords(read, skip)

    # Sessions.

    async def perspective_listSessions(self, after: Any, most: Any) -> list[SessionRow]:
        """
        Return the next page of the live sessions, sorted by id: of this server, and of all others
        that share the database.

        Args:
            after: the id of the last session of the page before; empty: begin with the first one.
            most: how many rows to return at most.

        Returns:
            Rows of `(id, identity, service, perspective, peer, since)`, the last one in seconds by
            the server's clock; no rows after the last session.
        """
        first, count = protocol.decodeCursor(after), protocol.decodeCount(most)
        if not first:
            # The pages are of one moment, as far as the others are concerned.
            self._elsewhere = Answers() if self._peers is None else await self._peers.rows()
        here = [rowOf(each) for each in self._sessions if each.live]
        later = (row for row in (*here, *self._elsewhere.rows) if row[0] > first)
        return protocol.encodePage(nsmallest(count, later))

    async def perspective_endSession(self, session: Any) -> None:
        """
        End a session, on whichever server that shares the database.

        Args:
            session: its id.

        Raises:
            UnknownSession: there is none of that id.
        """
        wanted = protocol.decodeName(session, "session")
        for each in list(self._sessions):
            if each.id == wanted and each.live:
                endByAdministrator(self._sessions, each, self.identityName)
                self._elsewhere = Answers(unheard=0)
                return
        self._elsewhere = Answers()
        if self._peers is not None:
            self._elsewhere = await self._peers.end(wanted, self.identityName)
        if not self._elsewhere.ended:
            raise UnknownSession(wanted)

    async def perspective_endSessions(self, name: Any) -> int:
        """
        End all sessions of an identity, on all servers that share the database; if that is the
        administrator, all but those of this connection.

        Args:
            name: of the identity.

        Returns:
            How many there were.
        """
        wanted = protocol.decodeName(name)
        found = [
            each
            for each in self._sessions.ofIdentity(wanted)
            if each.live and not (name == self.identityName and each.broker is self._broker)
        ]
        for each in found:
            endByAdministrator(self._sessions, each, self.identityName)
        self._elsewhere = Answers()
        if self._peers is not None:
            self._elsewhere = await self._peers.endAll(wanted, self.identityName)
        return len(found) + self._elsewhere.ended

    def perspective_unheardServers(self) -> int | None:
        """
        Return how many other servers did not answer when this administrator last listed or ended
        sessions, so that theirs are left out; `None`: nobody could be asked.
        """
        return self._elsewhere.unheard

    # The server.

    def perspective_drain(self) -> float:
        """
        Have the server take no more connections, let its clients go, and stop.

        Returns:
            The seconds that this takes at most.

        Raises:
            CannotDrain: the program has no way to stop itself.
        """
        drain = self.getService().drain
        if drain is None:
            raise CannotDrain()
        self._sessions.audit.drained(self.identityName)
        return float(drain())

    @property
    def _peers(self) -> SessionPeers | None:
        peers: SessionPeers | None = self.getService().peers
        return peers

    @property
    def _sessions(self) -> Any:
        return self.getService().authorizer.sessions

    def _passwordVerifiers(self, verifiers: Any) -> dict[str, Verifier]:
        made = protocol.decodeVerifiers(verifiers)
        if made and self.getService().authorizer.externalPasswords:
            raise PasswordsElsewhere()
        return made


class AdminService(Service):
    """
    The administration, for those who hold a key to it. It has a perspective of every name.

    Args:
        serviceName: as for `Service`.
        serviceParent: as for `Service`.
        authorizer: of the identities that use this service, and all others; whose sessions are
            listed and ended.
        accounts: the `IAccountStore` to administer; by default the authorizer is one. A
            `CredAuthorizer` is not: here belong its ``accounts``.
        mechanisms: the names of those that the server offers, as its `Policy` lists them: the last
            administrator is somebody who can log in with one of them. By default any.
        peers: the sessions of other servers on the same store; `None`: there are none.
        drain: begins to drain the server, soon, and returns the seconds that this takes at most;
            `None`: no administrator can.

    Attributes:
        peers: the same.
        drain: the same.
        administration: what the administrators do, in nobody's name.

    Raises:
        TypeError: an argument is of the wrong type, or the accounts are no `IAccountStore`.
    """

    perspectiveClass = Administrator

    def __init__(
        self,
        serviceName: str = protocol.NAME,
        serviceParent: IServiceCollection | Componentized | None = None,
        authorizer: IAuthorizer | None = None,
        *,
        accounts: IAccountStore | None = None,
        mechanisms: Iterable[str] | None = None,
        peers: SessionPeers | None = None,
        drain: Callable[[], float] | None = None,
    ) -> None:
        offered = None if mechanisms is None else listed(mechanisms, "names", "mechanisms")
        owner = checkProvides(IAuthorizer, authorizer, "authorizer")
        if peers is not None:
            checkType(SessionPeers, peers, "peers")
        if drain is not None:
            checkCallable(drain, "drain")
        store = owner if accounts is None else accounts
        if not IAccountStore.providedBy(store):
            raise TypeError(
                f"accounts must provide IAccountStore, which {type(store).__name__} does not: it "
                "can't be administered. Name the accounts by AdminService(..., accounts=...)."
            )
        super().__init__(serviceName, serviceParent, authorizer)
        self.peers = peers
        self.drain = drain
        self.administration = Administration(
            store,
            keeping=KeptAdministrator(
                serviceName,
                bool(owner.externalPasswords) and (offered is None or plain.NAME in offered),
                None if offered is None else verifiersFor(offered),
            ),
            audit=owner.sessions.audit,
        )

    def loadPerspective(self, name: str) -> Administrator:
        """Make the perspective."""
        return self.perspectiveClass(name)
