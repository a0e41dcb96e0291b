"""Signal constants and the model configuration that is stored with the weights."""

from __future__ import annotations

import dataclasses
import json
import re

SAMPLE_RATE = 16_000  # Hz, the default of configurations
SAMPLE_RATES = (16_000, 32_000)
WINDOW_MS = 25  # length of a spectrogram frame, and of its FFT
MS_PER_FRAME = 10  # distance of spectrogram frames
WINDOW_LENGTH = WINDOW_MS * SAMPLE_RATE // 1000  # 400 samples
HOP_LENGTH = MS_PER_FRAME * SAMPLE_RATE // 1000  # 160 samples
F_MIN = 50.0  # Hz, lower edge of the first mel band
F_MAX = SAMPLE_RATE / 2  # Hz, upper edge of the last mel band
LOG_EPS = 2.0**-23  # added to the power before the logarithm

# Used if a checkpoint has no statistics: log-mel mean and standard deviation of AudioSet.
DEFAULT_NORM_MEAN = -7.1
DEFAULT_NORM_STD = 4.2

SCENE_POOLINGS = ("mean", "mean+std")

# Bounds of sizes that the shapes of the weights do not determine (for the others see
# checkpoints/layout.py). They are far above those of any model of this family. A file with larger
# sizes is refused, because it could fill the memory.
MAX_PATCHES = 2**16  # in one unit; they determine the size of position table and attention
_RANGES = {
    "n_mels": (1, 1024),  # the spectrum has 201 bins
    "mlp_ratio": (1e-3, 1e3),
    "norm_mean": (-1e6, 1e6),  # log-mel values lie between -16 and 70
    "norm_std": (1e-6, 1e6),
    "embedding_scale": (1e-6, 1e6),
}

