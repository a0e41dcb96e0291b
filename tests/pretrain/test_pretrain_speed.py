"""Speed: the machine's peak, the work of a step, and the precision that is the faster."""

import itertools

import pytest
import torch
from toy_corpus import ToyCorpus, quick

from hear_msm_mae.mae import MaskedAutoencoder
from hear_msm_mae.pretrain import hardware
from hear_msm_mae.pretrain.hardware import set_attention
from hear_msm_mae.pretrain.snapshots import load_latest
from hear_msm_mae.pretrain.train import pretrain

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning:lightning")


@pytest.mark.parametrize(("seconds", "products"), [(0.001, 6), (40, 1)])
def test_peak_is_not_repeated_where_a_product_takes_long(monkeypatch, seconds, products):
    clock = itertools.count(0, seconds)  # what lies between any two looks at it
    monkeypatch.setattr(hardware.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(hardware, "PEAK_SIZE", 8)
    peak = hardware.matmul_peak(torch.device("cpu"), "fp32")
    looks = round(next(clock) / seconds)
    assert peak == pytest.approx(2 * 8**3 / seconds)
    assert looks == 1 + 3 * products


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks the GPU instead")
@pytest.mark.parametrize(
    ("info", "precision"),
    [
        ("model name\t: x\nflags\t\t: fpu avx2 amx_bf16 amx_tile\n", "bf16"),
        ("flags\t\t: fpu avx512f avx512_bf16\n", "bf16"),
        ("flags\t\t: fpu avx2 avx512f\n", "fp32"),
        ("Features\t: fp asimd\n", "fp32"),
        (None, "fp32"),
    ],
)
def test_auto_is_what_the_hardware_computes_with(tmp_path, monkeypatch, info, precision):
    path = tmp_path / "cpuinfo"
    if info is not None:
        path.write_text(info)
    monkeypatch.setattr(hardware, "CPU_INFO", path)
    assert hardware.faster_precision("auto") == hardware.faster_precision("cpu") == precision


@pytest.mark.usefixtures("small_and_alone")
def test_a_resumed_run_keeps_its_precision(tmp_path, monkeypatch):
    for flags in ("avx2", "amx_bf16"):  # the second time nothing is left to do
        (tmp_path / "cpuinfo").write_text(f"flags : {flags}")
        monkeypatch.setattr(hardware, "CPU_INFO", tmp_path / "cpuinfo")
        settings = quick(tmp_path / "run", steps=1, precision="auto", accelerator="cpu")
        pretrain(settings, corpus=ToyCorpus())
        assert load_latest(tmp_path / "run").settings.precision == "fp32"


def test_training_flops_are_those_that_torch_counts():
    from torch.utils.flop_counter import FlopCounterMode

    from hear_msm_mae.mae import random_mask

    settings = quick("unused", unit_frames=64)
    model = MaskedAutoencoder(settings.model)
    set_attention(model, fused=False)  # torch does not count the fused one on the CPU
    x = torch.randn(2, 80, 64)
    mask = random_mask(2, 20, 0.75)
    with FlopCounterMode(display=False) as counter:
        model(x, mask).backward()
    assert hardware.training_flops(settings) * 2 == counter.get_total_flops()
