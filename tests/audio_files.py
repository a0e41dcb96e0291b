"""Audio files for the tests: written by soundfile or PyAV, then bent byte by byte."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray


def sound(seconds: float, rate: int = 16000, seed: int = 0) -> NDArray[np.float32]:
    """A rising tone in noise (n,), never silent and nowhere like itself."""
    n = round(seconds * rate)
    time = np.arange(n) / rate
    noise = np.random.default_rng(seed).normal(0, 0.03, n)
    return (0.4 * np.sin(2 * np.pi * (300 + 90 * time) * time) + noise).astype(np.float32)


def write(path: Path, samples: NDArray[np.float32], rate: int = 16000, **options: object) -> Path:
    """By soundfile, in small blocks: libsndfile's Vorbis encoder crashes on large ones."""
    frames = samples if samples.ndim == 2 else samples[:, None]
    with soundfile.SoundFile(path, "w", rate, frames.shape[1], **options) as file:
        for start in range(0, len(frames), 4000):
            file.write(frames[start : start + 4000])
    return path


def write_av(
    path: Path, samples: NDArray[np.float32], rate: int, codec: str, **options: str
) -> Path:
    """Mono, by PyAV; the test is skipped where its FFmpeg has no such encoder."""
    av = pytest.importorskip("av")
    try:
        av.Codec(codec, "w")
    except ValueError as error:
        pytest.skip(f"no encoder {codec}: {error}")
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono", bit_rate=64000)
        stream.codec_context.open()
        size = stream.codec_context.frame_size or 1024
        for start in range(0, len(samples), size):
            frame = av.AudioFrame.from_ndarray(
                samples[None, start : start + size], format="fltp", layout="mono"
            )
            frame.sample_rate, frame.pts = rate, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def without_xing(raw: bytes) -> bytes:
    """An MP3 file without its first frame, which counts the others."""
    tag = max(raw.find(b"Xing"), raw.find(b"Info"))
    assert tag > 0
    start = raw.rfind(b"\xff", 0, tag)
    return raw[raw.find(raw[start : start + 2], tag) :]


def with_flac_total(raw: bytes, total: int) -> bytes:
    """A FLAC file whose header says that it holds so many samples."""
    head = bytearray(raw)
    head[21] &= 0xF0
    head[22:26] = struct.pack(">I", total)
    return bytes(head)


def with_wav_size(raw: bytes, size: int, riff: int) -> bytes:
    """A WAV file with other sizes in its header."""
    head = bytearray(raw)
    at = raw.index(b"data") + 4
    head[4:8], head[at : at + 4] = struct.pack("<I", riff), struct.pack("<I", size)
    return bytes(head)
