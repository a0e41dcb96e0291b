"""Label recordings of any number and length, in bounded memory.

`embed` runs with probabilities instead of embeddings and writes them into a Parquet file beside the
result. So a killed run continues, also in the middle of a recording.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..checkpoints.hub import WEIGHTS_FILE
from ..embed.formats.common import csv_cell, replaced
from ..embed.formats.parquet import Parquet, arrow_batches
from ..embed.run import Summary, embed_to, is_source
from ..embed.settings import settings_of
from ..embed.table import Table
from ..extras import need
from ..files import printable
from ..model import HearModel
from ..pooling import Sums
from ..timeline import Piece
from .events import Event, events_of
from .features import Derived
from .head import Head, load_head
from .loading import Model, require_same_model, same_model

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
        head: the classifier.
        output: path of the table.
        table: the (c,) probabilities of all rows.
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
            labels = _labels(self.head, block.rows)
            for i, time, label, row in zip(index, times, labels, block.rows, strict=True):
                clip = self.table.clips[i]
                where = paths[clip.recording], clip.start, clip.end, time
                yield Prediction(*where, label, np.asarray(row, np.float32))

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
    output = Path(output)
    if output.suffix.lower() not in SUFFIXES:
        raise ValueError(f"--output must end in one of {list(SUFFIXES)}, got {str(output)!r}")
    if is_source(output, sources):
        raise ValueError(f"{printable(output)} is an input, too; choose another output")
    if not isinstance(head, Head):
        folder = Path(head) if Path(head).is_dir() else Path(head).parent
        head = load_head(head)
        if head.settings["weights_name"] == WEIGHTS_FILE and (folder / WEIGHTS_FILE).is_file():
            model = model or folder  # `finetune` has written both
    summary, table = None, _embedded(sources)
    if timestamps or (table is not None and table.timestamps):
        _require_mean(where, head)
    if table is not None:
        if segment is not None or timestamps:
            raise ValueError(
                "the source is an output of embed, which determines windows and timestamps; leave "
                "out segment and timestamps"
            )
        made = table.settings | ({"scene_pooling": "mean"} if table.timestamps else {})
        require_same_model(where, head.settings, made, printable(str(sources)))
        table = _labelled(table, head)
    else:
        found, name = same_model(where, head.settings, model, device)
        settings = settings_of(found, f"{name} with a head", timestamps, segment, overlap)
        digest = hashlib.sha256((settings.weights + head.digest).encode()).hexdigest()
        settings = dataclasses.replace(settings, weights=digest)
        rows = output.with_name(f"{output.name}.rows.parquet")
        labeller = cast(HearModel, _Labeller(found, head))
        how: dict[str, Any] = {"channel": channel, "workers": workers, "overwrite": overwrite}
        summary = embed_to(rows, sources, labeller, settings, **how)
        if not summary.done:
            first = summary.failures[0]
            raise ValueError(f"nothing could be read; the first: {first.path}: {first.reason}")
        table = Parquet().read(rows)
    _write(output, table, head)
    return Predictions(head, output, table, summary)


def _require_mean(where: str | Path, head: Head) -> None:
    if (pooling := head.settings["scene_pooling"]) != "mean":
        raise ValueError(
            f"{printable(where)} learnt on embeddings with --scene-pooling {pooling}, which "
            "timestamps do not have; use windows (--segment), or 'probe --scene-pooling mean'"
        )


def _embedded(sources: Any) -> Table | None:
    """The embeddings, if the only source is a Parquet output of `embed`, else None."""
    if isinstance(sources, (list, tuple)) and len(sources) == 1:
        sources = sources[0]
    if not isinstance(sources, (str, Path)):
        return None
    path = Path(sources)
    if path.suffix.lower() != ".parquet" or not path.is_file():
        return None
    try:
        return Parquet().read(path)
    except ValueError:  # a list of recordings
        return None


def _labelled(table: Table, head: Head) -> Table:
    """A table of probabilities, which are computed when they are read."""

    def read(first: int, count: int) -> NDArray[np.floating]:
        return head.probabilities(table.read(first, count))

    how = table.settings, len(head.labels), np.dtype(np.float32), table.timestamps
    return Table(table.recordings, table.clips, *how, read=read)


class _Labeller(Derived):
    """A model whose embeddings are probabilities of labels."""

    def __init__(self, model: HearModel, head: Head) -> None:
        super().__init__(model, len(head.labels))
        self.head = head

    def encode(self, pieces: Iterable[Piece]) -> Iterator[Tensor | Sums]:
        """As that of the model; sums are those of its embeddings."""
        for found in self.model.encode(pieces):
            yield self._probabilities(found) if isinstance(found, Tensor) else found

    def pool(self, sums: Sums) -> Tensor:
        """As that of the model."""
        return self._probabilities(self.model.pool(sums)[None])[0]

    def _probabilities(self, embeddings: Tensor) -> Tensor:
        return torch.from_numpy(self.head.probabilities(embeddings.cpu().numpy()))


def _labels(head: Head, rows: NDArray[np.floating]) -> list[str]:
    """The label of each row, see `Prediction`."""
    names = np.array(head.labels, object)
    if head.several:
        return [";".join(names[row >= 0.5]) for row in rows]
    return list(names[rows.argmax(1)])


def _write(output: Path, table: Table, head: Head) -> None:
    """Write the columns of `embed`, with labels and probabilities instead of the embeddings."""
    import pyarrow.parquet as pq

    with replaced(output) as temporary:
        if output.suffix.lower() == ".csv":
            with temporary.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, lineterminator="\n")
                for number, part in enumerate(_parts(table, head, digits=6)):
                    if not number:
                        writer.writerow(map(csv_cell, part.column_names))
                    lines = zip(*part.to_pydict().values(), strict=True)
                    writer.writerows(map(csv_cell, line) for line in lines)
        else:
            parts = _parts(table, head)
            first = next(parts)
            with pq.ParquetWriter(temporary, first.schema) as writer:
                for part in itertools.chain([first], parts):
                    writer.write_table(part)


def _parts(table: Table, head: Head, digits: int | None = None) -> Iterator[Any]:
    """The result in Arrow tables, of which there is at least one; probabilities may be rounded."""
    import pyarrow as pa

    for batch in arrow_batches(table, plain=True):
        flat = batch["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        rows = flat.reshape(-1, len(head.labels))
        if digits is not None:
            rows = rows.astype(np.float64).round(digits)
        columns = {"label": _labels(head, rows), "probability": rows.max(1)}
        columns |= {f"p_{label}": rows[:, i] for i, label in enumerate(head.labels)}
        kept = [name for name in batch.column_names if name not in (*columns, "embedding")]
        yield pa.table({name: batch[name] for name in kept} | columns)
