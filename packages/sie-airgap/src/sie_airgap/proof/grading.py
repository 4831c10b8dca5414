"""How near an answer is to the recorded one. Pure.

Two runs of one model agree bit for bit on one machine; on another CPU, or in another precision, they agree
within an envelope. Anything else is another model; a float32 run that is only as near as bfloat16 would be is
one, too.

    kind         between float32 runs       where one side computes in 16 bits
    dense        every number to 1e-5       cosine 0.9995, and ranked by each other as recorded
    sparse       every weight to 1e-4       cosine 0.995 over the ids of both
    multivector  every number to 1e-5       as many rows, and the cosine of each 0.995
    score        to 1e-4                    to 0.05, or to a twentieth of the largest score recorded
    extract      scores to 1e-4             scores to 0.05

A span that only one side has is as far off as its score is from the threshold.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from sie_airgap.proof.golden_file import (
    Dense,
    Extraction,
    Found,
    Kind,
    Multivector,
    Said,
    Score,
    Sparse,
    Vector,
    kind_of,
)

F32_MAX_ABS: Mapping[Kind, float] = {"dense": 1e-5, "sparse": 1e-4, "multivector": 1e-5, "score": 1e-4, "extract": 1e-4}
"""Weights, scores and logits are not of unit length: a float32 has fewer digits left for them."""
BF16_MIN_COSINE: Mapping[Kind, float] = {"dense": 0.9995, "sparse": 0.995, "multivector": 0.995}
"""One token's vector, and a weight next to zero, are not averaged over a text: six layers wholly in bfloat16 move a row
of MiniLM to 0.9998, and weights cut at zero to 0.9987."""
BF16_MAX_ABS = 0.05
RANK_GAP = 0.02
"""Two scores further apart than this must keep their order; bfloat16 moves a score by about a tenth of it."""

_FAR = float("inf")


class Grade(IntEnum):
    """Best first; the grade of several answers is the worst of them."""

    IDENTICAL = 0
    WITHIN_F32 = 1
    WITHIN_BF16 = 2
    DIFFERENT = 3

    def __str__(self) -> str:
        return {0: "identical", 1: "within float32", 2: "within bfloat16", 3: "different"}[int(self)]


@dataclass(frozen=True)
class Terms:
    """What answers are held to.

    Attributes:
        in_16_bits: whether one side at least computed in bfloat16 or float16.
        scale: the largest score recorded, 1 at least: logits are no probabilities.
        threshold: the least score of an extraction; None: nothing is left out for its score.
    """

    in_16_bits: bool
    scale: float = 1.0
    threshold: float | None = None


@dataclass(frozen=True)
class Graded:
    """One answer: its grade and the figures behind it.

    Attributes:
        cosine: the least, of the kinds that have vectors.
        drift: of a different answer, what is different, with both values.
    """

    grade: Grade
    max_abs: float
    cosine: float | None = None
    drift: tuple[str, ...] = ()


def terms_of(recorded: Sequence[Said], *, in_16_bits: bool, threshold: float | None = None) -> Terms:
    """Of one kind's recorded answers."""
    largest = max((abs(one.score) for one in recorded if isinstance(one, Score)), default=0.0)
    return Terms(in_16_bits, max(largest, 1.0), threshold)


def grade(recorded: Said, now: Said, terms: Terms) -> Graded:
    """Another kind, another shape, or what is no number, is another model."""
    match recorded, now:
        case Dense(), Dense():
            return _arrays("dense", recorded.vector[None], now.vector[None], terms, _at_index)
        case Sparse(), Sparse():
            ids, before, after = _side_by_side(recorded, now)
            return _arrays("sparse", before, after, terms, lambda row, column: f"id {ids[column]}")
        case Multivector(), Multivector():
            return _arrays("multivector", recorded.matrix, now.matrix, terms, _at_row)
        case Score(), Score():
            return _score(recorded.score, now.score, terms)
        case Extraction(), Extraction():
            return _extraction(recorded, now, terms)
        case _:
            return Graded(Grade.DIFFERENT, _FAR, 0.0, (f"{kind_of(recorded)} recorded, {kind_of(now)} here",))


def ranks_hold(recorded: Sequence[Vector], now: Sequence[Vector]) -> bool:
    """Whether answers that were clearly nearer to a third than others still are."""
    before, after = _similarities(recorded), _similarities(now)
    for row_before, row_after in zip(before, after, strict=True):
        gap_before = row_before[:, None] - row_before[None, :]
        gap_after = row_after[:, None] - row_after[None, :]
        if ((gap_before > RANK_GAP) & (gap_after <= 0)).any():
            return False
    return True


def tells_apart(recorded: Sequence[Said], *, threshold: float | None = None) -> bool:
    """The control: whether the grader, at its most lenient, tells the answer to one text from that to another.

    Where it does not, a good grade would mean nothing. Vectors must be told from the next text's; of scores and
    extractions, which may well be alike, some two must be told apart.
    """
    terms = terms_of(recorded, in_16_bits=True, threshold=threshold)
    compared = [_mean(one) if isinstance(one, Multivector) else one for one in recorded if not _is_blank(one)]
    if all(isinstance(one, Score | Extraction) for one in compared):
        return any(_differ(a, b, terms) for index, a in enumerate(compared) for b in compared[:index])
    following = [*compared[1:], *compared[:1]]
    return len(compared) > 1 and all(_differ(a, b, terms) for a, b in zip(compared, following, strict=True))


def _differ(a: Said, b: Said, terms: Terms) -> bool:
    return grade(a, b, terms).grade is Grade.DIFFERENT


