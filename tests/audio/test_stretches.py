"""A stretch of a file is the same slice of the whole file, in every format and at every rate."""

from __future__ import annotations

import numpy as np
import pytest
import soxr
from audio_files import sound, with_flac_total, without_xing, write, write_av

from hear_msm_mae.audio import read_audio, stream_audio

RATES = (8000, 11025, 22050, 44100, 48000, 96000)
OPUS = {"format": "OGG", "subtype": "OPUS"}
VBR = {"bitrate_mode": "VARIABLE", "compression_level": 0.5}


def check(path, rng, sample_rate: int = 16000) -> None:
    whole = read_audio(path, sample_rate=sample_rate)
    ends = [0, 1, sample_rate - 1, sample_rate, 2 * sample_rate + 1, len(whole) - 1]
    for first in [*ends, *rng.integers(0, len(whole), 6)]:
        blocks = stream_audio(path, 0.7, first / sample_rate, sample_rate=sample_rate)
        np.testing.assert_allclose(np.concatenate(list(blocks)), whole[first:], rtol=0, atol=1e-6)
        last = int(rng.integers(first, len(whole))) + 1
        part = read_audio(path, first / sample_rate, last / sample_rate, sample_rate=sample_rate)
        np.testing.assert_allclose(part, whole[first:last], rtol=0, atol=1e-6)


@pytest.mark.parametrize("rate", RATES)
def test_samples_as_they_are(tmp_path, rate):
    """WAV and FLAC, which seek; the whole is what soxr makes of all samples at once."""
    rng, samples = np.random.default_rng(rate), sound(3.37, rate)
    path = write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
    expected = soxr.resample(samples, rate, 16000, "HQ")
    np.testing.assert_allclose(read_audio(path), expected, atol=1e-6)
    check(path, rng)
    check(write(tmp_path / "a.flac", samples, rate), rng)


@pytest.mark.parametrize("rate", [8000, 22050, 48000])
@pytest.mark.parametrize(
    ("name", "options"), [("a.mp3", VBR), ("a.ogg", {}), ("a.opus", OPUS)], ids=lambda x: str(x)
)
def test_compressed(tmp_path, rate, name, options):
    rate = 24000 if name == "a.opus" and rate == 22050 else rate
    path = write(tmp_path / name, sound(3.37, rate), rate, **options)
    check(path, np.random.default_rng(rate))


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.wav", "GSM610"),
        ("a.wav", "G721_32"),
        ("a.wav", "NMS_ADPCM_16"),
        ("a.wav", "MS_ADPCM"),
        ("a.wav", "IMA_ADPCM"),
        ("a.xi", "DPCM_16"),
        ("a.caf", "ALAC_16"),
    ],
)
def test_codecs_of_telephones_and_others(tmp_path, name, codec):
    """Some of them cannot seek."""
    rate = 44100 if name == "a.xi" else 8000  # XI has no other rate
    path = write(tmp_path / name, sound(3.37, rate), rate, subtype=codec)
    check(path, np.random.default_rng(0))


def test_without_a_count(tmp_path):
    rng, samples = np.random.default_rng(0), sound(3.37, 44100)
    mp3 = write(tmp_path / "a.mp3", samples, 44100, **VBR)
    mp3.write_bytes(without_xing(mp3.read_bytes()))
    check(mp3, rng)
    flac = write(tmp_path / "a.flac", samples, 44100)
    flac.write_bytes(with_flac_total(flac.read_bytes(), 0))
    check(flac, rng)


@pytest.mark.parametrize(("name", "codec"), [("a.m4a", "aac"), ("a.webm", "libopus")])
def test_by_pyav(tmp_path, name, codec):
    path = write_av(tmp_path / name, sound(3.37, 48000), 48000, codec)
    check(path, np.random.default_rng(0))


@pytest.mark.parametrize("sample_rate", [8000, 32000, 44100])
def test_another_sample_rate(tmp_path, sample_rate):
    path = write(tmp_path / "a.wav", sound(3.4, 22050), 22050, subtype="FLOAT")
    assert len(read_audio(path, sample_rate=sample_rate)) == round(3.4 * sample_rate)
    check(path, np.random.default_rng(0), sample_rate)


def test_beyond_the_end(tmp_path):
    for path in (write(tmp_path / "a.wav", sound(2)), write(tmp_path / "a.mp3", sound(2))):
        assert len(read_audio(path, 1.5, 7)) == 8000
        for start in (2.0, 2.5, 100):
            with pytest.raises(ValueError, match=rf"{path.name}: no audio from {start} s on"):
                read_audio(path, start)
    with pytest.raises(ValueError, match="0 <= start < stop"):
        read_audio(path, 2, 1)


def test_a_rate_that_cannot_be(tmp_path):
    """A flipped bit in the header would make minutes to nothing."""
    raw = bytearray(write(tmp_path / "a.wav", sound(2)).read_bytes())
    raw[27] = 2  # of the rate's 4 bytes, the highest
    (tmp_path / "a.wav").write_bytes(raw)
    with pytest.raises(ValueError, match=r"a\.wav: its header says 33570432 samples per second"):
        read_audio(tmp_path / "a.wav")
    raw[24:28] = 7, 0, 0, 0
    (tmp_path / "a.wav").write_bytes(raw)
    with pytest.raises(ValueError, match=r"a\.wav: its header says 7 samples per second"):
        read_audio(tmp_path / "a.wav")
