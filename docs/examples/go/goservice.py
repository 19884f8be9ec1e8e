"""
A server of Go games, as a service of perspectives.

A key to the perspective ``black`` or ``white`` lets its holder sit down on that side of the first
game, ``main``; ``game-7/black`` on that of another one.  Whoever sits down first on a side keeps it
until the game is over, and finds the board as it was whenever they come back.  ``observer`` (or
``game-7/observer``) is for those who watch; ``host`` opens games.

No method takes the name of a player or a colour: both are known from the perspective that is
called.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from typing import Any

from gogame import COLOURS, GoGame, GoGameError, Move
from goweb import WebPort
from twisted.logger import Logger
from twisted.plugin import IPlugin
from zope.interface import implementer

from pbauth import Perspective, Service
from pbauth.interfaces import IConfigurableServiceFactory

_log = Logger()

#: The game of keys that name none.
MAIN = "main"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

#: How many games there may be at once.
MOST_GAMES = 1000
#: How many messages wait for a player who is away: more than a game has moves.
MOST_WAITING = 2000
#: The longest that anybody may say at once, in characters.
LONGEST_SAYING = 500


class Table:
    """
    A game, who plays it, and who watches.

    Attributes:
        name: of the game.
        game: the `GoGame`.
        players: by colour, the name of the identity that sits there, or `None`.
        perspectives: of those who sit there, by colour.
        observers: perspectives of those who watch.
        events: how much has happened.
        listeners: are called with each event, a dict, as the clients are.

    Args:
        name: of the game.
        game: of the table.
        save: is called whenever something has happened that should last.
        players: by colour, who has played it so far.
    """

    def __init__(
        self,
        name: str,
        game: GoGame,
        save: Callable[[Table], None],
        players: dict[str, str | None] | None = None,
    ) -> None:
        self.name = name
        self.game = game
        self.players: dict[str, str | None] = dict.fromkeys(COLOURS)
        self.players.update(players or {})
        self.perspectives: dict[str, Player] = {}
        self.observers: set[Observer] = set()
        self.listeners: list[Callable[[dict[str, Any]], Any]] = []
        self.events = len(game.moves)
        self._save = save

    def sitDown(self, colour: str, name: str) -> None:
        """
        Somebody takes a side.

        Raises:
            GoGameError: somebody else has it.
        """
        taken = self.players[colour]
        if taken is None:
            self.players[colour] = name
            self._save(self)
        elif taken != name:
            raise GoGameError(f"{colour.capitalize()} is taken, by {taken}.")

    def play(self, colour: str, point: object) -> None:
        """Put a stone on the board, and tell all."""
        self._tellMove(self.game.play(colour, point))

    def pass_(self, colour: str) -> None:
        """Pass, and tell all."""
        self._tellMove(self.game.pass_(colour))

    def resign(self, colour: str) -> None:
        """Give up, and tell all."""
        self.game.resign(colour)
        self._save(self)
        self.tell("resigned", colour=colour)
        self._tellIfOver()

    def _tellMove(self, move: Move) -> None:
        self._save(self)
        self.tell(
            "moved",
            number=len(self.game.moves),
            colour=move.colour,
            point=move.point,
            captured=list(move.captured),
        )
        self._tellIfOver()

    def _tellIfOver(self) -> None:
        if self.game.result is not None:
            self.tell("over", result=self.game.result)

    def tell(self, kind: str, **more: Any) -> None:
        """Tell all, players who are away as soon as they are back."""
        self.events += 1
        event = {"kind": kind, "game": self.name, "event": self.events, **more}
        for perspective in (*self.perspectives.values(), *self.observers):
            perspective.tell(event)
        for listener in list(self.listeners):
            listener(event)

    def state(self) -> dict[str, Any]:
        """
        All that there is to know. ``event`` is the number of the last event that is in it, so that
        nobody counts one twice.
        """
        game = self.game
        seated = self.perspectives
        return {
            "game": self.name,
            "size": game.size,
            "komi": game.komi,
            "turn": game.turn,
            "players": dict(self.players),
            "present": {
                colour: colour in seated and bool(seated[colour].clients) for colour in COLOURS
            },
            "captured": dict(game.captured),
            "result": game.result,
            "event": self.events,
            "moves": [[move.colour, move.point, list(move.captured)] for move in game.moves],
        }


class AtTable(Perspective):
    """
    Somebody at a table: what players and observers can do.

    Args:
        perspectiveName: of the key.
        table: that they sit at.
        who: the name of the identity.
    """

    def __init__(self, perspectiveName: str, table: Table, who: str) -> None:
        super().__init__(perspectiveName, who)
        self.table = table

    def tell(self, event: dict[str, Any]) -> None:
        """Tell the clients, if there are any."""
        if self.clients:
            self.clients.callRemote("event", event)

    def perspective_state(self) -> dict[str, Any]:
        return self.table.state()

    def perspective_sgf(self) -> bytes:
        return self.table.game.toSGF(self.table.players)

    def perspective_say(self, text: Any) -> None:
        if not isinstance(text, str) or not text.strip() or len(text) > LONGEST_SAYING:
            raise GoGameError(f"Say something, in at most {LONGEST_SAYING} characters.")
        said = "".join(letter if letter.isprintable() else " " for letter in text)
        self.table.tell("said", by=self.identityName, text=said)


class Player(AtTable):
    """
    Plays one side.

    Args:
        perspectiveName: of the key.
        table: that they sit at.
        who: the name of the identity.
        colour: the side.
    """

    queueSize = MOST_WAITING

    def __init__(self, perspectiveName: str, table: Table, who: str, colour: str) -> None:
        super().__init__(perspectiveName, table, who)
        self.colour = colour

    def tell(self, event: dict[str, Any]) -> None:
        """Tell the clients; it waits for the next one if there are none."""
        self.clients.callRemote("event", event)

    def attached(self, clientref: Any, identity: Any) -> Any:
        if not self.clients:
            self.table.tell("came", by=self.identityName, colour=self.colour)
        return super().attached(clientref, identity)

    def detached(self, clientref: Any, identity: Any) -> Any:
        if not self.clients:
            self.table.tell("went", by=self.identityName, colour=self.colour)
        return super().detached(clientref, identity)

    def perspective_play(self, point: Any) -> None:
        self.table.play(self.colour, point)

    def perspective_pass(self) -> None:
        self.table.pass_(self.colour)

    def perspective_resign(self) -> None:
        self.table.resign(self.colour)


class Observer(AtTable):
    """Watches."""

    def attached(self, clientref: Any, identity: Any) -> Any:
        self.table.observers.add(self)
        return super().attached(clientref, identity)

    def detached(self, clientref: Any, identity: Any) -> Any:
        self.table.observers.discard(self)
        return super().detached(clientref, identity)


class Host(Perspective):
    """Opens games."""

    def perspective_games(self) -> list[str]:
        return sorted(self.getService().tables)

    def perspective_open(self, name: Any, size: Any = 19, komi: Any = 7.5) -> None:
        self.getService().openGame(name, size, komi)


class GoService(Service):
    """
    A service of Go games.

    Args:
        serviceName: of the service.
        serviceParent: as for `pbauth.Service`.
        authorizer: as for `pbauth.Service`.
        folder: where the games are saved after each move, as SGF, and found at the start; `None`:
            they are not.
        web: where to show the games to browsers, a Twisted endpoint
            (``"tcp:8080:interface=127.0.0.1"``); `None`: nowhere. See `goweb`.

    Attributes:
        tables: `Table`, by the name of the game.
        listeners: are called with each table that is opened.
        web: the port for browsers, or `None`.

    Raises:
        ValueError: ``web`` is no endpoint.
    """

    def __init__(
        self,
        serviceName: str,
        serviceParent: Any = None,
        authorizer: Any = None,
        folder: str | None = None,
        web: str | None = None,
    ) -> None:
        self.tables: dict[str, Table] = {}
        self.listeners: list[Callable[[Table], Any]] = []
        self.web = None if web is None else WebPort(self, web)
        super().__init__(serviceName, None, authorizer)
        self._folder = folder
        if folder is not None:
            os.makedirs(folder, exist_ok=True)
            self._restore(folder)
        if MAIN not in self.tables:
            self.openGame(MAIN)
        # Last: a parent that runs already starts this at once.
        if serviceParent is not None:
            self.setServiceParent(serviceParent)

    def privilegedStartService(self) -> None:
        """Listen for browsers, before the program drops its privileges."""
        super().privilegedStartService()
        if self.web is not None:
            self.web.privilegedStartService()

    def startService(self) -> None:
        """Listen for browsers, if that was not done before."""
        super().startService()
        if self.web is not None:
            self.web.startService()

    def stopService(self) -> Any:
        """Stop, and send the browsers away."""
        stopped = super().stopService()
        return stopped if self.web is None else self.web.stopService()

    def openGame(self, name: Any, size: Any = 19, komi: Any = 7.5) -> Table:
        """
        Open a game. One that is over makes place for a new one of its name.

        Args:
            name: of the game.
            size: of the board.
            komi: what white gets for moving second.

        Returns:
            Its table.

        Raises:
            GoGameError: there is one of that name, too many, or such a game can't be.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise GoGameError("The name of a game is of letters, digits, '-' and '_': game-7")
        if not isinstance(size, int) or not isinstance(komi, (int, float)):
            raise GoGameError("Size and komi of a game are numbers.")
        if name in self.tables and self.tables[name].game.result is None:
            raise GoGameError(f"There is a game {name} already, and it is not over.")
        if name not in self.tables and len(self.tables) >= MOST_GAMES:
            raise GoGameError("There are too many games. Finish some.")
        table = self.tables[name] = Table(name, GoGame(size, komi), self._save)
        self._save(table)
        for listener in list(self.listeners):
            listener(table)
        return table

    def getPerspectiveForIdentity(self, name: str, identity: Any) -> Any:
        """Seat somebody. The key was found on the keyring."""
        if name == "host":
            host = Host(name, identity.name)
            host.setService(self)
            return host
        gameName, _, side = name.rpartition("/")
        table = self.tables.get(gameName or MAIN)
        if table is None:
            raise GoGameError(f"There is no game {gameName[:64]!r}. Ask the host to open it.")
        if side in COLOURS:
            table.sitDown(side, identity.name)
            player = table.perspectives.get(side)
            if player is None:
                player = table.perspectives[side] = Player(name, table, identity.name, side)
                player.setService(self)
            return player
        if side == "observer":
            observer = Observer(name, table, identity.name)
            observer.setService(self)
            return observer
        raise GoGameError(f"There is no side {side[:64]!r}: black, white or observer.")

    # What lasts.

    def _save(self, table: Table) -> None:
        if self._folder is None:
            return
        path = os.path.join(self._folder, f"{table.name}.sgf")
        try:
            _replace(path, table.game.toSGF(table.players))
        except OSError as error:
            # The game goes on; the next move is another attempt.
            _log.error("Can't save {path}: {error}", path=path, error=error)

    def _restore(self, folder: str) -> None:
        for entry in sorted(os.listdir(folder)):
            name, ending = os.path.splitext(entry)
            if ending != ".sgf" or not _NAME.fullmatch(name):
                continue
            path = os.path.join(folder, entry)
            try:
                with open(path, "rb") as file:
                    game, players = GoGame.fromSGF(file.read())
            except GoGameError as mistake:
                os.replace(path, f"{path}.broken")
                _log.error(
                    "{path} is put aside, as {path}.broken: {mistake}", path=path, mistake=mistake
                )
            else:
                self.tables[name] = Table(name, game, self._save, players)


def _replace(path: str, data: bytes) -> None:
    """Write a file whole or not at all, whatever happens to the machine."""
    descriptor, draft = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".draft-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise


@implementer(IPlugin, IConfigurableServiceFactory)
class GoServiceFactory:
    """``twistd pbauth --service go``."""

    name = "go"
    description = "Games of Go: keys to black, white, observer and host."
    parameters = (
        ("games", "go-games", "The folder of the games, as SGF; created if it does not exist."),
        (
            "web",
            None,
            "Where browsers may watch, a Twisted endpoint: tcp:8080:interface=127.0.0.1, as "
            "http://127.0.0.1:8080/. Nobody has to log in for that.",
        ),
    )

    def makeService(
        self, serviceName: str, authorizer: Any, games: str, web: str | None = None
    ) -> GoService:
        """Make the service."""
        try:
            return GoService(serviceName, authorizer=authorizer, folder=games, web=web)
        except OSError as error:
            raise ValueError(f"{games}: {error.strerror}.") from None
