"""The Go game in a terminal: what it draws and understands, and a game of real processes."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import struct
import sys
import termios
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import LoopingCall
from twisted.trial.unittest import SynchronousTestCase, TestCase

from pbauth import Hashing, Password, PlainPassword, PrivateKey
from pbauth.admin.administration import Administration
from pbauth.server.state import openAuthorizer
from tests.support.goexample import GO as EXAMPLE
from tests.support.goexample import board_text, gogame, goservice, play, screen, signin, tableview
from tests.support.processes import PATIENCE, TWIST, Program, childrenOf

HERE = Path(__file__).parent.parent / "support"
COLOURS, SIZES = gogame.COLOURS, gogame.SIZES
GoGame, GoGameError = gogame.GoGame, gogame.GoGameError
GoService, Table, Typing = goservice.GoService, goservice.Table, screen.Typing
Mistake, draw, leastWindow = board_text.Mistake, board_text.draw, board_text.leastWindow
painted, parse, plain, wrap = (
    board_text.painted,
    board_text.parse,
    board_text.plain,
    board_text.wrap,
)
View, cells, clean, outcome = (
    tableview.View,
    tableview.cells,
    tableview.clean,
    tableview.outcome,
)

POSITION = """\
   A B C D E F G H J     game-7, komi 6.5, 7 moves
 9 ┌─┬─┬─┬─┬─┬─┬─┬─┐ 9
 8 ├─┼─┼─┼─┼─┼─┼─┼─┤ 8     ●  alice (you)
 7 ├─┼─╋─┼─┼─┼─╋─┼─┤ 7        black, took 1
 6 ├─┼─┼─┼─┼─┼─┼─┼─┤ 6   > ○  bob (here)
 5 ├─┼─┼─┼─╋─●─┼─┼─┤ 5        white, took 0
 4 ├─┼─┼─┼─●─┼─●─┼─┤ 4   White's turn.
 3 ├─┼─╋─┼─┼(●)╋─┼─┤ 3   Black played F3, took 1.
 2 ├─┼─┼─┼─┼─┼─┼─┼─┤ 2
 1 ○─○─┴─┴─┴─┴─┴─┴─┘ 1   bob: hello
   A B C D E F G H J     * bob is here
"""

POSITION_ASCII = """\
   A B C D E F G H J     game-7, komi 6.5, 7 moves
 9 . . . . . . . . . 9
 8 . . . . . . . . . 8     X  alice (you)
 7 . . + . . . + . . 7        black, took 1
 6 . . . . . . . . . 6   > O  bob (here)
 5 . . . . + X . . . 5        white, took 0
 4 . . . . X . X . . 4   White's turn.
 3 . . + . .(X)+ . . 3   Black played F3, took 1.
 2 . . . . . . . . . 2
 1 O O . . . . . . . 1   bob: hello
   A B C D E F G H J     * bob is here
