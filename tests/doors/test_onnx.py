"""ONNX files: against torch, against independent float64, through the doors of this package."""

from __future__ import annotations

import dataclasses
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_errors import assert_one_line_error
from pth_files import plain_tokens
from reference import audio
from small_models import SIZES, small_model
from visual_commands import command, tone

from hear_msm_mae import (
    embed_files,
    get_scene_embeddings,
    get_timestamp_embeddings,
    load_model,
)
from hear_msm_mae.checkpoints.native import save_checkpoint
from hear_msm_mae.config import ModelConfig
from hear_msm_mae.embed.settings import fingerprint
from hear_msm_mae.visualize.clip import attention_map, masked_autoencoder

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from hear_msm_mae.onnx_export import export_onnx  # noqa: E402

# An inner block, and a factor that is no power of two.
CONFIG = ModelConfig(**SIZES, layer=0, embedding_scale=0.3, norm_mean=-8.0, norm_std=4.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("onnx")


@pytest.fixture(scope="module")
def torch_model(folder):
    """The small model, from a file, as both doors begin with one."""
    path = folder / "small.safetensors"
    save_checkpoint(path, small_model(CONFIG).checkpoint())
    return load_model(path)


@pytest.fixture(scope="module")
def int8_by_command(folder, torch_model):
    """The 8-bit file and a front end, and what the command that wrote them did."""
    files = folder / "int8.onnx", folder / "log_mel.onnx"
    return *files, command(
        "export-onnx", folder / "small.safetensors", files[0], "--int8", "--log-mel", files[1]
    )


@pytest.fixture(scope="module")
def files(folder, torch_model, int8_by_command) -> dict[str, Path]:
    int8, log_mel, _ = int8_by_command
    export_onnx(torch_model, folder / "float32.onnx")
    return {"float32": folder / "float32.onnx", "int8": int8, "log_mel": log_mel}


def by_onnxruntime(path: Path, **inputs: torch.Tensor) -> np.ndarray:
    """By ONNX Runtime alone."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    [output] = session.run(None, {name: x.numpy() for name, x in inputs.items()})
    return output


def close(actual, expected, relative: float = 1e-5) -> None:
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    assert np.linalg.norm(actual - expected) < relative * np.linalg.norm(expected)


# ---------------------------------------------------------------------------------------------
# The files alone
# ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("units", "columns"), [(1, 13), (5, 13), (3, 2), (1, 1)])
def test_any_number_of_units_of_any_length(files, torch_model, units, columns):
    log_mel = torch.randn(units, 80, 16 * columns)
    embeddings = by_onnxruntime(files["float32"], log_mel=log_mel)
    assert embeddings.shape == (units, columns, 5 * 48)
    with torch.no_grad():
        close(embeddings, torch_model.embed_units(log_mel))


def test_agrees_with_an_independent_encoder(state, save, tmp_path):
    lively = {k: v * 10 if "attn" in k or "mlp" in k else v for k, v in state.items()}
    model = load_model(save({"model": lively}))
    export_onnx(model, tmp_path / "model.onnx")
    log_mel = torch.randn(2, 80, 208)
    expected = plain_tokens(lively, log_mel, heads=1)[:, 1:].unflatten(1, (5, 13))
    close(
        by_onnxruntime(tmp_path / "model.onnx", log_mel=log_mel),
        expected.transpose(1, 2).flatten(2),
    )


@pytest.mark.parametrize("samples", [1, 399, 400, 401, 8000, 40001])
def test_front_end(files, torch_model, samples):
    waveforms = audio(samples)
    log_mel = by_onnxruntime(files["log_mel"], waveform=waveforms)
    np.testing.assert_allclose(log_mel, torch_model.frontend(waveforms), rtol=0, atol=1e-4)


def test_32_khz_and_one_patch_a_unit(tmp_path):
    config = ModelConfig(
        n_mels=32, unit_frames=16, patch_mels=16, patch_frames=16, sample_rate=32_000, **SIZES
    )
    model = small_model(config)
    files = [tmp_path / "model.onnx", tmp_path / "log_mel.onnx"]
    export_onnx(model, files[0], log_mel=files[1])
    waveforms = torch.randn(2, 20_000) * 0.1
    found = by_onnxruntime(files[1], waveform=waveforms)
    np.testing.assert_allclose(found, model.frontend(waveforms), rtol=0, atol=1e-4)
    loaded = load_model(files[0])
    assert loaded.sample_rate == 32_000
    close(get_scene_embeddings(waveforms, loaded), get_scene_embeddings(waveforms, model))


# ---------------------------------------------------------------------------------------------
# load_model
# ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seconds", [0.004, 1.0, 2.08, 7.3])
def test_the_hear_functions(files, torch_model, seconds):
    model, waveforms = load_model(files["float32"]), audio(int(16_000 * seconds))
    assert model.config == torch_model.config
    assert model.scene_embedding_size == torch_model.scene_embedding_size
    close(get_scene_embeddings(waveforms, model), get_scene_embeddings(waveforms, torch_model))
    frames, times = get_timestamp_embeddings(waveforms, model)
    expected, expected_times = get_timestamp_embeddings(waveforms, torch_model)
    close(frames, expected)
    assert torch.equal(times, expected_times)


def test_published_runtimes_read_the_last_block(files, torch_model, tmp_path, folder):
    with pytest.raises(ValueError, match=r"float32\.onnx: .*block 0 alone, not of \[1\].*--layer"):
        load_model(files["float32"], mode="paper")
    export_onnx(load_model(folder / "small.safetensors", layer=-1), tmp_path / "last.onnx")
    waveforms = audio(20_000)
    for mode in ("paper", "m2d"):
        found = load_model(tmp_path / "last.onnx", mode=mode)
        expected = load_model(folder / "small.safetensors", mode=mode)
        close(get_scene_embeddings(waveforms, found), get_scene_embeddings(waveforms, expected))
        frames, times = get_timestamp_embeddings(waveforms, found)
        expected_frames, expected_times = get_timestamp_embeddings(waveforms, expected)
        close(frames, expected_frames)
        assert torch.equal(times, expected_times)


def test_a_layer_that_is_named_is_not_scaled(files, torch_model, folder):
    waveforms = audio(8000)
    found = load_model(files["float32"], layer=0)
    expected = load_model(folder / "small.safetensors", layer=0)
    close(get_scene_embeddings(waveforms, found), get_scene_embeddings(waveforms, expected))


def test_int8_is_small_and_close_even_with_large_channels(tmp_path):
    """LayerNorm has channels of a hundred times the others, as trained models have."""
    model = small_model(ModelConfig(width=96, depth=4, heads=3, norm_mean=-8.0, norm_std=4.5))
    with torch.no_grad():
        for block in model.encoder.blocks:
            for norm, product in ((block.norm1, block.attn.qkv), (block.norm2, block.mlp.fc1)):
                norm.weight[::16] *= 100
                product.weight[:, ::16] /= 100
    export_onnx(model, tmp_path / "int8.onnx", int8=True)
    stored = sum(4 * parameter.numel() for parameter in model.encoder.parameters())  # bytes
    assert (tmp_path / "int8.onnx").stat().st_size < 0.6 * stored
    log_mel = torch.randn(4, 80, 208)
    found = by_onnxruntime(tmp_path / "int8.onnx", log_mel=log_mel)
    with torch.no_grad():
        expected = model.embed_units(log_mel).numpy()
    close(found, expected, relative=0.02)
    assert not np.allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["float32", "int8"])
def test_batch_mates_do_not_matter(files, name):
    model, waveforms = load_model(files[name]), audio(40_000)
    loud = torch.cat([waveforms, 30 * waveforms])
    alone = torch.cat([get_scene_embeddings(clip[None], model) for clip in loud])
    torch.testing.assert_close(get_scene_embeddings(loud, model), alone, rtol=1e-5, atol=1e-6)


def test_embed_and_the_name_of_the_weights(files, torch_model, recordings):
    model = load_model(files["float32"], precision="auto")
    found = list(embed_files(recordings, model))
    expected = list(embed_files(recordings, torch_model))
    assert [x.path for x in found] == [x.path for x in expected]
    close([x.embedding for x in found], [x.embedding for x in expected])
    prints = {fingerprint(m) for m in (model, torch_model, load_model(files["int8"]))}
    assert len(prints) == 3


def test_copies_and_pickles_compute_the_same(files):
    model = load_model(files["float32"])
    copy = pickle.loads(pickle.dumps(model))
    assert torch.equal(model(audio(8000)), copy(audio(8000)))


# ---------------------------------------------------------------------------------------------
# What an ONNX file cannot do
# ---------------------------------------------------------------------------------------------
REFUSED = {
    "train": (lambda m: m.train(), "cannot be trained"),
    "gradients": (lambda m: m(torch.zeros(1, 8000, requires_grad=True)), "no gradients"),
    "save": (lambda m: m.save_pretrained("folder"), "can only embed"),
    "reconstruct": (masked_autoencoder, "can only embed"),
    "attention": (lambda m: attention_map(m, torch.zeros(80, 16)), "no attention maps"),
    "export": (lambda m: export_onnx(m, "again.onnx"), "can only embed"),
    "device": (lambda m: m.to("meta"), "on the CPU here, not on 'meta'"),
}


@pytest.mark.parametrize(("use", "reason"), REFUSED.values(), ids=REFUSED)
def test_refused(files, use, reason):
    with pytest.raises(ValueError, match=f"{reason}.*for PyTorch"):
        use(load_model(files["float32"]))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"layer": 1}, r"block 0 alone, not of \[1\], which layer=1 "),
        ({"layer": [0, 1]}, r"not of \[0, 1\]"),
        ({"precision": "bfloat16"}, "precision='bfloat16' needs weights for PyTorch"),
        ({"device": "meta"}, "run on the CPU"),
        ({"speed": 3}, "unknown option"),
    ],
    ids=str,
)
def test_options_that_a_file_cannot_fulfil(files, options, reason):
    with pytest.raises(ValueError, match=reason):
        load_model(files["float32"], **options)


def test_other_files(files, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.onnx' does not exist"):
        load_model(tmp_path / "absent.onnx")
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(files["float32"].read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"cut\.onnx: truncated or not an ONNX file"):
        load_model(cut)
    with pytest.raises(ValueError, match=r"log_mel\.onnx: not an encoder that"):
        load_model(files["log_mel"])


@pytest.mark.parametrize("package", ["onnxruntime", "onnxscript"])
def test_a_missing_package_is_named(files, torch_model, monkeypatch, package, tmp_path):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf"package {package}; run: pip.*hear_msm_mae\[onnx\]"):
        export_onnx(torch_model, tmp_path / "x.onnx")
    if package == "onnxruntime":
        with pytest.raises(ValueError, match="package onnxruntime"):
            load_model(files["float32"])


@pytest.mark.parametrize("options", [{"layers": (0, 1)}, {"precision": "bfloat16"}], ids=str)
def test_models_that_cannot_be_exported(tmp_path, options):
    model = small_model(CONFIG)
    model.options = dataclasses.replace(model.options, **options)
    with pytest.raises(ValueError, match="float32, on the CPU, with one layer"):
        export_onnx(model, tmp_path / "x.onnx")
    assert not any(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------
# The command line
# ---------------------------------------------------------------------------------------------
def test_the_command_writes_files_that_embed_takes(run, int8_by_command, recordings, tmp_path):
    output, front_end, written = int8_by_command
    assert written.exit_code == 0, written.output
    assert f"80x208p16x16 -> {output} (" in written.output
    assert str(front_end) in written.output
    result = run("embed", recordings, "-w", output, "-o", tmp_path / "rows.npz")
    assert result.status == 0, result.err
    with np.load(tmp_path / "rows.npz") as file:
        assert file["embeddings"].shape == (10, 5 * 48)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["out.pt"], r"must end in \.onnx, got 'out\.pt'"),
        (["a", "b", "c.onnx"], "got 3 names"),
        (["absent.safetensors", "out.onnx"], "absent"),
        (["out.onnx", "--log-mel", "out.txt"], r"must end in \.onnx, got 'out\.txt'"),
    ],
)
def test_wrong_command_lines(run, tmp_path, monkeypatch, arguments, reason):
    monkeypatch.chdir(tmp_path)
    assert_one_line_error(run("export-onnx", *arguments), reason)
    assert not any(tmp_path.iterdir())


def test_commands_that_need_tensors_say_so(run, files):
    assert_one_line_error(run("info", files["float32"]), r"float32\.onnx is an ONNX file")


def test_finetune_refuses_it_before_any_work(run, files, tmp_path):
    for label, hertz in (("low", 200), ("high", 2000)):
        for i in range(3):
            tone(tmp_path / "sounds" / label / f"{i}.wav", hertz + i, 0.5)
    out = tmp_path / "out"
    refused = run("finetune", tmp_path / "sounds", "-o", out, "-w", files["float32"])
    assert_one_line_error(refused, "can only embed")
    assert not out.exists()
