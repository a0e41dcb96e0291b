"""The quality benchmark from the command line, and its contestants."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from quality_sources import make_cache, tone

from benchmarks import quality
from benchmarks.evaluation import contestants, published, report, run
from benchmarks.evaluation.contestants import mean_and_std
from benchmarks.evaluation.run import PROTOCOLS
from benchmarks.evaluation.tasks import TASKS
from hear_msm_mae import get_scene_embeddings, load_model
from hear_msm_mae.log_mel import LogMel

FEW = ["--tasks", "events", "letters", "--seeds", "2"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("cache"))


def test_table_and_json(cache, tiny_file, tmp_path, capsys):
    out = tmp_path / "scores.json"
    arguments = ["--weights", str(tiny_file), f'{tiny_file}{{"layer": 0}}', "--cache", str(cache)]
    arguments += ["--baselines", "fast", "--json", str(out), *FEW, "--quick"]
    assert quality.main(arguments) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0] == ('| task | chance | tiny | tiny{"layer": 0} | untrained | logmel | mfcc |')
    assert [row.split("|")[1].strip() for row in table[2:]] == [
        "events", "letters", "**average of 2**, linear probe",
        "**average of 2**, 5 nearest clips", "**average of 2**, 8 clips per label",
    ]  # fmt: skip
    scores = json.loads(out.read_text())["scores"]
    for name, tasks in scores.items():
        for task in ("letters", "events"):
            lengths = {protocol: len(values) for protocol, values in tasks[task].items()}
            assert lengths == {"linear": 2, "knn": 2, "few": 2}, name
    # Tones whose pitch is the label: every front end must tell them apart.
    assert np.mean([scores["logmel"][task]["linear"] for task in ("letters", "events")]) > 90


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (["none"], []),
        (["fast"], ["untrained", "logmel", "mfcc"]),
        (["mfcc", "logmel"], ["logmel", "mfcc"]),
        (["none", "mfcc"], ["mfcc"]),
    ],
)
def test_baselines_by_name_and_group(tiny_file, names, columns):
    arguments = ["--weights", str(tiny_file), "--baselines", *names]
    chosen = quality.chosen_contestants(quality.parse_arguments(arguments))
    assert list(chosen) == ["tiny", *columns]


def test_unknown_baseline_is_refused():
    with pytest.raises(SystemExit):
        quality.parse_arguments(["--baselines", "crepe"])


def test_second_run_computes_nothing_and_gives_the_same(cache, tiny_file, capsys, monkeypatch):
    arguments = ["--weights", str(tiny_file), "--baselines", "none", "--cache", str(cache), *FEW]
    assert quality.main(arguments) == 0
    first = capsys.readouterr().out
    monkeypatch.setattr(contestants, "load_model", lambda *_: pytest.fail("loaded again"))
    monkeypatch.setattr(run, "score", lambda *_: pytest.fail("probed again"))
    assert quality.main(arguments) == 0
    assert capsys.readouterr().out == first
    with pytest.raises(BaseException, match="probed again"):  # other divisions are not the same
        quality.main([*arguments, "--seeds", "3"])


def test_write_replaces_its_section_only(cache, tiny_file, tmp_path, monkeypatch):
    results = tmp_path / "RESULTS.md"
    results.write_text("# Results\n\n<!-- quality:begin -->\nold\n<!-- quality:end -->\n\nother\n")
    monkeypatch.setattr(quality, "RESULTS", results)
    arguments = ["--weights", str(tiny_file), "--baselines", "none", "--cache", str(cache)]
    assert quality.main([*arguments, "--write", *FEW]) == 0
    text = results.read_text()
    assert "old" not in text
    title, command = text.split("<!-- quality:begin -->\n")[1].splitlines()[:3:2]
    assert title == "## quality"
    assert re.fullmatch("`python -m .+`", command)
    assert text.endswith("<!-- quality:end -->\n\nother\n")
    assert "| letters | letter | language (its speakers) | 15 | 1 | 3 | 4 | 1 | 33.3 |" in text


def test_embeddings_are_those_of_the_api(tiny_file):
    waveforms = np.stack([tone(300 + 10 * i).astype(np.float32) for i in range(3)])
    embedded = contestants.weights(tiny_file, {"layer": 0}).embeddings(waveforms)
    model = load_model(tiny_file, layer=0)
    expected = get_scene_embeddings(torch.from_numpy(waveforms), model)
    np.testing.assert_allclose(embedded, expected.numpy(), atol=1e-5)


def test_fingerprints_tell_contestants_apart(tiny_file, tiny_config, tmp_path):
    copy = tmp_path / "other.safetensors"
    copy.write_bytes(tiny_file.read_bytes())
    prints = [
        contestants.weights(tiny_file, {}).fingerprint,
        contestants.weights(tiny_file, {"layer": 0}).fingerprint,
        contestants.untrained(tiny_config, 0, {}).fingerprint,
        contestants.untrained(tiny_config, 1, {}).fingerprint,
        contestants.log_mel().fingerprint,
        contestants.mfcc().fingerprint,
    ]
    assert len(set(prints)) == len(prints)
    assert contestants.weights(copy, {}).fingerprint == prints[0]  # by content, not by name


def test_untrained_network_is_seeded_and_leaves_the_generator_alone(tiny_config):
    waveforms = tone(440)[None].astype(np.float32)
    before = torch.get_rng_state()
    zero, again, one = (
        contestants.untrained(tiny_config, seed, {}).embeddings(waveforms) for seed in (0, 0, 1)
    )
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(zero, again)
    assert np.abs(zero - one).max() > 0.01


def test_simple_features():
    waveforms = torch.from_numpy(np.stack([tone(440), tone(900)]).astype(np.float32))
    log_mel = LogMel().log_mel(waveforms)
    features = contestants.log_mel().embeddings(waveforms.numpy())
    assert features.shape == (2, 160)
    np.testing.assert_allclose(features[:, :80], log_mel.mean(-1), rtol=1e-5)
    np.testing.assert_allclose(features[:, 80:], log_mel.numpy().std(-1), rtol=1e-3, atol=1e-5)
    cepstra = contestants.mfcc().embeddings(waveforms.numpy())
    assert cepstra.shape == (2, 40)
    # The first orthonormal cosine is constant: sum / sqrt(80).
    np.testing.assert_allclose(cepstra[:, 0], log_mel.sum(1).mean(-1) / np.sqrt(80), rtol=1e-4)
    assert mean_and_std(torch.tensor([[[1.0, 3.0]]])).tolist() == [[2.0, 1.0]]


def test_spread_and_averages():
    assert report.mean_and_spread([1.0, 3.0]) == (2.0, pytest.approx(2**0.5))
    assert report.mean_and_spread([5.0]) == (5.0, 0.0)
    scores = {"a": {"linear": [1.0, 2.0]}, "b": {"linear": [3.0, 6.0]}}
    assert report.averages(scores) == [2.0, 4.0]


def test_tasks_that_chose_nothing_are_marked_and_averaged_alone(cache):
    names = ("letters", "sex", "animals")
    tasks = [TASKS[name].data(TASKS[name].recipe.pool(cache)) for name in names]
    numbers = {"letters": 10.0, "sex": 60.0, "animals": 80.0}
    scores = {"a": {n: {p: [x, x] for p in PROTOCOLS} for n, x in numbers.items()}}
    rows = [line.split("|") for line in report.markdown(scores, tasks).splitlines()[2:]]
    assert [row[1].strip() for row in rows[:3]] == ["letters", "sex*", "animals*"]
    assert [(row[1].strip(), row[3].strip()) for row in rows[3:5]] == [
        ("**average of 1**, linear probe", "**10.0** ± 0.0"),
        ("**average* of 2**, linear probe", "**70.0** ± 0.0"),
    ]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("nowhere.safetensors", "no weights file at nowhere.safetensors"),
        ("a{layer}", "the options of a are not JSON"),
    ],
)
def test_bad_weights_are_explained(weights, message, cache, caplog):
    arguments = ["--weights", weights, "--cache", str(cache), "--baselines", "none", *FEW]
    assert quality.main(arguments) == 1
    assert message in caplog.text


def test_bad_arguments(capsys):
    with pytest.raises(SystemExit):
        quality.parse_arguments(["--seeds", "0"])
    assert "--seeds must be at least 1" in capsys.readouterr().err
    quick = quality.parse_arguments(["--quick"])
    assert quick.seeds < quality.parse_arguments([]).seeds


def test_missing_published_model_says_how_to_get_it():
    with pytest.raises(ModuleNotFoundError, match="no_such_module is missing: run `make quality`"):
        published.needed("no_such_module")


@pytest.mark.parametrize(
    ("make", "package", "size"),
    [("naive", "hearbaseline", 4096), ("crepe", "torchcrepe", 2048),
     ("resemblyzer", "resemblyzer", 256), ("openwakeword", "openwakeword", 96),
     ("egemaps", "opensmile", 88), ("compare", "opensmile", 6373)],
)  # fmt: skip
@pytest.mark.slow
def test_published_model(make, package, size):
    pytest.importorskip(package)
    waveforms = np.stack([tone(440), np.zeros(16_000)]).astype(np.float32)
    vectors = getattr(published, make)().embeddings(waveforms)
    assert vectors.shape == (2, size)
    assert np.isfinite(vectors).all()
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3
