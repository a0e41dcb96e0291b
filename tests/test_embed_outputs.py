"""Outputs of `embed`: each format read by other libraries, going on, killed runs, full disks."""

from __future__ import annotations

import csv
import json
import os
import resource
import signal
import subprocess
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import forked
import h5py
import numpy as np
import pandas
import pyarrow.parquet as pq
import pytest
import soundfile

from hear_msm_mae import embed_files, load_model
from hear_msm_mae.audio import read_audio
from hear_msm_mae.batch import cut, target
from hear_msm_mae.batch.inputs import Task
from hear_msm_mae.batch.outputs import format_of
from hear_msm_mae.batch.run import Summary, embed_to
from hear_msm_mae.batch.settings import settings_of

SUFFIXES = (".parquet", ".npz", ".h5", "")
ROOT = Path(__file__).parent.parent


@pytest.fixture
def recordings(tmp_path) -> Path:
    """Ten files of 0.5 to 5 s, one of them in a sub-folder."""
    folder = tmp_path / "recordings"
    (folder / "sub").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for i in range(10):
        samples = generator.uniform(-0.3, 0.3, 8000 * (i + 1))
        soundfile.write(folder / ("sub" if i == 9 else "") / f"{i}.wav", samples, 16000)
    return folder


def embed(output, sources, model, **options) -> Summary:
    more = ("batch_seconds", "workers", "overwrite")
    settings = settings_of(model, "tiny", **{k: v for k, v in options.items() if k not in more})
    sources = sources if isinstance(sources, list) else [sources]
    return embed_to(
        output, sources, model, settings, **{k: options[k] for k in more if k in options}
    )


def table(output: Path) -> list[tuple]:
    """(path, start, end, time, vector) of each row, in order, read without this package."""
    if output.suffix == ".parquet":
        frame = pandas.read_parquet(output)
        times = frame.get("timestamp_ms", pandas.Series([None] * len(frame)))
        columns = (frame["path"], frame["start"], frame["end"], times, frame["embedding"])
        return list(zip(*columns, strict=True))
    if output.suffix == "":
        return [row for line in index_of(output) for row in rows_of(output, line)]
    with h5py.File(output) if output.suffix == ".h5" else np.load(output) as file:
        arrays = {name: file[name][:] for name in file}
    paths = [p.decode() if isinstance(p, bytes) else p for p in arrays["paths"].tolist()]
    starts = arrays.get("start", np.zeros(len(paths)))
    clip = arrays.get("clip", np.arange(len(paths)))
    times = arrays.get("timestamps", [None] * len(clip))
    return [
        (paths[c], starts[c], starts[c] + arrays["seconds"][c], t, vector)
        for c, t, vector in zip(clip, times, arrays["embeddings"], strict=True)
    ]


def index_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "index.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def rows_of(folder: Path, line: dict[str, str]):
    array = np.atleast_2d(np.load(folder / line["npy"]))
    first = int(line["first_row"])
    for i, vector in enumerate(array[first : first + int(line["rows"])]):
        ms = line["first_timestamp_ms"]
        at = float(ms) + i * float(line["hop_ms"]) if ms else None
        yield line["path"], float(line["start"]), float(line["end"]), at, vector


def expected_table(sources, model, **options) -> list[tuple]:
    rows = []
    for record in embed_files(sources, model, **options):
        timed = record.timestamps_ms is not None
        vectors = record.embedding if timed else [record.embedding]
        times = record.timestamps_ms if timed else [None]
        rows += [
            (record.path, record.start, record.end, *x) for x in zip(times, vectors, strict=True)
        ]
    return rows


def assert_same(rows: list[tuple], expected: list[tuple], any_order: bool = False) -> None:
    if any_order:
        rows, expected = (sorted(x, key=lambda row: row[:4]) for x in (rows, expected))
    assert [row[0] for row in rows] == [row[0] for row in expected]
    for column in (1, 2, 3):
        values, wanted = ([row[column] for row in x] for x in (rows, expected))
        if wanted and wanted[0] is None:
            assert set(values) == {None}
        else:
            np.testing.assert_allclose(values, wanted, rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        np.stack([row[4] for row in rows]).astype(np.float32),
        np.stack([row[4] for row in expected]).astype(np.float32),
        atol=2e-3 if rows[0][4].dtype == np.float16 else 1e-5,
    )


