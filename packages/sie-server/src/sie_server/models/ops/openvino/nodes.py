"""The operations as nodes of a graph: see `protocol.Ops`."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sie_server.models.calls import Precision
from sie_server.models.checkpoint import Checkpoint
from sie_server.models.ops.openvino.device import op, ov
from sie_server.models.ops.openvino.graph import Graph, Shape, computed_once
from sie_server.models.ops.plan import (
    APART,
    APART_OF_KEYS,
    APART_OF_QUERIES,
    BACK,
    MASK,
    ROWS,
    SHARES,
    Feed,
    Plan,
    seen_feed,
)
from sie_server.models.ops.protocol import Activation, Relative
from sie_server.models.ops.windows import blocks

_ONE: Final = np.ones(1, np.float32)
ONE: Final = Feed("one", (1,), np.float32, lambda plan: _ONE)
_TYPE_OF: Final[Mapping[type, Any]] = {np.float32: ov.Type.f32, np.int32: ov.Type.i32}
_WEIGHT_BYTES: Final[Mapping[Precision, int]] = {"f32": 4, "bf16": 2, "f16": 2}
_SWAPPED: Final = np.array([0, 2, 1, 3], np.int64)


class OpenvinoOps:
    """Collects a graph.

    In f32 nothing may be fused into a linear layer: there are two kernels for it, equally fast. The plain one
    packs its weights once, whatever the batch; the one that fuses packs them anew for small and for large
    batches and compiles itself for every size, which for MiniLM is 17 MB and the first batch of each size. bf16
    has only the second.
    """

    def __init__(self, checkpoint: Checkpoint, precision: Precision) -> None:
        self._checkpoint = checkpoint
        self._precision = precision
        self._feeds: dict[Feed, Any] = {}
        self._outputs: dict[str, Any] = {}
        self._first_axis = op.constant(np.int32(0))
        self._unseen: dict[str, None] = {}
        self._packed_weights = 0
        self._made_bytes = 0

    def feed(self, feed: Feed) -> Any:
        if feed not in self._feeds:
            self._feeds[feed] = op.parameter(ov.PartialShape(list(feed.shape)), _TYPE_OF[feed.kind])
        return self._feeds[feed]

    def has(self, name: str) -> bool:
        return name in self._checkpoint

    def weight(
        self, name: str, shape: Sequence[int], *, rows: tuple[int, int] | None = None, folded: bool = False
    ) -> Any:
        stored = self._checkpoint.unseen(name, tuple(shape))
        self._unseen[name] = None
        array = stored.array if rows is None else stored.array[rows[0] : rows[1]]
        array = array.reshape(len(array), -1) if folded else array
        if stored.dtype == "BF16":
            # numpy has no bfloat16: the bits go in under their own name. Such a constant does not keep its array
            # alive; `Graph` holds the checkpoint.
            tensor = ov.Tensor(array, ov.Shape(list(array.shape)), ov.Type.bf16)
            return op.convert(ov.op.Constant(tensor, shared_memory=True), "f32")
        constant = op.constant(array, shared_memory=True)
        return constant if stored.dtype == "F32" else op.convert(constant, "f32")

    def constant(self, array: NDArray[Any]) -> Any:
        return op.constant(array)

    def gather(self, table: Any, rows: Any) -> Any:
        return op.gather(table, rows, self._first_axis)

    def linear(self, x: Any, weight: Any, bias: Any | None = None, *, activation: Activation | None = None) -> Any:
        # What a batch brings along, a LoRA's factors, is not packed.
        self._packed_weights += math.prod(_sizes(weight)) if min(_sizes(weight)) > 0 else 0
        y = op.matmul(x, weight, False, True)
        if bias is not None:
            y = op.add(y, bias)
        return y if activation is None else self.activation(self._unfused(y), activation)

    def product(self, x: Any, table: Any) -> Any:
        self._packed_weights += math.prod(table.get_output_shape(0))
        return op.matmul(x, table, False, False)

    def layer_norm(self, x: Any, weight: Any, bias: Any | None, *, epsilon: float) -> Any:
        normed = op.mvn(x, op.constant(np.array([-1], np.int64)), True, epsilon, "inside_sqrt")
        scaled = op.multiply(normed, weight)
        return scaled if bias is None else op.add(scaled, bias)

    def rms_norm(self, x: Any, weight: Any, *, epsilon: float) -> Any:
        # In this form the plugin has one operation for it.
        mean = op.reduce_mean(op.power(x, np.float32(2)), op.constant(np.array([-1], np.int64)), True)
        root = op.sqrt(op.add(mean, np.float32(epsilon)))
        return op.multiply(op.multiply(x, op.divide(np.float32(1), root)), weight)

    def activation(self, x: Any, kind: Activation) -> Any:
        match kind:
            case "gelu":
                return op.gelu(x, "erf")
            case "gelu_tanh":
                return op.gelu(x, "tanh")
            case "silu":
                return op.swish(x)
            case "relu":
                return op.relu(x)
            case "tanh":
                return op.tanh(x)
            case "sigmoid":
                return op.sigmoid(x)
            case "quick_gelu":
                return op.multiply(x, op.sigmoid(op.multiply(x, np.float32(1.702))))

    def log1p(self, x: Any) -> Any:
        return op.log(op.add(x, np.float32(1)))

    def add(self, a: Any, b: Any) -> Any:
        return op.add(a, b)

    def multiply(self, a: Any, b: Any) -> Any:
        return op.multiply(a, b)

    def split(self, x: Any, sizes: Sequence[int]) -> list[Any]:
        axis, lengths = op.constant(np.int32(-1)), op.constant(np.array(sizes, np.int32))
        return list(op.variadic_split(x, axis, lengths).outputs())

    def concat(self, parts: Sequence[Any]) -> Any:
        return op.concat(list(parts), -1)

    def heads(self, x: Any, heads: int) -> Any:
        return op.reshape(x, op.constant(np.array([0, heads, -1], np.int64)), True)

    def merged(self, x: Any) -> Any:
        _, heads, size = _sizes(x)
        return op.reshape(x, op.constant(np.array([-1, heads * size], np.int64)), False)

    def rotary(self, x: Any, cosine: Any, sine: Any, *, heads: int) -> Any:
        turned = self.heads(x, heads)
        size = _sizes(turned)[-1]
        cosine, sine = (op.unsqueeze(angles, op.constant(np.int32(1))) for angles in (cosine, sine))
        first, second = self.split(turned, [size // 2, size // 2])
        crossed = op.concat([op.negative(second), first], -1)
        return self.merged(op.add(op.multiply(turned, cosine), op.multiply(crossed, sine)))

    def attention(
        self,
        query: Any,
        key: Any,
        value: Any,
        *,
        heads: int,
        kv_heads: int | None = None,
        scale: float | None = None,
        causal: bool = False,
        window: int | None = None,
        bias: Any | None = None,
        relative: Relative[Any] | None = None,
    ) -> Any:
        kv_heads = kv_heads or heads
        width = _sizes(query)[-1]
        factor = (width // heads) ** -0.5 if scale is None else scale
        rows, key_rows, seen_mask, back = self._layout(causal, window, whole=bias is not None or relative is not None)
        mask = seen_mask if bias is None else op.add(seen_mask, bias)
        queries = self._grid(query, heads, rows)
        keys, values = self._grid(key, kv_heads, key_rows), self._grid(value, kv_heads, key_rows)
        if kv_heads != heads:
            shared = op.constant(np.repeat(np.arange(kv_heads, dtype=np.int32), heads // kv_heads))
            keys, values = (op.gather(x, shared, op.constant(np.int32(1))) for x in (keys, values))
        if relative is not None:
            mask = op.add(mask, self._by_distance(queries, keys, relative))
        by = self._unfused(op.constant(np.array([factor], np.float32)))
        seen = op.scaled_dot_product_attention(queries, keys, values, mask, by)
        # One row a cell. Zeros keep an axis, so the grid's two are folded before the heads are.
        folded = op.constant(np.array([-1, width], np.int64))
        cells = op.reshape(op.transpose(seen, op.constant(_SWAPPED)), folded, False)
        return op.gather(cells, self.feed(back), self._first_axis)

    def distance_bias(self, table: Any, rows: Feed) -> Any:
        by_head = op.transpose(self.gather(table, self.feed(rows)), op.constant(np.array([1, 0], np.int64)))
        return op.gather(by_head, self.feed(APART), op.constant(np.int32(1)))

    def once(self, weight: Any, make: Callable[[Any], Sequence[Any]]) -> list[Any]:
        packed = self._packed_weights
        # As an input, or the compiler would compute it itself, by kernels that are there to be right, not fast.
        one = op.parameter([1], ov.Type.f32)
        made = computed_once(make(op.multiply(weight, one)), one, self._checkpoint)
        self._packed_weights = packed
        self._made_bytes += sum(array.nbytes for array in made)
        return [op.constant(array) for array in made]

    def lstm(self, x: Any, weight: Any, recurrent: Any, bias: Any) -> Any:
        size = _sizes(recurrent)[1]
        self._packed_weights += math.prod(_sizes(weight)) + math.prod(_sizes(recurrent))
        axes = op.shape_of(x, "i64")
        items, cells = (op.gather(axes, op.constant(np.array([axis])), self._first_axis) for axis in (0, 1))
        one = op.constant(np.array([1], np.int64))
        state = op.broadcast(op.constant(np.float32(0)), op.concat([items, one, op.constant(np.array([size]))], 0))
        # Of whole rows, and said so that the plugin sees it: what stands after an item's end is not read.
        lengths = op.broadcast(cells, items)
        # torch has input, forget, cell, output; here it is forget, input, cell, output.
        weights = [self._gates(weights, size) for weights in (weight, recurrent, bias)]
        found = op.lstm_sequence(x, state, state, lengths, *weights, size, "forward")
        return op.reshape(found.output(0), op.constant(np.array([-1, size], np.int64)), False)

    def largest_shares(self, x: Any, count: int) -> Any:
        last = op.constant(np.array([-1], np.int64))
        shares = op.softmax(x, -1)
        largest = op.topk(shares, op.constant(np.int64(count)), -1, "max", "value")
        least = op.reduce_min(largest.output(0), last, True)
        return op.select(op.greater_equal(shares, least), shares, op.constant(np.zeros(1, np.float32)))

    def item_max(self, x: Any) -> Any:
        cells = op.gather(x, self.feed(ROWS), self._first_axis)
        mask = op.reshape(self.feed(MASK), op.constant(np.array([0, -1, 1], np.int64)), True)
        return op.reduce_max(op.add(cells, mask), op.constant(np.array([1], np.int32)), False)

    def item_mean(self, x: Any) -> Any:
        cells = op.gather(x, self.feed(ROWS), self._first_axis)
        return op.reduce_sum(op.multiply(cells, self.feed(SHARES)), op.constant(np.array([1], np.int32)), False)

    def weighted(self, x: Any, shares: Any) -> Any:
        return op.matmul(shares, x, False, False)

    def output(self, name: str, x: Any) -> None:
        self._outputs[name] = x

    def compiled(self, *, streams: int, threads: int, warm: Plan | None = None) -> Graph:
        """The graph that computes the outputs, warm.

        Make the last hidden state an output even where only pooled vectors are wanted: in bf16 the plugin
        keeps float32 from an output back to the first matrix product, which costs nothing and halves the error.

        Args:
            warm: a batch to begin with; None: a short text.

        Raises:
            LoadError: a weight has a NaN or infinity.
        """
        weights_bytes = self._packed_weights * _WEIGHT_BYTES[self._precision] + self._made_bytes
        shape = Shape(streams=streams, threads=threads, precision=self._precision)
        with ExitStack() as undo:
            with self._checkpoint.looking(self._unseen):
                graph = Graph(
                    self._outputs, self._feeds, self._checkpoint, shape, weights_bytes=weights_bytes, warm=warm
                )
                undo.callback(graph.close)
            undo.pop_all()
        return graph

    def _layout(self, causal: bool, window: int | None, *, whole: bool) -> tuple[Feed, Feed, Any, Feed]:
        """Which tokens are queries and keys of which cells, what is added to their scores, and the way back.

        Args:
            whole: on a grid of whole items, whatever the window.
        """
        if window is not None and not whole:
            near = blocks(window, causal=causal)
            return near.queries, near.keys, self.feed(near.mask), near.back
        mask = self.feed(MASK)
        if causal or window is not None:
            mask = op.add(mask, self.feed(seen_feed(causal=causal, window=window)))
        return ROWS, ROWS, mask, BACK

    def _grid(self, x: Any, heads: int, rows: Feed) -> Any:
        """(T, heads · size) → (S, heads, G, size), or of other rows."""
        cells = op.gather(x, self.feed(rows), self._first_axis)
        split = op.constant(np.array([0, 0, heads, -1], np.int64))
        return op.transpose(op.reshape(cells, split, True), op.constant(_SWAPPED))

    def _by_distance(self, queries: Any, keys: Any, relative: Relative[Any]) -> Any:
        """(S, heads, G, size) twice → (S, heads, G, G).

        Only the rows of distances that the grid has are multiplied with, and of the products one flat gather takes
        what belongs to each pair.
        """
        terms = []
        folded = op.constant(np.array([0, 0, -1], np.int64))
        for grid, table, at in (
            (queries, relative.keys, APART_OF_QUERIES),
            (keys, relative.queries, APART_OF_KEYS),
        ):
            if table is not None:
                heads = _sizes(grid)[1]
                rows = self.heads(self.gather(table, self.feed(relative.rows)), heads)
                across = op.transpose(rows, op.constant(np.array([1, 2, 0], np.int64)))
                flat = op.reshape(op.matmul(grid, across, False, False), folded, True)
                terms.append(op.gather(flat, self.feed(at), op.constant(np.int32(2))))
        return terms[0] if len(terms) == 1 else op.add(*terms)

    def _gates(self, weights: Any, size: int) -> Any:
        """(4 size, …) → (1, 4 size, …), input and forget gate the other way round."""
        order = np.concatenate([np.arange(size, 2 * size), np.arange(size), np.arange(2 * size, 4 * size)])
        return op.unsqueeze(op.gather(weights, op.constant(order.astype(np.int32)), self._first_axis), self._first_axis)

    def _unfused(self, x: Any) -> Any:
        """The same, by a multiplication with 1 that the compiler cannot see through; nothing of it in bf16."""
        return op.multiply(x, self.feed(ONE)) if self._precision == "f32" else x


def _sizes(x: Any) -> list[int]:
    """The static axes of a node's output or of an output; -1 for the others."""
    shape = x.get_partial_shape() if hasattr(x, "get_partial_shape") else x.get_output_partial_shape(0)
    return [axis.get_length() if axis.is_static else -1 for axis in shape]
