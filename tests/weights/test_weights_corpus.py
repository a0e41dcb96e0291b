"""The recipe of the pretraining corpus: what may be in it, and that its builder is safe."""

from __future__ import annotations

import csv
import json
import shutil
from fnmatch import fnmatch
from pathlib import Path
from random import Random

import numpy as np
import pytest
import soundfile
from debs import make_deb, needs_dpkg

from weights.corpus import build, midi, packages, render_midi
from weights.corpus.build import KINDS, RECORDED, read_sources

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT / "weights" / "corpus"
EXAMPLES = ROOT / "examples"


def rows(name: str) -> list[dict[str, str]]:
    with (CORPUS / name).open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


# --- what is in the corpus -------------------------------------------------------------


def test_no_source_is_kept_away():
    for source in read_sources():
        assert packages.kept_away(source.package) != "*"


@pytest.mark.parametrize(
    ("package", "away", "taken"),
    [
        (
            "0ad-data",
            ("voice/greek/civ/civ_attack.ogg", "attack/impact/a.ogg", "actor/fauna/b.ogg"),
            ("music/Honor_Bound.ogg", "ambient/weather/rain.ogg"),
        ),
        ("trackballs-data", ("crazy.ogg", "c64revival.ogg", "eurovision.ogg"), ("tb_sorrow.ogg",)),
        ("megaglest-data", ("mudchute_cow.ogg",), ("sword.ogg",)),
    ],
)
def test_only_some_files_of_a_package_are_taken(tmp_path, package, away, taken):
    root = tmp_path / "tree/usr/share/games/x/mods/public/public.zip.unpacked/audio"
    for number, name in enumerate((*away, *taken)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / name, np.full(1600, number / 10), 16_000)
    exclude = packages.kept_away(package)
    found = packages.collect(tmp_path / "tree", tmp_path / "audio", set(), exclude=exclude)
    assert {path.split("audio/")[-1] for path in found.digests} == set(taken)


@pytest.mark.parametrize("source", rows("sources.csv"), ids=lambda row: row["name"])
def test_source_is_described(source):
    assert source["kind"] in KINDS
    assert source["licence"]
    assert float(source["hours"]) > 0
    assert "?" not in source["licence"]
    assert "-NC" not in source["licence"]
    assert "-ND" not in source["licence"]
    if source["kind"] in RECORDED:
        assert source["version"]
        assert int(source["files"]) > 0
        assert source["attribution"].endswith("/copyright")
    else:
        assert (CORPUS / f"{source['extract']}.py").is_file()


def test_licences_of_recordings_are_those_that_were_read():
    read = {row["package"]: row for row in rows("licences.csv")}
    for source in rows("sources.csv"):
        if source["kind"] in RECORDED:
            assert read[source["package"]]["fit"] == "yes"
            assert read[source["package"]]["licence"] == source["licence"]


def test_the_default_corpus_has_250_hours():
    assert sum(float(source["hours"]) for source in rows("sources.csv")) >= 250


@pytest.mark.parametrize(
    "package",
    ["klettres-data", "hedgewars-data", "lmms-common", "scratch", "bucklespring-data",
     "opl3-soundfont", "freepats", "flite", "festvox-kallpc16k", "festvox-us-slt-hts",
     "tuxpaint-data", "tuxpaint-stamps-default", "gcin-voice", "hydrogen-data", "kajongg",
     "hydrogen-drumkits", "asterisk-core-sounds-en-wav", "asterisk-prompt-it-menardi",
     "timgm6mb-soundfont", "musescore-general-soundfont-small", "uqm-voice",
     "gcompris-qt-data", "@audio-samples/piano-velocity7", "krank"],
)  # fmt: skip
def test_excluded_covers_every_kept_away_package(package):
    assert any(fnmatch(package, row["pattern"]) for row in rows("excluded.csv"))


def test_the_allowed_festival_voice_is_not_excluded():
    assert not any(fnmatch("festvox-ru", row["pattern"]) for row in rows("excluded.csv"))


# --- the builder, on a tiny package made here ------------------------------------------


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """The folder of a corpus, whose table has two fake packages."""
    debs = {
        "first": {"a.wav": 440, "deep/b.wav": 550, "deep/a_again.wav": 440},
        "second": {"c.wav": 660, "of_first.wav": 550},
    }
    debs = {name: make_deb(tmp_path, name, tones) for name, tones in debs.items()}
    table = tmp_path / "sources.csv"
    header = "name,kind,package,version,licence,attribution,hours,files,include,extract\n"
    table.write_text(header + "first,sound,first,1.0-1,CC0-1.0,,0.1,2,,\n"
                     "second,music,second,0.9-1,CC0-1.0,,0.1,1,,\n")  # fmt: skip
    (tmp_path / "held_out.csv").write_text("sha256,package,file\n")
    monkeypatch.setattr(build, "SOURCES", table)
    monkeypatch.setattr(build, "HELD_OUT", tmp_path / "held_out.csv")
    monkeypatch.setattr(
        packages, "fetch", lambda name, folder: Path(shutil.copy(debs[name], folder))
    )
    return tmp_path / "corpus"


def run(corpus, *options):
    return build.main([str(corpus), *options])