# ---------------------------------------------------------------------------------------------
# Formats
# ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"timestamps": True},
        {"segment": 1.5, "overlap": 0.5, "dtype": "float16"},
        {"segment": 1.0, "timestamps": True},
    ],
    ids=str,
)
def test_every_format_holds_the_same(recordings, tiny_model, tmp_path, suffix, options):
    output = tmp_path / f"out{suffix}"
    summary = embed(output, recordings, tiny_model, batch_seconds=4.0, **options)
    assert (summary.files, summary.done, summary.earlier, summary.failures) == (10, 10, 0, [])
    assert summary.seconds == pytest.approx(0.5 * 55, rel=0.01)
    rows = table(output)
    assert_same(rows, expected_table(recordings, tiny_model, **options))
    dtype = options.get("dtype", "float32")
    assert {vector.dtype for *_, vector in rows} == {np.dtype(dtype)}
    assert sorted(x.name for x in tmp_path.iterdir()) == sorted([output.name, "recordings"])
    # What is read back is what was written.
    content = format_of(output).read(output)
    assert content.total_rows == len(rows)
    blocks = [block for _, block in content.indexed()]
    vectors = np.concatenate([block.rows for block in blocks])
    np.testing.assert_array_equal(vectors, np.stack([row[4] for row in rows]))
    if options.get("timestamps"):
        times = np.concatenate([block.times_ms for block in blocks])
        np.testing.assert_allclose(times, [row[3] for row in rows], rtol=1e-12)


def test_parquet_types(recordings, tiny_model, tmp_path):
    for dtype, shown in (("float32", "float"), ("float16", "halffloat")):
        output = tmp_path / f"{dtype}.parquet"
        embed(output, recordings, tiny_model, timestamps=True, dtype=dtype)
        schema = pq.read_schema(output)
        types = {name: str(schema.field(name).type) for name in schema.names}
        assert types == {
            "path": "string",
            "start": "double",
            "end": "double",
            "timestamp_ms": "double",
            "embedding": f"fixed_size_list<element: {shown}>[160]",
        }


def test_parquet_in_polars_and_duckdb(recordings, tiny_model, tmp_path):
    polars, duckdb = pytest.importorskip("polars"), pytest.importorskip("duckdb")
    output = tmp_path / "out.parquet"
    embed(output, recordings, tiny_model)
    expected = np.stack([row[4] for row in table(output)])
    np.testing.assert_array_equal(polars.read_parquet(output)["embedding"].to_numpy(), expected)
    rows = duckdb.sql(f"select embedding from '{output}'").fetchall()
    np.testing.assert_array_equal(np.array([row[0] for row in rows], np.float32), expected)


def test_the_folder_mirrors_the_tree(recordings, tiny_model, tmp_path):
    output = tmp_path / "out"
    embed(output, recordings, tiny_model)
    files = sorted(str(path.relative_to(output)) for path in output.rglob("*.npy"))
    assert files == [*(f"{i}.wav.npy" for i in range(9)), "sub/9.wav.npy"]
    assert np.load(output / "sub" / "9.wav.npy").shape == (160,)


def test_two_files_for_one_place_in_the_folder(recordings, tiny_model, tmp_path):
    sources = [recordings / "0.wav", recordings, tmp_path / "other"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "0.wav").write_bytes((recordings / "0.wav").read_bytes())
    with pytest.raises(ValueError, match=r"0\.wav and .*0\.wav would both become 0\.wav\.npy"):
        embed(tmp_path / "out", sources, tiny_model)


# ---------------------------------------------------------------------------------------------
# Going on
# ---------------------------------------------------------------------------------------------
class _Stopped(Exception):
    pass


