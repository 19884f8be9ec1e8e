"""Twisted's own Perspective Broker, and its own login: a Portal, and MD5."""

from __future__ import annotations

from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import UsernamePassword
from twisted.cred.portal import IRealm, Portal
from twisted.spread import pb
from zope.interface import implementer

from tests.benchmarks.peers.accounts import PASSWORD, nameOf, spread
from tests.benchmarks.peers.ontwisted import HOST, OnTwisted, listen
from tests.benchmarks.peers.pbclients import LoginClient, serverOptions

FAMILY = "twisted"


class Caller(pb.Avatar):
    """What a client may call."""

    def perspective_echo(self, value: Any) -> Any:
        return value

    def logout(self) -> None:
        pass


@implementer(IRealm)
class Realm:
    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        caller = Caller()
        return pb.IPerspective, caller, caller.logout


class Server(OnTwisted):
    def __init__(self, certificate: str, accounts: int = 20) -> None:
        self._certificate = certificate
        self._accounts = accounts

    def do_listen(self) -> dict[str, Any]:
        names = [nameOf(number).encode() for number in range(self._accounts)]
        checker = InMemoryUsernamePasswordDatabaseDontUse()
        for name in names:
            checker.addUser(name, PASSWORD.encode())
        factory = pb.PBServerFactory(Portal(Realm(), [checker]))
        options = serverOptions(self._certificate)
        return {
            "tcp": listen(factory),
            "tls": listen(factory, options),
            "accounts": self._accounts,
        }


class Client(LoginClient):
    async def do_connect(self, tcp: int, accounts: int, **others: int) -> None:
        perspective = await self.logInBy_tcp(tcp, spread(0, accounts))
        self.call = lambda value: perspective.callRemote("echo", value)

    async def logInBy_tcp(self, port: int, name: str) -> Any:
        """Log in with plain TCP."""
        from twisted.internet import reactor as running

        reactor: Any = running
        factory = pb.PBClientFactory()
        reactor.connectTCP(HOST, port, factory)
        return await self.logInHeld(factory, name)

    async def logInBy_tls(self, port: int, name: str) -> Any:
        """Log in over TLS."""
        from twisted.internet import reactor as running

        reactor: Any = running
        factory = pb.PBClientFactory()
        reactor.connectSSL(HOST, port, factory, self.tlsOptions)
        return await self.logInHeld(factory, name)

    async def openConnection(self, port: int) -> Any:
        from twisted.internet import reactor as running

        reactor: Any = running
        factory = pb.PBClientFactory()
        reactor.connectTCP(HOST, port, factory)
        await factory.getRootObject()
        return factory

    async def logInHeld(self, opened: Any, name: str) -> Any:
        return await opened.login(UsernamePassword(name.encode(), PASSWORD.encode()))
