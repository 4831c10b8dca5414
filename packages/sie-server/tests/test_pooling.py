"""Hidden states to one vector an item."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_core.catalog.derive.projection import LayerActivation
from sie_server.models.heads.pooled import normalized, pooled
from sie_server.models.heads.projection import activated

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


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 25)), min_size=1, max_size=8))
def test_what_is_left_out_of_a_mean_is_as_if_it_were_not_there(items: list[tuple[int, int]]) -> None:
    hidden, starts = hidden_of([length for length, _ in items])
    unpooled = np.array([count for _, count in items], np.int32)
    kept = [
        hidden[start + count : end] for (start, end), count in zip(itertools.pairwise(starts), unpooled, strict=True)
    ]
    means = [rows.astype(float).mean(axis=0) if len(rows) else np.zeros(WIDTH) for rows in kept]

    assert np.allclose(pooled(hidden, starts, "mean", unpooled), means, atol=1e-6)
    # Places are counted from the first token of all.
    weights = [np.arange(1, length + 1)[count:] for length, count in items]
    weighted = [
        np.average(rows.astype(float), axis=0, weights=each) if len(rows) else np.zeros(WIDTH)
        for rows, each in zip(kept, weights, strict=True)
    ]
    assert np.allclose(pooled(hidden, starts, "weighted", unpooled), weighted, atol=1e-5)


def test_the_first_token_is_the_first_after_what_is_left_out() -> None:
    hidden, starts = hidden_of([3, 2])

    assert np.array_equal(pooled(hidden, starts, "cls", np.array([2, 2], np.int32)), hidden[[2, 3]])


def test_the_last_token_is_nothing_where_all_are_left_out() -> None:
    hidden, starts = hidden_of([3, 2])
    last = pooled(hidden, starts, "last", np.array([1, 2], np.int32))

    assert np.array_equal(last, [hidden[2], np.zeros(WIDTH)])


@pytest.mark.parametrize("kind", ["tanh", "relu", "silu", "sigmoid", None])
def test_activations_stay_finite_far_out(kind: LayerActivation | None) -> None:
    x = np.array([-1e30, -1000, 0, 1000], np.float32)

    with np.errstate(over="raise"):
        assert np.all(np.isfinite(activated(x, kind)))
