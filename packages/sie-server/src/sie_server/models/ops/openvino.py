"""The operations as nodes of an OpenVINO graph, compiled for the CPU straight from the mapped weights.

The only module that imports openvino. `OpenvinoOps` collects nodes while a backbone runs; `compiled`
makes them a `Graph`, whose `run` feeds one batch's plan to one stream.

Settings, all measured: the precision is always said (bf16 is the plugin's own default where the CPU
has it); no `CACHE_DIR`, which would write a copy of the checkpoint; streams of one thread each do
more together than one stream of many.
"""

import ctypes
import functools
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sie_server.models.calls import LoadError, Precision
from sie_server.models.checkpoint import Checkpoint
from sie_server.models.ops.plan import Plan, plan_batch
from sie_server.models.ops.protocol import Activation
from sie_server.models.tokens import pack

# openvino works without the package that reports its use, and says so by catching the ImportError; in case a
# plain pip brought it along, it is not there for this process. The model converter is what would call it, and
# leaving it out also halves the import's time.
for _left_out in ("openvino_telemetry", "openvino.tools.ovc"):
    sys.modules.setdefault(_left_out, None)  # type: ignore[arg-type]

import openvino as ov  # noqa: E402
from openvino import opset15 as op  # noqa: E402

_INPUTS: Final = {
    "ids": ([-1], ov.Type.i32),
    "positions": ([-1], ov.Type.i32),
    "rows": ([-1, -1], ov.Type.i32),
    "back": ([-1], ov.Type.i32),
    "mask": ([-1, 1, 1, -1], ov.Type.f32),
    "one": ([1], ov.Type.f32),
}
_ONE: Final = np.ones(1, np.float32)
_WEIGHT_BYTES: Final[Mapping[Precision, int]] = {"f32": 4, "bf16": 2}
_FORGET_EVERY_S: Final = 0.02

_WIDE_AT_MOST_BYTES: Final = 100 * 2**20
"""Weights up to which a second copy is worth its memory: all-MiniLM-L6-v2 has 43 MB, a BERT-base 340."""

_WIDE_AT_MOST_TOKENS: Final = 64
"""What is kept per shape is kept per copy, so only short texts, which gain the most, go to the second."""

_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
"""Both of `malloc.h`."""

_MAPPED_FROM_BYTES: Final = 256 * 2**10

_SMALL: Final = plan_batch(pack([np.zeros(8, np.int32)]))


