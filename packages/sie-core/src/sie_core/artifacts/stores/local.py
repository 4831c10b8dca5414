"""Files in a folder: a mounted volume, a medium, a worker's own disk.

A folder that does not exist is an empty store; the first `put` makes it.
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from stat import S_ISREG
from tempfile import NamedTemporaryFile
from typing import IO, BinaryIO, cast

from sie_core.artifacts.digest import CHUNK_BYTES, Digest, digest_of
from sie_core.artifacts.errors import NoPermission, NoSpace, NotThere, TransferError, TrustError, Unreachable
from sie_core.artifacts.manifest import parse_path
from sie_core.artifacts.store import Stat, Traits, Unfinished
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
            if not S_ISREG(path.stat().st_mode):  # a pipe waits for ever, a device may never end
                raise NotThere(f"cannot read {path}: it is a folder, a device or a pipe")
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
        """Written beside its place, flushed to the disk, checked, renamed.

        What a killed process had written of it stays as far as it is right.
        """
        path = self.root / parse_path(name)
        declared = Declared(data, size_bytes=size_bytes, digest=digest, where=str(path))
        begun = path.with_name(f"{_INCOMING}{digest_of(f'{name} {digest}'.encode())[7:31]}")
        with disk_errors(path, "write"), _appearing(path, begun) as incoming:
            _go_on(incoming, cast(BinaryIO, declared))

    def copy(self, source: str, name: str, *, size_bytes: int) -> bool:
        """Bytes of its own, no link: what alters one must not alter the other."""
        path, its_source = self.root / parse_path(name), self.root / parse_path(source)
        if not its_source.is_file() or its_source.stat().st_size != size_bytes:
            return False
        with disk_errors(path, "write"), its_source.open("rb") as data, _appearing(path) as incoming:
            shutil.copyfileobj(data, incoming, CHUNK_BYTES)
        return True

    def unfinished(self, prefix: str) -> Iterator[Unfinished]:
        with disk_errors(self.root, "list"):
            return iter(sorted(self._incoming(prefix), key=lambda one: one.name))

    def _incoming(self, prefix: str) -> Iterator[Unfinished]:
        for folder, _, files in os.walk(self.root / prefix.rpartition("/")[0], onerror=_raised):
            for path in (Path(folder) / file for file in files if file.startswith(_INCOMING)):
                name = path.relative_to(self.root).as_posix()
                with suppress(FileNotFoundError):  # it has just ended
                    begun = datetime.fromtimestamp(path.stat().st_mtime, UTC)
                    yield Unfinished(name=name, since=begun.isoformat(timespec="seconds"))

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
                    about = path.stat()
                    yield Stat(name=name, size_bytes=about.st_size, tag=str(about.st_mtime_ns))

    def delete(self, name: str) -> None:
        path = self.root / parse_path(name)
        with disk_errors(path, "delete"):
            path.unlink(missing_ok=True)


@contextmanager
def _appearing(path: Path, begun: Path | None = None) -> Iterator[IO[bytes]]:
    """A file to write, which gets its name when the block has ended well and its bytes are on the disk.

    With `begun` it is the one that was begun under that name, and is kept for the next time unless its data are wrong.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with (begun and _alone_with(begun)) or NamedTemporaryFile(dir=path.parent, prefix=_INCOMING, delete=False) as file:
        own = Path(file.name)
        try:
            yield file
            file.flush()
            os.fdatasync(file.fileno())
            own.chmod(0o644)
            own.replace(path)
        except BaseException as error:
            if own != begun or isinstance(error, TrustError):
                own.unlink(missing_ok=True)
            raise


def _alone_with(path: Path) -> IO[bytes] | None:
    """The file, made where it is not there; None while somebody else is writing it."""
    while True:
        path.touch(mode=0o600)
        try:
            file = path.open("r+b")
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass
        except BlockingIOError:
            file.close()
            return None
        file.close()  # it has got its name since it was opened: that one is whole


def _go_on(file: IO[bytes], data: BinaryIO) -> None:
    """Make the content of a file that of a stream; what it begins with stays as far as it is the same."""
    end, is_same = 0, True
    while chunk := data.read(CHUNK_BYTES):
        if is_same and file.read(len(chunk)) != chunk:
            is_same = False
            file.seek(end)
        if not is_same:
            file.write(chunk)
        end += len(chunk)
    file.truncate(end)


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
            return NoPermission(message, hint="ask its owner, or run this as another user")
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return NoSpace(message, hint="make room and do the same again: it goes on from here")
        case _:
            return Unreachable(message)
