"""Packed weights: the same results as torch's product, whatever happens to the weight."""

import copy
import io

import pytest
import torch
import torch.nn.functional as F

from hear_msm_mae import packed
from hear_msm_mae.config import ModelConfig
from hear_msm_mae.encoder import Encoder
from hear_msm_mae.packed import Linear

X = torch.randn(3, 7, 40, generator=torch.Generator().manual_seed(1))


def layer(dtype: torch.dtype = torch.float32) -> Linear:
    """A layer whose weight is packed, where this CPU can do that."""
    made = Linear(40, 130, dtype=dtype)
    with torch.no_grad():
        made(X.to(dtype))
    assert (made._packed is not None) == packed._has_kernels()
    return made


def assert_current(linear: torch.nn.Linear, x: torch.Tensor = X) -> None:
    expected = F.linear(x.double(), linear.weight.double(), linear.bias.double())
    error = 1e-6 if linear.weight.dtype == torch.float32 else 4e-3
    for _ in range(2):
        with torch.no_grad():
            found = linear(x)
        assert found.dtype == linear.weight.dtype
        assert (found - expected).norm() < error * expected.norm()


def through_data(linear):
    linear.weight.data += 0.5


def in_place(linear):
    with torch.no_grad():
        linear.weight[3, 4] += 1.0


def load(linear):
    linear.load_state_dict(Linear(40, 130).state_dict())


def load_and_assign(linear):
    linear.load_state_dict(Linear(40, 130).state_dict(), assign=True)


def new_data_at_old_address(linear):
    for _ in range(3):
        linear.weight.data = torch.randn(130, 40)


def new_parameter(linear):
    linear.weight = torch.nn.Parameter(torch.randn(130, 40))


def rounded(linear):
    linear.bfloat16()
    linear.float()


def bias(linear):
    with torch.no_grad():
        linear.bias += 1.0


def optimizer_step(linear):
    optimizer = torch.optim.AdamW(linear.parameters(), lr=0.1)
    linear(X).square().mean().backward()
    optimizer.step()


CHANGES = [through_data, in_place, load, load_and_assign, new_data_at_old_address, new_parameter]
CHANGES += [rounded, bias, optimizer_step]


@pytest.mark.parametrize("change", CHANGES)
def test_product_follows_every_change_of_the_weight(change):
    linear = layer()
    before = linear.weight.detach().clone(), linear.bias.detach().clone()
    change(linear)
    assert not (torch.equal(before[0], linear.weight) and torch.equal(before[1], linear.bias))
    assert_current(linear)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(40,), (1, 40), (0, 40), (2, 3, 5, 40)])
def test_shapes_and_types(dtype, shape):
    linear, x = Linear(40, 130, dtype=dtype), torch.randn(shape).to(dtype)
    with torch.no_grad():
        found = linear(x)
        torch.testing.assert_close(found, F.linear(x, linear.weight, linear.bias))


def test_gradients_are_those_of_torch():
    linear, x = layer(), X.clone().requires_grad_()
    linear(x).square().sum().backward()
    weight, bias = (p.detach().clone().requires_grad_() for p in linear.parameters())
    y = X.clone().requires_grad_()
    F.linear(y, weight, bias).square().sum().backward()
    for ours, theirs in ((x, y), (linear.weight, weight), (linear.bias, bias)):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_copies_are_independent():
    linear = layer()
    twin = copy.deepcopy(linear)
    file = io.BytesIO()
    torch.save(linear, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    for other in (twin, loaded):
        with torch.no_grad():
            other.weight.mul_(2)
        assert_current(other)
    assert_current(linear)


def test_autocast_and_inference_mode():
    linear = layer()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert linear(X).dtype == torch.bfloat16
    with torch.inference_mode():
        born_here = Linear(40, 130)  # torch does not count changes of such weights
        for change in (0.0, 1.0):
            born_here.weight += change
            torch.testing.assert_close(born_here(X), F.linear(X, born_here.weight, born_here.bias))
        torch.testing.assert_close(linear(X), F.linear(X, linear.weight, linear.bias))


def test_encoder_gives_the_same_with_and_without_packing(monkeypatch):
    encoder = Encoder(ModelConfig(width=192, depth=4, heads=3)).eval()
    spectrogram = torch.randn(3, 80, 208)
    with torch.no_grad():
        fast = encoder(spectrogram)
        monkeypatch.setattr(packed, "_has_kernels", lambda: False)
        plain = encoder(spectrogram)
    assert (fast - plain).norm() < 1e-6 * plain.norm()


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_tracing_sees_torchs_product():
    linear = layer()
    with torch.no_grad():
        program = torch.export.export(linear, (X,))
        traced = torch.jit.trace(linear, X)
    assert "mkldnn" not in str(program.graph) + str(traced.graph)
