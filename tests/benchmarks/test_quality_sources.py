"""Where the audio of the quality benchmark comes from, and that it is kept apart."""

from __future__ import annotations

import csv
import shutil
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
import soundfile
from debs import make_deb, needs_dpkg
from quality_sources import tone

from benchmarks.evaluation import game_pools, sources, synthesis
from benchmarks.evaluation.synthesis import VOICES, Note
from weights.corpus import packages
from weights.corpus.packages import BuildError

CORPUS = Path(packages.__file__).parent
USED = sorted({s.package for s in sources.SOURCES.values()} | {v.package for v in VOICES.values()})
FLUID = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")


def rows(name: str) -> list[dict[str, str]]:
    with (CORPUS / name).open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("package", USED)
def test_every_package_is_kept_for_evaluation_and_not_in_the_corpus(package):
    found = [row for row in rows("excluded.csv") if fnmatch(package, row["pattern"])]
    assert {row["role"] for row in found} == {"evaluation"}
    if any(row.get("files") for row in found):  # the corpus has other files of it
        [row] = found
        globs = row["files"].split()
        for folder in ("voice/greek/civ", *game_pools.EFFECTS):
            file = f"usr/share/games/0ad/mods/public/audio/{folder}/a.ogg"
            assert any(fnmatch(file, glob) for glob in globs)
    else:
        assert package not in {row["package"] for row in rows("sources.csv")}


@pytest.mark.parametrize(
    "package", ["tuxpaint-data", "hydrogen-drumkits", "kajongg", "festvox-ru", "megaglest-data"]
)
def test_other_packages_are_refused_before_anything_is_fetched(package, tmp_path, monkeypatch):
    monkeypatch.setattr(packages, "fetch", lambda *_: pytest.fail("fetched"))
    (tmp_path / "packages" / package).mkdir(parents=True)  # not even when it is there
    with pytest.raises(BuildError, match=f"{package} is not kept for evaluation"):
        sources.package_folder(package, tmp_path)


def test_reserved_wins_over_evaluation(tmp_path, monkeypatch):
    table = tmp_path / "excluded.csv"
    table.write_text("pattern,role,note\nx-*,evaluation,\nx-kept,reserved,\n")
    monkeypatch.setattr(packages, "EXCLUDED", table)
    assert packages.role_of("x-kept") == "reserved"
    assert packages.role_of("x-other") == "evaluation"
    assert packages.role_of("y") is None


def test_unknown_source_names_the_known_ones(tmp_path):
    with pytest.raises(BuildError, match=r"'nothing'; known: klettres, hedgewars"):
        sources.source_folder("nothing", tmp_path)


@needs_dpkg
def test_source_is_unpacked_once_and_anew_after_an_interruption(tmp_path):
    deb = make_deb(tmp_path, "opl3-soundfont", {"sf2/a.wav": 440})
    cache = tmp_path / "cache"
    leftover = cache / "packages/opl3-soundfont.part/usr/share/sounds/sf2/half.wav"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half")
    (cache / "debs").mkdir()
    shutil.copy(deb, cache / "debs")
    folder = sources.source_folder("opl3", cache)
    assert [p.name for p in sources.audio_files(folder)] == ["a.wav"]
    shutil.rmtree(cache / "debs")  # not needed any more
    assert sources.source_folder("opl3", cache) == folder


@needs_dpkg
def test_package_with_another_layout_is_an_error(tmp_path):
    make_deb(tmp_path, "scratch", {"a.wav": 440})  # debs/ is where the cache has it
    with pytest.raises(BuildError, match="scratch has no folder usr/share/scratch"):
        sources.source_folder("scratch", tmp_path)


def test_audio_files_are_readable_ones(tmp_path):
    for name in ("b.wav", "a/c.ogg", ".hidden.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, tone(440), 16_000)
    (tmp_path / "broken.wav").write_bytes(b"not audio")
    (tmp_path / "text.txt").write_text("text")
    (tmp_path / "link.wav").symlink_to(tmp_path / "b.wav")
    assert [p.relative_to(tmp_path).as_posix() for p in sources.audio_files(tmp_path)] == [
        "a/c.ogg",
        "b.wav",
    ]


def frequency(waveform: np.ndarray) -> float:
    """Strongest frequency in Hz, (n,) -> scalar."""
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)), 1 << 17))
    return float(spectrum.argmax() * 16_000 / (1 << 17))


@pytest.mark.skipif(
    not (shutil.which("fluidsynth") and FLUID.is_file()), reason="needs fluidsynth and its font"
)
def test_notes_are_cut_where_they_were_played(tmp_path):
    folder = tmp_path / "packages/opl3-soundfont/usr/share/sounds/sf2"
    folder.mkdir(parents=True)
    (folder / "font.sf2").symlink_to(FLUID)
    notes = [Note((69,), 100, 0.5), Note((57,), 100, 0.5)]
    flute = synthesis.play(notes, 73, "opl3", tmp_path, spacing=1.5)
    assert [w.shape for w in flute] == [(24_000,), (24_000,)]
    for waveform, expected in zip(flute, (440, 220), strict=True):
        harmonic = frequency(waveform[2000:8000]) / expected
        assert harmonic == pytest.approx(round(harmonic), rel=0.02)
        assert np.abs(waveform[-2000:]).max() < 0.02  # over before the next one begins
    assert max(np.abs(w).max() for w in flute) == pytest.approx(0.7, abs=0.01)


@pytest.mark.skipif(not shutil.which("flite"), reason="needs flite")
def test_flite_speaks_each_text_and_slower_when_asked():
    fast = synthesis.speak(["one", "twenty one"], VOICES["flite-slt"])
    slow = synthesis.speak(["one"], VOICES["flite-slt"], stretch=1.5)
    assert len(fast) == 2
    assert len(fast[1]) > len(fast[0]) < len(slow[0])


def test_missing_synthesiser_names_its_package(monkeypatch):
    monkeypatch.setattr(packages.shutil, "which", lambda _: None)
    with pytest.raises(BuildError, match="apt-get install flite"):
        synthesis.speak(["one"], VOICES["flite-slt"])