def _is_blank(said: Said) -> bool:
    """Of a text whose words the vocabulary does not have: there may be several such texts."""
    return isinstance(said, Sparse) and not said.indices


def _mean(said: Multivector) -> Dense:
    """The number of rows is the tokenizer's, and says nothing of the weights."""
    matrix = said.matrix
    return Dense(matrix.mean(axis=0).astype("<f4").tobytes() if len(matrix) else b"")


def _arrays(kind: Kind, recorded: Vector, now: Vector, terms: Terms, place: Callable[[int, int], str]) -> Graded:
    """Both (rows, columns); `place` says in words where one number stands."""
    if recorded.shape != now.shape:
        return Graded(Grade.DIFFERENT, _FAR, 0.0, (f"{_shape(kind, recorded)} recorded, {_shape(kind, now)} here",))
    if np.array_equal(recorded, now):
        return Graded(Grade.IDENTICAL, 0.0, 1.0)
    apart = np.abs(recorded.astype(np.float64) - now)
    row, column = np.unravel_index(int(np.where(np.isnan(apart), _FAR, apart).argmax()), apart.shape)
    drift = (_both(place(int(row), int(column)), recorded[row, column], now[row, column]),)
    if not np.isfinite(now).all():
        return Graded(Grade.DIFFERENT, _FAR, 0.0, drift)
    max_abs, cosine = float(apart.max()), float(_cosines(recorded, now).min())
    if max_abs <= F32_MAX_ABS[kind]:
        return Graded(Grade.WITHIN_F32, max_abs, cosine)
    if terms.in_16_bits and cosine >= BF16_MIN_COSINE[kind]:
        return Graded(Grade.WITHIN_BF16, max_abs, cosine)
    return Graded(Grade.DIFFERENT, max_abs, cosine, drift)


def _score(recorded: float, now: float, terms: Terms) -> Graded:
    apart = abs(recorded - now) if np.isfinite(now) else _FAR
    found = _by_distance("score", apart, terms, is_same=recorded == now, most=BF16_MAX_ABS * terms.scale)
    drift = (_both("score", recorded, now),) if found is Grade.DIFFERENT else ()
    return Graded(found, apart, drift=drift)


def _extraction(recorded: Extraction, now: Extraction, terms: Terms) -> Graded:
    before, after = _scores(recorded), _scores(now)
    apart = {one: _apart(before.get(one), after.get(one), terms.threshold) for one in {**before, **after}}
    worst = max(apart.values(), default=0.0)
    found = _by_distance("extract", worst, terms, is_same=before == after, most=BF16_MAX_ABS)
    if found is not Grade.DIFFERENT:
        return Graded(found, worst)
    most = BF16_MAX_ABS if terms.in_16_bits else F32_MAX_ABS["extract"]
    drift = tuple(_both(_named(one), before.get(one), after.get(one)) for one in apart if apart[one] > most)
    return Graded(found, worst, drift=drift)


def _by_distance(kind: Kind, apart: float, terms: Terms, *, is_same: bool, most: float) -> Grade:
    if is_same:
        return Grade.IDENTICAL
    if apart <= F32_MAX_ABS[kind]:
        return Grade.WITHIN_F32
    return Grade.WITHIN_BF16 if terms.in_16_bits and apart <= most else Grade.DIFFERENT


def _scores(said: Extraction) -> dict[Found, float]:
    return {found: float(value) for found, value in zip(said.found, said.values, strict=True)}


def _apart(recorded: float | None, now: float | None, threshold: float | None) -> float:
    if recorded is not None and now is not None:
        apart = abs(recorded - now)
    else:
        alone = recorded if recorded is not None else now
        assert alone is not None
        apart = _FAR if threshold is None else abs(alone - threshold)
    return apart if np.isfinite(apart) else _FAR


def _at_index(row: int, column: int) -> str:
    return f"number {column}"


def _at_row(row: int, column: int) -> str:
    return f"row {row}, number {column}"


def _named(found: Found) -> str:
    place = "" if found.start is None else f" `{found.text}` at {found.start} to {found.end}"
    return f"{found.label}{place}"


def _both(what: str, recorded: float | None, now: float | None) -> str:
    first, second = ("nothing" if value is None else f"{value:.6g}" for value in (recorded, now))
    return f"{what}: {first} recorded, {second} here"


def _shape(kind: Kind, array: Vector) -> str:
    rows, columns = array.shape
    return f"{rows} rows of {columns}" if kind == "multivector" else f"{columns} numbers"


def _side_by_side(a: Sparse, b: Sparse) -> tuple[NDArray[np.int32], Vector, Vector]:
    """The ids of both, (n,) ascending, and each one's weights of them, (1, n); 0 where it has none."""
    ids = np.union1d(a.ids, b.ids).astype(np.int32)
    both = []
    for one in (a, b):
        weights = np.zeros((1, len(ids)), np.float32)
        weights[0, np.searchsorted(ids, one.ids)] = one.weights
        both.append(weights)
    return ids, both[0], both[1]


def _similarities(vectors: Sequence[Vector]) -> NDArray[np.float64]:
    matrix = np.stack(vectors).astype(np.float64)
    matrix /= np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12)
    product: NDArray[np.float64] = matrix @ matrix.T
    return product


def _cosines(recorded: Vector, now: Vector) -> NDArray[np.float64]:
    """Of each row with its counterpart; 1 where they are equal, 0 where one of them alone has no length."""
    a, b = recorded.astype(np.float64), now.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = (a * b).sum(axis=1) / np.where(lengths > 0, lengths, 1.0)
    same: NDArray[np.bool_] = (a == b).all(axis=1)
    return np.where(same, 1.0, cosines)
