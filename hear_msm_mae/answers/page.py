"""HTML pages of results: one file with players, without scripts and without the network.

File names and labels are escaped, and the page's content security policy forbids scripts and
requests.
"""

from __future__ import annotations

import base64
import hashlib
import html
import itertools
from collections.abc import Iterable, Mapping, Sequence

from ..audio import read_audio
from ..files import for_terminal
from ..visualize.media import sound_uri
from .evaluate import ProbeResult
from .search import Hit, Pair

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
""" + "".join(
    f".s{i} {{ background: rgb(194 65 12 / {i * 60 // SHADES}%); }}\n" for i in range(SHADES + 1)
)


# ---------------------------------------------------------------------------------------------
# Search
# ---------------------------------------------------------------------------------------------
def search_page(title: str, found: Sequence[Hit | Pair]) -> str:
    """Hits of `search` or pairs of `duplicates` as a page."""
    names = [row.query for row in found if isinstance(row, Hit)]
    below, short = _shortened([*names, *(path for row in found for path, *_ in _parts(row))])
    shown = [below]
    players = MOST_PLAYERS
    queries = itertools.accumulate(isinstance(row, Hit) and row.rank == 1 for row in found)
    for _, group in itertools.groupby(zip(queries, found, strict=True), lambda x: x[0]):
        rows = [row for _, row in group]
        if isinstance(hit := rows[0], Hit):
            player = _player(hit.query_file, hit.query_start, hit.query_end)
            shown += [f"<h2>{_text(short[hit.query])}</h2>", player]
        cells = []
        for number, row in enumerate(rows, 1):
            cells.append([str(number), f"{row.similarity:.3f}"])
            for path, first, last, file in _parts(row):
                sound = _player(file, first, last) if players > 0 else ""
                cells[-1] += [_path(short[path]), _stretch(first, last), sound]
                players -= 1
        columns = ("path", "stretch", "sound") * len(_parts(rows[0]))
        shown.append(_table(["", "similarity", *columns], cells))
    return _page(title, shown)


def _parts(row: Hit | Pair) -> list[tuple[str, float, float, str]]:
    """Path, start, end and file of each side of a row."""
    if isinstance(row, Hit):
        return [(row.path, row.start, row.end, row.file)]
    other = row.other, row.other_start, row.other_end, row.other_file
    return [(row.path, row.start, row.end, row.file), other]


# ---------------------------------------------------------------------------------------------
# Probe
# ---------------------------------------------------------------------------------------------
def probe_page(result: ProbeResult, curve: str, note: str = "") -> str:
    """Scores, warnings, confusions, and players for the mistakes with the highest probability.

    Args:
        curve: title of the curve.
        note: text below the scores.
    """
    best = next(iter(result.scores.values()))
    title = f"{100 * best[0].value:.1f} % {best[0].name} on {len(result.head.labels)} labels"
    parts = [
        f'<p class="quiet">{result.recordings} recordings; every score is of recordings that were '
        "not learnt from, with its 95 % confidence interval. Probabilities are off by "
        f"{100 * result.calibration_error:.1f} % on average.</p>"
    ]
    unread = [f"could not read {x.path}: {x.reason}" for x in result.failures]
    parts += [f'<p class="warning">{_text(x)}</p>' for x in [*result.warnings, *unread]]
    rows = [
        [_text(method), *(f"{s.value:.3f} ({s.low:.3f} to {s.high:.3f})" for s in scores)]
        for method, scores in result.scores.items()
    ]
    parts += ["<h2>Scores</h2>", _table(["method", *(score.name for score in best)], rows)]
    parts += [f"<p>{_text(note)}</p>"] if note else []
    parts += [f"<h2>{_text(curve)}</h2>", _curve(result.curve)]
    parts += ["<h2>Labels</h2>", _labels(result)]
    if result.confusion is not None:
        rows = [
            [_text(label), *(_shaded(n or "", n / max(1, sum(counts))) for n in counts)]
            for label, counts in zip(result.head.labels, result.confusion.tolist(), strict=True)
        ]
        names = ["label \\ predicted", *result.head.labels]
        parts += ["<h2>Confusions</h2>", _table(names, rows)]
    parts += ["<h2>Mistakes, the surest first</h2>", *_mistakes(result)]
    return _page(title, parts)


def _labels(result: ProbeResult) -> str:
    shown = ["average_precision"]
    shown += ["precision", "recall"] if result.confusion is not None else []
    rows = []
    for x in result.per_label:
        rows.append([_text(x.label), str(x.recordings), str(x.groups)])
        shares = [getattr(x, name) for name in shown]
        rows[-1] += ["-" if s != s else _shaded(f"{s:.2f}", s) for s in shares]  # NaN: no recording
    return _table(["label", "recordings", "groups", *shown], rows)


def _mistakes(result: ProbeResult) -> list[str]:
    if not result.mistakes:
        return ["<p>None.</p>"]
    shown = result.mistakes[:MOST_PLAYERS]
    below, short = _shortened(x.path for x in shown)
    rows = []
    for x in shown:
        rows.append([_path(short[x.path]), _stretch(x.start, x.end), _text(x.labels)])
        rows[-1] += [_text(x.predicted), f"{x.probability:.2f}", _player(x.file, x.start, x.end)]
    names = ["path", "stretch", "label", "predicted", "probability", "sound"]
    more = len(result.mistakes) - len(shown)
    rest = f'<p class="quiet">and {more} more</p>' if more else ""
    return [below, _table(names, rows), rest]


def _curve(shares: Mapping[str, float]) -> str:
    """A curve of values from 0 to 1 at evenly spaced, labelled positions."""
    step = 480 / max(1, len(shares) - 1)
    places = [(40 + i * step, 150 - 130 * y) for i, y in enumerate(shares.values())]
    line = " ".join(f"{x:.0f},{y:.0f}" for x, y in places)
    every = -(-len(shares) // MOST_TICKS)
    labels = "".join(
        f'<text x="{x:.0f}" y="170" text-anchor="middle">{_text(name)}</text>'
        f'<text x="{x:.0f}" y="{y - 6:.0f}" text-anchor="middle">{100 * share:.0f}</text>'
        for (x, y), (name, share) in list(zip(places, shares.items(), strict=True))[::every]
    )
    return f'<svg viewBox="0 0 560 180"><polyline points="{line}"/>{labels}</svg>'


# ---------------------------------------------------------------------------------------------
# Elements
# ---------------------------------------------------------------------------------------------
def _page(title: str, parts: Iterable[str]) -> str:
    """A page around parts that are HTML already."""
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; media-src data:; style-src 'sha256-{digest}'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{_text(title)}</h1>\n{chr(10).join(parts)}\n</body></html>\n"
    )


def _text(value: object) -> str:
    """Text escaped for HTML."""
    return html.escape(for_terminal(str(value)))


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; its cells are HTML, with or without their <td>."""
    head = "".join(f"<th>{_text(name.replace('_', ' '))}</th>" for name in names)
    lines = (
        "".join(cell if cell.startswith("<td") else f"<td>{cell}</td>" for cell in row)
        for row in rows
    )
    body = "".join(f"<tr>{line}</tr>\n" for line in lines)
    return f'<div class="scroll"><table><tr>{head}</tr>\n{body}</table></div>'


