"""The page of a probe: scores, doubts, confusions, and the mistakes to listen to."""

from __future__ import annotations

from . import page
from .results import ProbeResult


def probe_page(result: ProbeResult, curve: str, note: str = "") -> str:
    """One HTML file with players for the mistakes with the highest probability.

    Args:
        curve: title of the curve.
        note: text below the scores.
    """
    methods = list(result.scores.values())
    best = methods[0][0]
    title = f"{100 * best.value:.1f} % {best.name} on {len(result.head.labels)} labels"
    parts = [
        f'<p class="quiet">{result.recordings} recordings; every score is of recordings that were '
        "not learnt from, with its 95 % confidence interval. Probabilities are off by "
        f"{100 * result.calibration_error:.1f} % on average.</p>"
    ]
    notes = [*result.warnings, *(f"could not read {x.path}: {x.reason}" for x in result.failures)]
    parts += [f'<p class="warning">{page.text(note)}</p>' for note in notes]
    rows = [
        [page.text(method)] + [f"{s.value:.3f} ({s.low:.3f} to {s.high:.3f})" for s in scores]
        for method, scores in result.scores.items()
    ]
    names = ["method", *(score.name for score in methods[0])]
    parts += ["<h2>Scores</h2>", page.table(names, rows)]
    parts += [f"<p>{page.text(note)}</p>"] if note else []
    parts += [f"<h2>{page.text(curve)}</h2>", page.curve(result.curve)]
    parts += ["<h2>Labels</h2>", _labels(result)]
    if result.confusion is not None:
        parts += ["<h2>Confusions</h2>", _confusion(result)]
    parts += ["<h2>Mistakes, the surest first</h2>", _mistakes(result)]
    return page.page(title, parts)


def _labels(result: ProbeResult) -> str:
    names = ["label", "recordings", "groups", "average precision"]
    shown = ["precision", "recall"] if result.confusion is not None else []
    rows = []
    for x in result.per_label:
        shares = [x.average_precision, *(getattr(x, name) for name in shown)]
        cells = [page.text(x.label), str(x.recordings), str(x.groups)]
        rows.append(cells + ["-" if s != s else page.shaded(f"{s:.2f}", s) for s in shares])
    return page.table(names + shown, rows)


def _confusion(result: ProbeResult) -> str:
    assert result.confusion is not None
    rows = []
    for label, counts in zip(result.head.labels, result.confusion, strict=True):
        total = max(1, int(counts.sum()))
        cells = [page.shaded(n or "", n / total) for n in counts.tolist()]
        rows.append([page.text(label), *cells])
    return page.table(["label \\ predicted", *result.head.labels], rows)


def _mistakes(result: ProbeResult) -> str:
    shown = result.mistakes[: page.MOST_PLAYERS]
    below, short = page.shortened(x.path for x in shown)
    rows = []
    for x in shown:
        cells = [page.path_cell(short[x.path]), page.stretch(x.start, x.end), page.text(x.labels)]
        cells += [page.text(x.predicted), f"{x.probability:.2f}"]
        rows.append([*cells, page.player(x.file, x.start, x.end)])
    more = len(result.mistakes) - len(rows)
    names = ["path", "stretch", "label", "predicted", "probability", "sound"]
    where = f'<p class="quiet">Recordings below {page.text(below)}</p>' if below else ""
    rest = f'<p class="quiet">and {more} more</p>' if more > 0 else ""
    return where + page.table(names, rows) + rest if rows else "<p>None.</p>"
