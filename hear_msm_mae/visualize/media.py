"""Sound and pictures as data URIs that are small enough for a page with hundreds of clips."""

from __future__ import annotations

import base64
import io

import numpy as np
import soundfile
from numpy.typing import NDArray

from ..config import SAMPLE_RATE
from ..plots import INSTALL

# Chosen by ear and size: 10 s take about 36 kB of sound, 20 kB per picture.
MP3_COMPRESSION = 0.8  # libsndfile's scale from 0 to 1; about 30 kbit/s at 16 kHz
PICTURE_QUALITY = 80  # WebP, 0 to 100
MOST_COLUMNS = 4000  # more columns than a screen shows; WebP allows 16383


def sound_uri(waveform: NDArray[np.float32], sample_rate: int = SAMPLE_RATE) -> str:
    """A clip (n,) as MP3, which every browser plays."""
    file = io.BytesIO()
    clipped = np.clip(waveform, -1, 1)
    soundfile.write(file, clipped, sample_rate, format="MP3", compression_level=MP3_COMPRESSION)
    return _data_uri("audio/mpeg", file)


def picture_uri(spectrogram: NDArray[np.float32], low: float, high: float) -> str:
    """A spectrogram (f, t) as a picture of t x f pixels, low frequencies at the bottom.

    Longer ones than `MOST_COLUMNS` are shortened to it, by averages of neighbouring columns. `low`
    and `high` are the values of the darkest and the brightest colour.

    Raises:
        ImportError: matplotlib or pillow is not installed.
    """
    try:
        from matplotlib import colormaps
        from PIL import Image
    except ImportError as error:
        raise ImportError(f"reports need matplotlib and pillow: {INSTALL}") from error

    scaled = np.clip((spectrogram[::-1] - low) / max(high - low, 1e-6), 0, 1)
    pixels = colormaps["magma"](scaled, bytes=True)[..., :3]
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    if picture.width > MOST_COLUMNS:
        picture = picture.resize((MOST_COLUMNS, picture.height), Image.Resampling.BOX)
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=PICTURE_QUALITY)
    return _data_uri("image/webp", file)


def _data_uri(kind: str, file: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