_NAME = re.compile(
    r"(?P<n_mels>\d+)x(?P<unit_frames>\d+)p(?P<patch_mels>\d+)x(?P<patch_frames>\d+)"
    r"(?:p(?P<khz>\d+)k)?"
)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Sizes, statistics and defaults of a model, as stored with its weights.

    Raises:
        ValueError: a value is impossible; the message names the field.
    """

    n_mels: int = 80
    """Mel bins of the input."""
    unit_frames: int = 208
    """Unit: the longest input, in frames of 10 ms, that the encoder takes at once."""
    patch_mels: int = 16
    """Patch height in mel bins."""
    patch_frames: int = 16
    """Patch width in frames."""
    width: int = 768
    """Channels of the encoder."""
    depth: int = 12
    """Transformer blocks of the encoder."""
    heads: int = 12
    """Attention heads of the encoder."""
    mlp_ratio: float = 4.0
    """Hidden size of the blocks' MLP relative to the width (encoder and decoder)."""
    cls_token: bool = True
    """Whether a learned CLS token is put before the patch tokens."""
    decoder_width: int = 384
    """Channels of the pretraining decoder."""
    decoder_depth: int = 4
    """Transformer blocks of the pretraining decoder."""
    decoder_heads: int = 6
    """Attention heads of the pretraining decoder."""
    decoder_positions: str = "1d"
    """Decoder position table: "1d" sinusoids over the token index or "2d" sin-cos."""
    norm_pixels: bool = False
    """Whether the decoder predicts patches normalised to mean 0 and variance 1 each."""
    norm_mean: float = DEFAULT_NORM_MEAN
    """Mean that is subtracted from the log-mel spectrogram (natural log of power)."""
    norm_std: float = DEFAULT_NORM_STD
    """Standard deviation that the log-mel spectrogram is divided by."""
    layer: int | None = None
    """Block whose output is the embedding by default (negative: from the end). None means the last
    block with the final LayerNorm. Earlier blocks may give better embeddings, because the last
    ones are specialised in reconstruction."""
    embedding_scale: float = 1.0
    """Factor of the embeddings of the default block. It keeps the large values of inner blocks
    small, and with them their rounding errors."""
    sample_rate: int = SAMPLE_RATE
    """Sample rate of the waveforms in Hz; the mel bands reach up to half of it."""
    scene_pooling: str = "mean"
    """Default pooling of scene embeddings: "mean" of the frame embeddings over time, or "mean+std",
    which appends their standard deviation (twice as many values)."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            # With `from __future__ import annotations` field.type is a string.
            if field.type == "int" and (type(value) is not int or value < 1):
                raise ValueError(f"{field.name} must be a positive int, got {value!r}")
            if field.type == "float" and (
                isinstance(value, bool) or not isinstance(value, (int, float))
            ):
                raise ValueError(f"{field.name} must be a number, got {value!r}")
            if field.type == "bool" and not isinstance(value, bool):
                raise ValueError(f"{field.name} must be true or false, got {value!r}")
        _require_multiple("n_mels", self.n_mels, "patch_mels", self.patch_mels)
        _require_multiple("unit_frames", self.unit_frames, "patch_frames", self.patch_frames)
        for part in ("", "decoder_"):
            width, heads = getattr(self, f"{part}width"), getattr(self, f"{part}heads")
            _require_multiple(f"{part}width", width, f"{part}heads", heads)
        if self.width % 4:
            raise ValueError(
                f"width must be a multiple of 4 (2-D sin-cos positions), got {self.width}"
            )
        _require_one_of("decoder_positions", self.decoder_positions, ("1d", "2d"))
        _require_one_of("sample_rate", self.sample_rate, SAMPLE_RATES)
        _require_one_of("scene_pooling", self.scene_pooling, SCENE_POOLINGS)
        divisor = 4 if self.decoder_positions == "2d" else 2
        if self.decoder_width % divisor:
            raise ValueError(
                f"decoder_width must be a multiple of {divisor} for "
                f"{self.decoder_positions} positions, got {self.decoder_width}"
            )
        for name, (low, high) in _RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(
                    f"{name} must be between {low:g} and {high:g}, got {getattr(self, name)}"
                )
        if self.rows * self.columns > MAX_PATCHES:
            raise ValueError(
                f"unit_frames ({self.unit_frames}) is too long: a unit of {self.name} has "
                f"{self.rows * self.columns} patches, at most {MAX_PATCHES} are possible"
            )
        if self.layer is not None and (
            type(self.layer) is not int or not -self.depth <= self.layer < self.depth
        ):
            raise ValueError(
                f"layer must be null or an index from {-self.depth} to {self.depth - 1}, "
                f"got {self.layer!r}"
            )

    @property
    def hop_length(self) -> int:
        """Samples between neighbouring spectrogram frames."""
        return MS_PER_FRAME * self.sample_rate // 1000

    def num_frames(self, samples: int) -> int:
        """Number of spectrogram frames of a clip; frame j is centred at 10 j ms."""
        return 1 + samples // self.hop_length

    @property
    def rows(self) -> int:
        """Patches along the mel axis."""
        return self.n_mels // self.patch_mels

    @property
    def columns(self) -> int:
        """Patches along the time axis of a whole unit."""
        return self.unit_frames // self.patch_frames

    @property
    def patch_area(self) -> int:
        """Values in one patch."""
        return self.patch_mels * self.patch_frames

    @property
    def frame_embedding_size(self) -> int:
        """Size of one frame embedding: the frequency patches of a column, concatenated."""
        return self.rows * self.width

    @property
    def native_hop_ms(self) -> int:
        """Distance of neighbouring patches in ms."""
        return self.patch_frames * MS_PER_FRAME

    @property
    def name(self) -> str:
        """The model name, e.g. "80x208p16x16": mels x frames of a unit, p, patch size.

        A rate other than 16 kHz follows, as in "80x608p16x16p32k".

        >>> ModelConfig().name
        '80x208p16x16'
        """
        rate = "" if self.sample_rate == SAMPLE_RATE else f"p{self.sample_rate // 1000}k"
        return f"{self.n_mels}x{self.unit_frames}p{self.patch_mels}x{self.patch_frames}{rate}"

    def to_json(self) -> str:
        """The configuration as a JSON object, the form stored in checkpoints."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ModelConfig:
        """Inverse of `to_json`.

        Raises:
            ValueError: not a JSON object, an unknown key, or an impossible value.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:  # RecursionError: brackets without end
            raise ValueError(f"the model configuration is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise ValueError("the model configuration is not a JSON object")
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(
                f"unknown key(s) {unknown} in the model configuration; known: {sorted(known)}"
            )
        return cls(**values)


def parse_name(name: str) -> dict[str, int] | None:
    """Sizes in a model name; None if it has none.

    The name may be part of a longer one (a folder or file name).

    >>> parse_name("msm_mae_80x208p16x16.pth")
    {'n_mels': 80, 'unit_frames': 208, 'patch_mels': 16, 'patch_frames': 16, 'sample_rate': 16000}
    """
    matches = list(_NAME.finditer(name))
    if not matches:
        return None
    fields = matches[-1].groupdict(default="16")  # the innermost name is the closest one
    sizes = {field: int(value) for field, value in fields.items()}
    return sizes | {"sample_rate": 1000 * sizes.pop("khz")}


def _require_multiple(name: str, value: int, by_name: str, by: int) -> None:
    if value % by:
        raise ValueError(f"{name} ({value}) must be a multiple of {by_name} ({by})")


def _require_one_of(name: str, value: object, valid: tuple[object, ...]) -> None:
    if value not in valid:
        raise ValueError(f"{name} must be one of {list(valid)}, got {value!r}")
