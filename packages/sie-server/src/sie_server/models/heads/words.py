"""Where the words, the labels and their pairs of a batch stand, as what is fed with it. Pure numpy.

A word is the first token of one; a label is the marker before it, or the token after that.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sie_server.models.ops.plan import Feed, Plan

_ROUNDED_TO: Final = 8
"""An engine keeps something for every number of rows that it has met."""

Ints = NDArray[np.int32]


def word_counts(starts: NDArray[Any], words: NDArray[Any] | None) -> Ints:
    """(items,): how many words each has, of the tokens' `TokenBatch.words`."""
    if words is None:
        return np.zeros(len(starts) - 1, np.int32)
    return np.add.reduceat((words > 0).astype(np.int32), starts[:-1])


def _rows(plan: Plan) -> Ints:
    words = plan.tokens.words
    return np.zeros(0, np.int32) if words is None else np.flatnonzero(words > 0).astype(np.int32)


def _grid(plan: Plan, *, turned: bool) -> tuple[Ints, Ints]:
    """(S, G) which word is in a cell, and (W,) which cell a word is in; `turned`: the last word first."""
    counts = word_counts(plan.tokens.starts, plan.tokens.words)
    width = max(_round_up(int(counts.max())), _ROUNDED_TO)
    grid, cells = np.zeros((len(counts), width), np.int32), np.zeros(int(counts.sum()), np.int32)
    first = 0
    for item, count in enumerate(counts.tolist()):
        there = np.arange(first, first + count, dtype=np.int32)
        grid[item, :count] = there[::-1] if turned else there
        at = np.arange(count, dtype=np.int32)
        cells[first : first + count] = item * width + (at[::-1] if turned else at)
        first += count
    return grid, padded(cells)


def padded(rows: Ints) -> Ints:
    filled = np.zeros(max(_round_up(len(rows)), _ROUNDED_TO), np.int32)
    filled[: len(rows)] = rows
    return filled


def _round_up(size: int) -> int:
    return -(-size // _ROUNDED_TO) * _ROUNDED_TO


WORD_ROWS: Final = Feed("word_rows", (-1,), np.int32, lambda plan: padded(_rows(plan)))
"""(W,): the token of each word."""

WORD_GRID: Final = Feed("word_grid", (-1, -1), np.int32, lambda plan: _grid(plan, turned=False)[0])
TURNED_GRID: Final = Feed("turned_grid", (-1, -1), np.int32, lambda plan: _grid(plan, turned=True)[0])
WORD_CELLS: Final = Feed("word_cells", (-1,), np.int32, lambda plan: _grid(plan, turned=False)[1])
TURNED_CELLS: Final = Feed("turned_cells", (-1,), np.int32, lambda plan: _grid(plan, turned=True)[1])


@dataclass(frozen=True)
class Labels:
    """`marker`: the token before each label; `own`: whether it is the label, and not the one after it."""

    marker: int
    own: bool

    @cached_property
    def rows(self) -> Feed:
        """(N,): the token that is each label."""
        return Feed("label_rows", (-1,), np.int32, lambda plan: padded(self._at(plan)))

    @cached_property
    def pair_words(self) -> Feed:
        """(P,): the word of every pair of a word and a label of one item, in that order."""
        return Feed("pair_words", (-1,), np.int32, lambda plan: padded(self._pairs(plan)[0]))

    @cached_property
    def pair_labels(self) -> Feed:
        """(P,): its label."""
        return Feed("pair_labels", (-1,), np.int32, lambda plan: padded(self._pairs(plan)[1]))

    def counts(self, ids: Ints, starts: NDArray[Any]) -> Ints:
        """(items,): how many labels each has."""
        return np.add.reduceat((ids == self.marker).astype(np.int32), starts[:-1])

    def _at(self, plan: Plan) -> Ints:
        return np.flatnonzero(plan.tokens.ids == self.marker).astype(np.int32) + np.int32(not self.own)

    def _pairs(self, plan: Plan) -> tuple[Ints, Ints]:
        words = word_counts(plan.tokens.starts, plan.tokens.words).tolist()
        labels = self.counts(plan.tokens.ids, plan.tokens.starts).tolist()
        of_words, of_labels, word, label = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)], 0, 0
        for some_words, some_labels in zip(words, labels, strict=True):
            of_words.append(np.repeat(np.arange(word, word + some_words, dtype=np.int32), some_labels))
            of_labels.append(np.tile(np.arange(label, label + some_labels, dtype=np.int32), some_words))
            word, label = word + some_words, label + some_labels
        return np.concatenate(of_words), np.concatenate(of_labels)
