"""Small seeded DeBERTas of the second and third version, saved by transformers and read back by both."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from sie_core.catalog.spec import DenseHead, ModelSpec
from sie_core.ids import ModelId
from sie_server.models.backbones import deberta
from sie_server.models.calls import Encode, LoadError
from sie_server.models.checkpoint import open_checkpoint
from sie_server.models.ops.adapted import AdaptedOps, Factors, Lora, Loras
from sie_server.models.ops.openvino import OpenvinoOps
from sie_server.models.ops.plan import Feed, distances
from sie_server.models.ops.protocol import Ops
from sie_testing import tiny_bert

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
references = pytest.importorskip("sentence_transformers")
safetensors = pytest.importorskip("safetensors.numpy")
pytestmark = [pytest.mark.parity, pytest.mark.timeout(600)]

WITHIN = 1e-5
SPEC = ModelSpec(id=ModelId("acme/tiny"), dense=DenseHead())
LONGEST = 40
TEXTS = ("hello world", "", "a", "Á b? 中 😀 שלום", *("ab " * n for n in range(1, 30, 4)))

SHAPE: dict[str, Any] = {
    "vocab_size": len(tiny_bert.VOCABULARY),
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 48,
    "relative_attention": True,
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "position_biased_input": False,
}
"""As DeBERTa-v3 has it, with buckets so few that distances from 5 on share them."""

SHAPES: dict[str, dict[str, Any]] = {
    "third version": {},
    "list of kinds": {"pos_att_type": ["c2p", "p2c"]},
    "layers of their own": {"share_att_key": False},
    "c2p alone": {"pos_att_type": "c2p"},
    "p2c alone": {"pos_att_type": "p2c", "share_att_key": False},
    "neither": {"pos_att_type": None, "position_biased_input": True},
    "table as it is": {"norm_rel_ebd": "none"},
    "no buckets": {"position_buckets": -1},
    "no buckets, near only": {"position_buckets": -1, "max_relative_positions": 6},
    "odd buckets": {"position_buckets": 7},
    "more distances than there are": {"max_relative_positions": 100},
    "fewer distances than there are": {"max_relative_positions": 16},
    "positions too": {"position_biased_input": True},
    "types": {"type_vocab_size": 2},
    "narrow embeddings": {"embedding_size": 16},
    "no distances": {"relative_attention": False, "position_biased_input": True},
    "no distances, yet scaled": {"relative_attention": False, "position_biased_input": True, "pos_att_type": "c2p"},
    "other activation": {"hidden_act": "relu"},
}

Vectors = Callable[..., np.ndarray]
Save = Callable[..., Path]


@pytest.fixture
def saved(save_network: Any) -> Save:
    def save(*, seed: int = 0, max_tokens: int = LONGEST, **shape: Any) -> Path:
        network = transformers.DebertaV2Model(transformers.DebertaV2Config(**(SHAPE | shape)))
        folder: Path = save_network(network, seed=seed, max_tokens=max_tokens)
        return folder

    return save


@pytest.fixture
def ours(load_model: Any) -> Vectors:
    def vectors(folder: Path, texts: tuple[str, ...] = TEXTS) -> np.ndarray:
        model = load_model(SPEC, folder)
        return np.array([output.dense for output in model.run(model.prepare(Encode(texts)), stream=0)])

    return vectors


def theirs(folder: Path, texts: tuple[str, ...] = TEXTS) -> np.ndarray:
    model = references.SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
    return np.asarray(model.encode(list(texts)))


def rewritten(folder: Path, **keys: Any) -> Path:
    """Changes what we read, after they have read it."""
    read = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(read | keys))
    return folder


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape(saved: Save, ours: Vectors, shape: str) -> None:
    folder = saved(seed=len(shape), **SHAPES[shape])

    assert np.abs(ours(folder) - theirs(folder)).max() <= WITHIN


LARGE: dict[str, Any] = {
    "position_buckets": 256,
    "max_position_embeddings": 512,
    "max_relative_positions": -1,
    "layer_norm_eps": 1e-7,
    "num_hidden_layers": 2,
}


def test_items_so_long_that_real_buckets_are_shared(saved: Save, ours: Vectors) -> None:
    """Of mxbai-rerank-large-v1's configuration: distances from 129 on are grouped, here up to 511."""
    folder = saved(max_tokens=512, **LARGE)
    texts = tuple("ab c " * n for n in (1, 45, 85, 130, 200))

    assert np.abs(ours(folder, texts) - theirs(folder, texts)).max() <= WITHIN