"""


def table(*points: str, size: int = 9, komi: float = 6.5) -> Table:  # type: ignore[valid-type]
    """A table at which these moves were made, alternately; an empty one is a pass."""
    game = GoGame(size, komi)
    for point in points:
        if point:
            game.play(game.turn, point)
        else:
            game.pass_(game.turn)
    players: dict[str, str | None] = {"black": "alice", "white": "bob"}
    return Table("game-7", game, lambda table: None, players)


def moved(number: int, colour: str, point: str | None, *captured: str) -> dict[str, Any]:
    """An event, as `Table` tells it."""
    return {
        "kind": "moved",
        "event": number,
        "colour": colour,
        "point": point,
        "captured": list(captured),
    }


class ViewTests(SynchronousTestCase):
    """What is known of a game, and how it looks."""

    def view(self) -> View:  # type: ignore[valid-type]
        """Alice's, of a game in which a stone is taken."""
        view = View(me="black")
        view.restore(table("E4", "F4", "F5", "A1", "G4", "B1").state())
        view.present["black"] = True
        view.happened({"kind": "said", "event": 7, "by": "bob", "text": "hello"})
        view.happened({"kind": "came", "event": 8, "by": "bob", "colour": "white"})
        view.happened(moved(9, "black", "F3", "F4"))
        return view

    def text(self, view: View, *size: Any) -> str:  # type: ignore[valid-type]
        """The window."""
        return "\n".join(map(plain, draw(view, *size)))

    def test_position(self) -> None:
        """The board as it is, who is there, whose turn it is, and what was said."""
        view = self.view()
        self.assertEqual(self.text(view, 80, 13), POSITION)
        self.assertEqual(self.text(view, 80, 24), POSITION)
        self.assertEqual(self.text(view, 80, 24, True), POSITION_ASCII)
        view.say("No.\x1b[2J", trouble=True)
        self.assertEqual(self.text(view, 80, 24), POSITION + "No.?[2J")

    def test_painted(self) -> None:
        """With colours it is the same, but white stones are full; last move and trouble are red."""
        view = self.view()
        view.say("No.", trouble=True)
        text = "\n".join(map(painted, draw(view, 80, 24)))
        bare = re.sub(r"\x1b\[[0-9;]*m", "", text)
        same = "\n".join(line.rstrip() for line in bare.splitlines())
        self.assertEqual(same, POSITION.replace("○", "●") + "No.")
        self.assertIn("\x1b[31;43m(\x1b[m\x1b[30;43m●\x1b[m\x1b[31;43m)\x1b[m", text)
        self.assertIn("\x1b[31mNo.\x1b[m", text)
        self.assertIn("\x1b[97;43m●\x1b[m", text)

    def test_twice(self) -> None:
        """What the state has in it already does not count again; what was said always does."""
        view = self.view()
        seen = View(me="white")
        seen.restore(table("E4", "F4", "F5").state())
        before = self.text(seen, 80, 24)
        seen.happened(moved(3, "black", "F5"))
        self.assertEqual(self.text(seen, 80, 24), before)
        seen.happened({"kind": "said", "event": 2, "by": "bob", "text": "late"})
        self.assertIn("bob: late", self.text(seen, 80, 24))
        view.seen = None
        before = self.text(view, 80, 24)
        view.happened(moved(100, "white", "A9"))
        self.assertEqual(self.text(view, 80, 24), before)

    def test_statuses(self) -> None:
        """Whose turn, in the words for who looks; and how it ended."""
        view = View(me="black")
        view.restore(table("E4", "").state())
        self.assertEqual(view.status(), "Your turn (black).")
        self.assertIn("White passed.", self.text(view, 80, 24))
        view.me = None
        self.assertEqual(view.status(), "Black's turn. You watch.")
        view.happened({"kind": "over", "event": 99, "result": "W+R"})
        self.assertEqual(view.status(), "White wins: black resigned.")
        self.assertNotIn(">", self.text(view, 80, 24))
        view.online = False
        self.assertEqual(view.status(), "No connection.")
        for result, words in (
            ("B+3.5", "Black wins by 3.5 points."),
            ("0", "Over: a draw."),
            ("Void\x1b", "Over: Void?."),
        ):
            self.assertEqual(outcome(result), words)

    def test_help(self) -> None:
        """The help has room beside the smallest board."""
        view = View()
        view.restore(table(size=5).state())
        view.help = True
        text = self.text(view, *leastWindow(5))
        for line in board_text.HELP.splitlines():
            self.assertIn(line, text)

    def test_tooSmall(self) -> None:
        """19 lines have room in 80x24; a window that is too small says what to do."""
        view = View()
        view.restore(table(size=19).state())
        self.assertIn("19 ┌─┬─", self.text(view, 80, 24))
        self.assertIn("19 ┌─┬─", self.text(view, *leastWindow(19)))
        for size in ((68, 24), (80, 22)):
            text = " ".join(self.text(view, *size).split())
            self.assertIn("needs a window of 69 columns and 23 lines", text)
            self.assertIn("Make it larger", text)
            self.assertIn("Black's turn", text)
        self.assertEqual(draw(view, 80, 1), [])

    def test_nonsense(self) -> None:
        """What is no state and no event is refused, by those exceptions that the window expects."""
        expected = (AttributeError, LookupError, TypeError, ValueError)
        for junk in (  # type: ignore[var-annotated]
            *(None, 1, {}, {"kind": 1}, {"kind": "moved", "event": "x"}, "moved", []),
            {"kind": "came", "event": 1, "by": "bob", "colour": "\x1b"},
            {"kind": "moved", "event": 1, "point": "D4", "captured": [], "colour": None},
        ):
            for take in (View(seen=0).happened, View().restore):
                with self.assertRaises(expected):
                    take(junk)
        for change in (
            {"size": 10**9},
            {"size": [9]},
            {"size": 9.0},
            {"turn": "\x1b[2J"},
            {"moves": [["red", "D4", []]]},
            {"captured": {"black": 1}},
            {"komi": "much"},
        ):
            view = View()
            with self.assertRaises(expected):
                view.restore({**table().state(), **change})
            self.assertIsNone(view.seen)

    _names = st.none() | st.text(max_size=300)

    @settings(max_examples=60)
    @given(
        st.integers(SIZES[0], SIZES[-1]),
        st.lists(st.integers(0, 19 * 19), max_size=40),
        st.tuples(_names, _names),
        st.lists(st.tuples(st.text(max_size=50), st.text(max_size=600)), max_size=30),
        st.text(max_size=300),
        st.sampled_from([None, *COLOURS]),
        st.sampled_from([None, "B+R", "W+0.5", "0", "\x9b1m"]),
        st.integers(0, 130),
        st.integers(1, 50),
        st.booleans(),
    )
    def test_anything(
        self,
        size: int,
        points: list[int],
        players: tuple[str | None, str | None],
        chat: list[tuple[str, str]],
        notice: str,
        me: str | None,
        result: str | None,
        width: int,
        height: int,
        ascii: bool,
    ) -> None:
        """Any state can be drawn: no line is wider than the window, and there are not too many."""
        game = table(size=size)
        game.players = dict(zip(COLOURS, players, strict=True))
        for number in points:
            column, row = number % size, number // size % size
            try:
                game.play(game.game.turn, f"{board_text.LETTERS[column]}{row + 1}")
            except GoGameError:
                game.pass_(game.game.turn)
            if game.game.result is not None:
                break
        view = View(me=me)
        view.restore(game.state())
        view.result = result or view.result
        for number, (by, text) in enumerate(chat):
            view.happened({"kind": "said", "event": number, "by": by, "text": text})
        view.say(notice)
        lines = draw(view, width, height, ascii)
        self.assertLess(len(lines), height)
        for line in lines:
            text = "".join(text for _, text in line)
            self.assertTrue(text.isprintable(), text)
            self.assertLessEqual(cells(text), width)
        stones = {point: colour for colour, point in game.game.stones()}
        self.assertEqual(view.stones, stones)
        drawn = "".join(map(plain, board_text.drawBoard(view)))
        self.assertEqual(drawn.count("●") + drawn.count("○"), len(stones))


