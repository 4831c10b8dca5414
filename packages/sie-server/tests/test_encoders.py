"""A spec and a folder become vectors: beside a network written out in plain numpy, and beside itself."""

import json
from concurrent.futures import ThreadPoolExecutor
from math import erf
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from sie_core.catalog.spec import DenseHead, ModelSpec
from sie_core.errors import ApiError
from sie_core.ids import ModelId
from sie_server.models import build
from sie_server.models.calls import Encode, LoadError
from sie_server.models.model import LoadedModel
from sie_server.models.ops.openvino import precision_for
from sie_testing import tiny_bert
from sie_testing.tiny_bert import HEADS, HIDDEN, LAYERS, Stored

SPEC = ModelSpec(id=ModelId("acme/tiny"), dense=DenseHead())
TEXTS = ("hello world", "", "a", "the quick brown fox", "x" * 60, "0 1 2 3 4 5 6 7 8 9", "中中", "A! b?")

Vectors = NDArray[np.floating[Any]]


def has_bf16() -> bool:
    try:
        return precision_for("bf16") == "bf16"
    except LoadError:
        return False


def load(folder: Path, spec: ModelSpec = SPEC, precision: Literal["f32", "bf16", "auto"] = "f32") -> LoadedModel:
    return build.load(spec, folder, precision=precision, streams=2, threads=1)


def encode(model: LoadedModel, texts: tuple[str, ...] = TEXTS, stream: int = 0, **call: Any) -> Vectors:
    outputs = model.run(model.prepare(Encode(texts, **call)), stream=stream)
    return np.stack([output.dense for output in outputs if output.dense is not None])


