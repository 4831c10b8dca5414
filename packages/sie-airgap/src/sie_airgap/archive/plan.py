"""How blobs are laid out on volumes: which volume holds what, and at which byte.

Pure: the same blobs and the same size give the same layout, so that one volume can be cut again alone.

A blob goes whole onto a volume with room for it. One that fits on no volume is cut: its odd rest stands first and
goes where there is room, the parts after it fill volumes of their own. So the parts of a blob stand on the volumes in
the blob's order, and whoever writes one volume after the other reads and hashes the blob once.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from sie_airgap.archive.medium import VolumeSize
from sie_airgap.archive.parity_format import overhead_bytes
from sie_airgap.archive.volume_format import (
    BLOCK_BYTES,
    CRC_LINE_BYTES,
    MEMBER_INDEX_BYTES,
    MOST_VOLUMES,
    Member,
    Volume,
    chunks_of,
    index_bytes,
    offsets,
    padding,
    tail_bytes,
)
from sie_core.artifacts.digest import Digest, hex_of

_LOOKED_BACK = 32
"""Volumes with room that a blob is offered: all of them would take the square of their number."""


@dataclass(frozen=True)
class Piece:
    """A blob or a part of one, before it has an offset. `number` of `of` parts."""

    blob: Digest
    blob_size_bytes: int
    start: int
    size_bytes: int
    number: int = 1
    of: int = 1
    name: str = ""

    @property
    def member_name(self) -> str:
        if self.name:
            return self.name
        hexed = hex_of(self.blob)
        return f"blobs/sha256/{hexed}" if self.of == 1 else f"parts/sha256/{hexed}.{self.number}-{self.of}"


@dataclass
class _Open:
    """A volume that is being filled."""

    free_bytes: int
    pieces: list[Piece] = field(default_factory=list)

    def take(self, piece: Piece) -> None:
        self.pieces.append(piece)
        self.free_bytes -= _cost(piece.size_bytes)


def lay_out(
    blobs: Sequence[tuple[Digest, int]], *, volume_bytes: int, reserved_bytes: Sequence[int]
) -> list[list[Piece]]:
    """The pieces on each volume, in order.

    A parity volume fits the same medium: it is a little longer than the longest volume it stands for, which the
    volumes leave free whether there will be one or not.

    Args:
        blobs: digest and size in bytes, each digest once, in the order wanted.
        volume_bytes: the most a volume may be, everything included.
        reserved_bytes: the lengths of what every volume carries besides (the lock).

    Raises:
        ValueError: nothing would fit, or there would be more volumes than there are names.
    """
    reserved = sum(_cost(size_bytes) for size_bytes in reserved_bytes)
    promised = 0
    while True:
        most = volume_bytes - overhead_bytes(promised, volume_bytes)
        room = most - BLOCK_BYTES - index_bytes(1) - tail_bytes(0) - BLOCK_BYTES - reserved
        if room <= _cost(BLOCK_BYTES):
            raise ValueError(
                f"a volume of {volume_bytes:,} bytes has no room beside {sum(reserved_bytes):,} bytes on every one"
            )
        volumes = _filled(blobs, room)
        if len(volumes) > MOST_VOLUMES:
            raise ValueError(f"{len(volumes):,} volumes of {volume_bytes:,} bytes; {MOST_VOLUMES:,} are the most")
        if len(volumes) <= promised:
            return volumes
        promised = len(volumes) * 2


def lay_out_on(
    size: VolumeSize,
    blobs: Sequence[tuple[Digest, int]],
    *,
    reserved_bytes: Sequence[int],
    beside_bytes: Callable[[int], int],
) -> list[list[Piece]]:
    """`lay_out` on media of a size. Where a medium holds all, what stands beside the volume has room there, too.

    Args:
        beside_bytes: the most that stands beside a volume, by the number of volumes.

    Raises:
        ValueError: as `lay_out`.
    """
    left_bytes = 0
    while True:
        volumes = lay_out(blobs, volume_bytes=size.most_bytes - left_bytes, reserved_bytes=reserved_bytes)
        needed = beside_bytes(len(volumes)) if size.holds_all else 0
        if needed <= left_bytes:
            return volumes
        left_bytes = needed


def _filled(blobs: Sequence[tuple[Digest, int]], room: int) -> list[list[Piece]]:
    volumes = [_Open(room)]
    with_room: deque[_Open] = deque(volumes, maxlen=_LOOKED_BACK)
    most = room - _cost(0) - 3 * BLOCK_BYTES - CRC_LINE_BYTES * chunks_of(room)
    most -= most % BLOCK_BYTES
    for digest, size_bytes in blobs:
        for piece in _pieces(digest, size_bytes, most):
            volume = next((one for one in with_room if one.free_bytes >= _cost(piece.size_bytes)), None)
            if volume is None:
                volume = _Open(room)
                volumes.append(volume)
                if piece.size_bytes < most:
                    with_room.append(volume)
            volume.take(piece)
    return [volume.pieces for volume in volumes]


def _pieces(digest: Digest, size_bytes: int, most: int) -> Iterator[Piece]:
    """The blob whole, or a rest and parts of `most` bytes."""
    count = max(1, -(-size_bytes // most))
    end = size_bytes - (count - 1) * most
    start = 0
    for number in range(1, count + 1):
        yield Piece(digest, size_bytes, start, end - start, number, count)
        start, end = end, end + most


def _cost(size_bytes: int) -> int:
    """The most bytes that a member of that length takes from a volume, its entry in the index and CRCs included."""
    header_bytes = BLOCK_BYTES if size_bytes < 8 << 30 else 3 * BLOCK_BYTES
    beside_bytes = MEMBER_INDEX_BYTES + CRC_LINE_BYTES * chunks_of(size_bytes)
    return header_bytes + size_bytes + padding(size_bytes) + beside_bytes


def with_offsets(volume: Volume, pieces: Sequence[Piece]) -> Volume:
    """`volume` with its members at their offsets, and its size."""
    *places, end = offsets([(piece.member_name, piece.size_bytes) for piece in pieces])
    members = tuple(
        Member(
            name=piece.member_name,
            offset=offset,
            size_bytes=piece.size_bytes,
            blob=piece.blob,
            blob_offset=piece.start,
            blob_size_bytes=piece.blob_size_bytes,
        )
        for piece, offset in zip(pieces, places, strict=True)
    )
    chunks = sum(chunks_of(piece.size_bytes) for piece in pieces)
    return msgspec.structs.replace(volume, members=members, size_bytes=end + tail_bytes(chunks))
