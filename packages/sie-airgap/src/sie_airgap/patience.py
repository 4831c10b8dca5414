"""Waiting for what passes: a far end that is asked again after 429, 5xx and connections that fail.

It says what it waits for, waits as long as the far end says (`Retry-After`), else twice as long each time, and
gives up after `ATTEMPTS`: whoever runs a command can run it again, and it goes on where it stopped.
"""

import time
from collections.abc import Callable
from threading import Lock
from typing import TypeVar

from sie_core.artifacts.errors import TransferError

T = TypeVar("T")
ATTEMPTS = 6
LONGEST_WAIT_S = 60.0
LONGEST_WAIT_ASKED_FOR_S = 900.0
Wait = Callable[[float], object]
Say = Callable[[str], object]


class Patience:
    """How long to wait after a failure, as `fetch_file` asks; from several threads.

    Args:
        say: told of each pause; what went wrong only once while it stays the same, for it names a URL and that is long.
            Streams that wait for the same thing say it once.
        wait: waits in the caller's stead; a test does not wait. None: whoever asks waits.
    """

    def __init__(self, *, say: Say, wait: Wait | None = None) -> None:
        self._say, self._wait = say, wait
        self._said, self._wrong, self._guard = "", "", Lock()

    def __call__(self, error: TransferError, failures: int) -> float:
        """Seconds. Raises the error when it does not pass, or came `ATTEMPTS` times running."""
        if not error.transient or failures >= ATTEMPTS:
            raise error
        if error.retry_after_s is not None:
            pause_s = min(LONGEST_WAIT_ASKED_FOR_S, error.retry_after_s)
        else:
            pause_s = min(LONGEST_WAIT_S, 2.0 ** (failures - 1))
        with self._guard:
            wrong = "still so" if failures > 1 and error.message == self._wrong else error.message
            self._wrong = error.message
            text = f"{wrong}; again in {pause_s:.0f} s" + (f" ({failures} of {ATTEMPTS})" if failures > 1 else "")
            if text != self._said:
                self._said = text
                self._say(text)
        if self._wait is None:
            return pause_s
        self._wait(pause_s)
        return 0.0


def patiently(call: Callable[[], T], *, say: Say, wait: Wait | None = None) -> T:
    """What `call` returns, tried again while its failure is one that passes; `say` is told of each pause."""
    patience = Patience(say=say, wait=wait)
    failures = 0
    while True:
        try:
            return call()
        except TransferError as error:
            failures += 1
            time.sleep(patience(error, failures))
