"""Encoder: log-mel spectrogram -> patches -> positions -> transformer blocks -> embeddings."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .config import ModelConfig
from .packed import Linear, PackedProduct

NORM_EPS = 1e-6
DTYPE = torch.float32  # type of a new model; torch's default type is ignored


# ---------------------------------------------------------------------------------------------
# Patches
# ---------------------------------------------------------------------------------------------
def patchify(spectrogram: Tensor, config: ModelConfig) -> Tensor:
    """Cut spectrograms into patches, frequency-major: index = row * columns + column.

    Shape:
        - spectrogram: (b, f, t), t a multiple of the patch width
        - output: (b, l, a), l = rows * columns patches of a = p_f * p_t values

    Raises:
        ValueError: the spectrogram does not divide into patches.

    >>> patchify(torch.zeros(2, 80, 208), ModelConfig()).shape
    torch.Size([2, 65, 256])
    """
    p_f, p_t = config.patch_mels, config.patch_frames
    if spectrogram.ndim != 3 or spectrogram.shape[1] != config.n_mels or spectrogram.shape[2] % p_t:
        raise ValueError(
            f"spectrogram must have shape (b, {config.n_mels}, multiple of {p_t}), "
            f"got {tuple(spectrogram.shape)}"
        )
    return rearrange(spectrogram, "b (f p) (t q) -> b (f t) (p q)", p=p_f, q=p_t)


def unpatchify(patches: Tensor, config: ModelConfig) -> Tensor:
    """Inverse of `patchify`.

    Shape:
        - patches: (b, l, a)
        - output: (b, f, t)
    """
    p_f, rows = config.patch_mels, config.rows
    return rearrange(patches, "b (f t) (p q) -> b (f p) (t q)", f=rows, p=p_f)


# ---------------------------------------------------------------------------------------------
# Positions
# ---------------------------------------------------------------------------------------------
def sincos_1d(positions: Tensor, width: int) -> Tensor:
    """All sines, then all cosines, of positions / 10000**(2 i / width).

    Shape:
        - positions: (l,) float64
        - output: (l, width) float64
    """
    omega = 10000.0 ** (-torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angles = torch.outer(positions.double(), omega)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def sincos_2d(rows: int, columns: int, width: int) -> Tensor:
    """Fixed 2-D table of the MAE paper's released code: time in the first half, frequency second.

    Shape:
        - output: (rows, columns, width) float32
    """
    row, column = torch.arange(rows), torch.arange(columns)
    time = sincos_1d(column, width // 2).expand(rows, columns, -1)
    frequency = sincos_1d(row, width // 2)[:, None].expand(rows, columns, -1)
    return torch.cat([time, frequency], dim=2).float()


# ---------------------------------------------------------------------------------------------
# Blocks
# ---------------------------------------------------------------------------------------------
class QKVLinear(PackedProduct):
    """Joint query/key/value projection with query and value biases; the key bias is always zero.

    Shape:
        - input: (b, l, d)
        - output: (b, l, 3 d)
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(3 * width, width, dtype=DTYPE))
        self.q_bias = nn.Parameter(torch.zeros(width, dtype=DTYPE))
        self.v_bias = nn.Parameter(torch.zeros(width, dtype=DTYPE))

    def forward(self, x: Tensor) -> Tensor:
        """(b, l, d) -> (b, l, 3 d)."""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        return self.product(x, bias)


class Attention(nn.Module):
    """Multi-head self-attention: (b, l, d) -> (b, l, d).

    `fused_attn` selects torch's fused attention or plain matrix products. The results are the same,
    the speed differs.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.fused_attn = True
        self.qkv = QKVLinear(width)
        self.proj = Linear(width, width, dtype=DTYPE)

    def forward(self, x: Tensor) -> Tensor:
        """(b, l, d) -> (b, l, d)."""
        query, key, value = self.split(x)
        if self.fused_attn:
            x = F.scaled_dot_product_attention(query, key, value)
        else:
            x = self.weights(query, key) @ value
        return self.proj(x.transpose(1, 2).flatten(2))  # (b, h, l, d/h) -> (b, l, d)

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """Query, key and value of each head, (b, h, l, d/h) each."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))  # (b, l, 3, h, d/h)
        return qkv.permute(2, 0, 3, 1, 4).unbind(0)

    @staticmethod
    def weights(query: Tensor, key: Tensor) -> Tensor:
        """Attention weights (b, h, l, l); the last axis (keys) sums to 1."""
        return (query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)).softmax(-1)


class Block(nn.Module):
    """Pre-norm transformer block with exact GELU: (b, l, d) -> (b, l, d)."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.norm1 = layer_norm(width)
        self.attn = Attention(width, heads)
        self.norm2 = layer_norm(width)
        self.mlp = nn.Sequential(
            OrderedDict(
                fc1=Linear(width, hidden, dtype=DTYPE),
                gelu=nn.GELU(),
                fc2=Linear(hidden, width, dtype=DTYPE),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """(b, l, d) -> (b, l, d)."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def make_blocks(width: int, depth: int, heads: int, mlp_ratio: float) -> nn.ModuleList:
    """Transformer blocks of an encoder or a decoder."""
    return nn.ModuleList(Block(width, heads, mlp_ratio) for _ in range(depth))


