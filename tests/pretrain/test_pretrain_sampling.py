"""Sampling: the intended distribution, and independence of processes, workers and resumes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest
from toy_corpus import ToyCorpus, quick

from hear_msm_mae.log_mel import SILENCE
from hear_msm_mae.pretrain import sampling
from hear_msm_mae.pretrain.sampling import CropSampler, StepDataset, batches, generator

SIGNIFICANCE = 1e-3  # the draws are fixed by the seed, so a test cannot fail by bad luck


def draws(sampler, count):
    return [sampler.place(generator(3, sampling.TRAIN, 0, i)) for i in range(count)]


@pytest.mark.parametrize("weights", [{}, {"a": 0.25}, {"b": 3.0}])
def test_every_crop_position_has_its_weight(weights):
    """Chi-square over all (clip, start): duration x source weight, starts uniform."""
    corpus = ToyCorpus(frames=(60, 41, 32, 20), sources=("a", "b", "a", "b"))
    sampler = CropSampler(corpus, quick("unused", source_weights=weights))
    count = 40_000
    expected = {}
    for clip, (frames, source) in enumerate(zip(corpus.frames, corpus.sources, strict=True)):
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
    sampler = CropSampler(ToyCorpus(frames=(2000, 500), sources=("a", "a")), quick("unused"))
    cover = [np.zeros(2000), np.zeros(500)]
    for clip, start in draws(sampler, 50_000):
        cover[clip][start : start + 32] += 1
    inner = np.concatenate([c[32:-32] for c in cover])
    assert inner.std() / inner.mean() < 0.12
    assert cover[0][32:-32].mean() / cover[1][32:-32].mean() == pytest.approx(1, abs=0.1)


def test_source_of_weight_zero_is_left_out():
    sampler = CropSampler(ToyCorpus(), quick("unused", source_weights={"a": 0}))
    assert {clip for clip, _ in draws(sampler, 500)} == {2, 3}


def test_masks_are_uniform_over_all_permutations():
    """Chi-square over the 4! orders of a grid of 4 patches."""
    corpus = ToyCorpus(frames=(100,), sources=("a",))
    settings = quick("unused", patch_mels=40, unit_frames=32)
    orders = StepDataset(CropSampler(corpus, settings)).batch(0, range(12_000)).order.numpy()
    counts = np.unique(orders @ [64, 16, 4, 1], return_counts=True)[1]
    assert len(counts) == 24
    assert chisquare(counts).pvalue > SIGNIFICANCE


def test_every_patch_is_masked_equally_often():
    """Chi-square, with the variance of drawing without replacement, over steps and samples."""
    corpus = ToyCorpus(frames=(300,), sources=("a",))
    dataset = StepDataset(CropSampler(corpus, quick("unused", unit_frames=208)))
    masks = [sampling.split_order(dataset[step][0].order, 0.75) for step in range(400)]
    masked = torch.cat([mask.masked for mask in masks])
    clips, patches = len(masked), 65
    assert masked.shape == (clips, 49)
    counts = np.bincount(masked.flatten().numpy(), minlength=patches)
    share = 49 / patches
    # Counts of one mask are correlated: each is 49 of 65. This scaling makes it a chi-square.
    statistic = ((counts - clips * share) ** 2).sum() / (clips * share * (1 - share))
    statistic *= (patches - 1) / patches
    from scipy.stats import chi2

    assert chi2.sf(statistic, patches - 1) > SIGNIFICANCE


def test_masks_and_crops_are_independent():
    """The masked share of the first patch is the same for crops from either half of a clip."""
    corpus = ToyCorpus(frames=(96,), sources=("a",))
    sampler = CropSampler(corpus, quick("unused"))
    table = np.zeros((2, 2))
    for sample in range(8000):
        random = generator(0, sampling.TRAIN, 0, sample)
        visible = int(0 in random.permutation(10)[:5])
        table[visible, int(sampler.place(random)[1] >= 33)] += 1
    expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    assert chisquare(table.ravel(), expected.ravel(), ddof=2).pvalue > SIGNIFICANCE


@pytest.mark.parametrize(("ratio", "visible"), [(0.75, 16), (0.8, 12), (0.99, 1), (0.001, 64)])
def test_number_of_visible_patches(ratio, visible):
    order = torch.arange(65).expand(2, -1)
    mask = sampling.split_order(order, ratio)
    assert mask.visible.shape == (2, visible)
    assert mask.masked.shape == (2, 65 - visible)


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_processes_share_the_same_global_batch(world_size, accumulation):
    corpus = ToyCorpus()
    whole = StepDataset(CropSampler(corpus, quick("unused")))
    sampler = CropSampler(corpus, quick("unused", accumulation=accumulation))
    for step in (0, 7):
        parts = [StepDataset(sampler, rank, world_size)[step] for rank in range(world_size)]
        joined = [torch.cat(x) for x in zip(*(b for p in zip(*parts) for b in p))]  # noqa: B905
        assert same(joined, whole[step][0])


def test_worker_processes_change_nothing():
    dataset = StepDataset(CropSampler(ToyCorpus(), quick("unused", mix=0.5, gain_db=6)))
    ahead = StepDataset(CropSampler(ToyCorpus(), quick("unused", mix=0.5, gain_db=6, workers=2)))
    pairs = list(zip(batches(dataset, 3, 8), batches(ahead, 3, 8), strict=True))
    assert len(pairs) == 5
    assert all(same(a[0], b[0]) for a, b in pairs)


def test_steps_and_seeds_differ():
    corpus = ToyCorpus()
    first, second = (StepDataset(CropSampler(corpus, quick("x", seed=s))) for s in (0, 1))
    assert not torch.equal(first[0][0].order, first[1][0].order)
    assert not torch.equal(first[0][0].order, second[0][0].order)
    assert same(first[5][0], first[5][0])


def test_data_seed_draws_others_and_keeps_the_hold_out():
    corpus = ToyCorpus(frames=(50,) * 40, sources=("a",) * 40)
    runs = [quick("unused", holdout=0.25, data_seed=n) for n in (None, 0, 1)]
    seen, held = (
        [StepDataset(CropSampler(corpus, run, held_out)).batch(3, range(64)) for run in runs]
        for held_out in (False, True)
    )
    assert same(seen[0], seen[1])  # of `seed`, which is 0
    repeated = (seen[0].order == seen[2].order).all(1)
    assert not repeated.any()
    assert same(held[0], held[2])
    trained = {clip for clip, _ in draws(CropSampler(corpus, runs[2]), 3000)}
    assert not trained & set(np.flatnonzero(sampling.held_out_clips(40, 0.25, 0)))


def test_crop_is_the_stretch_of_the_clip_normalised():
    corpus = ToyCorpus(frames=(32,), sources=("a",))
    batch = StepDataset(CropSampler(corpus, quick("unused"))).batch(0, range(2))
    expected = (corpus.read(0, 0, 32).astype(np.float32) + 8) / 4
    np.testing.assert_allclose(batch.spectrogram[1].numpy(), expected, rtol=1e-6)
    assert batch.spectrogram.dtype == torch.float32


def test_short_clips_lie_anywhere_in_silence():
    corpus = ToyCorpus(frames=(20,), sources=("a",))
    sampler = CropSampler(corpus, quick("unused"))
    starts = [-start for _, start in draws(sampler, 3000)]
    assert set(starts) == set(range(13))
    assert chisquare(np.bincount(starts)).pvalue > SIGNIFICANCE
    random = generator(3, sampling.TRAIN, 0, 5)
    before = -sampler.place(generator(3, sampling.TRAIN, 0, 5))[1]
    crop = sampler.crop(random)
    silent = np.ones(32, dtype=bool)
    silent[before : before + 20] = False
    assert (crop[:, silent] == np.float32(SILENCE)).all()
    assert (crop[:, ~silent] == corpus.read(0, 0, 20)).all()


def test_held_out_clips_are_never_trained_on():
    corpus = ToyCorpus(frames=(50,) * 40, sources=("a",) * 40)
    settings = quick("unused", holdout=0.25)
    trained = {clip for clip, _ in draws(CropSampler(corpus, settings), 3000)}
    held = {clip for clip, _ in draws(CropSampler(corpus, settings, held_out=True), 3000)}
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
    corpus = ToyCorpus(frames=(50,) * 40, sources=("a",) * 40)
    plain, changed = (
        StepDataset(CropSampler(corpus, quick("x", holdout=0.25, **more), held_out=True))[0][0]
        for more in ({}, {"gain_db": 6.0, "mix": 1.0})
    )
    assert same(plain, changed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source_weights": {"music": 1.0}}, r"source_weights names \['music'\].*\['a', 'b'\]"),
        ({"source_weights": {"a": 0, "b": 0}}, "no clips to train on"),
    ],
)
def test_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        CropSampler(ToyCorpus(), quick("unused", **changes))


def test_batch_that_processes_cannot_share():
    with pytest.raises(ValueError, match=r"batch \(8\) must be a multiple .* processes \(3\)"):
        StepDataset(CropSampler(ToyCorpus(), quick("unused")), 0, 3)


@given(st.floats(-20, 20))
def test_gain_is_that_of_the_audio(decibels):
    power = np.array([[0.0, 1e-6, 1e-3, 1.0, 100.0]], dtype=np.float32)
    log_mel = np.log(power + np.float32(2**-23))
    expected = np.log(power * 10 ** (decibels / 10) + 2**-23)
    np.testing.assert_allclose(sampling.gain(log_mel, decibels), expected, atol=2e-3)


def test_mix_adds_power_and_silence_changes_nothing():
    first = np.log(np.array([[1.0, 1e-3]], dtype=np.float32))
    second = np.log(np.array([[10.0, 1e-2]], dtype=np.float32))
    mixed = sampling.mix(first, second, -10.0)
    np.testing.assert_allclose(np.exp(mixed), [[2.0, 2e-3]], rtol=1e-3)
    silence = np.full((1, 2), SILENCE, dtype=np.float32)
    np.testing.assert_allclose(sampling.mix(first, silence, 0.0), first, atol=1e-4)


def test_augmentation_is_random_per_crop():
    corpus = ToyCorpus(frames=(32,), sources=("a",))
    batch = StepDataset(CropSampler(corpus, quick("unused", gain_db=6.0))).batch(0, range(600))
    loudest = batch.spectrogram.amax((1, 2)) * corpus.std
    gains = (loudest - loudest.min()).numpy() * 10 / np.log(10)
    assert kstest(gains / 12, "uniform").pvalue > SIGNIFICANCE
