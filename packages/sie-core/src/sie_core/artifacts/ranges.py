"""One file out of a store: ranges at once, each written in its place, hashed in order as they arrive.

The hashing thread reads back what the fetching threads wrote, out of the page cache: it follows them closely
whatever order ranges come in, holds none of them in memory, and hashes what the disk was given. A range that
an earlier process finished is hashed on the same way.
"""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Condition

import msgspec
from msgspec import Struct

from sie_core.artifacts.digest import Digest
from sie_core.artifacts.errors import TransferError, TrustError, Unreachable
from sie_core.artifacts.hf_layout import JOURNAL, PARTIAL
from sie_core.artifacts.manifest import FileEntry
from sie_core.artifacts.store import Store

RANGE_BYTES = 64 << 20
STREAMS = 4
_PIECE_BYTES = 1 << 18  # small enough to be in the core's own cache when it is written and hashed


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
        range_bytes: int = RANGE_BYTES,
    ) -> None:
        self._store = store
        self._name = name
        self._target = target
        self._entry = entry
        self._progress = progress
        self._of = _Of(digest=entry.digest, size_bytes=entry.size_bytes, range_bytes=range_bytes)
        self._count = -(-entry.size_bytes // range_bytes)
        self._arrived = [0] * self._count
        self._changed = Condition()
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
                digest = self._fetch_and_hash(fd, journal)
                os.fdatasync(fd)
            finally:
                os.close(journal)
        finally:
            os.close(fd)
        return digest

    def publish(self) -> None:
        partial_file(self._target).replace(self._target)
        journal_file(self._target).unlink(missing_ok=True)

    def discard(self) -> None:
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

    def _fetch_and_hash(self, fd: int, journal: int) -> Digest:
        missing = [number for number in range(self._count) if not self._arrived[number]]
        with ThreadPoolExecutor(min(STREAMS, max(1, len(missing)))) as pool:
            for number in missing:
                pool.submit(self._fetch_range, number, fd, journal)
            try:
                return self._hash(fd)
            except BaseException as error:
                self._stop(error)
                raise

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
            self._changed.wait_for(lambda: self._failure is not None or self._arrived[number] > hashed)
            if self._failure is not None:
                raise self._failure
            return self._arrived[number]

    def _stop(self, error: BaseException) -> None:
        with self._changed:
            self._failure = self._failure or error
            self._changed.notify_all()

    def _fetch_range(self, number: int, fd: int, journal: int) -> None:
        """One range, in a thread of the pool. A connection that delivered something before it broke is opened again."""
        try:
            while self._failure is None and (left := self._length(number) - self._arrived[number]):
                before = self._arrived[number]
                try:
                    self._read_some(number, fd, left)
                except TransferError as error:
                    if not error.transient or self._arrived[number] == before:
                        raise
                if self._arrived[number] == before and self._failure is None:
                    raise self._short()
            if self._failure is None:
                os.write(journal, b"%d\n" % number)
        except BaseException as error:  # handed to the thread that hashes, which raises it
            self._stop(error)

    def _read_some(self, number: int, fd: int, left: int) -> None:
        """Until the range is full, the stream ends or another range failed."""
        offset = number * self._of.range_bytes + self._arrived[number]
        with self._store.open(self._name, start=offset, length=left) as body:
            while left and self._failure is None and (chunk := body.read(min(_PIECE_BYTES, left))):
                _write_all(fd, chunk, offset)
                offset += len(chunk)
                left -= len(chunk)
                with self._changed:
                    self._arrived[number] += len(chunk)
                    self._changed.notify_all()
                self._progress(self._entry.path, len(chunk))

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


def _write_all(fd: int, chunk: bytes, offset: int) -> None:
    view = memoryview(chunk)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
