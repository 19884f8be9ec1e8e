"""The board in the browser: what the server gives, in memory; and the page, in a real browser."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.request import urlopen

from twisted.application.service import MultiService
from twisted.internet import reactor
from twisted.internet.address import IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.spread import pb
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import Agent, readBody

from pbauth import AuthServerFactory, DefaultAuthorizer, Hashing, connect
from pbauth.net.certificates import makeCertificate
from tests.support.browsers import Chromium, whyNot
from tests.support.goexample import gogame, goservice, goweb
from tests.support.serving import ServingTestCase

GoGameError, GoService = gogame.GoGameError, goservice.GoService
HEARTBEAT, LONGEST_CONTENT, MOST_UNREAD = goweb.HEARTBEAT, goweb.LONGEST_CONTENT, goweb.MOST_UNREAD
WebPort, makeSite = goweb.WebPort, goweb.makeSite

LOOPBACK = "tcp:0:interface=127.0.0.1"

#: Ten moves; the ninth captures the stone of the second.
CAPTURE = "D4 E4 E3 Q16 E5 Q4 C16 D16 F4 D17".split()


class Client(pb.Referenceable):
    """Of a player."""

    def remote_event(self, event: Any) -> None:
        """It looks at the browser."""


class Transport(StringTransport):
    """Keeps whether the connection was cut."""

    cut = False

    def abortConnection(self) -> None:
        self.cut = True
        super().abortConnection()


class Answer:
    """What came over one connection."""

    def __init__(self, received: bytes) -> None:
        head, _, self.body = received.partition(b"\r\n\r\n")
        status, *lines = head.decode("ascii").split("\r\n")
        self.code = int(status.split()[1])
        self.headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
        }

    @property
    def text(self) -> str:
        return self.body.decode("utf-8")


class Browser:
    """One connection, in memory."""

    def __init__(self, site: Any) -> None:
        self.channel = site.buildProtocol(None)
        if self.channel is not None:
            self.transport = Transport()
            self.channel.makeConnection(self.transport)

    def ask(self, path: str, *headers: str, method: str = "GET") -> None:
        """Send a request."""
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]
        self.channel.dataReceived("\r\n".join(lines).encode())

    def answer(self) -> Answer:
        """What has come so far; it is forgotten."""
        received = self.transport.value()
        self.transport.clear()
        return Answer(received)

    def events(self) -> list[Any]:
        """The events that have come since the last time: pairs of number and data."""
        received = self.transport.value()
        self.transport.clear()
        return [
            (number.decode() if number else None, json.loads(data))
            for number, data in re.findall(rb"(?:id: (\S+)\n)?data: (\{.*\})\n\n", received)
        ]

    def leave(self) -> None:
        """Close the connection."""
        self.channel.connectionLost(Failure(ConnectionDone()))


class WebTestCase(SynchronousTestCase):
    """A service and its site, in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.service = GoService("go")
        self.table = self.service.tables["main"]
        self.site = makeSite(self.service, self.clock, mostWatching=3, mostConnections=8)

    def get(self, path: str, *headers: str, method: str = "GET") -> Answer:
        """Ask for a page, over a connection of its own."""
        browser = Browser(self.site)
        browser.ask(path, *headers, method=method)
        answer = browser.answer()
        browser.leave()
        return answer

    def watch(self, path: str = "/events/main", *headers: str) -> Browser:
        """Begin to watch."""
        browser = Browser(self.site)
        browser.ask(path, *headers)
        return browser

    def play(self, *points: str) -> None:
        """Play moves."""
        for point in points:
            self.table.play(self.table.game.turn, point)


