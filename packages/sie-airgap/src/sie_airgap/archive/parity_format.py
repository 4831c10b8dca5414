"""Parity volumes: which volumes each stands for, and what it is byte by byte.

Pure. A parity volume is a plain tar like the others: `PARITY.json`, the member `parity`, `CHUNKS`. `parity` is the
exclusive or of the volumes it stands for, each followed by zeros to the length of the longest, so that any one of
them is the exclusive or of `parity` and the others.
"""

import msgspec
from msgspec import Struct

from sie_airgap.archive.volume_format import (
    ARCHIVE_VERSION,
    BLOCK_BYTES,
    MOST_VOLUMES,
    chunks_of,
    member_header,
    padding,
    tail_bytes,
    volume_name,
)
from sie_core.artifacts.digest import Digest, parse_digest
from sie_core.artifacts.manifest import canonical_json

PARITY_INDEX_NAME = "PARITY.json"
MEMBER_NAME = "parity"
EVERY = 10
"""Volumes to one parity volume where nobody says otherwise. One lost disc of ten can be made good, and nine are read
for it; a single parity volume for forty would have thirty-nine read, and make good one of the forty."""
_COVERED_INDEX_BYTES, _HEAD_INDEX_BYTES = 150, 400


class Covered(Struct, frozen=True, forbid_unknown_fields=True):
    """A volume that a parity volume stands for."""

    name: str
    size_bytes: int
    digest: Digest


class Parity(Struct, frozen=True, forbid_unknown_fields=True):
    """What `PARITY.json` says.

    Attributes:
        archive: the archive's name.
        lock: the digest of the lock whose content is carried.
        number: of this parity volume, from 1.
        of: how many parity volumes there are.
        volumes: those it stands for.
    """

    version: int
    archive: str
    lock: Digest
    number: int
    of: int
    volumes: tuple[Covered, ...]

    @property
    def name(self) -> str:
        return parity_name(self.number)

    @property
    def parity_bytes(self) -> int:
        return max(volume.size_bytes for volume in self.volumes)

    @property
    def offset(self) -> int:
        """Of the first byte of `parity`."""
        size_bytes = len(encode_parity(self))
        header_bytes = len(member_header(MEMBER_NAME, self.parity_bytes))
        return BLOCK_BYTES + size_bytes + padding(size_bytes) + header_bytes

    @property
    def chunks(self) -> int:
        """How many CRCs its `CHUNKS` has."""
        return chunks_of(self.parity_bytes)

    @property
    def tail_offset(self) -> int:
        """Where its `CHUNKS` begins, with its header."""
        return self.offset + self.parity_bytes + padding(self.parity_bytes)

    @property
    def size_bytes(self) -> int:
        return self.tail_offset + tail_bytes(self.chunks)


def parity_name(number: int) -> str:
    return f"p{number:04d}.tar"


def groups(volumes: int, every: int) -> list[tuple[str, ...]]:
    """The volumes that each parity volume stands for, `every` at most and about as many for each.

    Volumes that follow each other go to different ones: discs that lie beside each other get lost together.
    """
    count = -(-volumes // every)
    return [tuple(volume_name(number) for number in range(first, volumes + 1, count)) for first in range(1, count + 1)]


def overhead_bytes(volumes: int, most_bytes: int) -> int:
    """The most that a parity volume of `most_bytes` is longer than the longest volume it stands for."""
    index = _HEAD_INDEX_BYTES + volumes * _COVERED_INDEX_BYTES
    tail = tail_bytes(chunks_of(max(0, most_bytes)))
    return BLOCK_BYTES + index + padding(index) + 3 * BLOCK_BYTES + BLOCK_BYTES + tail


def encode_parity(parity: Parity) -> bytes:
    """`PARITY.json`: canonical JSON."""
    return canonical_json(parity)


def decode_parity(data: bytes) -> Parity:
    """Raises `ValueError` for what `encode_parity` never writes."""
    try:
        parity = msgspec.json.decode(data, type=Parity)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not the index of a parity volume: {error}") from error
    if parity.version != ARCHIVE_VERSION:
        raise ValueError(f"the archive is of version {parity.version}, this toolkit reads {ARCHIVE_VERSION}")
    if not 1 <= parity.number <= parity.of <= MOST_VOLUMES:
        raise ValueError(f"parity volume number {parity.number} of {parity.of}")
    names = [volume.name for volume in parity.volumes]
    known = {volume_name(number) for number in range(1, MOST_VOLUMES + 1)}
    if not names or names != sorted(set(names)) or not known.issuperset(names):
        raise ValueError(f"it stands for {', '.join(names) or 'nothing'}, want volumes in order, each once")
    parse_digest(parity.lock)
    for volume in parity.volumes:
        parse_digest(volume.digest)
        if volume.size_bytes <= 0:
            raise ValueError(f"`{volume.name}` is said to have {volume.size_bytes} bytes")
    if encode_parity(parity) != data:
        raise ValueError("not in the form in which `pack` writes it")
    return parity
