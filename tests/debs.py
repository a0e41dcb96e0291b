"""Debian packages made here, for tests of what unpacks them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")


def make_deb(folder: Path, name: str, tones: dict[str, float]) -> Path:
    """A .deb with one second of a sine per file, by frequency in Hz."""
    tree = folder / name
    (tree / "DEBIAN").mkdir(parents=True)
    control = f"Package: {name}\nVersion: 1.0-1\nArchitecture: all\n"
    control += "Maintainer: Nobody <nobody@example.org>\nDescription: test\n"
    (tree / "DEBIAN" / "control").write_text(control)
    for relative, frequency in tones.items():
        path = tree / "usr/share/sounds" / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        wave = 0.5 * np.sin(2 * np.pi * frequency * np.arange(16_000) / 16_000)
        soundfile.write(path, wave, 16_000)
    (tree / "usr/share/sounds/broken.wav").write_bytes(b"not audio")
    (tree / "usr/share/sounds/picture.png").write_bytes(b"not audio either")
    deb = folder / "debs" / f"{name}_1.0-1_all.deb"
    deb.parent.mkdir(exist_ok=True)
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "--build", str(tree), str(deb)],
        check=True,
        capture_output=True,
    )
    return deb
