"""Embedding on a Ray cluster: Ray Data spreads groups of recordings over actors with the model.

The results come back to this process, which stores them. So the output and the way to continue an
interrupted run are those of a local run.
"""

from __future__ import annotations

import pickle
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from ..extras import need
from ..model import HearModel
from .cutting import Plan, Resume, make_plan
from .pieces import embed_recordings
from .run import Embed, Events
from .settings import Settings
from .sources import Recording

_CONNECT_SECONDS = 10.0
RECORDINGS_PER_GROUP = 32  # a killed run loses little, and batches are full


def on_ray(
    model: HearModel, settings: Settings, address: str = "auto", device: str = "cpu"
) -> Embed:
    """The `embed` argument of `run.embed_to` for a cluster.

    All nodes must see the recordings under the same absolute paths.

    Args:
        model: the model, on the CPU; it is sent to the workers.
        settings: the settings of the run.
        address: address of the cluster. "auto" takes the running cluster, or starts one on this
            machine.
        device: device of the actors. Each takes one processor, and with "cuda" also one GPU.

    Returns:
        A function that embeds recordings, as `embed_to` calls it.

    Raises:
        ValueError: ray is not installed.
        ConnectionError: no cluster answers at the address. It is raised when embedding begins.
    """
    need("ray.data", "ray", "clusters")

    def embed(recordings: Sequence[Recording], plan: Plan, resume: Resume | None) -> Events:
        if recordings:
            yield from _spread(recordings, resume, (model, settings, device), address)

    return embed


def _spread(
    recordings: Sequence[Recording], resume: Resume | None, worker: tuple[Any, ...], address: str
) -> Events:
    import ray

    model, settings, device = worker
    began_here = not ray.is_initialized()
    if began_here:
        _require_listener(address)
        ray.init(None if address == "auto" else address, log_to_driver=False)
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        groups = _groups(recordings, int(ray.cluster_resources().get("CPU", 1)))
        items = [(group, None if i else resume) for i, group in enumerate(groups)]
        results = ray.data.from_items(
            [{"group": pickle.dumps(item)} for item in items], override_num_blocks=len(items)
        ).map_batches(
            Worker,
            fn_constructor_args=(ray.put(model), settings, device),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(min_size=1),  # grows with the cluster
            num_cpus=1,
            num_gpus=1 if device.startswith("cuda") else 0,
        )
        for row in results.iter_rows():
            yield pickle.loads(row["event"])
    finally:
        if began_here:
            ray.shutdown()


def _require_listener(address: str) -> None:
    """Raise ConnectionError if nothing answers, because Ray would try for many minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdigit():  # "auto", or another form that Ray may understand
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ConnectionError(f"no Ray cluster answers at {address}: {error}") from error


def _groups(recordings: Sequence[Recording], cpus: int) -> list[Sequence[Recording]]:
    """Neighbouring recordings. Each processor gets several groups, because some take longer."""
    size = max(1, min(RECORDINGS_PER_GROUP, len(recordings) // (4 * cpus)))
    return [recordings[i : i + size] for i in range(0, len(recordings), size)]


class Worker:
    """An actor that holds the model and embeds groups of recordings."""

    def __init__(self, model: Any, settings: Settings, device: str) -> None:
        import ray

        torch.set_num_threads(1)  # each actor has one processor
        # Ray shares read-only memory, and a module must be writable to be moved to a device.
        self.model = _writable(ray.get(model)).to(device)
        self.plan = make_plan(self.model, settings.timestamps, settings.segment, settings.overlap)
        self.dtype = settings.dtype

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[bytes]]]:
        """Embed groups. Results are returned one by one, so that memory does not grow."""
        for group in batch["group"]:
            recordings, resume = pickle.loads(group)
            for event in embed_recordings(recordings, self.plan, self.dtype, 1, resume):
                yield {"event": [pickle.dumps(event)]}


def _writable(model: HearModel) -> HearModel:
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
    return model
