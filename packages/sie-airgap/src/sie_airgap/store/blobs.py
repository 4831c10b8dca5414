"""Blobs by digest: the toolkit's own folder on either side of the gap, and the interface it shares with an archive.

A blob under `blobs/sha256/` is whole: it was hashed before it was renamed there. What is still arriving lies
in `incoming/` and is taken up again by the next run. What is whole goes only where `discarding` is asked to.

    store/
      airgap.lock, airgap.lock.sha256, airgap.lock.dsse, golden.json     what the store is for
      blobs/sha256/<hex>
      incoming/<hex>                                   arriving; safe to delete while nothing runs
      locks/<hex>/, begun/<hex>.lock                   locks taken earlier, and on their way (`kept`, `begun`)
"""

import errno
import fcntl
import io
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from sie_airgap.failures import Incomplete, Misused, Partial
from sie_airgap.store.contents import LOCK_NAME
from sie_core.artifacts.digest import CHUNK_BYTES, Digest, digest_of, hex_of
from sie_core.artifacts.errors import NoPermission, NoSpace, NotThere, TrustError
from sie_core.artifacts.hashing import Hashing
from sie_core.artifacts.hf_layout import PARTIAL
from sie_core.artifacts.lock import Lock, decode_lock, encode_lock
from sie_core.artifacts.write_behind import WriteBehind

GOLDEN_NAME = "golden.json"
SIGNATURES_NAME = LOCK_NAME + ".dsse"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
Advance = Callable[[int], None]


class Blobs(Protocol):
    """Where blobs can be read from: a folder, or the volumes of an archive."""

    where: str

    def size(self, digest: Digest) -> int | None:
        """The length in bytes; None when it is not here."""
        ...

    def open(self, digest: Digest, *, start: int = 0, length: int | None = None) -> BinaryIO:
        """Its bytes, unverified. Raises `NotThere`."""
        ...

    def named(self, name: str) -> bytes | None:
        """A file that is carried beside the blobs: the lock, the golden answers."""
        ...

    def named_everywhere(self, name: str) -> list[tuple[str, bytes]]:
        """Every copy of such a file, with where it is: they may differ, as signatures that came one by one do."""
        ...


class Window(io.RawIOBase):
    """`length` bytes of an open file from where it stands; closing closes the file."""

    def __init__(self, file: BinaryIO, length: int) -> None:
        self._file, self._left = file, length

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        data = self._file.read(min(len(buffer), self._left))
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def window(path: Path, *, start: int, length: int | None) -> BinaryIO:
    """A stream over part of a file."""
    file = path.open("rb")
    file.seek(start)
    return file if length is None else io.BufferedReader(Window(file, length), CHUNK_BYTES)


class BlobFolder:
    """The toolkit's store."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.where = str(root)

    def path(self, digest: Digest) -> Path:
        return self.root / "blobs" / "sha256" / hex_of(digest)

    def arriving(self, digest: Digest) -> Path:
        return self.root / "incoming" / hex_of(digest)

    def size(self, digest: Digest) -> int | None:
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            return None

    def open(self, digest: Digest, *, start: int = 0, length: int | None = None) -> BinaryIO:
        try:
            return window(self.path(digest), start=start, length=length)
        except FileNotFoundError as error:
            raise NotThere(f"`{digest}` is not in {self.root}") from error

    def sizes(self) -> dict[Digest, int]:
        """Every whole blob here, whatever lock it is of, with its length in bytes."""
        paths = (self.root / "blobs" / "sha256").glob("[0-9a-f]" * 64)
        return {Digest(f"sha256:{path.name}"): path.stat().st_size for path in paths}

    def named(self, name: str) -> bytes | None:
        try:
            return (self.root / name).read_bytes()
        except FileNotFoundError:
            return None

    def named_everywhere(self, name: str) -> list[tuple[str, bytes]]:
        data = self.named(name)
        return [] if data is None else [(str(self.root / name), data)]

    def write_named(self, name: str, data: bytes) -> None:
        write_atomically(self.root / name, data)

    def add(self, data: bytes) -> Digest:
        """Put small bytes that are already here; a second time does nothing."""
        digest = digest_of(data)
        if self.size(digest) is None:
            write_atomically(self.path(digest), data)
        return digest

    def adopt(self, digest: Digest) -> None:
        """Move what arrived, and was verified, to where whole blobs are."""
        with told_os_errors(self.path(digest)):
            self.path(digest).parent.mkdir(parents=True, exist_ok=True)
            self.arriving(digest).replace(self.path(digest))

    @property
    def arrived_bytes(self) -> int:
        """What blobs that are still arriving take on the disk already."""
        partial = (self.root / "incoming").glob("*"), (self.root / "blobs" / "sha256").glob(f"*{PARTIAL}")
        return sum(path.stat().st_blocks * 512 for path in itertools.chain(*partial))


class Unwritten(BlobFolder):
    """A store that is looked into and not written to: for saying what would be done."""

    def add(self, data: bytes) -> Digest:
        return digest_of(data)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Nobody else writes into `folder` meanwhile: two runs would write into the same half-arrived files.

    The kernel lets go of it when the process ends in whatever way. Raises `Partial` when another run holds it.
    """
    with told_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Partial(
                f"another sie-airgap is writing into {folder}", hint="run the same command again when it has ended"
            ) from error
        except OSError:
            pass  # a network file system without locks on folders: there it is left to whoever starts two runs
        yield
    finally:
        os.close(handle)


