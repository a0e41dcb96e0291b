"""Memory of `embed` grows neither with the length of a file nor with the number of files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[2]
# 54 minutes of samples take 207 MB, 2900 files of 4 s 740 MB. Part of this is the allocator's: two
# hours peaked 25 MB above one hour, and nine equal runs of the first test grew by 51 to 101 MB.
LIMIT_MB = 150

CHILD = """
import sys
sys.argv[0] = "hear-msm-mae"
from hear_msm_mae import cli
try:
    cli.main()
except SystemExit as error:
    assert not error.code, error.code
status = open("/proc/self/status").read()
print(int(status.split("VmHWM:")[1].split()[0]) / 1024)
"""

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="reads /proc/self/status"
)


def peak_mb(source: Path, tiny_file: Path, *options: str) -> float:
    output = source.with_name(f"{source.name}.out.npz")
    arguments = ["embed", str(source), "-o", str(output), "-w", str(tiny_file), *options]
    result = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert result.returncode == 0, result.stderr
    return float(result.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "options",
    [
        [],
        pytest.param(["--timestamps"], marks=pytest.mark.slow),
        pytest.param(["--segment", "10"], marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_long_file(tmp_path, tiny_file, options):
    second = np.random.default_rng(0).uniform(-0.1, 0.1, 16000)
    peaks = []
    for minutes in (6, 60):
        path = tmp_path / f"{minutes}.wav"
        soundfile.write(path, np.tile(second, 60 * minutes), 16000)
        peaks.append(peak_mb(path, tiny_file, *options))
    assert peaks[1] - peaks[0] < LIMIT_MB, peaks


@pytest.mark.slow
def test_many_files(tmp_path, tiny_file):
    samples = np.random.default_rng(0).uniform(-0.1, 0.1, 4 * 16000)
    peaks = []
    for count in (100, 3000):  # 26 and 770 MB of samples
        folder = tmp_path / str(count)
        folder.mkdir()
        soundfile.write(folder / "0.wav", samples, 16000)
        for i in range(1, count):
            (folder / f"{i}.wav").symlink_to("0.wav")
        peaks.append(peak_mb(folder, tiny_file))
    assert peaks[1] - peaks[0] < LIMIT_MB, peaks
