"""32 kHz from the recordings to the report: the constants come from the configuration."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
import torch
from toy_corpus import quick
from visual_commands import command, data_of

from hear_msm_mae import embed_files, get_timestamp_embeddings, load_model
from hear_msm_mae.audio import read_audio
from hear_msm_mae.corpus.bank import Bank
from hear_msm_mae.corpus.prepare import prepare
from hear_msm_mae.log_mel import LogMel
from hear_msm_mae.pretrain import hardware
from hear_msm_mae.pretrain.export import export
from hear_msm_mae.pretrain.train import pretrain
from hear_msm_mae.visualize.sound import to_waveform

RATE = 32_000


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Tones that 16 kHz audio cannot hold, at other rates; one with silence to be cut out."""
    folder = tmp_path_factory.mktemp("source")
    for i, rate in enumerate((44_100, 48_000, 32_000)):
        time = np.arange(2 * rate) / rate
        wave = 0.3 * np.sin(2 * np.pi * (11_000 + 1000 * i) * time)
        if i == 2:
            wave = np.concatenate([wave, np.zeros(3 * rate), wave])
        soundfile.write(folder / f"{i}.flac", wave, rate)
    return folder


@pytest.fixture(scope="module")
def corpus(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus") / "32k"
    arguments = ("prepare", source, folder, "--sample-rate", RATE, "--workers", 0)
    result = command(*arguments)
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="module")
def weights(source, corpus, tmp_path_factory):
    """Exported after a few steps, with a probe and pictures on the way."""
    run_dir = tmp_path_factory.mktemp("run") / "run"
    peak_size, hardware.PEAK_SIZE = hardware.PEAK_SIZE, 64
    changes = {"sample_rate": RATE, "corpus": str(corpus), "steps": 3, "pictures": 1}
    assert pretrain(quick(run_dir, **changes)).signal is None
    hardware.PEAK_SIZE = peak_size
    assert list(run_dir.glob("pictures/*.png"))
    return export(run_dir, run_dir / "weights.safetensors")


def test_the_corpus_holds_frames_of_32_khz(source, corpus):
    stored = json.loads((corpus / "corpus.json").read_text())["front_end"]
    sizes = {"sample_rate": RATE, "window_length": 800, "hop_length": 320, "f_max": 16_000}
    assert {name: stored[name] for name in sizes} == sizes
    bank = Bank.open(corpus)
    assert (bank.sample_rate, len(bank)) == (RATE, 4)
    waveform = torch.from_numpy(read_audio(source / "0.flac", sample_rate=RATE))
    expected = LogMel(sample_rate=RATE).log_mel(waveform[None])[0]
    found = bank.frames[: bank.lengths[0]].T.float()
    np.testing.assert_allclose(found, expected, atol=1e-2)  # stored in float16
    assert found[:, 100].argmax() > 70  # of 80 bands: the tone is above 8 kHz
    assert bank.lengths.tolist()[2:] == [200, 201]  # 2 s each: 3 s of silence are gone


def test_rates_do_not_mix(source, corpus, tmp_path):
    with pytest.raises(ValueError, match="made with sample_rate = 32000, not 16000"):
        prepare([source], corpus, workers=0, progress=False)
    with pytest.raises(ValueError, match=r"sample_rate must be one of .*, got 44100"):
        prepare([source], tmp_path / "new", sample_rate=44_100)
    with pytest.raises(ValueError, match=r"sample_rate is 16000, but .* with 32000 Hz"):
        pretrain(quick(tmp_path / "run", corpus=str(corpus)))
    assert not any(tmp_path.iterdir())


def test_weights_of_another_rate_are_no_start(corpus, tiny_file, tmp_path):
    changes = {"sample_rate": RATE, "corpus": str(corpus), "init_from": str(tiny_file)}
    with pytest.raises(ValueError, match="sample_rate was 16000 and is now 32000"):
        pretrain(quick(tmp_path / "run", **changes))


def test_the_weights_embed_at_their_rate(source, weights):
    model = load_model(weights)
    assert (model.sample_rate, model.config.name) == (RATE, "80x32p16x16p32k")
    (record,) = embed_files(source / "1.flac", model, timestamps=True)
    waveform = read_audio(source / "1.flac", sample_rate=RATE)
    expected, times = get_timestamp_embeddings(waveform[None], model)
    assert record.end == 2
    np.testing.assert_allclose(record.timestamps_ms, times[0])
    np.testing.assert_allclose(record.embedding, expected[0], atol=1e-5)


def test_report_and_pictures(source, weights, tmp_path):
    page = tmp_path / "page.html"
    result = command("report", source, "-o", page, "-w", weights, "--mask-ratio", 0.5)
    assert result.exit_code == 0, result.output
    data = data_of(page)
    assert data["sampleRate"] == RATE
    assert [clip["seconds"] for clip in data["clips"]] == [2, 2, 7]
    assert data["ticks"][-1][0] == "14k"
    recording, picture, wav = source / "0.flac", tmp_path / "a.png", tmp_path / "a.wav"
    result = command("reconstruct", recording, "-o", picture, "--wav", wav, "-w", weights)
    assert result.exit_code == 0, result.output
    assert "2.00 s" in result.output
    sound, rate = soundfile.read(wav)
    assert (len(sound), rate) == (2 * RATE, RATE)
    result = command("attention", recording, "-o", picture, "-w", weights)
    assert result.exit_code == 0, result.output


def test_a_high_tone_comes_back():
    tone = 0.5 * torch.sin(2 * torch.pi * 12_000 * torch.arange(RATE) / RATE)
    log_mel = LogMel(sample_rate=RATE).log_mel(tone[None])[0]
    sound = to_waveform(log_mel, sample_rate=RATE)
    assert sound.shape == (RATE,)
    spectrum = torch.fft.rfft(sound[4000:28_000] * torch.hann_window(24_000)).abs()
    # The band at 12 kHz is 600 Hz wide, and one frequency inside of it is as good as another.
    assert abs(int(spectrum.argmax()) * RATE / 24_000 - 12_000) < 600
