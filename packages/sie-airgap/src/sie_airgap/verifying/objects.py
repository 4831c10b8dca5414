"""Read the files of a bucket, several at a time, and say of each what it is.

Small files come whole, some at once; a large one in ranges, some at once, hashed in order as they arrive and thrown
away, so that memory holds a few ranges and no file. What passes is waited for; what stays costs the one file. Only a
bucket where nothing answers any more is given up (`gone`).

In a bucket on this disk (`file://`) a file that was read before and not written to since may be remembered. Of
`s3://` and `gs://` nothing is: what a server says of its files is no evidence of their bytes.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from threading import Event
from typing import BinaryIO, Protocol, TypeVar

from sie_airgap.patience import Patience, Wait
from sie_airgap.progress import Progress, Task
from sie_airgap.verifying.remembered import Remembered, stamp_of
from sie_core.artifacts.digest import CHUNK_BYTES, Digest
from sie_core.artifacts.errors import NoPermission, NotThere, TransferError, Unreachable
from sie_core.artifacts.hashing import Hashing
from sie_core.artifacts.lock import CURRENT_FILE
from sie_core.artifacts.ranges import LARGE_BYTES, STREAMS
from sie_core.artifacts.store import Store
from sie_core.artifacts.stores.local import LocalStore, disk_errors

RANGE_BYTES = 16 << 20
"""Of a large file, asked for at once. At most `STREAMS` + 1 of them are in memory."""
_TIRED_AFTER = 2
"""How often a file is asked for once another one failed to the end: each would take half a minute."""


class Sized(Protocol):
    """What is looked for."""

    @property
    def name(self) -> str: ...

    @property
    def size_bytes(self) -> int: ...


T = TypeVar("T")
Looked = TypeVar("Looked", bound=Sized)


@dataclass(frozen=True)
class Found:
    """What a file is. Of one that goes on too long, `digest` is that of its first bytes, as many as were wanted."""

    digest: Digest
    size_bytes: int


class Objects:
    """The files of one bucket, read for one verification.

    Args:
        remembered: what of a bucket on this disk need not be read.
        wait: as of `patiently`.

    Attributes:
        gone: what was said last, once nothing there answers any more.
    """

    def __init__(
        self,
        store: Store,
        task: Task,
        progress: Progress,
        *,
        remembered: Remembered | None = None,
        wait: Wait | None = None,
    ) -> None:
        self._store, self._task, self._remembered = store, task, remembered or Remembered()
        self._over = Event()
        self._patience = Patience(say=progress.say, wait=wait)
        self._is_tired = False
        self._asked_next: tuple[str, ...] = (CURRENT_FILE,)
        self.gone: TransferError | None = None

    def each(self, wanted: Sequence[Looked], look: Callable[[Looked], T]) -> list[T | None]:
        """What `look` says of each, in order; None for those that nobody looked at, since the bucket is gone.

        Small ones some at a time, then large ones in turn: those are read in several streams themselves.
        """
        said: list[T | None] = [None] * len(wanted)
        self._asked_next = (CURRENT_FILE, *(it.name for it in wanted[-3:]))

        def one(at: int) -> None:
            if self.gone is None and not self._over.is_set():
                self._task.at(wanted[at].name)
                said[at] = look(wanted[at])

        small = [at for at, it in enumerate(wanted) if it.size_bytes < LARGE_BYTES]
        with ThreadPoolExecutor(STREAMS) as pool:
            try:
                for future in [pool.submit(one, at) for at in small]:
                    future.result()
            except BaseException:
                self._over.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        for at in sorted(set(range(len(wanted))) - set(small)):
            one(at)
        return said

    def file(self, name: str, want: Digest, size_bytes: int) -> Found:
        """What a file is. Raises `TransferError` for one that does not come."""
        if isinstance(self._store, LocalStore):
            try:
                found = self._of_disk(self._store.root / name, f"{want} {name}", want, size_bytes)
            except TransferError as error:
                self._note_gone(error)
                raise
        else:
            found = self._far(name, size_bytes)
        self._asked_next = (name, *self._asked_next[-4:])
        return found

    def _far(self, name: str, size_bytes: int) -> Found:
        running, size = Hashing(), 0
        for chunk in self._chunks(name, size_bytes):
            wanted = chunk[: max(0, size_bytes - size)]
            running.update(wanted)
            size += len(chunk)
            self._task.advance(len(wanted))
        return Found(running.digest, self._length(name, size) if size > size_bytes else size)

    def small(self, name: str, *, most_bytes: int) -> bytes:
        """The first bytes of a file, one more than `most_bytes` at the most. Raises `TransferError`."""
        if isinstance(self._store, LocalStore):
            path = self._store.root / name
            with disk_errors(path, "read"), _regular(path) as file:
                data = file.read(most_bytes + 1)
        else:
            data = b"".join(self._stretch(name, 0, most_bytes + 1, most_bytes, self._over))
        self._asked_next = (name, *self._asked_next[-4:])
        return data

    def _length(self, name: str, at_least: int) -> int:
        stat = self._store.stat(name)
        return at_least if stat is None else stat.size_bytes

    def _of_disk(self, path: Path, key: str, want: Digest, size_bytes: int) -> Found:
        running = Hashing()
        with disk_errors(path, "read"), _regular(path) as file:
            before, there_bytes = stamp_of(file.fileno()), os.fstat(file.fileno()).st_size
            if there_bytes == size_bytes and self._remembered.holds(key, before):
                self._task.advance(size_bytes)
                return Found(want, size_bytes)
            while chunk := file.read(min(CHUNK_BYTES, size_bytes - running.size_bytes)):
                running.update(chunk)
                self._task.advance(len(chunk))
            after = stamp_of(file.fileno())
        found = Found(running.digest, there_bytes if running.size_bytes == size_bytes else running.size_bytes)
        if found == Found(want, size_bytes):
            self._remembered.note(key, before, after)
        return found

    def _chunks(self, name: str, size_bytes: int) -> Iterator[bytes]:
        """A file from its first byte, up to one byte too many."""
        if size_bytes < LARGE_BYTES:
            yield from self._stretch(name, 0, size_bytes + 1, size_bytes, self._over)
            return
        stop = Event()
        ends = [min(start + RANGE_BYTES, size_bytes) for start in range(0, size_bytes, RANGE_BYTES)]
        stretches = deque(zip([0, *ends[:-1]], [*ends[:-1], size_bytes + 1], strict=True))
        coming: deque[Future[list[bytes]]] = deque()
        with ThreadPoolExecutor(STREAMS) as pool:
            try:
                while stretches or coming:
                    while stretches and len(coming) < STREAMS:
                        start, end = stretches.popleft()
                        coming.append(pool.submit(self._listed, name, start, end, size_bytes, stop))
                    chunks = coming.popleft().result()
                    yield from chunks
                    if not chunks:  # it ended where this range begins, or before
                        return
            finally:
                stop.set()
                pool.shutdown(wait=True, cancel_futures=True)

    def _listed(self, name: str, start: int, end: int, size_bytes: int, stop: Event) -> list[bytes]:
        return list(self._stretch(name, start, end, size_bytes, stop))

    def _stretch(self, name: str, start: int, end: int, size_bytes: int, stop: Event) -> Iterator[bytes]:
        """Bytes `start` to `end`, asked for again from where they stopped; fewer where the file ends before."""
        position, failures = start, 0
        while position < end and not stop.is_set():
            before = position
            try:
                with self._store.open(name, start=position, length=end - position) as stream:
                    while position < end and (chunk := stream.read(min(CHUNK_BYTES, end - position))):
                        position += len(chunk)
                        yield chunk
                if self._ends(name, position, end, size_bytes):
                    return
                raise Unreachable(f"{self._store.url.rstrip('/')}/{name} came short: the connection ended early")
            except TransferError as error:
                failures = failures + 1 if position == before else 1
                self._pause(error, failures, stop)

    def _ends(self, name: str, position: int, end: int, size_bytes: int) -> bool:
        """Whether a stream that stopped at `position` was all there is."""
        if position >= min(end, size_bytes):
            return True
        stat = self._store.stat(name)
        if stat is None:
            raise NotThere(f"{name} is not in {self._store.url} any more")
        return stat.size_bytes <= position

    def _pause(self, error: TransferError, failures: int, stop: Event) -> None:
        """Raises the error when it stays."""
        try:
            if self._is_tired and failures >= _TIRED_AFTER:
                raise error
            stop.wait(self._patience(error, failures))
        except TransferError:
            if error.transient:
                self._is_tired = True
            self._note_gone(error)
            raise

    def _note_gone(self, error: TransferError) -> None:
        if self.gone is None and is_about_all(error) and not self._answers():
            self.gone = error

    def _answers(self) -> bool:
        """Whether any other file can be had: a bucket that fails over one may well have the others."""
        for name in self._asked_next:
            try:
                self._store.stat(name)
            except TransferError as error:
                if is_about_all(error):
                    continue
            return True
        return False


def is_about_all(error: TransferError) -> bool:
    """Whether a failure over one file may be one over all of them."""
    return error.transient or isinstance(error, NoPermission)


def _regular(path: Path) -> BinaryIO:
    """Open a file, and nothing else: a pipe would be waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotThere(f"{path} is no file: something else is in its place")
    return os.fdopen(descriptor, "rb")
