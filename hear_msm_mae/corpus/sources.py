"""Find the audio files of a corpus, and name them and their folders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from ..audio import find_audio
from .extract import Task
from .index import Clip, escape

Folder = tuple[str, str]  # root, first component below it or ""


class Found(NamedTuple):
    """Audio files, and the source folders by their names in the corpus."""

    files: list[Task]
    roots: dict[str, str]


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


def find_files(folders: Sequence[Path], known_roots: Mapping[str, str]) -> Found:
    """All audio files, in the order of the folders and of their names.

    Args:
        folders: from `check_folders`.
        known_roots: names of folders in the existing corpus.

    Raises:
        ValueError: a folder has no audio.
    """
    roots = dict(known_roots)
    files = []
    for folder in folders:
        root = _root_name(folder, roots, folders)
        roots[root] = str(folder)
        paths = find_audio([folder])
        if not paths:
            raise ValueError(
                f"{folder} holds no audio files; files are recognised by their ending, "
                "such as .wav, .flac, .ogg or .mp3"
            )
        files += [_task(path, folder, root) for path in paths]
    return Found(files, {escape(root): escape(folder) for root, folder in roots.items()})


def name_sources(files: Iterable[Task], clips: Iterable[Clip]) -> list[Task]:
    """Fill in the sources of new files: the first folder below the root, or the root's own name.

    Where two folders would share a name, the root's name is put before it. Folders that have
    clips in the corpus keep the name that they have there.
    """
    files = list(files)
    names: dict[Folder, str] = {_folder(c.root, c.path): c.source for c in clips}
    new = dict.fromkeys(_folder(f.root, f.path) for f in files)
    wishes: dict[str, set[Folder]] = {}
    for folder in (*names, *new):
        wishes.setdefault(folder[1] or folder[0], set()).add(folder)
    for folder in new:
        if folder not in names:
            root, name = folder
            alone = len(wishes[name or root]) == 1
            names[folder] = (name or root) if alone or not name else f"{root}/{name}"
    return [f._replace(source=names[_folder(f.root, f.path)]) for f in files]


def _folder(root: str, path: str) -> Folder:
    first, slash, _ = path.partition("/")
    return root, first if slash else ""


def _task(path: Path, folder: Path, root: str) -> Task:
    try:
        state = path.stat()
        size, mtime_ns = state.st_size, state.st_mtime_ns
    except OSError:  # the file was removed; `extract` reports it
        size, mtime_ns = 0, 0
    relative = PurePath(path).relative_to(folder).as_posix()
    return Task(str(path), escape(root), escape(relative), "", size, mtime_ns, "")


def _root_name(folder: Path, roots: Mapping[str, str], folders: Sequence[Path]) -> str:
    """The name of a source folder, with a number if another existing folder has the name."""
    base = folder.name or "root"
    name, number = base, 1
    while (other := roots.get(name)) not in (None, str(folder)) and (
        Path(str(other)) in folders or Path(str(other)).is_dir()
    ):
        number += 1
        name = f"{base}-{number}"
    return name
