"""The two engines beside each other on the genuine all-MiniLM-L6-v2."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sie_core.catalog.spec import DenseHead, ModelSpec
from sie_core.ids import ModelId
from sie_server.models import build
from sie_server.models.calls import Encode, LoadError, Precision
from sie_server.models.model import LoadedModel

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity

SPEC = ModelSpec(id=ModelId("sentence-transformers/all-MiniLM-L6-v2"), dense=DenseHead(dim=384))
TEXTS = ("hello world", "", "中文 😀 עברית", "one two three " * 100, *(f"item number {n} " * n for n in range(20)))


def vectors(model: LoadedModel, texts: tuple[str, ...] = TEXTS) -> np.ndarray:
    return np.array([output.dense for output in model.run(model.prepare(Encode(texts)), stream=0)])


def torch_model(folder: Path, precision: Precision, *, streams: int = 1) -> LoadedModel:
    return build.load(SPEC, folder, precision=precision, streams=streams, threads=1, engine="torch")


def test_torch_and_openvino_give_the_same_vectors(ours: LoadedModel, minilm: Path) -> None:
    assert np.abs(vectors(torch_model(minilm, "f32")) - vectors(ours)).max() <= 2e-6


@pytest.mark.parametrize("precision", ["bf16", "f16"])
def test_half_precision_of_torch_is_close(ours: LoadedModel, minilm: Path, precision: Precision) -> None:
    model = torch_model(minilm, precision)

    assert model.precision == precision
    assert (vectors(model) * vectors(ours)).sum(1).min() >= 0.9995


def test_together_and_alone_are_the_same(minilm: Path) -> None:
    model = torch_model(minilm, "f32")
    alone = np.concatenate([vectors(model, (text,)) for text in TEXTS])

    assert np.abs(alone - vectors(model)).max() <= 1e-6
    assert np.abs(alone[::-1] - vectors(model, TEXTS[::-1])).max() <= 1e-6


def test_results_of_one_pass_outlive_the_next(minilm: Path) -> None:
    model = torch_model(minilm, "f32")
    first = vectors(model)
    kept = first.copy()
    vectors(model, TEXTS[::-1])

    assert np.array_equal(first, kept)


def test_memory_is_that_of_the_weights(minilm: Path) -> None:
    """f32 holds all of the checkpoint but the pooler; half precision has the matrices at half of it."""
    whole = torch_model(minilm, "f32").memory_bytes
    half = torch_model(minilm, "f16").memory_bytes
    layers, width, inner = 6, 384, 1536
    matrices = layers * (4 * width * width + 2 * width * inner)

    assert 0.99 < whole / (minilm / "model.safetensors").stat().st_size < 1
    assert 0 <= whole - half - 2 * matrices < 2 * 10 * layers * inner


def test_openvino_is_not_for_cuda(minilm: Path) -> None:
    with pytest.raises(LoadError, match=r"device is `cuda` and the engine `openvino`: want `torch`"):
        build.load(SPEC, minilm, precision="f32", streams=1, threads=1, device="cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_a_device_that_is_not_there_is_named(minilm: Path) -> None:
    with pytest.raises(LoadError, match=r"device is `cuda`, and torch 2\.\S+, built .*, sees none here"):
        build.load(SPEC, minilm, precision="f32", streams=1, threads=1, engine="torch", device="cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bf16", "f16"])
def test_a_cuda_device_gives_close_vectors(ours: LoadedModel, minilm: Path, precision: Precision) -> None:
    """Here the lengths of items go to the kernel, and two streams run at once."""
    model = build.load(SPEC, minilm, precision=precision, streams=2, threads=1, engine="torch", device="cuda")
    call = Encode(TEXTS)
    with ThreadPoolExecutor(2) as threads:
        passes = list(threads.map(lambda stream: model.run(model.prepare(call), stream=stream), (0, 1)))

    for done in passes:
        found = np.array([output.dense for output in done])
        assert (found * vectors(ours)).sum(1).min() >= 0.9995
