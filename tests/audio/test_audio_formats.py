"""Formats by their content: what is found in folders, what PyAV reads, what is said without it."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_files import sound, write, write_av

from hear_msm_mae.audio import count_channels, read_audio
from hear_msm_mae.audio.recognise import find_audio, sniff

# File, encoder, format as `sniff` names it, largest difference in length, least correlation.
BY_PYAV = [
    ("a.m4a", "aac", "mp4", 0.03, 0.98),
    ("a.mp4", "aac", "mp4", 0.03, 0.98),
    ("a.aac", "aac", "aac", 0.1, 0.9),
    ("a.webm", "libopus", "matroska", 0.01, 0.9),
    ("a.mka", "flac", "matroska", 0, 0.9999),
    ("a.m4a", "alac", "mp4", 0, 0.9999),
    ("a.mkv", "pcm_u8", "matroska", 0, 0.999),
    ("a.mkv", "pcm_s24le", "matroska", 0, 0.9999),
    ("a.oga", "flac", "ogg", 0, 0.9999),
    ("a.wma", "wmav2", "asf", 0.1, 0.9),
    ("a.ac3", "ac3", "ac3", 0.1, 0.5),
]


@pytest.fixture(params=BY_PYAV, ids=lambda row: f"{row[0]}-{row[1]}")
def encoded(request, tmp_path):
    """3 s at 48 kHz in each of these formats, under a name without an ending."""
    name, codec, kind, *limits = request.param
    path = write_av(tmp_path / name, sound(3, 48000), 48000, codec)
    return path.rename(tmp_path / "recording"), kind, *limits


def test_formats_that_libsndfile_does_not_read(tmp_path, encoded):
    path, kind, seconds, correlation = encoded
    assert sniff(path) == kind
    assert find_audio([tmp_path]) == [path]
    assert count_channels(path) == 1
    found = read_audio(path)
    expected = read_audio(write(tmp_path / "a.wav", sound(3, 48000), 48000))
    assert len(found) == pytest.approx(len(expected), abs=16000 * seconds)
    # Some formats do not say how much the encoder put before the sound, and some lose a frame.
    size = 2**17
    lags = np.fft.irfft(np.fft.rfft(found, size) * np.fft.rfft(expected, size).conj())
    norms = np.linalg.norm(found) * np.linalg.norm(expected)
    assert lags.max() / norms > correlation
    assert abs((int(lags.argmax()) + 1000) % size - 1000) < 3000


def test_without_pyav(tmp_path, encoded, monkeypatch):
    """Such files are refused by name, never read wrong; with a listener they are left out."""
    path, kind, *_ = encoded
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(
        ValueError, match=rf"recording: files in this format \({kind}\) need"
    ) as error:
        read_audio(path)
    assert "pip install 'hear_msm_mae[formats]'" in str(error.value)
    assert find_audio([tmp_path]) == [path]
    told = []
    kept = find_audio([tmp_path], left_out=lambda file, reason: told.append((file, reason)))
    if kind == "ogg":  # its codec is met when it is read
        assert (kept, told) == ([path], [])
    else:
        assert kept == []
        ((file, reason),) = told
        assert file == path
        assert "hear_msm_mae[formats]" in reason


def test_a_video_without_sound(tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(ValueError, match=r"a\.mp4: cannot be read as audio \(it has no sound\)"):
        read_audio(tmp_path / "a.mp4")


def test_mp4_cut_off(tmp_path, caplog):
    """With its index in front what is there can be read; with it at the end nothing can."""
    whole = write_av(tmp_path / "a.m4a", sound(3, 48000), 48000, "aac", movflags="faststart")
    raw = whole.read_bytes()
    (tmp_path / "b.m4a").write_bytes(raw[: len(raw) // 2])
    assert 1 < len(read_audio(tmp_path / "b.m4a")) / 16000 < 2
    assert any("is cut off: 1." in text and "of 3.0" in text for text in caplog.messages)
    raw = write_av(tmp_path / "c.m4a", sound(3, 48000), 48000, "aac").read_bytes()
    (tmp_path / "c.m4a").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(ValueError, match=r"c\.m4a: cannot be read as audio"):
        read_audio(tmp_path / "c.m4a")


@pytest.mark.parametrize(
    ("name", "options", "kind"),
    [
        ("a.wav", {}, "wav"),
        ("a.wav", {"endian": "BIG"}, "rifx"),
        ("a.rf64", {}, "rf64"),
        ("a.w64", {}, "w64"),
        ("a.aiff", {}, "aiff"),
        ("a.au", {}, "au"),
        ("a.au", {"endian": "LITTLE"}, "au"),
        ("a.caf", {}, "caf"),
        ("a.flac", {}, "flac"),
        ("a.ogg", {}, "ogg"),
        ("a.mp3", {}, "mp3"),
        ("a.voc", {}, "voc"),
        ("a.paf", {}, "paf"),
        ("a.pvf", {}, "pvf"),
        ("a.avr", {}, "avr"),
        ("a.svx", {}, "svx"),
        ("a.ircam", {}, "ircam"),
        ("a.nist", {}, "nist"),
    ],
)
def test_sniffed(tmp_path, name, options, kind):
    path = write(tmp_path / name, sound(0.5), **options)
    assert sniff(path) == kind
    plain, _ = soundfile.read(path, dtype="float32")
    bare = path.rename(tmp_path / "bare")
    np.testing.assert_allclose(read_audio(bare), plain, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"text",
        b"RIFF\0\0\0\0WEBPVP8 ",
        b"\xff\xfb\x90\x00" * 3,  # frames would be longer
        b"\0\0\0\x18ftypheic\0\0\0\0",
        b"\x93NUMPY\1\0v\0" + bytes(100),
        b"PK\3\4" + bytes(100),
        bytes(5000),
        b"ID3",
    ],
)
def test_sniffed_as_no_audio(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    assert sniff(path) is None


def test_folders_are_searched_by_content(tmp_path, caplog):
    """Endings keep a file too: reading it says what is wrong."""
    raw = write(tmp_path / "a.wav", sound(0.1)).read_bytes()
    for name in ("b.WAVE", "c", "d.txt", ".hidden.wav", ".git/e.wav", "sub/f"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(raw)
    (tmp_path / "no.wav").write_text("text")
    for name in ("notes.txt", "x.npy", "sub/README"):
        (tmp_path / name).write_text("text")
    (tmp_path / "moved.wav").symlink_to("gone")  # reading it says that it is not there
    (tmp_path / "moved.txt").symlink_to("gone")
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe.wav")
    told: list[tuple[str, str | None]] = []
    found = find_audio([tmp_path], left_out=lambda path, why: told.append((path.name, why)))
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        "a.wav", "b.WAVE", "c", "d.txt", "moved.wav", "no.wav", "sub/f",
    ]  # fmt: skip
    others = ["README", "moved.txt", "notes.txt", "pipe", "pipe.wav", "x.npy"]
    assert sorted(told) == [(name, None) for name in others]
    assert find_audio([tmp_path]) == found
    given = [tmp_path / "notes.txt", tmp_path / "c"]
    assert find_audio([*given, tmp_path / "c"]) == given
    with pytest.raises(FileNotFoundError, match="no such file or folder: gone"):
        find_audio(["gone"])


def test_the_ending_raw_means_nothing(tmp_path):
    path = write(tmp_path / "a.wav", sound(0.1))
    expected, raw = read_audio(path), path.rename(tmp_path / "a.raw")
    np.testing.assert_array_equal(read_audio(raw), expected)
    raw.write_bytes(raw.read_bytes()[44:])
    with pytest.raises(
        ValueError, match=r"a\.raw: cannot be read as audio \(its format is unknown"
    ):
        read_audio(raw)


def test_files_that_cannot_be_opened_are_told(tmp_path, monkeypatch):
    (tmp_path / "secret").write_text("text")

    def failing(path, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", failing)
    errors: list[OSError] = []
    assert find_audio([tmp_path], errors.append) == []
    assert [Path(error.filename).name for error in errors] == ["secret"]


def test_names_in_errors_and_warnings_are_escaped(tmp_path, caplog):
    """A name that is not UTF-8, of a file that is cut off."""
    caplog.set_level(logging.WARNING)
    raw = write(tmp_path / "a.wav", sound(1)).read_bytes()
    path = tmp_path / "\udcff.wav"
    path.write_bytes(raw[:-1000])
    assert len(read_audio(path)) == 15500
    assert "/\\udcff.wav: is cut off" in caplog.messages[0]
