"""What `embed` is given: files, folders, globs, URLs, lists, and audio in memory."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from pathlib import Path

import fsspec
import numpy as np
import pandas
import pytest

from hear_msm_mae.embed.sources import Failure, Recording, find_recordings, iter_recordings
from hear_msm_mae.files import printable


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Path:
    """a.wav, b.flac and sub/c.wav below "in", which the current folder holds."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for name in ("a.wav", "b.flac", "sub/c.wav", "notes.txt"):
        (tmp_path / "in" / name).touch()
    return tmp_path / "in"


def paths(*sources: object) -> list[str]:
    return [recording.path for recording in find_recordings(list(sources))]


def names(*sources: object) -> list[str]:
    return [recording.name for recording in find_recordings(list(sources))]


def listed(text: str, name: str = "list.csv") -> list[Recording]:
    Path(name).write_text(text)
    return find_recordings([name])


def stretches(recordings: list[Recording]) -> list[tuple]:
    return [(x.path, x.start, x.end) for x in recordings]


# ---------------------------------------------------------------------------------------------
# Files, folders, globs, URLs
# ---------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("tree")
def test_files_folders_and_globs():
    everything = ["in/a.wav", "in/b.flac", "in/sub/c.wav"]
    assert paths("in") == everything
    assert names("in") == ["a.wav", "b.flac", "sub/c.wav"]
    assert paths("in/sub/c.wav", "in", "in/a.wav") == ["in/sub/c.wav", *everything[:2]]
    assert paths("in", "./in", os.path.abspath("in"), "in/*.wav") == everything
    assert paths("in/*.wav") == ["in/a.wav"]
    assert paths("in/*") == everything  # a folder that matches is searched; notes.txt is not audio
    assert paths("in/**/*.wav") == ["in/a.wav", "in/sub/c.wav"]
    assert names("in/**/*.wav") == ["a.wav", "sub/c.wav"]
    assert paths("in/*.txt") == ["in/notes.txt"]  # asked for
    assert paths(Path("in/a.wav"), Recording("in/b.flac", 1.0)) == ["in/a.wav", "in/b.flac"]
    assert [x.path for x in find_recordings("in/a.wav")] == ["in/a.wav"]


@pytest.mark.usefixtures("tree")
def test_what_is_named_twice_is_two_rows():
    rows = find_recordings(["in/a.wav", "in/b.flac", "in/a.wav", Recording("in/a.wav", 0, 1)])
    assert [x.path for x in rows] == ["in/a.wav", "in/b.flac", "in/a.wav", "in/a.wav"]
    assert [x.row for x in rows] == [0, 1, 2, 3]
    assert [x.occurrence for x in rows] == [0, 0, 1, 0]
    assert len({x.key for x in rows}) == 4
    assert [tuple(json.loads(json.dumps(x.key))) for x in rows] == [x.key for x in rows]


def test_identity_is_what_and_where(tree, monkeypatch):
    """Not a relative name: REC001.wav of two days are two recordings."""
    keys = []
    for day in ("day1", "day2"):
        (tree.parent / day).mkdir()
        (tree.parent / day / "REC001.wav").touch()
        monkeypatch.chdir(tree.parent / day)
        (recording,) = find_recordings(["."])
        assert recording.where == str(tree.parent / day / "REC001.wav")
        keys.append(recording.key)
    assert keys[0] != keys[1]
    monkeypatch.chdir(tree.parent)
    assert [x.key for x in find_recordings(["day1"])] == keys[:1]


