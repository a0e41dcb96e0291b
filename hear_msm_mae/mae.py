"""Masked autoencoder: the pretraining model around the encoder (He et al. 2021, Niizumi 2022)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import ModelConfig
from .encoder import (
    DTYPE,
    Encoder,
    gather_tokens,
    initialize,
    layer_norm,
    make_blocks,
    patchify,
    sincos_2d,
    unpatchify,
)

PIXEL_NORM_EPS = 1e-6  # added to the variance of a patch


class Mask(NamedTuple):
    """Indices of the visible and of the masked patches of each clip."""

    visible: Tensor  # (b, k) int64
    masked: Tensor  # (b, l - k) int64

    @classmethod
    def from_permutation(cls, permutation: Tensor, num_visible: int) -> Mask:
        """The first `num_visible` entries of each row of (b, l) are visible."""
        return cls(permutation[:, :num_visible], permutation[:, num_visible:])

    @classmethod
    def from_bool(cls, masked: Tensor) -> Mask:
        """The mask of a (b, l) array that is true for masked patches.

        Raises:
            ValueError: the numbers of masked patches differ between rows.
        """
        masked = masked.bool()
        counts = masked.sum(1)
        if not bool((counts == counts[0]).all()):
            raise ValueError(
                f"every clip must have the same number of masked patches, got {counts.tolist()}"
            )
        order = masked.byte().argsort(dim=1, stable=True)
        return cls.from_permutation(order, masked.shape[1] - int(counts[0]))


def random_mask(
    clips: int, patches: int, mask_ratio: float, generator: torch.Generator | None = None
) -> Mask:
    """Uniformly random masks; int(patches * (1 - mask_ratio)) patches stay visible, at least one.

    Raises:
        ValueError: mask_ratio is not inside (0, 1).
    """
    if not 0 < mask_ratio < 1:
        raise ValueError(f"mask_ratio must be between 0 and 1, exclusive, got {mask_ratio}")
    permutation = torch.rand(clips, patches, generator=generator).argsort(dim=1)
    return Mask.from_permutation(permutation, max(1, int(patches * (1 - mask_ratio))))


class Decoder(nn.Module):
    """Decoder of pretraining: predicts patches from the latents of the visible ones.

    Shape:
        - latents: (b, [1 +] k, d) encoder output for the visible patches
        - output: see `forward`
    """

    positions: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width = config.decoder_width
        self.embed = nn.Linear(config.width, width, dtype=DTYPE)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width, dtype=DTYPE))
        if config.decoder_positions == "1d":
            table = sinusoid_table(config.rows * config.columns, width)
        else:
            table = sincos_2d(config.rows, config.columns, width).flatten(0, 1)
        self.register_buffer("positions", table, persistent=False)
        self.blocks = make_blocks(
            width, config.decoder_depth, config.decoder_heads, config.mlp_ratio
        )
        self.norm = layer_norm(width)
        self.predict = nn.Linear(width, config.patch_area, dtype=DTYPE)
        self.apply(initialize)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, latents: Tensor, mask: Mask, targets: Tensor | None = None) -> Tensor:
        """Predicted patch values: `tokens` through the output layer.

        Returns:
            (b, m, a) predictions.
        """
        return self.predict(self.tokens(latents, mask, targets))

    def tokens(self, latents: Tensor, mask: Mask, targets: Tensor | None = None) -> Tensor:
        """The tokens that the output layer gets.

        Args:
            latents: (b, [1 +] k, d), CLS first where the model has one.
            mask: which patches the latents belong to.
            targets: (b, m) indices of the patches to predict; by default all, in grid order.

        Returns:
            (b, m, d') tokens, normalised.
        """
        # A loaded encoder may be in bfloat16; the decoder stays in float32.
        x = self.embed(latents.to(self.embed.weight.dtype))
        visible, masked = mask.visible.shape[1], mask.masked.shape[1]
        cls_tokens, x = x.split([x.shape[1] - visible, visible], dim=1)
        b, _, d = x.shape
        grid = self.mask_token.to(x.dtype).expand(b, visible + masked, d)
        grid = grid.scatter(1, mask.visible[..., None].expand(-1, -1, d), x)
        x = torch.cat([cls_tokens, grid + self.positions], dim=1)  # CLS has no position
        for block in self.blocks:
            x = block(x)
        x = x[:, cls_tokens.shape[1] :]
        if targets is not None:
            x = gather_tokens(x, targets)
        return self.norm(x)


class MaskedAutoencoder(nn.Module):
    """Encoder on the visible patches, decoder, and the loss on the masked patches.

    Args:
        config: sizes of encoder and decoder; with its `norm_pixels` the targets are normalised per
            patch (mean 0, unbiased variance 1).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.norm_pixels = config.norm_pixels
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def forward(self, spectrogram: Tensor, mask: Mask) -> Tensor:
        """Mean squared error on the masked patches. Visible patches are not predicted.

        Args:
            spectrogram: (b, f, t) normalised log-mel of whole units.
            mask: mask of the b clips, or m consecutive masks for each of them (b m in all).

        Returns:
            Scalar loss, float32.
        """
        spectrogram = self.repeated(spectrogram, mask)
        latents = self.encoder(spectrogram, mask.visible)
        prediction = self.decoder(latents, mask, targets=mask.masked)
        return F.mse_loss(prediction.float(), self.target(spectrogram, mask))

    @staticmethod
    def repeated(clips: Tensor, mask: Mask) -> Tensor:
        """Repeat each clip for each of its masks: (b, ...) -> (b m, ...)."""
        masks = len(mask.visible) // len(clips)
        return clips if masks == 1 else clips.repeat_interleave(masks, dim=0)

    def target(self, spectrogram: Tensor, mask: Mask) -> Tensor:
        """Targets of the masked patches: (b, f, t) -> (b, l - k, a) float32."""
        patches = gather_tokens(patchify(spectrogram, self.config), mask.masked).float()
        if not self.norm_pixels:
            return patches
        mean, std = _patch_statistics(patches)
        return (patches - mean) / std

    def predict(self, spectrogram: Tensor, mask: Mask) -> Tensor:
        """Predictions for all patches, in grid order: (b, f, t) -> (b, l, a)."""
        return self.decoder(self.encoder(spectrogram, mask.visible), mask)

    def decode(self, tokens: Tensor) -> Tensor:
        """Spectrogram from the tokens of all patches in grid order (nothing masked).

        Shape:
            - tokens: (b, [1 +] l, d) output of the encoder
            - output: (b, f, t)
        """
        patches = self.config.rows * self.config.columns
        order = torch.arange(patches, device=tokens.device).expand(len(tokens), -1)
        return unpatchify(self.decoder(tokens, Mask.from_permutation(order, patches)), self.config)

    def reconstruct(self, spectrogram: Tensor, mask: Mask) -> Tensor:
        """Spectrogram with the masked patches replaced by their prediction.

        With `norm_pixels` the predictions are rescaled with the statistics of the patches that
        they replace. They then show the shape of the spectrogram; the level is not predicted.

        Shape:
            - input and output: (b, f, t)
        """
        patches = patchify(spectrogram, self.config)
        prediction = self.decoder(
            self.encoder(spectrogram, mask.visible), mask, targets=mask.masked
        ).float()
        if self.norm_pixels:
            mean, std = _patch_statistics(gather_tokens(patches, mask.masked))
            prediction = prediction * std + mean
        index = mask.masked[..., None].expand(-1, -1, patches.shape[-1])
        return unpatchify(patches.scatter(1, index, prediction.to(patches.dtype)), self.config)

    def hide(self, spectrogram: Tensor, mask: Mask) -> Tensor:
        """The spectrogram with NaN in its masked patches, for pictures: (b, f, t) both."""
        patches = patchify(spectrogram, self.config)
        index = mask.masked[..., None].expand(-1, -1, patches.shape[-1])
        return unpatchify(patches.scatter(1, index, float("nan")), self.config)


def sinusoid_table(length: int, width: int) -> Tensor:
    """Fixed 1-D table, sines and cosines interleaved (Vaswani et al. 2017, section 3.5).

    Shape:
        - output: (length, width) float32
    """
    omega = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.outer(torch.arange(length, dtype=torch.float64), omega)
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1).float()


def _patch_statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each patch: (b, l, a) -> two of (b, l, 1)."""
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return mean, (variance + PIXEL_NORM_EPS).sqrt()
