"""What is read as labelled recordings, and how it is refused."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from hear_msm_mae.answers.labels import read_labels


@pytest.fixture
def files(tmp_path) -> Path:
    for name in ("a", "b", "c", "d"):
        (tmp_path / f"{name}.wav").write_bytes(b"not read here")
    return tmp_path


def table(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text)
    return path


def test_a_folder(tmp_path, caplog):
    for name in ("dog/a.wav", "dog/far/b.wav", "cat/c.wav", "beside.wav", "cat/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        found = read_labels(tmp_path)
    assert [(x.name, *y) for x, y in zip(found.recordings, found.labels, strict=True)] == [
        ("cat/c.wav", "cat"),
        ("dog/a.wav", "dog"),
        ("dog/far/b.wav", "dog"),
    ]
    assert found.names == ["cat", "dog"]
    assert "1 files beside the sub-folders" in caplog.text
    assert not found.several
    assert len(set(found.groups)) == 3


def test_a_table(files):
    rows = "a.wav,0,1,1,x,train\na.wav,1,2,2,x,Train\nb.wav,,,1,,test\n"
    found = read_labels(table(files, f"Path,Start,End,Label,Group,Split\n{rows}"))
    assert found.labels == [("1",), ("2",), ("1",)]
    assert [(x.start, x.end) for x in found.recordings] == [(0, 1), (1, 2), (0, None)]
    assert found.groups[0] == found.groups[1] == "group x"
    assert found.groups[2].endswith("b.wav")
    assert found.splits == ["train", "train", "test"]
    assert found.targets.tolist() == [[True, False], [False, True], [True, False]]


def test_several_labels(files):
    found = read_labels(table(files, 'path,labels\na.wav,"rain; wind"\nb.wav,\nc.wav,rain|rain\n'))
    assert found.labels == [("rain", "wind"), (), ("rain",)]
    np.testing.assert_array_equal(found.targets, [[1, 1], [0, 0], [1, 0]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.wav,x\nno.wav,y\ngone.wav,y\n", r"2 of the 3 .*no\.wav \(row 2\).*gone"),
        ("path,label\na.wav,x\nb.wav,x\n", "one label only .'x'.*at least two"),
        ("path,label\na.wav,Dog\nb.wav,dog\nc.wav,cat\n", r"'Dog' \(1\), 'dog' \(1\)"),
        ("path,labels\na.wav,hot dog;Hot-dog\nb.wav,cat\n", "spells a label in several ways"),
        ("path,label\na.wav,x\nb.wav,nan\nc.wav,\n", r"2 rows have no label.*row 2.*row 3"),
        ("path,labels\na.wav,\nb.wav,nan\n", "no labels at all"),
        ("path,class\na.wav,x\n", "needs one column 'label'.*'class'"),
        ("path,label,labels\na.wav,x,y\n", "needs one column 'label'"),
        ("path,label,split\na.wav,x,train\nb.wav,y,tset\n", "row 2: split must be.*'tset'"),
        ("path,label,split\na.wav,x,train\nb.wav,y,\n", "row 2: split must be"),
        ("path,label,split\na.wav,x,train\nb.wav,y,valid\n", "needs both train and test"),
        ("path,label,group\na.wav,x,1\na.wav,y,2\n", r"a\.wav is in two groups"),
        (
            "path,label,group,split\na.wav,x,1,train\nb.wav,y,1,test\n",
            "group 1 is in train and in test",
        ),
        ("path,label,split\na.wav,x,train\na.wav,y,test\n", "is in train and in test"),
        ("path,label,channel\na.wav,x,each\nb.wav,y,\n", "name one channel"),
    ],
)
def test_refused(files, text, message):
    with pytest.raises(ValueError, match=message):
        read_labels(table(files, text))


def test_other_sources_are_refused(files):
    with pytest.raises(ValueError, match="neither a folder with a sub-folder"):
        read_labels(files / "a.wav")
    with pytest.raises(ValueError, match="no sub-folders with audio"):
        read_labels(files)
    with pytest.raises(FileNotFoundError):
        read_labels(files / "no.csv")
