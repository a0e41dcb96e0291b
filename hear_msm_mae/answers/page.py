"""HTML pages of results: one file with players, without scripts and without the network.

Everything that comes from file names and labels is escaped, and the page's own policy lets nothing
run and nothing be loaded.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..audio import read_audio
from ..files import for_terminal, printable
from ..visualize.media import sound_uri

MOST_PLAYERS = 60  # about 36 kB each
PLAYED_SECONDS = 10.0
SHADES = 10
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --quiet: #777; --accent: #c2410c; }
body { margin: 0 auto; max-width: 1100px; padding: 20px; font: 15px/1.45 system-ui, sans-serif;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 28px; }
table { border-collapse: collapse; } td, th { padding: 3px 10px;
  border-bottom: 1px solid var(--line); text-align: left; }
audio { height: 32px; width: 260px; } .quiet { color: var(--quiet); }
.warning { border-left: 4px solid var(--accent); padding-left: 10px; }
.scroll { overflow-x: auto; } svg { max-width: 560px; } polyline { fill: none;
  stroke: var(--accent); stroke-width: 2; } svg text { fill: currentColor; font-size: 11px; }
"""


def search_page(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Hits or pairs of `search` as a page."""
    names = [name for name in (rows[0] if rows else {}) if "file" not in name]
    columns = [name for name in ("file", "other_file") if rows and name in rows[0]]
    cells = []
    for number, row in enumerate(rows):
        line = [_cell(row[name]) for name in names]
        for column in columns:
            side = "other_" if column == "other_file" else ""
            place = row[column], row[f"{side}start"], row[f"{side}end"]
            line.append(player(*place) if number < MOST_PLAYERS // len(columns) else "")
        cells.append(line)
    return page(title, [table([*names, *columns], cells)])


def page(title: str, parts: Iterable[str]) -> str:
    """A page around parts that are HTML already."""
    style = _STYLE + "".join(
        f".s{i} {{ background: rgb(194 65 12 / {i * 60 // SHADES}%); }}\n"
        for i in range(SHADES + 1)
    )
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; media-src data:; style-src 'sha256-{digest}'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title><style>{style}</style></head>\n"
        f"<body><h1>{text(title)}</h1>\n{chr(10).join(parts)}\n</body></html>\n"
    )


def text(value: object) -> str:
    """Text of any origin for HTML."""
    return html.escape(for_terminal(str(value)))


def table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are HTML already."""
    head = "".join(f"<th>{text(name.replace('_', ' '))}</th>" for name in names)
    body = "".join(f"<tr>{''.join(_td(cell) for cell in row)}</tr>\n" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>\n{body}</table></div>'


def shaded(value: object, share: float) -> str:
    """A cell whose background shows a share from 0 to 1."""
    return f'<td class="s{round(share * SHADES)}">{text(value)}</td>'


def player(file: str, start: float, end: float | None) -> str:
    """A player of the first 10 s of a stretch; the reason where there is none."""
    stop = start + PLAYED_SECONDS if end is None else min(end, start + PLAYED_SECONDS)
    try:
        sound = sound_uri(read_audio(file, start, stop))
    except (OSError, ValueError) as error:
        return f'<span class="quiet">{text(error)}</span>'
    return f'<audio controls preload="none" src="{sound}"></audio>'


def curve(shares: Mapping[str, float]) -> str:
    """Shares from 0 to 1 over evenly spaced, named places."""
    step = 480 / max(1, len(shares) - 1)
    places = [(40 + i * step, 150 - 130 * y) for i, y in enumerate(shares.values())]
    line = " ".join(f"{x:.0f},{y:.0f}" for x, y in places)
    labels = "".join(
        f'<text x="{x:.0f}" y="170" text-anchor="middle">{text(name)}</text>'
        f'<text x="{x:.0f}" y="{y - 6:.0f}" text-anchor="middle">{100 * share:.0f}</text>'
        for (x, y), (name, share) in zip(places, shares.items(), strict=True)
    )
    return f'<svg viewBox="0 0 560 180"><polyline points="{line}"/>{labels}</svg>'


def _td(cell: str) -> str:
    return cell if cell.startswith("<td") else f"<td>{cell}</td>"


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else text(printable(str(value)))
