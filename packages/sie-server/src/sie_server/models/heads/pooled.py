"""One vector an item: its tokens' hidden states pooled to one, projected, scaled to length 1 and cut where asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sie_core.catalog.spec import Pooling
from sie_server.models.calls import Prepared
from sie_server.models.heads.head import Pass, X
from sie_server.models.heads.projection import Dense
from sie_server.models.ops.protocol import Ops

SHORTEST = np.float32(1e-12)
"""A vector shorter than this is divided by this, as torch's `normalize` does."""


@dataclass(frozen=True)
class Pooled:
    """See `head.Head`; gives `Output.dense`.

    Attributes:
        pooling: how an item's hidden states become one vector, where a call does not say.
        layers: what the pooled vector goes through.
        dims: the model's vectors are cut to so many; None: they are as long as they are.
        rescaled: whether what is cut to that is scaled to length 1 again.
    """

    pooling: Pooling
    layers: tuple[Dense, ...] = ()
    dims: int | None = None
    rescaled: bool = True

    def build(self, ops: Ops[X], hidden: X) -> None:
        """Nothing: the hidden state suffices."""

    def read(self, done: Pass) -> Sequence[NDArray[np.float32]]:
        vectors = self._pooled(done)
        for layer in self.layers:
            vectors = layer(vectors)
        return finished(vectors, done.items, dims=self.dims, rescaled=self.rescaled)

    def _pooled(self, done: Pass) -> NDArray[np.float32]:
        hidden, starts = done.per_token(), done.starts
        unpooled = np.array([item.unpooled for item in done.items], np.int32)
        left_out = unpooled if unpooled.any() else None
        ways = [item.pooling or self.pooling for item in done.items]
        by_way = {way: pooled(hidden, starts, way, left_out) for way in dict.fromkeys(ways)}
        if len(by_way) == 1:
            return by_way[ways[0]]
        return np.stack([by_way[way][index] for index, way in enumerate(ways)])


def finished(
    vectors: NDArray[np.float32], items: Sequence[Prepared], *, dims: int | None, rescaled: bool
) -> list[NDArray[np.float32]]:
    """Each item's vector as its call wants it, and its own: a slow reader must not keep the whole batch alive.

    sentence-transformers 6.2 cuts what its `Normalize` has scaled, and leaves it at that (`encode`, `truncate_dim`);
    with `normalize_embeddings` it scales what it has cut.

    Args:
        vectors: (items, width) float32.
        dims: the model's vectors are cut to so many.
        rescaled: whether what is cut to that is scaled again; what a call has cut, is.
    """
    units = normalized(vectors) if any(item.normalized for item in items) else vectors
    found = []
    for index, item in enumerate(items):
        row = (units if item.normalized else vectors)[index]
        cut = row[: item.dims or dims]
        again = item.normalized and len(cut) < len(row) and (rescaled or item.dims is not None)
        found.append(normalized(cut) if again else cut.copy())
    return found


def pooled(
    hidden: NDArray[np.float32],
    starts: NDArray[np.integer[Any]],
    pooling: Pooling,
    unpooled: NDArray[np.int32] | None = None,
) -> NDArray[np.float32]:
    """(tokens, width) float32, items end to end, and (items + 1,) their limits → (items, width) float32.

    Args:
        unpooled: (items,), so many tokens at the start of each are left out: a mean is of those after them, and the
            first is the first of those after them. Where none are left a mean is 0, and so is the last; the first is
            the first of all.

    A mean is summed item by item. A running sum over the batch, subtracted at the items' limits, is
    quicker and loses three digits at 16 k tokens.

    Follows sentence-transformers 6.2 `sentence_transformer/modules/pooling.py`.
    """
    vectors: NDArray[np.float32]
    lengths = np.diff(starts)
    if pooling == "cls":
        first = starts[:-1] if unpooled is None else starts[:-1] + np.where(unpooled < lengths, unpooled, 0)
        vectors = hidden[first]
        return vectors
    if pooling == "last":
        vectors = hidden[starts[1:] - 1]
        if unpooled is not None:
            vectors[unpooled >= lengths] = 0
        return vectors
    weights = _weights(lengths, pooling, unpooled)
    vectors = np.add.reduceat(hidden if weights is None else hidden * weights[:, None], starts[:-1], axis=0)
    total = lengths.astype(np.float32) if weights is None else np.add.reduceat(weights, starts[:-1])
    vectors /= np.maximum(total, 1)[:, None]
    return vectors


def _weights(
    lengths: NDArray[np.integer[Any]], pooling: Pooling, unpooled: NDArray[np.int32] | None
) -> NDArray[np.float32] | None:
    """(tokens,) float32, what each counts in a mean; None where all count the same."""
    if pooling == "mean" and unpooled is None:
        return None
    place = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    weights: NDArray[np.float32] = (place + 1 if pooling == "weighted" else np.ones_like(place)).astype(np.float32)
    if unpooled is not None:
        weights[place < np.repeat(unpooled, lengths)] = 0
    return weights


def normalized(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """(…, width) float32, each row of length 1."""
    lengths = np.sqrt(np.einsum("...w,...w->...", vectors, vectors))
    unit: NDArray[np.float32] = vectors / np.maximum(lengths, SHORTEST)[..., None]
    return unit
