"""sentence-transformers over this package: every kind of input, similarity, saving and loading."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import offline  # noqa: F401
import pytest
import soundfile
import torch
from safetensors.torch import save_file
from small_models import SIZES, small_model

from hear_msm_mae import get_scene_embeddings, load_model
from hear_msm_mae.audio import read_audio
from hear_msm_mae.config import ModelConfig

REASON = "pip install 'hear_msm_mae[sentence-transformers]'"
sentence_transformers = pytest.importorskip(
    "sentence_transformers", minversion="5.4", reason=REASON
)
from sentence_transformers import SentenceTransformer  # noqa: E402

from hear_msm_mae.sentence_transformers import Audio  # noqa: E402

CONFIG = ModelConfig(**SIZES, layer=0, embedding_scale=0.5, scene_pooling="mean+std")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("st")
    return small_model(CONFIG).save_pretrained(root / "model", transformers=True)


@pytest.fixture(scope="module")
def sentence_model(folder) -> SentenceTransformer:
    return load(folder)


def load(folder: Path, **options) -> SentenceTransformer:
    return SentenceTransformer(str(folder), trust_remote_code=True, device="cpu", **options)


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> list[str]:
    root = tmp_path_factory.mktemp("recordings")
    noise = np.random.default_rng(0)
    for i, (rate, seconds, channels) in enumerate([(16_000, 3, 1), (44_100, 1, 2), (8_000, 2, 1)]):
        samples = 0.1 * noise.standard_normal((rate * seconds, channels))
        soundfile.write(root / f"{i}.flac", samples, rate)
    return [str(path) for path in sorted(root.iterdir())]


def expected(waveforms: list[np.ndarray], **options) -> np.ndarray:
    model = small_model(CONFIG, **options)
    rows = [get_scene_embeddings(waveform[None], model) for waveform in waveforms]
    return torch.cat(rows).numpy()


def test_files_of_any_rate_length_and_number_of_channels(sentence_model, paths):
    scenes = expected([read_audio(path) for path in paths])
    found = sentence_model.encode(paths, batch_size=2)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, scenes, rtol=0, atol=1e-5)
    assert sentence_model.get_embedding_dimension() == scenes.shape[1]
    np.testing.assert_array_equal(sentence_model.encode(paths[0]), found[0])
    unit = scenes / np.linalg.norm(scenes, axis=1, keepdims=True)
    similarity = sentence_model.similarity(found, found)
    np.testing.assert_allclose(similarity, unit @ unit.T, rtol=0, atol=1e-5)


def test_recordings_in_memory(sentence_model, paths):
    samples, rate = soundfile.read(paths[1], dtype="float32")
    waveform = read_audio(paths[0])
    inputs = [
        waveform,
        torch.from_numpy(waveform),
        np.stack([waveform, waveform]),  # (channels, n)
        {"array": waveform, "sampling_rate": 16_000},
        {"array": samples.T, "sampling_rate": rate},
    ]
    scenes = expected([waveform, waveform, waveform, waveform, read_audio(paths[1])])
    np.testing.assert_allclose(sentence_model.encode(inputs), scenes, rtol=0, atol=1e-5)


def test_audio_decoders(sentence_model, paths):
    reason = "pip install torchcodec, and FFmpeg"
    decoders = pytest.importorskip("torchcodec.decoders", reason=reason, exc_type=Exception)
    found = sentence_model.encode([decoders.AudioDecoder(path) for path in paths])
    scenes = expected([read_audio(path) for path in paths])
    np.testing.assert_allclose(found, scenes, rtol=0, atol=1e-4)


def test_saving_keeps_the_options(folder, paths, tmp_path):
    chosen = {"layer": [0, 1], "scene_pooling": "mean", "timestamp_hop_ms": 80}
    scenes = expected([read_audio(path) for path in paths], **chosen)
    model = load(folder, model_kwargs=chosen)
    np.testing.assert_allclose(model.encode(paths), scenes, rtol=0, atol=1e-5)
    model.save(str(tmp_path / "saved"))
    again = load(tmp_path / "saved")
    np.testing.assert_array_equal(again.encode(paths), model.encode(paths))
    assert again[0].model.options == model[0].model.options
    assert load_model(tmp_path / "saved").config == CONFIG
    names = [m["type"] for m in json.loads((tmp_path / "saved" / "modules.json").read_text())]
    assert names == ["hear_msm_mae.sentence_transformers.Audio"]
    load(folder).save(str(tmp_path / "plain"))
    assert load(tmp_path / "plain")[0].model.options == small_model(CONFIG).options


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "paper", "normalization": "stored"},
        {"mode": "m2d"},
        {"normalization": (-6.0, 3.0)},
        {"precision": "bfloat16", "layer": -2},
    ],
)
def test_every_option_survives(options, tmp_path):
    before = Audio(small_model(CONFIG, **options))
    before.save(str(tmp_path))
    after = Audio.load(str(tmp_path)).model
    features = {"waveforms": [torch.linspace(-0.5, 0.5, 40_000)]}
    with torch.no_grad():
        first = before(dict(features))["sentence_embedding"]
        again = Audio(after)(dict(features))["sentence_embedding"]
    torch.testing.assert_close(again, first, rtol=0, atol=1e-5)
    assert after.options.mode == before.model.options.mode


def test_a_model_can_be_trained_through_it(sentence_model):
    waveforms = [np.float32(np.sin(np.arange(n) / 9)) for n in (20_000, 3_000)]
    features = sentence_model.preprocess(waveforms)
    sentence_model(features)["sentence_embedding"].square().sum().backward()
    assert sentence_model[0].model.encoder.patch_embed.weight.grad.abs().sum() > 0
    sentence_model.zero_grad()


def test_refusals(sentence_model, folder, tmp_path):
    if int(sentence_transformers.__version__.split(".")[0]) >= 6:  # before, folders were trusted
        with pytest.raises(ValueError, match=r"trust_remote_code=True"):
            SentenceTransformer(str(folder), device="cpu")
    with pytest.raises(ValueError, match="'text' is not supported"):
        sentence_model.encode(["a sentence"])
    with pytest.raises(ValueError, match="takes no prompt"):
        sentence_model.encode([np.zeros(100, np.float32)], prompt="query: ")
    with pytest.raises(ValueError, match="input 0: holds no audio samples"):
        sentence_model.encode([np.zeros(0, np.float32)])
    with pytest.raises(TypeError, match="input 0: samples must be floating point"):
        sentence_model.encode([np.zeros(10, np.int16)])
    batch = Audio(small_model(CONFIG, mode="paper"))
    with pytest.raises(ValueError, match="load it with normalization='stored'"):
        batch({"waveforms": [torch.zeros(1000)]})
    save_file({"weight": torch.zeros(3)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="file of another architecture"):
        Audio.load(str(tmp_path))


def test_the_missing_library_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "hear_msm_mae.sentence_transformers")
    monkeypatch.setitem(sys.modules, "sentence_transformers.base.modules", None)
    message = re.escape("pip install 'hear_msm_mae[sentence-transformers]'")
    with pytest.raises(ImportError, match=message):
        import hear_msm_mae.sentence_transformers  # noqa: F401
