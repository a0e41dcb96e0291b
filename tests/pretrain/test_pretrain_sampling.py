"""Sampling: the intended distribution, and independence of processes, devices and resumes."""

import itertools
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2, chisquare, kstest
from toy_corpus import ToyCorpus, quick

from hear_msm_mae.log_mel import SILENCE
from hear_msm_mae.pretrain import sampling
from hear_msm_mae.pretrain.randomness import TRAIN, below, between, random_bits
from hear_msm_mae.pretrain.sampling import Sampler, feed, shares

SIGNIFICANCE = 1e-3  # the draws are fixed by the seed, so a test cannot fail by bad luck
CPU = torch.device("cpu")


def draws(sampler, count):
    """(clip, first frame) of so many crops."""
    bits = random_bits(3, TRAIN, 0, torch.arange(count), 2)
    clips, first = sampler.place(bits[:, 0].contiguous(), bits[:, 1])
    return list(zip(clips.tolist(), first.tolist(), strict=True))


def batch(settings, corpus=None, step=0, count=None, held_out=False):
    sampler = Sampler(corpus or ToyCorpus(), settings, held_out)
    return sampler.batch(step, range(count or settings.batch))


def spectrogram(settings, corpus=None, **options):
    sampler = Sampler(corpus or ToyCorpus(), settings, options.get("held_out", False))
    return sampler.spectrogram(batch(settings, corpus, **options))


# ---------------------------------------------------------------------------------------------
# Random numbers
# ---------------------------------------------------------------------------------------------
MASK = 2**64 - 1


def plain_bits(seed, stream, step, sample, column):
    """The same hash in whole numbers of Python, written out from the paper of splitmix64."""

    def finaliser(z):
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)

    golden = key = 0x9E3779B97F4A7C15
    for word in (seed, stream, step):
        key = finaliser((key * golden + word) & MASK)
    row = finaliser((sample * golden + key) & MASK)
    return finaliser((row + column * golden) & MASK)


@given(
    st.integers(0, 2**63 - 1),
    st.integers(0, 4),
    st.integers(0, 2**40),
    st.lists(st.integers(0, 2**40), min_size=1, max_size=4),
)
def test_random_bits_are_those_of_splitmix(seed, stream, step, samples):
    found = random_bits(seed, stream, step, torch.tensor(samples), 3)
    for row, sample in zip(found.tolist(), samples, strict=True):
        expected = [plain_bits(seed, stream, step, sample, column) for column in range(3)]
        assert [value & MASK for value in row] == expected


def test_random_bits_are_the_same_on_every_device(device):
    samples = torch.arange(1000)
    found = random_bits(5, 1, 7, samples.to(device), 80)
    assert torch.equal(found.cpu(), random_bits(5, 1, 7, samples, 80))


def test_random_bits_are_uniform_and_differ():
    bits = random_bits(0, 0, 0, torch.arange(20_000), 4)
    assert bits.unique().numel() == 80_000
    uniform = between(bits, 0, 1).double().numpy()
    for column in uniform.T:
        assert kstest(column, "uniform").pvalue > SIGNIFICANCE
    for one, two in itertools.combinations(uniform.T, 2):
        assert abs(np.corrcoef(one, two)[0, 1]) < 0.03
    low = np.bincount(below(bits[:, 0], torch.tensor(7)).numpy(), minlength=7)
    assert chisquare(low).pvalue > SIGNIFICANCE
    ones = ((bits[:, 1, None] >> torch.arange(64)) & 1).sum(0)
    assert ((ones - 10_000).abs() < 4 * 70.7).all()


# ---------------------------------------------------------------------------------------------
# Crops and masks
# ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("weights", [{}, {"a": 0.25}, {"b": 3.0}])
def test_every_crop_position_has_its_weight(weights):
    """Chi-square over all (clip, start): duration x source weight, starts uniform."""
    corpus = ToyCorpus(frames=(60, 41, 32, 20), sources=("a", "b", "a", "b"))
    sampler = Sampler(corpus, quick("unused", source_weights=weights))
    count = 40_000
    expected = {}
    for clip, (frames, source) in enumerate(
        zip(corpus.lengths.tolist(), corpus.sources, strict=True)
    ):
        starts = range(frames - 32 + 1) if frames >= 32 else range(frames - 32, 1)
        for start in starts:
            expected[clip, start] = frames * weights.get(source, 1.0) / len(starts)
    seen = dict.fromkeys(expected, 0)
    for place in draws(sampler, count):
        seen[place] += 1  # KeyError: a place that must not occur
    scale = count / sum(expected.values())
    result = chisquare(list(seen.values()), [weight * scale for weight in expected.values()])
    assert result.pvalue > SIGNIFICANCE


def test_every_frame_of_a_long_clip_is_about_equally_likely():
    sampler = Sampler(ToyCorpus(frames=(2000, 500), sources=("a", "a")), quick("unused"))
    cover = [np.zeros(2000), np.zeros(500)]
    for clip, start in draws(sampler, 50_000):
        cover[clip][start : start + 32] += 1
    inner = np.concatenate([c[32:-32] for c in cover])
    assert inner.std() / inner.mean() < 0.12
    assert cover[0][32:-32].mean() / cover[1][32:-32].mean() == pytest.approx(1, abs=0.1)


