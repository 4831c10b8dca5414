"""How well items answer a query, by a cross-encoder: the query and each item as one sequence, and one logit of it.

Follows sentence-transformers 6.2 `cross_encoder/model.py` (`predict`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from sie_core.errors import ApiError
from sie_server.models.calls import Output, Prepared, Result, Score
from sie_server.models.prompts import Prompts
from sie_server.models.tasks.task import refuse_unknown_options, texts_of, whole_number
from sie_server.models.tokenizing import TextTokenizer

Activation = Literal["sigmoid", "identity"]

_LENGTH: Final = "max_seq_length"


def _sigmoid(logit: np.float32) -> np.float32:
    # By the exponential of what is not positive: of the other it may be infinite.
    falling = np.exp(-np.abs(logit))
    one = np.float32(1)
    return np.float32((one if logit >= 0 else falling) / (one + falling))


ACTIVATIONS: Final[Mapping[Activation, Callable[[np.float32], np.float32]]] = {
    "sigmoid": _sigmoid,
    "identity": lambda logit: logit,
}


@dataclass(frozen=True)
class ScorePairs:
    """See `task.Task`, for `Score`.

    Attributes:
        name: the model's id, for messages.
        tokenizer: pairs to ids.
        prompts: what is put around a text, by variant; None is the model as it is.
        activation: of the logit.
    """

    name: str
    tokenizer: TextTokenizer
    prompts: Mapping[str | None, Prompts]
    activation: Activation

    def prepare(self, call: Score) -> list[Prepared]:
        """One sequence an item; the option `max_seq_length` makes it no longer than the model's own."""
        refuse_unknown_options(self.name, call.options, (_LENGTH,))
        most = whole_number(call.options, _LENGTH, None)
        prompts = self.prompts[call.variant]
        asked = texts_of(self.name, (call.query,), query=True)[0]
        query = prompts.shape(asked, is_query=True, instruction=call.instruction)
        documents = [prompts.shape(text, is_query=False, instruction=None) for text in texts_of(self.name, call.inputs)]
        pairs = self.tokenizer.pairs([(query, document) for document in documents], max_tokens=most)
        return [
            Prepared(ids=pair.ids, types=pair.types, truncated=pair.truncated, wanted=("logits",), item=index)
            for index, pair in enumerate(pairs)
        ]

    def finish(self, call: Score, prepared: Sequence[Prepared], outputs: Sequence[Output | ApiError]) -> list[Result]:
        return [output if isinstance(output, ApiError) else self._score(output) for output in outputs]

    def _score(self, output: Output) -> float:
        assert output.logits is not None
        return float(ACTIVATIONS[self.activation](output.logits[0]))
