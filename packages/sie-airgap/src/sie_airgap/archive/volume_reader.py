"""Read a volume of an archive: its index, and any of its bytes checked against the CRCs that it carries.

`Checked` is for bytes that have no digest of their own, as the parts of a blob have none: what it gives out was
what `pack` wrote, or somebody altered it on purpose, which the blob's digest shows. Where damage is, it says so by
chunk and leaves the rest readable.
"""

import os
import re
import tarfile
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple
from zlib import crc32

from sie_airgap.archive.parity_format import MEMBER_NAME, PARITY_INDEX_NAME, Parity, decode_parity, encode_parity
from sie_airgap.archive.volume_format import (
    BLOCK_BYTES,
    CHUNK_BYTES,
    INDEX_NAME,
    Checks,
    Member,
    Volume,
    chunks_of,
    decode_tail,
    decode_volume,
    encode_head,
    encode_tail,
    encode_volume,
    member_header,
    padding,
    tail_bytes,
)
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.errors import NoPermission, TransferError, TrustError

MOST_INDEX_BYTES = 1 << 28
"""An index of 800,000 members; nobody's memory is filled by a length that lies."""
_CALLED_A_VOLUME = re.compile(r"[vp][0-9]{4}\.tar")
Index = Volume | Parity


class Unreadable(TransferError):
    """The machine cannot read a volume: a scratched disc, a stick that was pulled out."""

    transient = False

    def __init__(self, path: Path, error: Exception) -> None:
        if isinstance(error, PermissionError):
            self.exit_code = NoPermission.exit_code
        why = error.strerror if isinstance(error, OSError) else None
        super().__init__(
            f"{path} cannot be read: {why or error}",
            hint=f"is the medium in place? Else carry `{path.name}` again; the other volumes stay usable",
        )


@contextmanager
def told_unreadable(path: Path) -> Iterator[None]:
    """An `OSError` inside becomes `Unreadable`."""
    try:
        yield
    except OSError as error:
        raise Unreadable(path, error) from error


def read_index(path: Path) -> Index | None:
    """What a file says that it is, a volume or a parity volume; None for a file that is neither.

    Raises:
        TrustError: it is one, and damaged where its index is, or cut short.
        Unreadable: nobody can tell.
    """
    with told_unreadable(path), path.open("rb") as file:
        header = file.read(BLOCK_BYTES)
        for name, decode in _DECODERS.items():
            if header.startswith(name.encode() + b"\0"):
                return _index(path, file, header, name, decode)
    if _CALLED_A_VOLUME.fullmatch(path.name):
        raise _index_damaged(path, INDEX_NAME, f"a file that begins with {header[:16]!r}")
    return None


_DECODERS: dict[str, Callable[[bytes], Index]] = {INDEX_NAME: decode_volume, PARITY_INDEX_NAME: decode_parity}


def _index(path: Path, file: BinaryIO, header: bytes, name: str, decode: Callable[[bytes], Index]) -> Index:
    have_bytes = os.fstat(file.fileno()).st_size
    try:
        size_bytes = tarfile.TarInfo.frombuf(header, "utf-8", "strict").size
        if size_bytes > min(have_bytes, MOST_INDEX_BYTES):
            raise ValueError(f"an index of {size_bytes:,} bytes in a file of {have_bytes:,}")
        data = file.read(size_bytes)
        index = decode(data)
        if header + data + file.read(padding(size_bytes)) != encode_head(name, data):
            raise ValueError("the header before it is not one that `pack` writes")
    except (tarfile.HeaderError, ValueError) as error:
        raise _index_damaged(path, name, str(error)) from error
    if have_bytes != index.size_bytes:
        raise _wrong_length(path, index, have_bytes)
    checks = _checks_or_none(file, index)
    if checks is not None and checks.head != digest_of(encode_head(name, data)):
        raise _index_damaged(path, name, f"{digest_of(encode_head(name, data))}, want {checks.head}")
    return index


def _index_damaged(path: Path, name: str, have: str) -> TrustError:
    return TrustError(
        f"`{name}`, the index of this volume, is damaged",
        where=f"{path}: bytes from 0",
        want="the index that `pack` wrote",
        have=have,
        hint=f"carry `{path.name}` again, or `sie-airgap repair` makes it good from parity; the others stay usable",
    )


def _wrong_length(path: Path, index: Index, have_bytes: int) -> TrustError:
    return TrustError(
        f"volume `{index.name}` is cut short" if have_bytes < index.size_bytes else f"`{index.name}` goes on too long",
        where=str(path),
        want=f"{index.size_bytes:,} bytes",
        have=f"{have_bytes:,} bytes",
        hint=f"carry `{index.name}` again, or `sie-airgap repair` makes it good from parity; the others stay usable",
    )


