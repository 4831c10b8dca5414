"""Fixed dimensional encodings: what they are linear in, what their products are near, which settings are refused."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sie_core.catalog.catalog import Catalog
from sie_core.errors import ApiError
from sie_server.models.calls import Encode, Output
from sie_server.models.heads.pooled import normalized
from sie_server.models.muvera import Muvera, encoded, read_muvera
from sie_server.models.prompts import Prompts
from sie_server.models.tasks.encode import EncodeTexts
from sie_server.models.tasks.muvera import EncodeMuvera
from sie_server.models.tokenizing import Tokenized

DIMS = 16
DRAWN = [-0.385292, 0.141286, -0.529813, -1.157059, 1.571773, -2.299376, -1.132614, 0.0]
SMALL = Muvera(num_repetitions=5, num_simhash_projections=3, final_projection_dim=2048)


def tokens(count: int, seed: int) -> np.ndarray:
    return normalized(np.random.default_rng(seed).normal(size=(count, DIMS)).astype(np.float32))


def maxsim(query: np.ndarray, document: np.ndarray) -> float:
    return float((query @ document.T).max(axis=1).sum())


def test_another_process_encodes_to_the_same_bytes() -> None:
    vectors = tokens(9, 1)
    script = (
        "import sys; import numpy as np; from sie_server.models.muvera import Muvera, encoded;"
        f"vectors = np.frombuffer(bytes.fromhex({vectors.tobytes().hex()!r}), np.float32).reshape(9, {DIMS});"
        "print(encoded(vectors, Muvera(5, 3, 8, 2048), is_query=False).tobytes().hex())"
    )
    there = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.strip()
    here = encoded(vectors, replace(SMALL, projection_dim=8), is_query=False)

    assert there == here.tobytes().hex()


def test_what_is_drawn_stays_what_it_was() -> None:
    """An encoding is compared with those of years ago: a numpy that draws otherwise must not go unnoticed."""
    ramp = normalized((np.arange(3 * DIMS, dtype=np.float32).reshape(3, DIMS) % 7) - 3)
    made = encoded(ramp, Muvera(2, 2, 4, 8), is_query=True)

    assert made == pytest.approx(DRAWN, abs=1e-5)


@given(st.integers(1, 40), st.integers(0, 2**16))
@settings(deadline=None, max_examples=30)
def test_a_query_is_the_sum_of_its_tokens_and_a_document_the_mean_of_each_part(count: int, seed: int) -> None:
    vectors = tokens(count, seed)
    whole = encoded(vectors, SMALL, is_query=True)
    alone = [encoded(vector[None], SMALL, is_query=True) for vector in vectors]

    assert np.allclose(whole, np.sum(alone, axis=0), atol=1e-4)
    repeated = encoded(np.repeat(vectors, 3, axis=0), SMALL, is_query=False)
    assert np.allclose(repeated, encoded(vectors, SMALL, is_query=False), atol=1e-4)


@given(st.floats(0.1, 10), st.integers(0, 2**16))
@settings(deadline=None, max_examples=30)
def test_a_document_of_one_part_is_linear_in_its_tokens(scale: float, seed: int) -> None:
    """Tokens of like directions are in one part, where a longer one only weighs more."""
    vector = tokens(1, seed)
    document = np.concatenate([vector, np.float32(scale) * vector])
    wanted = (1 + scale) / 2 * encoded(vector, SMALL, is_query=False)

    assert np.allclose(encoded(document, SMALL, is_query=False), wanted, atol=1e-4)
    assert not np.allclose(encoded(document, SMALL, is_query=True), wanted, atol=1e-2)


@pytest.mark.parametrize("settings_", [Muvera(), Muvera(projection_dim=8), Muvera(num_repetitions=20)])
def test_products_rank_documents_nearly_as_maxsim_does(settings_: Muvera) -> None:
    """A query's tokens are near some of one document's: it is the first of a hundred, and the rest go along."""
    documents = [tokens(20, seed) for seed in range(100)]
    made = np.array([encoded(document, settings_, is_query=False) for document in documents])
    firsts = []
    for right in range(0, 100, 10):
        query = normalized(documents[right][:8] + np.float32(0.3) * tokens(8, 1000 + right))
        products = made @ encoded(query, settings_, is_query=True)
        exact = np.array([maxsim(query, document) for document in documents])
        assert np.argmax(exact) == right
        firsts.append(int(np.argmax(products)) == right)
        assert np.corrcoef(products, exact)[0, 1] > 0.3
    assert all(firsts)


def test_a_text_without_vectors_is_encoded_as_nothing() -> None:
    made = encoded(np.zeros((0, DIMS), np.float32), SMALL, is_query=False)

    assert made.shape == (2048,)
    assert not made.any()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (True, "`muvera` is `True`: want a map"),
        ({"repetitions": 3}, "`muvera` has `repetitions`: known are `num_repetitions`, `num_simhash_projections`"),
        ({"num_repetitions": 0}, "`muvera.num_repetitions` is `0`: want a whole number from 1 to 256"),
        ({"num_repetitions": None}, "`muvera.num_repetitions` is `None`"),
        ({"num_repetitions": True}, "`muvera.num_repetitions` is `True`"),
        ({"num_simhash_projections": 13}, "`muvera.num_simhash_projections` is `13`: want a whole number from 0 to 12"),
        ({"projection_dim": "8"}, "`muvera.projection_dim` is `8`: want a whole number from 1"),
        ({"final_projection_dim": 10**6}, "`muvera.final_projection_dim` is `1000000`"),
        ({"num_repetitions": 256, "num_simhash_projections": 12}, "`muvera` makes 16,777,216 values of a vector of 16"),
    ],
)
def test_settings_are_refused_by_name(options: object, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        read_muvera(options, DIMS)


def test_defaults_and_what_may_be_null() -> None:
    assert read_muvera({}, DIMS) == Muvera(40, 6, None, 10240)
    assert read_muvera({"projection_dim": None, "num_repetitions": 20}, DIMS) == Muvera(num_repetitions=20)


def test_variants_of_the_shipped_specs_have_settings_that_are_taken() -> None:
    heads = [
        (spec.multivector.dim, variant.options["muvera"])
        for spec in Catalog.shipped().specs.values()
        for variant in spec.variants.values()
        if "muvera" in variant.options and spec.multivector is not None
    ]

    assert heads
    for dim, options in heads:
        assert dim is not None
        assert read_muvera(options, dim).final_projection_dim == 10240


class Letters:
    vocabulary = 26

    def __call__(self, texts: Any) -> list[Tokenized]:
        return [Tokenized(np.array([ord(letter) - 97 for letter in text], np.int32), False) for text in texts]


TASK = EncodeMuvera(
    EncodeTexts("acme/colbert", {"multivector": DIMS}, Letters(), {None: Prompts(None, None, None)}, True), DIMS
)


def finished(call: Encode) -> Output:
    prepared = TASK.prepare(call)
    assert all(one.wanted == ("multivector",) for one in prepared)
    [found] = TASK.finish(call, prepared, [Output(multivector=tokens(3, 0))])
    assert isinstance(found, Output)
    return found


def test_a_call_has_the_outputs_that_it_asks_for() -> None:
    options = {"muvera": {"final_projection_dim": 64}}
    alone = finished(Encode(("abc",), ("dense",), options=options))
    both = finished(Encode(("abc",), ("multivector", "dense"), is_query=True, options=options))
    plain = finished(Encode(("abc",), ("multivector",)))

    assert alone.multivector is None
    assert alone.dense is not None
    assert np.array_equal(alone.dense, encoded(tokens(3, 0), Muvera(final_projection_dim=64), is_query=False))
    assert both.multivector is not None
    assert both.dense is not None
    assert np.array_equal(both.dense, encoded(tokens(3, 0), Muvera(final_projection_dim=64), is_query=True))
    assert plain.dense is None


def test_a_failed_item_keeps_its_error_and_bad_settings_are_the_callers() -> None:
    call = Encode(("abc",), ("dense",), options={"muvera": {}})
    error = ApiError("INFERENCE_ERROR", "no")

    assert TASK.finish(call, TASK.prepare(call), [error]) == [error]
    with pytest.raises(ApiError, match=r"`muvera\.projection_dim` is `0`") as refused:
        TASK.prepare(Encode(("abc",), ("dense",), options={"muvera": {"projection_dim": 0}}))
    assert refused.value.code == "INVALID_INPUT"
    with pytest.raises(ApiError, match="has no `dense` output"):
        TASK.prepare(Encode(("abc",), ("dense",)))
