"""A loaded model: tokenizer, graph and head behind the engine's `Model` protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from sie_core.catalog.spec import Pooling
from sie_core.errors import ApiError
from sie_core.wire.messages import OutputType
from sie_server.models.calls import Call, Output, Precision, Prepared
from sie_server.models.heads.pooled import normalized, pooled
from sie_server.models.ops.plan import Plan, plan_batch
from sie_server.models.prompts import Prompts
from sie_server.models.tokenizing import TextTokenizer
from sie_server.models.tokens import pack

_OPTIONS: Final = ("normalize",)
_BYTES_PER_TOKEN: Final = 4
_SPECIAL_TOKENS: Final = 2


class Encoder(Protocol):
    """A compiled backbone: a batch's plan to its last hidden state."""

    @property
    def precision(self) -> Precision: ...

    @property
    def memory_bytes(self) -> int: ...

    def run(self, plan: Plan, *, stream: int) -> NDArray[np.float32]:
        """(T, width), good until the stream's next run."""
        ...

    def settle(self) -> None:
        """Waits until it is as fast as it will be."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class LoadedModel:
    """See `calls.Model`.

    Attributes:
        name: the model's id, for messages.
        dims: the outputs it has, with their sizes.
        max_tokens: longest item, special tokens included.
        tokenizer: texts to ids.
        prompts: what is put around a text.
        encoder: ids to hidden states.
        pooling: how an item's hidden states become one vector.
        normalize: whether its length is made 1, when a call does not say.
    """

    name: str
    dims: Mapping[OutputType, int]
    max_tokens: int
    tokenizer: TextTokenizer
    prompts: Prompts
    encoder: Encoder
    pooling: Pooling
    normalize: bool

    @property
    def precision(self) -> Precision:
        return self.encoder.precision

    @property
    def memory_bytes(self) -> int:
        return self.encoder.memory_bytes

    def estimate_tokens(self, call: Call) -> int:
        """From the texts' lengths alone, four characters a token: most English has four and a half."""
        return sum(min(len(text) // _BYTES_PER_TOKEN + _SPECIAL_TOKENS, self.max_tokens) for text in call.texts)

    def prepare(self, call: Call) -> list[Prepared]:
        outputs = self._outputs(call)
        normalize = self._normalize(call)
        texts = [self.prompts.shape(text, is_query=call.is_query, instruction=call.instruction) for text in call.texts]
        return [
            Prepared(ids=item.ids, truncated=item.truncated, outputs=outputs, normalized=normalize)
            for item in self.tokenizer(texts)
        ]

    def run(self, batch: Sequence[Prepared], *, stream: int) -> list[Output]:
        tokens = pack([item.ids for item in batch])
        hidden = self.encoder.run(plan_batch(tokens), stream=stream)
        vectors = pooled(hidden[: len(tokens.ids)], tokens.starts, self.pooling)
        units = normalized(vectors) if any(item.normalized for item in batch) else vectors
        # Each item owns its vector: a slow reader must not keep the whole batch alive.
        return [Output(dense=(units if item.normalized else vectors)[index].copy()) for index, item in enumerate(batch)]

    def close(self) -> None:
        self.encoder.close()

    def _outputs(self, call: Call) -> tuple[OutputType, ...]:
        for output in call.outputs:
            if output not in self.dims:
                have = ", ".join(f"`{name}`" for name in self.dims)
                raise ApiError("OUTPUT_UNSUPPORTED", f"model `{self.name}` has no `{output}` output", f"it has {have}")
        return call.outputs

    def _normalize(self, call: Call) -> bool:
        for name in call.options:
            if name not in _OPTIONS:
                known = ", ".join(f"`{option}`" for option in _OPTIONS)
                raise ApiError("INVALID_INPUT", f"model `{self.name}` has no option `{name}`", f"it has {known}")
        wanted = call.options.get("normalize", self.normalize)
        if not isinstance(wanted, bool):
            raise ApiError("INVALID_INPUT", f"option `normalize` is `{wanted}`: want true or false")
        return wanted