class TextTests(SynchronousTestCase):
    """Text of others, in columns."""

    def test_clean(self) -> None:
        """No control characters, no heap of marks, and no surrogates."""
        self.assertEqual(clean("a\x1b[2J\r\n\x07\u202eb\ud800"), "a?[2J????b?")
        self.assertEqual(clean("e" + "\u0301" * 50 + "t"), "e\u0301\u0301t")
        self.assertEqual((clean(None), clean(7)), ("?", "?"))

    def test_wrap(self) -> None:
        """Between words if possible; wide letters count twice."""
        self.assertEqual([*wrap("one two  three", 7)], ["one two", "three"])
        self.assertEqual([*wrap("abcdefgh ij", 3)], ["abc", "def", "gh", "ij"])
        self.assertEqual([*wrap("囲碁囲碁", 5)], ["囲碁", "囲碁"])
        self.assertEqual([*wrap(" ", 5)], [])

    @given(st.text(), st.integers(2, 40))
    def test_wrapAnything(self, text: str, width: int) -> None:
        """Nothing is lost, and no line is too wide."""
        lines = [*wrap(clean(text), width)]
        self.assertEqual("".join("".join(lines).split()), "".join(clean(text).split()))
        self.assertTrue(all(0 < len(line) and cells(line) <= width for line in lines))


