"""MaxSim, and results as plain lists."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_sdk import (
    dense_embedding,
    multivector_embedding,
    normalize_sparse_vector,
    sparse_embedding,
    sparse_embedding_dict,
)
from sie_sdk.scoring import maxsim, maxsim_batch

QUERY = np.array([[1, 0], [0, 1]], np.float32)
NEAR, FAR = np.array([[1, 0], [0.5, 0.5]], np.float32), np.array([[0, 1]], np.float32)
RESULT = {
    "dense": np.array([1, 0.5], np.float32),
    "sparse": {"indices": np.array([3, 7], np.int32), "values": np.array([0.5, 2], np.float32)},
    "multivector": NEAR,
}


def test_maxsim_sums_each_query_tokens_best_match() -> None:
    assert maxsim(QUERY, [NEAR, FAR]) == [1.5, 1.0]
    assert maxsim(QUERY, NEAR) == [1.5]
    assert maxsim(QUERY, np.stack([NEAR, NEAR])) == [1.5, 1.5]


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.integers(0, 9),
)
def test_maxsim_batch_is_maxsim_of_every_pair(queries: list[int], documents: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    asked = [random.standard_normal((length, 5), np.float32) for length in queries]
    stored = [random.standard_normal((length, 5), np.float32) for length in documents]
    scores = maxsim_batch(asked, stored)

    assert scores.dtype == np.float32
    assert scores.tolist() == [maxsim(query, stored) for query in asked]


@pytest.mark.parametrize(
    "document", [np.zeros((0, 2), np.float32), np.zeros((1, 3), np.float32), np.zeros(2, np.float32)]
)
def test_maxsim_names_the_shapes_that_do_not_fit(document: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 2\) with a document of shape"):
        maxsim(QUERY, [document])


def test_results_become_plain_lists() -> None:
    assert dense_embedding(RESULT) == [1.0, 0.5]
    assert sparse_embedding(RESULT) == {"indices": [3, 7], "values": [0.5, 2.0]}
    assert sparse_embedding_dict(RESULT) == {3: 0.5, 7: 2.0}
    assert normalize_sparse_vector(RESULT["sparse"]) == sparse_embedding(RESULT)
    assert multivector_embedding(RESULT["multivector"]) == [[1.0, 0.0], [0.5, 0.5]]
    assert multivector_embedding([[1, 2], np.array([3, 4])]) == [[1, 2], [3, 4]]


def test_missing_outputs_are_empty_or_named() -> None:
    assert dense_embedding({}, strict=False) == []
    assert sparse_embedding({}) == {"indices": [], "values": []}
    assert sparse_embedding_dict({"sparse": {"indices": [1]}}) == {}
    with pytest.raises(ValueError, match=r"the result has no `dense`; it has `id`, `sparse`"):
        dense_embedding({"sparse": {}, "id": "a"})
