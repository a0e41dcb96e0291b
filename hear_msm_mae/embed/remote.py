"""Files of object stores and other places that fsspec can open, as "scheme://..."."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..audio import AUDIO_SUFFIXES

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")


def is_remote(path: str) -> bool:
    """Whether a path names a scheme, as in s3://bucket/key.

    >>> is_remote("s3://bucket/a.wav"), is_remote("C:/a.wav"), is_remote("/data/a.wav")
    (True, False, False)
    """
    return _SCHEME.match(path) is not None


def open_remote(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL or a local path, and the path in it.

    Raises:
        ValueError: the scheme is unknown, its package is not installed, or no server answers.
    """
    import fsspec

    try:
        fs, path = fsspec.core.url_to_fs(url)
    except Exception as error:  # each back end has others, also for a server that does not answer
        raise ValueError(f"{url} cannot be opened: {error}") from error
    return fs, path


def find_remote(url: str) -> list[str]:
    """Audio files at a URL: a file, a folder (recursive) or a glob; sorted.

    Raises:
        FileNotFoundError: nothing is there.
        OSError: the place cannot be reached.
    """
    fs, path = open_remote(url)
    found: list[str] | None
    with _errors_named(url):
        if any(character in path for character in "*?["):
            found = [name for name in fs.glob(path) if fs.isfile(name)]
        elif fs.isdir(path):
            # One listing of an object store is faster than a walk. Hidden files are left out.
            below = len(path.rstrip("/")) + 1
            found = [
                name
                for name in fs.find(path)
                if Path(name).suffix.lower() in AUDIO_SUFFIXES
                and not any(part.startswith(".") for part in Path(name[below:]).parts)
            ]
        else:
            found = [path] if fs.isfile(path) else None
    if found is None:
        raise FileNotFoundError(f"no such file or folder: {url}")
    return [fs.unstrip_protocol(name) for name in sorted(found)]


@contextmanager
def local_copy(path: str) -> Iterator[str]:
    """The path itself, or a temporary local copy of a remote file.

    Raises:
        OSError: the remote file does not exist or cannot be read.
    """
    if not is_remote(path):
        yield path
        return
    fs, name = open_remote(path)
    ending = Path(name.split("?")[0]).suffix  # the query of a signed URL is too long for a name
    with tempfile.NamedTemporaryFile(suffix=ending) as copy:
        with _errors_named(path), fs.open(name, "rb") as source:
            shutil.copyfileobj(source, copy)
        copy.flush()
        yield copy.name


@contextmanager
def _errors_named(url: str) -> Iterator[None]:
    """Turn all errors into OSErrors with the URL: each back end has others."""
    try:
        yield
    except Exception as error:
        raise OSError(f"{url}: cannot be read: {type(error).__name__}: {error}") from error
