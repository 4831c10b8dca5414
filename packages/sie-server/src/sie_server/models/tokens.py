"""Packed batches: the items' tokens end to end, without padding."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TokenBatch:
    """Some items' tokens.

    Attributes:
        ids: (tokens,) int32, the items end to end.
        starts: (items + 1,) int32; item `i` is `ids[starts[i]:starts[i + 1]]`.
    """

    ids: NDArray[np.int32]
    starts: NDArray[np.int32]

    @property
    def lengths(self) -> NDArray[np.int32]:
        """(items,) int32."""
        return np.diff(self.starts)


def pack(items: Sequence[NDArray[np.int32]]) -> TokenBatch:
    """The items one after another.

    Raises:
        ValueError: no items, or one without tokens: it would have no mean and no first token.
    """
    starts = np.zeros(len(items) + 1, np.int32)
    np.cumsum([len(ids) for ids in items], out=starts[1:])
    if not items or np.any(starts[1:] == starts[:-1]):
        raise ValueError(f"a batch of {len(items)} items has one without tokens")
    return TokenBatch(np.concatenate(items, dtype=np.int32), starts)
