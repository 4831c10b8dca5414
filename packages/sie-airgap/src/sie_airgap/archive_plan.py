"""How blobs are laid out on volumes: which volume holds what, and at which byte.

Pure: the same blobs and the same size give the same layout, so that one volume can be cut again alone.

A volume is a plain tar. `VOLUME.json` is its first member, padded with spaces so that its length is known
before the offsets in it are. A blob goes whole onto the first volume with room for it; one that fits on no
volume is cut into parts that fill volumes of their own, and its rest goes where there is room.
"""

import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from msgspec import Struct

from sie_core.artifacts.digest import Digest, hex_of, parse_digest
from sie_core.artifacts.manifest import canonical_json, parse_path

INDEX_NAME = "VOLUME.json"
LOCK_NAME = "airgap.lock"
ARCHIVE_VERSION = 1
BLOCK_BYTES = 512
SMALLEST_VOLUME_BYTES = 1 << 20
MEDIA_BYTES: Mapping[str, int] = {
    "fat32": (1 << 32) - 1,  # the longest file FAT32 can hold
    "dvd": 4_690_000_000,  # 4,700,372,992 on DVD+R, less the file system's own
    "bd25": 24_200_000_000,  # 24,220,008,448 with defect management on, less the file system's own
}
_SIZE = re.compile(r"(\d+)\s*([kmgt]?)(i?)b?", re.IGNORECASE)
_MEMBER_INDEX_BYTES = 560
"""No entry of `VOLUME.json` is longer: three digests, a name and four numbers are 446 bytes at most."""


class Member(Struct, frozen=True, forbid_unknown_fields=True):
    """One member of a volume after `VOLUME.json`.

    Attributes:
        name: in the tar: `airgap.lock`, `blobs/sha256/<hex>`, `parts/sha256/<hex>.<i>-<n>`.
        offset: of its first byte in the volume.
        size_bytes: how many bytes stand here.
        digest: of these bytes.
        blob: the blob that they are, or are part of.
        blob_offset: where in the blob they belong.
        blob_size_bytes: the length of the whole blob.
    """

    name: str
    offset: int
    size_bytes: int
    digest: Digest
    blob: Digest
    blob_offset: int
    blob_size_bytes: int

    @property
    def whole(self) -> bool:
        return self.size_bytes == self.blob_size_bytes


class Volume(Struct, frozen=True, forbid_unknown_fields=True):
    """What `VOLUME.json` says.

    Attributes:
        archive: the archive's name.
        lock: the digest of the lock whose content is carried.
        number: of this volume, from 1.
        volumes: the names of all volumes.
        size_bytes: of the whole volume.
        named: files carried beside what the lock names, by name: the lock itself, the golden answers.
        members: in the order in which they stand.
    """

    version: int
    archive: str
    lock: Digest
    number: int
    volumes: tuple[str, ...]
    size_bytes: int
    named: Mapping[str, Digest]
    members: tuple[Member, ...]

    @property
    def name(self) -> str:
        return self.volumes[self.number - 1]


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


def parse_volume_size(text: str) -> int:
    """`dvd`, `bd25`, `fat32`, or a size: `700MB` (decimal), `4GiB` (binary).

    Raises:
        ValueError: neither, or too small to hold anything.
    """
    if text.lower() in MEDIA_BYTES:
        return MEDIA_BYTES[text.lower()]
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"`{text}` is not a size: want {', '.join(MEDIA_BYTES)}, or a number like `700MB` or `4GiB`")
    power = "kmgt".find(match[2].lower()) + 1 if match[2] else 0
    size_bytes: int = int(match[1]) * (1024 if match[3] else 1000) ** power
    if size_bytes < SMALLEST_VOLUME_BYTES:
        raise ValueError(f"`{text}` is {size_bytes} bytes; the smallest volume is {SMALLEST_VOLUME_BYTES} bytes")
    return size_bytes


def lay_out(blobs: Sequence[tuple[Digest, int]], *, volume_bytes: int, reserved_bytes: int) -> list[list[Piece]]:
    """The pieces on each volume, in order.

    Args:
        blobs: digest and size in bytes, each digest once, in the order wanted.
        volume_bytes: the most a volume may be, everything included.
        reserved_bytes: what every volume carries besides (the lock).

    Raises:
        ValueError: nothing would fit.
    """
    promised = 0
    while True:
        room = volume_bytes - _fixed_bytes(promised) - _cost(reserved_bytes)
        if room <= _cost(1):
            raise ValueError(f"a volume of {volume_bytes} bytes has no room beside {reserved_bytes} bytes on every one")
        volumes = _filled(blobs, room)
        if len(volumes) <= promised:
            return volumes
        promised = len(volumes) * 2


