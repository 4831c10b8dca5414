"""What has to be copied so that a place holds what a manifest says: values in, values out.

A plan goes by size alone, which a listing gives for nothing. A file of the right size is a candidate, not
evidence: `transfer` reads it, or relies on a manifest that was written after everything had been read.
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from sie_core.artifacts.digest import Digest
from sie_core.artifacts.manifest import FileEntry, Manifest


class Conflict(Struct, frozen=True, order=True):
    """A file that is there under the right path with the wrong length."""

    path: str
    want_bytes: int
    have_bytes: int


class Plan(Struct, frozen=True):
    """What to do, each part sorted by path.

    Attributes:
        copies: to be copied: what is missing, and what is in conflict.
        present: there, with the right length.
        conflicts: there, with another length; their copies replace them.
        strays: there, and not in the manifest; they are left alone.
    """

    copies: tuple[FileEntry, ...]
    present: tuple[FileEntry, ...]
    conflicts: tuple[Conflict, ...]
    strays: tuple[str, ...]

    @property
    def is_done(self) -> bool:
        return not self.copies

    @property
    def copy_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.copies)


def plan(manifest: Manifest, present: Mapping[str, int]) -> Plan:
    """Compare a manifest with a listing.

    Args:
        manifest: what must be there.
        present: path within the snapshot → length in bytes, as listed.
    """
    copies, there, conflicts = [], [], []
    for entry in manifest.files:
        have_bytes = present.get(entry.path)
        if have_bytes == entry.size_bytes:
            there.append(entry)
            continue
        copies.append(entry)
        if have_bytes is not None:
            conflicts.append(Conflict(path=entry.path, want_bytes=entry.size_bytes, have_bytes=have_bytes))
    strays = present.keys() - {entry.path for entry in manifest.files}
    return Plan(copies=tuple(copies), present=tuple(there), conflicts=tuple(conflicts), strays=tuple(sorted(strays)))


def shared(
    copies: Sequence[FileEntry], held: Mapping[Digest, str]
) -> tuple[tuple[FileEntry, ...], tuple[FileEntry, ...]]:
    """Which files are sent, and which are copied afterwards where they go: the place has their contents by then.

    Args:
        held: contents that the place has under another name already.
    """
    known = set(held)
    sent, copied = [], []
    for entry in copies:
        if entry.digest in known and entry.size_bytes:  # an empty file is sent sooner than copied
            copied.append(entry)
        else:
            known.add(entry.digest)
            sent.append(entry)
    return tuple(sent), tuple(copied)
