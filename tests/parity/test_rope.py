"""Small seeded GTEs and Nomics, saved by transformers under their published names and read back by both.

What transformers does not compute is compared with what it does and that is the same: Alibaba's `ntk` scaling with
a theta and a linear factor that give its frequencies, written down here from what was published.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sie_core.catalog.spec import DenseHead, ModelSpec
from sie_core.ids import ModelId
from sie_server.models.calls import Encode, LoadError
from sie_testing import tiny_bert

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
references = pytest.importorskip("sentence_transformers")
pytestmark = [pytest.mark.parity, pytest.mark.timeout(600)]

WITHIN = 1e-5
HEAD = 8
TEXTS = ("hello world", "", "a", "x" * 60, "Á b? 中 😀 שלום", *("ab " * n for n in range(1, 14, 3)))
SHAPE: dict[str, Any] = {
    "vocab_size": len(tiny_bert.VOCABULARY),
    "hidden_size": 4 * HEAD,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
NTK = {"rope_type": "linear", "rope_theta": 500.0 * 8, "factor": 8 ** (2 / HEAD)}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gte": ("Gte", {}),
    "gte without types": ("Gte", {"type_vocab_size": 0}),
    "gte with two types": ("Gte", {"type_vocab_size": 2}),
    "gte, other activation": ("Gte", {"hidden_act": "silu", "layer_norm_eps": 1e-3}),
    "nomic": ("NomicBert", {}),
    "nomic, one head": ("NomicBert", {"num_attention_heads": 1, "hidden_size": 16}),
    "nomic, one type": ("NomicBert", {"type_vocab_size": 1}),
}
PUBLISHED_NOMIC = {
    "model_type": "nomic_bert",
    "activation_function": "swiglu",
    "causal": False,
    "layer_norm_epsilon": 1e-12,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "n_embd": 4 * HEAD,
    "n_head": 4,
    "n_inner": 48,
    "n_layer": 3,
    "n_positions": 64,
    "parallel_block": False,
    "prenorm": False,
    "qkv_proj_bias": False,
    "rotary_emb_base": 1000,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "rotary_scaling_factor": None,
    "type_vocab_size": 2,
    "use_rms_norm": False,
    "vocab_size": len(tiny_bert.VOCABULARY),
}

Ours = Callable[[Path], np.ndarray]


def network(family: str, **shape: Any) -> Any:
    config = getattr(transformers, family + "Config")(**(SHAPE | shape))
    return getattr(transformers, family + "Model")(config)


@pytest.fixture
def ours(load_model: Any) -> Ours:
    def vectors(folder: Path) -> np.ndarray:
        model = load_model(ModelSpec(id=ModelId("acme/tiny"), dense=DenseHead()), folder)
        return np.array([output.dense for output in model.run(model.prepare(Encode(TEXTS)), stream=0)])

    return vectors


def theirs(folder: Path) -> np.ndarray:
    model = references.SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
    return np.asarray(model.encode(list(TEXTS)))


def rewritten(folder: Path, without: tuple[str, ...] = (), **keys: Any) -> Path:
    """Changes what we read, after they have read it."""
    read = json.loads((folder / "config.json").read_text()) | keys
    kept = {name: value for name, value in read.items() if name not in without}
    (folder / "config.json").write_text(json.dumps(kept))
    return folder


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family(save_network: Any, ours: Ours, name: str) -> None:
    family, shape = FAMILIES[name]
    folder = save_network(network(family, **shape), seed=len(name), pooling="cls", max_tokens=64)

    assert np.abs(ours(folder) - theirs(folder)).max() <= WITHIN


@pytest.mark.parametrize("pooling", ["mean", "lasttoken"])
@pytest.mark.parametrize("family", ["Gte", "NomicBert"])
def test_every_pooling(save_network: Any, ours: Ours, family: str, pooling: str) -> None:
    folder = save_network(network(family), pooling=pooling)

    assert np.abs(ours(folder) - theirs(folder)).max() <= WITHIN


def as_published_gte(folder: Path, factor: float = 8.0) -> Path:
    keys = {"rope_theta": 500.0, "rope_scaling": {"type": "ntk", "factor": factor}, "position_embedding_type": "rope"}
    return rewritten(folder, without=("rope_parameters",), model_type="new", **keys)


def test_a_gte_as_it_is_published(save_network: Any, ours: Ours) -> None:
    """`ntk` by a factor turns at theta × factor, and slower by the factor to the 2 / size of a head."""
    folder = save_network(network("Gte", rope_parameters=NTK), max_tokens=64)
    wanted = theirs(folder)

    assert np.abs(ours(as_published_gte(folder)) - wanted).max() <= WITHIN


def test_a_nomic_as_it_is_published(save_network: Any, ours: Ours) -> None:
    folder = save_network(network("NomicBert"), max_tokens=64)
    wanted = theirs(folder)
    (folder / "config.json").write_text(json.dumps(PUBLISHED_NOMIC))

    assert np.abs(ours(folder) - wanted).max() <= WITHIN


def test_mixed_ntk_turns_every_pair_slower_by_its_own_factor(save_network: Any, ours: Ours) -> None:
    """At b = 1 pair m of a head of d is slower by factor ** (2 m / d): the same as factor × theta, one pair later."""
    later = {"rope_type": "linear", "rope_theta": 500.0 * 8, "factor": 8 ** (2 / HEAD)}
    folder = save_network(network("Gte", rope_parameters=later), max_tokens=64)
    wanted = theirs(folder)
    mixed = {"type": "ntk", "factor": 8.0, "mixed_b": 1.0}
    folder = rewritten(folder, without=("rope_parameters",), model_type="new", rope_theta=500.0, rope_scaling=mixed)

    assert np.abs(ours(folder) - wanted).max() <= WITHIN


def test_one_alone_is_as_in_a_batch(save_network: Any, load_model: Any) -> None:
    folder = save_network(network("Gte", rope_parameters=NTK), max_tokens=64)
    model = load_model(ModelSpec(id=ModelId("acme/tiny"), dense=DenseHead()), folder)
    prepared = model.prepare(Encode(TEXTS))
    together = [output.dense for output in model.run(prepared[::-1], stream=0)][::-1]
    alone = [model.run([one], stream=0)[0].dense for one in prepared]

    assert np.abs(np.array(together) - np.array(alone)).max() <= WITHIN


WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "gte's epsilon": ("Gte", {"layer_norm_eps": 1e-3}),
    "gte's theta": ("Gte", {"rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0}}),
    "gte's positions": ("Gte", {"rope_parameters": {"rope_type": "linear", "rope_theta": 160_000.0, "factor": 1.02}}),
    "gte's activation": ("Gte", {"hidden_act": "gelu_new"}),
    "nomic's epsilon": ("NomicBert", {"layer_norm_eps": 1e-3}),
    "nomic's theta": ("NomicBert", {"rope_parameters": {"rope_type": "default", "rope_theta": 900.0}}),
    "nomic's activation": ("NomicBert", {"hidden_act": "gelu"}),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_noticed(save_network: Any, ours: Ours, what: str) -> None:
    family, keys = WRONG[what]
    folder = save_network(network(family), max_tokens=64)
    wanted = theirs(folder)

    assert np.abs(ours(rewritten(folder, **keys)) - wanted).max() > 10 * WITHIN


def test_a_wrong_factor_is_noticed(save_network: Any, ours: Ours) -> None:
    folder = save_network(network("Gte", rope_parameters=NTK), max_tokens=64)
    wanted = theirs(folder)

    assert np.abs(ours(as_published_gte(folder, factor=7.5)) - wanted).max() > 10 * WITHIN


def test_a_wrong_pooling_is_noticed(save_network: Any, ours: Ours) -> None:
    folder = save_network(network("Gte"), pooling="cls")
    wanted = theirs(folder)
    pooling = folder / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps(json.loads(pooling.read_text()) | {"pooling_mode": "mean"}))

    assert np.abs(ours(folder) - wanted).max() > 100 * WITHIN


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "learned positions": ("Gte", {"position_embedding_type": "absolute"}, '"absolute": supported is "rope"'),
    "scaled logits": ("Gte", {"logn_attention_scale": True}, "`logn_attention_scale` .* is true: supported is false"),
    "kind of scaling": ("Gte", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "is `dynamic`"),
    "norms before": ("NomicBert", {"prenorm": True}, "`prenorm` .* is true"),
    "scaling by length": ("NomicBert", {"rotary_scaling_factor": 2.0}, "`rotary_scaling_factor` .* is 2"),
    "experts": ("NomicBert", {"num_experts": 8}, "`num_experts` .* is 8: supported is 0"),
    "ungated": ("NomicBert", {"activation_function": "gelu"}, "`activation_function` .* is `gelu`"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_it_does_not_do_is_refused(save_network: Any, ours: Ours, what: str) -> None:
    family, keys, why = REFUSED[what]
    folder = rewritten(save_network(network(family)), **keys)

    with pytest.raises(LoadError, match=why):
        ours(folder)
