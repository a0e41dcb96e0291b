"""What a program may do around the model: other default types, threads, wrappers, hooks."""

import threading
from collections.abc import Iterator

import pytest
import torch
from small_models import small_model

from hear_msm_mae import get_scene_embeddings, get_timestamp_embeddings, load_model
from hear_msm_mae.log_mel import LogMel, mel_filter_bank
from hear_msm_mae.options import native_precision


@pytest.fixture(params=[torch.float64, torch.bfloat16])
def other_default(request) -> Iterator[torch.dtype]:
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(torch.float32)


def test_embeddings_do_not_depend_on_the_default_type(tiny_file, other_default):
    audio = torch.rand(2, 20000, dtype=torch.float32) - 0.5
    model = load_model(tiny_file)
    scene, (frames, times) = (
        get_scene_embeddings(audio, model),
        get_timestamp_embeddings(audio, model),
    )
    assert {scene.dtype, frames.dtype, times.dtype} == {torch.float32}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert {b.dtype for b in model.buffers()} == {torch.float32}
    torch.set_default_dtype(torch.float32)
    expected = load_model(tiny_file)
    assert torch.equal(scene, get_scene_embeddings(audio, expected))
    assert torch.equal(frames, get_timestamp_embeddings(audio, expected)[0])


def test_the_filter_bank_leaves_the_default_type_alone(monkeypatch):
    """Whatever another thread creates meanwhile keeps its type."""
    monkeypatch.setattr(torch, "set_default_dtype", lambda _: pytest.fail("changed"))
    assert mel_filter_bank(80).dtype == torch.float64
    threads = [threading.Thread(target=LogMel) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: torch.compile(model, backend="eager"),
        torch.nn.DataParallel,
        lambda model: torch.nn.DataParallel(torch.compile(model, backend="eager")),
    ],
    ids=["compile", "DataParallel", "both"],
)
def test_wrapped_models_work(tiny_model, wrap):
    audio = torch.rand(2, 20000) - 0.5
    wrapped = wrap(tiny_model)
    assert torch.equal(
        get_scene_embeddings(audio, wrapped), get_scene_embeddings(audio, tiny_model)
    )
    ours, theirs = (get_timestamp_embeddings(audio, model) for model in (wrapped, tiny_model))
    assert torch.equal(ours[0], theirs[0])


def test_hooks_fire_in_every_path():
    model = small_model()
    calls: list[str] = []
    inner = ("patch_embed", "blocks.0", "blocks.0.attn.qkv", "blocks.1.mlp", "norm")
    names = ("frontend", "encoder", *(f"encoder.{name}" for name in inner))
    for name in names:
        model.get_submodule(name).register_forward_hook(lambda *_, n=name: calls.append(n))
    audio = torch.rand(1, 16000) - 0.5
    for run in (model, lambda x: get_scene_embeddings(x, model)):
        calls.clear()
        run(audio)
        assert sorted(calls) == sorted(names)
    calls.clear()
    get_timestamp_embeddings(audio, model)
    assert set(calls) == set(names)


def test_automatic_precision_is_what_the_hardware_multiplies(tiny_file, monkeypatch):
    assert load_model(tiny_file, precision="auto").options.precision == native_precision("cpu")
    for amx, avx512, expected in (
        (True, True, "bfloat16"),
        (False, True, "bfloat16"),
        (False, False, "float32"),
    ):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda x=amx: x)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda x=avx512: x)
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
        assert native_precision("cpu") == expected
    for capability, expected in (((7, 5), "float32"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, c=capability: c)
        assert native_precision("cuda") == expected


def test_a_device_that_is_not_there_is_named(tiny_file):
    with pytest.raises(ValueError, match="device 'xyz' is not usable here"):
        load_model(tiny_file, device="xyz")
    assert load_model(tiny_file, device="cpu").device == torch.device("cpu")


def test_full_memory_halves_the_micro_batches_for_good(monkeypatch):
    model = small_model()
    audio = torch.rand(6, 33120) - 0.5
    expected = get_scene_embeddings(audio, model)
    encode, sizes = model.embed_units, []

    def limited(spectrogram):
        sizes.append(len(spectrogram))
        if len(spectrogram) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(spectrogram)

    monkeypatch.setattr(model, "embed_units", limited)
    torch.testing.assert_close(get_scene_embeddings(audio, model), expected, rtol=0, atol=1e-5)
    assert max(sizes[2:]) <= 3
    sizes.clear()
    get_scene_embeddings(audio, model)
    assert max(sizes) <= 2
    monkeypatch.setattr(
        model, "embed_units", lambda _: (_ for _ in ()).throw(torch.OutOfMemoryError)
    )
    with pytest.raises(torch.OutOfMemoryError):
        get_scene_embeddings(audio[:1], model)
