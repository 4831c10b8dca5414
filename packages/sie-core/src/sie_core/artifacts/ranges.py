"""One file out of a store: ranges at once, each written in its place, hashed in order as they arrive.

The hashing thread reads back what the fetching threads wrote, out of the page cache: it follows them closely
whatever order ranges come in, holds none of them in memory, and hashes what the disk was given. A range that
an earlier process finished is hashed on the same way.

A far end that answers a range with the whole file is read in one stream. A connection that delivered something
before it broke is opened again at once; where nothing came, `Patience` says how long to wait, or gives up.
"""

import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile
from pathlib import Path
from threading import Condition
from typing import BinaryIO

import msgspec
from msgspec import Struct

from sie_core.artifacts.digest import Digest
from sie_core.artifacts.errors import RangesIgnored, Replaced, TransferError, TrustError, Unreachable
from sie_core.artifacts.hf_layout import JOURNAL, PARTIAL
from sie_core.artifacts.manifest import FileEntry
from sie_core.artifacts.store import Store
from sie_core.artifacts.write_behind import WriteBehind

RANGE_BYTES = 64 << 20
SMALLEST_RANGE_BYTES = 4 << 20
RANGES_OF_A_FILE = 32
LARGE_BYTES = 32 << 20
"""Files from here on come in several ranges."""

STREAMS = 4
Patience = Callable[[TransferError, int], float]
"""Asked after a failure: how long to wait (s) before the next try. Given how many came one after the other; raises the
error to give up."""

_PIECE_BYTES = 1 << 20
"""Read, written and hashed at a time. A quarter of it costs a third more; a connection that breaks loses no more."""


def impatient(error: TransferError, failures: int) -> float:
    """The patience of whoever tries again as a whole."""
    raise error


