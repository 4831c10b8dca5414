"""Small seeded RoBERTas, XLM-RoBERTas, CamemBERTs, DistilBERTs and ELECTRAs, saved by transformers and read by both."""

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
safetensors = pytest.importorskip("safetensors.numpy")
pytestmark = [pytest.mark.parity, pytest.mark.timeout(600)]

WITHIN = 1e-5
TEXTS = ("hello world", "", "a", "x" * 60, "Á b? 中 😀 שלום", "😀", *("ab " * n for n in range(1, 14, 3)))
SPEC = ModelSpec(id=ModelId("acme/tiny"), dense=DenseHead())

SHAPE: dict[str, Any] = {
    "vocab_size": len(tiny_bert.VOCABULARY),
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 48,
    "pad_token_id": 0,
}
FAMILY: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", {}),
    "bert, tanh gelu": ("Bert", {"hidden_act": "gelu_new"}),
    "roberta": ("Roberta", {"pad_token_id": 1, "type_vocab_size": 1}),
    "roberta, padding is 0": ("Roberta", {}),
    "roberta, two types": ("Roberta", {"pad_token_id": 1, "type_vocab_size": 2}),
    "xlm-roberta": ("XLMRoberta", {"pad_token_id": 1, "type_vocab_size": 1, "layer_norm_eps": 1e-5}),
    "camembert": ("Camembert", {"pad_token_id": 1, "type_vocab_size": 1, "layer_norm_eps": 1e-5}),
    "distilbert": ("DistilBert", {"hidden_dim": 48}),
    "distilbert, relu": ("DistilBert", {"hidden_dim": 48, "activation": "relu"}),
    "electra": ("Electra", {"embedding_size": 16}),
    "electra, equal widths": ("Electra", {"embedding_size": 32}),
}

Vectors = Callable[[Path], np.ndarray]


def network(kind: str, **shape: Any) -> Any:
    name, own = FAMILY[kind]
    config = getattr(transformers, f"{name}Config")(**(SHAPE | own | shape))
    return getattr(transformers, f"{name}Model")(config)


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


