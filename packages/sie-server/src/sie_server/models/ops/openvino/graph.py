"""A compiled graph: one batch's plan to one stream's results.

Settings, all measured: the precision is always said (bf16 is the plugin's own default where the CPU
has it); no `CACHE_DIR`, which would write a copy of the checkpoint. Of a small model, streams of few
threads do more together than one stream of all; of a large one as much, and alone half as much.
"""

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sie_server.models.calls import Precision
from sie_server.models.checkpoint import Checkpoint
from sie_server.models.ops.openvino.device import c_library, core, ov
from sie_server.models.ops.plan import Feed, Plan, plan_batch
from sie_server.models.predicting import SMALL_BYTES
from sie_server.models.tokens import pack
from sie_server.observability import EVENT_NOT_WIDENED

logger = logging.getLogger("sie.models")

_FORGET_EVERY_S: Final = 0.02

_WIDE_AT_MOST_TOKENS: Final = 64
"""What is kept per shape is kept per copy, so only short texts, which gain the most, go to the second."""

_KEPT_TOKENS: Final = 2 * 1024
"""A graph keeps the buffers of its largest batch. They serve every batch of an ordinary size again; those of a longer
text, 3.2 GB for 8,192 tokens with a bias, are given back after it, which takes a hundredth of the time it took."""

_SMALL: Final = plan_batch(pack([np.zeros(8, np.int32)]))


@dataclass(frozen=True)
class Shape:
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

    Streams of few threads leave the others' cores idle when a batch runs alone: a lone long text would take
    twice as long as it must. So a model that is not small is one stream of all the threads, on which the requests
    take turns: while one computes, the others' batches are packed and answered. A small one does more on streams
    side by side, and is compiled a second time as one wide stream for the short batch that starts while no other
    runs: a third less waiting for a lone call, and the same vectors to the last bit. That copy is compiled when
    the first answers already.
    """

    def __init__(
        self,
        outputs: Mapping[str, Any],
        feeds: Mapping[Feed, Any],
        checkpoint: Checkpoint,
        shape: Shape,
        *,
        weights_bytes: int,
        warm: Plan | None = None,
    ) -> None:
        self._checkpoint = checkpoint
        self._names = tuple(outputs)
        self._feeds = tuple(feeds)
        self._warm = warm or _SMALL
        self._weights_bytes = weights_bytes
        self._lock = threading.Lock()
        self._running = 0
        self._grown = False
        # A part of a split is an output already; any other node has its first.
        results = [x if hasattr(x, "get_partial_shape") else x.output(0) for x in outputs.values()]
        model = ov.Model(results, list(feeds.values()), "encoder")
        small = weights_bytes <= SMALL_BYTES
        self._requests = self._compile(model, shape, streams=shape.streams if small else 1)
        self._wide: list[Any] = []
        self._widening: threading.Thread | None = None
        if shape.streams > 1 and small:
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

    def run(self, plan: Plan, *, stream: int) -> Mapping[str, NDArray[np.float32]]:
        """The outputs by name: views, good until the stream's next run."""
        short = len(plan.ids) <= _WIDE_AT_MOST_TOKENS
        with self._lock:
            alone = self._running == 0
            self._running += 1
        try:
            return self._infer((self._wide if alone and short and self._wide else self._requests)[stream], plan)
        finally:
            with self._lock:
                self._running -= 1
                self._grown |= len(plan.ids) > _KEPT_TOKENS
                if self._grown and not self._running:  # it refuses while anything runs, and nothing begins meanwhile
                    self._requests[stream].get_compiled_model().release_memory()
                    self._grown = False

    def settle(self) -> None:
        """Waits until nothing is compiled any more."""
        if self._widening is not None:
            self._widening.join()

    def close(self) -> None:
        self.settle()
        self._requests = self._wide = []

    def _widen(self, model: Any, shape: Shape) -> None:
        try:
            self._wide = self._compile(model, shape, streams=1)
        except Exception as error:  # the first copy answers without it
            # A thread's own word would be raw lines on stderr.
            reason = str(error).strip().partition("\n")[0]
            logger.warning(EVENT_NOT_WIDENED, extra={"fields": {"error": type(error).__name__, "reason": reason}})

    def _compile(self, model: Any, shape: Shape, *, streams: int) -> list[Any]:
        """One request for each of the caller's streams, on a graph of `streams`, after a small batch on each at once.

        In bf16 the weights are packed at the first batch, and in any precision a stream's first batch is slow.
        """
        with _forgetting(self._checkpoint):
            compiled = core().compile_model(model, "CPU", shape.settings(streams=streams))
            requests = [compiled.create_infer_request() for _ in range(shape.streams)]
            self._warm_up(requests[:streams])
        c_library().malloc_trim(0)
        return requests

    def _warm_up(self, requests: Sequence[Any]) -> None:
        """A small batch on each at once; raises what the first of them that fails does."""
        failed: list[Exception] = []

        def infer(request: Any) -> None:
            try:
                self._infer(request, self._warm)
            except Exception as error:  # handed to whoever compiles
                failed.append(error)

        threads = [threading.Thread(target=infer, args=(request,)) for request in requests]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]

    def _infer(self, request: Any, plan: Plan) -> Mapping[str, NDArray[np.float32]]:
        # The arrays are held here until they have been read.
        arrays = [np.ascontiguousarray(feed.make(plan)) for feed in self._feeds]
        for index, array in enumerate(arrays):
            request.set_input_tensor(index, ov.Tensor(array, shared_memory=True))
        # `infer` loses an error of the run (openvino 2026.4): where memory is short it returns with the outputs of the
        # batch before, which belong to others. `wait` raises it. Neither is faster.
        request.start_async()
        request.wait()
        return {name: request.get_output_tensor(index).data for index, name in enumerate(self._names)}


def computed_once(results: Sequence[Any], one: Any, checkpoint: Checkpoint) -> list[NDArray[np.float32]]:
    """What nodes come to, in float32, where `one`, the only input among them, is 1."""
    with _forgetting(checkpoint):
        compiled = core().compile_model(
            ov.Model(list(results), [one], "once"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        request = compiled.create_infer_request()
        request.set_input_tensor(0, ov.Tensor(np.ones(1, np.float32)))
        request.start_async()
        request.wait()
        return [request.get_output_tensor(index).data.copy() for index in range(len(results))]


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