def _shortened(paths: Iterable[str]) -> tuple[str, dict[str, str]]:
    """A line that names the common folder of all paths, and each path below it."""
    several = list(dict.fromkeys(paths))
    folders = zip(*(path.split("/")[:-1] for path in several), strict=False)
    common = [x[0] for x in itertools.takewhile(lambda names: len(set(names)) == 1, folders)]
    if len(several) < 2 or not any(common):
        return "", {path: path for path in several}
    folder = "/".join(common)
    line = f'<p class="quiet">Recordings below {_text(folder)}</p>'
    return line, {path: path[len(folder) + 1 :] for path in several}


def _path(name: str) -> str:
    """A cell with a path, which may be wrapped anywhere."""
    return f'<td class="path">{_text(name)}</td>'


def _stretch(start: float, end: float) -> str:
    """A cell with start and end in a recording."""
    return f'<td class="stretch">{start:.2f} to {end:.2f} s</td>'


def _shaded(value: object, share: float) -> str:
    """A cell whose background shows a share from 0 to 1."""
    return f'<td class="s{round(share * SHADES)}">{_text(value)}</td>'


def _player(file: str, start: float, end: float) -> str:
    """A player of the first 10 s of a part of a file, or the reason why it cannot be read."""
    try:
        sound = sound_uri(read_audio(file, start, min(end, start + PLAYED_SECONDS)))
    except (OSError, ValueError) as error:
        return f'<span class="quiet">{_text(error)}</span>'
    return f'<audio controls preload="none" src="{sound}"></audio>'
