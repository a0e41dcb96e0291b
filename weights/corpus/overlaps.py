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
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool1d

from hear_msm_mae.audio import read_audio
from hear_msm_mae.log_mel import LogMel
from weights.corpus.packages import AUDIO_SUFFIXES, sha256

log = logging.getLogger("overlaps")
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
    """Mono waveform (n,) at 16 kHz, without silence at its ends; empty if nothing is left."""
    try:
        waveform = read_audio(path, 0, LONGEST_SECONDS)
    except ValueError:  # damaged
        return np.zeros(0, np.float32)
    loud = np.flatnonzero(np.abs(waveform) > 0.03 * np.abs(waveform).max(initial=1e-4))
    return waveform[loud[0] : loud[-1] + 1] if len(loud) else waveform[:0]


def vector_of(waveform: Array) -> Array | None:
    """A spectrogram of fixed size whatever the length, as one vector without its mean."""
    if len(waveform) < 800:  # 0.05 s
        return None
    levels = LogMel(BANDS).log_mel(torch.from_numpy(waveform)[None])[0]  # (bands, t)
    levels = adaptive_avg_pool1d(levels.clamp(min=levels.max() - 14), SEGMENTS)  # 60 dB
    vector: Array = (levels - levels.mean()).flatten().numpy()
    norm = float(np.linalg.norm(vector))
    return vector / norm if norm > 0 else None


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
