"""Sparse vectors and multivectors, completed from the files that OpenSearch, pylate, ColBERT and others publish."""

import json
import string
from typing import Any

import pytest

from sie_core.artifacts.selection import selected
from sie_core.catalog.derive import Derived, derive
from sie_core.catalog.spec import ModelSpec, MultivectorHead, SparseHead
from sie_core.ids import ModelId

CONFIG = {"model_type": "bert", "hidden_size": 384, "max_position_embeddings": 512, "vocab_size": 30522}
PARTS = "sentence_transformers.sparse_encoder.models."
TRANSFORMER = {"type": "sentence_transformers.models.Transformer", "path": ""}
OPENSEARCH: dict[str, Any] = {
    "config.json": CONFIG,
    "modules.json": [{"type": "sentence_transformers.models.Router", "path": ""}],
    "router_config.json": {
        "types": {
            "query_0_SparseStaticEmbedding": PARTS + "SparseStaticEmbedding.SparseStaticEmbedding",
            "": PARTS + "MLMTransformer.MLMTransformer",
            "document_1_SpladePooling": PARTS + "SpladePooling.SpladePooling",
        },
        "structure": {"query": ["query_0_SparseStaticEmbedding"], "document": ["", "document_1_SpladePooling"]},
        "parameters": {"default_route": "document"},
    },
    "query_0_SparseStaticEmbedding/config.json": {"frozen": True},
    "document_1_SpladePooling/config.json": {"pooling_strategy": "max", "activation_function": "log1p_relu"},
}
COLBERT: dict[str, Any] = {
    "config.json": CONFIG,
    "modules.json": [TRANSFORMER, {"type": "pylate.models.Dense.Dense", "path": "1_Dense"}],
    "1_Dense/config.json": {
        "in_features": 384,
        "out_features": 128,
        "bias": False,
        "activation_function": "torch.nn.modules.linear.Identity",
    },
    "config_sentence_transformers.json": {
        "model_type": "ColBERT",
        "query_prefix": "[Q] ",
        "document_prefix": "[D] ",
        "query_length": 48,
        "document_length": 300,
        "do_query_expansion": False,
        "skiplist_words": ["!"],
    },
}
STANFORD: dict[str, Any] = {"config.json": CONFIG | {"architectures": ["HF_ColBERT"]}}


def of(files: dict[str, Any], **heads: Any) -> Derived:
    raw = {
        path: content if isinstance(content, bytes) else json.dumps(content).encode() for path, content in files.items()
    }
    return derive(ModelSpec(id=ModelId("acme/vectors"), **heads), raw.get)


def sparse(files: dict[str, Any], **said: Any) -> SparseHead:
    found = of(files, sparse=SparseHead(head="splade", **said)).sparse
    assert found is not None
    return found


def multivector(files: dict[str, Any], **said: Any) -> MultivectorHead:
    found = of(files, multivector=MultivectorHead(**said)).multivector
    assert found is not None
    return found


def test_a_routed_snapshot_says_how_queries_are_weighed() -> None:
    assert sparse(OPENSEARCH) == SparseHead(
        "splade", "log1p_log1p", "max", "idf", weights="query_0_SparseStaticEmbedding", dim=30522
    )
    origins = of(OPENSEARCH, sparse=SparseHead(head="splade")).origins
    assert origins["sparse.weights"] == "query_0_SparseStaticEmbedding/config.json"
    assert origins["sparse.activation"] == "document_1_SpladePooling/config.json"


def test_a_bare_language_model_is_splade_and_queries_go_as_documents_do() -> None:
    assert sparse({"config.json": CONFIG}) == SparseHead("splade", "log1p", "max", "same", dim=30522)


@pytest.mark.parametrize("name", ["idf.json", "query_token_weights.txt"])
def test_a_list_at_the_root_weighs_queries_where_the_spec_wants_it(name: str) -> None:
    files = {"config.json": CONFIG, name: b"{}"}

    assert sparse(files, query="idf").weights == name
    assert sparse(files).query == "same"
    assert sparse(files, query="idf", weights="mine.json").weights == "mine.json"
    with pytest.raises(ValueError, match=r"no `idf\.json` or `query_token_weights\.txt`: name the file"):
        sparse({"config.json": CONFIG}, query="idf")


