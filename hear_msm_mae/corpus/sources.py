"""Find the audio files of a corpus, and name them and their folders."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..audio import find_audio
from ..files import printable
from .extract import Task

log = logging.getLogger(__name__)


def check_folders(sources: Sequence[str | Path], dest: Path) -> list[Path]:
    """The source folders, each once, as absolute paths.

    Raises:
        FileNotFoundError: a source does not exist.
        ValueError: there is no source, a source is a file, or `dest` and a source are nested.
    """
    if isinstance(sources, (str, Path)):
        raise ValueError(f"sources must be a list of folders, got {sources!r}")
    if not sources:
        raise ValueError("give at least one folder with audio")
    folders: dict[Path, None] = {}
    for source in sources:
        folder = Path(source).resolve()
        if not folder.exists():
            raise FileNotFoundError(f"the source folder {source} does not exist")
        if not folder.is_dir():
            raise ValueError(f"{source} is not a folder; give the folder that holds the audio")
        target = dest.resolve()
        if target.is_relative_to(folder) or folder.is_relative_to(target):
            raise ValueError(
                f"the corpus folder {dest} and the source folder {source} must not lie in each "
                "other; put the corpus somewhere else"
            )
        folders[folder] = None
    return list(folders)


def find_files(
    folders: Sequence[Path], known: Mapping[str, str]
) -> tuple[list[Task], dict[str, str]]:
    """All audio files, in the order of the folders and of their names.

    The source of a file, by which training can weight it, is the first folder below the source
    folder, or that folder's name.

    Args:
        folders: from `check_folders`.
        known: source folders of the existing corpus by their names.

    Returns:
        The files, and all source folders by their names in the corpus.

    Raises:
        ValueError: a folder has no audio.
    """
    roots = dict(known)
    tasks = []
    for folder in folders:
        root = _root_name(folder, roots, folders)
        roots[root] = str(folder)
        files = find_audio([folder], on_error=lambda error: log.warning("left out: %s", error))
        if not files:
            raise ValueError(
                f"{folder} holds no audio files; files are recognised by their ending, "
                "such as .wav, .flac, .ogg or .mp3"
            )
        tasks += [_task(file, folder, root) for file in files]
    return tasks, roots


def _task(file: Path, folder: Path, root: str) -> Task:
    path = printable(file.relative_to(folder).as_posix())
    first, slash, _ = path.partition("/")
    try:
        state = file.stat()
        size, mtime_ns = state.st_size, state.st_mtime_ns
    except OSError:  # the file was removed; `Extractor` reports it
        size, mtime_ns = 0, 0
    return Task(file, root, path, first if slash else root, size, mtime_ns)


def _root_name(folder: Path, roots: Mapping[str, str], folders: Sequence[Path]) -> str:
    """The name of a source folder, with a number if another existing folder has the name."""
    base = printable(folder.name) or "root"
    name, number = base, 1
    while (other := roots.get(name)) not in (None, str(folder)) and (
        Path(str(other)) in folders or Path(str(other)).is_dir()
    ):
        number += 1
        name = f"{base}-{number}"
    return name
