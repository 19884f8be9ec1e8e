"""
``rememberingclient.py ENDPOINT NAME``: ask whether to trust a server, once, and then who one is.
"""

import sys
from getpass import getpass

from twisted.internet.task import react

from pbauth import KnownServers, Login, ServerNotTrusted, connected


async def main(reactor, endpoint, name):
    try:
        trust = await KnownServers("known_servers").trustFor(endpoint)
        login = Login(endpoint, name, getpass("Password: "), "echo", trust=trust)
        async with connected(login) as echo:
            print(await echo.callRemote("whoami"))
    except ServerNotTrusted as refusal:
        sys.exit(str(refusal))


react(main, sys.argv[1:])
