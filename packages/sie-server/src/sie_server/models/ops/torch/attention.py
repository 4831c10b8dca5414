"""Attention over a packed batch: by a kernel of variable lengths on CUDA, on a grid of items × positions elsewhere."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sie_server.models.ops.plan import BACK, MASK, ROWS, Feed, Plan, seen_feed
from sie_server.models.ops.torch.device import torch, varlen_attn
from sie_server.models.ops.torch.network import Batch

LIMITS: Final = Feed("limits", (-1,), np.int32, lambda plan: _limits(plan))
"""Where items begin and end; the tokens that the batch is rounded up by are one more, so that no row is left as it was
found in memory."""

_SIZE_OF: Final = 8
_SIZE_MOST: Final = 256
"""Of a head: the kernel takes multiples of the one up to the other."""


@dataclass(frozen=True)
class Attention:
    """See `protocol.Ops.attention`; `dtype` is what it computes in."""

    heads: int
    kv_heads: int
    scale: float | None
    causal: bool
    window: int | None
    dtype: Any

    def __call__(self, batch: Batch, query: Any, key: Any, value: Any, *bias: Any) -> Any:
        heads = (self.heads, self.kv_heads, self.kv_heads)
        query, key, value = (
            x.to(self.dtype).unflatten(-1, (of, -1)) for x, of in zip((query, key, value), heads, strict=True)
        )
        size = query.shape[-1]
        half = self.dtype != torch.float32
        if query.is_cuda and half and not bias and size % _SIZE_OF == 0 and size <= _SIZE_MOST:
            return self._packed(batch, query, key, value)
        return self._gridded(batch, query, key, value, bias)

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

    def _gridded(self, batch: Batch, query: Any, key: Any, value: Any, bias: tuple[Any, ...]) -> Any:
        rows, mask = batch.feed(ROWS), batch.feed(MASK)
        if self.causal or self.window is not None:
            mask = mask + batch.feed(seen_feed(causal=self.causal, window=self.window))
        for added in bias:
            mask = mask + added
        # Not infinite where float16 ends: the softmax of a row of infinities is not a number.
        mask = mask.clamp(min=torch.finfo(self.dtype).min).to(self.dtype)
        grids = (x[rows].transpose(1, 2) for x in (query, key, value))
        seen = torch.nn.functional.scaled_dot_product_attention(
            *grids, attn_mask=mask, scale=self.scale, enable_gqa=self.kv_heads != self.heads
        )
        return seen.transpose(1, 2).flatten(2).flatten(0, 1)[batch.feed(BACK)]


def _limits(plan: Plan) -> NDArray[np.int32]:
    starts, rounded = plan.tokens.starts, len(plan.ids)
    return starts if starts[-1] == rounded else np.append(starts, np.int32(rounded))


def _longest(plan: Plan) -> int:
    return max(plan.grid, len(plan.ids) - int(plan.tokens.starts[-1]))
