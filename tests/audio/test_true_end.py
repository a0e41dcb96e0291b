"""Files are read to their true end, whatever their headers say; what is odd is said by name."""

from __future__ import annotations

import logging
import struct
import sys

import numpy as np
import pytest
import soundfile
from audio_files import (
    sound,
    with_flac_total,
    with_wav_size,
    without_xing,
    write,
    write_av,
)

from hear_msm_mae.audio import read_audio

ID3 = b"ID3\x04\0\0\0\0\x28\0" + bytes(40 * 128)
FRAMES = 50 * (b"\xff\xfb\x90\x64" + bytes(96))  # begin like frames of MP3
VBR = {"bitrate_mode": "VARIABLE", "compression_level": 0.5}


@pytest.fixture
def warnings(caplog):
    caplog.set_level(logging.WARNING, "hear_msm_mae")
    return lambda: [record.getMessage() for record in caplog.records]


def seconds(path) -> float:
    return len(read_audio(path)) / 16000


# ---------------------------------------------------------------------------------------------
# MP3
# ---------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def encoded(tmp_path_factory) -> bytes:
    """20 s whose first frame, loud noise, has a higher bit rate than the others."""
    samples = sound(20, 44100)
    samples[:44100] = np.random.default_rng(1).normal(0, 0.3, 44100)
    return write(tmp_path_factory.mktemp("mp3") / "a.mp3", samples, 44100, **VBR).read_bytes()


@pytest.fixture
def mp3(tmp_path, encoded) -> bytes:
    (tmp_path / "a.mp3").write_bytes(encoded)
    return encoded


