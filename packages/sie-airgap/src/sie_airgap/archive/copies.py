"""A blob out of its members, each of which may stand on several volumes.

Where there is one copy of a member, it is given out as it is: whoever reads it knows the blob's digest. Where there
are more, each MiB is held against the CRC in its volume's `CHUNKS`, and comes from the first copy where it is right.
"""

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast
from zlib import crc32

from sie_airgap.archive.damage import altered
from sie_airgap.archive.volume_format import CHUNK_BYTES, Member, Volume, chunks_of
from sie_airgap.archive.volume_reader import Unreadable, read_checks, told_unreadable
from sie_core.artifacts.errors import TrustError
from sie_core.artifacts.stores.streams import Body


@dataclass(frozen=True)
class Placed:
    """A member, and the volume and the file it stands in."""

    path: Path
    volume: Volume
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
class CrcsOf:
    """The CRCs that the members of volumes must have; each volume's are read once."""

    _by_volume: dict[Path, dict[str, Sequence[int]]] = field(default_factory=dict)

    def __call__(self, placed: Placed) -> Sequence[int] | None:
        """One a MiB; None where the volume's `CHUNKS` are damaged. Raises `Unreadable`."""
        if placed.path not in self._by_volume:
            self._by_volume[placed.path] = _crcs(placed.path, placed.volume)
        return self._by_volume[placed.path].get(placed.member.name)


def _crcs(path: Path, volume: Volume) -> dict[str, Sequence[int]]:
    checks = read_checks(path, volume)
    found: dict[str, Sequence[int]] = {}
    first = 0
    if checks is None:
        return found
    for member in volume.members:
        last = first + chunks_of(member.size_bytes)
        found[member.name] = checks.crcs[first:last]
        first = last
    return found


PassedOver = Callable[[Placed, Placed, str], None]
"""Told of a copy that is damaged, of the one that was read in its place, and what is wrong."""


_Wrong = tuple[Placed, str, TrustError | Unreadable]


class _Soundest(io.RawIOBase):
    """A member from wherever each MiB of it is right. Copies whose CRCs are not known come last, unchecked."""

    def __init__(self, copies: Sequence[Placed], start: int, crcs: CrcsOf, passed_over: PassedOver) -> None:
        self._copies: list[tuple[Placed, Sequence[int] | None]] = []
        self._lost: list[_Wrong] = []
        for one in copies:
            try:
                self._copies.append((one, crcs(one)))
            except Unreadable as error:
                self._lost.append((one, "cannot be read", error))
        self._copies.sort(key=lambda one: one[1] is None)
        self._passed_over = passed_over
        self._position, self._end = start, copies[0].member.size_bytes
        self._chunk: tuple[int, bytes] = -1, b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        number, skipped = divmod(self._position, CHUNK_BYTES)
        if self._position >= self._end:
            return b""
        if self._chunk[0] != number:
            self._chunk = number, self._sound(number)
        data = self._chunk[1][skipped:] if size < 0 else self._chunk[1][skipped : skipped + size]
        self._position += len(data)
        return data

    def _sound(self, number: int) -> bytes:
        wrong = list(self._lost)
        for placed, crcs in self._copies:
            try:
                data = _chunk(placed, number)
            except OSError as error:
                wrong.append((placed, "cannot be read", Unreadable(placed.path, error)))
                continue
            have = crc32(data)
            if crcs is not None and have != crcs[number]:
                wrong.append((placed, "is damaged", _altered(placed, number, crcs[number], have)))
                continue
            for other, why, _ in wrong:
                self._passed_over(other, placed, why)
            return data
        raise wrong[0][2]


def _chunk(placed: Placed, number: int) -> bytes:
    start = number * CHUNK_BYTES
    length = min(CHUNK_BYTES, placed.member.size_bytes - start)
    descriptor = os.open(placed.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(descriptor, length, placed.member.offset + start)
    finally:
        os.close(descriptor)


def _altered(placed: Placed, number: int, want: int, have: int) -> TrustError:
    return altered(
        placed.path,
        placed.member,
        (number,),
        label=f"`{placed.member.name}`",
        want=f"CRC-32 {want:08x}",
        have=f"CRC-32 {have:08x}",
    )


class Chained(io.RawIOBase):
    """Bytes `start` to `stop` of a blob whose members stand one after the other in several files.

    Args:
        members: the copies of each member, in the blob's order.
    """

    def __init__(
        self, members: Sequence[Sequence[Placed]], start: int, stop: int, crcs: CrcsOf, passed_over: PassedOver
    ) -> None:
        self._members, self._position, self._stop = members, start, stop
        self._crcs, self._passed_over = crcs, passed_over
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
        for copies in self._members:
            member = copies[0].member
            if member.blob_offset <= self._position < member.blob_offset + member.size_bytes:
                break
        if self._open is None or self._open[0] is not copies[0]:
            self._close_file()
            self._open = copies[0], self._opened(copies, self._position - copies[0].member.blob_offset)
        return self._open[1]

    def _opened(self, copies: Sequence[Placed], start: int) -> BinaryIO:
        if len(copies) == 1:
            return copies[0].open(start=start)
        return cast(BinaryIO, _Soundest(copies, start, self._crcs, self._passed_over))

    def _close_file(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def close(self) -> None:
        self._close_file()
        super().close()
