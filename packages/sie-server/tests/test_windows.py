"""Attention within a window by blocks: what a token sees is what a grid of whole items would let it see."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_server.models.ops.plan import MASK, Plan, plan_batch, seen_feed
from sie_server.models.ops.windows import LEAST_QUERIES, Blocks, blocks
from sie_server.models.tokens import TokenBatch


def plan_of(lengths: list[int], unseen: list[int] | None = None) -> Plan:
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    hidden = None if unseen is None else np.array(unseen, np.int32)
    return plan_batch(TokenBatch(np.arange(starts[-1], dtype=np.int32), starts, unseen=hidden))


def seen_by_blocks(plan: Plan, near: Blocks) -> np.ndarray:
    """(tokens, tokens) bool: which a token sees, read off the cell that it comes back from."""
    queries, keys, mask, back = (feed.make(plan) for feed in (near.queries, near.keys, near.mask, near.back))
    tokens = len(plan.tokens.ids)
    block, cell = np.divmod(back[:tokens], queries.shape[1])
    assert np.array_equal(queries[block, cell], np.arange(tokens))
    seen = np.zeros((tokens, tokens), bool)
    for token in range(tokens):
        found = keys[block[token]][mask[block[token], 0, cell[token]] == 0]
        assert len(set(found.tolist())) == len(found)
        seen[token, found] = True
    return seen


def seen_by_items(plan: Plan, window: int, causal: bool) -> np.ndarray:
    whole = MASK.make(plan) + seen_feed(causal=causal, window=window).make(plan)
    tokens, starts = len(plan.tokens.ids), plan.tokens.starts
    seen = np.zeros((tokens, tokens), bool)
    for item, (start, end) in enumerate(itertools.pairwise(starts)):
        seen[start:end, start:end] = whole[item, 0, : end - start, : end - start] == 0
    return seen


@given(
    lengths=st.lists(st.integers(1, 150), min_size=1, max_size=4),
    window=st.integers(0, 40),
    causal=st.booleans(),
)
def test_a_token_sees_the_same_tokens(lengths: list[int], window: int, causal: bool) -> None:
    plan = plan_of(lengths)

    assert np.array_equal(seen_by_blocks(plan, blocks(window, causal=causal)), seen_by_items(plan, window, causal))


def test_tokens_that_none_may_see_are_not_seen() -> None:
    plan = plan_of([120, 3, 70], unseen=[5, 0, 1])

    assert np.array_equal(seen_by_blocks(plan, blocks(8, causal=False)), seen_by_items(plan, 8, False))


@pytest.mark.parametrize(("causal", "keys"), [(False, 3), (True, 2)])
def test_a_long_text_needs_no_mask_of_its_length_squared(causal: bool, keys: int) -> None:
    near = blocks(64, causal=causal)

    assert near.mask.make(plan_of([8192, 10])).shape == (129, 1, 64, 64 * keys)


def test_short_texts_are_one_block_each_and_no_wider_than_they_are() -> None:
    assert blocks(64, causal=False).mask.make(plan_of([30, 20, 8])).shape == (3, 1, 32, 32)
    assert blocks(0, causal=False).mask.make(plan_of([100])).shape == (4, 1, LEAST_QUERIES, LEAST_QUERIES)
