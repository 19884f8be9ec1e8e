"""
The logins of Twisted 1.x and of stock Twisted, by PB-MD5; off unless the policy lets them in.

The objects here stand in front of a `pbauth.root.AuthChallenger`, and answer as those clients
expect.
"""

from __future__ import annotations

from typing import Any

from pbauth.errors import Unauthorized, WireError, forStockClient
from pbauth.sessions import EndReason
from pbauth.wireobject import WireObject


async def attachStockClient(wrapper: Any, serviceName: str, mind: Any) -> Any:
    """
    Attach a client of stock Twisted, whose way to log out is to drop its reference.

    Args:
        wrapper: its `IdentityWrapper`.
        serviceName: the service that such clients get.
        mind: a reference to the client's object, or `None`.

    Returns:
        The perspective.
    """
    reference = await wrapper.attach(serviceName, None, mind)
    # Where Twisted's own login notes the same; there is no public place for it.
    cleanup = reference.session.broker._localCleanup
    cleanup[reference.processUniqueID()] = lambda: reference.session.end(EndReason.DETACHED)
    return reference


class LegacyChallenger(WireObject):
    """
    Takes the response of a client of Twisted 1.x (the seed, "Code Walkthrough").

    Args:
        challenger: the `AuthChallenger` that checks it.
    """

    def __init__(self, challenger: Any) -> None:
        self._challenger = challenger

    async def remote_respond(self, response: Any) -> Any:
        """
        Take the response.

        Returns:
            The `IdentityWrapper`, or `None` if the password was wrong.
        """
        try:
            _, wrapper = await self._challenger.prove(response)
        except Unauthorized:
            return None
        return wrapper


class StockChallenger(WireObject):
    """
    Takes the response of a client of stock Twisted.

    Args:
        challenger: the `AuthChallenger` that checks it.
        serviceName: the service that such clients get.
    """

    def __init__(self, challenger: Any, serviceName: str) -> None:
        self._challenger = challenger
        self._serviceName = serviceName

    async def remote_respond(self, response: Any, mind: Any = None) -> Any:
        """
        Take the response.

        Args:
            response: by PB-MD5.
            mind: a reference to the client's object, or `None`.

        Returns:
            The identity's perspective of the service.
        """
        try:
            _, wrapper = await self._challenger.prove(response)
            return await attachStockClient(wrapper, self._serviceName, mind)
        except WireError as error:
            raise forStockClient(error) from None
