"""Attention maps, masked clips, reconstructions and their sound: the numbers."""

import dataclasses
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from visual_commands import encoder_only

from hear_msm_mae import load_model
from hear_msm_mae.audio import read_audio
from hear_msm_mae.checkpoints.native import Checkpoint, save_checkpoint
from hear_msm_mae.config import ModelConfig
from hear_msm_mae.encoder import Encoder, patchify
from hear_msm_mae.log_mel import LogMel, mel_filter_bank
from hear_msm_mae.mae import Mask
from hear_msm_mae.plots import HERTZ, INSTALL, Panel, draw, mel_positions
from hear_msm_mae.visualize import clip as visual
from hear_msm_mae.visualize.sound import linear_power, to_waveform

EXAMPLES = Path(__file__).parents[2] / "examples"


def noise(seconds: float) -> torch.Tensor:
    return torch.randn(int(seconds * 16000)) * 0.1


# ---------------------------------------------------------------------------------------------
# Attention
# ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("cls", [True, False])
@pytest.mark.parametrize("block", [0, 1, -1])
def test_attention_weights_are_those_that_the_block_uses(cls, block):
    """What the fused attention of the block returns is what these weights make of its values."""
    config = ModelConfig(width=48, depth=3, heads=3, cls_token=cls)
    encoder = Encoder(config).eval()
    attention = encoder.blocks[block].attn
    seen = []
    attention.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    units = torch.randn(2, 80, 96) * 2
    with torch.no_grad():
        encoder(units)
        weights = encoder.attention(units, block)
        normed, output = seen[0]
        values = attention.qkv(normed)[..., 96:].unflatten(-1, (3, 16)).transpose(1, 2)
        expected = attention.proj((weights @ values).transpose(1, 2).flatten(2))
    tokens = 30 + cls
    assert weights.shape == (2, 3, tokens, tokens)
    torch.testing.assert_close(output, expected)


def test_attention_of_a_block_that_is_not_there():
    encoder = Encoder(ModelConfig(width=16, depth=2, heads=1))
    for block in (2, -3):
        with pytest.raises(IndexError):
            encoder.attention(torch.zeros(1, 80, 16), block)


def test_attention_map_is_relative_to_an_even_share(tiny_model):
    clip = visual.spectrogram(tiny_model, noise(2.5))  # 16 columns: units of 13 and 3
    for queries in visual.QUERIES:
        heads = visual.attention_map(tiny_model, clip, queries=queries)
        assert heads.shape == (2, 5, 16)
        for unit in (heads[..., :13], heads[..., 13:]):
            torch.testing.assert_close(unit.mean((1, 2)), torch.ones(2))
    assert not torch.equal(heads, visual.attention_map(tiny_model, clip))


def test_attention_map_shows_where_attention_goes(tiny_file):
    """Queries that find nothing attend evenly; one key that answers all of them stands out."""
    model = load_model(tiny_file)
    block = model.encoder.blocks[-1].attn
    with torch.no_grad():
        block.qkv.weight.zero_()
        clip = visual.spectrogram(model, noise(2.07))
        torch.testing.assert_close(visual.attention_map(model, clip), torch.ones(2, 5, 13))
        # Queries of head 0 are all (c, 0, ...); its keys follow the first channel of the tokens.
        block.qkv.q_bias[0] = 30.0
        block.qkv.weight[32, 0] = 1.0
        seen = []
        model.encoder.blocks[-1].norm1.register_forward_hook(lambda m, i, out: seen.append(out))
        heads = visual.attention_map(model, clip)
    channel = seen[0][0, 1:, 0].view(5, 13)
    assert int(heads[0].argmax()) == int(channel.argmax())
    torch.testing.assert_close(heads[1], torch.ones(5, 13))


def test_attention_map_refuses(tiny_model):
    clip = torch.zeros(80, 16)
    with pytest.raises(ValueError, match="block must be from -2 to 1"):
        visual.attention_map(tiny_model, clip, block=2)
    with pytest.raises(ValueError, match="queries must be one of"):
        visual.attention_map(tiny_model, clip, queries="heads")


# ---------------------------------------------------------------------------------------------
# Masking and reconstruction
# ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("columns", [1, 12, 13, 14, 30])
@pytest.mark.parametrize("ratio", [0.1, 0.75, 0.99])
def test_every_unit_is_masked_like_a_crop(tiny_config, columns, ratio):
    hidden = visual.random_patches(tiny_config, columns, ratio, seed=3)
    assert hidden.shape == (5, columns)
    for first in range(0, columns, 13):
        unit = hidden[:, first : first + 13]
        assert int((~unit).sum()) == max(1, int(unit.numel() * (1 - ratio)))
    assert torch.equal(hidden, visual.random_patches(tiny_config, columns, ratio, seed=3))


