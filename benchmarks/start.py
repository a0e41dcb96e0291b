"""How long the package takes to start, and how much memory that needs.

    python -m benchmarks.start [--repeats N] [--write]

Each program runs in a new process, in turn with the others; the first round, which fills the
cache of the disk, is left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from .measure import machine, write_section

RESULTS = Path(__file__).with_name("RESULTS.md")
COMMAND = ("-m", "hear_msm_mae")
PROGRAMS = {
    "`python -c pass`": ("-c", "pass"),
    "`hear-msm-mae --help`": (*COMMAND, "--help"),
    "`hear-msm-mae embed --help`": (*COMMAND, "embed", "--help"),
    "`import hear_msm_mae`": ("-c", "import hear_msm_mae"),
    "`import torch`": ("-c", "import torch"),
    "`from hear_msm_mae import load_model`": ("-c", "from hear_msm_mae import load_model"),
    "`load_model()`": ("-c", "from hear_msm_mae import load_model; load_model()"),
}
# A process inherits the peak of the one that starts it across exec, so a small one stands between.
STARTER = """
import json, resource, subprocess, sys, time
began = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
seconds = time.perf_counter() - began
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024]))
"""


def measure(arguments: tuple[str, ...]) -> tuple[float, float]:
    """(wall time in s, peak memory in MB) of Python with these arguments."""
    command = [sys.executable, "-S", "-c", STARTER, sys.executable, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    seconds, megabytes = json.loads(done.stdout)
    return seconds, megabytes


def table(repeats: int) -> str:
    rounds = [
        {name: measure(words) for name, words in PROGRAMS.items()} for _ in range(repeats + 1)
    ]
    lines = ["| program | wall time, s | peak memory, MB |", "|---|---|---|"]
    for name in PROGRAMS:
        both = zip(*(round_[name] for round_ in rounds[1:]), strict=True)
        seconds, megabytes = map(statistics.median, both)
        lines.append(f"| {name} | {seconds:.2f} | {megabytes:.0f} |")
    return "\n".join([f"{machine()}. Median of {repeats} new processes each.", "", *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", action="store_true", help=f"into {RESULTS.name}")
    options = parser.parse_args()
    text = table(options.repeats)
    print(text)
    if options.write:
        write_section(RESULTS, "start", text)


if __name__ == "__main__":
    main()
