"""The operations as nodes of an OpenVINO graph, compiled for the CPU straight from the mapped weights.

The only module that imports openvino. `OpenvinoOps` collects nodes while a backbone runs; `compiled`
makes them a `Graph`, whose `run` feeds one batch's plan to one stream.

Settings, all measured: the precision is always said (bf16 is the plugin's own default where the CPU
has it); no `CACHE_DIR`, which would write a copy of the checkpoint; streams of one thread each serve
more than one stream of many.
"""

import functools
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sie_server.models.calls import LoadError, Precision
from sie_server.models.checkpoint import Checkpoint
from sie_server.models.ops.plan import Plan
from sie_server.models.ops.protocol import Activation

# openvino works without the package that reports its use, and says so by catching the ImportError; in case a
# plain pip brought it along, it is not there for this process. The model converter is what would call it, and
# leaving it out also halves the import's time.
for _left_out in ("openvino_telemetry", "openvino.tools.ovc"):
    sys.modules.setdefault(_left_out, None)  # type: ignore[arg-type]

import openvino as ov  # noqa: E402
from openvino import opset15 as op  # noqa: E402

_NAMES: Final = ("ids", "positions", "rows", "back", "mask")
_WEIGHT_BYTES: Final[Mapping[Precision, int]] = {"f32": 4, "bf16": 2}
_FORGET_EVERY_S: Final = 0.02


