"""What a volume is, byte by byte.

Pure. A volume is a plain tar:

    VOLUME.json    the index; padded, so that its length is known before the offsets in it are
    members        each its tar header, its bytes, and zeros up to a whole block
    CHUNKS         a CRC-32 of every MiB of every member
    zeros          two blocks, as a tar ends

Everything in the index is known before the first blob is read, and what `CHUNKS` says is known when everything
before it is written: a volume is written in one go, from blobs that are read once. Digests say whether bytes are
those of the lock; the CRCs only say where, in gigabytes, damage lies, and so are never a reason to trust.
"""

import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec
from msgspec import Struct

from sie_core.artifacts.digest import Digest, digest_of, hex_of, parse_digest
from sie_core.artifacts.manifest import canonical_json

INDEX_NAME = "VOLUME.json"
CHECKS_NAME = "CHUNKS"
ARCHIVE_VERSION = 1
BLOCK_BYTES = 512
END_BYTES = 2 * BLOCK_BYTES
CHUNK_BYTES = 1 << 20
"""What one CRC of `CHUNKS` is of, counted from the first byte of a member; damage is located to that."""
MOST_VOLUMES = 9999
MOST_NAMED_BYTES = 1 << 28
"""A file beside the blobs is held in memory; a lock of a million files is smaller."""
MEMBER_INDEX_BYTES = 336
"""No entry of `VOLUME.json` is longer: two digests, a name and four numbers are 320 bytes at most."""
_HEAD_INDEX_BYTES = 2048
"""The rest of `VOLUME.json`: numbers, the archive's name, and the files that have names of their own."""
CRC_LINE_BYTES = 9
_DIGEST_LINE_BYTES = 72
_OWN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PART = re.compile(r"parts/sha256/([0-9a-f]{64})\.([1-9][0-9]{0,6})-([1-9][0-9]{0,6})")


class Member(Struct, frozen=True, forbid_unknown_fields=True):
    """One member of a volume between `VOLUME.json` and `CHUNKS`.

    Attributes:
        name: in the tar: `airgap.lock`, `blobs/sha256/<hex>`, `parts/sha256/<hex>.<i>-<n>`.
        offset: of its first byte in the volume.
        size_bytes: how many bytes stand here.
        blob: the blob that they are, or are part of.
        blob_offset: where in the blob they belong.
        blob_size_bytes: the length of the whole blob.
    """

    name: str
    offset: int
    size_bytes: int
    blob: Digest
    blob_offset: int
    blob_size_bytes: int

    @property
    def whole(self) -> bool:
        return self.size_bytes == self.blob_size_bytes

    @property
    def end(self) -> int:
        return self.offset + self.size_bytes


class Volume(Struct, frozen=True, forbid_unknown_fields=True):
    """What `VOLUME.json` says.

    Attributes:
        archive: the archive's name.
        lock: the digest of the lock whose content is carried.
        number: of this volume, from 1.
        of: how many volumes the archive has.
        size_bytes: of the whole volume.
        named: files carried beside what the lock names, by name: the lock itself, the golden answers.
        members: in the order in which they stand.
    """

    version: int
    archive: str
    lock: Digest
    number: int
    of: int
    size_bytes: int
    named: Mapping[str, Digest]
    members: tuple[Member, ...]

    @property
    def name(self) -> str:
        return volume_name(self.number)

    @property
    def names(self) -> tuple[str, ...]:
        """Of all volumes of the archive."""
        return tuple(volume_name(number) for number in range(1, self.of + 1))

    @property
    def chunks(self) -> int:
        """How many CRCs `CHUNKS` has."""
        return sum(chunks_of(member.size_bytes) for member in self.members)

    @property
    def tail_offset(self) -> int:
        """Where `CHUNKS` begins, with its header."""
        last = self.members[-1].end if self.members else BLOCK_BYTES + index_bytes(0)
        return last + padding(last)


