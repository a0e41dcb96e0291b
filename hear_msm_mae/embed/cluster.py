"""Embedding on a Ray cluster: Ray Data spreads groups of recordings over actors with the model.

Each group becomes one Parquet file, written by the actor and named after the recordings in it, so
that an attempt that is repeated after a worker died replaces what was there, and so that a run
that is repeated leaves out what is done. The rows are those of a local run.
"""

from __future__ import annotations

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

from ..extras import need
from ..model import HearModel
from .cut import make_plan
from .inputs import Failure, Task, find_tasks
from .journal import Journal, key
from .parts import Parts, merge, read_base
from .pipeline import embed_batches
from .remote import is_remote, replacing_remote
from .run import Summary, write_failures
from .settings import Settings
from .tables import write_parquet
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
            files. All nodes must see it, and the recordings, under the same name; relative names
            count from the current folder on all of them.
        sources: see `hear_msm_mae.embed.inputs.find_tasks`.
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
    need("ray.data", "ray", "clusters")
    single = not is_remote(output) and output.endswith(".parquet") and not os.path.isdir(output)
    if not single and not is_remote(output) and Path(output.rstrip("/")).suffix:
        raise ValueError(
            f"with --ray, --output must be a .parquet file, a folder or a URL, got {output!r}"
        )
    problems: list[Failure] = []
    tasks = find_tasks(sources, problems)
    make_plan(model, settings.timestamps, settings.segment, settings.overlap)  # checks them
    stored = settings.stored(tasks)
    parts = Parts(f"{output}.parts" if single else output.rstrip("/"))
    base = None
    if overwrite:
        parts.remove()
        parts.replaces(single and os.path.exists(output))
    elif single and os.path.exists(output) and not parts.replaces():
        base = read_base(Path(output), stored)
    done = parts.done(stored) | covered(tasks, base, stored)
    rest = [task for task in tasks if key(task) not in done]
    failures, seconds, began = list(problems), 0.0, time.monotonic()
    for result in _results(parts, rest, model, settings, stored, address, batch_seconds, device):
        failures += [Failure(*failure) for failure in json.loads(str(result["failures"]))]
        seconds += float(result["seconds"])
    speed = seconds / (time.monotonic() - began)
    if single:
        merge(Path(output), parts, tasks, base)
    listed = write_failures(output, failures)
    unread = len(failures) - len(problems)
    return Summary(
        len(tasks), len(tasks) - unread, len(tasks) - len(rest), failures, listed, seconds, speed
    )


def _results(
    parts: Parts,
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
        relative = not all(is_remote(task.path) or os.path.isabs(task.path) for task in tasks)
        here = os.getcwd() if relative else None
        worker = (ray.put(model), settings, stored, parts.folder, batch_seconds, device, here)
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
        here: str | None,
    ) -> None:
        import ray

        if here is not None:  # actors begin in the folder where their node was started
            os.chdir(here)
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