class OpenvinoOps:
    """Collects a graph; see `protocol.Ops`."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        any_size = {"ids": [-1], "positions": [-1], "rows": [-1, -1], "back": [-1], "mask": [-1, 1, 1, -1]}
        self._inputs = {
            name: op.parameter(ov.PartialShape(any_size[name]), ov.Type.f32 if name == "mask" else ov.Type.i32)
            for name in _NAMES
        }
        self._first_axis = op.constant(np.int32(0))
        self._packed_weights = 0

    @property
    def ids(self) -> Any:
        return self._inputs["ids"]

    @property
    def positions(self) -> Any:
        return self._inputs["positions"]

    def weight(self, name: str, shape: Sequence[int]) -> Any:
        stored = self._checkpoint.weight(name, tuple(shape))
        if stored.dtype == "BF16":
            # numpy has no bfloat16: the bits go in under their own name. Such a constant does not keep its array
            # alive; `Graph` holds the checkpoint.
            tensor = ov.Tensor(stored.array, ov.Shape(list(shape)), ov.Type.bf16)
            return op.convert(ov.op.Constant(tensor, shared_memory=True), "f32")
        constant = op.constant(stored.array, shared_memory=True)
        return constant if stored.dtype == "F32" else op.convert(constant, "f32")

    def row(self, table: Any, index: int) -> Any:
        return op.gather(table, op.constant(np.array([index], np.int32)), self._first_axis)

    def embedding(self, table: Any, ids: Any) -> Any:
        return op.gather(table, ids, self._first_axis)

    def linear(self, x: Any, weight: Any, bias: Any, *, activation: Activation | None = None) -> Any:
        self._packed_weights += math.prod(weight.get_output_shape(0))
        y = op.add(op.matmul(x, weight, False, True), bias)
        return op.gelu(y, "erf") if activation == "gelu" else y

    def layer_norm(self, x: Any, weight: Any, bias: Any, *, epsilon: float) -> Any:
        normed = op.mvn(x, op.constant(np.array([-1], np.int64)), True, epsilon, "inside_sqrt")
        return op.add(op.multiply(normed, weight), bias)

    def add(self, a: Any, b: Any) -> Any:
        return op.add(a, b)

    def attention(self, query: Any, key: Any, value: Any, *, heads: int) -> Any:
        split, swap = np.array([0, 0, heads, -1], np.int64), np.array([0, 2, 1, 3], np.int64)

        def gridded(x: Any) -> Any:
            cells = op.gather(x, self._inputs["rows"], self._first_axis)
            return op.transpose(op.reshape(cells, op.constant(split), True), op.constant(swap))

        seen = op.scaled_dot_product_attention(*map(gridded, (query, key, value)), self._inputs["mask"])
        # One row a cell. Zeros keep an axis, so the grid's two are folded before the heads are.
        width = query.get_output_partial_shape(0)[1].get_length()
        cells = op.reshape(op.transpose(seen, op.constant(swap)), op.constant(np.array([-1, width], np.int64)), False)
        return op.gather(cells, self._inputs["back"], self._first_axis)

    def compiled(self, hidden: Any, *, precision: Precision, streams: int, threads: int) -> "Graph":
        """The graph that computes `hidden`, ready to run.

        The last hidden state is an output even where only pooled vectors are wanted: in bf16 the plugin
        keeps float32 from an output back to the first matrix product, which costs nothing and halves the error.
        """
        model = ov.Model([hidden.output(0)], [self._inputs[name] for name in _NAMES], "encoder")
        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams * threads,
        }
        with _forgetting(self._checkpoint):
            graph = Graph(
                _core().compile_model(model, "CPU", settings),
                self._checkpoint,
                streams=streams,
                memory_bytes=self._packed_weights * _WEIGHT_BYTES[precision],
            )
            graph.warm_up()
        return graph


class Graph:
    """A compiled graph and one request per stream; each stream is one thread's at a time.

    `memory_bytes`: of the linear layers' weights, which the plugin packs into memory of its own.
    """

    def __init__(self, compiled: Any, checkpoint: Checkpoint, *, streams: int, memory_bytes: int) -> None:
        self._compiled = compiled
        self._checkpoint = checkpoint
        self.memory_bytes = memory_bytes
        self._requests = [compiled.create_infer_request() for _ in range(streams)]

    @property
    def precision(self) -> Precision:
        """What the linear layers compute in, by the plugin's own word."""
        return "bf16" if self._compiled.get_property("INFERENCE_PRECISION_HINT") == ov.Type.bf16 else "f32"

    def run(self, plan: Plan, *, stream: int) -> NDArray[np.float32]:
        """(T, width): a view, good until the stream's next run."""
        request = self._requests[stream]
        inputs = plan.inputs()
        for index, name in enumerate(_NAMES):
            request.set_input_tensor(index, ov.Tensor(inputs[name], shared_memory=True))
        request.infer(share_outputs=True)
        output: NDArray[np.float32] = request.get_output_tensor(0).data
        return output

    def warm_up(self) -> None:
        """One small batch on every stream at once: in bf16 the weights are packed at the first of them."""
        size = np.zeros(32, np.int32)
        plan = Plan(size, size, np.zeros((1, 8), np.int32), size, np.zeros((1, 1, 1, 8), np.float32))
        threads = [
            threading.Thread(target=self.run, args=(plan,), kwargs={"stream": stream})
            for stream in range(len(self._requests))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def close(self) -> None:
        self._requests.clear()
        self._compiled = None


def precision_for(wanted: Precision | str) -> Precision:
    """`auto` made definite; bf16 only where the CPU has it.

    Raises:
        LoadError: bf16 is asked for on a CPU without it: the plugin would compute in f32 and not say so.
    """
    has_bf16 = "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    match wanted:
        case "f32":
            return "f32"
        case "bf16" if has_bf16:
            return "bf16"
        case "auto":
            return _faster_precision() if has_bf16 else "f32"
        case "bf16":
            name = _core().get_property("CPU", "FULL_DEVICE_NAME").strip()
            raise LoadError(f"precision is `bf16` and this CPU ({name}) has no bf16", hint="set it to `auto` or `f32`")
    raise LoadError(f"precision is `{wanted}`: supported are `auto`, `f32` and `bf16`")


@functools.cache
def _core() -> Any:
    return ov.Core()


@functools.cache
def _faster_precision() -> Precision:
    """Which of the two multiplies faster here: one 1024 × 1024 layer on 256 tokens, a tenth of a second.

    Having bf16 is not enough: without the instructions that multiply it, it is emulated and slower than f32.
    """
    x = op.parameter(ov.PartialShape([256, 1024]), ov.Type.f32)
    weight = op.constant(np.full((1024, 1024), 1 / 1024, np.float32))
    model = ov.Model([op.matmul(x, weight, False, True).output(0)], [x], "probe")
    ones = ov.Tensor(np.ones((256, 1024), np.float32))

    def seconds(precision: Precision) -> float:
        request = _core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision}).create_infer_request()
        request.set_input_tensor(0, ones)
        request.infer()
        return min(_timed(request.infer) for _ in range(3))

    return "bf16" if seconds("bf16") < seconds("f32") else "f32"


def _timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


@contextmanager
def _forgetting(checkpoint: Checkpoint) -> Iterator[None]:
    """While the weights are packed, hands the pages of the map back as they have been read.

    Without it the peak is twice the checkpoint: the map and the packed weights.
    """
    done = threading.Event()

    def forget() -> None:
        while not done.wait(_FORGET_EVERY_S):
            checkpoint.forget_pages()

    thread = threading.Thread(target=forget, name="forget-pages")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        checkpoint.forget_pages()