def _filled(blobs: Sequence[tuple[Digest, int]], room: int) -> list[list[Piece]]:
    opened: list[_Open] = [_Open(room)]
    most = room - 3 * BLOCK_BYTES - _MEMBER_INDEX_BYTES
    most -= most % BLOCK_BYTES
    for digest, size_bytes in blobs:
        for piece in _pieces(digest, size_bytes, most):
            for volume in opened:
                if volume.free_bytes >= _cost(piece.size_bytes):
                    break
            else:
                volume = _Open(room)
                opened.append(volume)
            volume.take(piece)
    return [volume.pieces for volume in opened]


def _pieces(digest: Digest, size_bytes: int, most: int) -> Iterator[Piece]:
    """The blob whole, or parts of `most` bytes and a rest."""
    count = max(1, -(-size_bytes // most))
    for index in range(count):
        start = index * most
        yield Piece(digest, size_bytes, start, min(most, size_bytes - start), index + 1, count)


def member_header(name: str, size_bytes: int) -> bytes:
    """The tar header of a member: everything that could differ from one machine to the next is zero."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size_bytes, 0o444, 0
    return info.tobuf(tarfile.PAX_FORMAT)


def padding(size_bytes: int) -> int:
    """How many zero bytes follow a member of that length."""
    return -size_bytes % BLOCK_BYTES


def with_offsets(volume: Volume, pieces: Sequence[Piece], digests: Mapping[Piece, Digest]) -> Volume:
    """`volume` with its members at their offsets and its size. `digests`: of parts; a whole blob has its own."""
    position = len(member_header(INDEX_NAME, 0)) + _index_bytes(len(pieces), len(volume.volumes))
    members = []
    for piece in pieces:
        position += len(member_header(piece.member_name, piece.size_bytes))
        members.append(
            Member(
                name=piece.member_name,
                offset=position,
                size_bytes=piece.size_bytes,
                digest=piece.blob if piece.of == 1 else digests[piece],
                blob=piece.blob,
                blob_offset=piece.start,
                blob_size_bytes=piece.blob_size_bytes,
            )
        )
        position += piece.size_bytes + padding(piece.size_bytes)
    return msgspec.structs.replace(volume, members=tuple(members), size_bytes=position + 2 * BLOCK_BYTES)


def encode_volume(volume: Volume) -> bytes:
    """`VOLUME.json`: canonical JSON, padded with spaces to the length the offsets count on."""
    data = canonical_json(volume).rstrip(b"\n")
    size_bytes = _index_bytes(len(volume.members), len(volume.volumes))
    if len(data) >= size_bytes:
        raise ValueError(f"the index of volume {volume.number} has {len(data)} bytes, {size_bytes} were kept for it")
    return data + b" " * (size_bytes - len(data) - 1) + b"\n"


def decode_volume(data: bytes) -> Volume:
    """Raises `ValueError` for what no volume says of itself."""
    try:
        volume = msgspec.json.decode(data, type=Volume)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"not a volume's index: {error}") from error
    if volume.version != ARCHIVE_VERSION:
        raise ValueError(f"the archive is of version {volume.version}, this toolkit reads {ARCHIVE_VERSION}")
    if not 1 <= volume.number <= len(volume.volumes):
        raise ValueError(f"volume number {volume.number} of {len(volume.volumes)}")
    for name in (*volume.volumes, *volume.named):
        if "/" in parse_path(name):
            raise ValueError(f"`{name}` is not a file name")
    for member in volume.members:
        parse_path(member.name)
        _check_member(member, volume.size_bytes)
    for digest in (volume.lock, *volume.named.values()):
        parse_digest(digest)
    return volume


def _check_member(member: Member, volume_bytes: int) -> None:
    parse_digest(member.digest)
    parse_digest(member.blob)
    end = member.offset + member.size_bytes
    if min(member.offset, member.size_bytes, member.blob_offset) < 0 or end > volume_bytes:
        raise ValueError(f"`{member.name}` ends at byte {end} of a volume of {volume_bytes}")
    if member.blob_offset + member.size_bytes > member.blob_size_bytes:
        raise ValueError(f"`{member.name}` goes beyond its blob of {member.blob_size_bytes} bytes")
    if member.whole and member.digest != member.blob:
        raise ValueError(f"`{member.name}` is said to be {member.blob} and to hold {member.digest}")


def volume_name(number: int) -> str:
    return f"v{number:04d}.tar"


def _cost(size_bytes: int) -> int:
    """The most bytes that a member of that length takes from a volume, its entry in the index included."""
    header_bytes = BLOCK_BYTES if size_bytes < 8 << 30 else 3 * BLOCK_BYTES
    return header_bytes + size_bytes + padding(size_bytes) + _MEMBER_INDEX_BYTES


def _index_bytes(members: int, volumes: int) -> int:
    length = 1024 + members * _MEMBER_INDEX_BYTES + volumes * 16
    return length + padding(length)


def _fixed_bytes(volumes: int) -> int:
    """What a volume takes before its first member and after its last."""
    return BLOCK_BYTES + _index_bytes(0, volumes) + BLOCK_BYTES + 2 * BLOCK_BYTES
