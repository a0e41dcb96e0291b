"""Find what is wrong with a folder of HEAR tasks before hours are spent on it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .check_audio import Problem, audio_problems, shortened
from .tasks_format import (
    EVENT_SCORES,
    METADATA,
    SCENE_SCORES,
    SPLIT_MODES,
    TRAIN_VALID_TEST,
    VOCABULARY,
    Task,
    read_vocabulary,
    task_folders,
)

BATCH = 1024  # of the kit's predictor; a last batch of one clip crashes its BatchNorm
# Labels that pandas, with which the kit reads the vocabulary, takes for "no value".
# fmt: off
NOT_A_LABEL = frozenset({
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
    "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
})
# fmt: on


def check_tasks(
    tasks_dir: Path, names: Sequence[str] | None = None, rate: int | None = None
) -> list[Problem]:
    """Problems of the tasks of a folder.

    Args:
        tasks_dir: folder with one folder per task.
        names: check only these.
        rate: the sample rate that will be used; by default every one that is there.
    """
    if not tasks_dir.is_dir():
        return [Problem(tasks_dir, "no such folder")]
    folders = task_folders(tasks_dir)
    problems = [
        Problem(path, f"not a task (no {METADATA}), but the kit would take it for one: move it out",
                harmless=True)
        for path in sorted(tasks_dir.iterdir()) if path not in folders
    ]  # fmt: skip
    known = [folder.name for folder in folders]
    for name in names or ():
        if name not in known:
            has = ", ".join(known) or "no task at all"
            problems.append(Problem(tasks_dir / name, f"no such task; {tasks_dir} has {has}"))
    if not folders:
        problems.append(Problem(tasks_dir, f"holds no task, that is, no folder with {METADATA}"))
    for folder in folders:
        if names is None or folder.name in names:
            problems += check_task(folder, rate)
    return problems


def check_task(folder: Path, rate: int | None = None) -> list[Problem]:
    """Problems of one task."""
    path = folder / METADATA
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        return [Problem(path, f"not readable as JSON: {error}")]
    if problems := list(_metadata(path, metadata)):
        return problems  # the rest depends on it
    task = Task(folder, metadata)
    problems, labels = _vocabulary(folder / VOCABULARY)
    listed: dict[str, dict[str, Any]] = {}
    for split in task.splits:
        found, content = _split(task, split, labels)
        problems += found
        if content is not None:
            listed[split] = content
    problems += audio_problems(task, listed, rate)
    if metadata["embedding_type"] == "scene" and len(listed) == len(task.splits):
        sizes = {split: len(content) for split, content in listed.items()}
        problems += batch_of_one(task, sizes, "clips")
    return problems


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


def _metadata(path: Path, metadata: Any) -> Iterator[Problem]:
    if not isinstance(metadata, dict):
        yield Problem(path, f"expected a JSON object, got {type(metadata).__name__}")
        return
    event = metadata.get("embedding_type") == "event"
    choices: dict[str, tuple[str, ...]] = {
        "embedding_type": ("scene", "event"),
        "prediction_type": ("multilabel",) if event else ("multiclass", "multilabel"),
        "split_mode": SPLIT_MODES,
    }
    for key, valid in choices.items():
        if metadata.get(key) not in valid:
            got = metadata.get(key, "nothing")
            yield Problem(path, f"{key} must be one of {', '.join(valid)}, got {got!r}")
    if not isinstance(metadata.get("task_name"), str):
        yield Problem(path, "task_name is missing")
    if "sample_duration" not in metadata:
        yield Problem(path, "sample_duration is missing (seconds, or null)")
    elif (seconds := metadata["sample_duration"]) is not None and not _positive(seconds):
        yield Problem(path, f"sample_duration must be seconds or null, got {seconds!r}")
    scores = metadata.get("evaluation")
    allowed = EVENT_SCORES if event else SCENE_SCORES
    if not isinstance(scores, list) or not scores or any(s not in allowed for s in scores):
        yield Problem(path, f"evaluation must list some of {', '.join(allowed)}, got {scores!r}")
    splits = metadata.get("splits")
    if not isinstance(splits, list) or not all(isinstance(s, str) for s in splits):
        yield Problem(path, f"splits must be a list of names, got {splits!r}")
    elif len(set(splits)) < len(splits):
        yield Problem(path, f"splits names one twice: {splits}")
    elif metadata.get("split_mode") == "trainvaltest":
        for split in sorted(set(TRAIN_VALID_TEST) - set(splits)):
            yield Problem(path, f"the split {split} is missing in splits: {splits}")
    elif len(splits) < 3:
        yield Problem(path, f"{len(splits)} fold(s) are too few: one to test, one to validate")


def _positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


def _vocabulary(path: Path) -> tuple[list[Problem], frozenset[str] | None]:
    """Problems of the vocabulary, and its labels if it can be read."""
    try:
        rows = read_vocabulary(path)
    except (OSError, ValueError) as error:
        return [Problem(path, f"not readable: {error}")], None
    problems = []
    if sorted(idx for idx, _ in rows) != sorted(map(str, range(len(rows)))):
        problems.append(Problem(path, f"idx must be 0 to {len(rows) - 1}, each once"))
    labels = [label for _, label in rows]
    problems += [
        Problem(path, f"label {label!r} is there {count} times")
        for label, count in Counter(labels).items() if count > 1
    ]  # fmt: skip
    problems += [
        Problem(path, f"label {label!r} would be read as a missing value: rename it")
        for label in labels if label in NOT_A_LABEL
    ]  # fmt: skip
    if labels and all(label.isdigit() for label in labels):
        problems += [
            Problem(path, f"label {label!r} would be read as the number {int(label)}: rename it")
            for label in labels if str(int(label)) != label
        ]  # fmt: skip
    return problems, frozenset(labels)


def _split(
    task: Task, split: str, labels: frozenset[str] | None
) -> tuple[list[Problem], dict[str, Any] | None]:
    """Problems of <split>.json, and its content if it is a mapping."""
    path = task.folder / f"{split}.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return [Problem(path, f"the split {split} is missing: no such file")], None
    except (OSError, ValueError) as error:
        return [Problem(path, f"not readable as JSON: {error}")], None
    if not isinstance(content, dict) or not content:
        return [Problem(path, "expected a JSON object of file names, with at least one")], None
    check = _event_labels if task.metadata["embedding_type"] == "event" else _scene_labels
    problems = []
    for name, given in content.items():
        if Path(name).name != name:
            problems.append(Problem(path, f"{name}: a file name must not hold a folder"))
        elif message := check(task, given, labels):
            problems.append(Problem(path, f"{name}: {message}"))
    return shortened(problems, path), content


def _scene_labels(task: Task, given: Any, labels: frozenset[str] | None) -> str | None:
    if not isinstance(given, list):
        return f"expected a list of labels, got {given!r}"
    if task.metadata["prediction_type"] == "multiclass" and len(given) != 1:
        return f"expected exactly one label, got {given!r}"
    unknown = [label for label in given if labels is not None and str(label) not in labels]
    return f"not in {VOCABULARY}: {unknown}" if unknown else None


def _event_labels(task: Task, given: Any, labels: frozenset[str] | None) -> str | None:
    if not isinstance(given, list):
        return f"expected a list of events, got {given!r}"
    for event in given:
        if not isinstance(event, dict) or not {"label", "start", "end"} <= set(event):
            return f"expected events with label, start and end, got {event!r}"
        if labels is not None and str(event["label"]) not in labels:
            return f"not in {VOCABULARY}: {event['label']!r}"
        times = (event["start"], event["end"])
        if not all(isinstance(t, (int, float)) for t in times) or not 0 <= times[0] <= times[1]:
            return f"expected 0 <= start <= end in ms, got {event!r}"
    return None
