"""SPLADE beside sentence-transformers' SparseEncoder, on tiny language models with their own or a shared decoder.

And queries that are weighed without one, as sentence-transformers and OpenSearch save their weights.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sie_core.catalog.spec import ModelSpec, SparseHead
from sie_core.ids import ModelId
from sie_server.models import build
from sie_server.models.calls import Encode, LoadError
from sie_server.models.model import LoadedModel
from sie_testing import tiny_bert

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
references = pytest.importorskip("sentence_transformers")
pytestmark = [pytest.mark.parity, pytest.mark.timeout(600)]

WITHIN = 1e-4
TEXTS = ["hello world", "", "a", "Á b? 中 😀 مرحبا", "x" * 60, "ab " * 30]
WORDS = len(tiny_bert.VOCABULARY)
SIZES = {"vocab_size": WORDS, "pad_token_id": 0}
WIDE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 48,
}
NETWORKS = {
    "bert": lambda: transformers.BertForMaskedLM(transformers.BertConfig(**SIZES, **WIDE)),
    "bert, a decoder of its own": lambda: transformers.BertForMaskedLM(
        transformers.BertConfig(**SIZES, **WIDE, tie_word_embeddings=False)
    ),
    "distilbert": lambda: transformers.DistilBertForMaskedLM(
        transformers.DistilBertConfig(**SIZES, dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=48)
    ),
    "roberta": lambda: transformers.RobertaForMaskedLM(
        transformers.RobertaConfig(**SIZES, **WIDE | {"max_position_embeddings": 50}, type_vocab_size=1)
    ),
    "mpnet": lambda: transformers.MPNetForMaskedLM(
        transformers.MPNetConfig(**SIZES, **WIDE | {"max_position_embeddings": 50})
    ),
    "gte": lambda: transformers.GteForMaskedLM(transformers.GteConfig(**SIZES, **WIDE, type_vocab_size=0)),
    "gte, a decoder of its own": lambda: transformers.GteForMaskedLM(
        transformers.GteConfig(**SIZES, **WIDE, type_vocab_size=0, tie_word_embeddings=False)
    ),
    "modernbert": lambda: transformers.ModernBertForMaskedLM(
        transformers.ModernBertConfig(**SIZES, **WIDE, bos_token_id=2, cls_token_id=2, eos_token_id=3, sep_token_id=3)
    ),
}


def save(folder: Path, network: Any, activation: str = "relu", pooling: str = "max") -> Path:
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            drawn = 0.3 * torch.randn_like(weight)
            weight.copy_(drawn if weight.ndim > 1 else weight + drawn)
    plain = folder / "plain"
    network.save_pretrained(plain)
    (plain / "tokenizer.json").write_text(json.dumps(tiny_bert.TOKENIZER))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "mask_token": "[MASK]"}
    (plain / "tokenizer_config.json").write_text(json.dumps(settings))
    modules = references.sparse_encoder.modules
    transformer = references.sentence_transformer.modules.Transformer(
        str(plain), max_seq_length=40, transformer_task="fill-mask"
    )
    parts = [transformer, modules.SpladePooling(pooling, activation_function=activation)]
    references.SparseEncoder(modules=parts, device="cpu").save(str(folder / "saved"))
    return folder / "saved"


def theirs(folder: Path) -> np.ndarray:
    return references.SparseEncoder(str(folder), device="cpu").encode(TEXTS, convert_to_sparse_tensor=False).numpy()


def ours(model: LoadedModel, *, is_query: bool = False) -> np.ndarray:
    rows = np.zeros((len(TEXTS), WORDS), np.float32)
    prepared = model.prepare(Encode(tuple(TEXTS), ("sparse",), is_query=is_query))
    for row, output in zip(rows, model.run(prepared, stream=0), strict=True):
        assert output.sparse is not None
        assert np.all(np.diff(output.sparse.indices) > 0)
        assert np.all(output.sparse.values > 0)
        row[output.sparse.indices] = output.sparse.values
    return rows


def spec(**head: Any) -> ModelSpec:
    return ModelSpec(id=ModelId("acme/sparse"), sparse=SparseHead(head="splade", **head))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_language_model_head(load_model: Any, tmp_path: Path, name: str) -> None:
    folder = save(tmp_path, NETWORKS[name]())
    wanted = theirs(folder)

    assert (wanted > 0).sum() > 50
    assert np.abs(ours(load_model(spec(), folder)) - wanted).max() <= WITHIN


def test_a_gte_as_it_was_first_published_has_other_names(load_model: Any, tmp_path: Path) -> None:
    folder = save(tmp_path, NETWORKS["gte"]())
    wanted = theirs(folder)
    safetensors = pytest.importorskip("safetensors.numpy")
    arrays = safetensors.load_file(folder / "model.safetensors")
    renamed = {re.sub(r"^gte\.", "new.", name): array for name, array in arrays.items()}
    safetensors.save_file(renamed, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "new"}))

    assert np.abs(ours(load_model(spec(), folder)) - wanted).max() <= WITHIN


def test_the_logarithm_twice_and_that_once_is_noticed(load_model: Any, tmp_path: Path) -> None:
    folder = save(tmp_path, NETWORKS["bert"](), "log1p_relu")
    wanted = theirs(folder)

    assert np.abs(ours(load_model(spec(), folder)) - wanted).max() <= WITHIN
    assert np.abs(ours(load_model(spec(activation="log1p"), folder)) - wanted).max() > 100 * WITHIN


@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
def test_a_sum_over_the_tokens_and_that_the_largest_is_noticed(
    load_model: Any, tmp_path: Path, activation: str
) -> None:
    folder = save(tmp_path, NETWORKS["bert"](), activation, "sum")
    wanted = theirs(folder)

    assert np.abs(ours(load_model(spec(), folder)) - wanted).max() <= WITHIN
    assert np.abs(ours(load_model(spec(pooling="max"), folder)) - wanted).max() > 100 * WITHIN
    other = "log1p" if activation == "log1p_relu" else "log1p_log1p"
    assert np.abs(ours(load_model(spec(activation=other), folder)) - wanted).max() > 100 * WITHIN


def drawn_weights() -> Any:
    """Of each token but some: a query may hold what weighs nothing."""
    weights = torch.rand(WORDS, generator=torch.Generator().manual_seed(0)) + 0.1
    weights[5::7] = 0
    return weights


def save_routed(folder: Path) -> Path:
    """As OpenSearch's doc-v3: documents by a network, queries by their weights."""
    documents = save(folder, NETWORKS["distilbert"](), "log1p_relu")
    transformer, pooling = references.SparseEncoder(str(documents), device="cpu").children()
    modules = references.sparse_encoder.modules
    static = modules.SparseStaticEmbedding(transformer.tokenizer, drawn_weights(), frozen=True)
    router = modules.Router.for_query_document(query_modules=[static], document_modules=[transformer, pooling])
    references.SparseEncoder(modules=[router], device="cpu").save(str(folder / "routed"))
    return folder / "routed"


