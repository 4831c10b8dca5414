"""Named stretches of a text, by a model that reads the labels before it, or apart: GLiNER.

Follows gliner 0.2.29 `model.py` (`inference`), `data_processing/processor.py` and `tokenizer.py`
(`WhitespaceTokenSplitter`). Two differences: a word that the tokenizer makes nothing of, or that is past the longest
sequence, is left out, where gliner gives its place to the next and a vector of zeros to the last; and labels that leave
no room for a text, or a label that is longer than its network takes, are refused, where gliner cuts them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sie_core.errors import ApiError
from sie_server.models.calls import Asked, Entity, Extract, Extracted, Output, Prepared, Result
from sie_server.models.heads.labelled_spans import Candidates, LabelledSpans
from sie_server.models.heads.spans import TOKEN_LEVEL, Spans
from sie_server.models.tasks.decoding import (
    MOST_CANDIDATES,
    Span,
    TooManyError,
    kept,
    spans_of,
    spans_of_tokens,
    spans_over,
)
from sie_server.models.tasks.task import flag, fraction, refuse_unknown_options, texts_of
from sie_server.models.tokenizing import Located, TextTokenizer

_WORD: Final = re.compile(r"\w+(?:[-_]\w+)*|\S")

_MOST_LABELS: Final = 1_024
"""Of labels that are read apart: the others must fit into a sequence. What a batch's spans and so many labels have
in common is computed at once."""

_THRESHOLD: Final = "threshold"
_FLAT: Final = "flat_ner"
_MULTI_LABEL: Final = "multi_label"
_MERGE: Final = "merge_adjacent_entities"


@dataclass(frozen=True)
class _Settings:
    threshold: float
    flat: bool
    multi_label: bool
    merge: bool


@dataclass(frozen=True)
class _Text:
    """`places`: (words, 2), first character and the one after the last, of the words that have a token."""

    text: str
    places: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class ExtractSpans:
    """See `task.Task`, for `Extract`.

    Attributes:
        name: the model's id, for messages.
        tokenizer: words to ids.
        head: what the network has.
        threshold: what a span's score must be over, where a call does not say.
        multi_label: whether one run of words may be several labels', likewise.
        merge: whether neighbouring spans of one label become one, likewise; its score is that of the first.
        labels: labels to ids, where another network reads them.
    """

    name: str
    tokenizer: TextTokenizer
    head: Spans | LabelledSpans
    threshold: float
    multi_label: bool
    merge: bool
    labels: TextTokenizer | None = None

    def prepare(self, call: Extract) -> list[Prepared]:
        """One sequence for each item that is not blank: the labels, unless they are read apart, and its words."""
        settings = self._settings(call)
        self._check_labels(call)
        prompt, asked = self._prompt(call.labels), self._asked(call.labels, settings)
        texts = [(index, text) for index, text in enumerate(texts_of(self.name, call.inputs)) if text.strip()]
        places = [[match.span() for match in _WORD.finditer(text)] for _, text in texts]
        words = [
            [*prompt, *(text[start:end] for start, end in some[: self.head.max_words])]
            for (_, text), some in zip(texts, places, strict=True)
        ]
        return [
            self._prepared(index, text, some, found, len(prompt), asked)
            for (index, text), some, found in zip(texts, places, self.tokenizer.words(words), strict=True)
        ]

    def finish(self, call: Extract, prepared: Sequence[Prepared], outputs: Sequence[Output | ApiError]) -> list[Result]:
        settings, labels = self._settings(call), tuple(dict.fromkeys(call.labels))
        results: list[Result] = [Extracted()] * len(call.inputs)
        for one, output in zip(prepared, outputs, strict=True):
            found = output if isinstance(output, ApiError) else self._entities(one, output, labels, settings)
            results[one.item] = found
        return results

    def _check_labels(self, call: Extract) -> None:
        if not call.labels:
            raise ApiError(
                "INVALID_INPUT",
                f"model `{self.name}` looks for what `params.labels` names, and it is empty",
                'send `params.labels`, such as `["person", "city"]`',
            )
        for index, label in enumerate(call.labels):
            if not label.strip():
                raise ApiError("INVALID_INPUT", f"`params.labels[{index}]` is blank: want a name")

    def _prompt(self, labels: Sequence[str]) -> list[str]:
        """The words before every text."""
        if isinstance(self.head, LabelledSpans):
            return []
        for index, label in enumerate(labels):
            for mark in (self.head.entity, self.head.separator):
                if mark in label:
                    message = f"`params.labels[{index}]` has `{mark}` in it, which says where a label begins or ends"
                    raise ApiError("INVALID_INPUT", message)
        return [*(word for label in dict.fromkeys(labels) for word in (self.head.entity, label)), self.head.separator]

    def _asked(self, labels: Sequence[str], settings: _Settings) -> Asked | None:
        if self.labels is None:
            return None
        distinct = list(dict.fromkeys(labels))
        if len(distinct) > _MOST_LABELS:
            raise ApiError(
                "INVALID_INPUT",
                f"`params.labels` has {len(distinct):,} labels: model `{self.name}` takes {_MOST_LABELS:,} a call",
                "send the texts again for the others",
            )
        tokens = self.labels(distinct)
        for label, one in zip(distinct, tokens, strict=True):
            if one.truncated:
                raise ApiError(
                    "INVALID_INPUT",
                    f"`params.labels[{labels.index(label)}]` has more than the {len(one.ids)} tokens that model "
                    f"`{self.name}` takes of a label",
                    "want a shorter one",
                )
        return Asked(tuple(one.ids for one in tokens), settings.threshold)

    def _prepared(
        self, item: int, text: str, places: list[tuple[int, int]], found: Located, prompt: int, asked: Asked | None
    ) -> Prepared:
        """Of a text whose words begin at number `prompt` of those tokenised."""
        begins = np.flatnonzero((found.words >= prompt) & (np.diff(found.words, prepend=-1) != 0))
        if prompt and found.truncated and not len(begins):
            raise ApiError(
                "INVALID_INPUT",
                f"the {prompt // 2} labels leave no room for a text in the {len(found.ids)} tokens that model "
                f"`{self.name}` takes",
                "want fewer labels or shorter ones",
            )
        ids = self._unmarked(found.ids, found.words, prompt)
        words = np.zeros(len(ids), np.int32)
        words[begins] = np.arange(1, len(begins) + 1, dtype=np.int32)
        seen = tuple(places[index] for index in (found.words[begins] - prompt).tolist())
        truncated = found.truncated or len(places) > self.head.max_words
        return Prepared(ids, truncated, ("spans",), item, words=words, asked=asked, detail=_Text(text, seen))

    def _unmarked(self, ids: NDArray[np.int32], words: NDArray[np.int32], prompt: int) -> NDArray[np.int32]:
        """A marker that a text has in it is no label."""
        if isinstance(self.head, LabelledSpans):
            return ids
        there = (ids == self.head.labels.marker) & (words >= prompt)
        if there.any():
            raise ApiError(
                "INVALID_INPUT",
                f"an item has `{self.head.entity}` in it, which says to model `{self.name}` where a label begins",
            )
        return ids

    def _entities(
        self, one: Prepared, output: Output, labels: tuple[str, ...], settings: _Settings
    ) -> Extracted | ApiError:
        assert isinstance(one.detail, _Text)
        try:
            over = self._over(output.spans, settings.threshold)
        except TooManyError:
            return ApiError(
                "INVALID_INPUT",
                f"more than {MOST_CANDIDATES:,} spans of `items[{one.item}]` are over `{_THRESHOLD}`, "
                f"{settings.threshold}",
                f"raise `params.options.{_THRESHOLD}`",
            )
        spans = kept(over, len(one.detail.places), flat=settings.flat, multi_label=settings.multi_label)
        entities = [_entity(one.detail, span, labels) for span in spans]
        return Extracted(entities=tuple(_merged(one.detail.text, entities) if settings.merge else entities))

    def _over(self, found: object, threshold: float) -> list[Span]:
        if isinstance(self.head, LabelledSpans):
            assert found is None or isinstance(found, Candidates)
            return spans_over(found)
        assert isinstance(found, np.ndarray)
        return (spans_of_tokens if self.head.mode == TOKEN_LEVEL else spans_of)(found, threshold)

    def _settings(self, call: Extract) -> _Settings:
        refuse_unknown_options(self.name, call.options, (_THRESHOLD, _FLAT, _MULTI_LABEL, _MERGE))
        return _Settings(
            fraction(call.options, _THRESHOLD, self.threshold),
            flag(call.options, _FLAT, True),
            flag(call.options, _MULTI_LABEL, self.multi_label),
            flag(call.options, _MERGE, self.merge),
        )


def _entity(text: _Text, span: Span, labels: tuple[str, ...]) -> Entity:
    start, end = text.places[span.first][0], text.places[span.last][1]
    return Entity(text.text[start:end], labels[span.label], span.score, start, end)


def _merged(text: str, entities: Sequence[Entity]) -> list[Entity]:
    """Those of one label with nothing or one character between them are one."""
    merged: list[Entity] = []
    for one in entities:
        last = merged[-1] if merged else None
        if last is not None and last.label == one.label and one.start - last.end in (0, 1):
            merged[-1] = Entity(text[last.start : one.end], last.label, last.score, last.start, one.end)
        else:
            merged.append(one)
    return merged