class PageTests(WebTestCase):
    """What is asked for once."""

    def test_pages(self) -> None:
        """Each is there, as what it is, and by HEAD without its content."""
        for path, kind in {
            "/": "text/html; charset=utf-8",
            "/game/main": "text/html; charset=utf-8",
            "/board.js": "text/javascript; charset=utf-8",
            "/board.css": "text/css; charset=utf-8",
            "/wood.svg": "image/svg+xml",
            "/stone.svg": "image/svg+xml",
            "/api/games": "application/json",
            "/api/game/main": "application/json",
            "/sgf/main.sgf": "application/x-go-sgf; charset=utf-8",
        }.items():
            answer = self.get(path)
            self.assertEqual((answer.code, answer.headers["content-type"]), (200, kind), path)
            self.assertEqual(answer.headers["content-length"], str(len(answer.body)))
            head = self.get(path, method="HEAD")
            self.assertEqual(head.body, b"")
            for name in ("content-type", "content-length", "etag", "content-security-policy"):
                self.assertEqual(head.headers[name], answer.headers[name])

    def test_headers(self) -> None:
        """Nothing from elsewhere, nothing inline, whatever the answer is."""
        for path, method in [("/", "GET"), ("/nix", "GET"), ("/", "POST"), ("/events/main", "GET")]:
            headers = self.get(path, method=method).headers
            policy = headers["content-security-policy"]
            self.assertTrue(policy.startswith("default-src 'none'; script-src 'self'; "), policy)
            self.assertNotIn("unsafe", policy)
            self.assertEqual(headers["x-content-type-options"], "nosniff")
            self.assertEqual(headers["referrer-policy"], "no-referrer")
            self.assertNotIn("server", headers)
        for path in ("/", "/game/nix"):
            self.assertNotRegex(self.get(path).text, r"(?i)<script(?! src)|<style|\son\w+=|style=")

    def test_unchanged(self) -> None:
        """What the browser has already, it is not sent again."""
        tag = self.get("/board.js").headers["etag"]
        again = self.get("/board.js", f"If-None-Match: {tag}")
        self.assertEqual((again.code, again.body), (304, b""))
        game = self.get("/api/game/main").headers["etag"]
        self.play("D4")
        self.assertEqual(self.get("/api/game/main", f"If-None-Match: {game}").code, 200)

    def test_methods(self) -> None:
        """Everything but GET and HEAD is refused, everywhere."""
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "X"):
            for path in ("/", "/api/games", "/events/main", "/nix"):
                answer = self.get(path, method=method)
                self.assertEqual((answer.code, answer.headers["allow"]), (405, "GET, HEAD"))
        self.assertEqual(len(self.site.watching), 0)

    def test_content(self) -> None:
        """A request with more content than none at all is not read to its end."""
        small = self.get("/", f"Content-Length: {LONGEST_CONTENT}\r\n\r\n" + LONGEST_CONTENT * "x")
        self.assertEqual(small.code, 200)
        for header in (f"Content-Length: {LONGEST_CONTENT + 1}", "Transfer-Encoding: chunked"):
            browser = Browser(self.site)
            browser.ask("/", header, method="POST")
            # Not even if all of it comes at once.
            browser.channel.dataReceived(b"0\r\n\r\n" + bytes(LONGEST_CONTENT + 1))
            answer = browser.answer()
            self.assertEqual((answer.code, answer.body), (413, b""))
            self.assertTrue(browser.transport.disconnecting)
            browser.leave()

    def test_api(self) -> None:
        """What a machine can read."""
        self.service.openGame("small", 9, 6.5)
        self.table.sitDown("black", "alice")
        self.play("D4", "E4")
        small, main = reversed(json.loads(self.get("/api/games").body)["games"])
        self.assertEqual(
            main,
            {
                "game": "main",
                "size": 19,
                "komi": 7.5,
                "players": {"black": "alice", "white": None},
                "moves": 2,
                "turn": "black",
                "result": None,
            },
        )
        self.assertEqual((small["game"], small["size"], small["komi"]), ("small", 9, 6.5))
        self.assertEqual(json.loads(self.get("/api/game/main").body), self.table.state())

    def test_record(self) -> None:
        """The record is a file to save."""
        self.play("D4")
        answer = self.get("/sgf/main.sgf")
        self.assertEqual(answer.body, self.table.game.toSGF(self.table.players))
        self.assertEqual(answer.headers["content-disposition"], 'attachment; filename="main.sgf"')

    def test_notFound(self) -> None:
        """What there is not: a page that says so, or JSON for machines."""
        for path in (
            "/nix",
            "/game",
            "/game/",
            "/web/../goweb.py",
            "/%2e%2e/goweb.py",
            "//",
            "/a/b",
        ):
            self.assertEqual(self.get(path).code, 404, path)
        for folder in ("/game/", "/events/", "/sgf/"):
            answer = self.get(f"{folder}chess")
            self.assertEqual(answer.code, 404)
            self.assertEqual(answer.headers["content-type"], "text/html; charset=utf-8")
            self.assertIn("There is no game &#x27;chess&#x27; on this server.", answer.text)
        answer = self.get("/api/game/chess")
        self.assertEqual(answer.code, 404)
        self.assertEqual(
            json.loads(answer.body), {"error": "There is no game 'chess' on this server."}
        )

    def test_escaped(self) -> None:
        """A name that is HTML stays text; one that is no text at all is no harm."""
        answer = self.get("/game/%3Cscript%3Ealert(1)%3C%2fscript%3E")
        self.assertEqual(answer.code, 404)
        self.assertNotIn("<script", answer.text)
        answer = self.get("/game/%3Cimg%20src=x%3E")
        self.assertIn("&lt;img src=x&gt;", answer.text)
        self.assertEqual(self.get("/game/%ff%00%0d%0aX-Bad:%20yes").code, 404)

    def test_connections(self) -> None:
        """No more connections than there may be."""
        browsers = [Browser(self.site) for _ in range(8)]
        self.assertIs(Browser(self.site).channel, None)
        browsers[0].leave()
        self.assertIsNot(Browser(self.site).channel, None)

    def test_idle(self) -> None:
        """Who asks for nothing is sent away."""
        browser = Browser(self.site)
        self.clock.advance(31)
        self.assertTrue(browser.transport.disconnecting)