class Checks(Struct, frozen=True):
    """What `CHUNKS` says.

    Attributes:
        head: the digest of everything before the first member: the index and its header.
        crcs: of each MiB of each member, in order; the last of a member is of what is left of it.
    """

    head: Digest
    crcs: tuple[int, ...]


def volume_name(number: int) -> str:
    return f"v{number:04d}.tar"


def member_header(name: str, size_bytes: int) -> bytes:
    """The tar header of a member: everything that could differ from one machine to the next is zero."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size_bytes, 0o444, 0
    return info.tobuf(tarfile.PAX_FORMAT)


def padding(size_bytes: int) -> int:
    """How many zero bytes follow a member of that length."""
    return -size_bytes % BLOCK_BYTES


def index_bytes(members: int) -> int:
    """The length of a `VOLUME.json` with so many members."""
    length = _HEAD_INDEX_BYTES + members * MEMBER_INDEX_BYTES
    return length + padding(length)


def chunks_of(size_bytes: int) -> int:
    """How many chunks a member of that length has."""
    return -(-size_bytes // CHUNK_BYTES)


def tail_bytes(chunks: int) -> int:
    """What `CHUNKS` takes with so many CRCs, the end of the tar included."""
    size_bytes = 2 * _DIGEST_LINE_BYTES + CRC_LINE_BYTES * chunks
    return BLOCK_BYTES + size_bytes + padding(size_bytes) + END_BYTES


def offsets(members: Sequence[tuple[str, int]]) -> Iterator[int]:
    """Where the bytes of each member, given as name and length, stand; at last where `CHUNKS` begins."""
    position = BLOCK_BYTES + index_bytes(len(members))
    for name, size_bytes in members:
        position += len(member_header(name, size_bytes))
        yield position
        position += size_bytes + padding(size_bytes)
    yield position


def encode_head(name: str, data: bytes) -> bytes:
    """The first member of a tar of ours: its index."""
    return member_header(name, len(data)) + data + bytes(padding(len(data)))


def encode_volume(volume: Volume) -> bytes:
    """`VOLUME.json`: canonical JSON, padded with spaces to the length the offsets count on."""
    data = canonical_json(volume).rstrip(b"\n")
    size_bytes = index_bytes(len(volume.members))
    if len(data) >= size_bytes:
        raise ValueError(f"the index of volume {volume.number} has {len(data)} bytes, {size_bytes} were kept for it")
    return data + b" " * (size_bytes - len(data) - 1) + b"\n"


def decode_volume(data: bytes) -> Volume:
    """Raises `ValueError` for what `encode_volume` never writes."""
    try:
        volume = msgspec.json.decode(data, type=Volume)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not a volume's index: {error}") from error
    if volume.version != ARCHIVE_VERSION:
        raise ValueError(f"the archive is of version {volume.version}, this toolkit reads {ARCHIVE_VERSION}")
    if not 1 <= volume.number <= volume.of <= MOST_VOLUMES:
        raise ValueError(f"volume number {volume.number} of {volume.of}")
    for digest in (volume.lock, *volume.named.values()):
        parse_digest(digest)
    for name in volume.named:
        if _OWN_NAME.fullmatch(name) is None:
            raise ValueError(f"`{name}` is not a name of a file beside the blobs")
    _check_members(volume)
    if encode_volume(volume) != data:
        raise ValueError("not in the form in which `pack` writes it")
    return volume


def _check_members(volume: Volume) -> None:
    seen: set[str] = set()
    for member in volume.members:
        _check_member(member, volume)
        if member.name in seen:
            raise ValueError(f"`{member.name}` stands there twice")
        seen.add(member.name)
    *places, end = offsets([(member.name, member.size_bytes) for member in volume.members])
    for member, offset in zip(volume.members, places, strict=True):
        if member.offset != offset:
            raise ValueError(f"`{member.name}` is said to begin at byte {member.offset}, and begins at {offset}")
    end += tail_bytes(volume.chunks)
    if volume.size_bytes != end:
        raise ValueError(f"a volume of {volume.size_bytes} bytes is announced, its members make {end}")


def _check_member(member: Member, volume: Volume) -> None:
    parse_digest(member.blob)
    part = _PART.fullmatch(member.name)
    if member.name in volume.named:
        fits = member.whole and member.blob == volume.named[member.name] and member.size_bytes <= MOST_NAMED_BYTES
    elif part is not None:
        fits = part[1] == hex_of(member.blob) and 1 <= int(part[2]) <= int(part[3]) and not member.whole
    else:
        fits = member.whole and member.name == f"blobs/sha256/{hex_of(member.blob)}"
    if not fits:
        raise ValueError(f"`{member.name}` is not what a member that holds {member.blob} is called")
    if not 0 <= member.size_bytes <= volume.size_bytes:
        raise ValueError(f"`{member.name}` of {member.size_bytes} bytes is on a volume of {volume.size_bytes}")
    if not 0 <= member.blob_offset <= member.blob_size_bytes - member.size_bytes:
        raise ValueError(f"`{member.name}` goes beyond its blob of {member.blob_size_bytes} bytes")


class RunningCrcs:
    """The CRC-32 of every chunk of one member after the other."""

    def __init__(self) -> None:
        self.done: list[int] = []
        self._running, self._held_bytes = 0, 0

    def update(self, data: bytes) -> None:
        """The next bytes of a member."""
        view = memoryview(data)
        while view:
            taken, view = view[: CHUNK_BYTES - self._held_bytes], view[CHUNK_BYTES - self._held_bytes :]
            self._running = zlib.crc32(taken, self._running)
            self._held_bytes += len(taken)
            if self._held_bytes == CHUNK_BYTES:
                self._close()

    def end_member(self) -> None:
        if self._held_bytes:
            self._close()

    def _close(self) -> None:
        self.done.append(self._running)
        self._running, self._held_bytes = 0, 0


def encode_tail(checks: Checks) -> bytes:
    """`CHUNKS` and the end of the tar: two digests, of the head and of the lines before, and between them the CRCs."""
    lines = [checks.head, *(f"{crc:08x}" for crc in checks.crcs)]
    data = "".join(f"{line}\n" for line in lines).encode("ascii")
    data += f"{digest_of(data)}\n".encode("ascii")
    return encode_head(CHECKS_NAME, data) + bytes(END_BYTES)


def decode_tail(data: bytes) -> Checks:
    """Raises `ValueError` for what `encode_tail` never writes."""
    size_bytes = len(data) - BLOCK_BYTES - END_BYTES
    text = data[BLOCK_BYTES : BLOCK_BYTES + size_bytes].rstrip(b"\0")
    body = text[:-_DIGEST_LINE_BYTES]
    if text[-_DIGEST_LINE_BYTES:] != f"{digest_of(body)}\n".encode("ascii"):
        raise ValueError(f"`{CHECKS_NAME}` does not end in its own digest")
    head, *lines = body.decode("ascii", "replace").splitlines()
    checks = Checks(parse_digest(head), tuple(int(line, 16) for line in lines))
    if encode_tail(checks) != data:
        raise ValueError(f"`{CHECKS_NAME}` is not in the form in which `pack` writes it")
    return checks


def chunk_ranges(chunks: Iterable[int], size_bytes: int) -> list[tuple[int, int]]:
    """The bytes of a member of that length that these chunks are: (first, one after the last), neighbours as one."""
    found: list[tuple[int, int]] = []
    for chunk in sorted(chunks):
        start, stop = chunk * CHUNK_BYTES, min((chunk + 1) * CHUNK_BYTES, size_bytes)
        if found and found[-1][1] == start:
            found[-1] = found[-1][0], stop
        else:
            found.append((start, stop))
    return found
