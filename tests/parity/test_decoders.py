"""Small seeded language models of every family, saved by transformers and read back by both."""

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
TEXTS = ("hello world", "", "a", "x" * 60, "Á b? 中 😀 שלום", *("ab " * n for n in range(1, 14, 3)))
SHAPE: dict[str, Any] = {
    "vocab_size": len(tiny_bert.VOCABULARY),
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
GEMMA: dict[str, Any] = {"head_dim": 16, "sliding_window": 8, "sliding_window_pattern": 3, "query_pre_attn_scalar": 12}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {"rope_type": "yarn", "rope_theta": 500.0, "factor": 2.0, "original_max_position_embeddings": 32}
LAYERS = ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]

Family = tuple[str, dict[str, Any]]
FAMILIES: dict[str, Family] = {
    "qwen2": ("Qwen2", {}),
    "qwen2 with a window": ("Qwen2", {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 2}),
    "qwen2, one head": ("Qwen2", {"num_attention_heads": 1, "num_key_value_heads": 1}),
    "qwen3": ("Qwen3", {"head_dim": 12}),
    "qwen3 with biases": ("Qwen3", {"head_dim": 8, "attention_bias": True}),
    "qwen3 with a window": (
        "Qwen3",
        {"head_dim": 8, "use_sliding_window": True, "sliding_window": 5, "layer_types": LAYERS},
    ),
    "qwen3, yarn": ("Qwen3", {"head_dim": 16, "rope_parameters": YARN}),
    "qwen3, yarn in full": (
        "Qwen3",
        {"head_dim": 16, "rope_parameters": YARN | {"beta_fast": 8.0, "beta_slow": 2.0, "truncate": False}},
    ),
    "llama": ("Llama", {}),
    "llama with biases": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "llama 3": ("Llama", {"head_dim": 16, "rope_parameters": LLAMA3}),
    "llama, linear": ("Llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 100.0, "factor": 3.0}}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "mistral with a window": ("Mistral", {"sliding_window": 7}),
    "gemma 3": ("Gemma3Text", GEMMA),
    "gemma 3, both ways": ("Gemma3Text", GEMMA | {"use_bidirectional_attention": True}),
    "gemma 3, both ways, odd window": (
        "Gemma3Text",
        GEMMA | {"use_bidirectional_attention": True, "sliding_window": 7},
    ),
}

Ours = Callable[..., np.ndarray]


def network(family: str, **shape: Any) -> Any:
    config = getattr(transformers, family + "Config")(**(SHAPE | shape))
    return getattr(transformers, family + "Model")(config)


@pytest.fixture
def ours(load_model: Any) -> Ours:
    def vectors(folder: Path, *, causal: bool | None = None) -> np.ndarray:
        model = load_model(ModelSpec(id=ModelId("acme/tiny"), dense=DenseHead(), causal=causal), folder)
        return np.array([output.dense for output in model.run(model.prepare(Encode(TEXTS)), stream=0)])

    return vectors


def theirs(folder: Path) -> np.ndarray:
    # Written out, so that what is causal is the mask's to say and not the kernel's.
    how = {"dtype": torch.float32, "attn_implementation": "eager"}
    model = references.SentenceTransformer(str(folder), device="cpu", model_kwargs=how)
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
    folder = save_network(network(family, **shape), seed=len(name), pooling="lasttoken", max_tokens=64)

    assert np.abs(ours(folder) - theirs(folder)).max() <= WITHIN


@pytest.mark.parametrize("pooling", ["cls", "mean", "weightedmean"])
def test_every_pooling(save_network: Any, ours: Ours, pooling: str) -> None:
    folder = save_network(network("Qwen3", head_dim=8), pooling=pooling)

    assert np.abs(ours(folder) - theirs(folder)).max() <= WITHIN


BOTH_WAYS = ("qwen2", "qwen2 with a window", "qwen3", "llama", "mistral", "mistral with a window")


@pytest.mark.parametrize("name", BOTH_WAYS)
def test_the_spec_lets_tokens_see_each_other(save_network: Any, ours: Ours, name: str) -> None:
    family, shape = FAMILIES[name]
    folder = save_network(network(family, **shape), max_tokens=64)

    wanted = theirs(rewritten(folder, is_causal=False))

    assert np.abs(ours(rewritten(folder, without=("is_causal",)), causal=False) - wanted).max() <= WITHIN


@pytest.mark.parametrize("name", BOTH_WAYS)
def test_the_configuration_lets_tokens_see_each_other(save_network: Any, ours: Ours, name: str) -> None:
    family, shape = FAMILIES[name]
    folder = rewritten(save_network(network(family, **shape), max_tokens=64), is_causal=False)

    assert np.abs(ours(folder) - theirs(folder)).max() <= WITHIN


def test_a_llama_that_was_made_to_look_both_ways_by_its_own_code(save_network: Any, ours: Ours) -> None:
    folder = save_network(network("Llama"), max_tokens=64)
    wanted = theirs(rewritten(folder, is_causal=False))

    renamed = rewritten(folder, without=("is_causal",), model_type="llama_bidirec", pooling="avg")

    assert np.abs(ours(renamed) - wanted).max() <= WITHIN


OLDER: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2": ("qwen2", {"rope_theta": 10000.0}),
    "llama 3": ("llama 3", {"rope_theta": 500.0, "rope_scaling": {**LLAMA3, "rope_theta": None}}),
    "llama, linear": ("llama, linear", {"rope_theta": 100.0, "rope_scaling": {"type": "linear", "factor": 3.0}}),
    "gemma 3": ("gemma 3", {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": None}),
}


@pytest.mark.parametrize("name", OLDER)
def test_the_older_form_of_a_configuration(save_network: Any, ours: Ours, name: str) -> None:
    """The published checkpoints have this one."""
    was, keys = OLDER[name]
    family, shape = FAMILIES[was]
    folder = save_network(network(family, **shape), max_tokens=64)
    wanted = theirs(folder)
    older = rewritten(folder, without=("rope_parameters", "layer_types"), sliding_window_pattern=3, **keys)

    assert np.abs(ours(older) - wanted).max() <= WITHIN


def test_one_alone_is_as_in_a_batch(save_network: Any, load_model: Any) -> None:
    family, shape = FAMILIES["gemma 3"]
    folder = save_network(network(family, **shape), pooling="lasttoken", max_tokens=64)
    model = load_model(ModelSpec(id=ModelId("acme/tiny"), dense=DenseHead()), folder)
    prepared = model.prepare(Encode(TEXTS))
    together = [output.dense for output in model.run(prepared[::-1], stream=0)][::-1]
    alone = [model.run([one], stream=0)[0].dense for one in prepared]

    assert np.abs(np.array(together) - np.array(alone)).max() <= WITHIN


def test_a_checkpoint_with_a_next_token(save_network: Any, ours: Ours, tmp_path: Path) -> None:
    """Its tensors' names begin with `model.`."""
    safetensors = pytest.importorskip("safetensors.numpy")
    folder = save_network(network("Qwen2"), max_tokens=64)
    wanted = theirs(folder)
    weights = safetensors.load_file(folder / "model.safetensors")
    safetensors.save_file({f"model.{name}": array for name, array in weights.items()}, folder / "model.safetensors")

    assert np.abs(ours(folder) - wanted).max() <= WITHIN


def gemma_rotary(**change: Any) -> dict[str, Any]:
    kinds = {
        "full_attention": {"rope_type": "default", "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    return {"rope_parameters": {kind: value | change.get(kind, {}) for kind, value in kinds.items()}}


WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "epsilon": ("qwen3", {"rms_norm_eps": 1e-3}),
    "theta": ("qwen3", {"rope_parameters": {"rope_type": "default", "rope_theta": 9000.0}}),
    "positions": ("qwen3", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 1.02}}),
    "window, one too far": ("mistral with a window", {"sliding_window": 8}),
    "window, one too near": ("mistral with a window", {"sliding_window": 6}),
    "first layer with a window": ("qwen2 with a window", {"max_window_layers": 1, "layer_types": None}),
    "causal": ("qwen2", {"is_causal": False}),
    "yarn's attention": ("qwen3, yarn", {"rope_parameters": YARN | {"attention_factor": 1.0}}),
    "gemma's window, one too far": ("gemma 3, both ways", {"sliding_window": 10}),
    "gemma's window, one too near": ("gemma 3, both ways", {"sliding_window": 6}),
    "gemma's causal window": ("gemma 3", {"sliding_window": 9}),
    "gemma's far theta": ("gemma 3", gemma_rotary(full_attention={"rope_theta": 5e5})),
    "gemma's near theta": ("gemma 3", gemma_rotary(sliding_attention={"rope_theta": 2e4})),
    "gemma's scale": ("gemma 3", {"query_pre_attn_scalar": 13}),
    "gemma's epsilon": ("gemma 3", {"rms_norm_eps": 1e-2}),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_noticed(save_network: Any, ours: Ours, what: str) -> None:
    name, keys = WRONG[what]
    family, shape = FAMILIES[name]
    folder = save_network(network(family, **shape), max_tokens=64)
    wanted = theirs(folder)

    assert np.abs(ours(rewritten(folder, **keys)) - wanted).max() > 10 * WITHIN


def test_a_wrong_pooling_is_noticed(save_network: Any, ours: Ours) -> None:
    folder = save_network(network("Qwen2"), pooling="lasttoken")
    wanted = theirs(folder)
    pooling = folder / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps(json.loads(pooling.read_text()) | {"pooling_mode": "mean"}))

    assert np.abs(ours(folder) - wanted).max() > 100 * WITHIN


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "kind of positions": ("qwen2", {"rope_parameters": {"rope_type": "longrope"}}, "`rope_type` .* is `longrope`"),
    "unknown key of positions": ("qwen2", {"rope_parameters": {"mrope_section": [1]}}, "`mrope_section`"),
    "half a scaling": ("llama", {"rope_scaling": {"rope_type": "linear"}}, "is `linear` and has no `factor`"),
    "part of a head": ("qwen2", {"partial_rotary_factor": 0.5}, "`partial_rotary_factor` .* is 0.5"),
    "kind of layer": ("qwen2", {"layer_types": ["chunked_attention"] * 4}, "names `chunked_attention`"),
    "window unsaid": ("qwen2", {"layer_types": ["sliding_attention"] * 4}, "`use_sliding_window` is false"),
    "groups": ("llama", {"num_key_value_heads": 3}, "is 4, which is not a multiple of `num_key_value_heads`, 3"),
    "activation": ("llama", {"hidden_act": "mish"}, "`hidden_act` is `mish`"),
    "capped attention": ("gemma 3", {"attn_logit_softcapping": 50.0}, "`attn_logit_softcapping` .* is 50"),
    "layers": ("gemma 3", {"num_hidden_layers": 5}, "names 4 layers, `num_hidden_layers` is 5"),
    "size of a head": ("qwen3", {"head_dim": 16}, "q_proj"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_it_does_not_do_is_refused(save_network: Any, ours: Ours, what: str) -> None:
    name, keys, why = REFUSED[what]
    family, shape = FAMILIES[name]
    folder = rewritten(save_network(network(family, **shape)), **keys)

    with pytest.raises(LoadError, match=why):
        ours(folder)