class EventTests(WebTestCase):
    """What is told as it happens."""

    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(self.noListeners)

    def noListeners(self) -> None:
        """Those who leave, leave nothing behind."""
        channel: Any
        for channel in list(self.site.channels):
            channel.transport.loseConnection()
            channel.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(len(self.site.watching), 0)
        self.assertEqual(
            [table.listeners for table in self.service.tables.values() if table.listeners], []
        )
        self.assertEqual(self.service.listeners, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stream(self) -> None:
        """First all that there is to know, then each event, by its number."""
        self.play("D4")
        browser = self.watch()
        self.assertIn(b"text/event-stream", browser.transport.value())
        self.assertIn(b"Cache-Control: no-store", browser.transport.value())
        ((number, snapshot),) = browser.events()
        self.assertEqual(snapshot, {"kind": "snapshot", **self.table.state()})
        self.play("E4")
        self.table.resign("black")
        run = number.partition("-")[0]
        self.assertEqual(
            browser.events(),
            [
                (
                    f"{run}-2",
                    {
                        "kind": "moved",
                        "game": "main",
                        "event": 2,
                        "number": 2,
                        "colour": "white",
                        "point": "E4",
                        "captured": [],
                    },
                ),
                (
                    f"{run}-3",
                    {"kind": "resigned", "game": "main", "event": 3, "colour": "black"},
                ),
                (f"{run}-4", {"kind": "over", "game": "main", "event": 4, "result": "W+R"}),
            ],
        )

    def test_captured(self) -> None:
        """A move tells what it took."""
        browser = self.watch()
        self.play(*CAPTURE)
        moved = [event for _, event in browser.events() if event["kind"] == "moved"]
        self.assertEqual([move["captured"] for move in moved], [[]] * 8 + [["E4"]] + [[]])

    def test_said(self) -> None:
        """What is said at the table is not for everybody."""
        browser = self.watch()
        browser.events()
        self.table.tell("said", by="alice", text="secret")
        self.assertEqual(browser.transport.value(), b"")
        self.assertNotIn("secret", self.get("/api/game/main").text)

    def test_resumed(self) -> None:
        """Who has everything gets it not again; who has not, gets all of it; by header or page."""
        number, _ = self.watch().events()[0]
        for path, headers, point in (
            ("/events/main", [f"Last-Event-ID: {number}"], "D4"),
            ("/events/main?last={}", [], "E4"),
        ):
            again = self.watch(path.format(number), *headers)
            self.assertEqual(again.events(), [])
            self.play(point)
            ((now, event),) = again.events()
            self.assertEqual((event["kind"], event["point"]), ("moved", point))
            again.leave()
            late = self.watch(path.format(number), *headers)
            self.assertEqual(late.events()[0][1]["kind"], "snapshot")
            late.leave()
            number = now
        for wrong in ("", "0", "nonsense", "\xff", number.replace("-", "0-"), "x" * 5000):
            late = self.watch("/events/main", f"Last-Event-ID: {wrong}")
            self.assertEqual(late.events()[0][1]["kind"], "snapshot")
            late.leave()

    def test_otherRun(self) -> None:
        """The numbers of another start of the server are none of this one."""
        browser = self.watch()
        number, _ = browser.events()[0]
        browser.leave()
        self.site = makeSite(self.service, self.clock)
        late = self.watch("/events/main", f"Last-Event-ID: {number}")
        self.assertEqual(late.events()[0][1]["kind"], "snapshot")

    def test_reopened(self) -> None:
        """A game that is over makes place for a new one; who watches, watches that."""
        browser = self.watch()
        old = self.table
        self.table.resign("white")
        over = browser.events()[-1][0]
        self.table = self.service.openGame("main", 9)
        self.play("C3")
        (number, snapshot), (_, moved) = browser.events()
        self.assertEqual(
            (snapshot["kind"], snapshot["size"], snapshot["moves"]), ("snapshot", 9, [])
        )
        self.assertNotEqual(number.partition("-")[0], over.partition("-")[0])
        self.assertEqual((moved["kind"], moved["point"]), ("moved", "C3"))
        self.assertEqual(old.listeners, [])
        old.tell("came", by="eve", colour="black")
        self.assertEqual(browser.events(), [])

    def test_list(self) -> None:
        """The list follows all games, and those that are opened meanwhile."""
        browser = self.watch("/events")
        ((_, games),) = browser.events()
        self.assertEqual([game["game"] for game in games["games"]], ["main"])
        self.play("D4")
        small = self.service.openGame("small", 9)
        small.play("black", "C3")
        self.assertEqual(
            [(event["kind"], event["game"], event["moves"]) for _, event in browser.events()],
            [("game", "main", 1), ("game", "small", 0), ("game", "small", 1)],
        )

    def test_both(self) -> None:
        """Those who watch the list, and those who watch a game, come and go in any order."""
        for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2)):
            browsers = [self.watch("/events"), self.watch(), self.watch()]
            self.assertEqual(len(self.table.listeners), 1)
            for number in order:
                browsers[number].leave()
            self.assertEqual(self.table.listeners, [])

    def test_heartbeat(self) -> None:
        """Regularly there is a sign of life, for proxies and for the page."""
        browser = self.watch()
        browser.events()
        for _ in "123":
            self.clock.advance(HEARTBEAT - 1)
            self.assertEqual(browser.transport.value(), b"")
            self.clock.advance(1)
            beat = browser.transport.value()
            self.assertIn(b": still here\nevent: beat\ndata: 1\n\n", beat)
            browser.transport.clear()
        self.assertFalse(browser.transport.disconnecting)

    def test_tooMany(self) -> None:
        """No more watch than may; who is turned away is told when to come back."""
        browsers = [self.watch(path) for path in ("/events", "/events/main", "/events/main")]
        for path in ("/events", "/events/main"):
            answer = self.get(path)
            self.assertEqual((answer.code, answer.headers["retry-after"]), (503, "30"))
            self.assertIn("Too many are watching", answer.text)
        self.assertEqual(self.get("/").code, 200)
        browsers[0].leave()
        self.assertIn(b"200 OK", self.watch().transport.value())

    def test_head(self) -> None:
        """Who only asks what it is does not watch."""
        answer = self.get("/events/main", method="HEAD")
        self.assertEqual(answer.headers["content-type"], "text/event-stream; charset=utf-8")
        self.assertEqual(len(self.site.watching), 0)

    def test_slow(self) -> None:
        """Nothing is kept for who does not read; once they do, a snapshot makes up for it."""
        browser = self.watch()
        browser.events()
        browser.channel.pauseProducing()
        self.play(*CAPTURE)
        self.clock.advance(HEARTBEAT * MOST_UNREAD)
        self.assertEqual(browser.transport.value(), b"")
        browser.channel.resumeProducing()
        ((_, snapshot),) = browser.events()
        self.assertEqual(snapshot, {"kind": "snapshot", **self.table.state()})
        self.play("A1")
        self.assertEqual(browser.events()[0][1]["point"], "A1")
        # Paused with nothing missed: nothing to make up for.
        browser.channel.pauseProducing()
        browser.channel.resumeProducing()
        self.assertEqual(browser.events(), [])

    def test_stuck(self) -> None:
        """Who does not read at all is dropped."""
        browser = self.watch()
        browser.channel.pauseProducing()
        self.clock.pump([HEARTBEAT] * MOST_UNREAD)
        self.assertFalse(browser.transport.cut)
        self.clock.advance(HEARTBEAT)
        self.assertTrue(browser.transport.cut)

    def test_unharmed(self) -> None:
        """A browser that is gone is no matter for the game."""
        browser = self.watch()
        browser.transport.loseConnection()
        browser.leave()
        self.play("D4")
        self.assertEqual(len(self.table.game.moves), 1)

    def test_end(self) -> None:
        """When the server stops, the streams end."""
        browsers = [self.watch(), self.watch("/events"), Browser(self.site)]
        self.site.doStart()
        self.site.doStop()
        self.assertTrue(all(browser.transport.disconnecting for browser in browsers))
        self.assertTrue(browsers[0].transport.value().endswith(b"0\r\n\r\n"))


