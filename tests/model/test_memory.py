"""Working memory does not grow with the length of the audio: each case in a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIMIT_MB = 300
MINUTE, HOUR = 60, 3600  # seconds

# Prints the peak RSS and the size of the result, in MB. Not ru_maxrss: a child inherits that
# across exec from the process that started it, and a large pytest would hide any growth.
CHILD = """
import sys, numpy, torch, hear_msm_mae
from hear_msm_mae.config import ModelConfig

which, function, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3])
if which == "bundled":
    model = hear_msm_mae.load_model()
else:  # without gradients the depth does not change the peak, but it does change the time
    from small_models import small_model
    model = small_model(ModelConfig(width=192, depth=1, heads=3))
second = numpy.random.default_rng(0).standard_normal(16000, dtype=numpy.float32) / 10
audio = torch.from_numpy(numpy.tile(second, seconds))[None]
result = getattr(hear_msm_mae, function)(audio, model)
tensors = result if isinstance(result, tuple) else (result,)
status = open("/proc/self/status").read()
peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
print(peak, sum(x.nbytes for x in tensors) / 2**20)
"""

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/status")


def peak_and_output_mb(which: str, function: str, seconds: int) -> tuple[float, float]:
    command = [sys.executable, "-c", CHILD, which, function, str(seconds)]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path}
    )
    assert result.returncode == 0, result.stderr
    peak, output = map(float, result.stdout.split())
    return peak, output


def check(which: str, function: str) -> None:
    """An hour may need LIMIT_MB more than a minute, its own samples included, plus its output."""
    minute, minute_output = peak_and_output_mb(which, function, MINUTE)
    hour, hour_output = peak_and_output_mb(which, function, HOUR)
    if function == "get_scene_embeddings":
        hour_output = minute_output = 0.0
    growth = (hour - hour_output) - (minute - minute_output)
    print(f"{which} {function}: {minute:.0f} -> {hour:.0f} MB, output {hour_output:.0f} MB")  # noqa: T201
    assert growth < LIMIT_MB


@linux
@pytest.mark.parametrize(
    "function",
    ["get_scene_embeddings", pytest.param("get_timestamp_embeddings", marks=pytest.mark.slow)],
)
def test_an_hour_needs_little_more_than_a_minute(function: str) -> None:
    check("small", function)


@linux
@pytest.mark.slow
@pytest.mark.parametrize("function", ["get_scene_embeddings", "get_timestamp_embeddings"])
def test_an_hour_needs_little_more_than_a_minute_with_the_bundled_model(function: str) -> None:
    check("bundled", function)
