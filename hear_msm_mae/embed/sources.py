"""Find recordings: files, folders, globs, URLs, lists, and audio in memory."""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import math
import os
import re
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..audio import AUDIO_SUFFIXES, find_audio
from ..files import printable
from .lists import LIST_SUFFIXES, parse_channel, plain, read_list
from .remote import find_remote, is_remote

FOLDER = "folder not listed"  # a reason of failures begins like this
_MAGIC = re.compile(r"[*?\[]")


@dataclasses.dataclass(frozen=True)
class Recording:
    """A recording, or a part of one, that is to be embedded: a row of the input."""

    # File or URL as given or found, or a label for audio in memory. Bytes that are not UTF-8 are
    # surrogates, as in Python's own file names.
    path: str
    start: float = 0.0  # s
    end: float | None = None  # s; None means the end of the file
    name: str = ""  # path below the searched folder, for outputs that mirror the folder
    row: int = 0  # number of the row in the input
    where: str = ""  # absolute path or URL
    occurrence: int = 0  # number of earlier rows with the same file, start, end and channel
    # Other columns of the list, which outputs keep.
    columns: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    channel: str | int | None = None  # None for their mean, "left", "right", "each", or a number
    item: Any = dataclasses.field(default=None, compare=False, repr=False)  # audio in memory
    stamp: Any = dataclasses.field(default=None, compare=False)  # `stamp_of`, set by `embed_to`

    @property
    def key(self) -> tuple[str, float, float | None, str | int | None, int]:
        """The identity of the recording, in types that JSON has."""
        return self.where, self.start, self.end, self.channel, self.occurrence

    def failure(self, reason: object) -> Failure:
        """The recording as one that could not be read."""
        text = str(reason).removeprefix(f"{printable(self.where)}: ")
        return Failure(self.path, self.start, self.end, text)


class Failure(NamedTuple):
    """A recording or folder that could not be read, and the reason."""

    path: str
    start: float
    end: float | None
    reason: str


def find_recordings(
    sources: Any,
    problems: list[Failure] | None = None,
    left_out: list[str] | None = None,
    channel: str | int | None = "mix",
) -> list[Recording]:
    """Find the recordings that sources name.

    Args:
        sources: one or any mix of

            - files, whatever their ending, and `Recording`s;
            - folders: searched as `hear_msm_mae.audio.find_audio` does;
            - globs, if no file has that name (`**` matches folders): folders as above, and files
              that have an audio ending or the ending in the glob;
            - lists, see `hear_msm_mae.embed.lists.read_list`;
            - URLs of a file, a folder or a glob that fsspec can open, e.g. s3://bucket/folder;
            - audio in memory, see `hear_msm_mae.audio.waveform_of`.
        problems: if given, folders that could not be listed are appended, and audio files in
            folders that no installed package can decode.
        left_out: if given, other files that a search skips are appended.
        channel: the channel of recordings that name none: "mix", "left", "right", "each", or a
            number from 0.

    Returns:
        Recordings in the order of the sources, those of a folder sorted. A recording that is named
        twice is returned twice, but one that is found in a folder or by a glob only once.

    Raises:
        FileNotFoundError: a source does not exist.
        ValueError: there are no recordings, or a list is wrong; the message names its row.
        TypeError: a source is of another type.
    """
    sources = list(_several(sources))
    found = list(iter_recordings(sources, problems, left_out, channel))
    if not found:
        names = ", ".join(printable(str(x)) for x in sources)
        why = "".join(f"; {printable(x.path)}: {x.reason}" for x in (problems or [])[:1])
        raise ValueError(f"no audio files in {names or 'an empty list of sources'}{why}")
    return found


