"""Audio of a HEAR task before stage 1, and the embeddings that stage 1 made of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from .tasks_format import Task

LENGTH_TOLERANCE = 0.01  # s
BATCH = 1024  # of the kit's predictor; a last batch of one clip crashes its BatchNorm
ROWS = 4096  # of embeddings, read at once
SHOWN = 20  # problems of one kind and split that get a line of their own


@dataclass(frozen=True)
class Problem:
    """What is wrong with which file; a harmless one does not stop a run."""

    path: Path
    message: str
    harmless: bool = False

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


def audio_problems(
    task: Task, listed: dict[str, dict[str, Any]], rate: int | None
) -> list[Problem]:
    """Problems of the audio of the splits `listed`, at one sample rate or at all there are."""
    rates = sorted(int(path.name) for path in task.folder.iterdir() if path.name.isdigit())
    if not rates:
        return [Problem(task.folder, "no folder of audio, called by its sample rate, e.g. 16000")]
    if rate is not None and rate not in rates:
        message = f"no such folder; the module wants {rate} Hz, and there is {rates}"
        return [Problem(task.folder / str(rate), message)]
    problems: list[Problem] = []
    for chosen in rates if rate is None else [rate]:
        for split, content in listed.items():
            problems += _audio(task, chosen, split, content)
    return problems


def _audio(task: Task, rate: int, split: str, content: dict[str, Any]) -> list[Problem]:
    folder = task.folder / str(rate) / split
    if not folder.is_dir():
        return [Problem(folder, f"the audio of the split {split} is missing: no such folder")]
    present = {path.name for path in folder.iterdir()}
    problems = [
        Problem(folder / name, f"missing, but {split}.json names it")
        for name in content if name not in present
    ]  # fmt: skip
    extra = [
        Problem(folder / name, f"{split}.json does not name it, so it is not used", harmless=True)
        for name in sorted(present - set(content))
    ]
    seconds = task.metadata["sample_duration"]
    lengths: dict[str, int] = {}
    for name in (name for name in content if name in present):
        path = folder / name
        try:
            info = soundfile.info(path)
        except (RuntimeError, OSError) as error:
            problems.append(Problem(path, f"not readable as audio: {error}"))
            continue
        message = None
        if info.samplerate != rate:
            message = f"sampled at {info.samplerate} Hz in a folder for {rate} Hz"
        elif info.channels != 1:
            message = f"{info.channels} channels, expected one"
        elif info.frames == 0:
            message = "holds no audio"
        elif seconds is not None and abs(info.duration - seconds) > LENGTH_TOLERANCE:
            message = f"{info.duration:g} s long, but sample_duration is {seconds:g} s"
        else:
            lengths[name] = info.frames
            start = _last_start(content[name]) if task.metadata["embedding_type"] == "event" else 0
            if start > 1000 * info.duration:
                message = f"ends after {info.duration:g} s, but an event starts at {start:g} ms"
        if message:
            problems.append(Problem(path, message))
    if seconds is not None and lengths:
        usual = round(seconds * rate)
        if usual not in lengths.values():  # resampled, it may be a few samples off everywhere
            [(usual, _)] = Counter(lengths.values()).most_common(1)
        problems += [
            Problem(folder / name, f"{frames} samples long, other clips {usual}")
            for name, frames in lengths.items() if frames != usual
        ]  # fmt: skip
    return shortened(problems, folder) + shortened(extra, folder)


def _last_start(events: Any) -> float:
    """Start of the last event; 0 for what `_event_labels` has reported."""
    if not isinstance(events, list):
        return 0.0
    starts = [event.get("start") for event in events if isinstance(event, dict)]
    return max((start for start in starts if isinstance(start, (int, float))), default=0.0)


def shortened(problems: list[Problem], path: Path) -> list[Problem]:
    """The first problems, and how many more there are."""
    if len(problems) <= SHOWN:
        return problems
    more = f"{len(problems) - SHOWN} more problems of this kind"
    return [*problems[:SHOWN], Problem(path, more, harmless=problems[0].harmless)]


# ---------------------------------------------------------------------------------------------
# Embeddings
# ---------------------------------------------------------------------------------------------
def check_embeddings(task: Task, folder: Path) -> list[Problem]:
    """Find what stage 2 would crash at without naming a file.

    Args:
        task: what was embedded.
        folder: where the kit wrote its embeddings.
    """
    problems: list[Problem] = []
    sizes: dict[str, int] = {}
    for split in task.splits:
        rows, width = json.loads((folder / f"{split}.embedding-dimensions.json").read_text())
        sizes[split] = rows
        file = folder / f"{split}.embeddings.npy"  # without a header, in spite of its name
        vectors = np.memmap(file, np.float32, "r", shape=(rows, width))
        if not all(np.isfinite(vectors[i : i + ROWS]).all() for i in range(0, rows, ROWS)):
            problems += _not_finite(task, folder, split)
    unit = "frames" if task.metadata["embedding_type"] == "event" else "clips"
    return [*problems, *batch_of_one(task, sizes, unit)]


def _not_finite(task: Task, folder: Path, split: str) -> list[Problem]:
    """The first file of a split whose embedding is not finite: it tells what to look at."""
    for name in json.loads((task.folder / f"{split}.json").read_text()):
        values = np.load(folder / split / f"{name}.embedding.npy", mmap_mode="r")
        if bad := int(np.count_nonzero(~np.isfinite(values))):
            message = f"{bad} of the {values.size} values of its embedding are NaN or infinite"
            return [Problem(Path(split, name), message)]
    return []


def batch_of_one(task: Task, sizes: Mapping[str, int], unit: str) -> Iterator[Problem]:
    """Training sets whose last batch holds a single vector."""
    for splits in task.training_sets:
        total = sum(sizes[split] for split in splits)
        if total % BATCH == 1:
            message = (
                f"the training set {' + '.join(splits)} has {total} {unit}; its last batch of "
                f"{BATCH} would hold one, at which the kit crashes (BatchNorm): leave out a clip"
            )
            yield Problem(task.folder / f"{splits[0]}.json", message)
