"""The report page: its contents, and its command."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from visual_commands import EVIL, QUOTES, Reader, command, data_of, encoder_only, tone

from hear_msm_mae import load_model
from hear_msm_mae.audio import read_audio
from hear_msm_mae.visualize.media import picture_uri
from hear_msm_mae.visualize.neighbours import directions, nearest, place
from hear_msm_mae.visualize.page import render
from hear_msm_mae.visualize.report import Settings, names_and_folders, write_report


def bytes_of(uri: str, kind: str) -> io.BytesIO:
    assert uri.startswith(f"data:{kind};base64,")
    return io.BytesIO(base64.b64decode(uri.split(",", 1)[1], validate=True))


# ---------------------------------------------------------------------------------------------
# Contents
# ---------------------------------------------------------------------------------------------
def test_names_cannot_become_elements(report_page):
    reader = Reader(report_page.read_text("utf-8"))
    tags = [tag for tag, _ in reader.elements]
    assert tags.count("script") == 2
    assert not {"img", "b", "iframe", "object"} & set(tags)
    names = {clip["name"] for clip in data_of(report_page)["clips"]}
    assert {EVIL, QUOTES, "two\nlines.wav", "caf\\udce9.wav"} <= names


def test_title_and_data_are_escaped():
    text = render("</title><script>alert(1)</script>", {"x": "</script><script>alert(2)"})
    reader = Reader(text)
    assert [tag for tag, _ in reader.elements].count("script") == 2
    assert "alert(1)</script>" not in text
    assert json.loads(reader.scripts[0]) == {"x": "</script><script>alert(2)"}


def test_page_needs_nothing_from_outside(report_page):
    text = report_page.read_text("utf-8")
    reader = Reader(text)
    for tag, attributes in reader.elements:
        for name in ("src", "href", "srcset", "action", "data"):
            assert attributes.get(name, "data:,").startswith("data:"), (tag, attributes)
    addresses = set(re.findall(r"\w+://[^\s\"'`)]+", re.sub(r"base64,[^\"]*", "", text)))
    assert addresses == {"http://www.w3.org/2000/svg"}  # the name of SVG, not a place
    policy = next(a["content"] for _, a in reader.elements if "http-equiv" in a)
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy


def test_clips_hold_what_was_read(report_page, report_folder):
    from PIL import Image

    data = data_of(report_page)
    clips = {(clip["folder"], clip["name"]): clip for clip in data["clips"]}
    assert len(clips) == 11
    clip = clips["high/far", "1.wav"]
    assert (clip["seconds"], clip["frames"]) == (1.0, 101)
    sound, rate = soundfile.read(bytes_of(clip["sound"], "audio/mpeg"))
    assert rate == 16000
    assert abs(len(sound) - 16000) < 1600  # MP3 pads to whole frames
    spectrum = np.abs(np.fft.rfft(sound[2000:14000]))
    assert abs(spectrum.argmax() * 16000 / 12000 - 4100) < 5
    original = np.asarray(Image.open(bytes_of(clip["picture"], "image/webp")).convert("L"))
    assert original.shape == (80, 101)
    assert original.mean(1).argmax() < 40  # the tone is high, so in the upper half
    assert data["ratios"] == [0.5, 0.75, 0.9]
    for ratio, hidden, output in zip(data["ratios"], clip["hidden"], clip["outputs"], strict=True):
        assert set(hidden) <= {"0", "1"}
        assert len(hidden) == len(clip["attention"]) == 5 * 7
        assert abs(hidden.count("1") / 35 - ratio) < 0.3  # of a whole unit, which is 13 wide
        drawn = np.asarray(Image.open(bytes_of(output, "image/webp")).convert("L")).astype(int)
        seen = np.array(list(hidden)).reshape(5, 7) == "0"
        seen = np.kron(seen, np.ones((16, 16), bool))[::-1, :101]
        if seen.any():  # unchanged but for the compression
            assert np.abs(drawn - original)[seen].mean() < 6
    assert min(clip["attention"]) == 0
    assert max(clip["attention"]) == 99
    shortest = clips["short", "50 samples.wav"]
    assert (shortest["frames"], len(shortest["attention"])) == (1, 5)


def test_read_audio_hears_what_the_page_plays(report_page, report_folder):
    """The MP3 follows the waveform that was embedded, but for its small delay."""
    clip = next(c for c in data_of(report_page)["clips"] if c["seconds"] == 2.5)
    sound, _ = soundfile.read(bytes_of(clip["sound"], "audio/mpeg"))
    wave = read_audio(report_folder / clip["folder"] / clip["name"])
    assert np.sqrt((sound**2).mean()) == pytest.approx(np.sqrt((wave**2).mean()), rel=0.1)


def test_failures_are_listed_on_the_page(report_page):
    failed = dict(data_of(report_page)["failed"])
    assert sorted(Path(name).name for name in failed) == ["broken <b>.wav", "empty.flac"]
    assert all(reason.startswith("cannot be read as audio") for reason in failed.values())


def test_a_file_that_the_model_refuses_is_listed(tiny_model, tmp_path):
    tone = np.sin(np.arange(8000) / 9).astype(np.float32)
    soundfile.write(tmp_path / "good.wav", 0.1 * tone, 16000)
    soundfile.write(tmp_path / "damaged.wav", 1e13 * tone, 16000, subtype="FLOAT")
    outcome = write_report(tmp_path / "r.html", [tmp_path], tiny_model, Settings())
    assert outcome.shown == 1
    [(name, reason)] = outcome.failed
    assert name == str(tmp_path / "damaged.wav")
    assert "1e+13" in reason


def test_reports_repeat(report_folder, tiny_model, tmp_path):
    settings = Settings(mask_ratios=(0.6,), max_clips=4, title="T")
    for name in ("a.html", "b.html"):
        outcome = write_report(tmp_path / name, [report_folder], tiny_model, settings)
    assert (outcome.found, outcome.chosen, outcome.shown) == (13, 4, 4 - len(outcome.failed))
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert "<h1>T</h1>" in (tmp_path / "a.html").read_text("utf-8")


def test_report_with_a_bfloat16_model(report_folder, tiny_file, tmp_path):
    model = load_model(tiny_file, precision="bfloat16")
    settings = Settings(mask_ratios=(0.6,), max_clips=2)
    outcome = write_report(tmp_path / "r.html", [report_folder / "high"], model, settings)
    assert (outcome.shown, outcome.failed) == (2, [])
    assert all(len(clip["outputs"]) == 1 for clip in data_of(tmp_path / "r.html")["clips"])


# ---------------------------------------------------------------------------------------------
# Long clips
# ---------------------------------------------------------------------------------------------
def test_picture_of_a_long_clip_shows_its_end():
    from PIL import Image

    values = np.zeros((80, 20_000), np.float32)
    values[:, 15_000:] = 1
    picture = np.asarray(Image.open(bytes_of(picture_uri(values, 0, 1), "image/webp")).convert("L"))
    assert picture.shape == (80, 4000)
    assert picture[:, :2990].max() < 20
    assert picture[:, 3010:].min() > 220


def test_report_of_a_long_recording(tiny_file, tmp_path):
    """50 s are 5001 frames, more than a picture has columns."""
    from PIL import Image

    tone(tmp_path / "in" / "long.wav", 1000, 50)
    options = ("--seconds", 50, "--mask-ratio", 0.5, "-w", tiny_file)
    result = command("report", tmp_path / "in", "-o", tmp_path / "r.html", *options)
    assert result.exit_code == 0, result.output
    (clip,) = data_of(tmp_path / "r.html")["clips"]
    assert (clip["seconds"], clip["frames"]) == (50.0, 5001)
    assert len(clip["attention"]) == len(clip["hidden"][0]) == 5 * 313
    for uri in (clip["picture"], *clip["outputs"]):
        assert Image.open(bytes_of(uri, "image/webp")).size == (4000, 80)


# ---------------------------------------------------------------------------------------------
# Folders, map and neighbours
# ---------------------------------------------------------------------------------------------
def test_names_and_folders():
    files = [Path(name) for name in ("in/a.wav", "in/x/b.wav", "in/x/y/c.wav", "one/d.wav")]
    assert names_and_folders(files[:3], ["in"]) == [
        ("a.wav", "in"),
        ("b.wav", "x"),
        ("c.wav", "x/y"),
    ]
    assert names_and_folders(files, ["in", "one/d.wav"])[2:] == [
        ("c.wav", "in/x/y"),
        ("d.wav", "one"),
    ]
    many = [Path(f"in/{kind}/{index}/a.wav") for kind in "pq" for index in range(20)]
    assert names_and_folders(many, ["in"])[21] == ("1/a.wav", "q")


def test_neighbours_are_the_most_similar_others():
    embeddings = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32) + 5
    unit = directions(embeddings)
    found = nearest(unit, 6)
    for index, near in enumerate(found):
        centred = embeddings - embeddings.mean(0)
        cosine = centred @ centred[index]
        cosine /= np.linalg.norm(centred, axis=1) * np.linalg.norm(centred[index])
        cosine[index] = -2
        assert [j for j, _ in near] == list(np.argsort(-cosine)[:6])
        assert [s for _, s in near] == pytest.approx(np.sort(cosine)[::-1][:6], abs=1e-5)
    assert nearest(unit[:1], 6) == [[]]
    twice = nearest(directions(np.concatenate([embeddings, embeddings[:1]])), 1)
    assert twice[40] == [(0, pytest.approx(1.0, abs=1e-5))]


@pytest.mark.parametrize("layout", ["auto", "tsne", "pca"])
@pytest.mark.parametrize("clips", [1, 2, 3, 5, 60])
def test_map_fills_the_unit_square(clips, layout):
    embeddings = np.random.default_rng(1).normal(size=(clips, 16)).astype(np.float32)
    points = place(directions(embeddings), layout)
    assert points.shape == (clips, 2)
    assert np.isfinite(points).all()
    assert points.min() >= 0
    assert points.max() <= 1
    if clips == 1:
        assert points.tolist() == [[0.5, 0.5]]
    if clips > 3:
        np.testing.assert_allclose([points.min(0), points.max(0)], [[0, 0], [1, 1]])
        assert np.array_equal(points, place(directions(embeddings), layout))


@pytest.mark.parametrize("layout", ["tsne", "pca"])
def test_map_keeps_groups_apart(layout):
    rng = np.random.default_rng(2)
    centres = np.repeat(np.eye(3, 32) * 6, 20, axis=0)
    points = place(directions((centres + rng.normal(size=(60, 32))).astype(np.float32)), layout)
    groups = points.reshape(3, 20, 2)
    within = max(np.linalg.norm(group - group.mean(0), axis=1).mean() for group in groups)
    middles = groups.mean(1)
    between = min(np.linalg.norm(middles[i] - middles[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert between > 3 * within


def test_identical_clips_have_a_map():
    same = np.ones((30, 4), np.float32)
    assert place(directions(same)).tolist() == [[0.5, 0.5]] * 30
    same[-2:] = [[1, 2, 3, 4], [4, 3, 2, 1]]
    assert np.isfinite(place(directions(same))).all()


# ---------------------------------------------------------------------------------------------
# Bad input
# ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--mask-ratio", "0"), "mask ratios must be between 0 and 1"),
        (("--mask-ratio", "0.5", "--mask-ratio", "nan"), "mask ratios must be between 0 and 1"),
        (("--seconds", "-1"), "seconds must be positive"),
        (("--max-clips", "0"), "max_clips must be at least 1"),
        (("--layout", "umap"), "layout must be one of"),
        (("-o", "page.pdf"), "--output must end in .html"),
        (("--device", "x"), "device 'x' is not usable"),
    ],
)
def test_options_are_checked(options, reason, report_folder, tiny_file, tmp_path):
    result = command("report", report_folder, "-o", tmp_path / "r.html", "-w", tiny_file, *options)
    assert isinstance(result.exception, ValueError)
    assert reason in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_nothing_to_show_keeps_the_old_page(tiny_file, tmp_path):
    old = tmp_path / "r.html"
    old.write_text("old")
    (tmp_path / "empty").mkdir()
    result = command("report", tmp_path / "empty", "-o", old, "-w", tiny_file)
    assert "no audio files in" in str(result.exception)
    result = command("report", tmp_path / "absent", "-o", old, "-w", tiny_file)
    assert "no such file or folder" in str(result.exception)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.wav").write_text("no audio")
    result = command("report", tmp_path / "bad", "-o", old, "-w", tiny_file)
    assert "none of the 1 files could be read; nothing was written" in str(result.exception)
    assert old.read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"r.html", "empty", "bad"}


def test_long_and_many_files_are_cut_with_a_message(tiny_file, tmp_path):
    for index in range(7):
        tone(tmp_path / "in" / f"{index}.wav", 400 + index, 1.5)
    output = tmp_path / "r.html"
    options = ("--max-clips", 3, "--seconds", 0.5, "--mask-ratio", 0.3)
    result = command("report", tmp_path / "in", "-o", output, "-w", tiny_file, *options)
    assert result.exit_code == 0, result.output
    assert "3 of 7 files chosen evenly; see --max-clips" in result.output
    data = data_of(output)
    assert [clip["name"] for clip in data["clips"]] == ["0.wav", "2.wav", "4.wav"]
    assert {clip["seconds"] for clip in data["clips"]} == {0.5}
    assert data["ratios"] == [0.3]


def test_encoder_only_weights(report_folder, tiny_checkpoint, tmp_path):
    weights = encoder_only(tiny_checkpoint, tmp_path / "encoder.safetensors")
    output = tmp_path / "r.html"
    result = command("report", report_folder / "high", "-o", output, "-w", weights)
    assert "--no-reconstructions" in str(result.exception)
    assert not output.exists()
    options = ("--no-reconstructions",)
    result = command("report", report_folder / "high", "-o", output, "-w", weights, *options)
    assert result.exit_code == 0, result.output
    assert data_of(output)["clips"][0]["outputs"] == []
