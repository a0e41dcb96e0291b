"""embed_files: the same embeddings as the HEAR functions, however clips are cut and batched."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from embed_rows import small_pieces

import hear_msm_mae
from hear_msm_mae import embed_files, get_scene_embeddings, get_timestamp_embeddings, load_model
from hear_msm_mae.audio import read_audio
from hear_msm_mae.embed import cutting
from hear_msm_mae.embed.sources import Failure, Recording

# Odd lengths in seconds: less than a window, a frame, a unit; one unit and a bit; several.
LENGTHS = (0.0002, 0.03, 0.9, 2.07, 2.08, 2.3, 4.16, 7.77)
OPTIONS = [
    {},
    {"timestamp_hop_ms": 10},
    {"timestamp_hop_ms": 160},
    {"normalization": "batch"},
    {"mode": "paper"},
    {"layer": [0, -1]},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("audio")
    generator = np.random.default_rng(0)
    for index, (seconds, rate) in enumerate(
        zip(LENGTHS, itertools.cycle((16000, 44100, 8000)), strict=False)
    ):
        samples = generator.uniform(-0.3, 0.3, max(1, round(seconds * rate)))
        soundfile.write(folder / f"{index}.wav", samples, rate, subtype="FLOAT")
    return folder


@pytest.fixture
def small_blocks(monkeypatch) -> None:
    """Blocks far smaller than a file, so that their seams are inside the files."""
    monkeypatch.setattr(cutting, "BLOCK_SECONDS", 0.37)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("small", [False, True], ids=["default", "small"])
def test_records_equal_the_hear_functions(folder, tiny_file, options, small, monkeypatch):
    model = load_model(tiny_file, **options)
    with monkeypatch.context() as patch:
        if small:
            small_pieces(patch)
        scenes = list(embed_files(folder, model))
        frames = list(embed_files(folder, model, timestamps=True))
    assert [Path(x.path).name for x in scenes] == [f"{i}.wav" for i in range(len(LENGTHS))]
    for scene, frame in zip(scenes, frames, strict=True):
        audio = read_audio(scene.path)[None]
        assert scene.path == frame.path
        assert (scene.start, scene.end) == (frame.start, frame.end) == (0, audio.shape[1] / 16000)
        expected = get_scene_embeddings(audio, model)[0]
        np.testing.assert_allclose(scene.embedding, expected, atol=1e-5)
        expected, times = get_timestamp_embeddings(audio, model)
        np.testing.assert_allclose(frame.embedding, expected[0], atol=1e-5)
        np.testing.assert_allclose(frame.timestamps_ms, times[0], rtol=1e-6)
        assert scene.timestamps_ms is None


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("segment", "overlap"), [(2.5, 0), (2.5, 1.0), (0.1, 0.05), (60, 30)])
@pytest.mark.parametrize("timestamps", [False, True])
def test_windows(folder, tiny_model, segment, overlap, timestamps):
    """Each window is embedded as a clip of its own; together they cover the file once."""
    path = folder / "7.wav"
    audio = read_audio(path)
    records = list(
        embed_files(path, tiny_model, segment=segment, overlap=overlap, timestamps=timestamps)
    )
    assert records[0].start == 0
    assert records[-1].end == len(audio) / 16000
    for left, right in itertools.pairwise(records):
        assert left.end - left.start == pytest.approx(segment)
        assert left.end - right.start == pytest.approx(overlap)
        assert right.end > left.end
    for record in records:
        clip = audio[None, round(record.start * 16000) : round(record.end * 16000)]
        if timestamps:
            expected, times = get_timestamp_embeddings(clip, tiny_model)
            np.testing.assert_allclose(record.embedding, expected[0], atol=1e-5)
            in_file = 1000 * record.start + times[0].numpy()
            np.testing.assert_allclose(record.timestamps_ms, in_file, rtol=1e-6)
        else:
            expected = get_scene_embeddings(clip, tiny_model)[0]
            np.testing.assert_allclose(record.embedding, expected, atol=1e-5)


def test_a_file_of_exactly_whole_windows_has_no_extra_one(tmp_path, tiny_model):
    soundfile.write(tmp_path / "a.wav", np.zeros(32000), 16000)
    records = list(embed_files(tmp_path, tiny_model, segment=1))
    assert [(r.start, r.end) for r in records] == [(0, 1), (1, 2)]
    records = list(embed_files(tmp_path, tiny_model, segment=1, overlap=0.5))
    assert [(r.start, r.end) for r in records] == [(0, 1), (0.5, 1.5), (1, 2)]


@pytest.mark.usefixtures("small_blocks")
def test_stretches_of_a_file(folder, tiny_model):
    path = str(folder / "7.wav")
    stretches = [Recording(path, 1.25, 3.5), Recording(path, 0.0, 100.0), Recording(path, 6.0)]
    records = list(embed_files(stretches, tiny_model))
    assert [(r.start, r.end) for r in records] == [(1.25, 3.5), (0, 7.77), (6, 7.77)]
    for record, part in zip(records, stretches, strict=True):
        expected = get_scene_embeddings(read_audio(path, part.start, part.end)[None], tiny_model)
        np.testing.assert_allclose(record.embedding, expected[0], atol=1e-5)


def test_half_precision(folder, tiny_model):
    exact, rounded = (
        list(embed_files(folder, tiny_model, dtype=dtype)) for dtype in ("float32", "float16")
    )
    for a, b in zip(exact, rounded, strict=True):
        assert (a.embedding.dtype, b.embedding.dtype) == (np.float32, np.float16)
        np.testing.assert_array_equal(a.embedding.astype(np.float16), b.embedding)


def test_an_unreadable_file_raises_or_is_noted(folder, tiny_model, tmp_path):
    broken = tmp_path / "broken.wav"
    broken.write_text("not audio")
    sources = [folder / "0.wav", broken, folder / "1.wav"]
    with pytest.raises(ValueError, match=r"broken\.wav: cannot be read as audio"):
        list(embed_files(sources, tiny_model))
    failures: list[Failure] = []
    records = list(embed_files(sources, tiny_model, failures=failures))
    assert [Path(record.path).name for record in records] == ["0.wav", "1.wav"]
    ((path, start, end, reason),) = failures
    assert (path, start, end) == (str(broken), 0, None)
    assert reason.startswith("cannot be read as audio")


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("small", [False, True], ids=["default", "small"])
def test_damage_at_the_end_of_a_file(tmp_path, tiny_model, small, monkeypatch):
    """What was encoded before the damage is met must not reach the next file."""
    if small:
        small_pieces(monkeypatch)
    samples = np.full(5 * 16000, 0.1, np.float32)
    soundfile.write(tmp_path / "b.wav", samples, 16000, subtype="FLOAT")
    expected = list(embed_files(tmp_path, tiny_model))
    for bad in (np.nan, 1e30):
        samples[-1] = bad
        soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
        failures: list[Failure] = []
        records = list(embed_files(tmp_path, tiny_model, failures=failures))
        assert len(failures) == len(records) == 1
        np.testing.assert_array_equal(records[0].embedding, expected[0].embedding)


def test_stopping_early_ends_the_threads(folder, tiny_model):
    before = set(threading.enumerate())
    threads = torch.get_num_threads()
    records = embed_files([folder] * 3, tiny_model)
    next(records)
    records.close()
    assert set(threading.enumerate()) == before
    assert torch.get_num_threads() == threads


def test_running_out_of_gpu_memory_makes_smaller_micro_batches(folder, tiny_file, monkeypatch):
    """A stand-in for the GPU: an encoder that does not take more than two units at once."""
    model = load_model(tiny_file)
    expected = [record.embedding for record in embed_files(folder, model)]
    embed_units, sizes = model.embed_units, []

    def limited(spectrogram):
        sizes.append(len(spectrogram))
        if len(spectrogram) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return embed_units(spectrogram)

    monkeypatch.setattr(model, "embed_units", limited)
    records = list(embed_files([folder], model))
    assert max(sizes) > 2
    for record, row in zip(records, expected, strict=True):
        np.testing.assert_allclose(record.embedding, row, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"segment": 0}, "segment must be at least 0.01 seconds, got 0"),
        ({"segment": float("nan")}, "segment must be"),
        ({"overlap": 1}, "overlap needs a segment"),
        ({"segment": 1, "overlap": 1}, "overlap must be at least 0 and below the segment, got 1"),
        ({"segment": 1, "overlap": -0.5}, "overlap must be at least 0"),
        ({"dtype": "int8"}, r"dtype must be one of \['float32', 'float16'\], got 'int8'"),
        ({"workers": 0}, "workers must be at least 1, got 0"),
    ],
    ids=str,
)
def test_options_that_make_no_sense(folder, tiny_model, options, message):
    with pytest.raises(ValueError, match=message):
        next(embed_files(folder, tiny_model, **options))


def test_a_model_that_is_none(folder):
    with pytest.raises(TypeError, match=r"model must come from hear_msm_mae\.load_model, got"):
        embed_files(folder, "weights.safetensors")  # type: ignore[arg-type]


def test_it_is_part_of_the_package():
    assert hear_msm_mae.embed_files is embed_files
