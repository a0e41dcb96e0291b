"""The files of a corpus: names, manifest, summary, and the checks that they fit together.

A corpus is a folder with

- `frames-00000.npy`, ...: float16 arrays (frames, mel bins), clips one behind the other. Natural
  log of (power + 2**-23), not normalised. Frame-major, so a crop is one contiguous piece.
- `manifest.csv`: one row per clip (see `Clip`). What it does not list is not in the corpus.
- `skipped.csv`: files that were left out, and why.
- `corpus.json`: front-end settings, and a summary: mean, std, hours.

`writer` writes it, `corpus` reads it.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..config import F_MAX, F_MIN, HOP_LENGTH, LOG_EPS, MS_PER_FRAME, SAMPLE_RATE, WINDOW_LENGTH

CORPUS_FILE = "corpus.json"
MANIFEST_FILE = "manifest.csv"
SKIPPED_FILE = "skipped.csv"
FORMAT = "hear_msm_mae corpus"
FORMAT_VERSION = 1


class Clip(NamedTuple):
    """One row of the manifest: a continuous stretch of a file."""

    root: str  # name of the SRC folder
    path: str  # file, relative to SRC, escaped by `escape`
    source: str  # folder that the clip is weighted by
    start: int  # first frame of the stretch in the file, 10 ms each
    frames: int  # length of the stretch
    shard: int  # number of the shard
    offset: int  # first frame in the shard
    sha256: str  # of the bytes of the audio file
    bytes: int  # size of the audio file
    mtime_ns: int  # modification time of the audio file
    licence: str  # tag given by the user, may be empty
    sum: float  # of the stored values
    sum_squares: float  # of the stored values


def shard_path(folder: Path, shard: int) -> Path:
    """File of a shard."""
    return folder / f"frames-{shard:05d}.npy"


def front_end_settings(n_mels: int) -> dict[str, float]:
    """What the values of a spectrogram depend on, as stored in `corpus.json`."""
    return {
        "sample_rate": SAMPLE_RATE,
        "window_length": WINDOW_LENGTH,
        "hop_length": HOP_LENGTH,
        "n_mels": n_mels,
        "f_min": F_MIN,
        "f_max": F_MAX,
        "log_eps": LOG_EPS,
    }


def statistics(clips: Iterable[Clip], n_mels: int) -> tuple[float, float, float]:
    """Mean and standard deviation of all values, and hours; NaN, NaN, 0 without clips."""
    clips = list(clips)
    frames = sum(c.frames for c in clips)
    if not frames:
        return math.nan, math.nan, 0.0
    # fsum is exact, so the result does not depend on the order of the clips.
    mean = math.fsum(c.sum for c in clips) / (frames * n_mels)
    mean_square = math.fsum(c.sum_squares for c in clips) / (frames * n_mels)
    hours = frames * MS_PER_FRAME / 3.6e6
    return mean, math.sqrt(max(mean_square - mean**2, 0.0)), hours


def fingerprint(clips: Iterable[Clip], n_mels: int) -> str:
    """sha256 (hex) over settings, order and content of the clips; not over their place on disk."""
    digest = hashlib.sha256(json.dumps(front_end_settings(n_mels)).encode())
    for c in clips:
        row = (c.root, c.path, c.source, c.start, c.frames, c.sha256)
        digest.update("\t".join(map(str, row)).encode() + b"\n")
    return digest.hexdigest()


def read_summary(folder: Path) -> dict[str, Any]:
    """Contents of `corpus.json`.

    Raises:
        FileNotFoundError: no folder, or no corpus in it.
        ValueError: damaged, or written by another release.
    """
    path = folder / CORPUS_FILE
    if not path.is_file():
        what = "holds no corpus (no corpus.json)" if folder.is_dir() else "does not exist"
        raise FileNotFoundError(f"{folder} {what}; make one with `hear-msm-mae prepare SRC DEST`")
    try:
        summary = json.loads(path.read_text("utf-8"))
        is_corpus = summary["format"] == FORMAT
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is damaged; prepare the corpus in a new folder") from error
    if not is_corpus or summary.get("version") != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format {summary['format']!r} version {summary.get('version')!r}, this "
            f"release reads {FORMAT!r} version {FORMAT_VERSION}; prepare it in a new folder"
        )
    return summary


def check_front_end(folder: Path, summary: dict[str, Any], n_mels: int | None = None) -> int:
    """Compare the settings of a corpus with this package's; returns its number of mel bins.

    Raises:
        ValueError: a setting differs, or n_mels is given and differs; it is named.
    """
    stored = summary.get("front_end", {})
    wanted = front_end_settings(stored.get("n_mels") if n_mels is None else n_mels)
    for name, value in wanted.items():
        if stored.get(name) != value or value is None:
            raise ValueError(
                f"the corpus in {folder} was made with {name} = {stored.get(name)}, not {value}; "
                "prepare the audio again in a new folder"
            )
    return int(wanted["n_mels"])


def check_shards(folder: Path, n_mels: int, clips: Iterable[Clip]) -> None:
    """Raise ValueError when a shard lacks frames that the manifest lists."""
    needed: dict[int, int] = {}
    for clip in clips:
        needed[clip.shard] = max(needed.get(clip.shard, 0), clip.offset + clip.frames)
    for shard, frames in needed.items():
        path = shard_path(folder, shard)
        try:
            array = np.load(path, mmap_mode="r")
            fits = array.dtype == np.float16 and array.shape[1:] == (n_mels,)
            fits = fits and len(array) >= frames
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(_damaged(path, str(error))) from error
        if not fits:
            raise ValueError(_damaged(path, f"it lacks some of its {frames} frames"))


def read_manifest(folder: Path) -> list[Clip]:
    """Rows of `manifest.csv`.

    Raises:
        ValueError: missing or damaged.
    """
    path = folder / MANIFEST_FILE
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.reader(file, strict=True)
            if next(rows, None) != list(Clip._fields):
                raise ValueError("the header is not that of a manifest")
            return [_clip(row) for row in rows]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise ValueError(_damaged(path, str(error))) from error


def _clip(row: list[str]) -> Clip:
    root, path, source, start, frames, shard, offset, sha256, size, mtime_ns, licence, *sums = row
    total, squares = sums
    return Clip(
        root=root,
        path=path,
        source=source,
        start=int(start),
        frames=int(frames),
        shard=int(shard),
        offset=int(offset),
        sha256=sha256,
        bytes=int(size),
        mtime_ns=int(mtime_ns),
        licence=licence,
        sum=float(total),
        sum_squares=float(squares),
    )


def _damaged(path: Path, reason: str) -> str:
    return f"{path} is missing or damaged ({reason}); copy the corpus again or prepare it again"


def escape(path: str) -> str:
    r"""A file name as printable text, so that any name survives in CSV, JSON and YAML.

    Backslashes are doubled; control characters and bytes that are not UTF-8 become `\xNN`.

    >>> escape("a\nb\\c")
    'a\\x0ab\\\\c'
    """
    return re.sub(r"[\\\x00-\x1f\x7f\udc80-\udcff]", lambda m: _escaped(m[0]), path)


def unescape(text: str) -> str:
    r"""Inverse of `escape`.

    >>> unescape(escape("a\nb\\c")) == "a\nb\\c"
    True
    """
    return re.sub(r"\\(\\|x[0-9a-f]{2})", lambda m: _unescaped(m[1]), text)


def _escaped(character: str) -> str:
    return r"\\" if character == "\\" else f"\\x{ord(character) & 0xFF:02x}"


def _unescaped(code: str) -> str:
    if code == "\\":
        return code
    byte = int(code[1:], 16)
    return chr(byte if byte < 0x80 else 0xDC00 + byte)  # as os.fsdecode does
