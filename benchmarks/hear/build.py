"""Build the offline tasks: small, in HEAR's format, from the evaluation sources."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import soundfile
import soxr

from hear_msm_mae.config import SAMPLE_RATE
from weights.corpus.packages import sha256

from . import event_tasks, scene_tasks
from .kit import HearError
from .recipe import Built, TaskRecipe
from .tasks_format import METADATA, VOCABULARY

log = logging.getLogger("hear")

MANIFEST = "MANIFEST.sha256"
RECIPES: Mapping[str, TaskRecipe] = {
    recipe.name: recipe for recipe in (*scene_tasks.RECIPES, *event_tasks.RECIPES)
}


def build(
    out: Path,
    cache: Path,
    names: Sequence[str] | None = None,
    rates: Sequence[int] = (SAMPLE_RATE,),
    small: bool = False,
) -> list[Path]:
    """Build tasks into `out`, each replacing a folder of its name, and return their folders.

    Args:
        out: the tasks folder.
        cache: of the evaluation sources, which are fetched if they are not there.
        names: keys of `RECIPES`; default: all.
        rates: sample rates; the sounds are made at 16 kHz, and resampled for others.
        small: a quarter of the clips, in folders of mode "tiny".

    Raises:
        HearError: there is no such task.
        BuildError: a source cannot be had, or a synthesiser is missing.
    """
    if unknown := sorted(set(names or ()) - set(RECIPES)):
        raise HearError(f"no such task: {', '.join(unknown)}; known: {', '.join(RECIPES)}")
    out.mkdir(parents=True, exist_ok=True)
    folders = []
    for name in names or RECIPES:
        recipe, built = RECIPES[name], RECIPES[name].build(cache)
        if small:
            recipe, built = dataclasses.replace(recipe, mode="tiny"), quarter(built)
        folder = out / recipe.folder
        write_task(folder, recipe, built, rates)
        seconds = sum(len(c) for clips in built.audio.values() for c in clips.values())
        count = sum(map(len, built.audio.values()))
        log.info("%s: %d clips, %.1f min", folder.name, count, seconds / SAMPLE_RATE / 60)
        folders.append(folder)
    return folders


def write_task(folder: Path, recipe: TaskRecipe, built: Built, rates: Sequence[int]) -> None:
    """Write a task beside its place and move it there, with the digests of all its files."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for split, clips in built.audio.items():
        for rate in rates:
            target = part / str(rate) / split
            target.mkdir(parents=True)
            for name, waveform in clips.items():
                if rate != SAMPLE_RATE:
                    waveform = soxr.resample(waveform, SAMPLE_RATE, rate)
                soundfile.write(target / name, waveform, rate, subtype="PCM_16")
        (part / f"{split}.json").write_text(json.dumps(built.labels[split], indent=1))
    rows = [f"{index},{label}" for index, label in enumerate(built.vocabulary)]
    (part / VOCABULARY).write_text("\n".join(["idx,label", *rows, ""]))
    metadata = {
        "task_name": recipe.name,
        "version": recipe.version,
        "mode": recipe.mode,
        "embedding_type": recipe.embedding_type,
        "prediction_type": recipe.prediction_type,
        "split_mode": recipe.split_mode,
        "splits": list(built.audio),
        "sample_duration": recipe.seconds,
        "evaluation": list(recipe.evaluation),
        "evaluation_params": dict(recipe.evaluation_params),
        "sources": recipe.sources,
    }
    (part / METADATA).write_text(json.dumps(metadata, indent=1))
    files = sorted(path for path in part.rglob("*") if path.is_file())
    lines = [f"{sha256(path)}  {path.relative_to(part).as_posix()}" for path in files]
    (part / MANIFEST).write_text("\n".join([*lines, ""]))
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def quarter(built: Built) -> Built:
    """Every fourth clip of each split."""
    names = {split: list(clips)[::4] for split, clips in built.audio.items()}
    return Built(
        built.vocabulary,
        {split: {name: built.audio[split][name] for name in part} for split, part in names.items()},
        {
            split: {name: built.labels[split][name] for name in part}
            for split, part in names.items()
        },
    )
