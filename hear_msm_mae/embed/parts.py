"""The Parquet files of a run on a cluster: what is done, and one file out of many."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..files import printable
from .content import Block, Content
from .inputs import Task
from .journal import Key
from .remote import is_remote, open_remote
from .settings import require_same
from .tables import Parquet, read_parquet


def read_base(path: Path, stored: dict[str, Any]) -> Content:
    """A file that an earlier run has completed."""
    try:
        base = Parquet().read(path)
    except ValueError as error:
        raise ValueError(
            f"{printable(path)} exists and cannot be continued: {error}; choose another output, "
            "or pass --overwrite"
        ) from error
    require_same(path, base.settings, stored)
    return base


class Parts:
    """A folder of Parquet files, local or remote; each one knows the tasks it was made from."""

    def __init__(self, folder: str) -> None:
        self.folder = folder if is_remote(folder) else os.path.abspath(folder)

    def files(self) -> list[str]:
        """Complete files."""
        fs, path = open_remote(self.folder)
        if not fs.isdir(path):
            return []
        return sorted(fs.unstrip_protocol(name) for name in fs.glob(f"{path}/part-*.parquet"))

    def read(self, file: str) -> Content:
        """Contents of one of them."""
        fs, path = open_remote(file)
        return read_parquet(lambda: fs.open(path, "rb"))

    def done(self, stored: dict[str, Any]) -> set[Key]:
        """Tasks that are there; ValueError when they were made with other settings."""
        done: set[Key] = set()
        for file in self.files():
            settings = self.read(file).settings
            require_same(self.folder, settings, stored)
            done.update((path, start, end) for path, start, end in settings["tasks"])
        return done

    def replaces(self, begin: bool = False) -> bool:
        """Whether they will replace an old output, which a resumed run must not add to.

        Args:
            begin: note that it is so.
        """
        mark = Path(self.folder) / "replaces"
        if begin:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
        return mark.exists()

    def remove(self) -> None:
        """Delete all of them, and the folder if nothing else is in it."""
        fs, path = open_remote(self.folder)
        if not is_remote(self.folder):
            (Path(self.folder) / "replaces").unlink(missing_ok=True)
        for file in self.files():
            fs.rm_file(open_remote(file)[1])
        if fs.isdir(path) and not fs.ls(path):
            fs.rmdir(path)


def merge(output: Path, parts: Parts, tasks: list[Task], base: Content | None) -> None:
    """One file out of many, in the order of the tasks."""
    order = {printable(task.path): i for i, task in reversed(list(enumerate(tasks)))}
    contents = [parts.read(file) for file in parts.files()]
    if not contents:
        return

    def place(content: Content) -> tuple[int, float]:
        first = content.clips[0]  # a group without any writes no file
        return order.get(first.path, len(order)), first.start

    contents.sort(key=place)
    settings = {k: v for k, v in contents[0].settings.items() if k != "tasks"}
    settings["stretches"] = any(content.settings["stretches"] for content in contents)

    def blocks() -> Iterator[Block]:
        for content in contents:
            yield from content.blocks()

    clips = [clip for content in contents for clip in content.clips]
    content = dataclasses.replace(contents[0], clips=clips, settings=settings, blocks=blocks)
    if base is not None:
        content = base.updated(content)
    Parquet().write(output, content)
    parts.remove()
