"""Checkpoints: one safetensors file holds the tensors, the configuration and the statistics."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..config import ModelConfig
from ..files import interrupts_held, replacing
from .layout import DECODER, ENCODER, check_layout, check_weights

FORMAT_VERSION = "1"
BUNDLED_WEIGHTS = "hear_msm_mae-small-80x208p16x16.safetensors"


@dataclasses.dataclass
class Checkpoint:
    """A complete model: configuration and tensors named `encoder.*`, optionally `decoder.*`."""

    config: ModelConfig
    tensors: dict[str, Tensor]

    @property
    def has_decoder(self) -> bool:
        """Whether the pretraining decoder is included (reconstructions need it)."""
        return bool(self.decoder_tensors)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Tensors below a prefix ("encoder." or "decoder."), without it, in float32."""
        size = len(prefix)
        return {k[size:]: v.float() for k, v in self.tensors.items() if k.startswith(prefix)}

    @property
    def decoder_tensors(self) -> dict[str, Tensor]:
        """The tensors of the decoder with their names and types in the file."""
        return {k: v for k, v in self.tensors.items() if k.startswith(DECODER)}

    def check(self) -> None:
        """Check that the tensors fit the configuration and have finite values.

        Raises:
            ValueError: they do not; the message names the first wrong tensor.
        """
        check_weights(self.tensors)
        check_layout(ENCODER, self.tensors, self.config)
        if self.has_decoder:
            check_layout(DECODER, self.tensors, self.config)

    def load_into(self, module: nn.Module, prefix: str = ENCODER) -> None:
        """Copy the tensors below `prefix` into a module built from the same configuration.

        Raises:
            ValueError: a tensor is missing, unknown or of another shape.
        """
        try:
            module.load_state_dict(self.part(prefix))
        except RuntimeError as error:
            reason = " ".join(str(error).split())  # torch spreads it over several lines
            raise ValueError(
                f"the tensors do not fit the configuration {self.config.name}: {reason}"
            ) from error


def bundled_weights() -> Path:
    """Path of the weights that come with the package.

    Raises:
        FileNotFoundError: they are missing from the installation.
    """
    package = Path(__file__).resolve().parents[1]
    # An installation has hear_msm_mae/weights. In a source tree the folder is beside the package.
    for folder in (package / "weights", package.parent / "weights"):
        if (folder / BUNDLED_WEIGHTS).is_file():
            return folder / BUNDLED_WEIGHTS
    raise FileNotFoundError(
        f"the bundled weights {BUNDLED_WEIGHTS} are missing from this installation; "
        "install the package again or pass model_file_path"
    )


def save_checkpoint(path: str | Path, checkpoint: Checkpoint, half: bool = False) -> None:
    """Write a checkpoint atomically.

    Args:
        path: file to write, `.safetensors`.
        checkpoint: the checkpoint.
        half: store float16, which halves the size. Loaded weights are always float32.
    """
    dtype = torch.float16 if half else torch.float32
    tensors = {k: v.detach().cpu().to(dtype).contiguous() for k, v in checkpoint.tensors.items()}
    metadata = {
        "format": "pt",  # Transformers 4 asks for it
        "format_version": FORMAT_VERSION,
        "config": checkpoint.config.to_json(),
    }
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)
        _sort_header(temporary)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint written by `save_checkpoint`.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is damaged or not a model of this package, or its tensors do not fit
            its configuration or have NaN or absurd values.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights file at {path}")
    try:
        # safetensors would turn a Ctrl-C into another error.
        with interrupts_held(), safe_open(path, framework="pt") as file:
            config = _config_of(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        checkpoint = Checkpoint(config, tensors)
        checkpoint.check()
    except SafetensorError as error:
        raise ValueError(
            f"{path} is truncated or not a safetensors weights file ({error}); "
            "download or convert it again"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return checkpoint


def state_tensors(encoder: nn.Module, decoder: nn.Module | None = None) -> dict[str, Tensor]:
    """Tensors of the modules under the names that checkpoints use."""
    tensors = {ENCODER + k: v for k, v in encoder.state_dict().items()}
    if decoder is not None:
        tensors |= {DECODER + k: v for k, v in decoder.state_dict().items()}
    return tensors


def _sort_header(path: Path) -> None:
    """Give the metadata a fixed order, so that equal models are equal files.

    safetensors writes it in the order of a hash map, which changes every time. Sorting keeps the
    length of the header and the positions of the tensors.
    """
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        text = json.dumps(header, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        file.seek(8)
        file.write(text.encode().ljust(size))


def _config_of(metadata: Mapping[str, str]) -> ModelConfig:
    if "config" not in metadata:
        raise ValueError(
            "a safetensors file of another architecture: its metadata hold no configuration of "
            "hear_msm_mae; convert .pth files with `hear-msm-mae convert`, and load what "
            "Transformers saved with AutoModel after `import hear_msm_mae.transformers`, whose "
            "model.hear.save_pretrained(folder) writes a folder for load_model"
        )
    if (version := metadata.get("format_version")) != FORMAT_VERSION:
        raise ValueError(
            f"format version {version}, while this release reads {FORMAT_VERSION}; "
            "upgrade hear_msm_mae"
        )
    return ModelConfig.from_json(metadata["config"])