def test_a_file_whose_name_looks_like_a_glob(tree):
    (tree / "x[1]*.wav").touch()
    assert paths("in/x[1]*.wav") == ["in/x[1]*.wav"]


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("absent", FileNotFoundError, "no such file or folder: absent"),
        ("in/*.mp3", FileNotFoundError, r"no file matches in/\*\.mp3"),
        ("memory://absent", FileNotFoundError, "no such file or folder: memory://absent"),
        ("nothing://bucket/a.wav", ValueError, "nothing://bucket/a.wav cannot be opened"),
        ("empty", ValueError, "no audio files in empty"),
        (3.5, TypeError, "source 0 is <class 'float'>; pass paths"),
        (np.zeros(9), TypeError, r"source 0 is an array without a rate; pass .*\(array, rate\)"),
        ({"sampling_rate": 16000}, TypeError, "source 0 has neither 'array', 'bytes' nor 'path'"),
    ],
)
def test_nothing_there(tree, source, error, message):
    (tree.parent / "empty").mkdir()
    with pytest.raises(error, match=message):
        find_recordings([source])


def test_no_sources():
    with pytest.raises(ValueError, match="no audio files in an empty list"):
        find_recordings([])


def test_urls(tree):
    memory = fsspec.filesystem("memory")
    memory.put(str(tree), "/bucket/in", recursive=True)
    urls = [f"memory:///bucket/in/{name}" for name in ("a.wav", "b.flac", "sub/c.wav")]
    try:
        assert paths("memory://bucket/in") == urls
        assert paths("memory://bucket/in/*.wav") == urls[:1]
        assert paths("memory://bucket/in/a.wav", "memory://bucket/in/a.wav") == urls[:1] * 2
        (found,) = find_recordings([urls[0]])
        assert found.where == urls[0]
    finally:
        memory.rm("/bucket", recursive=True)


def test_a_folder_that_cannot_be_listed(tree, monkeypatch):
    """Permissions do not stop root, so the system call is made to fail."""
    scandir = os.scandir

    def failing(path):
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", failing)
    problems: list[Failure] = []
    assert [x.name for x in find_recordings([tree], problems)] == ["a.wav", "b.flac"]
    ((path, _, _, reason),) = problems
    assert (Path(path).name, reason) == ("sub", "folder not listed: Permission denied")
    with pytest.raises(ValueError, match=r"no audio files in .*sub: folder not listed: Permission"):
        find_recordings([tree / "sub"], [])


def test_links_that_a_glob_matches(tree):
    """A broken one is an item that fails later, and a link to a folder above is not followed."""
    (tree / "gone.wav").symlink_to("nowhere.wav")
    (tree / "sub" / "up").symlink_to("..")
    assert paths("in/*.wav") == ["in/a.wav", "in/gone.wav"]
    assert paths("in/**/*.wav") == ["in/a.wav", "in/gone.wav", "in/sub/c.wav"]


def test_a_server_that_cannot_be_reached():
    with pytest.raises(ValueError, match=r"ftp://127\.0\.0\.1:1/x cannot be opened: .*refused"):
        paths("ftp://127.0.0.1:1/x")


@pytest.mark.usefixtures("tree")
def test_a_glob_says_what_it_leaves_out():
    left_out: list[str] = []
    find_recordings(["in/*"], left_out=left_out)
    assert left_out == ["in/notes.txt"]


# ---------------------------------------------------------------------------------------------
# Audio in memory
# ---------------------------------------------------------------------------------------------
class Decoder:
    """As torchcodec's AudioDecoder."""

    def get_all_samples(self):
        raise NotImplementedError


@pytest.mark.usefixtures("tree")
def test_audio_in_memory():
    array = np.zeros(16000, np.float32)
    items = [
        (array, 16000),
        {"array": array, "sampling_rate": 8000, "path": "x.wav"},
        {"bytes": b"RIFF", "path": None},
        Decoder(),
        "in/a.wav",
        {"bytes": None, "path": "in/b.flac"},
    ]
    found = find_recordings(items)
    assert [x.path for x in found] == [
        "item 0",
        "x.wav",
        "item 2",
        "item 3",
        *items[4:5],
        "in/b.flac",
    ]
    assert [x.item is item for x, item in zip(found, items, strict=True)] == [True] * 4 + [
        False
    ] * 2
    assert found[5].where == os.path.abspath("in/b.flac")
    assert len({x.key for x in found}) == 6
    assert find_recordings((array, 16000))[0].item[0] is array