def plain_bert(ids: NDArray[np.int32], *, seed: int = 0, epsilon: float = 1e-12, first: int = 0) -> Vectors:
    """The last hidden state of one item in float64, written as the paper has it; nothing of ours is in it."""
    weights = {name: array.astype(np.float64) for name, array in tiny_bert.weights(seed)}

    def norm(x: Vectors, at: str) -> Vectors:
        spread = np.sqrt(x.var(axis=-1, keepdims=True) + epsilon)
        return (x - x.mean(axis=-1, keepdims=True)) / spread * weights[at + ".weight"] + weights[at + ".bias"]

    def linear(x: Vectors, at: str) -> Vectors:
        return x @ weights[at + ".weight"].T + weights[at + ".bias"]

    def heads(x: Vectors) -> Vectors:
        return x.reshape(len(ids), HEADS, HIDDEN // HEADS).transpose(1, 0, 2)

    tables = {name: weights[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")}
    x = tables["word"][ids] + tables["position"][first : first + len(ids)] + tables["token_type"][0]
    x = norm(x, "embeddings.LayerNorm")
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}."
        query, key, value = (heads(linear(x, f"{at}attention.self.{name}")) for name in ("query", "key", "value"))
        scores = np.exp(query @ key.transpose(0, 2, 1) / np.sqrt(HIDDEN // HEADS))
        mixed = (scores / scores.sum(axis=-1, keepdims=True)) @ value
        mixed = mixed.transpose(1, 0, 2).reshape(len(ids), HIDDEN)
        x = norm(x + linear(mixed, at + "attention.output.dense"), at + "attention.output.LayerNorm")
        wide = linear(x, at + "intermediate.dense")
        wide = wide * 0.5 * (1 + np.vectorize(erf)(wide / np.sqrt(2)))
        x = norm(x + linear(wide, at + "output.dense"), at + "output.LayerNorm")
    return x


def expected(model: LoadedModel, pooling: str = "mean", texts: tuple[str, ...] = TEXTS, **network: Any) -> Vectors:
    states = [plain_bert(item.ids, **network) for item in model.prepare(Encode(texts))]
    pooled = {"mean": lambda x: x.mean(axis=0), "cls": lambda x: x[0], "lasttoken": lambda x: x[-1]}[pooling]
    vectors = np.stack([pooled(state) for state in states])
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert.write(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def model(folder: Path) -> LoadedModel:
    model = load(folder)
    model.settle()
    return model


def difference(ours: Vectors, theirs: Vectors) -> float:
    return float(np.abs(ours - theirs).max())


def test_vectors_are_those_of_the_network_written_out(model: LoadedModel) -> None:
    assert difference(encode(model), expected(model)) < 1e-6
    assert encode(model).dtype == np.float32


@pytest.mark.parametrize("network", [{"epsilon": 1e-3}, {"first": 1}, {"seed": 1}])
def test_a_wrong_network_would_be_noticed(model: LoadedModel, network: dict[str, Any]) -> None:
    """The control of the test above: it can tell an epsilon, a position and a weight apart."""
    assert difference(encode(model), expected(model, **network)) > 1e-4


@pytest.mark.parametrize("pooling", ["cls", "mean", "lasttoken"])
def test_each_pooling_is_its_own(tmp_path: Path, pooling: Literal["cls", "mean", "lasttoken"]) -> None:
    model = load(tiny_bert.write(tmp_path, pooling=pooling, seed=1))

    assert difference(encode(model), expected(model, pooling, seed=1)) < 1e-6
    others = {"cls", "mean", "lasttoken"} - {pooling}
    assert all(difference(encode(model), expected(model, other, seed=1)) > 1e-2 for other in others)


@pytest.mark.parametrize(("dtype", "at_most"), [("F16", 2e-3), ("BF16", 2e-2)])
def test_checkpoints_of_half_width_are_read(tmp_path: Path, dtype: Stored, at_most: float) -> None:
    """The rest of the difference is what the file has lost: it is far below that of a wrong reading."""
    model = load(tiny_bert.write(tmp_path, dtype=dtype))

    assert difference(encode(model), expected(model)) < at_most


def test_a_checkpoint_under_a_task_s_name_is_read(tmp_path: Path, model: LoadedModel) -> None:
    prefixed = load(tiny_bert.write(tmp_path, prefix="bert."))

    assert np.array_equal(encode(prefixed), encode(model))


def test_an_item_s_vector_does_not_depend_on_its_batch(model: LoadedModel) -> None:
    together = encode(model)
    alone = np.concatenate([encode(model, (text,)) for text in TEXTS])
    backwards = encode(model, TEXTS[::-1])[::-1]

    assert difference(together, alone) < 1e-6
    assert difference(together, backwards) < 1e-6


def test_streams_do_not_disturb_each_other(model: LoadedModel) -> None:
    wanted = {text: encode(model, (text,)) for text in TEXTS}

    def repeatedly(stream: int) -> float:
        return max(difference(encode(model, (text,), stream), wanted[text]) for text in TEXTS * 20)

    with ThreadPoolExecutor(2) as threads:
        assert max(threads.map(repeatedly, (0, 1))) < 1e-6


def test_alone_or_beside_another_a_batch_gives_the_same_bits(model: LoadedModel) -> None:
    """Alone it has all the threads, on a copy of the graph of its own."""
    items = model.prepare(Encode(TEXTS))
    alone = encode(model)

    def beside(stream: int) -> bool:
        outputs = [model.run(items, stream=stream) for _ in range(30)]
        return all(np.array_equal(alone, np.array([output.dense for output in each])) for each in outputs)

    with ThreadPoolExecutor(2) as threads:
        assert all(threads.map(beside, (0, 1)))


def test_long_batches_on_both_streams_give_their_memory_back_in_peace(model: LoadedModel) -> None:
    """More than 2,048 tokens each: the engine refuses to give anything back while a batch runs."""
    items = model.prepare(Encode(("abcdefgh " * 4,) * 80))
    assert sum(item.tokens for item in items) > 2048
    (wanted,) = model.run(items[:1], stream=0)
    assert wanted.dense is not None

    def repeatedly(stream: int) -> float:
        found = [output.dense for _ in range(8) for output in model.run(items, stream=stream)]
        return float(np.abs(np.array(found) - wanted.dense).max())

    with ThreadPoolExecutor(2) as threads:
        assert max(threads.map(repeatedly, (0, 1))) < 1e-6


def test_a_vector_stays_when_the_stream_runs_again(model: LoadedModel) -> None:
    first = model.run(model.prepare(Encode(("hello",))), stream=0)[0].dense
    assert first is not None
    kept = first.copy()
    encode(model, ("other",))

    assert np.array_equal(first, kept)
    assert first.base is None


def test_vectors_are_scaled_unless_the_call_or_the_snapshot_says_otherwise(tmp_path: Path, model: LoadedModel) -> None:
    raw = encode(model, options={"normalize": False})
    bare = load(tiny_bert.write(tmp_path, normalize=False))

    assert np.allclose(np.linalg.norm(encode(model), axis=1), 1, atol=1e-6)
    assert np.linalg.norm(raw, axis=1).min() > 1.5
    assert np.array_equal(encode(bare), raw)
    assert np.array_equal(encode(bare, options={"normalize": True}), encode(model))


def test_scaled_and_raw_items_share_a_batch(model: LoadedModel) -> None:
    scaled = model.prepare(Encode(("hello",)))[0]
    raw = model.prepare(Encode(("hello",), options={"normalize": False}))[0]
    one, other = (output.dense for output in model.run([scaled, raw], stream=0))

    assert one is not None
    assert other is not None
    assert difference(one, other / np.linalg.norm(other)) < 1e-6


def test_what_a_model_says_of_itself(model: LoadedModel) -> None:
    assert (model.precision, model.max_tokens, dict(model.dims)) == ("f32", tiny_bert.MAX_TOKENS, {"dense": HIDDEN})
    assert model.memory_bytes == 2 * 4 * LAYERS * (4 * HIDDEN * HIDDEN + 2 * HIDDEN * tiny_bert.INNER)


def test_long_texts_are_cut_and_say_so(model: LoadedModel) -> None:
    items = model.prepare(Encode(("a" * 38, "a" * 39)))

    assert [(item.tokens, item.truncated) for item in items] == [(40, False), (40, True)]


def test_the_estimate_never_exceeds_what_an_item_can_cost(model: LoadedModel) -> None:
    assert model.estimate_tokens(Encode(("x" * 10_000, ""))) == tiny_bert.MAX_TOKENS + 2


def test_templates_of_the_spec_are_used(folder: Path, model: LoadedModel) -> None:
    spec = ModelSpec(id=SPEC.id, dense=DenseHead(), query="q {instruction} {text}", default_instruction="d")
    prompted = load(folder, spec)

    assert np.array_equal(encode(prompted, ("a",), is_query=True), encode(model, ("q d a",)))
    assert np.array_equal(encode(prompted, ("a",), is_query=True, instruction="i"), encode(model, ("q i a",)))
    assert np.array_equal(encode(prompted, ("a",)), encode(model, ("a",)))


def test_an_output_it_does_not_have_is_refused(model: LoadedModel) -> None:
    with pytest.raises(ApiError, match="model `acme/tiny` has no `sparse` output") as refused:
        model.prepare(Encode(("a",), outputs=("sparse",)))

    assert (refused.value.code, refused.value.hint) == ("OUTPUT_UNSUPPORTED", "it has `dense`")


@pytest.mark.parametrize("options", [{"nromalize": True}, {"normalize": "yes"}])
def test_options_it_does_not_know_are_refused(model: LoadedModel, options: dict[str, object]) -> None:
    with pytest.raises(ApiError, match="option `") as refused:
        model.prepare(Encode(("a",), options=options))

    assert refused.value.code == "INVALID_INPUT"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model_type": "gpt2"}, "`model_type` in `config.json` is `gpt2`: supported are `bart`"),
        ({"hidden_act": "gelu_pytorch"}, "hidden_act"),
        ({"position_embedding_type": "relative_key"}, "`position_embedding_type` is `relative_key`"),
        ({"is_decoder": True}, "`is_decoder` is true"),
        ({"num_attention_heads": 5}, "`hidden_size` is 32, which is not a multiple of `num_attention_heads`, 5"),
        ({"num_hidden_layers": 3}, "`encoder.layer.2.attention.self.query.weight` is not in `model.safetensors`"),
        ({"intermediate_size": 65}, r"is \[64, 32\], `config.json` makes it \[65, 32\]"),
        ({"layer_norm_eps": None}, "layer_norm_eps"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    tiny_bert.write(tmp_path, **changed)

    with pytest.raises(LoadError, match=said):
        load(tmp_path)


def test_a_config_that_is_not_json_is_named(tmp_path: Path) -> None:
    (tiny_bert.write(tmp_path) / "config.json").write_text("{")

    with pytest.raises(LoadError, match=r"`config.json` cannot be read"):
        load(tmp_path)


def test_a_broken_tokenizer_fails_the_load(tmp_path: Path) -> None:
    """It is read in a thread of its own, and its error must not stay there."""
    (tiny_bert.write(tmp_path) / "tokenizer.json").write_text(json.dumps({}))

    with pytest.raises(LoadError, match=r"tokenizer.json` cannot be read"):
        load(tmp_path)


@pytest.mark.skipif(has_bf16(), reason="this CPU has bf16")
def test_bf16_is_refused_where_it_would_silently_be_f32(folder: Path) -> None:
    with pytest.raises(LoadError, match=r"precision is `bf16` and this CPU .* has no bf16"):
        load(folder, precision="bf16")


@pytest.mark.skipif(not has_bf16(), reason="this CPU has no bf16")
def test_bf16_keeps_the_direction(folder: Path) -> None:
    model = load(folder, precision="bf16")

    assert model.precision == "bf16"
    assert np.sum(encode(model) * expected(model), axis=1).min() > 0.999


def test_a_precision_nobody_knows_is_refused() -> None:
    with pytest.raises(LoadError, match="precision is `int8`"):
        precision_for("int8")
