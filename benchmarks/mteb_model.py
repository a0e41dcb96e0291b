"""This package in MTEB, the massive embedding benchmark: its audio-only tasks (MAEB).

    pip install . "mteb[audio]"
    python -m benchmarks.mteb_model --mock                      # offline, under a minute
    python -m benchmarks.mteb_model                             # 20 tasks, data from the Hub
    python -m benchmarks.mteb_model --tasks GTZANGenre BeijingOpera --weights my-model

The data sets are downloaded by MTEB (some tens of GB for all tasks), scores lie in its cache.
Checked with mteb 2.26.24.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import mteb
import numpy as np
import torch
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder

import hear_msm_mae
from hear_msm_mae.audio import waveform_of
from hear_msm_mae.ragged import scenes

BENCHMARK = "MAEB(v1, audio-only)"


class MtebModel(AbsEncoder):
    """Scene embeddings for MTEB.

    Args:
        model_name: the one of the `ModelMeta`.
        revision: of the weights.
        device: where to compute; by default the CPU.
        weights, options: of `hear_msm_mae.load_model`.
    """

    def __init__(
        self,
        model_name: str = "",
        revision: str | None = None,
        *,
        device: str | None = None,
        weights: str = "",
        **options: Any,
    ) -> None:
        self.model = hear_msm_mae.load_model(weights, device=device, **options)
        self.mteb_model_meta = model_meta(self.model)

    @torch.no_grad()
    def encode(self, inputs: Any, **task: Any) -> np.ndarray:
        """Embed the recordings of a data loader.

        Args:
            inputs: batches with a list "audio" of {"array", "sampling_rate"} or AudioDecoder.
            task: what MTEB says of the task; nothing here depends on it.

        Returns:
            (b, d) float32.

        Raises:
            ValueError: a batch without audio.
        """
        rate, rows = self.model.sample_rate, []
        for batch in inputs:
            if "audio" not in batch:
                raise ValueError(f"expected batches with audio, got {sorted(batch)}")
            clips = [torch.from_numpy(waveform_of(x, sample_rate=rate)) for x in batch["audio"]]
            rows.append(scenes(self.model, clips).cpu().numpy())
        return np.concatenate(rows)


def model_meta(model: hear_msm_mae.model.HearModel) -> ModelMeta:
    """What MTEB notes beside the scores of a model."""
    count = sum(parameter.numel() for parameter in model.encoder.parameters())
    return ModelMeta(
        loader=MtebModel,
        name=f"hear_msm_mae/{model.config.name}-{model.config.width}",
        revision=hear_msm_mae.__version__,
        release_date=None,
        languages=None,
        n_parameters=count,
        n_embedding_parameters=0,
        memory_usage_mb=round(4 * count / 2**20),
        max_tokens=None,
        embed_dim=model.scene_embedding_size,
        license="apache-2.0",
        open_weights=True,
        public_training_code=None,
        public_training_data=None,
        framework=["PyTorch"],
        similarity_fn_name="cosine",
        use_instructions=False,
        training_datasets=set(),
        modalities=["audio"],
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run MTEB on a model, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mock", action="store_true", help="MTEB's tiny tasks, offline")
    parser.add_argument("--tasks", nargs="+", help=f"by default those of {BENCHMARK}")
    parser.add_argument("--weights", default="")
    parser.add_argument("--device")
    chosen = parser.parse_args(arguments)
    model = MtebModel(weights=chosen.weights, device=chosen.device)
    if chosen.mock:
        results = mteb.mock_run(model)
        print(results.to_markdown())
        raise SystemExit(not results.all_passed)
    tasks = mteb.get_tasks(chosen.tasks) if chosen.tasks else mteb.get_benchmark(BENCHMARK)
    results = mteb.evaluate(model, tasks)
    print(results.to_dataframe().to_string())


if __name__ == "__main__":
    main()
