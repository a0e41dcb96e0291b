"""Split recordings into training, validation and test."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..answers import fit
from ..answers.fit import Indices
from ..answers.labels import Labelled
from ..answers.probe import Division, divided


class Sides(NamedTuple):
    """Indices of the training, validation and test recordings."""

    train: Indices
    valid: Indices
    test: Indices

    @property
    def division(self) -> Division:
        """The split for a probe, which is finally trained on the validation recordings too."""
        learn = np.concatenate([self.train, self.valid])
        return Division(learn, self.test, [(self.train, self.valid)])


def sides_of(labelled: Labelled, seed: int) -> Sides:
    """Split recordings so that no group is divided.

    Raises:
        ValueError: there are too few groups, of all recordings or of a label.
    """
    y, groups = labelled.targets, np.array(labelled.groups)
    try:
        division = divided(labelled, seed)[0]
        if "valid" in (labelled.splits or []):
            train, valid = division.inner[0]
        else:
            learn = division.learn
            inner = fit.folds(y[learn], groups[learn], fit.OUTER_FOLDS, seed + 1)[0]
            train, valid = learn[inner[0]], learn[inner[1]]
    except ValueError as error:
        if labelled.splits is None:
            raise
        raise ValueError(
            "there is no validation group to say when to stop, and the recordings to learn from "
            f"cannot be divided ({error}); write 'valid' for some rows into the column 'split'"
        ) from error
    sizes = [len(np.unique(groups[y[:, c]])) for c in range(y.shape[1])]
    least = 0 if labelled.several or labelled.splits else len(Sides._fields)
    lacking = [
        f"{name!r} ({y[:, c].sum()} recordings in {sizes[c]} groups)"
        for c, name in enumerate(labelled.names)
        if sizes[c] < least or not y[train, c].any()
    ]
    if lacking:
        raise ValueError(
            f"too few recordings to learn from of {', '.join(lacking)}: a label needs some of at "
            "least three groups (or files), to learn from, to stop by and to test; label more, or "
            "leave the label out"
        )
    return Sides(train, valid, division.check)
