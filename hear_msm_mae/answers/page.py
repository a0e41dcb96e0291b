"""HTML pages of results: one file with players, without scripts and without the network.

File names and labels are escaped, and the page's content security policy forbids scripts and
requests.
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
MOST_TICKS = 16  # of a curve
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --quiet: #777; --accent: #c2410c; }
body { margin: 0 auto; max-width: 1240px; padding: 20px; font: 15px/1.45 system-ui, sans-serif;
  font-variant-numeric: tabular-nums; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 28px; }
table { border-collapse: collapse; } td, th { padding: 3px 10px;
  border-bottom: 1px solid var(--line); text-align: left; }
audio { height: 32px; width: 220px; } .quiet { color: var(--quiet); }
.warning { border-left: 4px solid var(--accent); padding-left: 10px; }
p, h1, h2, .path { overflow-wrap: anywhere; } .path { min-width: 150px; }
.stretch { white-space: nowrap; }
.scroll { overflow-x: auto; } svg { max-width: 560px; } polyline { fill: none;
  stroke: var(--accent); stroke-width: 2; } svg text { fill: currentColor; font-size: 11px; }
"""


def search_page(
    title: str, rows: Sequence[Mapping[str, Any]], start: float = 0.0, end: float | None = None
) -> str:
    """Hits or pairs of `search` as a page.

    Args:
        start, end: the part of each query that was searched, in seconds.
    """
    parts: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        parts.setdefault(str(row.get("query", "")), []).append(row)
    sides = ("", "other_") if rows and "other" in rows[0] else ("",)
    shown: list[str] = []
    below, names = shortened([*parts, *(str(row[name]) for row in rows for name in _paths(row))])
    left = MOST_PLAYERS // len(sides)
    if below:
        shown.append(f'<p class="quiet">Recordings below {text(below)}</p>')
    for query, some in parts.items():
        if query:
            shown += [f"<h2>{text(names[query])}</h2>", player(query, start, end)]
        cells = []
        for number, row in enumerate(some, 1):
            line = [str(number), f"{row['similarity']:.3f}"]
            for side, name in zip(sides, _paths(row), strict=True):
                first, last = row[f"{side}start"], row[f"{side}end"]
                line += [path_cell(names[str(row[name])]), stretch(first, last)]
                line.append(player(row[f"{side}file"], first, last) if left > 0 else "")
            left -= 1
            cells.append(line)
        shown.append(table(["", "similarity", *("path", "stretch", "sound") * len(sides)], cells))
    return page(title, shown)


def _paths(row: Mapping[str, Any]) -> tuple[str, ...]:
    return ("path", "other") if "other" in row else ("path",)


def shortened(paths: Iterable[str]) -> tuple[str, dict[str, str]]:
    """The common folder of all paths (or an empty string), and each path relative to it."""
    several = [path for path in dict.fromkeys(paths) if path]
    folders = [path.split("/")[:-1] for path in several]
    common = []
    for parts in zip(*folders, strict=False):
        if len(several) < 2 or len(set(parts)) > 1:
            break
        common.append(parts[0])
    start = len("/".join(common)) + 1 if any(common) else 0
    return "/".join(common) if start else "", {path: path[start:] for path in several}


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
    """Text escaped for HTML."""
    return html.escape(for_terminal(str(value)))


def table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; its cells are HTML."""
    head = "".join(f"<th>{text(name.replace('_', ' '))}</th>" for name in names)
    body = "".join(f"<tr>{''.join(_td(cell) for cell in row)}</tr>\n" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>\n{body}</table></div>'


def path_cell(name: str) -> str:
    """A cell with a path, which may be wrapped anywhere."""
    return f'<td class="path">{text(printable(name))}</td>'


def stretch(start: float, end: float) -> str:
    """A cell with start and end in a recording."""
    return f'<td class="stretch">{start:.2f} to {end:.2f} s</td>'


def shaded(value: object, share: float) -> str:
    """A cell whose background shows a share from 0 to 1."""
    return f'<td class="s{round(share * SHADES)}">{text(value)}</td>'


def player(file: str, start: float, end: float | None) -> str:
    """A player of the first 10 s of a part of a file, or the reason why it cannot be read."""
    stop = start + PLAYED_SECONDS if end is None else min(end, start + PLAYED_SECONDS)
    try:
        sound = sound_uri(read_audio(file, start, stop))
    except (OSError, ValueError) as error:
        return f'<span class="quiet">{text(error)}</span>'
    return f'<audio controls preload="none" src="{sound}"></audio>'


def curve(shares: Mapping[str, float]) -> str:
    """A curve of values from 0 to 1 at evenly spaced, labelled positions."""
    step = 480 / max(1, len(shares) - 1)
    places = [(40 + i * step, 150 - 130 * y) for i, y in enumerate(shares.values())]
    line = " ".join(f"{x:.0f},{y:.0f}" for x, y in places)
    every = -(-len(shares) // MOST_TICKS)
    labels = "".join(
        f'<text x="{x:.0f}" y="170" text-anchor="middle">{text(name)}</text>'
        f'<text x="{x:.0f}" y="{y - 6:.0f}" text-anchor="middle">{100 * share:.0f}</text>'
        for (x, y), (name, share) in list(zip(places, shares.items(), strict=True))[::every]
    )
    return f'<svg viewBox="0 0 560 180"><polyline points="{line}"/>{labels}</svg>'


def _td(cell: str) -> str:
    return cell if cell.startswith("<td") else f"<td>{cell}</td>"
