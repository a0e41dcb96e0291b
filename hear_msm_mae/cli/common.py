"""What the commands share: options, exit statuses, lines on the terminal, Ctrl-C, models.

Command modules import nothing heavy at their top: `hear-msm-mae --help` imports all of them.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..files import for_terminal

if TYPE_CHECKING:
    from torch import Tensor

    from ..model import HearModel

EXIT_BAD_INPUT = 2  # nothing was done
EXIT_SOME_FAILED = 3  # some files could not be read; the others were done
EXIT_INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended
CLIP_SECONDS = 10.0

Weights = Annotated[
    str,
    typer.Option("--weights", "-w", help="File, folder or hf://user/repo; the bundled weights."),
]
MadeWith = Annotated[
    str,
    typer.Option(
        "--weights",
        "-w",
        help="Where the weights are now that it was made with.",
        show_default="where they were",
    ),
]
Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, ...")]
Seed = Annotated[int, typer.Option(help="Decides which patches are hidden.")]
Seconds = Annotated[float, typer.Option(help="Length of the stretch, at most.")]
Start = Annotated[float, typer.Option(help="Where in the file to begin, in seconds.")]
Picture = Annotated[Path, typer.Option("--output", "-o", help="File to write, .png.")]


def say(line: str) -> None:
    """Print one line to standard output; what could act on the terminal is escaped."""
    print(for_terminal(line))


def complain(line: str) -> None:
    """Print one line to standard error; what could act on the terminal is escaped."""
    print(for_terminal(line), file=sys.stderr)


@contextmanager
def starting() -> Iterator[None]:
    """Ctrl-C in the block ends the process at once with EXIT_INTERRUPTED.

    For imports and the loading of a model, before anything is written. An exception that is raised
    there may land in C++ code of torch, which turns it into another error or swallows it.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(*_: object) -> None:
    os.write(2, b"interrupted\n")  # sys.stderr may be in the middle of a write
    os._exit(EXIT_INTERRUPTED)


def load(weights: str, device: str | None = None, **options: Any) -> HearModel:
    """The model of the options `--weights` and `--device`; called within `starting`.

    Args:
        weights: see `hear_msm_mae.load_model`.
        device: where to put the model; by default it stays on the CPU.
        options: of `load_model`.

    Raises:
        ValueError: there is no such device here, or see `load_model`.
    """
    from ..api import load_model

    return load_model(weights, device=device, **options)


def load_clip(
    audio: Path, start: float, seconds: float, weights: str, device: str
) -> tuple[HearModel, Tensor, Tensor]:
    """The model, a stretch of a file (n,), and its spectrogram (f, t) on the CPU."""
    if not seconds > 0:
        raise ValueError(f"--seconds must be positive, got {seconds}")
    with starting():
        import torch

        from ..audio import read_audio
        from ..visualize.clip import spectrogram

        model = load(weights, device)
        samples = read_audio(audio, start, start + seconds, sample_rate=model.sample_rate)
        waveform = torch.from_numpy(samples)
    return model, waveform, spectrogram(model, waveform).cpu()


def require_suffix(option: str, path: Path, suffix: str) -> None:
    """Refuse a file name of another kind before any work is done.

    Raises:
        ValueError: the name of the file ends differently.
    """
    if path.suffix.lower() != suffix:
        raise ValueError(f"{option} must end in {suffix}, got {str(path)!r}")
