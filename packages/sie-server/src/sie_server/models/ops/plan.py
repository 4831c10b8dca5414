"""What an engine must know of one batch, as arrays of a few round sizes.

Linear layers see tokens end to end; attention sees a grid of items × positions. All that depends on
the items' lengths is in here, so that a graph has no sizes in it.

T is the tokens and G the longest item's tokens, both rounded up, and S the items. Rounded because
OpenVINO keeps something for every size that it has met: half a megabyte for a T and more for a G, on
each stream, so that memory would grow with the traffic. For an S it keeps next to nothing, and an
item that is not there would cost a whole attention.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sie_server.models.tokens import TokenBatch

FEW_TOKENS: Final = 64
FEW_TOKENS_ROUNDED_TO: Final = 4
TOKENS_ROUNDED_TO: Final = 32
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
    rounded_tokens = round_tokens(tokens)
    grid = _round_up(longest, GRID_ROUNDED_TO)

    item_of_token = np.repeat(np.arange(items, dtype=np.int32), lengths)
    within = np.arange(tokens, dtype=np.int32) - batch.starts[item_of_token]
    seen = np.arange(grid, dtype=np.int32) < lengths[:, None]

    ids, positions, back = np.zeros((3, rounded_tokens), np.int32)
    ids[:tokens] = batch.ids
    positions[:tokens] = within
    back[:tokens] = item_of_token * np.int32(grid) + within
    rows = np.zeros((items, grid), np.int32)
    rows[seen] = np.arange(tokens, dtype=np.int32)
    mask = np.where(seen, np.float32(0), MASKED)[:, None, None, :]
    return Plan(ids, positions, rows, back, mask)


def round_tokens(tokens: int) -> int:
    """In small steps at first: a lone short text must not pay for 32 tokens."""
    return _round_up(tokens, FEW_TOKENS_ROUNDED_TO if tokens <= FEW_TOKENS else TOKENS_ROUNDED_TO)


def _round_up(size: int, step: int) -> int:
    return -(-size // step) * step
