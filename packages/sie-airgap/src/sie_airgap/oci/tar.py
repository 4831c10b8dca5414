"""A tar read where it lies: its members by name, with a seek each. Nothing is extracted.

Names are only looked up, never followed: a member may be called `../../etc/passwd` and is then found by no one.
"""

import io
import posixpath
import tarfile
from pathlib import Path
from typing import BinaryIO

from sie_airgap.store.blobs import window
from sie_core.artifacts.errors import NotThere, TrustError

_COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZ": "bunzip2", b"\xfd7": "unxz", b"\x28\xb5": "unzstd"}
MOST_MEMBERS = 100_000


class Tar:
    """The plain files of a tar; hard and symbolic links inside it are seen through."""

    def __init__(self, path: Path) -> None:
        """Raises `NotThere` for no file, `TrustError` for one that is no tar or holds a name twice."""
        self.path, self.where = path, str(path)
        if path.exists() and not path.is_file():
            raise TrustError("not a tar", where=str(path), want="a plain tar", have="a folder, a device or a pipe")
        self._members: dict[str, tarfile.TarInfo] = {}
        try:
            with path.open("rb") as file:
                _refuse_compressed(file, path)
                with tarfile.open(fileobj=file, mode="r:") as tar:
                    for member in tar:
                        self._add(member)
        except FileNotFoundError as error:
            raise NotThere(f"there is no {path}") from error
        except (tarfile.TarError, EOFError, ValueError, RecursionError) as error:
            raise TrustError("not a tar that is whole", where=str(path), want="a plain tar", have=str(error)) from error
        self._size_bytes = path.stat().st_size

    def _add(self, member: tarfile.TarInfo) -> None:
        name = member.name.removeprefix("./")
        if member.isdir():
            return
        if name in self._members:
            raise TrustError("a member stands twice", where=self.where, want=f"`{name}` once", have="twice")
        if len(self._members) >= MOST_MEMBERS:
            raise ValueError(f"more than {MOST_MEMBERS:,} members")
        self._members[name] = member

    def names(self) -> frozenset[str]:
        return frozenset(self._members)

    def size(self, name: str) -> int:
        """Raises `FileNotFoundError`."""
        return self._file(name).size

    def open(self, name: str, /, *, start: int = 0) -> BinaryIO:
        """From a byte on. Raises `FileNotFoundError`, and `TrustError` where the tar ends before the member does."""
        member = self._file(name)
        if member.offset_data + member.size > self._size_bytes:
            end, have = member.offset_data + member.size, self._size_bytes
            raise TrustError("the tar is cut short", where=self.where, want=f"{end:,} bytes", have=f"{have:,} bytes")
        return window(self.path, start=member.offset_data + start, length=max(0, member.size - start))

    def _file(self, name: str) -> tarfile.TarInfo:
        member = self._members.get(name)
        for _ in range(3):  # old engines write a layer that stands twice as a link to where it stood first
            if member is None or not (member.issym() or member.islnk()):
                break
            folder = posixpath.dirname(member.name) if member.issym() else ""
            member = self._members.get(posixpath.normpath(posixpath.join(folder, member.linkname)))
        if member is None or not member.isreg() or member.sparse is not None:
            raise FileNotFoundError(f"{self.where} has no file `{name}`")
        return member


def _refuse_compressed(file: BinaryIO, path: Path) -> None:
    found = _COMPRESSED.get(file.read(2))
    file.seek(0, io.SEEK_SET)
    if found is not None:
        have = "a compressed one, in which nothing can be found without reading all of it"
        hint = f"`{found}` it first"
        raise TrustError("not a plain tar", where=str(path), want="a plain tar", have=have, hint=hint)
