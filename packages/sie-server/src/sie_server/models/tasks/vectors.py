"""Scores from a model's own vectors: cosine, weights of shared ids, the largest of each query token's, or all three.

Follows FlagEmbedding 1.4 `finetune/embedder/encoder_only/m3/modeling.py` (`compute_…_score`) for a model with all
three, whose MaxSim is a mean; elsewhere it is the sum that pylate 1.6 `scores/scores.py` and the SDK's `maxsim` make.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sie_core.errors import ApiError
from sie_core.wire.messages import OutputType
from sie_server.models.calls import Encode, Output, Prepared, Result, Score, SparseVector
from sie_server.models.heads.pooled import normalized
from sie_server.models.tasks.encode import EncodeTexts

QUERY: Final = -1
MODES: Final[Mapping[str, OutputType]] = {"dense": "dense", "sparse": "sparse", "colbert": "multivector"}
HYBRID: Final = "hybrid"
WEIGHTS: Final[Mapping[str, float]] = {"dense": 0.4, "sparse": 0.2, "colbert": 0.4}

# A variant's `muvera` says what its vectors are; a score is of the multivectors that they are made of.
_OWN: Final = ("score_mode", "score_weights", "muvera")


@dataclass(frozen=True)
class ScoreVectors:
    """See `task.Task`, for `Score`; query and items are a sequence each, all of one call."""

    encode: EncodeTexts

    def prepare(self, call: Score) -> list[Prepared]:
        outputs = tuple(MODES[mode] for mode in self._weights(call.options))
        options = {name: value for name, value in call.options.items() if name not in _OWN}
        shared = {"outputs": outputs, "instruction": call.instruction, "options": options, "variant": call.variant}
        query = self.encode.prepare(Encode(inputs=(call.query,), is_query=True, **shared))  # type: ignore[arg-type]
        items = self.encode.prepare(Encode(inputs=call.inputs, **shared))  # type: ignore[arg-type]
        return [_as_query(query[0]), *items]

    def finish(self, call: Score, prepared: Sequence[Prepared], outputs: Sequence[Output | ApiError]) -> list[Result]:
        weights = self._weights(call.options)
        query, *items = outputs
        if isinstance(query, ApiError):
            return [query] * len(items)
        is_mean = len(self._have) == len(MODES)
        return [item if isinstance(item, ApiError) else _score(query, item, weights, is_mean=is_mean) for item in items]

    @property
    def _have(self) -> list[str]:
        return [mode for mode, output in MODES.items() if output in self.encode.dims]

    def _weights(self, options: Mapping[str, object]) -> dict[str, float]:
        """Of each mode that counts; one alone counts as it is.

        Raises:
            ApiError: a mode that there is not, or that the model cannot have; weights that are none.
        """
        have = self._have
        # A score of every kind is bge-m3's alone; a ColBERT's is of its only vectors.
        modes = [*have, HYBRID] if len(have) == len(MODES) else have
        mode = options.get("score_mode", have[0])
        if mode not in modes:
            known = ", ".join(f"`{one}`" for one in modes)
            raise ApiError("INVALID_INPUT", f"`score_mode` is `{mode}`, and model `{self.encode.name}` has {known}")
        given = _given(options.get("score_weights", {}))
        if mode != HYBRID:
            return {str(mode): 1.0}
        weights = {**WEIGHTS, **given}
        if not any(weights.values()):
            raise ApiError("INVALID_INPUT", "`score_weights` are all 0: want one above it")
        return {name: weight for name, weight in weights.items() if weight}


def _given(weights: object) -> dict[str, float]:
    known = ", ".join(f"`{name}`" for name in WEIGHTS)
    if not isinstance(weights, Mapping):
        raise ApiError("INVALID_INPUT", f"`score_weights` is `{weights}`: want a map over {known}")
    for name, weight in weights.items():
        if name not in WEIGHTS:
            raise ApiError("INVALID_INPUT", f"`score_weights` has `{name}`: known are {known}")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
            raise ApiError("INVALID_INPUT", f"`score_weights.{name}` is `{weight}`: want a number from 0 on")
    return {str(name): float(weight) for name, weight in weights.items()}


def _as_query(one: Prepared) -> Prepared:
    return replace(one, item=QUERY)


def _score(query: Output, item: Output, weights: Mapping[str, float], *, is_mean: bool) -> float:
    total = 0.0
    for mode, weight in weights.items():
        if mode == "dense" and query.dense is not None and item.dense is not None:
            found = float(normalized(query.dense) @ normalized(item.dense))
        elif mode == "sparse" and query.sparse is not None and item.sparse is not None:
            found = _shared(query.sparse, item.sparse)
        else:
            assert query.multivector is not None
            assert item.multivector is not None
            similarity = _mean_similarity if is_mean else _similarity
            found = similarity(query.multivector, item.multivector)
        total += weight * found
    return total


def _shared(query: SparseVector, item: SparseVector) -> float:
    _, ours, theirs = np.intersect1d(query.indices, item.indices, assume_unique=True, return_indices=True)
    return float(query.values[ours] @ item.values[theirs])


def _similarity(query: NDArray[np.float32], item: NDArray[np.float32]) -> float:
    """Of each of the query's vectors the largest product, summed; 0 where one side has none."""
    if not len(query) or not len(item):
        return 0.0
    return float((query @ item.T).max(axis=1).sum())


def _mean_similarity(query: NDArray[np.float32], item: NDArray[np.float32]) -> float:
    """Likewise of vectors of length 1, divided by how many the query has: bge-m3's, beside a cosine in one score."""
    return _similarity(normalized(query), normalized(item)) / max(len(query), 1)
