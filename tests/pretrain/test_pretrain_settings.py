"""Settings: recipes, overrides, refusals, schedule."""

import ast
import dataclasses
import inspect
import itertools
import math
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hear_msm_mae.pretrain import settings as module
from hear_msm_mae.pretrain.settings import Settings, from_dict, load_recipe, recipe_names

RECIPES = ["base-80x208p16x16", "base-80x208p16x4", "base-80x512p16x16", "small-cpu", "tiny-smoke"]


def test_recipes_that_are_shipped():
    assert recipe_names() == sorted(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_valid_and_names_its_command(name):
    settings = load_recipe(name)
    if "80x" in name:
        assert settings.model_config().name == name.removeprefix("base-")
    text = (module.resources.files(module.__package__) / "recipes" / f"{name}.yaml").read_text()
    assert f"hear-msm-mae pretrain {name}" in text.split("\n\n")[0] + text


def test_base_recipe_is_the_papers():
    s = load_recipe("base-80x208p16x16")
    config = s.model_config()
    assert (config.width, config.depth, config.heads) == (768, 12, 12)
    assert (config.decoder_width, config.decoder_depth, config.decoder_heads) == (384, 4, 6)
    assert (s.mask_ratio, s.epochs, s.weight_decay) == (0.75, 100, 0.05)
    assert (s.beta1, s.beta2, s.base_lr) == (0.9, 0.95, 1.5e-4)
    total = s.total_steps(hours=5000)
    assert s.warmup * total == pytest.approx(10 * s.total_steps(hours=5000) / 100)
    peak = max(s.lr_at(step, total) for step in range(0, total, 101))
    assert peak == pytest.approx(1.5e-4 * s.batch / 128, rel=1e-3)


def test_commands_of_the_model_card_are_valid():
    card = Path(__file__).parents[2] / "weights" / "README.md"
    lines = card.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    runs = [shlex.split(line)[2:] for line in lines if "hear-msm-mae pretrain " in line]
    before = {"null"}
    for recipe, *overrides in runs:
        settings = load_recipe(recipe, overrides)
        assert Path(settings.init_from or "null").stem in before
        before.add(Path(settings.run_dir).stem.lower())
    assert len(before) == len(runs) + 1 > 2


def test_overrides():
    s = load_recipe(
        "tiny-smoke", ["batch=64", "norm_pixels=true", "base_lr=1e-4", "source_weights.music=0.5"]
    )
    assert (s.batch, s.norm_pixels, s.base_lr) == (64, True, 1e-4)
    assert s.model_config().norm_pixels  # stored with the weights: reconstructions need it
    assert s.source_weights == {"music": 0.5}


def test_recipe_file_and_round_trip(tmp_path):
    s = load_recipe("small-cpu", ["mix=0.5", "source_weights={a: 2, b: 0}", "width=64", "heads=4"])
    (tmp_path / "mine.yaml").write_text(s.to_yaml())
    assert load_recipe(tmp_path / "mine.yaml") == s


def test_unknown_recipe_lists_the_known():
    with pytest.raises(FileNotFoundError, match=r"nothing\.yaml.*small-cpu"):
        load_recipe("nothing.yaml")


@pytest.mark.parametrize("text", ["- a\n- b\n", "size: [", "just words"])
def test_recipe_that_is_no_mapping(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"bad\.yaml"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("patchs=3", r"unknown setting.*patchs.*known:.*patch_mels"),
        ("batch", r"form key=value"),
        ("batch=many", r"batch must be of type int"),
        ("batch=true", r"batch must be of type int"),
        ("batch=0", r"batch must be at least 1"),
        ("norm_pixels=1", r"norm_pixels must be of type bool"),
        ("source_weights.a=heavy", r"source_weights\.a must be of type float"),
        ("source_weights.a=-1", r"source_weights must not be negative"),
        ("batch.a=1", r"batch has no members"),
        ("size=huge", r"size must be one of tiny, small, base, large"),
        ("precision=fp16", r"precision must be one of"),
        ("unit_frames=200", r"unit_frames \(200\) must be a multiple of patch_frames"),
        ("patch_mels=15", r"n_mels \(80\) must be a multiple of patch_mels"),
        ("heads=5", r"width \(192\) must be a multiple of heads"),
        ("decoder_heads=7", r"decoder_width .* must be a multiple of decoder_heads"),
        ("decoder_positions=3d", r"decoder_positions"),
        ("mask_ratio=1", r"mask_ratio must be between 0 and 1"),
        ("base_lr=nan", r"base_lr must be finite"),
        ("base_lr=.inf", r"base_lr must be finite"),
        ("epochs=1", r"exactly one of steps, samples, epochs"),
        ("accumulation=7", r"batch .* must be a multiple of accumulation"),
        ("steps=0", r"steps must be positive"),
        ("seed=-1", r"seed must be finite and not negative"),
    ],
)
def test_refused(override, message):
    with pytest.raises(ValueError, match=message):
        load_recipe("tiny-smoke", [override])


def test_one_patch_is_refused():
    with pytest.raises(ValueError, match="one patch"):
        from_dict({"steps": 1, "patch_mels": 80, "patch_frames": 208})


def test_every_setting_has_a_line_of_documentation():
    """The string below each field, as the settings' reader sees it."""
    body = ast.parse(inspect.getsource(Settings)).body[0].body
    documented = {
        node.target.id
        for node, after in itertools.pairwise(body)
        if isinstance(node, ast.AnnAssign)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
        and str(after.value.value).endswith(".")
    }
    assert documented == {field.name for field in dataclasses.fields(Settings)}


def test_sizes():
    for size, expected in {"tiny": (192, 12, 3), "large": (1024, 24, 16)}.items():
        config = from_dict({"steps": 1, "size": size}).model_config(-7.5, 3.5)
        assert (config.width, config.depth, config.heads) == expected
        assert (config.norm_mean, config.norm_std) == (-7.5, 3.5)
    assert from_dict({"steps": 1, "size": "large", "depth": 3}).model_config().depth == 3


def test_length_of_the_run():
    assert from_dict({"steps": 7}).total_steps(1.0) == 7
    assert from_dict({"samples": 1000, "batch": 100}).total_steps(1.0) == 10
    # 10 hours are 3600 stretches of 10 s: one crop of each per epoch.
    assert from_dict({"epochs": 2, "batch": 100}).total_steps(10.0) == 72


@given(st.integers(1, 3000), st.floats(0, 0.9), st.integers(1, 4096), st.floats(1e-6, 1.0))
def test_schedule(total, warmup, batch, base_lr):
    s = from_dict({"steps": total, "warmup": warmup, "batch": batch, "base_lr": base_lr})
    rates = [s.lr_at(step, total) for step in range(total)]
    peak = base_lr * batch / 128
    rising = math.ceil(warmup * total)
    assert all(0 <= rate <= peak * (1 + 1e-9) for rate in rates)
    assert all(a <= b * (1 + 1e-9) for a, b in itertools.pairwise(rates[:rising]))
    falling = rates[rising:]
    assert all(a >= b * (1 - 1e-9) for a, b in itertools.pairwise(falling))
    assert s.lr_at(total, total) == pytest.approx(0, abs=1e-12 * peak + 1e-15)
