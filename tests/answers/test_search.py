"""`search` and `index`: nearest stretches and near-duplicates, against plain NumPy."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from cli_errors import assert_one_line_error
from visual_commands import EVIL, Reader, tone

import hear_msm_mae
from hear_msm_mae import duplicates, embed_files, load_model, search
from hear_msm_mae.answers import index as engine
from hear_msm_mae.answers import search as searching
from hear_msm_mae.answers.approximate import Lists
from hear_msm_mae.embed import table as tables
from hear_msm_mae.embed.formats import format_of
from hear_msm_mae.embed.formats.parquet import Parquet
from hear_msm_mae.embed.table import Clip, Done, Table


def write_index(path: Path, rows: np.ndarray, per_file: int = 1, **settings) -> Path:
    """An output whose embeddings are given; files of `per_file` windows of 2 s, one a second."""
    files = -(-len(rows) // per_file)
    done = [Done([f"/sounds/{i}.wav", 0.0, None, None, 0], f"{i}.wav", "") for i in range(files)]
    clips = [Clip(i // per_file, i % per_file, i % per_file + 2.0, 1) for i in range(len(rows))]
    made = {"segment": 2.0, "overlap": 1.0, **settings}
    format_of(path).write(
        path,
        Table(
            done,
            clips,
            made,
            rows.shape[1],
            rows.dtype,
            False,
            read=lambda first, count: rows[first : first + count],
        ),
    )
    return path


def similarities(rows: np.ndarray, queries: np.ndarray) -> np.ndarray:
    mean = rows.mean(0, dtype=np.float64)
    a, b = queries.astype(np.float64) - mean, rows.astype(np.float64) - mean
    return a @ b.T / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)


@pytest.fixture
def small_blocks(monkeypatch):
    """So that a few rows are many blocks."""
    monkeypatch.setattr(tables, "BLOCK_BYTES", 2**10)
    monkeypatch.setattr(engine, "STEP_ROWS", 16)
    monkeypatch.setattr(engine, "TILE_ROWS", 5)


@pytest.mark.parametrize("suffix", ["parquet", "npz"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_nearest_rows_are_those_of_numpy(tmp_path, small_blocks, dtype, suffix):
    generator = np.random.default_rng(0)
    rows = (generator.normal(size=(300, 8)) + 5).astype(dtype)
    rows[7] = rows[250]  # equal ones come in the order of the index
    queries = np.concatenate([generator.normal(size=(3, 8)) + 5, rows[7:8]]).astype(np.float32)
    index = engine.Index(write_index(tmp_path / f"i.{suffix}", rows))
    found = index.nearest(queries, 12)
    assert index.nearest(queries, 12) == found  # by the lengths that were kept
    assert index.nearest(queries[1:2], 12)[0][0] == pytest.approx(found[1][0])
    expected = similarities(rows, queries)
    for hits, row in zip(found, expected, strict=True):
        order = np.argsort(-row, kind="stable")[:12]
        np.testing.assert_allclose([s for _, s in hits], row[order], atol=2e-6)
        np.testing.assert_allclose([row[r] for r, _ in hits], row[order], atol=2e-6)
    assert [r for r, _ in found[3][:2]] == [7, 250]


def test_best_of_each_file_across_blocks(tmp_path, small_blocks):
    rows = np.random.default_rng(1).normal(size=(200, 8)).astype(np.float32)
    index = engine.Index(write_index(tmp_path / "i.parquet", rows, per_file=20))
    query = rows[:1] + 0.1
    best = similarities(rows, query)[0].reshape(10, 20).max(1)
    hits = index.nearest(query, 4, one_per_file=True)[0]
    assert [row // 20 for row, _ in hits] == list(np.argsort(-best)[:4])
    np.testing.assert_allclose([s for _, s in hits], np.sort(best)[::-1][:4], atol=1e-6)


def test_pairs_are_those_of_numpy(tmp_path, small_blocks):
    rows = np.random.default_rng(2).normal(size=(70, 4)).astype(np.float32)
    path = write_index(tmp_path / "i.parquet", rows, per_file=2)
    scores = similarities(rows, rows)
    expected = {(a // 2, b // 2) for a, b in np.argwhere(scores >= 0.9) if a // 2 < b // 2}
    found = duplicates(path, 0.9)
    assert {(int(x.path[:-4]), int(x.other[:-4])) for x in found} == expected
    for pair in found:
        a, b = int(pair.path[:-4]), int(pair.other[:-4])
        best = scores[2 * a : 2 * a + 2, 2 * b : 2 * b + 2].max()
        assert pair.similarity == pytest.approx(best, abs=1e-6)
    assert [x.similarity for x in found] == sorted((x.similarity for x in found), reverse=True)


def test_too_many_pairs_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(searching, "MOST_PAIRS", 5)
    rows = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    with pytest.raises(ValueError, match="more than 5 pairs"):
        duplicates(write_index(tmp_path / "i.parquet", rows), -0.99)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> Path:
    """Tones of rising pitch; a quieter copy of one; one that changes after 4 s."""
    folder = tmp_path_factory.mktemp("sounds")
    for i, hertz in enumerate((200, 400, 800, 1600, 3200)):
        tone(folder / f"{i}.wav", hertz, 4)
    low, _ = soundfile.read(folder / "0.wav")
    high, _ = soundfile.read(folder / "4.wav")
    soundfile.write(folder / "copy of 4.flac", high, 16000)
    soundfile.write(folder / "both.wav", np.concatenate([low, high]), 16000)
    tone(folder / EVIL, 250, 2)
    return folder


@pytest.fixture(scope="module")
def index(sounds, tiny_file, tmp_path_factory) -> Path:
    """An index of them; do not change it."""
    path = tmp_path_factory.mktemp("index") / "index.parquet"
    assert hear_msm_mae.index(sounds, path, tiny_file).done == 8
    return path


def test_a_stretch_finds_its_like(run, sounds, index, tiny_file, tmp_path):
    outputs = [tmp_path / f"hits.{suffix}" for suffix in ("csv", "json", "html")]
    for output in outputs:
        query = (sounds / "both.wav", "--start", 4.5, "--end", 7.5, "--one-per-file")
        result = run("search", index, *query, "-n", 3, "-o", output)
        assert result.status == 0, result.err
    hits = json.loads(outputs[1].read_text())
    assert {Path(hit["path"]).name for hit in hits[:2]} == {"4.wav", "copy of 4.flac"}
    assert [hit["rank"] for hit in hits] == [1, 2, 3]
    assert list(csv.DictReader(io.StringIO(outputs[0].read_text()))) == [
        {key: str(value) for key, value in hit.items()} for hit in hits
    ]
    assert "4.wav" in result.out
    page = Reader(outputs[2].read_text())
    assert len([1 for name, _ in page.elements if name == "audio"]) == 1 + 3  # the query first
    python = search(index, sounds / "both.wav", start=4.5, end=7.5, one_per_file=True, count=3)
    assert [hit._asdict() for hit in python] == hits
    # Similarity of the query's embedding by the public functions, windows in half precision.
    model = load_model(tiny_file)
    rows = [e.embedding for e in embed_files(sounds, model, segment=2, overlap=1)]
    rows = np.stack(rows).astype(np.float16)
    cut, _ = soundfile.read(sounds / "both.wav", start=72000, stop=120000)
    embedding = model(cut[None].astype(np.float32))[0].detach().numpy()
    best = similarities(rows, embedding[None])[0].max()
    assert hits[0]["similarity"] == pytest.approx(best, abs=1e-4)


def test_hits_do_not_overlap_each_other_or_the_query(sounds, index):
    hits = search(index, sounds / "both.wav", start=0, end=3, count=8)
    stretches = [("both.wav", 0, 3)] + [(Path(h.path).name, h.start, h.end) for h in hits]
    for i, (name, start, end) in enumerate(stretches):
        for other, a, b in stretches[:i]:
            assert name != other or end <= a or b <= start
    assert len(hits) == 8


def test_hits_are_as_many_as_asked_for_though_rows_overlap(run, sounds, tiny_file, tmp_path):
    """Two channels of a file are two rows of the same stretch, of which one is a hit."""
    for i in range(5):
        mono, _ = soundfile.read(sounds / f"{i}.wav")
        soundfile.write(tmp_path / f"{i}.wav", np.stack([mono, 0.5 * mono], 1), 16000)
    index = tmp_path / "i.parquet"
    how = ("--channel", "each", "-w", tiny_file)
    assert run("embed", *tmp_path.glob("*.wav"), "-o", index, *how).status == 0
    hits = search(index, sounds / "both.wav", count=4)
    assert len({h.path for h in hits}) == len(hits) == 4


def test_two_stretches_of_one_file_are_two_queries(run, sounds, index, tmp_path):
    (tmp_path / "q.csv").write_text(f"path,start,end\n{sounds}/0.wav,0,1\n{sounds}/0.wav,2,4\n")
    page = tmp_path / "hits.html"
    result = run("search", index, tmp_path / "q.csv", "-n", 2, "-o", page)
    assert result.status == 0, result.err
    elements = [name for name, _ in Reader(page.read_text()).elements]
    assert (elements.count("h2"), elements.count("audio")) == (2, 2 * (1 + 2))
    hits = search(index, tmp_path / "q.csv", count=2)
    asked = [(h.query_file, h.query_start, h.query_end, h.rank) for h in hits]
    file = str(sounds / "0.wav")
    assert asked == [(file, 0, 1, 1), (file, 0, 1, 2), (file, 2, 4, 1), (file, 2, 4, 2)]


def test_approximate_lists_find_nearly_the_same(run, sounds, index, tmp_path):
    pytest.importorskip("faiss")
    index = Path(shutil.copy(index, tmp_path))
    lists = Path(f"{index}.faiss")
    found = []
    for option in ([], ["--approximate"], ["--approximate"]):
        options = ("-n", 8, "-o", tmp_path / "hits.json", *option)
        result = run("search", index, sounds / "both.wav", "--end", 3, *options)
        assert result.status == 0, result.err
        found.append(json.loads((tmp_path / "hits.json").read_text()))
    exact, near, again = found
    assert near == again  # from the lists that were kept
    wanted = {(hit["path"], hit["start"]) for hit in exact}
    assert len(wanted & {(hit["path"], hit["start"]) for hit in near}) >= 7
    assert near[0]["similarity"] == pytest.approx(exact[0]["similarity"], abs=0.02)
    made = lists.stat().st_mtime_ns
    rows = np.random.default_rng(0).normal(size=(3000, 8)).astype(np.float32)
    write_index(index, rows, per_file=30)  # a newer index
    opened = engine.Index(index)
    hits = Lists(opened).nearest(rows[:20], 5, [np.array([0])] + [np.zeros(0, np.int64)] * 19)
    assert lists.stat().st_mtime_ns > made
    assert [each[0][0] for each in hits[1:]] == list(range(1, 20))
    assert all(row != 0 for row, _ in hits[0])


def test_approximate_similarities_are_exact_where_rows_can_be_read_alone(tmp_path):
    pytest.importorskip("faiss")
    rows = np.random.default_rng(0).normal(size=(2000, 16)).astype(np.float32)
    opened = engine.Index(write_index(tmp_path / "i.npz", rows))
    queries = rows[:5] + 0.3
    near, exact = (
        x.nearest(queries, 5, [np.zeros(0, np.int64)] * 5) for x in (Lists(opened), opened)
    )
    for found, wanted in zip(near, exact, strict=True):
        known = dict(opened.nearest(queries, 2000)[near.index(found)])
        assert [s for _, s in found] == pytest.approx([known[r] for r, _ in found], abs=1e-5)
        assert len({r for r, _ in found} & {r for r, _ in wanted}) >= 4


def test_the_extra_for_faiss_is_named(index, sounds, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ValueError, match=r"hear_msm_mae\[approximate\]"):
        search(index, sounds / "0.wav", approximate=True)


def test_duplicates_of_files(run, index, tmp_path):
    output = tmp_path / "pairs.html"
    result = run("search", index, "--duplicates", "--threshold", 0.999, "-o", output)
    assert result.status == 0, result.err
    assert "4.wav" in result.out
    assert "copy of 4.flac" in result.out
    assert "<img" not in output.read_text()


def test_the_command_makes_the_same_index(run, index, sounds, tiny_file, tmp_path):
    again = tmp_path / "again.parquet"
    result = run("index", sounds, "-o", again, "-w", tiny_file)
    assert result.status == 0, result.err
    a, b = (Parquet().read(path) for path in (index, again))
    assert a.settings == b.settings
    np.testing.assert_array_equal(a.rows_of(0, 9).rows, b.rows_of(0, 9).rows)
    assert a.dtype == np.float16
    both = [c for c in a.clips if a.recordings[c.recording].path.endswith("both.wav")]
    assert [(c.start, c.end) for c in both] == [(i, i + 2) for i in range(7)]


def test_bad_input(run, sounds, index, tiny_file, tmp_path):
    query = sounds / "0.wav"
    assert_one_line_error(run("search", tmp_path / "no.parquet", query), "no such file or folder")
    assert_one_line_error(run("search", index), "queries or --duplicates")
    assert_one_line_error(run("search", index, query, "--duplicates"), "queries or --duplicates")
    assert_one_line_error(run("search", index, query, "-n", 0), "count must be at least 1")
    assert_one_line_error(run("search", index, query, "-o", "a.txt"), r"must end in \.csv or")
    refused = run("search", index, query, "--threshold", 1)
    assert_one_line_error(refused, "--threshold needs --duplicates")
    assert_one_line_error(run("search", query, query), "cannot be used as embeddings.*index")
    assert_one_line_error(run("search", index, query, "--start", 9), "no audio from 9")
    assert_one_line_error(run("search", index, query, "-w", tmp_path / "x"), "with --weights")
    frames = tmp_path / "frames.parquet"
    assert run("embed", query, "-o", frames, "--timestamps", "-w", tiny_file).status == 0
    assert_one_line_error(run("search", frames, query), "made with --timestamps")
    assert_one_line_error(run("index", sounds, "-o", "a.csv"), "must end in .parquet")


def test_other_weights_or_options_are_named(index, tiny_file, sounds):
    other = load_model(tiny_file, scene_pooling="mean+std")
    with pytest.raises(ValueError, match=r"another setting of --scene-pooling.*mean, not mean"):
        search(index, sounds / "0.wav", other)
    with pytest.raises(ValueError, match="another setting of --weights"):
        search(index, sounds / "0.wav", load_model())
