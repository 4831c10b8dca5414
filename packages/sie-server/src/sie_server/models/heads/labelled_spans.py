"""How well every short run of words fits labels that another network reads: GLiNER's bi-encoders.

Follows gliner 0.2.29 `modeling/encoder.py` (`BiEncoder`) and `modeling/base.py` (`BiEncoderSpanModel`): a label is the
mean of all its tokens, special ones among them. What is of a label alone is computed with the label, so that it is
kept; a span meets it in one product. Spans under the threshold are dropped here: a call may have many labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sie_server.models.calls import Asked
from sie_server.models.heads.head import Pass, X
from sie_server.models.heads.spans import ENDS, LABELS, OFFSETS, STARTS, met, narrowed, output_labels, output_words
from sie_server.models.heads.words import WORD_ROWS
from sie_server.models.ops.protocol import Ops

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

MOST_CANDIDATES = 100_000
"""Spans over the threshold, of one text; more are no answer to anything."""


@dataclass(frozen=True)
class Candidates:
    """The spans of a text that are over the threshold, by their first word, length and label.

    Attributes:
        first: (n,) the first word; `last` the last one, inclusive; `label` by its number.
        scores: (n,).
    """

    first: Ints
    last: Ints
    label: Ints
    scores: Floats


@dataclass(frozen=True)
class LabelledSpans:
    """See `head.Head`; gives `Output.spans`: `Candidates`, or None where there are too many.

    Attributes:
        width: of the backbone's hidden state.
        size: of everything after it.
        max_width: most words of a span.
        max_words: of a text; the others are left out.
    """

    width: int
    size: int
    max_width: int
    max_words: int

    def build(self, ops: Ops[X], hidden: X) -> None:
        hidden = narrowed(ops, hidden, "token_rep_layer.projection", self.width, self.size)
        output_words(ops, ops.gather(hidden, ops.feed(WORD_ROWS)), self.size)

    def read(self, done: Pass) -> Sequence[Candidates | None]:
        found: list[Candidates | None] = []
        word = 0
        for item in done.items:
            words = 0 if item.words is None else int((item.words > 0).sum())
            starts, ends = (done.arrays[name][word : word + words] for name in (STARTS, ENDS))
            assert item.asked is not None
            found.append(self._candidates(starts, ends, item.asked))
            word += words
        return found

    def _candidates(self, starts: Floats, ends: Floats, asked: Asked) -> Candidates | None:
        assert asked.vectors is not None
        vectors, offsets = asked.vectors[:, :-1], asked.vectors[:, -1]
        parts: list[tuple[Ints, Ints, Ints, Floats]] = []
        count = 0
        for more in range(min(self.max_width, len(starts))):
            scores = sigmoid(met(starts, ends, more) @ vectors.T + offsets)
            first, label = (at.astype(np.int32) for at in np.nonzero(scores > np.float32(asked.threshold)))
            parts.append((first, first + np.int32(more), label, scores[first, label]))
            count += len(first)
            if count > MOST_CANDIDATES:
                return None
        if not parts:
            none = np.zeros(0, np.int32)
            return Candidates(none, none, none, np.zeros(0, np.float32))
        first, last, label = (np.concatenate([part[at] for part in parts]) for at in range(3))
        order = np.lexsort((label, last, first))
        scores = np.concatenate([part[3] for part in parts])
        return Candidates(first[order], last[order], label[order], scores[order])


@dataclass(frozen=True)
class LabelVectors:
    """See `head.Head`, of the labels' network; gives `Output.spans`: (4 · size + 1,), the last what is added.

    Attributes:
        width: of the hidden state.
        size: of the vectors that labels and spans share.
    """

    width: int
    size: int

    def build(self, ops: Ops[X], hidden: X) -> None:
        labels = ops.item_mean(hidden)
        labels = narrowed(ops, labels, "token_rep_layer.labels_projection", self.width, self.size)
        output_labels(ops, labels, self.size)

    def read(self, done: Pass) -> Sequence[Floats]:
        items = len(done.items)
        vectors, offsets = done.arrays[LABELS][:items], done.arrays[OFFSETS][:items]
        return list(np.concatenate([vectors, offsets.sum(1, keepdims=True)], axis=1))


def sigmoid(logits: Floats) -> Floats:
    # By the exponential of what is not positive: of the other it may be infinite.
    falling = np.exp(-np.abs(logits))
    scores: Floats = (np.where(logits >= 0, np.float32(1), falling) / (np.float32(1) + falling)).astype(np.float32)
    return scores
