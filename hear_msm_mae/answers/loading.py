"""Load outputs of `embed`, and the model that made them, with the same options."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..api import load_model, unwrap
from ..checkpoints.native import BUNDLED_WEIGHTS
from ..embed.formats import format_of
from ..embed.settings import COMPARED, settings_of
from ..embed.table import Table
from ..files import printable
from ..model import HearModel

_OF_THE_MODEL = ("weights", "mode", "precision", "layers", "normalization", "scene_pooling")

Model = HearModel | str | Path  # a model, or weights for `load_model`


def read_output(path: str | Path) -> Table:
    """Read an output of `embed` in any format except CSV.

    Raises:
        FileNotFoundError: the output does not exist.
        ValueError: it is not an output of `embed`, or a package is missing.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such file or folder: {printable(path)}")
    try:
        format_ = format_of(path)
        format_.needs()
        return format_.read(path)
    except ValueError as error:
        raise ValueError(
            f"{printable(path)} cannot be used as embeddings: {error}; make them with "
            "'hear-msm-mae index' or 'hear-msm-mae embed' and the ending .parquet"
        ) from error


def loaded(model: Model, device: str, **options: Any) -> tuple[HearModel, str]:
    """Load the weights, or return a given model; also the name of the weights."""
    if not isinstance(model, (str, Path)):
        return unwrap(model), "a model in memory"
    return load_model(model, device=device, **options), str(model) or BUNDLED_WEIGHTS


def same_model(
    where: str | Path, made: Mapping[str, Any], model: Model, device: str
) -> tuple[HearModel, str]:
    """The model that made an output or a head, and the name of its weights.

    Args:
        where: the output or head, for messages.
        made: the settings stored in it, with weights and options.
        model: the model, or the path of the weights if they were moved.

    Raises:
        ValueError: the weights are missing, or they are other weights.
    """
    if isinstance(model, (str, Path)):
        model = str(model) or str(made["weights_name"])
    try:
        found, name = loaded("" if model == BUNDLED_WEIGHTS else model, device, **_options(made))
    except (FileNotFoundError, ConnectionError) as error:
        raise ValueError(
            f"{printable(where)} was made with the weights {model}, which cannot be loaded "
            f"({error}); pass their path with --weights"
        ) from error
    except ValueError as error:  # such as a layer that these weights do not have
        raise ValueError(
            f"{printable(where)} was made with the weights {made['weights_name']}; {model} cannot "
            f"be loaded with their options ({error})"
        ) from error
    require_same_model(where, made, settings_of(found, name).stored())
    return found, name


def require_same_model(
    where: str | Path, made: Mapping[str, Any], other: Mapping[str, Any], what: str = "the model"
) -> None:
    """Raise ValueError, with the setting and both values, if embeddings cannot be compared."""
    for key in _OF_THE_MODEL:
        was, now = made.get(key), other.get(key)
        if was == now:
            continue
        if key == "weights":
            was, now = (f"{x.get('weights_name')} ({str(x.get(key))[:12]})" for x in (made, other))
        raise ValueError(
            f"{printable(where)} was made with another setting of {COMPARED[key]} than {what}: "
            f"{was}, not {now}; embeddings of the two cannot be compared, so use {was} for both, "
            f"or make {printable(where)} again"
        )


def _options(made: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `load_model` behind stored settings."""
    layers, _, scale = str(made["layers"]).partition(" x ")
    normalization = str(made["normalization"])
    if normalization.startswith("("):
        normalization = ast.literal_eval(normalization)
    return {
        "mode": made["mode"],
        "precision": made["precision"],
        # Only the default layer of the weights has a scale; all others have the factor 1.
        "layer": [int(x) for x in layers.split(",")] if float(scale) == 1 else None,
        "normalization": normalization,
        "scene_pooling": made["scene_pooling"],
    }
