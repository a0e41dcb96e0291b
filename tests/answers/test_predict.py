"""`predict`: labels, events and label files for any recordings."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from cli_errors import assert_one_line_error

from hear_msm_mae import embed_files, load_model, predict
from hear_msm_mae.answers.events import Event, events_of, raven_table, write_label_files
from hear_msm_mae.answers.head import load_head
from hear_msm_mae.audio import read_audio
from hear_msm_mae.embed import run as runs
from hear_msm_mae.embed.table import Clip, Done, Table


@pytest.fixture
def scene(labelled, tmp_path) -> Path:
    """2.4 s of the low band, 1.8 s of the high one, 1.2 s of the low one; and a second file."""
    folder = tmp_path / "scene"
    folder.mkdir()
    low, high = (
        [read_audio(labelled / label / f"{i}.wav") for i in range(8)]
        for label in ("low", "high & <b>")
    )
    soundfile.write(folder / "day.wav", np.concatenate([*low[:4], *high[:3], *low[4:6]]), 16000)
    soundfile.write(folder / "other.wav", low[7], 16000)
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_windows_events_and_label_files(run, probed, scene, tiny_file, tmp_path):
    out, events = tmp_path / "out.csv", tmp_path / "events.csv"
    extra = ("--events", events, "--audacity", tmp_path / "a", "--raven", tmp_path / "r")
    result = run("predict", probed.out, scene, "-o", out, "--segment", 0.6, *extra)
    assert result.status == 0, result.err
    rows = rows_of(out)
    expected = ["low"] * 4 + ["high & <b>"] * 3 + ["low"] * 2 + ["low"]
    assert [row["label"] for row in rows] == expected
    # Probabilities are those of the head on the public embeddings.
    head, model = load_head(probed.out), load_model(tiny_file)
    records = list(embed_files(scene, model, segment=0.6))
    wanted = head.probabilities(np.stack([x.embedding for x in records]))
    found = [[float(row[f"p_{label}"]) for label in head.labels] for row in rows]
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert [(row["path"], float(row["start"]), float(row["end"])) for row in rows] == [
        (x.path, x.start, x.end) for x in records
    ]
    stretches = [(e["start"], e["end"], e["label"]) for e in rows_of(events)]
    assert [(float(a), float(b), c) for a, b, c in stretches[:3]] == [
        (0.0, pytest.approx(2.4), "low"),
        (pytest.approx(2.4), pytest.approx(4.2), "high & <b>"),
        (pytest.approx(4.2), pytest.approx(5.4), "low"),
    ]
    track = (tmp_path / "a" / "day.wav.txt").read_text().splitlines()
    assert track[1] == "2.400000\t4.200000\thigh & <b>"
    with (tmp_path / "r" / "day.wav.txt").open(newline="") as file:
        table = list(csv.DictReader(file, delimiter="\t"))
    assert [(row["Begin Time (s)"], row["Label"]) for row in table][2] == ("4.200000", "low")
    assert len((tmp_path / "a" / "other.wav.txt").read_text().splitlines()) == 1


def test_parquet_and_python_are_the_same(probed, scene, tmp_path):
    found = predict(probed.out, scene, tmp_path / "out.parquet", segment=0.6)
    table = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert len(table) == len(list(found)) == 10
    for row, prediction in zip(table, found, strict=True):
        assert (row["path"], row["start"], row["label"]) == (*prediction[:2], prediction.label)
        values = [row[f"p_{label}"] for label in found.labels]
        np.testing.assert_array_equal(values, prediction.probabilities)


def test_timestamps(probed, scene, tmp_path):
    found = list(predict(probed.out, scene / "day.wav", tmp_path / "o.csv", timestamps=True))
    times = [x.timestamp_ms for x in found]
    assert np.diff(times).tolist() == [40.0] * (len(times) - 1)
    middle = [x.label for x in found if 2800 < x.timestamp_ms < 3800]
    assert middle.count("high & <b>") > 0.8 * len(middle)


def test_embeddings_are_labelled_without_audio(run, probed, scene, tiny_file, tmp_path):
    index = tmp_path / "index.parquet"
    options = ("--segment", 0.6, "--overlap", 0, "--dtype", "float32")
    assert run("index", scene, "-o", index, "-w", tiny_file, *options).status == 0
    expected = [x.label for x in predict(probed.out, scene, tmp_path / "a.csv", segment=0.6)]
    for file in scene.iterdir():
        file.unlink()
    result = run("predict", probed.out, index, "-o", tmp_path / "b.csv")
    assert result.status == 0, result.err
    assert [row["label"] for row in rows_of(tmp_path / "b.csv")] == expected


def test_other_weights_are_named(run, probed, scene, tiny_file, tmp_path):
    index = tmp_path / "index.parquet"
    options = ("-w", tiny_file, "--layer", 0, "--segment", 2)
    assert run("embed", scene, "-o", index, *options).status == 0
    refused = run("predict", probed.out, index, "-o", tmp_path / "b.csv")
    assert_one_line_error(refused, "another setting of --layer than .*index.parquet")
    with pytest.raises(ValueError, match="another setting of --weights than the model"):
        predict(probed.out, scene, tmp_path / "b.csv", load_model())
    assert not (tmp_path / "b.csv").exists()


def test_an_interrupted_run_goes_on(probed, scene, tmp_path, monkeypatch):
    """What a first run has labelled is not read again."""
    real = runs.embed_recordings
    seen: list[int] = []

    def broken(recordings, *arguments):
        seen.append(len(recordings))
        events = real(recordings, *arguments)
        if len(seen) == 1:
            yield from itertools.islice(events, 1)
            raise KeyboardInterrupt
        yield from events

    monkeypatch.setattr(runs, "embed_recordings", broken)
    with pytest.raises(KeyboardInterrupt):
        predict(probed.out, scene, tmp_path / "o.csv")
    assert not (tmp_path / "o.csv").exists()
    assert len(list(predict(probed.out, scene, tmp_path / "o.csv"))) == 2
    assert seen == [2, 1]


def test_bad_input(run, probed, scene, tmp_path):
    out = tmp_path / "o.csv"
    assert_one_line_error(run("predict", tmp_path / "no", scene, "-o", out), "probe LABELS")
    refused = run("predict", probed.out, scene, "-o", tmp_path / "o.npz")
    assert_one_line_error(refused, "must end in one of")
    refused = run("predict", probed.out, scene, "-o", out, "--threshold", 0)
    assert_one_line_error(refused, "0 < threshold <= 1")
    (tmp_path / "no.wav").write_text("")
    assert_one_line_error(
        run("predict", probed.out, tmp_path / "no.wav", "-o", out), "nothing could"
    )
    assert run("predict", probed.out, scene, "-o", out).status == 0
    refused = run("predict", probed.out, scene, "-o", out, "--segment", 1)
    assert_one_line_error(refused, "another setting of --segment")


def test_an_output_that_is_an_input_is_refused(run, probed, scene, tiny_file, tmp_path):
    listed, index = tmp_path / "list.csv", tmp_path / "index.parquet"
    listed.write_text(f"path,label\n{scene / 'day.wav'},truth\n")
    assert run("index", scene, "-o", index, "-w", tiny_file).status == 0
    before = [path.read_bytes() for path in (listed, index)]
    for path in (listed, index):
        refused = run("predict", probed.out, path, "-o", path)
        assert_one_line_error(refused, f"{path.name} is an input, too")
    refused = run("predict", probed.out, listed, "-o", tmp_path / "o.csv", "--events", listed)
    assert_one_line_error(refused, "--events .* is an input, too")
    assert [path.read_bytes() for path in (listed, index)] == before
    assert not (tmp_path / "o.csv").exists()


def test_timestamps_with_the_bundled_weights(run, labelled, scene, tmp_path):
    """These are read with mean and standard deviation, which a timestamp does not have."""
    assert run("probe", labelled, "-o", tmp_path / "both").status == 0
    how = scene / "day.wav", "-o", tmp_path / "o.csv", "--timestamps"
    assert_one_line_error(run("predict", tmp_path / "both", *how), "probe --scene-pooling mean")
    mean = tmp_path / "mean"
    assert run("probe", labelled, "-o", mean, "--scene-pooling", "mean").status == 0
    assert run("predict", mean, *how).status == 0
    middle = [x for x in rows_of(tmp_path / "o.csv") if 2800 < float(x["timestamp_ms"]) < 3800]
    assert sum(x["label"] == "high & <b>" for x in middle) > 0.8 * len(middle)


def test_labels_that_are_not_utf_8(run, labelled, scene, tiny_file, tmp_path):
    """A list of a spreadsheet in a code page of Windows."""
    rows = [b"%s/low/%d.wav,caf\xe9" % (bytes(labelled), i) for i in range(8)]
    rows += [b"%s/middle/%d.wav,th\xe9" % (bytes(labelled), i) for i in range(8)]
    (tmp_path / "l.csv").write_bytes(b"\n".join([b"path,label", *rows]))
    out = tmp_path / "o.csv"
    assert run("probe", tmp_path / "l.csv", "-o", tmp_path / "p", "-w", tiny_file).status == 0
    result = run("predict", tmp_path / "p", scene, "-o", out, "--raven", tmp_path / "raven")
    assert result.status == 0, result.err
    assert rows_of(out)[1]["label"] == "caf\\udce9"


def test_label_files_of_recordings_with_one_name(tmp_path):
    names = ["take", "take-3", "take", "take-2", "take"]
    done = [Done([f"/{i}/{x}", 0.0, None, None, 0], f"/{i}/{x}", x) for i, x in enumerate(names)]
    table = Table(done, [], {"model": "80x608p16x16p32k"}, 2, np.dtype(np.float32), False)
    events = [Event(f"/{i}/{x}", 0, i + 1, "a", 1) for i, x in enumerate(names)]
    assert write_label_files(table, events, tmp_path, "raven") == 5
    rows = [path.read_text().splitlines()[1].split("\t") for path in tmp_path.iterdir()]
    assert sorted(float(row[4]) for row in rows) == [1, 2, 3, 4, 5]
    assert {row[6] for row in rows} == {"16000"}  # of a model at 32 kHz


def table_of(rows: np.ndarray, spans: list[tuple[float, float]], recordings: list[int]) -> Table:
    done = [Done([f"/{i}.wav", 0.0, None, None, 0], f"{i}.wav", "") for i in range(2)]
    clips = [Clip(r, a, b, 1) for r, (a, b) in zip(recordings, spans, strict=True)]
    how = {}, rows.shape[1], np.dtype(np.float32), False
    return Table(done, clips, *how, read=lambda a, n: rows[a : a + n])


def test_events_are_joined():
    """Overlapping windows, a short gap, a long one, two labels at once, two recordings."""
    spans = [(0, 2), (1, 3), (2, 4), (3, 5), (4, 6), (8, 10), (0, 2)]
    rows = np.array([[0.9, 0.1], [0.7, 0.6], [0.1, 0.8], [0.2, 0.1], [0.8, 0.2], [0.6, 0], [1, 0]])
    table = table_of(rows.astype(np.float32), spans, [0] * 6 + [1])

    def found(*options: float) -> list[tuple]:
        events = events_of(table, ["a", "b"], *options)
        return [(e.path, e.start, e.end, e.label, round(e.probability, 3)) for e in events]

    assert sorted(found(0.5, 0, 0)) == [
        ("0.wav", 0, 3, "a", 0.8),
        ("0.wav", 1, 4, "b", 0.7),
        ("0.wav", 4, 6, "a", 0.8),
        ("0.wav", 8, 10, "a", 0.6),
        ("1.wav", 0, 2, "a", 1.0),
    ]
    assert [x[:4] for x in sorted(found(0.5, 1, 2.5))] == [
        ("0.wav", 0, 6, "a"),
        ("0.wav", 1, 4, "b"),
    ]


def test_label_files_keep_one_line_for_each_event():
    text = raven_table([Event("x", 0, 1, "two\nlines\tand tabs", 0.5)])
    assert len(text.splitlines()) == 2
    assert len({line.count("\t") for line in text.splitlines()}) == 1