def test_a_generator_is_read_as_it_goes_and_survives_what_is_wrong(tree):
    taken = []

    def sources():
        for source in ("in/a.wav", "gone.wav", None, "in/b.flac"):
            taken.append(source)
            yield source

    problems: list[Failure] = []
    found = iter_recordings(sources(), problems)
    assert (next(found).path, taken) == ("in/a.wav", ["in/a.wav"])
    assert next(found).path == "in/b.flac"
    assert [(x.path, x.reason) for x in problems] == [
        ("gone.wav", "no such file or folder: gone.wav"),
        ("item 2", "source 2 is <class 'NoneType'>; pass paths, or (array, rate) for audio"),
    ]


# ---------------------------------------------------------------------------------------------
# Lists
# ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet"])
def test_lists(tree, kind):
    """Paths from the current folder or that of the list; missing starts and ends; columns."""
    rows = {
        "label": ["x", "y", None, "w"],
        "end": [0.3, None, 0.4, None],
        "path": ["in/a.wav", "b.flac", str(tree / "sub/c.wav"), "gone.wav"],
        "start": [0.1, None, None, 0.2],
        "score": [1, 2, 3, 4],
    }
    frame, source = pandas.DataFrame(rows), f"in/list.{kind}"
    if kind == "parquet":
        frame.to_parquet(source)
    else:
        frame.to_csv(source, index=False, sep="\t" if kind == "tsv" else ",")
    found = find_recordings([source])
    assert [(os.path.relpath(x.path), x.start, x.end) for x in found] == [
        ("in/a.wav", 0.1, 0.3),
        ("in/b.flac", 0.0, None),
        ("in/sub/c.wav", 0.0, 0.4),
        ("gone.wav", 0.2, None),
    ]
    assert [x.columns for x in found] == [
        {"label": label, "score": i} for i, label in enumerate(["x", "y", None, "w"], 1)
    ]
    assert [x.name for x in found[:3]] == ["in/a.wav", "in/b.flac", "in/sub/c.wav"]


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize(
    "text",
    [
        "path, start, end\nin/a.wav, 1, 2\n in/a.wav , 5, 7\n",
        "Path,Start ,END\nin/a.wav,1,2\nin/a.wav,5,7\n",
        "path;start;end\nin/a.wav;1;2\nin/a.wav;5;7\n",
        "path\tstart\tend\nin/a.wav\t1\t2\n\nin/a.wav\t5\t7\n",
        "path,offset,duration\nin/a.wav,1,1\nin/a.wav,5,2\n",
        "path,start,end,duration\nin/a.wav,1,2,1\nin/a.wav,5,,2\n",
        "\ufeffpath,start,end\r\nin/a.wav,1,2\r\nin/a.wav,5,7\r\n",
    ],
)
def test_columns_are_understood(text):
    assert stretches(listed(text)) == [("in/a.wav", 1.0, 2.0), ("in/a.wav", 5.0, 7.0)]


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize(
    ("header", "near"),
    [
        ("path,begin", "start"),
        ("path,onset,offset", "start"),
        ("path,start,stop", "end"),
        ("path,Start Time (s)", "start"),
        ("path,start_s", "start"),
        ("path,strat", "start"),
        ("path,ends", "end"),
        ("path,length", "duration"),
        ("path,offset,durations", "duration"),
        ("path,channels", "channel"),
    ],
)
def test_near_misses_are_refused_by_name(header, near):
    column = header.split(",")[1 if "onset" in header else -1]
    message = re.escape(f"column {column!r} looks like {near!r}; rename it")
    with pytest.raises(ValueError, match=message):
        listed(f"{header}\nin/a.wav{',1' * header.count(',')}\n")


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize(
    "header", ["path,start,end,begin", "path,state,start_date", "path,filename,label,species,times"]
)
def test_other_columns_are_kept(header):
    cells = ["1", "2", "3", "4"][: header.count(",")]
    (found,) = listed(f"{header}\nin/a.wav,{','.join(cells)}\n")
    extra = [name for name in header.split(",") if name not in ("path", "start", "end")]
    assert list(found.columns) == extra


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,start\na.wav,0\n", r"list\.csv has no column 'path'.*'start'\]; rename 'file' if"),
        ("", r"list\.csv has no column 'path'"),
        ("path,PATH\na,b\n", r"two columns 'PATH'"),
        ("path,start\na.wav,0\nb.wav,soon\n", r"row 2: start must be seconds.*'soon'"),
        ('path,start\na.wav,"1,5"\n', r"row 1: start must be seconds such as 90\.5.*'1,5'"),
        ('path,label\na.wav,"x\nb.wav,y\n', r"list\.csv is not a table of text: unexpected end"),
        ("path,start,end\na.wav,2,1\n", r"row 1: expected 0 <= start < end, got 2.0 and 1.0"),
        ("path,start\na.wav,-1\n", "row 1: expected 0 <= start"),
        ("path,end\na.wav,inf\n", "row 1: end must be finite"),
        ("path,start\n,1\n", "row 1: the path is missing"),
        (
            "path,end,duration\na.wav,3,1\n",
            "row 1: end 3.0 and duration 1.0 from 0.0 on contradict",
        ),
        ("path,start,offset\na.wav,3,1\n", "row 1: start 3.0 and offset 1.0 contradict each other"),
        ("path,channel\na.wav,middle\n", r"row 1: channel must be one of .* got 'middle'"),
        ("path\na.wav,b.wav\n", "row 1: 2 cells for 1 columns"),
        ("path\n", "no audio files in"),
    ],
)
def test_lists_that_make_no_sense(tree, text, message):
    (tree / "list.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        paths(tree / "list.csv")


def test_a_list_that_is_no_parquet_file(tree):
    (tree / "list.parquet").write_text("path")
    with pytest.raises(ValueError, match=r"list\.parquet is not a Parquet file"):
        paths(tree / "list.parquet")


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        ("path\tlabel\nin/a.wav\tx\n", "utf-16"),
        ("path,label\nin/a.wav,x\n", "utf-16"),
        ('"path";"label"\n"in/a.wav";"x"\n', "utf-8-sig"),
        ("\n\npath,label\nin/a.wav,x\n", "utf-8"),
        ("path,label\rin/a.wav,x\r", "utf-8"),
    ],
)
@pytest.mark.usefixtures("tree")
def test_lists_of_other_programs(content, encoding):
    Path("list.csv").write_bytes(content.encode(encoding))
    (found,) = find_recordings("list.csv")
    assert (found.path, found.columns) == ("in/a.wav", {"label": "x"})


