"""The Go example: its rules, and the service."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from sgfmill import common, sgf
from twisted.spread import pb
from twisted.trial.unittest import SynchronousTestCase

from pbauth import AuthServerFactory, KeyNotFound, Password, connect
from pbauth.net.certificates import makeCertificate
from pbauth.testing import MemoryServer
from tests.support import referee
from tests.support.goexample import gogame, goservice
from tests.support.tls import TLSTestCase

BLACK, WHITE, GoGame, GoGameError = gogame.BLACK, gogame.WHITE, gogame.GoGame, gogame.GoGameError
MAIN, GoService = goservice.MAIN, goservice.GoService

RECORD = Path(__file__).parent.parent / "data" / "game.sgf"


def play(game: GoGame, *points: str) -> None:  # type: ignore[valid-type]
    """Play in turn."""
    for point in points:
        if point == "pass":
            game.pass_(game.turn)
        else:
            game.play(game.turn, point)


def whole(game: GoGame) -> Any:  # type: ignore[valid-type]
    """All that there is to a game."""
    return (
        sorted(game.stones()),
        list(game.moves),
        game.turn,
        dict(game.captured),
        game.result,
        game.toSGF(),
    )


def stonesOf(game: GoGame) -> list[Any]:  # type: ignore[valid-type]
    """The stones as sgfmill tells them."""
    return sorted((name[0], common.move_from_vertex(at, game.size)) for name, at in game.stones())


class GoGameTests(SynchronousTestCase):
    """The rules."""

    def refused(self, game: GoGame, said: str, *call: Any) -> None:  # type: ignore[valid-type]
        """A move is refused, and the game is as it was."""
        before = whole(game)
        with self.assertRaises(GoGameError) as raised:
            getattr(game, call[0])(*call[1:])
        self.assertIn(said, str(raised.exception))
        self.assertEqual(whole(game), before)

    def test_capture(self) -> None:
        """Stones without liberties are taken, and counted for who took them."""
        game = GoGame(9)
        play(game, "A1", "A2", "J9", "B1")
        self.assertEqual(game.moves[-1].captured, ("A1",))
        self.assertEqual(game.captured, {BLACK: 0, WHITE: 1})
        self.assertEqual(sorted(game.stones()), [(BLACK, "J9"), (WHITE, "A2"), (WHITE, "B1")])

    def test_captureComesFirst(self) -> None:
        """A stone without liberties that takes others is no suicide."""
        game = GoGame(9)
        play(game, "B1", "A1", "B2", "A2", "A4", "J9", "B3", "J8", "A3")
        self.assertEqual(game.moves[-1].captured, ("A1", "A2"))

    def test_badPoints(self) -> None:
        """What is no point of the board, or no text."""
        game = GoGame(9)
        for bad in (
            "K1",
            "A10",
            "I5",
            "",
            "pass",
            "A0",
            "A",
            "9",
            "D4D4",
            "\u00c44",
            None,
            4,
            b"D4",
        ):
            self.refused(game, "A1 to J9", "play", BLACK, bad)
        play(game, " d4 ")
        self.assertEqual(game.moves[0].point, "D4")

    def test_taken(self) -> None:
        """There is a stone, of whatever colour."""
        game = GoGame(9)
        play(game, "D4")
        self.refused(game, "stone at D4", "play", WHITE, "D4")

    def test_turns(self) -> None:
        """One moves after the other."""
        game = GoGame(9)
        self.refused(game, "black's turn", "play", WHITE, "D4")
        self.refused(game, "black's turn", "pass_", WHITE)
        play(game, "D4")
        self.refused(game, "white's turn", "play", BLACK, "E5")

    def test_suicide(self) -> None:
        """Nobody takes their own stones, one or several."""
        game = GoGame(9)
        play(game, "J9", "A2", "J8", "B1")
        self.refused(game, "suicide", "play", BLACK, "A1")
        game = GoGame(9)
        play(game, "A1", "A3", "J9", "B2", "J8", "C1", "A2", "J7")
        self.refused(game, "suicide", "play", BLACK, "B1")

    def test_ko(self) -> None:
        """The position before the last move must not come back; later it may, if others differ."""
        game = GoGame(9)
        play(game, "B1", "C1", "A2", "D2", "B3", "C3", "C2", "B2")
        self.assertEqual(game.moves[-1].captured, ("C2",))
        self.refused(game, "Ko", "play", BLACK, "C2")
        play(game, "J9", "J1", "C2")
        self.assertEqual(game.moves[-1].captured, ("B2",))

    def test_end(self) -> None:
        """Two passes in a row end the game; then nothing goes any more."""
        game = GoGame(9, 6.5)
        play(game, "D4", "pass", "E5", "pass", "pass")
        self.assertEqual(game.result, "B+74.5")
        for call in (("play", WHITE, "A1"), ("pass_", WHITE), ("resign", BLACK)):
            self.refused(game, "The game is over: B+74.5", *call)

    def test_resign(self) -> None:
        """Whoever resigns has lost, whose turn it is does not matter."""
        game = GoGame(9)
        game.resign(WHITE)
        self.assertEqual(game.result, "B+R")
        self.refused(game, "over", "play", BLACK, "A1")

    def test_jigo(self) -> None:
        """A draw."""
        game = GoGame(5, 0)
        play(game, "pass", "pass")
        self.assertEqual(game.result, "0")

    def test_badGames(self) -> None:
        """Boards and komis that there are not."""
        for size, komi in ((4, 0), (20, 0), (0, 0), (9, 0.3), (9, 1000), (9, float("nan"))):
            with self.assertRaises(GoGameError):
                GoGame(size, komi)

    def test_record(self) -> None:
        """A record is the game; what is no record says so."""
        game = GoGame(9, 5.5)
        play(game, "D4", "E5", "pass", "F6")
        game.resign(BLACK)
        again, players = GoGame.fromSGF(game.toSGF({BLACK: "al\\]ice", WHITE: None}))
        self.assertEqual(whole(again), whole(game))
        self.assertEqual(players, {BLACK: "al\\]ice", WHITE: None})
        for bad in (
            b"",
            b"junk",
            b"(;GM[1]SZ[9]",
            b"(;SZ[99];B[aa])",
            b"(;SZ[9];B[zz])",
            b"(;SZ[9];B[aa];W[aa])",
            b"(;SZ[9];W[aa])",
            b"(;SZ[9]KM[much];B[aa])",
            b"(;SZ[9]AB[aa];B[bb])",
            b"(;SZ[x])",
            b"(" * 5000,
            b"\xff\xfe\x00",
        ):
            with self.assertRaises(GoGameError):
                GoGame.fromSGF(bad)

    @given(st.lists(st.integers(0, 25), max_size=120))
    @settings(max_examples=100)
    def test_likeTheReferee(self, choices: list[int]) -> None:
        """Whatever is tried, just what the referee allows is allowed, and the boards are equal."""
        game = GoGame(5, 0)
        board = referee.boards.Board(5)
        seen = {referee.positionOf(board)}
        for choice in choices:
            if game.result is not None:
                break
            colour = game.turn
            if choice == 25:
                game.pass_(colour)
                continue
            place = divmod(choice, 5)
            after = board.copy()
            try:
                after.play(*place, colour[0])
                allowed = after.get(*place) is not None and referee.positionOf(after) not in seen
            except ValueError:
                allowed = False
            try:
                game.play(colour, common.format_vertex(place))
            except GoGameError:
                self.assertFalse(allowed)
            else:
                self.assertTrue(allowed)
                board = after
                seen.add(referee.positionOf(board))
            self.assertEqual(
                sorted(
                    (name[0], common.move_from_vertex(point, 5)) for name, point in game.stones()
                ),
                sorted(board.list_occupied_points()),
            )
        self.assertEqual(game.score(), board.area_score())


class Client(pb.Referenceable):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def remote_event(self, event: dict[str, Any]) -> None:
        self.events.append(event)

    def kinds(self) -> list[str]:
        """The kinds of what it was told."""
        return [event["kind"] for event in self.events]


class GoServiceTests(SynchronousTestCase):
    """Who sits where, and hears what."""

    def setUp(self) -> None:
        self.memory = MemoryServer()
        self.folder = self.mktemp()
        self.go = GoService("go", self.memory.services, self.memory.authorizer, self.folder)
        both = (("go", "black"), ("go", "white"))
        self.memory.addUser("alice", "secret", *both, ("go", "host"), ("go", "game-7/black"))
        self.memory.addUser("bob", "secret", *both, ("go", "game-7/white"), ("go", "game-7/red"))
        self.memory.addUser("carol", "secret", ("go", "observer"), ("go", "game-7/observer"))
        self.passwords = {name: Password("secret") for name in ("alice", "bob", "carol")}

    def sit(self, name: str, side: str, client: Client | None = None) -> Any:
        """Log somebody in."""
        login = self.memory.logIn(name, self.passwords[name], "go", side, client)
        self.memory.flush()
        return login

    def seat(self, name: str, side: str) -> tuple[Any, Client]:
        """Log somebody in, for whom there is a place."""
        client = Client()
        return self.successResultOf(self.sit(name, side, client)), client

    def call(self, perspective: Any, *call: Any) -> Any:
        """Call a method, and give its answer."""
        called = perspective.callRemote(*call)
        self.memory.flush()
        return self.successResultOf(called)

    def refused(self, perspective: Any, said: str, *call: Any) -> None:
        """A call is refused by the game, in these words."""
        called = perspective.callRemote(*call)
        self.memory.flush()
        self.assertIn(said, str(self.failureResultOf(called, GoGameError).value))

    def test_game(self) -> None:
        """Moves reach the opponent and all who watch, at once; the names are those of logins."""
        black, alice = self.seat("alice", "black")
        white, bob = self.seat("bob", "white")
        watching, carol = self.seat("carol", "observer")
        self.call(black, "play", "D4")
        for client in (alice, bob, carol):
            event = client.events[-1]
            self.assertEqual(
                (event["kind"], event["number"], event["colour"], event["point"]),
                ("moved", 1, BLACK, "D4"),
            )
        self.refused(black, "white's turn", "play", "E5")
        self.refused(white, "stone at D4", "play", "D4")
        self.call(white, "pass")
        self.call(black, "say", "a pass\x1b[2J?")
        self.assertEqual(carol.events[-1]["text"], "a pass [2J?")
        self.assertEqual(carol.events[-1]["by"], "alice")
        self.call(black, "resign")
        self.assertEqual(bob.kinds()[-2:], ["resigned", "over"])
        self.assertEqual(self.call(watching, "state")["result"], "W+R")
        for bad in ("", " ", 5, "x" * 501):
            self.refused(watching, "Say something", "say", bad)
        for method in ("play", "pass", "resign"):
            called = watching.callRemote(method)
            self.memory.flush()
            self.assertIn("NoSuchMethod", str(self.failureResultOf(called).type))
        self.assertEqual(len(self.flushLoggedErrors(pb.NoSuchMethod)), 3)

    def test_sides(self) -> None:
        """A side is who sat down first's; who comes back finds the board as it was."""
        black, _ = self.seat("alice", "black")
        self.call(black, "play", "D4")
        taken = self.failureResultOf(self.sit("bob", "black"), GoGameError)
        self.assertEqual(str(taken.value), "Black is taken, by alice.")
        self.memory.disconnect(black)
        self.failureResultOf(self.sit("bob", "black"), GoGameError)
        back, _ = self.seat("alice", "black")
        state = self.call(back, "state")
        self.assertEqual((state["moves"], state["turn"]), ([[BLACK, "D4", []]], WHITE))
        self.failureResultOf(self.sit("carol", "white"), KeyNotFound)

    def test_away(self) -> None:
        """What a player has missed comes as soon as they are back, in order and once."""
        black, alice = self.seat("alice", "black")
        white, _ = self.seat("bob", "white")
        self.call(black, "play", "D4")
        self.memory.disconnect(black)
        self.call(white, "say", "where are you?")
        self.call(white, "play", "E5")
        _, back = self.seat("alice", "black")
        self.assertEqual(back.kinds()[-3:], ["said", "moved", "came"])
        numbers = [event["event"] for event in alice.events + back.events]
        self.assertEqual(numbers, sorted(set(numbers)))

    def test_severalGames(self) -> None:
        """A host opens games; a name that is not one, or is taken, is refused."""
        missing = self.failureResultOf(self.sit("alice", "game-7/black"), GoGameError)
        self.assertIn("no game 'game-7'", str(missing.value))
        host = self.successResultOf(self.sit("alice", "host"))
        self.call(host, "open", "game-7", 9, 5.5)
        self.assertEqual(self.call(host, "games"), ["game-7", MAIN])
        for call, said in (
            (("game-7",), "already"),
            (("../evil",), "letters, digits"),
            (("",), "letters, digits"),
            ((7,), "letters, digits"),
            (("x", 99), "5 to 19 lines"),
            (("x", "9"), "numbers"),
            (("x", 9, 0.3), "komi"),
        ):
            self.refused(host, said, "open", *call)
        black, _ = self.seat("alice", "game-7/black")
        main, watcher = self.seat("carol", "observer")
        seven, _ = self.seat("carol", "game-7/observer")
        self.call(black, "play", "J9")
        self.assertEqual(len(self.call(seven, "state")["moves"]), 1)
        self.assertEqual(self.call(main, "state")["moves"], [])
        self.assertNotIn("moved", watcher.kinds())
        wrong = self.failureResultOf(self.sit("bob", "game-7/red"), GoGameError)
        self.assertIn("black, white or observer", str(wrong.value))

    def test_lasts(self) -> None:
        """A server that starts again goes on with the games, and with who plays them."""
        black, _ = self.seat("alice", "black")
        white, _ = self.seat("bob", "white")
        self.call(black, "play", "D4")
        self.call(white, "play", "E5")
        again = GoService("go", None, None, self.folder)
        table = again.tables[MAIN]
        self.assertEqual(table.players, {BLACK: "alice", WHITE: "bob"})
        self.assertEqual(whole(table.game), whole(self.go.tables[MAIN].game))
        self.assertEqual(os.listdir(self.folder), ["main.sgf"])

    def test_broken(self) -> None:
        """A record that is broken is put aside, and the others are there."""
        path = Path(self.folder)
        (path / "old.sgf").write_bytes(b"(;SZ[9];B[aa];W[aa])")
        (path / "fine.sgf").write_bytes(GoGame(9).toSGF())
        (path / "not a name.sgf").write_bytes(b"")
        again = GoService("go", None, None, self.folder)
        self.assertEqual(sorted(again.tables), ["fine", MAIN])
        self.assertEqual((path / "old.sgf.broken").read_bytes(), b"(;SZ[9];B[aa];W[aa])")
        self.assertFalse((path / "old.sgf").exists())

    def test_noSpace(self) -> None:
        """Where the record can't be written, the game goes on, and the next move tries again."""
        black, _ = self.seat("alice", "black")
        white, _ = self.seat("bob", "white")
        os.rename(self.folder, f"{self.folder}-away")
        self.call(black, "play", "D4")
        os.rename(f"{self.folder}-away", self.folder)
        self.call(white, "play", "E5")
        saved, _ = GoGame.fromSGF((Path(self.folder) / "main.sgf").read_bytes())
        self.assertEqual(len(saved.moves), 2)


