"""Distances between tokens: where they stand in what attention multiplies, and which of them share a row."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_server.models.backbones import deberta, mpnet
from sie_server.models.backbones.bert import positions_after
from sie_server.models.ops.plan import APART, APART_OF_KEYS, APART_OF_QUERIES, distances, plan_batch
from sie_server.models.tokens import pack

lengths = st.lists(st.integers(1, 40), min_size=1, max_size=8)


@given(lengths)
def test_a_pair_of_tokens_has_the_distance_of_their_positions(lengths: list[int]) -> None:
    plan = plan_batch(pack([np.ones(length, np.int32) for length in lengths]))
    at = np.arange(plan.grid)

    assert np.array_equal(distances(plan.grid)[APART.make(plan)], at[:, None] - at)


@given(lengths)
def test_rows_of_queries_and_of_keys_give_each_pair_its_own(lengths: list[int]) -> None:
    plan = plan_batch(pack([np.ones(length, np.int32) for length in lengths]))
    grid = plan.grid
    # Of every row and every distance, a number of its own.
    numbers = np.arange(grid * 2 * grid).reshape(grid, 2 * grid)
    row, column = np.indices((grid, grid))
    of_pair = row - column + grid

    assert np.array_equal(numbers.ravel()[APART_OF_QUERIES.make(plan)], numbers[row, of_pair])
    assert np.array_equal(numbers.ravel()[APART_OF_KEYS.make(plan)], numbers[column, of_pair])


@given(
    st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=30), min_size=1, max_size=6),
    st.integers(0, 5),
)
def test_positions_are_counted_after_the_padding_and_over_what_is_not_padding(
    items: list[list[int]], padding: int
) -> None:
    plan = plan_batch(pack([np.array(ids, np.int32) for ids in items]))
    wanted = []
    for ids in items:
        counted = padding
        for token in ids:
            counted += token != padding
            wanted.append(padding if token == padding else counted)
    found = positions_after(padding).make(plan)

    assert found[: len(wanted)].tolist() == wanted
    assert (len(found), found.dtype.name) == (len(plan.ids), "int32")


@pytest.mark.parametrize(("buckets", "farthest"), [(256, 512), (8, 48), (7, 48), (32, 1000)])
def test_near_distances_have_rows_of_their_own_and_far_ones_share_them(buckets: int, farthest: int) -> None:
    apart = np.arange(-farthest + 1, farthest, dtype=np.int32)
    found = deberta.bucket(apart, buckets, farthest)
    near = np.abs(apart) <= buckets // 2

    assert np.array_equal(found[near], apart[near])
    assert np.array_equal(found, -found[::-1])
    assert np.all(np.diff(found) >= 0)
    assert len(np.unique(found)) < len(apart)
    # The farthest of all is in the last row.
    assert found.max() == buckets // 2 * 2 - 1


@given(st.integers(1, 80))
def test_every_distance_has_a_row_of_the_table(grid: int) -> None:
    plan = plan_batch(pack([np.ones(grid, np.int32)]))
    for span, farthest in ((8, 48), (6, 0), (256, 512)):
        rows = deberta.rows_of(span, farthest).make(plan)

        assert (rows.min() >= 0, rows.max() < 2 * span, len(rows)) == (True, True, 2 * plan.grid)


def test_of_an_mpnet_the_near_have_numbers_of_their_own_and_the_sides_are_apart() -> None:
    found = mpnet.bucket(np.arange(-200, 201, dtype=np.int32))
    later, earlier = found[:200][::-1], found[201:]

    assert found[200] == 0
    assert earlier[:7].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert np.array_equal(later, earlier + 16)
    assert (set(earlier[127:]), earlier.max()) == ({15}, 15)
