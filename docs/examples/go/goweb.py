"""
A board in the browser: pages that show the games of a `goservice.GoService`, live.

Whoever reaches the port may watch; nobody can change anything, so there is no login.  What is said
at the tables is not shown: it is for those who have a key.

A page gets what happens by server-sent events.  Each stream begins with a snapshot of all that
there is to know, unless the browser says that it has it already (``Last-Event-ID``); what comes
later follows one by one.  Nothing is kept for a browser that is slow: what it misses is made up by
a new snapshot as soon as it reads on, and if it does not, it is dropped.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Iterable
from functools import partial
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from weakref import WeakKeyDictionary

from twisted.application.internet import StreamServerEndpointService
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site
from zope.interface import implementer

_log = Logger()

#: How many browsers may watch at once.
MOST_WATCHING = 500
#: How many connections there may be at once. A process has 1024 files as a rule, and the players
#: also need some.
MOST_CONNECTIONS = MOST_WATCHING + 200
#: How often, in seconds, those who watch hear that the server is still there.
HEARTBEAT = 15.0
#: How many heartbeats in a row a browser may fail to read.
MOST_UNREAD = 2
#: After how many seconds whoever was turned away may ask again.
RETRY_AFTER = 30
#: The longest content of a request that is read at all, in bytes. It is not used.
LONGEST_CONTENT = 4096

_FOLDER = Path(__file__).parent / "web"
_FILES = {
    "board.js": "text/javascript; charset=utf-8",
    "board.css": "text/css; charset=utf-8",
    "wood.svg": "image/svg+xml",
    "stone.svg": "image/svg+xml",
}
_HTML = "text/html; charset=utf-8"
_JSON = "application/json"

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<link rel="icon" href="/stone.svg">
<link rel="stylesheet" href="/board.css">
<main class="message">
<h1>{title}</h1>
<p>{text}</p>
<p><a href="/">All games</a></p>
</main>
"""

#: What of a table is shown. What is said there is not.
_SHOWN = frozenset({"moved", "resigned", "over", "came", "went"})


