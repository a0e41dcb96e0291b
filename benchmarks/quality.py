r"""Quality of frozen embeddings: linear probes on tasks from the evaluation sources.

    python -m benchmarks.quality --write                       # the table of RESULTS.md
    python -m benchmarks.quality --weights a.safetensors b.safetensors --baselines none --quick

Every contestant embeds the same clips and is probed on the same group-wise splits; spread is the
standard deviation over the seeds of the splits (and of the weights, for untrained networks).
Settings of the weights were not chosen with the tasks marked *, but for the shares of their mean.
Embeddings and scores are kept in --cache, so a column that was computed before costs nothing.
The evaluation sources are Debian packages, fetched into --cache (1.7 GB); see
evaluation/sources.py. `make quality` installs the published models. These Debian packages render
speech and notes:

    apt-get install fluidsynth timidity flite festival \
        festvox-kallpc16k festvox-kdlpc16k festvox-us-slt-hts
    pip install opensmile==2.6.0  # its licence allows research only: read it first
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hear_msm_mae.checkpoints.native import bundled_weights, load_checkpoint
from hear_msm_mae.config import ModelConfig
from hear_msm_mae.files import replacing
from weights.corpus.packages import BuildError

from .evaluation import contestants, published, report
from .evaluation.contestants import Contestant
from .evaluation.probe import GRID, QUICK_GRID, VALIDATION_FOLDS
from .evaluation.run import PROTOCOLS, Scores, evaluate
from .evaluation.sources import DEFAULT_CACHE
from .evaluation.tasks import TASKS, TaskData
from .measure import write_section

RESULTS = Path(__file__).parent / "RESULTS.md"
# What the untrained network looks like when no weights are compared.
SMALL = ModelConfig(width=384, depth=12, heads=6)
UNTRAINED_SEEDS = 3
BASELINES: dict[str, Callable[[], Contestant] | None] = {
    "untrained": None,  # made with the sizes of the first weights
    "logmel": contestants.log_mel,
    "mfcc": contestants.mfcc,
    "naive": published.naive,
    "torchcrepe": published.crepe,
    "resemblyzer": published.resemblyzer,
    "openwakeword": published.openwakeword,
    "egemaps": published.egemaps,
    "compare": published.compare,
}
RESEARCH_ONLY = ("egemaps", "compare")
ALL = tuple(name for name in BASELINES if name not in RESEARCH_ONLY)
GROUPS = {"all": ALL, "fast": ("untrained", "logmel", "mfcc"), "none": ()}
log = logging.getLogger("quality")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", nargs="*", metavar="FILE[{OPTIONS}]", default=None,
                        help='weights files, each may carry options: a.safetensors{"layer": -2}; '
                        "default: the bundled weights")  # fmt: skip
    parser.add_argument("--baselines", nargs="+", choices=(*GROUPS, *BASELINES), default=["all"],
                        metavar="NAME",
                        help=f"of {', '.join(BASELINES)}, or {', '.join(GROUPS)} of them (fast: "
                        "features and the untrained network; all: without openSMILE's "
                        "egemaps and compare); torchcrepe takes by far the longest")  # fmt: skip
    parser.add_argument("--tasks", nargs="+", choices=sorted(TASKS), metavar="TASK",
                        default=list(TASKS), help=f"of {', '.join(TASKS)}")  # fmt: skip
    parser.add_argument("--seeds", type=int, help="splits per task (default 3; --quick: 1)")
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, metavar="DIR",
                        help="packages, clips and embeddings (default: %(default)s)")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="fewer seeds and a smaller grid")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all scores")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    options = parser.parse_args(arguments)
    if options.seeds is None:
        options.seeds = 1 if options.quick else 3
    if options.seeds < 1:
        parser.error("--seeds must be at least 1")
    return options


def parse_weights(text: str) -> tuple[Path, dict[str, Any]]:
    """Split `file{"option": value}` into the file and its options.

    Raises:
        ValueError: the options are not a JSON object, or there is no such file.

    >>> parse_weights('a.safetensors{"layer": 6}')
    Traceback (most recent call last):
    ValueError: no weights file at a.safetensors
    """
    name, brace, rest = text.partition("{")
    try:
        given = json.loads(brace + rest) if brace else {}
    except json.JSONDecodeError as error:
        raise ValueError(f"the options of {name} are not JSON: {error}") from error
    if not Path(name).is_file():
        raise ValueError(f"no weights file at {name}")
    return Path(name), given


def chosen_contestants(options: argparse.Namespace) -> dict[str, list[Contestant]]:
    """Contestants by the column that they share."""
    columns: dict[str, list[Contestant]] = {}
    config, model_options = SMALL, {}
    files = [str(bundled_weights())] if options.weights is None else options.weights
    for index, text in enumerate(files):
        path, extra = parse_weights(text)
        if index == 0:
            config, model_options = load_checkpoint(path).config, extra
        contestant = contestants.weights(path, extra)
        name = contestant.name
        columns[name if name not in columns else f"{name} ({index})"] = [contestant]
    chosen = {n for name in options.baselines for n in GROUPS.get(name, (name,))}
    seeds = range(1 if options.quick else UNTRAINED_SEEDS)
    for name, make in BASELINES.items():
        if name in chosen and make is None:
            columns[name] = [contestants.untrained(config, s, model_options) for s in seeds]
        elif name in chosen and make is not None:
            columns[name] = [make()]
    return columns


def run(options: argparse.Namespace) -> tuple[Scores, list[TaskData]]:
    """Build the tasks, evaluate every contestant."""
    pools = {recipe.name: recipe.pool(options.cache) for recipe in
             dict.fromkeys(TASKS[name].recipe for name in options.tasks)}  # fmt: skip
    tasks = []
    for name in options.tasks:
        pool = pools[TASKS[name].recipe.name]
        tasks.append((pool, TASKS[name].data(pool)))
    grid = QUICK_GRID if options.quick else GRID
    folds = 1 if options.quick else VALIDATION_FOLDS
    scores: Scores = {}
    for column, members in chosen_contestants(options).items():
        started = time.monotonic()
        results = [evaluate(m, tasks, options.seeds, grid, folds, options.cache) for m in members]
        scores[column] = {
            data.name: {
                protocol: [x for result in results for x in result[data.name][protocol]]
                for protocol in PROTOCOLS
            }
            for _, data in tasks
        }
        log.info("%s: %.0f s", column, time.monotonic() - started)
    return scores, [data for _, data in tasks]


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    options = parse_arguments(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        scores, tasks = run(options)
    except (BuildError, ValueError, OSError, ModuleNotFoundError) as error:
        log.error("%s", error)
        return 1
    if not scores:
        log.error("nothing to compare: give --weights or --baselines")
        return 1
    table = report.markdown(scores, tasks)
    print(table)
    settings = {
        "seeds": options.seeds, "quick": options.quick, "weights": options.weights,
        **{name: version(name) for name in ("torch", "numpy", "scikit-learn")},
    }  # fmt: skip
    if options.json:
        with replacing(options.json) as temporary:
            temporary.write_text(json.dumps({"settings": settings, "scores": scores}, indent=1))
    if options.write:
        write_section(RESULTS, "quality", f"{table}\n\n{report.description(tasks, options.seeds)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