class ParseTests(SynchronousTestCase):
    """What is typed."""

    def test_commands(self) -> None:
        """Points in either case, words, and whatever comes after a slash."""
        for text, wanted in (
            ("D4", ("play", "D4")),
            (" j9 ", ("play", "J9")),
            ("PASS", ("pass", "")),
            ("resign", ("resign", "")),
            ("say  hello you", ("say", "hello you")),
            ("/hello", ("say", "hello")),
            ("/ resign", ("say", "resign")),
            ("save my game.sgf", ("save", "my game.sgf")),
            ("save! a.sgf", ("save!", "a.sgf")),
            ("help", ("help", "")),
            ("quit", ("quit", "")),
            ("  ", None),
        ):
            self.assertEqual(parse(text, 9), wanted)

    def test_mistakes(self) -> None:
        """Each is one line that says what to do."""
        for text, said in (
            ("I5", "points A1 to J9. There is no column I."),
            ("K1", "points A1 to J9."),
            ("A10", "points A1 to J9."),
            ("A0", "points A1 to J9."),
            ("D٤", "Not understood"),
            ("hello\x1b", "Not understood: hello?. Type a point, D4, or help."),
            ("x" * 300, "xx. Type a point"),
            ("say", "Say what: say hello"),
            ("/", "Say what: say hello"),
            ("save", "Say where: save game.sgf"),
            ("save!", "Say where: save! game.sgf"),
            ("pass it on", "To say something: /pass it on"),
        ):
            with self.assertRaises(Mistake) as raised:
                parse(text, 9)
            self.assertIn(said, str(raised.exception))

    @given(st.text(), st.sampled_from(SIZES))
    def test_anything(self, text: str, size: int) -> None:
        """It is understood, or a mistake in one printable line; what is played is on the board."""
        try:
            wanted = parse(text, size)
        except Mistake as mistake:
            self.assertTrue(str(mistake).isprintable())
        else:
            if wanted is not None and wanted[0] == "play":
                GoGame(size).play("black", wanted[1])


class TypingTests(SynchronousTestCase):
    """The line that is typed."""

    def test_keys(self) -> None:
        """Letters, and the keys that edit."""
        for keys, text, cursor in (
            ("D4", "D4", 2),
            ("D5\x7f4", "D4", 2),
            ("4\x1b[DD", "D4", 1),
            ("4\x01D\x05!", "D4!", 3),
            ("4\x1bOHD\x1b[C", "D4", 2),
            ("xD4\x1b[1~\x1b[3~", "D4", 0),
            ("xD4\x01\x04\x1b[F", "D4", 2),
            ("junk\x15D4", "D4", 2),
            ("say a b \x17", "say a ", 6),
            ("D4 and more\x01\x1b[C\x1b[C\x0b", "D4", 2),
            ("\x1b[20;5~\x1bxD4\t\x00", "D4", 2),
            ("\x7f\x1b[D\x1b[3~", "", 0),
        ):
            typing = Typing()
            self.assertEqual(typing.feed(keys), [])
            self.assertEqual((typing.text, typing.cursor), (text, cursor), repr(keys))

    def test_lines(self) -> None:
        """Lines are finished one by one; Ctrl-D ends only what is empty."""
        typing = Typing()
        self.assertEqual(typing.feed("D4\rE5\nF"), ["D4", "E5"])
        self.assertEqual(typing.feed("\x04"), [])
        self.assertEqual(typing.feed("\x7f\x04"), [None])

    def test_pieces(self) -> None:
        """A key may come in pieces; and the escape key alone does no harm."""
        typing = Typing()
        for piece in ("4\x1b", "[", "D", "D"):
            typing.feed(piece)
        self.assertEqual(typing.text, "D4")
        typing.feed("\x1b[" + "1" * 100)
        self.assertEqual(typing.feed("\x05\x15D4\r"), ["D4"])

    def test_history(self) -> None:
        """Up and down, as far as it goes."""
        typing = Typing()
        typing.feed("a\rb\rb\r")
        seen = []
        for key in ("\x1b[A", "\x1b[A", "\x1b[A", "\x1b[B", "\x1b[B", "\x1b[B"):
            typing.feed(key)
            seen.append(typing.text)
        self.assertEqual(seen, ["b", "a", "a", "b", "", ""])

    def test_shown(self) -> None:
        """The part around the cursor is shown."""
        typing = Typing()
        typing.feed("abcdefghij")
        self.assertEqual(typing.shown("> ", 20), ("> abcdefghij", 12))
        self.assertEqual(typing.shown("> ", 12), ("> bcdefghij", 11))
        typing.feed("\x01")
        self.assertEqual(typing.shown("> ", 12), ("> abcdefghi", 2))

    @given(st.lists(st.text() | st.sampled_from(["\x1b[D", "\x1b[A", "\r", "\x7f", "\x1b["])))
    def test_anything(self, pieces: list[str]) -> None:
        """Whatever is typed, the line is printable and has room."""
        typing = Typing()
        for piece in pieces:
            typing.feed(piece)
            self.assertTrue(typing.text.isprintable())
            for width in (1, 20, 80):
                text, column = typing.shown("> ", width)
                self.assertLess(column, width)
                self.assertLessEqual(cells(text), width)