def rolled(folder: Path, name: str) -> Path:
    """The rows of a table one place further up, after they have read it."""
    weights = safetensors.load_file(folder / "model.safetensors")
    whole = next(key for key in weights if key.endswith(name))
    safetensors.save_file(weights | {whole: np.roll(weights[whole], -1, axis=0)}, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("kind", FAMILY)
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_every_kind_and_pooling(save_network: Any, ours: Vectors, kind: str, pooling: str) -> None:
    folder = save_network(network(kind), seed=len(kind), pooling=pooling)

    assert np.abs(ours(folder) - theirs(folder)).max() <= WITHIN


@pytest.mark.parametrize("kind", FAMILY)
def test_one_alone_is_as_in_a_batch(save_network: Any, load_model: Any, kind: str) -> None:
    model = load_model(SPEC, save_network(network(kind)))
    prepared = model.prepare(Encode(TEXTS))
    together = [output.dense for output in model.run(prepared[::-1], stream=0)][::-1]
    alone = [model.run([one], stream=0)[0].dense for one in prepared]

    assert np.abs(np.array(together) - np.array(alone)).max() <= 2e-6


@pytest.mark.parametrize("kind", FAMILY)
def test_positions_off_by_one_are_noticed(save_network: Any, ours: Vectors, kind: str) -> None:
    folder = save_network(network(kind))
    wanted = theirs(folder)

    assert np.abs(ours(rolled(folder, "position_embeddings.weight")) - wanted).max() > 100 * WITHIN


@pytest.mark.parametrize("kind", [kind for kind in FAMILY if "distilbert" not in kind])
def test_a_wrong_epsilon_is_noticed(save_network: Any, ours: Vectors, kind: str) -> None:
    """DistilBERT's is not for its configuration to say."""
    folder = save_network(network(kind))
    wanted = theirs(folder)

    assert np.abs(ours(rewritten(folder, layer_norm_eps=1e-3)) - wanted).max() > 10 * WITHIN


@pytest.mark.parametrize("kind", FAMILY)
def test_a_wrong_activation_is_noticed(save_network: Any, ours: Vectors, kind: str) -> None:
    folder = save_network(network(kind))
    wanted = theirs(folder)
    name = "activation" if "distilbert" in kind else "hidden_act"
    other = "gelu" if FAMILY[kind][1].get(name, "gelu") != "gelu" else "gelu_new"

    assert np.abs(ours(rewritten(folder, **{name: other})) - wanted).max() > 5 * WITHIN


def test_a_wrong_padding_is_noticed(save_network: Any, ours: Vectors) -> None:
    """Positions are counted from it."""
    folder = save_network(network("roberta"))
    wanted = theirs(folder)

    assert np.abs(ours(rewritten(folder, pad_token_id=2)) - wanted).max() > 100 * WITHIN


@pytest.mark.parametrize(("kind", "longest"), [("roberta", 46), ("roberta, padding is 0", 47), ("distilbert", 48)])
def test_the_longest_has_a_position_for_every_token(
    save_network: Any, load_model: Any, kind: str, longest: int
) -> None:
    """Of those that begin after the padding's, the first are nobody's."""
    folder = save_network(network(kind), max_tokens=longest)
    # What is counted as padding has no position of its own.
    texts = ["x" * 100]
    model = load_model(ModelSpec(id=ModelId("acme/tiny"), dense=DenseHead(), max_tokens=longest), folder)
    vectors = [output.dense for output in model.run(model.prepare(Encode(tuple(texts))), stream=0)]
    wanted = references.SentenceTransformer(str(folder), device="cpu").encode(texts)

    assert model.prepare(Encode(tuple(texts)))[0].tokens == longest
    assert np.abs(np.array(vectors) - wanted).max() <= WITHIN
    with pytest.raises(LoadError, match=f"`max_tokens` is {longest + 1}, `max_position_embeddings`"):
        load_model(ModelSpec(id=ModelId("acme/tiny"), dense=DenseHead(), max_tokens=longest + 1), folder)


def test_keys_that_are_missing_are_those_of_transformers(save_network: Any, ours: Vectors) -> None:
    folder = save_network(network("roberta"))
    wanted = theirs(folder)
    read = json.loads((folder / "config.json").read_text())
    for key in ("hidden_act", "layer_norm_eps", "pad_token_id"):
        read.pop(key, None)
    (folder / "config.json").write_text(json.dumps(read))

    assert np.abs(ours(folder) - wanted).max() <= WITHIN


def test_what_norms_were_called_at_first(save_network: Any, ours: Vectors) -> None:
    folder = save_network(network("bert"))
    wanted = theirs(folder)
    weights = safetensors.load_file(folder / "model.safetensors")
    older = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): weight
        for name, weight in weights.items()
    }
    safetensors.save_file(older, folder / "model.safetensors")

    assert np.abs(ours(folder) - wanted).max() <= WITHIN


@pytest.mark.parametrize(
    ("kind", "keys", "why"),
    [
        ("bert", {"position_embedding_type": "relative_key"}, "`relative_key`: supported is `absolute`"),
        ("roberta", {"is_decoder": True}, "`is_decoder` is true"),
        ("electra", {"hidden_act": "mish"}, "`hidden_act` is `mish`"),
        ("distilbert", {"n_heads": 5}, "`dim` is 32, which is not a multiple of `n_heads`, 5"),
        ("electra", {"embedding_size": 8}, "word_embeddings.weight"),
    ],
)
def test_what_is_not_done_is_refused(
    save_network: Any, ours: Vectors, kind: str, keys: dict[str, Any], why: str
) -> None:
    folder = save_network(network(kind))

    with pytest.raises(LoadError, match=why):
        ours(rewritten(folder, **keys))
