"""Hidden states to one vector an item."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_server.models.heads.pooled import normalized, pooled

WIDTH = 6


def hidden_of(lengths: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return np.random.default_rng(seed).normal(size=(starts[-1], WIDTH)).astype(np.float32), starts


@given(st.lists(st.integers(1, 30), min_size=1, max_size=10))
def test_each_item_is_pooled_from_its_own_tokens(lengths: list[int]) -> None:
    hidden, starts = hidden_of(lengths)
    items = [hidden[start:end] for start, end in itertools.pairwise(starts)]

    assert np.allclose(pooled(hidden, starts, "mean"), [item.astype(float).mean(axis=0) for item in items], atol=1e-6)
    assert np.array_equal(pooled(hidden, starts, "cls"), [item[0] for item in items])
    assert np.array_equal(pooled(hidden, starts, "last"), [item[-1] for item in items])


def test_mean_is_exact_at_the_end_of_a_long_batch() -> None:
    """A running sum over the batch would have lost three digits by then."""
    hidden, starts = hidden_of([16_000, 3])
    hidden[:16_000] += 100

    mean = pooled(hidden, starts, "mean")[1]
    assert np.abs(mean - hidden[16_000:].astype(float).mean(axis=0)).max() < 1e-6


def test_a_pooled_vector_is_not_a_view_of_the_hidden_states() -> None:
    """The engine writes the next batch into the same memory."""
    hidden, starts = hidden_of([2, 3])

    assert not any(
        np.shares_memory(hidden, vectors)
        for vectors in (pooled(hidden, starts, "mean"), pooled(hidden, starts, "cls"), pooled(hidden, starts, "last"))
    )


def test_normalized_vectors_have_length_1() -> None:
    vectors = np.array([[3, 4], [1e-3, 0]], np.float32)

    assert np.allclose(normalized(vectors), np.array([[0.6, 0.8], [1, 0]]), atol=1e-7)
    assert normalized(vectors).dtype == np.float32


@pytest.mark.parametrize("length", [0.0, 1e-13])
def test_a_vector_of_no_length_stays_finite(length: float) -> None:
    assert np.all(np.isfinite(normalized(np.array([[length, 0]], np.float32))))
