"""From a spans head's logits to the spans that are kept: the best first, none that crosses another. Pure numpy.

Follows gliner 0.2.29 `decoding/decoder.py` (`SpanDecoder`, `TokenDecoder`, `greedy_search`) and `decoding/utils.py`,
to the order of equal scores. What is taken is marked in a table, so that many candidates cost what they are and not
their square.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sie_server.models.heads.labelled_spans import MOST_CANDIDATES, Candidates, sigmoid

__all__ = ["MOST_CANDIDATES", "Span", "TooManyError", "kept", "sigmoid", "spans_of", "spans_of_tokens", "spans_over"]

Floats = NDArray[np.float32]


class TooManyError(ValueError):
    """So many spans are over the threshold."""


@dataclass(frozen=True)
class Span:
    """Words `first` to `last`, inclusive; `label` by its number."""

    first: int
    last: int
    label: int
    score: float


def spans_of(logits: Floats, threshold: float) -> list[Span]:
    """(words, widths, labels) → those over the threshold, in the logits' order."""
    scores = sigmoid(logits)
    first, more, label = np.nonzero(scores > np.float32(threshold))
    _check(len(first))
    over = scores[first, more, label]
    return [
        Span(*one) for one in zip(first.tolist(), (first + more).tolist(), label.tolist(), over.tolist(), strict=True)
    ]


def spans_of_tokens(logits: Floats, threshold: float) -> list[Span]:
    """(words, labels, 3) → those whose first and last word and all between are over the threshold."""
    scores, least = sigmoid(logits), np.float32(threshold)
    starts, ends, inside = scores[..., 0], scores[..., 1], scores[..., 2]
    found: list[Span] = []
    for first, label in np.argwhere(starts > least).tolist():
        broken = np.flatnonzero(inside[first:, label] < least)
        until = first + int(broken[0]) if len(broken) else len(scores)
        last = first + np.flatnonzero(ends[first:until, label] > least)
        _check(len(found) + len(last))
        lowest = np.minimum.accumulate(inside[first:until, label])
        for one in last.tolist():
            score = min(lowest[one - first], starts[first, label], ends[one, label])
            found.append(Span(first, one, label, float(score)))
    return found


def spans_over(found: Candidates | None) -> list[Span]:
    """The spans that a head found to be over the threshold; None: too many."""
    if found is None:
        raise TooManyError
    columns = (found.first, found.last, found.label, found.scores)
    return [Span(*one) for one in zip(*(column.tolist() for column in columns), strict=True)]


def kept(spans: Sequence[Span], words: int, *, flat: bool, multi_label: bool) -> list[Span]:
    """Greedily the best, in the order of their first words.

    Args:
        flat: no two share a word; else one may be within another.
        multi_label: one run of words may be several labels' spans.
    """
    taken = np.zeros((words, words), bool)
    found: list[Span] = []
    for span in sorted(spans, key=lambda one: -one.score):
        first, last = span.first, span.last
        same = taken[first, last]
        taken[first, last] = False
        if flat:
            met = taken[: last + 1, first:].any()
        else:
            met = taken[:first, first:last].any() or taken[first + 1 : last + 1, last + 1 :].any()
        free = not met and (multi_label or not same)
        taken[first, last] = same or free
        if free:
            found.append(span)
    return sorted(found, key=lambda one: one.first)


def _check(candidates: int) -> None:
    if candidates > MOST_CANDIDATES:
        raise TooManyError