def test_source_of_weight_zero_is_left_out():
    sampler = Sampler(ToyCorpus(), quick("unused", source_weights={"a": 0}))
    assert {clip for clip, _ in draws(sampler, 500)} == {2, 3}


def test_masks_are_uniform_over_all_permutations():
    """Chi-square over the 4! orders of a grid of 4 patches."""
    orders = batch(quick("unused", patch_mels=40, unit_frames=32), count=12_000).order.numpy()
    counts = np.unique(orders @ [64, 16, 4, 1], return_counts=True)[1]
    assert len(counts) == 24
    assert chisquare(counts).pvalue > SIGNIFICANCE


def test_every_patch_is_masked_equally_often():
    """Chi-square, with the variance of drawing without replacement, over steps and samples."""
    sampler = Sampler(ToyCorpus((300,), ("a",)), quick("unused", unit_frames=208))
    orders = torch.cat([sampler.batch(step, range(80)).order for step in range(40)])
    masked = sampling.split_order(orders, 0.75).masked
    clips, patches = len(masked), 65
    assert masked.shape == (clips, 49)
    counts = np.bincount(masked.flatten().numpy(), minlength=patches)
    share = 49 / patches
    # Counts of one mask are correlated: each is 49 of 65. This scaling makes it a chi-square.
    statistic = ((counts - clips * share) ** 2).sum() / (clips * share * (1 - share))
    statistic *= (patches - 1) / patches
    assert chi2.sf(statistic, patches - 1) > SIGNIFICANCE


def test_masks_and_crops_are_independent():
    """The masked share of the first patch is the same for crops from either half of a clip."""
    corpus = ToyCorpus((96,), ("a",))
    corpus.frames[:] = torch.arange(96)[:, None]  # a crop's first value is its first frame
    drawn = batch(quick("unused"), corpus, count=8000)
    late = (drawn.frames[:, 0, 0] >= 33).long()
    visible = (drawn.order[:, :5] == 0).any(1).long()
    table = np.bincount((2 * visible + late).numpy(), minlength=4).reshape(2, 2)
    expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    assert chisquare(table.ravel(), expected.ravel(), ddof=2).pvalue > SIGNIFICANCE


@pytest.mark.parametrize(("ratio", "visible"), [(0.75, 16), (0.8, 12), (0.99, 1), (0.001, 64)])
def test_number_of_visible_patches(ratio, visible):
    order = torch.arange(65).expand(2, -1)
    mask = sampling.split_order(order, ratio)
    assert mask.visible.shape == (2, visible)
    assert mask.masked.shape == (2, 65 - visible)


def same(first, second):
    return all(
        (a is None and b is None) or torch.equal(a, b) for a, b in zip(first, second, strict=True)
    )


EVERYTHING = {"gain_db": 6.0, "tilt_db": 3.0, "mix": 0.4, "reverb": 0.5, "procedural": 0.5}


@pytest.mark.parametrize(
    ("accumulation", "masks", "world_size"), [(1, 1, 2), (1, 1, 4), (2, 1, 2), (1, 2, 4)]
)
def test_processes_share_the_same_global_batch(world_size, accumulation, masks):
    whole = quick("unused", masks=masks, **EVERYTHING)
    settings = quick("unused", accumulation=accumulation, masks=masks, **EVERYTHING)
    sampler = Sampler(ToyCorpus(), settings)
    for step in (0, 7):
        expected = sampler.batch(step, range(8))
        parts = sorted(
            (part for rank in range(world_size) for part in shares(settings, rank, world_size)),
            key=lambda part: part.start,
        )
        assert [g for part in parts for g in part] == list(range(8))
        found = [sampler.batch(step, part) for part in parts]
        assert torch.equal(torch.cat([x.order for x in found]), expected.order)
        seen = torch.cat([sampler.spectrogram(x) for x in found])
        whole_batch = Sampler(ToyCorpus(), whole).spectrogram(expected)
        torch.testing.assert_close(seen, whole_batch, rtol=1e-4, atol=1e-4)


def test_masks_of_one_crop_differ():
    one = batch(quick("unused", masks=4))
    assert one.frames.shape == (2, 32, 80)
    assert one.order.shape == (8, 10)
    assert one.order.unique(dim=0).shape == (8, 10)
    crops = batch(quick("unused"), count=2).frames  # those of the first samples
    assert torch.equal(one.frames, crops)


def test_draws_are_the_same_on_every_device(device):
    settings = quick("unused", **EVERYTHING)
    expected = batch(settings, step=5)
    sampler = Sampler(ToyCorpus().to(device), settings)
    found = sampler.batch(5, range(8))
    assert same(found.to(CPU), expected)
    close = sampler.spectrogram(found).cpu()
    torch.testing.assert_close(close, spectrogram(settings, step=5), rtol=1e-4, atol=1e-4)