@pytest.mark.parametrize("mode", ["VARIABLE", "AVERAGE", "CONSTANT"])
@pytest.mark.parametrize("rate", [44100, 22050, 8000])
def test_mp3_without_a_count(tmp_path, warnings, mode, rate):
    samples = sound(6, rate)
    samples[: rate // 2] *= 0.01  # the first frames are small
    options = {"bitrate_mode": mode, "compression_level": 0.5}
    raw = write(tmp_path / "a.mp3", samples, rate, **options).read_bytes()
    bare = tmp_path / "b.mp3"
    bare.write_bytes(without_xing(raw))
    whole = read_audio(tmp_path / "a.mp3", sample_rate=rate)
    found = read_audio(bare, sample_rate=rate)
    assert len(whole) == len(samples)
    # The frame with the count also tells the delay of encoder and decoder, 576 + 529 samples.
    np.testing.assert_allclose(found[1105:][: len(whole)], whole, atol=1e-5)
    assert warnings() == []


def test_mp3_without_a_count_as_libsndfile_reads_it(tmp_path):
    """Constant bit rate: libsndfile guesses right. PyAV rounds differently."""
    raw = write(
        tmp_path / "a.mp3", sound(5, 44100), 44100, bitrate_mode="CONSTANT", compression_level=0.4
    ).read_bytes()
    bare = tmp_path / "b.mp3"
    bare.write_bytes(without_xing(raw))
    expected, _ = soundfile.read(bare, dtype="float32")
    np.testing.assert_allclose(read_audio(bare, sample_rate=44100), expected, atol=3e-6)


def test_mp3_that_is_read_right_by_libsndfile_is_not_touched(tmp_path, mp3):
    expected, _ = soundfile.read(tmp_path / "a.mp3", dtype="float32")
    np.testing.assert_allclose(
        read_audio(tmp_path / "a.mp3", sample_rate=44100), expected, rtol=0, atol=3e-7
    )


def test_mp3_one_behind_the_other(tmp_path, mp3, warnings):
    """Each with its count, also at another rate and with more channels."""
    stereo = np.stack([sound(3, 22050)] * 2, 1)
    other = write(tmp_path / "b.mp3", stereo, 22050).read_bytes()
    joined = tmp_path / "c.mp3"
    joined.write_bytes(mp3 + other + mp3)
    assert seconds(joined) == pytest.approx(43, abs=0.2)  # with the padding of each file
    np.testing.assert_allclose(read_audio(joined, 0, 19), read_audio(tmp_path / "a.mp3", 0, 19))
    joined.write_bytes(mp3 + without_xing(mp3))
    assert seconds(joined) == pytest.approx(40, abs=0.1)
    assert "c.mp3: its header says 882000 samples, but more follow; all are read" in warnings()[0]


def test_mp3_with_a_tag_in_the_middle(tmp_path, mp3, warnings):
    """Between two frames it is skipped without a word."""
    middle = mp3.find(mp3[mp3.rfind(b"\xff", 0, mp3.find(b"Xing")) :][:2], len(mp3) // 2)
    path = tmp_path / "b.mp3"
    path.write_bytes(ID3 + mp3[:middle] + ID3 + mp3[middle:] + b"TAG" + bytes(125))
    assert seconds(path) == 20
    same = np.isclose(read_audio(path), read_audio(tmp_path / "a.mp3"), atol=1e-5)
    assert same.mean() > 0.999  # all but a frame
    assert warnings() == []


@pytest.mark.parametrize("junk", [300, 5000, 100000])
def test_mp3_with_other_bytes_in_the_middle(tmp_path, mp3, warnings, junk):
    path = tmp_path / "b.mp3"
    half = len(mp3) // 2
    path.write_bytes(mp3[:half] + bytes(junk) + mp3[half:])
    assert seconds(path) == pytest.approx(20, abs=0.1)
    told = [text for text in warnings() if "b.mp3: is cut off or damaged" in text]
    assert bool(told) == (junk > 1024)  # libsndfile finds the next frame among so many bytes


def test_mp3_cut_off(tmp_path, mp3, warnings):
    path = tmp_path / "b.mp3"
    path.write_bytes(mp3[: len(mp3) // 2])
    assert 7 < seconds(path) < 13
    assert "b.mp3: is cut off: 10" in warnings()[0]
    assert "of 20.00 s can be decoded" in warnings()[0]


def test_mp2_is_read_to_its_end(tmp_path):
    path = write_av(tmp_path / "a.mp2", sound(3, 44100), 44100, "mp2")
    assert seconds(path) == pytest.approx(3, abs=0.05)


# ---------------------------------------------------------------------------------------------
# Ogg
# ---------------------------------------------------------------------------------------------
@pytest.fixture
def links(tmp_path) -> dict[str, bytes]:
    stereo = np.stack([sound(2, 22050, seed=2)] * 2, 1)
    files = {
        "vorbis": write(tmp_path / "v.ogg", sound(3, 48000), 48000, format="OGG"),
        "stereo": write(tmp_path / "s.ogg", stereo, 22050, format="OGG"),
        "opus": write(
            tmp_path / "o.ogg", sound(2, 48000, seed=3), 48000, format="OGG", subtype="OPUS"
        ),
        "low": write(tmp_path / "l.ogg", sound(1, 16000), 16000, format="OGG", subtype="OPUS"),
    }
    return {name: path.read_bytes() for name, path in files.items()}


@pytest.mark.parametrize(
    "names", [("vorbis", "vorbis"), ("vorbis", "stereo", "vorbis"), ("opus", "low"),
              ("opus", "vorbis", "low", "stereo")]
)  # fmt: skip
def test_chained_ogg(tmp_path, links, names, warnings):
    expected = []
    for name in names:
        (tmp_path / "one.ogg").write_bytes(links[name])
        expected.append(read_audio(tmp_path / "one.ogg"))
    path = tmp_path / "all.ogg"
    path.write_bytes(b"".join(links[name] for name in names))
    found = read_audio(path)
    np.testing.assert_array_equal(found, np.concatenate(expected))
    for start in (0.5, 1.5, 2.5, 3.3):
        if start * 16000 < len(found):
            part = read_audio(path, start, start + 1)
            np.testing.assert_allclose(part, found[round(start * 16000) :][: len(part)], atol=1e-6)
    assert warnings() == []


def test_ogg_damaged_in_the_middle(tmp_path, links):
    """Pages have check sums and numbers: nothing is lost without a word."""
    raw = links["vorbis"]
    at = raw.find(b"OggS", len(raw) // 2)
    following = raw.find(b"OggS", at + 4)
    path = tmp_path / "b.ogg"
    flipped = raw[: at + 200] + bytes([raw[at + 200] ^ 4]) + raw[at + 201 :]
    for bad, message in (
        (flipped, rf"damaged: bytes {at} to {following} are no intact pages"),
        (raw[:at] + raw[following:], rf"damaged: pages are missing before byte {at}"),
        (raw[:at] + b"x" * 500 + raw[at:], rf"damaged: bytes {at} to {at + 500}"),
        (raw[raw.find(b"OggS", 4) :], "damaged: its beginning is missing"),
    ):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=rf"b\.ogg: cannot be read as audio \({message}"):
            read_audio(path)


def test_ogg_cut_off(tmp_path, links, warnings):
    path = tmp_path / "b.ogg"
    path.write_bytes(links["vorbis"][: len(links["vorbis"]) // 2])
    assert 0.5 < seconds(path) < 2.5
    assert "b.ogg: is cut off" in warnings()[0]


# ---------------------------------------------------------------------------------------------
# FLAC
# ---------------------------------------------------------------------------------------------
@pytest.fixture
def flac(tmp_path) -> bytes:
    return write(tmp_path / "a.flac", sound(5, 44100), 44100).read_bytes()


@pytest.mark.parametrize(
    ("total", "words"),
    [
        (0, None),
        (100_000, "its header says 100000 samples, but more follow; all are read"),
        (215_000, "its header says 215000 samples, but more follow; all are read"),
        (400_000, "is cut off"),
    ],
)
@pytest.mark.parametrize("tail", [b"", b"TAG" + bytes(125)])
def test_flac_that_says_another_length(tmp_path, flac, warnings, total, words, tail):
    path = tmp_path / "b.flac"
    path.write_bytes(with_flac_total(flac, total) + tail)
    expected = read_audio(tmp_path / "a.flac")
    np.testing.assert_array_equal(read_audio(path), expected)
    np.testing.assert_allclose(read_audio(path, 2.5), expected[40000:], atol=1e-6)
    assert [f"b.flac: {words}" in text for text in warnings()] == [True] * bool(words)


@pytest.mark.parametrize("known", [True, False])
def test_flac_cut_off(tmp_path, flac, warnings, known):
    path = tmp_path / "b.flac"
    path.write_bytes((flac if known else with_flac_total(flac, 0))[: len(flac) - 10])
    assert seconds(path) == pytest.approx(220500 // 4096 * 4096 / 44100, abs=1e-3)
    assert "b.flac: is cut off" in warnings()[0]


def test_flac_damaged_in_the_middle(tmp_path, flac):
    path = tmp_path / "b.flac"
    half = len(flac) // 2
    path.write_bytes(flac[:half] + bytes(300) + flac[half + 300 :])
    with pytest.raises(ValueError, match=r"b\.flac: cannot be read as audio \(damaged"):
        read_audio(path)
    with pytest.raises(ValueError, match=r"b\.flac: cannot be read as audio \(damaged"):
        read_audio(path, 2.5)
    assert len(read_audio(path, 4)) == 16000


def test_flac_one_behind_the_other(tmp_path, flac):
    other = write(tmp_path / "c.flac", np.stack([sound(1)] * 2, 1)).read_bytes()
    path = tmp_path / "b.flac"
    path.write_bytes(ID3 + flac + other)
    assert seconds(path) == 6
    np.testing.assert_array_equal(read_audio(path)[80000:], read_audio(tmp_path / "c.flac"))


# ---------------------------------------------------------------------------------------------
# WAV and its like
# ---------------------------------------------------------------------------------------------
@pytest.fixture
def wav(tmp_path) -> bytes:
    return write(tmp_path / "a.wav", sound(10)).read_bytes()


@pytest.mark.parametrize(
    ("size", "riff", "expected", "words"),
    [
        (0, 0, 10, "it is read to its end, 320000 bytes"),
        (0, 36, 10, "it is read to its end"),
        (64000, 64036, 2, "256000 bytes follow, which are not read"),
        (0xFFFFFFFF, 0xFFFFFFFF, 10, None),
        (0x7FFFFFDB, 0x7FFFFFFF, 10, None),  # as sox and others write to a pipe
        (0x7FFFF000, 0x7FFFF024, 10, None),
        (640000, 640036, 10, "is cut off: it holds 320000 of 640000 bytes"),
    ],
)
def test_wav_with_another_size(tmp_path, wav, warnings, size, riff, expected, words):
    path = tmp_path / "b.wav"
    path.write_bytes(with_wav_size(wav, size, riff))
    found = read_audio(path)
    np.testing.assert_array_equal(found, read_audio(tmp_path / "a.wav")[: 16000 * expected])
    np.testing.assert_array_equal(read_audio(path, 1.5, 2), found[24000:32000])
    assert ["b.wav" in text and str(words) in text for text in warnings()] == [True] * bool(words)


def test_wav_size_modulo_two_to_the_32(tmp_path, warnings):
    """4 bytes cannot say the size of a file of more than 4 GiB; this one is sparse."""
    start = 2**32 / 16000  # the samples are single bytes
    path = write(tmp_path / "a.wav", sound(2), subtype="PCM_U8")
    header = path.read_bytes()[:-32000]
    with path.open("r+b") as file:
        file.seek(len(header) + 2**32)
        file.write(bytes([200]) * 32000)
    found = read_audio(path, start, start + 10)
    assert len(found) == 32000
    np.testing.assert_allclose(found, 72 / 128)
    assert "says that it holds 32000 bytes" in warnings()[0]


def test_wav_with_other_chunks_behind_the_samples(tmp_path, wav, warnings):
    path = tmp_path / "b.wav"
    chunks = b"LIST" + struct.pack("<I", 6) + b"INFOab" + b"id3 " + struct.pack("<I", 3) + b"abc\0"
    path.write_bytes(with_wav_size(wav, 320000, 320036 + len(chunks)) + chunks)
    assert seconds(path) == 10
    empty = with_wav_size(wav, 0, 36 + len(chunks))[:44] + chunks
    path.write_bytes(empty)
    with pytest.raises(ValueError, match=r"b\.wav: holds no audio samples"):
        read_audio(path)
    assert warnings() == []


@pytest.mark.parametrize(
    ("name", "at", "zeros"),
    [
        ("a.rf64", 20, 16),  # both sizes in ds64
        ("a.w64", None, 8),
        ("a.aiff", None, 4),
        ("a.caf", None, 8),
        ("a.au", 8, 4),
    ],
)
def test_other_formats_of_a_recorder_that_lost_power(tmp_path, warnings, name, at, zeros):
    path = write(tmp_path / name, sound(3), subtype="PCM_16")
    raw, expected = bytearray(path.read_bytes()), read_audio(path)
    if at is None:
        at = raw.index({"w64": b"data", "aiff": b"SSND", "caf": b"data"}[name[2:]])
        at += 16 if name == "a.w64" else 4
    raw[at : at + zeros] = bytes(zeros)
    broken = tmp_path / f"b{path.suffix}"
    broken.write_bytes(raw)
    np.testing.assert_array_equal(read_audio(broken), expected)
    assert "it is read to its end" in warnings()[0]
    broken.write_bytes(path.read_bytes()[:-32000])
    assert seconds(broken) == 2
    assert broken.name in warnings()[1]
    assert "is cut off" in warnings()[1]


def test_without_pyav_nothing_is_left_out_silently(tmp_path, mp3, flac, warnings, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    path = tmp_path / "b.mp3"
    path.write_bytes(mp3)
    assert seconds(path) == 20
    assert warnings() == []
    path.write_bytes(mp3 + mp3)
    assert seconds(path) == 20
    assert "b.mp3: 156337 bytes at its end need PyAV; run: pip install" in warnings()[0]
    path.write_bytes(without_xing(mp3))  # libsndfile estimates the length
    with pytest.raises(ValueError, match=r"b\.mp3: cannot be read as audio \(\d+ bytes .*PyAV"):
        read_audio(path)
    path = tmp_path / "b.flac"
    path.write_bytes(flac[:-10])
    with pytest.raises(ValueError, match=r"b\.flac: cannot be read as audio"):
        read_audio(path)


def test_wav_with_a_second_chunk_of_samples_or_a_second_file(tmp_path, wav, warnings):
    path = tmp_path / "b.wav"
    for more in (wav, wav[wav.index(b"data") :]):
        path.write_bytes(wav + more)
        assert seconds(path) == 10
        assert f"{len(more)} bytes follow, which are not read" in warnings()[-1]


@pytest.mark.parametrize(
    ("name", "options", "mark", "size"),
    [
        ("a.au", {"endian": "LITTLE"}, 8, struct.pack("<I", 32000)),
        ("a.w64", {}, b"data\xf3\xac", struct.pack("<Q", 32024)),
        ("a.svx", {}, b"BODY", struct.pack(">I", 32000)),
        ("a.rf64", {}, 28, struct.pack("<Q", 32000)),  # in the chunk ds64
    ],
)
def test_other_formats_with_a_size_that_is_too_small(tmp_path, warnings, name, options, mark, size):
    path = write(tmp_path / name, sound(3), subtype="PCM_16", **options)
    raw, expected = bytearray(path.read_bytes()), read_audio(path)
    at = mark if isinstance(mark, int) else raw.index(mark) + (16 if len(mark) > 4 else 4)
    raw[at : at + len(size)] = size
    path.write_bytes(raw)
    np.testing.assert_array_equal(read_audio(path), expected[:16000])
    assert "64000 bytes follow, which are not read" in warnings()[0]


APE = b"APETAGEX" + struct.pack("<4I", 2000, 5032, 1, 2**31) + bytes(8)


@pytest.mark.parametrize(
    "tags",
    [
        b"TAG" + bytes(125),
        APE + FRAMES + APE + b"TAG" + bytes(125),
        b"LYRICSBEGIN" + FRAMES + b"005011LYRICS200" + b"TAG" + bytes(125),
    ],
    ids=["id3", "ape", "lyrics"],
)
def test_tags_at_the_end_are_no_audio(tmp_path, mp3, flac, warnings, tags):
    """Their pictures and texts may hold bytes that look like frames."""
    for name, raw in (("b.mp3", mp3), ("b.flac", flac), ("c.mp3", without_xing(mp3))):
        path = tmp_path / name
        path.write_bytes(raw)
        expected = read_audio(path)
        path.write_bytes(raw + tags)
        np.testing.assert_array_equal(read_audio(path), expected)
    assert warnings() == []


def test_a_playlist_opens_no_other_file(tmp_path):
    write(tmp_path / "secret.wav", sound(1))
    (tmp_path / "a.mp3").write_text("ffconcat version 1.0\nfile secret.wav\n")
    with pytest.raises(ValueError, match=r"a\.mp3: cannot be read as audio"):
        read_audio(tmp_path / "a.mp3")


def test_a_whole_file_is_not_called_cut_off(tmp_path, warnings):
    """The container counts the samples, and not the packets."""
    assert seconds(write_av(tmp_path / "a.mov", sound(3), 16000, "pcm_s16le")) == 3
    assert warnings() == []
