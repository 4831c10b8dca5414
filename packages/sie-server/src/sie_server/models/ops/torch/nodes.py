"""The operations as recorded steps: see `protocol.Ops`.

A value is the place where a pass will find it, or a tensor where it is the same in every pass. What is made of
such tensors alone is made once, when it is recorded.
"""

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sie_server.models.calls import Precision
from sie_server.models.checkpoint import Checkpoint
from sie_server.models.ops.plan import APART, MASK, ROWS, SHARES, Feed, Plan, plan_batch
from sie_server.models.ops.protocol import Activation, Relative
from sie_server.models.ops.torch.attention import Attention
from sie_server.models.ops.torch.device import DTYPE_OF, Device, torch
from sie_server.models.ops.torch.network import BATCH, Batch, Network, Step
from sie_server.models.tokens import pack

Value = Any
"""An `int`, the place of what every pass computes anew, or a tensor."""

_SMALL: Final = plan_batch(pack([np.zeros(8, np.int32)]))


class TorchOps:
    """Records a pass.

    In bf16 and f16 only linear layers and attention compute in it. What stands between them, the sum
    that every layer adds to and its norms, is float32, as it is in an OpenVINO graph: the error halves.
    """

    def __init__(self, checkpoint: Checkpoint, precision: Precision, device: Device = "cpu") -> None:
        self._checkpoint = checkpoint
        self._precision: Precision = precision
        self._dtype = DTYPE_OF[precision]
        self._device: Device = device
        self._steps: list[Step] = []
        self._feeds: dict[Feed, Value] = {}
        self._outputs: dict[str, Value] = {}
        self._stored: dict[tuple[str, tuple[int, int] | None], Any] = {}
        self._placed: dict[tuple[int, Any], tuple[Any, Any]] = {}

    def feed(self, feed: Feed) -> Value:
        if feed not in self._feeds:
            self._feeds[feed] = self._step(lambda batch: batch.feed(feed), BATCH)
        return self._feeds[feed]

    def has(self, name: str) -> bool:
        return name in self._checkpoint

    def weight(
        self, name: str, shape: Sequence[int], *, rows: tuple[int, int] | None = None, folded: bool = False
    ) -> Value:
        stored = self._checkpoint.weight(name, tuple(shape))
        if (name, rows) not in self._stored:
            array = stored.array if rows is None else stored.array[rows[0] : rows[1]]
            array = array.reshape(len(array), -1) if folded else array
            # numpy has no bfloat16, and torch is told what the bits are.
            bits = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16) if stored.dtype == "BF16" else None
            self._stored[name, rows] = torch.from_numpy(array) if bits is None else bits
        return self._stored[name, rows]

    def constant(self, array: NDArray[Any]) -> Value:
        return torch.from_numpy(np.ascontiguousarray(array))

    def gather(self, table: Value, rows: Value) -> Value:
        # As it is stored: an embedding is most of a small model, and only some rows of it are read.
        dtype = table.dtype if isinstance(table, torch.Tensor) else torch.float32
        return self._step(lambda x, at: x[at].float() if x.is_floating_point() else x[at], table, rows, dtype=dtype)

    def linear(
        self, x: Value, weight: Value, bias: Value | None = None, *, activation: Activation | None = None
    ) -> Value:
        dtype = self._dtype

        def multiplied(x: Any, weight: Any, *biases: Any) -> Any:
            y = torch.nn.functional.linear(x.to(dtype), weight.to(dtype), *(one.to(dtype) for one in biases))
            return y if activation is None else _activated(y, activation)

        return self._step(multiplied, x, weight, *(() if bias is None else (bias,)), dtype=dtype)

    def product(self, x: Value, table: Value) -> Value:
        dtype = self._dtype
        return self._step(lambda x, table: x.to(dtype) @ table.to(dtype), x, table, dtype=dtype)

    def layer_norm(self, x: Value, weight: Value, bias: Value | None, *, epsilon: float) -> Value:
        def normed(x: Any, weight: Any, *biases: Any) -> Any:
            return torch.nn.functional.layer_norm(x.float(), weight.shape, weight, *biases, eps=epsilon)

        return self._step(normed, x, weight, *(() if bias is None else (bias,)))

    def rms_norm(self, x: Value, weight: Value, *, epsilon: float) -> Value:
        def normed(x: Any, weight: Any) -> Any:
            return torch.nn.functional.rms_norm(x.float(), weight.shape, weight, eps=epsilon)

        return self._step(normed, x, weight)

    def activation(self, x: Value, kind: Activation) -> Value:
        return self._step(lambda x: _activated(x, kind), x)

    def log1p(self, x: Value) -> Value:
        return self._step(lambda x: torch.log1p(x.float()), x)

    def add(self, a: Value, b: Value) -> Value:
        return self._step(torch.add, a, b)

    def multiply(self, a: Value, b: Value) -> Value:
        return self._step(torch.mul, a, b)

    def split(self, x: Value, sizes: Sequence[int]) -> list[Value]:
        parts = self._step(lambda x: x.split(list(sizes), -1), x)
        return [self._step(itemgetter(index), parts) for index in range(len(sizes))]

    def concat(self, parts: Sequence[Value]) -> Value:
        return self._step(lambda *parts: torch.cat(parts, -1), *parts)

    def heads(self, x: Value, heads: int) -> Value:
        return self._step(lambda x: x.unflatten(-1, (heads, -1)), x)

    def merged(self, x: Value) -> Value:
        return self._step(lambda x: x.flatten(-2), x)

    def rotary(self, x: Value, cosine: Value, sine: Value, *, heads: int) -> Value:
        def turned(x: Any, cosine: Any, sine: Any) -> Any:
            by_head = x.unflatten(-1, (heads, -1))
            first, second = by_head.chunk(2, -1)
            crossed = torch.cat((-second, first), -1)
            return (by_head * cosine[:, None] + crossed * sine[:, None]).flatten(-2)

        return self._step(turned, x, cosine, sine)

    def attention(
        self,
        query: Value,
        key: Value,
        value: Value,
        *,
        heads: int,
        kv_heads: int | None = None,
        scale: float | None = None,
        causal: bool = False,
        window: int | None = None,
        bias: Value | None = None,
        relative: Relative[Value] | None = None,
    ) -> Value:
        rows = None if relative is None else relative.rows
        tables = (None, None) if relative is None else (relative.keys, relative.queries)
        done = Attention(heads, kv_heads or heads, scale, causal, window, rows, self._dtype)
        return self._step(done, BATCH, query, key, value, bias, *tables)

    def distance_bias(self, table: Value, rows: Feed) -> Value:
        return self._step(lambda x, batch: x[batch.feed(rows)].T[:, batch.feed(APART)], table, BATCH)

    def once(self, weight: Value, make: Callable[[Value], Sequence[Value]]) -> list[Value]:
        """What is made of weights alone is never recorded."""
        self._dtype, dtype = torch.float32, self._dtype
        made = list(make(weight))
        self._dtype = dtype
        return made

    def lstm(self, x: Value, weight: Value, recurrent: Value, bias: Value) -> Value:
        def read(x: Any, weight: Any, recurrent: Any, bias: Any) -> Any:
            state = x.new_zeros(1, len(x), recurrent.shape[1])
            weights = [weight, recurrent, bias, torch.zeros_like(bias)]
            found = torch.lstm(x.float(), (state, state), weights, True, 1, 0.0, False, False, True)
            return found[0].flatten(0, 1)

        return self._step(read, x, weight, recurrent, bias)

    def largest_shares(self, x: Value, count: int) -> Value:
        def largest(x: Any) -> Any:
            shares = x.float().softmax(-1)
            return torch.where(shares >= shares.topk(count).values[..., -1:], shares, 0.0)

        return self._step(largest, x)

    def item_max(self, x: Value) -> Value:
        def largest(batch: Batch, x: Any) -> Any:
            return (x.float()[batch.feed(ROWS)] + batch.feed(MASK).flatten(1)[:, :, None]).amax(1)

        return self._step(largest, BATCH, x)

    def item_mean(self, x: Value) -> Value:
        def mean(batch: Batch, x: Any) -> Any:
            return (x.float()[batch.feed(ROWS)] * batch.feed(SHARES)).sum(1)

        return self._step(mean, BATCH, x)

    def weighted(self, x: Value, shares: Value) -> Value:
        return self._step(lambda x, shares: shares @ x.float(), x, shares)

    def output(self, name: str, x: Value) -> None:
        self._outputs[name] = x

    def compiled(self, *, streams: int, threads: int, warm: Plan | None = None) -> Network:
        """What computes the outputs, warm.

        Args:
            threads: of a stream, on the CPU; torch has as many for all of them together.
            warm: a batch to begin with; None: a short text.
        """
        if self._device == "cpu":
            torch.set_num_threads(streams * threads)
        tensors = {id(one): one for step in self._steps for one in step.inputs if isinstance(one, torch.Tensor)}
        network = Network(
            self._steps,
            self._outputs,
            device=self._device,
            streams=streams,
            precision=self._precision,
            memory_bytes=sum(one.nbytes for one in tensors.values()),
        )
        for stream in range(streams):
            network.run(warm or _SMALL, stream=stream)
        return network

    def _step(self, function: Callable[..., Any], *inputs: Value, dtype: Any = torch.float32) -> Value:
        """Records it, or does it where all that it is of are tensors: these are of `dtype` then, or integers."""
        placed = tuple(self._placed_as(one, dtype) if isinstance(one, torch.Tensor) else one for one in inputs)
        if not any(isinstance(one, int) for one in placed):
            with torch.inference_mode():
                return function(*placed)
        self._steps.append(Step(BATCH + 1 + len(self._steps), function, placed))
        return self._steps[-1].place

    def _placed_as(self, tensor: Any, dtype: Any) -> Any:
        """On the device, one copy however often it is asked for."""
        key = (id(tensor), dtype if tensor.is_floating_point() else tensor.dtype)
        if key not in self._placed:
            # With what it was made of, whose id would otherwise be another's one day.
            self._placed[key] = (tensor, tensor.to(self._device, key[1]))
        return self._placed[key][1]


def _activated(x: Any, kind: Activation) -> Any:
    match kind:
        case "gelu":
            return torch.nn.functional.gelu(x)
        case "gelu_tanh":
            return torch.nn.functional.gelu(x, approximate="tanh")
        case "silu":
            return torch.nn.functional.silu(x)
        case "relu":
            return torch.relu(x)
        case "tanh":
            return torch.tanh(x)
        case "sigmoid":
            return torch.sigmoid(x)
        case "quick_gelu":
            return x * torch.sigmoid(1.702 * x)
