"""Several files at a time, one a core: the digest of a file is computed in order, and so on one core alone."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Advance = Callable[[int], None]


def on_all_cores(action: Callable[[Item, Advance], Result], items: Sequence[Item], *, advance: Advance) -> list[Result]:
    """What `action` answers for each item, in their order; each tells its second argument how many bytes it moved.

    `advance` is told by one thread at a time. When an action raises, or somebody presses Ctrl-C, those that have not
    begun never do, the others end with the piece that they are at, and it is raised.
    """
    guard, stopped = Lock(), Event()

    def go_on() -> None:
        if stopped.is_set():
            raise _Stopped

    def report(moved: int) -> None:
        go_on()
        with guard:
            advance(moved)

    def stopping(item: Item) -> Result:
        go_on()
        try:
            return action(item, report)
        except BaseException:
            stopped.set()
            raise

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        futures = [pool.submit(stopping, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException as error:
            stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)
            if not isinstance(error, _Stopped):
                raise
        failures = [future.exception() for future in futures if not future.cancelled()]
        raise next(error for error in failures if error is not None and not isinstance(error, _Stopped))


class _Stopped(Exception):
    """Another failed: what is under way ends with the piece that it is at."""
