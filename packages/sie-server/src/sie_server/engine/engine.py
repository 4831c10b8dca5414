"""A call's way through the worker: admitted, tokenised, queued, run, answered.

    admit      the tokens that wait are bounded; a call's share is estimated from its bytes, before any work
    prepare    tokenised in a small pool of threads (very short calls on the spot: the hop would cost more)
    submit     one job an item into the model's queue; device threads take batches from it
    settle     back on the event loop: results into their calls, measurements into the metrics

All of it belongs to the event loop's thread, except `Executor`, the loading threads of `Residency`, and a thread for
each model that is unloaded: giving gigabytes back takes a while.
"""

import asyncio
import collections
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
from msgspec import Struct

from sie_core.errors import ApiError
from sie_core.ids import ModelId
from sie_server import machine
from sie_server.engine import loras
from sie_server.engine.executor import Executor, Finished
from sie_server.engine.jobs import Job, Stamps, Ticket, late
from sie_server.engine.memory import stale
from sie_server.engine.residency import Load, Residency, Resident, State
from sie_server.engine.room import Claim, Room
from sie_server.engine.scheduler import Scheduler
from sie_server.models.calls import Call, Extract, Input, Model, Output, Prepared, Result, Score
from sie_server.observability import EVENT_MODEL_UNLOADED, Metrics

logger = logging.getLogger("sie.engine")

INLINE_CHARACTERS = 256
"""Up to so many a call is tokenised on the event loop: it takes less than handing it to a thread."""

_EVERY_TEXT = 8
"""Characters that a text counts for beside its own: an empty one is work too."""

_LOOKS = 10
"""How often a model is looked at before it has been idle for too long."""


class Limits(Struct, frozen=True):
    """How much the engine holds and runs at once.

    Attributes:
        queue_tokens: most tokens admitted and not yet answered.
        batch_tokens: most tokens in one forward pass.
        streams: device threads.
        tokenizer_threads: threads that tokenise.
        memory_bytes: most that models may hold; None: as much as they take.
        idle_evict_s: a model that no call has named for so long is unloaded; None: it stays.
    """

    queue_tokens: int
    batch_tokens: int
    streams: int
    tokenizer_threads: int
    memory_bytes: int | None = None
    idle_evict_s: float | None = None


class Answer(Struct, frozen=True):
    """What came of a call: one result an item.

    Attributes:
        truncated: which items were longer than the model takes.
        tokens: what went through the model for it, special tokens included.
    """

    results: Sequence[Result]
    truncated: Sequence[int]
    stamps: Stamps
    tokens: int


