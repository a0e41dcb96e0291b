"""Folders for Transformers: without this package in a new process, and with it registered."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import offline  # noqa: F401
import pytest
import torch
from fake_hub import fake_hub
from small_models import SIZES, small_model
from torch.nn.utils.rnn import pad_sequence

from hear_msm_mae import get_scene_embeddings, get_timestamp_embeddings, load_model
from hear_msm_mae.config import ModelConfig

REASON = "pip install 'hear_msm_mae[transformers]'"
transformers = pytest.importorskip("transformers", minversion="4.57", reason=REASON)

CONFIGS = {
    "plain": ModelConfig(**SIZES),
    "spread": ModelConfig(**SIZES, scene_pooling="mean+std", layer=0, embedding_scale=0.5),
    "tall": ModelConfig(**SIZES, patch_mels=80, patch_frames=4, unit_frames=64, cls_token=False),
    "wide": ModelConfig(**SIZES, sample_rate=32_000, patch_mels=8, norm_mean=-5.0, norm_std=3.0),
}
# 3 units, a unit of one patch fewer, one patch, fewer samples than a window.
LENGTHS = (80_000, 31_111, 2_000, 300)


def clips() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [0.2 * torch.randn(n, generator=generator) for n in LENGTHS]


def padded() -> tuple[torch.Tensor, torch.Tensor]:
    """A batch, with large values where it is padded, and its mask."""
    values = pad_sequence(clips(), batch_first=True, padding_value=5.0)
    mask = torch.arange(values.shape[1]) < torch.tensor(LENGTHS)[:, None]
    return values, mask.long()


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("transformers")
    return {
        name: small_model(config).save_pretrained(root / name, transformers=True)
        for name, config in CONFIGS.items()
    }


@pytest.fixture(scope="module", autouse=True)
def registered():
    import hear_msm_mae.transformers as ours

    return ours


def auto(folder: Path, **options):
    return transformers.AutoModel.from_pretrained(folder, **options)


def check(name: str, output, atol: float = 1e-5) -> None:
    """Compare with what the HEAR functions give for each clip alone."""
    model = small_model(CONFIGS[name])
    for i, clip in enumerate(clips()):
        scene = get_scene_embeddings(clip[None], model)[0]
        frames, timestamps = get_timestamp_embeddings(clip[None], model)
        t = frames.shape[1]
        np.testing.assert_allclose(output["pooler_output"][i], scene, rtol=0, atol=atol)
        np.testing.assert_allclose(output["last_hidden_state"][i, :t], frames[0], rtol=0, atol=atol)
        np.testing.assert_array_equal(output["timestamps"][i, :t], timestamps[0])
        np.testing.assert_array_equal(output["frame_mask"][i].nonzero()[0], np.arange(t))
        assert not output["last_hidden_state"][i, t:].any()


def as_arrays(output) -> dict[str, np.ndarray]:
    return {name: value.detach().cpu().numpy() for name, value in output.items()}


# ---------------------------------------------------------------------------------------------
# Without this package
# ---------------------------------------------------------------------------------------------
ALONE = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hear_msm_mae":
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Blocked())
import numpy as np, torch
from transformers import AutoFeatureExtractor, AutoModel

arrays = np.load("clips.npz")
clips = [arrays[name] for name in arrays.files]
for number, folder in enumerate(sys.argv[1:]):
    extractor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True)
    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    assert type(model).__module__.startswith("transformers_modules."), type(model)
    inputs = extractor(clips, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    with torch.no_grad():
        output = model(**inputs)
    np.savez(f"{number}.npz", **{k: v.numpy() for k, v in output.items()})
model.save_pretrained("again")  # copies the code
with torch.no_grad():
    again = AutoModel.from_pretrained("again", trust_remote_code=True)(**inputs)
assert torch.equal(again.pooler_output, output.pooler_output)
assert "hear_msm_mae" not in sys.modules
"""


