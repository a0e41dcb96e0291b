"""Models as folders, on a (fake) Hugging Face Hub, and through torch.hub."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fake_hub import TOKEN, fake_hub

from hear_msm_mae import get_scene_embeddings, load_model
from hear_msm_mae.checkpoints.hub import find_weights, save_folder
from hear_msm_mae.checkpoints.native import Checkpoint, load_checkpoint

ROOT = Path(__file__).parents[2]
AUDIO = torch.sin(torch.arange(20000) / 9)[None] * 0.3


def same_model(first, second) -> bool:
    return torch.equal(get_scene_embeddings(AUDIO, first), get_scene_embeddings(AUDIO, second))


# ---------------------------------------------------------------------------------------------
# Folders
# ---------------------------------------------------------------------------------------------
def test_saved_folder_loads_again_with_everything(tiny_file, tmp_path):
    model = load_model(tiny_file, timestamp_hop_ms=80)
    folder = model.save_pretrained(tmp_path / "new" / "model")
    assert {p.name for p in folder.iterdir()} == {"model.safetensors", "config.json", "README.md"}
    again = load_model(str(folder), timestamp_hop_ms=80)
    assert same_model(model, again)
    assert again.config == model.config
    assert json.loads((folder / "config.json").read_text()) == dataclasses.asdict(model.config)
    # The decoder comes along, so that the copy can still reconstruct.
    before, after = load_checkpoint(tiny_file), load_checkpoint(folder / "model.safetensors")
    assert before.tensors.keys() == after.tensors.keys()
    assert all(torch.equal(t, after.tensors[name]) for name, t in before.tensors.items())


def test_what_is_saved_is_the_model_as_it_is_now(tiny_file, tmp_path):
    model = load_model(tiny_file, normalization=(-6.0, 3.0), precision="bfloat16")
    with torch.no_grad():
        model.encoder.norm.bias += 1
    again = load_model(model.save_pretrained(tmp_path / "tuned"), precision="bfloat16")
    assert same_model(model, again)
    assert (again.config.norm_mean, again.config.norm_std) == (-6.0, 3.0)
    assert not same_model(load_model(tiny_file), load_model(tmp_path / "tuned"))


def test_half_precision_halves_the_file(tiny_model, tmp_path):
    full = tiny_model.save_pretrained(tmp_path / "full") / "model.safetensors"
    half = tiny_model.save_pretrained(tmp_path / "half", half=True) / "model.safetensors"
    assert half.stat().st_size < 0.6 * full.stat().st_size
    torch.testing.assert_close(
        get_scene_embeddings(AUDIO, load_model(half.parent)),
        get_scene_embeddings(AUDIO, tiny_model),
        rtol=0,
        atol=2e-2,
    )


def test_saving_again_keeps_the_owners_model_card(tiny_model, tmp_path):
    card = tiny_model.save_pretrained(tmp_path / "shared") / "README.md"
    assert "load_model('shared')" in card.read_text()
    card.write_text("my words")
    tiny_model.save_pretrained(tmp_path / "shared")
    assert card.read_text() == "my words"


def test_model_card_code_runs(tiny_model, tmp_path, monkeypatch):
    folder = tiny_model.save_pretrained(tmp_path / "model")
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    names = {"audio": AUDIO}
    exec(code, names)
    assert torch.equal(names["scene"], get_scene_embeddings(AUDIO, tiny_model))


def test_a_folder_needs_its_weights_file_alone(tiny_model, tmp_path):
    folder = tiny_model.save_pretrained(tmp_path / "model")
    (folder / "config.json").unlink()
    assert same_model(load_model(folder), tiny_model)


def test_folders_and_files_that_are_no_model(tiny_model, tiny_file, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is a folder without model\.safetensors"):
        load_model(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file; give a folder"):
        tiny_model.save_pretrained(tmp_path / "file")
    assert find_weights(tiny_file) == tiny_file


def test_the_current_folder(tiny_checkpoint, tmp_path, monkeypatch):
    """A "." is a folder; Path("") is written in the same way, and means the bundled weights."""
    save_folder(tmp_path / "model", tiny_checkpoint)
    monkeypatch.chdir(tmp_path / "model")
    for source in (".", Path()):
        assert find_weights(source).samefile(tmp_path / "model" / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    assert find_weights(Path()) == find_weights("")
    with pytest.raises(FileNotFoundError):
        find_weights(".")


def test_encoder_only_weights_say_so_on_their_card(tiny_checkpoint, tmp_path):
    encoder = {k: v for k, v in tiny_checkpoint.tensors.items() if k.startswith("encoder.")}
    folder = save_folder(tmp_path / "model", Checkpoint(tiny_checkpoint.config, encoder))
    assert "| pretraining decoder | not included |" in (folder / "README.md").read_text()
    again = load_model(folder)
    assert not again.decoder_tensors
    assert not any(name.startswith("decoder.") for name in again.checkpoint().tensors)


# ---------------------------------------------------------------------------------------------
# Hugging Face Hub
# ---------------------------------------------------------------------------------------------
SESSION = """
import sys, torch
from hear_msm_mae import get_scene_embeddings, load_model

