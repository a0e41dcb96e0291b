"""The files of a corpus: names, clip table, digests, and checks.

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
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from ..config import F_MIN, LOG_EPS, MS_PER_FRAME, SAMPLE_RATES, WINDOW_MS
from ..files import available_cpus

CORPUS_FILE = "corpus.json"
FRAMES_FILE = "frames.f16"
SKIPPED_FILE = "skipped.csv"
FORMAT = "hear_msm_mae corpus"
FORMAT_VERSION = 2
SHARD_FRAMES = 2**18  # frames under one digest: 44 minutes, 40 MiB at 80 mel bins

_HASH_BYTES = 2**20  # read at once


class Clip(NamedTuple):
    """A row of the manifest: a continuous part of a file."""

    root: str  # name of the SRC folder
    path: str  # file, relative to SRC, escaped by `escape`
    source: str  # folder that the clip is weighted by
    start: int  # first frame of the stretch in the file, 10 ms each
    frames: int  # length of the stretch
    offset: int  # its first frame in the array
    sha256: str  # of the bytes of the audio file
    bytes: int  # size of the audio file
    mtime_ns: int  # modification time of the audio file
    licence: str  # tag given by the user, may be empty
    sum: float  # of the stored values
    sum_squares: float  # of the stored values


class FrontEnd(NamedTuple):
    """Front-end settings of a corpus."""

    n_mels: int
    sample_rate: int  # Hz

    def settings(self) -> dict[str, float]:
        """The settings that determine the values, as stored in `corpus.json`."""
        return {
            "sample_rate": self.sample_rate,
            "window_length": WINDOW_MS * self.sample_rate // 1000,
            "hop_length": MS_PER_FRAME * self.sample_rate // 1000,
            "n_mels": self.n_mels,
            "f_min": F_MIN,
            "f_max": self.sample_rate / 2,
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


def fingerprint(clips: Iterable[Clip], front_end: FrontEnd) -> str:
    """SHA-256 (hex) of settings and content of the clips, independent of their order."""
    digest = hashlib.sha256(json.dumps(front_end.settings()).encode())
    for c in sorted(clips):
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
    return summary


def check_front_end(
    folder: Path, summary: dict[str, Any], wanted: FrontEnd | None = None
) -> FrontEnd:
    """Compare the settings of a corpus with those of this package, or with given ones.

    Returns:
        The settings.

    Raises:
        ValueError: a setting differs; the message names it.
    """
    stored = summary.get("front_end", {})
    if wanted is None:
        rate = stored.get("sample_rate")
        rate = rate if rate in SAMPLE_RATES else SAMPLE_RATES[0]
        wanted = FrontEnd(stored.get("n_mels"), rate)
    for name, value in wanted.settings().items():
        if stored.get(name) != value or value is None:
            raise ValueError(
                f"the corpus in {folder} was made with {name} = {stored.get(name)}, not {value}; "
                "prepare the audio again in a new folder"
            )
    return wanted


def read_manifest(folder: Path, summary: dict[str, Any]) -> list[Clip]:
    """The clips of a corpus.

    Raises:
        ValueError: the manifest is missing or damaged.
    """
    path = folder / str(summary["manifest"])
    try:
        text = path.read_bytes()
        if manifest_name(text) != path.name:
            raise ValueError("its SHA-256 is not the one in its name")
        rows = csv.reader(io.StringIO(text.decode("utf-8"), newline=""), strict=True)
        next(rows)
        return [_clip(row) for row in rows]
    except (OSError, ValueError, TypeError, StopIteration, csv.Error) as error:
        raise ValueError(
            f"{path} is missing or damaged ({error}); copy the corpus again, or run "
            "`hear-msm-mae prepare` into a new folder"
        ) from error


def manifest_name(content: bytes) -> str:
    """Name of the manifest with this content."""
    return f"manifest-{hashlib.sha256(content).hexdigest()[:12]}.csv"


def _clip(row: list[str]) -> Clip:
    root, path, source, start, frames, offset, sha256, size, mtime_ns, licence, *sums = row
    place = (int(start), int(frames), int(offset))
    total, squares = map(float, sums)
    return Clip(
        root, path, source, *place, sha256, int(size), int(mtime_ns), licence, total, squares
    )


# ---------------------------------------------------------------------------------------------
# Digests
# ---------------------------------------------------------------------------------------------
def damaged_shards(folder: Path, n_mels: int, summary: dict[str, Any]) -> list[int]:
    """Numbers of the shards whose frames are missing or differ from their SHA-256."""
    digests: list[str] = summary["shards"]
    frames = int(summary["frames"])
    with ThreadPoolExecutor(available_cpus()) as pool:  # hashlib lets other threads run
        found = pool.map(lambda i: shard_digest(folder, n_mels, i, frames), range(len(digests)))
        return [i for i, (a, b) in enumerate(zip(found, digests, strict=True)) if a != b]


def shard_digest(folder: Path, n_mels: int, shard: int, frames: int) -> str:
    """SHA-256 of the frames of a shard; empty if some are missing."""
    row = 2 * n_mels
    first = shard * SHARD_FRAMES
    size = (min(first + SHARD_FRAMES, frames) - first) * row
    digest = hashlib.sha256()
    try:
        with (folder / FRAMES_FILE).open("rb") as file:
            file.seek(first * row)
            while size and (piece := file.read(min(size, _HASH_BYTES))):
                digest.update(piece)
                size -= len(piece)
    except OSError:
        return ""
    return "" if size else digest.hexdigest()


def num_shards(frames: int) -> int:
    """Number of shards of an array; the last one may be shorter."""
    return -(-frames // SHARD_FRAMES)


def shards_of(clip: Clip) -> range:
    """Numbers of the shards that hold frames of a clip."""
    last = clip.offset + clip.frames - 1
    return range(clip.offset // SHARD_FRAMES, last // SHARD_FRAMES + 1)


# ---------------------------------------------------------------------------------------------
# Names
# ---------------------------------------------------------------------------------------------
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
