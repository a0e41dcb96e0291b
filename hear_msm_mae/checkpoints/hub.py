"""Models as folders and as Hugging Face Hub repositories.

A folder holds `model.safetensors` (complete in itself, the only file that `load_model` reads),
`config.json` (the same configuration, for readers and for other libraries) and `README.md` (a model
card). A Hub repository is such a folder. A folder
for Transformers and sentence-transformers holds more, see `hub_transformers`.
"""

from __future__ import annotations

import dataclasses
import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from ..config import MS_PER_FRAME
from ..files import replacing
from .hub_transformers import CONFIG_NOTES, card_section, transformers_files
from .native import Checkpoint, bundled_weights, save_checkpoint

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
CARD_FILE = "README.md"

# A Path has lost one of the slashes.
_HUB_ADDRESS = re.compile(r"hf:/{1,2}(?P<repo>[^@]*)(@(?P<revision>.+))?")


def find_weights(source: str | Path = "") -> Path:
    """The weights file that a name stands for.

    Args:
        source: a file, which is returned as it is; a folder written by `save_folder`;
            "hf://user/repo" or "hf://user/repo@revision" on the Hugging Face Hub, which is
            downloaded once; or "" for the weights that come with the package.

    Raises:
        FileNotFoundError: a folder without weights, or no such repository.
        ConnectionError: the Hub cannot be reached and its repository is not in the local cache.
        ImportError: an hf:// address without huggingface_hub.
        ValueError: an address of another form.
    """
    text = str(source)
    # Path("") is Path("."), which may also be meant as the current folder.
    unnamed = text == "." and isinstance(source, Path) and not Path(WEIGHTS_FILE).is_file()
    if not text or unnamed:
        return bundled_weights()
    if address := _HUB_ADDRESS.fullmatch(text):
        return _weights_of(_download(address["repo"], address["revision"]), text)
    path = Path(source)
    return _weights_of(path, text) if path.is_dir() else path


