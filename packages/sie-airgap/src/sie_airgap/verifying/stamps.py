"""By what a file is known again whose bytes were read before, and when that is believed. Pure.

Whoever writes to a file changes its ctime, which no program can put back as it can the mtime. So a file of the same
device, inode, length, mtime and ctime holds the bytes that it held; what goes bad on the disk itself does not show,
and `verify --deep` reads everything.
"""

import msgspec
from msgspec import Struct

SETTLED_NS = 2_000_000_000
"""A file is not remembered sooner after it was written: within one tick of a clock it could change unseen."""
_COARSE_NS = 1_000_000
"""Times that are whole milliseconds come from a file system that keeps no finer ones, or no ctime: FAT, exFAT, old
ext3. Nothing there is remembered."""
_VERSION = 1


class Stamp(Struct, frozen=True, forbid_unknown_fields=True):
    """What the operating system says of a file; times since 1970."""

    device: int
    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int

    def is_settled(self, now_ns: int) -> bool:
        """Whether a later change would show. A file of the future never is: some clock was wrong."""
        return self.ctime_ns % _COARSE_NS != 0 and max(self.mtime_ns, self.ctime_ns) <= now_ns - SETTLED_NS


class _Record(Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    files: dict[str, Stamp]


def encode_stamps(files: dict[str, Stamp]) -> bytes:
    return msgspec.json.encode(_Record(_VERSION, files), order="sorted")


def decode_stamps(data: bytes) -> dict[str, Stamp]:
    """Nothing for what cannot be read: then everything is read again."""
    try:
        record = msgspec.json.decode(data, type=_Record)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    return record.files if record.version == _VERSION else {}