def test_folders_and_repositories_work_without_this_package(folders, tmp_path):
    np.savez(tmp_path / "clips.npz", *[clip.numpy() for clip in clips()])
    away = ("PYTHONPATH", "HF_HUB_OFFLINE")
    env = {name: value for name, value in os.environ.items() if name not in away}
    with fake_hub() as (endpoint, repos, _):
        repos["user/spread"] = {p.name: p.read_bytes() for p in folders["spread"].iterdir()}
        sources = [*map(str, folders.values()), "user/spread"]
        result = subprocess.run(
            [sys.executable, "-c", ALONE, *sources],
            cwd=tmp_path,
            env=env | {"HF_ENDPOINT": endpoint, "no_proxy": "127.0.0.1"},
            capture_output=True,
            text=True,
        )
    assert result.returncode == 0, result.stderr
    for number, source in enumerate(sources):
        check(Path(source).name, np.load(tmp_path / f"{number}.npz"))


def test_the_folder_holds_all_files_that_its_code_needs(folders):
    from transformers.dynamic_module_utils import get_imports, get_relative_imports

    folder = folders["plain"]
    modeling = folder / "modeling_msm_mae.py"
    # By itself: early versions of Transformers 5 do not look into the files that it imports.
    files = {f"{name}.py" for name in get_relative_imports(modeling)}
    assert files | {modeling.name} == {path.name for path in folder.glob("*.py")}
    # Transformers names those that are missing of what the first file imports.
    packages = {name for path in folder.glob("*.py") for name in get_imports(path)}
    assert packages - sys.stdlib_module_names == {"einops", "numpy", "torch", "transformers"}
    assert packages - sys.stdlib_module_names <= set(get_imports(modeling))


def test_load_model_takes_the_same_folder(folders):
    for name, folder in folders.items():
        again = load_model(folder)
        assert again.config == CONFIGS[name]
        expected = get_scene_embeddings(clips()[1][None], small_model(CONFIGS[name]))
        assert torch.equal(get_scene_embeddings(clips()[1][None], again), expected)


# ---------------------------------------------------------------------------------------------
# With it, no remote code
# ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", CONFIGS)
def test_a_padded_clip_has_the_embeddings_that_it_has_alone(name, folders, registered, device):
    model = auto(folders[name]).to(device)
    assert type(model) is registered.MsmMaeModel
    values, mask = (tensor.to(device) for tensor in padded())
    with torch.no_grad():
        check(name, as_arrays(model(values, mask)))
        left = model(values.flip(1), mask.flip(1)).pooler_output  # padding in front
        alone = [model(clip.to(device).flip(0)[None]).pooler_output[0] for clip in clips()]
    torch.testing.assert_close(left, torch.stack(alone), rtol=0, atol=1e-5)


def test_the_feature_extractor_pads_and_masks(folders):
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folders["wide"])
    assert extractor.sampling_rate == 32_000
    inputs = extractor([c.numpy() for c in clips()], sampling_rate=32_000, return_tensors="pt")
    assert set(inputs) == {"input_values", "attention_mask"}
    assert inputs["attention_mask"].sum(1).tolist() == list(LENGTHS)
    for row, clip in zip(inputs["input_values"], clips(), strict=True):
        assert torch.equal(row[: len(clip)], clip)
        assert not row[len(clip) :].any()
    one = extractor(clips()[2], sampling_rate=32_000, return_tensors="np")
    assert one["input_values"].shape == (1, 2_000)


def test_options_of_the_configuration(folders):
    values = clips()[0][None]
    model = auto(folders["plain"], timestamp_hop_ms=160, scene_pooling="mean+std", layer=0)
    expected = small_model(
        CONFIGS["plain"], timestamp_hop_ms=160, scene_pooling="mean+std", layer=0
    )
    with torch.no_grad():
        output = model(values)
        scene_alone = model(values, frames=False)
        as_tuple = model(values, return_dict=False)
    assert torch.equal(output.pooler_output, get_scene_embeddings(values, expected))
    frames, timestamps = get_timestamp_embeddings(values, expected)
    assert torch.equal(output.last_hidden_state, frames)
    assert torch.equal(output.timestamps, timestamps)
    assert model.config.hidden_size == frames.shape[2]
    assert scene_alone.last_hidden_state is None
    assert torch.equal(scene_alone.pooler_output, output.pooler_output)
    assert torch.equal(as_tuple[0], frames)


