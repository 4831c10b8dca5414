"""What an engine must know of one batch, as arrays of a few round sizes.

Linear layers see tokens end to end; attention sees a grid of items × positions. All that depends on
the items' lengths is in here, so that a graph has no sizes in it. A backbone that needs more of the kind
(relative positions, say) names a `Feed` of its own.

T is the tokens and G the longest item's tokens, both rounded up, and S the items. Rounded because
OpenVINO keeps something for every size that it has met: half a megabyte for a T and more for a G, on
each stream, so that memory would grow with the traffic. For an S it keeps next to nothing, and an
item that is not there would cost a whole attention.
"""

import functools
from collections.abc import Callable
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
    """One batch.

    Attributes:
        tokens: the batch as it is, unrounded.
        ids: (T,) int32 token ids, padded with 0.
        types: (T,) int32 token types, likewise.
        positions: (T,) int32, from 0 in each item.
        rows: (S, G) int32, which token is in a cell; 0 where none is.
        back: (T,) int32, which cell of the flattened grid a token is in.
        mask: (S, 1, 1, G) float32, 0 where a token is that others see and `MASKED` elsewhere.
        patches: (T, values) float32 of pictures; None for texts.
    """

    tokens: TokenBatch
    ids: NDArray[np.int32]
    types: NDArray[np.int32]
    positions: NDArray[np.int32]
    rows: NDArray[np.int32]
    back: NDArray[np.int32]
    mask: NDArray[np.float32]
    patches: NDArray[np.float32] | None = None

    @property
    def grid(self) -> int:
        """G."""
        return int(self.rows.shape[1])


@dataclass(frozen=True)
class Feed:
    """An input of a network that depends on the batch.

    Attributes:
        name: one name, one feed.
        shape: -1 for what depends on the batch.
        make: the array, float32 or int32 as `kind` says, of a plan.
    """

    name: str
    shape: tuple[int, ...]
    kind: type[np.float32] | type[np.int32]
    make: Callable[[Plan], NDArray[Any]]


IDS: Final = Feed("ids", (-1,), np.int32, lambda plan: plan.ids)
TYPES: Final = Feed("types", (-1,), np.int32, lambda plan: plan.types)
POSITIONS: Final = Feed("positions", (-1,), np.int32, lambda plan: plan.positions)
ROWS: Final = Feed("rows", (-1, -1), np.int32, lambda plan: plan.rows)
BACK: Final = Feed("back", (-1,), np.int32, lambda plan: plan.back)
MASK: Final = Feed("mask", (-1, 1, 1, -1), np.float32, lambda plan: plan.mask)
SHARES: Final = Feed("shares", (-1, -1, 1), np.float32, lambda plan: _shares(plan))
"""(S, G, 1): of each cell in its item's mean; 0 where none is."""

LAST: Final = Feed("last", (-1,), np.int32, lambda plan: plan.tokens.starts[1:] - 1)
"""(S,): where each item's last token is."""

FIRST: Final = Feed("first", (-1,), np.int32, lambda plan: plan.tokens.starts[:-1])
"""(S,): where each item's first token is."""


APART: Final = Feed("apart", (-1, -1), np.int32, lambda plan: _apart(plan.grid))
"""(G, G): where the distance of a query, down, to a key, across, stands in `distances`."""

APART_OF_QUERIES: Final = Feed("apart_of_queries", (-1, -1), np.int32, lambda plan: _flat(plan.grid, of_keys=False))
"""(G, G): the same in (G, 2 G), flattened, which has a row of every distance for each query."""

APART_OF_KEYS: Final = Feed("apart_of_keys", (-1, -1), np.int32, lambda plan: _flat(plan.grid, of_keys=True))
"""(G, G): the same where the rows are of the keys."""


def distances(grid: int) -> NDArray[np.int32]:
    """(2 G,): every distance that there is in a grid, a query's position less a key's, and one that there is not."""
    return np.arange(-grid, grid, dtype=np.int32)


def _apart(grid: int) -> NDArray[np.int32]:
    at = np.arange(grid, dtype=np.int32)
    return at[:, None] - at + np.int32(grid)


def _flat(grid: int, *, of_keys: bool) -> NDArray[np.int32]:
    row = np.arange(grid, dtype=np.int32) * np.int32(2 * grid)
    return _apart(grid) + (row if of_keys else row[:, None])


def _shares(plan: Plan) -> NDArray[np.float32]:
    lengths = plan.tokens.lengths[:, None]
    share = np.float32(1) / lengths.astype(np.float32)
    return np.where(np.arange(plan.grid, dtype=np.int32) < lengths, share, np.float32(0))[:, :, None]


@functools.cache
def seen_feed(*, causal: bool, window: int | None) -> Feed:
    """(1, 1, G, G) float32 to add to the scores: which positions a position sees, by their distance alone."""
    name = "seen" + ("_causal" if causal else "") + (f"_{window}" if window is not None else "")
    return Feed(name, (1, 1, -1, -1), np.float32, lambda plan: _seen(plan.grid, causal, window))


def _seen(grid: int, causal: bool, window: int | None) -> NDArray[np.float32]:
    at = np.arange(grid, dtype=np.int32)
    distance = at[:, None] - at
    hidden = np.zeros((grid, grid), bool)
    if causal:
        hidden |= distance < 0
    if window is not None:
        hidden |= np.abs(distance) > window
    return np.where(hidden, MASKED, np.float32(0))[None, None]


def plan_batch(batch: TokenBatch) -> Plan:
    """The plan of one batch; tens of microseconds."""
    lengths, tokens = batch.lengths, len(batch.ids)
    items, longest = len(lengths), int(lengths.max())
    rounded_tokens = round_tokens(tokens)
    grid = _round_up(longest, GRID_ROUNDED_TO)

    item_of_token = np.repeat(np.arange(items, dtype=np.int32), lengths)
    within = np.arange(tokens, dtype=np.int32) - batch.starts[item_of_token]
    seen = np.arange(grid, dtype=np.int32) < lengths[:, None]

    ids, types, positions, back = np.zeros((4, rounded_tokens), np.int32)
    ids[:tokens] = batch.ids
    if batch.types is not None:
        types[:tokens] = batch.types
    positions[:tokens] = within
    back[:tokens] = item_of_token * np.int32(grid) + within
    rows = np.zeros((items, grid), np.int32)
    rows[seen] = np.arange(tokens, dtype=np.int32)
    if batch.unseen is not None:
        seen = np.arange(grid, dtype=np.int32) < (lengths - batch.unseen)[:, None]
    mask = np.where(seen, np.float32(0), MASKED)[:, None, None, :]
    return Plan(batch, ids, types, positions, rows, back, mask, _padded(batch.patches, rounded_tokens))


def _padded(patches: NDArray[np.float32] | None, rows: int) -> NDArray[np.float32] | None:
    if patches is None or len(patches) == rows:
        return patches
    return np.concatenate([patches, np.zeros((rows - len(patches), patches.shape[1]), np.float32)])


def round_tokens(tokens: int) -> int:
    """In small steps at first: a lone short text must not pay for 32 tokens."""
    return _round_up(tokens, FEW_TOKENS_ROUNDED_TO if tokens <= FEW_TOKENS else TOKENS_ROUNDED_TO)


def _round_up(size: int, step: int) -> int:
    return -(-size // step) * step
