"""One call on its way through the engine: its sequences as jobs, when it passed where, and who still waits.

A `Ticket` is one call, a `Job` one of its sequences. Tickets belong to the event loop's thread; device
threads read `wanted` and nothing else of them.
"""

import asyncio

from msgspec import Struct

from sie_core.errors import ApiError
from sie_core.http.respond import CallerGone
from sie_server.models.calls import Output, Prepared

Outcome = Output | ApiError
"""What became of one sequence."""


class Stamps(Struct):
    """When a call passed each point, in seconds of one monotonic clock; metrics, headers and bodies read these."""

    arrived_s: float
    tokenizing_s: float = 0.0
    queued_s: float = 0.0
    started_s: float = 0.0
    ended_s: float = 0.0

    @property
    def tokenization_s(self) -> float:
        return self.queued_s - self.tokenizing_s

    @property
    def queue_s(self) -> float:
        """Until the first of its items was on the device."""
        return max(0.0, self.started_s - self.queued_s)

    @property
    def inference_s(self) -> float:
        """From the start of its first batch to the end of its last."""
        return self.ended_s - self.started_s


class Ticket:
    """One call: who waits for it, until when, and what has come so far.

    Attributes:
        deadline_s: after this nobody waits any more; None for as long as the caller stays on the line.
        results: one per sequence, in their order.
        done: resolves when every sequence has its result; fails with `CallerGone`, or `ApiError` at the deadline.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, arrived_s: float, deadline_s: float | None = None) -> None:
        self.stamps = Stamps(arrived_s)
        self.deadline_s = deadline_s
        self.done: asyncio.Future[None] = loop.create_future()
        self.results: list[Outcome | None] = []
        self._left = 0
        self._gone = False

    def expect(self, items: int) -> None:
        self.results = [None] * items
        self._left = items
        if not items and not self.done.done():
            self.done.set_result(None)

    def wanted(self, now_s: float) -> bool:
        return not self._gone and (self.deadline_s is None or now_s < self.deadline_s)

    def abandon(self) -> None:
        """The caller hung up: its jobs are dropped when they are met."""
        self._fail(CallerGone())

    def expire(self) -> None:
        """The caller's deadline has come."""
        self._fail(late())

    def settle(self, index: int, result: Outcome) -> None:
        if self.results[index] is None:
            self.results[index] = result
            self._left -= 1
        if self._left == 0 and not self.done.done():
            self.done.set_result(None)

    def _fail(self, error: Exception) -> None:
        self._gone = True
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()  # marks it as seen: nobody may be waiting yet


def late() -> ApiError:
    return ApiError(
        "DEADLINE_EXCEEDED", "the time that `X-SIE-Timeout-Ms` leaves had passed before an answer was there"
    )


class Job(Struct, eq=False):
    """One sequence that waits for the device."""

    prepared: Prepared
    ticket: Ticket
    index: int
    tokens: int
