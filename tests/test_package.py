"""What is shipped: the wheel's contents, checksums, versions, licences."""

import hashlib
import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest

import hear_msm_mae
from hear_msm_mae.checkpoints.native import BUNDLED_WEIGHTS, bundled_weights, load_checkpoint

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """A wheel built from the files that git would commit."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", str(folder), str(source)], check=True)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_wheel_carries_weights_and_types(wheel):
    names = set(wheel.namelist())
    expected = {
        f"hear_msm_mae/weights/{BUNDLED_WEIGHTS}",
        "hear_msm_mae/weights/SHA256SUMS",
        "hear_msm_mae/py.typed",
        "hear_msm_mae/pretrain/recipes/tiny-smoke.yaml",
    }
    assert expected <= names, expected - names
    assert not [name for name in names if name.startswith(("tests/", "weights/", "benchmarks/"))]


def test_the_wheel_installs_without_network_and_embeds_a_file(wheel, tmp_path):
    """In a new environment, which sees the libraries of this one but not the source tree."""
    python = tmp_path / "env" / "bin" / "python"
    venv.create(tmp_path / "env", with_pip=False)
    packages = next((tmp_path / "env").glob("lib/python*/site-packages"))
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    how = {"cwd": tmp_path, "env": environment, "check": True}
    subprocess.run([*pip, "--no-index", wheel.filename], **how)
    audio = ROOT / "examples" / "music_castle.ogg"
    command = [python.with_name("hear-msm-mae"), "embed", audio, "-o", "out.npz"]
    subprocess.run(command, **how)
    with np.load(tmp_path / "out.npz") as output:
        assert output["embeddings"].shape[0] == 1
        assert np.isfinite(output["embeddings"]).all()


def test_checksums():
    sums = (ROOT / "weights" / "SHA256SUMS").read_text().split("\n")
    files = {line.split()[1]: line.split()[0] for line in sums if line.strip()}
    assert BUNDLED_WEIGHTS in files
    for name, digest in files.items():
        assert hashlib.sha256((ROOT / "weights" / name).read_bytes()).hexdigest() == digest


def test_bundled_weights_are_trained():
    """Random weights have Xavier's spread exactly and biases of zero; training moves both."""
    checkpoint = load_checkpoint(bundled_weights())
    biases = [t for name, t in checkpoint.tensors.items() if name.endswith("mlp.fc1.bias")]
    assert all(bias.float().abs().mean() > 1e-4 for bias in biases)
    assert (checkpoint.config.norm_mean, checkpoint.config.norm_std) != (-7.1, 4.2)
    assert bundled_weights().stat().st_size <= 60e6


def test_version_is_the_same_everywhere():
    version = hear_msm_mae.__version__
    assert f"version: {version}" in (ROOT / "CITATION.cff").read_text()
    assert re.search(rf"^## {re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(), re.M)


def in_a_new_process(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return result.stdout.strip()


def test_import_does_no_work():
    """Importing loads nothing but the standard library."""
    code = "import sys, hear_msm_mae; print([m for m in sys.argv[1:] if m in sys.modules])"
    assert (
        in_a_new_process(code, "torch", "numpy", "soundfile", "typer", "hear_msm_mae.api") == "[]"
    )


def test_load_model_imports_what_it_needs():
    """Neither training needs nor plots, nor what crashes in a process with TensorFlow."""
    code = (
        "import sys; from hear_msm_mae import load_model; load_model()\n"
        "print([m for m in sys.argv[1:] if m in sys.modules])"
    )
    heavy = ["lightning", "tensorboard", "matplotlib", "sklearn", "hear_msm_mae.pretrain", "typer"]
    assert in_a_new_process(code, *heavy, "timm", "torchvision", "triton") == "[]"


def test_public_names_are_found_and_need_no_extra_until_they_are_called():
    """As `dir`, `help` and tools look for them, in an environment with the core's needs alone."""
    code = (
        "import importlib, pydoc, sys; sys.modules |= dict.fromkeys(sys.argv[1:])\n"
        "module = importlib.import_module('hear_msm_mae')\n"
        "assert set(module.__all__) <= set(dir(module))\n"
        "text = pydoc.plain(pydoc.render_doc(module))\n"
        "assert 'get_scene_embeddings(audio' in text, text\n"
        "assert not hasattr(module, 'load_modell')\n"
        "from hear_msm_mae import *\n"
        "assert load_model.__module__ == 'hear_msm_mae.api'\n"
        "try: finetune('labels.csv', 'out')\n"
        "except ValueError as error: print(error)"
    )
    extras = ["av", "duckdb", "h5py", "jsonargparse", "lightning", "matplotlib", "onnx", "pyarrow"]
    said = in_a_new_process(code, *extras, "sklearn", "tensorboard", "torchaudio", "transformers")
    assert said.endswith("run: pip install 'hear_msm_mae[answers,pretrain]'")
