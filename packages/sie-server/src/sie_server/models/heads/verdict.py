"""The logits of two words as the next token: what a language model that was taught to judge says.

Follows transformers 5.23 `models/qwen3/modeling_qwen3.py` (`Qwen3ForCausalLM`), of whose vocabulary two rows are used.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from sie_server.models.calls import LoadError
from sie_server.models.config import read_json
from sie_server.models.heads.head import Pass, X
from sie_server.models.ops.plan import LAST
from sie_server.models.ops.protocol import Ops

VERDICT: Final = "verdict"
"""(items, 2): yes and no."""

_NEXT_TOKEN: Final = "lm_head.weight"  # noqa: S105 - no password
_WORDS: Final = ("model.embed_tokens.weight", "embed_tokens.weight")


class _Config(msgspec.Struct, frozen=True):
    hidden_size: int
    vocab_size: int
    tie_word_embeddings: bool = False
    final_logit_softcapping: float | None = None


@dataclass(frozen=True)
class Verdict:
    """See `head.Head`; gives `Output.logits`, of yes and of no.

    Attributes:
        width: of the hidden state.
        vocabulary: how many tokens there are.
        tied: whether the words' own vectors say which comes next.
        yes: the token's id, as `no`.
    """

    width: int
    vocabulary: int
    tied: bool
    yes: int
    no: int

    def build(self, ops: Ops[X], hidden: X) -> None:
        last = ops.gather(hidden, ops.feed(LAST))
        words = next((name for name in _WORDS if ops.has(name)), _WORDS[0])
        name, shape = words if self.tied else _NEXT_TOKEN, (self.vocabulary, self.width)
        rows = [ops.weight(name, shape, rows=(token, token + 1)) for token in (self.yes, self.no)]
        ops.output(VERDICT, ops.concat([ops.linear(last, row) for row in rows]))

    def read(self, done: Pass) -> Sequence[NDArray[np.float32]]:
        logits = done.arrays[VERDICT]
        return [logits[index].copy() for index in range(len(done.items))]


def read_verdict(data: bytes, *, yes: int, no: int) -> Verdict:
    """The head that a `config.json` says its checkpoint has.

    Raises:
        LoadError: it is not that of a language model, or has no such tokens, or caps its logits.
    """
    config = read_json(data, _Config, "a language model")
    if config.final_logit_softcapping is not None:
        raise LoadError(
            f"`final_logit_softcapping` in `config.json` is {config.final_logit_softcapping}: supported is none"
        )
    for token in (yes, no):
        if token >= config.vocab_size:
            raise LoadError(f"the tokenizer has a token {token}, `vocab_size` in `config.json` is {config.vocab_size}")
    return Verdict(config.hidden_size, config.vocab_size, config.tie_word_embeddings, yes, no)
