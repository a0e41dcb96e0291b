"""The store of a run: what it says is done, after kills at any point and for changed files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from embed_rows import Stopped, assert_same, embed, expected_table, small_pieces, stop_after, table

from hear_msm_mae.embed.cutting import Place
from hear_msm_mae.embed.pieces import Result
from hear_msm_mae.embed.settings import settings_of
from hear_msm_mae.embed.sources import Recording
from hear_msm_mae.embed.store import Store
from hear_msm_mae.pooling import Sums, pooled


def stopped(output, sources, model, monkeypatch, results: int, **options) -> Path:
    """The folder of a run that stored so many results of small pieces, and wrote no output."""
    small_pieces(monkeypatch)
    with monkeypatch.context() as patch:
        stop_after(patch, results)
        with pytest.raises(Stopped):
            embed(output, sources, model, **options)
    if output.exists():
        output.unlink()
    return output.with_name(f"{output.name}.partial")


def journal(folder: Path) -> list[list]:
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]


# ---------------------------------------------------------------------------------------------
# After a kill
# ---------------------------------------------------------------------------------------------
def cut_rows(folder: Path, size: int) -> None:
    rows = (folder / "rows.bin").read_bytes()
    (folder / "rows.bin").write_bytes(rows[: len(rows) - size])


def add_rows(folder: Path) -> None:
    with (folder / "rows.bin").open("ab") as file:
        file.write(b"x" * 777)


def cut_line(folder: Path) -> None:
    lines = (folder / "journal.jsonl").read_bytes()
    (folder / "journal.jsonl").write_bytes(lines[:-20])


def add_nothing(folder: Path) -> None:
    """As some file systems leave a file after a loss of power."""
    with (folder / "journal.jsonl").open("ab") as file:
        file.write(bytes(500))


DAMAGES = {
    "rows without a line": add_rows,
    "a line without its rows": lambda folder: cut_rows(folder, 1),
    "lines without their rows": lambda folder: cut_rows(folder, 5000),
    "no rows": lambda folder: (folder / "rows.bin").write_bytes(b""),
    "a torn line": cut_line,
    "zeros behind the lines": add_nothing,
    "no sums": lambda folder: (folder / "open.npz").unlink(missing_ok=True),
    "torn sums": lambda folder: (folder / "open.npz").write_bytes(b"PK"),
    "half of what is removed at the end": lambda folder: (folder / "settings.json").unlink(),
    "a hidden file": lambda folder: (folder / ".open-x1y2.npz").write_bytes(b"PK"),
}
OPTIONS = [{}, {"timestamps": True}, {"segment": 2.5, "overlap": 0.5}]


@pytest.mark.parametrize("damage", DAMAGES, ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_what_a_kill_leaves(recordings, tiny_model, tmp_path, monkeypatch, options, damage):
    output = tmp_path / "out.npz"
    folder = stopped(output, recordings, tiny_model, monkeypatch, 17, **options)
    DAMAGES[damage](folder)
    embed(output, recordings, tiny_model, **options)
    assert_same(table(output), expected_table(recordings, tiny_model, **options))
    assert not folder.exists()


@pytest.mark.parametrize("lost", range(4))
def test_sums_that_are_ahead_of_the_lines(recordings, tiny_model, tmp_path, monkeypatch, lost):
    """Those of the third window, with the rows of the first two or fewer."""
    output, source, segment = tmp_path / "out.npz", recordings / "8.wav", {"segment": 2.2}
    folder = stopped(output, source, tiny_model, monkeypatch, 3, **segment)
    assert [line[2:4] for line in journal(folder)] == [[0, 1]]
    assert (folder / "open.npz").exists()
    lines = (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "journal.jsonl").write_bytes(b"".join(lines[: max(0, len(lines) - lost)]))
    embed(output, source, tiny_model, **segment)
    assert_same(table(output), expected_table(source, tiny_model, **segment))


def test_a_recording_that_failed_begins_again(recordings, tiny_model, tmp_path, monkeypatch):
    """Not behind the windows that were complete when the file could not be read for a moment."""
    output, source, segment = tmp_path / "out.npz", recordings / "8.wav", {"segment": 2.2}
    small_pieces(monkeypatch)
    add, left = Store.add, [3]

    def failing(self, result):
        add(self, result)
        left[0] -= 1
        if not left[0]:
            self.drop(result.recording)
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(Store, "add", failing)
        with pytest.raises(Stopped):
            embed(output, source, tiny_model, **segment)
    embed(output, source, tiny_model, **segment)
    assert_same(table(output), expected_table(source, tiny_model, **segment))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}\n", "is damaged"),
        ("5\n", "is damaged"),
        ("not json\n", "is damaged"),
    ],
)
def test_a_damaged_line(recordings, tiny_model, tmp_path, monkeypatch, text, message):
    output = tmp_path / "out.npz"
    folder = stopped(output, recordings, tiny_model, monkeypatch, 3)
    with (folder / "journal.jsonl").open("a") as file:
        file.write(text)
    with pytest.raises(ValueError, match=message):
        embed(output, recordings, tiny_model)
    assert embed(output, recordings, tiny_model, overwrite=True).done == 10


def test_the_folder_of_another_release(recordings, tiny_model, tmp_path):
    output, folder = tmp_path / "out.npz", tmp_path / "out.npz.partial"
    folder.mkdir()
    (folder / "settings.json").write_text(json.dumps({"settings": {}, "tasks": 3}))
    with pytest.raises(ValueError, match=r"was left by another release.*remove the folder or"):
        embed(output, recordings, tiny_model)
    assert (folder / "settings.json").exists()
    assert embed(output, recordings, tiny_model, overwrite=True).done == 10


@pytest.mark.parametrize("name", ["letter.txt", "batch-000000.npz", "sub/x.npy"])
@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_somebody_else(recordings, tiny_model, tmp_path, name, linked, overwrite):
    """It has the name of the folder for the results so far, or a link does."""
    folder = tmp_path / ("mine" if linked else "out.partial")
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text("keep")
    (folder / "settings.json").write_text("{}")  # outputs have such a file, too
    if linked:
        (tmp_path / "out.partial").symlink_to(folder)
    with pytest.raises(ValueError, match=r"out\.partial holds a file that is not of this release"):
        embed(tmp_path / "out", recordings, tiny_model, overwrite=overwrite)
    assert sorted(x.name for x in folder.rglob("*") if x.is_file()) == sorted(
        [Path(name).name, "settings.json"]
    )


def test_pieces_of_another_length(recordings, tiny_model, tmp_path, monkeypatch):
    """Of a release that cuts in another way: their numbers mean something else."""
    with monkeypatch.context() as patch:
        folder = stopped(tmp_path / "out.npz", recordings, tiny_model, patch, 3)
    with pytest.raises(ValueError, match="was left by another release"):
        embed(tmp_path / "out.npz", recordings, tiny_model)
    assert journal(folder)


# ---------------------------------------------------------------------------------------------
# What is done
# ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("interrupted", [False, True])
def test_a_file_that_changed_is_embedded_again(
    recordings, tiny_model, tmp_path, monkeypatch, interrupted
):
    output = tmp_path / "out.npz"
    if interrupted:
        stopped(output, recordings, tiny_model, monkeypatch, 12, timestamps=True)
    else:
        embed(output, recordings, tiny_model, timestamps=True)
    soundfile.write(recordings / "2.wav", np.full(20000, 0.2), 16000)
    summary = embed(output, recordings, tiny_model, timestamps=True)
    assert summary.done == 10
    if not interrupted:
        assert (summary.earlier, summary.seconds) == (9, 1.25)
    assert_same(table(output), expected_table(recordings, tiny_model, timestamps=True))


def test_a_file_that_changed_while_it_was_open(recordings, tiny_model, tmp_path, monkeypatch):
    """The first half of one version and the second half of another are never put together."""
    output = tmp_path / "out.npz"
    source = recordings / "8.wav"
    for options in OPTIONS:
        stopped(output, source, tiny_model, monkeypatch, 1, **options)
        samples, rate = soundfile.read(source)
        soundfile.write(source, samples[::-1], rate)
        embed(output, source, tiny_model, **options)
        assert_same(table(output), expected_table(source, tiny_model, **options))
        output.unlink()


def test_audio_in_memory_is_known_by_its_samples(tiny_model, tmp_path):
    """Not by its place among the items."""
    first, second = np.random.default_rng(0).uniform(-0.3, 0.3, (2, 9000)).astype(np.float32)
    for make in (lambda x: (x, 16000), lambda x: {"array": x, "sampling_rate": 16000, "path": "a"}):
        output = tmp_path / "out.npz"
        for items, earlier in (([first], 0), ([first, second], 1), ([second, first], 0)):
            sources = [make(item) for item in items]
            assert embed(output, sources, tiny_model).earlier == earlier
            expected = expected_table(sources, tiny_model)
            assert_same(table(output), expected)
        assert embed(output, sources, tiny_model).earlier == 2
        output.unlink()


def test_a_refused_run_leaves_nothing(recordings, tiny_model, tmp_path):
    output = tmp_path / "out.npz"
    embed(output, recordings, tiny_model)
    with pytest.raises(ValueError, match="--dtype: float32, now float16"):
        embed(output, recordings, tiny_model, dtype="float16")
    assert not (tmp_path / "out.npz.partial").exists()
    assert embed(output, recordings, tiny_model).earlier == 10


def test_what_the_store_holds_is_not_larger_than_the_output(tiny_model, tmp_path):
    """With embeddings of the size of the bundled weights, paths of 100 characters, windows."""
    width, source = 1920, Recording("/" + "x" * 100, name="x" * 30, where="/" + "x" * 100)
    settings = settings_of(tiny_model, "tiny", segment=1.0).stored()
    store = Store(tmp_path / "s.partial", settings, width, tiny_model.timeline(False))
    row = np.zeros((1, width), np.float32)
    for i in range(100):
        place = Place(i, 0, 16000 * i, 16000, i == 99, 1.0)
        store.add(Result(source, place, row))
    store.flush()
    size = sum(file.stat().st_size for file in store.folder.iterdir())
    assert size < 1.1 * 100 * row.nbytes
    store.close(remove=True)


def test_the_sums_of_an_open_clip_take_the_place_of_a_row(tiny_model, tmp_path):
    """As those of one long file, whose output is one row."""
    settings, width = settings_of(tiny_model, "tiny").stored(), 3840
    mean, std = torch.rand(2, width // 2, dtype=torch.float64) + torch.tensor([[5.0], [0.01]])
    sums = Sums(6000.0 * torch.stack([mean, std.square() + mean.square()]), 6000.0)
    source, folder = Recording("/long.wav", where="/long.wav"), tmp_path / "s.partial"
    store = Store(folder, settings, width, tiny_model.timeline(False))
    nothing = np.zeros((0, width), np.float32)
    store.add(Result(source, Place(0, 7, 0, None, False, 60.0), nothing, sums))
    store.flush()
    assert sum(file.stat().st_size for file in folder.iterdir()) < 1.3 * 4 * width
    store.close()
    store = Store(folder, settings, width, tiny_model.timeline(False))
    resume = store.resume(source)
    store.close(remove=True)
    assert resume is not None
    assert resume[:2] == (0, 8)
    np.testing.assert_allclose(pooled(resume.sums), pooled(sums), rtol=1e-6)


# ---------------------------------------------------------------------------------------------
# Work that grows with the number of recordings, not with its square
# ---------------------------------------------------------------------------------------------
def store_of(count: int, folder: Path, model) -> Store:
    """With so many recordings of one second."""
    settings = settings_of(model, "tiny").stored()
    store = Store(folder, settings, 1, model.timeline(False))
    for i in range(count):
        recording = Recording(f"{i}.wav", name=f"{i}.wav", where=f"/{i}.wav")
        rows = np.full((1, 1), i, np.float32)
        store.add(Result(recording, Place(0, 0, 0, 16000, True, 1.0), rows))
    store.flush()
    return store


def calls(function) -> int:
    """Python functions and generator steps that a call takes."""
    count = 0

    def note(frame, event, argument):
        nonlocal count
        count += event == "call"

    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def test_twice_the_recordings_take_twice_the_work(tiny_model, tmp_path):
    work = {}
    for count in (200, 400):
        store_of(count, tmp_path / str(count), tiny_model).close()
        found: list[float] = []

        def read(count=count, found=found):
            store = store_of(0, tmp_path / str(count), tiny_model)
            blocks = [block for _, block in store.table().indexed()]
            found += [float(row) for block in blocks for row in block.rows[:, 0]]
            store.close(remove=True)

        work[count] = calls(read)
        assert found == list(range(count))
    assert work[400] / work[200] == pytest.approx(2, abs=0.2)
