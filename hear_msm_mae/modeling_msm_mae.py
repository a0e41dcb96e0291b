"""The models of hear_msm_mae for Hugging Face Transformers.

`model.save_pretrained(folder, transformers=True)` copies this file and the core files that it
imports into the folder. There `AutoModel.from_pretrained(folder, trust_remote_code=True)` needs
torch, numpy, einops and Transformers, and not this package. Where the package is installed,
`import hear_msm_mae.transformers` registers the classes, and no code is taken from the folder.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import einops  # noqa: F401  (Transformers asks for what this file imports; encoder.py needs it)
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import BatchFeature, PretrainedConfig, PreTrainedModel, SequenceFeatureExtractor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .checks import check_waveforms
from .config import SAMPLE_RATE, ModelConfig
from .encoder import Encoder, initialize, sincos_2d
from .log_mel import LogMel
from .model import HearModel
from .options import resolve_options

# Some are not used here: early versions of Transformers 5 copy only what this very file imports.
from .packed import Linear  # noqa: F401
from .pooling import Sums  # noqa: F401
from .ragged import frames, scenes
from .timeline import Timeline  # noqa: F401

logger = logging.getLogger(__name__)


class MsmMaeConfig(PretrainedConfig):  # type: ignore[misc]
    """The fields of `ModelConfig` and one option of `load_model`.

    Args:
        timestamp_hop_ms: distance of the frame embeddings; None: the default of `load_model`.
        fields: of `ModelConfig`, and those that every configuration of Transformers has.
    """

    model_type = "msm_mae"
    attribute_map = {"num_hidden_layers": "depth", "num_attention_heads": "heads"}  # noqa: RUF012

    def __init__(self, timestamp_hop_ms: int | None = None, **fields: Any) -> None:
        self.timestamp_hop_ms = timestamp_hop_ms
        for field in dataclasses.fields(ModelConfig):
            setattr(self, field.name, fields.pop(field.name, field.default))
        super().__init__(**fields)

    @property
    def sizes(self) -> ModelConfig:
        """The configuration as the rest of the package has it.

        Raises:
            ValueError: an impossible value; the message names the field.
        """
        names = [field.name for field in dataclasses.fields(ModelConfig)]
        return ModelConfig(**{name: getattr(self, name) for name in names})

    @property
    def hidden_size(self) -> int:
        """Size of a frame embedding."""
        return self.sizes.frame_embedding_size

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As in Transformers, but the configuration of another architecture is refused."""
        if (found := config_dict.get("model_type", cls.model_type)) != cls.model_type:
            raise ValueError(
                f"the folder holds a model of another architecture: the model_type in its "
                f"config.json is {found!r}, expected {cls.model_type!r}"
            )
        return super().from_dict(config_dict, **kwargs)


class MsmMaeFeatureExtractor(SequenceFeatureExtractor):  # type: ignore[misc]
    """Waveforms of any lengths -> one padded batch and its mask; the log-mel is in the model.

    Args:
        sampling_rate: of the waveforms, in Hz.
        options: of `SequenceFeatureExtractor`.
    """

    model_input_names = ["input_values", "attention_mask"]  # noqa: RUF012

    def __init__(self, sampling_rate: int = SAMPLE_RATE, **options: Any) -> None:
        defaults = {"feature_size": 1, "padding_value": 0.0, "return_attention_mask": True}
        super().__init__(sampling_rate=sampling_rate, **(defaults | options))

    def __call__(
        self,
        raw_speech: Any,
        sampling_rate: int | None = None,
        padding: bool | str = True,
        return_tensors: str | None = None,
        **options: Any,
    ) -> BatchFeature:
        """Pad clips to one length.

        Args:
            raw_speech: a waveform (n,), mono in [-1, 1], as array, tensor or list of floats; or a
                sequence of such waveforms.
            sampling_rate: of the waveforms, in Hz; other rates than the model's are refused.
            padding, return_tensors, options: see `SequenceFeatureExtractor.pad`.

        Returns:
            `input_values` (b, n) float32, and `attention_mask` (b, n): 1 where a sample is real.

        Raises:
            ValueError: another sampling rate, or clips that are not mono waveforms in floating
                point.
        """
        if sampling_rate is None:
            logger.warning("no sampling_rate given; expected %d Hz", self.sampling_rate)
        elif sampling_rate != self.sampling_rate:
            raise ValueError(
                f"sampling_rate is {sampling_rate} Hz, but the model takes "
                f"{self.sampling_rate} Hz; resample the waveforms first"
            )
        if len(raw_speech) and np.ndim(raw_speech[0]) == 0:
            raw_speech = [raw_speech]
        clips = [np.asarray(clip) for clip in raw_speech]
        if not clips or any(c.ndim != 1 or not c.size or c.dtype.kind != "f" for c in clips):
            found = [(clip.shape, str(clip.dtype)) for clip in clips[:3]]
            raise ValueError(
                f"expected mono waveforms of shape (n,) each, in floating point, got {found}"
            )
        clips = [clip.astype(np.float32) for clip in clips]
        batch = BatchFeature({"input_values": clips})
        return self.pad(batch, padding=padding, return_tensors=return_tensors, **options)


