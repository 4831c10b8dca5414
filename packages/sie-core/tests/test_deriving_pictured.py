"""Models of texts and pictures, and tables of static embeddings: what their own files say."""

import json
from typing import Any

import pytest

from sie_core.catalog.derive import Derived, derive
from sie_core.catalog.spec import DenseHead, ModelSpec, SparseHead
from sie_core.ids import ModelId


def derived(files: dict[str, Any], **spec: Any) -> Derived:
    bytes_of = {path: json.dumps(content).encode() for path, content in files.items()}
    keys: dict[str, Any] = {"id": ModelId("acme/one"), "dense": DenseHead()} | spec
    return derive(ModelSpec(**keys), bytes_of.get)


@pytest.mark.parametrize(
    ("config", "dim", "tokens"),
    [
        ({"model_type": "clip", "projection_dim": 768, "text_config": {"hidden_size": 640}}, 768, 77),
        ({"model_type": "clip"}, 512, 77),
        ({"model_type": "clip", "text_config_dict": {"max_position_embeddings": 32}}, 512, 32),
        ({"model_type": "siglip", "text_config": {"hidden_size": 1152, "max_position_embeddings": 16}}, 1152, 16),
        ({"model_type": "siglip", "text_config": {"hidden_size": 1152, "projection_size": 96}}, 96, 64),
        ({"model_type": "siglip", "text_config": {}}, 768, 64),
    ],
)
def test_a_model_of_pictures_has_its_vectors_size_and_its_texts_positions(
    config: dict[str, Any], dim: int, tokens: int
) -> None:
    found = derived({"config.json": config})

    assert found.dense is not None
    assert (found.architecture, found.dense.dim, found.max_tokens) == (config["model_type"], dim, tokens)
    assert found.dense.pooling is None, "it pools by itself"


def test_a_tokenizer_that_takes_less_is_listened_to() -> None:
    files = {"config.json": {"model_type": "clip"}, "tokenizer_config.json": {"model_max_length": 50}}

    assert derived(files).max_tokens == 50


def test_a_size_that_the_spec_has_otherwise_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`dense.dim` is 768, `hidden_size` in `config.json` is 512"):
        derived({"config.json": {"model_type": "clip"}}, dense=DenseHead(dim=768))


STATIC = {"type": "sentence_transformers.models.StaticEmbedding", "path": "."}
NORMALIZE = {"type": "sentence_transformers.models.Normalize", "path": "1_Normalize"}
MODEL2VEC = {"model_type": "model2vec", "normalize": True}


def test_a_table_of_model2vec() -> None:
    found = derived({"config.json": MODEL2VEC, "modules.json": [STATIC, NORMALIZE]})

    assert (found.architecture, found.folder, found.max_tokens) == ("static", "", 512)
    assert found.dense == DenseHead(normalize=True)
    assert found.origins["dense.normalize"] == "config.json"


@pytest.mark.parametrize(("said", "tokens"), [(100, 100), (None, 1_000_000)])
def test_how_long_a_text_may_be_is_model2vecs_to_say(said: int | None, tokens: int) -> None:
    assert derived({"config.json": MODEL2VEC | {"max_length": said}}).max_tokens == tokens


@pytest.mark.parametrize(("truncation", "tokens"), [({"max_length": 300}, 300), (None, 1_000_000)])
def test_a_table_of_sentence_transformers_is_cut_by_its_tokenizer(truncation: Any, tokens: int) -> None:
    module = STATIC | {"path": "0_StaticEmbedding"}
    files = {"modules.json": [module], "0_StaticEmbedding/tokenizer.json": {"truncation": truncation}}
    found = derived(files)

    assert (found.folder, found.max_tokens) == ("0_StaticEmbedding", tokens)
    assert found.dense == DenseHead(normalize=False)


def test_what_the_spec_says_of_a_table_comes_first() -> None:
    found = derived({"config.json": MODEL2VEC}, max_tokens=64, dense=DenseHead(normalize=False, dim=256))

    assert (found.max_tokens, found.dense) == (64, DenseHead(normalize=False, dim=256))
    assert found.origins["max_tokens"] == found.origins["dense.normalize"] == "spec"


def test_a_table_with_more_after_it_is_refused() -> None:
    dense = {"type": "sentence_transformers.models.Dense", "path": "1_Dense"}

    with pytest.raises(ValueError, match=r"lists `StaticEmbedding`, `Dense`: supported is `StaticEmbedding`"):
        derived({"modules.json": [STATIC, dense]})


def test_a_table_outside_the_snapshot_is_refused() -> None:
    with pytest.raises(ValueError, match=r"has a module at `../other`: want a folder of the snapshot"):
        derived({"modules.json": [STATIC | {"path": "../other"}]})


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"architecture": "bert"}, "`architecture` is `bert`, the snapshot is a table of vectors: `static`"),
        ({"sparse": SparseHead(head="splade")}, "the spec has `dense`, `sparse`: a table has `dense` alone"),
    ],
)
def test_a_spec_of_something_else_is_refused(spec: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        derived({"config.json": MODEL2VEC}, **spec)