class ServiceTests(SynchronousTestCase):
    """What the service does for its pages."""

    def test_opened(self) -> None:
        """Whoever listens is told of games that are opened."""
        service = GoService("go")
        opened: list[Any] = []
        service.listeners.append(opened.append)
        table = service.openGame("small", 9)
        self.assertEqual(opened, [table])
        self.assertRaises(GoGameError, service.openGame, "small")
        self.assertEqual(opened, [table])

    def test_fullOfGames(self) -> None:
        """A game that is over makes place for one of its name, even where there is no other."""
        self.patch(goservice, "MOST_GAMES", 2)
        service = GoService("go")
        small = service.openGame("small", 9)
        self.assertRaises(GoGameError, service.openGame, "third")
        small.resign("black")
        self.assertIsNot(service.openGame("small", 9), small)

    def test_badEndpoint(self) -> None:
        """Where to listen is checked before anything is started."""
        for web in ("nonsense", "", "8080:x=y:z", "tcp:http-x", "ssl:1:privateKey=/nix"):
            mistake = self.assertRaises(ValueError, GoService, "go", web=web)
            self.assertIn("tcp:8080:interface=127.0.0.1", str(mistake))
            self.assertNotIn("\n", str(mistake))

    def test_neverStarted(self) -> None:
        """A port that was never opened can be closed."""
        self.assertIs(WebPort(GoService("go"), LOOPBACK).stopService(), None)


