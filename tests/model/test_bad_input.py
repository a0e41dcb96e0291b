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
from hear_msm_mae.checks import check_levels, check_waveforms

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
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((), r"shape \(b, n\).*got 0-D \(\)"),
        ((4000,), r"shape \(b, n\).*got 1-D \(4000,\), add a clip axis with audio\[None, :\]"),
        ((2, 2, 4000), r"shape \(b, n\).*got 3-D \(2, 2, 4000\), mix channels.*audio\.mean\(1\)"),
        ((1, 1, 1, 4000), r"shape \(b, n\).*got 4-D \(1, 1, 1, 4000\)"),
        ((0, 4000), r"empty batch of shape \(0, 4000\); expected at least one clip"),
        ((2, 0), r"zero samples, shape \(2, 0\); expected at least one sample"),
        ((0, 0), "empty batch"),
    ],
)
@pytest.mark.parametrize("kind", ["tensor", "array"])
def test_shapes(shape, message, kind):
    audio = torch.zeros(shape) if kind == "tensor" else np.zeros(shape, np.float32)
    with pytest.raises(ValueError, match=f"^audio.*{message}"):
        check_waveforms(audio)


def test_the_remedies_of_the_messages_work(embed, tiny_model):
    assert len(embed(torch.zeros(4000)[None, :], tiny_model)) == 1
    assert len(embed(torch.zeros(2, 2, 4000).mean(1), tiny_model)) == 2
    integers = torch.tensor([[0, 16384, -32768] * 500], dtype=torch.int16)
    assert embed(integers / 32768, tiny_model).isfinite().all()


@pytest.mark.parametrize(
    "dtype",
    [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool, torch.complex64],
    ids=str,
)
def test_tensor_types(dtype):
    with pytest.raises(TypeError, match=rf"^audio must be float32.*got {dtype}.*audio / 32768"):
        check_waveforms(torch.zeros(1, 4000, dtype=dtype))


def test_a_float_type_without_arithmetic():
    with pytest.raises(TypeError, match=r"^audio must be float32.*float8"):
        check_waveforms(torch.zeros(1, 4000).to(torch.float8_e4m3fn))


