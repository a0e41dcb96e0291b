"""Read settings from YAML recipes and key=value overrides, and write their help.

jsonargparse makes options, types and help from the fields of `Settings` and `ModelConfig` and their
docstrings.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from ..config import ModelConfig
from .settings import LATER, MODEL_KEYS, SIZES, Settings


def recipe_names() -> list[str]:
    """Names of the bundled recipes."""
    folder = resources.files(__package__) / "recipes"
    return sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".yaml"))


def load_recipe(path_or_name: str | Path, overrides: Sequence[str] = ()) -> Settings:
    """Settings of a recipe, changed by `key=value` texts.

    Args:
        path_or_name: a YAML file, or the name of a bundled recipe (`recipe_names`).
        overrides: e.g. ["batch=64", "norm_pixels=true", "source_weights.music=0.5"].

    Raises:
        FileNotFoundError: there is no such file or bundled recipe.
        ValueError: a key is unknown or a value wrong; the message names it.
    """
    path = Path(path_or_name)
    if path.is_file():
        text = path.read_text(encoding="utf-8")
    elif str(path_or_name) in recipe_names():
        recipe = resources.files(__package__) / "recipes" / f"{path_or_name}.yaml"
        text = recipe.read_text(encoding="utf-8")
    else:
        raise FileNotFoundError(
            f"no recipe file {path_or_name}; shipped recipes: {', '.join(recipe_names())}"
        )
    try:
        values = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"recipe {path_or_name} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"recipe {path_or_name} must consist of `setting: value` lines")
    if wrong := [text for text in overrides if "=" not in text]:
        raise ValueError(f"override {wrong[0]!r} must have the form key=value")
    return from_dict(values, overrides)


def from_dict(values: Mapping[str, Any], overrides: Iterable[str] = ()) -> Settings:
    """Settings from plain values and `key=value` texts, with their types checked.

    Raises:
        ValueError: an unknown key or a value of the wrong type; the message names it.
    """
    words = [f"--{text.lstrip('-')}" for text in overrides]
    found = _parsed([values], words)
    if found["size"] != "base":  # the sizes of ModelConfig
        sizes = dict(zip(("width", "depth", "heads"), SIZES[found["size"]], strict=True))
        found = _parsed([sizes, values], words)
    model = ModelConfig(**{key: found.pop(key) for key in MODEL_KEYS})
    return Settings(**found, model=model)


def help_text() -> str:
    """Help about every setting: type, default and meaning."""
    return _parser().format_help()


@functools.cache
def _parser() -> ArgumentParser:
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(
        exit_on_error=False, add_help=False, usage=argparse.SUPPRESS, print_config=None
    )
    parser.add_argument("--config", action="config", help=argparse.SUPPRESS)
    parser.add_class_arguments(Settings, skip={"model"}, as_group=False)
    parser.add_class_arguments(ModelConfig, skip=LATER, as_group=False)
    return parser


def _parsed(configs: Iterable[Mapping[str, Any]], words: Iterable[str]) -> dict[str, Any]:
    arguments = [f"--config={json.dumps(config)}" for config in configs]
    try:
        found: Namespace = _parser().parse_args([*arguments, *words])
    except argparse.ArgumentError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{reason} (`hear-msm-mae pretrain --help` lists the settings)") from error
    found.pop("config")
    # YAML and pickle refuse numbers of restricted types, so they become plain numbers.
    plain: dict[str, Any] = json.loads(json.dumps(found.as_dict()))
    return plain
