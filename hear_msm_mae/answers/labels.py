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
from ..embed.sources import Recording, find_recordings
from ..files import printable

logger = logging.getLogger(__name__)

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "validation", "val", "dev"), "valid"),
    "test": "test",
}
_SEVERAL = re.compile("[;|]")  # between the labels of one recording; labels may hold commas
_SHOWN = 5


@dataclasses.dataclass
class Labelled:
    """n recordings and their labels.

    Attributes:
        recordings: the recordings.
        labels: labels of each recording: exactly one, unless `several` is set.
        several: whether a recording may have several labels or none.
        groups: group of each recording, such as a session or an animal; by default its file.
        grouped: whether the table has a column with groups.
        splits: "train", "valid" or "test" for each recording; None if the table has no such column.
    """

    recordings: list[Recording]
    labels: list[tuple[str, ...]]
    several: bool
    groups: list[str]
    grouped: bool = False
    splits: list[str] | None = None

    @property
    def names(self) -> list[str]:
        """All labels, sorted."""
        return sorted({label for labels in self.labels for label in labels})

    @property
    def targets(self) -> NDArray[np.bool_]:
        """(n, c) booleans: whether a recording has a label."""
        place = {name: i for i, name in enumerate(self.names)}
        targets = np.zeros((len(self.labels), len(place)), bool)
        for row, labels in zip(targets, self.labels, strict=True):
            row[[place[label] for label in labels]] = True
        return targets

    def select(self, keep: Sequence[int] | NDArray[np.int64]) -> Labelled:
        """Some of the recordings."""
        parts: list[Any] = [
            values and [values[i] for i in keep]
            for values in (self.recordings, self.labels, self.groups, self.splits)
        ]
        return Labelled(parts[0], parts[1], self.several, parts[2], self.grouped, parts[3])


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
    path = os.fspath(source)
    folder = os.path.isdir(path)
    if not folder and not path.lower().endswith(LIST_SUFFIXES):
        raise ValueError(
            f"{printable(path)} is neither a folder with a sub-folder for each label nor a table "
            f"({', '.join(LIST_SUFFIXES)}) with the columns path and label"
        )
    found = find_recordings(path)
    labelled = _of_folder(path, found) if folder else _of_table(path, found)
    _require_spelling(printable(path), labelled.labels)
    if len(labelled.names) < 2 and not labelled.several:
        raise ValueError(
            f"{printable(path)} has one label only ({labelled.names[0]!r}); a classifier needs "
            "recordings of at least two"
        )
    if not labelled.names:
        raise ValueError(f"{printable(path)} has no labels at all; fill in the column 'labels'")
    _require_apart(printable(path), labelled)
    return labelled


def _of_folder(path: str, found: list[Recording]) -> Labelled:
    below = [recording for recording in found if "/" in recording.name]
    if not below:
        raise ValueError(
            f"{printable(path)} has no sub-folders with audio; put the recordings of each label "
            "into a folder with its name"
        )
    if len(below) < len(found):
        logger.warning(
            "%d files beside the sub-folders have no label and are left out",
            len(found) - len(below),
        )
    labels: list[tuple[str, ...]] = [
        (printable(recording.name.split("/")[0]).strip(),) for recording in below
    ]
    return Labelled(below, labels, False, [recording.where for recording in below])


def _of_table(path: str, found: list[Recording]) -> Labelled:
    shown = printable(path)
    missing = [
        f"{printable(x.path)} (row {x.row + 1})"
        for x in found
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
    several = present[0] == "labels"

    def cells(name: str) -> list[str | None]:
        values = [x.columns[columns[name]] for x in found] if name in columns else []
        texts = [None if value is None else str(value).strip() for value in values]
        return [None if text and text.casefold() == "nan" else text or None for text in texts]

    texts = cells(present[0])
    empty = [f"row {i + 1} ({printable(found[i].path)})" for i, x in enumerate(texts) if x is None]
    if empty and not several:
        raise ValueError(
            f"{shown}: {len(empty)} rows have no label (empty or NaN): {_some(empty)}; write one, "
            "or remove the rows"
        )
    labels = [tuple(_parts(x)) if several else (x or "",) for x in texts]
    groups = cells("group") or [None] * len(found)
    return Labelled(
        found,
        labels,
        several,
        # A recording without a group is one for itself; the prefixes keep the two apart.
        [f"group {g}" if g else f"file {x.where}" for g, x in zip(groups, found, strict=True)],
        any(groups),
        _splits(shown, cells("split")),
    )


def _parts(text: str | None) -> Iterable[str]:
    parts = (part.strip() for part in _SEVERAL.split(text or ""))
    return dict.fromkeys(part for part in parts if part)


def _splits(shown: str, cells: Sequence[str | None]) -> list[str] | None:
    if not any(cells):
        return None
    splits = []
    for row, cell in enumerate(cells, 1):
        if cell is None or cell.casefold() not in SPLITS:
            raise ValueError(
                f"{shown}, row {row}: split must be train, valid or test, got {cell!r}; remove the "
                "column to have the recordings divided"
            )
        splits.append(SPLITS[cell.casefold()])
    if not {"train", "test"} <= set(splits):
        raise ValueError(f"{shown}: the column 'split' needs both train and test")
    return splits


def _require_spelling(shown: str, labels: Sequence[tuple[str, ...]]) -> None:
    counts = Counter(label for several in labels for label in several)
    alike: dict[str, list[str]] = defaultdict(list)
    for label in counts:
        plain = unicodedata.normalize("NFKC", label).casefold()
        alike[" ".join(re.split(r"[\s_-]+", plain))].append(label)
    if spellings := [x for x in alike.values() if len(x) > 1]:
        several = ", ".join(f"{label!r} ({counts[label]})" for label in spellings[0])
        raise ValueError(
            f"{shown} spells a label in several ways: {several}; write it in one way (case, spaces "
            "and hyphens count)"
        )


def _require_apart(shown: str, labelled: Labelled) -> None:
    owners: dict[str, str] = {}
    for recording, group in zip(labelled.recordings, labelled.groups, strict=True):
        if owners.setdefault(recording.where, group) != group:
            raise ValueError(
                f"{shown}: {printable(recording.path)} is in two groups "
                f"({owners[recording.where]!r}, {group!r}); put its rows into one"
            )
    sides: dict[str, str] = {}
    for group, split in zip(labelled.groups, labelled.splits or [], strict=False):
        if sides.setdefault(group, split) != split:
            raise ValueError(
                f"{shown}: {group} is in {sides[group]} and in {split}; what belongs together must "
                "be on one side of the split"
            )


def _some(items: Sequence[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more
