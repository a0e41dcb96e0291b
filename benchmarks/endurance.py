"""What `hear-msm-mae embed` loses when everything goes wrong: it should be nothing.

    python -m benchmarks.endurance [--quick] [--only kills "full disks npz" ...] [--parts FILE]

From the root of the repository. Runs the command in processes of its own, on a model with random
weights, one block and embeddings of the size of the bundled weights, and

- kills it (SIGKILL) at times spread over whole runs, in every format, for scenes, timestamps and
  windows; five times, then lets the same command finish;
- limits the size of files, as a full disk does, then repeats the command without the limit;
- starts it twice at once on one output;
- gives it files with bytes that are flipped, cut out, put in or set to zero;
- gives it 20 000 tiny files, and one of ten hours.

Prints one table and writes it into RESULTS.md. "Handled" are trials that ended as they should:
the final output equals that of an undisturbed run to 1e-5; of two runs at once one is refused or
finds everything done; each mutated file is in the output or in the list of errors. "Lost" are rows,
or files, that are missing or differ. Journal is the most that OUT.partial held, in parts of the
output. `--quick` does a small part in less than a minute, and writes nothing into RESULTS.md.

The parts of a run are a trial and, for the first three, a format. With `--parts`, finished parts
are kept in a file, and the same command does the rest: after an interruption, or after a run with
`--only`. RESULTS.md is written when all parts are there.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import functools
import json
import multiprocessing
import os
import random
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import soundfile
import torch

from benchmarks import measure
from benchmarks.inference import RESULTS
from hear_msm_mae import embed_files, load_model
from hear_msm_mae.checkpoints.native import Checkpoint, save_checkpoint, state_tensors
from hear_msm_mae.config import SAMPLE_RATE, ModelConfig
from hear_msm_mae.embed.formats import format_of
from hear_msm_mae.encoder import Encoder

CONFIG = ModelConfig(width=384, depth=1, heads=6)
FORMATS = {x: f".{x}" for x in ("parquet", "npz", "h5", "duckdb", "csv")} | {"folder": ""}
KINDS: dict[str, tuple[list[str], dict[str, object]]] = {
    "scenes": ([], {}),
    "timestamps": (["--timestamps"], {"timestamps": True}),
    "windows": (["--segment", "3", "--overlap", "1"], {"segment": 3.0, "overlap": 1.0}),
}
KILLS_PER_RUN = 5
COLUMNS = ("trial", "tried", "handled", "lost", "of", "peak memory MB", "journal")

_context = multiprocessing.get_context("forkserver")
_seconds = [0.0]  # longest whole run so far


@dataclasses.dataclass
class Line:
    """A line of the table."""

    trial: str
    tried: int = 0
    handled: int = 0
    lost: int = 0
    of: int = 0  # rows or files that should be there
    peak_mb: float = 0.0
    journal: float = 0.0
    minutes: float = 0.0

    def __str__(self) -> str:
        journal = f"{self.journal:.2f}" if self.journal else ""
        values = self.trial, self.tried, self.handled, self.lost, self.of, f"{self.peak_mb:.0f}"
        return f"| {' | '.join(map(str, values))} | {journal} |"


# ---------------------------------------------------------------------------------------------
# Processes
# ---------------------------------------------------------------------------------------------
def child(words: list[str], log: str, limit: int | None) -> None:
    """The command line, in a process that may not write files beyond a limit."""
    from hear_msm_mae import cli
    from hear_msm_mae.embed import store

    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    torch.set_num_threads(1)
    store.FLUSH_SECONDS = 0.05  # so that runs of a second have something to lose
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    sys.argv = ["hear-msm-mae", *words]
    cli.main()


class Run:
    """One start of the command; `peak_mb` and `journal_bytes` grow while one waits for it."""

    def __init__(
        self, output: Path, words: list[str], limit: int | None = None, log: str = "log"
    ) -> None:
        self.output, self.log = output, output.with_name(f"{output.name}.{log}")
        self.peak_mb, self.journal_bytes = 0.0, 0
        arguments = ["embed", *words, "-o", str(output)]
        self.process: BaseProcess = _context.Process(
            target=child, args=(arguments, str(self.log), limit)
        )
        self.process.start()

    def wait(self, seconds: float = 1e9) -> bool:
        """Wait, at most so long; whether the process has ended."""
        end = time.monotonic() + seconds
        while self.process.is_alive() and time.monotonic() < end:
            self._look()
            self.process.join(min(0.02, max(0.0, end - time.monotonic())))
        return not self.process.is_alive()

    def _look(self) -> None:
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
            self.peak_mb = max(self.peak_mb, int(status.split("VmHWM:")[1].split()[0]) / 1024)
            folder = self.output.with_name(f"{self.output.name}.partial")
            size = sum(x.stat().st_size for x in folder.iterdir())
            self.journal_bytes = max(self.journal_bytes, size)
        except (OSError, IndexError):
            return

    def ended(self, *statuses: int) -> bool:
        """Wait for the end; whether it is one of these exit statuses, without a trace."""
        self.wait()
        traced = "Traceback" in self.log.read_text(errors="replace")
        return self.process.exitcode in statuses and not traced

    def into(self, line: Line) -> None:
        """Note what was seen."""
        line.peak_mb = max(line.peak_mb, self.peak_mb)
        size = size_of(self.output)
        if size > 2**20:  # small ones are mostly settings and names
            line.journal = max(line.journal, self.journal_bytes / size)


def size_of(output: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    files = output.rglob("*") if output.is_dir() else [output]
    return sum(x.stat().st_size for x in files if x.is_file())


# ---------------------------------------------------------------------------------------------
# Inputs and rows
# ---------------------------------------------------------------------------------------------
def make_folder(folder: Path, count: int, long_seconds: float, seed: int = 0) -> Path:
    """Short files of several formats, and a long one among them."""
    generator = np.random.default_rng(seed)
    folder.mkdir()
    for i in range(count):
        seconds = long_seconds if i == count // 2 else generator.uniform(0.5, 6)
        samples = generator.uniform(-0.3, 0.3, round(seconds * SAMPLE_RATE))
        ending = ("wav", "flac", "ogg", "mp3")[i % 4]
        soundfile.write(folder / f"{i:03}.{ending}", samples, SAMPLE_RATE)
    return folder


def rows_of(output: Path) -> np.ndarray:
    """(r, d) embeddings; none if there is no output."""
    if not output.exists():
        return np.zeros((0, 1))
    if output.suffix == ".csv":
        with output.open(newline="") as file:
            names, *rows = csv.reader(file)
        return np.array([row[-names[::-1].index("e0") - 1 :] for row in rows], float)
    table = format_of(output).read(output)
    return np.concatenate([block.rows for _, block in table.indexed()])


def lost(output: Path, expected: np.ndarray) -> int:
    """Rows that are missing or differ."""
    rows = rows_of(output)
    if rows.shape != expected.shape:
        return max(1, abs(len(expected) - len(rows)))
    return int((np.abs(rows - expected).max(axis=1) > 1e-5).sum())


# ---------------------------------------------------------------------------------------------
# Trials
# ---------------------------------------------------------------------------------------------
Disturb = Callable[[Line, Path, list[str]], bool]


@functools.cache
def source_of(folder: Path, weights: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """Recordings of the first three trials, and for each kind the rows of an undisturbed run."""
    source, model, rows = make_folder(folder / "source", 12, 100), load_model(str(weights)), {}
    for kind, (_, options) in KINDS.items():
        found = embed_files(source, model, **options)  # type: ignore[arg-type]
        rows[kind] = np.concatenate([np.atleast_2d(record.embedding) for record in found])
    return source, rows


def each_kind(
    name: str, suffix: str, folder: Path, weights: Path, rounds: int, disturb: Disturb
) -> Line:
    """Disturb runs of every kind in turn, let each finish, and look at its rows."""
    line = Line(name)
    source, expected = source_of(folder, weights)
    for number in range(rounds):
        kind = list(KINDS)[number % len(KINDS)]
        tried = line.tried
        output = folder / f"{name.replace(' ', '-')}-{number}{suffix}"
        words = [str(source), "-w", str(weights), *KINDS[kind][0]]
        handled = disturb(line, output, words)
        left = output.with_name(f"{output.name}.partial")
        text, good = "a finished CSV file", True  # which cannot be continued
        if suffix != ".csv" or left.exists() or not output.exists():
            last = Run(output, words)
            good = last.ended(0)
            last.into(line)
            text = last.log.read_text(errors="replace")
        missing = lost(output, expected[kind])
        if handled and good and not missing and not left.exists():
            line.handled += line.tried - tried
        line.lost, line.of = line.lost + missing, line.of + len(expected[kind])
        if missing or not good or not handled:
            print(f"{name}, {kind}, {output}: {text}", flush=True)
    return line


def kill(line: Line, output: Path, words: list[str]) -> bool:
    """Kill a run again and again, at any time of what a whole one takes."""
    goal = line.tried + KILLS_PER_RUN
    for _ in range(4 * KILLS_PER_RUN):
        run, begin = Run(output, words), time.monotonic()
        if run.wait(random.uniform(0, _seconds[0] or 1e9)):  # too late: from the start again
            _seconds[0] = max(_seconds[0], min(10.0, time.monotonic() - begin))
            output.unlink(missing_ok=True) if output.suffix else shutil.rmtree(output, True)
            continue
        run.process.kill()
        run.process.join()
        line.tried += 1
        if line.tried == goal:
            return True
    return False


def fill(line: Line, output: Path, words: list[str]) -> bool:
    """A disk that is full at any moment."""
    line.tried += 1
    run = Run(output, words, limit=int(10 ** random.uniform(3.3, 6)))
    good = run.ended(0, 2)
    return good and (run.process.exitcode == 0 or "cannot be written" in run.log.read_text())


def race(line: Line, output: Path, words: list[str]) -> bool:
    """Two processes on one output."""
    line.tried += 1
    runs = [Run(output, words)]
    time.sleep(random.uniform(0, 1))
    runs.append(Run(output, words, log="second"))
    ended = [run.ended(0, 2) for run in runs]  # waits for both
    refused = [run for run in runs if run.process.exitcode]
    # A CSV file cannot be extended, so it is refused also when the other process has just ended.
    reasons = ("another process is writing", "a CSV file cannot be continued")
    told = all(any(reason in run.log.read_text() for reason in reasons) for run in refused)
    return all(ended) and len(refused) < 2 and told


def mutate(folder: Path, weights: Path, count: int) -> Line:
    """Files of every format with damage; each is in the output or in the list of errors."""
    source = make_folder(folder / "mutated", 8, 4)
    originals = [path.read_bytes() for path in sorted(source.iterdir())]
    for path in source.iterdir():
        path.unlink()
    for i in range(count):
        data = bytearray(originals[i % 8])
        for _ in range(random.choice((1, 1, 3, 20))):
            at = random.randrange(len(data) if random.random() < 0.5 else min(200, len(data)))
            size = random.randrange(1, 2000)
            match random.randrange(4):
                case 0:
                    data[at] ^= 1 << random.randrange(8)
                case 1:
                    del data[at : at + size]
                case 2:
                    data[at : at + size] = bytes(len(data[at : at + size]))
                case 3:
                    data[at:at] = random.randbytes(size)
            data = data or bytearray(1)
        (source / f"{i:04}.{('wav', 'flac', 'ogg', 'mp3')[i % 4]}").write_bytes(data)
    line, output = Line("mutated files", count, of=count), folder / "mutated.parquet"
    run = Run(output, [str(source), "-w", str(weights)])
    good = run.ended(0, 3)
    run.into(line)
    errors = output.with_name(f"{output.name}.errors.csv")
    failed: set[str] = set()
    if errors.exists():
        with errors.open(newline="") as file:
            failed = {row["file"] for row in csv.DictReader(file)}
    found = {str(done.key[0]) for done in format_of(output).read(output).recordings}
    line.handled = len(found | failed) if good and np.isfinite(rows_of(output)).all() else 0
    line.lost = count - len(found | failed)
    return line


def tiny(folder: Path, weights: Path, count: int) -> Line:
    """Very many files of a fifth of a second."""
    source = folder / "tiny"
    source.mkdir()
    generator = np.random.default_rng(0)
    for i in range(count):
        samples = generator.uniform(-0.3, 0.3, SAMPLE_RATE // 5)
        soundfile.write(source / f"{i:05}.wav", samples, SAMPLE_RATE)
    return whole("tiny files", folder / "tiny.parquet", [str(source), "-w", str(weights)], count)


def long(folder: Path, weights: Path, hours: float) -> Line:
    """One long file, with timestamps every 160 ms."""
    path, seconds = folder / "long.wav", round(3600 * hours)
    minute = np.random.default_rng(0).uniform(-0.3, 0.3, 60 * SAMPLE_RATE)
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1) as file:
        for _ in range(seconds // 60):
            file.write(minute)
    words = [str(path), "-w", str(weights), "--timestamps", "--hop-ms", "160"]
    rows = load_model(str(weights), timestamp_hop_ms=160).timeline(True)
    expected = len(rows.timestamps_ms(seconds // 60 * 60 * SAMPLE_RATE))
    return whole(f"{hours:g} h in one file", folder / "long.parquet", words, expected)


def whole(name: str, output: Path, words: list[str], expected: int) -> Line:
    """An undisturbed run that gives so many rows."""
    line, run = Line(name, 1, of=expected), Run(output, words)
    good = run.ended(0)
    run.into(line)
    line.lost = expected - (format_of(output).read(output).total_rows if output.exists() else 0)
    line.handled = int(good and not line.lost)
    return line


def parts_of(folder: Path, weights: Path, quick: bool) -> dict[str, Callable[[], Line]]:
    """The parts of a run, by name."""
    parts: dict[str, Callable[[], Line]] = {}
    disturbances: tuple[tuple[str, int, Disturb], ...] = (
        ("kills", 7, kill),
        ("full disks", 5, fill),
        ("two processes", 3, race),
    )
    for name, rounds, disturb in disturbances:
        for kind, suffix in list(FORMATS.items())[:: 5 if quick else 1]:
            part = f"{name} {kind}"
            how = part, suffix, folder, weights, 1 if quick else rounds, disturb
            parts[part] = functools.partial(each_kind, *how)
    parts["mutated files"] = lambda: mutate(folder, weights, 40 if quick else 1000)
    parts["tiny files"] = lambda: tiny(folder, weights, 200 if quick else 20_000)
    parts["long file"] = lambda: long(folder, weights, 0.1 if quick else 10.0)
    return parts


def main() -> None:
    """Measure, print the table, and write it when all parts are there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="a small part, in less than a minute")
    parser.add_argument("--only", nargs="*", help="some parts, by the beginning of their names")
    parser.add_argument("--parts", type=Path, help="file that keeps finished parts")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    _context.set_forkserver_preload(["hear_msm_mae.cli", "hear_msm_mae.api"])
    known = arguments.parts is not None and arguments.parts.exists()
    text = arguments.parts.read_text() if known else "{}"
    done = {name: Line(**values) for name, values in json.loads(text).items()}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        weights = folder / "random.safetensors"
        save_checkpoint(weights, Checkpoint(CONFIG, state_tensors(Encoder(CONFIG))))
        parts = parts_of(folder, weights, arguments.quick)
        for name, part in parts.items():
            if name in done or not name.startswith(tuple(arguments.only or [""])):
                continue
            random.seed(f"{arguments.seed} {name}")
            begin = time.monotonic()
            done[name] = part()
            done[name].minutes = (time.monotonic() - begin) / 60
            print(done[name], f"{done[name].minutes:.1f} minutes", flush=True)
            if arguments.parts is not None:
                values = {name: dataclasses.asdict(line) for name, line in done.items()}
                arguments.parts.write_text(json.dumps(values, indent=1))
    head = f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}\n"
    minutes = sum(line.minutes for line in done.values())
    header = f"{measure.machine()}, {minutes:.0f} minutes"
    table = f"{header}\n\n{head}" + "\n".join(str(done[name]) for name in parts if name in done)
    print(f"\n{table}")
    if not arguments.quick and done.keys() >= parts.keys():
        measure.write_section(RESULTS, "endurance", table)
    sys.exit(any(line.lost for line in done.values()))


if __name__ == "__main__":
    main()
