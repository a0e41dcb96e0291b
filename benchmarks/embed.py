"""End-to-end speed of embedding files, and the share of time that is not spent in the encoder.

    python -m benchmarks.embed [--write]
    python -m benchmarks.embed --files 16 --minutes 1 --base-files 8 --base-minutes 0.5

From the root of the repository. Makes, from the clips in examples/, a folder of 500 files of 1 to
15 s at mixed rates, channels and formats, and one file of an hour; embeds them with the "bundled"
model and a part of them with the "base" one (seeded random weights), which is several times
slower; prints one Markdown table. `--write` puts it into RESULTS.md as well. The second command is
to see that it runs.

Shares are taken within a run, so that a machine that is busy with something else slows both parts
of them down. "Not in the encoder, wall" is the time in which the main thread was not in the
encoder, out of the whole. While it was, readers worked on the other files, and the encoder had
less of the processors: "CPU" is the processor time that decoding, resampling and the front end
take alone, out of all of the run. "One by one" is a loop over the files of the folder with
`get_scene_embeddings`.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch

from benchmarks import measure
from benchmarks.inference import RESULTS, build
from hear_msm_mae import get_scene_embeddings
from hear_msm_mae.audio import find_audio, read_audio
from hear_msm_mae.config import SAMPLE_RATE
from hear_msm_mae.embed.cutting import Resume, cut, make_plan
from hear_msm_mae.embed.run import embed_to
from hear_msm_mae.embed.settings import settings_of
from hear_msm_mae.embed.sources import find_recordings
from hear_msm_mae.model import HearModel

# Rate, channels, ending and libsndfile's subtype.
KINDS = (
    (16000, 1, "wav", "PCM_16"),
    (44100, 2, "flac", "PCM_16"),
    (48000, 2, "ogg", "VORBIS"),
    (44100, 1, "mp3", "MPEG_LAYER_III"),
    (22050, 1, "wav", "PCM_U8"),
    (32000, 2, "wav", "PCM_24"),
    (8000, 1, "flac", "PCM_16"),
    (44100, 2, "wav", "PCM_16"),
)
COLUMNS = (
    "input",
    "model",
    "hours",
    "wall s",
    "x real time",
    "not in the encoder, wall",
    "not in the encoder, CPU",
    "one by one: x slower",
)


# ---------------------------------------------------------------------------------------------
# Inputs
# ---------------------------------------------------------------------------------------------
def make_folder(folder: Path, count: int) -> None:
    """Files of 1 to 15 s, cut from the examples at random places."""
    generator = np.random.default_rng(0)
    source = np.concatenate([read_audio(path) for path in find_audio(["examples"])])
    folder.mkdir(exist_ok=True)
    for i in range(count):
        length = int(generator.uniform(1, 15) * SAMPLE_RATE)
        first = int(generator.integers(len(source) - length))
        rate, channels, ending, subtype = KINDS[i % len(KINDS)]
        write(folder / f"{i:04}.{ending}", source[first : first + length], rate, channels, subtype)


def make_long(path: Path, seconds: int) -> None:
    """One stereo file at 44.1 kHz."""
    source = np.concatenate([read_audio(path) for path in find_audio(["examples"])])
    waveform = np.resize(source, seconds * SAMPLE_RATE)
    write(path, waveform, 44100, 2, "PCM_16")


def write(path: Path, waveform: np.ndarray, rate: int, channels: int, subtype: str) -> None:
    """Write a mono waveform of 16 kHz as a file of another rate and number of channels."""
    samples = soxr.resample(waveform, SAMPLE_RATE, rate, "HQ").clip(-1, 1)
    frames = np.stack([samples] * channels, axis=1)
    soundfile.write(path, frames, rate, subtype=subtype)


# ---------------------------------------------------------------------------------------------
# Measures
# ---------------------------------------------------------------------------------------------
class Clock:
    """Wall time that a model spends in its encoder."""

    def __init__(self, model: HearModel) -> None:
        self.wall = 0.0
        embed_units = model.embed_units

        def timed(spectrogram: torch.Tensor) -> torch.Tensor:
            wall = time.perf_counter()
            try:
                return embed_units(spectrogram)
            finally:
                self.wall += time.perf_counter() - wall

        model.embed_units = timed  # type: ignore[method-assign]


def cpu_seconds() -> float:
    """Processor time of this process, user and system."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def reader_seconds(source: Path, model: HearModel) -> float:
    """Processor time to find, decode, resample and cut everything, and for its log-mel."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    begin = time.process_time()
    plan = make_plan(model, timestamps=False)
    for recording in find_recordings([source]):
        for _, piece in cut(recording, plan, Resume(0, 0)):
            model.frontend(piece.waveform[None])
    torch.set_num_threads(threads)
    return time.process_time() - begin


def one_by_one(source: Path, model: HearModel) -> float:
    """Seconds to embed the files one after the other with the HEAR function."""
    begin = time.perf_counter()
    for path in find_audio([source]):
        get_scene_embeddings(read_audio(path)[None], model)
    return time.perf_counter() - begin


def measure_one(name: str, source: Path, folder: Path, repeats: int) -> str:
    """Row of the table; the fastest repeat counts."""
    model = build(name, "float32")
    settings = settings_of(model, name)
    get_scene_embeddings(np.zeros((1, 16000), np.float32), model)  # the first call is slow
    runs, singly, clock = [], [], Clock(model)
    for i in range(repeats):
        if source.is_dir():  # beside each other, as the machine's speed changes
            singly.append(one_by_one(source, model))
        before, wall, cpu = clock.wall, time.perf_counter(), cpu_seconds()
        summary = embed_to(folder / f"{name}-{source.stem}-{i}.parquet", [source], model, settings)
        wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
        assert summary.done == summary.files, summary.failures
        runs.append((wall, cpu, 1 - (clock.wall - before) / wall, summary.seconds))
    wall, cpu, share, seconds = min(runs)
    cpu_share = reader_seconds(source, model) / cpu
    slower = f"{min(singly) / wall:.2f}" if singly else ""
    values = (
        "one file" if source.is_file() else f"{summary.files} files",
        name,
        f"{seconds / 3600:.2f}",
        f"{wall:.0f}",
        f"{seconds / wall:.0f}",
        f"{share:.1%}",
        f"{cpu_share:.1%}",
        slower,
    )
    return f"| {' | '.join(values)} |"


def main() -> None:
    """Measure, print the table, and write it where that is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--files", type=int, default=500, help="in the folder")
    parser.add_argument("--minutes", type=float, default=60, help="length of the long file")
    parser.add_argument("--base-files", type=int, default=60, help="in the folder for Base")
    parser.add_argument("--base-minutes", type=float, default=6, help="of the long file for Base")
    parser.add_argument("--repeats", type=int, default=1, help="the fastest one counts")
    parser.add_argument("--write", action="store_true", help="write the table into RESULTS.md")
    arguments = parser.parse_args()
    sizes = {
        "bundled": (arguments.files, arguments.minutes),
        "base": (arguments.base_files, arguments.base_minutes),
    }
    header = measure.machine()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model, (files, minutes) in sizes.items():
            sources = folder / f"mixed-{files}", folder / f"{minutes:g}-minutes.wav"
            make_folder(sources[0], files)
            make_long(sources[1], round(60 * minutes))
            for source in sources:
                rows.append(measure_one(model, source, folder, arguments.repeats))
                print(rows[-1], flush=True)
    head = f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}\n"
    text = f"{header}\n\n{head}" + "\n".join(rows)
    print(text)
    if arguments.write:
        measure.write_section(RESULTS, "embed", text)


if __name__ == "__main__":
    main()
