"""NPZ files, written and read in bounded memory."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..files import replacing
from .content import Block, Clip, Content, whole_files, with_file_ends

_READ_BYTES = 2**24  # read at once


class Npz:
    """One .npz file: `paths`, `seconds`, `embeddings` (r, d); for timestamps `timestamps` in ms and
    `clip`, the index into `paths`, for each row; `start` in seconds where clips are parts of files,
    and `file_end` where single stretches were asked for (see `Clip`).

    The settings are the comment of the zip file.
    """

    def check(self) -> None:
        """Needs nothing."""

    def read(self, path: Path) -> Content:
        """See `Format`."""
        try:
            with zipfile.ZipFile(path) as file:
                settings = json.loads(file.comment)
            with np.load(path, allow_pickle=False) as arrays:
                paths, seconds = arrays["paths"].tolist(), arrays["seconds"]
                starts = arrays["start"] if "start" in arrays else np.zeros(len(paths))
                counts = np.ones(len(paths), int)
                times, ends = arrays.get("timestamps"), arrays.get("file_end")
                if times is not None:
                    counts = np.bincount(arrays["clip"], minlength=len(paths))
            with zipfile.ZipFile(path) as file, file.open("embeddings.npy") as member:
                (rows, width), dtype = _header(member)
        except (zipfile.BadZipFile, ValueError, KeyError) as error:
            raise ValueError(f"it is not a file of this command ({error})") from error
        clips = [
            Clip(name, start, start + length, count, "")
            for name, start, length, count in zip(
                paths, starts.tolist(), seconds.tolist(), counts.tolist(), strict=True
            )
        ]
        clips = with_file_ends(clips, settings, ends)

        def blocks() -> Iterator[Block]:
            done, step = 0, max(1, _READ_BYTES // (width * dtype.itemsize))
            with zipfile.ZipFile(path) as file, file.open("embeddings.npy") as member:
                _header(member)
                while done < rows:
                    size = min(step, rows - done)
                    part = np.frombuffer(member.read(size * width * dtype.itemsize), dtype)
                    now = None if times is None else times[done : done + size]
                    yield Block(part.reshape(size, width), now)
                    done += size

        return Content(clips, settings, width, dtype, times is not None, blocks)

    def write(self, path: Path, content: Content) -> None:
        """See `Format`."""
        clips = content.clips
        with (
            replacing(path) as temporary,
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as file,
        ):
            file.comment = json.dumps(content.settings).encode()
            _add(file, "paths", np.array([clip.path for clip in clips]))
            _add(file, "seconds", np.array([clip.end - clip.start for clip in clips]))
            if not whole_files(content):
                _add(file, "start", np.array([clip.start for clip in clips]))
            if content.settings["stretches"]:
                _add(file, "file_end", np.array([clip.file_end for clip in clips]))
            index, times = [], []
            with file.open("embeddings.npy", "w", force_zip64=True) as member:
                start_npy(member, (content.total_rows, content.width), content.dtype)
                for numbers, block in content.indexed():
                    member.write(np.ascontiguousarray(block.rows).data)
                    if block.times_ms is not None:
                        index.append(numbers)
                        times.append(block.times_ms)
            if content.timestamps:
                _add(file, "timestamps", np.concatenate(times))
                _add(file, "clip", np.concatenate(index))


def _add(file: zipfile.ZipFile, name: str, array: NDArray[Any]) -> None:
    with file.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array(member, array, allow_pickle=False)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    reader = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, _, dtype = reader(file)
    return shape, dtype


def start_npy(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Write the header of an .npy file; the data follow in C order."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
