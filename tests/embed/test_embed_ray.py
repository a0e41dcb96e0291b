"""`embed --ray` on a cluster of two nodes that the test starts on this machine."""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas
import pytest
import soundfile
from hear_msm_mae.embed.parts import Parts

from hear_msm_mae.embed.run import embed_to
from hear_msm_mae.embed.settings import settings_of

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
MARK = "HEAR_MSM_MAE_TEST_CLUSTER"


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Address of a cluster with two nodes of one processor."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    patch.setenv(MARK, str(uuid.uuid4()))  # by which our own processes are known
    patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    yield cluster.address
    cluster.shutdown()
    patch.undo()


@pytest.fixture
def recordings(tmp_path) -> Path:
    folder = tmp_path / "recordings"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for i in range(24):
        soundfile.write(folder / f"{i:02}.wav", generator.uniform(-0.3, 0.3, 4000 * i + 900), 16000)
    return folder


def local_rows(folder: Path, model, tmp_path: Path, **options) -> pandas.DataFrame:
    output = tmp_path / "local.parquet"
    embed_to(output, [folder], model, settings_of(model, "tiny", **options))
    return pandas.read_parquet(output)


def assert_same(rows: pandas.DataFrame, expected: pandas.DataFrame) -> None:
    columns = [name for name in expected.columns if name != "embedding"]
    pandas.testing.assert_frame_equal(rows[columns], expected[columns])
    vectors = [np.stack(frame["embedding"]) for frame in (rows, expected)]
    np.testing.assert_allclose(*vectors, atol=1e-5)


def test_the_rows_of_a_local_run(cluster, recordings, tiny_file, tiny_model, tmp_path, run):
    (recordings / "broken.wav").write_text("not audio")
    output = tmp_path / "out.parquet"
    arguments = ("embed", recordings, "-o", output, "-w", tiny_file, "--timestamps")
    result = run(*arguments, "--ray", "--ray-address", cluster)
    assert result.status == 3, result.err
    assert "24 of 25 files" in result.out
    assert "could not read" in result.err
    assert "broken.wav" in (tmp_path / "out.parquet.errors.csv").read_text()
    expected = local_rows(recordings, tiny_model, tmp_path, timestamps=True)
    assert_same(pandas.read_parquet(output), expected)
    assert not (tmp_path / "out.parquet.parts").exists()
    # Again, with something new: only that is done.
    (recordings / "broken.wav").unlink()
    soundfile.write(recordings / "new.wav", np.zeros(9000), 16000)
    result = run(*arguments, "--ray", "--ray-address", cluster)
    assert result.status == 0, result.err
    assert "25 of 25 files" in result.out
    assert "24 of them done before" in result.out
    assert len(pandas.read_parquet(output)["path"].unique()) == 25
    assert not (tmp_path / "out.parquet.errors.csv").exists()
    result = run(*arguments[:-1], "--ray", "--ray-address", cluster)
    assert result.status == 2
    assert "another setting of --timestamps: True, now False" in result.err


def test_a_list_with_open_ends(cluster, recordings, tiny_file, tmp_path, run):
    """What a run on the cluster has done, a local one finds again."""
    rows, output = tmp_path / "rows.csv", tmp_path / "out.parquet"
    rows.write_text(
        f"path,start,end\n{recordings}/03.wav,0,0.5\n{recordings}/05.wav,0.5,\n"
        f"{recordings}/06.wav,,\n{recordings}/07.wav,1,1000\n"
    )
    arguments = ("embed", rows, "-o", output, "-w", tiny_file)
    assert "4 of 4 files" in run(*arguments, "--ray", "--ray-address", cluster).out
    assert "4 of them done before" in run(*arguments).out
    assert "4 of them done before" in run(*arguments, "--ray", "--ray-address", cluster).out


def test_urls_in_and_out(cluster, recordings, tiny_file, tiny_model, tmp_path, run):
    source, output = f"file://{recordings}", f"file://{tmp_path}/set"
    arguments = ("embed", source, "-o", output, "-w", tiny_file, "--ray", "--ray-address", cluster)
    assert run(*arguments).status == 0
    result = run(*arguments)
    assert "24 of them done before" in result.out
    rows = pandas.read_parquet(tmp_path / "set").sort_values("path", ignore_index=True)
    rows["path"] = rows["path"].str.removeprefix("file://")
    assert_same(rows, local_rows(recordings, tiny_model, tmp_path))


def test_relative_names_and_failures_beside_a_url(
    cluster, recordings, tiny_file, tmp_path, run, monkeypatch
):
    """Actors do not begin in our folder; `OUT.errors.csv` is written wherever OUT is."""
    (recordings / "broken.wav").write_text("not audio")
    monkeypatch.chdir(tmp_path)
    output = f"file://{tmp_path}/set/"
    result = run(
        "embed", "recordings", "-o", output, "-w", tiny_file, "--ray", "--ray-address", cluster
    )
    assert result.status == 3, result.err
    assert "24 of 25 files" in result.out
    assert f"listed in file://{tmp_path}/set.errors.csv" in result.err
    assert "recordings/broken.wav" in (tmp_path / "set.errors.csv").read_text()
    assert set(pandas.read_parquet(tmp_path / "set")["path"].str.split("/").str[0]) == {
        "recordings"
    }


def test_an_overwriting_run_that_was_stopped(cluster, recordings, tiny_file, tmp_path, run):
    """Its parts are not mixed with the old output when it goes on without --overwrite."""
    output, parts = tmp_path / "out.parquet", Parts(str(tmp_path / "out.parquet.parts"))
    arguments = (
        "embed",
        recordings,
        "-o",
        output,
        "-w",
        tiny_file,
        "--ray",
        "--ray-address",
        cluster,
    )
    assert run(*arguments).status == 0
    parts.remove()
    parts.replaces(begin=True)  # what it has done when no group is complete yet
    result = run(*arguments)
    assert "done before" not in result.out
    assert "24 of 24 files" in result.out
    assert not os.path.exists(parts.folder)
    assert len(pandas.read_parquet(output)) == 24


def workers() -> list[int]:
    """Process ids of the actors of our cluster."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            ours = os.environ[MARK].encode() in (folder / "environ").read_bytes()
            if ours and b"MapWorker" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def test_a_killed_worker(cluster, recordings, tiny_file, tiny_model, tmp_path, run):
    long = np.tile(np.random.default_rng(1).uniform(-0.1, 0.1, 16000), 120)
    for i in range(8):
        soundfile.write(recordings / f"long{i}.wav", long, 16000)
    output, parts = tmp_path / "out.parquet", tmp_path / "out.parquet.parts"
    killed = []

    def kill() -> None:
        deadline = time.monotonic() + 120
        while not killed and time.monotonic() < deadline:
            if list(parts.glob("part-*")) and (found := workers()):
                os.kill(found[0], signal.SIGKILL)
                killed.append(found[0])
            time.sleep(0.01)

    thread = threading.Thread(target=kill)
    thread.start()
    result = run(
        "embed", recordings, "-o", output, "-w", tiny_file, "--ray", "--ray-address", cluster
    )
    thread.join()
    assert killed
    assert result.status == 0, result.err
    assert "32 of 32 files" in result.out
    assert_same(pandas.read_parquet(output), local_rows(recordings, tiny_model, tmp_path))


def test_no_cluster_there(recordings, tiny_file, tmp_path, run):
    arguments = ("embed", recordings, "-o", tmp_path / "out.npz", "-w", tiny_file, "--ray")
    result = run(*arguments)
    assert result.status == 2
    assert "with --ray, --output must be a .parquet file, a folder or a URL" in result.err
