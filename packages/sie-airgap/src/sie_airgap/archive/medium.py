"""How large a volume may be: what media hold, and sizes as people write them. Pure."""

import re
from collections.abc import Mapping
from typing import NamedTuple

SMALLEST_VOLUME_BYTES = 1 << 20
UNLIMITED_BYTES = 1 << 60
FILE_SYSTEM_BYTES = 16 << 20
"""Left to a disc's file system: ISO 9660 with UDF takes 0.9 MB for these few files, UDF alone 1.4 MB on a DVD and 7 MB
on 100 GB (genisoimage 1.1.11, mkudffs 2.3)."""


class VolumeSize(NamedTuple):
    """The most that a volume may be.

    Attributes:
        most_bytes: of the volume, or of the medium.
        holds_all: whether that is a medium's room, where the runbook and the sums must fit beside the volume.
    """

    most_bytes: int
    holds_all: bool = False


UNLIMITED = VolumeSize(UNLIMITED_BYTES)
MEDIA: Mapping[str, VolumeSize] = {
    # The longest file that FAT32 can hold; how large the stick is does not matter.
    "fat32": VolumeSize((1 << 32) - 1),
    # DVD+R: 2,295,104 sectors of 2,048 bytes. DVD-R has 3,392 more.
    "dvd": VolumeSize(4_700_372_992 - FILE_SYSTEM_BYTES, holds_all=True),
    # DVD-R DL: 4,171,712 sectors. DVD+R DL has 2,112 more.
    "dvd-dl": VolumeSize(8_543_666_176 - FILE_SYSTEM_BYTES, holds_all=True),
    # BD-R as burning programs format it by default, with spare areas for defects: 12,219,392 sectors less 768 MiB.
    "bd25": VolumeSize(24_220_008_448 - FILE_SYSTEM_BYTES, holds_all=True),
    # BD-R DL: 24,438,784 sectors less 768 MiB of spare areas a layer.
    "bd50": VolumeSize(48_440_016_896 - FILE_SYSTEM_BYTES, holds_all=True),
    # BD-R XL of three layers: 48,878,592 sectors less 768 MiB a layer.
    "bd100": VolumeSize(97_687_437_312 - FILE_SYSTEM_BYTES, holds_all=True),
}
_SIZE = re.compile(r"(\d+)\s*([kmgt]?)(i?)b?", re.IGNORECASE)


def parse_volume_size(text: str) -> VolumeSize:
    """A medium's name, or a size: `700MB` (decimal), `4GiB` (binary).

    Raises:
        ValueError: neither, or too small to hold anything.
    """
    if text.lower() in MEDIA:
        return MEDIA[text.lower()]
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"`{text}` is not a size: want {', '.join(MEDIA)}, or a number like `700MB` or `4GiB`")
    power = "kmgt".find(match[2].lower()) + 1 if match[2] else 0
    size_bytes: int = int(match[1]) * (1024 if match[3] else 1000) ** power
    if not SMALLEST_VOLUME_BYTES <= size_bytes <= UNLIMITED_BYTES:
        raise ValueError(
            f"`{text}` is {size_bytes:,} bytes; a volume has {SMALLEST_VOLUME_BYTES:,} at least "
            f"and {UNLIMITED_BYTES:,} at most"
        )
    return VolumeSize(size_bytes)
