"""A call's way through the worker: admitted, tokenised, queued, run, answered.

    admit      the tokens that wait are bounded; a call's share is estimated from its bytes, before any work
    prepare    tokenised in a small pool of threads (very short calls on the spot: the hop would cost more)
    submit     one job an item into the model's queue; device threads take batches from it
    settle     back on the event loop: results into their calls, measurements into the metrics

All of it belongs to the event loop's thread, except `Executor` and the loading threads of `Residency`.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from msgspec import Struct

from sie_core.catalog.spec import ModelSpec
from sie_core.errors import ApiError
from sie_core.ids import ModelId
from sie_server.engine.executor import Executor, Finished
from sie_server.engine.jobs import Job, Result, Stamps, Ticket, late
from sie_server.engine.residency import Made, Residency, Resident, Say, State
from sie_server.engine.scheduler import Scheduler
from sie_server.models.calls import Call, Model, Prepared
from sie_server.observability import EVENT_MODEL_UNLOADED, Metrics

logger = logging.getLogger("sie.engine")

INLINE_TOKENS = 64
"""Up to this estimate a call is tokenised on the event loop: it takes less than handing it to a thread."""


class Limits(Struct, frozen=True):
    """How much the engine holds and runs at once.

    Attributes:
        queue_tokens: most tokens admitted and not yet answered.
        batch_tokens: most tokens in one forward pass.
        streams: device threads.
        tokenizer_threads: threads that tokenise.
    """

    queue_tokens: int
    batch_tokens: int
    streams: int
    tokenizer_threads: int


class Answer(Struct, frozen=True):
    """What came of a call: one result an item, and which items were longer than the model takes."""

    results: Sequence[Result]
    truncated: Sequence[int]
    stamps: Stamps


class Engine:
    """Loads models and runs calls. `start` belongs to the event loop that will call it; loading may begin before."""

    def __init__(
        self,
        load: Callable[[ModelSpec, Say], Made],
        *,
        limits: Limits,
        kept: Sequence[ModelId] = (),
        on_change: Callable[[ModelId, State], None] = lambda model_id, state: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits
        self.metrics = Metrics()
        self.clock = clock
        self.queued_tokens = 0
        self.residency = Residency(load, queue=self._queue, kept=kept, on_change=on_change, clock=clock)
        self._executor = Executor(streams=limits.streams, deliver=self._deliver, clock=clock)
        self._pool = ThreadPoolExecutor(limits.tokenizer_threads, thread_name_prefix="tokenizer")
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._executor.start()

    def close(self) -> None:
        """Ends the threads; what still waits is not run."""
        self.residency.close()
        self._executor.close()
        self._pool.shutdown(cancel_futures=True)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            raise RuntimeError("the engine has not been started")
        return self._loop

    def ticket(self, *, arrived_s: float, timeout_s: float | None = None) -> Ticket:
        deadline_s = None if timeout_s is None else arrived_s + timeout_s
        return Ticket(self.loop, arrived_s=arrived_s, deadline_s=deadline_s)

    async def encode(self, resident: Resident, call: Call, ticket: Ticket) -> Answer:
        """Runs a call.

        Raises:
            ApiError: QUEUE_FULL, DEADLINE_EXCEEDED, or what the model says of the input.
            CallerGone: the ticket was abandoned.
        """
        cost = self._admit(resident.model.estimate_tokens(call))
        timer = None
        resident.calls += 1
        try:
            timer = self._timer(ticket)
            ticket.stamps.tokenizing_s = self.clock()
            prepared = await self._prepared(resident.model, call, cost)
            ticket.stamps.queued_s = self.clock()
            exact = sum(item.tokens for item in prepared)
            self.queued_tokens += exact - cost
            cost = exact
            self._submit(resident, prepared, ticket)
            await ticket.done
        finally:
            self.queued_tokens -= cost
            if timer is not None:
                timer.cancel()
            resident.calls -= 1
            self._unload_if_over(resident)
        return _answer(ticket, prepared)

    def unload(self, model_id: ModelId) -> None:
        """Takes a model out; its memory comes back after the last call that is running on it."""
        resident = self.residency.forget(model_id)
        if resident is not None:
            resident.retired = True
            self._unload_if_over(resident)

    def _unload_if_over(self, resident: Resident) -> None:
        if resident.retired and not resident.calls:
            self._executor.forget(resident.scheduler)
            resident.scheduler.retire()
            logger.info(EVENT_MODEL_UNLOADED, extra={"fields": {"model": resident.spec.id}})

    def _queue(self, model_id: ModelId, model: Model) -> Scheduler:
        """In a loading thread."""
        return Scheduler(model_id, model, budget_tokens=self.limits.batch_tokens)

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

    async def _prepared(self, model: Model, call: Call, estimate: int) -> list[Prepared]:
        if estimate <= INLINE_TOKENS:
            return model.prepare(call)
        return await self.loop.run_in_executor(self._pool, model.prepare, call)

    def _submit(self, resident: Resident, prepared: Sequence[Prepared], ticket: Ticket) -> None:
        if ticket.done.done():  # gone while it was tokenised: nothing to queue, and the wait raises at once
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


def _answer(ticket: Ticket, prepared: Sequence[Prepared]) -> Answer:
    """A call whose items all failed in the same way fails as a whole, so that its status says so."""
    results = [result for result in ticket.results if result is not None]
    errors = [result for result in results if isinstance(result, ApiError)]
    if errors and len(errors) == len(results) and len({error.code for error in errors}) == 1:
        raise errors[0]
    truncated = [index for index, item in enumerate(prepared) if item.truncated]
    return Answer(results, truncated, ticket.stamps)
