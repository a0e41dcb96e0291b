"""HMM voices under open licences: RHVoice (seven speakers, four languages) and Open JTalk (two).

RHVoice is in Debian's non-free component only because its voices are trained networks; apt must
know `contrib non-free`. Voices with NC or ND terms are not used, nor is `slt`, who speaks in the
evaluation. Needs `apt-get install open-jtalk`. Rate: about 0.05 cpu-seconds a second of audio.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import soundfile

from weights.corpus import archives
from weights.corpus.packages import BuildError, require, unpacked
from weights.corpus.render_speech import phrases, text_line, texts_folder
from weights.corpus.rendering import Waveform

#: Speaker, package with the voice, locale of the texts. All are LGPL-2.1-or-later, but Leticia
#: CC-BY-SA-4.0.
SPEAKERS = (
    ("alan", "rhvoice-english", "en-us"),
    ("bdl", "rhvoice-english", "en-us"),
    ("clb", "rhvoice-english", "en-us"),
    ("Leticia-F123", "rhvoice-brazilian-portuguese", "pt_BR"),
    ("azamat", "rhvoice-kyrgyz", "ky"),
    ("nazgul", "rhvoice-kyrgyz", "ky"),
    ("spomenka", "rhvoice-esperanto", "eo"),
)
PROGRAMS = ("rhvoice", "librhvoice-core7", "librhvoice-audio2")
NITECH = "usr/share/hts-voice/nitech-jp-atr503-m001/nitech_jp_atr503_m001.htsvoice"
MEI = "pyopenjtalk/htsvoice/mei_normal.htsvoice"
DICTIONARY = "var/lib/mecab/dic/open-jtalk/naist-jdic"
State = dict[str, Any]


def setup(cache: Path) -> State:
    """RHVoice's folders joined, Open JTalk's voices, and texts in every language."""
    require("open_jtalk", "open-jtalk")
    parts = [
        unpacked(p, cache) for p in (*PROGRAMS, *sorted({package for _, package, _ in SPEAKERS}))
    ]
    joined = cache / "tools" / "rhvoice-joined"
    for name in ("voices", "languages"):
        (joined / name).mkdir(parents=True, exist_ok=True)
        for folder in (each for part in parts for each in part.glob(f"usr/share/RHVoice/{name}/*")):
            if not (joined / name / folder.name).exists():
                (joined / name / folder.name).symlink_to(folder)
    texts = texts_folder(cache)
    codes = sorted({code for _, _, code in SPEAKERS} | {"ja"})
    return {
        "program": parts[0] / "usr/bin/RHVoice-test",
        "data": joined,
        "libraries": os.pathsep.join(str(p / "usr/lib/x86_64-linux-gnu") for p in parts),
        "texts": {code: phrases(texts, code) for code in codes},
        "japanese": (
            unpacked("hts-voice-nitech-jp-atr503-m001", cache) / NITECH,
            archives.folder_of("pyopenjtalk-plus", cache) / MEI,
        ),
        "dictionary": unpacked("open-jtalk-mecab-naist-jdic", cache) / DICTIONARY,
    }


def clip(rng: Random, state: State) -> tuple[Waveform, float] | None:
    """A line of some seconds, by one of the speakers, played a little faster or slower."""
    number = rng.randrange(len(SPEAKERS) + 2)
    if number < len(SPEAKERS):
        speaker, _, code = SPEAKERS[number]
        waveform, rate = rhvoice(rng, state, speaker, text_line(rng, state["texts"][code]))
    else:
        voice = state["japanese"][number - len(SPEAKERS)]
        waveform, rate = open_jtalk(rng, state, voice, text_line(rng, state["texts"]["ja"]))
    # Another rate of play moves pitch, formants and tempo together: further speakers.
    return waveform[: 20 * round(rate)], rate * rng.uniform(0.86, 1.16)


def rhvoice(rng: Random, state: State, speaker: str, text: str) -> tuple[Waveform, int]:
    """Speak with RHVoice at a random speed and pitch."""
    with tempfile.TemporaryDirectory() as scratch:
        script, spoken = Path(scratch, "text.txt"), Path(scratch, "spoken.wav")
        script.write_text(text, encoding="utf-8")
        command = [str(state["program"]), "-p", speaker, "-i", str(script), "-o", str(spoken)]
        command += ["-r", str(rng.randint(70, 140)), "-t", str(rng.randint(70, 135))]
        paths = {"RHVOICE_DATA_PATH": str(state["data"]), "LD_LIBRARY_PATH": state["libraries"]}
        return _spoken(command, spoken, paths)


def open_jtalk(rng: Random, state: State, voice: Path, text: str) -> tuple[Waveform, int]:
    """Speak Japanese with Open JTalk at a random speed and pitch."""
    with tempfile.TemporaryDirectory() as scratch:
        script, spoken = Path(scratch, "text.txt"), Path(scratch, "spoken.wav")
        script.write_text(text, encoding="utf-8")
        command = ["open_jtalk", "-x", str(state["dictionary"]), "-m", str(voice)]
        command += ["-r", f"{rng.uniform(0.7, 1.4):.2f}", "-fm", f"{rng.uniform(-5, 5):.1f}"]
        return _spoken([*command, "-ow", str(spoken), str(script)], spoken, {})


def _spoken(command: list[str], spoken: Path, paths: dict[str, str]) -> tuple[Waveform, int]:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **paths},
        timeout=120,
    )
    if done.returncode or not spoken.is_file():
        raise BuildError(
            f"{Path(command[0]).name}: {done.stderr.strip()[-200:] or done.returncode}"
        )
    waveform, rate = soundfile.read(spoken, dtype="float32")
    return waveform, rate
