"""Files in a folder: a mounted volume, a medium, a worker's own disk.

A folder that does not exist is an empty store; the first `put` makes it.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISREG
from tempfile import NamedTemporaryFile
from typing import BinaryIO, cast

from sie_core.artifacts.digest import CHUNK_BYTES, Digest
from sie_core.artifacts.errors import NoPermission, NoSpace, NotThere, TransferError, Unreachable
from sie_core.artifacts.manifest import parse_path
from sie_core.artifacts.store import Stat, Traits
from sie_core.artifacts.stores.streams import Body, Declared

_INCOMING = ".incoming-"


class LocalStore:
    """A folder as a store."""

    traits = Traits(atomic_put=True, range_reads=True, listing_is_consistent=True, max_parallel=4)

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.url = self.root.as_uri()

    def stat(self, name: str) -> Stat | None:
        path = self.root / parse_path(name)
        with disk_errors(path, "read"):
            try:
                found = path.stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
        return Stat(name=name, size_bytes=found.st_size) if S_ISREG(found.st_mode) else None

    def open(self, name: str, *, start: int = 0, length: int | None = None) -> BinaryIO:
        path = self.root / parse_path(name)
        with disk_errors(path, "read"):
            stream = path.open("rb")
            stream.seek(start)
        body = Body(
            stream.read,
            stream.close,
            translate=lambda error: _translated(cast(OSError, error), path, "read"),
            failures=(OSError,),
            limit_bytes=length,
        )
        return cast(BinaryIO, body)

    def put(self, name: str, data: BinaryIO, *, size_bytes: int, digest: Digest) -> None:
        """Written beside its place, flushed to the disk, checked, renamed."""
        path = self.root / parse_path(name)
        declared = Declared(data, size_bytes=size_bytes, digest=digest, where=str(path))
        with disk_errors(path, "write"):
            path.parent.mkdir(parents=True, exist_ok=True)
            with NamedTemporaryFile(dir=path.parent, prefix=_INCOMING, delete=False) as incoming:
                try:
                    shutil.copyfileobj(cast(BinaryIO, declared), incoming, CHUNK_BYTES)
                    incoming.flush()
                    os.fdatasync(incoming.fileno())
                    Path(incoming.name).chmod(0o644)
                    Path(incoming.name).replace(path)
                except BaseException:
                    Path(incoming.name).unlink(missing_ok=True)
                    raise

    def list(self, prefix: str) -> Iterator[Stat]:
        if prefix:
            parse_path(prefix.removesuffix("/"))
        with disk_errors(self.root, "list"):
            return iter(sorted(self._walk(prefix), key=lambda stat: stat.name))

    def _walk(self, prefix: str) -> Iterator[Stat]:
        top = self.root / prefix.rpartition("/")[0]
        for folder, _, files in os.walk(top, onerror=_raised):
            for file in files:
                path = Path(folder) / file
                name = path.relative_to(self.root).as_posix()
                if name.startswith(prefix) and not file.startswith(_INCOMING) and path.is_file():
                    yield Stat(name=name, size_bytes=path.stat().st_size)

    def delete(self, name: str) -> None:
        path = self.root / parse_path(name)
        with disk_errors(path, "delete"):
            path.unlink(missing_ok=True)


def _raised(error: OSError) -> None:
    """A folder that cannot be read is no empty one."""
    if not isinstance(error, FileNotFoundError):
        raise error


@contextmanager
def disk_errors(path: Path, doing: str) -> Iterator[None]:
    """An `OSError` inside becomes one of ours, with the path and what was being done (`read`, `write`, …)."""
    try:
        yield
    except OSError as error:
        raise _translated(error, path, doing) from error


def _translated(error: OSError, path: Path, doing: str) -> TransferError:
    why = os.strerror(error.errno) if error.errno else str(error)
    message = f"cannot {doing} {path}: {why}"
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR | errno.EISDIR:
            return NotThere(message)
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return NoPermission(message)
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return NoSpace(message)
        case _:
            return Unreachable(message)
