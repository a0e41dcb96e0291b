"""The HEAR model: clips -> units in micro-batches -> scene or timestamp embeddings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checkpoints.hub import push_to_hub, save_folder
from .checkpoints.native import Checkpoint, state_tensors
from .config import SAMPLE_RATE, SAMPLES_PER_MS, ModelConfig, num_frames
from .encoder import Encoder
from .log_mel import LogMel, Statistics
from .options import Options
from .timeline import Piece, Track, place, scene_track, scene_weights, split_units, timestamp_tracks

# Tokens encoded at once. Bounds the working memory whatever the audio's length; larger
# micro-batches were not faster (benchmarks/inference.py).
MAX_TOKENS = 2048


# Receives (clips, piece, embeddings of the kept columns (b, t, d)).
_Sink = Callable[[slice, Piece, Tensor], None]


class HearModel(nn.Module):
    """Pretrained encoder behind the HEAR 2021 common API; made by `load_model`.

    Calling the model gives scene embeddings with gradients (for fine-tuning); the HEAR functions
    of this package track none.

    Attributes:
        sample_rate: 16000 Hz.
        scene_embedding_size, timestamp_embedding_size: d, python ints.
        config: sizes; options: how it was loaded.
        decoder_tensors: the pretraining decoder as it was loaded, only carried along so that
            saved models can still reconstruct; empty where the weights had none.

    Shape:
        - input: (b, n) float32 waveforms at 16 kHz in [-1, 1]
        - output: (b, d) scene embeddings, float32
    """

    def __init__(self, config: ModelConfig, options: Options) -> None:
        super().__init__()
        self.config = config
        self.options = options
        self.sample_rate: int = SAMPLE_RATE
        self.scene_embedding_size: int = config.frame_embedding_size * len(options.layers)
        self.timestamp_embedding_size: int = self.scene_embedding_size
        mean, std = config.norm_mean, config.norm_std
        if isinstance(options.normalization, tuple):
            mean, std = options.normalization
        self.frontend = LogMel(config.n_mels, mean, std)
        self.encoder = Encoder(config)
        self.decoder_tensors: dict[str, Tensor] = {}

    @property
    def device(self) -> torch.device:
        """Where the model's tensors are."""
        return self.frontend.window.device

    def forward(self, audio: Tensor) -> Tensor:
        """Scene embeddings: (b, n) -> (b, d)."""
        return self.scene_embeddings(audio)

    def scene_embeddings(self, audio: Tensor) -> Tensor:
        """Mean of the frame embeddings over time: (b, n) -> (b, d) float32."""
        n = audio.shape[1]
        track = scene_track(n, self.config)
        if self.options.mode == "paper":  # every patch counts alike, however little it holds
            weights = torch.full((track.columns,), 1 / track.columns)
        else:
            weights = torch.from_numpy(scene_weights(n, self.config))
        weights = weights.to(self.device)
        output = torch.zeros(len(audio), self.scene_embedding_size, device=self.device)

        def add(clips: slice, piece: Piece, embeddings: Tensor) -> None:
            first, last = piece.unit.first, piece.unit.first + piece.unit.columns
            weight = weights[first:last]
            with torch.autocast(self.device.type, enabled=False):  # the mean stays in float32
                output[clips] += torch.einsum("t,btd->bd", weight, embeddings)

        self._encode(audio, [track], add)
        return output

    def timestamp_embeddings(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Frame embeddings and their centres.

        Shape:
            - audio: (b, n)
            - output: (b, t, d) float32 embeddings, (b, t) float32 timestamps in ms
        """
        n = audio.shape[1]
        if self.options.mode == "paper":
            tracks = [scene_track(n, self.config)]
            count = tracks[0].columns
            timestamps = torch.arange(count).double() * (n / SAMPLES_PER_MS / count)
        else:
            tracks, times = timestamp_tracks(n, self.config, self.options.timestamp_hop_ms)
            timestamps = torch.from_numpy(times)
        shape = (len(audio), len(timestamps), self.timestamp_embedding_size)
        output = torch.empty(shape, device=self.device)

        def put(clips: slice, piece: Piece, embeddings: Tensor) -> None:
            step = len(tracks)  # neighbouring timestamps come from neighbouring tracks
            first = piece.track + step * piece.unit.first
            last = piece.track + step * (piece.unit.first + piece.unit.columns)
            output[clips, first:last:step] = embeddings

        self._encode(audio, tracks, put)
        return output, timestamps.float().to(self.device).repeat(len(audio), 1)

    # -----------------------------------------------------------------------------------------
    # Sharing
    # -----------------------------------------------------------------------------------------
    def checkpoint(self) -> Checkpoint:
        """The weights as they are now, e.g. after fine-tuning, in the form that files hold.

        Own statistics (`normalization=(mean, std)`) become the stored ones. The other options
        are no part of the weights and are given to `load_model` again.
        """
        config = self.config
        if isinstance(self.options.normalization, tuple):
            mean, std = self.options.normalization
            config = dataclasses.replace(config, norm_mean=mean, norm_std=std)
        return Checkpoint(config, state_tensors(self.encoder) | self.decoder_tensors)

    def save_pretrained(self, folder: str | Path, half: bool = False) -> Path:
        """Write a folder that `load_model(folder)` takes; see `sharing.save_folder`."""
        return save_folder(folder, self.checkpoint(), half=half)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload to the Hugging Face Hub for `load_model("hf://user/repo")`.

        Args:
            repo_id: "user/repo".
            options: `private`, `token`, `half`, `message`; see `sharing.push_to_hub`, which also
                says what errors there are.

        Returns:
            The address, "hf://user/repo".
        """
        return push_to_hub(repo_id, self.checkpoint(), **options)

    # -----------------------------------------------------------------------------------------
    # Units in micro-batches
    # -----------------------------------------------------------------------------------------
    def _encode(self, audio: Tensor, tracks: list[Track], sink: _Sink) -> None:
        """Encode all tracks of all clips and hand every unit's embeddings to `sink`."""
        normalize = self._normalizer(audio)
        limit = max(1, MAX_TOKENS // (self.config.rows * self.config.columns))
        clips_at_once = min(len(audio), limit)
        for first in range(0, len(audio), clips_at_once):
            clips = slice(first, min(first + clips_at_once, len(audio)))
            size = clips.stop - clips.start
            for pieces in _batched(self._pieces(tracks), max(1, limit // size)):
                # One spectrogram for all shifted copies of this stretch of time.
                low = min(piece.start for piece in pieces)
                high = max(piece.stop for piece in pieces)
                spectrogram = self._spectrogram(audio[clips], low, high, normalize)
                for group in _by_length(pieces):
                    units = [spectrogram[..., p.start - low : p.stop - low] for p in group]
                    embeddings = self.embed_units(torch.cat(units))
                    for piece, part in zip(group, embeddings.split(size), strict=True):
                        sink(clips, piece, part)

    def _pieces(self, tracks: list[Track]) -> Iterator[Piece]:
        """Units of all tracks in order of time, so that neighbours share a spectrogram."""
        pieces = [
            place(index, track, unit, self.config)
            for index, track in enumerate(tracks)
            for unit in split_units(track.columns, self.config.columns)
        ]
        return iter(sorted(pieces, key=lambda piece: piece.start))

    def _spectrogram(
        self, audio: Tensor, start: int, stop: int, normalize: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Normalised frames start..stop; outside the clip silence, in paper mode the mean."""
        if self.options.mode != "paper":
            return normalize(self.frontend.log_mel_range(audio, start, stop))
        end = min(stop, num_frames(audio.shape[1]))
        return F.pad(normalize(self.frontend.log_mel_range(audio, start, end)), (0, stop - end))

    def embed_units(self, spectrogram: Tensor) -> Tensor:
        """Encode units of equal length.

        Shape:
            - spectrogram: (b, f, t frames) normalised log-mel, at most one unit long
            - output: (b, t columns, d) float32 frame embeddings
        """
        columns = spectrogram.shape[-1] // self.config.patch_frames
        if self.options.mode == "paper":  # whole units only, filled up with the mean (zero)
            missing = self.config.unit_frames - spectrogram.shape[-1]
            spectrogram = F.pad(spectrogram, (0, missing))
        layers = self.options.layers
        # Blocks above the highest one asked for are not run: zip ends before it draws them.
        outputs = zip(range(max(layers) + 1), self.encoder.layers(spectrogram), strict=False)
        kept = {i: self.encoder.frame_embeddings(x) for i, x in outputs if i in layers}
        found = torch.cat([kept[i][:, :columns] for i in layers], dim=-1).float()
        return found * self.options.scale

    def _normalizer(self, audio: Tensor) -> Callable[[Tensor], Tensor]:
        """Stored statistics, or those of the whole batch (unbiased std) in a first pass."""
        if self.options.normalization != "batch":
            return self.frontend.normalize
        statistics = Statistics(self.frontend.norm_mean.item())
        frames, step = num_frames(audio.shape[1]), 16 * self.config.unit_frames
        for clip in audio.split(1):
            for start in range(0, frames, step):
                end = min(start + step, frames)
                statistics.add(self.frontend.log_mel_range(clip, start, end))
        return statistics.normalizer()


def _batched(pieces: Iterator[Piece], size: int) -> Iterator[list[Piece]]:
    batch: list[Piece] = []
    for piece in pieces:
        batch.append(piece)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _by_length(pieces: list[Piece]) -> list[list[Piece]]:
    """Groups of pieces that fit into one tensor."""
    groups: dict[int, list[Piece]] = {}
    for piece in pieces:
        groups.setdefault(piece.stop - piece.start, []).append(piece)
    return list(groups.values())
