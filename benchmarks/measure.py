"""Timing, memory and machine helpers of the benchmarks."""

from __future__ import annotations

import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

Times = dict[str, list[float]]  # seconds of each repeat, by contestant


def wait_for(device: torch.device | str) -> None:
    """Return when the device has done what it was given; a CPU has by then."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def interleaved(
    contestants: Mapping[str, Callable[[], object]],
    repeats: int,
    device: torch.device | str = "cpu",
) -> Times:
    """Run the contestants in turn, A B A B ..., so that all of them meet the same other load."""
    for run in contestants.values():
        run()  # first calls allocate and choose kernels
    times: Times = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, run in contestants.items():
            wait_for(device)
            start = time.perf_counter()
            run()
            wait_for(device)
            times[name].append(time.perf_counter() - start)
    return times


def ratios(times: Times, slow: str, fast: str) -> tuple[float, float]:
    """How many times faster `fast` is: by the best repeats, and by the median of the pairs."""
    pairs = [a / b for a, b in zip(times[slow], times[fast], strict=True)]
    return min(times[slow]) / min(times[fast]), statistics.median(pairs)


class MatmulPeak:
    """Best rate of a large matrix product; called again and again as one of the contestants."""

    def __init__(self, precision: str, device: torch.device | str = "cpu") -> None:
        self.precision, self.device = precision, torch.device(device)
        self.flops_per_second = 0.0

    def __call__(self) -> None:
        """Measure once more."""
        # Here, because the environment of hear-eval-kit has no Lightning, which the module needs.
        from hear_msm_mae.pretrain.hardware import matmul_peak

        rate = matmul_peak(self.device, self.precision, repeats=1)
        self.flops_per_second = max(self.flops_per_second, rate)


def peak_rss_mb(run: Callable[[], object]) -> float:
    """Peak resident memory of this process while `run` runs, in MB; only for a fresh process.

    Not ru_maxrss: that counts what was needed to build the model before `run`, and, as a child
    inherits it across exec, even the size of the process that started this one. Linux can set its
    high-water mark back (proc(5), clear_refs).
    """
    Path("/proc/self/clear_refs").write_text("5")
    run()
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


# A process inherits the peak of the one that starts it across exec, so a small one stands between.
_STARTER = """
import json, resource, subprocess, sys, time
began = time.perf_counter()
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
seconds = time.perf_counter() - began
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([status, seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
"""


def new_process(
    arguments: Sequence[object], expected: Sequence[int] = (0,)
) -> tuple[float, float, float]:
    """Wall time in s, processor time in s, peak memory in MB of Python with these arguments.

    Args:
        expected: exit statuses that are no failure.
    """
    command = [sys.executable, "-S", "-c", _STARTER, sys.executable, *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    status, seconds, processor, megabytes = json.loads(done.stdout)
    if status not in expected:
        raise RuntimeError(f"exit status {status} of python {shlex.join(map(str, arguments))}")
    return seconds, processor, megabytes


def machine(device: torch.device | str = "cpu") -> str:
    """CPU or GPU, threads and torch version, for the line above a table."""
    if torch.device(device).type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    load = os.getloadavg()[0]
    return (
        f"{model}, {torch.get_num_threads()} threads ({torch.backends.cpu.get_cpu_capability()}), "
        f"torch {torch.__version__}, load average before the run {load:.1f}"
    )


def command_line() -> str:
    """How this program was started, as `python -m` takes it."""
    spec = sys.modules["__main__"].__spec__
    program = spec.name.removesuffix(".__main__") if spec else Path(sys.argv[0]).name
    return shlex.join(["python", "-m", program, *sys.argv[1:]])


def write_section(path: Path, name: str, text: str) -> None:
    """Replace the text between `<!-- name:begin -->` and `<!-- name:end -->`, or append it.

    Above the text stand the name and the command that made it.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    section = f"{begin}\n## {name}\n\n`{command_line()}`\n\n{text.strip()}\n{end}"
    old = path.read_text() if path.exists() else "# Results\n"
    if begin in old and end in old:
        head, rest = old.split(begin, 1)
        new = head + section + rest.split(end, 1)[1]
    else:
        new = f"{old.rstrip()}\n\n{section}\n"
    path.write_text(new)
