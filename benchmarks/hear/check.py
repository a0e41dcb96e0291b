"""Find what is wrong with a HEAR task before hours are spent on it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas
import soundfile

from .task import METADATA, TRAIN_VALID_TEST, VOCABULARY, Task, read_task

SCENE_SCORES = ("top1_acc", "pitch_acc", "chroma_acc", "mAP", "d_prime", "aucroc")
EVENT_SCORES = (
    "event_onset_200ms_fms", "event_onset_50ms_fms", "event_onset_offset_50ms_20perc_fms",
    "segment_1s_er",
)  # fmt: skip
LENGTH_TOLERANCE = 0.01  # s
SHOWN = 20  # problems of a task that get a line


def check_task(folder: Path, rate: int | None = None) -> list[str]:
    """Problems of one task, each a line that begins with the path of the file.

    Args:
        folder: of the task.
        rate: sample rate of the audio that is checked; by default all that are there.
    """
    problems = list(_problems(folder, rate))
    if len(problems) > SHOWN:
        problems[SHOWN:] = [f"{folder}: {len(problems) - SHOWN} more problems"]
    return problems


def _problems(folder: Path, rate: int | None) -> Iterator[str]:
    try:
        task = read_task(folder)
    except ValueError as error:
        yield f"{folder / METADATA}: not readable as JSON: {error}"
        return
    if wrong := list(_metadata(task.metadata)):  # the rest depends on the metadata
        yield from (f"{folder / METADATA}: {message}" for message in wrong)
        return
    labels: set[str] = set()
    try:
        labels = _labels(folder / VOCABULARY)
    except (OSError, ValueError) as error:
        yield f"{folder / VOCABULARY}: {error}"
    found = sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())
    if not found or rate not in (None, *found):
        yield f"{folder}: no audio at {rate or 'any'} Hz, only at {found}"
    for split in task.splits:
        path = folder / f"{split}.json"
        try:
            listed = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            yield f"{path}: not readable as JSON: {error}"
            continue
        if not isinstance(listed, dict) or not listed:
            yield f"{path}: expected a JSON object of file names, with at least one"
            continue
        for name, given in listed.items():
            if message := _label_problem(task, given, labels):
                yield f"{path}: {name}: {message}"
        for each in found if rate is None else {rate} & {*found}:
            yield from _audio(task, folder / str(each) / split, each, list(listed))


def _metadata(metadata: Any) -> Iterator[str]:
    if not isinstance(metadata, dict):
        yield f"expected a JSON object, got {type(metadata).__name__}"
        return
    event = metadata.get("embedding_type") == "event"
    choices: dict[str, tuple[str, ...]] = {
        "embedding_type": ("scene", "event"),
        "prediction_type": ("multilabel",) if event else ("multiclass", "multilabel"),
        "split_mode": ("trainvaltest", "new_split_kfold", "presplit_kfold"),
    }
    for key, valid in choices.items():
        if metadata.get(key) not in valid:
            yield f"{key} must be one of {', '.join(valid)}, got {metadata.get(key)!r}"
    if missing := {"task_name", "sample_duration"} - set(metadata):
        yield f"{' and '.join(sorted(missing))} missing"
    elif not isinstance(metadata["sample_duration"], (int, float, type(None))):
        yield f"sample_duration must be seconds or null, got {metadata['sample_duration']!r}"
    scores, allowed = metadata.get("evaluation"), EVENT_SCORES if event else SCENE_SCORES
    if not isinstance(scores, list) or not scores or not set(scores) <= set(allowed):
        yield f"evaluation must list some of {', '.join(allowed)}, got {scores!r}"
    splits = metadata.get("splits")
    if not isinstance(splits, list) or len(set(splits)) < 3:
        yield f"splits must name three or more, got {splits!r}"
    elif metadata.get("split_mode") == "trainvaltest" and set(TRAIN_VALID_TEST) - set(splits):
        yield f"splits must name {', '.join(TRAIN_VALID_TEST)}, got {splits!r}"


def _labels(path: Path) -> set[str]:
    """The labels as the kit reads them, with pandas: "NA" is a missing value, "007" is 7."""
    table = pandas.read_csv(path)
    if not {"idx", "label"} <= set(table):
        raise ValueError(f"the columns are {list(table)}, expected idx and label")
    if sorted(table["idx"]) != list(range(len(table))):
        raise ValueError(f"idx must be 0 to {len(table) - 1}, each once")
    if (missing := table["label"].isna()).any():
        rows = list(table["idx"][missing])
        raise ValueError(f"pandas reads the labels of {rows} as missing values: rename them")
    if (again := table["label"].duplicated()).any():
        raise ValueError(f"labels that are there twice: {list(table['label'][again])}")
    return set(table["label"].astype(str))


def _label_problem(task: Task, given: Any, labels: set[str]) -> str | None:
    """What is wrong with the labels of a clip, or its events."""
    if not isinstance(given, list):
        return f"expected a list, got {given!r}"
    if task.metadata["embedding_type"] == "event":
        for event in given:
            if not isinstance(event, dict) or not {"label", "start", "end"} <= set(event):
                return f"expected events with label, start and end, got {event!r}"
            if not 0 <= event["start"] <= event["end"]:
                return f"expected 0 <= start <= end in ms, got {event!r}"
        given = [event["label"] for event in given]
    elif task.metadata["prediction_type"] == "multiclass" and len(given) != 1:
        return f"expected exactly one label, got {given!r}"
    unknown = set(map(str, given)) - labels
    return f"not in {VOCABULARY}: {sorted(unknown)}" if unknown and labels else None


def _audio(task: Task, folder: Path, rate: int, names: list[str]) -> Iterator[str]:
    """Problems of the clips of a split; only the headers of the files are read."""
    seconds, lengths = task.metadata["sample_duration"], set()
    for path in (folder / name for name in names):
        try:
            info = soundfile.info(path)
        except (RuntimeError, OSError) as error:
            wrong = f"not readable as audio: {error}" if path.exists() else "missing"
            yield f"{path}: {wrong}"
            continue
        lengths.add(info.frames)
        if info.samplerate != rate:
            yield f"{path}: sampled at {info.samplerate} Hz in a folder for {rate} Hz"
        elif info.channels != 1:
            yield f"{path}: {info.channels} channels, expected one"
        elif seconds is not None and abs(info.duration - seconds) > LENGTH_TOLERANCE:
            yield f"{path}: {info.duration:g} s long, but sample_duration is {seconds:g} s"
    if seconds is not None and len(lengths) > 1:  # the kit puts them into batches
        yield f"{folder}: the clips are {min(lengths)} to {max(lengths)} samples long, not equally"