def stop_after(monkeypatch, batches: int) -> None:
    """Runs end with an exception behind so many batches; the output is not updated before."""
    append = target.Target.append
    left = [batches]

    def limited(self, tasks, batch):
        if not left[0]:
            raise _Stopped
        left[0] -= 1
        self._cost = float("inf")
        append(self, tasks, batch)

    monkeypatch.setattr(target.Target, "append", limited)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "options", [{}, {"timestamps": True}, {"segment": 1.5, "overlap": 0.5}], ids=str
)
def test_going_on_in_the_middle_of_files(
    recordings, tiny_model, tmp_path, suffix, options, monkeypatch
):
    """Batches end inside files; each run does one, so every seam there is occurs."""
    monkeypatch.setattr(cut, "BLOCK_SECONDS", 0.7)
    expected = expected_table(recordings, tiny_model, **options)
    output = tmp_path / f"out{suffix}"
    read, runs = 0.0, 0
    while True:
        runs += 1
        with monkeypatch.context() as patch:
            stop_after(patch, 1)
            try:
                summary = embed(output, recordings, tiny_model, batch_seconds=2.0, **options)
            except _Stopped:
                assert (tmp_path / f"{output.name}.partial").is_dir()
                continue
        break
    assert runs > 8
    assert summary.done == 10
    assert summary.earlier >= 9
    assert summary.seconds + read < 5.5  # the last file, or a part of it
    assert_same(table(output), expected)
    assert not (tmp_path / f"{output.name}.partial").exists()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_new_files_are_added_and_old_ones_left_alone(
    recordings, tiny_model, tmp_path, suffix, monkeypatch
):
    output = tmp_path / f"out{suffix}"
    new = [recordings / name for name in ("3.wav", "sub/9.wav")]
    for path in new:
        path.rename(path.with_suffix(".hidden"))
    (recordings / "5.wav").rename(recordings / "5.good")
    (recordings / "5.wav").write_text("broken")
    first = embed(output, recordings, tiny_model)
    assert (first.files, first.done, len(first.failures)) == (8, 7, 1)
    again = embed(output, recordings, tiny_model)
    assert (again.done, again.earlier, len(again.failures)) == (7, 7, 1)
    assert again.seconds == 0
    for path in new:
        path.with_suffix(".hidden").rename(path)
    (recordings / "5.good").rename(recordings / "5.wav")
    summary = embed(output, recordings, tiny_model)
    assert (summary.done, summary.earlier, summary.failures) == (10, 7, [])
    assert summary.seconds == pytest.approx(2 + 3 + 5, rel=0.01)
    assert_same(table(output), expected_table(recordings, tiny_model), any_order=True)
    assert not (tmp_path / f"{output.name}.errors.csv").exists()


def test_stretches_that_are_there_already(recordings, tiny_model, tmp_path):
    output, path = tmp_path / "out.parquet", str(recordings / "8.wav")
    stretches = [Task(path, 0.0, 2.0), Task(path, 1.0, 3.5)]
    embed(output, stretches, tiny_model, segment=1.0)
    again = embed(output, stretches, tiny_model, segment=1.0)
    assert again.earlier == 2
    more = [*stretches, Task(path, 4.0), Task(str(recordings / "0.wav"))]
    summary = embed(output, more, tiny_model, segment=1.0)
    assert (summary.earlier, summary.done) == (0, 4)
    assert_same(table(output), expected_table(more, tiny_model, segment=1.0), any_order=True)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("options", [{}, {"timestamps": True}, {"segment": 1.0}], ids=str)
def test_stretches_to_the_end_of_the_file_are_found_again(
    recordings, tiny_model, tmp_path, suffix, options
):
    """Rows of a list without an end, or with one that is behind the end of the file."""
    rows = tmp_path / "rows.csv"
    rows.write_text(
        f"path,start,end\n{recordings}/3.wav,0.5,1.5\n{recordings}/5.wav,0.5,\n"
        f"{recordings}/6.wav,,\n{recordings}/7.wav,2,1000\n"
    )
    output = tmp_path / f"out{suffix}"
    assert embed(output, rows, tiny_model, **options).done == 4
    again = embed(output, rows, tiny_model, **options)
    assert (again.done, again.earlier, again.seconds) == (4, 4, 0)
    with rows.open("a") as file:
        file.write(f"{recordings}/8.wav,1,\n")
    more = embed(output, rows, tiny_model, **options)
    assert (more.done, more.earlier) == (5, 4)
    assert more.seconds == pytest.approx(3.5, rel=0.01)
    assert embed(output, rows, tiny_model, **options).earlier == 5
    expected = expected_table(rows, tiny_model, **options)
    assert_same(table(output), expected, any_order=True)


