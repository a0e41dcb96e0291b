"""Offline tasks with events over time: real sounds, mixed at known onsets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hear_msm_mae.config import SAMPLE_RATE

from ..evaluation import music_pools, sound_pools, speech_pools
from ..evaluation.tasks import TASKS
from .build import QUICK_TRAINING, Built, Splits, TaskRecipe, Waveform, three_parts

SECONDS = 20.0
FILES = {"train": 8, "valid": 3, "test": 4}
AUDIBLE = 30.0  # dB below the loudest frame of a sound
FRAME = SAMPLE_RATE // 100
# sed_eval is slow: checked every tenth epoch only, as the kit does for DCASE.
TRAINING = {**QUICK_TRAINING, "check_val_every_n_epoch": [10], "max_epochs": [30]}
# What the kit chooses from by the validation score.
POSTPROCESSING = {"median_filter_ms": [100, 250], "min_duration": [50, 125]}
NOTE_POSTPROCESSING = {"median_filter_ms": [0, 100], "min_duration": [0, 80]}

SHORTEST_NOTE, LONGEST_NOTE = 0.2, 0.6  # s
RELEASE = 0.03  # s
STRUCK = ("piano", "chromatic-percussion", "guitar")

Events = list[dict[str, Any]]  # label, start and end in ms


@dataclass(frozen=True)
class Sound:
    """A sound with its label, and the group that must not be divided among splits."""

    waveform: Waveform
    label: str
    group: str


Mix = Callable[[Sequence[Sound], np.random.Generator], tuple[Waveform, Events]]


def sounds(cache: Path) -> Built:
    """Voices, drums and keys in soft noise, up to two at once; no recording is in two splits."""
    kept = [sound for sound in _sounds(cache) if np.abs(sound.waveform).max() > 1e-3]
    kept = [Sound(audible(sound.waveform), sound.label, sound.group) for sound in kept]
    return _mixed(kept, _scene, seed=1)


def notes(cache: Path) -> Built:
    """Notes of struck and plucked instruments, one program per file, up to two at once."""
    kept = [
        Sound(waveform, facts["pitch"], facts["program"])
        for waveform, facts in music_pools.NOTES.pool(cache).clips()
        if facts["family"] in STRUCK
        and (facts["font"], facts["program"]) not in music_pools.OFF_PITCH
    ]
    return _mixed(kept, _melody, seed=2)


def _sounds(cache: Path) -> Iterator[Sound]:
    reactions = TASKS["reactions"]
    for waveform, facts in reactions.recipe.pool(cache).clips():
        if (chosen := reactions.select(facts)) and chosen[0] in ("laugh", "pain", "effort"):
            yield Sound(waveform, *chosen)
    for waveform, facts in music_pools.HITS_POOL.pool(cache).clips():
        if facts["drum"] in ("kick", "snare", "hihat", "clap"):
            yield Sound(waveform, facts["drum"], facts["instrument"])
    for waveform, facts in sound_pools.KEYS.pool(cache).clips():
        if facts["action"] == "0":  # pressed
            yield Sound(waveform, "key", f"key-{facts['key']}")
    for waveform, facts in speech_pools.LETTERS.pool(cache).clips():
        # Both kinds of English may share speakers.
        yield Sound(waveform, "letter", facts["language"].removesuffix("_GB"))


def audible(waveform: Waveform) -> Waveform:
    """Leave out what is quieter than the sound by far, before and behind it, in steps of 10 ms."""
    frames = waveform[: len(waveform) // FRAME * FRAME].reshape(-1, FRAME)  # (t, 160)
    power = np.square(frames.astype(np.float64)).mean(axis=1)
    [loud] = np.nonzero(power > power.max() * 10 ** (-AUDIBLE / 10))
    return waveform[loud[0] * FRAME : (loud[-1] + 1) * FRAME]


def _mixed(kept: Sequence[Sound], mix: Mix, seed: int) -> Built:
    rng = np.random.default_rng(seed)
    parts = three_parts([sound.label for sound in kept], [sound.group for sound in kept])
    splits: Splits = {
        split: {
            f"{split}_{number:02d}.wav": mix([kept[i] for i in part], rng)
            for number in range(FILES[split])
        }
        for split, part in parts.items()
    }
    return Built(sorted({sound.label for sound in kept}), splits)


def _scene(kept: Sequence[Sound], rng: np.random.Generator) -> tuple[Waveform, Events]:
    """Sounds with pauses between them, 6 to 18 dB below full scale, over noise at -45 to -55 dB."""
    size = round(SECONDS * SAMPLE_RATE)
    mixture = _noise(size, rng) * 10 ** (rng.uniform(-55, -45) / 20)
    events = _place(mixture, kept, rng, pause=(0.3, 1.2), level=(-18, -6))
    return mixture.clip(-1, 1).astype(np.float32), events


def _melody(kept: Sequence[Sound], rng: np.random.Generator) -> tuple[Waveform, Events]:
    """Notes of one program of both fonts, each let go after a while."""
    program = rng.choice(sorted({sound.group for sound in kept}))
    played = [
        Sound(_held(sound.waveform, rng), sound.label, sound.group)
        for sound in kept
        if sound.group == program
    ]
    mixture = np.zeros(round(SECONDS * SAMPLE_RATE))
    events = _place(mixture, played, rng, pause=(0.05, 0.4), level=(-16, -10))
    return mixture.clip(-1, 1).astype(np.float32), events


def _place(
    mixture: NDArray[np.float64],
    kept: Sequence[Sound],
    rng: np.random.Generator,
    pause: tuple[float, float],
    level: tuple[float, float],
) -> Events:
    """Add sounds to a mixture in two tracks, each with half of the labels: none overlaps itself.

    Args:
        mixture: (n,), changed.
        kept: what to choose from; labels are equally likely.
        rng: of everything that is random.
        pause: shortest and longest pause between two sounds of a track, in seconds.
        level: lowest and highest peak of a sound, in dB of full scale.
    """
    by_label: dict[str, list[Sound]] = {}
    for sound in kept:
        by_label.setdefault(sound.label, []).append(sound)
    order = [str(label) for label in rng.permutation(sorted(by_label))]
    events: Events = []
    for track in filter(None, (order[::2], order[1::2])):
        start = round(rng.uniform(*pause) * SAMPLE_RATE)
        while True:
            chosen = by_label[rng.choice(track)]
            sound = chosen[rng.integers(len(chosen))]
            end = start + len(sound.waveform)
            if end > len(mixture):
                break
            gain = 10 ** (rng.uniform(*level) / 20) / max(np.abs(sound.waveform).max(), 1e-3)
            mixture[start:end] += gain * sound.waveform
            times = {"start": 1000 * start / SAMPLE_RATE, "end": 1000 * end / SAMPLE_RATE}
            events.append({"label": sound.label, **times})
            start = end + round(rng.uniform(*pause) * SAMPLE_RATE)
    return sorted(events, key=lambda event: (event["start"], event["label"]))


def _held(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    size = round(rng.uniform(SHORTEST_NOTE, LONGEST_NOTE) * SAMPLE_RATE)
    release = round(RELEASE * SAMPLE_RATE)
    gain = np.ones(size, np.float32)
    gain[-release:] = np.linspace(1, 0, release)
    return waveform[:size] * gain


def _noise(size: int, rng: np.random.Generator) -> np.ndarray:
    """Noise between white and pink, of unit power: (size,)."""
    kilohertz = (np.fft.rfftfreq(size, 1 / SAMPLE_RATE) + 50) / 1000
    spectrum = np.fft.rfft(rng.standard_normal(size)) * kilohertz ** rng.uniform(-0.5, 0)
    noise = np.fft.irfft(spectrum, size)
    return noise / noise.std()


def _recipe(
    name: str,
    sources: str,
    evaluation: Sequence[str],
    build: Callable[[Path], Built],
    postprocessing: dict[str, list[int]],
) -> TaskRecipe:
    parameters = {"event_postprocessing_grid": postprocessing, "task_specific_param_grid": TRAINING}
    return TaskRecipe(
        name, sources, SECONDS, evaluation, build, embedding_type="event",
        prediction_type="multilabel", evaluation_params=parameters,
    )  # fmt: skip


RECIPES = (
    _recipe(
        "sounds", "hedgewars-data, lmms-common, bucklespring-data, klettres-data",
        ("event_onset_200ms_fms", "segment_1s_er"), sounds, POSTPROCESSING,
    ),
    _recipe(
        "notes", "opl3-soundfont, freepats",
        ("event_onset_50ms_fms", "event_onset_offset_50ms_20perc_fms"), notes, NOTE_POSTPROCESSING,
    ),
)  # fmt: skip
