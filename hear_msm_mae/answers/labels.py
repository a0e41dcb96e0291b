"""Labelled recordings: a table with a column of labels, or a folder with one sub-folder a label."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..embed.lists import LIST_SUFFIXES
from ..embed.remote import is_remote
from ..embed.sources import Failure, Recording, find_recordings
from ..files import printable

logger = logging.getLogger(__name__)

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "validation", "val", "dev"), "valid"),
    "test": "test",
}
_SHOWN = 5


@dataclasses.dataclass
class Labelled:
    """n recordings and their labels.

    Attributes:
        recordings: the recordings.
        labels: labels of each recording: exactly one, unless `several` is set.
        groups: "group NAME" of each recording, such as a session or an animal, or "file PATH".
        splits: "train", "valid" or "test" for each recording; empty if they are not split.
        several: whether a recording may have several labels or none.
    """

    recordings: list[Recording]
    labels: list[tuple[str, ...]]
    groups: list[str]
    splits: list[str]
    several: bool

    @property
    def names(self) -> list[str]:
        """All labels, sorted."""
        return sorted({label for labels in self.labels for label in labels})

    @property
    def targets(self) -> NDArray[np.bool_]:
        """(n, c) booleans: whether a recording has a label."""
        from sklearn.preprocessing import MultiLabelBinarizer

        binarizer = MultiLabelBinarizer(classes=self.names)
        return np.asarray(binarizer.fit_transform(self.labels), bool)

    def select(self, keep: Sequence[int] | NDArray[np.int64]) -> Labelled:
        """Some of the recordings."""
        columns = (self.recordings, self.labels, self.groups, self.splits)
        kept: list[Any] = [values and [values[i] for i in keep] for values in columns]
        return Labelled(kept[0], kept[1], kept[2], kept[3], self.several)


def read_labels(source: str | Path) -> Labelled:
    """Read labelled recordings.

    Args:
        source: a folder whose sub-folders are the labels, or a `.csv`, `.tsv` or `.parquet` list of
            recordings (see `hear_msm_mae.embed.lists.read_list`) with a column `label`, or
            `labels` for several between semicolons, and optional columns `group` and `split`
            (train, valid or test).

    Raises:
        FileNotFoundError: the folder or table does not exist.
        ValueError: files are missing, there are fewer than two labels, labels differ only in case
            or spaces, a label is missing, or a group is on both sides of the split. The message
            says what to do.
    """
    path, shown = os.fspath(source), printable(source)
    folder = os.path.isdir(path)
    if not os.path.exists(path):
        raise FileNotFoundError(f"no such file or folder: {shown}")
    if not folder and not path.lower().endswith(LIST_SUFFIXES):
        raise ValueError(
            f"{shown} is neither a folder with a sub-folder for each label nor a table "
            f"({', '.join(LIST_SUFFIXES)}) with the columns path and label"
        )
    problems: list[Failure] = []
    found = find_recordings(path, problems)
    for problem in problems:
        logger.warning("left out: %s: %s", printable(problem.path), problem.reason)
    labelled = _of_folder(shown, found) if folder else _of_table(shown, found)
    if not labelled.names:
        raise ValueError(f"{shown} has no labels at all; fill in the column 'labels'")
    _require_one_spelling(shown, labelled)
    if len(labelled.names) < 2 and not labelled.several:
        raise ValueError(
            f"{shown} has one label only ({labelled.names[0]!r}); a classifier needs recordings of "
            "at least two"
        )
    _require_apart(shown, labelled)
    return labelled


def _of_folder(shown: str, found: list[Recording]) -> Labelled:
    below = [x for x in found if "/" in x.name]
    if not below:
        raise ValueError(
            f"{shown} has no sub-folders with audio; put the recordings of each label into a "
            "folder with its name"
        )
    if beside := len(found) - len(below):
        logger.warning("%d files beside the sub-folders have no label and are left out", beside)
    labels = [(printable(x.name.split("/")[0]).strip(),) for x in below]
    return Labelled(below, list(labels), [f"file {x.where}" for x in below], [], False)


def _of_table(shown: str, found: list[Recording]) -> Labelled:
    rows = [f"{printable(x.path)} (row {x.row + 1})" for x in found]
    missing = [
        row
        for x, row in zip(found, rows, strict=True)
        if not is_remote(x.path) and not os.path.isfile(x.path)
    ]
    if missing:
        raise ValueError(
            f"{len(missing)} of the {len(found)} recordings of {shown} do not exist as files: "
            f"{_some(missing)}; correct the paths (they count from the current folder or that of "
            "the table) or remove the rows"
        )
    if any(x.channel == "each" for x in found):
        raise ValueError(f"{shown}: name one channel for each row, 'each' has no single embedding")
    columns = {name.casefold(): name for name in found[0].columns}
    present = [name for name in ("label", "labels") if name in columns]
    if len(present) != 1:
        raise ValueError(
            f"{shown} needs one column 'label', or 'labels' for several between semicolons; its "
            f"columns are {['path', *columns.values()]}"
        )

    def cells(name: str) -> list[str]:
        """Texts of a column; missing ones are empty."""
        values = [x.columns.get(columns.get(name, "")) for x in found]
        texts = ["" if value is None else printable(str(value)).strip() for value in values]
        return ["" if text.casefold() == "nan" else text for text in texts]

    several = present == ["labels"]
    texts = cells(present[0])
    empty = [row for text, row in zip(texts, rows, strict=True) if not text]
    if empty and not several:
        raise ValueError(
            f"{shown}: {len(empty)} rows have no label (empty or NaN): {_some(empty)}; write one, "
            "or remove the rows"
        )
    labels = [tuple(_parts(text)) if several else (text,) for text in texts]
    # A recording without a group is one for itself.
    groups = [
        f"group {group}" if group else f"file {x.where}"
        for group, x in zip(cells("group"), found, strict=True)
    ]
    return Labelled(found, labels, groups, _splits(shown, cells("split")), several)


def _parts(text: str) -> Iterable[str]:
    """Labels between semicolons or bars; labels may hold commas."""
    return dict.fromkeys(part.strip() for part in re.split("[;|]", text) if part.strip())


def _splits(shown: str, cells: Sequence[str]) -> list[str]:
    if not any(cells):
        return []
    splits = [SPLITS.get(cell.casefold(), "") for cell in cells]
    if "" in splits:
        row = splits.index("")
        raise ValueError(
            f"{shown}, row {row + 1}: split must be train, valid or test, got {cells[row]!r}; "
            "remove the column to have the recordings divided"
        )
    if not {"train", "test"} <= set(splits):
        raise ValueError(f"{shown}: the column 'split' needs both train and test")
    return splits


def _require_one_spelling(shown: str, labelled: Labelled) -> None:
    counts = Counter(label for labels in labelled.labels for label in labels)
    alike: dict[str, list[str]] = defaultdict(list)
    for label in counts:
        plain = unicodedata.normalize("NFKC", label).casefold()
        alike[" ".join(re.split(r"[\s_-]+", plain))].append(label)
    for spellings in alike.values():
        if len(spellings) > 1:
            several = ", ".join(f"{label!r} ({counts[label]})" for label in spellings)
            raise ValueError(
                f"{shown} spells a label in several ways: {several}; write it in one way (case, "
                "spaces and hyphens count)"
            )


def _require_apart(shown: str, labelled: Labelled) -> None:
    """Raise ValueError if a file is in two groups, or a group in two parts of the split."""
    group_of: dict[str, str] = {}
    for recording, group in zip(labelled.recordings, labelled.groups, strict=True):
        if (other := group_of.setdefault(recording.where, group)) != group:
            raise ValueError(
                f"{shown}: {printable(recording.path)} is in two groups ({other!r}, {group!r}); "
                "put its rows into one"
            )
    split_of: dict[str, str] = {}
    for group, split in zip(labelled.groups, labelled.splits, strict=False):
        if (other := split_of.setdefault(group, split)) != split:
            raise ValueError(
                f"{shown}: {group} is in {other} and in {split}; what belongs together must be on "
                "one side of the split"
            )


def _some(items: Sequence[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more
