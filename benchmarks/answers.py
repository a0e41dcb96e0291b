"""Classifiers on real recordings: probe, fine-tuning, labels for others, and copies.

    python -m benchmarks.answers [--sources scratch lmms] [--finetune scratch] [--write]

The recordings are those of evaluation sources (`benchmarks/evaluation`), labelled by their folders.
Every command runs in a new process; scores are read from the `labels.json` that it writes. Copies
are made by libsndfile from recordings of the first source.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

import hear_msm_mae
from benchmarks import measure
from benchmarks.evaluation.sources import source_folder
from hear_msm_mae.audio import find_audio, read_audio
from hear_msm_mae.config import SAMPLE_RATE

RESULTS = Path(__file__).parent / "RESULTS.md"
READ = (0, 3)  # exit statuses: some sources hold files that nothing reads
MINUTES = (5, 30)  # of audio that is labelled
COPIED = 50
COPIES = ("as FLAC", "half the amplitude", "Ogg Vorbis", "MP3")
LIMITS = (0.90, 0.95, 0.98)


def table(rows: list[dict[str, object]]) -> list[str]:
    """Rows with the same columns as lines."""
    names = list(rows[0])
    cells = [[str(row[name]) for name in names] for row in rows]
    lines = [names, ["---"] * len(names), *cells]
    return [f"| {' | '.join(line)} |" for line in lines] + [""]


def cost_of(*words: object) -> dict[str, str]:
    """Time and memory of a command."""
    wall, processor, peak = measure.new_process(["-m", "hear_msm_mae", *words], READ)
    cost = {"wall s": f"{wall:.1f}", "CPU s": f"{processor:.1f}", "peak MB": f"{peak:.0f}"}
    print(words[0], cost, flush=True)
    return cost


def classifiers(sources: list[str], folder: Path, finetune: list[str]) -> list[str]:
    """Scores, time and memory of `probe` and `finetune`."""
    found: list[dict[str, object]] = []
    costs: list[dict[str, object]] = []
    for name in sources:
        recordings = source_folder(name)
        runs = {"probe, first run": "probe", "probe, second run": "probe"}
        if name in finetune:
            runs["finetune"] = "finetune"
        for run, command in runs.items():
            out = folder / f"{name}-{command}"
            cost = cost_of(command, recordings, "--out", out)
            costs.append({"source": name, "command": run, **cost})
            if run == "probe, second run":
                continue
            about = json.loads((out / "labels.json").read_text())
            tested = "five folds" if command == "probe" else "the first of five folds"
            head = {"source": name, "command": command, "recordings": about["recordings"]}
            head |= {"labels": len(about["labels"]), "tested on": tested}
            for method, scores in about["scores"].items():
                for x in scores:
                    value = f"{x['value']:.3f} ({x['low']:.3f} to {x['high']:.3f})"
                    found.append({**head, "score": f"{method}, {x['name']}", "value": value})
    return [*table(found), *table(costs)]


def labelling(head: Path, recordings: Path, folder: Path) -> list[str]:
    """Time and memory of `predict` in windows of 2 s by the length of a recording."""
    paths = find_audio([recordings])
    rows = []
    for minutes in MINUTES:
        path = folder / f"{minutes}.wav"
        with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1) as file:
            for source in itertools.cycle(paths):
                try:
                    file.write(read_audio(source))
                except ValueError:
                    continue
                if file.tell() >= 60 * minutes * SAMPLE_RATE:
                    break
        options = ("--segment", 2, "--events", folder / "events.csv")
        cost = cost_of("predict", head, path, "-o", folder / f"{minutes}.csv", *options)
        rows.append({"minutes": minutes, **cost})
    return table(rows)


def copies(recordings: Path, folder: Path) -> list[str]:
    """Shares of copies that are at least so similar to their original, and what others reach."""
    sounds = folder / "copies"
    endings = ("flac", "half.wav", "ogg", "mp3")
    for made in (sounds / "originals", *(sounds / ending for ending in endings)):
        made.mkdir(parents=True)
    kept = 0
    for source in find_audio([recordings]):
        try:
            wave = read_audio(source)
        except ValueError:
            continue
        if not SAMPLE_RATE <= len(wave) <= 10 * SAMPLE_RATE:
            continue
        soundfile.write(sounds / "originals" / f"{kept}.wav", wave, SAMPLE_RATE)
        for ending in endings:
            scale = 0.5 if ending == "half.wav" else 1.0
            soundfile.write(sounds / ending / f"{kept}.{ending}", scale * wave, SAMPLE_RATE)
        kept += 1
        if kept == COPIED:
            break
    index = folder / "copies.npz"
    hear_msm_mae.index(sounds, index, segment=None)
    pairs = hear_msm_mae.duplicates(index, 0.5)

    def key(file: str) -> tuple[str, str]:
        path = Path(file)
        return path.parent.name, path.name.split(".")[0]

    best = {ending: np.zeros(kept) for ending in endings}
    others = 0.0
    for pair in pairs:
        (a, first), (b, second) = key(pair.file), key(pair.other_file)
        if first == second and "originals" in (a, b):
            best[b if a == "originals" else a][int(first)] = pair.similarity
        elif first != second and {a, b} == {"originals"}:
            others = max(others, pair.similarity)
    rows: list[dict[str, object]] = [
        {"copy": name, **{f"at least {x:.2f}": f"{(best[ending] >= x).mean():.0%}" for x in LIMITS}}
        for name, ending in zip(COPIES, endings, strict=True)
    ]
    text = f"Copies of {kept} recordings; the most similar two different ones have {others:.2f}."
    return [text, "", *table(rows)]


def main() -> None:
    """Measure, print the table, and write it where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sources", nargs="+", default=["scratch", "lmms"])
    parser.add_argument("--finetune", nargs="*", default=["scratch"], help="sources, or none")
    parser.add_argument("--write", action="store_true", help=f"into {RESULTS.name}")
    given = parser.parse_args()
    lines: list[Any] = [f"Bundled weights; {measure.machine()}", ""]
    with tempfile.TemporaryDirectory() as name:
        folder, first = Path(name), source_folder(given.sources[0])
        lines += classifiers(given.sources, folder, given.finetune)
        lines += ["`predict` in windows of 2 s:", ""]
        lines += labelling(folder / f"{given.sources[0]}-probe", first, folder)
        lines += copies(first, folder)
    print("\n".join(lines))
    if given.write:
        measure.write_section(RESULTS, "probe", "\n".join(lines))


if __name__ == "__main__":
    main()
