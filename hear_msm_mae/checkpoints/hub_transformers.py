"""What a folder of a model holds beside the model, so that other libraries load it.

For Transformers notes in `config.json`, a `preprocessor_config.json`, and `modeling_msm_mae.py`
with the files of this package that it imports; for sentence-transformers a `modules.json`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..config import ModelConfig

MODEL_TYPE = "msm_mae"
MODELING = "modeling_msm_mae"

CONFIG_NOTES: dict[str, Any] = {
    "model_type": MODEL_TYPE,
    "architectures": ["MsmMaeModel"],
    "auto_map": {"AutoConfig": f"{MODELING}.MsmMaeConfig", "AutoModel": f"{MODELING}.MsmMaeModel"},
    "dtype": "float32",  # to compute in, however the weights are stored
}
_MODULES = [{"idx": 0, "name": "0", "path": "", "type": "hear_msm_mae.sentence_transformers.Audio"}]
# Transformers finds the files that a file needs by such lines.
_IMPORT = re.compile(r"^\s*from \.(\w+) import", re.MULTILINE)


def transformers_files(config: ModelConfig) -> dict[str, str | dict[str, Any] | list[Any]]:
    """Files by name: texts, or contents of JSON documents."""
    preprocessor = {
        "feature_extractor_type": "MsmMaeFeatureExtractor",
        "auto_map": {"AutoFeatureExtractor": f"{MODELING}.MsmMaeFeatureExtractor"},
        "sampling_rate": config.sample_rate,
    }
    code: dict[str, str] = {}
    waiting = [MODELING]
    while waiting:
        name = f"{waiting.pop()}.py"
        if name not in code:
            code[name] = (Path(__file__).parents[1] / name).read_text(encoding="utf-8")
            waiting += _IMPORT.findall(code[name])
    return {"preprocessor_config.json": preprocessor, "modules.json": _MODULES, **code}


def card_section(address: str) -> str:
    """What the model card says of a folder for Transformers."""
    return f"""
Without the package, with Transformers:

```python
from transformers import AutoFeatureExtractor, AutoModel

extractor = AutoFeatureExtractor.from_pretrained({address!r}, trust_remote_code=True)
model = AutoModel.from_pretrained({address!r}, trust_remote_code=True)
```

The `.py` files are those of `hear_msm_mae`, under the Apache License 2.0.
"""