@pytest.mark.usefixtures("tree")
def test_a_header_of_two_lines():
    (found,) = listed('path,"two\nlines"\nin/a.wav,x\n')
    assert found.columns == {"two\nlines": "x"}


@pytest.mark.usefixtures("tree")
def test_an_accent_as_another_system_writes_it():
    Path(unicodedata.normalize("NFD", "in/café.wav")).touch()
    assert [Path(x.path).exists() for x in listed("path\nin/café.wav\n")] == [True]


@pytest.mark.usefixtures("tree")
def test_lists_and_structures_in_parquet():
    columns = {
        "path": ["in/a.wav", "in/b.flac"],
        "labels": [["dog", "cat"], None],
        "box": [{"x": 1}, {"x": 2}],
        "vector": [[0.5], [1.5]],
        "audio": [{"bytes": b"x", "path": "a.wav"}] * 2,
    }
    pandas.DataFrame(columns).to_parquet("list.parquet")
    first, second = find_recordings("list.parquet")
    assert first.columns == {"labels": '["dog", "cat"]', "box": '{"x": 1}'}
    assert second.columns == {"labels": None, "box": '{"x": 2}'}


@pytest.mark.usefixtures("tree")
def test_paths_as_bytes_in_parquet():
    pandas.DataFrame({"path": [b"in/a.wav"]}).to_parquet("list.parquet")
    assert paths("list.parquet") == ["in/a.wav"]


