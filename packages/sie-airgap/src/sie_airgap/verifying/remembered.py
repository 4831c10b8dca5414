"""Which blobs of a store were read and found right, and have not been written to since.

Kept in this user's folder of states and never beside the store: a disk that is carried on does not vouch for itself.

    verified/<of the store's path>.json      {"version":1,"files":{"sha256:…":{"device":…,"inode":…,…}}}
"""

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sie_airgap.store.blobs import write_atomically
from sie_airgap.verifying.stamps import Stamp, decode_stamps, encode_stamps
from sie_core.artifacts.digest import Digest
from sie_core.artifacts.errors import TransferError


def record_of(state: Path, store: Path) -> Path:
    """Where the record of a store lies, under the toolkit's folder of states."""
    return state / "verified" / (hashlib.sha256(bytes(store.resolve())).hexdigest()[:16] + ".json")


def stamp_of(descriptor: int) -> Stamp:
    """Of an open file: by name, another could be meant a moment later."""
    now = os.fstat(descriptor)
    return Stamp(now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)


class Remembered:
    """What one verification knows from earlier ones, and leaves to later ones.

    Args:
        path: the record; None: nothing is known, and nothing is kept.
        deep: nothing that is known counts.
        now_ns: when this verification began, by the clock that files are dated by.

    Attributes:
        count, size_bytes: of the blobs that were known and not read.
    """

    def __init__(self, path: Path | None = None, *, deep: bool = False, now_ns: int = 0) -> None:
        self._path, self._now_ns = path, now_ns
        self._known: dict[Digest, Stamp] = {}
        self._right: dict[Digest, Stamp] = {}
        self.count = self.size_bytes = 0
        if path is not None and not deep:
            with suppress(OSError):  # whatever the reason: everything is read then
                self._known = decode_stamps(path.read_bytes())

    def holds(self, digest: Digest, stamp: Stamp) -> bool:
        """Whether that very file was read before and was right."""
        if self._known.get(digest) != stamp:
            return False
        self._right[digest] = stamp
        self.count += 1
        self.size_bytes += stamp.size_bytes
        return True

    def note(self, digest: Digest, before: Stamp, after: Stamp) -> None:
        """A file was read and is right; it stood so before and after."""
        if before == after and before.is_settled(self._now_ns):
            self._right[digest] = before

    def keep(self, say: Callable[[str], object]) -> None:
        """Nothing but what was right this time; `say` is told where that cannot be written."""
        if self._path is None:
            return
        try:
            write_atomically(self._path, encode_stamps(self._right))
        except (TransferError, OSError) as error:
            say(f"note: what was read is not remembered: {error}")
