"""How near an answer is to the recorded one. Pure.

Two runs of one model agree bit for bit on one machine; on another CPU, or in another precision, they agree
within an envelope: 1e-5 at most between float32 runs, a cosine of 0.9995 at least where one side computes in
bfloat16, whose answers must also rank each other as the recorded ones do. Anything else is another model; a
float32 run that is only as near as bfloat16 would be is one, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

F32_MAX_ABS = 1e-5
BF16_MIN_COSINE = 0.9995
RANK_GAP = 0.02
"""Two scores further apart than this must keep their order; bfloat16 moves a score by about a tenth of it."""

Vector = NDArray[np.float32]


class Grade(IntEnum):
    """Best first; the grade of several answers is the worst of them."""

    IDENTICAL = 0
    WITHIN_F32 = 1
    WITHIN_BF16 = 2
    DIFFERENT = 3

    def __str__(self) -> str:
        return {0: "identical", 1: "within float32", 2: "within bfloat16", 3: "different"}[int(self)]


@dataclass(frozen=True)
class Graded:
    """One answer: its grade and the two figures behind it."""

    grade: Grade
    max_abs: float
    cosine: float


def grade(recorded: Vector, now: Vector, *, in_bf16: bool) -> Graded:
    """Both (dims,) float32. Another length, or what is no number, is another model.

    Args:
        in_bf16: whether one side at least computed in bfloat16.
    """
    if recorded.shape != now.shape or not np.isfinite(now).all():
        return Graded(Grade.DIFFERENT, float("inf"), 0.0)
    if np.array_equal(recorded, now):
        return Graded(Grade.IDENTICAL, 0.0, 1.0)
    max_abs = float(np.abs(recorded.astype(np.float64) - now).max())
    cosine = _cosine(recorded, now)
    if max_abs <= F32_MAX_ABS:
        return Graded(Grade.WITHIN_F32, max_abs, cosine)
    return Graded(Grade.WITHIN_BF16 if in_bf16 and cosine >= BF16_MIN_COSINE else Grade.DIFFERENT, max_abs, cosine)


def ranks_hold(recorded: Sequence[Vector], now: Sequence[Vector]) -> bool:
    """Whether answers that were clearly nearer to a third than others still are."""
    before, after = _similarities(recorded), _similarities(now)
    for row_before, row_after in zip(before, after, strict=True):
        gap_before = row_before[:, None] - row_before[None, :]
        gap_after = row_after[:, None] - row_after[None, :]
        if ((gap_before > RANK_GAP) & (gap_after <= 0)).any():
            return False
    return True


def tells_apart(recorded: Sequence[Vector]) -> bool:
    """The control: whether the grader, at its most lenient, tells the answer to one text from that to the next.

    Where it does not, a good grade would mean nothing.
    """
    following = [*recorded[1:], *recorded[:1]]
    return len(recorded) > 1 and all(
        grade(a, b, in_bf16=True).grade is Grade.DIFFERENT for a, b in zip(recorded, following, strict=True)
    )


def _similarities(vectors: Sequence[Vector]) -> NDArray[np.float64]:
    matrix = np.stack(vectors).astype(np.float64)
    matrix /= np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12)
    product: NDArray[np.float64] = matrix @ matrix.T
    return product


def _cosine(a: Vector, b: Vector) -> float:
    lengths = float(np.linalg.norm(a.astype(np.float64)) * np.linalg.norm(b.astype(np.float64)))
    return float(np.dot(a.astype(np.float64), b)) / lengths if lengths else 0.0
