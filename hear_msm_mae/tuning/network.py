"""The encoder with a linear classifier on its scene embeddings; both are trained."""

from __future__ import annotations

import re

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ..answers.fit import Linear
from ..encoder import DTYPE
from ..log_mel import SILENCE
from ..model import HearModel
from ..pooling import Sums, moments_of, pooled
from ..pretrain.augmentation import to_log_mel, to_power
from .crops import Batch

_BLOCK = re.compile(r"model\.encoder\.blocks\.(\d+)\.")


class Network(nn.Module):
    """Computes the loss of crops; starts as a linear probe (Kumar et al. 2022, LP-FT).

    Args:
        model: the model whose encoder is trained in place.
        linear: the probe.
        embeddings: (n, d) embeddings that the probe was trained on. They determine mean and scale
            by which the classifier standardises its input, so that all weights learn at the same
            rate and a step moves the classifier no more than the encoder.
        several: whether a recording may have several labels.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        model: HearModel,
        linear: Linear,
        embeddings: NDArray[np.floating],
        several: bool,
    ) -> None:
        super().__init__()
        self.model, self.several = model, several
        mean, scale = embeddings.mean(0, dtype=np.float64), embeddings.std(0, dtype=np.float64)
        scale = np.maximum(scale, 1e-3 * max(1e-8, float(scale.mean()))) * np.sqrt(len(mean))
        self.register_buffer("mean", torch.from_numpy(mean).float())
        self.register_buffer("scale", torch.from_numpy(scale).float())
        self.head = nn.Linear(len(mean), len(linear.bias), dtype=DTYPE)
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(linear.weight * scale))
            self.head.bias.copy_(torch.from_numpy(linear.bias + linear.weight @ mean))

    def forward(self, spectrogram: Tensor, lengths: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of crops.

        Shape:
            - spectrogram: (b, f, t) normalised log-mel, as `arguments` makes it
            - lengths: (b,) frames of each crop; targets: (b, c) from 0 to 1
        """
        scenes = self.scenes(spectrogram, lengths)
        with torch.autocast(spectrogram.device.type, enabled=False):
            logits = self.head((scenes - self.mean) / self.scale)
            if self.several:
                return F.binary_cross_entropy_with_logits(logits, targets)
            return F.cross_entropy(logits, targets)

    def scenes(self, spectrogram: Tensor, lengths: Tensor) -> Tensor:
        """Scene embeddings of crops, equal to those of the model: (b, f, t), (b,) -> (b, d)."""
        unit, patch = self.model.config.unit_frames, self.model.config.patch_frames
        device, sizes = spectrogram.device, lengths.tolist()
        alike: dict[int, list[tuple[int, int]]] = {}  # crop and first frame of units of one length
        for crop, length in enumerate(sizes):
            for start in range(0, length, unit):
                columns = -(-min(unit, length - start) // patch)
                alike.setdefault(columns, []).append((crop, start))
        powers = len(self.model.options.scene_pooling.split("+"))
        wide = torch.float32 if device.type == "mps" else torch.float64
        d = self.model.timestamp_embedding_size
        moments = torch.zeros(len(sizes), powers, d, dtype=wide, device=device)
        for columns, places in alike.items():
            units = [spectrogram[crop, :, a : a + columns * patch] for crop, a in places]
            embeddings = self.model.embed_units(torch.stack(units))  # (u, c, d)
            crops, starts = torch.tensor(places, device=device).unbind(1)
            first = starts[:, None] + patch * torch.arange(columns, device=device)  # (u, c)
            frames = (lengths[crops, None] - first).clamp(max=patch)  # of the crop in each column
            with torch.autocast(device.type, enabled=False):
                parts = moments_of(embeddings, frames.to(wide), powers)
                moments = moments.index_add(0, crops, parts)
        return torch.stack([pooled(Sums(*x)) for x in zip(moments, sizes, strict=True)])

    def arguments(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Arguments of `forward`: crops mixed in power, normalised, padded to whole patches."""
        share = batch.shares[:, None]
        x = batch.frames.float()
        patch = self.model.config.patch_frames
        x = F.pad(x, (0, 0, 0, -x.shape[1] % patch), value=SILENCE)
        power = to_power(x)
        mixed = share[..., None] * power + (1 - share[..., None]) * power[batch.partners]
        frontend = self.model.frontend
        x = (to_log_mel(mixed) - frontend.norm_mean) / frontend.norm_std
        # The partner is cut off at the end of the crop.
        silence = (SILENCE - frontend.norm_mean) / frontend.norm_std
        outside = torch.arange(x.shape[1], device=x.device) >= batch.lengths[:, None]
        x = torch.where(outside[..., None], silence, x)
        targets = share * batch.targets + (1 - share) * batch.targets[batch.partners]
        return x.transpose(1, 2), batch.lengths, targets

    def linear(self) -> Linear:
        """The current classifier for embeddings of the model, without standardisation."""
        weight, bias, mean, scale = (
            x.detach().double().cpu().numpy()
            for x in (self.head.weight, self.head.bias, self.mean, self.scale)
        )
        weight = weight / scale
        return Linear(weight, bias - weight @ mean)

    # -----------------------------------------------------------------------------------------
    # Trained parameters
    # -----------------------------------------------------------------------------------------
    def depth(self, name: str) -> int:
        """Depth of a parameter below the classifier; negative if embeddings do not depend on it."""
        last = max(self.model.options.layers)  # the block whose output is the embedding
        if match := _BLOCK.match(name):
            return last + 1 - int(match[1]) if int(match[1]) <= last else -1
        if name.startswith("model.encoder.norm."):
            return 0 if last == self.model.config.depth - 1 else -1
        return last + 2 if name.startswith("model.encoder.") else 0  # patches and CLS token

    def freeze(self, blocks: int | None) -> None:
        """Train the classifier and the last blocks; None trains all that embeddings depend on."""
        for name, parameter in self.named_parameters():
            depth = self.depth(name)
            parameter.requires_grad_(depth >= 0 and (blocks is None or depth <= blocks))

    def learnt(self) -> dict[str, Tensor]:
        """Trained parameters by name."""
        return {n: p.detach() for n, p in self.named_parameters() if p.requires_grad}

    def restore(self, learnt: dict[str, Tensor]) -> None:
        """Set the parameters that `learnt` has returned."""
        mine = self.learnt()
        for name, value in learnt.items():
            mine[name].copy_(value)
