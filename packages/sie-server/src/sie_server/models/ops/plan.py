"""What an engine must know of one batch, as arrays of a few round sizes.

Linear layers see tokens end to end; attention sees a grid of items × positions. All that depends on
the items' lengths is in here, so that a graph has no sizes in it. Sizes are rounded up because an
engine keeps something for every shape that it has met: unrounded, memory grows with the traffic.

T is the tokens, S the items and G the longest item's tokens, each rounded up.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sie_server.models.tokens import TokenBatch

TOKENS_ROUNDED_TO: Final = 32
ITEMS_ROUNDED_TO: Final = 4
GRID_ROUNDED_TO: Final = 8

MASKED: Final = np.float32(-1e9)
"""Added to the scores of what must not be seen. Finite: the softmax of a row of infinities is not a number."""


@dataclass(frozen=True)
class Plan:
    """The inputs of a graph.

    Attributes:
        ids: (T,) int32 token ids, padded with 0.
        positions: (T,) int32, from 0 in each item.
        rows: (S, G) int32, which token is in a cell; 0 where none is.
        back: (T,) int32, which cell of the flattened grid a token is in.
        mask: (S, 1, 1, G) float32, 0 where a token is and `MASKED` elsewhere.
    """

    ids: NDArray[np.int32]
    positions: NDArray[np.int32]
    rows: NDArray[np.int32]
    back: NDArray[np.int32]
    mask: NDArray[np.float32]

    def inputs(self) -> Mapping[str, NDArray[Any]]:
        return vars(self)


def plan_batch(batch: TokenBatch) -> Plan:
    """The plan of one batch; tens of microseconds."""
    lengths, tokens = batch.lengths, len(batch.ids)
    items, longest = len(lengths), int(lengths.max())
    rounded_tokens = _round_up(tokens, TOKENS_ROUNDED_TO)
    rounded_items = round_items(items)
    grid = _round_up(longest, GRID_ROUNDED_TO)

    item_of_token = np.repeat(np.arange(items, dtype=np.int32), lengths)
    within = np.arange(tokens, dtype=np.int32) - batch.starts[item_of_token]
    seen = np.arange(grid, dtype=np.int32) < lengths[:, None]

    ids, positions, back = np.zeros((3, rounded_tokens), np.int32)
    ids[:tokens] = batch.ids
    positions[:tokens] = within
    back[:tokens] = item_of_token * np.int32(grid) + within
    rows = np.zeros((rounded_items, grid), np.int32)
    rows[:items][seen] = np.arange(tokens, dtype=np.int32)
    mask = np.zeros((rounded_items, 1, 1, grid), np.float32)
    mask[:items, 0, 0][~seen] = MASKED
    return Plan(ids, positions, rows, back, mask)


def round_items(items: int) -> int:
    """1, 2, then multiples of four: a lone long item must not pay for three that are not there."""
    return items if items <= 2 else _round_up(items, ITEMS_ROUNDED_TO)


def _round_up(size: int, step: int) -> int:
    return -(-size // step) * step
