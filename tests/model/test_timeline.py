"""Timestamps and units: closed forms over every length and hop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hear_msm_mae.config import ModelConfig
from hear_msm_mae.timeline import (
    scene_track,
    scene_weights,
    split_units,
    timestamp_tracks,
    valid_hops_ms,
)

WIDTHS = (2, 4, 8, 16, 6, 10)


def config(patch_frames: int) -> ModelConfig:
    return ModelConfig(
        patch_frames=patch_frames, unit_frames=240 if patch_frames in (6, 10) else 208
    )


@st.composite
def layouts(draw, max_samples=60 * 16000):
    sizes = config(draw(st.sampled_from(WIDTHS)))
    return draw(st.integers(1, max_samples)), sizes, draw(st.sampled_from(valid_hops_ms(sizes)))


@settings(max_examples=500, deadline=None)
@given(layouts())
def test_timestamps_are_even_inside_and_reach_both_ends(layout):
    samples, sizes, hop = layout
    duration = samples / 16  # ms
    _, timestamps = timestamp_tracks(samples, sizes, hop)
    assert timestamps.dtype == np.float32
    assert timestamps[0] >= 0
    assert timestamps[-1] <= duration
    if len(timestamps) > 1:
        np.testing.assert_array_equal(np.diff(timestamps), np.float32(hop))
    assert timestamps[0] <= hop
    assert duration - timestamps[-1] <= hop


@settings(max_examples=300, deadline=None)
@given(layouts())
def test_each_timestamp_is_the_centre_of_its_patch(layout):
    samples, sizes, hop = layout
    tracks, timestamps = timestamp_tracks(samples, sizes, hop)
    assert sum(track.columns for track in tracks) == len(timestamps)
    for index, track in enumerate(tracks):
        own = timestamps[index :: len(tracks)]
        assert len(own) == track.columns
        starts = track.start + sizes.patch_frames * np.arange(track.columns)
        first_frame, last_frame = 10 * starts, 10 * (starts + sizes.patch_frames - 1)  # ms
        centres = (first_frame + last_frame) / 2
        if samples / 16 < (10 * (sizes.patch_frames - 1) / 2) % hop:
            assert own.tolist() == [np.float32(samples / 32)]  # the middle of a tiny clip
            assert abs(centres[0] - own[0]) <= 5  # nearest whole frame
        else:
            np.testing.assert_array_equal(own, centres)


def test_no_drift_over_an_hour_and_exact_beyond_four():
    for hours, hop in ((1, 10), (1, 40), (4, 40)):
        samples = hours * 3600 * 16000
        _, timestamps = timestamp_tracks(samples, ModelConfig(), hop)
        expected = (75 % hop) + hop * np.arange(len(timestamps), dtype=np.float64)
        np.testing.assert_array_equal(timestamps.astype(np.float64), expected)
        assert hours * 3_600_000 - hop <= timestamps[-1] <= hours * 3_600_000


@pytest.mark.parametrize(
    ("patch_frames", "hops"),
    [(16, [10, 20, 40, 80, 160]), (4, [10, 20, 40]), (2, [10, 20]), (6, [10, 20, 30, 60])],
)
def test_valid_hops(patch_frames, hops):
    assert valid_hops_ms(config(patch_frames)) == hops


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 300), st.integers(1, 30))
def test_units_hold_every_column_once(columns, unit):
    units = split_units(columns, unit)
    held = [u.first + c for u in units for c in range(u.columns)]
    assert held == list(range(columns))
    assert all(u.first >= 0 and u.first + u.columns <= columns for u in units)
    assert all(0 < u.columns <= unit for u in units)
    assert all(u.columns == unit for u in units[:-1])


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 60 * 16000), st.sampled_from(WIDTHS))
def test_scene_covers_the_clip_with_less_than_a_patch_of_padding(samples, patch_frames):
    sizes = config(patch_frames)
    frames = 1 + samples // 160
    track = scene_track(samples, sizes)
    assert track.start == 0
    assert 0 <= track.columns * patch_frames - frames < patch_frames
    weights = scene_weights(samples, sizes)
    assert len(weights) == track.columns
    assert weights.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(weights[:-1] * frames, patch_frames, rtol=1e-5)
    assert weights[-1] * frames == pytest.approx(
        frames - patch_frames * (track.columns - 1), rel=1e-4
    )
