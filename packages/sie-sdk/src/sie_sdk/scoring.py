"""MaxSim on the client's side, for multivectors that are already at hand.

Encode documents once, keep their multivectors, and score each query against them here. Vectors are
taken as they are: the models return them of unit length, and nothing is normalised again.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def maxsim(query: NDArray[np.float32], documents: Sequence[NDArray[np.float32]] | NDArray[np.float32]) -> list[float]:
    """How well each document answers a query: each query token's best match in it, summed.

    Args:
        query: (query tokens, dims).
        documents: several of (tokens, dims), of any lengths; one such array alone is one document.

    Raises:
        ValueError: a document without tokens, or of other dims than the query.
    """
    if isinstance(documents, np.ndarray) and documents.ndim == 2:
        documents = [documents]
    return [_maxsim(query, document) for document in documents]


def maxsim_batch(
    queries: Sequence[NDArray[np.float32]], documents: Sequence[NDArray[np.float32]]
) -> NDArray[np.float32]:
    """(queries, documents) float32: `maxsim` of every pair.

    Raises:
        ValueError: as `maxsim`.
    """
    scores = np.zeros((len(queries), len(documents)), dtype=np.float32)
    for row, query in enumerate(queries):
        for column, document in enumerate(documents):
            scores[row, column] = _maxsim(query, document)
    return scores


def _maxsim(query: NDArray[np.float32], document: NDArray[np.float32]) -> float:
    if document.ndim != 2 or document.shape[0] == 0 or query.shape[-1] != document.shape[-1]:
        raise ValueError(f"cannot compare a query of shape {query.shape} with a document of shape {document.shape}")
    return float((query @ document.T).max(axis=-1).sum())


__all__ = ["maxsim", "maxsim_batch"]