def layer_norm(width: int) -> nn.LayerNorm:
    """LayerNorm with the epsilon of this model family."""
    return nn.LayerNorm(width, eps=NORM_EPS, dtype=DTYPE)


def initialize(module: nn.Module) -> None:
    """MAE's initialisation: Xavier-uniform matrices, zero biases (use with `Module.apply`)."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, QKVLinear):
        for part in module.weight.chunk(3):  # three d x d matrices, not one 3d x d
            nn.init.xavier_uniform_(part)
        nn.init.zeros_(module.q_bias)
        nn.init.zeros_(module.v_bias)


# ---------------------------------------------------------------------------------------------
# Encoder
# ---------------------------------------------------------------------------------------------
class Encoder(nn.Module):
    """Vision Transformer on log-mel patches.

    Shape:
        - input: (b, f, t) normalised log-mel, t a multiple of the patch width and at most one
          unit; a shorter unit gets the matching columns of the position table
        - output: (b, [1 +] l, d), the CLS token first where the model has one
    """

    positions: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.patch_embed = Linear(config.patch_area, width, dtype=DTYPE)
        cls_token = nn.Parameter(torch.zeros(1, 1, width, dtype=DTYPE))
        self.cls_token = cls_token if config.cls_token else None
        # The table is fixed, so it is not stored with the weights.
        table = sincos_2d(config.rows, config.columns, width)
        self.register_buffer("positions", table, persistent=False)
        self.blocks = make_blocks(width, config.depth, config.heads, config.mlp_ratio)
        self.norm = layer_norm(width)
        self.apply(initialize)
        if self.cls_token is not None:
            nn.init.normal_(self.cls_token, std=0.02)

    def forward(
        self,
        spectrogram: Tensor,
        visible: Tensor | None = None,
        layers: Sequence[int] | None = None,
    ) -> Tensor | list[Tensor]:
        """Tokens after the last block and the final LayerNorm, or after each of several blocks.

        Args:
            spectrogram: (b, f, t).
            visible: (b, k) indices of the patches to encode, all of them by default. Tokens are
                dropped before the projection, so that masked patches cost nothing.
            layers: indices of blocks, negative from the end. Blocks above the highest are not
                run; the final LayerNorm is applied to the output of the last block alone.

        Returns:
            (b, [1 +] k, d) tokens, patches in the order of `visible`; with `layers` a list with
            such tokens for each of them.

        Raises:
            IndexError: no such block.
            ValueError: the spectrogram does not divide into patches or is longer than a unit.
        """
        last = len(self.blocks) - 1
        wanted = [last] if layers is None else [range(last + 1)[i] for i in layers]
        x = self._embed(spectrogram, visible)
        outputs: dict[int, Tensor] = {}
        for i, block in enumerate(islice(self.blocks, max(wanted) + 1)):
            x = block(x)
            if i in wanted:
                outputs[i] = self.norm(x) if i == last else x
        return outputs[last] if layers is None else [outputs[i] for i in wanted]

    def attention(self, spectrogram: Tensor, block: int = -1) -> Tensor:
        """Attention weights of one block (an index, negative from the end).

        Shape:
            - spectrogram: (b, f, t)
            - output: (b, h, [1 +] l, [1 +] l): for each head, the weights of all tokens (last axis,
              sum 1) in the output of each token (third axis)

        Raises:
            IndexError: no such block.
        """
        index = range(len(self.blocks))[block]
        x = self._embed(spectrogram, None)
        for earlier in islice(self.blocks, index):
            x = earlier(x)
        chosen: Any = self.blocks[index]
        query, key, _ = chosen.attn.split(chosen.norm1(x))
        return chosen.attn.weights(query, key)

    def frame_embeddings(self, tokens: Tensor) -> Tensor:
        """Drop CLS and concatenate the frequency patches of each column, low to high.

        Shape:
            - tokens: (b, [1 +] f t, d)
            - output: (b, t, f d)
        """
        patches = tokens[:, 1:] if self.config.cls_token else tokens
        return rearrange(patches, "b (f t) d -> b t (f d)", f=self.config.rows)

    def _embed(self, spectrogram: Tensor, visible: Tensor | None) -> Tensor:
        """Project patches, add positions, put CLS (which has no position) first."""
        columns = spectrogram.shape[-1] // self.config.patch_frames
        if columns > self.config.columns:
            raise ValueError(
                f"spectrogram has {spectrogram.shape[-1]} frames, but a unit of "
                f"{self.config.name} has at most {self.config.unit_frames}"
            )
        dtype = self.patch_embed.weight.dtype
        patches = patchify(spectrogram.to(dtype), self.config)  # (b, l, a)
        positions = self.positions[:, :columns].flatten(0, 1)  # (l, d)
        if visible is not None:
            patches = gather_tokens(patches, visible)
            positions = positions[visible]  # (b, k, d)
        x = self.patch_embed(patches) + positions
        if self.cls_token is not None:
            clips = x.shape[0]  # len(x) would be a constant in exported graphs
            x = torch.cat([self.cls_token.expand(clips, -1, -1).to(x.dtype), x], dim=1)
        return x


def gather_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """Pick tokens by index: (b, l, d), (b, k) -> (b, k, d)."""
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))
