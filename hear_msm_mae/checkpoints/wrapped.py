"""Find the encoder in a file with other modules: heads, text encoders, projections, wrappers.

Fine-tuned models and models of audio and text store the encoder below a prefix, such as "backbone."
or "audio_encoder.". It is found by the names of tensors that every encoder has.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping
from itertools import takewhile

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

_EVERY_ENCODER = ("patch_embed.proj.weight", "norm.weight", "blocks.0.mlp.fc1.weight")
# Names of the tensors of an encoder and its decoder. Unknown tensors that are named after tokens or
# positions are included, so that such a file is refused: its embeddings would depend on them. A
# target is a second encoder that follows the first one in pretraining; the first one is used.
_PARTS = re.compile(r"(patch_embed|blocks|norm(_pre)?|decoder\w*)\.|(?!target)\w*(token|pos)\w*$")
_MOST_NAMED = 8  # groups of tensors that the message lists


def audio_encoder(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the encoder and its decoder, without the prefix of their names.

    A log message lists the other tensors, which are ignored.

    Args:
        state: tensors by name.

    Returns:
        The tensors; all of them if no encoder is found.

    Raises:
        ValueError: there are several different encoders for spectrograms.
    """
    prefix = _prefix(state)
    if prefix is None:
        return dict(state)
    inside = {k.removeprefix(prefix): k for k in state if k.startswith(prefix)}
    kept = {inner: state[name] for inner, name in inside.items() if _PARTS.match(inner)}
    left_out = state.keys() - {prefix + inner for inner in kept}
    groups = Counter(_group(name, prefix) for name in left_out)
    if groups:
        named = [f"{group} (tensors: {count})" for group, count in sorted(groups.items())]
        more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
        logger.warning(
            "only the audio encoder is read%s; left out: %s%s",
            f", from {prefix!r}" if prefix else "",
            ", ".join(named[:_MOST_NAMED]),
            more,
        )
    return kept


def _prefix(state: Mapping[str, Tensor]) -> str | None:
    """Prefix of the encoder's names; None if there is no encoder."""
    end = _EVERY_ENCODER[0]
    prefixes = [name.removesuffix(end) for name in state if name.endswith(end)]
    found = [p for p in prefixes if all(p + name in state for name in _EVERY_ENCODER)]
    found = [p for p in found if not p or p.endswith(".")]
    if "" in found:
        return ""
    if len(found) > 1:  # an encoder for images has three channels
        found = [p for p in found if state[p + end].shape[1:2] == (1,)]
        found = [p for p in found if "target" not in p] or found
    found.sort(key=lambda prefix: (prefix.count("."), prefix))
    for other in found[1:]:
        if not _same(state, found[0], other):
            raise ValueError(
                f"it holds several encoders, below {found[0]!r} and {other!r}; save the state "
                "dictionary of the one that is wanted"
            )
    return found[0] if found else None


def _same(state: Mapping[str, Tensor], first: str, second: str) -> bool:
    """Whether both prefixes have the same tensors, because a module was registered twice."""
    below = [
        {k.removeprefix(p): v for k, v in state.items() if k.startswith(p)} for p in (first, second)
    ]
    return all(
        name in below[1] and torch.equal(tensor, below[1][name])
        for name, tensor in below[0].items()
        if _PARTS.match(name)
    )


def _group(name: str, prefix: str) -> str:
    """The module of a tensor, as far as its name is that of the encoder, and one step on."""
    parts = name.split(".")
    steps = zip(parts, prefix.split("."))  # noqa: B905  (either may be longer)
    shared = sum(1 for _ in takewhile(lambda step: step[0] == step[1], steps))
    return ".".join(parts[: shared + 1])
