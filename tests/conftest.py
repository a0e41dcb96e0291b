"""Fixtures that several test files share: tiny models, reference checkpoints, clips, a report."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import soundfile
import torch
from filelock import FileLock
from labelled_sounds import labelled, probed  # noqa: F401  (fixtures)
from reference import MODELS, audio, golden, parameter, write_pickle
from torch import Tensor
from toy_corpus import ToyCorpus, quick
from visual_commands import command, write_odd_clips

from hear_msm_mae import cli, load_model
from hear_msm_mae.checkpoints.foreign import load_any
from hear_msm_mae.checkpoints.native import Checkpoint, save_checkpoint, state_tensors
from hear_msm_mae.config import ModelConfig
from hear_msm_mae.encoder import Encoder
from hear_msm_mae.log_mel import LogMel
from hear_msm_mae.mae import Decoder, MaskedAutoencoder
from hear_msm_mae.model import HearModel
from hear_msm_mae.pretrain import hardware, snapshots
from hear_msm_mae.pretrain.train import pretrain

# So that their failures show values like those of test files do.
pytest.register_assert_rewrite("cli_errors", "embed_rows", "pth_files")

# Shells ignore Ctrl-C for background jobs (`.ci/run &`), and processes inherit that; the tests of
# Ctrl-C need what a terminal gives.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A machine may be slow: no test measures time.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


@dataclasses.dataclass
class Result:
    """What a command of `hear-msm-mae` did."""

    status: int
    out: str
    err: str


Run = Callable[..., Result]
StateMaker = Callable[..., dict[str, Tensor]]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Every device of this machine in turn."""
    return torch.device(request.param)


@pytest.fixture(scope="session")
def tiny_config() -> ModelConfig:
    return ModelConfig(
        width=32, depth=2, heads=2, decoder_width=32, decoder_depth=1, decoder_heads=2
    )


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_config: ModelConfig) -> Checkpoint:
    """Random weights; do not change them."""
    torch.manual_seed(1)
    return Checkpoint(tiny_config, state_tensors(Encoder(tiny_config), Decoder(tiny_config)))


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Checkpoint) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_checkpoint(path, tiny_checkpoint)
    return path


@pytest.fixture(scope="session")
def tiny_model(tiny_file: Path) -> HearModel:
    return load_model(tiny_file)


@pytest.fixture(scope="session", params=MODELS)
def reference_weights(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, np.ndarray]]:
    """(path of the seeded model as .pth, its recorded arrays) for each golden model.

    A file of 0.4 GB is written once for all files of tests, and all workers of pytest-xdist.
    """
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    # The model's name is not in the path, so that it is found from the tensors.
    arrays, path = golden(request.param), folder / f"reference{MODELS.index(request.param)}.pth"
    with FileLock(f"{path}.lock"):
        if not path.is_file():
            write_pickle(path, arrays)
    return path, arrays


@pytest.fixture(scope="session")
def reference_model(
    reference_weights: tuple[Path, dict[str, np.ndarray]],
) -> tuple[MaskedAutoencoder, dict[str, np.ndarray], Tensor]:
    """(masked autoencoder, recorded arrays, first unit of the normalised 10 s batch)."""
    path, arrays = reference_weights
    checkpoint = load_any(path)
    model = MaskedAutoencoder(checkpoint.config).eval()
    checkpoint.load_into(model.encoder)
    checkpoint.load_into(model.decoder, "decoder.")
    log_mel = LogMel().log_mel(audio("10p0"))
    normalised = (log_mel - log_mel.mean()) / log_mel.std()
    return model, arrays, normalised[..., : checkpoint.config.unit_frames]


@pytest.fixture(scope="session")
def reference_state() -> StateMaker:
    """Function that makes a state dictionary in the layout of golden/README.md, of any size."""
    return _reference_state


def _reference_state(
    width: int = 64,
    depth: int = 1,
    patch: tuple[int, int] = (16, 16),
    grid: tuple[int, int] = (5, 13),
    cls: bool = True,
    decoder: str | None = "1d",
    decoder_width: int = 64,
    mlp_ratio: float = 4,
) -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embed.proj.weight": (width, 1, *patch),
        "patch_embed.proj.bias": (width,),
        **({"cls_token": (1, 1, width)} if cls else {}),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    for block in range(depth):
        shapes |= _block_shapes(f"blocks.{block}", width, mlp_ratio)
    if decoder:
        shapes |= {
            "mask_token": (1, 1, decoder_width),
            "decoder_embed.weight": (decoder_width, width),
            "decoder_embed.bias": (decoder_width,),
            **_block_shapes("decoder_blocks.0", decoder_width, mlp_ratio),
            "decoder_norm.weight": (decoder_width,),
            "decoder_norm.bias": (decoder_width,),
            "decoder_pred.weight": (patch[0] * patch[1], decoder_width),
            "decoder_pred.bias": (patch[0] * patch[1],),
        }
    state = {name: torch.from_numpy(parameter(name, shape)) for name, shape in shapes.items()}
    state["pos_embed"] = _with_cls(_table_2d(*grid, width), cls)
    if decoder == "1d":
        state["decoder_pos_embed"] = _with_cls(_table_1d(grid[0] * grid[1], decoder_width), cls)
    elif decoder == "2d":
        state["decoder_pos_embed"] = _with_cls(_table_2d(*grid, decoder_width), cls)
    return state