def test_a_stretch_that_ends_earlier_is_not_the_one_to_the_end(recordings, tiny_model, tmp_path):
    output, path = tmp_path / "out.parquet", str(recordings / "8.wav")
    embed(output, [Task(path, 1.0, 2.0)], tiny_model)
    summary = embed(output, [Task(path, 1.0)], tiny_model)
    assert (summary.earlier, summary.seconds) == (0, pytest.approx(3.5))
    assert embed(output, [Task(path, 1.0, 2.0)], tiny_model).earlier == 0


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_whole_files_and_stretches_in_one_output(recordings, tiny_model, tmp_path, suffix):
    """Both know what the other left, in either order."""
    output, sources = tmp_path / f"out{suffix}", [recordings / "3.wav", recordings / "4.wav"]
    embed(output, sources, tiny_model)
    stretch = Task(str(recordings / "8.wav"), 1.0)
    assert embed(output, [*sources, stretch], tiny_model).earlier == 2
    assert embed(output, [*sources, stretch], tiny_model).earlier == 3
    whole = embed(output, [*sources, recordings / "8.wav"], tiny_model)
    assert (whole.earlier, whole.seconds) == (2, pytest.approx(4.5))
    assert embed(output, [*sources, recordings / "8.wav"], tiny_model).earlier == 3


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "float16"}, r"--dtype: float32, now float16"),
        ({"timestamps": True}, r"--timestamps: False, now True"),
        ({"segment": 2.0}, r"--segment: None, now 2\.0"),
    ],
    ids=str,
)
def test_other_settings_are_refused(
    recordings, tiny_model, tmp_path, suffix, stopped, change, message, monkeypatch
):
    output = tmp_path / f"out{suffix}"
    with monkeypatch.context() as patch:
        if stopped:
            stop_after(patch, 1)
            with pytest.raises(_Stopped):
                embed(output, recordings, tiny_model, batch_seconds=2.0)
        else:
            embed(output, recordings, tiny_model)
    with pytest.raises(ValueError, match=rf"out\S* was made with another setting of {message}"):
        embed(output, recordings, tiny_model, **change)
    summary = embed(output, recordings, tiny_model, overwrite=True, **change)
    assert (summary.done, summary.earlier) == (10, 0)
    assert_same(table(output), expected_table(recordings, tiny_model, **change))


