"""Where patches and units lie in time: integer arithmetic only, so nothing can drift.

A *track* is a run of neighbouring patches over a clip. Scene embeddings need one track, from
frame 0. Timestamps closer than a patch width need several, each shifted by one timestamp hop;
their embeddings are interleaved. Tracks are cut into *units*, the stretches that the encoder
sees at once.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from .config import MS_PER_FRAME, SAMPLES_PER_MS, ModelConfig, num_frames


@dataclasses.dataclass(frozen=True)
class Track:
    """Patch k of the track starts at frame `start` + k * patch width; frames < 0 are silence."""

    start: int
    columns: int


@dataclasses.dataclass(frozen=True)
class Unit:
    """Columns first..first + columns of a track."""

    first: int
    columns: int


@dataclasses.dataclass(frozen=True)
class Piece:
    """A unit of one track, in frames of the clip."""

    track: int
    unit: Unit
    start: int
    stop: int


def scene_track(num_samples: int, config: ModelConfig) -> Track:
    """Patches from frame 0 until the last frame of the clip is covered."""
    return Track(0, -(-num_frames(num_samples) // config.patch_frames))


def scene_weights(num_samples: int, config: ModelConfig) -> np.ndarray:
    """Weight of each frame embedding in the scene: the share of the clip's frames in its patch.

    The mean over time of a clip whose last patch is part silence: that patch counts by the
    frames that exist, so a single trailing frame does not weigh as much as a full patch.

    Shape:
        - output: (t,) float32, sum 1
    """
    frames = num_frames(num_samples)
    starts = np.arange(0, frames, config.patch_frames)
    filled = np.minimum(frames - starts, config.patch_frames)
    return (filled / frames).astype(np.float32)


def valid_hops_ms(config: ModelConfig) -> list[int]:
    """Timestamp hops a model can have: multiples of 10 ms that divide its patch width."""
    width = config.patch_frames
    return [MS_PER_FRAME * hop for hop in range(1, width + 1) if width % hop == 0]


def timestamp_tracks(
    num_samples: int, config: ModelConfig, hop_ms: int
) -> tuple[list[Track], np.ndarray]:
    """Tracks for timestamps `hop_ms` apart, and the timestamps of `timestamp_grid`.

    Returns:
        The tracks; track i holds timestamps i, i + len(tracks), ...
        (t,) float32 timestamps in ms; float32 holds each of them exactly up to 4.6 hours.
    """
    timestamps = timestamp_grid(num_samples, config, hop_ms).astype(np.float32)
    return hop_tracks(num_samples, config, hop_ms), timestamps


def timestamp_grid(num_samples: int, config: ModelConfig, hop_ms: int) -> np.ndarray:
    """Timestamps of a clip, `hop_ms` apart.

    Timestamps are the centres of the patches: a patch from frame s is centred at
    10 s + 5 (patch width - 1) ms. All centres on that grid inside the clip are used; patches may
    reach beyond its ends, where they see silence. A clip that is too short for any gets one
    timestamp at its middle.

    Returns:
        (t,) float64 ms.
    """
    first_ms, count = _grid(num_samples, config, hop_ms)
    if not count:
        return np.array([num_samples / SAMPLES_PER_MS / 2])
    # int64 milliseconds are exact.
    return (first_ms + hop_ms * np.arange(count, dtype=np.int64)).astype(np.float64)


def hop_tracks(num_samples: int, config: ModelConfig, hop_ms: int) -> list[Track]:
    """Tracks for the timestamps of `timestamp_grid`; track i holds i, i + len(tracks), ..."""
    centre_ms = MS_PER_FRAME * (config.patch_frames - 1) // 2
    first_ms, count = _grid(num_samples, config, hop_ms)
    if not count:
        middle_ms = num_samples / SAMPLES_PER_MS / 2
        return [Track(round((middle_ms - centre_ms) / MS_PER_FRAME), 1)]
    shifts = min(config.native_hop_ms // hop_ms, count)
    start = (first_ms - centre_ms) // MS_PER_FRAME
    return [
        Track(start + shift * hop_ms // MS_PER_FRAME, len(range(shift, count, shifts)))
        for shift in range(shifts)
    ]


def _grid(num_samples: int, config: ModelConfig, hop_ms: int) -> tuple[int, int]:
    """First timestamp in ms and their number."""
    first_ms = MS_PER_FRAME * (config.patch_frames - 1) // 2 % hop_ms
    room = num_samples - first_ms * SAMPLES_PER_MS
    return first_ms, 0 if room < 0 else 1 + room // (hop_ms * SAMPLES_PER_MS)


def split_units(columns: int, unit_columns: int) -> list[Unit]:
    """Cut a track into units; the last one is as short as what is left.

    Args:
        columns: length of the track in patches.
        unit_columns: longest unit in patches.

    >>> [u.columns for u in split_units(30, 13)]
    [13, 13, 4]
    """
    return [
        Unit(first, min(unit_columns, columns - first)) for first in range(0, columns, unit_columns)
    ]


def place(index: int, track: Track, unit: Unit, config: ModelConfig) -> Piece:
    """A unit of track number `index`, placed in the clip."""
    start = track.start + unit.first * config.patch_frames
    return Piece(index, unit, start, start + unit.columns * config.patch_frames)
