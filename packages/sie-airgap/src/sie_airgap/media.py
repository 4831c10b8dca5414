"""Read an archive from its volumes: any of them, in any order, under any name, from read-only media.

A volume is known by its first member, not by its file's name. `read_media` looks at every file it is given
and says which are volumes, which are damaged and which belong to another archive; `Media` then gives out
blobs straight from the volumes, whole ones and those cut into parts alike, without unpacking anything. What a
machine cannot read of a medium (`Unreadable`) is told with the volume's name, as damage is.
"""

import io
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from sie_airgap.archive_plan import BLOCK_BYTES, INDEX_NAME, LOCK_NAME, Member, Volume, decode_volume
from sie_airgap.failures import Expected, Incomplete, raise_all
from sie_core.artifacts.digest import CHUNK_BYTES, Digest, digest_of
from sie_core.artifacts.errors import NotThere, TransferError, TrustError
from sie_core.artifacts.lock import Lock, decode_lock
from sie_core.artifacts.stores.streams import Body

_MOST_INDEX_BYTES = 1 << 30


class Unreadable(TransferError):
    """The machine cannot read a volume: a scratched disc, a stick that was pulled out."""

    transient = False

    def __init__(self, path: Path, error: Exception) -> None:
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


@dataclass(frozen=True)
class Placed:
    """A member and the file it stands in."""

    path: Path
    member: Member

    def open(self, *, start: int = 0) -> BinaryIO:
        """Its bytes from `start`. Raises `Unreadable`, the stream too."""
        with told_unreadable(self.path):
            file = self.path.open("rb")
            file.seek(self.member.offset + start)
        body = Body(
            file.read,
            file.close,
            translate=lambda error: Unreadable(self.path, error),
            failures=(OSError,),
            limit_bytes=self.member.size_bytes - start,
        )
        return cast(BinaryIO, body)