def save_folder(
    folder: str | Path,
    checkpoint: Checkpoint,
    *,
    half: bool = False,
    address: str | None = None,
    transformers: bool = False,
) -> Path:
    """Write a checkpoint as a folder that `load_model` takes.

    Args:
        folder: destination; made where it does not exist. A model card that is there is kept,
            since people write into it.
        checkpoint: what to write; with its decoder, if it has one.
        half: store float16.
        address: what the model card tells readers to load; the folder's name by default.
        transformers: add what Transformers and sentence-transformers need to load the folder, the
            former without this package.

    Returns:
        The folder.

    Raises:
        NotADirectoryError: `folder` is a file.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file; give a folder")
    save_checkpoint(folder / WEIGHTS_FILE, checkpoint, half=half)
    config = dataclasses.asdict(checkpoint.config)
    _write(folder / CONFIG_FILE, config | (CONFIG_NOTES if transformers else {}))
    if transformers:
        for name, content in transformers_files(checkpoint.config).items():
            _write(folder / name, content)
    if not (folder / CARD_FILE).exists():
        name = address or folder.resolve().name
        _write(folder / CARD_FILE, _model_card(checkpoint, name, transformers))
    return folder


def push_to_hub(
    repo_id: str,
    checkpoint: Checkpoint,
    *,
    private: bool | None = None,
    token: str | None = None,
    half: bool = False,
    message: str = "Upload model",
    transformers: bool = False,
) -> str:
    """Upload a checkpoint to a repository of the Hugging Face Hub, which is made if need be.

    A model card that the repository has is kept.

    Args:
        repo_id: "user/repo".
        checkpoint: what to upload.
        private: whether a new repository is private; by default what the account says.
        token: access token; by default the one that `hf auth login` stored.
        half: store float16.
        message: of the commit.
        transformers: see `save_folder`.

    Returns:
        The address for `load_model`, "hf://user/repo".

    Raises:
        ImportError: huggingface_hub is not installed.
        ValueError: not a repository's name.
        ConnectionError: the Hub cannot be reached or refuses; the message says why.
    """
    hub = _huggingface_hub()
    address = f"hf://{repo_id}"
    api = hub.HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        save_folder(folder, checkpoint, half=half, address=address, transformers=transformers)
        with _clear_errors(hub, repo_id):
            api.create_repo(repo_id, private=private, exist_ok=True)
            kept = [CARD_FILE] if api.file_exists(repo_id, CARD_FILE) else []
            api.upload_folder(
                repo_id=repo_id, folder_path=folder, commit_message=message, ignore_patterns=kept
            )
    return address


def _weights_of(folder: Path, name: str) -> Path:
    """The weights file in a folder."""
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"model_file_path {name!r} is a folder without {WEIGHTS_FILE}; give a weights file, or "
            "a folder written by model.save_pretrained"
        )
    return path


def _write(path: Path, content: str | dict[str, Any] | list[Any]) -> None:
    """Write text, or a JSON document."""
    text = content if isinstance(content, str) else json.dumps(content, indent=2) + "\n"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _download(repo_id: str, revision: str | None) -> Path:
    """Folder in the local cache with the files of a Hub repository."""
    hub = _huggingface_hub()
    with _clear_errors(hub, repo_id):
        files = [WEIGHTS_FILE, CONFIG_FILE]
        return Path(hub.snapshot_download(repo_id, revision=revision, allow_patterns=files))


def _huggingface_hub() -> ModuleType:
    try:
        import huggingface_hub
        import huggingface_hub.errors  # which the package itself imports later, if at all
    except ImportError as error:
        raise ImportError(
            "hf:// addresses need huggingface_hub: pip install 'hear_msm_mae[hub]'"
        ) from error
    return huggingface_hub


@contextmanager
def _clear_errors(hub: ModuleType, repo_id: str) -> Iterator[None]:
    """What went wrong, in the words of this package."""
    errors = hub.errors
    try:
        yield
    except errors.HFValidationError as error:
        raise ValueError(f"{repo_id!r} is not of the form user/repo: {error}") from error
    except errors.RevisionNotFoundError as error:
        raise FileNotFoundError(f"hf://{repo_id} has no such revision") from error
    except errors.RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"hf://{repo_id} does not exist, or is private and needs `hf auth login`"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise ConnectionError(
            f"the Hugging Face Hub cannot be reached and hf://{repo_id} is not in the local cache; "
            "load it once while online, or give a folder or file"
        ) from error
    except Exception as error:  # the kind depends on the HTTP client of huggingface_hub's version
        reason = " ".join(str(error).split())
        raise ConnectionError(f"hf://{repo_id}: the Hugging Face Hub says: {reason}") from error


def _model_card(checkpoint: Checkpoint, address: str, transformers: bool) -> str:
    """A README with the front matter that the Hub reads; the owner adds the rest."""
    config = checkpoint.config
    rate = f"{config.sample_rate / 1000:g} kHz"
    layer = "the last block" if config.layer is None else f"block {config.layer} (from 0)"
    decoder = "included" if checkpoint.has_decoder else "not included"
    doors = card_section(address.removeprefix("hf://")) if transformers else ""
    return f"""---
library_name: hear_msm_mae
pipeline_tag: feature-extraction
tags:
- audio
- audio-embeddings
- masked-autoencoder
- hear-benchmark
---

# {config.name}, {config.width}-d

Audio embeddings by a Vision Transformer that was pretrained by masked spectrogram modeling, for
the Python package `hear_msm_mae` (HEAR 2021 common API).

```python
import hear_msm_mae

model = hear_msm_mae.load_model({address!r})
scene = hear_msm_mae.get_scene_embeddings(audio, model)  # audio: (clips, samples), mono, {rate}
```
{doors}
| | |
|---|---|
| input | mono, {rate} |
| unit | {config.n_mels} mel bins x {config.unit_frames} frames of {MS_PER_FRAME} ms |
| patch | {config.patch_mels} mel bins x {config.patch_frames} frames |
| encoder | {config.depth} blocks, {config.heads} heads, {config.width} channels |
| frame embedding | output of {layer}, {config.frame_embedding_size} values |
| scene embedding | {config.scene_pooling} of the frame embeddings over time |
| statistics | mean {config.norm_mean:.4f}, std {config.norm_std:.4f} of the log-mel values |
| pretraining decoder | {decoder} |

Training data, licence and scores: to be added by the owner of this model.
"""
