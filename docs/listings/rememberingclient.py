"""
``rememberingclient.py ENDPOINT NAME``: ask whether to trust a server, once, and then who one is.
"""

import sys
from getpass import getpass

from twisted.internet.task import react

from pbauth import KnownServers, ServerNotTrusted, connect


async def main(reactor, endpoint, name):
    try:
        trust = await KnownServers("known_servers").trustFor(endpoint)
        echo = await connect(endpoint, None, name, getpass("Password: "), "echo", trust=trust)
    except ServerNotTrusted as refusal:
        sys.exit(str(refusal))
    print(await echo.callRemote("whoami"))
    echo.broker.transport.loseConnection()


react(main, sys.argv[1:])
