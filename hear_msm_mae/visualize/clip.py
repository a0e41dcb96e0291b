"""Spectrogram, masking, reconstruction and attention of one clip."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..config import ModelConfig
from ..log_mel import SILENCE
from ..mae import Decoder, Mask, MaskedAutoencoder, random_mask
from ..model import HearModel
from ..timeline import split_units

QUERIES = ("patches", "cls")


class Reconstruction(NamedTuple):
    """The masked patches of a clip, and the reconstruction."""

    hidden: Tensor
    """(rows, columns) bool: which patches the encoder did not see."""
    output: Tensor
    """(f, t): the spectrogram with its hidden patches replaced by their prediction."""


def spectrogram(model: HearModel, waveform: Tensor) -> Tensor:
    """Normalised log-mel spectrogram: (n,) -> (f, t).

    The `num_frames(n)` frames of the clip are padded with silence to a multiple of the patch width.
    """
    width = model.config.patch_frames
    frames = -(-model.config.num_frames(len(waveform)) // width) * width
    log_mel: Tensor = model.frontend(waveform[None], 0, frames)[0]
    return log_mel


def masked_autoencoder(model: HearModel) -> MaskedAutoencoder:
    """The pretraining model of a loaded model; it shares the encoder.

    Raises:
        ValueError: the weights have no decoder.
    """
    checkpoint = model.checkpoint()
    if not checkpoint.has_decoder:
        raise ValueError(
            f"these weights ({model.config.name}) hold no decoder, which reconstructions need; "
            "export the run again without --encoder-only, or use weights that have one; a report "
            "can do without, --no-reconstructions"
        )
    with torch.device("meta"):  # both parts are replaced
        autoencoder = MaskedAutoencoder(checkpoint.config)
    with torch.random.fork_rng(devices=[]):  # it draws initial weights
        decoder = Decoder(checkpoint.config)
    checkpoint.load_into(decoder, "decoder.")
    autoencoder.encoder, autoencoder.decoder = model.encoder, decoder.to(model.device)
    return autoencoder.eval()


def random_patches(config: ModelConfig, columns: int, mask_ratio: float, seed: int = 0) -> Tensor:
    """Random mask of the patches of a clip: (rows, columns) bool.

    Every unit of the clip is masked like a training crop, so that each has visible patches.

    Raises:
        ValueError: mask_ratio is not inside (0, 1).
    """
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for first, last in split_units(columns, config.columns):
        patches = config.rows * (last - first)
        mask = random_mask(1, patches, mask_ratio, generator)
        hidden = torch.zeros(patches, dtype=torch.bool)
        hidden[mask.masked[0]] = True
        parts.append(hidden.view(config.rows, last - first))
    return torch.cat(parts, dim=1)


@torch.no_grad()
def reconstruct(
    autoencoder: MaskedAutoencoder, clip: Tensor, mask_ratio: float, seed: int = 0
) -> Reconstruction:
    """Mask random patches of a clip and predict them from the others.

    The decoder needs whole units. Therefore the last unit of a longer clip overlaps the one before,
    and a clip shorter than a unit is padded with silence.

    Args:
        autoencoder: from `masked_autoencoder`. With `norm_pixels` in its configuration, predictions
            are rescaled with the statistics of the patches that they replace.
        clip: (f, t) from `spectrogram`.
        mask_ratio: share of the patches that is masked.
        seed: random seed of the mask.
    """
    config = autoencoder.config
    clip = clip.to(autoencoder.decoder.positions.device)
    columns = clip.shape[1] // config.patch_frames
    padded = max(columns, config.columns)
    hidden = random_patches(config, padded, mask_ratio, seed)
    clip = _with_silence(clip, padded * config.patch_frames, config)
    output = clip.clone()
    for begin, _ in split_units(padded, config.columns):
        first = min(begin, padded - config.columns)
        window = slice(first * config.patch_frames, (first + config.columns) * config.patch_frames)
        mask = Mask.from_bool(hidden[:, first : first + config.columns].reshape(1, -1))
        mask = Mask(*(index.to(clip.device) for index in mask))
        new = slice(begin * config.patch_frames, window.stop)
        predicted = autoencoder.reconstruct(clip[None, :, window], mask)[0]
        output[:, new] = predicted[:, new.start - window.start :]
    return Reconstruction(hidden[:, :columns], output[:, : columns * config.patch_frames].cpu())


@torch.no_grad()
def attention_map(
    model: HearModel, clip: Tensor, block: int = -1, queries: str = "patches"
) -> Tensor:
    """Attention that each patch of a clip gets; 1 is the value of uniform attention.

    The clip is cut into the same units as for embeddings.

    Args:
        model: from `load_model`.
        clip: (f, t) from `spectrogram`.
        block: index of the encoder's block, negative from the end.
        queries: tokens that attend: "patches" for the mean over all patches of the unit, or "cls"
            for the CLS token.

    Returns:
        (heads, rows, columns) float32.

    Raises:
        ValueError: the block does not exist, or the model has no CLS token.
    """
    config = model.config
    if not -config.depth <= block < config.depth:
        raise ValueError(
            f"block must be from {-config.depth} to {config.depth - 1}, the model has "
            f"{config.depth}; got {block}"
        )
    if queries not in QUERIES:
        raise ValueError(f"queries must be one of {list(QUERIES)}, got {queries!r}")
    if queries == "cls" and not config.cls_token:
        raise ValueError("queries is 'cls', but this model has no CLS token; use 'patches'")
    clip = clip.to(model.device)
    first = int(config.cls_token)  # of the patch tokens
    parts = []
    for unit in split_units(clip.shape[1] // config.patch_frames, config.columns):
        start, stop = (column * config.patch_frames for column in unit)
        weights = model.encoder.attention(clip[None, :, start:stop], block)[0].float()  # (h, q, k)
        asking = weights[:, :1] if queries == "cls" else weights[:, first:]
        received = asking[:, :, first:].mean(1)  # (h, l)
        received = received / received.mean(1, keepdim=True)
        parts.append(rearrange(received, "h (f t) -> h f t", f=config.rows))
    return torch.cat(parts, dim=2).cpu()


def hide(clip: Tensor, hidden: Tensor, config: ModelConfig) -> Tensor:
    """The clip with NaN in its masked patches, for pictures: (f, t), (rows, columns) -> (f, t)."""
    wide = hidden.repeat_interleave(config.patch_mels, 0)
    wide = wide.repeat_interleave(config.patch_frames, 1)
    return clip.masked_fill(wide.to(clip.device), float("nan"))


def _with_silence(clip: Tensor, frames: int, config: ModelConfig) -> Tensor:
    silence = (SILENCE - config.norm_mean) / config.norm_std
    return F.pad(clip, (0, frames - clip.shape[1]), value=silence)