def test_queries_by_a_vector_of_weights_and_documents_by_the_network(load_model: Any, tmp_path: Path) -> None:
    folder = save_routed(tmp_path)
    reference = references.SparseEncoder(str(folder), device="cpu")
    queries = reference.encode_query(TEXTS, convert_to_sparse_tensor=False).numpy()
    documents = reference.encode_document(TEXTS, convert_to_sparse_tensor=False).numpy()
    model = load_model(spec(), folder)

    assert (queries > 0).sum() > 10
    assert np.array_equal(ours(model, is_query=True), queries)
    assert np.abs(ours(model) - documents).max() <= WITHIN
    assert np.abs(ours(load_model(spec(query="same"), folder), is_query=True) - queries).max() > 100 * WITHIN


@pytest.mark.parametrize("name", ["idf.json", "query_token_weights.txt"])
def test_queries_by_a_list_of_tokens(load_model: Any, tmp_path: Path, name: str) -> None:
    routed, plain = save_routed(tmp_path), tmp_path / "saved"
    queries = references.SparseEncoder(str(routed), device="cpu").encode_query(TEXTS, convert_to_sparse_tensor=False)
    listed = dict(zip(tiny_bert.VOCABULARY, drawn_weights().tolist(), strict=True)) | {"of another": 3.0}
    lines = "".join(f"{token}\t{weight}\n" for token, weight in listed.items())
    (plain / name).write_text(json.dumps(listed) if name.endswith("json") else lines)

    assert np.array_equal(ours(load_model(spec(query="idf"), plain), is_query=True), queries.numpy())


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('{"of another": 1.0}', "none of the 1 tokens"),
        ('{"a": "1.0"}', "no list of tokens and their weights"),
        ('{"a": 1e99}', "the weight 1e\\+99"),
    ],
)
def test_a_list_that_is_of_another_vocabulary_or_none_is_refused(tmp_path: Path, written: str, said: str) -> None:
    folder = save(tmp_path, NETWORKS["bert"]())
    (folder / "idf.json").write_text(written)

    with pytest.raises(LoadError, match=said):
        build.load(spec(query="idf"), folder, precision="f32", streams=1, threads=1)
