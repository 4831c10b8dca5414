"""Which labels of a call are a text's, by a model that knows what follows from what: zero-shot classification.

Each label becomes a sentence, the hypothesis, and each text and hypothesis a sequence. Follows transformers 5.23
`pipelines/zero_shot_classification.py`. One difference: a hypothesis that leaves no room for the text is refused,
and not computed at a length that the model has no positions for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sie_core.errors import ApiError
from sie_server.models.calls import Classification, Extract, Extracted, Output, Prepared, Result
from sie_server.models.tasks.task import flag, refuse_unknown_options, texts_of
from sie_server.models.tokenizing import TextTokenizer

_HYPOTHESIS: Final = "hypothesis_template"
_MULTI_LABEL: Final = "multi_label"
_PLACE: Final = "{}"

_MOST_PAIRS: Final = 65_536
"""In one call. A body of a megabyte can ask for a thousand million, which no memory holds and no worker would end."""


@dataclass(frozen=True)
class ExtractEntailed:
    """See `task.Task`, for `Extract`.

    Attributes:
        name: the model's id, for messages.
        tokenizer: pairs to ids.
        max_tokens: longest sequence.
        hypothesis: with `{}` in the label's place, where a call does not say.
        multi_label: whether labels are judged each by itself, or against each other, likewise.
    """

    name: str
    tokenizer: TextTokenizer
    max_tokens: int
    hypothesis: str
    multi_label: bool

    def prepare(self, call: Extract) -> list[Prepared]:
        """One sequence for each label of each item."""
        refuse_unknown_options(self.name, call.options, (_HYPOTHESIS, _MULTI_LABEL))
        flag(call.options, _MULTI_LABEL, self.multi_label)
        texts = texts_of(self.name, call.inputs)
        if len(texts) * len(call.labels) > _MOST_PAIRS:
            raise ApiError(
                "INVALID_INPUT",
                f"`items` has {len(texts):,} and `params.labels` {len(call.labels):,}, and model `{self.name}` reads "
                f"each item once with each label, up to {_MOST_PAIRS:,} times a call",
                "send fewer items a call, or fewer labels",
            )
        hypotheses = self._hypotheses(call)
        pairs = self.tokenizer.pairs([(text, one) for text in texts for one in hypotheses], truncate="only_first")
        return [
            Prepared(
                ids=pair.ids,
                types=pair.types,
                truncated=pair.truncated,
                wanted=("logits",),
                item=index // len(hypotheses),
            )
            for index, pair in enumerate(pairs)
        ]

    def finish(self, call: Extract, prepared: Sequence[Prepared], outputs: Sequence[Output | ApiError]) -> list[Result]:
        multi_label = flag(call.options, _MULTI_LABEL, self.multi_label)
        count = len(call.labels)
        return [
            _classified(call.labels, outputs[at * count : (at + 1) * count], multi_label)
            for at in range(len(call.inputs))
        ]

    def _hypotheses(self, call: Extract) -> list[str]:
        if not call.labels:
            raise ApiError(
                "INVALID_INPUT",
                f"model `{self.name}` says which labels a text entails, and `params.labels` is empty",
                'send `params.labels`, such as `["sports", "politics"]`',
            )
        template = call.options.get(_HYPOTHESIS, self.hypothesis)
        if not isinstance(template, str) or template.count(_PLACE) != 1:
            raise ApiError(
                "INVALID_INPUT",
                f"option `{_HYPOTHESIS}` is `{template}`: want a text with one `{_PLACE}`, where the label goes",
            )
        made = [template.replace(_PLACE, label) for label in call.labels]
        whole = self.tokenizer.pairs([("", one) for one in made], truncate="only_first")
        for index, (one, pair) in enumerate(zip(made, whole, strict=True)):
            if len(pair.ids) >= self.max_tokens:
                raise ApiError(
                    "INVALID_INPUT",
                    f"`params.labels[{index}]` makes the hypothesis {len(pair.ids)} tokens, `{one[:40]}…`, and model "
                    f"`{self.name}` takes {self.max_tokens} with the text",
                )
        return made


def _classified(labels: Sequence[str], outputs: Sequence[Output | ApiError], multi_label: bool) -> Extracted | ApiError:
    """Best first; of equal ones the call's order stays."""
    logits: list[NDArray[np.float32]] = []
    for output in outputs:
        if isinstance(output, ApiError):
            return output
        assert output.logits is not None
        logits.append(output.logits)
    both = np.stack(logits)
    scores = _softmax(both)[:, 1] if multi_label or len(labels) == 1 else _softmax(both[:, 1])
    found = [Classification(label, float(score)) for label, score in zip(labels, scores, strict=True)]
    return Extracted(classifications=tuple(sorted(found, key=lambda one: -one.score)))


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    raised: NDArray[np.float32] = np.exp(logits - logits.max(-1, keepdims=True))
    shares: NDArray[np.float32] = raised / raised.sum(-1, keepdims=True)
    return shares
