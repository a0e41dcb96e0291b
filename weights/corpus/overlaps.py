"""Find recordings of the corpus that evaluation or reserved packages hold too.

    python -m weights.corpus.overlaps CORPUS FOLDER_OF_EVALUATION_AUDIO overlaps.csv

Equal files are found by digest. Copies in another format, rate or loudness are found by sound:
files whose spectrograms agree and whose waveforms then correlate. `held_out.csv` takes what is
found.
"""

from __future__ import annotations

import csv
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile
import soxr

from weights.corpus.packages import AUDIO_SUFFIXES, sha256

log = logging.getLogger("overlaps")
SAMPLE_RATE = 8_000
LONGEST_SECONDS = 60.0  # of longer files the beginning is compared
BANDS, SEGMENTS = 24, 24
ALIKE = 0.97  # cosine of two spectrograms
SAME = 0.8  # largest normalised cross-correlation of two waveforms
Array = np.ndarray


@dataclass
class Sound:
    """A file of one of the two sides."""

    path: Path
    name: str
    digest: str
    vector: Array | None  # (bands * segments), of length 1; None for silence and damaged files


def waveform_of(path: Path) -> Array:
    """Mono waveform (n,) at 8 kHz, without silence at its ends; empty if nothing is left."""
    try:
        with soundfile.SoundFile(path) as file:
            frames = round(min(file.frames, LONGEST_SECONDS * file.samplerate))
            samples = file.read(frames, dtype="float32", always_2d=True)  # (n, channels)
            rate = file.samplerate
    except (soundfile.LibsndfileError, RuntimeError):
        return np.zeros(0, np.float32)
    mono = soxr.resample(samples.mean(axis=1), rate, SAMPLE_RATE, quality="MQ")
    loud = np.flatnonzero(np.abs(mono) > 0.03 * np.abs(mono).max(initial=1e-4))
    return mono[loud[0] : loud[-1] + 1] if len(loud) else mono[:0]


def vector_of(waveform: Array) -> Array | None:
    """A spectrogram of fixed size whatever the length, as one vector without its mean."""
    if len(waveform) < 0.05 * SAMPLE_RATE or not waveform.any():
        return None
    window = max(128, len(waveform) // SEGMENTS)
    starts = np.linspace(0, max(0, len(waveform) - window), SEGMENTS).astype(int)
    frames = np.stack([np.resize(waveform[s : s + window], window) for s in starts])
    power = np.abs(np.fft.rfft(frames * np.hanning(window))) ** 2  # (segments, bins)
    edges = np.geomspace(1, power.shape[1], BANDS + 1).astype(int)
    bands = np.stack([power[:, a : max(b, a + 1)].mean(1) for a, b in pairwise(edges)])
    levels = np.log10(bands + 1e-6 * bands.max() + 1e-12)
    levels -= levels.mean()
    norm = float(np.linalg.norm(levels))
    return (levels / norm).astype(np.float32).ravel() if norm > 0 else None


def sounds(folder: Path) -> Iterator[Sound]:
    """Every audio file below a folder, hidden folders left out."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file() and name[0] != ".":
            yield Sound(path, name, sha256(path), vector_of(waveform_of(path)))


def correlation(a: Array, b: Array) -> float:
    """Largest normalised cross-correlation of two waveforms, over all shifts."""
    size = 1 << (len(a) + len(b)).bit_length()
    product = np.fft.irfft(np.fft.rfft(a, size) * np.conj(np.fft.rfft(b, size)), size)
    return float(np.abs(product).max() / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-9))


def overlaps(corpus: list[Sound], kept: list[Sound]) -> Iterator[tuple[Sound, Sound, str]]:
    """Pairs of equal ("digest") or equal-sounding ("sound 0.93") files."""
    by_digest = {sound.digest: sound for sound in kept}
    kept = [sound for sound in kept if sound.vector is not None]
    vectors = np.stack([np.asarray(sound.vector) for sound in kept])  # (kept, values)
    for sound in corpus:
        if sound.digest in by_digest:
            yield sound, by_digest[sound.digest], "digest"
        elif sound.vector is not None:
            for index in np.flatnonzero(vectors @ sound.vector > ALIKE):
                other = kept[index]
                same = correlation(waveform_of(sound.path), waveform_of(other.path))
                if same > SAME:
                    yield sound, other, f"sound {same:.2f}"


def main(corpus: Path, kept: Path, table: Path) -> None:
    """Write the table of overlaps."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    held = list(sounds(kept))
    log.info("%d files kept for evaluation or reserved", len(held))
    with table.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["sha256", "corpus", "kept", "how"])
        for mine, other, how in overlaps(list(sounds(corpus)), held):
            writer.writerow([mine.digest, mine.name, other.name, how])
            stream.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
