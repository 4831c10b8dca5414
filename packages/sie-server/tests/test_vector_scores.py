"""Scores of a model's own vectors: sums and means of MaxSim, shared ids, and what may be asked of which model."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_core.errors import ApiError
from sie_core.wire.messages import OutputType
from sie_sdk.scoring import maxsim
from sie_server.models.calls import Output, Score, SparseVector
from sie_server.models.heads.pooled import normalized
from sie_server.models.prompts import Prompts
from sie_server.models.tasks.encode import EncodeTexts
from sie_server.models.tasks.vectors import ScoreVectors
from sie_server.models.tokenizing import Tokenized

OF_ALL: Mapping[OutputType, int] = {"dense": 4, "sparse": 30, "multivector": 8}


class Letters:
    vocabulary = 26

    def __call__(self, texts: Any) -> list[Tokenized]:
        return [Tokenized(np.array([ord(letter) - 97 for letter in text], np.int32), False) for text in texts]


def task(dims: Mapping[OutputType, int]) -> ScoreVectors:
    return ScoreVectors(EncodeTexts("acme/model", dims, Letters(), {None: Prompts(None, None, None)}, True))


def rows(seed: int, count: int, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


def output(seed: int, count: int) -> Output:
    indices = np.unique(np.random.default_rng(seed).integers(0, 30, 20)).astype(np.int32)
    sparse = SparseVector(indices, np.abs(rows(seed, 1, len(indices))[0]), 30)
    return Output(dense=normalized(rows(seed, 1, 4)[0]), sparse=sparse, multivector=rows(seed, count))


def scores(dims: Mapping[OutputType, int], outputs: list[Output], **options: object) -> list[float]:
    call = Score("a", ("b",) * (len(outputs) - 1), options=options)
    scorer = task(dims)
    return [float(one) for one in scorer.finish(call, scorer.prepare(call), outputs)]  # type: ignore[arg-type]


@given(st.integers(1, 9), st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_of_a_colbert_a_score_is_the_sum_that_the_client_computes(query: int, items: list[int]) -> None:
    outputs = [output(seed, count) for seed, count in enumerate([query, *items])]
    first, *others = [one.multivector for one in outputs]
    assert first is not None

    wanted = maxsim(first, [one for one in others if one is not None])
    assert scores({"multivector": 8}, outputs) == pytest.approx(wanted, abs=1e-4)


def test_beside_other_vectors_it_is_the_mean_of_directions() -> None:
    outputs = [output(seed, count) for seed, count in enumerate([3, 5])]
    query, item = (normalized(one.multivector) for one in outputs if one.multivector is not None)

    assert scores(OF_ALL, outputs, score_mode="colbert") == pytest.approx([maxsim(query, item)[0] / 3], abs=1e-5)


def test_a_text_without_vectors_answers_nothing() -> None:
    assert scores({"multivector": 8}, [output(0, 0), output(1, 3)]) == [0.0]
    assert scores(OF_ALL, [output(0, 3), output(1, 0)], score_mode="colbert") == [0.0]


def test_weights_that_are_left_out_stay_as_they_are_by_default() -> None:
    outputs = [output(0, 3), output(1, 4)]
    dense, sparse, colbert = (scores(OF_ALL, outputs, score_mode=mode)[0] for mode in ("dense", "sparse", "colbert"))
    hybrid = {"score_mode": "hybrid"}

    assert scores(OF_ALL, outputs) == [dense]
    assert scores(OF_ALL, outputs, **hybrid) == pytest.approx([0.4 * dense + 0.2 * sparse + 0.4 * colbert])
    weighed = scores(OF_ALL, outputs, **hybrid, score_weights={"dense": 0, "sparse": 2})
    assert weighed == pytest.approx([2 * sparse + 0.4 * colbert])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"score_mode": "maxsim"}, "`score_mode` is `maxsim`, and model `acme/model` has `dense`, `sparse`, `colbert`"),
        ({"score_mode": ["dense"]}, "`score_mode` is"),
        ({"score_weights": [1]}, "want a map over `dense`, `sparse`, `colbert`"),
        ({"score_weights": {"lexical": 1}}, "`score_weights` has `lexical`: known are"),
        ({"score_weights": {"dense": True}}, "`score_weights.dense` is `True`: want a number from 0 on"),
        ({"score_weights": {"dense": -0.1}}, "`score_weights.dense` is `-0.1`"),
        ({"score_weights": {"sparse": "1"}}, "`score_weights.sparse` is `1`"),
        ({"score_weights": {"sparse": float("nan")}}, "`score_weights.sparse` is `nan`"),
        ({"score_weights": {"colbert": float("inf")}}, "`score_weights.colbert` is `inf`"),
        (
            {"score_mode": "hybrid", "score_weights": {"dense": 0, "sparse": 0, "colbert": 0}},
            "`score_weights` are all 0: want one above it",
        ),
    ],
)
def test_what_is_asked_amiss_is_refused_by_name(options: dict[str, object], said: str) -> None:
    with pytest.raises(ApiError) as refused:
        task(OF_ALL).prepare(Score("a", ("b",), options=options))

    assert refused.value.code == "INVALID_INPUT"
    assert said in refused.value.message


@pytest.mark.parametrize("mode", ["dense", "hybrid"])
def test_a_colbert_has_one_kind_of_score(mode: str) -> None:
    with pytest.raises(ApiError, match="and model `acme/model` has `colbert`"):
        task({"multivector": 8}).prepare(Score("a", ("b",), options={"score_mode": mode}))


def test_a_variant_whose_vectors_are_encoded_still_scores() -> None:
    outputs = [output(0, 3), output(1, 4)]

    assert scores({"multivector": 8}, outputs, muvera={}) == scores({"multivector": 8}, outputs)