@pytest.mark.parametrize(("buckets", "farthest"), [(256, 512), (256, 1024), (8, 48), (7, 48), (128, 100), (4, 5000)])
def test_every_distance_is_in_their_bucket(buckets: int, farthest: int) -> None:
    """Farther ones than the farthest too."""
    apart = distances(1500)
    of_theirs = transformers.models.deberta_v2.modeling_deberta_v2.make_log_bucket_position
    wanted = of_theirs(torch.tensor(apart, dtype=torch.long), buckets, farthest).long().numpy()

    assert np.array_equal(deberta.bucket(apart, buckets, farthest), wanted)


def test_one_alone_is_as_in_a_batch(saved: Save, load_model: Any) -> None:
    model = load_model(SPEC, saved())
    prepared = model.prepare(Encode(TEXTS))
    together = [output.dense for output in model.run(prepared[::-1], stream=0)][::-1]
    alone = [model.run([one], stream=0)[0].dense for one in prepared]

    assert np.abs(np.array(together) - np.array(alone)).max() <= 2e-6


WRONG: dict[str, dict[str, Any]] = {
    "epsilon": {"layer_norm_eps": 1e-3},
    "activation": {"hidden_act": "relu"},
    "c2p left out": {"pos_att_type": "p2c"},
    "p2c left out": {"pos_att_type": "c2p"},
    "table not normed": {"norm_rel_ebd": "none"},
    "farthest": {"max_relative_positions": 24},
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_noticed(saved: Save, ours: Vectors, what: str) -> None:
    folder = saved()
    wanted = theirs(folder)

    assert np.abs(ours(rewritten(folder, **WRONG[what])) - wanted).max() > 10 * WITHIN


@pytest.mark.parametrize("by", [-1, 1])
def test_distances_off_by_one_are_noticed(saved: Save, ours: Vectors, by: int, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(**LARGE)
    wanted = theirs(folder)
    rows = deberta.rows_of(256, 512)
    shifted = Feed("shifted", (-1,), np.int32, lambda plan: (rows.make(plan) + by).astype(np.int32))
    monkeypatch.setattr(deberta, "rows_of", lambda span, farthest: shifted)

    assert np.abs(ours(folder) - wanted).max() > 100 * WITHIN


def test_a_bucket_off_by_one_is_noticed(saved: Save, ours: Vectors, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the far ones alone."""
    folder = saved(max_tokens=512, **LARGE)
    texts = ("ab c " * 130,)
    wanted = theirs(folder, texts)
    right = deberta.bucket

    def off(distance: np.ndarray, buckets: int, farthest: int) -> np.ndarray:
        found = right(distance, buckets, farthest)
        return np.where(np.abs(distance) > buckets // 2, found - np.sign(distance), found)

    monkeypatch.setattr(deberta, "bucket", off)

    assert np.abs(ours(folder, texts) - wanted).max() > 10 * WITHIN


def test_a_lora_of_what_is_computed_once_is_refused(saved: Save) -> None:
    """The layer of the keys is that of distances too, which no batch computes anew."""
    folder = saved()
    name = "encoder.layer.0.attention.self.key_proj.weight"
    factors = Factors(np.ones((2, 32), np.float32), np.ones((32, 2), np.float32))
    ops: Ops[Any] = cast(
        Ops[Any], AdaptedOps(OpenvinoOps(open_checkpoint(folder), "f32"), Loras([Lora("acme/lora", {name: factors})]))
    )
    config = deberta.read_deberta((folder / "config.json").read_bytes())

    with pytest.raises(LoadError, match=f"a LoRA changes `{name}`, of which a part"):
        deberta.deberta(ops, config)


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"conv_kernel_size": 3}, "`conv_kernel_size` is 3: supported are models without a convolution"),
        ({"pos_att_type": "p2p|c2p"}, "`pos_att_type` has `p2p`"),
        ({"attention_head_size": 16}, "`attention_head_size` is 16: supported is 8"),
        ({"num_attention_heads": 5}, "not a multiple of `num_attention_heads`, 5"),
        ({"position_buckets": 16}, r"rel_embeddings.weight"),
    ],
)
def test_what_is_not_done_is_refused(saved: Save, ours: Vectors, keys: dict[str, Any], why: str) -> None:
    with pytest.raises(LoadError, match=why):
        ours(rewritten(saved(), **keys))