def _checks_or_none(file: BinaryIO, index: Index) -> Checks | None:
    """What `CHUNKS` says; None when it is damaged itself."""
    file.seek(index.tail_offset)
    try:
        checks = decode_tail(file.read(tail_bytes(index.chunks)))
    except ValueError:
        return None
    return checks if len(checks.crcs) == index.chunks else None


def read_checks(path: Path, index: Index) -> Checks | None:
    """What `CHUNKS` of a volume says; None when that is damaged. Raises `Unreadable`."""
    with told_unreadable(path), path.open("rb") as file:
        return _checks_or_none(file, index)


class Damaged(Exception):
    """A chunk of a volume that is not what was written, or that the machine cannot read."""


class _Stretch(NamedTuple):
    """Bytes of a volume: a member with the number of its first chunk, or what the index implies."""

    start: int
    size_bytes: int
    first_chunk: int
    implied: bytes | None


class Checked:
    """Bytes of a volume, given out only when they are what was written.

    Members are read from the file and held against their CRCs; the rest of the tar is made from the index, and so
    is right whatever the file has there. Chunks are numbered as in `CHUNKS`.

    Raises:
        Unreadable: when opened, for a file that is not there.
    """

    def __init__(self, path: Path, index: Index, checks: Checks) -> None:
        self.path, self.index, self._checks = path, index, checks
        self._stretches = list(_stretches(index, checks))
        self._starts = [stretch.start for stretch in self._stretches]
        with told_unreadable(path):
            self._file = path.open("rb", buffering=0)
        self._kept: tuple[int, bytes] = -1, b""

    def close(self) -> None:
        self._file.close()

    def read(self, start: int, length: int) -> bytes:
        """Of the volume, less at its end. Raises `Damaged`."""
        found: list[bytes] = []
        end = min(start + length, self.index.size_bytes)
        while start < end:
            stretch = self._stretches[bisect_right(self._starts, start) - 1]
            skipped = start - stretch.start
            if stretch.implied is not None:
                data = stretch.implied[skipped : skipped + end - start]
            else:
                number, skipped = divmod(skipped, CHUNK_BYTES)
                data = self._chunk(stretch, number)[skipped : skipped + end - start]
            found.append(data)
            start += len(data)
        return b"".join(found) if len(found) != 1 else found[0]

    def chunks(self, member: Member) -> Iterator[tuple[int, int, int]]:
        """Of a member: number in `CHUNKS`, the first byte within the member, length."""
        stretch = self._stretches[bisect_right(self._starts, member.offset) - 1]
        for number in range(chunks_of(member.size_bytes)):
            start = number * CHUNK_BYTES
            yield stretch.first_chunk + number, start, min(CHUNK_BYTES, member.size_bytes - start)

    def crc(self, number: int) -> int:
        """That a chunk must have."""
        return self._checks.crcs[number]

    def crc_there(self, offset: int, length: int) -> int | None:
        """That the file has there; None when the machine cannot read it."""
        try:
            return crc32(os.pread(self._file.fileno(), length, offset))
        except OSError:
            return None

    def _chunk(self, stretch: _Stretch, number: int) -> bytes:
        kept, data = self._kept
        if kept == stretch.first_chunk + number:
            return data
        start = number * CHUNK_BYTES
        wanted = min(CHUNK_BYTES, stretch.size_bytes - start)
        try:
            data = os.pread(self._file.fileno(), wanted, stretch.start + start)
        except OSError as error:
            raise Damaged from error
        if len(data) != wanted or crc32(data) != self._checks.crcs[stretch.first_chunk + number]:
            raise Damaged
        self._kept = stretch.first_chunk + number, data
        return data


def _stretches(index: Index, checks: Checks) -> Iterator[_Stretch]:
    """A volume from its first byte to its last."""
    if isinstance(index, Volume):
        before = encode_head(INDEX_NAME, encode_volume(index))
        members = [(member.name, member.size_bytes) for member in index.members]
    else:
        before = encode_head(PARITY_INDEX_NAME, encode_parity(index))
        members = [(MEMBER_NAME, index.parity_bytes)]
    position = chunk = 0
    for name, size_bytes in members:
        before += member_header(name, size_bytes)
        yield _Stretch(position, len(before), 0, before)
        position += len(before)
        if size_bytes:
            yield _Stretch(position, size_bytes, chunk, None)
        position, chunk = position + size_bytes, chunk + chunks_of(size_bytes)
        before = bytes(padding(size_bytes))
    before += encode_tail(checks)
    yield _Stretch(position, len(before), 0, before)
