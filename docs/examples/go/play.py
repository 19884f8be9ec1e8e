"""
Play Go in a terminal, on a server with `goservice.GoService`::

    python play.py tls:127.0.0.1:8787 alice black
    python play.py tls:127.0.0.1:8787 bob game-7/white
    python play.py tls:127.0.0.1:8787 carol observer
    python play.py tls:127.0.0.1:8787 dora --open game-7 --size 9 --komi 6.5

It needs pbauth, sgfmill and a terminal.  It logs in again by itself when the connection or the
server was gone, and shows the board as it is then.  What it knows is in `tableview`, what it shows
in `board_text`, how that gets on the terminal in `screen`, and how it logs in in `signin`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import click
from attrs import evolve
from board_text import Mistake, draw, painted, parse, plain
from gogame import COLOURS, GoGameError
from screen import NoTerminal, Screen, Typing
from signin import SignIn, hangUp, run, signInOptions
from tableview import View, clean
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.spread import pb

from pbauth import BackOff, Detached, NotAttached, PerspectiveClient

#: Who waits for a move does not want to wait long for the connection.
PATIENCE = BackOff(shortest=0.5, longest=15)

#: What reading a message raises that is none of a Go server.
_NONSENSE = (AttributeError, LookupError, TypeError, ValueError)
_NOT_UNDERSTOOD = "The server sent what this program does not understand. Is it a Go server?"


class Window(pb.Referenceable):
    """
    The client object: it is told what happens at the table, and shows it.

    Attributes:
        view: what is known of the game.
        ended: fires when the user wants to leave; fails with why nobody can stay.

    Args:
        side: ``black``, ``white``, ``observer``, or that of a game: ``game-7/black``.
        screen: to draw on.
        reactor: reads the keys.
        ascii: draw with letters and dots.
        colours: draw with colours.
    """

    def __init__(
        self, side: str, screen: Screen, reactor: Any, *, ascii: bool, colours: bool
    ) -> None:
        colour = side.rpartition("/")[2]
        self.view = View(me=colour if colour in COLOURS else None)
        self.ended: Deferred[None] = Deferred()
        self.client: Any = None
        self._screen = screen
        self._reactor = reactor
        self._ascii = ascii
        self._paint: Callable[[Any], str] = painted if colours else plain
        self._typing = Typing()
        self._resigning = False
        self._open = False
        self._drawing: Any = None

    # What the server calls, and what the connection does.

    def remote_event(self, event: Any) -> None:
        """Something happened at the table."""
        try:
            self.view.happened(event)
        except _NONSENSE:
            self.view.say(_NOT_UNDERSTOOD, trouble=True)
        self.redraw()

    def attached(self, perspective: Any) -> None:
        """There is a session, the first or another one."""
        # Numbers of events before and after have nothing to do with each other: it may be another
        # server. Until its state is here, moves do not count.
        self.view.seen = None
        perspective.callRemote("state").addCallback(self._restore).addErrback(self._noState)

    def detached(self) -> None:
        """The session is over."""
        if self.ended.called:
            return
        self.view.online, self.view.seen = False, None
        self.view.say("The connection is lost. Trying to get it back ...", trouble=True)
        self.redraw()

    def _restore(self, state: Any) -> None:
        again = self._open
        self.view.restore(state)
        if not again:
            self._open = True
            self._screen.enter(self._reactor, self._type, self.redraw)
            self.view.say("Type help for help.")
        else:
            self.view.say("The connection is back; this is the board as it is now.")
        self.redraw()

    def _noState(self, reason: Failure) -> None:
        if reason.check(*_NONSENSE):
            self.end(Failure(click.ClickException(_NOT_UNDERSTOOD)))
        elif not reason.check(pb.PBConnectionLost, Detached):
            # Where the connection was lost meanwhile, there will be another session.
            self.end(reason)

    def patience(self, failures: int) -> float | None:
        """
        How long to wait for the next login: at the start there is none. A server that is not there,
        or does not let anybody sit down, is shown to the user at once.
        """
        return PATIENCE(failures) if self._open else None

    def end(self, reason: Failure | None = None) -> None:
        """Leave; for a reason, or because the user wants to."""
        if self.ended.called:
            return
        if reason is None:
            self.ended.callback(None)
        else:
            self.ended.errback(reason)

    # What the user does.

    def redraw(self) -> None:
        """Show everything as it is, soon: once for all that happens at once."""
        if self._open and self._drawing is None:
            self._drawing = self._reactor.callLater(0, self._draw)

    def _draw(self) -> None:
        self._drawing = None
        width, height = self._screen.size()
        prompt = "Resign? Type yes: " if self._resigning else "> "
        line, column = self._typing.shown(prompt, width)
        lines = draw(self.view, width, height, self._ascii)
        self._screen.show([*map(self._paint, lines), line], column)

    def _type(self, keys: str | None) -> None:
        for line in [None] if keys is None else self._typing.feed(keys):
            if line is None:
                self.end()
                return
            self._enter(line)
        self.redraw()

    def _enter(self, line: str) -> None:
        self.view.help = False
        self.view.say("")
        resigning, self._resigning = self._resigning, False
        try:
            if resigning:
                wanted = ("resign", "") if line.strip().lower() in ("y", "yes") else None
                self.view.say("" if wanted else "You play on.")
            else:
                wanted = parse(line, self.view.size)
            if wanted is not None:
                self._do(*wanted, sure=resigning)
        except Mistake as mistake:
            self.view.say(str(mistake), trouble=True)

    def _do(self, what: str, argument: str, *, sure: bool) -> None:
        view = self.view
        if what == "quit":
            self.end()
        elif what == "help":
            view.help = True
        elif what in ("play", "pass", "resign") and view.me is None:
            raise Mistake("You watch this game: only black and white play.")
        elif what == "resign" and not sure:
            if view.result is not None:
                raise Mistake(view.status())
            self._resigning = True
        elif what in ("save", "save!"):
            record = self.client.callRemote("sgf")
            record.addCallback(self._save, argument, what == "save!").addErrback(self._failed)
        else:
            arguments = [argument] if argument else []
            self.client.callRemote(what, *arguments).addErrback(self._failed)

    def _failed(self, reason: Failure) -> None:
        error = reason.value
        if isinstance(error, (NotAttached, Detached)):
            text = "There is no connection now: that was not sent."
        elif isinstance(error, pb.PBConnectionLost):
            text = "The connection was lost: see on the board whether that arrived."
        elif isinstance(error, (GoGameError, Mistake)):
            text = str(error)
        else:
            text = f"That failed on the server: {error}"
        self.view.say(text, trouble=True)
        self.redraw()

    def _save(self, record: Any, name: str, overwrite: bool) -> None:
        path = os.path.expanduser(name)
        if not isinstance(record, bytes):
            raise Mistake(_NOT_UNDERSTOOD)
        try:
            with open(path, "wb" if overwrite else "xb") as file:
                file.write(record)
        except FileExistsError:
            raise Mistake(f"{name} is there already. To overwrite it: save! {name}") from None
        except (OSError, ValueError) as error:
            raise Mistake(f"Can't write {name}: {getattr(error, 'strerror', error)}") from None
        self.view.say(f"Saved as {name}.")
        self.redraw()


class Seat(PerspectiveClient):
    """
    Stays logged in.

    Args:
        window: is told.
        arguments: as for `pbauth.PerspectiveClient`, and so are `options`.
    """

    def __init__(self, window: Window, *arguments: Any, **options: Any) -> None:
        # A move that waited for the connection would be made on a board that nobody has seen.
        super().__init__(*arguments, retryPolicy=window.patience, mostWaiting=0, **options)
        self._window = window
        window.client = self

    def attached(self, perspective: Any) -> None:
        self._window.attached(perspective)

    def detached(self) -> None:
        self._window.detached()

    def failed(self, reason: Failure) -> None:
        if reason.check(GoGameError):
            # The side is somebody else's by now, or the game is gone.
            self._window.end(reason)

    def gaveUp(self, reason: Failure) -> None:
        self._window.end(reason)


def canDraw(encoding: str) -> bool:
    """Whether the terminal has stones and lines."""
    try:
        "●○┼╋─".encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


@click.command()
@click.argument("endpoint")
@click.argument("name")
@click.argument("side", required=False)
@click.option("--service", default="go", show_default=True, help="The name of the Go service.")
@click.option("--open", "opening", metavar="GAME", help="Open a game, with the key host.")
@click.option("--size", type=int, help="Of the board of that game.  [default: 19]")
@click.option("--komi", type=float, help="What white gets in that game.  [default: 7.5]")
@click.option("--ascii", is_flag=True, help="Draw with letters and dots.")
@signInOptions
def main(
    endpoint: str,
    name: str,
    side: str | None,
    service: str,
    opening: str | None,
    size: int | None,
    komi: float | None,
    ascii: bool,
    signIn: SignIn,
) -> None:
    """Play Go, or watch. NAME is yours; SIDE is black, white or observer, or that of a game:
    game-7/black.

    For instance: python play.py tls:127.0.0.1:8787 alice black
    """
    if side is None and opening is None:
        raise click.UsageError("Say where to sit: black, white or observer; or game-7/black.")
    if opening is None and not (size is None and komi is None):
        raise click.UsageError("--size and --komi are for --open GAME.")
    encoding = sys.stdout.encoding or "ascii"
    try:
        screen = None if side is None else Screen(encoding)
    except NoTerminal as missing:
        raise click.ClickException(str(missing)) from None

    async def go(reactor: Any) -> View | None:
        login = await signIn.login(reactor, endpoint, name, service)
        if opening is not None:
            host = await evolve(login, perspective="host").run(reactor)
            lines, points = 19 if size is None else size, 7.5 if komi is None else komi
            try:
                await host.callRemote("open", opening, lines, points)
            finally:
                await hangUp(host.broker, login.credentials)
            click.echo(f"{opening} is open: {lines} lines, komi {points:g}.")
        if screen is None:
            return None
        window = Window(
            str(side),
            screen,
            reactor,
            ascii=ascii or not canDraw(encoding),
            colours=not os.environ.get("NO_COLOR"),
        )
        seat = Seat(window, evolve(login, perspective=side, client=window), reactor=reactor)
        seat.startService()
        try:
            await window.ended
        finally:
            await seat.stopService()
        return window.view

    try:
        view = run(go, endpoint)
    except KeyboardInterrupt:
        sys.exit(130)
    except pb.RemoteError as error:
        text = clean(f"That failed on the server: {error}")
        raise click.ClickException(text) from None
    finally:
        if screen is not None:
            screen.leave()
    if view is not None:
        over = view.result is not None
        click.echo(f"{view.game}: {view.status() if over else 'it goes on. Come back soon.'}")


if __name__ == "__main__":
    main()
