"""The notice board of a pub, as a service: guests write in their own names."""

from twisted.spread import pb

from pbauth import Perspective, Service


class Board(pb.Viewable):
    """One for all. Each method is told whose call it is."""

    def __init__(self):
        self.lines = []

    def view_write(self, guest, message):
        self.lines.append(f"{guest.perspectiveName}: {message}")
        print(self.lines[-1], flush=True)

    def view_read(self, guest):
        return self.lines


class Guest(Perspective):
    """What a guest may call."""

    def perspective_board(self):
        return self.getService().board


class Pub(Service):
    def __init__(self, serviceName, serviceParent=None, authorizer=None):
        super().__init__(serviceName, serviceParent, authorizer)
        self.board = Board()

    def loadPerspective(self, name):
        return Guest(name)