@needs_dpkg
def test_build_takes_each_sound_once_and_writes_a_manifest(corpus, caplog):
    assert run(corpus) == 0
    built = sorted(p.relative_to(corpus).as_posix() for p in corpus.rglob("*.wav"))
    sounds = "usr/share/sounds"
    assert built == [
        f"music/second/{sounds}/c.wav",
        f"sound/first/{sounds}/a.wav",
        f"sound/first/{sounds}/deep/b.wav",
    ]  # fmt: skip
    with (corpus / "manifest.csv").open(newline="") as stream:
        manifest = {row["name"]: row for row in csv.DictReader(stream)}
    assert manifest["first"]["files"] == "2"
    assert manifest["second"]["version"] == "1.0-1"
    assert "second: version 1.0-1, but sources.csv was made with 0.9-1" in caplog.text
    assert run(corpus, "--check") == 0


@needs_dpkg
def test_interrupted_build_is_not_complete_and_continues(corpus, caplog):
    # What a build that was stopped leaves: scratch files, or a folder without its stamp.
    leftover = corpus / ".scratch/first/audio/half.wav"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half")
    (corpus / "sound/first").mkdir(parents=True)
    (corpus / "sound/first/half.wav").write_bytes(b"half")
    assert run(corpus, "--check") == 1
    assert run(corpus, "--only", "first") == 0
    assert not list(corpus.rglob("half.wav"))
    stamp = corpus / ".stamps/first.json"
    before = stamp.stat().st_mtime_ns
    caplog.set_level("INFO")
    assert run(corpus) == 0
    assert "already complete" in caplog.text
    assert stamp.stat().st_mtime_ns == before
    assert len(json.loads(stamp.read_text())["digests"]) == 2


@needs_dpkg
def test_check_finds_missing_and_changed_files(corpus, caplog):
    assert run(corpus) == 0
    sounds = corpus / "sound/first/usr/share/sounds"
    (sounds / "a.wav").unlink()
    (sounds / "deep/b.wav").write_bytes(b"other")
    assert run(corpus, "--check") == 1
    assert "a.wav is missing" in caplog.text
    assert "b.wav has changed" in caplog.text
    # What one does then: delete the source and build it again.
    shutil.rmtree(corpus / "sound/first")
    assert run(corpus) == 0
    assert run(corpus, "--check") == 0


@needs_dpkg
def test_held_out_recordings_are_left_out(corpus, tmp_path):
    digest = packages.sha256(tmp_path / "first/usr/share/sounds/a.wav")
    (tmp_path / "held_out.csv").write_text(f"sha256,package,file\n{digest},first,a.wav\n")
    assert run(corpus, "--only", "first") == 0
    assert [p.name for p in corpus.rglob("*.wav")] == ["b.wav"]


@pytest.mark.parametrize(
    ("package", "role"), [("klettres-data", "evaluation"), ("krank", "licence")]
)
def test_an_excluded_package_is_refused(corpus, caplog, package, role):
    table = build.SOURCES
    table.write_text(table.read_text().replace("sound,first,", f"sound,{package},"))
    assert run(corpus) == 1
    assert f"{package} is not for the corpus: {role}" in caplog.text
    assert not corpus.exists()


@needs_dpkg
def test_a_source_that_fails_is_named_and_does_not_stop_the_rest(corpus, tmp_path, caplog):
    [deb] = (tmp_path / "debs").glob("first_*.deb")
    deb.write_bytes(deb.read_bytes()[:200])  # cut short
    assert run(corpus) == 1
    assert "failed: first" in caplog.text
    assert (corpus / "music/second").is_dir()
    assert not (corpus / "sound/first").exists()


# --- rendered music --------------------------------------------------------------------


def test_scores_are_deterministic():
    for make in (render_midi.notes, render_midi.drum_hits, render_midi.drum_loop):
        first, again, other = (make(Random(seed)).to_bytes() for seed in "xxy")
        assert first == again != other


def test_midi_bytes():
    # Examples of the Standard MIDI File specification.
    cases = [(0, "00"), (0x7F, "7f"), (0x80, "8100"), (0x2000, "c000"), (0x0FFFFFFF, "ffffff7f")]
    for value, expected in cases:
        assert midi.variable_length(value).hex() == expected
    score = midi.Score()
    score.note(0.5, 0.25, channel=2, pitch=69, velocity=90)
    # 500 ticks, note on; 250 ticks, note off; end of track.
    assert score.to_bytes().hex().endswith("837492455a817a82450000ff2f00")


# --- examples --------------------------------------------------------------------------


def example_files() -> list[Path]:
    return sorted(p for p in EXAMPLES.iterdir() if p.suffix in {".ogg", ".flac", ".wav"})


@pytest.mark.parametrize("path", example_files(), ids=lambda path: path.name)
def test_example_is_short_audible_and_credited(path):
    waveform, rate = soundfile.read(path, always_2d=True)  # (n, channels)
    assert 3 <= len(waveform) / rate <= 8
    assert 0.03 < np.abs(waveform).max() <= 1.0
    assert path.name in (EXAMPLES / "README.md").read_text(encoding="utf-8")


def test_examples_are_small_and_mixed():
    infos = [soundfile.info(path) for path in example_files()]
    assert sum(path.stat().st_size for path in example_files()) < 1_500_000
    assert len({info.samplerate for info in infos}) >= 3
    assert {info.channels for info in infos} == {1, 2}