@dataclass
class Media:
    """The volumes that were found.

    Attributes:
        where: the folders and files that were named.
        volumes: path to index, for every sound volume; a second copy of one is here too.
        refused: what is wrong with the others.
        lock: what the archive is for.
    """

    where: str
    volumes: dict[Path, Volume]
    refused: list[Expected]
    lock: Lock
    lock_digest: Digest
    pieces: dict[Digest, dict[int, list[Placed]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for path, volume in self.volumes.items():
            for member in volume.members:
                places = self.pieces.setdefault(member.blob, {}).setdefault(member.blob_offset, [])
                places.append(Placed(path, member))

    @property
    def archive(self) -> str:
        return next(iter(self.volumes.values())).archive

    def size(self, digest: Digest) -> int | None:
        """None when it, or a part of it, is on no volume that is here."""
        chain = self.chain(digest)
        return None if chain is None else sum(placed.member.size_bytes for placed in chain)

    def chain(self, digest: Digest) -> list[Placed] | None:
        """The members that make up a blob, in order; None when one is missing."""
        places, position, found = self.pieces.get(digest, {}), 0, []
        while position in places:
            placed = places[position][0]
            found.append(placed)
            position += placed.member.size_bytes
            if position == placed.member.blob_size_bytes:
                return found
            if placed.member.size_bytes == 0:
                return None
        return None

    def open(self, digest: Digest, *, start: int = 0, length: int | None = None) -> BinaryIO:
        chain = self.chain(digest)
        if chain is None:
            raise NotThere(f"`{digest}` is on no volume of {self.where}")
        end = sum(placed.member.size_bytes for placed in chain)
        stop = end if length is None else min(end, start + length)
        return io.BufferedReader(_Chained(chain, start, stop), CHUNK_BYTES)

    def named(self, name: str) -> bytes | None:
        for path, volume in self.volumes.items():
            for member in volume.members:
                if member.name == name:
                    return _named_bytes(Placed(path, member), name)
        return None

    def missing_volumes(self) -> tuple[str, ...]:
        """The names of the volumes that the others speak of and that are not here."""
        named = {name for volume in self.volumes.values() for name in volume.volumes}
        return tuple(sorted(named - {volume.name for volume in self.volumes.values()}))


class _Chained(io.RawIOBase):
    """Bytes `start` to `stop` of a blob whose members stand one after the other in several files."""

    def __init__(self, chain: Sequence[Placed], start: int, stop: int) -> None:
        self._chain, self._position, self._stop = chain, start, stop
        self._open: tuple[Placed, BinaryIO] | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        if self._position >= self._stop:
            return 0
        data = self._current().read(min(len(buffer), self._stop - self._position))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _current(self) -> BinaryIO:
        """The stream of the member that the next byte stands in."""
        for placed in self._chain:
            member = placed.member
            if member.blob_offset <= self._position < member.blob_offset + member.size_bytes:
                break
        if self._open is None or self._open[0] is not placed:
            self._close_file()
            self._open = placed, placed.open(start=self._position - placed.member.blob_offset)
        return self._open[1]

    def _close_file(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def close(self) -> None:
        self._close_file()
        super().close()


def read_media(paths: Sequence[Path]) -> Media:
    """Find the volumes among `paths` (files, or folders that are looked into).

    Raises:
        Incomplete: there is not one volume, or none holds the lock that it names.
        TrustError, Unreadable: not one of them is sound.
    """
    volumes: dict[Path, Volume] = {}
    refused: list[Expected] = []
    for path in _files(paths):
        try:
            volume = read_index(path)
        except (TrustError, Unreadable) as error:
            refused.append(error)
            continue
        if volume is not None:
            volumes[path] = volume
    where = ", ".join(str(path) for path in paths)
    if not volumes:
        raise_all(refused)
        raise Incomplete(
            f"no volume of an archive in {where}", hint="name the folder or the .tar files that `pack` wrote"
        )
    lock, digest = _lock(volumes, refused)
    for path, volume in list(volumes.items()):
        if volume.lock != digest:
            refused.append(_foreign(path, volume, digest))
            del volumes[path]
    return Media(where=where, volumes=volumes, refused=refused, lock=lock, lock_digest=digest)


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(one for one in path.iterdir() if one.is_file() and not one.name.startswith("."))
        elif path.exists():
            yield path
        else:
            raise Incomplete(f"there is nothing at {path}", hint="name a store, or the media that `pack` wrote")


def read_index(path: Path) -> Volume | None:
    """A file's `VOLUME.json`; None for a file that is not a volume.

    Raises:
        TrustError: it is a volume, and damaged where its index is, or cut short.
        Unreadable: nobody can tell.
    """
    with told_unreadable(path), path.open("rb") as file:
        header = file.read(BLOCK_BYTES)
        if not header.startswith(INDEX_NAME.encode() + b"\0"):
            return None
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
            volume = decode_volume(file.read(min(info.size, _MOST_INDEX_BYTES)))
        except (tarfile.HeaderError, ValueError) as error:
            raise TrustError(
                f"`{INDEX_NAME}` of a volume cannot be read",
                where=str(path),
                want="the index that `pack` wrote",
                have=str(error),
                hint="carry this volume again; the others stay usable",
            ) from error
        have = path.stat().st_size
    if have < volume.size_bytes:
        raise TrustError(
            f"volume `{volume.name}` is cut short",
            where=str(path),
            want=f"{volume.size_bytes:,} bytes",
            have=f"{have:,} bytes",
            hint="carry this volume again; the others stay usable",
        )
    return volume


def _lock(volumes: dict[Path, Volume], refused: list[Expected]) -> tuple[Lock, Digest]:
    """The lock of the archive that most volumes belong to; the first in order of name where that is even."""
    counted = [volume.lock for volume in volumes.values()]
    for digest in sorted(set(counted), key=lambda one: (-counted.count(one), counted.index(one))):
        for path, volume in volumes.items():
            member = next((one for one in volume.members if (one.name, one.digest) == (LOCK_NAME, digest)), None)
            if volume.lock != digest or member is None:
                continue
            try:
                data = _named_bytes(Placed(path, member), LOCK_NAME)
                return decode_lock(data, where=f"{path}: {LOCK_NAME}"), digest
            except (TrustError, Unreadable) as error:
                refused.append(error)
    raise_all(refused)
    raise Incomplete("no volume holds the lock it belongs to")


def _named_bytes(placed: Placed, name: str) -> bytes:
    with placed.open() as stream:
        data = stream.read()
    if digest_of(data) != placed.member.digest:
        raise altered(placed, digest_of(data), label=f"`{name}`")
    return data


def altered(placed: Placed, have: Digest, *, label: str) -> TrustError:
    """A member that does not hash to what it must."""
    return TrustError(
        f"{label} is not what was locked",
        where=f"{placed.path}: {placed.member.name}, bytes from {placed.member.offset:,}",
        want=placed.member.digest,
        have=have,
        hint=f"carry `{placed.path.name}` again; what is on the other volumes stays usable",
    )


def _foreign(path: Path, volume: Volume, lock: Digest) -> TrustError:
    return TrustError(
        f"`{volume.name}` is a volume of another archive, `{volume.archive}`",
        where=str(path),
        want=f"lock {lock}",
        have=f"lock {volume.lock}",
        hint="verify and unpack one archive at a time",
    )