def test_a_spec_of_another_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`sparse\.dim` is 250002, `vocab_size` in `config\.json` is 30522"):
        sparse(OPENSEARCH, dim=250002)


def test_lexical_weights_lie_in_a_file_of_their_own() -> None:
    found = of({"config.json": CONFIG}, sparse=SparseHead(head="lexical")).sparse

    assert found == SparseHead("lexical", weights="sparse_linear.pt", dim=30522)


def test_pylate_says_markers_lengths_filling_and_words_to_skip() -> None:
    found = of(COLBERT, multivector=MultivectorHead())

    assert found.multivector == MultivectorHead(
        dim=128,
        query_marker="[Q] ",
        document_marker="[D] ",
        query_tokens=48,
        document_tokens=300,
        expand=False,
        attend_expansion=False,
        skip_punctuation=True,
    )
    assert found.skipped == ("!",)
    assert [(layer.source, layer.bias) for layer in found.multivector_layers] == [("1_Dense", False)]


def test_colbert_itself_has_markers_of_its_own() -> None:
    plain = multivector(STANFORD)
    metadata = {"query_token_id": "[Q]", "query_maxlen": 24, "mask_punctuation": False, "dim": 96}
    told = multivector(STANFORD | {"artifact.metadata": metadata})

    assert (plain.query_marker, plain.document_marker) == ("[unused0]", "[unused1]")
    assert (plain.query_tokens, plain.document_tokens, plain.expand, plain.dim) == (32, 512, True, 128)
    assert plain.skip_punctuation is True
    assert (told.query_marker, told.query_tokens, told.skip_punctuation, told.dim) == ("[Q]", 24, False, 96)
    assert of(STANFORD, multivector=MultivectorHead()).skipped == tuple(string.punctuation)


def test_a_spec_comes_before_the_snapshot_and_must_not_contradict_it() -> None:
    assert multivector(COLBERT, expand=True, query_tokens=8).expand is True
    assert multivector(COLBERT, expand=True, query_tokens=8).query_tokens == 8
    with pytest.raises(ValueError, match=r"`multivector\.dim` is 64, `1_Dense/config\.json` makes vectors of 128"):
        multivector(COLBERT, dim=64)
    with pytest.raises(ValueError, match=r"`multivector\.query_tokens` is 513, `max_tokens` is 512"):
        multivector(COLBERT, query_tokens=513)
    with pytest.raises(ValueError, match="has no projection of its tokens' vectors"):
        multivector({"config.json": CONFIG})


@pytest.mark.parametrize(
    ("path", "content", "said"),
    [
        ("2_Mask/config.json", {"keep_only_token_ids": [5]}, r"`keep_only_token_ids` in `2_Mask/config\.json` is"),
        (
            "2_Mask/config.json",
            {"skiplist_words": ["!"], "skiplist_tasks": ["query"]},
            r"`skiplist_tasks` in `2_Mask/config\.json` is \['query'\]",
        ),
        (
            "sentence_bert_config.json",
            {"query_expansion": {"strategy": "repeat", "length": 8}},
            "`query_expansion` in `sentence_bert_config.json` is `repeat`",
        ),
    ],
)
def test_a_rule_of_sentence_transformers_that_is_not_served_is_refused(path: str, content: Any, said: str) -> None:
    mask = {"type": "sentence_transformers.multi_vector_encoder.modules.MultiVectorMask", "path": "2_Mask"}
    modules = {"modules.json": [*COLBERT["modules.json"], mask]}

    with pytest.raises(ValueError, match=said):
        multivector(COLBERT | modules | {path: content})


def test_what_these_models_need_is_carried() -> None:
    every = (*OPENSEARCH, "idf.json", "query_token_weights.txt", "artifact.metadata", "1_Dense/config.json")
    every = (
        *every,
        "1_Dense/model.safetensors",
        "query_0_SparseStaticEmbedding/model.safetensors",
        "model.safetensors",
    )

    assert selected(every) == tuple(sorted(every))
