"""How a worker's commands speak to a person: errors, sizes, and a download's state in few lines."""

import logging
import sys
import time
from collections.abc import Callable

from sie_server.weights import State

logger = logging.getLogger("sie.weights")

EVERY_S = 10.0
"""A line this often while something is being fetched; a terminal's scroll-back is not a progress bar."""


_EACH = ("waiting", "evicted")  # each of these is news


def complain(message: str, hint: str | None) -> None:
    """An error as every command of ours writes it."""
    print(f"error: {message}" + (f"\n\nhint: {hint}" if hint else ""), file=sys.stderr, flush=True)


def megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1_000_000:,.1f} MB"


def described(state: State) -> str:
    if state.step != "fetching" or not state.total_bytes:
        return state.message
    return f"{state.message}: {megabytes(state.done_bytes)} of {megabytes(state.total_bytes)}"


class Told:
    """Says each change of step at once, and what goes on every few seconds.

    Attributes:
        anything: something had to be waited for.
    """

    def __init__(self, as_json: bool, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.anything = False
        self._as_json = as_json
        self._clock = clock
        self._step = ""
        self._said_s = 0.0

    def __call__(self, state: State) -> None:
        self.anything = self.anything or state.step != "unverified"
        is_due = state.step != self._step or state.step in _EACH or self._clock() - self._said_s >= EVERY_S
        if is_due:
            self._step, self._said_s = state.step, self._clock()
            if self._as_json:
                fields = {"model": state.model, "done_bytes": state.done_bytes, "total_bytes": state.total_bytes}
                logger.info(state.step, extra={"fields": {**fields, "message": state.message}})
            else:
                print(described(state), file=sys.stderr, flush=True)