def _block_shapes(prefix: str, width: int, mlp_ratio: float) -> dict[str, tuple[int, ...]]:
    hidden = round(mlp_ratio * width)
    shapes = {
        "norm1.weight": (width,),
        "norm1.bias": (width,),
        "attn.qkv.weight": (3 * width, width),
        "attn.q_bias": (width,),
        "attn.v_bias": (width,),
        "attn.proj.weight": (width, width),
        "attn.proj.bias": (width,),
        "norm2.weight": (width,),
        "norm2.bias": (width,),
        "mlp.fc1.weight": (hidden, width),
        "mlp.fc1.bias": (hidden,),
        "mlp.fc2.weight": (width, hidden),
        "mlp.fc2.bias": (width,),
    }
    return {f"{prefix}.{name}": shape for name, shape in shapes.items()}


def _table_2d(rows: int, columns: int, width: int) -> np.ndarray:
    """2-D sin-cos table by its formula: sines and cosines of time, then of frequency."""
    omega = 10000.0 ** (-np.arange(width // 4) / (width // 4))
    time = np.tile(np.arange(columns), rows)[:, None] * omega
    frequency = np.repeat(np.arange(rows), columns)[:, None] * omega
    parts = (np.sin(time), np.cos(time), np.sin(frequency), np.cos(frequency))
    return np.concatenate(parts, axis=1)


def _table_1d(length: int, width: int) -> np.ndarray:
    """Sinusoids over the index, sines and cosines interleaved."""
    angles = np.arange(length)[:, None] * 10000.0 ** (-np.arange(0, width, 2) / width)
    table = np.empty((length, width))
    table[:, 0::2], table[:, 1::2] = np.sin(angles), np.cos(angles)
    return table


def _with_cls(table: np.ndarray, cls: bool) -> Tensor:
    padded = np.pad(table, ((int(cls), 0), (0, 0)))
    return torch.from_numpy(padded[None].astype(np.float32))


@pytest.fixture
def state(reference_state: StateMaker) -> dict[str, Tensor]:
    """The state dictionary that `reference_state` makes if nothing else is asked for."""
    return reference_state()


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Function that writes an object with torch.save and returns the path."""

    def save(content: Any, name: str = "checkpoint.pth", **how: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, path, **how)
        return path

    return save


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Ten files of 0.5 to 5 s, one of them in a sub-folder."""
    folder = tmp_path / "recordings"
    (folder / "sub").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for i in range(10):
        samples = generator.uniform(-0.3, 0.3, 8000 * (i + 1))
        soundfile.write(folder / ("sub" if i == 9 else "") / f"{i}.wav", samples, 16000)
    return folder


@pytest.fixture(scope="session")
def report_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Odd clips, and files that are no audio; do not change them."""
    folder = tmp_path_factory.mktemp("in") / "my sounds"
    write_odd_clips(folder)
    return folder


@pytest.fixture(scope="session")
def report_page(
    report_folder: Path, tiny_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The report of that folder."""
    path = tmp_path_factory.mktemp("out") / "report.html"
    result = command("report", report_folder, "-o", path, "-w", tiny_file)
    assert result.exit_code == 3, result.output
    assert "11 of 13 files" in result.output
    assert re.search(r"could not read \S*my sounds/broken <b>\.wav: cannot be read", result.output)
    return path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Function that runs `hear-msm-mae` with arguments."""
    monkeypatch.setenv("COLUMNS", "200")  # rich breaks lines to the terminal
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["hear-msm-mae", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        captured = capsys.readouterr()
        return Result(exit_.value.code or 0, captured.out, captured.err)

    root = logging.getLogger()
    level = root.level
    yield run
    root.setLevel(level)


# ---------------------------------------------------------------------------------------------
# Pretraining runs
# ---------------------------------------------------------------------------------------------
@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """A run of 12 steps with checkpoints at 4, 8 and 12; only to be read."""
    folder = tmp_path_factory.mktemp("finished")
    peak_size, hardware.PEAK_SIZE = hardware.PEAK_SIZE, 64
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pretrain(quick(folder, checkpoint_steps=4), corpus=ToyCorpus())
    torch.set_num_threads(threads)
    hardware.PEAK_SIZE = peak_size
    return folder


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    """A copy of it in which the newest checkpoint is that of step 8."""
    shutil.copytree(finished, tmp_path / "run")
    snapshots.checkpoints(tmp_path / "run")[0].unlink()
    return tmp_path / "run"


@pytest.fixture
def small_and_alone(monkeypatch) -> Iterator[None]:
    """One thread, and a peak that is measured in no time."""
    monkeypatch.setattr(hardware, "PEAK_SIZE", 64)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