class ReplayTests(TLSTestCase):
    """A whole game of nearly two hundred moves, over TLS, beside an independent referee."""

    timeout = 60

    async def test_wholeGame(self) -> None:
        """Both players are disconnected in the middle; board and score are the referee's."""
        record = sgf.Sgf_game.from_bytes(RECORD.read_bytes())
        moves = [node.get_move() for node in record.get_main_sequence()[1:]]
        board, captured = referee.replay(record)
        self.assertGreaterEqual(len(moves), 150)
        self.assertGreater(captured, 10)
        port = self.serveGo(record.get_size(), record.get_komi())
        clients = {colour: Client() for colour in (BLACK, WHITE)}
        seats = {colour: await self.sit(port, colour, clients[colour]) for colour in clients}
        for number, (letter, place) in enumerate(moves):
            colour = BLACK if letter == "b" else WHITE
            if number in (70, 101):
                # The one who moves next, and the one who does not.
                gone = colour
                seats[gone].broker.transport.loseConnection()
                await seats[gone].broker.whenClosed()
                seats[gone] = await self.sit(port, gone, clients[gone])
                state = await seats[gone].callRemote("state")
                self.assertEqual(len(state["moves"]), number)
            if place is None:
                await seats[colour].callRemote("pass")
            else:
                await seats[colour].callRemote("play", common.format_vertex(place))
        ahead = board.area_score() - record.get_komi()
        game = self.go.tables[MAIN].game
        self.assertEqual(game.result, f"{'B' if ahead > 0 else 'W'}+{abs(ahead):g}")
        self.assertEqual(stonesOf(game), sorted(board.list_occupied_points()))
        self.assertEqual(sum(game.captured.values()), captured)
        for client in clients.values():
            while client.kinds()[-1] != "over":
                await self.turn()
            moved = [event["number"] for event in client.events if event["kind"] == "moved"]
            self.assertEqual(moved, list(range(1, len(moves) + 1)))
        for seat in seats.values():
            await self.closed(seat)

    def serveGo(self, size: int, komi: float) -> int:
        """Run a server of one game."""
        memory = MemoryServer()
        self.go = GoService("go", memory.services, memory.authorizer)
        self.go.tables.clear()
        self.go.openGame(MAIN, size, komi)
        memory.addUser("alice", "secret", ("go", BLACK))
        memory.addUser("bob", "secret", ("go", WHITE))
        self.authorizer = memory.authorizer
        self.pem = makeCertificate()
        return self.listen(AuthServerFactory(memory.authorizer), self.pem)

    async def sit(self, port: int, colour: str, client: Client) -> Any:
        """Log a player in."""
        path = self.mktemp()
        Path(path).write_bytes(self.pem)
        name = "alice" if colour == BLACK else "bob"
        return await connect(
            f"tls:localhost:{port}", None, name, "secret", "go", colour, client, trust=path
        )

    async def closed(self, seat: Any) -> None:
        """Hang up."""
        seat.broker.transport.loseConnection()
        await seat.broker.whenClosed()
        await self.turn()
