"""YAML values and key=value texts as the types of dataclass fields."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import yaml


def parse_mapping(text: str, name: str) -> dict[str, Any]:
    """The `key: value` lines of a YAML text.

    Raises:
        ValueError: not YAML, or not a mapping; the message begins with `name`.
    """
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{name} is not YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{name} must consist of `setting: value` lines")
    return values


def with_overrides(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of the values, changed by `key=value` or `key.member=value` texts.

    Raises:
        ValueError: a text has another form; the message shows it.

    >>> with_overrides({"batch": 8, "weights": {"a": 1}}, ["batch=16", "weights.b=2"])
    {'batch': 16, 'weights': {'a': 1, 'b': 2}}
    """
    changed = dict(values)
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"override {text!r} must have the form key=value")
        name, dot, member = key.strip().partition(".")
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"the value of override {text!r} is not YAML: {error}") from error
        if dot:
            if not isinstance(members := changed.get(name, {}), dict):
                raise ValueError(f"{name} has no members; override {text!r} cannot be applied")
            parsed = {**members, member: parsed}
        changed[name] = parsed
    return changed


def coerce(key: str, value: Any, hint: Any) -> Any:
    """A YAML value as the type of a field.

    Args:
        key: name of the field, for the message.
        value: what YAML made of the text.
        hint: bool, int, float, str, one of these or None, or dict[str, float].

    Raises:
        ValueError: the value is of another type.

    >>> coerce("lr", "1e-4", float)
    0.0001
    """
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        hint = next(h for h in typing.get_args(hint) if h is not type(None))
    if typing.get_origin(hint) is dict and isinstance(value, dict):
        return {str(k): coerce(f"{key}.{k}", v, float) for k, v in value.items()}
    if hint is float and not isinstance(value, bool):
        try:  # YAML 1.1 reads 1e-4 as a text
            return float(value)
        except (TypeError, ValueError):
            pass
    if hint is int and isinstance(value, (float, str)) and not isinstance(value, bool):
        try:  # and 2e5 as well
            if float(value).is_integer():
                return int(float(value))
        except ValueError:
            pass
    if hint is str and type(value) in (int, float):
        return str(value)
    if type(value) is hint:
        return value
    expected = getattr(hint, "__name__", str(hint))
    raise ValueError(f"{key} must be of type {expected}, got {value!r}")
