"""What a call may say of its vectors, on a tiny snapshot."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from sie_core.catalog.spec import DenseHead, ModelSpec, Variant
from sie_core.errors import ApiError
from sie_core.ids import ModelId
from sie_server.models import build
from sie_server.models.calls import Encode
from sie_server.models.model import LoadedModel
from sie_server.models.tasks.vector_options import POOLINGS, VectorOptions
from sie_testing import tiny_bert

SPEC = ModelSpec(
    id=ModelId("acme/tiny"),
    dense=DenseHead(),
    query="find {instruction}: {text}",
    document="of {text}",
    default_instruction="it",
    variants={"plain": Variant(query="{text}", document="{text}")},
)
TEXT = "a b c"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedModel]:
    folder = tiny_bert.write(tmp_path_factory.mktemp("models") / "tiny")
    loaded = build.load(SPEC, folder, precision="f32", streams=1, threads=1)
    yield loaded
    loaded.close()


def vector(model: LoadedModel, *, text: str = TEXT, **call: Any) -> np.ndarray:
    (output,) = model.run(model.prepare(Encode((text,), **call)), stream=0)
    assert output.dense is not None
    return output.dense


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and bool(np.abs(a - b).max() <= 1e-6)


@pytest.mark.parametrize(
    ("call", "equal"),
    [
        ({"options": {"doc_template": "on {text}"}}, "on a b c"),
        ({"options": {"doc_template": "on {text}"}, "variant": "plain"}, "on a b c"),
        ({"options": {"query_template": "{instruction}? {text}"}, "is_query": True}, "it? a b c"),
        ({"options": {"default_instruction": "that"}, "is_query": True}, "find that: a b c"),
        ({"options": {"default_instruction": "that"}, "is_query": True, "instruction": "this"}, "find this: a b c"),
        ({"options": {"query_template": "on {text}"}}, "of a b c"),
    ],
)
def test_a_call_says_what_is_put_around_its_texts(model: LoadedModel, call: dict[str, Any], equal: str) -> None:
    assert same(vector(model, **call), vector(model, text=equal, variant="plain"))


@pytest.mark.parametrize("pooling", sorted(set(POOLINGS) - {"mean"}))
def test_a_call_chooses_the_pooling(model: LoadedModel, pooling: str) -> None:
    found = vector(model, options={"pooling": pooling})

    assert same(found, vector(model, options={"pooling": POOLINGS[pooling]}))
    assert not same(found, vector(model))


def test_a_vector_of_fewer_dimensions_has_length_1(model: LoadedModel) -> None:
    whole = vector(model)
    cut = vector(model, options={"dimensions": 8})

    assert same(cut, whole[:8] / np.linalg.norm(whole[:8]))
    assert np.array_equal(vector(model, options={"dimensions": len(whole)}), whole)


def test_a_vector_that_is_not_scaled_is_only_cut(model: LoadedModel) -> None:
    whole = vector(model, options={"normalize": False})

    assert np.array_equal(vector(model, options={"normalize": False, "dimensions": 8}), whole[:8])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pooling": "max"}, r"option `pooling` is `max`: known are `cls`, `mean`, `last`, `last_token`, `weighted`"),
        ({"pooling": ["cls"]}, "option `pooling` is "),
        ({"dimensions": 33}, "option `dimensions` is 33, and vectors of model `acme/tiny` have 32"),
        ({"dimensions": 0}, "want a whole number from 1"),
        ({"dimensions": True}, "want a whole number from 1"),
        ({"normalize": "yes"}, "want true or false"),
        ({"doc_template": "no place"}, r"option `doc_template` is `no place`: want `\{text\}` in it"),
        ({"query_template": 3}, "option `query_template` is `3`: want a text"),
        ({"default_instruction": ["x"]}, "want a text"),
        ({"poling": "cls"}, "model `acme/tiny` has no option `poling`"),
    ],
)
def test_what_there_is_not_is_refused_by_name(model: LoadedModel, options: dict[str, object], said: str) -> None:
    with pytest.raises(ApiError, match=said) as refused:
        model.prepare(Encode((TEXT,), options=options))

    assert refused.value.code == "INVALID_INPUT"


@pytest.mark.parametrize(("option", "value"), [("dimensions", 4), ("pooling", "cls")])
def test_a_model_without_a_dense_vector_has_no_options_for_one(option: str, value: object) -> None:
    with pytest.raises(ApiError, match=f"no option `{option}`"):
        VectorOptions("acme/colbert", True, None, is_pooled=False).read({option: value})
