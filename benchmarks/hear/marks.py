"""What was done with which settings: markers beside a task's logs, so that nothing runs twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hear_msm_mae.files import replacing

Settings = Mapping[str, Any]


def short_digest(settings: Settings) -> str:
    """Ten characters that tell settings apart."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:10]


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file that is whole or not there."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1))


def done(path: Path, settings: Settings) -> dict[str, Any] | None:
    """What a marker recorded, or None if there is none, or one of other settings."""
    try:
        mark = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return mark if mark.get("settings") == json.loads(json.dumps(settings)) else None