model = load_model(sys.argv[1])
address = model.push_to_hub("user/repo", message="first", transformers=True)
again = load_model(address)
audio = torch.linspace(-0.5, 0.5, 16000)[None]
assert torch.equal(get_scene_embeddings(audio, model), get_scene_embeddings(audio, again))
assert again.decoder_tensors

with torch.no_grad():
    model.encoder.norm.bias += 1
model.push_to_hub("user/repo")
assert torch.equal(load_model(address).encoder.norm.bias, model.encoder.norm.bias)
print(address)
try:
    model.push_to_hub("user/refused", token="hf_wrong")
except ConnectionError as error:
    print(error)
"""

REFUSALS = """
import sys
from hear_msm_mae import load_model

for address in sys.argv[1:]:
    try:
        load_model(address)
        print("loaded")
    except (OSError, ValueError) as error:
        print(type(error).__name__, error)
"""


@pytest.fixture(scope="module")
def hub():
    pytest.importorskip("huggingface_hub")
    with fake_hub() as running:
        yield running


def client(endpoint: str, cache: Path, **more: str) -> dict[str, str]:
    """Environment of a process that knows the fake hub and nothing of the user's own account."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    here = {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache)}
    quiet = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    return own | here | quiet | {"no_proxy": "127.0.0.1"} | more


def python(code: str, *arguments: object, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter, because the Hub's library reads these when it is imported."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


def test_push_load_and_load_offline(hub, tiny_file, tmp_path):
    endpoint, repos, requests = hub
    online = client(endpoint, tmp_path / "cache", HF_TOKEN=TOKEN)
    result = python(SESSION, tiny_file, env=online)
    assert result.returncode == 0, result.stderr
    address, refusal = result.stdout.splitlines()
    assert address == "hf://user/repo"
    assert refusal.startswith("hf://user/refused: the Hugging Face Hub says: ")
    assert "Invalid username or password" in refusal
    assert "user/refused" not in repos
    files = repos["user/repo"]
    assert set(files) >= {"model.safetensors", "config.json", "README.md", "modeling_msm_mae.py"}
    assert b"AutoModel.from_pretrained('user/repo', " in files["README.md"]
    assert b"load_model('hf://user/repo')" in files["README.md"]
    assert json.loads(files["config.json"])["width"] == 32

    # Without a network: what was loaded before still loads, the rest says what to do.
    count = len(requests)
    offline = client(endpoint, tmp_path / "cache", HF_HUB_OFFLINE="1")
    done = python(REFUSALS, "hf://user/repo", "hf://user/other", env=offline)
    assert done.returncode == 0, done.stderr
    loaded, missing = done.stdout.splitlines()
    assert loaded == "loaded"
    assert missing.startswith("ConnectionError")
    assert "hf://user/other is not in the local" in missing
    assert len(requests) == count


def test_addresses_that_cannot_be_loaded(hub, tmp_path):
    endpoint, repos, _ = hub
    repos["user/empty"] = {"README.md": b"nothing else"}
    addresses = ["hf://user/absent", "hf://user/empty@v9", "hf://user/empty", "hf://a/b/c", "hf://"]
    result = python(REFUSALS, *addresses, env=client(endpoint, tmp_path / "cache"))
    absent, revision, empty, form, nothing = result.stdout.splitlines()
    assert absent.startswith("FileNotFoundError hf://user/absent does not exist, or is private")
    assert revision.startswith("FileNotFoundError hf://user/empty has no such revision")
    assert empty.startswith("FileNotFoundError")
    assert "without model.safetensors" in empty
    assert form.startswith("ValueError 'a/b/c' is not of the form user/repo")
    assert nothing.startswith("ValueError '' is not of the form user/repo")


def test_missing_library_is_named(monkeypatch, tiny_model):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for attempt in (
        lambda: load_model("hf://user/repo"),
        lambda: tiny_model.push_to_hub("user/repo"),
    ):
        with pytest.raises(ImportError, match=r"pip install 'hear_msm_mae\[hub\]'"):
            attempt()


# ---------------------------------------------------------------------------------------------
# torch.hub
# ---------------------------------------------------------------------------------------------
def test_torch_hub_from_a_local_path(tiny_file, tiny_model, tmp_path):
    """In a process whose only way to the package is the path that it is given."""
    code = f"""
import sys, torch
sys.path[:] = [p for p in sys.path if p not in ("", {str(ROOT)!r})]
model = torch.hub.load({str(ROOT)!r}, "msm_mae", source="local",
                       weights={str(tiny_file)!r}, timestamp_hop_ms=80)
import hear_msm_mae
print(hear_msm_mae.__file__)
print(model.options.timestamp_hop_ms, model(torch.zeros(1, 8000)).shape[1])
"""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    file, values = result.stdout.splitlines()
    assert file == str(ROOT / "hear_msm_mae" / "__init__.py")
    assert values == f"80 {tiny_model.scene_embedding_size}"
