"""Read untrusted `torch.save` files: no code in them runs, and no archive bomb is unpacked."""

from __future__ import annotations

import argparse
import pathlib
import pickle
import re
import threading
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..files import interrupts_held
from .layout import DECODER

_STATES = ("model", "state_dict", "model_state_dict")  # keys of the state dictionary
_WRAPPERS = ("module", "_orig_mod", "model")  # DataParallel, torch.compile, Lightning
_LOADING = threading.Lock()  # torch's list of allowed classes is global to the process


def is_pickle(path: Path) -> bool:
    """Whether the file is a zip archive or a bare pickle stream, the two formats of torch.save."""
    with path.open("rb") as file:
        head = file.read(9)
    if head[4:] == b"\0\0\0\0{":  # safetensors: size of the header (8 bytes), then JSON
        return False
    return _is_archive(head) or (head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05")


def read_state(path: Path) -> tuple[dict[str, Tensor], Any, Mapping[str, Any]]:
    """State dictionary, without the prefixes of wrappers; `norm_stats`, or None; `args`.

    Raises:
        ValueError: the file is damaged, would run code, unpacks to more than its size, or has other
            content.
    """
    content = _load(path)
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected a dictionary")
    key = next((key for key in _STATES if key in content), None)
    state = content if key is None else content[key]
    if not isinstance(state, Mapping):
        raise ValueError(
            f"{path}: {key!r} is a {type(state).__name__}, expected a state dictionary"
        )
    if advice := _advice_on_own(list(map(str, state))):
        raise ValueError(f"{path} is {advice}")
    count = len(state)
    state = {_unwrapped(str(name)): value for name, value in state.items()}
    if len(state) < count:
        raise ValueError(f"{path} holds two models: names differ only by the prefix of a wrapper")
    stats = content.get("norm_stats")
    for name in sorted((k for k in state if k.rpartition(".")[2] == "norm_stats"), key=len)[::-1]:
        stats = state.pop(name)  # the shortest name counts
    args = content.get("args")
    if isinstance(args, argparse.Namespace):
        args = vars(args)
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    return tensors, stats, args if isinstance(args, Mapping) else {}


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _advice_on_own(names: list[str]) -> str | None:
    """Advice for tensors of this package's models, which lack the configuration."""
    if not any(name.endswith(".attn.qkv.q_bias") for name in names):
        return None
    if any(_unwrapped(name).startswith(DECODER) for name in names):
        return (
            "a training checkpoint of hear_msm_mae, not a weights file; "
            "hear-msm-mae export RUN_DIR writes the weights of a pretraining run"
        )
    return (
        "a state dictionary of a hear_msm_mae model, which holds no configuration (unit, heads, "
        "statistics, block). Put it into the model that it was trained from with load_state_dict; "
        "then use model.save_pretrained(folder) and load that folder"
    )


def _load(path: Path) -> Any:
    try:
        _check_archive(path)
        # torch gets an open file, because it would believe a path that ends in .safetensors.
        with (
            path.open("rb") as file,
            interrupts_held(),
            _LOADING,
            torch.serialization.safe_globals(_allowed()),
        ):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} refused: the pickle {_reason(str(error))}") from error
    except Exception as error:  # a damaged pickle can raise any error
        reason = str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise ValueError(f"{path} is truncated or not a PyTorch weights file ({reason})") from error


def _is_archive(head: bytes) -> bool:
    return head[:2] == b"PK"


def _check_archive(path: Path) -> None:
    """Refuse compressed entries, which could unpack to any size; torch.save never writes them."""
    with path.open("rb") as file:
        if not _is_archive(file.read(2)):
            return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("its archive is compressed, which torch.save never does")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise ValueError("its archive names more bytes than the file has")


def _allowed() -> list[Any]:
    """Classes and functions that are allowed in addition to torch's list.

    `argparse.Namespace` is harmless: it only sets attributes.
    """
    multiarray = getattr(np, "_core", None) or np.core
    reconstruct = multiarray.multiarray._reconstruct
    scalar = multiarray.multiarray.scalar
    return [
        argparse.Namespace,
        np.ndarray,
        np.dtype,
        *(type(np.dtype(kind)) for kind in "?bBhHiIlLqQefdU"),
        # Paths of any operating system become pure paths, which exist on every system.
        *(
            (pure, f"{module}.{kind}{system}Path")
            for pure, system in (
                (pathlib.PurePosixPath, "Posix"),
                (pathlib.PureWindowsPath, "Windows"),
            )
            for module in ("pathlib", "pathlib._local")
            for kind in ("", "Pure")
        ),
        # NumPy 1 and 2 have these functions in different modules.
        *((reconstruct, f"numpy.{home}.multiarray._reconstruct") for home in ("core", "_core")),
        *((scalar, f"numpy.{home}.multiarray.scalar") for home in ("core", "_core")),
    ]


def _reason(message: str) -> str:
    """The reason why torch's restricted unpickler stopped, and what to do."""
    wanted = re.search(r"GLOBAL ([\w.]+)", message)
    if wanted is None:
        return "is damaged or needs more than tensors and plain values"
    reason = f"wants to load {wanted[1]}, which could run code"
    if wanted[1].startswith(("hear_msm_mae.", "torch.nn.", "torch._dynamo.")):
        reason += (
            "; a whole model saved with torch.save cannot be read safely: where it was made, "
            "write it with model.save_pretrained(folder) and load that folder"
        )
    return reason
