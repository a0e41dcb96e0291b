"""Files with bytes flipped, cut off, put in, taken out or set to zero, 200 of each format.

Each is read, with a warning where it turns out shorter, or refused by name; none of them ends the
process or takes long.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from audio_files import sound, with_flac_total, without_xing, write, write_av

from hear_msm_mae.audio import read_audio

RATE = 16000
VBR = {"bitrate_mode": "VARIABLE", "compression_level": 0.5}
BY_LIBSNDFILE = {
    "wav": {},
    "flac": {},
    "mp3": VBR,
    "ogg": {},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "aiff": {},
    "caf": {},
    "w64": {},
    "rf64": {},
    "au": {},
}
BY_PYAV = {
    "m4a": ("aac", {}),
    "mp4": ("aac", {"movflags": "faststart"}),
    "mka": ("flac", {}),
    "webm": ("libopus", {}),
    "oga": ("flac", {}),
    "wma": ("wmav2", {}),
    "aac": ("aac", {}),
}
# Seconds that may go without a word: those of a few frames or packets. WMA files do not say exactly
# how long they are.
SILENT_LOSS = {"aac": 0.13, "mp3-bare": 0.11, "m4a": 0.07, "mp4": 0.07, "wma": 0.15}
# What says neither how many frames there are nor which of them follow each other.
UNCOUNTED = ("aac", "mp3-bare")


def make(path: Path, kind: str) -> bytes:
    samples = sound(1.5, RATE)
    if kind == "mp3-bare":
        return without_xing(write(path.with_suffix(".mp3"), samples, RATE, **VBR).read_bytes())
    if kind == "flac-unknown":
        raw = write(path.with_suffix(".flac"), samples, RATE).read_bytes()
        return with_flac_total(raw, 0)
    if kind in BY_LIBSNDFILE:
        return write(path, samples, RATE, **BY_LIBSNDFILE[kind]).read_bytes()
    codec, options = BY_PYAV[kind]
    return write_av(path, samples, RATE, codec, **options).read_bytes()


def mutate(raw: bytes, rng: np.random.Generator) -> bytes:
    data, size = bytearray(raw), len(raw)
    # Headers are hit more often than their size would have it.
    at = int(rng.integers(0, size if rng.random() < 0.7 else min(size, 400)))
    count = int(2 ** rng.uniform(0, 12))
    kind = rng.integers(0, 6)
    if kind == 0:
        for place in rng.integers(0, size, rng.integers(1, 20)):
            data[place] ^= 1 << int(rng.integers(0, 8))
    elif kind == 1:
        del data[max(1, at) :]
    elif kind == 2:
        data[at:at] = rng.bytes(count)
    elif kind == 3:
        del data[at : at + count]
    elif kind == 4:
        data[at : at + count] = bytes(len(data[at : at + count]))
    else:
        data[at] ^= 1 << int(rng.integers(0, 8))
    return bytes(data)


@pytest.mark.parametrize("kind", [*BY_LIBSNDFILE, "mp3-bare", "flac-unknown", *BY_PYAV])
def test_a_mutated_file_is_read_or_refused_by_name(tmp_path, caplog, kind):
    caplog.set_level(logging.WARNING)
    rng = np.random.default_rng(16)
    ending = kind.split("-")[0]
    raw = make(tmp_path / f"whole.{ending}", kind)
    path = tmp_path / f"clean.{ending}"
    path.write_bytes(raw)
    whole = len(read_audio(path))
    assert whole == pytest.approx(1.5 * RATE, abs=0.3 * RATE)
    assert caplog.messages == []
    outcomes = []
    for number in range(200):
        path = tmp_path / f"{number}.{ending}"
        mutated = mutate(raw, rng)
        path.write_bytes(mutated)
        caplog.clear()
        found, words = read_or_refused(path)
        ours = [x.getMessage() for x in caplog.records if x.name.startswith("hear_msm_mae")]
        messages = ours + words  # some releases of PyAV log what FFmpeg says too
        assert all(path.name in message for message in messages)
        # An MP3 file that ends before its second frame has lost its count as well.
        uncounted = (kind in UNCOUNTED and len(mutated) < len(raw)) or len(mutated) < 650
        assert (whole - found) / RATE <= SILENT_LOSS.get(kind, 0.06) or messages or uncounted
        outcomes.append(not words)
        path.unlink()
    assert any(outcomes)


def read_or_refused(path: Path) -> tuple[int, list[str]]:
    """Samples read, and why the file was refused."""
    try:
        return len(read_audio(path)), []
    except ValueError as error:
        return 0, [str(error)]
