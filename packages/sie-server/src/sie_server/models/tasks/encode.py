"""Texts to vectors: one sequence an item, and its outputs as they are read off."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sie_core.errors import ApiError
from sie_core.wire.messages import OutputType
from sie_server.models.calls import Encode, Output, Prepared, Result, Tokens
from sie_server.models.prompts import Prompts
from sie_server.models.query_weights import QueryWeights
from sie_server.models.tasks.around import Marked, Marks
from sie_server.models.tasks.task import texts_of
from sie_server.models.tasks.vector_options import VectorOptions, prompts_asked
from sie_server.models.tokenizing import Tokenized


class Tokenizes(Protocol):
    """Texts to ids; safe from any thread."""

    @property
    def vocabulary(self) -> int: ...

    def __call__(self, texts: Sequence[str]) -> list[Tokenized]: ...


@dataclass(frozen=True)
class EncodeTexts:
    """See `task.Task`, for `Encode`.

    Attributes:
        name: the model's id, for messages.
        dims: the outputs it has, with their sizes.
        tokenizer: texts to ids.
        prompts: what is put around a text, by variant; None is the model as it is.
        normalize: whether a dense vector's length is made 1, when a call does not say.
        marks: what a query's sequence has beside its tokens, and a document's; None where that is nothing.
        query_weights: what a query becomes instead of a pass, of a model whose only output is sparse; None: nothing.
        is_pooled: whether a call may choose how hidden states become one vector.
        prompt_tokens: how many tokens of what stands before a text are left out of a mean; None: none are.
    """

    name: str
    dims: Mapping[OutputType, int]
    tokenizer: Tokenizes
    prompts: Mapping[str | None, Prompts]
    normalize: bool
    marks: tuple[Marks, Marks] | None = None
    query_weights: QueryWeights | None = None
    is_pooled: bool = False
    prompt_tokens: Callable[[str], int] | None = None

    def prepare(self, call: Encode) -> list[Prepared]:
        outputs = self._outputs(call)
        options = VectorOptions(self.name, self.normalize, self.dims.get("dense"), self.is_pooled)
        wishes, prompts = options.read(call.options), prompts_asked(call.options, self.prompts[call.variant])
        unpooled = self._unpooled(call, prompts)
        if call.is_query and self.query_weights is not None:
            return self._weighed(call, prompts, outputs, self.query_weights)
        return [
            Prepared(
                ids=found.ids,
                truncated=found.truncated,
                wanted=outputs,
                item=index,
                is_query=call.is_query,
                normalized=wishes.normalized,
                pooling=wishes.pooling,
                dims=wishes.dims,
                unpooled=0 if isinstance(call.inputs[index], Tokens) else unpooled,
                unseen=found.unseen,
            )
            for index, found in enumerate(self._marked(call, prompts))
        ]

    def finish(self, call: Encode, prepared: Sequence[Prepared], outputs: Sequence[Output | ApiError]) -> list[Result]:
        return list(outputs)

    def _weighed(
        self, call: Encode, prompts: Prompts, outputs: tuple[OutputType, ...], weights: QueryWeights
    ) -> list[Prepared]:
        """A text without tokens costs one, as everything that waits for its turn has a cost."""
        return [
            Prepared(
                ids=found.ids if len(found.ids) else np.zeros(1, np.int32),
                truncated=found.truncated,
                wanted=outputs,
                item=index,
                is_query=True,
                known=Output(sparse=weights.vector(found.ids)),
            )
            for index, found in enumerate(self._tokenized(call, prompts, weights))
        ]

    def _marked(self, call: Encode, prompts: Prompts) -> list[Marked]:
        found = self._tokenized(call, prompts, self.tokenizer)
        if self.marks is None:
            return [Marked(one.ids, one.truncated) for one in found]
        query, document = self.marks
        return [(query if call.is_query else document).put(one) for one in found]

    def _tokenized(self, call: Encode, prompts: Prompts, tokenizer: Tokenizes) -> list[Tokenized]:
        """Token ids stand for themselves: nothing is put around them."""
        texts = texts_of(self.name, [one for one in call.inputs if not isinstance(one, Tokens)])
        shaped = [prompts.shape(text, is_query=call.is_query, instruction=call.instruction) for text in texts]
        found = iter(tokenizer(shaped))
        return [
            self._given(one, index) if isinstance(one, Tokens) else next(found) for index, one in enumerate(call.inputs)
        ]

    def _unpooled(self, call: Encode, prompts: Prompts) -> int:
        if self.prompt_tokens is None:
            return 0
        before = prompts.before(is_query=call.is_query, instruction=call.instruction)
        return self.prompt_tokens(before) if before else 0

    def _given(self, tokens: Tokens, index: int) -> Tokenized:
        known = self.tokenizer.vocabulary
        for token in tokens.ids:
            if not 0 <= token < known:
                said = f"`input[{index}]` has the token id {token}, and model `{self.name}` has 0 to {known - 1}"
                raise ApiError("INVALID_INPUT", said, hint="ids are those of the model's own tokenizer")
        return Tokenized(ids=np.array(tokens.ids, np.int32), truncated=False)

    def _outputs(self, call: Encode) -> tuple[OutputType, ...]:
        for output in call.outputs:
            if output not in self.dims:
                have = ", ".join(f"`{name}`" for name in self.dims)
                raise ApiError("OUTPUT_UNSUPPORTED", f"model `{self.name}` has no `{output}` output", f"it has {have}")
        return call.outputs