def test_a_bank_on_the_host_feeds_a_device(device):
    """Gathered ahead by a thread; `meta` stands for a device where there is none."""
    settings = quick("unused", **EVERYTHING)
    sampler = Sampler(ToyCorpus(), settings)
    there = device if device.type == "cuda" else torch.device("meta")
    parts = shares(settings)
    fed, direct = (list(islice(feed(sampler, parts, 3, place), 3)) for place in (there, CPU))
    for (one,), (two,) in zip(fed, direct, strict=True):
        assert one.frames.device.type == there.type
        assert one.frames.shape == two.frames.shape
        if there.type == "cuda":
            assert same(one.to(CPU), two)
    for step, (found,) in enumerate(direct, start=3):
        assert same(found, sampler.batch(step, range(8)))


def test_feeding_stops_without_a_trace():
    sampler = Sampler(ToyCorpus(), quick("unused"))
    endless = feed(sampler, [range(8)], 0, torch.device("meta"))
    next(endless)
    endless.close()


def test_steps_and_seeds_differ():
    first, second = (quick("x", seed=s) for s in (0, 1))
    assert not torch.equal(batch(first).order, batch(first, step=1).order)
    assert not torch.equal(batch(first).order, batch(second).order)
    assert same(batch(first, step=5), batch(first, step=5))


def test_data_seed_draws_others_and_keeps_the_hold_out():
    corpus = ToyCorpus((50,) * 40, ("a",) * 40)
    runs = [quick("unused", holdout=0.25, data_seed=n) for n in (None, 0, 1)]
    seen, held = (
        [batch(run, corpus, 3, 64, held_out) for run in runs] for held_out in (False, True)
    )
    assert same(seen[0], seen[1])  # of `seed`, which is 0
    repeated = (seen[0].order == seen[2].order).all(1)
    assert not repeated.any()
    assert same(held[0], held[2])
    trained = {clip for clip, _ in draws(Sampler(corpus, runs[2]), 3000)}
    assert not trained & set(sampling.held_out_clips(40, 0.25, 0).nonzero().flatten().tolist())


def test_crop_is_the_stretch_of_the_clip_normalised():
    corpus = ToyCorpus((32,), ("a",))
    found = spectrogram(quick("unused"), corpus)
    expected = (corpus.frames.float().T + 8) / 4
    torch.testing.assert_close(found[1], expected)
    assert found.dtype == torch.float32
    scaled = spectrogram(quick("unused", norm_mean=-6.0, norm_std=2.0), corpus)
    torch.testing.assert_close(scaled[1], (corpus.frames.float().T + 6) / 2)


def test_short_clips_lie_anywhere_in_silence():
    corpus = ToyCorpus((20,), ("a",))
    sampler = Sampler(corpus, quick("unused"))
    starts = [-start for _, start in draws(sampler, 3000)]
    assert set(starts) == set(range(13))
    assert chisquare(np.bincount(starts)).pvalue > SIGNIFICANCE
    crops = batch(quick("unused"), corpus, count=50).frames
    for found in crops:
        silent = (found == np.float16(SILENCE)).all(1)
        assert silent.sum() == 12
        assert torch.equal(found[~silent], corpus.frames)


def test_held_out_clips_are_never_trained_on():
    corpus = ToyCorpus(frames=(50,) * 40, sources=("a",) * 40)
    settings = quick("unused", holdout=0.25)
    trained = {clip for clip, _ in draws(Sampler(corpus, settings), 3000)}
    held = {clip for clip, _ in draws(Sampler(corpus, settings, held_out=True), 3000)}
    assert len(held) == 10
    assert len(trained) == 30
    assert not held & trained


def test_never_all_clips_are_held_out():
    assert sampling.held_out_clips(1, 0.9, 0).sum() == 0
    assert sampling.held_out_clips(2, 0.99, 0).sum() == 1
    assert sampling.held_out_clips(9, 0.0, 0).sum() == 0


def test_a_small_corpus_holds_out_one_clip():
    assert sampling.held_out_clips(9, 0.01, 0).sum() == 1


def test_held_out_crops_are_not_augmented():
    corpus = ToyCorpus((50,) * 40, ("a",) * 40)
    plain, changed = (
        spectrogram(quick("x", holdout=0.25, **more), corpus, held_out=True)
        for more in ({}, EVERYTHING)
    )
    assert torch.equal(plain, changed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source_weights": {"music": 1.0}}, r"source_weights names \['music'\].*\['a', 'b'\]"),
        ({"source_weights": {"a": 0, "b": 0}}, "no clips to train on"),
    ],
)
def test_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Sampler(ToyCorpus(), quick("unused", **changes))


def test_batch_that_processes_cannot_share():
    with pytest.raises(ValueError, match=r"batch \(8\) must be a multiple .* processes \(3\)"):
        shares(quick("unused"), 0, 3)
    with pytest.raises(ValueError, match=r"masks \(4\) times the number of processes \(4\)"):
        shares(quick("unused", masks=4), 0, 4)
