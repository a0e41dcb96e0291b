"""`finetune`: train encoder and classifier on labelled recordings, and compare with a probe."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ..answers.loading import Model
from ..extras import need
from .settings import FinetuneResult, Tuning

_PACKAGES = ("sklearn", "pyarrow.parquet", "lightning.fabric", "yaml", "jsonargparse")


def finetune(
    labels: str | Path,
    out: str | Path,
    model: Model = "",
    *,
    device: str = "cpu",
    workers: int | None = None,
    overwrite: bool = False,
    **options: Any,
) -> FinetuneResult:
    """Train the encoder together with a classifier on labelled recordings.

    The classifier starts as a linear probe. The recordings are split by groups: the test set is the
    first fold of `probe` (or `test` in the column `split`), and a fifth of the others (or `valid`)
    is the validation set for early stopping. The result has the test scores of the model and of a
    probe that was trained on training and validation set. The same call continues an interrupted
    run, with bit-identical results.

    Args:
        labels: see `hear_msm_mae.answers.labels.read_labels`.
        out: folder for the model (for `load_model(out)`), the classifier (for `predict(out, ...)`),
            `finetune.html`, the embeddings of the probe, and checkpoints.
        model: from `load_model`, or weights for it.
        device: device that trains, such as "cpu" or "cuda".
        workers: number of threads that decode.
        overwrite: delete earlier results in the folder.
        options: settings of the training, such as `epochs` and `blocks`; see `Tuning`.

    Returns:
        Scores of both, and the classifier.

    Raises:
        FileNotFoundError, ValueError: see `read_labels`; the recordings cannot be split, a label
            has too few recordings, or the folder has other files.
        KeyboardInterrupt: Ctrl-C was pressed, and a checkpoint was written.
    """
    names = [field.name for field in dataclasses.fields(Tuning)]
    if unknown := sorted(set(options) - set(names)):
        raise ValueError(f"unknown option(s) {unknown}; valid options: {names}")
    settings = Tuning(**options)
    for package in _PACKAGES:
        need(package, "answers,pretrain", "fine-tuning runs")
    from .run import finetuned  # the packages are needed from here on

    return finetuned(labels, Path(out), model, settings, device, workers, overwrite)
