"""`finetune`: the encoder learns what its embeddings do not show, and a killed run continues."""

from __future__ import annotations

import csv
import shutil
import signal
import time
from pathlib import Path

import forked
import numpy as np
import pytest
import soundfile
import torch
from cli_errors import assert_one_line_error
from safetensors.torch import load_file

import hear_msm_mae
from hear_msm_mae import finetune, get_scene_embeddings, load_model, predict
from hear_msm_mae.answers.evaluate import ProbeResult
from hear_msm_mae.answers.fit import Linear, log_loss
from hear_msm_mae.answers.head import load_head
from hear_msm_mae.answers.labels import read_labels
from hear_msm_mae.audio import read_audio
from hear_msm_mae.embed.sources import Recording
from hear_msm_mae.pretrain import snapshots
from hear_msm_mae.tuning import train
from hear_msm_mae.tuning.crops import Crops, spectrograms
from hear_msm_mae.tuning.network import Network
from hear_msm_mae.tuning.run import sides_of
from hear_msm_mae.tuning.settings import FinetuneResult, Tuning

RESULTS = ("model.safetensors", "head.safetensors", "finetune.html", "labels.json")
QUICK = {"epochs": 10, "patience": 10, "batch": 8, "lr": 0.01, "precision": "fp32"}

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning:lightning")


