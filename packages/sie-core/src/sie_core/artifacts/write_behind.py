"""A large file that goes to the disk while more of it is written, so that little is left to wait for at the end.

Left to itself the kernel begins when seconds have passed or a tenth of the memory is full: whoever then waits for the
disk waits for nearly all of the file, after having waited for its last byte.
"""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from types import TracebackType
from typing import Self

BEHIND_BYTES = 32 << 20
"""So much is written before the disk is asked for it: few enough to be waited for, enough that asking costs nothing."""


class WriteBehind:
    """Writes to an open file, from several threads; when its block has ended well, the disk has all of it.

    Raises what the system says, of an earlier write, too: a disk tells once that it lost something.

    Attributes:
        handle: the file; it stays open.
    """

    def __init__(self, handle: int) -> None:
        self.handle = handle
        # The kernel lets one writer into a file at a time, and the others burn their cores until it is their turn.
        self._turn = Lock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="write-behind")  # has no thread before it is needed
        self._waiting_bytes = 0
        self._under_way: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True)  # the handle may be closed after this
        if error is None:
            self._settle()
            os.fdatasync(self.handle)

    def write(self, data: bytes, offset: int) -> None:
        """All of `data` at that place."""
        with self._turn:
            write_at(self.handle, data, offset)
            self._waiting_bytes += len(data)
            if self._waiting_bytes >= BEHIND_BYTES and (self._under_way is None or self._under_way.done()):
                self._settle()
                self._waiting_bytes = 0
                self._under_way = self._pool.submit(os.fdatasync, self.handle)

    def _settle(self) -> None:
        if self._under_way is not None:
            self._under_way.result()


def write_at(handle: int, data: bytes, offset: int) -> None:
    """All of `data` at that place of an open file."""
    view = memoryview(data)
    while view:
        written = os.pwrite(handle, view, offset)
        view, offset = view[written:], offset + written
