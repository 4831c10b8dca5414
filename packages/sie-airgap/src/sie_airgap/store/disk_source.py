"""Files of a lock that are on this disk already: a hub cache of any version, or a folder with models in it.

What is there is only read, and believed for nothing but its digest. A link is followed to the blobs of its own
cache and to nowhere else.
"""

import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from sie_airgap.store.candidates import Found, Likeness, candidates, is_on_its_way
from sie_airgap.store.cores import Advance, on_all_cores
from sie_core.artifacts.digest import Digest, digest_of_stream
from sie_core.artifacts.errors import NotThere, TrustError, Unreachable
from sie_core.artifacts.lock import LockedFile, LockedModel
from sie_core.artifacts.manifest import is_plain
from sie_core.artifacts.stores.local import LocalStore
from sie_core.artifacts.transfer import fetch_file

Say = Callable[[str], object]
_SHOWN = 5


class DiskSource:
    """What lies below one folder, looked through once."""

    def __init__(self, folder: Path, *, say: Say) -> None:
        self.folder = folder.resolve()
        self._cache = _cache_around(self.folder)
        self._say = say
        self._hashed: dict[str, Digest] = {}
        self._by_size = self._looked_through()

    def likely(self, model: LockedModel, file: LockedFile) -> list[tuple[Likeness, Found]]:
        """Where its bytes may be, the likeliest first."""
        return candidates(self._by_size.get(file.size_bytes, ()), model, file)

    def copy(self, model: LockedModel, file: LockedFile, target: Path, *, advance: Advance) -> bool:
        """Bring one file to `target`, verified; False when it is not here.

        Raises:
            NoSpace, NoPermission: `target` cannot be written.
        """
        for likeness, found in self.likely(model, file):
            if likeness is Likeness.SAME_LENGTH and self._digest(found) != file.digest:
                continue
            real = Path(found.real)
            if not os.access(real, os.R_OK):
                self._say(f"{real} may not be read; `{file.path}` of `{model.id}` is taken from elsewhere")
                continue
            try:
                fetch_file(
                    LocalStore(real.parent), real.name, target, file.entry, progress=lambda _, moved: advance(moved)
                )
            except (NotThere, Unreachable) as error:
                self._say(f"{error.message}; `{file.path}` of `{model.id}` is taken from elsewhere")
            except TrustError as error:
                if likeness is Likeness.NAMED_BY_CONTENT:
                    self._say(f"{self.folder / found.path} is not what its name says: it holds {error.have}")
            else:
                return True
        return False

    def _digest(self, found: Found) -> Digest | None:
        """What it hashes to; None when it cannot be read. Each file is hashed once."""
        if found.real not in self._hashed:
            try:
                with Path(found.real).open("rb") as stream:
                    self._hashed[found.real] = digest_of_stream(stream)[0]
            except OSError:
                return None
        return self._hashed[found.real]

    def _looked_through(self) -> dict[int, list[Found]]:
        by_size: dict[int, list[Found]] = {}
        refused: list[str] = []
        for parent, folders, names in os.walk(self.folder):
            linked = [name for name in folders if (Path(parent) / name).is_symlink()]
            refused += [f"{Path(parent) / name} is a link to a folder" for name in linked]
            for name in names:
                found = None if is_on_its_way(name) else self._found(Path(parent) / name, refused)
                if found is not None:
                    by_size.setdefault(found.size_bytes, []).append(found)
        for text in refused[:_SHOWN]:
            self._say(f"not read: {text}")
        if refused[_SHOWN:]:
            self._say(f"not read: {len(refused) - _SHOWN} more links that lead out of {self._cache}")
        return by_size

    def _found(self, path: Path, refused: list[str]) -> Found | None:
        """The file at a path, or behind the link there; None for what is no file, or none of ours to read."""
        if not is_plain(str(path)) or "\\" in path.name:
            return None
        try:
            real = path.resolve(strict=True)
            about = real.stat()
        except (OSError, RuntimeError):  # a link to nowhere, or in a circle
            return None
        if not stat.S_ISREG(about.st_mode):
            return None
        if path.is_symlink() and not self._may_be_read(real):
            refused.append(f"{path} leads out of {self._cache}, to {real}")
            return None
        return Found(path.relative_to(self.folder).as_posix(), str(real), about.st_size)

    def _may_be_read(self, real: Path) -> bool:
        """Whether a link's end is below the folder, or is a blob of the cache that the folder is part of."""
        if real.is_relative_to(self.folder):
            return True
        return real.is_relative_to(self._cache) and "blobs" in real.relative_to(self._cache).parts[:-1]


def _cache_around(folder: Path) -> Path:
    """The hub cache that a folder is in, when it is a repository's or lies in one; else the folder itself."""
    for place in (folder, *folder.parents):
        if place.name.startswith("models--"):
            return place.parent
    return folder


def copy_all(
    source: DiskSource,
    files: Sequence[tuple[LockedModel, LockedFile]],
    target_of: Callable[[Digest], Path],
    *,
    advance: Advance,
) -> list[tuple[LockedModel, LockedFile]]:
    """Bring those that are there, one a core at a time; what was not there."""

    def copied(one: tuple[LockedModel, LockedFile], moved: Advance) -> bool:
        return source.copy(*one, target_of(one[1].digest), advance=moved)

    are_there = on_all_cores(copied, files, advance=advance)
    return [one for one, is_there in zip(files, are_there, strict=True) if not is_there]
