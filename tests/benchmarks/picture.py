"""
The picture: for each work a bar for each peer, as long as its ratio to stock PB.

Drawn by hand, on a card of its own that is light or dark as the reader likes it, and light wherever
that is not known.
"""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape

from attrs import frozen

from tests.benchmarks.logins import KINDS, STOCK_TCP, STOCK_TLS
from tests.benchmarks.peers import LIMIT, PEERS, STOCK
from tests.benchmarks.work import WORKS

_STYLE = """
  .card { fill: #ffffff; stroke: #d0d7de; }
  text { font: 13px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #24292f; }
  .title { font-weight: 600; font-size: 14px; }
  .note { fill: #57606a; font-size: 12px; stroke: #ffffff; stroke-width: 3; paint-order: stroke; }
  .ours { fill: #0969da; }
  .stock { fill: #57606a; }
  .other { fill: #afb8c1; }
  .spread { stroke: #24292f; stroke-width: 1; }
  .one { stroke: #57606a; stroke-dasharray: 3 3; }
  @media (prefers-color-scheme: dark) {
    .card { fill: #0d1117; stroke: #30363d; }
    text { fill: #e6edf3; }
    .note { fill: #9198a1; stroke: #0d1117; }
    .ours { fill: #4493f8; }
    .stock { fill: #9198a1; }
    .other { fill: #4d5661; }
    .spread { stroke: #e6edf3; }
    .one { stroke: #9198a1; }
  }
"""

_LABELS = 210  # pixels for the names
_BARS = 300
_VALUES = 70
_MARGIN = 20
_ROW = 21
_BAR = 13
_PANEL = _LABELS + _BARS + _VALUES


@frozen
class Bar:
    """
    Attributes:
        label: whose.
        kind: the class of its style.
        median: of the ratios to stock PB.
        least: of them.
        most: of them.
        cut: where it is longer than all others, it may be cut.
    """

    label: str
    kind: str
    median: float
    least: float
    most: float
    cut: bool = False


def draw(made: dict[str, Any]) -> str:
    """
    Args:
        made: as `tests.benchmarks.suite.runAll` gives it.

    Returns:
        The picture, as SVG.
    """
    panels = [
        *((WORKS[work].label, _calls(peers)) for work, peers in made.get("calls", {}).items()),
        *_logins(made.get("logins", {})),
    ]
    columns = min(2, max(1, len(panels)))
    drawn: list[str] = []
    tops = [_MARGIN + 48] * columns
    for title, bars in panels:
        column = tops.index(min(tops))
        left = _MARGIN + column * (_PANEL + _MARGIN)
        drawn += _panel(left, tops[column], title, bars)
        tops[column] += 30 + _ROW * len(bars) + 18
    width = columns * (_PANEL + _MARGIN) + _MARGIN
    height = max(tops) + 8
    machine = made["machine"]
    note = (
        f"{made['when']}, plan '{made['plan']}': {machine['cpu']}, {machine['python']}, "
        f"Twisted {machine['versions'].get('Twisted', '')}. Lines: least to most of the rounds."
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img">',
            "<title>pbauth and others, as multiples of stock PB</title>",
            f"<style>{_STYLE}</style>",
            f'<rect class="card" x="0.5" y="0.5" rx="6" '
            f'width="{width - 1}" height="{height - 1}"/>',
            _text(_MARGIN, _MARGIN + 12, "Calls and logins a second, stock PB = 1", "title"),
            _text(_MARGIN, _MARGIN + 31, note, "note"),
            *drawn,
            "</svg>",
            "",
        ]
    )


def _bar(label: str, kind: str, summary: dict[str, Any], cut: bool = False) -> list[Bar]:
    if "timesStock" not in summary:
        return []
    times = summary["timesStock"]
    return [Bar(label, kind, times["median"], times["min"], times["max"], cut)]


def _calls(peers: dict[str, Any]) -> list[Bar]:
    made: list[Bar] = []
    for name, summary in peers.items():
        kind = {STOCK: "stock"}.get(name, "ours" if name.startswith("pbauth") else "other")
        made += _bar(PEERS[name].label, kind, summary, cut=name == LIMIT)
    return sorted(made, key=lambda bar: -bar.median)


def _logins(kinds: dict[str, Any]) -> list[tuple[str, list[Bar]]]:
    panels = []
    for stock, where in ((STOCK_TCP, "TCP"), (STOCK_TLS, "TLS")):
        for way, how in (("alone", "one after the other"), ("together", "several in flight")):
            bars: list[Bar] = []
            for name, kind in KINDS.items():
                # A slow derivation is slow on purpose, and next to nothing beside the others.
                if kind.stock == stock and way in kinds.get(name, {}) and not kind.slow:
                    style = "stock" if name == stock else "ours"
                    bars += _bar(kind.label, style, kinds[name][way])
            if bars:
                panels.append((f"logins over {where}, {how}", bars))
    return panels


def _panel(left: int, top: int, title: str, bars: list[Bar]) -> list[str]:
    # The limit may be far away; it must not make specks of all others.
    longest = max((bar.most for bar in bars if not bar.cut), default=1.0)
    # From here on bars start; `scale` pixels are one time stock PB.
    start = left + _LABELS
    scale = _BARS / max(longest, 1.0)
    made = [_text(left, top + 14, title, "title")]
    under = top + 30
    x = start + scale
    made.append(
        f'<line class="one" x1="{x:.1f}" y1="{under - 5}" '
        f'x2="{x:.1f}" y2="{under + len(bars) * _ROW - 3}"/>'
    )
    for number, bar in enumerate(bars):
        y = under + number * _ROW
        middle = y + _BAR / 2
        end = start + min(bar.median * scale, _BARS)
        made += [
            _text(start - 8, middle + 4.5, bar.label, "", "end"),
            f'<rect class="{bar.kind}" x="{start}" y="{y}" width="{end - start:.1f}" '
            f'height="{_BAR}"/>',
        ]
        value = f"{bar.median:.2f}" if bar.median < 100 else f"{bar.median:.0f}"
        if bar.most * scale <= _BARS:
            made.append(
                f'<line class="spread" x1="{start + bar.least * scale:.1f}" y1="{middle}" '
                f'x2="{start + bar.most * scale:.1f}" y2="{middle}"/>'
            )
            end = max(end, start + bar.most * scale)
        elif bar.median * scale > _BARS:
            value = f"\u2026 {value}"
        made.append(_text(end + 6, middle + 4.5, value, "note"))
    return made


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text{style} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
