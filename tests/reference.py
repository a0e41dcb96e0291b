"""Independent reference: regenerates the weights and inputs of tests/golden (see its README)."""

from __future__ import annotations

import argparse
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"
MODELS = ("80x208p16x16", "80x208p16x4", "80x304p16x16-nocls")
CLIPS = {"0p50": 8000, "1p07": 17120, "1p98": 31680, "2p08": 33280, "4p00": 64000, "10p0": 160000}
_NORMS = ("norm", "norm1", "norm2", "decoder_norm")


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


def parameter(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Seeded noise of one parameter, by the rule in golden/README.md."""
    key = zlib.crc32(name.encode("utf-8"))
    generator = np.random.Generator(np.random.Philox(key=key))
    noise = np.float32(0.02) * generator.standard_normal(shape, dtype=np.float32)
    components = name.split(".")
    if components[-1] == "weight" and len(components) > 1 and components[-2] in _NORMS:
        return np.float32(1) + noise
    return noise


def state_dict(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """The seeded state dictionary of one golden file, checked against its fingerprint."""
    state = {}
    rows = zip(arrays["param_names"], arrays["param_shapes"], arrays["param_sum"], strict=True)
    for name, shape_text, total in rows:
        shape = tuple(int(size) for size in str(shape_text).split("x"))
        if name in ("pos_embed", "decoder_pos_embed"):
            value = table(str(name), shape, arrays)
        else:
            value = parameter(str(name), shape)
            np.testing.assert_allclose(value.sum(dtype=np.float64), total, rtol=1e-9, atol=1e-9)
        state[str(name)] = torch.from_numpy(value)
    return state


def table(name: str, shape: tuple[int, ...], arrays: dict[str, np.ndarray]) -> np.ndarray:
    """A position table: recorded in full, or written out here by its formula in plain numpy."""
    if name in arrays:
        return arrays[name]
    length, width = shape[-2:]
    values = np.zeros((length, width))
    patches = length - length % 5  # five frequency rows in every golden model
    if name == "pos_embed":
        columns = patches // 5
        quarter = width // 4
        omega = 10000.0 ** (-np.arange(quarter) / quarter)
        for index in range(patches):
            row, column = divmod(index, columns)
            angles = np.concatenate([column * omega, row * omega]).reshape(2, quarter)
            both = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
            values[length - patches + index] = both.reshape(-1)
    else:
        omega = 10000.0 ** (-np.arange(0, width, 2) / width)
        angles = np.outer(np.arange(patches), omega)
        values[-patches:, 0::2] = np.sin(angles)
        values[-patches:, 1::2] = np.cos(angles)
    return values.reshape(shape).astype(np.float32)


def audio(tag_or_samples: str | int) -> Tensor:
    """The three seeded clips, (3, n) float32, at 16 kHz."""
    return signals(CLIPS[tag_or_samples] if isinstance(tag_or_samples, str) else tag_or_samples)


def signals(n: int, rate: int = 16000) -> Tensor:
    """The three seeded clips of n samples at any rate, (3, n) float32."""
    t = np.arange(n) / rate
    duration = n / rate

    def noise(key: int) -> np.ndarray:
        return np.random.Generator(np.random.Philox(key=key)).standard_normal(n)

    clips = np.empty((3, n))
    chirp = 2 * np.pi * (100 * t + 0.5 * (7000 - 100) / duration * t * t)
    clips[0] = 0.5 * np.sin(chirp) + 0.01 * noise(1001)
    beat = 0.5 + 0.5 * np.sin(2 * np.pi * 3 * t)
    clips[1] = 0.3 * np.sin(2 * np.pi * 440 * t) * beat + 0.002 * noise(1002)
    clips[2] = 0.05 * noise(1003)
    clips[2][n // 2] += 0.8
    return torch.from_numpy(clips.astype(np.float32))


def write_pickle(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """The seeded model as the `.pth` file that the reference's training would have left."""
    namespace = argparse.Namespace(model="mae_vit_base", lr=1e-4, output_dir="out")
    torch.save({"model": state_dict(arrays), "epoch": 99, "args": namespace}, path)
    return path


def assert_matches(
    actual: Tensor | np.ndarray,
    arrays: dict[str, np.ndarray],
    name: str,
    atol: float = 1e-4,
    relative_l2: float | None = 1e-5,
) -> None:
    """Compare with a recorded array, full or compact (every 37th value and the shape)."""
    values = np.asarray(actual)
    if name in arrays:
        expected = arrays[name]
        assert values.shape == expected.shape, name
    else:
        assert values.shape == tuple(arrays[f"{name}__shape"]), name
        mean, std = arrays[f"{name}__stat"]
        np.testing.assert_allclose(values.mean(dtype=np.float64), mean, atol=1e-5)
        np.testing.assert_allclose(values.std(dtype=np.float64), std, rtol=1e-5)
        values, expected = values.reshape(-1)[::37], arrays[f"{name}__s37"]
    np.testing.assert_allclose(values, expected, rtol=0, atol=atol, err_msg=name)
    if relative_l2 is not None:
        difference = np.linalg.norm((values - expected).astype(np.float64))
        assert difference < relative_l2 * np.linalg.norm(expected.astype(np.float64)), name
