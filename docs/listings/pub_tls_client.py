"""``pub_tls_client.py KEY NAME MESSAGE``: the same over TLS, to the server that has this key."""

import sys
from getpass import getpass

from twisted.internet.task import react

from pbauth import Login, ServerNotTrusted, connected


async def main(reactor, key, name, message):
    login = Login("tls:127.0.0.1:8787", name, getpass("Password: "), "pub", trust=key)
    try:
        async with connected(login) as guest:
            board = await guest.callRemote("board")
            await board.callRemote("write", message)
            for line in await board.callRemote("read"):
                print(line)
    except ServerNotTrusted as refusal:
        sys.exit(str(refusal))


react(main, sys.argv[1:])