def test_other_seeds_hide_other_patches(tiny_config):
    masks = [visual.random_patches(tiny_config, 13, 0.5, seed) for seed in range(4)]
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == 4


@pytest.mark.parametrize("seconds", [0.01, 0.5, 2.07, 2.08, 2.5, 5.0])
def test_hidden_patches_and_only_those_are_replaced(tiny_model, monkeypatch, seconds):
    """With a decoder that always says 99, whatever the length of the clip."""
    autoencoder = visual.masked_autoencoder(tiny_model)

    def says_99(units, mask):
        assert units.shape == (1, 80, 208)
        return torch.nan_to_num(autoencoder.hide(units, mask), nan=99.0)

    monkeypatch.setattr(autoencoder, "reconstruct", says_99)
    clip = visual.spectrogram(tiny_model, noise(seconds))
    result = visual.reconstruct(autoencoder, clip, 0.75)
    assert result.output.shape == clip.shape
    assert result.hidden.shape == (5, clip.shape[1] // 16)
    expected = torch.nan_to_num(visual.hide(clip, result.hidden, tiny_model.config), nan=99.0)
    assert torch.equal(result.output, expected)
    assert (result.output == 99).float().mean() == pytest.approx(
        float(result.hidden.float().mean())
    )


def test_reconstruction_is_that_of_the_autoencoder(tiny_model):
    autoencoder = visual.masked_autoencoder(tiny_model)
    assert autoencoder.encoder is tiny_model.encoder
    clip = visual.spectrogram(tiny_model, noise(2.5))  # 16 columns, the last unit from column 3
    result = visual.reconstruct(autoencoder, clip, 0.6, seed=5)
    for window, new in ((slice(0, 208), slice(0, 208)), (slice(48, 256), slice(208, 256))):
        mask = Mask.from_bool(
            result.hidden[:, window.start // 16 : window.stop // 16].reshape(1, -1)
        )
        with torch.no_grad():
            unit = autoencoder.reconstruct(clip[None, :, window], mask)[0]
        torch.testing.assert_close(
            result.output[:, new], unit[:, new.start - window.start :], rtol=0, atol=1e-5
        )
    assert torch.equal(
        visual.hide(clip[:, :208], result.hidden[:, :13], tiny_model.config).isnan(),
        autoencoder.hide(clip[None, :, :208], Mask.from_bool(result.hidden[:, :13].reshape(1, -1)))[
            0
        ].isnan(),
    )


def test_normalised_predictions_get_the_patches_own_statistics(tiny_checkpoint, tmp_path):
    """A decoder of zeros predicts the mean of each hidden patch, if it predicts normalised ones."""
    tensors = dict(tiny_checkpoint.tensors)
    for name in ("decoder.predict.weight", "decoder.predict.bias"):
        tensors[name] = torch.zeros_like(tensors[name])
    for norm_pixels in (True, False):
        config = dataclasses.replace(tiny_checkpoint.config, norm_pixels=norm_pixels)
        save_checkpoint(tmp_path / "zeros.safetensors", Checkpoint(config, tensors))
        model = load_model(tmp_path / "zeros.safetensors")
        clip = visual.spectrogram(model, noise(2.08))
        result = visual.reconstruct(visual.masked_autoencoder(model), clip, 0.75)
        patches = patchify(clip[None], config)[0][result.hidden.flatten()]
        expected = patches.mean(1, keepdim=True) if norm_pixels else torch.zeros(len(patches), 1)
        predicted = patchify(result.output[None], config)[0][result.hidden.flatten()]
        torch.testing.assert_close(predicted, expected.expand_as(predicted), rtol=0, atol=1e-4)


def test_fill_is_silence_in_the_models_own_statistics(tiny_file):
    """A clip shorter than a unit is reconstructed like the same clip followed by silence."""
    model = load_model(tiny_file, normalization=(-9.0, 2.0))
    autoencoder = visual.masked_autoencoder(model)
    waveform = noise(0.5)
    short = visual.spectrogram(model, waveform)  # 51 frames, 4 columns
    long = visual.spectrogram(model, torch.nn.functional.pad(waveform, (0, 25000)))
    assert short.shape[1] == 64
    first = visual.reconstruct(autoencoder, short, 0.75).output
    second = visual.reconstruct(autoencoder, long[:, :208], 0.75).output
    # But for the frame that straddles the end of the waveform.
    torch.testing.assert_close(first[:, :40], second[:, :40], rtol=0, atol=0.05)


def test_bfloat16_encoder_reconstructs_like_float32(tiny_file):
    waveform = noise(2.5)
    outputs = []
    for precision in ("float32", "bfloat16"):
        model = load_model(tiny_file, precision=precision)
        clip = visual.spectrogram(model, waveform)
        result = visual.reconstruct(visual.masked_autoencoder(model), clip, 0.75)
        outputs.append(result.output)
    exact, rough = outputs
    assert exact.dtype == rough.dtype == torch.float32
    hidden = visual.hide(clip, result.hidden, model.config).isnan()
    assert float((exact - rough).abs().max()) < 0.1 * float(exact[hidden].std())
    assert not torch.equal(exact, rough)


def test_weights_without_decoder_cannot_reconstruct(tiny_checkpoint, tmp_path):
    model = load_model(encoder_only(tiny_checkpoint, tmp_path / "encoder.safetensors"))
    with pytest.raises(ValueError, match=r"no decoder.*without --encoder-only"):
        visual.masked_autoencoder(model)


# ---------------------------------------------------------------------------------------------
# Sound
# ---------------------------------------------------------------------------------------------
def test_tone_comes_back_as_the_same_tone():
    tone = 0.5 * torch.sin(2 * math.pi * 1000 * torch.arange(16000) / 16000)
    sound = to_waveform(LogMel().log_mel(tone[None])[0])
    assert sound.shape == (16000,)
    spectrum = torch.fft.rfft(sound[2000:14000] * torch.hann_window(12000)).abs()
    assert abs(int(spectrum.argmax()) * 16000 / 12000 - 1000) < 40  # one bin of the front end
    assert float(sound.square().mean().sqrt()) == pytest.approx(0.5 / math.sqrt(2), rel=0.1)


def test_sound_has_the_log_mel_it_was_made_from():
    for name in ("speech_english_reader_1.wav", "music_castle.ogg"):
        log_mel = LogMel().log_mel(torch.from_numpy(read_audio(EXAMPLES / name, 0, 3))[None])[0]
        again = LogMel().log_mel(to_waveform(log_mel)[None])[0]
        assert float((again - log_mel).abs().mean()) < 0.3  # of values that spread by 3
    assert float(log_mel.std()) > 2


def test_sound_of_silence_of_one_frame_and_of_one_seed():
    silence = LogMel().log_mel(torch.zeros(1, 4000))[0]
    assert float(to_waveform(silence).abs().max()) < 1e-3
    assert [to_waveform(silence[:, :t] + 5).abs().max() for t in (1, 2)] == [0, 0]
    assert [len(to_waveform(silence[:, :t])) for t in (1, 2, 3)] == [160, 160, 320]
    log_mel = torch.randn(80, 20) - 6
    state = torch.get_rng_state()
    first, second, third = (to_waveform(log_mel, seed) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert torch.equal(state, torch.get_rng_state())


def test_linear_power_has_the_given_mel_bands():
    basis = mel_filter_bank(80).float()
    power = torch.rand(201, 30) ** 4 * 100
    mel = basis.T @ power
    found = linear_power(mel, iterations=300)
    assert bool((found >= 0).all())
    assert float((basis.T @ found - mel).abs().mean() / mel.mean()) < 0.01
    assert bool((linear_power(torch.zeros(80, 2)) == 0).all())


# ---------------------------------------------------------------------------------------------
# Figures
# ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("rate", "shown"), [(16_000, HERTZ[:-1]), (32_000, HERTZ)])
def test_frequencies_lie_where_the_slaney_scale_puts_them(rate, shown):
    """The scale by its definition: linear below 1 kHz, then 27 steps per factor of 6.4."""

    def mel(hz):
        return hz * 3 / 200 if hz < 1000 else 15 + 27 * math.log(hz / 1000) / math.log(6.4)

    low, high = mel(50), mel(rate / 2)
    # Band k of 80 is centred at step k + 1 of 81, and drawn at (k + 0.5) / 80.
    expected = {hz: ((mel(hz) - low) / (high - low) * 81 - 0.5) / 80 for hz in shown}
    assert mel_positions(80, rate) == pytest.approx(expected, abs=0.01)


def test_figure_shows_values_at_their_time(tmp_path):
    from PIL import Image

    values = torch.zeros(80, 160)
    values[:, 80:] = 1
    draw(tmp_path / "a.png", [[Panel("half", values, 0, 1)]], 80, 120, 160)  # 1.2 of 1.6 s
    picture = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
    line = picture[picture.shape[0] // 2]  # where the colour bar has its middle value
    dark = np.flatnonzero(np.abs(line - [0, 0, 4]).max(1) <= 2)
    bright = np.flatnonzero(np.abs(line - [252, 253, 191]).max(1) <= 2)
    assert dark.max() < bright.min()
    assert len(dark) / (len(dark) + len(bright)) == pytest.approx(80 / 120, abs=0.01)


def test_figure_without_matplotlib(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="visual"):
        draw(tmp_path / "a.png", [[Panel("", torch.zeros(80, 16), 0, 1)]], 80, 16)
    assert INSTALL == "pip install 'hear_msm_mae[visual]'"
    assert not list(tmp_path.iterdir())
