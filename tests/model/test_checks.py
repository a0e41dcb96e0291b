"""Checks of audio: what is no batch of waveforms is refused with a remedy, the rest is kept."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hear_msm_mae.checks import check_levels, check_waveforms


@pytest.fixture
def audio() -> Tensor:
    return torch.rand(3, 4000) - 0.5


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


TYPES = (torch.uint8, torch.int16, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn)


@pytest.mark.parametrize(
    "audio",
    [torch.zeros(1, 9, dtype=dtype) for dtype in TYPES]
    + [np.zeros((1, 9), kind) for kind in ("int16", "uint8", "bool", "complex64", "object", "U1")],
    ids=lambda audio: str(audio.dtype),
)
def test_types_that_are_no_waveform(audio):
    message = rf"^audio must be float32.*got {audio.dtype}.*audio / 32768"
    with pytest.raises(TypeError, match=message):
        check_waveforms(audio)


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


@pytest.mark.parametrize(
    ("peak", "dtype"), [(1e30, torch.float32), (1e30, torch.float64), (-1e300, torch.float64)]
)
def test_values_whose_power_overflows(peak, dtype):
    """Finite, but the spectrogram would not be."""
    message = rf"^audio reaches {abs(peak):.4g}; expected finite values".replace("+", r"\+")
    with pytest.raises(ValueError, match=message):
        check_waveforms(torch.full((1, 4000), peak, dtype=dtype))


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
def test_arrays_are_accepted(audio, make):
    array = make(audio.numpy())
    np.testing.assert_array_equal(array.astype(np.float32), audio.numpy())  # the same values
    assert torch.equal(check_waveforms(array).float(), audio)


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
