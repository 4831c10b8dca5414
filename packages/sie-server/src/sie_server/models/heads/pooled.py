"""One vector an item: the hidden states of its tokens pooled to one, scaled to length 1 where asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sie_core.catalog.spec import Pooling
from sie_server.models.heads.head import Pass, X
from sie_server.models.ops.protocol import Ops

SHORTEST = np.float32(1e-12)
"""A vector shorter than this is divided by this, as torch's `normalize` does."""


@dataclass(frozen=True)
class Pooled:
    """See `head.Head`; gives `Output.dense`.

    Attributes:
        pooling: how an item's hidden states become one vector.
    """

    pooling: Pooling

    def build(self, ops: Ops[X], hidden: X) -> None:
        """Nothing: the hidden state suffices."""

    def read(self, done: Pass) -> Sequence[NDArray[np.float32]]:
        vectors = pooled(done.per_token(), done.starts, self.pooling)
        units = normalized(vectors) if any(item.normalized for item in done.items) else vectors
        # Each item owns its vector: a slow reader must not keep the whole batch alive.
        return [(units if item.normalized else vectors)[index].copy() for index, item in enumerate(done.items)]


def pooled(hidden: NDArray[np.float32], starts: NDArray[np.integer[Any]], pooling: Pooling) -> NDArray[np.float32]:
    """(tokens, width) float32, items end to end, and (items + 1,) their limits → (items, width) float32.

    A mean is summed item by item. A running sum over the batch, subtracted at the items' limits, is
    quicker and loses three digits at 16 k tokens.

    Follows sentence-transformers 6.2 `sentence_transformer/modules/pooling.py`.
    """
    vectors: NDArray[np.float32]
    match pooling:
        case "cls":
            vectors = hidden[starts[:-1]]
        case "last":
            vectors = hidden[starts[1:] - 1]
        case "mean":
            vectors = np.add.reduceat(hidden, starts[:-1], axis=0)
            vectors /= np.diff(starts).astype(np.float32)[:, None]
        case "weighted":
            place = (np.arange(len(hidden)) - np.repeat(starts[:-1], np.diff(starts)) + 1).astype(np.float32)
            vectors = np.add.reduceat(hidden * place[:, None], starts[:-1], axis=0)
            vectors /= np.add.reduceat(place, starts[:-1])[:, None]
    return vectors


def normalized(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """(…, width) float32, each row of length 1."""
    lengths = np.sqrt(np.einsum("...w,...w->...", vectors, vectors))
    unit: NDArray[np.float32] = vectors / np.maximum(lengths, SHORTEST)[..., None]
    return unit
