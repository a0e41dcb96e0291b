"""Markers beside a task's logs that record completed work and its settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hear_msm_mae.files import replacing

Settings = Mapping[str, Any]


def short_digest(settings: Settings) -> str:
    """The first ten characters of a hash of settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:10]


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1))


def done(path: Path, settings: Settings) -> dict[str, Any] | None:
    """The content of a marker; None if it does not exist or has other settings."""
    try:
        mark = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return mark if mark.get("settings") == json.loads(json.dumps(settings)) else None
