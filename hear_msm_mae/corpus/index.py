"""The format of a corpus: its tables, settings, digests, and their checks.

A corpus is a folder with

- `frames.f16`: an array (frames, mel bins) of float16 without a header, clips one after the other:
  natural log of (power + 2**-23), not normalised.
- `manifest-XXXXXXXXXXXX.csv`: a sorted table of the clips (see `Clip`). Other frames do not belong
  to the corpus. The name holds the first digits of the file's SHA-256.
- `skipped.csv`: files that were left out, and the reasons.
- `corpus.json`: front-end settings, mean, std, hours, the name of the manifest, and the SHA-256 of
  each shard of `SHARD_FRAMES` frames. It is replaced last, so a corpus is always in the state of
  one commit.

`writer` writes the files, `bank` reads them.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_type_hints

import numpy as np

from ..config import F_MIN, LOG_EPS, MS_PER_FRAME, SAMPLE_RATES, WINDOW_MS
from ..files import available_cpus

CORPUS_FILE = "corpus.json"
FRAMES_FILE = "frames.f16"
SKIPPED_FILE = "skipped.csv"
FORMAT = "hear_msm_mae corpus"
FORMAT_VERSION = 2
SHARD_FRAMES = 2**18  # frames under one digest: 44 minutes, 40 MiB at 80 mel bins


class Clip(NamedTuple):
    """A row of the manifest: a continuous part of a file."""

    root: str  # name of the SRC folder
    path: str  # file, relative to SRC, made `printable`
    source: str  # folder that the clip is weighted by
    start: int  # first frame of the part in the file, 10 ms each
    frames: int  # length of the part
    offset: int  # its first frame in the array
    sha256: str  # of the bytes of the audio file
    bytes: int  # size of the audio file
    mtime_ns: int  # modification time of the audio file
    licence: str  # tag given by the user, may be empty
    sum: float  # of the stored values
    sum_squares: float  # of the stored values

    @property
    def stop(self) -> int:
        """The first frame of the array after the clip."""
        return self.offset + self.frames


class Skipped(NamedTuple):
    """A row of `skipped.csv`: a file that was left out."""

    root: str
    path: str
    reason: str  # "silent", "duplicate", ...; details follow a colon
    sha256: str
    bytes: int
    mtime_ns: int


_Row = TypeVar("_Row", Clip, Skipped)


def format_table(kind: type[_Row], rows: Iterable[_Row]) -> bytes:
    """CSV with a header line."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(kind._fields)
    writer.writerows(rows)
    return text.getvalue().encode()


def parse_table(kind: type[_Row], content: bytes) -> list[_Row]:
    """Inverse of `format_table`; ValueError if the content is damaged."""
    types = get_type_hints(kind).values()
    try:
        rows = csv.reader(io.StringIO(content.decode(), newline=""), strict=True)
        next(rows)
        return [kind(*(to(cell) for to, cell in zip(types, row, strict=True))) for row in rows]
    except (StopIteration, csv.Error) as error:
        raise ValueError(f"not a table: {error}") from error


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


def front_end_settings(n_mels: int, sample_rate: int) -> dict[str, float]:
    """The settings that determine the frames, as stored in `corpus.json`."""
    return {
        "sample_rate": sample_rate,
        "window_length": WINDOW_MS * sample_rate // 1000,
        "hop_length": MS_PER_FRAME * sample_rate // 1000,
        "n_mels": n_mels,
        "f_min": F_MIN,
        "f_max": sample_rate / 2,
        "log_eps": LOG_EPS,
    }


def fingerprint(clips: Iterable[Clip], front_end: Mapping[str, float]) -> str:
    """SHA-256 (hex) of settings and content of the clips, independent of their order."""
    digest = hashlib.sha256(json.dumps(front_end).encode())
    for c in sorted(clips):
        row = (c.root, c.path, c.source, c.start, c.frames, c.sha256)
        digest.update("\t".join(map(str, row)).encode() + b"\n")
    return digest.hexdigest()


def read_summary(folder: Path) -> dict[str, Any]:
    """Contents of `corpus.json`.

    Raises:
        FileNotFoundError: no folder, or no corpus in it.
        ValueError: damaged, or written by another release or with other front-end settings.
    """
    path = folder / CORPUS_FILE
    if not path.is_file():
        what = "holds no corpus (no corpus.json)" if folder.is_dir() else "does not exist"
        raise FileNotFoundError(f"{folder} {what}; make one with `hear-msm-mae prepare SRC DEST`")
    try:
        summary = json.loads(path.read_text("utf-8"))
        is_corpus = summary["format"] == FORMAT
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path} is damaged; copy the corpus again, or run `hear-msm-mae prepare` into a new "
            "folder"
        ) from error
    if not is_corpus or summary.get("version") != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format {summary['format']!r} version {summary.get('version')!r}, this "
            f"release reads {FORMAT!r} version {FORMAT_VERSION}; run `hear-msm-mae prepare` again, "
            "into a new folder"
        )
    stored = summary.get("front_end", {})
    rate = stored.get("sample_rate")
    rate = rate if rate in SAMPLE_RATES else SAMPLE_RATES[0]
    check_settings(folder, stored, front_end_settings(stored.get("n_mels"), rate))
    return summary


def check_settings(folder: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise ValueError if a setting of a corpus is not the wanted one."""
    for name, value in wanted.items():
        if stored.get(name) != value or value is None:
            raise ValueError(
                f"the corpus in {folder} was made with {name} = {stored.get(name)}, not {value}; "
                "prepare the audio again in a new folder"
            )


def read_manifest(folder: Path, summary: dict[str, Any]) -> list[Clip]:
    """The clips of a corpus.

    Raises:
        ValueError: the manifest is missing or damaged.
    """
    path = folder / str(summary["manifest"])
    try:
        content = path.read_bytes()
        if manifest_name(content) != path.name:
            raise ValueError("its SHA-256 is not the one in its name")
        return parse_table(Clip, content)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} is missing or damaged ({error}); copy the corpus again, or run "
            "`hear-msm-mae prepare` into a new folder"
        ) from error


def manifest_name(content: bytes) -> str:
    """Name of the manifest with this content."""
    return f"manifest-{hashlib.sha256(content).hexdigest()[:12]}.csv"


def shard_digests(folder: Path, n_mels: int, frames: int, known: Sequence[str] = ()) -> list[str]:
    """SHA-256 of each shard of the array.

    Args:
        folder: of the corpus.
        n_mels: mel bins of a frame.
        frames: length of the array. Frames that are missing in the file are left out.
        known: digests of the first shards, which are not computed again.
    """
    path = folder / FRAMES_FILE
    exists = path.exists() and path.stat().st_size
    data = np.memmap(path, np.uint8, "r") if exists else np.zeros(0, np.uint8)
    row = 2 * n_mels

    def digest(start: int) -> str:
        stop = min(start + SHARD_FRAMES, frames)
        return hashlib.sha256(data[start * row : stop * row].data).hexdigest()

    with ThreadPoolExecutor(available_cpus()) as pool:  # hashlib lets other threads run
        return [*known, *pool.map(digest, range(len(known) * SHARD_FRAMES, frames, SHARD_FRAMES))]


def damaged_ranges(folder: Path, summary: dict[str, Any]) -> list[range]:
    """Frames of the shards that are missing or differ from their SHA-256."""
    digests = shard_digests(folder, int(summary["front_end"]["n_mels"]), int(summary["frames"]))
    return [
        range(number * SHARD_FRAMES, (number + 1) * SHARD_FRAMES)
        for number, (found, stored) in enumerate(zip(digests, summary["shards"], strict=True))
        if found != stored
    ]