class ServiceTests(SynchronousTestCase):
    """What the client needs of the service."""

    def test_present(self) -> None:
        """The state tells who is there."""
        game = table()
        player = goservice.Player("black", game, "alice", "black")
        game.perspectives["black"] = player
        self.assertEqual(game.state()["present"], {"black": False, "white": False})
        player.clients.joined(Attached())
        self.assertEqual(game.state()["present"], {"black": True, "white": False})

    def test_full(self) -> None:
        """Where there are too many games, one that is over still makes place for another."""
        self.patch(goservice, "MOST_GAMES", 2)
        service = GoService("go")
        service.openGame("other").game.resign("black")
        with self.assertRaises(GoGameError) as raised:
            service.openGame("third")
        self.assertIn("too many games", str(raised.exception))
        self.assertIsNone(service.openGame("other").game.result)


class Attached:
    """A session, as `Clients` sees it."""

    live = True
    clientref = None

    class broker:
        disconnected = False


class CommandTests(SynchronousTestCase):
    """What is said before anybody is asked for a password, or a server for its key."""

    def test_mistakes(self) -> None:
        """One line says what to do."""
        for arguments, term, said, code in (
            ((), "xterm", "Error: Say where to sit: black, white or observer", 2),
            (("black", "--size", "9"), "xterm", "Error: --size and --komi are for --open", 2),
            (("black", "--key", "x", "--plain"), "xterm", "Error: Only one of --key", 2),
            (("black",), "dumb", "Error: This terminal can't be drawn on (TERM is dumb", 1),
            (("black",), None, "Error: This terminal can't be drawn on (TERM is dumb", 1),
        ):
            command = ["tls:192.0.2.1:8787", "alice", *arguments]
            result = CliRunner().invoke(play.main, command, env={"TERM": term})
            self.assertIn(said, result.output)
            self.assertEqual(result.exit_code, code)

    def test_canDraw(self) -> None:
        """Not every encoding has stones."""
        self.assertEqual([*map(play.canDraw, ("utf-8", "ascii", "latin-1"))], [True, False, False])


class SignInTests(SynchronousTestCase):
    """By what to log in, for a server that is trusted."""

    def login(self, asked: list[str], **options: Any) -> Any:
        """Log in as the options say; the user types `secret`."""

        def prompt(what: str, hide_input: bool, err: bool) -> str:
            self.assertTrue(hide_input)
            asked.append(what)
            return "secret"

        class Stdin:
            def isatty(self) -> bool:
                return True

        self.patch(signin.click, "prompt", prompt)
        self.patch(sys, "stdin", Stdin())
        given: dict[str, Any] = {
            **dict.fromkeys(("key", "certificate", "voucher")),
            **dict.fromkeys(("insecure", "accept_new", "password_stdin", "plain"), False),
            **{"timeout": 5, "known_servers": "", "trust": "SHA256:" + "A" * 43, **options},
        }
        login = signin.SignIn(**given).login(None, "tls:127.0.0.1:87", "alice", "go")
        return self.successResultOf(Deferred.fromCoroutine(login))

    def test_passwords(self) -> None:
        """A password is asked for; it is shown to the server only where that is wanted."""
        asked: list[str] = []
        login = self.login(asked)
        self.assertIsInstance(login.credentials, Password)
        self.assertEqual((login.identity, login.service, login.timeout), ("alice", "go", 5))
        self.assertIsInstance(self.login(asked, plain=True).credentials, PlainPassword)
        self.assertEqual(asked, ["Password", "Password"])

    def test_keys(self) -> None:
        """A passphrase is asked for where the key has one; no password is."""
        key = Ed25519PrivateKey.generate()
        for encryption, expected in (
            (NoEncryption(), []),
            (BestAvailableEncryption(b"secret"), ["Passphrase"]),
        ):
            path, asked = self.mktemp(), list[str]()
            Path(path).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
            Path(path).chmod(0o600)
            self.assertIsInstance(self.login(asked, key=path).credentials, PrivateKey)
            self.assertEqual(asked, expected)


#: Runs a program, and says what has become of the terminal. (Ctrl-C reaches the shell, too.)
SHELL = """
trap : INT
before=$(stty -g)
if [ "$PIPED" ]; then echo "$PIPED" | "$@"; else "$@"; fi
code=$?
[ "$before" = "$(stty -g)" ] && echo 'as it was' || echo 'CHANGED'
exit $code
"""


