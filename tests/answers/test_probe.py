"""`probe`: from labelled recordings to a classifier, its score and its page."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import soundfile
from cli_errors import assert_one_line_error
from safetensors.numpy import load_file, save_file
from visual_commands import Reader

from hear_msm_mae import get_scene_embeddings, load_model, probe
from hear_msm_mae.answers.head import load_head
from hear_msm_mae.audio import read_audio
from hear_msm_mae.embed import cutting


def test_separable_recordings_are_labelled(probed, labelled, tiny_model):
    assert probed.recordings == 24
    assert probed.head.labels == ["high & <b>", "low", "middle"]
    scores = {name: [s.value for s in row] for name, row in probed.scores.items()}
    assert scores["linear probe"] == [1.0, 1.0]
    assert scores["always the most frequent label"][1] == pytest.approx(1 / 3)
    assert all(s.low <= s.value <= s.high for row in probed.scores.values() for s in row)
    np.testing.assert_array_equal(probed.confusion, 8 * np.eye(3))
    assert [(x.recordings, x.groups, x.recall) for x in probed.per_label] == [(8, 8, 1.0)] * 3
    assert list(probed.curve) == ["1", "2", "5", "all"]
    assert not probed.mistakes
    # The head on its files, by the public functions.
    head = load_head(probed.out)
    for label in head.labels:
        audio = read_audio(labelled / label / "0.wav")[None]
        found = head.probabilities(get_scene_embeddings(audio, tiny_model).numpy())[0]
        assert head.labels[int(found.argmax())] == label
        assert found.sum() == pytest.approx(1)
    tensors = load_file(probed.out / "head.safetensors")
    assert tensors["weight"].shape == (3, tiny_model.scene_embedding_size)
    about = json.loads((probed.out / "labels.json").read_text())
    assert about["labels"] == head.labels
    assert about["scores"]["linear probe"][0]["value"] == 1.0


def test_the_page_shows_what_names_say_as_text(probed):
    text = (probed.out / "probe.html").read_text()
    assert "high &amp; &lt;b&gt;" in text
    assert "<b>" not in text
    names = {name for name, _ in Reader(text).elements}
    assert not names & {"script", "img", "link", "iframe"}
    assert "default-src 'none'" in text


def test_a_second_run_embeds_nothing(run, probed, labelled, tiny_file, tmp_path, monkeypatch):
    out = tmp_path / "again"
    shutil.copytree(probed.out, out)

    def never(*_: object) -> None:
        raise AssertionError("audio was read")

    monkeypatch.setattr(cutting, "stream_audio", never)
    result = run("probe", labelled, "--out", out, "-w", tiny_file)
    assert result.status == 0, result.err
    assert "linear probe: accuracy 1.000 (" in result.out
    for name in ("head.safetensors", "probe.html"):
        assert (out / name).read_bytes() == (probed.out / name).read_bytes()


def test_mistakes_warnings_and_failures(run, labelled, tiny_file, tmp_path):
    """A wrong label, a group for each label, a label of one file, and a damaged file."""
    rows = []
    for label in ("low", "middle"):
        rows += [(labelled / label / f"{i}.wav", label, f"{label}{i // 2}") for i in range(8)]
    rows[0] = (rows[0][0], "middle", "low0")
    rows.append((labelled / "high & <b>" / "0.wav", "lonely", "x"))
    (tmp_path / "damaged.wav").write_text("no audio")
    rows.append((tmp_path / "damaged.wav", "low", "y"))
    table = tmp_path / "labels.csv"
    lines = [",".join(map(str, row)) for row in [("path", "label", "group"), *rows]]
    table.write_text("\n".join(lines))
    result = run("probe", table, "--out", tmp_path / "out", "-w", tiny_file)
    assert result.status == 3
    assert "could not read" in result.err
    assert "label 'lonely' has only 1 recordings" in result.err
    assert "of label 'lonely' are of one group" in result.err
    page = Reader((tmp_path / "out" / "probe.html").read_text())
    assert 1 <= len([1 for name, _ in page.elements if name == "audio"]) <= 4
    found = probe(table, tmp_path / "out", tiny_file)
    wrong = {(x.file, x.labels, x.predicted) for x in found.mistakes}
    assert (str(rows[0][0]), "middle", "low") in wrong
    assert found.recordings == 17
    assert [x.path for x in found.failures] == [str(tmp_path / "damaged.wav")]


def test_a_given_split_is_kept_and_labels_that_follow_length_are_told(
    labelled, tiny_file, tmp_path
):
    lines = ["path,end,label,split"]
    for label, seconds in (("low", 0.2), ("middle", 0.5)):
        splits = ["train"] * 4 + ["valid"] * 2 + ["test"] * 2
        lines += [
            f"{labelled / label / f'{i}.wav'},{seconds},{label},{split}"
            for i, split in enumerate(splits)
        ]
    (tmp_path / "l.csv").write_text("\n".join(lines))
    found = probe(tmp_path / "l.csv", tmp_path / "out", tiny_file)
    assert found.confusion is not None
    assert found.confusion.sum() == 4
    assert found.scores["linear probe"][0].value == 1.0
    assert any("labels follow the length" in note for note in found.warnings)


def test_the_most_frequent_label_is_that_of_the_training(labelled, tiny_file, tmp_path):
    lines = ["path,label,split"]
    for label, splits in (("low", "train " * 6), ("middle", "train " * 4 + "test " * 4)):
        lines += [f"{labelled}/{label}/{i}.wav,{label},{x}" for i, x in enumerate(splits.split())]
    (tmp_path / "l.csv").write_text("\n".join(lines))
    found = probe(tmp_path / "l.csv", tmp_path / "out", tiny_file)
    assert found.scores["always the most frequent label"][0].value == 0.0
    low, middle = found.per_label
    assert np.isnan(low.recall)  # it is not in the test
    assert middle.recall == 1.0


def test_several_labels(labelled, tiny_file, tmp_path):
    """Mixtures of two bands have both labels."""
    lines = ["path,labels"]
    for i in range(8):
        low, high = (read_audio(labelled / x / f"{i}.wav") for x in ("low", "middle"))
        for name, audio in (("low", low), ("middle", high), ("low;middle", low + high)):
            path = tmp_path / f"{name.replace(';', '')}{i}.wav"
            soundfile.write(path, audio, 16000)
            lines.append(f"{path},{name}")
    (tmp_path / "l.csv").write_text("\n".join(lines))
    found = probe(tmp_path / "l.csv", tmp_path / "out", tiny_file)
    assert found.confusion is None
    [score] = found.scores["linear probe"]
    assert score.name == "mean average precision"
    assert score.value > 0.9
    model = load_model(tiny_file)
    both = get_scene_embeddings(read_audio(tmp_path / "lowmiddle3.wav")[None], model)
    assert (found.head.probabilities(both.numpy())[0] > 0.5).all()


def test_bad_input_leaves_nothing(run, probed, labelled, tiny_file, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "dog").mkdir()
    shutil.copy(labelled / "low" / "0.wav", tmp_path / "one" / "dog")
    refused = run("probe", tmp_path / "one", "--out", out, "-w", tiny_file)
    assert_one_line_error(refused, "has one label only")
    (tmp_path / "one" / "cat").mkdir()
    shutil.copy(labelled / "low" / "0.wav", tmp_path / "one" / "cat")
    refused = run("probe", tmp_path / "one", "--out", out, "-w", tiny_file)
    assert_one_line_error(refused, "cannot be divided.*label more files")
    for label in ("dog", "cat"):  # enough for the test, too few to choose the strength on
        shutil.copy(labelled / "low" / "1.wav", tmp_path / "one" / label)
    refused = run("probe", tmp_path / "one", "--out", out, "-w", tiny_file)
    assert_one_line_error(refused, "cannot be divided.*label more files")
    assert not out.exists()
    shutil.copytree(probed.out, out)
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert_one_line_error(run("probe", labelled, "--out", out), "another setting of --weights")
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


def test_heads_of_others_are_refused(probed, tmp_path):
    with pytest.raises(FileNotFoundError, match="probe LABELS --out DIR"):
        load_head(tmp_path / "no")
    path = tmp_path / "head.safetensors"
    save_file({"weight": np.zeros((2, 3), np.float32)}, path)
    with pytest.raises(ValueError, match="not a head of this package"):
        load_head(path)
    path.write_bytes((probed.out / "head.safetensors").read_bytes()[:200])
    with pytest.raises(ValueError, match="not a head of this package"):
        load_head(path)
