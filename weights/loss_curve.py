"""Draw the loss of pretraining runs, one after the other, for the model card.

    python -m weights.loss_curve OUT.png RUN[=CROPS_BEFORE] ...

Reads the TensorBoard files of the run folders: the loss of the training crops, smoothed, and that
of the held-out ones at every checkpoint. CROPS_BEFORE is what the weights had seen when the run
began. Needs the extra `pretrain`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hear_msm_mae.files import replacing
from hear_msm_mae.pretrain import scalars
from hear_msm_mae.pretrain.parsing import load_recipe

TRAINING, HELD_OUT = "loss", "held_out/loss"
SMOOTHING_POINTS = 15  # running mean of the training loss


def curve(run_dir: Path, tag: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a scalar.

    Raises:
        ValueError: the run has no such scalar.
    """
    values = scalars.read(run_dir).get(tag)
    if not values:
        raise ValueError(f"no scalar {tag!r} in {run_dir / scalars.FOLDER}; is this a run folder?")
    return np.array(list(values)), np.array(list(values.values()))


def smoothed(values: np.ndarray, points: int) -> np.ndarray:
    """Running mean over so many points, fewer at the ends."""
    window = np.ones(min(points, len(values)))
    counts = np.convolve(np.ones(len(values)), window, mode="same")
    return np.convolve(values, window, mode="same") / counts


def parse_run(text: str) -> tuple[Path, int]:
    """Folder, and crops before it.

    >>> parse_run("runs/second=180000")[1], parse_run("runs/first")[1]
    (180000, 0)
    """
    folder, equals, before = text.rpartition("=")
    return (Path(folder), int(before)) if equals else (Path(text), 0)


def draw(runs: list[tuple[Path, int]], path: Path) -> None:
    """Write the picture; the horizontal axis counts crops, those before each run first."""
    figure = Figure(figsize=(7, 3.5), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axis = figure.subplots()
    for number, (run_dir, before) in enumerate(runs):
        batch = load_recipe(run_dir / "settings.yaml").batch
        labels = ("training crops", "held-out crops") if number == 0 else (None, None)
        steps, values = curve(run_dir, TRAINING)
        crops = (before + steps * batch) / 1000
        axis.plot(crops, smoothed(values, SMOOTHING_POINTS), "C0", label=labels[0], linewidth=1)
        steps, values = curve(run_dir, HELD_OUT)
        axis.plot((before + steps * batch) / 1000, values, "C1o-", label=labels[1])
    axis.set_xlabel("thousand crops")
    axis.set_ylabel("loss on masked patches")
    axis.grid(alpha=0.3)
    axis.legend()
    with replacing(path) as temporary:
        canvas.print_png(str(temporary))


def main(arguments: list[str] | None = None) -> None:
    """Command line.

    Raises:
        SystemExit: with a message, when there is no such run.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("picture", type=Path)
    parser.add_argument("runs", type=parse_run, nargs="+", metavar="RUN[=CROPS_BEFORE]")
    options = parser.parse_args(arguments)
    try:
        draw(options.runs, options.picture)
    except (OSError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
