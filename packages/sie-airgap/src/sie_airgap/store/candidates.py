"""Which files that lie on a disk may be one of the lock: judged by length and name, proved by nothing but its digest.

Pure. A hub cache names a blob by git's sha1, by sha256, or by a hash of its own that says nothing of the content;
a plain folder names files as the repository does. `disk_source` finds the files and reads them.
"""

from collections.abc import Iterable
from enum import IntEnum

from msgspec import Struct

from sie_core.artifacts.digest import hex_of
from sie_core.artifacts.hf_layout import snapshot_folder
from sie_core.artifacts.lock import LockedFile, LockedModel

_ON_ITS_WAY = (".incomplete", ".lock", ".refs", ".metadata")


class Likeness(IntEnum):
    """How much a file's name promises, the most first."""

    NAMED_BY_CONTENT = 0
    SAME_FILE = 1
    SAME_PATH = 2
    SAME_LENGTH = 3


class Found(Struct, frozen=True, order=True):
    """A file below the folder that was named.

    Attributes:
        path: as it is seen there, POSIX.
        real: where its bytes are: itself, or what a link leads to.
        size_bytes: their length.
    """

    path: str
    real: str
    size_bytes: int


def is_on_its_way(name: str) -> bool:
    """Whether a hub's client keeps its own notes, or half a file, under that name."""
    return name.endswith(_ON_ITS_WAY)


def candidates(found: Iterable[Found], model: LockedModel, file: LockedFile) -> list[tuple[Likeness, Found]]:
    """Those of the right length, the likeliest first; each place once."""
    ranked: dict[str, tuple[Likeness, Found]] = {}
    for one in sorted((_likeness(one.path, model, file), one) for one in found if one.size_bytes == file.size_bytes):
        ranked.setdefault(one[1].real, one)
    return sorted(ranked.values())


def _likeness(path: str, model: LockedModel, file: LockedFile) -> Likeness:
    folders, _, name = path.rpartition("/")
    if name in (hex_of(file.digest), file.hub_id):
        return Likeness.NAMED_BY_CONTENT
    if not f"/{path}".endswith(f"/{file.path}"):
        return Likeness.SAME_LENGTH
    in_cache = snapshot_folder(model.repo, model.revision).partition("/")[0]
    of_model = in_cache in folders.split("/") or f"/{path}".endswith(f"/{model.repo}/{file.path}")
    return Likeness.SAME_FILE if of_model else Likeness.SAME_PATH
