"""
An unmodified client of stock Twisted, which knows nothing of pbauth: run as a program, told what to
do by lines of its standard input, a JSON list each.  Answers are numbered as the lines are.
"""

import json
import sys
from typing import Any

from twisted.cred.credentials import Anonymous, UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet import reactor, stdio
from twisted.internet.defer import maybeDeferred
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python import log
from twisted.spread import pb


def say(*words):
    print(*words, flush=True)


class Mind(pb.Referenceable):
    def __init__(self):
        self.heard = []

    def remote_hear(self, words):
        self.heard.append(words)
        return words.upper()


class Client:
    """One connection; each `do_` method is something to do on it."""

    def __init__(self, port):
        self.factory = pb.PBClientFactory()
        reactor.connectTCP("127.0.0.1", port, self.factory)  # type: ignore[type-var]
        self.perspective: Any = None
        self.identity: Any = None
        self.mind = Mind()

    # These give Deferreds: only the failure of PB itself knows the remote error's ancestors.

    def do_login(self, name, password):
        return self.logIn(UsernamePassword(name.encode(), password.encode()))

    def do_anonymous(self):
        return self.logIn(Anonymous())

    def logIn(self, credentials):
        return self.factory.login(credentials, self.mind).addCallback(self.gotPerspective)

    def gotPerspective(self, perspective):
        self.perspective = perspective
        return "perspective"

    async def do_twisted1(self, name, password):
        """The login of Twisted 1.x, by hand."""
        root = await self.factory.getRootObject()
        challenge, challenger = await root.callRemote("username", name.encode())
        self.identity = await challenger.callRemote(
            "respond", pb.respond(challenge, password.encode())
        )
        return "no identity" if self.identity is None else "identity"

    def do_attach(self, serviceName, perspectiveName):
        """What follows in Twisted 1.x."""
        attaching = self.identity.callRemote("attach", serviceName, perspectiveName, self.mind)
        return attaching.addCallback(self.gotPerspective)

    def do_keys(self):
        return self.identity.callRemote("keys")

    def do_detach(self):
        return self.identity.callRemote("detach", self.perspective)

    def do_call(self, *call):
        return self.perspective.callRemote(*call)

    def do_drop(self):
        """Drop the reference, the way to log out."""
        self.perspective = None
        return "dropped"

    def do_heard(self):
        return self.mind.heard

    def do_pbauth(self):
        """Whether pbauth was imported, after all."""
        return [name for name in sys.modules if name.split(".")[0] == "pbauth"]


class Commands(LineOnlyReceiver):
    delimiter = b"\n"
    number = 0

    def __init__(self, client):
        self.client = client

    def lineReceived(self, line):
        self.number += 1
        command, *arguments = json.loads(line)
        done = maybeDeferred(getattr(self.client, f"do_{command}"), *arguments)
        number = self.number
        done.addCallback(lambda answer: say(f"{number}:", json.dumps(answer)))
        done.addErrback(lambda failure: say(f"{number}:", describe(failure)))

    def connectionLost(self, reason):  # type: ignore[override]
        if reactor.running:
            reactor.stop()


def describe(failure):
    kind = "unauthorized" if failure.check(UnauthorizedLogin) else "error"
    name = getattr(failure.value, "remoteType", failure.type)
    name = name.decode() if isinstance(name, bytes) else str(name)
    # The way to tell errors apart whose classes are not known.
    assert failure.check(name), name
    return f"{kind} {name}: {failure.getErrorMessage()}"


def observe(event):
    if event["isError"]:
        say("logged:", log.textFromEventDict(event))
        # What waits for an answer need not wait any longer.
        reactor.callLater(0, reactor.stop)


if __name__ == "__main__":
    log.addObserver(observe)
    stdio.StandardIO(Commands(Client(int(sys.argv[1]))))
    reactor.run()
