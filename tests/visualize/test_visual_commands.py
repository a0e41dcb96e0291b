"""The commands `attention` and `reconstruct`: what they write and what they refuse."""

import re

import numpy as np
import pytest
import soundfile
from visual_commands import command, encoder_only

from hear_msm_mae.checkpoints.native import Checkpoint, save_checkpoint, state_tensors
from hear_msm_mae.config import ModelConfig
from hear_msm_mae.encoder import Encoder


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "in" / "a stereo recording.flac"
    path.parent.mkdir()
    time = np.arange(3 * 22050) / 22050
    left = 0.3 * np.sin(2 * np.pi * 700 * time)
    soundfile.write(path, np.stack([left, left / 2], axis=1), 22050)
    return path


def test_reconstruct_writes_picture_and_sound(recording, tiny_file, tmp_path):
    png, wav = tmp_path / "new" / "out.png", tmp_path / "out.wav"
    result = command("reconstruct", recording, "-o", png, "--wav", wav, "-w", tiny_file)
    assert result.exit_code == 0, result.output
    assert png.read_bytes().startswith(b"\x89PNG")
    sound, rate = soundfile.read(wav)
    assert (len(sound), rate) == (48000, 16000)
    assert "3.00 s" in result.output


def test_reconstruct_a_stretch(recording, tiny_file, tmp_path):
    wav = tmp_path / "out.wav"
    options = ("--start", 1, "--seconds", 0.5, "--mask-ratio", 0.01, "-w", tiny_file)
    result = command("reconstruct", recording, "-o", tmp_path / "o.png", "--wav", wav, *options)
    assert result.exit_code == 0, result.output
    sound, _ = soundfile.read(wav)
    assert len(sound) == 8000
    # Hardly anything is hidden, so the tone is still there.
    spectrum = np.abs(np.fft.rfft(sound))
    assert abs(spectrum.argmax() * 2 - 700) < 45


def test_attention_writes_a_picture(recording, tiny_file, tmp_path):
    for options in ((), ("--block", 0, "--queries", "cls", "--seconds", 1)):
        png = tmp_path / "out.png"
        result = command("attention", recording, "-o", png, "-w", tiny_file, *options)
        assert result.exit_code == 0, result.output
        assert png.read_bytes().startswith(b"\x89PNG")
        png.unlink()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["reconstruct", "IN", "-o", "out.jpg"], r"--output must end in \.png"),
        (["reconstruct", "IN", "-o", "out.png", "--wav", "a.mp3"], r"--wav must end in \.wav"),
        (["reconstruct", "IN", "-o", "out.png", "--mask-ratio", "1"], "mask_ratio must be between"),
        (["reconstruct", "IN", "-o", "out.png", "--seconds", "0"], "--seconds must be positive"),
        (["reconstruct", "IN", "-o", "out.png", "--start", "9"], "the file is shorter"),
        (["reconstruct", "IN", "-o", "out.png", "--start", "-1"], "start and stop must satisfy"),
        (["reconstruct", "absent.wav", "-o", "out.png"], "no such file: absent.wav"),
        (["reconstruct", ".", "-o", "out.png"], "not a regular file"),
        (["attention", "IN", "-o", "out.jpg"], r"--output must end in \.png"),
        (["attention", "IN", "-o", "out.png", "--block", "5"], "block must be from -2 to 1"),
        (["attention", "IN", "-o", "out.png", "--queries", "x"], "queries must be one of"),
        (["attention", "IN", "-o", "out.png", "--device", "x"], "device 'x' is not usable"),
    ],
)
def test_commands_refuse(arguments, reason, recording, tiny_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [recording if argument == "IN" else argument for argument in arguments]
    result = command(*arguments, "-w", tiny_file)
    assert isinstance(result.exception, (ValueError, OSError)), result.output
    assert re.search(reason, str(result.exception)), result.exception
    assert {path.name for path in tmp_path.iterdir()} == {"in"}


def test_commands_name_a_missing_decoder(recording, tiny_checkpoint, tmp_path):
    weights = encoder_only(tiny_checkpoint, tmp_path / "encoder.safetensors")
    result = command("reconstruct", recording, "-o", tmp_path / "o.png", "-w", weights)
    assert "hold no decoder" in str(result.exception)
    assert command("attention", recording, "-o", tmp_path / "o.png", "-w", weights).exit_code == 0


def test_cls_queries_need_a_cls_token(recording, tmp_path):
    config = ModelConfig(width=16, depth=1, heads=1, cls_token=False)
    weights = tmp_path / "nocls.safetensors"
    save_checkpoint(weights, Checkpoint(config, state_tensors(Encoder(config))))
    result = command("attention", recording, "-o", tmp_path / "o.png", "-w", weights)
    assert result.exit_code == 0, result.output
    result = command(
        "attention", recording, "-o", tmp_path / "o.png", "-w", weights, "--queries", "cls"
    )
    assert "no CLS token" in str(result.exception)
