"""Settings: recipes, overrides, refusals, schedule."""

import itertools
import math
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hear_msm_mae.pretrain import parsing as module
from hear_msm_mae.pretrain.parsing import from_dict, help_text, load_recipe, recipe_names
from hear_msm_mae.pretrain.settings import Settings

RECIPES = [
    *("base-80x208p16x16", "base-80x208p16x4", "base-80x512p16x16"),
    *("small-32k", "small-cpu", "small-gpu", "tiny-smoke"),
]


def test_recipes_that_are_shipped():
    assert recipe_names() == sorted(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_valid_and_names_its_command(name):
    settings = load_recipe(name)
    if "80x" in name:
        assert settings.model.name == name.removeprefix("base-")
    text = (module.resources.files(module.__package__) / "recipes" / f"{name}.yaml").read_text()
    assert settings.model.sample_rate == (32_000 if "32k" in name else 16_000)
    assert f"hear-msm-mae pretrain {name}" in text.split("\n\n")[0] + text


def test_base_recipe_is_the_papers():
    s = load_recipe("base-80x208p16x16")
    config = s.model
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
    assert len(before) == len(runs) + 1 > 1


def test_overrides():
    s = load_recipe(
        "tiny-smoke", ["batch=64", "norm_pixels=true", "base_lr=1e-4", "source_weights.music=0.5"]
    )
    assert (s.batch, s.model.norm_pixels, s.base_lr) == (64, True, 1e-4)
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
        ("patchs=3", r"patchs=3 .*--help` lists the settings"),
        ("workers=3", r"workers=3 .*--help` lists the settings"),
        ("batch", r"form key=value"),
        ("batch=many", r'"batch": Not of type PositiveInt'),
        ("batch=true", r'"batch": Not of type PositiveInt'),
        ("batch=0", r'"batch": .* 0 does not conform to restriction v>0'),
        ("norm_pixels=1", r'"norm_pixels": Expected a .*bool'),
        ("source_weights.a=heavy", r'"source_weights": .*heavy'),
        ("source_weights.a=-1", r'"source_weights": .*-1 does not conform to restriction v>=0'),
        ("batch.a=1", r'"batch": Not of type PositiveInt'),
        ("size=huge", r"\['tiny', 'small', 'base', 'large'\]. Got value: huge"),
        ("precision=fp16", r"Got value: fp16"),
        ("unit_frames=200", r"unit_frames \(200\) must be a multiple of patch_frames"),
        ("patch_mels=15", r"n_mels \(80\) must be a multiple of patch_mels"),
        ("heads=5", r"width \(192\) must be a multiple of heads"),
        ("decoder_heads=7", r"decoder_width .* must be a multiple of decoder_heads"),
        ("decoder_positions=3d", r"decoder_positions"),
        ("mask_ratio=1", r'"mask_ratio": .* 1 does not conform to restriction v>0 and v<1'),
        ("base_lr=nan", r'"base_lr": .* nan does not conform'),
        ("base_lr=.inf", r"base_lr"),
        ("warmup=1", r"warmup must be below 1"),
        ("epochs=1", r"exactly one of steps, samples, epochs, minutes"),
        ("minutes=1", r"exactly one of steps, samples, epochs, minutes"),
        ("accumulation=7", r"batch .* must be a multiple of accumulation"),
        ("masks=5", r"batch .* must be a multiple of accumulation \(1\) times masks \(5\)"),
        ("steps=0", r'"steps": .*does not conform to restriction v>0 .* Given value: 0'),
        ("seed=-1", r'"seed": .* -1 does not conform to restriction v>=0'),
        ("objective=latents", r"set teacher for latents only"),
        ("teacher=x.safetensors", r"set teacher for latents only"),
    ],
)
def test_refused(override, message):
    with pytest.raises(ValueError, match=message):
        load_recipe("tiny-smoke", [override])


def test_one_patch_is_refused():
    with pytest.raises(ValueError, match="one patch"):
        from_dict({"steps": 1, "patch_mels": 80, "patch_frames": 208})


def test_help_shows_every_setting_with_its_text():
    text = help_text()
    for name in from_dict({"steps": 1}).to_dict():
        entry = text.split(f"--{name} ", 1)[1].split("\n  --", 1)[0]
        described = " ".join(entry.split()).partition("(type: ")[0]
        assert described.rstrip().endswith("."), name
    assert "Channels of the encoder." in text


def test_help_of_the_command_shows_the_settings(run):
    for word in ("--help", "-h"):
        result = run("pretrain", word)
        assert result.status == 0
        assert "--mask_ratio" in result.out
        assert "small-cpu" in result.out
        assert "KEY=VALUE" in result.out


def test_sizes():
    for size, expected in {"tiny": (192, 12, 3), "large": (1024, 24, 16)}.items():
        config = from_dict({"steps": 1, "size": size}).model_config(-7.5, 3.5)
        assert (config.width, config.depth, config.heads) == expected
        assert (config.norm_mean, config.norm_std) == (-7.5, 3.5)
    assert from_dict({"steps": 1, "size": "large", "depth": 3}).model.depth == 3


def test_length_of_the_run():
    assert from_dict({"steps": 7}).total_steps(1.0) == 7
    assert from_dict({"samples": 1000, "batch": 100}).total_steps(1.0) == 10
    # 10 hours are 3600 stretches of 10 s: one crop of each per epoch.
    assert from_dict({"epochs": 2, "batch": 100}).total_steps(10.0) == 72
    assert from_dict({"minutes": 2}).total_steps(10.0) is None


@given(st.integers(1, 3000), st.floats(0, 0.9), st.integers(1, 4096), st.floats(1e-6, 1.0))
def test_schedule(total, warmup, batch, base_lr):
    s = Settings(steps=total, warmup=warmup, batch=batch, base_lr=base_lr)
    rates = [s.lr_at(step, total) for step in range(total)]
    peak = base_lr * batch / 128
    rising = math.ceil(warmup * total)
    assert all(0 <= rate <= peak * (1 + 1e-9) for rate in rates)
    assert all(a <= b * (1 + 1e-9) for a, b in itertools.pairwise(rates[:rising]))
    falling = rates[rising:]
    assert all(a >= b * (1 - 1e-9) for a, b in itertools.pairwise(falling))
    clock = [s.lr_at(minute / 7, total / 7, step=0.0) for minute in range(total)]
    assert clock[rising:] == pytest.approx(falling)
    assert s.lr_at(total, total) == pytest.approx(0, abs=1e-12 * peak + 1e-15)
