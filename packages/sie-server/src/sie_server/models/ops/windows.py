"""Attention within a window, on a grid of its own: blocks of queries, and the keys that any of a block's may see.

A grid of whole items needs a mask of their length squared, 268 MB for 8192 tokens, to hide nearly all of it. Blocks
need it of their own length times a window, and nothing else is multiplied. A batch that is no longer than the keys of
one block is one block an item, which is the grid of whole items.
"""

import functools
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sie_server.models.ops.plan import MASKED, Feed, Plan

LEAST_QUERIES: Final = 32
"""In a block, however narrow the window."""

Ints = NDArray[np.int32]


@dataclass(frozen=True)
class Blocks:
    """The grid of a window, as feeds. N: the batch's blocks; Q and K: a block's queries and keys.

    Attributes:
        queries: (N, Q) int32, which token is in a cell; 0 where none is.
        keys: (N, K) int32, likewise.
        mask: (N, 1, Q, K) float32, to add to the scores.
        back: (T,) int32, which cell of the flattened queries a token is in.
    """

    queries: Feed
    keys: Feed
    mask: Feed
    back: Feed


@functools.cache
def blocks(window: int, *, causal: bool) -> Blocks:
    """The feeds of a window: a token sees those at a distance of at most this, and where causal none after it."""
    name = f"window_{window}" + ("_causal" if causal else "")
    return Blocks(
        queries=Feed(f"{name}_queries", (-1, -1), np.int32, lambda plan: _Layout(plan, window, causal).queries()),
        keys=Feed(f"{name}_keys", (-1, -1), np.int32, lambda plan: _Layout(plan, window, causal).keys()),
        mask=Feed(f"{name}_mask", (-1, 1, -1, -1), np.float32, lambda plan: _Layout(plan, window, causal).mask()),
        back=Feed(f"{name}_back", (-1,), np.int32, lambda plan: _Layout(plan, window, causal).back()),
    )


class _Layout:
    """Which item and which of its positions each block begins with."""

    def __init__(self, plan: Plan, window: int, causal: bool) -> None:
        self._plan, self._window, self._causal = plan, window, causal
        step = max(window, LEAST_QUERIES)
        reach = window if causal else 2 * window
        whole = plan.grid <= step + reach
        self._step = plan.grid if whole else step
        self._width = plan.grid if whole else step + reach
        self._before = 0 if whole else window
        self._counts = -(-plan.tokens.lengths // np.int32(self._step))
        self._item = np.repeat(np.arange(len(self._counts), dtype=np.int32), self._counts)
        self._firsts = np.cumsum(self._counts, dtype=np.int32) - self._counts
        self._begin: Ints = (np.arange(len(self._item), dtype=np.int32) - self._firsts[self._item]) * np.int32(
            self._step
        )

    def queries(self) -> Ints:
        places: Ints = np.arange(self._step, dtype=np.int32)
        return self._tokens(self._begin[:, None] + places)

    def keys(self) -> Ints:
        return self._tokens(self._key_positions())

    def mask(self) -> NDArray[np.float32]:
        tokens, positions = self._plan.tokens, self._key_positions()
        seen = tokens.lengths if tokens.unseen is None else tokens.lengths - tokens.unseen
        there = (positions >= 0) & (positions < seen[self._item][:, None])
        # The same in every block: how far before a query a key stands.
        apart = np.arange(self._step)[:, None] - np.arange(self._width) + self._before
        near = np.abs(apart) <= self._window
        if self._causal:
            near &= apart >= 0
        return np.where(near & there[:, None], np.float32(0), MASKED)[:, None]

    def back(self) -> Ints:
        tokens = self._plan.tokens
        count = len(tokens.ids)
        item = np.repeat(np.arange(len(tokens.lengths), dtype=np.int32), tokens.lengths)
        block, within = np.divmod(self._plan.positions[:count], np.int32(self._step))
        back = np.zeros(len(self._plan.ids), np.int32)
        back[:count] = (self._firsts[item] + block) * np.int32(self._step) + within
        return back

    def _key_positions(self) -> Ints:
        places: Ints = np.arange(self._width, dtype=np.int32) - np.int32(self._before)
        return self._begin[:, None] + places

    def _tokens(self, positions: Ints) -> Ints:
        starts, lengths = (of[self._item][:, None] for of in (self._plan.tokens.starts[:-1], self._plan.tokens.lengths))
        return np.where((positions >= 0) & (positions < lengths), starts + positions, np.int32(0))