#: Does the same in Python, which is quicker where Python runs already.
QUICK_SHELL = """
import os, runpy, signal, sys, termios
signal.signal(signal.SIGINT, lambda *_: None)
before = termios.tcgetattr(0)
child = os.fork()
if not child:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    del sys.argv[0]
    sys.path[0] = os.path.dirname(sys.argv[0])
    runpy.run_path(sys.argv[0], run_name="__main__")
    sys.exit()
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print("as it was" if before == termios.tcgetattr(0) else "CHANGED")
sys.exit(code if code >= 0 else 128 - code)
"""


class Player(Program):
    """
    play.py on a terminal of its own.

    Args:
        arguments: of it.
        directory: where it runs.
        shell: whether a real shell runs it.
    """

    def __init__(
        self, *arguments: str, directory: str, shell: bool = False, **environment: str
    ) -> None:
        self._looking: list[tuple[tuple[str, ...], Deferred[None]]] = []
        program = (str(EXAMPLE / "play.py"), *arguments)
        shell = shell or "PIPED" in environment
        command = ("-c", SHELL, "sh", sys.executable) if shell else ("-c", QUICK_SHELL)
        super().__init__(
            *(*command, *program),
            stdin=None,
            directory=directory,
            executable="/bin/sh" if shell else sys.executable,
            terminal=True,
            forked=not shell,
            **{"TERM": "xterm", "NO_COLOR": "1", **environment},
        )
        self.resize(80, 24)

    def resize(self, columns: int, lines: int) -> None:
        """Make the window another size."""
        size = struct.pack("HHHH", lines, columns, 0, 0)
        fcntl.ioctl(self.process.fd, termios.TIOCSWINSZ, size)

    @property
    def screen(self) -> str:
        """What the window shows now, with the line that is typed."""
        drawn = re.findall(r"\x1b\[H(.*?)\x1b\[J", self.output, re.DOTALL)
        return drawn[-1].replace("\x1b[K", "").replace("\r", "") if drawn else ""

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        super().childDataReceived(childFD, data)
        for item in list(self._looking):
            if all(text in self.screen for text in item[0]):
                self._looking.remove(item)
                item[1].callback(None)

    def see(self, *texts: str) -> Deferred[None]:
        """Wait until the window shows all of that at once."""

        def late(result: Any, seconds: float) -> Any:
            raise AssertionError(f"did not show {texts!r}:\n{self.screen}\n{self.output[-900:]!r}")

        seen: Deferred[None] = Deferred()
        self._looking.append((texts, seen))
        self.childDataReceived(1, b"")
        return seen.addTimeout(PATIENCE / 2, self._reactor, late)

    async def enter(self, line: str, *texts: str) -> None:
        """Type a line, and wait until the window shows all of that."""
        self.write(f"{line}\r")
        await self.see(*texts)


