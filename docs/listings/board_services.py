"""Two services that share a notice board: one to write on it, one to look after it."""

from pbauth import Perspective, Service


class Writer(Perspective):
    def perspective_pin(self, text):
        self.getService().notices.append((self.identityName, text))
        return len(self.getService().notices)


class Board(Service):
    def __init__(self, serviceName, serviceParent=None, authorizer=None):
        super().__init__(serviceName, serviceParent, authorizer)
        self.notices = []

    def loadPerspective(self, name):
        return Writer(name)


class Caretaker(Perspective):
    def perspective_authors(self):
        return sorted({author for author, text in self.getService().board.notices})

    def perspective_clear(self, author):
        board = self.getService().board
        board.notices = [notice for notice in board.notices if notice[0] != author]


class Office(Service):
    @property
    def board(self):
        return self.authorizer.getServiceNamed("board")

    def loadPerspective(self, name):
        return Caretaker(name)