class PortTests(TestCase):
    """On a real port."""

    def start(self, web: str = LOOPBACK, parent: Any = None) -> Any:
        """Start a service that shows its games."""
        service = GoService("go", parent, web=web)
        if parent is None:
            service.privilegedStartService()
            service.startService()
        self.addCleanup(service.stopService)
        return service

    async def get(self, service: Any, path: str) -> tuple[int, bytes]:
        """Ask for a page."""
        url = f"http://127.0.0.1:{service.web.address.port}{path}"
        response = await Agent(reactor).request(b"GET", url.encode())
        return response.code, await readBody(response)

    async def test_served(self) -> None:
        """It is served while the service runs; started, stopped, and started again."""
        service = self.start()
        code, body = await self.get(service, "/api/games")
        self.assertEqual((code, len(json.loads(body)["games"])), (200, 1))
        port = service.web.address.port
        await service.stopService()
        with closing(socket.socket()) as other:
            self.assertNotEqual(other.connect_ex(("127.0.0.1", port)), 0)
        service.startService()
        self.assertEqual((await self.get(service, "/"))[0], 200)

    async def test_runningParent(self) -> None:
        """A parent that runs starts it as it is made."""
        parent = MultiService()
        parent.startService()
        self.addCleanup(parent.stopService)
        service = GoService("go", parent, web=LOOPBACK)
        self.assertEqual((await self.get(service, "/game/main"))[0], 200)

    async def test_tls(self) -> None:
        """Over TLS."""
        certificate = os.path.abspath(self.mktemp())
        Path(certificate).write_bytes(makeCertificate())
        service = self.start(f"ssl:0:interface=127.0.0.1:privateKey={certificate}")
        url = f"https://127.0.0.1:{service.web.address.port}/api/games"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(certificate)

        def get() -> bytes:
            with urlopen(url, context=context) as answer:
                return answer.read()

        self.assertIn(b'"main"', await deferToThread(get))

    def test_said(self) -> None:
        """Where it is, is said as a browser takes it."""
        for host, web, said in (
            ("127.0.0.1", "tcp:8080", "http://127.0.0.1:8080/"),
            ("::1", "ssl:8080", "https://[::1]:8080/"),
        ):
            port = WebPort(GoService("go"), LOOPBACK)
            port._description = web
            listening = mock.Mock()
            listening.getHost.return_value = IPv6Address("TCP", host, 8080)
            with capturedLogs() as logged:
                port._listening(listening)
            self.assertEqual([event["where"] for event in logged], [said])

    def test_taken(self) -> None:
        """A port that is taken: one line, as of the other ports of a server."""
        taken = f"tcp:{self.start().web.address.port}:interface=127.0.0.1"
        service = GoService("go", web=taken)
        stop = self.assertRaises(SystemExit, service.privilegedStartService)
        self.assertRegex(
            str(stop),
            rf"^Can't listen on {taken}: Address already in use\. Choose another port .*$",
        )
        return service.stopService()

    async def test_gone(self) -> None:
        """A browser that goes away, in whatever way, leaves no listener behind."""
        service = self.start()
        (table,) = service.tables.values()
        for linger in (False, True):
            client = socket.create_connection(("127.0.0.1", service.web.address.port))
            client.sendall(b"GET /events/main HTTP/1.1\r\nHost: x\r\n\r\n")
            while not table.listeners:
                await _later()
            if linger:
                # Closed with a reset.
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()
            while table.listeners:
                await _later()
            self.assertEqual(len(service.web.factory.watching), 0)

    async def test_unread(self) -> None:
        """Of what a browser does not read, the server keeps no more than a snapshot."""
        service = self.start()
        (table,) = service.tables.values()
        with closing(socket.socket()) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", service.web.address.port))
            client.sendall(b"GET /events/main HTTP/1.1\r\nHost: x\r\n\r\n")
            while not table.listeners:
                await _later()
            (channel,) = service.web.factory.channels
            transport = channel.transport
            transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            for _ in range(20_000):
                table.tell("came", by="a" * 200, colour="black")
            await _later()
            kept = len(transport.dataBuffer) + sum(map(len, transport._tempDataBuffer))
            self.assertLess(kept, 2 * transport.bufferSize)
            # It reads on: all that it needs to know comes.
            client.settimeout(10)
            table.play("black", "D4")
            received = b""
            while b'"moves":[["black","D4",[]]]' not in received:
                received = received[-200:] + await _receive(client)

    async def test_closed(self) -> None:
        """Connections that wait for more requests are closed with the port."""
        service = self.start()
        with closing(socket.socket()) as client:
            client.connect(("127.0.0.1", service.web.address.port))
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            received = b""
            while b"</html>" not in received:
                received += await _receive(client)
            await service.stopService()
            self.assertEqual(await _receive(client), b"")


