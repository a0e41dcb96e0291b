"""How long the package takes to start, and how much memory that needs.

    python -m benchmarks.start [--repeats N] [--write]

Each program runs in a new process, in turn with the others; the first round, which fills the
cache of the disk, is left out.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from .measure import machine, new_process, write_section

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


def table(repeats: int) -> str:
    """Markdown: the best wall time and the peak memory of each program."""
    rounds = [
        {name: new_process(words)[::2] for name, words in PROGRAMS.items()}
        for _ in range(repeats + 1)
    ]
    lines = ["| program | wall time, s | peak memory, MB |", "|---|---|---|"]
    for name in PROGRAMS:
        both = zip(*(round_[name] for round_ in rounds[1:]), strict=True)
        seconds, megabytes = map(statistics.median, both)
        lines.append(f"| {name} | {seconds:.2f} | {megabytes:.0f} |")
    return "\n".join([f"{machine()}. Median of {repeats} new processes each.", "", *lines])


def main() -> None:
    """Measure, print the table, and write it where that is asked for."""
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