def range_bytes_of(size_bytes: int) -> int:
    """How long a file's ranges are: a kill costs at most one of them a stream, and each costs a request."""
    if size_bytes < LARGE_BYTES:
        return LARGE_BYTES
    return min(RANGE_BYTES, max(SMALLEST_RANGE_BYTES, -(-size_bytes // RANGES_OF_A_FILE)))


def partial_file(target: Path) -> Path:
    return target.with_name(target.name + PARTIAL)


def journal_file(target: Path) -> Path:
    return target.with_name(target.name + JOURNAL)


class _Of(Struct, frozen=True):
    """What a journal is about: with another file or another cut, its numbers mean nothing."""

    digest: Digest
    size_bytes: int
    range_bytes: int


class RangedFetch:
    """One attempt at one file; `run`, then `publish` or `discard`.

    Attributes:
        was_resumed: an earlier process had finished some of the ranges.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        target: Path,
        entry: FileEntry,
        *,
        progress: Callable[[str, int], None],
        patience: Patience = impatient,
        range_bytes: int | None = None,
    ) -> None:
        range_bytes = range_bytes or range_bytes_of(entry.size_bytes)
        self._store = store
        self._name = name
        self._target = target
        self._entry = entry
        self._progress = progress
        self._patience = patience
        self._of = _Of(digest=entry.digest, size_bytes=entry.size_bytes, range_bytes=range_bytes)
        self._count = -(-entry.size_bytes // range_bytes)
        self._arrived = [0] * self._count
        self._changed = Condition()
        self._waited_for: int | None = None  # the range that the hashing thread waits for more of
        self._failure: BaseException | None = None
        self.was_resumed = False

    def run(self) -> Digest:
        """Fetch what is missing. Returns the digest of all of it; what has come stays when this raises."""
        partial = partial_file(self._target)
        fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            journal = self._open_journal()
            try:
                os.ftruncate(fd, self._entry.size_bytes)
                with WriteBehind(fd) as file:
                    digest = self._fetch_and_hash(file, journal)
            finally:
                os.close(journal)
        finally:
            os.close(fd)
        return digest

    def publish(self) -> None:
        partial_file(self._target).replace(self._target)
        journal_file(self._target).unlink(missing_ok=True)

    def discard(self) -> None:
        self._progress(self._entry.path, -sum(self._arrived))
        partial_file(self._target).unlink(missing_ok=True)
        journal_file(self._target).unlink(missing_ok=True)

    def _open_journal(self) -> int:
        """Read which ranges are there, and open the journal to note more: one JSON line, then a number a line."""
        path, header = journal_file(self._target), msgspec.json.encode(self._of) + b"\n"
        noted = path.read_bytes() if path.is_file() else b""
        if noted.startswith(header):
            whole_lines = noted[len(header) : noted.rfind(b"\n")].split(b"\n")
            for number in {int(line) for line in whole_lines if line.isdigit()}:
                if number < self._count:
                    self._arrived[number] = self._length(number)
            self.was_resumed = any(self._arrived)
            self._progress(self._entry.path, sum(self._arrived))
            # The cut drops a line that was half written when the process was killed.
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            os.ftruncate(fd, noted.rfind(b"\n") + 1)
            os.lseek(fd, 0, os.SEEK_END)
            return fd
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        os.write(fd, header)
        return fd

    def _length(self, number: int) -> int:
        start = number * self._of.range_bytes
        return min(self._of.range_bytes, self._entry.size_bytes - start)

    def _fetch_and_hash(self, file: WriteBehind, journal: int) -> Digest:
        missing = [number for number in range(self._count) if not self._arrived[number]]
        try:
            return self._hash_beside(
                [functools.partial(self._fetch_range, number, file, journal) for number in missing], file.handle
            )
        except RangesIgnored:
            self._failure = None
            return self._hash_beside([functools.partial(self._fetch_in_one, file, journal)], file.handle)

    def _hash_beside(self, fetches: Sequence[Callable[[], None]], fd: int) -> Digest:
        with ThreadPoolExecutor(min(STREAMS, max(1, len(fetches)))) as pool:
            for fetch in fetches:
                pool.submit(self._stopping, fetch)
            try:
                return self._hash(fd)
            except BaseException as error:
                self._stop(error)
                raise

    def _stopping(self, fetch: Callable[[], None]) -> None:
        """In a thread of the pool: what goes wrong is handed to the thread that hashes, which raises it."""
        try:
            fetch()
        except BaseException as error:
            self._stop(error)

    def _hash(self, fd: int) -> Digest:
        running = hashlib.sha256()
        for number in range(self._count):
            start, hashed = number * self._of.range_bytes, 0
            while hashed < self._length(number):
                ready = self._wait_beyond(number, hashed)
                chunk = os.pread(fd, min(ready - hashed, _PIECE_BYTES), start + hashed)
                if not chunk:
                    raise Unreachable(f"{partial_file(self._target)} was cut short by somebody else while it came")
                running.update(chunk)
                hashed += len(chunk)
        return Digest("sha256:" + running.hexdigest())

    def _wait_beyond(self, number: int, hashed: int) -> int:
        """How much of a range has arrived, once that is more than `hashed`. Raises what stopped the fetching."""
        with self._changed:
            self._waited_for = number
            self._changed.wait_for(lambda: self._failure is not None or self._arrived[number] > hashed)
            self._waited_for = None
            if self._failure is not None:
                raise self._failure
            return self._arrived[number]

    def _stop(self, error: BaseException) -> None:
        with self._changed:
            self._failure = self._failure or error
            self._changed.notify_all()

    def _fetch_range(self, number: int, file: WriteBehind, journal: int) -> None:
        """One range. It is noted when it is whole."""
        start = number * self._of.range_bytes

        def read() -> None:
            offset, left = start + self._arrived[number], self._length(number) - self._arrived[number]
            with self._store.open(self._name, start=offset, length=left) as body:
                self._write(body, offset, start + self._length(number), file)

        self._until(start + self._length(number), self._range_end(number), read)
        self._note(number, journal)

    def _fetch_in_one(self, file: WriteBehind, journal: int) -> None:
        """All of it from a far end without ranges: what has come is read again and thrown away."""

        def read() -> None:
            with self._store.open(self._name) as body:
                skip = left = self._in_a_row()
                while left and self._failure is None and (chunk := body.read(min(_PIECE_BYTES, left))):
                    left -= len(chunk)
                for number in range(skip // self._of.range_bytes, self._count if not left else 0):
                    start = number * self._of.range_bytes
                    self._write(body, max(skip, start), start + self._length(number), file)
                    if self._arrived[number] == self._length(number):
                        self._note(number, journal)

        self._until(self._entry.size_bytes, self._in_a_row, read)

    def _until(self, end: int, arrived: Callable[[], int], read: Callable[[], None]) -> None:
        """`read` until `arrived` tells `end` or another range failed."""
        failures = 0
        while self._failure is None and (before := arrived()) < end:
            try:
                read()
                if arrived() == before and self._failure is None:
                    raise self._short()
                failures = 0
            except TransferError as error:
                if not error.transient or isinstance(error, Replaced):
                    raise
                failures = failures + 1 if arrived() == before else 0
                if failures:
                    self._wait(self._patience(error, failures))

    def _wait(self, pause_s: float) -> None:
        """Sleep, unless another range fails."""
        with self._changed:
            self._changed.wait_for(lambda: self._failure is not None, timeout=pause_s)

    def _write(self, body: BinaryIO, offset: int, end: int, file: WriteBehind) -> None:
        """Bytes of one range, from `offset` to `end` in the file, until they or the stream end, or another failed."""
        number = offset // self._of.range_bytes
        while offset < end and self._failure is None and (chunk := body.read(min(_PIECE_BYTES, end - offset))):
            file.write(chunk, offset)
            offset += len(chunk)
            fresh = offset - number * self._of.range_bytes - self._arrived[number]
            if fresh > 0:
                with self._changed:
                    self._arrived[number] += fresh
                    if number == self._waited_for:
                        self._changed.notify_all()
                self._progress(self._entry.path, fresh)

    def _note(self, number: int, journal: int) -> None:
        if self._arrived[number] == self._length(number):
            os.write(journal, b"%d\n" % number)

    def _range_end(self, number: int) -> Callable[[], int]:
        return lambda: number * self._of.range_bytes + self._arrived[number]

    def _in_a_row(self) -> int:
        """How much has arrived from the beginning on without a gap."""
        whole = takewhile(lambda number: self._arrived[number] == self._length(number), range(self._count))
        count = sum(1 for _ in whole)
        return min(count * self._of.range_bytes, self._entry.size_bytes) + (
            self._arrived[count] if count < self._count else 0
        )

    def _short(self) -> Exception:
        """A stream that ended at once: the file is shorter than it should be, or the connection was cut."""
        stat = self._store.stat(self._name)
        have_bytes = stat.size_bytes if stat else 0
        where = f"{self._store.url.rstrip('/')}/{self._name}"
        if have_bytes != self._entry.size_bytes:
            return TrustError(
                f"`{self._entry.path}` has another length than what was locked",
                where=where,
                want=f"{self._entry.size_bytes:,} bytes",
                have=f"{have_bytes:,} bytes",
                hint="it was cut short or altered where it is stored; copy it there again",
            )
        return Unreachable(f"{where} came short: the connection ended early, {have_bytes:,} bytes are there")
