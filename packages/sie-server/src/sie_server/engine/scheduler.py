"""The queue of one loaded model: a batcher, the lock around it, and the jobs that nobody wants any more."""

import threading
from collections.abc import Callable, Sequence

from msgspec import Struct

from sie_core.ids import ModelId
from sie_server.engine.batcher import Batcher
from sie_server.engine.jobs import Job
from sie_server.models.calls import Model


class Taken(Struct, frozen=True):
    """What a device thread got: the batch to run, and the jobs dropped on the way to it."""

    batch: Sequence[Job]
    dropped: Sequence[Job]


class Scheduler:
    """Jobs in, batches out; safe from any thread."""

    def __init__(self, model_id: ModelId, model: Model, *, budget_tokens: int) -> None:
        self.model_id = model_id
        self.model = model
        self._lock = threading.Lock()
        self._batcher: Batcher[Job] = Batcher(budget_tokens)
        self._running = 0
        self._retired = False
        self._closed: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self._batcher)

    def add(self, jobs: Sequence[Job]) -> None:
        with self._lock:
            self._batcher.add(jobs)

    def oldest_s(self) -> float | None:
        """When the call of the oldest waiting job was queued; None when nothing waits."""
        with self._lock:
            oldest = self._batcher.oldest
            return None if oldest is None else oldest.ticket.stamps.queued_s

    def take(self, now_s: float, *, share: int) -> Taken:
        """The next batch of jobs that somebody still waits for; empty only when none is left."""
        dropped: list[Job] = []
        with self._lock:
            while jobs := self._batcher.take(share=share):
                wanted = [job for job in jobs if job.ticket.wanted(now_s)]
                if len(wanted) < len(jobs):
                    dropped += [job for job in jobs if not job.ticket.wanted(now_s)]
                if wanted:
                    self._running += 1
                    return Taken(wanted, dropped)
        return Taken((), dropped)

    def ran(self) -> None:
        """A batch that was taken has ended."""
        with self._lock:
            self._running -= 1
            closes = self._retired and not self._running
        if closes:
            self._close()

    def retire(self, closed: Callable[[], None] = lambda: None) -> None:
        """No job comes any more: what waits has no caller, and the model is closed once no batch is running.

        Args:
            closed: told afterwards, in whatever thread closed it.
        """
        with self._lock:
            while self._batcher.take():
                pass
            closes = not self._retired and not self._running
            self._retired = True
            self._closed = closed
        if closes:
            self._close()

    def _close(self) -> None:
        self.model.close()
        self._closed()