@pytest.mark.parametrize("dtype", ["int16", "uint8", "int64", "bool", "complex64", "object", "U1"])
def test_array_types(dtype):
    with pytest.raises(TypeError, match=r"^audio must be float32.*got"):
        check_waveforms(np.zeros((1, 4000), dtype=dtype))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [(0, 0), (1, 2345), (2, 3999)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_nan_and_infinity(audio, value, place, dtype):
    audio[place] = value
    with pytest.raises(
        ValueError, match=rf"^audio contains NaN or Inf in clip\(s\) \[{place[0]}\]"
    ):
        check_waveforms(audio.to(dtype))


def test_all_clips_with_nan_are_named(audio):
    audio[0, 5] = float("nan")
    audio[2, 7] = float("inf")
    with pytest.raises(
        ValueError, match=r"clip\(s\) \[0, 2\]; expected finite values in \[-1, 1\]"
    ):
        check_waveforms(audio.numpy())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_whose_power_overflows(audio, dtype):
    """Finite, but the spectrogram would not be."""
    with pytest.raises(ValueError, match=r"^audio reaches .*e\+30; expected finite values"):
        check_waveforms((audio * 1e31).to(dtype))


def test_float64_values_beyond_float32():
    with pytest.raises(ValueError, match=r"^audio reaches 1e\+300"):
        check_waveforms(torch.full((1, 4000), -1e300, dtype=torch.float64))


@pytest.mark.parametrize("wrap", [list, tuple])
@pytest.mark.parametrize("convert", [torch.from_numpy, np.asarray, list])
def test_a_list_of_unequal_clips(wrap, convert):
    clips = wrap(convert(np.zeros(n)) for n in (3000, 4000, 5000))
    with pytest.raises(
        ValueError, match=r"^audio is a (list|tuple) .*unequal lengths .*3000 to 5000"
    ):
        check_waveforms(clips)


def test_a_list_of_unequal_batches():
    with pytest.raises(ValueError, match=r"unequal lengths \(from 3000 to 4000 samples\)"):
        check_waveforms([torch.zeros(1, 3000), torch.zeros(1, 4000)])


@pytest.mark.parametrize(
    "audio",
    [[], (), [0.0, 0.1], [torch.tensor(1.0)], [np.array(1.0)], [torch.zeros(9), torch.zeros(9)]],
    ids=str,
)
def test_other_lists(audio):
    with pytest.raises(
        TypeError, match=r"^audio must be a torch\.Tensor.*got a (list|tuple).*stack"
    ):
        check_waveforms(audio)


@pytest.mark.parametrize(
    "audio", ["speech.wav", b"RIFF", None, 0.5, {}, SimpleNamespace()], ids=str
)
def test_other_types_of_audio(audio):
    kind = type(audio).__name__
    with pytest.raises(TypeError, match=rf"^audio must be a torch\.Tensor.*\(b, n\), got {kind}"):
        check_waveforms(audio)


class Masked(torch.Tensor):
    """Like torch.masked.MaskedTensor, whose values are elsewhere."""

    @classmethod
    def __torch_dispatch__(cls, *arguments, **options):
        raise AssertionError("nothing is computed with it")


@pytest.mark.filterwarnings("ignore")  # prototypes and deprecations of torch
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda x: x.to_sparse(), TypeError, r"layout torch\.sparse_coo.*audio\.to_dense\(\)"),
        (lambda x: x.to_sparse_csr(), TypeError, r"torch\.sparse_csr.*audio\.to_dense\(\)"),
        (lambda x: x.to("meta"), ValueError, "meta device"),
        (lambda x: torch.nested.nested_tensor([x[0], x[1, :9]]), TypeError, "nested.*one at a"),
        (
            lambda x: torch.nested.nested_tensor([x[0], x[1, :9]], layout=torch.jagged),
            TypeError,
            "nested.*one at a time",
        ),
        (
            lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8),
            TypeError,
            r"quantised.*audio\.dequantize\(\)",
        ),
        (lambda x: torch.Tensor._make_subclass(Masked, x), TypeError, "is a Masked; .* plain"),
        (
            lambda x: np.ma.masked_greater(x.numpy(), 0.4),
            TypeError,
            r"masked array.*audio\.filled\(0\)",
        ),
        (lambda x: np.array(0.5), ValueError, "0-D"),
        (lambda x: np.float32(0.5), TypeError, "got float32"),
        (lambda x: np.array([[1.0, None]]), TypeError, "got object"),
        (lambda x: np.full((1, 9), np.longdouble("1e300")) ** 9, ValueError, "NaN or Inf"),
    ],
)
def test_tensors_and_arrays_of_other_kinds(audio, make, error, message):
    with pytest.raises(error, match=f"^audio .*{message}"):
        check_waveforms(make(audio))


@pytest.mark.parametrize("kind", ["coo", "dense"])
def test_what_the_messages_say_works(audio, kind):
    dense = {
        "coo": lambda: audio.to_sparse().to_dense(),
        "dense": lambda: np.ma.masked_greater(audio.numpy(), 9.0).filled(0),
    }[kind]()
    assert torch.equal(check_waveforms(dense), audio)


