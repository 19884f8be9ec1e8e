"""
SSH and a web page for the accounts that `twistd pbauth` serves.

``ssh_and_web.py FOLDER SSHPORT WEBPORT``; in the same place before that::

    pbauth user add alice
    pbauth user addkey alice ~/.ssh/id_ed25519.pub

and then ``ssh -p SSHPORT alice@127.0.0.1 anything``, or the page, by alice's password.
"""

import os
import sys

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.conch.avatar import ConchUser
from twisted.conch.interfaces import IConchUser, ISession
from twisted.conch.ssh.factory import SSHFactory
from twisted.conch.ssh.keys import Key
from twisted.conch.ssh.session import SSHSession, wrapProtocol
from twisted.cred.portal import IRealm, Portal
from twisted.internet import reactor
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.guard import BasicCredentialFactory, HTTPAuthSessionWrapper
from twisted.web.resource import IResource, Resource
from twisted.web.server import Site
from zope.interface import implementer

from pbauth import IdentityChecker, SQLAuthorizer


@implementer(ISession)
class Greeting(ConchUser):
    """What SSH users get: a line, whatever they ask for."""

    def __init__(self, name):
        super().__init__()
        self.name = name
        self.channelLookup[b"session"] = SSHSession

    def execCommand(self, process, command):
        # What the client sends goes nowhere.
        program = Protocol()
        program.makeConnection(process)
        process.makeConnection(wrapProtocol(program))

        def greet():
            process.outReceived(b"hello, " + self.name + b"\r\n")
            process.processEnded(Failure(ProcessDone(None)))

        # The client is told first that its request was granted.
        reactor.callLater(0, greet)

    def openShell(self, process):
        self.execCommand(process, b"")

    def getPty(self, terminal, windowSize, modes):
        pass

    def windowChanged(self, windowSize):
        pass

    def eofReceived(self):
        pass

    def closed(self):
        pass


class Page(Resource):
    """What web users get."""

    isLeaf = True

    def __init__(self, name):
        super().__init__()
        self.name = name

    def render_GET(self, request):
        request.setHeader("content-type", "text/plain; charset=utf-8")
        return b"hello, " + self.name + b"\n"


@implementer(IRealm)
class Realm:
    """The checker says who somebody is; this, what they get."""

    avatars = {IConchUser: Greeting, IResource: Page}

    def requestAvatar(self, name, mind, *interfaces):
        for interface in interfaces:
            if interface in self.avatars:
                return interface, self.avatars[interface](name), lambda: None
        raise NotImplementedError(f"There are no avatars for {interfaces}.")


def hostKey(path):
    """Clients remember the server's key, so it has to last."""
    if not os.path.exists(path):
        key = Key(Ed25519PrivateKey.generate())
        with open(path, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(key.toString("openssh"))
    return Key.fromFile(path)


def listen(port, factory):
    # Basic authentication sends the password: to other machines let it run over TLS.
    listening = reactor.listenTCP(int(port), factory, interface="127.0.0.1")
    print(f"listening on 127.0.0.1:{listening.getHost().port}", flush=True)


folder, sshPort, webPort = sys.argv[1:]
accounts = SQLAuthorizer(os.path.join(folder, "accounts.sqlite"))
portal = Portal(Realm(), [IdentityChecker(accounts)])

ssh = SSHFactory()
ssh.portal = portal
key = hostKey(os.path.join(folder, "ssh_host_ed25519_key"))
ssh.privateKeys, ssh.publicKeys = {key.sshType(): key}, {key.sshType(): key.public()}
listen(sshPort, ssh)

listen(webPort, Site(HTTPAuthSessionWrapper(portal, [BasicCredentialFactory("accounts")])))
reactor.run()
