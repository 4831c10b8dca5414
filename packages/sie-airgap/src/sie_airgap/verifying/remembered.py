"""Which files were read and found right, and have not been written to since: of a store, a folder, an archive.

Kept in this user's folder of states and never beside what was read: a disk that is carried on does not vouch for
itself. Nothing is remembered of a medium that can be changed for its twin: a disc and the copy of that disc, or a
stick and its image, show the same device, inodes and times, and one of them may be scratched.

    verified/<of the place's path>.json      {"version":1,"files":{"sha256:…":{"device":…,"inode":…,…}}}
"""

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Lock

from sie_airgap.store.blobs import write_atomically
from sie_airgap.verifying.stamps import Stamp, decode_stamps, encode_stamps
from sie_core.artifacts.errors import TransferError

SYS = Path("/sys")


def record_of(state: Path, *places: Path) -> Path:
    """Where the record of a store, or of what is read together, lies under the toolkit's folder of states."""
    resolved = sorted(bytes(place.resolve()) for place in places)
    return state / "verified" / (hashlib.sha256(b"\0".join(resolved)).hexdigest()[:16] + ".json")


def stamp_of(descriptor: int, *, sys: Path = SYS) -> Stamp | None:
    """Of an open file: by name, another could be meant a moment later. None where its stamp says nothing."""
    now = os.fstat(descriptor)
    if os.fstatvfs(descriptor).f_flag & os.ST_RDONLY or is_exchangeable(now.st_dev, sys=sys):
        return None
    return Stamp(now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)


def is_exchangeable(device: int, *, sys: Path = SYS) -> bool:
    """Whether a disk can be pulled out, or its medium changed; as far as the kernel knows the disk."""
    there = (sys / "dev" / "block" / f"{os.major(device)}:{os.minor(device)}").resolve()
    removable = [folder / "removable" for folder in (there, there.parent)]  # of a partition, the disk says it
    is_removable = any(path.is_file() and path.read_text().strip() == "1" for path in removable)
    return is_removable or any(part.startswith("usb") for part in there.parts)


class Remembered:
    """What one verification knows from earlier ones, and leaves to later ones.

    Args:
        path: the record; None: nothing is known, and nothing is kept.
        deep: nothing that is known counts.
        now_ns: when this verification began, by the clock that files are dated by.

    Attributes:
        count, size_bytes: of the files that were known and not read.
    """

    def __init__(self, path: Path | None = None, *, deep: bool = False, now_ns: int = 0) -> None:
        self._path, self._now_ns = path, now_ns
        self._known: dict[str, Stamp] = {}
        self._right: dict[str, Stamp] = {}
        self._guard = Lock()
        self.count = self.size_bytes = 0
        if path is not None and not deep:
            with suppress(OSError):  # whatever the reason: everything is read then
                self._known = decode_stamps(path.read_bytes())

    def holds(self, key: str, stamp: Stamp | None, *, is_file: bool = True) -> bool:
        """Whether that very file was read before and was right.

        Args:
            key: what it was right as.
            is_file: all of it; else it is not counted.
        """
        if stamp is None or self._known.get(key) != stamp:
            return False
        with self._guard:
            self._right[key] = stamp
            if is_file:
                self.count += 1
                self.size_bytes += stamp.size_bytes
        return True

    def note(self, key: str, before: Stamp | None, after: Stamp | None) -> None:
        """A file was read and is right; it stood so before and after."""
        if before is not None and before == after and before.is_settled(self._now_ns):
            with self._guard:
                self._right[key] = before

    def keep(self, say: Callable[[str], object]) -> None:
        """Nothing but what was right this time; `say` is told where that cannot be written."""
        if self._path is None:
            return
        try:
            write_atomically(self._path, encode_stamps(self._right))
        except (TransferError, OSError) as error:
            say(f"note: what was read is not remembered: {error}")
