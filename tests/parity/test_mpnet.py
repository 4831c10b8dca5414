"""Small seeded MPNets, saved by transformers and read back by both."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sie_core.catalog.spec import DenseHead, ModelSpec
from sie_core.ids import ModelId
from sie_server.models.backbones import mpnet
from sie_server.models.calls import Encode, LoadError
from sie_server.models.ops.plan import distances
from sie_testing import tiny_bert

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
references = pytest.importorskip("sentence_transformers")
safetensors = pytest.importorskip("safetensors.numpy")
pytestmark = [pytest.mark.parity, pytest.mark.timeout(600)]

WITHIN = 1e-5
SPEC = ModelSpec(id=ModelId("acme/tiny"), dense=DenseHead())
LONGEST = 300
TEXTS = ("hello world", "", "a", "Á b? 中 😀 שלום", *("ab " * n for n in (1, 4, 7, 16, 40, 90, 200)))
"""Of up to 300 tokens: distances from 128 on have one number."""

SHAPE: dict[str, Any] = {
    "vocab_size": len(tiny_bert.VOCABULARY),
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": LONGEST + 2,
}

Vectors = Callable[[Path], np.ndarray]


@pytest.fixture
def saved(save_network: Any) -> Path:
    folder: Path = save_network(transformers.MPNetModel(transformers.MPNetConfig(**SHAPE)), max_tokens=LONGEST)
    return folder


@pytest.fixture
def ours(load_model: Any) -> Vectors:
    def vectors(folder: Path) -> np.ndarray:
        model = load_model(SPEC, folder)
        return np.array([output.dense for output in model.run(model.prepare(Encode(TEXTS)), stream=0)])

    return vectors


def theirs(folder: Path) -> np.ndarray:
    model = references.SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
    return np.asarray(model.encode(list(TEXTS)))


def rewritten(folder: Path, **keys: Any) -> Path:
    """Changes what we read, after they have read it."""
    read = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(read | keys))
    return folder


def test_vectors_are_theirs(saved: Path, ours: Vectors) -> None:
    assert np.abs(ours(saved) - theirs(saved)).max() <= WITHIN


def test_the_longest_is_300_tokens(saved: Path, load_model: Any) -> None:
    assert load_model(SPEC, saved).prepare(Encode(TEXTS))[-1].tokens == LONGEST


def test_one_alone_is_as_in_a_batch(saved: Path, load_model: Any) -> None:
    model = load_model(SPEC, saved)
    prepared = model.prepare(Encode(TEXTS))
    together = [output.dense for output in model.run(prepared[::-1], stream=0)][::-1]
    alone = [model.run([one], stream=0)[0].dense for one in prepared]

    assert np.abs(np.array(together) - np.array(alone)).max() <= 2e-6


def test_every_distance_is_in_their_bucket() -> None:
    apart = distances(2000)
    wanted = transformers.models.mpnet.modeling_mpnet.MPNetEncoder.relative_position_bucket(-torch.tensor(apart))

    assert np.array_equal(mpnet.bucket(apart), wanted.numpy())


@pytest.mark.parametrize("name", ["embeddings.position_embeddings.weight", "encoder.relative_attention_bias.weight"])
def test_a_table_off_by_one_is_noticed(saved: Path, ours: Vectors, name: str) -> None:
    wanted = theirs(saved)
    weights = safetensors.load_file(saved / "model.safetensors")
    safetensors.save_file(weights | {name: np.roll(weights[name], -1, axis=0)}, saved / "model.safetensors")

    assert np.abs(ours(saved) - wanted).max() > 100 * WITHIN


def test_distances_off_by_one_are_noticed(saved: Path, ours: Vectors, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = theirs(saved)
    shifted = mpnet.BUCKETS.__class__("shifted", (-1,), np.int32, lambda plan: mpnet.bucket(distances(plan.grid) + 1))
    monkeypatch.setattr(mpnet, "BUCKETS", shifted)

    assert np.abs(ours(saved) - wanted).max() > 100 * WITHIN


def test_a_wrong_epsilon_is_noticed(saved: Path, ours: Vectors) -> None:
    wanted = theirs(saved)

    assert np.abs(ours(rewritten(saved, layer_norm_eps=1e-3)) - wanted).max() > 10 * WITHIN


def test_other_buckets_are_refused(saved: Path, ours: Vectors) -> None:
    with pytest.raises(LoadError, match="`relative_attention_num_buckets` is 64: supported is 32"):
        ours(rewritten(saved, relative_attention_num_buckets=64))
