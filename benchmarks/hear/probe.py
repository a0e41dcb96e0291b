"""Does a module follow the HEAR API? Run in the kit's environment before hours are spent.

    python -m benchmarks.hear.probe REPORT.json MODULE [--model WEIGHTS] [--model-options JSON]

hear-validator checks more; this is what stage 1 and 2 would crash at, on one second of noise.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import traceback
from pathlib import Path
from typing import Any

import numpy as np

FUNCTIONS = ("load_model", "get_scene_embeddings", "get_timestamp_embeddings")
RATES = (16000, 22050, 32000, 44100, 48000)
SIZES = ("scene_embedding_size", "timestamp_embedding_size")


class ApiError(Exception):
    """The module does not follow the API."""


def probe(name: str, weights: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """What the module's model is; raises ApiError, with the function that is at fault."""
    try:
        module = importlib.import_module(name)
    except Exception as error:
        raise ApiError(f"{name} cannot be imported: {_text(error)}") from error
    for function in FUNCTIONS:
        if not callable(getattr(module, function, None)):
            raise ApiError(f"{name} has no function {function}")
    model = _call(name, "load_model", module.load_model, *filter(None, [weights]), **options)
    rate = getattr(model, "sample_rate", None)
    if rate not in RATES:
        raise ApiError(f"{name}.load_model: sample_rate is {rate!r}, expected one of {RATES}")
    sizes: dict[str, Any] = {}
    for size in SIZES:
        sizes[size] = value = getattr(model, size, None)
        if type(value) is not int:
            raise ApiError(f"{name}.load_model: {size} must be an int, got {value!r}")
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, (2, rate)).astype(np.float32)
    given, to_numpy = _tensors(name, model, audio)

    scene = _call(name, FUNCTIONS[1], module.get_scene_embeddings, given, model)
    _check(f"{name}.{FUNCTIONS[1]}", to_numpy(scene), (2, sizes[SIZES[0]]))

    result = _call(name, FUNCTIONS[2], module.get_timestamp_embeddings, given, model)
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise ApiError(f"{name}.{FUNCTIONS[2]}: must return (embeddings, timestamps)")
    frames, times = (to_numpy(part) for part in result)
    if frames.ndim != 3:
        raise ApiError(f"{name}.{FUNCTIONS[2]}: must be (b, t, d), got {frames.shape}")
    _check(f"{name}.{FUNCTIONS[2]}", frames, (2, frames.shape[1], sizes[SIZES[1]]))
    if times.shape != frames.shape[:2] or not np.isfinite(times).all():
        raise ApiError(
            f"{name}.{FUNCTIONS[2]}: timestamps must be finite and of shape {frames.shape[:2]}, "
            f"got {times.shape}"
        )
    hop = float(np.diff(times[0]).mean()) if times.shape[1] > 1 else None
    return {
        "sample_rate": rate, **sizes, "hop_ms": hop, "model_digest": _digest(model),
        "version": str(getattr(module, "__version__", "")),
    }  # fmt: skip


def _call(name: str, function: str, run: Any, *arguments: Any, **options: Any) -> Any:
    try:
        return run(*arguments, **options)
    except Exception as error:
        raise ApiError(f"{name}.{function} fails: {_text(error)}") from error


def _tensors(name: str, model: Any, audio: np.ndarray) -> tuple[Any, Any]:
    """The audio as the model's kind of tensor, and the way back to NumPy."""
    import torch

    if isinstance(model, torch.nn.Module):
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model.to(device)
        return torch.from_numpy(audio).to(device), _torch_to_numpy
    import tensorflow

    if isinstance(model, tensorflow.Module):
        return tensorflow.convert_to_tensor(audio), lambda tensor: tensor.numpy()
    raise ApiError(
        f"{name}.load_model: must return a torch.nn.Module or a tf.Module, got {type(model)}"
    )


def _torch_to_numpy(tensor: Any) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _check(where: str, embeddings: np.ndarray, shape: tuple[int, ...]) -> None:
    if embeddings.shape != shape:
        raise ApiError(f"{where}: embeddings of shape {embeddings.shape}, expected {shape}")
    if embeddings.dtype != np.float32:
        raise ApiError(f"{where}: embeddings are {embeddings.dtype}, expected float32")
    if bad := int(np.count_nonzero(~np.isfinite(embeddings))):
        raise ApiError(
            f"{where}: {bad} of {embeddings.size} values are NaN or infinite for one second of "
            "noise; the kit would stop with an AssertionError (nandim == 0) in stage 2"
        )


def _digest(model: Any) -> str:
    """Fingerprint of the parameters and buffers: other weights, other digest."""
    digest = hashlib.sha256()
    if hasattr(model, "state_dict"):
        for key, tensor in sorted(model.state_dict().items()):
            digest.update(key.encode())
            digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    else:
        for variable in model.variables:
            digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
    return digest.hexdigest()


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("module")
    parser.add_argument("--model")
    parser.add_argument("--model-options", type=json.loads, default={})
    given = parser.parse_args()
    try:
        report, status = probe(given.module, given.model, given.model_options), 0
    except ApiError as error:
        traceback.print_exc()
        report, status = {"error": str(error)}, 1
    given.report.write_text(json.dumps(report, indent=1))
    return status


if __name__ == "__main__":
    raise SystemExit(main())
