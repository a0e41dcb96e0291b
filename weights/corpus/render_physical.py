"""Physical models that play and sing.

Faust's plucked, bowed, blown and struck instruments, and its singer of five voice types and five
vowels play alone, in duets, or as a small choir.

Needs `pip install dawdreamer` (which brings Faust's compiler and libraries). Rate: about 0.01
cpu-seconds a second of audio; a model compiles once per process, in 0.2 to 9 s.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from weights.corpus.compose import SCALES, motif, pitch_of
from weights.corpus.packages import BuildError
from weights.corpus.rendering import Waveform

RATE = 44_100
SINGER = "pm.SFFormantModelFofSmooth_ui_MIDI"
#: Model, and the MIDI pitches it plays.
INSTRUMENTS = {
    "pm.nylonGuitar_ui_MIDI": (40, 80),
    "pm.guitar_ui_MIDI": (40, 80),
    "pm.elecGuitar_ui_MIDI": (40, 84),
    "pm.violin_ui_MIDI": (48, 83),
    "pm.clarinet_ui_MIDI": (48, 83),
    "pm.flute_ui_MIDI": (55, 83),
    "pm.brass_ui_MIDI": (38, 76),
    "pm.marimba_ui_MIDI": (45, 83),
    "pm.djembe_ui_MIDI": (31, 43),
    "pm.churchBell_ui": (60, 60),
    "pm.englishBell_ui": (60, 60),
    "pm.russianBell_ui": (60, 60),
}
VOICE_RANGES = ((60, 77), (57, 74), (52, 69), (48, 67), (40, 60))  # alto to bass, as Faust has them
State = dict[str, Any]


def setup(cache: Path) -> State:
    """The models as they get compiled: engine, processor and parameters by name."""
    try:
        import dawdreamer  # noqa: F401
    except ImportError as error:
        raise BuildError("no dawdreamer: install it with `pip install dawdreamer`") from error
    return {}


def clip(rng: Random, state: State) -> tuple[Waveform, float]:
    """A piece of 10 to 25 s: one part in most clips, else two or (singers) up to four."""
    singing = rng.random() < 0.25
    name = SINGER if singing else rng.choice(list(INSTRUMENTS))
    parts = rng.choice((1, 1, 1, 2, 4) if singing else (1, 1, 1, 2))
    seconds, tempo = rng.uniform(10, 25), rng.uniform(0.09, 0.3)
    scale, key = rng.choice(SCALES), rng.randint(44, 56)
    motifs = [motif(rng) for _ in range(3)]
    mix = np.zeros(round(seconds * RATE), np.float32)
    for _ in range(parts):
        notes = melody(rng, seconds, tempo, scale, key, motifs if parts < 3 else motifs[:1])
        part = perform(rng, state, name, notes, len(mix))
        mix += part / (np.abs(part).max(initial=0.0) + 1e-9) * rng.uniform(0.4, 1)
    return mix, RATE


def melody(
    rng: Random, seconds: float, step: float, scale: tuple[int, ...], key: int, motifs: list[Any]
) -> list[tuple[float, float, int]]:
    """Notes as (start, length, pitch), in seconds and MIDI numbers."""
    notes, bar = [], 0.0
    while bar < seconds:
        degree = rng.choice((0, 0, 3, 4, 5))
        for position, length, level in rng.choice(motifs):
            pitch = pitch_of(scale, key + 12, degree + level)
            notes.append((bar + position * step, length * step, pitch))
        bar += 16 * step
    return notes


def perform(
    rng: Random, state: State, name: str, notes: list[tuple[float, float, int]], count: int
) -> Waveform:
    """Play notes on a model whose other parameters are drawn; (n,)."""
    engine, model, parameters = compiled(state, name)
    voice = rng.randrange(5)
    low, high = VOICE_RANGES[voice] if name == SINGER else INSTRUMENTS[name]
    curves = {key: np.zeros(count, np.float32) for key in ("freq", "gate", "gain", "vowel")}
    curves["freq"] += 220.0
    detune, legato = rng.gauss(0, 0.12), rng.uniform(0.5, 0.97)
    for start, length, pitch in notes:
        while pitch > high:
            pitch -= 12
        while pitch < low:
            pitch += 12
        first, end = round(start * RATE), round((start + length) * RATE)
        curves["freq"][first:] = 440 * 2 ** ((min(pitch, high) + detune - 69) / 12)
        curves["gain"][first:] = rng.uniform(0.4, 1)
        curves["vowel"][first:] = rng.randrange(5)
        curves["gate"][first : round(first + legato * (end - first))] = 1
    for parameter in parameters:
        path, least, most = parameter["name"], parameter["min"], parameter["max"]
        last = path.rsplit("/", 1)[1]
        if last in curves:
            model.set_automation(path, np.clip(curves[last], least, most))
        elif last == "voiceType":
            model.set_parameter(path, float(voice))
        elif last not in ("bend", "sustain", "outGain", "envAttack"):
            # The middle of the range: models fall silent or shriek at its ends.
            model.set_parameter(path, least + (most - least) * rng.uniform(0.15, 0.75))
    engine.load_graph([(model, [])])
    engine.render(count / RATE + 0.1)  # a little longer, for it rounds
    return np.nan_to_num(engine.get_audio()[0, :count])


def compiled(state: State, name: str) -> tuple[Any, Any, list[dict[str, Any]]]:
    """A model with an engine of its own, and its parameters; compiled the first time."""
    import dawdreamer

    if name not in state:
        engine = dawdreamer.RenderEngine(RATE, 512)
        processor = engine.make_faust_processor("model")
        processor.set_dsp_string(f'import("stdfaust.lib"); process = {name} <: _,_;')
        processor.compile()
        state[name] = engine, processor, processor.get_parameters_description()
    return state[name]
