"""
Makes the pictures of the documentation: the board, and a login in a terminal::

    python -m tests.support.screenshots docs/images/go-board.png
    python -m tests.support.screenshots docs/images/login.png --login

With ``--dark`` or ``--phone`` it shows how the board looks then.  Needs Chromium (see
`tests.support.browsers`).
"""

from __future__ import annotations

import base64
import html
import re
import socket
import struct
import sys
import tempfile
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from twisted.internet import task

from tests.support.browsers import Chromium, whyNot
from tests.support.goexample import goservice
from tests.support.processes import PBAUTH, TWISTD, Program

#: Nobody's game: the corners as everybody plays them, and a fight.
MOVES = """
    Q16 D4 Q4 D16 F17 C14 D18 C17 J17 R14 O17 S16 R17 R11
    C6 F3 B4 C3 C10 O3 Q6 R3 R4 Q3 P4 K3 E6 F5 F6 G6 G7 H6 E5 E4 H7 J6 J7 K6
    F14 D12 D11 E12 E11 F12 F11 G13 C12 C11 B11 C13 P14 P13 O13 Q13 O12 P11
    O10 P10 O9 G14 F13 E13 G12 G11 H12 F15 E14 E15 H13 H14 J14 D14
""".split()

# The grain of the wood is noise, which makes a picture large. With 32 shades of each colour it
# looks the same, and takes a third.
_PIXELS = """
const [source, done] = arguments;
const image = new Image();
image.onload = () => {
  const canvas = document.createElement("canvas");
  canvas.width = image.width;
  canvas.height = image.height;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, image.width, image.height);
  let pixels = "";
  data.forEach((value, index) => {
    if (index % 4 < 3) pixels += String.fromCharCode(Math.min(255, Math.round(value / 8) * 8));
  });
  done([image.width, image.height, btoa(pixels)]);
};
image.src = "data:image/png;base64," + source;
"""


def _picture(driver: Any) -> bytes:
    source = driver.get_screenshot_as_base64()
    # That the page itself would not allow.
    driver.get("about:blank")
    width, height, encoded = driver.execute_async_script(_PIXELS, source)
    pixels = base64.b64decode(encoded)
    lines = (pixels[start : start + 3 * width] for start in range(0, len(pixels), 3 * width))
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + _chunk(b"IDAT", zlib.compress(b"".join(b"\0" + line for line in lines), 9))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


_TERMINAL = """
<style>
  body { margin: 0; background: #16181d; }
  pre {
    margin: 0; padding: 20px 24px; color: #d7dae0; white-space: pre-wrap;
    font: 15px/1.45 "DejaVu Sans Mono", monospace;
  }
  b { color: #8bd49c; font-weight: normal; }
  i { color: #7c8494; font-style: normal; }
</style>
<pre>%s</pre>
"""


async def _logIn(port: str) -> list[str]:
    """Type what the README says, and give what stands in the terminal then."""
    lines = []
    with tempfile.TemporaryDirectory() as folder:

        async def type_(command: str, *answers: tuple[str, str, str]) -> None:
            lines.append(f"<b>$ {html.escape(command)}</b>")
            program = Program(
                *(*PBAUTH, *command.replace("8787", port).split()[1:]),
                terminal=True,
                stdin=None,
                directory=folder,
                HOME=folder,
                XDG_CONFIG_HOME=folder,
            )
            try:
                for asked, answer, _ in answers:
                    await program.waitFor(asked)
                    program.write(f"{answer}\n")
                await program.whenEnded()
            finally:
                await program.stop()
            for line in program.output.replace(port, "8787").splitlines():
                shown = html.escape(line)
                for asked, _, note in answers:
                    if note and re.search(asked, line):
                        shown += f" <i>{note}</i>"
                lines.append(shown)

        secret = (r"Password: ?$|Password:\s", "open sesame", "(typed, not shown)")
        again = ("confirmation: ?", "open sesame", "(once more)")
        server = Program(
            *(*TWISTD, "--port", f"ssl:{port}:interface=127.0.0.1"), directory=folder, stdin=None
        )
        try:
            await server.waitFor("Listening on")
            lines.append("<b>$ twistd pbauth</b>")
            await type_("pbauth user add alice", secret, again)
            await type_("pbauth key grant alice echo")
            call = "pbauth call tls:127.0.0.1:8787 alice echo say hello"
            await type_(call, (r"\[y/N\]", "y", ""), secret)
        finally:
            await server.stop()
    return lines


async def _pictureOfLogin(path: str) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
    page = _TERMINAL % "\n".join(await _logIn(port))
    browser = await Chromium.start()
    try:
        await browser.look(1010, 302, False, 1)
        await browser.open("data:text/html;charset=utf-8," + quote(page))
        Path(path).write_bytes(await browser.do(_picture))
    finally:
        await browser.stop()


async def main(reactor: Any, path: str, *options: str) -> None:
    """Make it."""
    if "--login" in options:
        await _pictureOfLogin(path)
        return
    service: Any = goservice.GoService("go", web="tcp:0:interface=127.0.0.1")
    table = service.openGame("tournament")
    table.sitDown("black", "alice")
    table.sitDown("white", "bob")
    for point in MOVES:
        table.play(table.game.turn, point)
    service.startService()
    browser = await Chromium.start()
    try:
        size = (375, 812, "--dark" in options, 2) if "--phone" in options else None
        await browser.look(*(size or (1180, 846, "--dark" in options, 0.85)))
        await browser.open(f"http://127.0.0.1:{service.web.address.port}/game/tournament")
        await browser.until("document.querySelectorAll('#board .stone').length > 0")
        await browser.run("document.getAnimations().forEach((each) => each.finish())")
        Path(path).write_bytes(await browser.do(_picture))
    finally:
        await browser.stop()
        await service.stopService()


if __name__ == "__main__":
    sys.exit(whyNot() or task.react(main, sys.argv[1:]))