class Engine:
    """Loads models and runs calls. `start` belongs to the event loop that will call it; loading may begin before."""

    def __init__(
        self,
        load: Load,
        *,
        limits: Limits,
        kept: Sequence[ModelId] = (),
        on_change: Callable[[ModelId, State], None] = lambda model_id, state: None,
        measure: Callable[[], int | None] = lambda: None,
        left: Callable[[], int | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Both in bytes; None where it cannot be told.

        Args:
            measure: the memory of this process, to compare predictions with.
            left: what a pass may still take.
        """
        self.limits = limits
        self.metrics = Metrics()
        self.clock = clock
        self.queued_tokens = 0
        self.files_evicted = collections.Counter[str]()
        self._counting = threading.Lock()
        self.room = Room(limits.memory_bytes, evict=self._evict, measure=measure, clock=clock)
        self.residency = Residency(load, room=self.room, queue=self._queue, kept=kept, on_change=on_change, clock=clock)
        self._executor = Executor(streams=limits.streams, deliver=self._deliver, left=left, clock=clock)
        self._pool = ThreadPoolExecutor(limits.tokenizer_threads, thread_name_prefix="tokenizer")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unloading: list[threading.Thread] = []

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._executor.start()
        if self.limits.idle_evict_s is not None:
            self._sweep(self.limits.idle_evict_s)

    def close(self) -> None:
        """Ends the threads; what still waits is not run."""
        self.residency.close()
        self._executor.close()
        for thread in self._unloading:
            thread.join()
        self._pool.shutdown(cancel_futures=True)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            raise RuntimeError("the engine has not been started")
        return self._loop

    def ticket(self, *, arrived_s: float, timeout_s: float | None = None) -> Ticket:
        deadline_s = None if timeout_s is None else arrived_s + timeout_s
        return Ticket(self.loop, arrived_s=arrived_s, deadline_s=deadline_s)

    async def run(self, resident: Resident, call: Call, ticket: Ticket) -> Answer:
        """Runs a call of any task.

        Raises:
            ApiError: LORA_LOADING, QUEUE_FULL, DEADLINE_EXCEEDED, or what the model says of the input.
            CallerGone: the ticket was abandoned.
        """
        loras.look(resident, call.variant, self.room, self.clock)
        cost = self._admit(resident.model.estimate_tokens(call))
        timer = None
        resident.calls += 1
        try:
            timer = self._timer(ticket)
            ticket.stamps.tokenizing_s = self.clock()
            prepared = await self._prepared(resident.model, call, ticket)
            ticket.stamps.queued_s = self.clock()
            exact = sum(item.tokens for item in prepared)
            self.queued_tokens += exact - cost
            cost = exact
            self._submit(resident, prepared, ticket)
            await ticket.done
            # Still one of the model's calls: it must not be unloaded before its answer has been made of the outputs.
            return _answer(resident.model, call, prepared, ticket)
        finally:
            self.queued_tokens -= cost
            if timer is not None:
                timer.cancel()
            resident.calls -= 1
            self._left(resident)

    def unload(self, model_id: ModelId) -> None:
        """Takes a model out; its memory comes back after the last call that is running on it."""
        resident = self.residency.forget(model_id)
        if resident is not None:
            resident.retired = True
            self.room.leaving(resident)
            self._unload_if_over(resident)

    def _left(self, resident: Resident) -> None:
        """A call has ended."""
        resident.used_s = self.clock()
        self._unload_if_over(resident)
        if not resident.calls and self.room.waiting:
            self.room.look_again()

    def _unload_if_over(self, resident: Resident) -> None:
        if not resident.retired or resident.calls:
            return
        self._executor.forget(resident.scheduler)
        # No daemon: a process that exits while an engine frees its memory may crash.
        thread = threading.Thread(target=self._close, args=(resident,), name=f"unload-{resident.spec.id}", daemon=False)
        self._unloading = [*(one for one in self._unloading if one.is_alive()), thread]
        thread.start()

    def _close(self, resident: Resident) -> None:
        """In a thread of its own; where a batch that nobody waits for is still running, the device's thread closes."""

        def closed() -> None:
            machine.give_back()
            resident.made.release()
            self.room.gone(resident)
            logger.info(EVENT_MODEL_UNLOADED, extra={"fields": {"model": resident.spec.id}})

        resident.scheduler.retire(closed)

    def count_evicted(self, model: str) -> None:
        """From any thread: the files of a model have gone from the local cache."""
        with self._counting:
            self.files_evicted[model] += 1

    def _evict(self, claims: Sequence[Claim]) -> None:
        """In any thread. Only the loop's knows which models are in use at this moment."""
        with suppress(RuntimeError):  # the loop has ended, and with it everything that was loaded
            self.loop.call_soon_threadsafe(self._send_away, claims)

    def _send_away(self, claims: Sequence[Claim]) -> None:
        for claim in claims:
            if claim.use is not None and self.residency.states().get(claim.model_id) is claim.use:
                self.metrics.evicted.add(claim.model_id)
                self.unload(claim.model_id)

    def _sweep(self, idle_s: float) -> None:
        """Unloads what nobody uses, and looks again later."""
        claims = {claim.number: claim for claim in self.room.claims()}
        unused = stale([claim.held() for claim in claims.values()], idle_s=idle_s, now_s=self.clock())
        self._send_away([claims[number] for number in unused])
        self.loop.call_later(idle_s / _LOOKS, self._sweep, idle_s)

    def _queue(self, model_id: ModelId, model: Model) -> Scheduler:
        """In a loading thread."""
        own = self.limits.batch_tokens if model.batch_tokens is None else model.batch_tokens
        return Scheduler(model_id, model, budget_tokens=min(own, self.limits.batch_tokens))

    def _admit(self, estimate: int) -> int:
        """Adds the call's share. An empty queue takes a call of any size: else it could never run."""
        if self.queued_tokens and self.queued_tokens + estimate > self.limits.queue_tokens:
            raise ApiError(
                "QUEUE_FULL",
                f"{self.queued_tokens} tokens are waiting and the call adds about {estimate}; "
                f"the limit is {self.limits.queue_tokens}",
                hint="come again, send fewer items a call, or add workers",
            )
        self.queued_tokens += estimate
        return estimate

    def _timer(self, ticket: Ticket) -> asyncio.TimerHandle | None:
        if ticket.deadline_s is None:
            return None
        left_s = ticket.deadline_s - self.clock()
        if left_s <= 0:
            raise late()
        return self.loop.call_later(left_s, ticket.expire)

    async def _prepared(self, model: Model, call: Call, ticket: Ticket) -> list[Prepared]:
        """Nothing, for a caller who has gone while the call waited for a thread."""
        if _is_short(call):
            return model.prepare(call)

        def prepare() -> list[Prepared]:
            return model.prepare(call) if ticket.wanted(self.clock()) else []

        return await self.loop.run_in_executor(self._pool, prepare)

    def _submit(self, resident: Resident, prepared: Sequence[Prepared], ticket: Ticket) -> None:
        if not ticket.wanted(self.clock()):
            ticket.expire()  # late by the clock and perhaps not yet by the timer; else gone already
        if ticket.done.done():  # nothing to queue, and the wait raises at once
            return
        ticket.expect(len(prepared))
        jobs = [Job(item, ticket, index, item.tokens) for index, item in enumerate(prepared)]
        self._executor.submit(resident.scheduler, jobs)

    def _deliver(self, finished: Finished) -> None:
        """In a device thread."""
        self.loop.call_soon_threadsafe(self._settle, finished)

    def _settle(self, finished: Finished) -> None:
        model_id, taken = finished.scheduler.model_id, finished.taken
        for job in taken.dropped:
            job.ticket.expire()  # late by the device's clock and perhaps not yet by the timer; else gone already
        for job, result in zip(taken.batch, finished.results, strict=True):
            stamps = job.ticket.stamps
            stamps.started_s = stamps.started_s or finished.started_s
            stamps.ended_s = finished.ended_s
            job.ticket.settle(job.index, result)
        if taken.dropped:
            self.metrics.dropped.add(model_id, by=len(taken.dropped))
        if taken.batch:
            tokens = sum(job.tokens for job in taken.batch)
            self.metrics.batch_items.observe(len(taken.batch), model_id)
            self.metrics.batch_tokens.observe(tokens, model_id)
            self.metrics.tokens.add(model_id, by=tokens)
            self.metrics.device_seconds.add(model_id, by=finished.ended_s - finished.started_s)
        if finished.splits:
            self.metrics.splits.add(model_id, by=finished.splits)


def _is_short(call: Call) -> bool:
    """By the texts themselves: an estimate in tokens ends where the model cuts them off. A picture is to be decoded."""
    beside: tuple[Input, ...] = (call.instruction or "",)
    match call:
        case Score(query=query):
            beside += (query,)
        case Extract(labels=labels):
            beside += labels
    characters = 0
    for one in (*call.inputs, *beside):
        if not isinstance(one, str):
            return False
        characters += len(one) + _EVERY_TEXT
    return characters <= INLINE_CHARACTERS


def _answer(model: Model, call: Call, prepared: Sequence[Prepared], ticket: Ticket) -> Answer:
    """A call whose items all failed in the same way fails as a whole, so that its status says so."""
    outputs = [output for output in ticket.results if output is not None]
    results = [_finite(result) for result in model.finish(call, prepared, outputs)]
    errors = [result for result in results if isinstance(result, ApiError)]
    if errors and len(errors) == len(results) and len({error.code for error in errors}) == 1:
        raise errors[0]
    truncated = sorted({sequence.item for sequence in prepared if sequence.truncated and sequence.item >= 0})
    return Answer(results, truncated, ticket.stamps, sum(sequence.tokens for sequence in prepared))


def _finite(result: Result) -> Result:
    """A vector with a NaN is an error: it would be answered as null, or spoil an index without a word."""
    if not isinstance(result, Output):
        return result
    sparse = None if result.sparse is None else result.sparse.values
    for name, array in (("dense", result.dense), ("sparse", sparse), ("multivector", result.multivector)):
        if array is not None and not np.isfinite(array).all():
            said = f"the `{name}` output has a NaN or an infinity in it"
            return ApiError("INFERENCE_ERROR", said, hint="a precision with fewer bits may overflow: try another")
    return result
