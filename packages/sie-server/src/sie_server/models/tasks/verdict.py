"""How well items answer a query, by asking a language model about each: one sequence, and one word for an answer.

Follows the model card of Qwen3-Reranker and mxbai-rerank 0.1.6 `mxbai_rerank_v2.py`: the question is tokenised in
parts, and of one that is too long the document loses its end, never the template. A query in a part of its own is
cut where it would leave the document less than a quarter.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sie_core.catalog.derive import Derived
from sie_core.catalog.derive.verdict import SEAM
from sie_core.errors import ApiError
from sie_server.models.calls import LoadError, Output, Prepared, Result, Score
from sie_server.models.prompts import Prompts
from sie_server.models.tasks.pairs import ACTIVATIONS, Activation
from sie_server.models.tasks.task import refuse_unknown_options, texts_of, whole_number
from sie_server.models.tokenizing import TextTokenizer

_PLACE: Final = re.compile(r"\{(query|document|instruction)\}")
_LENGTH: Final = "max_seq_length"

Ids = NDArray[np.int32]


@dataclass(frozen=True)
class Question:
    """A template in parts: ids of those that are always the same, and the text of the others."""

    parts: tuple[str | Ids, ...]

    @property
    def fixed(self) -> int:
        """How many tokens of it are always the same."""
        return sum(len(part) for part in self.parts if not isinstance(part, str))


def read_question(template: str, tokenizer: TextTokenizer, *, max_tokens: int) -> Question:
    """The question that a template asks.

    Raises:
        LoadError: it leaves no room for a text.
    """
    parts = template.split(SEAM)
    ids = tokenizer.plain(parts)
    question = Question(tuple(part if _PLACE.search(part) else ids[index] for index, part in enumerate(parts)))
    if question.fixed >= max_tokens:
        raise LoadError(
            f"the template of `score` alone is {question.fixed} tokens, and `max_tokens` is {max_tokens}",
            hint="raise `max_tokens` in the spec, or shorten `score.template`",
        )
    return question


@dataclass(frozen=True)
class ScoreVerdicts:
    """See `task.Task`, for `Score`.

    Attributes:
        name: the model's id, for messages.
        tokenizer: texts to ids.
        prompts: whose default instruction is used, by variant; None is the model as it is.
        question: what is asked of each item.
        activation: of how much more likely yes is than no, in logits.
        max_tokens: longest sequence.
    """

    name: str
    tokenizer: TextTokenizer
    prompts: Mapping[str | None, Prompts]
    question: Question
    activation: Activation
    max_tokens: int

    def prepare(self, call: Score) -> list[Prepared]:
        """One sequence an item; the option `max_seq_length` makes it no longer than the model's own."""
        refuse_unknown_options(self.name, call.options, (_LENGTH,))
        room = self._room(whole_number(call.options, _LENGTH, None))
        said = {"query": texts_of(self.name, (call.query,), query=True)[0]}
        instruction = call.instruction or self.prompts[call.variant].default_instruction
        if instruction:
            said["instruction"] = instruction
        # What is the same for every document is made once: a long query would be as many copies of it.
        shared = [
            _filled(part, said) if isinstance(part, str) and not _holds_document(part) else part
            for part in self.question.parts
        ]
        asked = [
            [
                _filled(part, said | {"document": text}) if isinstance(part, str) and _holds_document(part) else same
                for part, same in zip(self.question.parts, shared, strict=True)
            ]
            for text in texts_of(self.name, call.inputs)
        ]
        # A query's part is the same for every document: tokenised once.
        texts = list(dict.fromkeys(part for parts in asked for part in parts if isinstance(part, str)))
        ids = dict(zip(texts, self.tokenizer.begun(texts, most=self.max_tokens), strict=True))
        return [
            self._prepared(index, [ids[part] if isinstance(part, str) else part for part in parts], room)
            for index, parts in enumerate(asked)
        ]

    def finish(self, call: Score, prepared: Sequence[Prepared], outputs: Sequence[Output | ApiError]) -> list[Result]:
        return [output if isinstance(output, ApiError) else self._score(output) for output in outputs]

    def _room(self, most: int | None) -> int:
        room = (self.max_tokens if most is None else min(most, self.max_tokens)) - self.question.fixed
        if room < 1:
            raise ApiError(
                "INVALID_INPUT",
                f"option `{_LENGTH}` is `{most}`, and what model `{self.name}` is asked is {self.question.fixed} "
                "tokens without the texts",
                f"from {self.question.fixed + 1} to {self.max_tokens}",
            )
        return room

    def _prepared(self, index: int, parts: Sequence[Ids], room: int) -> Prepared:
        # The others first: the document has what they leave.
        order = sorted(range(len(parts)), key=lambda place: _holds_document(self.question.parts[place]))
        kept, truncated = list(parts), False
        for place in order:
            part = self.question.parts[place]
            if isinstance(part, str):
                most = room if _holds_document(part) else room * 3 // 4
                truncated |= len(parts[place]) > most
                kept[place] = parts[place][:most]
                room -= len(kept[place])
        whole = np.concatenate(kept, dtype=np.int32)
        return Prepared(ids=whole, truncated=truncated, wanted=("logits",), item=index)

    def _score(self, output: Output) -> float:
        assert output.logits is not None
        yes, no = output.logits
        return float(ACTIVATIONS[self.activation](yes - no))


def score_verdicts(derived: Derived, tokenizer: TextTokenizer, prompts: Mapping[str | None, Prompts]) -> ScoreVerdicts:
    """The task of a completed spec.

    Raises:
        LoadError: a template that leaves no room, or that there is beside that of `score`.
    """
    head, spec = derived.score, derived.given
    assert head is not None
    assert head.template is not None
    assert head.activation is not None
    for name, said in (("query", spec.query), ("document", spec.document)):
        if said is not None:
            raise LoadError(
                f"`{name}` in the spec of `{spec.id}` is a template, and so is `score.template`, which says it all",
                hint=f"leave `{name}` out",
            )
    question = read_question(head.template, tokenizer, max_tokens=derived.max_tokens)
    return ScoreVerdicts(spec.id, tokenizer, prompts, question, head.activation, derived.max_tokens)


def _holds_document(part: str | Ids) -> bool:
    return isinstance(part, str) and "{document}" in part


def _filled(part: str, said: Mapping[str, str]) -> str:
    """All at once: braces in a text are its own. A line with a place for what is not said is left out."""
    lines = [line for line in part.splitlines(keepends=True) if all(name in said for name in _PLACE.findall(line))]
    return _PLACE.sub(lambda place: said[place[1]], "".join(lines))
