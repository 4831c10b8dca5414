"""Attention over a packed batch: by a kernel of variable lengths on CUDA, on a grid of items × positions elsewhere."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sie_server.models.ops.plan import APART_OF_KEYS, APART_OF_QUERIES, BACK, MASK, ROWS, Feed, Plan, seen_feed
from sie_server.models.ops.torch.device import torch, varlen_attn
from sie_server.models.ops.torch.network import Batch
from sie_server.models.ops.windows import blocks

LIMITS: Final = Feed("limits", (-1,), np.int32, lambda plan: _limits(plan))
"""Where items begin and end; the tokens that the batch is rounded up by are one more, so that no row is left as it was
found in memory."""

_SIZE_OF: Final = 8
_SIZE_MOST: Final = 256
"""Of a head: the kernel takes multiples of the one up to the other."""


@dataclass(frozen=True)
class Attention:
    """See `protocol.Ops.attention`.

    Attributes:
        relative_rows: of the tables of `protocol.Relative`, where it has any.
        dtype: what it computes in.
    """

    heads: int
    kv_heads: int
    scale: float | None
    causal: bool
    window: int | None
    relative_rows: Feed | None
    dtype: Any

    def __call__(self, batch: Batch, query: Any, key: Any, value: Any, bias: Any, of_queries: Any, of_keys: Any) -> Any:
        """(T, heads · size).

        Args:
            bias: to add, (… heads, G, G), or None.
            of_queries: `Relative.keys`, which queries are multiplied with, or None.
            of_keys: `Relative.queries`, which keys are multiplied with, or None.
        """
        query, key, value = (
            self._by_head(x, heads) for x, heads in ((query, self.heads), (key, self.kv_heads), (value, self.kv_heads))
        )
        size = query.shape[-1]
        plain = bias is None and self.relative_rows is None and batch.plan.tokens.unseen is None
        half = self.dtype != torch.float32
        if query.is_cuda and half and plain and size % _SIZE_OF == 0 and size <= _SIZE_MOST:
            return self._packed(batch, query, key, value)
        if self.window is not None and bias is None and self.relative_rows is None:
            near = blocks(self.window, causal=self.causal)
            rows, key_rows = batch.feed(near.queries), batch.feed(near.keys)
            query, key, value = (x[at].transpose(1, 2) for x, at in ((query, rows), (key, key_rows), (value, key_rows)))
            return self._attended(query, key, value, batch.feed(near.mask), batch.feed(near.back))
        query, key, value = (x[batch.feed(ROWS)].transpose(1, 2) for x in (query, key, value))
        added = [bias, self._relative(batch, query, key, of_queries, of_keys)]
        return self._gridded(batch, query, key, value, added=[each for each in added if each is not None])

    def _packed(self, batch: Batch, query: Any, key: Any, value: Any) -> Any:
        limits, longest = batch.feed(LIMITS), _longest(batch.plan)
        far = -1 if self.window is None else self.window
        seen = varlen_attn(
            query.contiguous(),
            key.contiguous(),
            value.contiguous(),
            limits,
            limits,
            longest,
            longest,
            scale=self.scale,
            window_size=(far, 0 if self.causal else far),
            enable_gqa=self.kv_heads != self.heads,
        )
        return seen.flatten(-2)

    def _gridded(self, batch: Batch, query: Any, key: Any, value: Any, *, added: list[Any]) -> Any:
        mask = batch.feed(MASK)
        if self.causal or self.window is not None:
            added = [batch.feed(seen_feed(causal=self.causal, window=self.window)), *added]
        for each in added:
            mask = mask + each
        return self._attended(query, key, value, mask, batch.feed(BACK))

    def _attended(self, query: Any, key: Any, value: Any, mask: Any, back: Any) -> Any:
        # Not infinite where float16 ends: the softmax of a row of infinities is not a number.
        mask = mask.clamp(min=torch.finfo(self.dtype).min).to(self.dtype)
        seen = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=self.scale, enable_gqa=self.kv_heads != self.heads
        )
        return seen.transpose(1, 2).flatten(2).flatten(0, 1)[back]

    def _relative(self, batch: Batch, query: Any, key: Any, of_queries: Any, of_keys: Any) -> Any:
        """(S, heads, G, G), or None where there is none: of every distance's products, those of each pair."""
        if self.relative_rows is None:
            return None
        rows = batch.feed(self.relative_rows)
        terms = [
            (grid @ self._by_head(table[rows], self.heads).permute(1, 2, 0)).flatten(2)[..., batch.feed(at)]
            for grid, table, at in ((query, of_queries, APART_OF_QUERIES), (key, of_keys, APART_OF_KEYS))
            if table is not None
        ]
        return sum(terms[1:], start=terms[0])

    def _by_head(self, x: Any, heads: int) -> Any:
        return x.to(self.dtype).unflatten(-1, (heads, -1))


def _limits(plan: Plan) -> NDArray[np.int32]:
    starts, rounded = plan.tokens.starts, len(plan.ids)
    return starts if starts[-1] == rounded else np.append(starts, np.int32(rounded))


def _longest(plan: Plan) -> int:
    return max(plan.grid, len(plan.ids) - int(plan.tokens.starts[-1]))
