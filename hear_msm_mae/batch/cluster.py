"""Embedding on a Ray cluster: Ray Data spreads groups of recordings over actors with the model.

Each group becomes one Parquet file, written by the actor and named after the recordings in it, so
that an attempt that is repeated after a worker died replaces what was there, and so that a run
that is repeated leaves out what is done. The rows are those of a local run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..audio import printable
from ..embedder import HearModel
from . import needs
from .content import Block, Content
from .cut import make_plan
from .inputs import Failure, Task, find_tasks
from .journal import Journal, Key, key
from .pipeline import embed_batches
from .remote import is_remote, open_remote, replacing_remote
from .run import Summary, write_failures
from .settings import Settings, differs
from .tables import Parquet, read_parquet, write_parquet
from .target import covered

logger = logging.getLogger(__name__)

TASKS_PER_GROUP = 32  # small enough to lose little, large enough to fill batches


def embed_on_ray(
    output: str,
    sources: Sequence[str | Path | Task],
    model: HearModel,
    settings: Settings,
    address: str = "auto",
    batch_seconds: float | None = None,
    device: str = "cpu",
    overwrite: bool = False,
) -> Summary:
    """Embed recordings on a Ray cluster.

    Args:
        output: a local `.parquet` file, or a folder or URL that becomes a data set of Parquet
            files. All nodes must see it, and the recordings, under the same name.
        sources: see `hear_msm_mae.batch.inputs.find_tasks`.
        model: on the CPU; it is sent to the workers.
        settings: of `settings_of`.
        address: of the cluster; "auto": the one that is running, else one on this machine.
        batch_seconds: see `embed_batches`.
        device: of the actors; each takes one processor, and with "cuda" a GPU of its own.
        overwrite: start from scratch whatever the output holds.

    Raises:
        ValueError: bad options or sources, an output with other settings, or a missing package.
        ConnectionError: no cluster at that address.
    """
    needs.ray()
    single = not is_remote(output) and output.endswith(".parquet") and not os.path.isdir(output)
    if not single and not is_remote(output) and Path(output.rstrip("/")).suffix:
        raise ValueError(
            f"with --ray, --output must be a .parquet file, a folder or a URL, got {output!r}"
        )
    problems: list[Failure] = []
    tasks = find_tasks(sources, problems)
    make_plan(model, settings.timestamps, settings.segment, settings.overlap)  # checks them
    stored = settings.stored(tasks)
    parts = _Parts(f"{output}.parts" if single else output.rstrip("/"))
    base = None
    if overwrite:
        parts.remove()
    elif single and os.path.exists(output):
        base = _base(Path(output), stored)
    done = parts.done(stored) | covered(tasks, base, stored)
    rest = [task for task in tasks if key(task) not in done]
    failures, seconds, began = list(problems), 0.0, time.monotonic()
    for result in _results(parts, rest, model, settings, stored, address, batch_seconds, device):
        failures += [Failure(*failure) for failure in json.loads(str(result["failures"]))]
        seconds += float(result["seconds"])
    speed = seconds / (time.monotonic() - began)
    if single:
        _merge(Path(output), parts, tasks, base)
    if not is_remote(output):
        write_failures(output.rstrip("/"), failures)
    unread = len(failures) - len(problems)
    return Summary(
        len(tasks), len(tasks) - unread, len(tasks) - len(rest), failures, seconds, speed
    )


def _base(path: Path, stored: dict[str, Any]) -> Content:
    """A file that an earlier run has completed."""
    try:
        base = Parquet().read(path)
    except ValueError as error:
        raise ValueError(
            f"{printable(path)} exists and cannot be continued: {error}; choose another output, "
            "or pass --overwrite"
        ) from error
    _require_same(str(path), base.settings, stored)
    return base


def _require_same(where: str, old: dict[str, Any], new: dict[str, Any]) -> None:
    if difference := differs(old, new):
        raise ValueError(
            f"{printable(where)} was made with another setting of {difference}; repeat the old "
            "one, choose another output, or pass --overwrite"
        )


# ---------------------------------------------------------------------------------------------
# Parquet files of groups
# ---------------------------------------------------------------------------------------------
class _Parts:
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
            _require_same(self.folder, settings, stored)
            done.update((path, start, end) for path, start, end in settings["tasks"])
        return done

    def remove(self) -> None:
        """Delete all of them, and the folder if nothing else is in it."""
        fs, path = open_remote(self.folder)
        for file in self.files():
            fs.rm_file(open_remote(file)[1])
        if fs.isdir(path) and not fs.ls(path):
            fs.rmdir(path)


def _merge(output: Path, parts: _Parts, tasks: list[Task], base: Content | None) -> None:
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


# ---------------------------------------------------------------------------------------------
# Ray
# ---------------------------------------------------------------------------------------------
def _results(
    parts: _Parts,
    tasks: list[Task],
    model: HearModel,
    settings: Settings,
    stored: dict[str, Any],
    address: str,
    batch_seconds: float | None,
    device: str,
) -> Iterator[dict[str, Any]]:
    """Embed the tasks; one result per group, in any order."""
    if not tasks:
        return
    import ray

    began_here = not ray.is_initialized()
    if began_here:
        ray.init(None if address == "auto" else address, log_to_driver=False)
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        groups = _groups(tasks, int(ray.cluster_resources().get("CPU", 1)))
        worker = (ray.put(model), settings, stored, parts.folder, batch_seconds, device)
        results = ray.data.from_items(
            [{"tasks": json.dumps(group)} for group in groups], override_num_blocks=len(groups)
        ).map_batches(
            Worker,
            fn_constructor_args=worker,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(min_size=1),  # grows with the cluster
            num_cpus=1,
            num_gpus=1 if device.startswith("cuda") else 0,
        )
        with tqdm(total=len(tasks), desc="embed", unit="file", disable=None) as bar:
            for result in results.iter_rows():
                yield result
                bar.update(int(result["count"]))
    finally:
        if began_here:
            ray.shutdown()


def _groups(tasks: list[Task], cpus: int) -> list[list[Task]]:
    """Neighbouring tasks; several groups for each processor, as some take longer."""
    size = max(1, min(TASKS_PER_GROUP, len(tasks) // (4 * cpus)))
    return [tasks[i : i + size] for i in range(0, len(tasks), size)]


class Worker:
    """An actor that holds the model and embeds groups of tasks."""

    def __init__(
        self,
        model: Any,
        settings: Settings,
        stored: dict[str, Any],
        folder: str,
        batch_seconds: float | None,
        device: str,
    ) -> None:
        import ray

        torch.set_num_threads(1)  # an actor per processor
        # What Ray shares is read-only, and a module that cannot be written is not moved.
        self.model = _own(ray.get(model)).to(device)
        self.plan = make_plan(self.model, settings.timestamps, settings.segment, settings.overlap)
        self.stored, self.folder, self.batch_seconds = stored, folder, batch_seconds

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Embed the groups of a batch and say what came of them."""
        results = [self._embed([Task(*task) for task in json.loads(x)]) for x in batch["tasks"]]
        return {name: [result[name] for result in results] for name in results[0]}

    def _embed(self, tasks: list[Task]) -> dict[str, Any]:
        # The journal keeps the memory bounded however long the recordings are.
        spool = Path(tempfile.mkdtemp(prefix="hear-msm-mae-"))
        journal = Journal(spool)
        try:
            journal.open(self.stored)
            positions: dict[int, float] = {}
            dtype = self.stored["dtype"]
            for done in embed_batches(
                tasks, self.model, self.plan, dtype, self.batch_seconds, workers=1
            ):
                journal.append(tasks, done)
                positions |= done.positions
            good = [key(task) for task in tasks if key(task) in journal.done]
            stored = self.stored | {"tasks": good}
            content = journal.content(self.plan, stored, self.model.scene_embedding_size)
            if good:
                name = hashlib.sha256(json.dumps(tasks).encode()).hexdigest()[:24]
                with replacing_remote(f"{self.folder}/part-{name}.parquet") as file:
                    write_parquet(file, content)
        finally:
            journal.close(remove=False)
            shutil.rmtree(spool, ignore_errors=True)
        return {
            "count": len(tasks),
            "seconds": sum(positions[i] - tasks[i].start for i in positions),
            "failures": json.dumps(list(journal.failed.values())),
        }


def _own(model: HearModel) -> HearModel:
    """The model with tensors of its own."""
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
    return model
