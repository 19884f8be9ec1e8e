"""A connection for the length of a block."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from twisted.spread import pb

from pbauth._arguments import checkType
from pbauth._async import chooseReactor
from pbauth.client.login import Login
from pbauth.interfaces import Reactor
from pbauth.net.transports import dropConnection

#: Seconds that a connection may take to close before it is cut.
CLOSING_TIME = 5.0


def connected(
    login: Login, reactor: Reactor = None
) -> AbstractAsyncContextManager[pb.RemoteReference]:
    """
    Connect and log in, and close the connection at the end of the block.

    ::

        async with pbauth.connected(Login(endpoint, "alice", "secret", "game")) as perspective:
            await perspective.callRemote("move", "D4")

    Args:
        login: who logs in where, and to which perspective.
        reactor: as for `connect`.

    Returns:
        An asynchronous context manager; it gives what `connect` fires with, and raises what that
        fails with.

    Raises:
        TypeError: `login` is of the wrong type.
    """
    checkType(Login, login, "login")
    return _connected(login, chooseReactor(reactor))


@asynccontextmanager
async def _connected(login: Login, theReactor: Any) -> AsyncIterator[pb.RemoteReference]:
    perspective = await login.run(theReactor)
    broker: Any = perspective.broker
    try:
        yield perspective
    except GeneratorExit:
        # Nobody is left who would leave the block, and nothing can be waited for.
        dropConnection(broker)
        raise
    except BaseException:
        await _close(broker, theReactor)
        raise
    else:
        await _close(broker, theReactor)


async def _close(broker: Any, theReactor: Any) -> None:
    if broker.disconnected:
        return
    closed = broker.whenClosed()
    broker.transport.loseConnection()
    cut = theReactor.callLater(CLOSING_TIME, dropConnection, broker)
    try:
        await closed
    finally:
        if cut.active():
            cut.cancel()