def test_half_files_are_computed_in_float32_and_bfloat16_is_possible(tmp_path):
    model = small_model(CONFIGS["plain"])
    folder = model.save_pretrained(tmp_path / "half", half=True, transformers=True)
    values = clips()[0][None]
    with torch.no_grad():
        full, half = auto(folder), auto(folder, dtype=torch.bfloat16)
        assert full.dtype == torch.float32
        assert half.dtype == torch.bfloat16
        expected = get_scene_embeddings(values, load_model(folder))
        assert torch.equal(full(values).pooler_output, expected)
        found = half(values).pooler_output
    assert found.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(found, expected).item() > 0.999


def test_fine_tuned_weights_go_back_and_forth(folders, tmp_path):
    model = auto(folders["spread"])
    values, mask = padded()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    model.train()(values, mask).pooler_output.square().sum().backward()
    optimizer.step()
    model.eval().save_pretrained(tmp_path / "theirs")
    model.hear.save_pretrained(tmp_path / "ours", transformers=True)
    before, after = auto(folders["spread"]), auto(tmp_path / "theirs")
    with torch.no_grad():
        expected = model(values, mask).pooler_output
        assert torch.equal(after(values, mask).pooler_output, expected)
        assert not torch.equal(before(values, mask).pooler_output, expected)
        alone = get_scene_embeddings(values[:1], load_model(tmp_path / "ours"))
    torch.testing.assert_close(expected[:1], alone, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match=r"Transformers saved .* model\.hear\.save_pretrained"):
        load_model(tmp_path / "theirs")


def test_new_models_from_a_configuration(folders):
    config = transformers.AutoConfig.from_pretrained(folders["spread"])
    assert config.sizes == CONFIGS["spread"]
    model = transformers.AutoModel.from_config(config)
    with torch.no_grad():
        assert model(clips()[0][None]).pooler_output.isfinite().all()
    expected = small_model(CONFIGS["spread"])
    found = dict(model.hear.named_buffers())
    assert found.keys() == dict(expected.named_buffers()).keys()
    assert all(torch.equal(found[name], b) for name, b in expected.named_buffers())


# ---------------------------------------------------------------------------------------------
# Refused
# ---------------------------------------------------------------------------------------------
def test_other_architectures(folders, registered, tmp_path):
    folder = tmp_path / "bert"
    shutil.copytree(folders["plain"], folder)
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"model_type": "bert"}))
    with pytest.raises(ValueError, match=r"another architecture: the model_type .* 'bert'"):
        registered.MsmMaeModel.from_pretrained(folder)


def test_other_weights(folders, tmp_path):
    from safetensors.torch import save_file

    folder = tmp_path / "other"
    shutil.copytree(folders["plain"], folder)
    save_file({"embeddings.weight": torch.zeros(3)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"weights in .* are of another architecture: they lack"):
        auto(folder)


def test_waveforms_that_are_none(folders):
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folders["plain"])
    message = "sampling_rate is 44100 Hz, but the model takes 16000 Hz; resample"
    with pytest.raises(ValueError, match=message):
        extractor([np.zeros(100)], sampling_rate=44_100)
    with pytest.raises(ValueError, match=r"expected mono waveforms .*\(2, 100\)"):
        extractor([np.zeros((2, 100))], sampling_rate=16_000)
    for clips in ([], [np.zeros(0)], [np.zeros(10, np.int16)]):
        with pytest.raises(ValueError, match=r"expected mono waveforms .* in floating point"):
            extractor(clips, sampling_rate=16_000)
    model = auto(folders["plain"])
    values, mask = padded()
    with pytest.raises(ValueError, match="at least one sample in each"):
        model(values, mask * torch.tensor([1, 1, 0, 1])[:, None])
    with pytest.raises(ValueError, match=r"attention_mask must have the shape of input_values"):
        model(values, mask[:, :-1])
    with pytest.raises(ValueError, match=r"NaN or Inf in clip\(s\) \[0\]"):
        model(values * torch.tensor([torch.nan, 1, 1, 1])[:, None])


def test_impossible_options(folders):
    with pytest.raises(ValueError, match=r"timestamp_hop_ms of .* must be one of .* got 30"):
        auto(folders["plain"], timestamp_hop_ms=30)
    with pytest.raises(ValueError, match="scene_pooling must be one of"):
        auto(folders["plain"], scene_pooling="max")


def test_the_missing_library_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "hear_msm_mae.transformers")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'hear_msm_mae[transformers]'")):
        import hear_msm_mae.transformers  # noqa: F401