def _encode(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def _message(value: dict[str, Any], number: str | None = None) -> bytes:
    """A server-sent event. JSON has no line breaks of its own."""
    head = b"" if number is None else b"id: %s\n" % number.encode("ascii")
    return b"%sdata: %s\n\n" % (head, _encode(value))


# The comment is for proxies, the event for the page: scripts do not see comments.
_BEAT = b": still here\nevent: beat\ndata: 1\n\n"


@implementer(IPushProducer)
class Stream:
    """
    What one browser receives, as long as it listens.

    Args:
        request: of the browser.
        snapshot: gives all that there is to know, as an event.
        gone: is called with this once, when the browser is gone.
    """

    def __init__(
        self, request: Any, snapshot: Callable[[], bytes], gone: Callable[[Stream], None]
    ) -> None:
        self._request = request
        self._snapshot = snapshot
        self._gone = gone
        self._paused = False
        self._behind = False
        self._unread = 0

    def start(self, fresh: bool) -> None:
        """
        Begin.

        Args:
            fresh: whether the browser needs a snapshot.
        """
        self._request.notifyFinish().addBoth(self._finished)
        self._request.registerProducer(self, True)
        self._request.write(b"retry: 2000\n\n")
        if fresh:
            self.refresh()

    def _finished(self, why: Any) -> None:
        self._gone(self)

    def send(self, message: bytes) -> None:
        """Send an event; a browser that does not read gets a snapshot later, in its place."""
        if self._paused:
            self._behind = True
        else:
            self._request.write(message)

    def refresh(self) -> None:
        """Send a snapshot."""
        if self._paused:
            self._behind = True
        else:
            self._request.write(self._snapshot())

    def beat(self) -> None:
        """Say that the server is there; drop a browser that has read nothing for too long."""
        if not self._paused:
            self._request.write(_BEAT)
        elif self._unread < MOST_UNREAD:
            self._unread += 1
        else:
            self._request.channel.transport.abortConnection()

    def end(self) -> None:
        """The server stops."""
        self._request.unregisterProducer()
        self._request.finish()

    # The connection says whether the browser reads.

    def pauseProducing(self) -> None:
        """It does not (see `IPushProducer`)."""
        self._paused = True

    def resumeProducing(self) -> None:
        """It does again."""
        self._paused = False
        self._unread = 0
        if self._behind:
            self._behind = False
            self.refresh()

    def stopProducing(self) -> None:
        """The connection is closed; `_finished` will be called."""


class Watching:
    """
    Tells browsers what happens at the tables. It listens to a table only while somebody watches it.

    Args:
        service: the `GoService`.
        clock: for the heartbeats.
        most: how many browsers may watch at once.
    """

    def __init__(self, service: Any, clock: Any, most: int) -> None:
        self._service = service
        self._most = most
        # By the name of the game; `None`: the list of all games.
        self._streams: dict[str | None, set[Stream]] = {}
        self._listening: dict[str, tuple[Any, Callable[..., None]]] = {}
        # Event numbers begin again with each table, and each start of the server.
        self._runs: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
        self._beating = LoopingCall(self._beat)
        self._beating.clock = clock

    def __len__(self) -> int:
        """How many browsers watch."""
        return sum(map(len, self._streams.values()))

    @property
    def full(self) -> bool:
        """Return whether all places for watching are taken."""
        return len(self) >= self._most

    def watch(self, request: Any, name: str | None, last: str | None) -> None:
        """
        A browser begins to watch.

        Args:
            request: of the browser.
            name: of a game that there is; `None`: the list.
            last: the number of the last event that the browser has.
        """
        snapshot = self._list if name is None else partial(self._snapshot, name)
        stream = Stream(request, snapshot, partial(self._left, name))
        if not len(self):
            self._beating.start(HEARTBEAT, now=False)
            self._service.listeners.append(self._opened)
        self._streams.setdefault(name, set()).add(stream)
        self._listen(self._service.tables if name is None else [name])
        stream.start(name is None or last != self._number(self._service.tables[name]))

    def _left(self, name: str | None, stream: Stream) -> None:
        streams = self._streams[name]
        streams.remove(stream)
        if not streams:
            del self._streams[name]
            self._listen(list(self._listening))
        if not self._streams:
            self._beating.stop()
            self._service.listeners.remove(self._opened)

    def end(self) -> None:
        """End all streams: the server stops."""
        for streams in list(self._streams.values()):
            for stream in list(streams):
                stream.end()

    def _beat(self) -> None:
        for streams in list(self._streams.values()):
            for stream in list(streams):
                stream.beat()

    def _listen(self, names: Iterable[str]) -> None:
        """Listen to the tables of these names that are watched, and to no others."""
        for name in names:
            watched = None in self._streams or name in self._streams
            table = self._service.tables.get(name) if watched else None
            heard, listener = self._listening.get(name, (None, None))
            if table is heard:
                continue
            if heard is not None:
                heard.listeners.remove(listener)
                del self._listening[name]
            if table is not None:
                listener = partial(self._happened, table)
                table.listeners.append(listener)
                self._listening[name] = table, listener

    def _opened(self, table: Any) -> None:
        """There is a new game; one of its name may have been over."""
        self._listen([table.name])
        for stream in list(self._streams.get(table.name, ())):
            stream.refresh()
        self._tellList(table)

    def _happened(self, table: Any, event: dict[str, Any]) -> None:
        if event["kind"] not in _SHOWN:
            return
        message = _message(event, self._number(table))
        for stream in list(self._streams.get(table.name, ())):
            stream.send(message)
        self._tellList(table)

    def _tellList(self, table: Any) -> None:
        if None in self._streams:
            message = _message({"kind": "game", **summary(table)})
            for stream in list(self._streams[None]):
                stream.send(message)

    def _number(self, table: Any) -> str:
        run = self._runs.get(table)
        if run is None:
            run = self._runs[table] = secrets.token_hex(4)
        return f"{run}-{table.events}"

    def _snapshot(self, name: str) -> bytes:
        table = self._service.tables[name]
        return _message({"kind": "snapshot", **table.state()}, self._number(table))

    def _list(self) -> bytes:
        return _message({"kind": "games", "games": summaries(self._service)})


def summary(table: Any) -> dict[str, Any]:
    """What the list of games says of one."""
    game = table.game
    return {
        "game": table.name,
        "size": game.size,
        "komi": game.komi,
        "players": dict(table.players),
        "moves": len(game.moves),
        "turn": game.turn,
        "result": game.result,
    }


def summaries(service: Any) -> list[dict[str, Any]]:
    """The list of games."""
    return [summary(table) for _, table in sorted(service.tables.items())]


class Pages(Resource):
    """
    All pages; what is not here is not found.

    Args:
        service: the `GoService`.
        watching: tells what happens.
    """

    isLeaf = True

    def __init__(self, service: Any, watching: Watching) -> None:
        super().__init__()
        self._service = service
        self._watching = watching
        self._page = (_FOLDER / "index.html").read_bytes()
        self._files = {
            f"/{name}": (kind, (_FOLDER / name).read_bytes()) for name, kind in _FILES.items()
        }
        # What there is of each game, by folder.
        self._ofGame: dict[str, Callable[[Any, Any], Any]] = {
            "/game": self._showGame,
            "/api/game": self._showState,
            "/sgf": self._showRecord,
            "/events": self._showEvents,
        }

    def render(self, request: Any) -> Any:
        """Answer (see `twisted.web.resource.IResource`)."""
        request.responseHeaders.removeHeader("Server")
        for name, value in _HEADERS.items():
            request.setHeader(name, value)
        if request.method not in (b"GET", b"HEAD"):
            request.setHeader("Allow", "GET, HEAD")
            return self._say(request, http.NOT_ALLOWED, "Look, don't touch", "Only GET and HEAD.")
        path = unquote(request.path.decode("latin-1"), errors="replace")
        if path == "/":
            return self._give(request, _HTML, self._page)
        if path in self._files:
            return self._give(request, *self._files[path])
        if path == "/api/games":
            return self._give(request, _JSON, _encode({"games": summaries(self._service)}))
        if path == "/events":
            return self._watch(request, None)
        folder, _, name = path.rpartition("/")
        show = self._ofGame.get(folder)
        if show is None:
            return self._say(request, http.NOT_FOUND, "Not found", "There is no such page here.")
        if folder == "/sgf":
            name = name.removesuffix(".sgf")
        table = self._service.tables.get(name)
        if table is not None:
            return show(request, table)
        text = f"There is no game {name[:64]!r} on this server."
        if folder == "/api/game":
            request.setResponseCode(http.NOT_FOUND)
            return self._give(request, _JSON, _encode({"error": text}))
        return self._say(request, http.NOT_FOUND, "No such game", text)

    def _showGame(self, request: Any, table: Any) -> Any:
        return self._give(request, _HTML, self._page)

    def _showState(self, request: Any, table: Any) -> Any:
        return self._give(request, _JSON, _encode(table.state()))

    def _showRecord(self, request: Any, table: Any) -> Any:
        # The names of games are safe in a header, and as those of files.
        request.setHeader("Content-Disposition", f'attachment; filename="{table.name}.sgf"')
        record = table.game.toSGF(table.players)
        return self._give(request, "application/x-go-sgf; charset=utf-8", record)

    def _showEvents(self, request: Any, table: Any) -> Any:
        return self._watch(request, table.name)

    def _watch(self, request: Any, name: str | None) -> Any:
        if self._watching.full:
            request.setHeader("Retry-After", str(RETRY_AFTER))
            return self._say(
                request,
                http.SERVICE_UNAVAILABLE,
                "Too many are watching",
                "Come back in a little while.",
            )
        request.setHeader("Content-Type", "text/event-stream; charset=utf-8")
        request.setHeader("Cache-Control", "no-store")
        # A proxy that collects what it is sent would hold everything up.
        request.setHeader("X-Accel-Buffering", "no")
        if request.method == b"HEAD":
            return b""
        last = request.getHeader("Last-Event-ID")
        if last is None:
            # A page that connects by itself, after the browser has given up, can't set headers.
            last = request.args.get(b"last", [b""])[0].decode("latin-1")
        self._watching.watch(request, name, last)
        return NOT_DONE_YET

    def _say(self, request: Any, code: int, title: str, text: str) -> bytes:
        request.setResponseCode(code)
        page = _PAGE.format(title=escape(title), text=escape(text))
        return self._give(request, _HTML, page.encode("utf-8"))

    def _give(self, request: Any, kind: str, content: bytes) -> bytes:
        request.setHeader("Content-Type", kind)
        if request.code == http.OK:
            tag = hashlib.sha256(content).hexdigest()[:32]
            if request.setETag(f'"{tag}"'.encode("ascii")) is http.CACHED:
                return b""
        if request.method == b"HEAD":
            request.setHeader("Content-Length", str(len(content)))
            return b""
        return content


class _Request(Request):
    """A request whose content, of which there should be none, fills no disk."""

    _refused = False

    def gotLength(self, length: int | None) -> None:
        """The headers are read (see `twisted.web.iweb.IRequest`)."""
        self._refused = length is None or length > LONGEST_CONTENT
        super().gotLength(0 if self._refused else length)
        if self._refused:
            self.channel.write(
                b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            self.channel.loseConnection()

    def process(self) -> None:
        """All of it has come."""
        if not self._refused:
            super().process()


class _Channel(http.HTTPChannel):
    """A connection that its site knows of."""

    def connectionMade(self) -> None:
        self.factory.channels.add(self)
        super().connectionMade()

    def connectionLost(self, reason: Any) -> None:
        self.factory.channels.discard(self)
        super().connectionLost(reason)


class GoSite(Site):
    """
    The web server of the board. It speaks HTTP/1.1.

    Attributes:
        channels: the connections that are open.
        watching: tells browsers what happens.

    Args:
        service: the `GoService`.
        reactor: for timeouts and heartbeats.
        mostWatching: how many browsers may watch at once.
        mostConnections: how many connections there may be at once.
    """

    noisy = False
    displayTracebacks = False
    protocol = _Channel

    def __init__(self, service: Any, reactor: Any, mostWatching: int, mostConnections: int) -> None:
        self.watching = Watching(service, reactor, mostWatching)
        self.channels: set[_Channel] = set()
        self._most = mostConnections
        pages = Pages(service, self.watching)
        super().__init__(
            pages, _Request, timeout=30, reactor=reactor, parsePOSTFormSubmission=False
        )

    def acceptableProtocols(self) -> list[bytes]:
        """Return the protocols that TLS may negotiate (see `IProtocolNegotiationFactory`)."""
        return [b"http/1.1"]

    def buildProtocol(self, addr: Any) -> Any:
        """Take a connection, unless there are too many."""
        return None if len(self.channels) >= self._most else super().buildProtocol(addr)

    def stopFactory(self) -> None:
        """End what is open: a browser would go on to ask there, and hear nothing new."""
        self.watching.end()
        for channel in list(self.channels):
            channel.loseConnection()
        super().stopFactory()

    def log(self, request: Any) -> None:
        """Say nothing: who watches is nobody's business."""


def makeSite(
    service: Any,
    reactor: Any = None,
    mostWatching: int = MOST_WATCHING,
    mostConnections: int = MOST_CONNECTIONS,
) -> GoSite:
    """
    Make the web server of the board.

    Args:
        service: the `GoService`.
        reactor: for timeouts and heartbeats.
        mostWatching: how many browsers may watch at once.
        mostConnections: how many connections there may be at once.

    Returns:
        The site, to listen with.
    """
    if reactor is None:
        from twisted.internet import reactor
    return GoSite(service, reactor, mostWatching, mostConnections)


class WebPort(StreamServerEndpointService):
    """
    Listens for browsers, says where, and ends the program with one line if it can't.

    Attributes:
        address: where it listens; `None` if it does not.

    Args:
        service: the `GoService`.
        description: where to listen, a Twisted endpoint.
        reactor: to listen with.

    Raises:
        ValueError: that is no endpoint.
    """

    def __init__(self, service: Any, description: str, reactor: Any = None) -> None:
        if reactor is None:
            from twisted.internet import reactor
        try:
            endpoint = serverFromString(reactor, description)
        except (ValueError, TypeError, KeyError, IndexError, OSError) as mistake:
            raise ValueError(
                f"Can't listen on {description!r} ({mistake}). "
                "Say where by a Twisted endpoint: tcp:8080:interface=127.0.0.1"
            ) from None
        super().__init__(endpoint, makeSite(service, reactor))
        self._raiseSynchronously = True
        self._description = description
        self.address: Any = None

    def privilegedStartService(self) -> None:
        """Listen."""
        try:
            super().privilegedStartService()
        except (CannotListenError, OSError) as error:
            reason = getattr(error, "socketError", error)
            raise SystemExit(
                f"Can't listen on {self._description}: "
                f"{getattr(reason, 'strerror', None) or reason}. "
                "Choose another port for the board, or stop the program that uses it."
            ) from None
        self._waitingForPort.addCallback(self._listening)

    def _listening(self, port: Any) -> Any:
        self.address = address = port.getHost()
        host = getattr(address, "host", None)
        if host is None:
            where = self._description
        else:
            scheme = "https" if self._description.startswith("ssl:") else "http"
            where = f"{scheme}://{f'[{host}]' if ':' in host else host}:{address.port}/"
        _log.info("The board is at {where}", where=where)
        return port

    def stopService(self) -> Any:
        """Stop, and close all connections. It may be started again."""
        waiting = self._waitingForPort
        if waiting is None:
            return None
        stopped = super().stopService()
        self.address = self._waitingForPort = None
        self._raiseSynchronously = True
        return stopped