@pytest.fixture(scope="session")
def beats(tmp_path_factory) -> Path:
    """Ten fast and ten slow pulse trains of one kind of noise, and a table with a split."""
    folder = tmp_path_factory.mktemp("beats")
    rows = [("path", "label", "split")]
    for i in range(20):
        generator = np.random.default_rng(i)
        samples = np.arange(16000)
        period = (1600, 3200)[i % 2]
        loud = (samples + generator.integers(period)) % period < period // 2
        soundfile.write(folder / f"{i}.wav", 0.1 * generator.normal(size=16000) * loud, 16000)
        rows.append(
            (f"{i}.wav", ("fast", "slow")[i % 2], ("train", "train", "valid", "test")[i // 5])
        )
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


@pytest.fixture(scope="session")
def tuned(beats, tiny_file, tmp_path_factory) -> FinetuneResult:
    """A run of twenty steps, on one thread; do not change its folder."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("tuned") / "out"
    result = finetune(beats / "labels.csv", out, tiny_file, **QUICK)
    torch.set_num_threads(threads)
    return result


@pytest.fixture(scope="module")
def probed_beats(beats, tiny_file, tmp_path_factory) -> ProbeResult:
    return hear_msm_mae.probe(beats / "labels.csv", tmp_path_factory.mktemp("probed"), tiny_file)


def test_what_it_leaves_loads_everywhere(run, tuned, beats, tiny_file, tmp_path):
    before, after = load_model(tiny_file), load_model(tuned.out)
    assert after.options == before.options
    changed = {
        name
        for name, value in after.encoder.state_dict().items()
        if not torch.equal(value, before.encoder.state_dict()[name])
    }
    assert (tuned.best_epoch > 0) == bool(changed)
    # predict finds the weights beside the head, wherever the folder is now.
    shutil.copytree(tuned.out, tmp_path / "moved")
    result = run("predict", tmp_path / "moved", beats, "-o", tmp_path / "out.csv")
    assert result.status == 0, result.err
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    head = load_head(tuned.out)
    for row in rows[:3]:
        scene = get_scene_embeddings(read_audio(row["path"])[None], after).numpy()
        wanted = head.probabilities(scene)[0]
        np.testing.assert_allclose([float(row["p_fast"]), float(row["p_slow"])], wanted, atol=1e-4)
    with pytest.raises(ValueError, match="another setting of --weights"):
        predict(tuned.out, beats, tmp_path / "o.csv", before)


def test_it_is_compared_with_the_probe_on_the_same_recordings(tuned, probed_beats):
    assert list(tuned.scores)[:2] == ["fine-tuned", "linear probe"]
    assert tuned.scores["linear probe"] == probed_beats.scores["linear probe"]
    assert tuned.confusion is not None
    assert tuned.confusion.sum() == 5
    values = [tuned.scores[name][0].value for name in ("fine-tuned", "linear probe")]
    assert tuned.gain.value == pytest.approx(values[0] - values[1])
    assert tuned.gain.low <= tuned.gain.value <= tuned.gain.high
    assert list(tuned.curve) == [str(i) for i in range(len(tuned.curve))]
    page = (tuned.out / "finetune.html").read_text()
    assert "fine-tuned" in page
    assert "linear probe" in page


def test_several_labels(beats, tiny_file, tmp_path):
    rows = list(csv.reader((beats / "labels.csv").open(newline="")))[1:]
    several = {"fast": "pulses;fast", "slow": "pulses"}
    lines = [f"{beats / path},{several[label]},{split}" for path, label, split in rows]
    lines.append(f"{beats / '0.wav'},,train")  # without any label
    labels = table(tmp_path, ["path,labels,split", *lines])
    result = finetune(labels, tmp_path / "out", tiny_file, **{**QUICK, "epochs": 2})
    assert result.head.labels == ["fast", "pulses"]
    assert [score.name for score in result.scores["fine-tuned"]] == ["mean average precision"]
    found = predict(tmp_path / "out", beats / "3.wav", tmp_path / "o.csv")
    assert [round(float(x.probabilities[1]), 1) for x in found] == [1.0]


def test_learning_lowers_the_loss(beats, tiny_file, tmp_path, caplog):
    """What a linear probe on random weights cannot tell, they learn to tell."""
    with caplog.at_level("INFO"):
        options = {**QUICK, "epochs": 25, "patience": 25, "mixup": 0.0}
        result = finetune(beats / "labels.csv", tmp_path / "out", tiny_file, **options)
    state = train.resumed(tmp_path / "out")
    assert state is not None
    losses = [loss for loss, _ in state["history"]]
    assert min(losses) < 0.7 * losses[0]
    assert result.best_epoch == int(np.argmin(losses)) > 0


def test_without_a_gain_the_probe_is_kept(beats, probed_beats, tiny_file, tmp_path, monkeypatch):
    monkeypatch.setattr(train.Run, "_look", _always_worse(train.Run._look))
    result = finetune(beats / "labels.csv", tmp_path / "out", tiny_file, **{**QUICK, "epochs": 1})
    assert result.best_epoch == result.gain.value == 0
    assert any("no epoch was better" in note for note in result.warnings)
    np.testing.assert_array_equal(result.head.linear.weight, probed_beats.head.linear.weight)


def _always_worse(look):
    def looked(self):
        look(self)
        self.history[-1] = train.Look(-1.0, 0.0)  # less than any real loss

    return looked


@pytest.mark.parametrize(
    ("blocks", "learns"),
    [
        (1, {"blocks.1", "norm"}),
        (None, {"blocks.0", "blocks.1", "norm", "patch_embed", "cls_token"}),
    ],
)
def test_what_is_frozen_stays(beats, tiny_file, tmp_path, blocks, learns, monkeypatch):
    monkeypatch.setattr(train.Run, "_look", _always_better(train.Run._look))
    options = {**QUICK, "epochs": 1, "blocks": blocks}
    finetune(beats / "labels.csv", tmp_path / "out", tiny_file, **options)
    before, after = load_file(tiny_file), load_file(tmp_path / "out" / "model.safetensors")
    changed = {n.removeprefix("encoder.") for n in after if not torch.equal(after[n], before[n])}
    assert {".".join(n.split(".")[: 2 if "blocks" in n else 1]) for n in changed} == learns
    assert not any(name.startswith("decoder.") for name in after)


def _always_better(look):
    """Every epoch counts as the best one, so that the last weights are kept."""

    def looked(self):
        look(self)
        learnt = {name: value.clone() for name, value in self.network.learnt().items()}
        self.best = train.Best(len(self.history) - 1, learnt)

    return looked


def test_layers_below_learn_more_slowly(tiny_file):
    model = load_model(tiny_file)
    d = model.scene_embedding_size
    linear = Linear(np.ones((2, d)), np.zeros(2))
    network = Network(model, linear, np.random.default_rng(0).normal(size=(9, d)), False)
    scales = {name: 0.5 ** network.depth(name) for name, _ in network.named_parameters()}
    assert scales["head.weight"] == scales["model.encoder.norm.weight"] == 1
    assert scales["model.encoder.blocks.1.mlp.fc1.weight"] == 0.5
    assert scales["model.encoder.blocks.0.norm1.bias"] == 0.25
    assert scales["model.encoder.patch_embed.weight"] == scales["model.encoder.cls_token"] == 0.125
    # It begins as the probe that it was given.
    x = np.random.default_rng(1).normal(size=(4, d))
    np.testing.assert_allclose(network.linear().logits(x), linear.logits(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pooling", ["mean", "mean+std"])
def test_crops_are_embedded_as_recordings_are(tiny_file, pooling):
    """Without mixing, the loss of whole recordings is that of the probe on their embeddings."""
    generator = np.random.default_rng(0)
    lengths = (800, 5600, 9600, 40000, 70000)  # of less than a patch up to three units
    waves = [0.1 * generator.normal(size=n).astype(np.float32) for n in lengths]
    recordings = [Recording(str(i), item=(wave, 16000)) for i, wave in enumerate(waves)]
    model = load_model(tiny_file, scene_pooling=pooling)
    embeddings = np.concatenate([get_scene_embeddings(w[None], model).numpy() for w in waves])
    y = np.eye(5, dtype=bool)
    linear = Linear(generator.normal(size=(5, embeddings.shape[1])), np.zeros(5))
    network = Network(model, linear, embeddings, False)
    crops = Crops(spectrograms(recordings, model), y, Tuning(mixup=0.0))
    with torch.no_grad():
        loss = network(*network.arguments(crops(0)))
    assert float(loss) == pytest.approx(log_loss(linear.logits(embeddings), y, False), rel=2e-3)


def files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in RESULTS}


def on_one_thread(words: list[object]) -> None:
    torch.set_num_threads(1)
    forked.hear_msm_mae(words)


def test_a_killed_run_ends_in_the_same_bits(tuned, beats, tiny_file, tmp_path):
    """Killed without warning after a checkpoint in the middle of an epoch, then continued."""
    out, err = tmp_path / "out", tmp_path / "err"
    command = ["finetune", beats / "labels.csv", "-o", out]
    command += ["-w", tiny_file, *_as_options(QUICK), "--checkpoint-minutes", "0"]
    process = forked.start(on_one_thread, command, cwd=tmp_path, out=tmp_path / "said", err=err)
    begin = time.monotonic()
    while not snapshots.checkpoints(out) and time.monotonic() - begin < 120:
        assert process.is_alive(), err.read_text()
        time.sleep(0.02)
    process.kill()
    process.join()
    step = snapshots.checkpoints(out)[0].name
    assert step < "step-000000020.pt"
    assert not any((out / name).exists() for name in RESULTS)
    done = forked.run(on_one_thread, command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "fine-tuned - probe" in done.stdout
    for name, content in files(out).items():
        assert content == files(tuned.out)[name], name
    left = {path.name for path in out.iterdir()} - {*RESULTS, "checkpoints", "lock"}
    assert left == {"README.md", "config.json", "embeddings.parquet", "log-mel.parquet"}


def test_a_signal_ends_with_a_checkpoint(tuned, beats, tiny_file, tmp_path, monkeypatch):
    call = train.Stepper.__call__

    def signalled(self, *arguments):
        call(self, *arguments)
        if not calls:
            signal.raise_signal(signal.SIGINT)
        calls.append(1)

    calls: list[int] = []
    monkeypatch.setattr(train.Stepper, "__call__", signalled)
    with pytest.raises(KeyboardInterrupt):
        finetune(beats / "labels.csv", tmp_path / "out", tiny_file, **QUICK)
    state = train.resumed(tmp_path / "out")
    assert state is not None
    assert state["step"] == len(calls) == 1
    assert not (tmp_path / "out" / "head.safetensors").exists()


def test_a_finished_run_is_not_repeated(run, tuned, beats, tiny_file, tmp_path, monkeypatch):
    shutil.copytree(tuned.out, tmp_path / "out")
    monkeypatch.setattr(train.Run, "_look", None)
    options = ("-o", tmp_path / "out", "-w", tiny_file, *_as_options(QUICK))
    again = run("finetune", beats / "labels.csv", *options)
    assert again.status == 0, again.err
    assert files(tmp_path / "out") == files(tuned.out)


def test_the_sides_share_no_group(labelled):
    found = read_labels(labelled)
    for seed in range(5):
        sides = sides_of(found, seed)
        assert sorted(np.concatenate(sides)) == list(range(24))
        assert {found.labels[i] for i in sides.train} == {("low",), ("middle",), ("high & <b>",)}
        groups = [{found.groups[i] for i in side} for side in sides]
        assert not groups[0] & groups[1]
        assert not groups[2] & (groups[0] | groups[1])


def table(folder: Path, rows: list[str]) -> Path:
    path = folder / "l.csv"
    path.write_text("\n".join(rows))
    return path


def test_bad_input_leaves_nothing(run, labelled, probed, tuned, beats, tiny_file, tmp_path):
    out = tmp_path / "out"

    def refused(labels: Path, message: str, *options: object, to: Path = out) -> None:
        result = run("finetune", labels, "-o", to, "-w", tiny_file, *options)
        assert_one_line_error(result, message)

    low, middle = (
        [f"{labelled / x / f'{i}.wav'},{x}" for i in range(8)] for x in ("low", "middle")
    )
    refused(table(tmp_path, ["path,label", *low]), "has one label only")
    refused(table(tmp_path, ["path,label", *low, "gone.wav,middle"]), "do not exist as files")
    few = [*low, middle[0]]
    refused(table(tmp_path, ["path,label", *few]), "too few recordings.*'middle' .1 recordings")
    other = [row.replace(",middle", ",Low") for row in middle]
    refused(table(tmp_path, ["path,label", *low, *other]), "spells a label in several ways")
    empty = [row.replace(",middle", ",nan") for row in middle]
    refused(table(tmp_path, ["path,label", *low, *empty]), "rows have no label")
    split = [f"{row},g{int(i > 5)},{('train', 'test')[i > 5]}" for i, row in enumerate(low)]
    split += [row.replace("low", "middle") for row in split]
    lines = ["path,label,group,split", *split]
    refused(table(tmp_path, lines), "no validation group.*'valid' for some rows")
    good = beats / "labels.csv"
    refused(good, "blocks is 3, but .* give at most 2", "--blocks", 3)
    refused(good, "epochs must be an integer of at least 1", "--epochs", 0)
    refused(good, "lr must be positive", "--lr", "nan")
    refused(good, "precision must be", "--precision", "fp8")
    assert not out.exists()
    before = files(tuned.out)
    refused(good, "lr was 0.01 and is now 0.02", *_as_options({**QUICK, "lr": 0.02}), to=tuned.out)
    assert files(tuned.out) == before
    refused(labelled, "holds head.safetensors, but no checkpoints", to=probed.out)
    with pytest.raises(ValueError, match=r"unknown option\(s\) \['epoch'\].*epochs"):
        finetune(good, out, tiny_file, epoch=3)
    with pytest.raises(ValueError, match="needs a model with mode='default'"):
        finetune(good, out, load_model(tiny_file, mode="paper"))
    assert not out.exists()


def _as_options(options: dict[str, object]) -> list[str]:
    return [f"--{name}={value}" for name, value in options.items()]
