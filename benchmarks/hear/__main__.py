"""python -m benchmarks.hear run | check-tasks | tasks | evidence: see README.md of this folder."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
from pathlib import Path

from weights.corpus.packages import BuildError

from ..evaluation.sources import DEFAULT_CACHE
from . import event_tasks, results, scene_tasks
from .build import build
from .check import check_task
from .evidence import evidence
from .kit import HearError
from .run import Request, run
from .task import task_folders

log = logging.getLogger("hear")

RECIPES = {recipe.name: recipe for recipe in (*scene_tasks.RECIPES, *event_tasks.RECIPES)}


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hear", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    command = commands.add_parser("run", help="embed, train, score; one table of results")
    command.add_argument("--module", default="hear_msm_mae", help="any HEAR module")
    command.add_argument("--weights", type=Path, metavar="FILE", help="given to load_model")
    command.add_argument("--options", type=json.loads, default={}, metavar="JSON",
                         help="keyword arguments of load_model")  # fmt: skip
    command.add_argument("--tasks-dir", type=Path, required=True, metavar="DIR")
    _names_argument(command)
    command.add_argument("--grid", choices=("default", "fast", "faster"), default="default")
    command.add_argument("--grid-points", type=int, default=8, metavar="N")
    command.add_argument("--runs-dir", type=Path, default=Path("runs/hear"), metavar="DIR")
    command.add_argument("--delete-embeddings", action="store_true",
                         help="of each task, when it has its score")  # fmt: skip

    command = commands.add_parser("check-tasks", help="find what is wrong with a tasks folder")
    command.add_argument("tasks_dir", type=Path, metavar="DIR")
    _names_argument(command)
    command.add_argument("--sample-rate", type=int, metavar="HZ",
                         help="check only this one")  # fmt: skip

    command = commands.add_parser("tasks", help="build small tasks from openly licensed sounds")
    command.add_argument("--out", type=Path, required=True, metavar="DIR")
    command.add_argument("--cache", type=Path, default=DEFAULT_CACHE, metavar="DIR",
                         help="of the sources (default: %(default)s)")  # fmt: skip
    command.add_argument("--tasks", nargs="+", choices=RECIPES, metavar="TASK",
                         help=f"of {', '.join(RECIPES)}; default: all")  # fmt: skip
    command.add_argument("--sample-rates", nargs="+", type=int, default=[16_000],
                         metavar="HZ", help="default: 16000; naive needs 44100")  # fmt: skip
    command.add_argument("--small", action="store_true", help="a quarter of the clips")

    command = commands.add_parser("evidence", help="the section of RESULTS.md")
    command.add_argument("--tasks-dir", type=Path, required=True, metavar="DIR")
    _names_argument(command)
    command.add_argument("--runs-dir", type=Path, default=Path("runs/hear"), metavar="DIR")
    command.add_argument("--write", action="store_true", help="write it")
    return parser.parse_args(arguments)


def _names_argument(command: argparse.ArgumentParser) -> None:
    command.add_argument("--tasks", nargs="+", metavar="TASK", help="folders of it; default: all")


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    options = parse_arguments(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        return _COMMANDS[options.command](options)
    except (HearError, BuildError) as error:
        log.error("error: %s", error)
        return 1


def _run(options: argparse.Namespace) -> int:
    given = {field.name: getattr(options, field.name) for field in dataclasses.fields(Request)}
    folder, found = run(Request(**given))
    print(results.markdown(results.table(found)))
    log.info("table: %s and results.csv", folder / "results.md")
    return int(any(result.error for result in found))


def _check(options: argparse.Namespace) -> int:
    folders = task_folders(options.tasks_dir, options.tasks)
    problems = [line for path in folders for line in check_task(path, options.sample_rate)]
    print(*problems, sep="\n", end="\n" if problems else "")
    log.info("%d problem(s)", len(problems))
    return int(bool(problems))


def _tasks(options: argparse.Namespace) -> int:
    recipes = [RECIPES[name] for name in options.tasks or RECIPES]
    build(recipes, options.out, options.cache, options.sample_rates, options.small)
    return 0


def _evidence(options: argparse.Namespace) -> int:
    return evidence(options.tasks_dir, options.tasks, options.runs_dir, options.write)


_COMMANDS = {"run": _run, "check-tasks": _check, "tasks": _tasks, "evidence": _evidence}

if __name__ == "__main__":
    raise SystemExit(main())