def iter_recordings(
    sources: Any,
    problems: list[Failure] | None = None,
    left_out: list[str] | None = None,
    channel: str | int | None = "mix",
) -> Iterator[Recording]:
    """Yield recordings one by one; the arguments are those of `find_recordings`.

    Of a generator, an item that is wrong is appended to `problems`, and the next one follows.
    """
    default = parse_channel(channel)
    counts: Counter[Any] = Counter()  # by `Recording.key` without the occurrence
    searched: set[Any] = set()
    row = 0
    for number, source in enumerate(_several(sources)):
        try:
            kind, found = _Source(number, problems, left_out).recordings(source)
        except (OSError, TypeError, ValueError) as error:
            if problems is None or not isinstance(sources, Iterator):
                raise
            problems.append(Failure(_label(source, number), 0.0, None, str(error)))
            continue
        for recording in found:
            recording = _completed(recording, default)
            identity = recording.key[:4]
            if kind == "search":
                if counts[identity]:
                    continue
                searched.add(identity)
            elif kind == "file" and identity in searched:
                continue
            yield dataclasses.replace(recording, row=row, occurrence=counts[identity])
            counts[identity] += 1
            row += 1


def stamp_of(recording: Recording) -> Any:
    """Identify the version of a recording's file, in types that JSON has.

    It is the size and time of a file, the SHA-256 of audio in memory, and None for a URL.
    """
    item = recording.item
    if item is None:
        try:
            status = os.stat(recording.where)
        except (OSError, ValueError):  # also for a URL
            return None
        return [status.st_size, status.st_mtime_ns]
    if hasattr(item, "get_all_samples"):
        return secrets.token_hex(8)  # not decoded yet, so it counts as new each time
    digest = hashlib.sha256()
    for part in item.values() if isinstance(item, Mapping) else item:
        array = hasattr(part, "__array__")
        digest.update(np.asarray(part).tobytes() if array else repr(part).encode())
    return digest.hexdigest()


def _completed(recording: Recording, channel: str | int | None) -> Recording:
    """The recording with name, absolute path and channel filled in."""
    path = recording.path
    known = recording.item is not None or is_remote(path)
    return dataclasses.replace(
        recording,
        start=float(recording.start),
        end=None if recording.end is None or recording.end == math.inf else float(recording.end),
        name=recording.name or _base(path),
        where=recording.where or (path if known else os.path.abspath(path)),
        channel=channel if recording.channel is None else parse_channel(recording.channel),
        columns={str(name): plain(value) for name, value in recording.columns.items()},
    )


# ---------------------------------------------------------------------------------------------
# Kinds of sources
# ---------------------------------------------------------------------------------------------
def _several(sources: Any) -> Iterable[Any]:
    single = isinstance(sources, (str, os.PathLike, Recording)) or _in_memory(sources)
    return [sources] if single else sources


def _in_memory(source: Any) -> bool:
    """Whether a source is audio, or a mapping with audio as in Hugging Face data sets."""
    if isinstance(source, tuple) and len(source) == 2:
        return isinstance(source[1], Real) and not isinstance(source[0], (str, os.PathLike))
    return isinstance(source, Mapping) or hasattr(source, "get_all_samples")


def _label(source: Any, number: int) -> str:
    """The name of a source in failures and outputs."""
    name = source.get("path") if isinstance(source, Mapping) else source
    return os.fspath(name) if isinstance(name, (str, os.PathLike)) else f"item {number}"


