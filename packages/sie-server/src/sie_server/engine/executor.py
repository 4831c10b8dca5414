"""The threads that own the device: one per stream, each taking the next batch of whoever has had least of it.

A thread that is free takes what waits at that moment and runs it; nothing is timed. Whose turn it is among several
models, `fairness` says; which of a model's jobs, `batcher`. A batch that fails is run again in halves, so that one
bad item fails alone and an answer that did not fit in memory may fit in two; results go to `deliver`, which puts them
back on the event loop.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from msgspec import Struct

from sie_core.errors import ApiError
from sie_server.engine.fairness import Shares
from sie_server.engine.jobs import Job, Outcome
from sie_server.engine.memory import is_out_of_memory
from sie_server.engine.room import size
from sie_server.engine.scheduler import Scheduler, Taken
from sie_server.models.calls import Model
from sie_server.observability import EVENT_BATCH_FAILED, EVENT_BUG

logger = logging.getLogger("sie.executor")

LARGE_BYTES: Final = 64 * 2**20
"""What a pass may take without a look at what is left: every batch of short texts, and most of long ones."""


class Finished(Struct, frozen=True):
    """One batch, run: `results` in the order of `batch`; times of the monotonic clock, in seconds.

    Attributes:
        splits: how often it, or a part of it, did not fit in memory and was halved.
    """

    scheduler: Scheduler
    taken: Taken
    results: Sequence[Outcome]
    started_s: float
    ended_s: float
    splits: int


class _Turn(Struct, frozen=True):
    """A batch that a thread has picked; `charged_s`: of device time, until it is known what it took."""

    scheduler: Scheduler
    taken: Taken
    tokens: int
    charged_s: float


class Executor:
    """`streams` threads over any number of schedulers."""

    def __init__(
        self,
        *,
        streams: int,
        deliver: Callable[[Finished], None],
        left: Callable[[], int | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`left`: the bytes that a pass may still take; None where it cannot be told."""
        self._deliver = deliver
        self._elbow = Elbow(left)
        self._clock = clock
        self._ready = threading.Condition()
        self._schedulers: list[Scheduler] = []
        self._shares: Shares[Scheduler] = Shares()
        self._idle = 0
        self._closing = False
        self._threads = [
            threading.Thread(target=self._serve, args=(stream,), name=f"device-{stream}", daemon=True)
            for stream in range(streams)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Lets running batches end; what still waits is not run."""
        with self._ready:
            self._closing = True
            self._ready.notify_all()
        for thread in self._threads:
            thread.join()

    def forget(self, scheduler: Scheduler) -> None:
        """No job is submitted to it any more."""
        with self._ready:
            self._schedulers = [kept for kept in self._schedulers if kept is not scheduler]
            self._shares.forget(scheduler)

    def submit(self, scheduler: Scheduler, jobs: Sequence[Job]) -> None:
        """Queues jobs. A scheduler is known from its first job on: one that never gets any is held by nobody here."""
        with self._ready:
            if scheduler not in self._schedulers:
                self._schedulers = [*self._schedulers, scheduler]
            if not len(scheduler):
                self._shares.wake(scheduler)
            scheduler.add(jobs)
            self._ready.notify(min(len(jobs), len(self._threads)))

    def _serve(self, stream: int) -> None:
        while True:
            with self._ready:
                while (turn := self._pick()) is None:
                    if self._closing:
                        return
                    self._idle += 1
                    self._ready.wait()
                    self._idle -= 1
            self._run(turn, stream)

    def _run(self, turn: _Turn, stream: int) -> None:
        """Apart from the loop, so that a thread that waits for work keeps no model in memory."""
        scheduler, taken = turn.scheduler, turn.taken
        splits: list[int] = []
        started_s = self._clock()
        results = run_split(scheduler.model, taken.batch, stream=stream, elbow=self._elbow, on_split=splits.append)
        ended_s = self._clock()
        if taken.batch:
            with self._ready:
                took_s = ended_s - started_s
                self._shares.end(scheduler, charged_s=turn.charged_s, tokens=turn.tokens, took_s=took_s)
        # Answers first: what follows may close a model, and fail at it.
        self._deliver(Finished(scheduler, taken, results, started_s, ended_s, len(splits)))
        if taken.batch:
            _ended(scheduler)

    def _pick(self) -> _Turn | None:
        """A batch of the model that has had least of the device."""
        if self._closing:
            return None
        ages = ((scheduler, scheduler.oldest_s()) for scheduler in self._schedulers)
        for scheduler in self._shares.order((one, oldest_s) for one, oldest_s in ages if oldest_s is not None):
            taken = scheduler.take(self._clock(), share=1 + self._idle)
            if taken.batch:
                tokens = sum(job.tokens for job in taken.batch)
                return _Turn(scheduler, taken, tokens, self._shares.begin(scheduler, tokens))
            if taken.dropped:
                return _Turn(scheduler, taken, 0, 0.0)
        return None


class TooLarge(MemoryError):
    """A pass that is not tried: whoever kills a process for its memory does not ask."""


class Elbow:
    """Room for what a pass takes for a time beside what models hold; large ones take it one after the other."""

    def __init__(self, left: Callable[[], int | None] = lambda: None) -> None:
        self._left = left
        self._lock = threading.Lock()

    @contextmanager
    def room_for(self, size_bytes: int) -> Iterator[None]:
        """Raises `TooLarge`, with both amounts, where it is not there."""
        if size_bytes < LARGE_BYTES:
            yield
            return
        with self._lock:
            left_bytes = self._left()
            if left_bytes is not None and size_bytes > left_bytes:
                raise TooLarge(f"it takes about {size(size_bytes)} for a time, and {size(left_bytes)} are left")
            yield


def run_split(
    model: Model,
    batch: Sequence[Job],
    *,
    stream: int,
    elbow: Elbow | None = None,
    on_split: Callable[[int], object] = lambda items: None,
) -> list[Outcome]:
    """Each job's output, or the error that it alone has; in the order of `batch`, however it was halved.

    Args:
        elbow: where its memory comes from; None: there is enough.
        on_split: told the number of jobs of a part that did not fit in memory, before its halves are run.
    """
    if not batch:
        return []
    elbow = elbow or Elbow()
    prepared = [job.prepared for job in batch]
    try:
        with elbow.room_for(model.working_bytes(prepared)):
            outputs: list[Outcome] = list(model.run(prepared, stream=stream))
        if len(outputs) == len(batch):
            return outputs
        raise RuntimeError(f"the model gave {len(outputs)} outputs for {len(batch)} items")
    except Exception as error:
        logger.warning(
            EVENT_BATCH_FAILED,
            exc_info=len(batch) == 1,
            extra={"fields": {"items": len(batch), "tokens": sum(job.tokens for job in batch), "error": repr(error)}},
        )
        if len(batch) == 1:
            return [_as_answer(error, batch[0])]
        if is_out_of_memory(error):
            on_split(len(batch))
    # Outside of the handler, where the error would keep alive what the failed attempt had allocated.
    half = len(batch) // 2
    return [
        *run_split(model, batch[:half], stream=stream, elbow=elbow, on_split=on_split),
        *run_split(model, batch[half:], stream=stream, elbow=elbow, on_split=on_split),
    ]


def _as_answer(error: Exception, job: Job) -> ApiError:
    match error:
        case ApiError():
            return error
        case TooLarge():
            said = f"an item of {job.tokens} tokens does not fit in memory: {error}"
            return ApiError("RESOURCE_EXHAUSTED", said, hint="send shorter items, or give the worker more memory")
        case _ if is_out_of_memory(error):
            return ApiError(
                "RESOURCE_EXHAUSTED", f"an item of {job.tokens} tokens does not fit in memory, alone as well"
            )
        case _:
            said = f"the model failed on an item of {job.tokens} tokens: {type(error).__name__}"
            return ApiError("INFERENCE_ERROR", said, hint="the worker's log has the trace")


def _ended(scheduler: Scheduler) -> None:
    """A model that cannot be closed costs its memory and not the device's thread."""
    try:
        scheduler.ran()
    except Exception:
        logger.exception(EVENT_BUG, extra={"fields": {"model": scheduler.model_id}})
