"""Step 5: pieces of waveforms -> embeddings, in micro-batches that fit the device."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from .checks import check_waveforms
from .encoder import Encoder
from .log_mel import LogMel, mean_std
from .options import Options
from .pooling import Sums, moments_of, pooled
from .timeline import Piece, Timeline, gather_units

if TYPE_CHECKING:
    from . import checkpoints

logger = logging.getLogger(__name__)

# Tokens that a CPU encodes at once. More were not faster (benchmarks/inference.py).
CPU_TOKENS = 2048
# Most tokens that a GPU encodes at once; fewer if they do not fit into half of its free memory.
DEVICE_TOKENS = 2**17
_VALUES_PER_TOKEN = 24  # activations of a block that are in memory at once, relative to the width
# Log-mel frames that are computed before their units are encoded, so that units of many clips fill
# the micro-batches.
CPU_FRAMES = 12_000  # 2 minutes
DEVICE_FRAMES = 120_000


class HearModel(nn.Module):
    """Pretrained encoder behind the HEAR 2021 common API; made by `load_model`.

    Calling the model gives scene embeddings with gradients (for fine-tuning); the HEAR functions
    of this package track none.

    Args:
        checkpoint: configuration and tensors.
        options: from `hear_msm_mae.options.resolve_options`.
        encoder: a module that replaces the `Encoder` with the tensors of the checkpoint.

    Attributes:
        sample_rate: sample rate of the waveforms in Hz.
        scene_embedding_size, timestamp_embedding_size: numbers of values d of the embeddings.
        config: sizes of the model; options: options of `load_model`.
        frontend, encoder: waveform -> log-mel; log-mel -> tokens.
        decoder_tensors: the pretraining decoder, kept so that saved models can reconstruct; empty
            if the weights have none.

    Shape:
        - input: (b, n) float waveforms at `sample_rate` in [-1, 1]
        - output: (b, d) scene embeddings, float32

    Raises:
        ValueError: the tensors do not fit the configuration.
    """

    def __init__(
        self, checkpoint: checkpoints.Checkpoint, options: Options, encoder: Any = None
    ) -> None:
        super().__init__()
        config = self.config = checkpoint.config
        self.options = options
        self.sample_rate: int = config.sample_rate
        self.timestamp_embedding_size: int = config.frame_embedding_size * len(options.layers)
        self._powers = len(options.scene_pooling.split("+"))  # 1: mean, 2: with squares for the std
        self.scene_embedding_size: int = self.timestamp_embedding_size * self._powers
        mean, std = config.norm_mean, config.norm_std
        if isinstance(options.normalization, tuple):
            mean, std = options.normalization
        self.frontend = LogMel(config.n_mels, mean, std, config.sample_rate)
        if encoder is None:
            with torch.random.fork_rng(devices=[]):  # random initial weights are replaced below
                encoder = Encoder(config)
            checkpoint.load_into(encoder)
            if options.precision == "bfloat16":
                encoder.to(torch.bfloat16)
        self.encoder: Encoder = encoder
        self.decoder_tensors = checkpoint.decoder_tensors
        self._most_tokens = DEVICE_TOKENS  # at once; lowered when the memory of the device is full
        self.eval()

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.frontend.window.device

    def timeline(self, timestamps: bool) -> Timeline:
        """The timeline of timestamp or scene embeddings with the model's options."""
        hop_ms = self.options.timestamp_hop_ms if timestamps else None
        return Timeline(self.config, self.options.mode, hop_ms)

    # -----------------------------------------------------------------------------------------
    # Clips in memory
    # -----------------------------------------------------------------------------------------
    def forward(self, audio: Tensor | NDArray[Any]) -> Tensor:
        """Scene embeddings: (b, n) -> (b, d) float32."""
        audio = check_waveforms(audio)
        timeline = self.timeline(timestamps=False)
        sums: Iterator[Any] = self.encode(self._pieces(audio, timeline))
        count = timeline.count_pieces(audio.shape[1])
        # Sums are added as they come. Keeping them would fragment the memory.
        clips = (functools.reduce(Sums.__add__, itertools.islice(sums, count)) for _ in audio)
        return torch.stack([self.pool(clip) for clip in clips])

    def timestamp_embeddings(self, audio: Tensor | NDArray[Any]) -> tuple[Tensor, Tensor]:
        """Frame embeddings and their centres.

        Shape:
            - audio: (b, n)
            - output: (b, t, d) float32 embeddings, (b, t) float32 timestamps in ms; float32 holds
              each of them exactly up to 4.6 hours
        """
        audio = check_waveforms(audio)
        timeline = self.timeline(timestamps=True)
        timestamps = torch.from_numpy(timeline.timestamps_ms(audio.shape[1])).float()
        shape = (len(audio), len(timestamps), self.timestamp_embedding_size)
        output = torch.empty(shape, dtype=torch.float32, device=self.device)
        rows, done = output.flatten(0, 1), 0  # (b t, d)
        found: Iterator[Any] = self.encode(self._pieces(audio, timeline))
        for embeddings in found:
            rows[done : done + len(embeddings)] = embeddings
            done += len(embeddings)
        return output, timestamps.to(self.device).repeat(len(audio), 1)

    def pool(self, sums: Sums) -> Tensor:
        """The scene embedding of a clip, (d,) float32."""
        return pooled(sums)

    def statistics(self, pieces: Iterable[Piece]) -> tuple[float, float]:
        """Mean and standard deviation of the log-mel values of pieces of scenes."""
        log_mel = self.frontend.log_mel_range
        # In scenes no two pieces share a frame.
        parts = (log_mel(p.waveform[None], p.layout.first, p.layout.last) for p in pieces)
        return mean_std(parts, self.frontend.norm_mean.item())

    def _pieces(self, audio: Tensor, timeline: Timeline) -> Iterator[Piece]:
        """Pieces of all clips of a batch, in order."""
        statistics = None
        if self.options.normalization == "batch":  # these need a first pass
            scenes = self.timeline(timestamps=False)
            statistics = self.statistics(p for clip in audio for p in scenes.cut([clip]))
        return (p for clip in audio for p in timeline.cut([clip], statistics=statistics))

    # -----------------------------------------------------------------------------------------
    # The engine
    # -----------------------------------------------------------------------------------------
    def encode(self, pieces: Iterable[Piece]) -> Iterator[Tensor | Sums]:
        """Embed pieces of any clips, in bounded memory.

        Args:
            pieces: from `cut` of this model's timeline, with waveforms on any device.

        Yields:
            For each piece, in order: (t, d) float32 embeddings over time, or the `Sums` of a scene
            embedding, on the model's device.
        """
        most = CPU_FRAMES if self.device.type == "cpu" else DEVICE_FRAMES
        batch: list[Piece] = []
        frames = 0
        for piece in pieces:
            size = len(piece.waveform) // self.config.hop_length
            if batch and frames + size > most:
                yield from self._encode_batch(batch)
                batch, frames = [], 0
            batch.append(piece)
            frames += size
        if batch:
            yield from self._encode_batch(batch)

    def _encode_batch(self, pieces: Sequence[Piece]) -> Iterable[Tensor | Sums]:
        frames, bases = self._log_mel(pieces)
        scene = pieces[0].layout.scene
        rows = np.cumsum([0] + [1 if scene else piece.layout.rows for piece in pieces])
        shape, dtype = [int(rows[-1]), self.timestamp_embedding_size], torch.float32
        if scene:
            shape.insert(1, self._powers)  # (pieces, powers, d)
            dtype = torch.float32 if self.device.type == "mps" else torch.float64
        output = torch.zeros(shape, dtype=dtype, device=self.device)
        units = gather_units(pieces, bases, rows, self.config.patch_frames)
        for columns, arrays in units.items():
            index, target, weights = (torch.from_numpy(x).to(self.device) for x in arrays)
            done = 0
            while done < len(index):
                part = slice(done, done + self._units_at_once(columns))
                try:
                    spectrogram = frames[index[part]].transpose(1, 2)  # (u, f, t)
                    embeddings = self.embed_units(spectrogram)[:, :columns]
                    if scene:
                        moments = moments_of(embeddings, weights[part].to(dtype), self._powers)
                        output.index_add_(0, target[part, 0], moments)
                    else:
                        output[target[part]] = embeddings
                except torch.OutOfMemoryError:
                    if len(index[part]) == 1:
                        raise
                    self._most_tokens = self.config.rows * columns * len(index[part]) // 2
                    torch.cuda.empty_cache()
                    logger.warning("out of memory: encoding %d tokens at once", self._most_tokens)
                    continue
                done = part.stop
        if scene:
            return map(Sums, output.unbind(), [piece.layout.weight for piece in pieces])
        return output.split(np.diff(rows).tolist())

    def _log_mel(self, pieces: Sequence[Piece]) -> tuple[Tensor, list[int]]:
        """Normalised frames of all pieces, and for each piece the row of its first frame.

        One row before and one after the frames of a piece hold the value of frames outside of the
        clip: silence, or the mean in the published runtimes.

        Shape:
            - output: (rows, f)
        """
        alike: dict[Any, list[int]] = {}  # pieces that fit into one tensor
        for i, piece in enumerate(pieces):
            key = id(piece.layout), len(piece.waveform), piece.statistics
            alike.setdefault(key, []).append(i)
        parts, bases, row = [], [0] * len(pieces), 0
        for indices in alike.values():
            _, layout, _, statistics = pieces[indices[0]]
            waveforms = torch.stack([pieces[i].waveform for i in indices])  # (b, n)
            first, stop = layout.first - 1, layout.last + layout.silence
            log_mel = self.frontend(waveforms, first, stop, statistics)  # (b, f, t)
            if not layout.silence:
                log_mel = F.pad(log_mel, (0, 1))
            parts.append(log_mel.transpose(1, 2).flatten(0, 1))
            for i in indices:
                bases[i] = row
                row += log_mel.shape[2]
        return torch.cat(parts), bases

    def embed_units(self, spectrogram: Tensor) -> Tensor:
        """Encode units of equal length.

        Shape:
            - spectrogram: (b, f, t frames) normalised log-mel, at most one unit long
            - output: (b, t columns, d) float32 frame embeddings
        """
        layers = self.options.layers
        tokens = self.encoder(spectrogram, layers=layers)  # one (b, [1 +] l, d) for each layer
        found = torch.cat([self.encoder.frame_embeddings(x) for x in tokens], dim=-1).float()
        return found * self.options.scale if self.options.scale != 1.0 else found

    def _units_at_once(self, columns: int) -> int:
        tokens = self._most_tokens
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            free += torch.cuda.memory_reserved(self.device)
            free -= torch.cuda.memory_allocated(self.device)
            value = self.encoder.patch_embed.weight.element_size()
            fits = free // 2 // (_VALUES_PER_TOKEN * self.config.width * value)
            tokens = min(tokens, max(fits, CPU_TOKENS))
        elif self.device.type == "cpu":
            tokens = min(tokens, CPU_TOKENS)
        return max(1, tokens // (self.config.rows * columns))

    # -----------------------------------------------------------------------------------------
    # Sharing
    # -----------------------------------------------------------------------------------------
    # Folders for Transformers hold this file but not those of checkpoints. So these are imported
    # where they are needed, in a form that Transformers does not take for a file of the folder.
    def checkpoint(self) -> checkpoints.Checkpoint:
        """The current weights, e.g. after fine-tuning, as a `Checkpoint`.

        Statistics given as `normalization=(mean, std)` become the stored ones. Other options are
        not stored; pass them to `load_model` again.
        """
        from . import checkpoints

        config = self.config
        if isinstance(self.options.normalization, tuple):
            mean, std = self.options.normalization
            config = dataclasses.replace(config, norm_mean=mean, norm_std=std)
        tensors = checkpoints.state_tensors(self.encoder) | self.decoder_tensors
        return checkpoints.Checkpoint(config, tensors)

    def save_pretrained(
        self, folder: str | Path, half: bool = False, transformers: bool = False
    ) -> Path:
        """Write a folder that `load_model(folder)` takes; see `checkpoints.hub.save_folder`.

        Args:
            folder: destination.
            half: store float16.
            transformers: add what `transformers.AutoModel` and `AutoFeatureExtractor` (with
                `trust_remote_code=True`, without this package) and `SentenceTransformer` need.
        """
        from . import checkpoints

        return checkpoints.save_folder(
            folder, self.checkpoint(), half=half, transformers=transformers
        )

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload to the Hugging Face Hub as "user/repo", for `load_model("hf://user/repo")`.

        `checkpoints.hub.push_to_hub` has the options (`private`, `token`, `half`, `message`,
        `transformers`) and the errors. Returns the address, "hf://user/repo".
        """
        from . import checkpoints

        return checkpoints.push_to_hub(repo_id, self.checkpoint(), **options)
