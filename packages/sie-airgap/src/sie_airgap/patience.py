"""Waiting for what passes: a store that is asked again after 429, 5xx and connections that fail.

It says what it waits for, waits as long as the far end says (`Retry-After`), else twice as long each time, and
gives up after `ATTEMPTS`: whoever runs a command can run it again, and it goes on where it stopped.
"""

import time
from collections.abc import Callable, Iterator
from typing import BinaryIO, TypeVar

from sie_core.artifacts.digest import Digest
from sie_core.artifacts.errors import TransferError
from sie_core.artifacts.store import Stat, Store

T = TypeVar("T")
ATTEMPTS = 6
LONGEST_WAIT_S = 60.0
Wait = Callable[[float], object]
Say = Callable[[str], object]


def patiently(call: Callable[[], T], *, say: Say, wait: Wait = time.sleep) -> T:
    """What `call` returns, tried again while its failure is one that passes; `say` is told of each pause."""
    for attempt in range(ATTEMPTS - 1):
        try:
            return call()
        except TransferError as error:
            if not error.transient:
                raise
            pause_s = min(LONGEST_WAIT_S, error.retry_after_s or 2.0**attempt)
            say(f"{error.message}; again in {pause_s:.0f} s")
            wait(pause_s)
    return call()


class PatientStore:
    """Another store, whose files are opened patiently."""

    def __init__(self, store: Store, *, say: Say, wait: Wait = time.sleep) -> None:
        self.url, self.traits = store.url, store.traits
        self._store, self._say, self._wait = store, say, wait

    def stat(self, name: str) -> Stat | None:
        return patiently(lambda: self._store.stat(name), say=self._say, wait=self._wait)

    def open(self, name: str, *, start: int = 0, length: int | None = None) -> BinaryIO:
        return patiently(lambda: self._store.open(name, start=start, length=length), say=self._say, wait=self._wait)

    def put(self, name: str, data: BinaryIO, *, size_bytes: int, digest: Digest) -> None:
        self._store.put(name, data, size_bytes=size_bytes, digest=digest)

    def list(self, prefix: str) -> Iterator[Stat]:
        return self._store.list(prefix)

    def delete(self, name: str) -> None:
        self._store.delete(name)