def _later() -> Deferred[None]:
    """In the next turn of the reactor."""
    later: Deferred[None] = Deferred()
    reactor.callLater(0, later.callback, None)
    return later


async def _receive(client: socket.socket) -> bytes:
    return await deferToThread(client.recv, 65536)


class BrowserTests(ServingTestCase):
    """The page in a real browser; who plays, does so by pbauth."""

    skip = whyNot()
    timeout = 60

    async def setUp(self) -> None:  # type: ignore[override]
        self.service = self.start()
        self.url = f"http://127.0.0.1:{self.service.web.address.port}"
        self.browser = await Chromium.share()
        self.addCleanup(self.browser.clear)

    def start(self, web: str = LOOPBACK) -> Any:
        """Start a Go server."""
        services = MultiService()
        self.authorizer = DefaultAuthorizer(services, Hashing.CHEAPEST)
        service = GoService("go", services, self.authorizer, web=web)
        services.startService()
        self.addCleanup(services.stopService)
        self.port = self.listen(AuthServerFactory(self.authorizer))
        return service

    async def sitDown(self, name: str, key: str) -> Any:
        """Somebody logs in, and sits down."""
        identity = self.authorizer.createIdentity(name)
        identity.setPassword("secret")
        identity.addKeyByString("go", key)
        identity.save()
        player = await connect("127.0.0.1", self.port, name, "secret", "go", key, client=Client())
        self.addCleanup(player.broker.transport.loseConnection)
        return player

    async def sitDownBoth(self) -> tuple[Any, Any]:
        """Alice and Bob sit down."""
        return await self.sitDown("alice", "black"), await self.sitDown("bob", "white")

    async def open(self, path: str) -> None:
        """Open a page, and wait until it follows."""
        await self.browser.open(self.url + path)
        await self.live()

    async def live(self) -> None:
        """Wait until the page follows."""
        await self.browser.until("document.getElementById('connection').dataset.state === 'live'")

    async def shows(self, number: int) -> None:
        """The page shows the position after a move: the stones that there were, and no others."""
        table = self.service.tables["main"]
        stones: dict[str, str] = {}
        for move in table.game.moves[:number]:
            stones[move.point] = move.colour
            for taken in move.captured:
                del stones[taken]
        wanted = sorted(f"{colour} {point}" for point, colour in stones.items())
        await self.browser.until(
            "JSON.stringify([...document.querySelectorAll('#board .stone')].map((stone) => "
            "`${stone.classList[1]} ${stone.dataset.point}`).sort()) === arguments[0]",
            json.dumps(wanted, separators=(",", ":")),
        )
        marked = await self.browser.run(
            "return [...document.querySelectorAll('#board .mark')].map((it) => it.dataset.point)"
        )
        self.assertEqual(marked, [table.game.moves[number - 1].point] if number else [])
        self.assertEqual(await self.text("#count"), f"{number} of {len(table.game.moves)}")

    async def text(self, selector: str) -> str:
        """The text of an element."""
        return await self.browser.run(
            "return document.querySelector(arguments[0]).textContent", selector
        )

    async def press(self, key: str) -> None:
        """Press a key."""
        from selenium.webdriver.common.action_chains import ActionChains

        await self.browser.do(lambda driver: ActionChains(driver).send_keys(key).perform())

    async def click(self, selector: str) -> None:
        """Click an element, as a user can: what is covered can't be clicked."""
        await self.browser.do(lambda driver: driver.find_element("css selector", selector).click())

    async def test_game(self) -> None:
        """Ten moves come in sight as they are played; then one looks back, by mouse and keys."""
        from selenium.webdriver.common.keys import Keys

        players = await self.sitDownBoth()
        await self.open("/#main")
        await self.browser.run("window.sameAsBefore = true")
        await self.browser.until("document.querySelector('#black bdi').textContent === 'alice'")
        self.assertEqual(await self.text("#white bdi"), "bob")
        self.assertEqual(await self.text("#status"), "The board is empty")
        for number, point in enumerate(CAPTURE):
            await players[number % 2].callRemote("play", point)
            await self.shows(number + 1)
        self.assertEqual(await self.text("#status"), "Move 10: White plays D17")
        self.assertEqual(await self.text("#black .about"), "Black, 1 capture")

        # What a screen reader says.
        self.assertEqual(
            await self.browser.run("return document.getElementById('status').ariaLive"), "polite"
        )
        board = await self.browser.do(lambda driver: driver.find_element("id", "board"))
        named = await self.browser.do(lambda driver: (board.aria_role, board.accessible_name))
        self.assertEqual(named, ("image", "Board, 19 by 19, after move 10 of 10."))
        self.assertEqual(
            await self.text("#boardText"),
            "Black stones: C16, D4, E3, E5, F4. White stones: D16, D17, Q4, Q16.",
        )
        names = await self.browser.do(
            lambda driver: [
                each.accessible_name
                for each in driver.find_elements("css selector", "button, input")
            ]
        )
        self.assertEqual(
            names[:6],
            [
                "To the start",
                "One move back",
                "One move forward",
                "To the last move",
                "Move",
                "Live",
            ],
        )
        self.assertEqual(names[14], "Move 9: Black plays F4, captures 1 stone")

        # Back, and what was captured is there again.
        await self.click("#back")
        await self.shows(9)
        self.assertEqual(await self.text("#status"), "Move 9: Black plays F4, captures 1 stone")
        await self.press(Keys.ARROW_LEFT)
        await self.shows(8)
        self.assertEqual(await self.text("#black .about"), "Black, 0 captures")
        self.assertEqual(await self.text("#live"), "Live (2 more)")
        await self.press(Keys.ARROW_RIGHT)
        await self.shows(9)
        for key, number in (
            (Keys.HOME, 0),
            (Keys.ARROW_LEFT, 0),
            (Keys.END, 10),
            (Keys.PAGE_UP, 0),
        ):
            await self.press(key)
            await self.shows(number)
        self.assertEqual(await self.text("#status"), "The board is empty")
        await self.browser.run("document.getElementById('slider').focus()")
        await self.press(Keys.ARROW_RIGHT)
        await self.shows(1)
        await self.click("#moves li:nth-child(2) button")
        await self.shows(2)
        await self.press(Keys.ARROW_DOWN)
        await self.shows(4)
        focused = await self.browser.run("return document.activeElement.ariaLabel")
        self.assertEqual(focused, "Move 4: White plays Q16")

        # Who looks back is left alone; who follows, follows again.
        await players[0].callRemote("play", "K10")
        await self.browser.until("document.getElementById('live').textContent === 'Live (7 more)'")
        await self.shows(4)
        await self.press("l")
        await self.shows(11)
        self.assertEqual(await self.text("#live"), "Live")

        # The focus can be seen.
        await self.browser.run("document.querySelector('.home').focus()")
        await self.press(Keys.TAB)
        outline = await self.browser.run(
            "const it = document.activeElement; return [it.id, getComputedStyle(it).outlineWidth]"
        )
        self.assertEqual(outline, ["first", "3px"])

        await players[1].callRemote("resign")
        await self.browser.until("!document.getElementById('result').hidden")
        self.assertEqual(await self.text("#result"), "Black wins by resignation")
        saved = await self.browser.run(
            "return fetch(document.getElementById('record').href).then((answer) => answer.text())"
        )
        self.assertEqual(
            saved,
            self.service.tables["main"].game.toSGF({"black": "alice", "white": "bob"}).decode(),
        )
        self.assertTrue(await self.browser.run("return window.sameAsBefore"))
        self.assertEqual(await self.browser.complaints(), [])

    async def test_reconnected(self) -> None:
        """The server goes away and comes back: the page says so, and shows what it has missed."""
        black, white = await self.sitDownBoth()
        await self.open("/game/main")
        await self.browser.run("window.sameAsBefore = true")
        await black.callRemote("play", CAPTURE[0])
        await self.shows(1)
        self.assertEqual(await self.browser.complaints(), [])
        address = self.service.web.address
        await self.service.stopService()
        await self.browser.until("document.getElementById('connection').dataset.state === 'lost'")
        self.assertEqual(await self.text("#connection"), "Connection lost. Trying again…")
        for number, point in enumerate(CAPTURE[1:]):
            await (white, black)[number % 2].callRemote("play", point)
        self.service.web = WebPort(self.service, f"tcp:{address.port}:interface=127.0.0.1")
        self.service.startService()
        await self.live()
        await self.shows(10)
        self.assertEqual(await self.text("#moves li:last-child button span:nth-child(3)"), "D17")
        await black.callRemote("play", "K10")
        await self.shows(11)

        # What does not fit to what is known is not drawn: the page asks for all of it.
        table = self.service.tables["main"]
        table.tell("moved", number=99, colour="white", point="A1", captured=[])
        await white.callRemote("play", "K11")
        await self.shows(12)
        self.assertTrue(await self.browser.run("return window.sameAsBefore"))
        # That nobody answered was no secret, and there was nothing else.
        complaints = await self.browser.complaints()
        self.assertEqual([each for each in complaints if "net::ERR_" not in each], [])

    async def test_list(self) -> None:
        """The list follows the games; a name that is HTML stays text; a game that there is not."""
        table = self.service.tables["main"]
        nasty = "<img src=x onerror=alert(1)>"
        table.sitDown("black", nasty)
        await self.open("/")
        await self.browser.until("document.querySelectorAll('#games li').length === 1")
        self.assertEqual(await self.text("#games .sides bdi"), nasty)
        self.assertIn("19×19, 0 moves. Black to play.", await self.text("#games"))
        table.play("black", "D4")
        await self.browser.until(
            "document.querySelector('#games .state').textContent.includes('1 move. White to play.')"
        )
        self.service.openGame("a-small-one", 9)
        await self.browser.until("document.querySelectorAll('#games li').length === 2")
        self.assertEqual(await self.text("#games li:first-child strong"), "a-small-one")
        await self.click("#games li:last-child a")
        await self.shows(1)
        self.assertEqual(await self.text("#black bdi"), nasty)
        self.assertTrue(
            (await self.browser.do(lambda driver: driver.current_url)).endswith("/game/main")
        )
        self.assertEqual(
            await self.browser.run("return document.querySelectorAll('img').length"), 1
        )

        # A game that is over, and a new one of its name.
        table.resign("white")
        await self.browser.until("!document.getElementById('result').hidden")
        self.service.openGame("main", 9).play("black", "C3")
        await self.shows(1)
        self.assertEqual(await self.text("#rules"), "9×9, komi 7.5")
        self.assertEqual(await self.browser.complaints(), [])

        await self.browser.open(f"{self.url}/game/chess")
        self.assertEqual(await self.text("h1"), "No such game")
        await self.browser.open(f"{self.url}/#chess")
        await self.browser.until("!document.getElementById('missing').hidden")
        self.assertEqual(
            await self.text("#missingText"), "There is no game “chess” on this server."
        )
        complaints = await self.browser.complaints()
        self.assertEqual([each for each in complaints if "404" not in each], [])

    async def test_silence(self) -> None:
        """A connection that is silent is made anew; one that nobody needs is closed."""
        hurry = """
            const later = window.setTimeout;
            window.setTimeout = (what, delay) => later(what, delay < 20000 ? delay : 300);
        """
        await self.browser.do(
            lambda driver: driver.execute_cdp_cmd(
                "Page.addScriptToEvaluateOnNewDocument", {"source": hurry}
            )
        )
        await self.open("/game/main")
        await self.browser.until("document.getElementById('connection').dataset.state === 'lost'")
        await self.live()
        hide = """
            Object.defineProperty(document, "hidden", { value: arguments[0], configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        """
        watching = self.service.web.factory.watching
        await self.browser.run(hide, True)
        await self.browser.until("document.getElementById('connection').textContent === 'Paused'")
        while len(watching):
            await _later()
        await self.browser.run(hide, False)
        await self.live()
        self.assertEqual(await self.browser.complaints(), [])

    async def test_phone(self) -> None:
        """On a phone nothing is wider than the screen, and all buttons are large enough to hit."""
        table = self.service.tables["main"]
        table.sitDown("black", "a-name-without-any-place-to-break-it-" * 4)
        table.sitDown("white", "W" * 120)
        for point in CAPTURE:
            table.play(table.game.turn, point)
        self.service.openGame("long-name-" * 6)
        colours = []
        for dark in (False, True):
            await self.browser.look(375, 667, dark)
            for path in ("/", "/game/main", "/game/" + "long-name-" * 6, "/game/chess"):
                await self.browser.open(self.url + path)
                if "chess" not in path:
                    await self.live()
                await self.browser.until("document.querySelector('main:not([hidden])')")
                width = await self.browser.run("return document.documentElement.scrollWidth")
                self.assertEqual(width, 375, path)
                colours.append(
                    await self.browser.run("return getComputedStyle(document.body).backgroundColor")
                )
            await self.open("/game/main")
            await self.shows(10)
            board, smallest = await self.browser.run(
                "return [document.getElementById('board').getBoundingClientRect().width, "
                "Math.min(...[...document.querySelectorAll('.controls button')].map("
                "(button) => { const { width, height } = button.getBoundingClientRect(); "
                "return Math.min(width, height); }))]"
            )
            self.assertEqual(board, 375)
            self.assertGreaterEqual(smallest, 44)
        self.assertEqual(len(set(colours[:4])), 1)
        self.assertEqual(len(set(colours)), 2)
        complaints = await self.browser.complaints()
        self.assertEqual([each for each in complaints if "404" not in each], [])