class OpenvinoOps:
    """Collects a graph; see `protocol.Ops`.

    In f32 nothing may be fused into a linear layer: there are two kernels for it, equally fast. The plain one
    packs its weights once, whatever the batch; the one that fuses packs them anew for small and for large
    batches and compiles itself for every size, which for MiniLM is 17 MB and the first batch of each size. bf16
    has only the second.
    """

    def __init__(self, checkpoint: Checkpoint, precision: Precision) -> None:
        self._checkpoint = checkpoint
        self._precision = precision
        self._inputs = {name: op.parameter(ov.PartialShape(shape), dtype) for name, (shape, dtype) in _INPUTS.items()}
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
        return op.gelu(self._unfused(y), "erf") if activation == "gelu" else y

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

        width = query.get_output_partial_shape(0)[1].get_length()
        scale = self._unfused(op.constant(np.array([(width // heads) ** -0.5], np.float32)))
        seen = op.scaled_dot_product_attention(*map(gridded, (query, key, value)), self._inputs["mask"], scale)
        # One row a cell. Zeros keep an axis, so the grid's two are folded before the heads are.
        cells = op.reshape(op.transpose(seen, op.constant(swap)), op.constant(np.array([-1, width], np.int64)), False)
        return op.gather(cells, self._inputs["back"], self._first_axis)

    def _unfused(self, x: Any) -> Any:
        """The same, by a multiplication with 1 that the compiler cannot see through; nothing of it in bf16."""
        return op.multiply(x, self._inputs["one"]) if self._precision == "f32" else x

    def compiled(self, hidden: Any, *, streams: int, threads: int) -> "Graph":
        """The graph that computes `hidden`, warm.

        The last hidden state is an output even where only pooled vectors are wanted: in bf16 the plugin
        keeps float32 from an output back to the first matrix product, which costs nothing and halves the error.
        """
        model = ov.Model([hidden.output(0)], list(self._inputs.values()), "encoder")
        weights_bytes = self._packed_weights * _WEIGHT_BYTES[self._precision]
        shape = _Shape(streams=streams, threads=threads, precision=self._precision)
        return Graph(model, self._checkpoint, shape, weights_bytes=weights_bytes)


@dataclass(frozen=True)
class _Shape:
    """How a graph is to run: so many batches at once, each on so many threads."""

    streams: int
    threads: int
    precision: Precision

    def settings(self, *, streams: int) -> dict[str, object]:
        return {
            "INFERENCE_PRECISION_HINT": self.precision,
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": self.streams * self.threads,
        }


class Graph:
    """A compiled graph and one request per stream; each stream is one thread's at a time.

    Streams of few threads do the most together, and leave the others' cores idle when a batch runs alone.
    So a small model is compiled a second time, as one stream of all the threads, and a short batch that starts
    while no other runs goes there: a third less waiting for a lone call, and the same vectors to the last bit.
    It is compiled when the first copy answers already.
    """

    def __init__(self, model: Any, checkpoint: Checkpoint, shape: _Shape, *, weights_bytes: int) -> None:
        self._checkpoint = checkpoint
        self._weights_bytes = weights_bytes
        self._lock = threading.Lock()
        self._running = 0
        self._requests = self._compile(model, shape, streams=shape.streams)
        self._wide: list[Any] = []
        self._widening: threading.Thread | None = None
        if shape.streams > 1 and weights_bytes <= _WIDE_AT_MOST_BYTES:
            # Whoever loads a model may be a daemon, and would make this one too: a process that exits in the middle of
            # a compilation is aborted by the plugin.
            self._widening = threading.Thread(target=self._widen, args=(model, shape), name="widen", daemon=False)
            self._widening.start()

    @property
    def precision(self) -> Precision:
        """What the linear layers compute in, by the plugin's own word."""
        compiled = self._requests[0].get_compiled_model()
        return "bf16" if compiled.get_property("INFERENCE_PRECISION_HINT") == ov.Type.bf16 else "f32"

    @property
    def memory_bytes(self) -> int:
        """Of the linear layers' weights, which the plugin packs into memory of its own, once a copy."""
        return self._weights_bytes * (2 if self._wide else 1)

    def run(self, plan: Plan, *, stream: int) -> NDArray[np.float32]:
        """(T, width): a view, good until the stream's next run."""
        short = len(plan.ids) <= _WIDE_AT_MOST_TOKENS
        with self._lock:
            alone = self._running == 0
            self._running += 1
        try:
            return _infer((self._wide if alone and short and self._wide else self._requests)[stream], plan)
        finally:
            with self._lock:
                self._running -= 1

    def settle(self) -> None:
        """Waits until nothing is compiled any more."""
        if self._widening is not None:
            self._widening.join()

    def close(self) -> None:
        self.settle()
        self._requests = self._wide = []

    def _widen(self, model: Any, shape: _Shape) -> None:
        self._wide = self._compile(model, shape, streams=1)

    def _compile(self, model: Any, shape: _Shape, *, streams: int) -> list[Any]:
        """One request for each of the caller's streams, on a graph of `streams`, after a small batch on each at once.

        In bf16 the weights are packed at the first batch, and in any precision a stream's first batch is slow.
        """
        with _forgetting(self._checkpoint):
            compiled = _core().compile_model(model, "CPU", shape.settings(streams=streams))
            requests = [compiled.create_infer_request() for _ in range(shape.streams)]
            threads = [threading.Thread(target=_infer, args=(request, _SMALL)) for request in requests[:streams]]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        _c_library().malloc_trim(0)
        return requests


def _infer(request: Any, plan: Plan) -> NDArray[np.float32]:
    inputs = {**plan.inputs(), "one": _ONE}
    for index, name in enumerate(_INPUTS):
        request.set_input_tensor(index, ov.Tensor(inputs[name], shared_memory=True))
    request.infer(share_outputs=True)
    output: NDArray[np.float32] = request.get_output_tensor(0).data
    return output


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
    # A graph's buffers grow with the batches it meets. By default glibc learns from the first large ones to take
    # the next from its heap, where what is outgrown stays, and every thread has a heap: 30 MB for MiniLM under load.
    _c_library().mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM_BYTES)
    _c_library().mallopt(_M_ARENA_MAX, 2)
    return ov.Core()


@functools.cache
def _c_library() -> Any:
    """glibc; with another C library, its own `mallopt` and `malloc_trim` or ones that do nothing."""
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") else SimpleNamespace(mallopt=_nothing, malloc_trim=_nothing)


def _nothing(*_: int) -> None: ...


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
