"""A running sha256 beside whoever reads and writes: hashing one chunk while the next is on its way.

Large files pass through the toolkit several digests at a time (of a part, of its blob, of the volume). Each is
computed on a core of its own while the caller goes on, so that the bytes are read once and wait for no digest.
At most one chunk of each running digest is waiting, which bounds memory.
"""

import hashlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

from sie_core.artifacts.digest import Digest

THREAD_FROM_BYTES = 1 << 18
"""Shorter chunks are hashed on the spot: to hand one over costs about as much."""


class Hashing:
    """One digest in the making; belongs to one thread at a time.

    Attributes:
        size_bytes: how many bytes it has been given.
    """

    def __init__(self) -> None:
        self.size_bytes = 0
        self._sum = hashlib.sha256()
        self._under_way: Future[None] | None = None

    def update(self, chunk: bytes) -> None:
        """Go on with these bytes, which must not change afterwards."""
        self._settle()
        self.size_bytes += len(chunk)
        if len(chunk) < THREAD_FROM_BYTES:
            self._sum.update(chunk)
        else:
            self._under_way = _threads().submit(self._sum.update, chunk)

    @property
    def digest(self) -> Digest:
        """Of all that it has been given until now."""
        self._settle()
        return Digest("sha256:" + self._sum.hexdigest())

    def copy(self) -> "Hashing":
        """Another that goes on from here by itself."""
        self._settle()
        other = Hashing()
        other.size_bytes, other._sum = self.size_bytes, self._sum.copy()
        return other

    def _settle(self) -> None:
        if self._under_way is not None:
            self._under_way.result()
            self._under_way = None


@cache
def _threads() -> ThreadPoolExecutor:
    """One a core for the whole process, made at the first large chunk."""
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="sha256")
