"""Augmentation: each change is that of the audio, and as frequent as the settings say."""

import pytest
import torch
from scipy.stats import kstest
from toy_corpus import ToyCorpus, quick

from hear_msm_mae.log_mel import LogMel
from hear_msm_mae.pretrain import augmentation
from hear_msm_mae.pretrain.augmentation import mel_bands, reverberate, sounds, to_log_mel, to_power
from hear_msm_mae.pretrain.sampling import Sampler, spread

CPU = torch.device("cpu")
MIX, GAIN, TILT = range(3)


def changes(**values):
    """(1, 8) random integers that `between` turns into these shares of its range."""
    bits = torch.zeros(1, 8, dtype=torch.int64)
    for column, share in values.items():
        bits[0, {"mix": MIX, "gain": GAIN, "tilt": TILT}[column]] = int(share * 2**24)
    return bits << 40


def augmented(power, added=None, bits=None, **settings):
    """Mel power (f,) of a crop with the same power everywhere."""
    x = torch.full((1, 32, 80), power)
    second = None if added is None else to_log_mel(torch.full((1, 32, 80), added))
    mixed = None if added is None else torch.tensor([0])
    bits = changes(gain=0.5, tilt=0.5) if bits is None else bits
    s = quick("unused", **settings)
    return augmentation.augmented(x, bits, second, mixed, None, s, (-8.0, 4.0))[0, 0].double()


@pytest.mark.parametrize(("share", "power"), [(0.0, 1e-5), (0.75, 100.0), (0.5, 0.0)])
def test_gain_is_that_of_the_audio(share, power):
    found = augmented(power, bits=changes(gain=share), gain_db=20.0)
    expected = torch.full((80,), power * 10 ** (4 * share - 2), dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def test_tilt_is_a_straight_line_over_the_mel_bins():
    found = augmented(1.0, bits=changes(tilt=0.25), tilt_db=6.0)
    expected = torch.linspace(3, -3, 80, dtype=torch.float64)
    torch.testing.assert_close(10 * found.log10(), expected, rtol=0, atol=1e-5)


def test_mix_adds_power_and_silence_changes_nothing():
    found = augmented(1e-3, 1e-2, bits=changes(mix=0.5), mix=1.0)  # -10 dB
    torch.testing.assert_close(found, torch.full((80,), 2e-3).double(), rtol=1e-3, atol=0)
    found = augmented(1e-3, 0.0, mix=1.0)
    torch.testing.assert_close(found, torch.full((80,), 1e-3).double(), rtol=1e-3, atol=0)


def test_power_and_back():
    log_mel = torch.linspace(-15.9, 10, 100)
    torch.testing.assert_close(to_log_mel(to_power(log_mel.clone())), log_mel)


def test_reverberation_decays_as_asked_and_has_the_energy_asked():
    """A click of 10 ms: its tail falls by 60 dB in the decay time of each band."""
    seconds = torch.tensor([0.2, 0.5, 1.3])
    click = torch.zeros(1, 900, 3)
    click[0, 5] = 2.0
    found = reverberate(click, seconds[None, None], torch.tensor([[[-3.0]]]))[0].double()
    assert (found[:5] == 0).all()
    assert (found[5] == 2).all()
    decibels = 10 * (found[6:40] / found[6]).log10()
    slope = -60 / (100 * seconds.double())  # dB in a frame of 10 ms
    expected = torch.arange(34)[:, None] * slope
    torch.testing.assert_close(decibels, expected, rtol=1e-4, atol=1e-4)
    energy = found[6:].sum(0) / 2
    torch.testing.assert_close(energy, torch.full((3,), 10**-0.3).double(), rtol=1e-3, atol=0)


def test_reverberation_is_a_recursion_along_time():
    power = torch.rand(2, 37, 4)
    found = reverberate(power, torch.full((2, 1, 4), 0.7), torch.zeros(2, 1, 1))
    decay, tail = 10 ** (-6 * 0.01 / 0.7), torch.zeros(2, 4)
    for frame in range(37):
        expected = power[:, frame] + (1 - decay) * tail
        torch.testing.assert_close(found[:, frame], expected, rtol=1e-5, atol=0)
        tail = decay * tail + power[:, frame]


def spectrograms(count=200, **settings):
    corpus = ToyCorpus((50,) * 40, ("a",) * 40)
    sampler = Sampler(corpus, quick("unused", batch=count, **settings))
    return sampler.spectrogram(sampler.batch(3, range(count)))


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("name", ["procedural", "reverb"])
def test_the_share_of_changed_crops_is_that_of_the_settings(name, share):
    changed = (spectrograms(**{name: share}) - spectrograms()).abs().amax((1, 2)) > 1e-3
    assert changed.float().mean() == pytest.approx(share, abs=0.08)


def test_procedural_crops_are_spread_over_processes_and_mixed_like_others():
    settings = quick("unused", batch=1000, procedural=0.5, mix=0.5)
    drawn = Sampler(ToyCorpus(), settings).batch(0, range(1000))
    first = (drawn.procedural < 500).float().mean()
    assert len(drawn.procedural) == pytest.approx(500, abs=2)
    assert first == pytest.approx(0.5, abs=0.01)
    mixed = torch.isin(drawn.procedural, drawn.mixed).float().mean()
    assert mixed == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("share", [0.0, 0.15, 0.5, 1.0])
def test_share_of_mixed_crops_is_spread_over_all_processes(share):
    whole = spread(range(1000), share)
    assert len(whole) == round(1000 * share)
    parts = [spread(range(start, start + 250), share) for start in range(0, 1000, 250)]
    assert [250 * i + place for i, part in enumerate(parts) for place in part] == whole


def test_changes_are_random_for_each_crop():
    settings = quick("unused", gain_db=6.0, mix=0.5, batch=600)
    drawn = Sampler(ToyCorpus(), settings).batch(0, range(600))
    assert drawn.second.shape == (300, 32, 80)
    for column in drawn.changes.T:
        assert kstest(column.double() / 2**63, "uniform", (-1, 2)).pvalue > 1e-3
    assert len(drawn.changes.unique()) == 600 * 8


def test_procedural_sounds_look_like_the_corpus_and_differ():
    keys = torch.arange(64) * 7919
    bands = mel_bands(80, 16_000, CPU)
    found = to_log_mel(sounds(keys, 208, bands, -8.0, 4.0))
    assert found.shape == (64, 208, 80)
    assert found.isfinite().all()
    assert found.mean() == pytest.approx(-8, abs=2)
    assert found.std() == pytest.approx(4, abs=1)
    assert len(found.sum((1, 2)).unique()) == 64
    alone = to_log_mel(sounds(keys[:3], 208, bands, -8.0, 4.0))
    torch.testing.assert_close(alone, found[:3], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rate", [16_000, 32_000])
def test_mel_bands_are_where_a_tone_is_seen(rate):
    centre, _ = mel_bands(80, rate, CPU)
    for hertz in (300.0, 1000.0, 4000.0):
        tone = torch.sin(2 * torch.pi * hertz * torch.arange(rate) / rate)
        power = LogMel(sample_rate=rate).log_mel(tone[None])[0, :, 50].exp()
        assert (power @ centre) / power.sum() == pytest.approx(hertz, rel=0.03)
    assert (centre.diff() > 0).all()
