"""Objectives: predict the values of masked patches, or a teacher's embeddings of them."""

from __future__ import annotations

import logging
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoints.native import Checkpoint, load_checkpoint
from ..config import ModelConfig
from ..encoder import DTYPE, Encoder, gather_tokens, initialize
from ..mae import Mask, MaskedAutoencoder
from .settings import Settings
from .snapshots import differences

log = logging.getLogger(__name__)

STATISTICS_APART = 0.1  # in standard deviations; input that differs more does not suit the weights


class LatentPredictor(MaskedAutoencoder):
    """Predicts a frozen teacher's embeddings of the masked patches.

    Targets are the mean over the teacher's blocks, as in data2vec (Baevski et al. 2022, 2023) and
    EAT (Chen et al. 2024); a frozen teacher in several rounds is that of BEATs (Chen et al. 2022).

    Args:
        config: sizes of the student.
        teacher: encoder with the same patches. It sees the whole spectrogram, and is not part of
            the parameters or the state.
        pixel_weight: weight of the loss on the patch values; with 0 their output layer is frozen.
        pooled_weight: weight of the loss on the mean of the targets over all patches.
        target_norm: "clip" or "batch", see `latents`.
    """

    def __init__(
        self,
        config: ModelConfig,
        teacher: Encoder,
        pixel_weight: float = 0.0,
        pooled_weight: float = 0.0,
        target_norm: str = "clip",
    ) -> None:
        super().__init__(config)
        self.target_norm = target_norm
        self.pixel_weight, self.pooled_weight = pixel_weight, pooled_weight
        self._teacher = (teacher.requires_grad_(False).eval(),)  # a tuple: not a sub-module
        width = teacher.config.width
        self.to_latents = nn.Linear(config.decoder_width, width, dtype=DTYPE).apply(initialize)
        self.to_pooled: nn.Module | None = None
        if pooled_weight:
            self.to_pooled = nn.Linear(config.width, width, dtype=DTYPE).apply(initialize)
        if not pixel_weight:
            self.decoder.predict.requires_grad_(False)

    @property
    def teacher(self) -> Encoder:
        """The frozen encoder."""
        return self._teacher[0]

    def _apply(self, fn: Any, recurse: bool = True) -> LatentPredictor:
        """Also move the teacher to the device."""
        super()._apply(fn, recurse)
        self.teacher._apply(fn, recurse)
        return self

    def forward(self, spectrogram: Tensor, mask: Mask) -> Tensor:
        """Weighted sum of the mean squared errors; arguments as for `MaskedAutoencoder`."""
        whole = self.latents(spectrogram)  # (b, l, d)
        crops = self.repeated(spectrogram, mask)
        visible = self.encoder(crops, mask.visible)
        tokens = self.decoder.tokens(visible, mask, targets=mask.masked)
        target = gather_tokens(self.repeated(whole, mask), mask.masked)
        loss = F.mse_loss(self.to_latents(tokens).float(), target)
        if self.pixel_weight:
            pixels = self.decoder.predict(tokens).float()
            loss = loss + self.pixel_weight * F.mse_loss(pixels, super().target(crops, mask))
        if self.to_pooled is not None:
            mean = visible[:, int(self.config.cls_token) :].mean(1)
            pooled = self.repeated(whole.mean(1), mask)
            loss = loss + self.pooled_weight * F.mse_loss(self.to_pooled(mean).float(), pooled)
        return loss

    @torch.no_grad()
    def latents(self, spectrogram: Tensor) -> Tensor:
        """Targets for all patches: (b, f, t) -> (b, l, d) float32, d of the teacher.

        Each block's output is normalised per channel over the patches of the clip or of the batch;
        their mean is normalised per patch over the channels.
        """
        first = int(self.teacher.config.cls_token)
        total = torch.zeros((), device=spectrogram.device)
        for tokens in self.teacher(spectrogram, layers=range(self.teacher.config.depth)):
            patches = tokens[:, first:].float().transpose(1, 2)  # (b, d, l)
            if self.target_norm == "clip":
                total = total + F.instance_norm(patches)
            else:
                total = total + F.batch_norm(patches, None, None, training=True)
        return F.layer_norm((total / self.teacher.config.depth).transpose(1, 2), (total.shape[1],))

    def target(self, spectrogram: Tensor, mask: Mask) -> Tensor:
        """Targets of the masked patches: (b, f, t) -> (b, l - k, d) float32."""
        return gather_tokens(self.latents(spectrogram), mask.masked)


