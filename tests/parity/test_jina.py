"""Small seeded BERTs of Jina's two forms beside numpy: no library has them, so that what they are compared with is our
own reading, text by text in float64, of what was published and of how others read the tensors.

What a step farther costs in each head is compared with transformers, which has it for BLOOM.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sie_core.catalog.spec import DenseHead, ModelSpec
from sie_core.ids import ModelId
from sie_server.models.backbones.jina import slopes
from sie_server.models.calls import Encode, LoadError
from sie_server.models.tokenizing import load_tokenizer
from sie_testing import tiny_bert

pytestmark = [pytest.mark.parity, pytest.mark.timeout(600)]

WITHIN = 1e-5
WIDTH, INNER, HEADS, LAYERS = 24, 40, 3, 2
WORDS = len(tiny_bert.VOCABULARY)
TEXTS = ("hello world", "", "a", "x" * 60, "Á b? 中 😀 שלום", *("ab " * n for n in range(1, 14, 3)))
SPEC = ModelSpec(id=ModelId("acme/jina"), dense=DenseHead(pooling="mean", normalize=True))
CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": WORDS,
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "max_position_embeddings": 64,
    "position_embedding_type": "alibi",
    "feed_forward_type": "geglu",
    "layer_norm_eps": 1e-3,
    "type_vocab_size": 2,
}
FORMS = ("first", "second")

Arrays = dict[str, NDArray[np.float32]]
Floats = NDArray[np.float64]


def drawn(form: str) -> Arrays:
    random = np.random.default_rng(3)
    arrays: Arrays = {}

    def matrix(name: str, *shape: int) -> None:
        arrays[name] = random.normal(0, 0.3, shape).astype(np.float32)

    def linear(name: str, outputs: int, inputs: int) -> None:
        matrix(name + ".weight", outputs, inputs)
        matrix(name + ".bias", outputs)

    def norm(name: str) -> None:
        matrix(name + ".bias", WIDTH)
        arrays[name + ".weight"] = (1 + random.normal(0, 0.3, WIDTH)).astype(np.float32)

    matrix("embeddings.word_embeddings.weight", WORDS, WIDTH)
    matrix("embeddings.token_type_embeddings.weight", 2, WIDTH)
    norm("embeddings.LayerNorm")
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}."
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            linear(f"{at}attention.{name}", WIDTH, WIDTH)
        norm(at + "attention.output.LayerNorm")
        if form == "first":
            matrix(at + "mlp.gated_layers.weight", 2 * INNER, WIDTH)
            linear(at + "mlp.wo", WIDTH, INNER)
            norm(at + "mlp.layernorm")
        else:
            for name in ("attention.self.layer_norm_q", "attention.self.layer_norm_k", "layer_norm_1", "layer_norm_2"):
                norm(at + name)
            matrix(at + "mlp.up_gated_layer.weight", 2 * INNER, WIDTH)
            linear(at + "mlp.down_layer", WIDTH, INNER)
    return arrays


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(tmp_path: Path, form: str) -> Path:
    return write(tmp_path / "saved", drawn(form))


def write(folder: Path, arrays: Arrays, **said: Any) -> Path:
    folder.mkdir(exist_ok=True)
    tiny_bert.write_safetensors(folder / "model.safetensors", arrays)
    (folder / "tokenizer.json").write_text(json.dumps(tiny_bert.TOKENIZER))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    (folder / "config.json").write_text(json.dumps(CONFIG | said))
    return folder


def vector(arrays: Arrays, ids: NDArray[np.int32], gate: Callable[[Floats], Floats]) -> Floats:
    """A text's mean, of length 1, as `JinaBertModel` gives it."""

    def linear(x: Floats, name: str) -> Floats:
        return x @ arrays[name + ".weight"].T.astype(np.float64) + arrays[name + ".bias"]

    def norm(x: Floats, name: str) -> Floats:
        even = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + CONFIG["layer_norm_eps"])
        return even * arrays[name + ".weight"] + arrays[name + ".bias"]

    words, types = (arrays[f"embeddings.{name}_embeddings.weight"] for name in ("word", "token_type"))
    hidden = norm(words[ids].astype(np.float64) + types[0], "embeddings.LayerNorm")
    size = WIDTH // HEADS
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}."
        query, key, value = (linear(hidden, f"{at}attention.self.{name}") for name in ("query", "key", "value"))
        if at + "layer_norm_1.weight" in arrays:
            query, key = norm(query, at + "attention.self.layer_norm_q"), norm(key, at + "attention.self.layer_norm_k")
        seen = np.zeros_like(hidden)
        # Of 3 heads: 2^-4 and 2^-8 as of two, and the first of four, 2^-2.
        for head, slope in enumerate((2**-4, 2**-8, 2**-2)):
            part = slice(head * size, (head + 1) * size)
            scores = query[:, part] @ key[:, part].T / math.sqrt(size)
            for one in range(len(ids)):
                for other in range(len(ids)):
                    scores[one, other] -= slope * abs(one - other)
            shares = np.exp(scores - scores.max(-1, keepdims=True))
            seen[:, part] = shares / shares.sum(-1, keepdims=True) @ value[:, part]
        attended = norm(linear(seen, at + "attention.output.dense") + hidden, at + "attention.output.LayerNorm")
        if at + "layer_norm_1.weight" in arrays:
            attended = norm(attended + hidden, at + "layer_norm_1")
            wide = attended @ arrays[at + "mlp.up_gated_layer.weight"].T.astype(np.float64)
            made = linear(wide[:, :INNER] * gate(wide[:, INNER:]), at + "mlp.down_layer")
            hidden = norm(made + attended, at + "layer_norm_2")
        else:
            wide = attended @ arrays[at + "mlp.gated_layers.weight"].T.astype(np.float64)
            made = linear(gate(wide[:, :INNER]) * wide[:, INNER:], at + "mlp.wo")
            hidden = norm(made + attended, at + "mlp.layernorm")
    mean = hidden.mean(0)
    found: Floats = mean / np.linalg.norm(mean)
    return found


