"""Where the labels and the text of a GLiClass's sequences stand, as what is fed with a batch. Pure numpy.

Follows gliclass 0.1.21 `model.py` (`_extract_class_features`).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sie_server.models.ops.plan import MASKED, Feed, Plan

_ROUNDED_TO: Final = 8
"""An engine keeps something for every number of rows that it has met."""

Ints = NDArray[np.int32]


@dataclass(frozen=True)
class Marks:
    """The tokens that say it; N is the labels of a batch, rounded up.

    Attributes:
        label: the token before each label.
        text: the token that a text begins with; None: all of the sequence is its text.
        own: whether a label's own token is part of it.
    """

    label: int
    text: int | None
    own: bool

    @cached_property
    def rows(self) -> Feed:
        """(N,): the token that a label is, its own or the one after it."""
        return Feed("label_rows", (-1,), np.int32, lambda plan: self._padded(self._at(plan) + np.int32(not self.own)))

    @cached_property
    def tokens(self) -> Feed:
        """(N,): its own token."""
        return Feed("label_tokens", (-1,), np.int32, lambda plan: self._padded(self._at(plan)))

    @cached_property
    def items(self) -> Feed:
        """(N,): the item that a label is of."""
        return Feed("label_items", (-1,), np.int32, lambda plan: self._padded(_items(plan, self._at(plan))))

    @cached_property
    def of_tokens(self) -> Feed:
        """(T,): which label's own token a token is; the first's where it is none."""
        return Feed("labels_of_tokens", (-1,), np.int32, self._of_tokens)

    @cached_property
    def shares(self) -> Feed:
        """(N, T): of each token in its label's mean."""
        return Feed("label_shares", (-1, -1), np.float32, self._shares)

    @cached_property
    def texts(self) -> Feed:
        """(S,): where each text begins; with its item where there is no token for it."""
        return Feed("text_rows", (-1,), np.int32, self._texts)

    @cached_property
    def segments(self) -> Feed:
        """(T,): 0 of a token before its text, 1 from there on."""
        return Feed("segments", (-1,), np.int32, self._segments)

    @cached_property
    def unread(self) -> Feed:
        """(S, 1, 1, G): to add to attention, so that only texts are seen."""
        return Feed("unread", (-1, 1, 1, -1), np.float32, self._unread)

    def _at(self, plan: Plan) -> Ints:
        return np.flatnonzero(plan.tokens.ids == self.label).astype(np.int32)

    def _padded(self, rows: Ints) -> Ints:
        padded = np.zeros(max(_round_up(len(rows)), _ROUNDED_TO), np.int32)
        padded[: len(rows)] = rows
        return padded

    def _of_tokens(self, plan: Plan) -> Ints:
        at = self._at(plan)
        which = np.zeros(len(plan.ids), np.int32)
        which[at] = np.arange(len(at), dtype=np.int32)
        return which

    def _shares(self, plan: Plan) -> NDArray[np.float32]:
        at, starts = self._at(plan), plan.tokens.starts
        items = _items(plan, at)
        ends = starts[1:][items]
        ends[:-1] = np.minimum(ends[:-1], at[1:])
        if self.text is not None:
            # From a text's own token on nothing is a label's, not even what follows a label's token there.
            first = self._texts(plan)[items]
            marked = plan.tokens.ids[first] == self.text
            ends = np.where(marked, np.clip(first, at, ends), ends)
        begins = at + np.int32(not self.own)
        shares = np.zeros((max(_round_up(len(at)), _ROUNDED_TO), len(plan.ids)), np.float32)
        for row, (begin, end) in enumerate(zip(begins, ends, strict=True)):
            shares[row, begin:end] = np.float32(1) / np.float32(max(end - begin, 1))
        return shares

    def _texts(self, plan: Plan) -> Ints:
        starts = plan.tokens.starts
        at = np.flatnonzero(plan.tokens.ids == self.text).astype(np.int32)
        first = np.searchsorted(at, starts[:-1])
        found = np.append(at, starts[-1])[first]
        return np.where(found < starts[1:], found, starts[:-1]).astype(np.int32)

    def _segments(self, plan: Plan) -> Ints:
        segments = np.zeros(len(plan.ids), np.int32)
        for first, end in zip(self._texts(plan), plan.tokens.starts[1:], strict=True):
            segments[first:end] = 1
        return segments

    def _unread(self, plan: Plan) -> NDArray[np.float32]:
        begins = self._texts(plan) - plan.tokens.starts[:-1]
        hidden = np.arange(plan.grid, dtype=np.int32) < begins[:, None]
        return np.where(hidden, MASKED, np.float32(0))[:, None, None, :]


def _items(plan: Plan, at: Ints) -> Ints:
    return (np.searchsorted(plan.tokens.starts, at, side="right") - 1).astype(np.int32)


def _round_up(size: int) -> int:
    return -(-size // _ROUNDED_TO) * _ROUNDED_TO
