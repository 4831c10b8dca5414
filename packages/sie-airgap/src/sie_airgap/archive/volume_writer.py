"""Write a file of known layout in one go, hashed on the way, keeping what a killed run had written right.

The file has a hidden name until its last byte is on the disk. What is there already is held against what belongs
there, and only from the first difference on is anything written: nothing that a killed run left is trusted, and
nothing of it that is right is written again.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sie_airgap.archive.volume_format import Checks, RunningCrcs, encode_tail, padding
from sie_airgap.progress import Task
from sie_airgap.store.blobs import told_os_errors
from sie_core.artifacts.digest import Digest
from sie_core.artifacts.hashing import Hashing
from sie_core.artifacts.write_behind import WriteBehind


def draft(path: Path) -> Path:
    """Where a volume is until it is whole."""
    return path.with_name(f".{path.name}.partial")


class Writer:
    """Writes from the first byte on. `position`: how many bytes it has been given."""

    def __init__(self, file: WriteBehind, task: Task) -> None:
        self._file, self._task = file, task
        self._there = os.fstat(file.handle).st_size
        self._sum, self._crcs = Hashing(), RunningCrcs()

    @property
    def position(self) -> int:
        return self._sum.size_bytes

    @property
    def digest(self) -> Digest:
        return self._sum.digest

    def put(self, data: bytes) -> None:
        """The next bytes: headers and zeros, which the index implies."""
        offset = self.position
        self._sum.update(data)
        there = self._there >= offset + len(data) and os.pread(self._file.handle, len(data), offset) == data
        if not there:
            self._file.write(data, offset)
        self._task.advance(len(data))

    def put_content(self, data: bytes) -> None:
        """The next bytes of a member, which `CHUNKS` will speak of."""
        self.put(data)
        self._crcs.update(data)

    def end_member(self, size_bytes: int) -> None:
        """The member had that length."""
        self.put(bytes(padding(size_bytes)))
        self._crcs.end_member()

    def end(self, head: Digest) -> None:
        """`CHUNKS` and the end of the tar. `head`: the digest of what stands before the first member."""
        self.put(encode_tail(Checks(head, tuple(self._crcs.done))))
        self.finish()

    def finish(self) -> None:
        """Nothing follows: cut off what an earlier run left beyond."""
        os.ftruncate(self._file.handle, self.position)


@contextmanager
def writing(path: Path, task: Task) -> Iterator[Writer]:
    """A writer into the draft of `path`, which is on the disk when this ends, and which `publish` makes the file.

    Raises `NoSpace`, `NoPermission`.
    """
    with told_os_errors(path):
        handle = os.open(draft(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            with WriteBehind(handle) as file:
                yield Writer(file, task)
        finally:
            os.close(handle)


def publish(path: Path) -> None:
    """Give a whole draft its name, and have the name on the disk, too."""
    with told_os_errors(path):
        draft(path).replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