def gelu(x: Floats) -> Floats:
    found: Floats = x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    return found


def relu(x: Floats) -> Floats:
    return np.maximum(x, 0)


def theirs(folder: Path, arrays: Arrays, gate: Callable[[Floats], Floats] = gelu) -> Floats:
    tokens = load_tokenizer(folder, max_tokens=64, lower_case=False)(TEXTS)
    return np.array([vector(arrays, one.ids, gate) for one in tokens])


def ours(load_model: Any, folder: Path) -> NDArray[np.float32]:
    model = load_model(SPEC, folder)
    return np.array([output.dense for output in model.run(model.prepare(Encode(TEXTS)), stream=0)])


def test_vectors_are_as_published(load_model: Any, folder: Path, form: str) -> None:
    assert np.abs(ours(load_model, folder) - theirs(folder, drawn(form))).max() <= WITHIN


def test_the_other_gate(load_model: Any, tmp_path: Path, form: str) -> None:
    folder = write(tmp_path / "saved", drawn(form), feed_forward_type="reglu")

    assert np.abs(ours(load_model, folder) - theirs(folder, drawn(form), relu)).max() <= WITHIN


@pytest.mark.parametrize("wrong", [{"layer_norm_eps": 0.1}, {"feed_forward_type": "reglu"}, {"num_attention_heads": 2}])
def test_a_wrong_setting_is_noticed(load_model: Any, tmp_path: Path, form: str, wrong: dict[str, Any]) -> None:
    folder = write(tmp_path / "saved", drawn(form), **wrong)

    assert np.abs(ours(load_model, folder) - theirs(folder, drawn(form))).max() > 100 * WITHIN


def test_a_layer_that_gates_nothing_is_refused(load_model: Any, tmp_path: Path) -> None:
    folder = write(tmp_path / "saved", drawn("first"), feed_forward_type="original")

    with pytest.raises(LoadError, match="`feed_forward_type` is `original`: supported are `geglu`, `reglu`"):
        load_model(SPEC, folder)


@pytest.mark.parametrize("heads", [1, 2, 3, 6, 8, 12, 16, 20])
def test_slopes_are_blooms(heads: int) -> None:
    torch = pytest.importorskip("torch")
    bloom = pytest.importorskip("transformers.models.bloom.modeling_bloom")
    found = bloom.build_alibi_tensor(torch.ones(1, 2, dtype=torch.long), heads, torch.float32)

    assert np.allclose(found[:, 0, 1].numpy(), slopes(heads), rtol=1e-6, atol=0)
