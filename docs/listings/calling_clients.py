"""How a server calls its clients, and keeps messages for those who are away."""

from twisted.spread import pb
from twisted.trial.unittest import SynchronousTestCase

from pbauth import NobodyAttached, Perspective, Service
from pbauth.testing import MemoryServer


class Player(Perspective):
    def perspective_challenge(self, name):
        opponent = self.getService().perspectives[name]
        return opponent.clients.callNewest("accepts", self.perspectiveName)

    def moved(self, move):
        self.clients.callRemote("show", move)


class PatientPlayer(Player):
    queueSize = 100

    def attached(self, clientref, identity):
        if self.clients.dropped:
            clientref.callRemote("missed", self.clients.dropped)
        return self


class OwnBooks(Perspective):
    def __init__(self, perspectiveName):
        super().__init__(perspectiveName)
        self.guests = []

    def attached(self, clientref, identity):
        self.guests.append(clientref)
        return self

    def detached(self, clientref, identity):
        self.guests.remove(clientref)


class Screen(pb.Referenceable):
    def __init__(self):
        self.shown = []

    def remote_show(self, move):
        self.shown.append(move)

    def remote_missed(self, number):
        self.shown.append(f"{number} missed")

    def remote_accepts(self, name):
        return f"yes, {name}"


class PlayerTests(SynchronousTestCase):
    def setUp(self):
        self.memory = MemoryServer()
        self.game = Service("game", self.memory.services, self.memory.authorizer)
        self.game.addPerspective(PatientPlayer("black"))
        self.game.addPerspective(Player("white"))
        self.game.addPerspective(OwnBooks("book"))
        for name in self.game.perspectives:
            self.memory.addUser(name, "secret", ("game", name))

    def logIn(self, name):
        screen = Screen()
        reference = self.memory.logIn(name, "secret", "game", client=screen)
        return self.successResultOf(reference), screen

    def test_challenge(self):
        self.logIn("black")
        white, _ = self.logIn("white")
        answer = white.callRemote("challenge", "black")
        self.memory.flush()
        self.assertEqual(self.successResultOf(answer), "yes, white")

    def test_nobodyThere(self):
        black, _ = self.logIn("black")
        answer = black.callRemote("challenge", "white")
        self.memory.flush()
        self.failureResultOf(answer, NobodyAttached)

    def test_away(self):
        for number in range(101):
            self.game.perspectives["black"].moved(number)
        _, screen = self.logIn("black")
        self.memory.flush()
        self.assertEqual(screen.shown, ["1 missed", *range(1, 101)])

    def test_ownBooks(self):
        reference, _ = self.logIn("book")
        book = self.game.perspectives["book"]
        self.assertEqual(len(book.guests), 1)
        self.memory.disconnect(reference)
        self.assertEqual(book.guests, [])
