"""Reading licences, game containers, sound fonts and overlaps of the pretraining corpus."""

from __future__ import annotations

import importlib
import struct
from multiprocessing.pool import ThreadPool
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from weights.corpus import (
    containers,
    licences,
    overlaps,
    render_environment,
    render_rooms,
    rendering,
    soundfonts,
)
from weights.corpus.build import RECORDED, read_sources
from weights.corpus.packages import BuildError

DEP5 = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: somebody
License: GPL-2+

Files: data/music/*
 data/voices/hello.ogg
Copyright: a musician
License: CC-BY-SA-3.0

Files: data/music/march.ogg
Copyright: another
License: CC-BY-NC-4.0

Files: debian/*
Copyright: a packager
License: MIT
"""


@pytest.mark.parametrize(
    ("path", "licence"),
    [
        ("usr/share/games/x/data/music/song.ogg", "CC-BY-SA-3.0"),
        ("usr/share/x/music/song.ogg", "CC-BY-SA-3.0"),  # installed without "data"
        ("usr/share/games/x/data/music/march.ogg", "CC-BY-NC-4.0"),
        ("usr/share/x/voices/hello.ogg", "CC-BY-SA-3.0"),
        ("usr/share/x/sounds/bang.wav", "GPL-2+"),
    ],
)
def test_licence_by_the_most_specific_paragraph(path, licence):
    assert licences.licences_of(path, licences.stanzas(DEP5)) == {licence}


def test_an_archive_may_be_under_any_licence():
    found = licences.licences_of("usr/share/x/data.zip", licences.stanzas(DEP5))
    assert found == {"GPL-2+", "CC-BY-SA-3.0", "CC-BY-NC-4.0"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("GPL-2+", "GPL-2.0-or-later"),
        ("LGPL-2.1", "LGPL-2.1-only"),
        ("Expat", "MIT"),
        ("CC-BY-3", "CC-BY-3.0"),
        ("cc-by-sa-4.0", "CC-BY-SA-4.0"),
        ("Public Domain", "public-domain"),
        ("CC-BY-NC-SA-2.5", "CC-BY-NC-SA-2.5"),
    ],
)
def test_spdx_names(name, expected):
    assert licences.spdx(name) == expected


def test_which_licences_are_free():
    for free in ("GPL-2+", "CC-BY-SA-4.0", "Expat or GPL-2", "CC0-1.0 and CC-BY-3.0", "Zlib"):
        assert licences.is_free(free), free
    for other in ("CC-BY-NC-4.0", "CC-BY-ND-3.0", "Talgat", "CC0-1.0 and CC-BY-NC-3.0"):
        assert not licences.is_free(other), other


def _rnc(fields, literals, last):
    """An RNC stream: bit fields as (value, count), literal bytes, and the word behind them."""
    bits = "".join(f"{value:0{count}b}"[::-1] for value, count in fields)
    assert len(bits) % 16 == 0
    words = b"".join(
        int(bits[i : i + 16][::-1], 2).to_bytes(2, "little") for i in range(0, len(bits), 16)
    )
    header = b"RNC\x01" + struct.pack(">II", 10, 0) + bytes(5) + b"\x01"
    return header + words + literals + last.to_bytes(2, "little")


def test_rnc_literals_and_a_match():
    raw = [(4, 5), (1, 4), (0, 4), (0, 4), (1, 4)]  # code lengths: size class 0 and 3
    distance = [(4, 5), (0, 4), (0, 4), (0, 4), (1, 4)]
    length = [(3, 5), (0, 4), (0, 4), (1, 4)]
    # Five literals, then five bytes from five before, then no literals.
    stream = _rnc([(0, 2), *raw, *distance, *length, (2, 16), (1, 1), (1, 2)], b"abcde", 0b010000)
    assert containers.unpack_rnc(stream) == b"abcdeabcde"


def test_rnc_refuses_other_data():
    with pytest.raises(BuildError, match="RNC"):
        containers.unpack_rnc(b"RNC\x02" + bytes(30))


def test_amazon_queen_speech_is_taken_out(tmp_path):
    entries = [(b"A01.SB", b"first"), (b"PICTURE.PCX", b"no"), (b"B02.SB", b"second")]
    table, content, start = b"", b"", 15 + 21 * len(entries)
    for name, data in entries:
        table += struct.pack(">12sBII", name, 0, start + len(content), len(data))
        content += data
    header = bytes(13) + struct.pack(">H", len(entries))
    (tmp_path / "queen.1c").write_bytes(header + table + content)
    containers.amazon_queen(tmp_path)
    found = {p.name: p.read_bytes() for p in (tmp_path / "queen.1c.unpacked").iterdir()}
    assert found == {"A01.mp3": b"first", "B02.mp3": b"second"}


def test_a_sample_of_a_font_is_silenced():
    pcm = np.arange(1, 21, dtype="<i2").tobytes()
    headers = struct.pack("<20sII18s", b"Keep", 0, 10, b"") + struct.pack(
        "<20sII18s", b"Drop", 10, 20, b""
    )
    font = bytearray(b"RIFF....sfbkLIST....sdta" + b"smpl" + struct.pack("<I", len(pcm)) + pcm)
    font += b"LIST....pdta" + b"shdr" + struct.pack("<I", len(headers)) + headers
    assert soundfonts.silence(font, {"Drop"}) == 1
    assert font[32:72] == pcm[:20] + bytes(20)


def test_copies_are_found_by_sound(tmp_path):
    kept, corpus = tmp_path / "kept", tmp_path / "corpus"
    kept.mkdir()
    corpus.mkdir()
    time = np.arange(22_050) / 22_050
    first = 0.5 * np.exp(-3 * time) * np.sin(2 * np.pi * (400 * time + 900 * time**2))
    second = 0.5 * np.exp(-3 * time) * np.sin(2 * np.pi * (2200 * time - 900 * time**2))
    soundfile.write(kept / "a.wav", first, 22_050)
    # Another rate, loudness and format, silence before it.
    copy = np.concatenate([np.zeros(8000), np.repeat(first, 2) * 0.5])
    soundfile.write(corpus / "copy.ogg", copy, 44_100)
    soundfile.write(corpus / "other.wav", second, 22_050)
    table = tmp_path / "overlaps.csv"
    overlaps.main(corpus, kept, table)
    lines = table.read_text().splitlines()[1:]
    assert len(lines) == 1
    assert ",copy.ogg,a.wav,sound" in lines[0]


def test_a_room_decays_by_60_db_in_its_time():
    rng = np.random.default_rng(3)
    response = render_rooms.room_response(rng, 1.0)  # (16000,)
    power = np.mean(response.reshape(20, -1) ** 2, axis=1)
    level = 10 * np.log10(power)  # of 20 parts of 50 ms
    # The low band falls by 60 dB in a second, so by 3 dB a part; the higher ones no slower.
    assert level[18] - level[4] < -38
    assert level[18] - level[4] > -14 * 3 * 2.5


RENDERERS = [row.extract for row in read_sources() if row.kind not in RECORDED]


@pytest.mark.parametrize("name", ["render_environment", "render_tones"])
def test_rendered_clips_depend_on_their_number_only(name):
    module = importlib.import_module(f"weights.corpus.{name}")
    first, again, other = (module.clip(Random(seed), None)[0] for seed in ("1", "1", "2"))
    np.testing.assert_array_equal(first, again)
    assert len(first) != len(other) or (first != other).any()
    assert np.isfinite(first).all()
    assert len(first) > rendering.SAMPLE_RATE


def test_every_rendered_source_has_the_two_functions():
    for name in RENDERERS:
        module = importlib.import_module(f"weights.corpus.{name}")
        assert callable(module.setup)
        assert callable(module.clip)


@pytest.mark.parametrize("source", render_environment.SOURCES, ids=lambda f: f.__name__)
def test_every_environment_sounds(source):
    for seed in range(3):
        sound = source(np.random.default_rng(seed), 4 * rendering.SAMPLE_RATE)
        assert sound.shape == (4 * rendering.SAMPLE_RATE,)
        assert np.isfinite(sound).all()
        assert np.abs(sound).max() > 1e-3


def test_a_stopped_rendering_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(rendering, "BATCH", 3)
    threads = SimpleNamespace(Pool=ThreadPool)  # start at once; processes are not the point
    monkeypatch.setattr(rendering.multiprocessing, "get_context", lambda _: threads)
    tree = tmp_path / "tree"
    name = "weights.corpus.render_tones"
    rendering.render_all(name, tree, tmp_path, hours=0.001, workers=1)
    files = sorted(tree.rglob("*.flac"))
    assert len(files) == rendering.BATCH
    first = files[0].read_bytes()
    stamps = [file.stat().st_mtime_ns for file in files[1:]]
    files[0].unlink()  # as if it had been stopped before this one
    rendering.render_all(name, tree, tmp_path, hours=0.001, workers=1)
    assert files[0].read_bytes() == first
    assert [file.stat().st_mtime_ns for file in files[1:]] == stamps


def test_silence_is_no_clip(tmp_path):
    assert rendering.write_clip(tmp_path / "a.flac", np.zeros(20_000), 16_000) == 0
    # What FluidSynth writes for an instrument whose samples are held out.
    rounding = np.random.default_rng(0).choice([0, 2.0**-15], 20_000)
    assert rendering.write_clip(tmp_path / "a.flac", rounding, 16_000) == 0
    assert not list(tmp_path.iterdir())
