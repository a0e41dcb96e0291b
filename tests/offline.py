"""To import first: libraries of Hugging Face stay off the network, and write to a folder that is
deleted at the end.
"""

import os
import tempfile

_CACHE = tempfile.TemporaryDirectory()
# Read when the libraries are imported, which test files do before any fixture runs.
os.environ.update(
    HF_HOME=_CACHE.name,
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    MTEB_CACHE=_CACHE.name,
    TOKENIZERS_PARALLELISM="false",
)