class ProcessTests(TestCase):
    """A server, two players and who watches: processes of their own, over TLS."""

    async def setUp(self) -> None:  # type: ignore[override]
        self.folder = os.path.abspath(self.mktemp())
        os.mkdir(self.folder)
        authorizer = openAuthorizer(f"{self.folder}/state", hashing=Hashing.CHEAPEST)
        accounts = Administration(authorizer)
        for name, *keys in (
            ("alice", "game-7/black", "game-8/black"),
            ("bob", "game-7/white", "game-7/black"),
            ("carol", "game-7/observer", "host"),
        ):
            await accounts.addUser(name, f"secret of {name}")
            for key in keys:
                await accounts.grantKey(name, "go", key)
        authorizer.close()
        await self.serve("0")

    async def serve(self, port: str) -> None:
        """Start the server."""
        self.server = Program(
            *(*TWIST, "--state", f"{self.folder}/state"),
            *("--port", f"ssl:{port}:interface=127.0.0.1", "--service", "go=goserver.makeService"),
            PYTHONPATH=os.pathsep.join(map(str, (EXAMPLE, HERE, HERE.parent.parent))),
            GO_GAMES=f"{self.folder}/games",
        )
        self.addCleanup(self.server.stop)
        said = await self.server.waitFor(r"Listening on 127\.0\.0\.1:(\d+) over TLS.*key (\S+)")
        self.port, self.key = said.groups()

    def play(self, name: str, *arguments: str, **options: Any) -> Player:
        """Start a client."""
        where = f"tls:127.0.0.1:{self.port}"
        player = Player(
            *(where, name, *arguments, "--known-servers", f"{self.folder}/known"),
            directory=self.folder,
            **options,
        )
        self.addCleanup(player.stop)
        return player

    async def sitDown(self, name: str, side: str, **options: Any) -> Player:
        """Log in with a password."""
        piped = ["--password-stdin"] if "PIPED" in options else []
        player = self.play(name, side, "--trust", self.key, *piped, **options)
        if not piped:
            await player.waitFor("Password: ")
            player.write(f"secret of {name}\n")
        await player.see("Type help for help.")
        return player

    async def left(self, player: Player, code: int, said: str) -> None:
        """It has ended, and the terminal is what it was before."""
        await player.whenEnded()
        _, _, after = player.output.rpartition("\x1b[?1049l")
        self.assertIn(said, after)
        self.assertIn("as it was", after)
        self.assertEqual(player.exitCode, code, player.output)

    async def refused(self, player: Player, said: str, password: str | None = None) -> None:
        """It ends with one line, and the terminal was never drawn on."""
        if password is not None:
            await player.waitFor("Password: ")
            player.write(f"{password}\n")
        await player.whenEnded()
        lines = [line for line in player.output.splitlines() if line.strip()]
        if password is not None:
            self.assertEqual(lines.pop(0).strip(), "Password:")
        self.assertEqual(len(lines), 2, player.output)
        self.assertIn(said, lines[0])
        self.assertEqual((lines[1], player.exitCode), ("as it was", 1))

    async def test_game(self) -> None:
        """Moves, a capture, mistakes, chat, a record; the server is killed; somebody resigns."""
        host = self.play("carol", "--open", "game-7", "--size", "9", "--komi", "6.5")
        await host.waitFor(r"Trust it from now on\? \[y/N\]")
        host.write("y\n")
        await host.waitFor("Password: ")
        host.write("secret of carol\n")
        await host.whenEnded()
        self.assertIn("game-7 is open: 9 lines, komi 6.5.", host.output)
        self.assertEqual(host.exitCode, 0, host.output)
        everybody = alice, bob, carol = await gatherResults(
            Deferred.fromCoroutine(self.sitDown(name, f"game-7/{side}", shell=name == "carol"))
            for name, side in (("alice", "black"), ("bob", "white"), ("carol", "observer"))
        )
        await alice.see("alice (you)", "bob (here)", "Your turn (black).")
        await self._playSeven(alice, bob, carol)
        await self._talk(alice, bob, carol)
        await self._save(carol)

        self.server.kill()
        await self.server.whenEnded()
        for player in everybody:
            await player.see("Trying to get it back", "No connection.")
        await alice.enter("A5", "There is no connection now: that was not sent.")
        bob.write("A")
        await self.serve(self.port)
        for player in everybody:
            await player.see("The connection is back")
        await alice.see("bob (here)", "White's turn.")
        await bob.see("alice (here)", "Your turn (white).", "> A")
        for player in everybody:
            board = [line[:25].rstrip() for line in player.screen.splitlines()[:11]]
            self.assertEqual(board, [line[:25].rstrip() for line in POSITION.splitlines()])
        await bob.enter("9", "White played A9.")
        await carol.see("White played A9.")

        await alice.enter("resign", "Resign? Type yes: ")
        await alice.enter("no", "You play on.")
        await alice.enter("resign", "Resign? Type yes: ")
        await alice.enter("yes")
        for player in everybody:
            await player.see("White wins: black resigned.")
        await bob.enter("A8", "The game is over: W+R.")
        bob.write("quit\r")
        alice.write("\x04")
        carol.write("\x03")
        await self.left(bob, 0, "game-7: White wins: black resigned.")
        await self.left(alice, 0, "game-7: White wins: black resigned.")
        await self.left(carol, 130, "")

    async def _playSeven(self, alice: Player, bob: Player, carol: Player) -> None:
        bob.write("f")
        await bob.see("> f")
        await alice.enter("E4")
        # A move that comes in leaves what is being typed as it is.
        await bob.see("Black played E4.", "Your turn (white).", "> f")
        await alice.enter("D9", "It is white's turn.")
        await bob.enter("4", "White played F4.")
        await alice.see("White played F4.")
        await alice.enter("F4", "There is a stone at F4.")
        for player, other, point in (
            (alice, bob, "f5"),
            (bob, alice, "a1"),
            (alice, bob, "g4"),
            (bob, alice, "b1"),
            (alice, bob, "f3"),
        ):
            player.write(f"{point}\r")
            await other.see(f"played {point.upper()}")
        for player in (alice, bob, carol):
            await player.see("Black played F3, took 1.", "┼─┼(●)╋")

    async def _talk(self, alice: Player, bob: Player, carol: Player) -> None:
        await bob.enter("say well played, 囲碁")
        await carol.enter("/shh")
        for player in (alice, bob, carol):
            await player.see("bob: well played, 囲碁", "carol: shh")
        await carol.enter("A9", "only black and white play")
        await carol.enter("hello", "Not understood: hello.")
        await carol.enter("help", "save! FILE")
        carol.resize(40, 20)
        await carol.see("White's turn. You watch.", "Make it larger")
        carol.resize(80, 24)
        await carol.see("save! FILE")
        # Ctrl-Z: the shell here can't stop it, so it is back at once.
        carol.write("\x1a")
        await carol.waitFor(r"\x1b\[\?1049l\x1b\[\?1049h")

    async def _save(self, player: Player) -> None:
        await player.enter("save nowhere/game.sgf", "Can't write nowhere/game.sgf: No such file")
        await player.enter("save game.sgf", "Saved as game.sgf.")
        path = Path(self.folder, "game.sgf")
        game, names = GoGame.fromSGF(path.read_bytes())
        self.assertEqual((len(game.moves), names), (7, {"black": "alice", "white": "bob"}))
        path.write_text("mine")
        await player.enter("save game.sgf", "To overwrite it: save! game.sgf")
        self.assertEqual(path.read_text(), "mine")
        await player.enter("save! game.sgf", "Saved as game.sgf.")
        self.assertEqual(len(GoGame.fromSGF(path.read_bytes())[0].moves), 7)

    async def test_refusals(self) -> None:
        """Each is one line, and exit code 1. A polite kill leaves the terminal as it was."""
        host = self.play("carol", "--open", "game-7", "--size", "5", "--trust", self.key)
        await host.waitFor("Password: ")
        host.write("secret of carol\n")
        await host.waitFor("game-7 is open: 5 lines, komi 7.5.")
        # The password comes from elsewhere, the moves from the terminal; which has no stones.
        how = {"NO_COLOR": "", "PYTHONIOENCODING": "ascii", "PIPED": "secret of alice"}
        alice = await self.sitDown("alice", "game-7/black", **how)
        await alice.enter("pass", "Black passed.")
        await alice.see("\x1b[30;43m 5 . . . . . 5 \x1b[m", "\x1b[1mWhite's turn.\x1b[m")
        trusted = ("--trust", self.key)
        await gatherResults(
            Deferred.fromCoroutine(self.refused(self.play(name, *arguments), said, password))
            for name, arguments, said, password in (
                ("alice", ("game-7/black", *trusted), "Login refused", "wrong"),
                ("bob", ("game-7/black", *trusted), "Black is taken, by alice.", "secret of bob"),
                (
                    "alice",
                    ("game-8/black", *trusted),
                    "There is no game 'game-8'",
                    "secret of alice",
                ),
                ("bob", ("--open", "x", *trusted), "No key to perspective 'host'", "secret of bob"),
            )
        )
        (pid,) = childrenOf(alice.process.pid)
        os.kill(pid, signal.SIGTERM)
        await self.left(alice, 130, "")
        await self.server.stop()
        await gatherResults(
            Deferred.fromCoroutine(self.refused(player, said, password))
            for player, said, password in (
                (self.play("alice", "black"), "Is the server running there?", None),
                (self.play("alice", "black", *trusted), "Is the server running", "secret of alice"),
            )
        )

    async def test_killedAtPassword(self) -> None:
        """Killed politely where the password is asked for, it leaves the terminal as it was."""
        alice = self.play("alice", "game-7/black", "--trust", self.key)
        await alice.waitFor("Password: ")

        def kill() -> None:
            for pid in childrenOf(alice.process.pid):
                os.kill(pid, signal.SIGTERM)

        # More than once: Python forgets a signal between writing a prompt and reading.
        killing = LoopingCall(kill)
        killing.start(1)
        await alice.whenEnded().addBoth(lambda ended: killing.stop())
        self.assertIn("as it was", alice.output)