def fill(
    store: BlobFolder,
    digest: Digest,
    size_bytes: int,
    read_from: Callable[[int], BinaryIO],
    *,
    label: str,
    where: str,
    advance: Advance,
) -> None:
    """Bring one blob into the store, going on where an earlier run stopped.

    Args:
        read_from: opens the source at a byte.
        label, where: how messages call the blob and the source.

    Raises:
        TrustError: the source holds other bytes. What arrived is removed; the source is left alone.
    """
    target = store.arriving(digest)
    target.parent.mkdir(parents=True, exist_ok=True)
    resumed = target.exists() and target.stat().st_size > 0
    have = _append(target, size_bytes, read_from, advance)
    if have != (digest, size_bytes) and resumed:
        advance(-have[1])  # what an earlier run left may be the bad part: once more, from the source alone
        target.unlink()
        have = _append(target, size_bytes, read_from, advance)
    if have != (digest, size_bytes):
        target.unlink()
        raise TrustError(
            f"{label} is not what was locked",
            where=where,
            want=f"{digest}  {size_bytes:,} bytes",
            have=f"{have[0]}  {have[1]:,} bytes",
        )
    store.adopt(digest)


def _append(
    target: Path, size_bytes: int, read_from: Callable[[int], BinaryIO], advance: Advance
) -> tuple[Digest, int]:
    """Append to `target` what it lacks of the source; the digest and length of the whole."""
    with told_os_errors(target), _reopened(target) as file, WriteBehind(file.fileno()) as behind:
        running = Hashing()
        while chunk := file.read(CHUNK_BYTES):
            running.update(chunk)
            advance(len(chunk))
        if running.size_bytes < size_bytes:
            with read_from(running.size_bytes) as source:
                # A source that goes on beyond the length is as wrong as one that ends before it: one byte shows.
                while chunk := source.read(min(CHUNK_BYTES, size_bytes + 1 - running.size_bytes)):
                    behind.write(chunk, running.size_bytes)
                    running.update(chunk)
                    advance(len(chunk))
    return running.digest, running.size_bytes


def _reopened(path: Path) -> io.FileIO:
    """To read and to write what may be there already."""
    path.touch()
    return path.open("r+b", buffering=0)


def write_atomically(path: Path, data: bytes) -> None:
    """All of it or nothing, and on the disk when this returns."""
    with told_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with draft.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)


@contextmanager
def told_os_errors(path: Path) -> Iterator[None]:
    """What the operating system refuses while writing, as our errors, with the folder named."""
    try:
        yield
    except OSError as error:
        if error.errno in _REFUSED:
            raise NoPermission(f"{path}: {error.strerror}", hint="write somewhere else, or as another user") from error
        if error.errno not in _FULL:
            raise
        raise NoSpace(
            f"{path}: {error.strerror}", hint="free some space and run the same command again: it goes on from here"
        ) from error


def need_space(folder: Path, bytes_needed: int) -> None:
    """Raises `NoSpace`, before anything is written, when `folder` cannot take that much."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < bytes_needed:
        raise NoSpace(
            f"{folder} has {free:,} bytes free, {bytes_needed:,} are needed",
            hint="nothing was written; free some space or name another folder",
        )


def write_lock(path: Path, lock: Lock) -> Digest:
    """`airgap.lock`, and beside it its digest in the form that `sha256sum -c` reads; nothing where both are there.

    The old digest goes first and the new one comes last: a process killed between leaves a lock without a digest
    beside it, never one with another's, which would count as edited.
    """
    data = encode_lock(lock)
    digest = digest_of(data)
    beside, told = path.with_name(path.name + ".sha256"), f"{hex_of(digest)}  {path.name}\n".encode()
    if _has(beside, told) and _has(path, data):
        return digest
    with told_os_errors(beside):
        beside.unlink(missing_ok=True)
    write_atomically(path, data)
    write_atomically(beside, told)
    return digest


def _has(path: Path, data: bytes) -> bool:
    return path.is_file() and path.read_bytes() == data


def read_plain(path: Path) -> bytes:
    """All of a file. Raises `FileNotFoundError`, and `Misused` for what has no end or none that anybody knows."""
    if path.exists() and not path.is_file():
        raise Misused(f"{path} is not a file: a folder, a device or a pipe", hint="name the file itself")
    return path.read_bytes()


def read_lock(path: Path) -> Lock:
    """The lock of a file.

    Raises:
        Incomplete: there is no such file.
        Misused: it is a folder, a device or a pipe.
        TrustError: it was edited: its form is not a lock's, or its digest is not the one written beside it.
    """
    try:
        data = read_plain(path)
    except FileNotFoundError as error:
        raise Incomplete(f"there is no lock at {path}", hint="`sie-airgap lock` writes one") from error
    lock = decode_lock(data, where=str(path))
    _check_beside(path, data)
    return lock


def _check_beside(path: Path, data: bytes) -> None:
    beside = path.with_name(path.name + ".sha256")
    if not beside.exists():
        return
    want, have = beside.read_text("utf-8").split(" ")[0], hex_of(digest_of(data))
    if want != have:
        raise TrustError(
            "the lock is not as it was written",
            where=str(path),
            want=f"sha256:{want}  (from {beside.name})",
            have=f"sha256:{have}",
            hint="a lock is never edited by hand; `sie-airgap lock` writes it again",
        )


def lock_of(blobs: Blobs) -> Lock:
    """The lock that a store or an archive is for. Raises `Incomplete` where it has none."""
    if isinstance(blobs, BlobFolder):
        return read_lock(blobs.root / LOCK_NAME)
    data = blobs.named(LOCK_NAME)
    if data is None:
        raise Incomplete(f"{blobs.where} holds no lock")
    return decode_lock(data, where=blobs.where)
