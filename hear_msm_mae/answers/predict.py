"""Label recordings of any number and length, in bounded memory.

`embed` runs with probabilities instead of embeddings and writes them into a Parquet file beside the
result. So a killed run continues, also in the middle of a recording.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..checkpoints.hub import WEIGHTS_FILE
from ..embed.formats.common import clip_columns, csv_cell, replaced
from ..embed.formats.parquet import Parquet
from ..embed.run import Summary, embed_to
from ..embed.settings import settings_of
from ..embed.table import Table
from ..extras import need
from ..files import printable, replacing
from ..model import HearModel
from ..pooling import Sums
from ..timeline import Piece
from .events import Event, audacity_labels, events_of, raven_table
from .head import Head, load_head
from .loading import Model, name_of, require_same_model, same_model

SUFFIXES = (".csv", ".parquet")


class Prediction(NamedTuple):
    """The (c,) probabilities and the label of a recording, window or timestamp.

    `label` is the most probable label. If a recording may have several labels, it lists all with a
    probability of at least 0.5, separated by semicolons.
    """

    path: str
    start: float
    end: float
    timestamp_ms: float | None
    label: str
    probabilities: NDArray[np.float32]


@dataclasses.dataclass
class Predictions:
    """The result of `predict`; rows and events are read from the disk when they are used.

    Attributes:
        labels: the c labels of the head.
        output: path of the table.
        summary: numbers of files, and failures; None if the source was an output of `embed`.
    """

    head: Head
    output: Path
    table: Table
    summary: Summary | None

    @property
    def labels(self) -> list[str]:
        """In the order of the probabilities."""
        return self.head.labels

    def __iter__(self) -> Iterator[Prediction]:
        paths = self.table.paths()
        for index, block in self.table.indexed():
            times = [None] * len(index) if block.times_ms is None else block.times_ms.tolist()
            for i, time, row in zip(index, times, block.rows, strict=True):
                clip = self.table.clips[i]
                where = paths[clip.recording], clip.start, clip.end, time
                yield Prediction(*where, _label(self.head, row), np.asarray(row, np.float32))

    def events(
        self, threshold: float = 0.5, gap: float = 0.0, shortest: float = 0.0
    ) -> Iterator[Event]:
        """Events (start, end, label), recording by recording.

        Args:
            threshold: minimum probability of a label.
            gap: events of a label are joined if at most so many seconds are between them.
            shortest: shorter events, in seconds, are dropped.
        """
        return events_of(self.table, self.labels, threshold, gap, shortest)


def predict(
    head: str | Path | Head,
    sources: Any,
    output: str | Path,
    model: Model = "",
    *,
    segment: float | None = None,
    overlap: float = 0.0,
    timestamps: bool = False,
    channel: str | int = "mix",
    device: str = "cpu",
    workers: int | None = None,
    overwrite: bool = False,
) -> Predictions:
    """Label recordings, windows, or timestamps with a classifier.

    Args:
        head: folder of `probe` or `finetune`, or its `head.safetensors`.
        sources: as for `embed_files`, or one Parquet output of `embed`, whose embeddings are used.
        output: `.csv` or `.parquet` file with a row for each recording, window or timestamp: path,
            start, end, timestamp_ms, label, probability, and a column p_LABEL for each label. The
            probabilities are also stored in `OUTPUT.rows.parquet`, an output of `embed`, from which
            an interrupted run continues.
        model: the model or weights that the head was trained on; by default those that it names,
            or those that `finetune` wrote beside it.
        segment, overlap: windows in seconds, as for `embed_files`.
        timestamps: a row for each timestamp of the model instead of each recording.
        channel, workers: as for `embed_files`.
        device: device that embeds.
        overwrite: label everything anew; by default only new recordings are labelled.

    Returns:
        The rows and events that were written.

    Raises:
        FileNotFoundError, ValueError: the head or a source does not exist, the head was trained on
            another model or other embeddings, or the output has other options.
    """
    need("pyarrow.parquet", "answers", "predictions")
    where = "the head" if isinstance(head, Head) else head
    head = head if isinstance(head, Head) else load_head(head)
    output = Path(output)
    if output.suffix.lower() not in SUFFIXES:
        raise ValueError(f"--output must end in one of {list(SUFFIXES)}, got {str(output)!r}")
    summary = None
    table = _embedded(sources)
    if table is not None:
        if segment is not None or timestamps:
            raise ValueError(
                "the source is an output of embed, which determines windows and timestamps; leave "
                "out segment and timestamps"
            )
        made = table.settings
        if table.timestamps:
            _require_mean(where, head)
            made = made | {"scene_pooling": "mean"}
        require_same_model(where, head.settings, made, printable(str(sources)))
        table = _labelled(table, head)
    else:
        if timestamps:
            _require_mean(where, head)
        model = model or _beside(where, head)
        model_ = same_model(where, head.settings, model, device)
        name = f"{name_of(model, head.settings)} with a head"
        settings = settings_of(model_, name, timestamps, segment, overlap)
        digest = hashlib.sha256((settings.weights + head.digest).encode()).hexdigest()
        settings = dataclasses.replace(settings, weights=digest)
        rows = output.with_name(f"{output.name}.rows.parquet")
        labeller = cast(HearModel, _Labeller(model_, head))
        how: dict[str, Any] = {"channel": channel, "workers": workers, "overwrite": overwrite}
        summary = embed_to(rows, sources, labeller, settings, **how)
        if not summary.done:
            first = summary.failures[0]
            raise ValueError(f"nothing could be read; the first: {first.path}: {first.reason}")
        table = Parquet().read(rows)
    (_write_csv if output.suffix.lower() == ".csv" else _write_parquet)(output, table, head)
    return Predictions(head, output, table, summary)


def _beside(where: str | Path | Head, head: Head) -> str | Path:
    """The weights that `finetune` wrote beside its head, if there are any."""
    if isinstance(where, str | Path) and head.settings.get("weights_name") == WEIGHTS_FILE:
        folder = Path(where) if Path(where).is_dir() else Path(where).parent
        if (folder / WEIGHTS_FILE).is_file():
            return folder
    return ""


class _Labeller:
    """A model whose embeddings are probabilities of labels, for `embed_to`."""

    def __init__(self, model: HearModel, head: Head) -> None:
        self._model, self._head = model, head
        self.scene_embedding_size = self.timestamp_embedding_size = len(head.labels)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode(self, pieces: Iterable[Piece]) -> Iterator[Tensor | Sums]:
        """As that of the model."""
        for found in self._model.encode(pieces):
            yield self._probabilities(found) if isinstance(found, Tensor) else found

    def pool(self, sums: Sums) -> Tensor:
        """As that of the model."""
        return self._probabilities(self._model.pool(sums)[None])[0]

    def _probabilities(self, embeddings: Tensor) -> Tensor:
        return torch.from_numpy(self._head.probabilities(embeddings.cpu().numpy()))


def _require_mean(where: str | Path, head: Head) -> None:
    if (pooling := head.settings["scene_pooling"]) != "mean":
        raise ValueError(
            f"{printable(where)} learnt on embeddings with --scene-pooling {pooling}, which "
            "timestamps do not have; use windows (--segment)"
        )


def _embedded(sources: Any) -> Table | None:
    """The embeddings, if the source is a Parquet output of `embed`, else None."""
    if not isinstance(sources, (str, Path)):
        several = list(sources) if isinstance(sources, (list, tuple)) else []
        return _embedded(several[0]) if len(several) == 1 else None
    path = os.fspath(sources)
    if not path.lower().endswith(".parquet") or not os.path.isfile(path):
        return None
    try:
        return Parquet().read(Path(path))
    except ValueError:  # a list of recordings
        return None


def _labelled(table: Table, head: Head) -> Table:
    def read(first: int, count: int) -> NDArray[np.floating]:
        return head.probabilities(table.read(first, count))

    how = table.settings, len(head.labels), np.dtype(np.float32), table.timestamps
    return Table(table.recordings, table.clips, *how, read=read)


def _label(head: Head, row: NDArray[np.floating]) -> str:
    if head.several:
        return ";".join(name for name, p in zip(head.labels, row, strict=True) if p >= 0.5)
    return head.labels[int(row.argmax())]


def _columns(table: Table, head: Head) -> tuple[dict[str, list[Any]], list[str]]:
    """Values for each clip, and the names of all columns of the result."""
    clips = clip_columns(table)
    names = list(clips)
    times = ["timestamp_ms"] if table.timestamps else []
    own = {*times, "label", "probability", *(f"p_{label}" for label in head.labels)}
    kept = [name for name in names[3:] if name not in own]
    labels = ["label", "probability", *(f"p_{label}" for label in head.labels)]
    return clips, [*names[:3], *times, *kept, *labels]


def _write_csv(output: Path, table: Table, head: Head) -> None:
    clips, names = _columns(table, head)
    cells = {name: list(map(csv_cell, values)) for name, values in clips.items()}
    with replaced(output) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(map(csv_cell, names))
        for index, block in table.indexed():
            for i, (clip, row) in enumerate(zip(index, block.rows, strict=True)):
                line: list[Any] = [cells[name][clip] for name in names if name in cells]
                if block.times_ms is not None:
                    line.insert(3, float(block.times_ms[i]))
                line += [csv_cell(_label(head, row)), *(f"{p:.6g}" for p in (row.max(), *row))]
                writer.writerow(line)


def _write_parquet(output: Path, table: Table, head: Head) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    clips, names = _columns(table, head)
    arrays = {name: pa.array(clips[name]) for name in names if name in clips}
    writer = None
    with replaced(output) as temporary:
        for index, block in table.indexed():
            columns: dict[str, Any] = {k: v.take(pa.array(index)) for k, v in arrays.items()}
            columns["timestamp_ms"] = block.times_ms
            columns["label"] = [_label(head, row) for row in block.rows]
            columns["probability"] = block.rows.max(1)
            columns |= {f"p_{x}": block.rows[:, i] for i, x in enumerate(head.labels)}
            part = pa.table({name: columns[name] for name in names})
            writer = writer or pq.ParquetWriter(temporary, part.schema)
            writer.write_table(part)
        if writer is not None:
            writer.close()


def write_label_files(
    predictions: Predictions, events: Iterable[Event], folder: Path, kind: str
) -> int:
    """Write a label file for each recording, also for those without events.

    Args:
        kind: "audacity" or "raven".

    Returns:
        The number of files; each has the name of its recording and the ending .txt.
    """
    table = predictions.table
    by_path: dict[str, list[Event]] = {path: [] for path in table.paths()}
    for event in events:
        by_path[event.path].append(event)
    names = dict(zip(table.paths(), (x.name for x in table.recordings), strict=True))
    taken: set[str] = set()
    for path, found in by_path.items():
        parts = [part for part in names[path].split("/") if part not in ("", ".", "..")]
        name = base = "/".join(parts) or "recording"
        while name in taken:
            name = f"{base}-{len(taken) + 1}"
        taken.add(name)
        found.sort(key=lambda event: (event.start, event.end))
        with replacing(folder / f"{name}.txt") as temporary:
            text = audacity_labels(found) if kind == "audacity" else raven_table(found)
            temporary.write_text(text, "utf-8")
    return len(by_path)
