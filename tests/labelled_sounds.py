"""Labelled recordings, and a probe on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from hear_msm_mae import probe
from hear_msm_mae.answers.evaluate import ProbeResult
from hear_msm_mae.config import SAMPLE_RATE


def band(seed: int, low: float, high: float, seconds: float = 0.6) -> np.ndarray:
    """Noise between two frequencies."""
    generator = np.random.default_rng(seed)
    spectrum = np.fft.rfft(generator.normal(size=int(seconds * SAMPLE_RATE)))
    hertz = np.fft.rfftfreq(int(seconds * SAMPLE_RATE), 1 / SAMPLE_RATE)
    spectrum[(hertz < low) | (hertz > high)] = 0
    waveform = np.fft.irfft(spectrum)
    return 0.3 * waveform / np.abs(waveform).max()


BANDS = {"low": (100, 400), "middle": (800, 1600), "high & <b>": (3000, 6000)}


@pytest.fixture(scope="session")
def labelled(tmp_path_factory) -> Path:
    """A folder of three labels with eight recordings each; do not change it."""
    folder = tmp_path_factory.mktemp("labelled")
    for k, (label, edges) in enumerate(BANDS.items()):
        (folder / label).mkdir()
        for i in range(8):
            soundfile.write(folder / label / f"{i}.wav", band(100 * k + i, *edges), SAMPLE_RATE)
    return folder


@pytest.fixture(scope="session")
def probed(labelled, tiny_file, tmp_path_factory) -> ProbeResult:
    """What the probe of that folder found; do not change its output."""
    return probe(labelled, tmp_path_factory.mktemp("probed"), tiny_file)
