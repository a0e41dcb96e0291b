"""Does a module follow the HEAR API? hear-validator tries it before hours are spent.

    python -m benchmarks.hear.module REPORT.json MODULE [--model WEIGHTS] [--model-options JSON]

The report says what the model is: sample rate, version, and a digest of its parameters.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

FUNCTIONS = ("load_model", "get_scene_embeddings", "get_timestamp_embeddings")


def validated(name: str, weights: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """What the model of a module is, after the validator found it good.

    Raises:
        hearvalidator.validate.ModelError: the module does not follow the API.
    """
    module = importlib.import_module(name)
    # After the module: some libraries crash when TensorFlow was imported before them.
    from hearvalidator.validate import ValidateModel

    functions = {each: getattr(module, each) for each in FUNCTIONS if hasattr(module, each)}
    if options:  # of which the validator knows nothing
        functions["load_model"] = functools.partial(module.load_model, **options)
    validator = ValidateModel(name, weights)
    validator.module = SimpleNamespace(**functions)
    validator.check_load_model()
    validator.validate_model()
    model = validator.model
    return {
        "sample_rate": model.sample_rate,
        "model_digest": digest(model),
        "version": str(getattr(module, "__version__", "")),
    }


def digest(model: Any) -> str:
    """Fingerprint of the parameters and buffers of a torch.nn.Module or tf.Module."""
    if hasattr(model, "state_dict"):
        state = model.state_dict().items()
        tensors = [(key, tensor.detach().cpu().float().numpy()) for key, tensor in state]
    else:
        tensors = [(variable.name, variable.numpy()) for variable in model.variables]
    found = hashlib.sha256()
    for key, values in sorted(tensors, key=lambda pair: pair[0]):
        found.update(key.encode())
        found.update(np.ascontiguousarray(values).tobytes())
    return found.hexdigest()


def main() -> None:
    """Try the module of the command line, and write what it is into the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("module")
    parser.add_argument("--model")
    parser.add_argument("--model-options", type=json.loads, default={})
    given = parser.parse_args()
    report = validated(given.module, given.model, given.model_options)
    given.report.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
