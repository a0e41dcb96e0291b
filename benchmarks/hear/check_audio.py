"""Is the audio that a HEAR task names there, and of the right rate and length?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile

from .tasks_format import Task

LENGTH_TOLERANCE = 0.01  # s
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
