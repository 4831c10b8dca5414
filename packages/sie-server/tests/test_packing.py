"""Items end to end, and the plan that lets attention see each of them alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_server.models.ops.plan import MASKED, plan_batch, round_tokens
from sie_server.models.tokens import TokenBatch, pack

lengths = st.lists(st.integers(1, 70), min_size=1, max_size=20)


def batch_of(lengths: list[int]) -> TokenBatch:
    """Every token's id is its own number, from 1."""
    ends = np.cumsum(lengths)
    return pack([np.arange(end - length, end, dtype=np.int32) + 1 for end, length in zip(ends, lengths, strict=True)])


@given(lengths)
def test_items_lie_end_to_end(lengths: list[int]) -> None:
    batch = batch_of(lengths)

    assert batch.ids.tolist() == list(range(1, sum(lengths) + 1))
    assert batch.lengths.tolist() == lengths


@given(lengths)
def test_what_a_token_sees_is_its_own_item_and_all_of_it(lengths: list[int]) -> None:
    batch = batch_of(lengths)
    plan = plan_batch(batch)
    grid = plan.ids[plan.rows]
    seen = plan.mask[:, 0, 0, :] == 0

    items = [batch.ids[start:end].tolist() for start, end in zip(batch.starts, batch.starts[1:], strict=False)]
    assert [row[sees].tolist() for row, sees in zip(grid, seen, strict=True)] == items
    assert np.all(plan.mask[:, 0, 0, :][~seen] == MASKED)


@given(lengths)
def test_every_token_finds_its_way_back_from_the_grid(lengths: list[int]) -> None:
    batch = batch_of(lengths)
    plan = plan_batch(batch)

    grid = plan.ids[plan.rows]
    assert grid.reshape(-1)[plan.back[: len(batch.ids)]].tolist() == batch.ids.tolist()
    assert plan.back.max() < grid.size


@given(lengths)
def test_positions_begin_at_0_in_each_item(lengths: list[int]) -> None:
    plan = plan_batch(batch_of(lengths))

    within = [position for length in lengths for position in range(length)]
    assert plan.positions[: sum(lengths)].tolist() == within


@given(st.integers(1, 20_000))
def test_tokens_are_rounded_up_by_less_than_a_step(tokens: int) -> None:
    assert 0 <= round_tokens(tokens) - tokens < (4 if tokens <= 64 else 32)


def test_a_thousand_batches_have_few_shapes() -> None:
    """What the engine keeps per shape must not grow with the traffic."""
    random = np.random.default_rng(0)
    plans = [plan_batch(batch_of(random.integers(1, 257, random.integers(1, 5)).tolist())) for _ in range(1000)]

    assert len({plan.ids.shape for plan in plans}) <= 16 + 1024 // 32
    assert len({plan.rows.shape[1] for plan in plans}) <= 257 // 8 + 1


@pytest.mark.parametrize("items", [[], [np.zeros(0, np.int32)], [np.ones(2, np.int32), np.zeros(0, np.int32)]])
def test_an_item_without_tokens_is_refused(items: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="without tokens"):
        pack(items)