@pytest.mark.parametrize(("low", "high"), [(-40.0, 1.0), (0.0, 32768.0), (-1e12, 1e12)])
def test_levels_that_are_not_scaled_are_told(caplog, low, high):
    with caplog.at_level(logging.WARNING):
        check_levels(-32.0, 32.0, "quiet.wav")
        assert not caplog.records
        check_levels(low, high, "loud.wav")
    assert f"loud.wav reaches {max(-low, high):.4g}; expected [-1, 1]" in caplog.text


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (0.0, 1.1e12, r"reaches 1\.1e\+12"),
        (-1e300, 0.0, r"reaches 1e\+300"),
        (float("nan"), 1.0, "NaN or Inf"),
        (0.0, float("nan"), "NaN or Inf"),
        (float("-inf"), 0.0, "NaN or Inf"),
        (0.0, float("inf"), "NaN or Inf"),
    ],
)
def test_levels_that_cannot_be_embedded(low, high, message):
    with pytest.raises(ValueError, match=rf"^loud\.wav .*{message}"):
        check_levels(low, high, "loud.wav")


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


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x,
        lambda x: x.astype(np.float64),
        lambda x: x.astype(np.longdouble),
        lambda x: x.astype(">f4"),
        lambda x: x.astype(">f8"),
        lambda x: np.ascontiguousarray(x[:, ::-1])[:, ::-1],
        lambda x: np.ascontiguousarray(x[::-1])[::-1],
        lambda x: np.asfortranarray(x),
        lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        lambda x: np.rec.fromarrays([x, x.astype("i1")], names="a,b").a,  # odd strides
    ],
    ids=[
        "float32",
        "float64",
        "longdouble",
        "big-endian-4",
        "big-endian-8",
        "reversed-samples",
        "reversed-clips",
        "fortran",
        "strided",
        "record-field",
    ],
)
def test_arrays_are_accepted(embed, tiny_model, audio, make):
    array = make(audio.numpy())
    np.testing.assert_array_equal(array.astype(np.float32), audio.numpy())  # the same values
    torch.testing.assert_close(
        embed(array, tiny_model), embed(audio, tiny_model), rtol=0, atol=1e-6
    )


@pytest.mark.filterwarnings("error")  # torch warns of memory that is not writeable
def test_read_only_arrays_are_accepted_and_stay_as_they_are(embed, tiny_model, audio):
    array = audio.numpy().copy()
    array.flags.writeable = False
    assert torch.equal(embed(array, tiny_model), embed(audio, tiny_model))
    assert torch.equal(torch.from_numpy(array.copy()), audio)


class Labelled(torch.Tensor):
    """A tensor with a name; its values are where a plain tensor has them."""


@pytest.mark.parametrize("default", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_checks_keep_values_type_and_memory(audio, default):
    array = audio.numpy()
    torch.set_default_dtype(default)
    try:
        for given in (audio, audio.as_subclass(Labelled), nn.Parameter(audio), array):
            checked = check_waveforms(given)
            assert type(checked) is Tensor
            assert checked.dtype == torch.float32
            assert torch.equal(checked, audio)
            assert checked.data_ptr() == audio.data_ptr()
        for dtype in (torch.float64, torch.float16, torch.bfloat16):
            assert check_waveforms(audio.to(dtype)).dtype == dtype
        assert check_waveforms(array.astype(">f8")).dtype == torch.float32
        parameter = nn.Parameter(audio.clone())
        check_waveforms(parameter).square().sum().backward()
        torch.testing.assert_close(parameter.grad, 2 * audio)
    finally:
        torch.set_default_dtype(torch.float32)


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


def test_audio_moves_to_the_model(embed, tiny_file, audio, device):
    model = load_model(tiny_file).to(device)
    embeddings = embed(audio, model)
    assert embeddings.device.type == device.type
    torch.testing.assert_close(embed(audio.to(device), model), embeddings)


def test_timestamps_are_on_the_device_of_the_model(tiny_file, audio, device):
    _, timestamps = get_timestamp_embeddings(audio, load_model(tiny_file).to(device))
    assert timestamps.device.type == device.type
    assert timestamps.dtype == torch.float32


@pytest.mark.parametrize("samples", [1, 2, 159, 399, 400, 401])
def test_the_shortest_clips(embed, tiny_model, samples):
    assert embed(torch.rand(2, samples) - 0.5, tiny_model).isfinite().all()


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


def test_calling_the_model_itself_tracks_gradients(tiny_file, audio):
    model = load_model(tiny_file)
    model(audio).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    assert model.encoder.patch_embed.weight.grad.abs().sum() > 0
