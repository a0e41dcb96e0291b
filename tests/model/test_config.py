"""The model configuration: names, JSON, sizes that cannot be."""

import dataclasses
import json

import pytest

from hear_msm_mae.config import ModelConfig, parse_name


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("80x208p16x16", (80, 208, 16, 16)),
        ("80x1001p80x2", (80, 1001, 80, 2)),
        ("msm_mae_vit_base_80x512p16x8_epoch100.pth", (80, 512, 16, 8)),
        ("64x96p8x8/checkpoint", (64, 96, 8, 8)),
        ("m2d_vit_base-80x608p16x16p32k-0801", (80, 608, 16, 16, 32000)),
        ("m2d_vit_base-80x608p16x16p16k", (80, 608, 16, 16, 16000)),
        ("runs-40x100p8x4/80x304p16x16", (80, 304, 16, 16)),  # the last one is the closest
    ],
)
def test_names_are_parsed(name, sizes):
    keys = ("n_mels", "unit_frames", "patch_mels", "patch_frames", "sample_rate")
    rate = () if len(sizes) == 5 else (16000,)
    assert parse_name(name) == dict(zip(keys, sizes + rate, strict=True))


@pytest.mark.parametrize("name", ["", "vit_base", "80x208", "p16x16", "80x208p16", "80x208-16x16"])
def test_other_names_are_not(name):
    assert parse_name(name) is None


def test_name_and_sizes_agree():
    config = ModelConfig(n_mels=64, unit_frames=96, patch_mels=8, patch_frames=4)
    assert config.name == "64x96p8x4"
    assert ModelConfig(**parse_name(config.name)) == config


def test_derived_sizes():
    config = ModelConfig()  # Base: ViT-B, 5 x 13 patches, 160 ms apart
    assert (config.rows, config.columns, config.patch_area) == (5, 13, 256)
    assert config.frame_embedding_size == 3840
    assert config.native_hop_ms == 160


@pytest.mark.parametrize(("samples", "frames"), [(1, 1), (159, 1), (160, 2), (16000, 101)])
def test_number_of_frames(samples, frames):
    assert ModelConfig().num_frames(samples) == frames


def test_json_round_trip():
    config = ModelConfig(
        n_mels=40,
        patch_mels=8,
        width=64,
        heads=4,
        mlp_ratio=2,
        cls_token=False,
        decoder_positions="2d",
        norm_pixels=True,
        norm_mean=-6.5,
        norm_std=3.25,
        layer=-3,
        embedding_scale=0.5,
        scene_pooling="mean+std",
    )
    assert ModelConfig.from_json(config.to_json()) == config
    assert json.loads(config.to_json()) == dataclasses.asdict(config)
    assert ModelConfig.from_json('{"unit_frames": 304}') == ModelConfig(unit_frames=304)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON"),
        ('{"width": 768', "not JSON"),
        ("[768]", "not a JSON object"),
        ("null", "not a JSON object"),
        ('{"widht": 768}', r"unknown key.*widht.*known.*width"),
        ('{"width": "768"}', "width must be a positive int"),
        ('{"width": 768.0}', "width must be a positive int"),
        ('{"cls_token": 1}', "cls_token must be true or false"),
        ('{"mlp_ratio": Infinity}', "mlp_ratio must be between 0.001 and 1000"),
        ('{"norm_mean": NaN}', "norm_mean"),
    ],
)
def test_json_that_is_no_configuration(text, reason):
    with pytest.raises(ValueError, match=reason):
        ModelConfig.from_json(text)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((field, value) for field in ("n_mels", "width", "depth", "heads") for value in (0, -1)),
        ("unit_frames", 0),
        ("patch_mels", True),
        ("patch_frames", 1.5),
        ("decoder_depth", None),
        ("n_mels", 81),  # 16 does not divide it
        ("unit_frames", 200),
        ("patch_mels", 7),
        ("patch_frames", 7),
        ("heads", 7),
        ("decoder_heads", 7),
        ("mlp_ratio", 0),
        ("mlp_ratio", -4.0),
        ("mlp_ratio", float("inf")),
        ("mlp_ratio", float("nan")),
        ("mlp_ratio", "4"),
        ("cls_token", None),
        ("decoder_positions", "3d"),
        ("norm_mean", float("inf")),
        ("norm_mean", True),
        ("norm_std", 0.0),
        ("norm_std", -4.2),
        ("norm_std", float("nan")),
        ("norm_std", 1e-40),  # zero in float32
        ("norm_std", 1e39),
        ("norm_mean", -(10**400)),
        ("mlp_ratio", 1e300),
        ("n_mels", 1040),
        ("unit_frames", 16 * 2**14),
        ("scene_pooling", "max"),
        ("scene_pooling", None),
        ("scene_pooling", ["mean"]),
        ("layer", 12),
        ("layer", -13),
        ("layer", 1.0),
        ("layer", True),
        ("layer", "last"),
        ("embedding_scale", 0),
        ("embedding_scale", float("inf")),
        ("embedding_scale", "1"),
        ("embedding_scale", 1e308),
    ],
)
def test_impossible_values_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=field):
        ModelConfig(**{field: value})


@pytest.mark.parametrize(
    ("sizes", "field"),
    [
        ({"width": 54, "heads": 2}, "width must be a multiple of 4"),
        ({"decoder_width": 33, "decoder_heads": 1}, "decoder_width must be a multiple of 2"),
        (
            {"decoder_width": 42, "decoder_heads": 1, "decoder_positions": "2d"},
            "decoder_width must be a multiple of 4",
        ),
    ],
)
def test_widths_that_position_tables_cannot_have(sizes, field):
    with pytest.raises(ValueError, match=field):
        ModelConfig(**sizes)


def test_a_configuration_cannot_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ModelConfig().width = 192
