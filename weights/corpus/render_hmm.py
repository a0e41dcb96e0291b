"""HMM voices under open licences: RHVoice (seven speakers, four languages) and Open JTalk (two).

RHVoice is in Debian's non-free component only because its voices are trained networks; apt must
know `contrib non-free`. Voices with NC or ND terms are not used, nor is `slt`, who speaks in the
evaluation. Needs `apt-get install open-jtalk`. Rate: about 0.05 cpu-seconds a second of audio.
"""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

from weights.corpus.packages import archive, require, unpacked
from weights.corpus.rendering import Waveform
from weights.corpus.texts import line, spoken, texts

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
#: For each voice its command, its environment and its texts.
State = list[tuple[list[str], dict[str, str], list[str]]]


def setup(cache: Path) -> State:
    """The voices; RHVoice's folders are joined in one, as it wants them."""
    require("open_jtalk", "open-jtalk")
    packages = [*PROGRAMS, *sorted({package for _, package, _ in SPEAKERS})]
    parts = [unpacked(package, cache) for package in packages]
    joined = cache / "tools" / "rhvoice-joined"
    for folder in (each for part in parts for each in part.glob("usr/share/RHVoice/*/*")):
        link = joined / folder.parent.name / folder.name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(folder)
    libraries = os.pathsep.join(str(part / "usr/lib/x86_64-linux-gnu") for part in parts)
    paths = {"RHVOICE_DATA_PATH": str(joined), "LD_LIBRARY_PATH": libraries}
    rhvoice = [str(parts[0] / "usr/bin/RHVoice-test"), "-i", "TEXT", "-o", "WAV", "-p"]
    dictionary = unpacked("open-jtalk-mecab-naist-jdic", cache) / DICTIONARY
    open_jtalk = ["open_jtalk", "-x", str(dictionary), "-ow", "WAV", "TEXT", "-m"]
    japanese = (
        unpacked("hts-voice-nitech-jp-atr503-m001", cache) / NITECH,
        archive("pyopenjtalk-plus", cache) / MEI,
    )
    read = texts({code for _, _, code in SPEAKERS} | {"ja"}, cache)
    return [
        *(([*rhvoice, speaker], paths, read[code]) for speaker, _, code in SPEAKERS),
        *(([*open_jtalk, str(voice)], {}, read["ja"]) for voice in japanese),
    ]


def clip(rng: Random, state: State) -> tuple[Waveform, float]:
    """A line of some seconds, by one of the speakers, played a little faster or slower."""
    command, paths, texts = rng.choice(state)
    speed = rng.uniform(0.7, 1.4)
    if paths:  # RHVoice
        options = ["-r", f"{100 * speed:.0f}", "-t", str(rng.randint(70, 135))]
    else:
        options = ["-r", f"{speed:.2f}", "-fm", f"{rng.uniform(-5, 5):.1f}"]
    waveform, rate = spoken([command[0], *options, *command[1:]], line(rng, texts), paths)
    # Another rate of play moves pitch, formants and tempo together: further speakers.
    return waveform, rate * rng.uniform(0.86, 1.16)
