"""``pub_tls_client.py KEY NAME MESSAGE``: the same over TLS, to the server that has this key."""

import sys
from getpass import getpass

from twisted.internet.task import react

from pbauth import ServerNotTrusted, connect


async def main(reactor, key, name, message):
    try:
        guest = await connect(
            "tls:127.0.0.1:8787", None, name, getpass("Password: "), "pub", trust=key
        )
    except ServerNotTrusted as refusal:
        sys.exit(str(refusal))
    board = await guest.callRemote("board")
    await board.callRemote("write", message)
    for line in await board.callRemote("read"):
        print(line)
    guest.broker.transport.loseConnection()


react(main, sys.argv[1:])
