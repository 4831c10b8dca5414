"""A folder read as a hub repository at one commit: which files, under which of the Hub's own ids.

A small file's id is git's sha1 of its blob. A file above the limit is kept by LFS: its content is named
by sha256, and git holds a three-line pointer, whose sha1 is the blob's id.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from sie_core.artifacts.digest import digest_of_stream, hex_of
from sie_core.ids import Revision

DEFAULT_LFS_ABOVE_BYTES = 5 << 20


@dataclass(frozen=True)
class RepositoryFile:
    """One file. `blob_id` is git's sha1; for a file kept by LFS that of the pointer, of `pointer_bytes` bytes."""

    path: str
    source: Path
    size_bytes: int
    sha256: str
    blob_id: str
    pointer_bytes: int | None

    @property
    def is_lfs(self) -> bool:
        return self.pointer_bytes is not None

    @property
    def etag(self) -> str:
        """What the Hub calls the content: the sha256 for LFS, else git's id; without quotes."""
        return self.sha256 if self.is_lfs else self.blob_id


@dataclass(frozen=True)
class Repository:
    """Everything of one repository at one commit; files sorted by path. `card`: what `README.md` begins with."""

    name: str
    commit: Revision
    files: tuple[RepositoryFile, ...]
    card: Mapping[str, object]

    def file(self, path: str) -> RepositoryFile | None:
        return next((file for file in self.files if file.path == path), None)


def git_blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def lfs_pointer(sha256: str, size_bytes: int) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size_bytes}\n".encode()


def _read_file(source: Path, path: str, *, lfs_above_bytes: int) -> RepositoryFile:
    size_bytes = source.stat().st_size
    if size_bytes <= lfs_above_bytes:
        content = source.read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        return RepositoryFile(path, source, len(content), sha256, git_blob_id(content), None)
    with source.open("rb") as stream:
        digest, size_bytes = digest_of_stream(stream)
    pointer = lfs_pointer(hex_of(digest), size_bytes)
    return RepositoryFile(path, source, size_bytes, hex_of(digest), git_blob_id(pointer), len(pointer))


def _commit_of(name: str, files: tuple[RepositoryFile, ...]) -> Revision:
    lines = [name, *(f"{file.blob_id} {file.path}" for file in files)]
    return Revision(hashlib.sha1("\n".join(lines).encode(), usedforsecurity=False).hexdigest())


def read_repository(folder: Path, name: str, *, pin: Revision | None, lfs_above_bytes: int) -> Repository:
    """The folder as it is now, as commit `pin`; without one, as a commit that follows from names and contents."""
    sources = sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file())
    files = tuple(_read_file(source, path, lfs_above_bytes=lfs_above_bytes) for path, source in sources)
    return Repository(name, pin or _commit_of(name, files), files, _card(folder / "README.md"))


def _card(readme: Path) -> Mapping[str, object]:
    """The YAML between two lines of dashes; nothing where there is none."""
    head, begin, rest = readme.read_text("utf-8").partition("---\n") if readme.is_file() else ("", "", "")
    read = yaml.safe_load(rest.partition("\n---")[0]) if begin and not head else None
    return read if isinstance(read, dict) else {}


def fingerprint(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Cheap evidence of what a folder holds, to tell when it must be read again."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            about = path.stat()
            found.append((path.as_posix(), about.st_size, about.st_mtime_ns))
    return tuple(sorted(found))
