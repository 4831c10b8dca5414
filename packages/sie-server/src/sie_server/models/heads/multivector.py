"""One vector a token: the hidden states projected, some of them left out, each scaled to length 1.

Follows sentence-transformers 6.2 `multi_vector_encoder` (ColBERT as pylate and its authors save it) and FlagEmbedding
1.4 `inference/embedder/encoder_only/m3.py` (bge-m3). What is put into a query (markers, mask tokens) is its task's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sie_core.catalog.derive.projection import Layer
from sie_server.models.heads.head import Pass, X
from sie_server.models.heads.pooled import normalized
from sie_server.models.heads.projection import project
from sie_server.models.ops.protocol import Ops

TOKENS: Final = "token_vectors"
"""(T, dims)."""


@dataclass(frozen=True)
class TokenVectors:
    """See `head.Head`; gives `Output.multivector`.

    Attributes:
        layers: hidden state to vector.
        normalize: each to length 1.
        skip_first: whether the first token has none.
        skipped: (n,) int32 ids of tokens that have none in a document.
    """

    layers: tuple[Layer, ...]
    normalize: bool
    skip_first: bool
    skipped: NDArray[np.int32]

    def build(self, ops: Ops[X], hidden: X) -> None:
        ops.output(TOKENS, project(ops, hidden, self.layers))

    def read(self, done: Pass) -> Sequence[NDArray[np.float32] | None]:
        vectors = done.per_token(TOKENS)
        found: list[NDArray[np.float32] | None] = []
        for index, item in enumerate(done.items):
            if "multivector" not in item.wanted:
                found.append(None)
                continue
            rows = vectors[done.starts[index] : done.starts[index + 1]][self._kept(item.ids, item.is_query)]
            found.append(normalized(rows) if self.normalize else rows)
        return found

    def _kept(self, ids: NDArray[np.int32], is_query: bool) -> NDArray[np.bool_]:
        kept = np.ones(len(ids), np.bool_) if is_query else ~np.isin(ids, self.skipped)
        kept[:1] &= not self.skip_first
        return kept
