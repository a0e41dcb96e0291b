"""What the watcher says about speed: the machine's peak and the work of a step."""

import itertools
import logging

import pytest
import torch
from toy_corpus import ToyCorpus, quick

from hear_msm_mae.pretrain import watch
from hear_msm_mae.pretrain.engine import set_attention
from hear_msm_mae.pretrain.mae import MaskedAutoencoder
from hear_msm_mae.pretrain.train import pretrain

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning:lightning")


@pytest.mark.parametrize(("seconds", "products"), [(0.001, 6), (40, 1)])
def test_peak_is_not_repeated_where_a_product_takes_long(monkeypatch, seconds, products):
    clock = itertools.count(0, seconds)  # what lies between any two looks at it
    monkeypatch.setattr(watch.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(watch, "PEAK_SIZE", 8)
    peak = watch.matmul_peak(torch.device("cpu"), "fp32")
    looks = round(next(clock) / seconds)
    assert peak == pytest.approx(2 * 8**3 / seconds)
    assert looks == 1 + 3 * products


@pytest.mark.parametrize(("peaks", "warned"), [((1e9, 2e9), True), ((3e9, 2e9), False)])
def test_bf16_that_is_slower_than_float32_is_reported(tmp_path, monkeypatch, caplog, peaks, warned):
    by_precision = dict(zip(("bf16", "fp32"), peaks, strict=True))
    monkeypatch.setattr(watch, "matmul_peak", lambda device, precision: by_precision[precision])
    settings = quick(tmp_path, steps=1, precision="bf16")
    with caplog.at_level(logging.WARNING):
        pretrain(settings, corpus=ToyCorpus())
    assert ("precision=fp32 would train faster" in caplog.text) is warned


def test_training_flops_are_those_that_torch_counts():
    from torch.utils.flop_counter import FlopCounterMode

    from hear_msm_mae.pretrain.mae import random_mask

    config = quick("unused", unit_frames=64, cls_token=True).model_config()
    model = MaskedAutoencoder(config)
    set_attention(model, fused=False)  # torch does not count the fused one on the CPU
    x = torch.randn(2, 80, 64)
    mask = random_mask(2, 20, 0.75)
    with FlopCounterMode(display=False) as counter:
        model(x, mask).backward()
    assert watch.training_flops(config, 0.75) * 2 == counter.get_total_flops()