@dataclasses.dataclass
class MsmMaeOutput(BaseModelOutputWithPooling):  # type: ignore[misc]
    """Embeddings of a batch of b clips.

    Attributes:
        last_hidden_state: (b, t, d) float32 frame embeddings; zero behind the end of a clip.
        pooler_output: (b, d) float32 scene embeddings.
        timestamps: (b, t) centres of the frames in ms.
        frame_mask: (b, t) True where a frame belongs to the clip.
    """

    timestamps: Tensor | None = None
    frame_mask: Tensor | None = None


class MsmMaeModel(PreTrainedModel):  # type: ignore[misc]
    """Scene and frame embeddings of waveforms, those of `hear_msm_mae` for each clip alone.

    Attributes:
        hear: the `HearModel`; where hear_msm_mae is installed, its `save_pretrained` writes
            fine-tuned weights for `load_model`.
    """

    config_class = MsmMaeConfig
    base_model_prefix = "hear"  # the tensors in files of hear_msm_mae have no prefix
    main_input_name = "input_values"
    input_modalities = ("audio",)
    _supports_sdpa = True
    _keys_to_ignore_on_load_unexpected = [r"^decoder\."]  # noqa: RUF012

    def __init__(self, config: MsmMaeConfig) -> None:
        super().__init__(config)
        options = resolve_options(config.sizes, {"timestamp_hop_ms": config.timestamp_hop_ms})
        without_weights: Any = SimpleNamespace(config=config.sizes, decoder_tensors={})
        self.hear = HearModel(without_weights, options, Encoder(config.sizes))
        # While Transformers builds a model, the dtype that the caller asks for is the default one.
        self.hear.encoder.to(torch.get_default_dtype())
        self.post_init()

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """As in Transformers, but weights that lack tensors are refused.

        Raises:
            ValueError: the weights are of another architecture.
        """
        model, info = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        if missing := sorted(info["missing_keys"]):
            raise ValueError(
                f"the weights in {args[0] if args else 'the folder'} are of another architecture: "
                f"they lack {missing[0]!r} and {len(missing) - 1} other tensors"
            )
        model._set_tables()
        return (model, info) if output_loading_info else model

    def _set_tables(self) -> None:
        """Compute what files do not hold, since Transformers builds models without values."""
        sizes, encoder = self.hear.config, self.hear.encoder
        table = sincos_2d(sizes.rows, sizes.columns, sizes.width)
        encoder.positions = table.to(encoder.patch_embed.weight)
        fresh = LogMel(sizes.n_mels, sizes.norm_mean, sizes.norm_std, sizes.sample_rate)
        self.hear.frontend = fresh.to(encoder.patch_embed.weight.device)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Draw new weights."""
        # Transformers marks what it has loaded, and asks for modules of which a buffer is not.
        if any(hasattr(p, "_is_hf_initialized") for p in module.parameters(recurse=False)):
            return
        initialize(module)
        if isinstance(module, Encoder) and module.cls_token is not None:
            nn.init.normal_(module.cls_token, std=0.02)

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        frames: bool = True,
        return_dict: bool | None = None,
    ) -> MsmMaeOutput | tuple[Tensor, ...]:
        """Embed a batch of clips; what a mask hides does not touch the embeddings.

        Args:
            input_values: (b, n) float waveforms at `config.sample_rate` in [-1, 1].
            attention_mask: (b, n), 0 where a sample is padding; by default all are real.
            frames: whether to compute frame embeddings, several times the work of a scene.
            return_dict: False for a tuple.

        Raises:
            TypeError, ValueError: unusable waveforms, or a clip that the mask hides completely.
        """
        waveforms = check_waveforms(input_values)
        clips: Sequence[Tensor] = waveforms.unbind()
        if attention_mask is not None:
            if attention_mask.shape != waveforms.shape:
                raise ValueError(
                    f"attention_mask must have the shape of input_values, "
                    f"{tuple(waveforms.shape)}, got {tuple(attention_mask.shape)}"
                )
            kept = attention_mask.to(waveforms.device).bool()
            clips = [clip[real] for clip, real in zip(clips, kept, strict=True)]
        more = self._frames(clips) if frames else {}
        output = MsmMaeOutput(pooler_output=scenes(self.hear, clips), **more)
        return output if return_dict in (None, True) else output.to_tuple()

    def _frames(self, clips: Sequence[Tensor]) -> dict[str, Tensor]:
        embeddings, timestamps = frames(self.hear, clips)
        real = [torch.ones_like(times, dtype=torch.bool) for times in timestamps]
        return {
            "last_hidden_state": pad_sequence(embeddings, batch_first=True),
            "timestamps": pad_sequence(timestamps, batch_first=True),
            "frame_mask": pad_sequence(real, batch_first=True),
        }