# ---------------------------------------------------------------------------------------------
# Weights
# ---------------------------------------------------------------------------------------------
def make_model(
    config: ModelConfig, settings: Settings, resumed: dict[str, Tensor] | None
) -> MaskedAutoencoder:
    """The model with its weights: resumed, from `init_from`, or random by the seed.

    Raises:
        FileNotFoundError, ValueError: `init_from` or `teacher` cannot be read or does not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        if settings.teacher is None:
            model = MaskedAutoencoder(config)
        else:
            teacher = load_teacher(settings.teacher, config)
            weights = settings.pixel_weight, settings.pooled_weight
            model = LatentPredictor(config, teacher, *weights, settings.target_norm)
    if resumed is not None:
        model.load_state_dict(resumed)
    elif settings.init_from is not None:
        _start_from(load_checkpoint(settings.init_from), model, settings)
    return model


def load_teacher(source: str, config: ModelConfig) -> Encoder:
    """The encoder of a weights file as a teacher for a student of this configuration.

    Raises:
        FileNotFoundError, ValueError: it cannot be read, or its patches or statistics differ.
    """
    weights = load_checkpoint(source)
    name = f"teacher {source}"
    same = ["n_mels", "patch_mels", "patch_frames", "sample_rate"]
    _check_same(weights.config, config, name, same)
    if weights.config.unit_frames < config.unit_frames:
        raise ValueError(
            f"{name}: its units have {weights.config.unit_frames} frames, fewer than unit_frames "
            f"({config.unit_frames})"
        )
    old = weights.config
    if _statistics_apart(old, config):
        raise ValueError(
            f"{name}: it was trained with mean {old.norm_mean:.4f}, std {old.norm_std:.4f} and "
            f"would be given input with mean {config.norm_mean:.4f}, std {config.norm_std:.4f}; "
            f"set norm_mean={old.norm_mean:.6g} norm_std={old.norm_std:.6g}"
        )
    encoder = Encoder(weights.config)
    weights.load_into(encoder)
    return encoder


def _start_from(weights: Checkpoint, model: MaskedAutoencoder, settings: Settings) -> None:
    name, old, new = f"init_from {settings.init_from}", weights.config, model.config
    decoder = weights.has_decoder and settings.objective == "pixels"
    same = ["heads", "patch_mels", "patch_frames", "cls_token", "sample_rate"]
    if decoder:
        same += ["decoder_heads", "decoder_positions", "norm_pixels"]
    # These do not change shapes: the weights would load, but would not fit.
    _check_same(old, new, name, same)
    if _statistics_apart(old, new):
        log.warning(
            "%s: the statistics of the log-mel values were mean %.2f, std %.2f and are now "
            "mean %.2f, std %.2f",
            name,
            *(old.norm_mean, old.norm_std, new.norm_mean, new.norm_std),
        )
    try:
        weights.load_into(model.encoder)
        if decoder:
            weights.load_into(model.decoder, "decoder.")
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _check_same(old: ModelConfig, new: ModelConfig, name: str, fields: list[str]) -> None:
    before, now = ({field: getattr(config, field) for field in fields} for config in (old, new))
    if changed := differences(before, now):
        raise ValueError(f"{name}: {'; '.join(changed)}. Set it as it was")


def _statistics_apart(old: ModelConfig, new: ModelConfig) -> bool:
    shift = abs(old.norm_mean - new.norm_mean) / new.norm_std
    return shift + abs(old.norm_std / new.norm_std - 1) > STATISTICS_APART
