"""Named stretches of a text, by a model that reads the labels before it: GLiNER.

Follows gliner 0.2.29 `model.py` (`inference`), `data_processing/processor.py` and `tokenizer.py`
(`WhitespaceTokenSplitter`). Two differences: a word that the tokenizer makes nothing of, or that is past the longest
sequence, is left out, where gliner gives its place to the next and a vector of zeros to the last; and labels that leave
no room for a text are refused, where gliner leaves some of them out.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sie_core.errors import ApiError
from sie_server.models.calls import Entity, Extract, Extracted, Output, Prepared, Result
from sie_server.models.heads.spans import TOKEN_LEVEL, Spans
from sie_server.models.tasks.decoding import MOST_CANDIDATES, Span, TooManyError, kept, spans_of, spans_of_tokens
from sie_server.models.tasks.task import flag, fraction, refuse_unknown_options, texts_of
from sie_server.models.tokenizing import Located, TextTokenizer

_WORD: Final = re.compile(r"\w+(?:[-_]\w+)*|\S")

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
    """

    name: str
    tokenizer: TextTokenizer
    head: Spans
    threshold: float
    multi_label: bool
    merge: bool

    def prepare(self, call: Extract) -> list[Prepared]:
        """One sequence for each item that is not blank: the labels, and its words."""
        self._settings(call)
        prompt = self._prompt(call)
        texts = [(index, text) for index, text in enumerate(texts_of(self.name, call.inputs)) if text.strip()]
        places = [[match.span() for match in _WORD.finditer(text)] for _, text in texts]
        words = [
            [*prompt, *(text[start:end] for start, end in some[: self.head.max_words])]
            for (_, text), some in zip(texts, places, strict=True)
        ]
        return [
            self._prepared(index, text, some, found, len(prompt))
            for (index, text), some, found in zip(texts, places, self.tokenizer.words(words), strict=True)
        ]

    def finish(self, call: Extract, prepared: Sequence[Prepared], outputs: Sequence[Output | ApiError]) -> list[Result]:
        settings, labels = self._settings(call), tuple(dict.fromkeys(call.labels))
        results: list[Result] = [Extracted()] * len(call.inputs)
        for one, output in zip(prepared, outputs, strict=True):
            found = output if isinstance(output, ApiError) else self._entities(one, output, labels, settings)
            results[one.item] = found
        return results

    def _prompt(self, call: Extract) -> list[str]:
        """The words before every text."""
        if not call.labels:
            raise ApiError(
                "INVALID_INPUT",
                f"model `{self.name}` looks for what `params.labels` names, and it is empty",
                'send `params.labels`, such as `["person", "city"]`',
            )
        for index, label in enumerate(call.labels):
            if not label.strip():
                raise ApiError("INVALID_INPUT", f"`params.labels[{index}]` is blank: want a name")
            for mark in (self.head.entity, self.head.separator):
                if mark in label:
                    message = f"`params.labels[{index}]` has `{mark}` in it, which says where a label begins or ends"
                    raise ApiError("INVALID_INPUT", message)
        labels = dict.fromkeys(call.labels)
        return [*(word for label in labels for word in (self.head.entity, label)), self.head.separator]

    def _prepared(self, item: int, text: str, places: list[tuple[int, int]], found: Located, prompt: int) -> Prepared:
        """Of a text whose words begin at number `prompt` of those tokenised."""
        begins = np.flatnonzero((found.words >= prompt) & (np.diff(found.words, prepend=-1) != 0))
        if found.truncated and not len(begins):
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
        return Prepared(ids, truncated, ("spans",), item, words=words, detail=_Text(text, seen))

    def _unmarked(self, ids: NDArray[np.int32], words: NDArray[np.int32], prompt: int) -> NDArray[np.int32]:
        """A marker that a text has in it is no label."""
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
        assert isinstance(output.spans, np.ndarray)
        read = spans_of_tokens if self.head.mode == TOKEN_LEVEL else spans_of
        try:
            over = read(output.spans, settings.threshold)
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
