"""The HTML page of a report: template, style, script and data in one file."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from importlib import resources
from string import Template
from typing import Any

SCRIPTS = ("pictures.js", "map.js", "report.js")  # parts of one script, in this order


def render(title: str, data: dict[str, Any]) -> str:
    """The page as text.

    Names of files are untrusted, so they are stored as JSON that cannot end its element, and the
    script writes them as text, not as HTML. The content security policy of the page allows only
    this script and no requests.
    """
    template, style = _asset("report.html"), _asset("report.css")
    script = "\n".join(map(_asset, SCRIPTS))
    policy = (
        "default-src 'none'; img-src data:; media-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src {_hash(style)}; script-src {_hash(script)}"
    )
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return Template(template).substitute(
        title=html.escape(title), policy=policy, style=style, script=script, data=text
    )


def _asset(name: str) -> str:
    return (resources.files(__package__) / "assets" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest())
    return f"'sha256-{digest.decode('ascii')}'"
