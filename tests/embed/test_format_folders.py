"""Outputs that are folders of NPY files."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from output_tables import SETTINGS, assert_same, files, make, whole, written

from hear_msm_mae.embed.formats import format_of
from hear_msm_mae.embed.sources import Recording
from hear_msm_mae.embed.table import Done


def test_the_folder_mirrors_the_tree(tmp_path):
    table = make(((1,), (1, 2), (1,)))
    output = written(tmp_path / "out", table)
    assert files(output) == [
        "index.csv",
        "r0.wav.npy",
        "r2.wav.npy",
        "settings.json",
        "sub/r1.wav.npy",
    ]
    rows = whole(table)[0]
    np.testing.assert_array_equal(np.load(output / "r0.wav.npy"), rows[0])
    np.testing.assert_array_equal(np.load(output / "sub" / "r1.wav.npy"), rows[1:4])
    frame = pandas.read_csv(output / "index.csv")
    assert frame["npy"].tolist() == ["r0.wav.npy", "sub/r1.wav.npy", "sub/r1.wav.npy", "r2.wav.npy"]
    assert frame["first_row"].tolist() == [0, 0, 1, 0]
    assert frame["rows"].tolist() == [1, 1, 2, 1]
    assert frame["label"].tolist() == ["l0", "l1", "l1", "l2"]
    assert json.loads((output / "settings.json").read_text())["settings"] == SETTINGS


def test_windows_are_never_flat(tmp_path):
    output = written(tmp_path / "out", make(segment=1.0))
    assert np.load(output / "r0.wav.npy").shape == (1, 4)


def test_a_deleted_or_cut_file_is_not_done(tmp_path):
    table = make(((2,), (3,), (1,)), timestamps=True)
    output = written(tmp_path / "out", table)
    (output / "r0.wav.npy").unlink()
    assert_same(format_of(output).read(output), table.select([1, 2]))
    file = output / "sub" / "r1.wav.npy"
    file.write_bytes(file.read_bytes()[:-1])
    assert_same(format_of(output).read(output), table.select([2]))
    written(output, table)
    assert_same(format_of(output).read(output), table)


def test_files_that_stay_the_same_are_not_written_again(tmp_path):
    table = make(((2,), (3,)), timestamps=True)
    output = written(tmp_path / "out", table)
    stamp = (output / "r0.wav.npy").stat().st_ino
    more = make(((2,), (3,), (4,)), timestamps=True)
    more.recordings[1].stamp = [0, 0]
    other = (output / "sub" / "r1.wav.npy").stat().st_ino
    written(output, more)
    assert (output / "r0.wav.npy").stat().st_ino == stamp
    assert (output / "sub" / "r1.wav.npy").stat().st_ino != other
    assert format_of(output).read(output).total_rows == 9


def test_a_killed_run_of_other_settings_takes_no_new_rows_for_old_ones(tmp_path, monkeypatch):
    output = written(tmp_path / "out", make(layer=1))
    replace, left = Path.replace, [3]  # of the empty settings and index, and of one file

    def killed(self, target):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            written(output, make(layer=2))
    assert format_of(output).read(output).recordings == []
    assert_same(format_of(output).read(written(output, make(layer=2))), make(layer=2))


def test_other_files_are_left_alone(tmp_path):
    output = tmp_path / "out"
    (output / "sub").mkdir(parents=True)
    (output / "labels.npy").write_text("mine")
    with pytest.raises(ValueError, match="holds other files; choose another output folder"):
        written(output, make())
    (output / "labels.npy").unlink()
    (output / "sub").rmdir()
    written(output, make())
    (output / "sub" / "mine.npy").write_text("mine")
    nothing = make().select([])
    written(output, nothing)
    assert files(output) == ["index.csv", "settings.json", "sub/mine.npy"]
    assert format_of(output).read(output).recordings == []
    (output / "sub" / "mine.npy").unlink()
    written(written(output, make()), nothing)
    assert not (output / "sub").exists()


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/outside", "sub/../../outside", "link/outside"]
)
def test_nothing_outside_is_ever_touched(tmp_path, name):
    """Whatever the files of the folder say."""
    output = written(tmp_path / "out", make(((1,),), names=["r0.wav"]))
    (tmp_path / "elsewhere").mkdir()
    (output / "link").symlink_to(tmp_path / "elsewhere")
    for place in (tmp_path, tmp_path / "elsewhere"):
        (place / "outside.npy").write_text("mine")
    index = (output / "index.csv").read_text()
    (output / "index.csv").write_text(index.replace("r0.wav.npy", f"{name}.npy"))
    written(output, make(((2,),), names=["r0.wav"]))  # which does not read it
    ledger = (output / "settings.json").read_text()
    (output / "settings.json").write_text(ledger.replace('"r0.wav"', json.dumps(name)))
    for act in (format_of(output).read, lambda path: written(path, make())):
        with pytest.raises(ValueError, match=r"outside\.npy would lie outside of"):
            act(output)
    (output / "settings.json").write_text(ledger)
    with pytest.raises(ValueError, match=r"outside\.npy would lie outside of"):
        written(output, make(((1,),), names=[name]))
    for place in (tmp_path, tmp_path / "elsewhere"):
        assert (place / "outside.npy").read_text() == "mine"


def test_a_link_in_place_of_a_file_is_not_followed(tmp_path):
    table = make()
    output = written(tmp_path / "out", table)
    other = tmp_path / "other.npy"
    other.write_bytes((output / "r0.wav.npy").read_bytes())
    before = other.read_bytes()
    (output / "r0.wav.npy").unlink()
    (output / "r0.wav.npy").symlink_to(other)
    assert [x.name for x in format_of(output).read(output).recordings] == ["sub/r1.wav", "r2.wav"]
    written(output, make(width=8))
    assert other.read_bytes() == before
    (output / "r0.wav.npy").unlink()
    (output / "r0.wav.npy").symlink_to(other)
    written(output, table.select([]))
    assert other.read_bytes() == before


def test_names_that_a_file_system_cannot_have(tmp_path):
    names = [f"{'x' * n}.wav" for n in (237, 243, 247, 248)] + ["sub/" + "ü" * 124 + ".wav"]
    names.append("../up")
    items = [Recording(name, name=name, where=f"/{name}") for name in names]
    output = tmp_path / "out"
    problems = format_of(output).check_names(output, items)
    assert list(problems) == [3, 4, 5]
    assert problems[5] == f"../up.npy would lie outside of {output}"
    assert "longer than the 255 bytes that the file system allows" in problems[3]
    table = make([(1,)] * 3, names=names[:3])
    assert_same(format_of(output).read(written(output, table)), table)
    assert format_of("out.npz").check_names(Path("out.npz"), items) == {}


def test_two_recordings_for_one_place():
    items = [Recording("a", name="a.wav", where=f"/day{i}/a.wav") for i in (1, 2)]
    format_ = format_of("out")
    with pytest.raises(ValueError, match=r"/day1/a\.wav and /day2/a\.wav would both become a\.wav"):
        format_.check_names(Path("out"), items)
    done = Done(["/day3/a.wav", 0.0, None, None, 0], "a.wav", "a.wav")
    with pytest.raises(ValueError, match=r"/day3/a\.wav and /day1/a\.wav would both"):
        format_.check_names(Path("out"), items[:1], [done])
    assert format_.check_names(Path("out"), items[:1] * 2) == {}


def test_odd_names_in_the_folder(tmp_path):
    names = ["=1.wav", "new\nline.wav", "日本語.wav", "not-utf-\udcff8.wav", 'a b,".wav']
    table = make([(1,)] * len(names), names=names)
    for done in table.recordings:
        done.path = done.name.encode("utf-8", "backslashreplace").decode()
    output = written(tmp_path / "out", table)
    assert_same(format_of(output).read(output), table)
    with (output / "index.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["npy"] for row in rows][:3] == [
        "./=1.wav.npy",
        "new\\nline.wav.npy",
        "日本語.wav.npy",
    ]
    assert rows[0]["path"] == "'=1.wav"


def test_a_zip_with_names_of_others_is_never_unpacked(tmp_path):
    output = written(tmp_path / "out.npz", make())
    with zipfile.ZipFile(output, "a") as file:
        file.writestr("../../outside.npy", b"x")
    assert format_of(output).read(output).total_rows == 3
    assert files(tmp_path) == ["out.npz"]


def test_arrow_types_of_columns_without_values(tmp_path):
    table = make()
    for done in table.recordings:
        done.columns = {"note": None}
    schema = pq.read_schema(written(tmp_path / "out.parquet", table))
    assert schema.field("note").type == pa.string()
