"""Small seeded GTEs and Nomics, saved by transformers under their published names and read back by both.

What transformers does not compute is compared with what it does and that is the same: Alibaba's `ntk` scaling with
a theta and a linear factor that give its frequencies, written down here from what was published. Nomic's mixture of
experts is written out in numpy, our own reading of what was published.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
MIXED = {"num_experts": 4, "moe_top_k": 2, "moe_every_n_layers": 2}
V2 = {"activation_function": "gelu", "qkv_proj_bias": True, "mlp_fc1_bias": True, "mlp_fc2_bias": True} | MIXED

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


Table = Mapping[str, np.ndarray]


def nomic_v2_weights(config: dict[str, Any]) -> Table:
    """Seeded, by name: every other layer is a mixture."""
    random = np.random.default_rng(5)
    width, inner, experts = config["n_embd"], config["n_inner"], config["num_experts"]
    linear = {"attn.Wqkv": (3 * width, width), "attn.out_proj": (width, width)}
    dense = {"mlp.fc1": (inner, width), "mlp.fc2": (width, inner)}
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], width),
        "embeddings.token_type_embeddings.weight": (2, width),
        "emb_ln.weight": (width,),
        "emb_ln.bias": (width,),
    }
    for layer in range(config["n_layer"]):
        at = f"encoder.layers.{layer}."
        for name, shape in (linear | ({} if layer % 2 else dense)).items():
            shapes |= {f"{at}{name}.weight": shape, f"{at}{name}.bias": shape[:1]}
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"):
            shapes[at + name] = (width,)
        if layer % 2:
            shapes |= {f"{at}mlp.experts.mlp.{name}": (experts * inner, width) for name in ("w1", "w2")}
            shapes |= {f"{at}mlp.router.layer.weight": (experts, width), f"{at}mlp.experts.bias": (width,)}
    return {name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


def gelu(x: np.ndarray) -> Any:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def softmax(x: np.ndarray) -> Any:
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@dataclass(frozen=True)
class NomicV2:
    """Written out from the published code, token by token and expert by expert: no reference has this network."""

    config: dict[str, Any]
    weights: Table

    def vector(self, ids: list[int]) -> Any:
        """The mean of the hidden states, of length 1."""
        x = self.weights["embeddings.word_embeddings.weight"][ids].astype(float)
        x = self.norm(x + self.weights["embeddings.token_type_embeddings.weight"][0], "emb_ln")
        for layer in range(self.config["n_layer"]):
            at = f"encoder.layers.{layer}."
            x = self.norm(x + self.attended(x, at), at + "norm1")
            if layer % 2:
                made = np.array([self.mixed(token, at + "mlp.") for token in x])
            else:
                made = self.linear(gelu(self.linear(x, at + "mlp.fc1")), at + "mlp.fc2")
            x = self.norm(x + made, at + "norm2")
        return x.mean(0) / np.linalg.norm(x.mean(0))

    def linear(self, x: np.ndarray, at: str) -> Any:
        return x @ self.weights[at + ".weight"].T.astype(float) + self.weights[at + ".bias"]

    def norm(self, x: np.ndarray, at: str) -> Any:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + self.config["layer_norm_epsilon"])
        return scaled * self.weights[at + ".weight"] + self.weights[at + ".bias"]

    def turned(self, x: np.ndarray) -> Any:
        half = x.shape[-1] // 2
        angle = np.arange(len(x))[:, None, None] * self.config["rotary_emb_base"] ** -(np.arange(half) / half)
        first, second, cosine, sine = x[..., :half], x[..., half:], np.cos(angle), np.sin(angle)
        return np.concatenate([first * cosine - second * sine, second * cosine + first * sine], -1)

    def attended(self, x: np.ndarray, at: str) -> Any:
        heads = self.config["n_head"]
        parts = np.split(self.linear(x, at + "attn.Wqkv"), 3, -1)
        query, key, value = (part.reshape(len(x), heads, -1) for part in parts)
        products = np.einsum("qhd,khd->hqk", self.turned(query), self.turned(key)) / math.sqrt(query.shape[-1])
        seen = np.einsum("hqk,khd->qhd", softmax(products), value)
        return self.linear(seen.reshape(len(x), -1), at + "attn.out_proj")

    def mixed(self, token: np.ndarray, at: str) -> Any:
        shares = softmax(self.weights[at + "router.layer.weight"].astype(float) @ token)
        found = self.weights[at + "experts.bias"].astype(float)
        for expert in np.argsort(shares)[-self.config["moe_top_k"] :]:
            rows = slice(expert * self.config["n_inner"], (expert + 1) * self.config["n_inner"])
            wide = gelu(self.weights[at + "experts.mlp.w1"][rows] @ token)
            found = found + shares[expert] * (wide @ self.weights[at + "experts.mlp.w2"][rows])
        return found


def of_nomic_v2(tmp_path: Path, load_model: Any, **keys: Any) -> float:
    """How far ours is from what is written out, after `keys` of what we read are changed."""
    written = NomicV2(PUBLISHED_NOMIC | V2, nomic_v2_weights(PUBLISHED_NOMIC | V2))
    folder = tiny_bert.write(tmp_path)
    tiny_bert.write_safetensors(folder / "model.safetensors", written.weights)
    (folder / "config.json").write_text(json.dumps(PUBLISHED_NOMIC | V2 | keys))
    model = load_model(ModelSpec(id=ModelId("acme/tiny"), dense=DenseHead(), max_tokens=40), folder)
    prepared = model.prepare(Encode(TEXTS))
    found = np.array([output.dense for output in model.run(prepared, stream=0)])
    return float(np.abs(found - np.array([written.vector(one.ids.tolist()) for one in prepared])).max())


def test_a_mixture_of_experts(tmp_path: Path, load_model: Any) -> None:
    assert of_nomic_v2(tmp_path, load_model) <= WITHIN


@pytest.mark.parametrize("wrong", [{"moe_top_k": 1}, {"layer_norm_epsilon": 1e-3}, {"rotary_emb_base": 400}], ids=str)
def test_a_wrong_mixture_is_noticed(tmp_path: Path, load_model: Any, wrong: dict[str, Any]) -> None:
    assert of_nomic_v2(tmp_path, load_model, **wrong) > 10 * WITHIN


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
    "gates and experts": ("NomicBert", {"num_experts": 8}, "`num_experts` .* is 8: supported is 0"),
    "shared experts": ("NomicBert", {"num_shared_experts": 1}, "`num_shared_experts` .* is 1: supported is 0"),
    "activation": ("NomicBert", {"activation_function": "mish"}, "`activation_function` .* is `mish`"),
    "too many experts": ("NomicBert", {"activation_function": "gelu"} | MIXED | {"moe_top_k": 5}, "`moe_top_k` 5"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_it_does_not_do_is_refused(save_network: Any, ours: Ours, what: str) -> None:
    family, keys, why = REFUSED[what]
    folder = rewritten(save_network(network(family)), **keys)

    with pytest.raises(LoadError, match=why):
        ours(folder)
