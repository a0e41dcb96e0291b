"""Audio and models that are refused, or accepted and converted."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hear_msm_mae import get_scene_embeddings, get_timestamp_embeddings, load_model

Embed = Callable[..., Tensor]


@pytest.fixture(params=["scene", "timestamps"])
def embed(request) -> Embed:
    """Both embedding functions in turn, returning the embeddings."""
    if request.param == "scene":
        return get_scene_embeddings
    return lambda audio, model: get_timestamp_embeddings(audio, model)[0]


@pytest.fixture
def audio() -> Tensor:
    return torch.rand(3, 4000) - 0.5


# ---------------------------------------------------------------------------------------------
# Refused
# ---------------------------------------------------------------------------------------------
def test_the_remedies_of_the_messages_work(embed, tiny_model):
    assert len(embed(torch.zeros(4000)[None, :], tiny_model)) == 1
    assert len(embed(torch.zeros(2, 2, 4000).mean(1), tiny_model)) == 2
    integers = torch.tensor([[0, 16384, -32768] * 500], dtype=torch.int16)
    assert embed(integers / 32768, tiny_model).isfinite().all()


def test_the_hear_functions_check_their_audio(embed, tiny_model):
    for wrong in (torch.zeros(4000), np.full((1, 9), np.nan, np.float32)):
        with pytest.raises(ValueError, match=r"^audio"):
            embed(wrong, tiny_model)
    with pytest.raises(TypeError, match=r"^audio"):
        embed("speech.wav", tiny_model)


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (nn.Linear(4, 4), r"torch\.nn\.modules\.linear\.Linear"),
        (nn.DataParallel(nn.Linear(1, 1)), "DataParallel"),
        (None, "NoneType"),
        ("model.safetensors", "str"),
        (SimpleNamespace(sample_rate=16000), "SimpleNamespace"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_model_that_is_not_ours(embed, audio, model, found):
    with pytest.raises(
        TypeError, match=rf"^model must come from hear_msm_mae\.load_model, got .*{found}"
    ):
        embed(audio, model)


def test_swapped_arguments(embed, audio, tiny_model):
    with pytest.raises(TypeError, match=r"^model must come from.*got torch\.Tensor"):
        embed(tiny_model, audio)


# ---------------------------------------------------------------------------------------------
# Accepted
# ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-5), (torch.float16, 5e-3), (torch.bfloat16, 5e-2)],
    ids=str,
)
def test_float_types_are_converted(embed, tiny_file, audio, device, dtype, tolerance):
    model = load_model(tiny_file).to(device)
    given = embed(audio.to(dtype), model)
    assert given.dtype == torch.float32
    # exactly what the values at hand give ...
    torch.testing.assert_close(given, embed(audio.to(dtype).float(), model), rtol=0, atol=1e-6)
    # ... and, within the precision of the type, what the original values give
    torch.testing.assert_close(given, embed(audio, model), rtol=0, atol=tolerance)


@pytest.mark.filterwarnings("error")  # torch warns of memory that is not writeable
def test_read_only_arrays_are_accepted_and_stay_as_they_are(embed, tiny_model, audio):
    array = audio.numpy().copy()
    array.flags.writeable = False
    assert torch.equal(embed(array, tiny_model), embed(audio, tiny_model))
    assert torch.equal(torch.from_numpy(array.copy()), audio)


def test_the_input_is_not_changed(embed, tiny_model, audio):
    before = audio.clone()
    embed(audio, tiny_model)
    embed(audio.numpy(), tiny_model)
    assert torch.equal(audio, before)


def test_tensors_of_any_layout_are_accepted(embed, tiny_model, audio):
    expected = embed(audio, tiny_model)
    for same in (
        audio.T.contiguous().T,
        audio.repeat_interleave(2, dim=1)[:, ::2],
        nn.Parameter(audio),
    ):
        torch.testing.assert_close(embed(same, tiny_model), expected, rtol=0, atol=1e-6)
    assert torch.equal(embed(audio[:1].expand(2, -1), tiny_model), embed(audio[[0, 0]], tiny_model))


def test_audio_that_is_not_scaled_is_embedded_with_a_warning(embed, tiny_model, audio, caplog):
    with caplog.at_level(logging.WARNING):
        assert embed(audio, tiny_model).isfinite().all()
        assert not caplog.records
        assert embed((audio * 32768).round(), tiny_model).isfinite().all()
    assert "expected [-1, 1] (divide 16-bit samples by 32768)" in caplog.text


# ---------------------------------------------------------------------------------------------
# Gradients
# ---------------------------------------------------------------------------------------------
def test_no_gradients_are_tracked(embed, tiny_model, audio):
    embeddings = embed(audio.requires_grad_(), tiny_model)
    assert not embeddings.requires_grad
    assert not get_timestamp_embeddings(audio, tiny_model)[1].requires_grad
    assert torch.is_grad_enabled()


def test_a_probe_can_be_trained_on_the_embeddings(embed, tiny_model, device):
    """Inference tensors could not enter a graph; these can."""
    time = torch.arange(8000) / 16000
    low, high = (
        torch.sin(2 * torch.pi * torch.linspace(*band, 8)[:, None] * time) * 0.3
        for band in ((200, 400), (2000, 4000))
    )
    embeddings = embed(torch.cat([low, high]), tiny_model).flatten(1)
    embeddings = (embeddings - embeddings.mean(0)) / (embeddings.std(0) + 1e-6)
    labels = torch.arange(2).repeat_interleave(8)
    probe = nn.Linear(embeddings.shape[1], 2)
    optimizer = torch.optim.Adam(probe.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(probe(embeddings), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
    assert (probe(embeddings).argmax(1) == labels).all()