def test_other_weights_are_refused(recordings, tiny_file, tiny_model, tmp_path):
    output = tmp_path / "out.npz"
    embed(output, recordings, tiny_model)
    other = load_model(tiny_file)
    next(other.encoder.parameters()).data[0] += 1
    with pytest.raises(
        ValueError, match=r"setting of --weights: tiny \(\w{12}\), now tiny \(\w{12}\)"
    ):
        embed(output, recordings, other)
    with pytest.raises(ValueError, match="--mode: default, now paper"):
        embed(output, recordings, load_model(tiny_file, mode="paper"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_something_else_under_that_name(recordings, tiny_model, tmp_path, suffix):
    output = tmp_path / f"out{suffix}"
    if suffix:
        output.write_text("mine")
    else:
        output.mkdir()
        (output / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"out\S* exists and cannot be continued"):
        embed(output, recordings, tiny_model)
    assert (output if suffix else output / "mine.txt").read_text() == "mine"


def test_two_runs_at_once(recordings, tiny_model, tmp_path, monkeypatch):
    output = tmp_path / "out.npz"
    append = target.Target.append

    def again(self, tasks, batch):
        with pytest.raises(ValueError, match="another process is writing to"):
            embed(output, recordings, tiny_model)
        append(self, tasks, batch)

    monkeypatch.setattr(target.Target, "append", again)
    assert embed(output, recordings, tiny_model).done == 10


# ---------------------------------------------------------------------------------------------
# Killed, and no room
# ---------------------------------------------------------------------------------------------
def command(output: Path, *arguments: object) -> list[str]:
    return ["embed", "-o", str(output), *map(str, arguments)]


def started(words: list[str], folder: Path) -> BaseProcess:
    logs = folder / "stdout", folder / "stderr"
    return forked.start(forked.hear_msm_mae, words, cwd=ROOT, out=logs[0], err=logs[1])


def batches(output: Path) -> list[Path]:
    return sorted(output.with_name(f"{output.name}.partial").glob("batch-*.npz"))


@pytest.mark.parametrize("suffix", [".parquet", pytest.param(".h5", marks=pytest.mark.slow)])
def test_a_killed_run_leaves_a_readable_output(tmp_path, tiny_file, tiny_model, suffix):
    """SIGKILL in the middle of a long file behind many short ones, then the same command again."""
    generator = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for i in range(20):
        soundfile.write(tmp_path / f"in/{i:02}.wav", generator.uniform(-0.1, 0.1, 32000), 16000)
    second = generator.uniform(-0.1, 0.1, 16000)
    soundfile.write(tmp_path / "in/long.wav", np.tile(second, 1200), 16000)
    output = tmp_path / f"out{suffix}"
    run = command(output, tmp_path / "in", "-w", tiny_file, "--batch-seconds", 20)
    process = started(run, tmp_path)
    deadline = time.monotonic() + 120
    while (len(batches(output)) < 12 or not output.exists()) and time.monotonic() < deadline:
        assert process.is_alive(), (tmp_path / "stderr").read_text()
        time.sleep(0.002)
    process.kill()
    process.join()
    before = batches(output)
    assert len(before) >= 12
    # The output lags behind the batches by some twenty times what it takes to write it: it may
    # hold the ten files of the first batch, or all twenty.
    partial = table(output)
    assert partial
    assert_same(partial, expected_table(tmp_path / "in/[01]*.wav", tiny_model)[: len(partial)])
    second_run = forked.run(forked.hear_msm_mae, run, cwd=ROOT)
    assert second_run.returncode == 0, second_run.stderr
    assert "21 of 21 files" in second_run.stdout
    hours = float(second_run.stdout.split(" hours")[0].split()[-1])
    # It went on inside the long file, behind the last batch; two were of the short files, and the
    # last one may have been damaged.
    assert hours <= (1200 - 20 * (len(before) - 3)) / 3600 + 0.01
    assert not batches(output)
    assert_same(table(output), expected_table(tmp_path / "in", tiny_model))


def test_ctrl_c_says_how_to_go_on(tmp_path, tiny_file):
    soundfile.write(tmp_path / "long.wav", np.tile(np.linspace(-0.1, 0.1, 16000), 3600), 16000)
    output = tmp_path / "out.parquet"
    run = command(output, tmp_path / "long.wav", "-w", tiny_file, "--batch-seconds", 10)
    process = started(run, tmp_path)
    while not batches(output):
        assert process.is_alive(), (tmp_path / "stderr").read_text()
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 130
    err = (tmp_path / "stderr").read_text()
    assert "interrupted; repeat the command to go on" in err
    assert "Traceback" not in err


def limited(limit: int, words: list[str]) -> None:
    """`forked.hear_msm_mae` that cannot write files beyond so many bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    forked.hear_msm_mae(words)


@pytest.mark.parametrize(("suffix", "limit"), [(".parquet", 9000), (".npz", 9000), (".h5", 3000)])
def test_no_room_for_the_output(recordings, tiny_file, tiny_model, tmp_path, suffix, limit):
    """Files may not grow beyond a limit: batches fit, or not even those; nothing is lost."""
    output = tmp_path / f"out{suffix}"
    run = command(output, recordings, "-w", tiny_file, "--batch-seconds", 6, "--timestamps")
    result = forked.run(limited, limit, run, cwd=ROOT)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert f"{output} cannot be written: File too large" in result.stderr
    assert "make room and repeat the command" in result.stderr
    left = {path.name for path in output.with_name(f"{output.name}.partial").iterdir()}
    assert all(name.startswith(("batch-0", "settings.json", "lock")) for name in left), left
    summary = embed(output, recordings, tiny_model, timestamps=True)
    assert summary.done == 10
    assert_same(table(output), expected_table(recordings, tiny_model, timestamps=True))


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a small disk needs root"
)
def test_a_full_disk(recordings, tiny_file, tiny_model, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("cannot mount here")
    try:
        output = disk / "out.npz"
        run = command(output, recordings, "-w", tiny_file, "--batch-seconds", 6, "--timestamps")
        result = forked.run(forked.hear_msm_mae, run, cwd=ROOT)
        assert result.returncode == 2
        assert f"error: {output} cannot be written: No space left on device" in result.stderr
        kept = len(batches(output))
        assert kept >= 1
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        summary = embed(output, recordings, tiny_model, timestamps=True)
        assert summary.done == 10
        assert summary.seconds < 27
        assert_same(table(output), expected_table(recordings, tiny_model, timestamps=True))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_settings_are_in_the_output(recordings, tiny_model, tmp_path):
    output = tmp_path / "out.parquet"
    embed(output, recordings, tiny_model, timestamps=True)
    settings = json.loads(pq.read_schema(output).metadata[b"hear_msm_mae"])
    assert settings["hop_ms"] == 40
    assert settings["weights_name"] == "tiny"


def test_rows_are_those_of_the_file(recordings, tiny_model, tmp_path):
    """Closing the circle: file -> output -> the HEAR function on the same samples."""
    from hear_msm_mae import get_scene_embeddings

    embed(tmp_path / "out.parquet", recordings, tiny_model)
    frame = pandas.read_parquet(tmp_path / "out.parquet")
    for path, end, vector in zip(frame["path"], frame["end"], frame["embedding"], strict=True):
        audio = read_audio(path)
        assert end == len(audio) / 16000
        expected = get_scene_embeddings(audio[None], tiny_model)[0]
        np.testing.assert_allclose(vector, expected, atol=1e-5)
