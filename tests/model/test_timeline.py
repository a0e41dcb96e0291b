"""Timestamps, units and pieces: closed forms over every length and hop."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hear_msm_mae.config import ModelConfig
from hear_msm_mae.timeline import CONTEXT_FRAMES, Timeline, split_units, valid_hops_ms

WIDTHS = (2, 4, 8, 16, 6, 10)


def config(patch_frames: int) -> ModelConfig:
    return ModelConfig(
        patch_frames=patch_frames, unit_frames=240 if patch_frames in (6, 10) else 208
    )


@st.composite
def layouts(draw, max_samples=60 * 16000):
    sizes = config(draw(st.sampled_from(WIDTHS)))
    return draw(st.integers(1, max_samples)), sizes, draw(st.sampled_from(valid_hops_ms(sizes)))


@settings(max_examples=200)
@given(layouts())
def test_timestamps_are_even_inside_and_reach_both_ends(layout):
    samples, sizes, hop = layout
    duration = samples / 16  # ms
    timestamps = Timeline(sizes, hop_ms=hop).timestamps_ms(samples)
    assert timestamps[0] >= 0
    assert timestamps[-1] <= duration
    if len(timestamps) > 1:
        np.testing.assert_array_equal(np.diff(timestamps), hop)
    assert timestamps[0] <= hop
    assert duration - timestamps[-1] <= hop


@settings(max_examples=150)
@given(layouts())
def test_each_timestamp_is_the_centre_of_its_patch(layout):
    samples, sizes, hop = layout
    timeline = Timeline(sizes, hop_ms=hop)
    tracks, timestamps = timeline.tracks(samples), timeline.timestamps_ms(samples)
    assert sum(track.columns for track in tracks) == len(timestamps)
    for index, track in enumerate(tracks):
        found = timestamps[index :: len(tracks)]
        assert len(found) == track.columns
        starts = track.start + sizes.patch_frames * np.arange(track.columns)
        first_frame, last_frame = 10 * starts, 10 * (starts + sizes.patch_frames - 1)  # ms
        centres = (first_frame + last_frame) / 2
        if samples / 16 < (10 * (sizes.patch_frames - 1) / 2) % hop:
            assert found.tolist() == [samples / 32]  # the middle of a tiny clip
            assert abs(centres[0] - found[0]) <= 5  # nearest whole frame
        else:
            np.testing.assert_array_equal(found, centres)


def test_no_drift_over_an_hour_and_exact_beyond_four():
    for hours, hop in ((1, 10), (1, 40), (4, 40)):
        samples = hours * 3600 * 16000
        timestamps = Timeline(ModelConfig(), hop_ms=hop).timestamps_ms(samples)
        expected = (75 % hop) + hop * np.arange(len(timestamps), dtype=np.float64)
        np.testing.assert_array_equal(timestamps.astype(np.float32), expected)
        assert hours * 3_600_000 - hop <= timestamps[-1] <= hours * 3_600_000


@pytest.mark.parametrize(
    ("patch_frames", "hops"),
    [(16, [10, 20, 40, 80, 160]), (4, [10, 20, 40]), (2, [10, 20]), (6, [10, 20, 30, 60])],
)
def test_valid_hops(patch_frames, hops):
    assert valid_hops_ms(config(patch_frames)) == hops


@settings(max_examples=150)
@given(st.integers(1, 300), st.integers(1, 30))
def test_units_hold_every_column_once(columns, unit):
    units = split_units(columns, unit)
    assert [c for first, last in units for c in range(first, last)] == list(range(columns))
    assert all(0 < last - first <= unit for first, last in units)
    assert all(last - first == unit for first, last in units[:-1])


# ---------------------------------------------------------------------------------------------
# Pieces
# ---------------------------------------------------------------------------------------------
@st.composite
def clips(draw):
    """A clip of several pieces, the timeline that cuts it, and the blocks that it arrives in."""
    sizes = config(draw(st.sampled_from(WIDTHS)))
    hop = draw(st.one_of(st.none(), st.sampled_from(valid_hops_ms(sizes))))
    mode = draw(st.sampled_from(["default", "paper"]))
    samples = draw(st.integers(1, 400 * 16000))
    cuts = sorted(draw(st.lists(st.integers(0, samples), max_size=5)))
    blocks = [b - a for a, b in itertools.pairwise([0, *cuts, samples]) if b > a]
    return Timeline(sizes, mode, hop), samples, blocks


@settings(max_examples=120)
@given(clips())
def test_pieces_hold_each_embedding_once_and_the_samples_under_it(clip):
    timeline, samples, blocks = clip
    width = timeline.config.patch_frames
    waveform = torch.arange(samples, dtype=torch.float64)
    pieces = list(timeline.cut(waveform.split(blocks)))
    assert len(pieces) == timeline.count_pieces(samples)
    tracks, frames = timeline.tracks(samples), 1 + samples // 160
    seen, row = set(), 0
    weight = 0.0
    for number, piece in enumerate(pieces):
        first_sample = int(piece.waveform[0])
        assert first_sample == timeline.first_sample(number)
        assert first_sample % 160 == 0
        last_sample = int(piece.waveform[-1]) + 1
        # The windows of all frames are inside, but at the ends of the clip.
        first_frame = first_sample // 160 + piece.layout.first
        last_frame = first_sample // 160 + piece.layout.last
        assert first_frame == 0 or first_frame * 160 - first_sample >= 200
        assert last_frame == frames or last_sample - (last_frame - 1) * 160 >= 200
        assert CONTEXT_FRAMES * 160 > 400
        for units in piece.layout.units:
            assert units.columns <= timeline.config.columns
            for start, rows, weights in zip(units.starts, units.rows, units.weights, strict=True):
                for column, (at, share) in enumerate(zip(rows, weights, strict=True)):
                    index = row + at
                    assert index not in seen
                    seen.add(index)
                    # The place of this embedding, from the closed form of the whole clip.
                    track = tracks[index % len(tracks)]
                    frame = track.start + index // len(tracks) * width
                    assert first_sample // 160 + start + column * width == frame
                    if timeline.hop_ms is None and timeline.mode == "default":
                        assert share == min(width, frames - frame)
                    weight += share
        row += piece.layout.rows
    assert seen == set(range(sum(track.columns for track in tracks)))
    if timeline.hop_ms is None and timeline.mode == "default":
        assert weight == frames


@pytest.mark.parametrize("hop_ms", [None, 10, 40])
def test_a_clip_that_ends_in_the_context_of_a_piece_is_counted_as_it_is_cut(hop_ms):
    """Batches of such clips once got the sums of their neighbours."""
    timeline = Timeline(ModelConfig(), hop_ms=hop_ms)
    whole = timeline.piece_units * timeline.config.unit_frames  # frames of a piece
    for samples in range(160 * (whole - 20), 160 * (whole + 25), 80):
        pieces = list(timeline.cut([torch.zeros(samples)]))
        assert len(pieces) == timeline.count_pieces(samples), samples


@settings(max_examples=100)
@given(clips(), st.data())
def test_a_clip_can_be_cut_from_any_piece_on(clip, data):
    timeline, samples, _ = clip
    waveform = torch.arange(samples, dtype=torch.float64)
    pieces = list(timeline.cut([waveform]))
    number = data.draw(st.integers(0, len(pieces) - 1))
    rest = list(timeline.cut([waveform[timeline.first_sample(number) :]], number))
    assert len(rest) == len(pieces) - number
    for again, piece in zip(rest, pieces[number:], strict=True):
        assert torch.equal(again.waveform, piece.waveform)
        assert again.layout is piece.layout