@pytest.mark.usefixtures("tree")
def test_one_recording_for_each_row():
    text = "path,start,end,label\nin/a.wav,0,0.5,dog\nin/a.wav,0,0.5,bird\nin/a.wav,0.5,1,cat\n"
    found = listed(text)
    assert [x.columns["label"] for x in found] == ["dog", "bird", "cat"]
    assert [x.occurrence for x in found] == [0, 1, 0]
    assert [x.row for x in found] == [0, 1, 2]
    assert len(find_recordings(["list.csv", "list.csv", "in/a.wav", "in"])) == 3 + 3 + 3


@pytest.mark.usefixtures("tree")
def test_values_of_columns_stay_as_they_are_written():
    text = "path,id,n,x,version\nin/a.wav,007,7,0.5,1.10\nin/b.flac,008,,2.25,1.2\n"
    assert [x.columns for x in listed(text)] == [
        {"id": "007", "n": 7, "x": 0.5, "version": "1.10"},
        {"id": "008", "n": None, "x": 2.25, "version": "1.2"},
    ]


def test_a_path_that_two_folders_have(tree):
    Path("a.wav").touch()
    with pytest.raises(ValueError, match=r"row 1: a\.wav is in the current folder and in that of"):
        listed("path\na.wav\n", "in/list.csv")
    Path("a.wav").unlink()
    Path("a.wav").symlink_to(tree / "a.wav")
    assert [x.path for x in listed("path\na.wav\n", "in/list.csv")] == ["a.wav"]


@pytest.mark.usefixtures("tree")
def test_channels():
    found = listed("path,channel\nin/a.wav,Left\nin/a.wav,2.0\nin/a.wav,mix\nin/a.wav,\n")
    assert [x.channel for x in found] == ["left", 2, None, None]
    assert [x.occurrence for x in found] == [0, 0, 0, 1]
    found = find_recordings(["list.csv", "in/b.flac"], channel="right")
    assert [x.channel for x in found] == ["left", 2, None, "right", "right"]
    with pytest.raises(ValueError, match="channel must be one of"):
        find_recordings(["in"], channel="-1")


ODD_NAMES = (
    "with space",
    'double " quote',
    "new\nline",
    "comma, x",
    "日本語",
    "=1+1",
    " ",
    "\x1b[2J",
)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_names_in_lists_are_found_again(tree, kind):
    """Also when they are not UTF-8, and as outputs escape them."""
    from hear_msm_mae.embed.formats.common import csv_text

    files = [str(tree / "sub" / f"{name}.wav") for name in (*ODD_NAMES, "not-utf-\udcff8")]
    for file in files:
        Path(file).touch()
    written = [csv_text(file) if kind == "csv" else printable(file) for file in files]
    frame = pandas.DataFrame({"path": written})
    source = tree / f"list.{kind}"
    frame.to_csv(source, index=False) if kind == "csv" else frame.to_parquet(source)
    assert paths(source) == files


def test_an_output_is_a_list(tree):
    frame = {"path": ["in/a.wav"], "start": [0.0], "end": [1.0], "timestamp_ms": [20.0]}
    pandas.DataFrame(frame | {"embedding": [[1.0, 2.0]], "e0": [1.0]}).to_parquet("out.parquet")
    (found,) = find_recordings(["out.parquet"])
    assert (found.path, found.end, found.columns) == ("in/a.wav", 1.0, {})