class _Source(NamedTuple):
    """The number of a source in the input, and the lists that get notes about it."""

    number: int
    problems: list[Failure] | None
    left_out: list[str] | None

    def recordings(self, source: Any) -> tuple[str, Iterable[Recording]]:
        """Recordings of a source, and their kind: "row", "file", or found by a "search"."""
        if isinstance(source, Recording):
            return "row", [source]
        if _in_memory(source):
            return "row", [self._item(source)]
        if not isinstance(source, (str, os.PathLike)):
            kind = "an array without a rate" if hasattr(source, "__array__") else type(source)
            raise TypeError(
                f"source {self.number} is {kind}; pass paths, or (array, rate) for audio"
            )
        path = os.fspath(source)
        if is_remote(path):
            return _remote(path)
        if path.lower().endswith(LIST_SUFFIXES) and os.path.isfile(path):
            return "row", _listed(path)
        if os.path.isdir(path):
            return "search", self._folder(path, path)
        if os.path.exists(path):
            return "file", [Recording(path)]
        if not glob.has_magic(path) or os.path.lexists(path):
            raise FileNotFoundError(f"no such file or folder: {printable(path)}")
        return "search", list(self._glob(path))

    def _item(self, source: Any) -> Recording:
        known = source if isinstance(source, Mapping) else {"array": source}
        held = any(known.get(name) is not None for name in ("array", "bytes"))
        if not held and not known.get("path"):
            raise TypeError(f"source {self.number} has neither 'array', 'bytes' nor 'path'")
        return Recording(_label(source, self.number), item=source if held else None)

    def _folder(self, folder: str, root: str) -> list[Recording]:
        def note(error: OSError) -> None:
            if self.problems is not None:
                what = FOLDER if os.path.isdir(error.filename) else "cannot be read"
                reason = f"{what}: {error.strerror or error}"
                self.problems.append(Failure(str(error.filename), 0.0, None, reason))

        def leave(path: Path, reason: str | None) -> None:
            if reason is not None and self.problems is not None:
                self.problems.append(Failure(str(path), 0.0, None, reason))
            elif self.left_out is not None:
                self.left_out.append(str(path))

        # Without a list of problems, such a file is kept: reading it says what to install.
        noted = None if self.problems is None else leave
        found = find_audio([folder], on_error=note, left_out=noted)
        return [Recording(str(path), name=_below(str(path), root)) for path in found]

    def _glob(self, pattern: str) -> Iterator[Recording]:
        matches = sorted(glob.glob(pattern, recursive=True))
        if not matches:
            raise FileNotFoundError(f"no file matches {printable(pattern)}")
        root = os.path.dirname(_MAGIC.split(pattern)[0])
        visited: dict[str, str] = {}  # for each folder that ** matches, with links resolved
        any_ending = not glob.has_magic(os.path.splitext(pattern)[1] or "*")
        for match in matches:
            parent = os.path.dirname(match)
            if "**" in pattern and visited.setdefault(os.path.realpath(parent), parent) != parent:
                continue  # a link led there again
            if not os.path.isdir(match):  # also a broken link: reading it says what is wrong
                if any_ending or os.path.splitext(match)[1].lower() in AUDIO_SUFFIXES:
                    yield Recording(match, name=_below(match, root))
                elif self.left_out is not None:
                    self.left_out.append(match)
            elif "**" not in pattern:  # a pattern with ** has matched the files in folders already
                yield from self._folder(match, root)


def _remote(url: str) -> tuple[str, list[Recording]]:
    root = _MAGIC.split(url)[0]
    paths = find_remote(url)
    below = [path.removeprefix(root).lstrip("/") if path.startswith(root) else "" for path in paths]
    kind = "file" if list(map(_base, paths)) == [_base(url)] else "search"
    return kind, [Recording(path, name=name) for path, name in zip(paths, below, strict=True)]


def _listed(path: str) -> list[Recording]:
    rows = read_list(path)
    here = [os.path.abspath(row.path) for row in rows if not is_remote(row.path)]
    root = os.path.commonpath(map(os.path.dirname, here)) if here else ""
    names = ["" if is_remote(x.path) else _below(os.path.abspath(x.path), root) for x in rows]
    return [Recording(name=name, **x._asdict()) for name, x in zip(names, rows, strict=True)]


def _below(path: str, root: str) -> str:
    relative = os.path.relpath(path, root or ".")
    return _base(path) if relative.startswith("..") else Path(relative).as_posix()


def _base(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1] if is_remote(path) else os.path.basename(path)
